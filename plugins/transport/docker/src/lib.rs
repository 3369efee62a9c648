//! `docker:`: registries that speak the OCI distribution specification 1.1.
//!
//! Section numbers below are those of the distribution specification.

mod name;
mod referrers;
mod upload;
mod wire;

use dray_plugin_transport::{
    Error, Info, Meta,
    dray::plugin::types::{Access, Descriptor, Manifest, Request, Response, Segment},
    export,
    exports::dray::plugin::{
        catalog::{self, Found, Page},
        references::{self, Parsed},
        sink::{self, Abilities, Incoming, Naming, Outcome, Turn},
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
struct Tags {
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Repositories {
    repositories: Option<Vec<String>>,
}

impl catalog::Guest for Docker {
    fn repositories(location: String, next: Option<String>) -> Result<Page, Error> {
        let url = next.unwrap_or_else(|| to(&location, "_catalog?n=1000"));
        let response = send(request("GET", url, &[200], &[]), &[])?;
        let listed: Repositories = wire::json(&response)?;
        let mut names = listed.repositories.unwrap_or_default();
        names.retain(|name| name::is_repository(name));
        Ok(Page { names, next: next_page(&response)? })
    }

    fn tags(location: String, repository: String, next: Option<String>) -> Result<Page, Error> {
        let url = next.unwrap_or_else(|| to(&location, &format!("{repository}/tags/list?n=1000")));
        let response = send(request("GET", url, &[200], &[wire::pull(&repository)]), &[])?;
        let listed: Tags = wire::json(&response)?;
        Ok(Page { names: listed.tags.unwrap_or_default(), next: next_page(&response)? })
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
            // Registries' entity tags are digests (RFC 9110, 13.1.2): one that compares them before it reads
            // the manifest has less to do. Where they are something else, nothing matches.
            head.headers.push(("if-none-match".into(), format!("\"{known}\"")));
        }
        let response = send(head, &[])?;
        match response.status {
            304 => return Ok(Found::Same),
            404 => return Ok(Found::Absent),
            _ => {}
        }
        let size = header(&response, "content-length").and_then(|value| value.parse().ok());
        match (header(&response, "docker-content-digest"), header(&response, "content-type"), size) {
            (Some(digest), Some(media_type), Some(size)) => Ok(Found::Named(Descriptor {
                media_type: wire::without_parameters(media_type),
                digest: digest.into(),
                size,
                artifact_type: None,
                annotations: Vec::new(),
            })),
            // 4.2 lets a registry leave the digest out; the manifest itself tells it.
            _ => match get(&location, &repository, &reference)? {
                Some(manifest) => Ok(Found::Held(manifest)),
                None => Ok(Found::Absent),
            },
        }
    }
}

/// None: there is no such manifest.
fn get(location: &str, repository: &str, reference: &str) -> Result<Option<Manifest>, Error> {
    name::check_reference(reference)?;
    let url = to(location, &format!("{repository}/manifests/{reference}"));
    let mut get = request("GET", url, &[200, 404], &[wire::pull(repository)]);
    get.headers.push(wire::accept());
    let response = send(get, &[])?;
    if response.status == 404 {
        return Ok(None);
    }
    let media_type = header(&response, "content-type").map(wire::without_parameters);
    Ok(Some(unsigned(media_type.unwrap_or_default(), response.body)))
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
    fn able(_location: String) -> Abilities {
        Abilities { mount: true, sparse: None, shared: false, many: true, signatures: false, holds: None }
    }

    fn store_blob(
        location: String,
        repository: String,
        incoming: Incoming,
        state: Option<Vec<u8>>,
        last: Option<Outcome>,
    ) -> Result<Turn, Error> {
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
        let response = wire::put_manifest(&location, &repository, reference, &manifest)?;
        if let Some(stored) = header(&response, "docker-content-digest")
            && stored != digest
        {
            return Err(Error::Invalid(format!("{location} stored {digest} as {stored}")));
        }
        if header(&response, "oci-subject").is_none() {
            referrers::announce(&location, &repository, &digest, &manifest)?;
        }
        Ok(())
    }

    fn conclude(_location: String, _alone: bool) -> Result<(), Error> {
        Ok(())
    }
}

export!(Docker with_types_in dray_plugin_transport);
