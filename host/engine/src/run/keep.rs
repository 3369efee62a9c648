//! Keeps an image under a further tag before its tag is written over or deleted.

use crate::{Error, Kind, Repository, Result, error::Context, now};
use dray_core::{Digest, Naming, policy::Backup};

/// How many backups of one name there may be. The second one is called `name-2`.
const MOST: usize = 99;

/// Gives an image of a repository a further tag by a template, and returns that tag. A tag that names another image already
/// is left alone, and the next one gets a number. Fails if the image cannot be read, or if no tag is free.
pub(crate) async fn keep(
    repository: &Repository,
    tag: &str,
    digest: &Digest,
    template: &str,
) -> Result<String> {
    let doing = || format!("keep {} of the tag {tag}", digest.short());
    let backup = Backup::read(template).map_err(Error::invalid)?;
    let name = backup.fill(tag, now(), &digest.hex()[..12]);
    let manifest = repository.manifest(Some(&digest.to_string())).await.context(doing)?;
    for number in 1..=MOST {
        let name = match number {
            1 => name.clone(),
            _ => {
                let end = format!("-{number}");
                format!("{}{end}", &name[..name.len().min(128 - end.len())])
            }
        };
        match repository.resolve(Some(&name), None).await.context(doing)? {
            Some(there) if there.descriptor.digest == *digest => return Ok(name),
            Some(_) => {}
            None => {
                if let Some((journal, at)) = repository.memory() {
                    // Without this, a run that is killed now could leave a wrong entry.
                    journal.writes_tag(&at, &name).await.context(doing)?;
                }
                repository.publish(&manifest, &Naming::Tag(name.clone())).await.context(doing)?;
                return Ok(name);
            }
        }
    }
    let text = format!("keep {} of the tag {tag}: {name} and {MOST} like it are taken", digest.short());
    Err(Error::new(Kind::Conflict, text).help("write {time} or {digest} into `backup`, or delete old ones"))
}
