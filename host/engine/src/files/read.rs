//! Reads files by offset, and in chunks on a thread of its own.

use super::CHUNK;
use crate::{DOCUMENT_LIMIT, Error, Result, tar::Source};
use bytes::Bytes;
use std::{
    fs::File,
    io::{ErrorKind, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::mpsc;

/// Reads a temporary file on a thread of its own, from byte `offset` to byte `end`.
pub(crate) fn pump(file: Arc<File>, offset: u64, end: u64) -> mpsc::Receiver<Result<Bytes>> {
    stream(Positioned { file, offset, end }, PathBuf::from("a temporary file"))
}

/// Reads a range of a file on a thread of its own.
pub(super) fn stream(stretch: Positioned, shown: PathBuf) -> mpsc::Receiver<Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(2);
    tokio::task::spawn_blocking(move || send(stretch, &shown, &sender));
    receiver
}

/// Sends chunks until the reader ends or the receiver is dropped.
pub(super) fn send(mut bytes: impl Read, shown: &Path, sender: &mpsc::Sender<Result<Bytes>>) {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let message = match bytes.by_ref().take(CHUNK as u64).read_to_end(&mut chunk) {
            Ok(0) => return,
            Ok(_) => Ok(Bytes::from(chunk)),
            Err(error) => Err(Error::io(format!("read {}", shown.display()), error)),
        };
        let end = message.is_err();
        if sender.blocking_send(message).is_err() || end {
            return;
        }
    }
}

pub(super) fn too_long(shown: &Path) -> Error {
    Error::invalid(format!("read {}: it is longer than {DOCUMENT_LIMIT} bytes", shown.display()))
}

pub(super) fn stretch(mut bytes: Vec<u8>, offset: u64, length: Option<u64>) -> Vec<u8> {
    let start = (offset as usize).min(bytes.len());
    bytes.drain(..start);
    bytes.truncate(length.map_or(bytes.len(), |length| (length as usize).min(bytes.len())));
    bytes
}

/// Reads a range of a file without moving the file's cursor, which other readers share.
pub(super) struct Positioned {
    pub file: Arc<File>,
    pub offset: u64,
    pub end: u64,
}

impl Read for Positioned {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = (buffer.len() as u64).min(self.end - self.offset) as usize;
        let read = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl Source for Positioned {
    fn skip(&mut self, bytes: u64) -> std::io::Result<()> {
        if bytes > self.end - self.offset {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.offset += bytes;
        Ok(())
    }
}
