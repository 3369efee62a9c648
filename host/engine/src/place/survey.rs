//! What a repository's tags name, so that it is known what else depends on an image that is to go.

use super::{OpenReference, Resolved};
use crate::{Error, Kind, Repository, Result, limits::MANIFESTS};
use dray_core::{Children, Descriptor, Digest, NESTING, media_type};
use futures_util::{StreamExt, stream};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Number of tags that are resolved at once.
const AT_ONCE: usize = 16;

/// The tags of a repository, and what the indexes among them consist of.
#[derive(Default)]
pub(crate) struct Survey {
    /// What each tag names.
    tags: BTreeMap<String, Digest>,
    /// The images of each index that a tag names, and of the indexes in it.
    indexes: HashMap<Digest, Vec<Digest>>,
}

impl Survey {
    /// Looks at all tags of a repository. Fails if one of them cannot be resolved, because it may name what is to go.
    pub async fn of(opened: &OpenReference) -> Result<Self> {
        let repository = &opened.repository;
        let tags = match repository.tags(&opened.written.to_string()).await {
            Ok(tags) => tags,
            // A place without a list of its tags may hold other names for an image.
            Err(error) if error.kind == Kind::NotFound => Vec::new(),
            Err(error) => return Err(error.context("find out which other tags name it")),
        };
        let tags = tags.into_iter().filter(|tag| tag.parse::<Digest>().is_err());
        let looked = stream::iter(tags).map(|tag| look(repository, tag)).buffered(AT_ONCE);
        let looked: Vec<Result<Option<(String, Descriptor)>>> = looked.collect().await;
        let (mut survey, mut unread) = (Survey::default(), HashMap::new());
        for looked in looked {
            let Some((tag, descriptor)) = looked? else { continue };
            if media_type::is_index(&descriptor.media_type) {
                unread.insert(descriptor.digest.clone(), descriptor.clone());
            }
            survey.tags.insert(tag, descriptor.digest);
        }
        let read = stream::iter(unread.into_values()).map(async |index: Descriptor| {
            let all = descendants(repository, index.clone()).await?;
            Ok((index.digest, all))
        });
        let read: Vec<Result<(Digest, Vec<Digest>)>> = read.buffered(AT_ONCE).collect().await;
        for read in read {
            survey.indexes.extend([read?]);
        }
        Ok(survey)
    }

    /// The other tags that name this digest, sorted, and those of indexes that contain it. `name` is a tag that does not count.
    pub fn needing(&self, name: &str, digest: &Digest) -> (Vec<String>, Vec<String>) {
        let others = || self.tags.iter().filter(|(tag, _)| *tag != name);
        let siblings = others().filter(|(_, named)| *named == digest).map(|(tag, _)| tag.clone());
        let needs = |named: &Digest| {
            named != digest && self.indexes.get(named).is_some_and(|children| children.contains(digest))
        };
        let indexes = others().filter(|(_, named)| needs(named)).map(|(tag, _)| tag.clone());
        (siblings.collect(), indexes.collect())
    }

    /// Those of some manifests that a tag names, or that an index of a tag contains.
    pub fn needed<'a>(&self, digests: impl Iterator<Item = &'a Digest>) -> HashSet<Digest> {
        let named: HashSet<&Digest> = self.tags.values().collect();
        let within: HashSet<&Digest> = self.indexes.values().flatten().collect();
        digests.filter(|digest| named.contains(digest) || within.contains(digest)).cloned().collect()
    }

    /// Takes in tags that were written since. Fails if the tags cannot be listed or resolved.
    pub async fn refresh(&mut self, opened: &OpenReference) -> Result<()> {
        let repository = &opened.repository;
        let listed = match repository.tags(&opened.written.to_string()).await {
            Err(error) if error.kind == Kind::NotFound => return Ok(()),
            listed => listed?,
        };
        for tag in listed {
            if !self.tags.contains_key(&tag)
                && tag.parse::<Digest>().is_err()
                && let Some((tag, descriptor)) = look(repository, tag).await?
            {
                if media_type::is_index(&descriptor.media_type) {
                    let all = descendants(repository, descriptor.clone()).await?;
                    self.indexes.insert(descriptor.digest.clone(), all);
                }
                self.tags.insert(tag, descriptor.digest);
            }
        }
        Ok(())
    }

    /// Takes in that a tag was written.
    pub fn learn(&mut self, tag: &str, digest: &Digest) {
        self.tags.insert(tag.to_owned(), digest.clone());
    }

    /// Takes in that tags are gone.
    pub fn forget(&mut self, tags: &[String]) {
        for tag in tags {
            self.tags.remove(tag);
        }
    }
}

/// What a tag names. `None` means that it is gone.
async fn look(repository: &Repository, tag: String) -> Result<Option<(String, Descriptor)>> {
    let there = repository.resolve(Some(&tag), None).await?;
    Ok(there.map(|Resolved { descriptor, .. }| (tag, descriptor)))
}

/// All manifests beneath an index. Those of an index that is not there need nothing.
async fn descendants(repository: &Repository, index: Descriptor) -> Result<Vec<Digest>> {
    let (mut found, mut open) = (Vec::new(), vec![(index, 0)]);
    let mut seen = HashSet::new();
    while let Some((index, depth)) = open.pop() {
        if depth > NESTING || found.len() > MANIFESTS {
            let text = format!("look into {}: it names too many manifests", index.digest.short());
            return Err(Error::invalid(text));
        }
        let read = match repository.manifest_now(None, &index).await {
            Err(error) if error.kind == Kind::NotFound => continue,
            read => read?,
        };
        let Children::Index(children) = read.children else { continue };
        for child in children {
            if !seen.insert(child.digest.clone()) {
                continue;
            }
            found.push(child.digest.clone());
            if media_type::is_index(&child.media_type) {
                open.push((child, depth + 1));
            }
        }
    }
    Ok(found)
}
