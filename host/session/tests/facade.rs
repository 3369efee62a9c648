//! What a program does that embeds dray.
#![cfg(feature = "plugins")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../../examples/embed/src/banner.rs"]
mod banner;

use dray_core::Digest;
use dray_engine::{Event, Image, Watcher};
use dray_session::{Environment, Session};
use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};
use tokio::sync::watch;

const IMAGES: &str = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/../../examples/images");

/// Keeps what was finished.
#[derive(Default)]
struct Kept(Mutex<Vec<String>>);

impl Watcher for Kept {
    fn event(&self, event: Event<'_>) {
        if let Event::Finished(copy) = event {
            self.0.lock().unwrap().push(copy.destination.clone());
        }
    }
}

fn environment(folder: &Path) -> Environment {
    let mut environment = Environment::bare(folder);
    environment.transports.insert("banner".into(), Arc::new(banner::Banner));
    environment.cache = Some(folder.join("cache"));
    environment
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_file_with_its_plugins_is_synced_and_watched() {
    let folder = tempfile::tempdir().unwrap();
    let glob = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/prebuilt/filter-glob.wasm");
    fs::copy(glob, folder.path().join("mine.wasm")).unwrap();
    fs::write(
        folder.path().join("dray.toml"),
        format!(
            "version = 1\ninclude = [\"more/*.toml\"]\n[plugin.mine]\nsource = \"mine.wasm\"\n[[rule]]\nfrom = \"{IMAGES}\"\n\
             to = \"oci:${{env:TO}}\"\ntags = [{{ filter = \"mine\", pattern = \"1.0*\" }}]\n"
        ),
    )
    .unwrap();
    fs::create_dir(folder.path().join("more")).unwrap();
    fs::write(
        folder.path().join("more/banner.toml"),
        "version = 1\n[[rule]]\nname = \"banner\"\nfrom = \"banner:hello\"\nto = \"oci:out:hello\"\n",
    )
    .unwrap();
    let variables = |name: &str| (name == "TO").then(|| "out".to_owned());
    let path = folder.path().join("dray.toml");
    let session = Session::from_policy(&path, &variables, environment(folder.path())).await.unwrap();
    let kept = Arc::new(Kept::default());
    let (_stop, stopped) = watch::channel(false);
    let report = session.sync(kept.clone(), stopped.clone()).await;
    assert_eq!((report.summary.copied, report.summary.failed), (2, 0), "{:?}", report.copies);
    assert_eq!(kept.0.lock().unwrap().len(), 2);
    // What the native transport made is there as it was made, and copied on by one call.
    let out = format!("oci:{}", folder.path().join("out").display());
    let (from, to) = (format!("{out}:hello").parse().unwrap(), format!("{out}:again").parse().unwrap());
    let report = session.copy(from, to, kept, stopped).await.unwrap();
    assert_eq!((report.summary.copied, report.summary.failed), (1, 0), "{:?}", report.copies);
    let again = Image::open(session.places(), &format!("{out}:again").parse().unwrap()).await.unwrap();
    let made = Image::open(session.places(), &"banner:hello".parse().unwrap()).await.unwrap();
    assert_eq!(again.manifest.descriptor.digest, made.manifest.descriptor.digest);
    assert!(String::from_utf8(again.config().await.unwrap()).unwrap().contains("hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_stopped_copies_nothing_and_a_mistake_has_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dray.toml");
    fs::write(&path, format!("version = 1\n[[rule]]\nfrom = \"{IMAGES}\"\nto = \"oci:out\"\n")).unwrap();
    let session = Session::from_policy(&path, &|_| None, environment(folder.path())).await.unwrap();
    let (_stop, stopped) = watch::channel(true);
    let report = session.sync(Arc::new(Kept::default()), stopped).await;
    assert_eq!(report.summary.copied, 0);

    let wrong = |text: &str| {
        fs::write(&path, text).unwrap();
        let (path, environment) = (path.clone(), environment(folder.path()));
        async move {
            let opened = Session::from_policy(&path, &|_| None, environment).await;
            opened.map(drop).unwrap_err().to_string()
        }
    };
    let told = wrong("version = 1\n[[rule]]\nfrm = \"oci:a\"\nto = \"oci:b\"\n").await;
    assert!(told.contains("dray.toml:3: ") && told.contains("frm"), "{told}");
    let pinned = format!("version = 1\n[plugin.x]\nsource = \"oci://127.0.0.1:1/x@{}\"\n", Digest::of(b""));
    let told = wrong(&pinned).await;
    assert!(told.contains("127.0.0.1:1"), "it is fetched, and cannot be reached: {told}");
    let told = wrong("version = 1\n[plugin.x]\nsource = \"oci://127.0.0.1:1/x:1\"\n").await;
    assert!(told.contains("the lock does not have it"), "{told}");
    let none = folder.path().join("none");
    assert!(Session::from_policy(&none, &|_| None, environment(folder.path())).await.is_err());
}
