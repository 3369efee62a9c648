//! Looking at images without copying them.

mod image;

pub use image::{Image, list_tags};
