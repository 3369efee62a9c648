//! Reads facts about images without copying them.

mod facts;
mod image;
mod listing;
mod registry;

pub(crate) use facts::RepositoryImages;
pub use image::Image;
pub use listing::{list_repositories, list_tags, tag_digests};
pub use registry::{RegistryInfo, registry_info};
