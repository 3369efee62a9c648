//! Reads facts about images without copying them.

mod facts;
mod image;
mod listing;

pub(crate) use facts::RepositoryImages;
pub use image::{Image, list_tags};
pub use listing::{list_repositories, tag_digests};
