//! A file that is being written, on a thread that may block.

use super::{archive::Append, failed, fresh::Fresh};
use crate::{Error, Result};
use bytes::Bytes;
use std::path::PathBuf;
use tokio::sync::mpsc;

/// What becomes of the bytes.
pub(super) enum Target {
    Fresh(Fresh),
    Append(Append),
}

impl Target {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Target::Fresh(fresh) => fresh.write(bytes),
            Target::Append(append) => append.write(bytes),
        }
    }

    fn keep(self) -> std::io::Result<()> {
        match self {
            Target::Fresh(fresh) => fresh.keep(),
            Target::Append(append) => append.keep(),
        }
    }
}

/// A file that is being written.
pub(crate) struct Writer {
    sender: mpsc::Sender<Bytes>,
    thread: tokio::task::JoinHandle<Result<Target>>,
    shown: PathBuf,
}

impl Writer {
    pub(super) fn start(mut target: Target, shown: PathBuf) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(4);
        let path = shown.clone();
        let thread = tokio::task::spawn_blocking(move || {
            while let Some(chunk) = receiver.blocking_recv() {
                target.write(&chunk).map_err(|error| failed("write", &path, &error))?;
            }
            Ok(target)
        });
        Writer { sender, thread, shown }
    }

    /// Adds bytes. False: writing failed, and `keep` says why.
    pub async fn write(&self, chunk: Bytes) -> bool {
        self.sender.send(chunk).await.is_ok()
    }

    /// For a thread that may block: adds bytes.
    pub fn feeder(&self) -> impl FnMut(Bytes) -> std::io::Result<()> + Send + use<> {
        let sender = self.sender.clone();
        move |chunk| {
            let gone = |_| std::io::Error::other("the destination could not be written");
            sender.blocking_send(chunk).map_err(gone)
        }
    }

    /// Gives it up; what went wrong with writing, if anything did.
    pub async fn broken(self) -> Option<Error> {
        drop(self.sender);
        self.thread.await.ok()?.err()
    }

    /// Makes the file appear, synced to the disk.
    pub async fn keep(self) -> Result<()> {
        drop(self.sender);
        let lost = |error: tokio::task::JoinError| Error::invalid(format!("write a file: {error}"));
        let target = self.thread.await.map_err(lost)??;
        let kept = tokio::task::spawn_blocking(move || target.keep()).await.map_err(lost)?;
        kept.map_err(|error| failed("write", &self.shown, &error))
    }
}
