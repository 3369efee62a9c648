//! Reads lists that come in pages. Places may be malicious, so cycles and endless lists are detected.

use crate::{
    Error, Result,
    contract::{KnownTag, Listed, Page, UntaggedManifest},
};
use dray_core::{Descriptor, misleads};
use futures_util::future::BoxFuture;
use std::collections::HashSet;

/// Maximum number of pages of a list. With more, we assume that the pages form a cycle.
const PAGES: usize = 10_000;
/// Maximum number of entries of a list. With more, we assume that the list is endless.
const ENTRIES: usize = 2_000_000;
/// Maximum size of a list in bytes, including its links. Beyond that, we assume that the list is endless.
const BYTES: usize = 128 << 20;

/// The memory that an entry of a list uses.
pub(super) trait Weight {
    /// The approximate size in bytes.
    fn weight(&self) -> usize;
}

impl Weight for String {
    fn weight(&self) -> usize {
        self.len() + size_of::<String>()
    }
}

impl Weight for Descriptor {
    fn weight(&self) -> usize {
        let notes: usize = self.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.media_type.len() + self.artifact_type.as_ref().map_or(0, String::len) + notes + size_of::<Self>()
    }
}

impl Weight for Listed {
    fn weight(&self) -> usize {
        let digest = self.digest.as_ref().map_or(0, |digest| digest.hex().len());
        self.name.len() + digest + self.media_type.as_ref().map_or(0, String::len) + size_of::<Self>()
    }
}

impl Weight for KnownTag {
    fn weight(&self) -> usize {
        let labels = self.known.labels.iter().flatten().map(String::len).sum::<usize>();
        self.name.len() + labels + size_of::<Self>()
    }
}

impl Weight for UntaggedManifest {
    fn weight(&self) -> usize {
        size_of::<Self>()
    }
}

/// An entry with a name.
pub(super) trait Named: Weight {
    fn name(&self) -> &str;
}

impl Named for String {
    fn name(&self) -> &str {
        self
    }
}

impl Named for Listed {
    fn name(&self) -> &str {
        &self.name
    }
}

/// Reads a whole list, page by page. Fails if it is endless or its pages form a cycle.
pub(super) async fn pages<'a, T: Weight>(
    mut page: impl FnMut(Option<String>) -> BoxFuture<'a, Result<Page<T>>>,
) -> Result<Vec<T>> {
    let (mut items, mut next) = (Vec::new(), None);
    let mut seen = HashSet::new();
    let mut bytes = 0;
    loop {
        let got = page(next).await?;
        bytes +=
            got.items.iter().map(Weight::weight).sum::<usize>() + got.next.as_ref().map_or(0, String::len);
        items.extend(got.items);
        if items.len() > ENTRIES {
            return Err(Error::invalid(format!("read a list: it has more than {ENTRIES} entries")));
        }
        if bytes > BYTES {
            return Err(Error::invalid(format!("read a list: it has more than {} MiB", BYTES >> 20)));
        }
        match got.next {
            None => return Ok(items),
            Some(link) => {
                if !seen.insert(link.clone()) || seen.len() > PAGES {
                    return Err(Error::invalid(format!("read a list: its pages lead back to {link}")));
                }
                next = Some(link);
            }
        }
    }
}

/// Reads a list of names. Duplicates are removed; invalid names are left out with a warning. `nameless` allows an empty
/// name, which stands for images without a name.
pub(super) async fn names<'a, T: Named>(
    what: &str,
    nameless: bool,
    page: impl FnMut(Option<String>) -> BoxFuture<'a, Result<Page<T>>>,
) -> Result<Vec<T>> {
    let mut listed = pages(page).await?;
    let (mut known, mut odd) = (HashSet::new(), None);
    listed.retain(|entry| {
        let name = entry.name();
        // The transport decides what a name looks like; here it only has to be safe to print in one line.
        let good = (nameless || !name.is_empty()) && name.len() <= 1024 && !name.chars().any(misleads);
        if !good {
            odd.get_or_insert_with(|| name.to_owned());
        }
        good && known.insert(name.to_owned())
    });
    if let Some(odd) = odd {
        tracing::warn!("{what} lists what is no name, such as {odd:.80?}: it is left out");
    }
    Ok(listed)
}
