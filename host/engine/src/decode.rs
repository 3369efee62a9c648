//! Decompresses streams. The compression is recognised by the first bytes.

use crate::tar::malformed;
use dray_core::Compression;
use std::{
    io::{BufRead, BufReader, Chain, Cursor, Read, Result},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Decompressed bytes. A shorter stream is never taken for a decompression bomb; a longer one is if it grew by
/// [`RATIO`].
const HARMLESS: u64 = 64 << 20;
/// Decompressed bytes per compressed byte. Gzip reaches at most 1032:1, and real content stays far below that.
const RATIO: u64 = 400;

/// Recognises the compression of a stream by its first bytes.
///
/// # Errors
/// Fails with `InvalidData` for bzip2 and xz, which dray does not read.
pub fn sniff(first: &[u8]) -> Result<Compression> {
    let unknown = |name: &str| {
        malformed(format!("it is compressed with {name}, which dray does not read: decompress it first"))
    };
    match first {
        [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Compression::Zstd),
        // zstd:chunked and seekable streams may begin with a skippable frame (RFC 8878, 3.1.2).
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Err(unknown("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Err(unknown("xz")),
        _ => Ok(Compression::None),
    }
}

struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// The decompressed content of a stream.
pub struct Plain<'a> {
    inner: Box<dyn Read + Send + 'a>,
    read: Arc<AtomicU64>,
    given: u64,
    /// The compression of the stream.
    pub compression: Compression,
}

impl<'a> Plain<'a> {
    /// Reads the first bytes to recognise the compression.
    ///
    /// # Errors
    /// Fails if the first bytes cannot be read, or if dray does not read this compression.
    pub fn new(mut inner: impl Read + Send + 'a) -> Result<Self> {
        let mut first = Vec::with_capacity(8);
        inner.by_ref().take(8).read_to_end(&mut first)?;
        let compression = sniff(&first)?;
        let read = Arc::new(AtomicU64::new(0));
        let whole: Chain<Cursor<Vec<u8>>, _> = Cursor::new(first).chain(inner);
        let counted = BufReader::with_capacity(256 << 10, Counted { inner: whole, count: read.clone() });
        Ok(Plain { inner: open(compression, counted)?, read, given: 0, compression })
    }
}

fn open<'a>(compression: Compression, inner: impl BufRead + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(inner),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(inner)),
        Compression::Zstd | Compression::ZstdChunked => Box::new(zstd::Decoder::with_buffer(inner)?),
    })
}

impl Read for Plain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.inner.read(buffer)?;
        self.given += read as u64;
        let taken = self.read.load(Ordering::Relaxed);
        if self.given > HARMLESS && self.given / RATIO > taken {
            return Err(malformed(format!(
                "it grows to more than {RATIO} times its size when it is decompressed: it looks like an attack"
            )));
        }
        Ok(read)
    }
}

impl crate::tar::Source for Plain<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn streams_are_told_by_their_first_bytes() {
        let text = b"some text".repeat(100);
        let twice = [gzip(&text), gzip(&text)].concat();
        for (bytes, compression, plain) in [
            (text.clone(), Compression::None, text.clone()),
            (Vec::new(), Compression::None, Vec::new()),
            (twice, Compression::Gzip, text.repeat(2)),
            (zstd::encode_all(&text[..], 3).unwrap(), Compression::Zstd, text.clone()),
        ] {
            let mut stream = Plain::new(&bytes[..]).unwrap();
            assert_eq!(stream.compression, compression);
            let mut read = Vec::new();
            stream.read_to_end(&mut read).unwrap();
            assert_eq!(read, plain);
        }
        assert!(Plain::new(&b"BZh91AY"[..]).is_err());
    }

    #[test]
    fn bombs_are_refused_and_damage_is_noticed() {
        let zeros = std::io::repeat(0).take(256 << 20);
        let bomb = zstd::encode_all(zeros, 1).unwrap();
        let error = std::io::copy(&mut Plain::new(&bomb[..]).unwrap(), &mut std::io::sink()).unwrap_err();
        assert!(error.to_string().contains("attack"), "{error}");
        let mut damaged = gzip(&b"some text".repeat(100));
        damaged.truncate(40);
        assert!(std::io::copy(&mut Plain::new(&damaged[..]).unwrap(), &mut std::io::sink()).is_err());
    }
}
