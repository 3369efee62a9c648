//! Lists the repositories of a place and the tags of a repository, for commands that show them.

use crate::{Error, Places, Result, error::Context};
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

/// The digest that each tag of a repository names. `None` means that the place cannot tell the digest of the tag.
///
/// # Errors
/// Fails if the repository cannot be listed, or one of its tags cannot be resolved.
pub async fn tag_digests(
    places: &Arc<Places>,
    reference: &Reference,
) -> Result<BTreeMap<String, Option<Digest>>> {
    let opened = places.source(reference, false).await?;
    if let Some(tag) = &opened.reference {
        return Err(Error::invalid(format!("list the tags of {reference}: it names {tag} already"))
            .help("leave the tag out"));
    }
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
