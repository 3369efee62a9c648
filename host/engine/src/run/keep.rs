//! Keeps an image under a further tag before its tag is written over or deleted.

use crate::{
    Error, Kind, Repository, Result,
    error::Context,
    journal::{RepositoryKey, SeenTag},
    now,
    remove::placeholder,
};
use dray_core::{Digest, Naming, policy::Backup};

/// How many backups of one name there may be. The second one is called `name-2`.
const MOST: usize = 99;

/// A tag under which an image is kept.
pub(crate) struct Kept {
    pub tag: String,
    /// Whether this call wrote it.
    pub is_new: bool,
}

/// The place from which the journal says that backups were copied.
const BACKUPS: &str = "backup:";

/// Gives an image of a repository a further tag by a template, and returns that tag. `None` means that there is nothing to
/// keep: the tag names a placeholder. A tag that names another image already
/// is left alone, and the next one gets a number. Fails if the image cannot be read, or if no tag is free.
pub(crate) async fn keep(
    repository: &Repository,
    tag: &str,
    digest: &Digest,
    template: &str,
) -> Result<Option<Kept>> {
    let doing = || format!("keep {} of the tag {tag}", digest.short());
    let backup = Backup::read(template).map_err(Error::invalid)?;
    let name = backup.fill(tag, now(), &digest.hex()[..12]);
    let manifest = repository.manifest(Some(&digest.to_string())).await.context(doing)?;
    if placeholder::is_one(&manifest) {
        // A run that was killed has left it, and nobody misses it.
        return Ok(None);
    }
    for number in 1..=MOST {
        let name = match number {
            1 => name.clone(),
            _ => {
                let end = format!("-{number}");
                format!("{}{end}", &name[..name.len().min(128 - end.len())])
            }
        };
        match repository.resolve(Some(&name), None).await.context(doing)? {
            Some(there) if there.descriptor.digest == *digest => {
                return Ok(Some(Kept { tag: name, is_new: false }));
            }
            Some(_) => {}
            None => {
                let memory = repository.memory();
                let writing = match &memory {
                    Some((journal, at)) => Some(journal.writes_tag(at, &name).await.context(doing)?),
                    None => None,
                };
                repository.publish(&manifest, &Naming::Tag(name.clone())).await.context(doing)?;
                if let (Some((journal, at)), Some(writing)) = (memory, writing) {
                    // It comes from no source, so no rule that deletes what is gone takes it for its own.
                    let of = RepositoryKey { place: BACKUPS.into(), repository: at.repository.clone() };
                    journal.wrote_tag(&at, &name, SeenTag::now(&manifest.descriptor, ""), writing, of);
                }
                return Ok(Some(Kept { tag: name, is_new: true }));
            }
        }
    }
    let text = format!("keep {} of the tag {tag}: {name} and {MOST} like it are taken", digest.short());
    Err(Error::new(Kind::Conflict, text).help("write {time} or {digest} into `backup`, or delete old ones"))
}
