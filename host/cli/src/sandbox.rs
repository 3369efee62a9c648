//! A sync confines itself to what its policy names (Landlock, Linux 5.13): a plugin that broke out of WebAssembly, or a
//! mistake of dray's own, opens nothing else. It is applied before any thread begins, as a thread inherits it.

use crate::{local, policy::Loaded, secrets, setup};
use dray_core::{
    Reference,
    policy::{PluginSource, SecretRef, Tls},
};
use dray_session::artifact::signature_file;
use landlock::{
    ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, path_beneath_rules,
};
use std::{
    collections::BTreeSet,
    env,
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// What of a system programs read: libraries, certificates, names of hosts, time zones, the programs that help.
const SYSTEM: [&str; 15] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/etc",
    "/opt",
    "/nix",
    "/proc",
    "/sys",
    "/dev",
    "/run/systemd",
    "/run/resolvconf",
    "/var/lib/ca-certificates",
];

const NO_LANDLOCK: &str = "this kernel has no Landlock";

/// Paths that a run may open.
#[derive(Debug, Default, PartialEq)]
struct Paths {
    /// To read, and to run programs of.
    read: BTreeSet<PathBuf>,
    /// To change.
    write: BTreeSet<PathBuf>,
}

/// The result.
#[derive(Debug, PartialEq, Eq)]
enum Confined {
    /// Nothing else can be opened from here on.
    Yes,
    /// Why not.
    No(String),
}

/// Confines this process to what a policy names, its state and its certificates, and says where it is not: before any
/// thread begins, which would not be confined.
pub fn confine(loaded: &Loaded) {
    if let Confined::No(why) = confined(loaded) {
        tracing::info!("not confined to the paths that the policy names: {why}");
    }
}

fn confined(loaded: &Loaded) -> Confined {
    if let Some(helper) = secrets::helper() {
        // A program that keeps passwords opens its user's files, and nobody but it knows which.
        return Confined::No(format!("{helper} names a credential helper, which needs files of its own"));
    }
    let paths = paths(loaded);
    tracing::debug!(read = ?paths.read, write = ?paths.write, "confined");
    apply(&paths).unwrap_or_else(|error| Confined::No(error.to_string()))
}

fn apply(paths: &Paths) -> Result<Confined, landlock::RulesetError> {
    let abi = ABI::V5;
    let linked = LINKED.iter().filter_map(|path| Path::new(path).canonicalize().ok());
    let system = SYSTEM.iter().map(PathBuf::from).chain(linked);
    let read: Vec<PathBuf> = system.chain(paths.read.iter().cloned()).collect();
    let write: Vec<PathBuf> = paths.write.iter().map(|path| existing(path)).collect();
    let devices = ["/dev/null", "/dev/tty", "/dev/fuse"];
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .create()?
        .add_rules(path_beneath_rules(read, AccessFs::from_read(abi)))?
        .add_rules(path_beneath_rules(devices, AccessFs::from_read(abi) | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules(write, AccessFs::from_all(abi)))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::NotEnforced => Confined::No(NO_LANDLOCK.into()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Confined::Yes,
    })
}

/// The nearest folder that is there, in which what is not there yet is made. A folder that holds much more (the root, a
/// home) is not opened for that: what is next in it on the way is made now.
fn existing(path: &Path) -> PathBuf {
    let mut there = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned();
    let home = env::home_dir();
    while there != path && (there.parent().is_none() || home.as_deref() == Some(&there)) {
        let next = path.strip_prefix(&there).ok().and_then(|rest| rest.components().next());
        let Some(next) = next else { break };
        let made = there.join(next);
        let mut builder = DirBuilder::new();
        // As dray makes its own, and podman its stores.
        let told = builder.mode(if home.as_deref() == Some(&there) { 0o700 } else { 0o755 }).create(&made);
        if told.is_err() {
            break;
        }
        there = made;
    }
    there
}

/// Files of the system that may be links to where they are kept (`/etc/resolv.conf`).
const LINKED: [&str; 6] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/localtime",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

fn paths(loaded: &Loaded) -> Paths {
    let (policy, base) = (&loaded.policy, &loaded.base);
    let mut paths = Paths::default();
    let local = local::local();
    paths.write.insert(local.scratch.clone());
    paths.write.extend(local::state_folder());
    paths.write.extend(setup::cache_folder());
    paths.read.extend(secrets::usual_places());
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR", "REGISTRY_AUTH_FILE", "DOCKER_CERT_PATH"] {
        paths.read.extend(env::var_os(name).map(PathBuf::from));
    }
    let file = |secret: &SecretRef| match secret {
        SecretRef::File(path) => Some(base.join(path)),
        SecretRef::Env(_) => None,
    };
    for registry in policy.registries.values().chain([&policy.default_registry]) {
        paths.write.extend(registry.storage.iter().map(|storage| base.join(storage)));
        if let Tls::On { ca, identity, .. } = &registry.tls {
            paths.read.extend(ca.iter().map(|ca| base.join(ca)));
            paths.read.extend(identity.iter().flat_map(|(cert, key)| [base.join(cert), base.join(key)]));
        }
        for call in registry.auth.iter().flatten() {
            paths.read.extend(call.secrets().filter_map(|(_, secret)| file(&secret)));
        }
    }
    paths.read.extend(loaded.scan_reports.iter().cloned());
    if !policy.ignores_system {
        paths.read.extend(setup::system_files().paths());
    }
    for call in policy.rules.iter().flat_map(|rule| &rule.require).chain(&policy.observers) {
        paths.read.extend(call.secrets().filter_map(|(_, secret)| file(&secret)));
        // A wrong demand is told when the session is opened.
        if let Ok(requirement) = dray_engine::signed(&call.config, base) {
            paths.read.extend(requirement.files().into_iter().map(PathBuf::from));
        }
    }
    for plugin in policy.plugins.values() {
        if let PluginSource::File(path) = &plugin.source.value {
            let path = base.join(path);
            paths.read.extend([signature_file(&path), path]);
        }
        paths.read.extend(plugin.trusted_keys.iter().map(|key| base.join(key)));
        paths.write.extend(plugin.grant.files.iter().map(|path| base.join(path)));
        paths.read.extend(plugin.grant.secrets.iter().filter_map(file));
    }
    for at in policy.retains.iter().flat_map(|retain| &retain.at) {
        paths.write.extend(named(&at.value).map(|path| base.join(path)));
        paths.write.extend(known(&at.value, &local));
    }
    for rule in &policy.rules {
        for from in &rule.from {
            let changes = from.value.scheme == "containers-storage";
            let found = if changes { &mut paths.write } else { &mut paths.read };
            found.extend(named(&from.value).map(|path| base.join(path)));
            found.extend(known(&from.value, &local));
        }
        let is_archive = rule.to.value.scheme.ends_with("archive");
        paths.write.extend(named(&rule.to.value).map(|path| {
            let path = base.join(path);
            // A new archive is made beside the old one.
            match path.parent() {
                Some(folder) if is_archive && !path.is_dir() => folder.to_owned(),
                _ => path,
            }
        }));
        paths.write.extend(known(&rule.to.value, &local));
        let blobs = rule.from.iter().map(|from| &from.value).chain([&rule.to.value]);
        paths
            .write
            .extend(blobs.filter_map(|reference| reference.blobs.as_ref()).map(|path| base.join(path)));
    }
    paths
}

/// The store that a reference does not name and means.
fn known(reference: &Reference, local: &dray_engine::Local) -> Option<PathBuf> {
    local.known.get(&reference.scheme).filter(|_| !reference.rest.starts_with('[')).cloned()
}

/// The paths that a reference names. Of a template, the folder before the first placeholder; of a stranger's scheme,
/// what stands before a colon or an `@`.
fn named(reference: &Reference) -> impl Iterator<Item = PathBuf> {
    let rest = reference.rest.as_str();
    let until = |end: &[char]| rest.split(end).next().unwrap_or_default();
    let texts: Vec<&str> = match reference.scheme.as_str() {
        "docker" | "docker-daemon" => Vec::new(),
        "dir" => vec![rest],
        "tarball" => rest.split(['@', ':']).collect(),
        "containers-storage" | "registry-storage" => rest
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
            .map(|(folder, _)| folder)
            .into_iter()
            .collect(),
        _ => vec![until(&[':', '@'])],
    };
    let path = |text: &str| match text.split_once('{') {
        None => PathBuf::from(text),
        Some((before, _)) => PathBuf::from(before.rsplit_once('/').map_or("", |(folder, _)| folder)),
    };
    let paths: Vec<PathBuf> = texts.into_iter().filter(|text| !text.is_empty()).map(path).collect();
    paths.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_their_paths() {
        for (reference, expected) in [
            ("docker://r.example/a:1", vec![]),
            ("oci:a/b:r.example/x:1", vec!["a/b"]),
            ("oci-archive:/srv/a.tar:1", vec!["/srv/a.tar"]),
            ("dir:out/{path}/{tag}", vec!["out"]),
            ("oci:mirror-{name}", vec![""]),
            ("registry-storage:[/srv/x]a/b", vec!["/srv/x"]),
            ("containers-storage:a/b:1", vec![]),
            ("tarball:a.tar:b.tar@linux/amd64", vec!["a.tar", "b.tar", "linux/amd64"]),
            ("mine:./images:v1", vec!["./images"]),
        ] {
            let paths: Vec<PathBuf> = named(&reference.parse().unwrap()).collect();
            assert_eq!(paths, expected.into_iter().map(PathBuf::from).collect::<Vec<_>>(), "{reference}");
        }
    }

    #[test]
    fn what_is_not_named_cannot_be_opened() {
        let [inside, outside] = [(), ()].map(|()| tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap());
        for folder in [&inside, &outside] {
            std::fs::write(folder.path().join("file"), "x").unwrap();
        }
        let named = inside.path().to_owned();
        let paths = Paths { read: BTreeSet::new(), write: BTreeSet::from([named.clone()]) };
        let other = outside.path().to_owned();
        // Only this thread is confined.
        let tried = std::thread::spawn(move || {
            let confined = apply(&paths).unwrap();
            let reads =
                std::fs::read(named.join("file")).is_ok() && std::fs::write(named.join("new"), "y").is_ok();
            (
                confined,
                reads,
                std::fs::read(other.join("file")).is_ok(),
                std::fs::write(other.join("new"), "").is_ok(),
            )
        });
        let (confined, inside, read, written) = tried.join().unwrap();
        assert!(inside);
        match confined {
            Confined::Yes => assert!(!read && !written),
            Confined::No(why) => assert_eq!(why, NO_LANDLOCK),
        }
    }
}
