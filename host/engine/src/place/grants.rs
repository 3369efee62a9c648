//! Checks what a transport may open: what the user wrote in the reference, and what the policy grants.

use crate::{
    Error, Kind, Result,
    contract::{Files, Parsed, Transport},
};
use dray_core::{Reference, policy::grants_host};
use std::path::Path;

/// Whether a reference names exactly this path: either all of the text after its scheme, or the part before a `:` or an
/// `@`. A folder above that path does not count.
fn names_path(rest: &str, root: &str) -> bool {
    let behind = rest.strip_prefix(root);
    !root.is_empty() && behind.is_some_and(|behind| behind.is_empty() || behind.starts_with([':', '@']))
}

/// Whether a reference names this host, at the position of the host in a registry reference.
pub(super) fn names_host(rest: &str, host: &str) -> bool {
    rest.trim_start_matches('/').split('/').next() == Some(host)
}

/// Checks that a plugin asks only for the path and the host that the user wrote or granted.
pub(super) fn check(
    transport: &dyn Transport,
    parsed: &Parsed,
    reference: &Reference,
    base: &Path,
) -> Result<()> {
    let refuse = |what: &str, grant: Option<String>| {
        let name = transport.name();
        let text =
            format!("open {reference}: the plugin {name} asks for {what}, which the reference does not name");
        let error = Error::new(Kind::Denied, text);
        Err(match grant {
            Some(grant) => error.help(format!(
                "if the plugin is to have it, grant it with `grant = {{ {grant} }}` in the table [plugin.{name}]; the plugin has to ask for it, too"
            )),
            None => error,
        })
    };
    match &parsed.root {
        Some(Files::Folder(root) | Files::Archive(root))
            if !names_path(&reference.rest, root) && !grants_path(transport, root, base) =>
        {
            return refuse(&format!("the files of {root}"), Some(format!("files = [{root:?}]")));
        }
        Some(Files::Known(name)) => {
            return refuse(&format!("the folder that is known as {name}"), None);
        }
        _ => {}
    }
    if let Some(host) = &parsed.host
        && !names_host(&reference.rest, host)
        && !transport.granted_hosts().iter().any(|granted| grants_host(granted, host))
    {
        return refuse(&format!("the host {host}"), Some(format!("hosts = [{host:?}]")));
    }
    Ok(())
}

fn grants_path(transport: &dyn Transport, root: &str, base: &Path) -> bool {
    let root = base.join(root);
    transport.granted_files().iter().any(|granted| base.join(granted) == root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_one_path_and_no_folder_above_it() {
        for (rest, root) in [
            ("./images", "./images"),
            ("./images:v1", "./images"),
            ("/srv/a@sha256:00", "/srv/a"),
            ("a:b:c", "a:b"),
        ] {
            assert!(names_path(rest, root), "{rest} {root}");
        }
        for (rest, root) in [
            ("./images", "."),
            ("/srv/a", "/srv"),
            ("/srv/a", "/"),
            ("images", ""),
            ("images", "image"),
            ("a", "../a"),
        ] {
            assert!(!names_path(rest, root), "{rest} {root}");
        }
    }

    #[test]
    fn a_reference_names_one_host() {
        assert!(names_host("//r.example:5000/a", "r.example:5000"));
        assert!(names_host("r.example/a", "r.example"));
        for host in ["example", "a", "r.example", ""] {
            assert!(!names_host("//r.example:5000/a", host), "{host}");
        }
    }
}
