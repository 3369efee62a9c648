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
    match interfaces(&made)?.exports.is_empty() {
        false => Ok(made),
        true => Err(Error::new("make a component: it offers nothing")
            .help("hand your type to the SDK's `export!`, or export the functions of its world")),
    }
}

/// The interfaces of a component by their full names, such as `dray:plugin/tag-filter@0.3.0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// What it needs.
    pub imports: Vec<String>,
    /// What it offers.
    pub exports: Vec<String>,
}

/// The interfaces that a component imports and exports.
///
/// # Errors
/// Fails if the bytes are no component.
pub fn interfaces(component: &[u8]) -> Result<Interfaces> {
    let wrong = |error: &dyn std::fmt::Display| Error::new(format!("read the component: {error}"));
    let decoded = wit_component::decode(component).map_err(|error| wrong(&format!("{error:#}")))?;
    let wit_component::DecodedWasm::Component(resolve, world) = decoded else {
        return Err(wrong(&"it is a package of WIT"));
    };
    let names = |items: &wit_parser::IndexMap<wit_parser::WorldKey, wit_parser::WorldItem>| {
        items.keys().map(|key| resolve.name_world_key(key)).collect()
    };
    let world = &resolve.worlds[world];
    Ok(Interfaces { imports: names(&world.imports), exports: names(&world.exports) })
}
