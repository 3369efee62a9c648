//! The words and decisions of dray: what a reference, a digest, a manifest, a policy and a plan
//! are. Nothing here does I/O, prints or reads the environment.

mod config;
mod digest;
mod form;
mod manifest;
mod names;
mod plan;
mod platform;
pub mod policy;
mod reference;
mod report;
mod resumable;
mod schema1;
mod text;
mod trim;

pub use config::ImageConfig;
pub use digest::{Algorithm, Digest, Hasher, ParseDigestError};
pub use form::{
    Compression, Form, Format, ParseFormError, convert_image, convert_index, is_blob, is_image_config,
    layer_compression, new_image,
};
pub use manifest::{Children, Descriptor, Manifest, ManifestError, NESTING, media_type};
pub use names::{CHOICES, FillError, Names, expand_braces, matches};
pub use plan::{
    Action, Copy, DestinationState, Endpoint, ImageChoice, MAX_LINE, Missing, Naming, Observed, PLAN_VERSION,
    PlanEnd, PlanHeader, PlanLine, PolicyId, ReadPlanError, Reason, Seen, Wanted, decide,
};
pub use platform::{ParsePlatformError, Platform};
pub use reference::{ParseReferenceError, Reference};
pub use report::{CopyReport, Report, Summary, Trouble};
pub use schema1::Schema1;
pub use text::{Address, harmless, misleads, shown_proxy, without_secrets};
pub use trim::{Selection, TrimError, select, trim};
