//! Write transports for dray that can only be read (the world `source-transport`). Such a component exports no `sink`, so dray
//! gives it no function that changes anything.
//!
//! Types and helpers are those of `dray-plugin-transport`.
#![allow(missing_docs)]

dray_plugin::wit_bindgen::generate!({
    world: "source-transport",
    path: "wit",
    pub_export_macro: true,
    default_bindings_module: "dray_plugin_source",
    runtime_path: "::dray_plugin::wit_bindgen::rt",
    additional_derives: [PartialEq],
    with: {
        "dray:plugin/types@0.3.0": dray_plugin_transport::dray::plugin::types,
        "dray:plugin/log@0.3.0": dray_plugin_transport::dray::plugin::log,
        "dray:plugin/clock@0.3.0": dray_plugin_transport::dray::plugin::clock,
        "dray:plugin/http@0.3.0": dray_plugin_transport::dray::plugin::http,
        "dray:plugin/files@0.3.0": dray_plugin_transport::dray::plugin::files,
        "dray:plugin/settings@0.3.0": dray_plugin_transport::dray::plugin::settings,
    },
});

pub use dray_plugin_transport::{Error, dray::plugin::types::TagPage, only_name};
pub use exports::dray::plugin::{
    catalog::{Found, Guest as Catalog, Page},
    listing::Guest as Listing,
    meta::{Guest as Meta, Info},
    references::{Guest as References, Parsed, Root},
    source::{Guest as Source, ReferrersPage},
};

/// The description of a reader that has no configuration.
pub fn info(name: &str, version: &str, summary: &str, schemes: &[&str]) -> Info {
    let dray_plugin_transport::Info { name, version, summary, schemes, config_schema, .. } =
        dray_plugin_transport::info(name, version, summary, schemes);
    Info { name, version, summary, schemes, config_schema, wishes: Vec::new(), extra: Vec::new() }
}

/// Implements `listing` for a reader whose lists have only names, by its `catalog`.
#[macro_export]
macro_rules! lists_names {
    ($transport:ident) => {
        impl $crate::Listing for $transport {
            fn tags(
                location: String,
                repository: String,
                next: Option<String>,
            ) -> Result<$crate::TagPage, $crate::Error> {
                let page = <$transport as $crate::Catalog>::tags(location, repository, next)?;
                let entries = page.names.into_iter().map($crate::only_name).collect();
                Ok($crate::TagPage { entries, next: page.next, behind: None })
            }
        }
    };
}
