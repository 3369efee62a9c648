//! The plugins that are built into dray, embedded as components.

use crate::Role;

pub(crate) struct Builtin {
    pub name: &'static str,
    pub role: Role,
    pub schemes: &'static [&'static str],
    pub component: &'static [u8],
}

macro_rules! builtin {
    ($kind:literal, $name:literal, $role:expr, $schemes:expr) => {
        Builtin {
            name: $name,
            role: $role,
            schemes: $schemes,
            component: include_bytes!(concat!("../../../plugins/prebuilt/", $kind, "-", $name, ".wasm")),
        }
    };
}

/// Plugins of different kinds may have the same name: `provider = "ecr"` and `kind = "ecr"` are two.
pub(crate) static BUILTINS: [Builtin; 46] = [
    builtin!("transport", "docker", Role::Transport, &["docker"]),
    builtin!("transport", "oci", Role::Transport, &["oci", "oci-archive"]),
    builtin!("transport", "dir", Role::Transport, &["dir"]),
    builtin!("transport", "docker-archive", Role::Transport, &["docker-archive", "docker-daemon"]),
    builtin!("transport", "registry-storage", Role::Transport, &["registry-storage"]),
    builtin!("transport", "containers-storage", Role::Transport, &["containers-storage"]),
    builtin!("transport", "tarball", Role::Transport, &["tarball"]),
    builtin!("auth", "docker-config", Role::Auth, &[]),
    builtin!("auth", "static", Role::Auth, &[]),
    builtin!("auth", "ecr", Role::Auth, &[]),
    builtin!("auth", "gar", Role::Auth, &[]),
    builtin!("auth", "acr", Role::Auth, &[]),
    builtin!("auth", "docker-hub", Role::Auth, &[]),
    builtin!("auth", "gitlab", Role::Auth, &[]),
    builtin!("auth", "ali-acr", Role::Auth, &[]),
    builtin!("auth", "huawei-swr", Role::Auth, &[]),
    builtin!("auth", "tencent-tcr", Role::Auth, &[]),
    builtin!("auth", "volcengine-cr", Role::Auth, &[]),
    builtin!("filter", "glob", Role::Filter, &[]),
    builtin!("filter", "regex", Role::Filter, &[]),
    builtin!("filter", "semver", Role::Filter, &[]),
    builtin!("filter", "latest", Role::Filter, &[]),
    builtin!("filter", "age", Role::Filter, &[]),
    builtin!("filter", "label", Role::Filter, &[]),
    builtin!("filter", "pushed", Role::Filter, &[]),
    builtin!("filter", "signed", Role::Filter, &[]),
    builtin!("filter", "scanned", Role::Filter, &[]),
    builtin!("verifier", "scan", Role::Verifier, &[]),
    builtin!("verifier", "min-age", Role::Verifier, &[]),
    builtin!("mapper", "regex", Role::Mapper, &[]),
    builtin!("observer", "webhook", Role::Observer, &[]),
    builtin!("dialect", "harbor", Role::Dialect, &[]),
    builtin!("dialect", "quay", Role::Dialect, &[]),
    builtin!("dialect", "docker-hub", Role::Dialect, &[]),
    builtin!("dialect", "zot", Role::Dialect, &[]),
    builtin!("dialect", "acr", Role::Dialect, &[]),
    builtin!("dialect", "gitlab", Role::Dialect, &[]),
    builtin!("dialect", "ecr", Role::Dialect, &[]),
    builtin!("dialect", "gar", Role::Dialect, &[]),
    builtin!("dialect", "ghcr", Role::Dialect, &[]),
    builtin!("dialect", "artifactory", Role::Dialect, &[]),
    builtin!("dialect", "nexus", Role::Dialect, &[]),
    builtin!("dialect", "ali-acr", Role::Dialect, &[]),
    builtin!("dialect", "huawei-swr", Role::Dialect, &[]),
    builtin!("dialect", "tencent-tcr", Role::Dialect, &[]),
    builtin!("dialect", "volcengine-cr", Role::Dialect, &[]),
];

impl Builtin {
    /// The plugin of a kind with this name.
    pub fn named(name: &str, role: Role) -> Option<&'static Builtin> {
        BUILTINS.iter().find(|builtin| builtin.name == name && builtin.role == role)
    }
}
