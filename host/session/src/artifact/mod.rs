//! Plugins as artifacts of registries: how they are packed, moved, kept on this machine, pinned and trusted.
//!
//! A policy names one as `source = "oci://HOST/REPOSITORY:TAG"`, and its lock says which digest that was when it was installed. A
//! [`Session`](crate::Session) uses exactly this one, from the [`Store`] if it is there, and from the registry otherwise.

mod format;
mod install;
mod store;
mod transfer;
mod trusted;

pub use format::{About, Packed, component_of};
pub use install::{Missing, Silent, bootstrap, find_installed, install, ready};
pub use store::{Store, Stored};
pub use transfer::{Pulled, bundles, pull, push};
pub use trusted::{check_signatures, is_signed_by, signature_file};
