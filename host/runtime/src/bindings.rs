//! The contract as Rust types. One world contains every interface, and the host probes for each interface whether a
//! component exports it.
#![allow(missing_docs)]

wasmtime::component::bindgen!({
    path: "../../wit",
    inline: "
        package dray:host;
        world plugin {
            import dray:plugin/log@0.3.0;
            import dray:plugin/clock@0.3.0;
            import dray:plugin/http@0.3.0;
            import dray:plugin/files@0.3.0;
            import dray:plugin/writing@0.3.0;
            import dray:plugin/settings@0.3.0;
            import dray:plugin/secrets@0.3.0;
            import dray:plugin/helpers@0.3.0;
            import dray:plugin/memory@0.3.0;
            import dray:plugin/images@0.3.0;
            import dray:plugin/knowledge@0.3.0;
            import dray:plugin/destination@0.3.0;
            export dray:plugin/meta@0.3.0;
            export dray:plugin/references@0.3.0;
            export dray:plugin/catalog@0.3.0;
            export dray:plugin/listing@0.3.0;
            export dray:plugin/source@0.3.0;
            export dray:plugin/sink@0.3.0;
            export dray:plugin/naming-together@0.3.0;
            export dray:plugin/provision@0.3.0;
            export dray:plugin/removal@0.3.0;
            export dray:plugin/credentials@0.3.0;
            export dray:plugin/request-signer@0.3.0;
            export dray:plugin/tag-filter@0.3.0;
            export dray:plugin/tag-mapping@0.3.0;
            export dray:plugin/observation@0.3.0;
            export dray:plugin/registry-dialect@0.3.0;
            export dray:plugin/registry-knowledge@0.3.0;
            export dray:plugin/registry-untagged@0.3.0;
            export dray:plugin/verification@0.3.0;
        }
    ",
    world: "dray:host/plugin",
    imports: { default: async },
    exports: { default: async },
    // For traces.
    additional_derives: [serde::Serialize],
});

pub use dray::plugin as host;
pub use exports::dray::plugin as guest;
