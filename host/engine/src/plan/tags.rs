//! Determines which tags of a repository a rule wants, and which tags a destination has.

use super::bind::{BoundFilter, BoundRule};
use crate::{
    Error, Kind, Result,
    contract::{Choice, Listed, Mapper, TagPage},
    error::Context,
    inspect::RepositoryImages,
    place::OpenReference,
};
use dray_core::{Descriptor, Digest, is_related, is_tag, policy::Prune};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Whether a tag is a list of referrers (distribution specification, "Referrers Tag Schema").
pub(super) fn is_fallback(tag: &str) -> bool {
    let hash = tag.strip_prefix("sha256-").or(tag.strip_prefix("sha512-"));
    hash.is_some_and(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether a tag is a signature, attestation or SBOM of cosign (cosign, `SIGNATURE_SPEC.md`).
pub(super) fn is_cosigns(tag: &str) -> bool {
    [".sig", ".att", ".sbom"].iter().any(|kind| tag.strip_suffix(kind).is_some_and(is_fallback))
}

/// Whether a tag is made of a digest and a word, as cosign's are: it belongs to an image, and is none by itself.
fn is_of_digest(tag: &str) -> bool {
    tag.split_once('.').is_some_and(|(digest, word)| is_fallback(digest) && !word.is_empty())
}

/// Whether a tag belongs to an image, and is none by itself: it is made of a digest, or one of these templates makes it.
pub(super) fn belongs(tag: &str, related: &[String]) -> bool {
    is_of_digest(tag) || related.iter().any(|template| is_related(template, tag))
}

/// The tags of a repository, divided by a rule.
#[derive(Default)]
pub(crate) struct Tags {
    /// The tags to copy, in this order. `None` stands for the only image of a place.
    pub kept: Vec<Option<String>>,
    pub dropped: Vec<Dropped>,
    /// Number of dropped tags that hold signatures of cosign.
    pub signatures: usize,
    /// What the list of the source says that its tags name.
    pub named: HashMap<String, Descriptor>,
    /// Whether that is as good as asking for each tag: an answer about one tag would be read from the same document.
    pub current: bool,
    /// All tags that the source lists, if the rule deletes what is gone. `None` means that it was not asked.
    pub listed: Option<Vec<String>>,
    /// Whether the repository could not be listed, and was left out.
    pub left_out: bool,
    /// The tags that are made of digests and travel with their images. `None` means that the rule copies none of them.
    pub beneath: Option<Arc<HashSet<String>>>,
}

/// A tag that a filter dropped.
pub(crate) struct Dropped {
    pub tag: String,
    /// The filter with its configuration.
    pub by: String,
    /// The filter's reason, if it gave one.
    pub why: Option<String>,
}

/// The tags of a repository that a rule wants. Fails if they cannot be listed, or if a filter fails. Filters may ask for those
/// of the destination, if all tags go to one repository.
pub(crate) async fn tags(
    rule: &BoundRule,
    source: &OpenReference,
    destination: Option<&OpenReference>,
) -> Result<Tags> {
    let only = |kept| Ok(Tags { kept, ..Tags::default() });
    if let Some(reference) = &source.reference {
        return only(vec![Some(reference.clone())]);
    }
    let (literals, filters) = match &rule.tags {
        Some(tags) if tags.filters.is_empty() => {
            return only(tags.literals.iter().cloned().map(Some).collect());
        }
        Some(tags) => (tags.literals.as_slice(), tags.filters.as_slice()),
        None => (&[][..], &[][..]),
    };
    let listed = source.repository.listed(&source.written.to_string()).await;
    let listed = match listed.context(|| format!("list the tags of {}", source.written)) {
        Ok(list) => list,
        // A place that does not support tags holds one image.
        Err(error) if error.kind == Kind::Unsupported => return only(vec![None]),
        // A catalog may contain repositories that are not accessible or have no tags any more.
        Err(error)
            if matches!(error.kind, Kind::NotFound | Kind::Denied | Kind::Unauthorized)
                && rule.from.iter().any(|from| from.pattern) =>
        {
            tracing::warn!("{} is left out: failed to {error}", source.written);
            let is_gone = error.kind == Kind::NotFound;
            return Ok(Tags { listed: is_gone.then(Vec::new), left_out: !is_gone, ..Tags::default() });
        }
        Err(error) => return Err(error),
    };
    // A registry reads the manifest of a tag in the same request that would ask for the tag.
    let current = listed.behind.is_none() && !source.place().transport.has_dialects();
    let listed = listed.tags;
    let mut named = HashMap::new();
    let (mut tags, mut pushed) = (Vec::with_capacity(listed.len()), HashMap::new());
    let asks = !filters.is_empty();
    for listed in listed {
        if let Some(updated) = listed.updated.filter(|_| asks) {
            pushed.insert(listed.name.clone(), updated);
        }
        if let Some(digest) = listed.digest {
            // Of an empty media type nothing is decided before the journal or the registry tells it.
            let media_type = listed.media_type.unwrap_or_default();
            let descriptor = Descriptor::new(media_type, digest, listed.size.unwrap_or(0));
            named.insert(listed.name.clone(), descriptor);
        }
        tags.push(listed.name);
    }
    // What is kept beneath tags of an image's digests travels with the image.
    let wanted = &rule.wanted;
    let belongs = |tag: &String| {
        let is_of = |template: &String| is_related(template, tag);
        wanted.cosign_tags && is_cosigns(tag) || wanted.related.iter().any(is_of)
    };
    let beneath = wanted
        .wants_related()
        .then(|| Arc::new(tags.iter().filter(|tag| belongs(tag)).cloned().collect::<HashSet<_>>()));
    let all = (rule.order.prune != Prune::No).then(|| tags.clone());
    // Lists of referrers are not images. With `referrers` they are merged; otherwise they are ignored.
    tags.retain(|tag| !is_fallback(tag) && beneath.as_ref().is_none_or(|beneath| !beneath.contains(tag)));
    let signatures = |tags: &[String]| tags.iter().filter(|tag| is_cosigns(tag)).count();
    let (before, mut dropped) = (signatures(&tags), Vec::new());
    let every = if asks { tags.clone() } else { Vec::new() };
    let images = RepositoryImages::new(source.repository.clone(), pushed);
    let images = Arc::new(images.towards(destination.map(|to| to.repository.clone())));
    for BoundFilter { filter, config, label } in filters {
        let given = Choice { repository: &source.repository.name, tags: &tags, all: &every };
        let selection = filter.select(given, config, images.clone()).await;
        let selection =
            selection.context(|| format!("filter the tags of {} with {label}", source.written))?;
        let chosen: HashSet<usize> = selection.kept.iter().copied().collect();
        let mut reasons: HashMap<usize, String> = selection.dropped.into_iter().collect();
        let left =
            tags.iter().enumerate().filter(|(at, tag)| !chosen.contains(at) && !literals.contains(tag));
        dropped.extend(left.map(|(at, tag)| Dropped {
            tag: tag.clone(),
            by: label.clone(),
            why: reasons.remove(&at).filter(|reason| !reason.is_empty()),
        }));
        tags = selection.kept.into_iter().map(|at| std::mem::take(&mut tags[at])).collect();
    }
    let left = before - signatures(&tags).min(before);
    let more = literals.iter().filter(|literal| !tags.contains(literal)).cloned().collect::<Vec<_>>();
    tags.extend(more);
    Ok(Tags {
        kept: tags.into_iter().map(Some).collect(),
        dropped,
        signatures: left,
        named,
        current,
        listed: all,
        left_out: false,
        beneath,
    })
}

/// The new names of those tags that the mapper of a rule renames, each by itself: whoever may push tags to the source must not
/// keep others from being copied.
pub(crate) async fn renamed(
    rule: &BoundRule,
    source: &OpenReference,
    tags: &[Option<String>],
) -> Result<HashMap<String, Result<String>>> {
    let Some(mapper) = &rule.mapper else { return Ok(HashMap::new()) };
    // A digest is no tag.
    let tags: Vec<String> = tags.iter().flatten().filter(|tag| !tag.contains(':')).cloned().collect();
    let names = mapper.rename(&source.repository.name, &tags).await;
    let names = names.context(|| format!("rename the tags of {}", source.written))?;
    let named = tags.into_iter().zip(names).filter_map(|(tag, name)| {
        let name = checked(&tag, name?, mapper.as_ref(), &rule.wanted.related);
        Some((tag, name))
    });
    Ok(named.collect())
}

/// A name that a mapper gave to a tag. It must be a tag, and none that belongs to some image, which it would write over.
fn checked(tag: &str, name: String, mapper: &dyn Mapper, related: &[String]) -> Result<String> {
    let why = match () {
        () if !is_tag(&name) => "is no tag",
        () if is_fallback(&name) || belongs(&name, related) => "belongs to an image by its digest",
        () => return Ok(name),
    };
    let (mapper, name) = (mapper.name(), dray_core::harmless(&name, 150));
    Err(Error::invalid(format!("rename the tag {tag}: the mapper {mapper} names it `{name}`, which {why}")))
}

/// The knowledge about a destination's tags.
pub(crate) enum KnownTags {
    Unknown,
    /// The repository does not exist.
    Nothing,
    /// All of its tags, and what each of them names, as far as the list says it.
    All(HashMap<String, Option<Digest>>),
    /// Some of its tags. One that is missing here may exist.
    Some(HashMap<String, Option<Digest>>),
}

impl KnownTags {
    /// Asks the destination for its tags. All are known only if one request returns all of them, or if the list spares a
    /// request for each of them because it says what they name. A dialect may leave some out, and tags may move between two
    /// of its pages, so what it does not list is asked for. A list that may be behind tells nothing of a place that is
    /// written to.
    pub async fn of(destination: &OpenReference) -> KnownTags {
        let named = |tags: Vec<Listed>| tags.into_iter().map(|listed| (listed.name, listed.digest)).collect();
        let (repository, shown) = (&destination.repository, destination.written.to_string());
        if let Some(list) = repository.by_dialect(&shown).await {
            return match list.behind {
                None => KnownTags::Some(named(list.tags)),
                Some(_) => KnownTags::Unknown,
            };
        }
        match repository.first_tags().await {
            Ok(TagPage { behind: Some(_), .. }) => KnownTags::Unknown,
            Ok(TagPage { items, next: None, .. }) => KnownTags::All(named(items)),
            Ok(page) if page.items.iter().any(|listed| listed.digest.is_some()) => {
                match repository.plain(&shown, Some(page)).await {
                    Ok(list) if list.behind.is_none() => KnownTags::All(named(list.tags)),
                    Ok(_) | Err(_) => KnownTags::Unknown,
                }
            }
            Ok(_) => KnownTags::Unknown,
            Err(error) if error.kind == Kind::NotFound => KnownTags::Nothing,
            // Listing may be forbidden even if reading is allowed.
            Err(_) => KnownTags::Unknown,
        }
    }
}
