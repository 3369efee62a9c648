//! Removes tags and manifests (4.6).

use super::{name, wire};
use dray_plugin_transport::{Error, dray::plugin::types::Access};

/// Token servers know the right to delete as `*`, which every one of them understands (Quay refuses `delete`). Where the
/// registry itself asks for another right, the host adds it.
fn access(repository: &str) -> Access {
    Access { repository: repository.into(), actions: vec!["*".into()] }
}

pub fn remove(location: &str, repository: &str, reference: &str) -> Result<(), Error> {
    name::check_reference(reference)?;
    let url = wire::to(location, &format!("{repository}/manifests/{reference}"));
    let statuses = [200, 202, 204, 400, 404, 405, 501];
    let response = wire::send(wire::request("DELETE", url, &statuses, &[access(repository)]), &[])?;
    let told = wire::told(&response);
    let refused = told.contains("UNSUPPORTED") || matches!(response.status, 405 | 501);
    match response.status {
        200..=299 => Ok(()),
        _ if name::is_digest(reference) => match response.status {
            404 if !refused => {
                Err(Error::NotFound(format!("no manifest {reference} in {location}/{repository}")))
            }
            _ => Err(Error::Denied(format!(
                "{told}; the registry may not let anybody delete (docker-registry needs REGISTRY_STORAGE_DELETE_ENABLED=true)"
            ))),
        },
        // A registry that does not know the deletion of tags looks for a manifest with this digest, or says
        // that the digest is none (docker-registry 2.8).
        _ => Err(Error::Unsupported(format!("{location} does not remove single tags: {told}"))),
    }
}
