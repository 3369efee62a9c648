//! Lists the repositories of a place and the tags of a repository, for commands that show them.

use crate::{Error, Places, Repository, Result, error::Context, place::OpenReference};
use dray_core::{Digest, Reference};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{collections::BTreeMap, sync::Arc};

/// Number of tags of one repository that are resolved at once.
const AT_ONCE: usize = 16;

/// The repositories of the place that a reference names, sorted. If the repository in the reference is a glob such as
/// `**`, only those that match it.
///
/// # Errors
/// Fails if the place has no list of its repositories, or refuses to return it.
pub async fn list_repositories(places: &Arc<Places>, reference: &Reference) -> Result<Vec<String>> {
    let opened = places.source(reference, true).await?;
    let place = opened.place();
    let listed = place.repositories().await.context(|| format!("list the repositories of {reference}"))?;
    let glob = &opened.repository.name;
    let mut names: Vec<String> = match glob.contains(['*', '?', '[']) {
        true => listed.into_iter().filter(|name| dray_core::matches(glob, name)).collect(),
        false => {
            let within = format!("{glob}/");
            listed.into_iter().filter(|name| name == glob || name.starts_with(&within)).collect()
        }
    };
    names.sort();
    Ok(names)
}

/// Opens the repository whose tags are to be listed. Fails if the reference names a tag.
async fn repository(places: &Arc<Places>, reference: &Reference) -> Result<OpenReference> {
    let opened = places.source(reference, false).await?;
    if let Some(tag) = &opened.reference {
        return Err(Error::invalid(format!("list the tags of {reference}: it names {tag} already"))
            .help("leave the tag out"));
    }
    Ok(opened)
}

/// The tags of a repository.
///
/// # Errors
/// Fails if the repository cannot be listed.
pub async fn list_tags(places: &Arc<Places>, reference: &Reference) -> Result<Vec<String>> {
    let opened = repository(places, reference).await?;
    let (place, from) = (opened.place(), reference.to_string());
    let whole = place.files.is_some() && !reference.rest.contains(':');
    let doing = || format!("list the tags of {reference}");
    let listed = opened.repository.tags(&from).await;
    let mut tags = listed.map_err(|error| place.explained(error)).context(doing)?;
    if whole {
        // The reference names the whole place, so the tags of its other repositories are listed as well, each after the
        // name of its repository.
        let own = &opened.repository.name;
        let others = place.repositories().await.unwrap_or_default();
        for name in others.into_iter().filter(|name| name != own && !name.is_empty()) {
            let listed = Repository::new(place.clone(), name.clone()).tags(&from).await.context(doing)?;
            tags.extend(listed.into_iter().map(|tag| match tag.contains(':') {
                true => format!("{name}@{tag}"),
                false => format!("{name}:{tag}"),
            }));
        }
    }
    Ok(tags)
}

/// The digest that each tag of a repository names. `None` means that the place cannot tell the digest of the tag.
///
/// # Errors
/// Fails if the repository cannot be listed, or one of its tags cannot be resolved.
pub async fn tag_digests(
    places: &Arc<Places>,
    reference: &Reference,
) -> Result<BTreeMap<String, Option<Digest>>> {
    let opened = repository(places, reference).await?;
    let listed = opened.repository.tags(&reference.to_string()).await;
    let listed = listed.context(|| format!("list the tags of {reference}"))?;
    let resolved = stream::iter(listed).map(|tag| {
        let repository = opened.repository.clone();
        async move {
            let found = repository.resolve(Some(&tag), None).await;
            let found = found.context(|| format!("resolve {reference}:{tag}"))?;
            Ok::<_, Error>((tag, found.map(|found| found.descriptor.digest)))
        }
    });
    resolved.buffered(AT_ONCE).try_collect().await
}
