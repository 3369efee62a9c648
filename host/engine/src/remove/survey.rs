//! What a repository's tags name, so that it is known what else depends on an image that is to go.

use super::decide::Found;
use crate::{
    Kind, Repository, Result,
    place::{OpenReference, Resolved},
};
use dray_core::{Children, Descriptor, Digest, media_type};
use futures_util::{StreamExt, stream};
use std::collections::{BTreeMap, HashMap};

/// Number of tags that are resolved at once.
const AT_ONCE: usize = 16;

/// The tags of a repository, and what the indexes among them consist of.
#[derive(Default)]
pub(super) struct Survey {
    /// What each tag names.
    tags: BTreeMap<String, Digest>,
    /// The children of each index that a tag names.
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
        let looked: Vec<Result<Option<Looked>>> = looked.collect().await;
        let (mut survey, mut unread) = (Survey::default(), HashMap::new());
        for looked in looked {
            let Some(Looked { tag, descriptor, children }) = looked? else { continue };
            match children {
                Some(children) => _ = survey.indexes.insert(descriptor.digest.clone(), children),
                None if media_type::is_index(&descriptor.media_type) => {
                    unread.insert(descriptor.digest.clone(), descriptor.clone());
                }
                None => {}
            }
            survey.tags.insert(tag, descriptor.digest);
        }
        unread.retain(|digest, _| !survey.indexes.contains_key(digest));
        let read = stream::iter(unread.into_values()).map(async |descriptor: Descriptor| {
            let index = repository.manifest_of(&descriptor).await?;
            Ok((descriptor.digest, children(&index.children)))
        });
        let read: Vec<Result<(Digest, Vec<Digest>)>> = read.buffered(AT_ONCE).collect().await;
        for read in read {
            survey.indexes.extend([read?]);
        }
        Ok(survey)
    }

    /// What else depends on the image with this digest, if it is named by `name`.
    pub fn found(&self, name: &str, digest: &Digest) -> Found {
        let others = || self.tags.iter().filter(|(tag, _)| *tag != name);
        let siblings = others().filter(|(_, named)| *named == digest).map(|(tag, _)| tag.clone());
        let needs = |named: &Digest| {
            named != digest && self.indexes.get(named).is_some_and(|children| children.contains(digest))
        };
        let indexes = others().filter(|(_, named)| needs(named)).map(|(tag, _)| tag.clone());
        Found { digest: digest.clone(), siblings: siblings.collect(), indexes: indexes.collect() }
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

/// A tag, what it names, and the children of an index if the answer held them.
struct Looked {
    tag: String,
    descriptor: Descriptor,
    children: Option<Vec<Digest>>,
}

async fn look(repository: &Repository, tag: String) -> Result<Option<Looked>> {
    let Some(Resolved { descriptor, manifest }) = repository.resolve(Some(&tag), None).await? else {
        return Ok(None);
    };
    let children = manifest.map(|manifest| children(&manifest.children));
    Ok(Some(Looked { tag, descriptor, children }))
}

fn children(of: &Children) -> Vec<Digest> {
    match of {
        Children::Index(children) => children.iter().map(|child| child.digest.clone()).collect(),
        Children::Image { .. } | Children::Schema1(_) => Vec::new(),
    }
}
