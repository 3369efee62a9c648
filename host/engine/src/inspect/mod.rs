//! Looking at images without copying them.

mod facts;
mod image;

pub(crate) use facts::RepositoryImages;
pub use image::{Image, list_tags};
