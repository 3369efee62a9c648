//! Places that are read by one download and written by one upload, such as a daemon. Their files are the members of a
//! temporary archive.

use super::Place;
use crate::{
    Error, Result, blocking,
    contract::{Body, Request, Response},
    files::Root,
    http::{Download, PlaceHttp, Reader, Uploaded, feed, permits, upload},
    schedule::queue::Load,
};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

impl Place {
    fn parts(&self, doing: &str) -> Result<(&PlaceHttp, Arc<Root>)> {
        match (&self.http, &self.files) {
            (Some(http), Some(files)) => Ok((http, files.clone())),
            _ => Err(Error::invalid(format!("{doing}: {} has no host, or no files", self.location))),
        }
    }

    /// Downloads an archive once. Afterwards its members are the files beneath `path`. Fails if the download fails, or
    /// if it is not an archive.
    pub(super) async fn download_archive(&self, request: &Request, path: &str) -> Result<()> {
        let (http, files) = self.parts("download")?;
        let _one = self.downloading.lock().await;
        if files.adopted(path) {
            return Ok(());
        }
        let mut file = tokio::fs::File::from_std(files.unnamed()?);
        // Every image of the place waits for this archive, so it gets the largest weight in the transfer queue.
        let _permits = permits(Some(http), None, Load::of(u64::MAX)).await;
        let mut download = Download::open(http, request, 0, None, Reader::Plugin).await?;
        while let Some(chunk) = download.next().await? {
            file.write_all(&chunk).await?;
        }
        file.flush().await?;
        let (file, path) = (file.into_std().await, path.to_owned());
        blocking("read the download", move || files.adopt(&path, file)).await?
    }

    /// Sends the temporary archive of the place. Fails if the upload fails, or if the place redirects it.
    pub(super) async fn upload_archive(&self, request: &Request) -> Result<Response> {
        let (http, files) = self.parts("send the archive")?;
        let (mut chunks, size) = blocking("send the archive", move || files.sealed()).await??;
        let _permits = permits(None, Some(http), Load::of(size)).await;
        let sent = upload(http, request, size, Body::Unknown, false, async |sender| {
            while let Some(chunk) = chunks.recv().await {
                if !feed(&sender, chunk?).await? {
                    break;
                }
            }
            Ok(())
        });
        match sent.await? {
            Uploaded::Answer(response) => Ok(response),
            Uploaded::Again(_) => Err(Error::invalid("send the archive: it is to be sent elsewhere")),
        }
    }
}
