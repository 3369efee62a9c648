//! What plugins read of strangers' documents: indexes of layouts and lists of docker save. An instance
//! that panics is told by name, and yet none should.
#![no_main]
#![allow(dead_code, unused_imports, reason = "a target uses a part of a plugin")]

use dray_plugin_transport::{
    Error,
    dray::plugin::types::{Descriptor, Manifest},
    exports::dray::plugin::sink::Naming,
    last, layout as index, named, serde, serde_json, split_tag, tagged, unsigned,
};
use libfuzzer_sys::fuzz_target;

#[path = "../../plugins/transport/docker-archive/src/saved.rs"]
mod saved;

fuzz_target!(|bytes: &[u8]| {
    let _ = named(bytes);
    let _ = index::subject(bytes);
    if let Ok(mut index) = index::Index::parse("layout", bytes) {
        for repository in index.repositories("layout") {
            for tag in index.tags("layout", &repository) {
                let _ = index.find("layout", &repository, Some(&tag));
            }
        }
        let _ = index.roots();
        let digest = format!("sha256:{}", "0".repeat(64));
        let tag = Naming::Tag("new".into());
        let name = index::to_name("layout".into(), digest, &unsigned("m", Vec::new()), tag);
        index.name("layout", &[name.expect("it has a tag")]);
        // What is written is read again, with the same images.
        let written = index::Index::parse("layout", &index.bytes()).expect("its own bytes");
        assert_eq!(written.tags("layout", "layout"), index.tags("layout", "layout"));
    }
    let items = saved::items("archive", bytes).unwrap_or_default();
    let item = saved::item(&unsigned("m", bytes.to_vec())).ok();
    if !items.is_empty() {
        let mut more = items.clone();
        if let Some(item) = item.or(items.first().cloned()) {
            saved::add(&mut more, item, Some("r.example/new:1"));
        }
        let names = |items: &[saved::Item]| items.iter().map(|item| item.names().count()).sum::<usize>();
        assert!(names(&more) > 0);
        let saved = saved::Saved { base: String::new(), items: more };
        assert!(saved.find("archive", "r.example/new", Some("1")).is_ok_and(|found| found.is_some()));
    }
});
