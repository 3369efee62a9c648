//! The places that a command of skopeo works with, reached as its flags say.

use super::{
    flags::{Globals, ImageFlags},
    unsupported,
};
use crate::{
    failure::Failure,
    secrets::{GivenLogin, UserSecrets, variable},
    setup,
};
use dray_core::{Reference, policy::plugin_config};
use dray_engine::{
    Error, Kind, Places, Secret,
    contract::{Credentials, Key},
    http::{Plain, RegistrySettings, TlsSettings},
};
use dray_runtime::Runtime;
use dray_session::{
    lazy_auth,
    system::{SystemFiles, certificates},
};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

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

/// The name of a registry's image in full, with its tag or digest if it has one: `docker.io/library/nginx:1.27`. `None`
/// means that another transport reads it.
pub fn full_name(reference: &Reference) -> Option<String> {
    let rest = reference.rest.strip_prefix("//").filter(|_| reference.scheme == "docker")?;
    Some(match rest.split_once('/') {
        None => format!("docker.io/library/{rest}"),
        Some((first, _)) if !first.contains(['.', ':']) && first != "localhost" => {
            format!("docker.io/{rest}")
        }
        Some(_) => rest.to_owned(),
    })
}

/// Where the tag or the digest of a name begins.
pub fn end_of_name(name: &str) -> Option<usize> {
    let last = name.rfind('/').map_or(0, |at| at + 1);
    name[last..].find(['@', ':']).map(|at| last + at)
}

/// How a registry is reached. `runtime` finds the logins, unless a file of its own is named for them.
fn settings(flags: &ImageFlags, runtime: &Arc<Runtime>) -> Result<RegistrySettings, Failure> {
    let auth: Vec<Arc<dyn Credentials>> = if flags.no_creds {
        Vec::new()
    } else if let Some(token) = &flags.token {
        vec![Arc::new(GivenLogin(Key::Bearer(Secret::new(token.as_str()))))]
    } else if let Some((user, password)) = &flags.login {
        vec![Arc::new(GivenLogin(Key::Basic(user.clone(), Secret::new(password.as_str()))))]
    } else {
        let runtime = match &flags.authfile {
            Some(authfile) => finding(Some(authfile.clone()))?,
            None => runtime.clone(),
        };
        vec![lazy_auth(runtime, plugin_config("docker-config", Default::default()))]
    };
    let insecure = flags.tls_verify == Some(false);
    let plain = if insecure { Plain::Fallback } else { Plain::Never };
    let mut tls = TlsSettings {
        ca: Vec::new(),
        identity: None,
        verify: !insecure,
        plain,
        explicit: flags.tls_verify.is_some(),
    };
    if let Some(folder) = &flags.cert_dir {
        let found = certificates(folder)?;
        (tls.ca, tls.identity) = (found.ca, found.identity);
    }
    Ok(RegistrySettings { tls, auth, ..RegistrySettings::default() })
}

/// A runtime whose auth provider finds logins in this file. `None` means in the usual places.
fn finding(authfile: Option<PathBuf>) -> Result<Arc<Runtime>, Failure> {
    let base = setup::working_folder()?;
    Ok(setup::runtime(BTreeMap::new(), UserSecrets { base, authfile }))
}

/// The places of a command that copies nothing, so that no signature policy is needed.
pub fn places_for_any(
    images: &[(&Reference, &ImageFlags)],
    globals: &Globals,
) -> Result<Arc<Places>, Failure> {
    let mut files = globals.system_files();
    (files.policy, files.policy_required) = (Vec::new(), false);
    opened(images, &files)
}

/// The places of a command that copies. Each image is reached as its own flags say.
///
/// # Errors
/// Fails if there is no signature policy, or if a file of the machine is wrong.
pub fn places(images: &[(&Reference, &ImageFlags)], globals: &Globals) -> Result<Arc<Places>, Failure> {
    opened(images, &globals.system_files())
}

fn opened(images: &[(&Reference, &ImageFlags)], files: &SystemFiles) -> Result<Arc<Places>, Failure> {
    let runtime = finding(variable("REGISTRY_AUTH_FILE"))?;
    let mut registries: BTreeMap<String, RegistrySettings> = BTreeMap::new();
    let mut flagged: BTreeMap<String, &ImageFlags> = BTreeMap::new();
    for (reference, flags) in images {
        let Some(name) = full_name(reference) else { continue };
        let host = name.split('/').next().unwrap_or_default().to_owned();
        if flagged.insert(host.clone(), flags).is_some_and(|before| before != *flags) {
            return Err(unsupported(&format!("reaching {host} in one way to read and in another to write")));
        }
        registries.insert(host, settings(flags, &runtime)?);
    }
    let default = settings(&ImageFlags::default(), &runtime)?;
    setup::with_registries(runtime, registries, default, files)
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
