//! `docker:`: registries that implement the OCI distribution specification 1.1.
//!
//! Section numbers in this crate are those of the distribution specification.

mod listing;
mod name;
mod referrers;
mod remove;
mod upload;
mod wire;

use dray_plugin_transport::{
    Error, Info, Meta,
    dray::plugin::types::{Access, Descriptor, Manifest, Request, Response, Segment},
    export,
    exports::dray::plugin::{
        catalog::{self, Found, Page},
        references::{self, Parsed},
        removal,
        sink::{self, Capabilities, Incoming, Naming, NextStep, Outcome},
        source::{self, ReferrersPage},
    },
    unsigned,
};
use serde::Deserialize;
use wire::{Media, header, next_page, request, send, to};

struct Docker;

impl Meta for Docker {
    fn describe() -> Info {
        Info {
            extra: Vec::new(),
            wishes: Vec::new(),
            name: "docker".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Distribution registries: docker://HOST[:PORT]/REPOSITORY[:TAG|@DIGEST]".into(),
            schemes: vec!["docker".into()],
            config_schema: r#"{"type":"object","additionalProperties":false}"#.into(),
        }
    }
}

impl references::Guest for Docker {
    fn parse(_scheme: String, rest: String, pattern: bool, registries: Vec<String>) -> Result<Parsed, Error> {
        name::parse(&rest, pattern, &registries)
    }
}

#[derive(Deserialize)]
struct Repositories {
    repositories: Option<Vec<Option<String>>>,
}

/// Requests a page of a list. A registry that refuses this number of entries is asked without a number.
fn page(path: &str, next: Option<String>, access: &[Access]) -> Result<Response, Error> {
    let Some(next) = next else {
        let response =
            send(request("GET", format!("{path}?n=1000"), &[200, 400, 405, 416, 422], access), &[])?;
        return match response.status {
            200 => Ok(response),
            _ => send(request("GET", path.into(), &[200], access), &[]),
        };
    };
    send(request("GET", next, &[200], access), &[])
}

impl catalog::Guest for Docker {
    fn repositories(location: String, next: Option<String>) -> Result<Page, Error> {
        let response = page(&to(&location, "_catalog"), next, &[])?;
        let listed: Repositories = wire::json(&response)?;
        let mut names: Vec<String> = listed.repositories.into_iter().flatten().flatten().collect();
        names.retain(|name| name::is_repository(name));
        Ok(Page { names, next: next_page(&response)? })
    }

    fn tags(location: String, repository: String, next: Option<String>) -> Result<Page, Error> {
        let listed = listing::tags(&location, &repository, next)?;
        Ok(Page { names: listed.entries.into_iter().map(|entry| entry.name).collect(), next: listed.next })
    }

    fn resolve(
        location: String,
        repository: String,
        reference: Option<String>,
        known: Option<String>,
    ) -> Result<Found, Error> {
        let reference = wire::needed(reference)?;
        name::check_reference(&reference)?;
        let url = to(&location, &format!("{repository}/manifests/{reference}"));
        let mut head = request("HEAD", url, &[200, 304, 404], &[wire::pull(&repository)]);
        head.headers.push(wire::accept());
        if let Some(known) = known {
            // The entity tags of registries are digests (RFC 9110, 13.1.2). A registry that compares them
            // before it reads the manifest has less work. If its entity tags are something else, nothing
            // matches.
            head.headers.push(("if-none-match".into(), format!("\"{known}\"")));
        }
        // The answer is only a hint, because some registries, and some stores to which they redirect, do not
        // know HEAD.
        let response = match send(head, &[]) {
            Ok(response) => response,
            Err(error @ (Error::RateLimited(_) | Error::Transient(_))) => return Err(error),
            Err(_) => return held(&location, &repository, &reference),
        };
        match response.status {
            304 => return Ok(Found::Unchanged),
            404 => return Ok(Found::Absent),
            _ => {}
        }
        let size =
            header(&response, "content-length").and_then(|value| value.parse().ok()).filter(|size| *size > 0);
        let digest = header(&response, "docker-content-digest").filter(|digest| name::is_digest(digest));
        match (digest, header(&response, "content-type"), size) {
            (Some(digest), Some(media_type), Some(size)) => Ok(Found::Named(Descriptor {
                extra: Vec::new(),
                media_type: wire::without_parameters(media_type),
                digest: digest.into(),
                size,
                artifact_type: None,
                annotations: Vec::new(),
            })),
            // A registry may leave the digest out (4.2), so it is computed from the manifest.
            _ => held(&location, &repository, &reference),
        }
    }
}

fn held(location: &str, repository: &str, reference: &str) -> Result<Found, Error> {
    Ok(match get(location, repository, reference)? {
        Some(manifest) => Found::Manifest(manifest),
        None => Found::Absent,
    })
}

/// The manifest that a reference names. `None` means that it does not exist.
fn get(location: &str, repository: &str, reference: &str) -> Result<Option<Manifest>, Error> {
    Ok(answer(location, repository, reference)?.map(|response| {
        let media_type = header(&response, "content-type").map(wire::without_parameters);
        unsigned(media_type.unwrap_or_default(), response.body)
    }))
}

/// The answer that contains a manifest. `None` means that the manifest does not exist.
fn answer(location: &str, repository: &str, reference: &str) -> Result<Option<Response>, Error> {
    name::check_reference(reference)?;
    let url = to(location, &format!("{repository}/manifests/{reference}"));
    let mut get = request("GET", url, &[200, 400, 404], &[wire::pull(repository)]);
    get.headers.push(wire::accept());
    let response = send(get, &[])?;
    match response.status {
        404 => Ok(None),
        // Some registries answer like this if a repository does not exist yet, so it means no more than a
        // refusal.
        400 => Err(Error::Denied(wire::told(&response))),
        _ => Ok(Some(response)),
    }
}

impl source::Guest for Docker {
    fn fetch(location: String, repository: String, reference: Option<String>) -> Result<Manifest, Error> {
        let reference = wire::needed(reference)?;
        get(&location, &repository, &reference)?
            .ok_or_else(|| Error::NotFound(format!("no manifest {reference} in {location}/{repository}")))
    }

    fn referrers(
        location: String,
        repository: String,
        subject: String,
        next: Option<String>,
    ) -> Result<ReferrersPage, Error> {
        referrers::list(&location, &repository, &subject, next)
    }

    fn locate(location: String, repository: String, blob: Descriptor) -> Result<Vec<Segment>, Error> {
        let url = to(&location, &format!("{repository}/blobs/{}", blob.digest));
        let get = request("GET", url, &[200, 206], &[wire::pull(&repository)]);
        Ok(vec![Segment::Http(get)])
    }
}

impl sink::Guest for Docker {
    fn get_capabilities(_location: String) -> Capabilities {
        Capabilities {
            exclusive: false,
            extra: Vec::new(),
            mount: true,
            sparse: None,
            shared: false,
            many: true,
            signatures: false,
            holds: None,
        }
    }

    fn store_blob(
        location: String,
        repository: String,
        incoming: Incoming,
        state: Option<Vec<u8>>,
        last: Option<Outcome>,
    ) -> Result<NextStep, Error> {
        upload::advance(&location, &repository, &incoming, state, last)
    }

    fn publish(
        location: String,
        repository: String,
        digest: String,
        manifest: Manifest,
        naming: Naming,
    ) -> Result<(), Error> {
        let reference = match &naming {
            Naming::Tag(tag) => tag,
            Naming::Child | Naming::Root => &digest,
        };
        let response = match wire::put_manifest(&location, &repository, reference, &manifest) {
            Ok(response) => response,
            Err(error @ (Error::Missing(_) | Error::RateLimited(_))) => return Err(error),
            // The manifest may have been stored although the answer was lost, and a tag may be immutable.
            Err(error) => match is_stored(&location, &repository, reference, &digest, &manifest) {
                true => return announced(&location, &repository, &digest, &manifest),
                false => return Err(error),
            },
        };
        let stored = header(&response, "docker-content-digest").filter(|stored| !stored.is_empty());
        if let Some(stored) = stored
            && stored != digest
        {
            return Err(Error::Invalid(format!("{location} stored {digest} as {stored}")));
        }
        // The specification requires 201 (4.4). Any other success is accepted if the manifest is there.
        if response.status != 201 && !is_stored(&location, &repository, reference, &digest, &manifest) {
            return Err(Error::Invalid(format!("{}, and does not have the manifest", wire::told(&response))));
        }
        if header(&response, "oci-subject").is_none() {
            referrers::announce(&location, &repository, &digest, &manifest)?;
        }
        Ok(())
    }

    fn finish(_location: String, _alone: bool) -> Result<(), Error> {
        Ok(())
    }
}

/// Whether a reference names this manifest, as far as the registry tells.
fn is_stored(location: &str, repository: &str, reference: &str, digest: &str, manifest: &Manifest) -> bool {
    let found =
        <Docker as catalog::Guest>::resolve(location.into(), repository.into(), Some(reference.into()), None);
    match found {
        Ok(Found::Named(named)) => named.digest == digest,
        Ok(Found::Manifest(held)) => held.body == manifest.body,
        _ => false,
    }
}

/// Makes sure that a manifest that is already there is also listed as a referrer of its subject.
fn announced(location: &str, repository: &str, digest: &str, manifest: &Manifest) -> Result<(), Error> {
    let Some(subject) = referrers::subject(manifest) else { return Ok(()) };
    let listed = referrers::list(location, repository, &subject, None)?;
    match listed.descriptors.iter().any(|listed| listed.digest == digest) {
        true => Ok(()),
        false => referrers::announce(location, repository, digest, manifest),
    }
}

impl removal::Guest for Docker {
    fn delete_tag(
        location: String,
        repository: String,
        tag: String,
        expected: Option<String>,
    ) -> Result<(), Error> {
        remove::tag(&location, &repository, &tag, expected.as_deref())
    }

    fn delete_manifest(location: String, repository: String, digest: String) -> Result<(), Error> {
        remove::manifest(&location, &repository, &digest)
    }
}

dray_plugin_transport::prepares_nothing!(Docker);
export!(Docker with_types_in dray_plugin_transport);
