//! Uploads (4.3): in one request, in chunks, or by mounting.

use crate::{
    answer::{self, Answer, Fault},
    route::{self, Query},
    storage::{IDLE, Storage, blocking},
};
use bytes::Bytes;
use cap_std::fs::File;
use dray_core::{Algorithm, Digest, Hasher};
use http_body_util::BodyExt;
use hyper::{
    Request, StatusCode,
    body::{Body, Incoming},
    header::{CONTENT_LENGTH, CONTENT_RANGE},
};
use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use tokio::sync::mpsc;

/// An upload to which nothing was written for so long is abandoned.
const OLD: Duration = Duration::from_secs(24 * 3600);

/// Removes abandoned uploads.
pub async fn purge(storage: &Storage) -> Result<(), Fault> {
    blocking(storage, |storage| {
        let mut open = vec![storage.repositories()];
        while let Some(folder) = open.pop() {
            for name in storage.names(&folder)? {
                let path = folder.join(&name);
                match name.as_str() {
                    "_uploads" => purge_in(storage, &path)?,
                    _ if name.starts_with(['_', '.']) => {}
                    _ => open.push(path),
                }
            }
        }
        Ok(())
    })
    .await
}

fn purge_in(storage: &Storage, folder: &Path) -> Result<(), Fault> {
    for id in storage.names(folder)? {
        let upload = folder.join(&id);
        let written = storage.modified(&upload.join("data")).or_else(|_| storage.modified(&upload));
        let old = written.is_ok_and(|written| written.elapsed().is_ok_and(|age| age > OLD));
        // Another request may be writing to the upload at this moment.
        if let Some(_turn) = storage.turn(&id).filter(|_| old) {
            tracing::info!(%id, "an upload that was given up is removed");
            storage.remove_dir_all(&upload)?;
        }
    }
    Ok(())
}

struct Upload {
    name: String,
    id: String,
    folder: PathBuf,
}

impl Upload {
    fn find(storage: &Storage, name: &str, id: &str) -> Result<Self, Fault> {
        let upload = Upload { name: name.into(), id: id.into(), folder: storage.uploads(name).join(id) };
        if storage.is_file(&upload.data()) { Ok(upload) } else { Err(Fault::upload_unknown()) }
    }

    fn create(storage: &Storage, name: &str) -> Result<Self, Fault> {
        // The ID has the form of the UUIDs that distribution makes.
        let random = format!("{:032x}", fastrand::u128(..));
        let id = [&random[..8], &random[8..12], &random[12..16], &random[16..20], &random[20..]].join("-");
        let folder = storage.uploads(name).join(&id);
        storage.create(&folder.join("data"), &[])?;
        storage.create(&folder.join("startedat"), httpdate(SystemTime::now()).as_bytes())?;
        Ok(Upload { name: name.into(), id, folder })
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn size(&self, storage: &Storage) -> Result<u64, Fault> {
        Ok(storage.size(&self.data())?)
    }

    fn answer(&self, storage: &Storage, status: StatusCode) -> Result<Answer, Fault> {
        let mut answer = answer::empty(status);
        answer::set(&mut answer, "location", &format!("/v2/{}/blobs/uploads/{}", self.name, self.id));
        answer::set(&mut answer, "range", &format!("0-{}", self.size(storage)?.saturating_sub(1)));
        answer::set(&mut answer, "docker-upload-uuid", &self.id);
        Ok(answer)
    }

    /// Appends a body to the upload. Returns the digest of the upload if an algorithm is given and this body is the
    /// whole of it.
    async fn take(
        &self,
        storage: &Storage,
        body: Incoming,
        algorithm: Option<Algorithm>,
    ) -> Result<Option<Digest>, Fault> {
        let _place = storage.body().await?;
        let fresh = self.size(storage)? == 0;
        let mut hasher = algorithm.filter(|_| fresh).map(Hasher::new);
        let mut file = storage.append(&self.data())?;
        let (sender, mut chunks) = mpsc::channel::<Bytes>(4);
        let writing = tokio::task::spawn_blocking(move || {
            while let Some(chunk) = chunks.blocking_recv() {
                if let Some(hasher) = &mut hasher {
                    hasher.update(&chunk);
                }
                file.write_all(&chunk)?;
            }
            Ok::<_, std::io::Error>(hasher.map(Hasher::finish))
        });
        let mut body = body;
        let mut broken = None;
        loop {
            let frame = match tokio::time::timeout(IDLE, body.frame()).await {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => {
                    broken = Some(format!("nothing came for {} s", IDLE.as_secs()));
                    break;
                }
            };
            match frame {
                Ok(frame) => {
                    let Ok(chunk) = frame.into_data() else { continue };
                    if sender.send(chunk).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    broken = Some(error.to_string());
                    break;
                }
            }
        }
        drop(sender);
        let digest = writing.await??;
        match broken {
            Some(error) => Err(Fault::upload_invalid(format!("the body broke off: {error}"))),
            None => Ok(digest),
        }
    }

    /// Makes the upload a blob of its repository.
    async fn finish(
        self,
        storage: &Storage,
        digest: Digest,
        hashed: Option<Digest>,
    ) -> Result<Answer, Fault> {
        blocking(storage, move |storage| {
            let hashed = match hashed {
                Some(hashed) => hashed,
                None => hash(storage.open(&self.data())?, digest.algorithm())?,
            };
            if hashed != digest {
                storage.remove_dir_all(&self.folder)?;
                return Err(Fault::digest_invalid(format!(
                    "the content has the digest {hashed}, not {digest}"
                )));
            }
            // A blob that is already there may be damaged, and this one is verified, so it replaces the other.
            storage.open(&self.data())?.sync_all()?;
            storage.rename(&self.data(), &storage.blob(&digest))?;
            storage.link(&storage.layer_link(&self.name, &digest), &digest)?;
            storage.remove_dir_all(&self.folder)?;
            Ok(created(&self.name, &digest))
        })
        .await
    }
}

/// The time in RFC 3339, as distribution writes it.
fn httpdate(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Converts days to a civil date (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let (days, rest) = ((seconds / 86_400) as i64 + 719_468, seconds % 86_400);
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (month, date) =
        (if shifted < 10 { shifted + 3 } else { shifted - 9 }, of_year - (153 * shifted + 2) / 5 + 1);
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

fn hash(mut file: File, algorithm: Algorithm) -> Result<Digest, Fault> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

fn created(name: &str, digest: &Digest) -> Answer {
    let mut answer = answer::empty(StatusCode::CREATED);
    answer::set(&mut answer, "location", &format!("/v2/{name}/blobs/{digest}"));
    answer::set(&mut answer, "docker-content-digest", &digest.to_string());
    answer
}

/// POST mounts a blob, stores a whole blob, or begins an upload.
pub async fn start(
    storage: &Storage,
    name: &str,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Answer, Fault> {
    if let Some(mount) = query.get("mount") {
        let digest = route::digest(mount)?;
        let from = query.get("from").filter(|from| route::is_name(from)).cloned();
        let mounted = blocking(storage, {
            let (name, digest) = (name.to_owned(), digest.clone());
            move |storage| {
                let Some(from) = from else { return Ok(false) };
                let there = storage.follow(&storage.layer_link(&from, &digest))?.is_some()
                    && storage.is_file(&storage.blob(&digest));
                if there {
                    storage.link(&storage.layer_link(&name, &digest), &digest)?;
                }
                Ok(there)
            }
        });
        if mounted.await? {
            return Ok(created(name, &digest));
        }
    }
    let whole = match query.get("digest") {
        Some(digest) => Some(route::digest(digest)?),
        None => None,
    };
    let upload = blocking(storage, {
        let name = name.to_owned();
        move |storage| Upload::create(storage, &name)
    })
    .await?;
    // No other request may write to the upload while it is being stored.
    let _turn = storage.turn(&upload.id).ok_or_else(Fault::upload_busy)?;
    match whole {
        Some(digest) => {
            let hashed = upload.take(storage, request.into_body(), Some(digest.algorithm())).await?;
            upload.finish(storage, digest, hashed).await
        }
        None => upload.answer(storage, StatusCode::ACCEPTED),
    }
}

pub async fn status(storage: &Storage, name: &str, id: &str) -> Result<Answer, Fault> {
    let upload = Upload::find(storage, name, id)?;
    // A request that is being written would make the answer wrong at once.
    let _turn = storage.wait_for_turn(id).await;
    upload.answer(storage, StatusCode::NO_CONTENT)
}

pub async fn cancel(storage: &Storage, name: &str, id: &str) -> Result<Answer, Fault> {
    let _turn = storage.wait_for_turn(id).await.ok_or_else(Fault::upload_busy)?;
    let upload = Upload::find(storage, name, id)?;
    storage.remove_dir_all(&upload.folder)?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// Checks that a chunk begins where the upload ends (`Content-Range: first-last`).
fn in_order(storage: &Storage, upload: &Upload, request: &Request<Incoming>) -> Result<(), Fault> {
    let Some(range) = request.headers().get(CONTENT_RANGE) else { return Ok(()) };
    let size = upload.size(storage)?;
    let range = range.to_str().unwrap_or_default().trim_start_matches("bytes").trim();
    let parsed = range.split_once('-').and_then(|(first, last)| {
        Some((first.parse::<u64>().ok()?, last.split('/').next()?.parse::<u64>().ok()?))
    });
    let (first, last) =
        parsed.ok_or_else(|| Fault::upload_invalid("a Content-Range is written first-last"))?;
    let length =
        request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if first != size || last < first {
        return Err(Fault::out_of_order(size));
    }
    if length.is_some_and(|length| length != last - first + 1) {
        return Err(Fault::upload_invalid("Content-Range and Content-Length disagree"));
    }
    Ok(())
}

pub async fn append(
    storage: &Storage,
    name: &str,
    id: &str,
    request: Request<Incoming>,
) -> Result<Answer, Fault> {
    let _turn = storage.wait_for_turn(id).await.ok_or_else(Fault::upload_busy)?;
    let upload = Upload::find(storage, name, id)?;
    in_order(storage, &upload, &request)?;
    upload.take(storage, request.into_body(), None).await?;
    upload.answer(storage, StatusCode::ACCEPTED)
}

/// PUT brings the last chunk, the whole blob, or no further bytes, and completes the upload.
pub async fn close(
    storage: &Storage,
    name: &str,
    id: &str,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Answer, Fault> {
    let _turn = storage.wait_for_turn(id).await.ok_or_else(Fault::upload_busy)?;
    let upload = Upload::find(storage, name, id)?;
    let digest = query.get("digest").ok_or_else(|| Fault::digest_invalid("the query names no digest"))?;
    let digest = route::digest(digest)?;
    let mut hashed = None;
    if !request.body().is_end_stream() {
        in_order(storage, &upload, &request)?;
        hashed = upload.take(storage, request.into_body(), Some(digest.algorithm())).await?;
    }
    upload.finish(storage, digest, hashed).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates() {
        let at = |seconds| httpdate(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59Z");
    }
}
