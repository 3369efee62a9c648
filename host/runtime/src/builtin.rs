//! The plugins that are built into dray, embedded as components.

use crate::Role;

pub(crate) struct Builtin {
    pub name: &'static str,
    pub role: Role,
    pub schemes: &'static [&'static str],
    pub component: &'static [u8],
}

macro_rules! builtin {
    ($name:literal, $role:expr, $schemes:expr) => {
        Builtin {
            name: $name,
            role: $role,
            schemes: $schemes,
            component: include_bytes!(concat!("../../../plugins/prebuilt/", $name, ".wasm")),
        }
    };
}

pub(crate) static BUILTINS: [Builtin; 27] = [
    builtin!("docker", Role::Transport, &["docker"]),
    builtin!("oci", Role::Transport, &["oci", "oci-archive"]),
    builtin!("dir", Role::Transport, &["dir"]),
    builtin!("docker-archive", Role::Transport, &["docker-archive", "docker-daemon"]),
    builtin!("registry-storage", Role::Transport, &["registry-storage"]),
    builtin!("containers-storage", Role::Transport, &["containers-storage"]),
    builtin!("tarball", Role::Transport, &["tarball"]),
    builtin!("docker-config", Role::Auth, &[]),
    builtin!("static", Role::Auth, &[]),
    builtin!("ecr", Role::Auth, &[]),
    builtin!("glob", Role::Filter, &[]),
    builtin!("regex", Role::Filter, &[]),
    builtin!("semver", Role::Filter, &[]),
    builtin!("latest", Role::Filter, &[]),
    builtin!("age", Role::Filter, &[]),
    builtin!("label", Role::Filter, &[]),
    builtin!("pushed", Role::Filter, &[]),
    builtin!("signed", Role::Filter, &[]),
    builtin!("scanned", Role::Filter, &[]),
    builtin!("scan", Role::Verifier, &[]),
    builtin!("min-age", Role::Verifier, &[]),
    builtin!("harbor", Role::Dialect, &[]),
    builtin!("quay", Role::Dialect, &[]),
    builtin!("docker-hub", Role::Dialect, &[]),
    builtin!("zot", Role::Dialect, &[]),
    builtin!("acr", Role::Dialect, &[]),
    builtin!("gitlab", Role::Dialect, &[]),
];
