//! Blobs (4.2, 4.9).

use crate::{
    answer::{self, Answer, Chunks, Fault},
    storage::{Storage, blocking},
};
use dray_core::Digest;
use http_body_util::Either;
use hyper::{HeaderMap, Response, StatusCode, header::RANGE};

pub async fn get(
    storage: &Storage,
    name: &str,
    digest: &Digest,
    headers: &HeaderMap,
    head: bool,
) -> Result<Answer, Fault> {
    let (link, path) = (storage.layer_link(name, digest), storage.blob(digest));
    let size = blocking(storage, {
        let (digest, path) = (digest.clone(), path.clone());
        move |storage| {
            let there = storage.follow(&link)?.and(storage.size(&path).ok());
            there.ok_or_else(|| Fault::blob_unknown(&digest.to_string()))
        }
    })
    .await?;
    let wanted = headers.get(RANGE).and_then(|range| range.to_str().ok()).filter(|_| !head);
    let range = match wanted {
        Some(range) => part(range, size)?,
        None => None,
    };
    let (start, length) = range.unwrap_or((0, size));
    let mut answer = match head {
        true => answer::empty(StatusCode::OK),
        false => Response::new(Either::Right(Chunks(storage.stream(&path, start, length).await?, length))),
    };
    if range.is_some() {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        let end = start + length - 1;
        answer::set(&mut answer, "content-range", &format!("bytes {start}-{end}/{size}"));
    }
    answer::set(&mut answer, "content-length", &length.to_string());
    answer::set(&mut answer, "content-type", "application/octet-stream");
    answer::set(&mut answer, "accept-ranges", "bytes");
    answer::set(&mut answer, "docker-content-digest", &digest.to_string());
    Ok(answer)
}

/// Reads `bytes=5-9`, `bytes=5-` or `bytes=-5` as start and length. `None` means that it is a range of another kind,
/// which may be answered with the whole blob (RFC 9110, 14.2).
fn part(range: &str, size: u64) -> Result<Option<(u64, u64)>, Fault> {
    let Some(spec) = range.strip_prefix("bytes=").filter(|spec| !spec.contains(',')) else { return Ok(None) };
    let Some((first, last)) = spec.split_once('-') else { return Ok(None) };
    let (start, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(start), Ok(end)) if start <= end => (start, end.min(size.saturating_sub(1))),
        (Ok(start), Err(_)) if last.is_empty() => (start, size.saturating_sub(1)),
        (Err(_), Ok(suffix)) if first.is_empty() => (size.saturating_sub(suffix), size.saturating_sub(1)),
        _ => return Ok(None),
    };
    if start >= size || end < start {
        return Err(Fault::range(size));
    }
    Ok(Some((start, end - start + 1)))
}

pub async fn delete(storage: &Storage, name: &str, digest: &Digest) -> Result<Answer, Fault> {
    let link = storage.layer_link(name, digest);
    let digest = digest.to_string();
    blocking(storage, move |storage| match storage.remove_file(&link) {
        Ok(()) => Ok(answer::empty(StatusCode::ACCEPTED)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Fault::blob_unknown(&digest)),
        Err(error) => Err(error.into()),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(part("bytes=5-9", 10).unwrap(), Some((5, 5)));
        assert_eq!(part("bytes=5-", 10).unwrap(), Some((5, 5)));
        assert_eq!(part("bytes=-3", 10).unwrap(), Some((7, 3)));
        assert_eq!(part("bytes=0-99", 10).unwrap(), Some((0, 10)));
        assert_eq!(part("bytes=0-1,3-4", 10).unwrap(), None);
        assert!(part("bytes=10-", 10).is_err());
        assert!(part("bytes=0-", 0).is_err());
    }
}
