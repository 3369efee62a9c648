//! Removes images from a layout.

use super::{Error, INDEX, RACES, files_of, index, last, no_layout, read_index, writing};
use dray_plugin_transport::serde_json::Value;

/// Removes the entry of a tag, if it names what is expected.
pub fn tag(location: &str, repository: &str, tag: &str, expected: Option<&str>) -> Result<(), Error> {
    let name = index::join(last(location), repository, tag);
    let has_name =
        |entry: &Value| index::name(entry).is_some_and(|other| index::is_same(last(location), other, &name));
    remove(location, tag, has_name, expected)
}

/// Removes all entries of a digest, in one repository.
pub fn manifest(location: &str, repository: &str, digest: &str) -> Result<(), Error> {
    let is_unwanted = |entry: &Value| {
        index::digest(entry) == Some(digest) && index::is_of(last(location), repository, entry)
    };
    remove(location, digest, is_unwanted, None)
}

/// Removes entries, and then the files that only they needed. Another process that copies to the layout at the same time, and
/// has found such a file there, misses it.
fn remove(
    location: &str,
    shown: &str,
    unwanted: impl Fn(&Value) -> bool,
    expected: Option<&str>,
) -> Result<(), Error> {
    for _ in 0..RACES {
        let (mut index, bytes) = read_index(location)?.ok_or_else(|| no_layout(location))?;
        let removed = index.remove(&unwanted);
        if removed.is_empty() {
            return Err(Error::NotFound(format!("{location} holds no image {shown}")));
        }
        if expected.is_some_and(|expected| removed.iter().any(|removed| removed.digest != expected)) {
            return Err(Error::Conflict(format!("remove {shown}: it names another image now")));
        }
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
