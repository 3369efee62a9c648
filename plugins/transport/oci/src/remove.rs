//! Removes images from a layout.

use super::{Error, INDEX, RACES, files, files_of, index, is_digest, last, no_layout, read_index};

/// Removes the entries of a tag or a digest, and then the files that only they needed. Another process that
/// copies to the layout at the same time, and has found such a file there, misses it.
pub fn remove(location: &str, repository: &str, reference: &str) -> Result<(), Error> {
    let name = (!is_digest(reference)).then(|| index::join(last(location), repository, reference));
    for _ in 0..RACES {
        let (mut index, bytes) = read_index(location)?.ok_or_else(|| no_layout(location))?;
        let removed = match &name {
            Some(name) => index.remove(|entry| index::name(entry) == Some(name)),
            None => index.remove(|entry| index::digest(entry) == Some(reference)),
        };
        if removed.is_empty() {
            return Err(Error::NotFound(format!("{location} holds no image {reference}")));
        }
        if !files::replace(INDEX, Some(&bytes), &index.bytes())? {
            continue;
        }
        let (Some(unwanted), Some(wanted)) = (files_of(removed)?, files_of(index.roots()?)?) else {
            return Ok(());
        };
        return files::remove(&unwanted.difference(&wanted).cloned().collect::<Vec<_>>());
    }
    Err(Error::Transient(format!("{location}/{INDEX} is written by others all the time")))
}
