//! Makes a component from a core module.

use crate::{Error, Result};

/// A core module begins so, and a component with other numbers (WebAssembly core specification 5.5.16; component model, binary format).
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// The component of a core module that holds its world in a custom section, as wit-bindgen writes it. What is a component already
/// stays as it is.
///
/// # Errors
/// Fails if the bytes are no WebAssembly, or if the module does not fill its world.
pub fn component(wasm: Vec<u8>) -> Result<Vec<u8>> {
    if !wasm.starts_with(MODULE) {
        return match wasm.starts_with(b"\0asm") {
            true => Ok(wasm),
            false => Err(Error::new("make a component: what was built is no WebAssembly")),
        };
    }
    let made = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&wasm)
        .and_then(|mut encoder| encoder.encode());
    let made = made.map_err(|error| {
        Error::new(format!("make a component: {error:#}"))
            .help("is the type handed to the SDK's `export!`, and does it fill the whole world of its kind?")
    })?;
    match is_empty(&made)? {
        false => Ok(made),
        true => Err(Error::new("make a component: it offers nothing")
            .help("hand your type to the SDK's `export!`, or export the functions of its world")),
    }
}

/// Whether a component exports nothing.
fn is_empty(component: &[u8]) -> Result<bool> {
    let wrong = |error: &dyn std::fmt::Display| Error::new(format!("read the component: {error}"));
    match wit_component::decode(component).map_err(|error| wrong(&format!("{error:#}")))? {
        wit_component::DecodedWasm::Component(resolve, world) => Ok(resolve.worlds[world].exports.is_empty()),
        wit_component::DecodedWasm::WitPackage(..) => Err(wrong(&"it is a package of WIT")),
    }
}
