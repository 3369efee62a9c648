//! The vocabulary and the decisions of dray: what a reference, a digest, a manifest, a policy and a plan are. Nothing
//! in this crate does I/O, prints or reads the environment.
//!
//! A [`Reference`] names an image in a place. A [`policy::Policy`] says which images belong where. A [`Manifest`] is
//! the exact bytes of an image, it names its children by [`Descriptor`]s, and a [`Digest`] is the only identity of
//! content. [`Observed`] is what both ends of a tag have, and the pure function [`decide`] derives an [`Action`] and a
//! [`Reason`] from it. An item of a plan is a [`Copy`](struct@Copy), which can be saved ([`PlanLine`]). The result of a
//! run is a [`Report`].
//!
//! ```
//! use dray_core::{Action, DestinationState, Digest, Form, Missing, Observed, Reason, decide};
//!
//! let policy = dray_core::policy::parse(
//!     "version = 1\n[[rule]]\nfrom = \"docker://docker.io/library/nginx\"\nto = \"oci:nginx\"\ntags = \">=1.27\"\n",
//! )?;
//! assert_eq!(policy.rules[0].name.value, "nginx");
//!
//! let observed = Observed {
//!     content: Digest::of(b"the manifest of the source"),
//!     destination: DestinationState::Absent,
//!     assumed: false,
//!     converted: None,
//!     missing: Missing::default(),
//! };
//! assert_eq!(decide(&observed, Form::default()), (Action::Copy, Reason::New));
//! # Ok::<_, dray_core::policy::PolicyError>(())
//! ```

mod config;
mod digest;
mod form;
mod manifest;
mod names;
mod plan;
mod platform;
pub mod policy;
mod reference;
mod registries_conf;
mod related;
mod report;
mod resumable;
mod schema1;
mod shard;
mod text;
mod trim;
mod yaml;

pub use config::ImageConfig;
pub use digest::{Algorithm, Digest, Hasher, ParseDigestError};
pub use form::{
    Compression, Form, Format, ParseFormError, convert_image, convert_index, is_blob, is_compressed_as,
    is_image_config, layer_compression, new_image,
};
pub use manifest::{Children, Descriptor, Manifest, ManifestError, NESTING, media_type};
pub use names::{CHOICES, FillError, Names, expand_braces, is_tag, matches};
pub use plan::{
    Action, Copy, Deletion, DestinationState, Endpoint, Gone, ImageChoice, MAX_LINE, Missing, Naming,
    Observed, PLAN_VERSION, PlanEnd, PlanHeader, PlanLine, PolicyId, ReadPlanError, Reason, Seen, Spared,
    Wanted, decide, may_prune,
};
pub use platform::{ParsePlatformError, Platform};
pub use reference::{ParseReferenceError, Reference, without_tag};
pub use registries_conf::{PullFrom, PullSource, RegistriesConf};
pub use related::{cosign_signatures, cosign_tags, is_related, related_tag};
pub use report::{CopyReport, Report, Summary, Trouble};
pub use schema1::Schema1;
pub use shard::Shard;
pub use text::{Address, harmless, misleads, shown_proxy, without_secrets};
pub use trim::{Selection, TrimError, select, trim};
pub use yaml::{Yaml, YamlError, YamlValue};
