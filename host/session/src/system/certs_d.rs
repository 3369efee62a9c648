//! certs.d (containers-certs.d(5)): the certificates of one registry, in a folder.

use dray_engine::{Error, Kind, http::HostTls};
use std::{fs, path::Path};

/// The certificates in a folder: `*.crt` are authorities, and `*.cert` with `*.key` of the same name are for the client.
///
/// # Errors
/// Fails if the folder cannot be read, or if one half of a pair is missing.
pub fn certificates(folder: &Path) -> Result<HostTls, Error> {
    let failed = |error: std::io::Error| Error::new(Kind::Io, format!("read {}: {error}", folder.display()));
    let mut tls = HostTls::default();
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    for path in paths {
        let lone = |missing: &Path| {
            let text = format!("use {}: {} is not beside it", path.display(), missing.display());
            Error::new(Kind::Invalid, text).help("a client needs both: name.cert and name.key")
        };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => tls.ca.push(path),
            Some("cert") => {
                let key = path.with_extension("key");
                if !key.exists() {
                    return Err(lone(&key));
                }
                tls.identity.get_or_insert((path, key));
            }
            Some("key") => {
                let cert = path.with_extension("cert");
                if !cert.exists() {
                    return Err(lone(&cert));
                }
            }
            _ => {}
        }
    }
    Ok(tls)
}
