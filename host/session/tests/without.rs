//! A program that embeds dray without components, and so without wasmtime:
//! `cargo test -p dray-session --no-default-features`.
#![cfg(not(feature = "plugins"))]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../../examples/embed/src/banner.rs"]
mod banner;

use dray_engine::{Event, Image, Watcher};
use dray_session::{Environment, Session};
use std::{fs, sync::Arc};
use tokio::sync::watch;

struct Silent;

impl Watcher for Silent {
    fn event(&self, _: Event<'_>) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn transports_of_the_program_serve_and_others_say_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dray.toml");
    fs::write(&path, "version = 1\n[[rule]]\nname = \"a\"\nfrom = \"banner:hello\"\nto = \"banner:other\"\n")
        .unwrap();
    let mut environment = Environment::bare(folder.path());
    environment.transports.insert("banner".into(), Arc::new(banner::Banner));
    let session = Session::from_policy(&path, &|_| None, environment.clone()).await.unwrap();
    let image = Image::open(session.places(), &"banner:hello".parse().unwrap()).await.unwrap();
    assert!(String::from_utf8(image.config().await.unwrap()).unwrap().contains("hello"));
    // The banner takes none, which is told as with components.
    let (_stop, stopped) = watch::channel(false);
    let report = session.sync(Arc::new(Silent), stopped).await;
    assert_eq!((report.summary.copied, report.summary.failed), (0, 1));
    fs::write(&path, "version = 1\n[[rule]]\nname = \"a\"\nfrom = \"banner:hello\"\nto = \"oci:out:1\"\n")
        .unwrap();
    let opened = Session::from_policy(&path, &|_| None, environment).await;
    let told = opened.map(drop).unwrap_err().to_string();
    assert!(told.contains("use the transport oci: this program was built without components"), "{told}");
}
