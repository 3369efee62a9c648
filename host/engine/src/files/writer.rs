//! Writes a file on a thread of its own, because writing blocks.

use super::{CHUNK, archive::Append, atomic::AtomicFile, failed, read::Positioned};
use crate::{Error, Result, blocking};
use bytes::Bytes;
use dray_core::{Descriptor, Hasher};
use std::{
    io::{ErrorKind, Read},
    path::PathBuf,
    sync::Arc,
};
use tokio::sync::mpsc;

/// Where the bytes are written.
pub(super) enum Target {
    AtomicFile(AtomicFile),
    Append(Append),
}

impl Target {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Target::AtomicFile(fresh) => fresh.write(bytes),
            Target::Append(append) => append.write(bytes),
        }
    }

    fn keep(self) -> std::io::Result<()> {
        match self {
            Target::AtomicFile(fresh) => fresh.keep(),
            Target::Append(append) => append.keep(),
        }
    }

    /// Stops writing. Another attempt or another process can resume it.
    fn leave(self) {
        match self {
            Target::AtomicFile(_) => {}
            Target::Append(append) => append.leave(),
        }
    }

    /// Stops writing because the content is wrong, and removes it.
    fn discard(self) {
        match self {
            Target::AtomicFile(mut fresh) => fresh.forget(),
            Target::Append(append) => append.discard(),
        }
    }

    /// Stops writing because it failed, and removes what was written: if the disk is full, the space is needed.
    fn fail(self) {
        match self {
            Target::AtomicFile(mut fresh) => fresh.forget(),
            Target::Append(append) => append.fail(),
        }
    }

    /// What is already there of a file of `size` bytes. The next bytes are written after it.
    fn there(&mut self, size: u64) -> std::io::Result<Positioned> {
        match self {
            Target::AtomicFile(fresh) => {
                let end = fresh.there(size)?;
                Ok(Positioned { file: Arc::new(fresh.file().try_clone()?), offset: 0, end })
            }
            Target::Append(append) => append.there(),
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
                if let Err(error) = target.write(&chunk) {
                    target.fail();
                    return Err(failed("write", &path, &error));
                }
            }
            Ok(target)
        });
        Writer { sender, thread, shown }
    }

    /// Resumes what is there of a blob. Returns the writer, the number of bytes that are there, and a hasher that has
    /// hashed them.
    ///
    /// # Errors
    /// Fails with `Corrupt` if what is there cannot be read. It has been discarded then.
    pub(super) async fn take_up(
        mut target: Target,
        shown: PathBuf,
        blob: &Descriptor,
    ) -> Result<(Self, u64, Hasher)> {
        let (size, mut hasher) = (blob.size, Hasher::new(blob.digest.algorithm()));
        let path = shown.clone();
        let read = blocking("read what was left of a file", move || {
            let mut there = target.there(size).map_err(|error| failed("write", &path, &error))?;
            let bytes = there.end - there.offset;
            let mut buffer = vec![0; CHUNK];
            while there.offset < there.end {
                match there.read(&mut buffer) {
                    Ok(read @ 1..) => hasher.update(&buffer[..read]),
                    end => {
                        target.discard();
                        let why = end.err().unwrap_or_else(|| ErrorKind::UnexpectedEof.into());
                        let text = format!("read what was left of {}: {why}", path.display());
                        return Err(Error::corrupt(text));
                    }
                }
            }
            Ok((target, bytes, hasher))
        });
        let (target, bytes, hasher) = read.await??;
        Ok((Writer::start(target, shown), bytes, hasher))
    }

    /// Adds bytes. False means that writing failed, and `keep` returns the reason.
    pub async fn write(&self, chunk: Bytes) -> bool {
        self.sender.send(chunk).await.is_ok()
    }

    /// Returns a function that adds bytes, for a thread that may block.
    pub fn feeder(&self) -> impl FnMut(Bytes) -> std::io::Result<()> + Send + use<> {
        let sender = self.sender.clone();
        move |chunk| {
            let gone = |_| std::io::Error::other("the destination could not be written");
            sender.blocking_send(chunk).map_err(gone)
        }
    }

    /// Stops writing, and returns the error if writing failed. What was written of a large blob stays, so that it can
    /// be resumed.
    pub async fn broken(self) -> Option<Error> {
        drop(self.sender);
        self.thread.await.ok()?.map(Target::leave).err()
    }

    /// Stops writing because the content is wrong, and removes it.
    pub async fn discard(self) {
        drop(self.sender);
        if let Ok(Ok(target)) = self.thread.await {
            target.discard();
        }
    }

    /// Syncs the file to the disk and makes it appear.
    pub async fn keep(self) -> Result<()> {
        drop(self.sender);
        let lost = |error: tokio::task::JoinError| Error::internal(format!("write a file: {error}"));
        let target = self.thread.await.map_err(lost)??;
        let kept = blocking("write a file", move || target.keep()).await?;
        kept.map_err(|error| failed("write", &self.shown, &error))
    }
}
