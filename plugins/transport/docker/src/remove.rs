//! Removes tags and manifests (4.6).

use super::{name, wire};
use dray_plugin_transport::{Error, dray::plugin::types::Access};

/// Token servers know the right to delete as `*`, which every one of them understands (Quay refuses `delete`). Where the
/// registry itself asks for another right, the host adds it.
fn access(repository: &str) -> Access {
    Access { repository: repository.into(), actions: vec!["*".into()] }
}

/// Asks for a deletion. Returns the status and what the registry told, or `None` if it is done.
fn delete(location: &str, repository: &str, reference: &str) -> Result<Option<(u16, String)>, Error> {
    name::check_reference(reference)?;
    let url = wire::to(location, &format!("{repository}/manifests/{reference}"));
    let statuses = [200, 202, 204, 400, 404, 405, 501];
    let response = wire::send(wire::request("DELETE", url, &statuses, &[access(repository)]), &[])?;
    Ok((!(200..=299).contains(&response.status)).then(|| (response.status, wire::told(&response))))
}

/// A registry cannot compare what the tag names in the same step, so `expected` is not looked at.
pub fn tag(location: &str, repository: &str, tag: &str, _expected: Option<&str>) -> Result<(), Error> {
    match delete(location, repository, tag)? {
        None => Ok(()),
        // A registry that does not know the deletion of tags looks for a manifest with this digest, or says
        // that the digest is none (docker-registry 2.8).
        Some((_, told)) => Err(Error::Unsupported(format!("{location} does not remove single tags: {told}"))),
    }
}

pub fn manifest(location: &str, repository: &str, digest: &str) -> Result<(), Error> {
    match delete(location, repository, digest)? {
        None => Ok(()),
        Some((404, told)) if !told.contains("UNSUPPORTED") => {
            Err(Error::NotFound(format!("no manifest {digest} in {location}/{repository}")))
        }
        Some((_, told)) => Err(Error::Denied(format!(
            "{told}; the registry may not let anybody delete (docker-registry needs REGISTRY_STORAGE_DELETE_ENABLED=true)"
        ))),
    }
}
