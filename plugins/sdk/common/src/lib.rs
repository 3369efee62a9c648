//! The parts that every kind of plugin for dray uses.
//!
//! A plugin is a library crate that uses the crate of its role and implements its traits:
//!
//! | Crate | What the plugin is |
//! |---|---|
//! | `dray-plugin-transport` | a kind of place from which images are read and to which they are written |
//! | `dray-plugin-auth` | a source of credentials |
//! | `dray-plugin-filter` | a selection of tags |
//! | `dray-plugin-mapper` | new names for tags |
//! | `dray-plugin-dialect` | what one kind of registry does in another way |
//! | `dray-plugin-verifier` | a judgement of images |
//! | `dray-plugin-observer` | somebody who hears what a run did |
//!
//! `docs/plugins.md` walks through a whole filter.

mod encoded;
mod one_or_many;
mod time;
mod version;

pub use encoded::{element, encoded};
pub use one_or_many::OneOrMany;
pub use time::{rfc3339, stamp, time};
pub use version::version;

/// Whether a text of a table says where a secret lies: `env:NAME` or `file:PATH`.
pub fn is_reference(text: &str) -> bool {
    text.starts_with("env:") || text.starts_with("file:")
}

#[doc(hidden)]
pub use {serde, serde_json, wit_bindgen};

/// Bindings of one world of `wit/`, and what every role needs in addition. Only the crates of the roles use
/// it.
#[doc(hidden)]
#[macro_export]
macro_rules! role {
    ($world:literal, $bindings:literal) => {
        $crate::wit_bindgen::generate!({
            world: $world,
            path: "wit",
            pub_export_macro: true,
            default_bindings_module: $bindings,
            runtime_path: "::dray_plugin::wit_bindgen::rt",
            additional_derives: [PartialEq],
        });

        pub use dray::plugin::types::Error;
        pub use dray_plugin::OneOrMany;
        pub use exports::dray::plugin::meta::{Guest as Meta, Info, Wish, WishKind};

        impl Error {
            /// An error about a wrong value of a configuration key. The host underlines the value in the
            /// policy.
            pub fn key(key: &str, why: impl std::fmt::Display) -> Self {
                Error::Invalid(format!("{key}: {why}"))
            }
        }

        /// Reads the configuration of a plugin: the JSON of its table in the policy.
        pub fn config<T: $crate::serde::de::DeserializeOwned>(json: &str) -> Result<T, Error> {
            $crate::serde_json::from_str(json).map_err(|error| Error::Invalid(error.to_string()))
        }

        /// Sends a warning to dray's log.
        pub fn warn(message: &str) {
            dray::plugin::log::emit(dray::plugin::log::Level::Warn, message);
        }

        /// Sends a panic to dray's log, because on wasm32-unknown-unknown it would print nothing. It runs as
        /// a constructor, before the first export.
        #[cfg(target_arch = "wasm32")]
        extern "C" fn log_panics() {
            std::panic::set_hook(Box::new(|panic| {
                dray::plugin::log::emit(
                    dray::plugin::log::Level::Error,
                    &format!("the plugin panicked: {panic}"),
                );
            }));
        }
        #[cfg(target_arch = "wasm32")]
        #[used]
        #[unsafe(link_section = ".init_array")]
        static LOG_PANICS: extern "C" fn() = log_panics;
    };
}
