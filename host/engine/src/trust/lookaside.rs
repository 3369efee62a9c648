//! Where signatures of registries are kept beside the registry (containers-registries.d(5), signature-protocols.md of
//! containers/image): in a folder, or on a web server.

use crate::{Error, Kind, Result, blocking, contract::Request, files::regular, http::PlaceHttp};
use bytes::Bytes;
use dray_core::{Address, Digest};
use dray_trust::{Image, Signature};
use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

/// The largest signature in bytes, how many an image may have, and how many bytes all of them.
const SIZE: u64 = 4 << 20;
const ALL: usize = 8 << 20;
pub(super) const COUNT: usize = 128;

/// `path@algorithm=hex`, beneath which the signatures of a manifest are.
fn folder(image: &Image, digest: &Digest) -> Option<String> {
    // The grammar of names knows no `..`, so this leads nowhere else.
    let name = image.name.as_ref()?;
    Some(format!("{}@{}={}", name.path, digest.algorithm_name(), digest.hex()))
}

/// Reads the signatures beneath a URL, until the first that is missing.
pub(super) async fn read(
    base: &str,
    image: &Image,
    digest: &Digest,
    client: &crate::http::Client,
) -> Result<Vec<Vec<u8>>> {
    let Some(folder) = folder(image, digest) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    if let Some(path) = base.strip_prefix("file://") {
        let folder = Path::new(path).join(folder);
        return blocking("read signatures", move || read_files(&folder)).await?;
    }
    let origin = dray_trust::origin(base).ok_or_else(|| {
        Error::invalid(format!("read signatures: {} is no URL of a lookaside", Address::new(base).shown()))
    })?;
    let http = PlaceHttp::beside(client, &origin)?;
    loop {
        let url = format!("{}/{folder}/signature-{}", base.trim_end_matches('/'), found.len() + 1);
        let secure = url.replacen("http://", "https://", 1);
        let request = Request {
            method: "GET".into(),
            url: Address::new(secure),
            headers: Vec::new(),
            expect: vec![200, 404],
            access: Vec::new(),
        };
        let answer = http.send(&request, Bytes::new()).await?;
        if answer.status == 404 {
            return Ok(found);
        }
        let size: usize = found.iter().map(Vec::len).sum();
        if answer.body.len() as u64 > SIZE || found.len() >= COUNT || size > ALL {
            return Err(Error::invalid(format!(
                "read signatures of {}: there are too many, or too large ones",
                image.shown()
            )));
        }
        found.push(answer.body.to_vec());
    }
}

fn read_files(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    loop {
        let path = folder.join(format!("signature-{}", found.len() + 1));
        let no_signature = || Error::invalid(format!("read {}: it is no signature", path.display()));
        let file = match regular::open(&path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(found);
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(no_signature()),
            Err(error) => return Err(Error::io(format!("read {}", path.display()), error)),
        };
        let size: usize = found.iter().map(Vec::len).sum();
        if size > ALL {
            return Err(no_signature());
        }
        let mut bytes = Vec::new();
        let read = file.take(SIZE + 1).read_to_end(&mut bytes);
        read.map_err(|error| Error::io(format!("read {}", path.display()), error))?;
        if bytes.len() as u64 > SIZE || found.len() >= COUNT {
            return Err(Error::invalid(format!("read {}: it is too large for a signature", path.display())));
        }
        found.push(bytes);
    }
}

/// Adds a signature to those beneath a URL. It is not written twice.
pub(super) async fn write(base: &str, image: &Image, digest: &Digest, signature: Vec<u8>) -> Result<()> {
    let named = folder(image, digest);
    let folder = named
        .ok_or_else(|| Error::new(Kind::Unsupported, format!("sign {}: it has no name", image.shown())))?;
    let Some(path) = base.strip_prefix("file://") else {
        let shown = Address::new(base).shown();
        let text = format!("write a signature to {shown}: only folders can be written");
        return Err(Error::new(Kind::Unsupported, text).help(
            "`lookaside-staging: file:///…` in registries.d names the folder that is published there",
        ));
    };
    let folder = Path::new(path).join(folder);
    blocking("write a signature", move || write_file(&folder, &signature)).await?
}

fn write_file(folder: &Path, signature: &[u8]) -> Result<()> {
    let there = read_files(folder)?;
    if there.iter().any(|there| there == signature) {
        return Ok(());
    }
    let failed = |path: &Path| {
        let doing = format!("write {}", path.display());
        move |error| Error::io(doing, error)
    };
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(failed(folder))?;
    let mut number = there.len() + 1;
    loop {
        let path = folder.join(format!("signature-{number}"));
        // The file gets its name only when it is whole, and no file of another process is replaced.
        let fresh = folder.join(format!(".signature-{number}.{}", std::process::id()));
        let mut options = fs::OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(0o644).open(&fresh);
        let written = opened.and_then(|mut file| file.write_all(signature).and_then(|()| file.sync_all()));
        let linked = written.and_then(|()| fs::hard_link(&fresh, &path));
        let _ = fs::remove_file(&fresh);
        match linked {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < COUNT => number += 1,
            Err(error) => return Err(failed(&path)(error)),
        }
    }
}

/// Removes the signatures of a manifest beneath a URL, if that is a folder. Registries that share a folder share the path of
/// an image of the same name and content, so only signatures that name this repository go; the others move up.
pub(super) async fn remove(base: &str, image: &Image, digest: &Digest) -> Result<()> {
    let (Some(path), Some(folder)) = (base.strip_prefix("file://"), folder(image, digest)) else {
        return Ok(());
    };
    let folder = Path::new(path).join(folder);
    let repository = image.name.as_ref().map(|name| (name.domain.clone(), name.path.clone()));
    blocking("remove signatures", move || {
        let there = read_files(&folder)?;
        let is_own = |signature: &Vec<u8>| {
            let named = Signature::from_file(signature).ok().and_then(|signature| signature.claimed_name());
            named.is_some_and(|named| Some((named.domain, named.path)) == repository)
        };
        let own: Vec<usize> = (0..there.len()).filter(|at| is_own(&there[*at])).map(|at| at + 1).collect();
        let path = |number: usize| folder.join(format!("signature-{number}"));
        let failed = |path: &Path| {
            let doing = format!("remove {}", path.display());
            move |error| Error::io(doing, error)
        };
        // From the last one: the file behind it takes its place, so that no number is missing at any moment.
        let mut count = there.len();
        for number in own.into_iter().rev() {
            if number < count {
                fs::rename(path(count), path(number)).map_err(failed(&path(number)))?;
            } else {
                fs::remove_file(path(number)).map_err(failed(&path(number)))?;
            }
            count -= 1;
        }
        // A folder with anything else in it stays.
        let _ = fs::remove_dir(&folder);
        Ok(())
    })
    .await?
}
