//! `containers-storage:`: the images of podman, buildah and CRI-O, without these programs. It is the store of
//! containers/storage with the driver overlay.

mod name;
mod publish;
mod store;

use dray_plugin_transport::{
    Error, Info, Meta,
    dray::plugin::{
        files,
        types::{Descriptor, Manifest, Segment, Unpacked},
        writing,
    },
    export,
    exports::dray::plugin::{
        catalog::{self, Found, Page},
        references::{self, Parsed},
        sink::{self, Arrival, Capabilities, Holdings, Incoming, Naming, NextStep, Outcome, Step},
        source::{self, ReferrersPage},
    },
    info, read, serde_json, store_file, whole,
};
use publish::{FACTS, Facts};
use std::collections::BTreeSet;
use store::{DOCKER, Image, LAYERS, Layer, OCI, Records, find, images, layers, stage};

struct ContainersStorage;

impl Meta for ContainersStorage {
    fn describe() -> Info {
        let summary = "Images of podman, buildah and CRI-O: containers-storage:[[FOLDER]]NAME[:TAG|@DIGEST]";
        info("containers-storage", env!("CARGO_PKG_VERSION"), summary, &["containers-storage"])
    }
}

impl references::Guest for ContainersStorage {
    fn parse(
        _scheme: String,
        rest: String,
        pattern: bool,
        _registries: Vec<String>,
    ) -> Result<Parsed, Error> {
        name::parse(&rest, pattern)
    }
}

fn page(names: BTreeSet<String>) -> Page {
    Page { names: names.into_iter().collect(), next: None }
}

impl catalog::Guest for ContainersStorage {
    fn repositories(_location: String, _next: Option<String>) -> Result<Page, Error> {
        let images = images()?;
        let names = images.iter().flat_map(Image::names);
        Ok(page(names.map(|(repository, _)| repository.to_owned()).collect()))
    }

    fn tags(_location: String, repository: String, _next: Option<String>) -> Result<Page, Error> {
        let images = images()?;
        let names: BTreeSet<_> = images
            .iter()
            .flat_map(Image::names)
            .filter(|(name, tag)| *name == repository && !tag.contains(':'))
            .map(|(_, tag)| tag.to_owned())
            .collect();
        match names.is_empty() {
            true => Err(Error::NotFound(format!("there is no image {repository} in the store"))),
            false => Ok(page(names)),
        }
    }

    fn resolve(
        _location: String,
        repository: String,
        reference: Option<String>,
        _known: Option<String>,
    ) -> Result<Found, Error> {
        Ok(match find(&repository, reference.as_deref())? {
            Some(image) => Found::Manifest(image.manifest(reference.as_deref())?),
            None => Found::Absent,
        })
    }
}

dray_plugin_transport::lists_names!(ContainersStorage);

impl source::Guest for ContainersStorage {
    fn fetch(_location: String, repository: String, reference: Option<String>) -> Result<Manifest, Error> {
        match find(&repository, reference.as_deref())? {
            Some(image) => image.manifest(reference.as_deref()),
            None => {
                let reference = reference.as_deref().unwrap_or("latest");
                Err(Error::NotFound(format!("there is no image {repository}:{reference} in the store")))
            }
        }
    }

    fn referrers(_: String, _: String, _: String, _: Option<String>) -> Result<ReferrersPage, Error> {
        Ok(ReferrersPage { descriptors: Vec::new(), next: None })
    }

    fn locate(_location: String, _repository: String, blob: Descriptor) -> Result<Vec<Segment>, Error> {
        if let Some(layer) = layers(&Records::read(LAYERS)?)?.into_iter().find(|layer| layer.is(&blob.digest))
        {
            let tar_split = Layer::tar_split(&layer.id);
            if files::stat(&tar_split)?.is_none() {
                return Err(Error::Unsupported(format!(
                    "the store did not record how the layer {} was packed ({tar_split} is missing)",
                    layer.id
                )));
            }
            let folder = format!("overlay/{}/diff", layer.id);
            return Ok(vec![Segment::Unpacked(Unpacked { folder, tar_split, size: layer.diff_size })]);
        }
        let path =
            dray_plugin_transport::digest(&blob.digest).map(|(_, hex)| Image::path(hex, &blob.digest))?;
        match files::stat(&path)? {
            Some(_) => Ok(vec![Segment::File(whole(&path))]),
            None => Err(Error::NotFound(format!("{} is not in the store", blob.digest))),
        }
    }
}

impl sink::Guest for ContainersStorage {
    fn get_capabilities(_location: String) -> Capabilities {
        let manifests = vec![OCI.into(), DOCKER.into()];
        let holds = Holdings { manifests, plain: false, unpacked: true };
        Capabilities {
            exclusive: false,
            extra: Vec::new(),
            mount: false,
            sparse: None,
            shared: true,
            many: true,
            signatures: false,
            holds: Some(holds),
        }
    }

    fn store_blob(
        _location: String,
        _repository: String,
        incoming: Incoming,
        _state: Option<Vec<u8>>,
        last: Option<Outcome>,
    ) -> Result<NextStep, Error> {
        let Descriptor { media_type, digest, .. } = &incoming.blob;
        let path = stage(digest)?;
        let is_layer = media_type.contains(".image.layer.") || media_type.contains(".image.rootfs.");
        if !is_layer {
            if !media_type.contains(".image.config.") && !media_type.contains(".container.image.") {
                return Err(Error::Unsupported(format!(
                    "the store holds images, and this is something else ({media_type})"
                )));
            }
            return store_file(path, &incoming, last, || Ok(()));
        }
        let facts = format!("{path}/{FACTS}");
        let step = match last {
            Some(Outcome::Unpacked(layer)) => {
                let known =
                    Facts { digest: layer.digest, size: layer.size, uids: layer.uids, gids: layer.gids };
                let bytes = serde_json::to_vec(&known).unwrap_or_default();
                writing::replace(&facts, read(&facts)?.as_deref(), &bytes)?;
                Step::Finished(Arrival::Stored)
            }
            _ if files::stat(&facts)?.is_some() => Step::Finished(Arrival::Present),
            _ if layers(&Records::read(LAYERS)?)?.iter().any(|layer| layer.came_as(digest)) => {
                Step::Finished(Arrival::Present)
            }
            _ => Step::Unpack(path),
        };
        Ok(NextStep { step, state: Vec::new() })
    }

    fn publish(
        _location: String,
        repository: String,
        digest: String,
        manifest: Manifest,
        naming: Naming,
    ) -> Result<(), Error> {
        publish::publish(&repository, &digest, &manifest, &naming)
    }

    fn finish(_location: String, _alone: bool) -> Result<(), Error> {
        Ok(())
    }
}

dray_plugin_transport::prepares_nothing!(ContainersStorage);
dray_plugin_transport::removes_nothing!(
    ContainersStorage,
    "`podman rmi` removes images, and knows what containers need"
);

export!(ContainersStorage);
