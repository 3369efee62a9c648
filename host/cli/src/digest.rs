//! `dray digest`

use crate::{DONE, args::DigestOptions, failure::Failure, output::say};
use dray_core::Manifest;
use dray_engine::{DOCUMENT_LIMIT, Error};
use std::{fs::File, io::Read, path::Path};

/// Prints the digest of a manifest: of the bytes, or of what a signed manifest of schema 1 signs.
pub fn run(options: &DigestOptions) -> Result<u8, Failure> {
    print(&options.manifest)
}

/// Prints the digest of the manifest in a file.
pub fn print(path: &Path) -> Result<u8, Failure> {
    let body = read(path)
        .map_err(|error| Failure::usage(format!("read the manifest {}: {error}", path.display())))?;
    let digest = Manifest::digest_of(&body).map_err(Error::from)?;
    say!("{digest}");
    Ok(DONE)
}

/// Reads a file, or standard input (`-`).
pub fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let source: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(File::open(path)?),
    };
    let (limit, mut body) = (DOCUMENT_LIMIT as u64, Vec::new());
    match source.take(limit + 1).read_to_end(&mut body)? as u64 > limit {
        true => Err(std::io::Error::other("it is too large for a manifest")),
        false => Ok(body),
    }
}
