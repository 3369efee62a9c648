//! Writes zstd:chunked (`docs/containers-storage-zstd-chunked.md` of containers/storage): a tar in Zstandard in which the
//! content of each file is a frame of its own, followed by a table of contents, a tar-split and a footer in frames that
//! other readers skip. A store that has most files of a layer already fetches only the others.

use super::{
    CHUNK,
    tar_split::{Recorder, TarSplit},
};
use crate::tar::{Entry, Kind, Reader, malformed};
use base64::{Engine, engine::general_purpose::STANDARD};
use dray_core::{Algorithm, Digest, Hasher};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher, RandomState},
    io::{Error, ErrorKind, Read, Result, Write},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};
use zstd::stream::{
    raw::{Encoder, Operation},
    zio,
};

/// The first second of the year 0, from 1970.
const FIRST: i64 = -62_167_219_200;
/// The level that containers/storage uses for such layers.
const LEVEL: i32 = 10;
/// What a frame begins with that decoders skip (RFC 8878, 3.1.2).
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// Bytes before the content of such a frame.
const SKIPPABLE_HEADER: u64 = 8;
/// The most entries of a table, and the longest name in bytes. What is beyond is written without a table, so that memory is
/// bounded: an entry takes about 50 bytes of it.
const ENTRIES: usize = 2_000_000;
const NAME: usize = 4096;
/// What the footer ends with.
const MAGIC: &[u8; 8] = b"GNUlInUx";
/// The only type of a table of contents.
const TABLE_TYPE: u64 = 1;

/// What was written.
pub(crate) struct Chunked {
    /// Digest of the uncompressed bytes.
    pub plain: Digest,
    /// The annotations of the layer, by which stores find the table of contents. An error says why there is none; the
    /// layer is then one in Zstandard like others.
    pub table: std::result::Result<BTreeMap<String, String>, String>,
}

/// Writes a tar as zstd:chunked.
///
/// # Errors
/// Fails if the tar cannot be read, or the layer cannot be written.
pub(crate) fn write(tar: impl Read, out: impl Write, level: Option<u8>) -> Result<Chunked> {
    let level = level.map_or(LEVEL, i32::from);
    let packed = zstd::Encoder::new(Vec::new(), level)?;
    let frames = Frames { tar, writer: Some(frame(Counted { inner: out, count: 0 }, Encoder::new(level)?)) };
    let mut reader = Reader::new(Recorder::new(frames, TarSplit::to(packed)));
    let table = match table(&mut reader, level) {
        Ok(table) => Ok(table),
        // A tar of a kind that the format does not know is still a layer.
        Err(error) if error.kind() == ErrorKind::InvalidData => Err(error.to_string()),
        Err(error) => return Err(error),
    };
    if table.is_err() {
        reader.source().give_up();
    }
    let recorded = reader.into_source().finish(&mut vec![0; CHUNK])?;
    let mut frames = recorded.inner;
    let (mut out, _) = frames.close()?;
    let table = match table {
        Ok(table) => Ok(attach(&mut out, table, recorded.tar_split.finish()?, recorded.tar_split_size)?),
        Err(why) => Err(why),
    };
    out.flush()?;
    Ok(Chunked { plain: recorded.digest, table })
}

/// Reads the entries, and gives the content of each file a frame.
fn table<R: Read, W: Write, T: Write>(
    reader: &mut Reader<Recorder<Frames<R, W>, T>>,
    level: i32,
) -> Result<Table> {
    let mut table = Table::new(level)?;
    // Names are known by two keyed hashes, because all of them together may be large.
    let marks = &[RandomState::new(), RandomState::new()];
    let marks = marks.each_ref();
    let mut names = HashSet::new();
    let mut buffer = vec![0; CHUNK];
    while let Some(entry) = reader.advance()? {
        if reader.has_global() {
            return Err(malformed("it has an extended header for all entries"));
        }
        if names.len() == ENTRIES || entry.name.len().max(entry.link.len()) > NAME {
            return Err(malformed("it has too many entries, or too long names"));
        }
        if !names.insert(marks.map(|mark| mark.hash_one(cleaned(&entry.name)))) {
            return Err(malformed("it has two entries of one name"));
        }
        let mut line = Line::of(&entry)?;
        if entry.size > 0 {
            line.offset = reader.source().inner().restart()?;
            reader.source().file();
            let mut hasher = Hasher::new(Algorithm::Sha256);
            loop {
                let read = reader.content(&mut buffer)?;
                if read == 0 {
                    break;
                }
                hasher.update(&buffer[..read]);
            }
            line.digest = Some(hasher.finish().to_string());
            line.end_offset = reader.source().inner().restart()?;
        }
        reader.source().entry(&entry.name, entry.size)?;
        table.add(&line)?;
    }
    Ok(table)
}

/// The name of an entry without what changes nothing, by which tar-split finds entries that stand twice.
fn cleaned(name: &[u8]) -> PathBuf {
    let path: &Path = std::ffi::OsStr::from_bytes(name).as_ref();
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// Writes the table of contents, the tar-split and the footer. Returns the annotations of the layer.
fn attach<W: Write>(
    out: &mut Counted<W>,
    table: Table,
    tar_split: Vec<u8>,
    split_plain: u64,
) -> Result<BTreeMap<String, String>> {
    let (packed, plain) = table.finish(&sha256(&tar_split))?;
    let at = out.count + SKIPPABLE_HEADER;
    skippable(out, &packed)?;
    let split_at = out.count + SKIPPABLE_HEADER;
    skippable(out, &tar_split)?;
    let (size, split_size) = (packed.len() as u64, tar_split.len() as u64);
    let numbers = [at, size, plain, TABLE_TYPE, split_at, split_size, split_plain];
    let footer: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).chain(*MAGIC).collect();
    skippable(out, &footer)?;
    let key = |name: &str| format!("io.github.containers.zstd-chunked.{name}");
    Ok(BTreeMap::from([
        (key("manifest-checksum"), sha256(&packed).to_string()),
        (key("manifest-position"), format!("{at}:{size}:{plain}:{TABLE_TYPE}")),
        (key("tarsplit-position"), format!("{split_at}:{split_size}:{split_plain}")),
    ]))
}

fn skippable(out: &mut impl Write, bytes: &[u8]) -> Result<()> {
    let size = u32::try_from(bytes.len()).map_err(|_| Error::other("the table of contents is too large"))?;
    out.write_all(&SKIPPABLE)?;
    out.write_all(&size.to_le_bytes())?;
    out.write_all(bytes)
}

fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(bytes);
    hasher.finish()
}

/// Counts what is written.
struct Counted<W> {
    inner: W,
    count: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let written = self.inner.write(bytes)?;
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> Result<()> {
        self.inner.flush()
    }
}

type Frame<W> = zio::Writer<Counted<W>, Encoder<'static>>;

fn frame<W: Write>(out: Counted<W>, encoder: Encoder<'static>) -> Frame<W> {
    zio::Writer::new(out, encoder)
}

/// Passes a tar on, and writes it in frames.
struct Frames<R, W: Write> {
    tar: R,
    /// `None` means that an earlier error closed it.
    writer: Option<Frame<W>>,
}

impl<R: Read, W: Write> Frames<R, W> {
    /// Ends the frame. Returns to where it was written, and the encoder.
    fn close(&mut self) -> Result<(Counted<W>, Encoder<'static>)> {
        let mut writer = self.writer.take().ok_or_else(|| Error::other("the layer is closed"))?;
        writer.finish()?;
        Ok(writer.into_inner())
    }

    /// Ends the frame and begins another. Returns the offset of the new one.
    fn restart(&mut self) -> Result<u64> {
        let (out, mut encoder) = self.close()?;
        encoder.reinit()?;
        let offset = out.count;
        self.writer = Some(frame(out, encoder));
        Ok(offset)
    }
}

impl<R: Read, W: Write> Read for Frames<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.tar.read(buffer)?;
        let writer = self.writer.as_mut().ok_or_else(|| Error::other("the layer is closed"))?;
        writer.write_all(&buffer[..read])?;
        Ok(read)
    }
}

/// A table of contents that is being written: JSON in Zstandard.
struct Table {
    out: zstd::Encoder<'static, Vec<u8>>,
    /// Bytes of the JSON.
    size: u64,
    is_empty: bool,
}

impl Table {
    fn new(level: i32) -> Result<Self> {
        let out = zstd::Encoder::new(Vec::new(), level)?;
        let mut table = Table { out, size: 0, is_empty: true };
        table.text(br#"{"version":1,"entries":["#)?;
        Ok(table)
    }

    fn text(&mut self, text: &[u8]) -> Result<()> {
        self.size += text.len() as u64;
        self.out.write_all(text)
    }

    fn add(&mut self, line: &Line) -> Result<()> {
        if !std::mem::take(&mut self.is_empty) {
            self.text(b",")?;
        }
        self.text(&serde_json::to_vec(line)?)
    }

    /// Returns the table as it is written, and the size of its JSON.
    fn finish(mut self, tar_split: &Digest) -> Result<(Vec<u8>, u64)> {
        self.text(format!(r#"],"tarSplitDigest":"{tar_split}"}}"#).as_bytes())?;
        Ok((self.out.finish()?, self.size))
    }
}

/// An entry of the table (`FileMetadata` in `pkg/chunked` of containers/storage).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    r#type: &'static str,
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    link_name: String,
    mode: u32,
    size: u64,
    uid: u32,
    gid: u32,
    #[serde(rename = "modtime")]
    modified: Option<String>,
    #[serde(rename = "accesstime", skip_serializing_if = "Option::is_none")]
    accessed: Option<String>,
    #[serde(rename = "changetime", skip_serializing_if = "Option::is_none")]
    changed: Option<String>,
    dev_major: u32,
    dev_minor: u32,
    /// Values are in base64.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    /// Digest of the content. `None` means that there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// Bytes from the beginning of the layer to the frame of the content, and to its end.
    offset: u64,
    end_offset: u64,
}

impl Line {
    fn of(entry: &Entry) -> Result<Self> {
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec()).map_err(|_| malformed("it has a name that is not in UTF-8"))
        };
        let time = |(seconds, nanoseconds): (i64, u32)| {
            // Years of more or fewer than four digits are none in RFC 3339.
            let time = jiff::Timestamp::new(seconds, nanoseconds as i32).ok().filter(|_| seconds >= FIRST);
            time.map(|time| time.to_string())
                .ok_or_else(|| malformed("it has a time that RFC 3339 cannot write"))
        };
        let [accessed, changed] = entry.other_times.map(|other| other.map(time).transpose());
        let xattrs = entry.xattrs.iter().map(|(key, value)| (key.clone(), STANDARD.encode(value)));
        Ok(Line {
            r#type: match entry.kind {
                Kind::File => "reg",
                Kind::HardLink => "hardlink",
                Kind::Symlink => "symlink",
                Kind::Character => "char",
                Kind::Block => "block",
                Kind::Directory => "dir",
                Kind::Fifo => "fifo",
            },
            name: text(&entry.name)?,
            link_name: text(&entry.link)?,
            mode: entry.mode,
            size: entry.size,
            uid: entry.uid,
            gid: entry.gid,
            modified: Some(time(entry.mtime)?),
            accessed: accessed?,
            changed: changed?,
            dev_major: entry.device.0,
            dev_minor: entry.device.1,
            xattrs: xattrs.collect(),
            digest: None,
            offset: 0,
            end_offset: 0,
        })
    }
}
