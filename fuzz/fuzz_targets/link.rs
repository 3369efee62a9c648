//! Link headers, and addresses that are relative to others: no panic, and an address with a protocol.
#![no_main]
#![allow(dead_code, unused_imports, reason = "a target uses a part of a plugin")]

use dray_plugin_transport::{
    Error,
    dray::plugin::types::{Access, Manifest, Request, Response},
    exports::dray::plugin::references::Parsed,
};
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;

#[path = "../../plugins/transport/docker/src/name.rs"]
mod name;
#[path = "../../plugins/transport/docker/src/wire.rs"]
mod wire;

fuzz_target!(|links: Vec<&str>| {
    let headers = links.iter().map(|link| ("link".to_owned(), link.to_string())).collect();
    let url = "https://r.example/v2/a/tags/list?n=1000".to_owned();
    let response = Response { status: 200, headers, body: Vec::new(), url };
    if let Ok(Some(next)) = wire::next_page(&response) {
        let (scheme, _) = next.split_once("://").expect("an address");
        assert!(matches!(&*scheme.to_ascii_lowercase(), "https" | "http"), "{next}");
    }
});
