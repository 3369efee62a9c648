//! A file that is being written, on a thread that may block.

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

/// What becomes of the bytes.
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

    /// Gives it up: another attempt, or another process, may go on with it.
    fn leave(self) {
        match self {
            Target::AtomicFile(_) => {}
            Target::Append(append) => append.leave(),
        }
    }

    /// Gives it up, as what was written is wrong.
    fn discard(self) {
        match self {
            Target::AtomicFile(mut fresh) => fresh.forget(),
            Target::Append(append) => append.discard(),
        }
    }

    /// Gives it up, as it cannot be written: a disk that is full wants its room back.
    fn fail(self) {
        match self {
            Target::AtomicFile(mut fresh) => fresh.forget(),
            Target::Append(append) => append.fail(),
        }
    }

    /// What is there of a file of so many bytes, after which it goes on.
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

    /// Goes on with what is there of a blob. Given are its bytes, and a hasher that has taken them in.
    ///
    /// # Errors
    /// Corrupt where that cannot be read; it is gone by then.
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

    /// Gives it up; what went wrong with writing, if anything did. Of a large blob, what came stays.
    pub async fn broken(self) -> Option<Error> {
        drop(self.sender);
        self.thread.await.ok()?.map(Target::leave).err()
    }

    /// Gives it up, as what came is wrong.
    pub async fn discard(self) {
        drop(self.sender);
        if let Ok(Ok(target)) = self.thread.await {
            target.discard();
        }
    }

    /// Makes the file appear, synced to the disk.
    pub async fn keep(self) -> Result<()> {
        drop(self.sender);
        let lost = |error: tokio::task::JoinError| Error::internal(format!("write a file: {error}"));
        let target = self.thread.await.map_err(lost)??;
        let kept = blocking("write a file", move || target.keep()).await?;
        kept.map_err(|error| failed("write", &self.shown, &error))
    }
}
