//! `dray registry serve`

use crate::{DONE, failure::Failure, output::tell, signals::Stop};
use dray_registry::Server;
use std::{net::SocketAddr, path::Path};

pub async fn run(root: &Path, address: SocketAddr) -> Result<u8, Failure> {
    let mut stop = Stop::listen();
    let server = Server::bind(root, address, None).await;
    let server =
        server.map_err(|error| Failure::usage(format!("serve {} at {address}: {error}", root.display())))?;
    tell!("serving {} at http://{}; stop with Ctrl-C", root.display(), server.address());
    if !address.ip().is_loopback() {
        tracing::warn!("anybody who reaches {address} can read and write: it asks for no credentials");
    }
    tokio::select! {
        () = server.run() => {}
        _ = stop.signal.wait_for(|stop| *stop) => {}
    }
    Ok(stop.code().unwrap_or(DONE))
}
