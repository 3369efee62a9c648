//! WWW-Authenticate headers: no panic, and nothing that was not in the header.
#![no_main]

use dray_engine::http::challenges_of;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|header: &str| {
    for (scheme, parameters) in challenges_of(header) {
        assert!(header.contains(&scheme));
        for (key, value) in parameters {
            assert!(!key.is_empty() && header.contains(&key) && value.len() <= header.len());
        }
    }
});
