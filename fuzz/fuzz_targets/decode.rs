//! Compressed streams, which may also be archives: no panic, and no growth without end.
#![no_main]

use dray_engine::{decode::Plain, tar::Index};
use libfuzzer_sys::fuzz_target;
use std::io::Read;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(plain) = Plain::new(bytes) {
        let grown = std::io::copy(&mut plain.take(128 << 20), &mut std::io::sink());
        assert!(grown.is_err() || grown.is_ok_and(|grown| grown <= 128 << 20));
    }
    if let Ok(plain) = Plain::new(bytes) {
        let _ = Index::read(plain);
    }
});
