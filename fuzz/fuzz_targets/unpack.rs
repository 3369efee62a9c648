//! Layers that are unpacked: nothing is written outside their folder, and what was written can be read.
#![no_main]

use dray_engine::fuzzing::round_trip;
use libfuzzer_sys::fuzz_target;
use std::{fs, path::Path, sync::OnceLock};

fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir_in("/dev/shm").unwrap()).path()
}

fuzz_target!(|bytes: &[u8]| {
    let inner = folder().join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(folder().join("beside"), "as it was").unwrap();
    let _ = round_trip(&inner, bytes);
    assert!(fs::read_dir(&inner).unwrap().all(|entry| entry.unwrap().file_name() == "layer"));
    assert_eq!(fs::read_dir(folder()).unwrap().count(), 2);
    assert_eq!(fs::read_to_string(folder().join("beside")).unwrap(), "as it was");
    fs::remove_dir_all(&inner).unwrap();
});
