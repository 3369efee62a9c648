//! What tar-split recorded: only files of the folder are read, and there is an end.
#![no_main]

use dray_engine::fuzzing::rebuild;
use libfuzzer_sys::fuzz_target;
use std::{fs, path::Path, sync::OnceLock};

fn files() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::create_dir_all(folder.path().join("usr/lib")).unwrap();
        fs::write(folder.path().join("usr/lib/large"), vec![7; 4096]).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("out")).unwrap();
        folder
    });
    folder.path()
}

fuzz_target!(|bytes: &[u8]| {
    // Every byte comes from the tar-split file itself, or from a file of 4096 bytes that a line of it names.
    if let Ok(size) = rebuild(bytes, files()) {
        assert!(size <= 4096 * bytes.len() as u64);
    }
});
