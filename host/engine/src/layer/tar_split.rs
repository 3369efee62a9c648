//! The tar-split format: everything in a tar except the content of its files, as lines of JSON.

use crate::tar::malformed;
use base64::{Engine, engine::general_purpose::STANDARD};
use crc::{CRC_64_GO_ISO, Crc, Digest as Checksum, Table};
use dray_core::{Algorithm, Digest, Hasher};
use flate2::{read::MultiGzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Result, Write},
    path::Path,
};

/// The checksum that tar-split records for each file.
static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_GO_ISO);

/// Bytes. As soon as so many are recorded, they are written as a line.
const FULL: usize = 64 << 10;

/// A line of a tar-split file (tar-split, tar/storage/entry.go).
#[derive(Serialize, Deserialize)]
struct Line {
    /// 1 means a file, 2 means bytes as they are.
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// A name that is not UTF-8, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name_raw: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    size: u64,
    /// In base64: the bytes, or the checksum of a file's content.
    payload: Option<String>,
    position: u64,
}

fn is_zero(size: &u64) -> bool {
    *size == 0
}

/// A tar-split file that is being written.
pub(super) struct TarSplit<W> {
    out: W,
    lines: u64,
    /// Bytes that were written.
    size: u64,
    /// Bytes of the tar that were not written yet.
    pending: Vec<u8>,
    /// Whether nothing is written any more.
    is_given_up: bool,
}

/// The tar-split file of a store.
pub(super) type Stored = GzEncoder<BufWriter<File>>;

impl TarSplit<Stored> {
    pub fn create(path: &Path) -> Result<Self> {
        let mut options = File::options();
        std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
        let file = BufWriter::new(options.open(path)?);
        Ok(TarSplit::to(GzEncoder::new(file, flate2::Compression::default())))
    }
}

impl<W: Write> TarSplit<W> {
    pub fn to(out: W) -> Self {
        TarSplit { out, lines: 0, size: 0, pending: Vec::new(), is_given_up: false }
    }

    fn line(&mut self, kind: u8, name: Option<&[u8]>, size: u64, payload: Option<&[u8]>) -> Result<()> {
        let text = name.map(std::str::from_utf8);
        let line = Line {
            kind,
            name: text.and_then(|text| text.ok()).map(str::to_owned),
            name_raw: name
                .filter(|name| std::str::from_utf8(name).is_err())
                .map(|name| STANDARD.encode(name)),
            size,
            payload: payload.map(|bytes| STANDARD.encode(bytes)),
            position: self.lines,
        };
        self.lines += 1;
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        self.size += text.len() as u64;
        self.out.write_all(&text)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        if self.is_given_up {
            return Ok(());
        }
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= FULL { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        self.line(2, None, 0, Some(&pending))
    }
}

/// Passes a tar on, and records everything except the content of files.
pub(super) struct Recorder<R, W> {
    inner: R,
    tar_split: TarSplit<W>,
    hasher: Hasher,
    size: u64,
    /// Checksum of the file that is passing. `None` means that other bytes are passing.
    checksum: Option<Checksum<'static, u64, Table<16>>>,
}

/// What is known when all of a tar has passed.
pub(super) struct Recorded<R, W> {
    pub inner: R,
    /// To where the tar-split was written.
    pub tar_split: W,
    /// Bytes that were written there.
    pub tar_split_size: u64,
    /// Digest of the whole tar.
    pub digest: Digest,
    /// Size of the whole tar in bytes.
    pub size: u64,
}

impl<R: Read, W: Write> Recorder<R, W> {
    pub fn new(inner: R, tar_split: TarSplit<W>) -> Self {
        Recorder { inner, tar_split, hasher: Hasher::new(Algorithm::Sha256), size: 0, checksum: None }
    }

    /// Records nothing more, because nobody needs it.
    pub fn give_up(&mut self) {
        self.tar_split.pending = Vec::new();
        self.tar_split.is_given_up = true;
        self.checksum = None;
    }

    /// What it reads from.
    pub fn inner(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Declares that the next bytes are the content of a file.
    pub fn file(&mut self) {
        self.checksum = Some(CRC.digest());
    }

    /// Records an entry after its content has passed.
    pub fn entry(&mut self, name: &[u8], size: u64) -> Result<()> {
        let checksum = self.checksum.take().map(|checksum| checksum.finalize().to_be_bytes());
        self.tar_split.flush()?;
        self.tar_split.line(1, Some(name), size, checksum.as_ref().map(|bytes| &bytes[..]))
    }

    /// Reads what follows the end of the archive.
    pub fn finish(mut self, buffer: &mut [u8]) -> Result<Recorded<R, W>> {
        // The content of a file in the middle of which a reader gave up is no longer of interest.
        self.checksum = None;
        while self.read(buffer)? > 0 {}
        self.tar_split.flush()?;
        Ok(Recorded {
            inner: self.inner,
            tar_split: self.tar_split.out,
            tar_split_size: self.tar_split.size,
            digest: self.hasher.finish(),
            size: self.size,
        })
    }
}

impl<R: Read, W: Write> crate::tar::Source for Recorder<R, W> {}

impl<R: Read, W: Write> Read for Recorder<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.inner.read(buffer)?;
        let bytes = &buffer[..read];
        self.hasher.update(bytes);
        self.size += read as u64;
        match &mut self.checksum {
            Some(checksum) => checksum.update(bytes),
            None => self.tar_split.bytes(bytes)?,
        }
        Ok(read)
    }
}

/// A piece of a recorded tar.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Bytes as they are.
    Bytes(Vec<u8>),
    /// The content of a file: its name, and how many bytes it must have.
    File(Vec<u8>, u64),
}

/// Reads a tar-split file.
pub(crate) fn pieces(tar_split: impl Read) -> impl Iterator<Item = Result<Piece>> {
    plain_pieces(MultiGzDecoder::new(tar_split))
}

/// Reads a tar-split file that is already decompressed.
pub(crate) fn plain_pieces(tar_split: impl Read) -> impl Iterator<Item = Result<Piece>> {
    let lines = serde_json::Deserializer::from_reader(BufReader::new(tar_split));
    lines.into_iter::<Line>().map(|line| {
        let wrong = |why: &str| malformed(format!("what tar-split recorded is malformed: {why}"));
        let line = line.map_err(|error| wrong(&error.to_string()))?;
        let decoded = |text: Option<String>| {
            STANDARD.decode(text.unwrap_or_default()).map_err(|error| wrong(&error.to_string()))
        };
        match line.kind {
            1 => {
                let name = match line.name {
                    Some(name) => name.into_bytes(),
                    None => decoded(line.name_raw)?,
                };
                Ok(Piece::File(name, line.size))
            }
            2 => decoded(line.payload).map(Piece::Bytes),
            other => Err(wrong(&format!("an entry of type {other}"))),
        }
    })
}
