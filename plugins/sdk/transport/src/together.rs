//! The interface `naming-together`, which a transport of an exclusive place may export in addition: it implements [`Guest`], and says
//! `export!(Transport with_types_in dray_plugin_transport::together)`.

dray_plugin::wit_bindgen::generate!({
    world: "together",
    path: "wit",
    pub_export_macro: true,
    default_bindings_module: "dray_plugin_transport::together",
    runtime_path: "::dray_plugin::wit_bindgen::rt",
    with: { "dray:plugin/types@0.3.0": crate::dray::plugin::types },
});

pub use exports::dray::plugin::naming_together::{Guest, NewName};
