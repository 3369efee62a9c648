//! Archives: whatever is indexed lies within the archive, under a name that leads nowhere else.
#![no_main]

use dray_engine::tar::{Index, Source};
use libfuzzer_sys::fuzz_target;
use std::io::{Cursor, Read};

struct Bytes<'a>(Cursor<&'a [u8]>);

impl Read for Bytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Source for Bytes<'_> {}

fuzz_target!(|bytes: &[u8]| {
    let Ok(index) = Index::read(Bytes(Cursor::new(bytes))) else { return };
    for name in index.names() {
        assert!(!name.starts_with('/') && name.split('/').all(|part| part != ".."), "{name:?}");
        if let Ok(Some((offset, size))) = index.find(name) {
            // The last member's content is not read, so it may be cut: reading it says so.
            assert!(offset <= bytes.len() as u64 && size < 1 << 63, "{name:?}");
        }
    }
});
