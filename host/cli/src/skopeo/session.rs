//! The places that a command of skopeo works with, reached as its flags say.

use super::{flags::ImageFlags, unsupported};
use crate::{failure::Failure, local, secrets::UserSecrets, setup};
use dray_core::{Reference, policy::plugin_config};
use dray_engine::{
    Error, Kind, Places, Secret,
    contract::{Credential, Credentials, Key},
    http::{Plain, RegistrySettings, TlsSettings},
};
use dray_session::lazy_auth;
use futures_util::future::BoxFuture;
use std::{collections::BTreeMap, sync::Arc};

/// The transports that skopeo and dray both have.
const TRANSPORTS: [&str; 8] = [
    "containers-storage",
    "dir",
    "docker",
    "docker-archive",
    "docker-daemon",
    "oci",
    "oci-archive",
    "tarball",
];

/// A login of the command line.
struct Given(Key);

impl Credentials for Given {
    fn lookup<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, dray_engine::Result<Option<Credential>>> {
        let origin = "the command line".to_owned();
        let credential = Credential { key: self.0.clone(), lifetime: None, covers: None, origin };
        Box::pin(async { Ok(Some(credential)) })
    }
}

/// The host of a `docker:` reference. `None` means that another transport reads it.
fn host(reference: &Reference) -> Option<String> {
    let rest = reference.rest.strip_prefix("//").filter(|_| reference.scheme == "docker")?;
    let (first, behind) = rest.split_once('/').unwrap_or((rest, ""));
    let is_host = first.contains('.') || first == "localhost" || first.contains(':') && !behind.is_empty();
    Some(if is_host { first.to_owned() } else { "docker.io".to_owned() })
}

/// How a registry is reached.
fn settings(flags: &ImageFlags) -> Result<RegistrySettings, Failure> {
    let base = std::env::current_dir()
        .map_err(|error| Failure::usage(format!("find the working folder: {error}")))?;
    let authfile = flags.authfile.clone().or_else(|| std::env::var_os("REGISTRY_AUTH_FILE").map(Into::into));
    let auth: Vec<Arc<dyn Credentials>> = if flags.no_creds {
        Vec::new()
    } else if let Some(token) = &flags.token {
        vec![Arc::new(Given(Key::Bearer(Secret::new(token.as_str()))))]
    } else if let Some((user, password)) = &flags.login {
        vec![Arc::new(Given(Key::Basic(user.clone(), Secret::new(password.as_str()))))]
    } else {
        let runtime = setup::runtime(BTreeMap::new(), UserSecrets { base, authfile });
        vec![lazy_auth(&runtime, plugin_config("docker-config", Default::default()))]
    };
    let insecure = flags.tls_verify == Some(false);
    let plain = if insecure { Plain::Fallback } else { Plain::Never };
    let tls = TlsSettings { ca: None, identity: None, verify: !insecure, plain };
    Ok(RegistrySettings { tls, auth, ..RegistrySettings::default() })
}

/// The places of a command. Each image is reached as its own flags say.
pub fn places(images: &[(&Reference, &ImageFlags)]) -> Result<Arc<Places>, Failure> {
    let mut registries: BTreeMap<String, RegistrySettings> =
        [(local::DAEMON.to_owned(), local::daemon()?)].into();
    let mut flagged: BTreeMap<String, &ImageFlags> = BTreeMap::new();
    for (reference, flags) in images {
        let Some(host) = host(reference) else { continue };
        if flagged.insert(host.clone(), flags).is_some_and(|before| before != *flags) {
            return Err(unsupported(&format!("reaching {host} in one way to read and in another to write")));
        }
        registries.insert(host, settings(flags)?);
    }
    setup::with_registries(registries, settings(&ImageFlags::default())?)
}

/// The tags of a repository. skopeo ends with 2 only where an image does not exist, and not for a repository.
pub async fn tags(places: &Arc<Places>, repository: &Reference) -> Result<Vec<String>, Failure> {
    dray_engine::list_tags(places, repository).await.map_err(|error| {
        let failed = Error::new(Kind::Invalid, error.text.clone());
        Failure::Failed(match &error.help {
            Some(help) => failed.help(help.as_str()),
            None => failed,
        })
    })
}

/// The reference of an image as skopeo writes it: without a tag, a registry's image is `latest`.
pub fn image(text: &str, flags: &ImageFlags) -> Result<Reference, Failure> {
    let mut named = reference(text, flags)?;
    if named.scheme == "docker" {
        let last = named.rest.rsplit('/').next().unwrap_or_default();
        match (last.split_once('@'), last.contains(':')) {
            (Some((before, _)), _) if before.contains(':') => {
                let text = format!("read the image name \"{text}\": it has a tag and a digest");
                return Err(Failure::usage(text));
            }
            (None, false) => named.rest.push_str(":latest"),
            _ => {}
        }
    }
    Ok(named)
}

/// A reference, with the folder of its blobs.
pub fn reference(text: &str, flags: &ImageFlags) -> Result<Reference, Failure> {
    let mut reference: Reference = text
        .parse()
        .map_err(|_| Failure::usage(format!("read the image name \"{text}\": it has no transport")))?;
    if !TRANSPORTS.contains(&reference.scheme.as_str()) {
        let text = format!("read the image name \"{text}\": unknown transport \"{}\"", reference.scheme);
        return Err(Failure::usage(text));
    }
    reference.blobs = flags.shared_blob_dir.clone();
    Ok(reference)
}
