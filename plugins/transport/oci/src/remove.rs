//! Removes images from a layout.

use super::{Descriptor, Error, INDEX, Index, RACES, files_of, no_layout, read_index, writing};

/// Removes the entry of a tag, if it names what is expected.
pub fn tag(location: &str, repository: &str, tag: &str, expected: Option<&str>) -> Result<(), Error> {
    remove(location, |index| index.remove_tag(location, repository, tag, expected))
}

/// Removes all entries of a digest, in one repository.
pub fn manifest(location: &str, repository: &str, digest: &str) -> Result<(), Error> {
    remove(location, |index| index.remove_manifest(location, repository, digest))
}

/// Removes entries, and then the files that only they needed. Another process that copies to the layout at the same time, and
/// has found such a file there, misses it.
fn remove(location: &str, take: impl Fn(&mut Index) -> Result<Vec<Descriptor>, Error>) -> Result<(), Error> {
    for _ in 0..RACES {
        let (mut index, bytes) = read_index(location)?.ok_or_else(|| no_layout(location))?;
        let removed = take(&mut index)?;
        if !writing::replace(INDEX, Some(&bytes), &index.bytes())? {
            continue;
        }
        let (Some(unwanted), Some(wanted)) = (files_of(removed)?, files_of(index.roots()?)?) else {
            return Ok(());
        };
        return writing::remove(&unwanted.difference(&wanted).cloned().collect::<Vec<_>>());
    }
    Err(Error::Transient(format!("{location}/{INDEX} is written by others all the time")))
}
