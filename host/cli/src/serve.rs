//! `dray registry serve`

use crate::{DONE, args::ServeOptions, failure::Failure, output::tell, progress::Screen, signals::Stop};
use dray_engine::{Error, Kind};
use dray_registry::{Access, Server, Tls, Users};
use std::{fs, io::ErrorKind, path::Path};

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::usage(format!("read {}: {error}", path.display())))
}

fn users(path: &Path) -> Result<Users, Failure> {
    let text = String::from_utf8_lossy(&read(path)?).into_owned();
    Users::parse(&text).map_err(|why| Failure::usage(format!("read {}: {why}", path.display())))
}

pub async fn run(options: ServeOptions, screen: Screen) -> Result<u8, Failure> {
    let mut stop = Stop::listen(&screen);
    let ServeOptions { root, addr, .. } = &options;
    let tls = match (&options.tls_cert, &options.tls_key) {
        (Some(certificate), Some(key)) => {
            let tls = Tls::new(&read(certificate)?, &read(key)?);
            let shown = format!("{} and {}", certificate.display(), key.display());
            Some(tls.map_err(|why| Failure::usage(format!("use {shown}: {why}")))?)
        }
        _ => None,
    };
    let access = Access {
        token: None,
        users: options.htpasswd.as_deref().map(users).transpose()?,
        read_only: options.read_only,
        allow_delete: options.allow_delete,
    };
    let open = access.users.is_none();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let server = Server::bind(root, *addr, access, tls).await;
    let server = server.map_err(|error| {
        let failed = Error::new(Kind::Io, format!("serve {} at {addr}: {error}", root.display()));
        Failure::Failed(match error.kind() {
            ErrorKind::AddrInUse => failed.help("another program listens there: choose a port with --addr"),
            ErrorKind::PermissionDenied => {
                failed.help("ports below 1024 are root's: choose another with --addr")
            }
            _ => failed,
        })
    })?;
    tell!("serving {} at {scheme}://{}; stop with Ctrl-C", root.display(), server.address());
    if !addr.ip().is_loopback() && open {
        let what = if options.read_only { "read" } else { "read and write" };
        tracing::warn!(
            help = "--htpasswd FILE asks for a user and a password",
            "anybody who reaches {addr} can {what}: it asks for no credentials"
        );
    } else if !addr.ip().is_loopback() && scheme == "http" {
        tracing::warn!(
            help = "--tls-cert FILE and --tls-key FILE hide them",
            "passwords travel to {addr} in the clear"
        );
    }
    tokio::select! {
        () = server.run() => {}
        _ = stop.signal.wait_for(|stop| *stop) => {}
    }
    Ok(stop.code().unwrap_or(DONE))
}
