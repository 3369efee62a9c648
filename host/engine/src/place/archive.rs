//! Places that are filled by a download and emptied by an upload, such as a daemon: their files are the members of a
//! temporary archive.

use super::Place;
use crate::{
    Error, Result, blocking,
    contract::{Request, Response},
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

    /// Downloads an archive, once: its members are then the files beneath `path`.
    ///
    /// # Errors
    /// Fails if it cannot be had, or is no archive.
    pub(super) async fn download_archive(&self, request: &Request, path: &str) -> Result<()> {
        let (http, files) = self.parts("download")?;
        let _one = self.downloading.lock().await;
        if files.adopted(path) {
            return Ok(());
        }
        let mut file = tokio::fs::File::from_std(files.unnamed()?);
        // Every image of the place waits for it.
        let _permits = permits(Some(http), None, Load::of(u64::MAX)).await;
        let mut download = Download::open(http, request, 0, Reader::Plugin).await?;
        while let Some(chunk) = download.next().await? {
            file.write_all(&chunk).await?;
        }
        file.flush().await?;
        let (file, path) = (file.into_std().await, path.to_owned());
        blocking("read the download", move || files.adopt(&path, file)).await?
    }

    /// Sends what was written to the place's temporary archive.
    ///
    /// # Errors
    /// Fails if it is not taken.
    pub(super) async fn upload_archive(&self, request: &Request) -> Result<Response> {
        let (http, files) = self.parts("send the archive")?;
        let (mut chunks, size) = blocking("send the archive", move || files.sealed()).await??;
        let _permits = permits(None, Some(http), Load::of(size)).await;
        let sent = upload(http, request, size, false, async |sender| {
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
