//! Tar archives (POSIX.1-2017, pax; the GNU extensions for long names and large numbers): reading their entries with
//! offsets, an index of their members, and writing headers.

mod index;
mod pax;
mod read;
mod write;

pub use index::{Index, Member};
pub use read::{Entry, Kind, Reader, Source};
pub(crate) use write::{BEGUN, END, begun, header, link, padding};

/// Size of a block of a tar archive in bytes.
pub const BLOCK: u64 = 512;

pub(crate) fn malformed(why: impl Into<String>) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, why.into())
}
