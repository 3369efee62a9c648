//! Addresses of the embedded registry: the names in them become paths, and lead nowhere else.
#![no_main]

use dray_registry::fuzzing::route;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, Option<&str>)| {
    for name in route(input.0, input.1) {
        assert!(name.split('/').all(|part| !part.is_empty() && !matches!(part, "." | "..")), "{name:?}");
        assert!(name.is_ascii() && !name.contains(['\\', '\0', '%']), "{name:?}");
        assert!(!name.split('/').any(|part| part.starts_with('.')), "{name:?}");
    }
});
