//! Recompresses layers. The digest of the result is known only at its end, so the result is kept in a file until then.

use super::{reader::through, shown::ShownBlob, transfer::Payload};
use crate::{
    Error, Kind, Repository, Result, Watcher,
    decode::Plain,
    error::Context,
    layer::{Chunked, write_chunked},
    schedule::queue::Load,
    schedule::rate::RateLimiter,
};
use dray_core::{Algorithm, Compression, Descriptor, Digest, Hasher};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write},
    sync::{Arc, Mutex},
};

/// A recompressed layer, which is kept in a file.
pub(crate) struct Recompressed {
    /// The file, as what is to be transferred.
    pub payload: Payload<'static>,
    /// Digest of the compressed bytes.
    pub digest: Digest,
    /// Size of the compressed bytes.
    pub size: u64,
    /// What its compression adds to the annotations of the layer.
    pub annotations: BTreeMap<String, String>,
}

/// Recompresses a layer. The result is written to the destination's folder, where it gets its name later, or to a
/// temporary file if the destination has no folder for it.
///
/// # Errors
/// Fails if the layer cannot be read or written, or if its uncompressed bytes do not have the digest `diff_id`.
pub(crate) async fn recompress(
    source: &Repository,
    destination: &Repository,
    (layer, diff_id): (&Descriptor, &Digest),
    wanted: (Compression, Option<u8>),
    rates: &[&RateLimiter],
    (watcher, image): (&dyn Watcher, &str),
) -> Result<Recompressed> {
    let place = &destination.place;
    let scratch = place.local.scratch.clone();
    let files = if place.unpacks().await? { None } else { place.files.clone() };
    let mut reader = source.blob(layer).await?;
    let _permits = reader.start(None, &Load::of(layer.size), Some(watcher)).await?;
    let shown = ShownBlob::new(watcher, image, &layer.digest, layer.size);
    let written = through(
        &mut reader,
        rates,
        "decompress it",
        |_, position| shown.stands_at(position),
        move |bytes| {
            if let Some(file) = files.and_then(|files| files.atomic_file()).transpose()? {
                let facts = compress(bytes, file.file(), wanted)?;
                return Ok((Payload::Written(Arc::new(Mutex::new(Some(file)))), facts));
            }
            let file = tempfile::tempfile_in(&scratch)?;
            let facts = compress(bytes, &file, wanted)?;
            Ok((Payload::Local(Arc::new(file)), facts))
        },
    );
    let (payload, written) =
        written.await.context(|| format!("convert the layer {}", layer.digest.short()))?;
    check_diff_id(layer, diff_id, &written.plain)?;
    if let Some(why) = &written.no_table {
        let digest = layer.digest.short();
        tracing::warn!("the layer {digest} is written in plain zstd, and not as zstd:chunked: {why}");
    }
    let Written { digest, size, annotations, .. } = written;
    Ok(Recompressed { payload, digest, size, annotations })
}

/// Finds out the size, the compression and the diff ID of a layer of which only the digest is known.
///
/// # Errors
/// Fails if the layer cannot be read or decompressed.
pub(crate) async fn measure(
    source: &Repository,
    digest: &Digest,
    rates: &[&RateLimiter],
    watcher: &dyn Watcher,
) -> Result<(u64, Compression, Digest)> {
    let blob = Descriptor::new("", digest.clone(), 0);
    let mut reader = source.blob(&blob).await?.of_unknown_size();
    let _permits = reader.start(None, &Load::of(0), Some(watcher)).await?;
    let read = through(
        &mut reader,
        rates,
        "decompress it",
        |_, _| {},
        |bytes| {
            let mut plain = Plain::new(bytes)?;
            let mut hashing = Hashing::new(std::io::sink());
            std::io::copy(&mut plain, &mut hashing)?;
            Ok((plain.compression, hashing.hasher.finish()))
        },
    );
    let (compression, diff_id) = read.await.context(|| format!("read the layer {}", digest.short()))?;
    Ok((reader.position(), compression, diff_id))
}

/// Checks that the uncompressed bytes of a layer have the diff ID that the config of the image names.
///
/// # Errors
/// Fails with `Corrupt` if they do not.
pub(crate) fn check_diff_id(layer: &Descriptor, diff_id: &Digest, plain: &Digest) -> Result<()> {
    if diff_id == plain {
        return Ok(());
    }
    Err(Error::new(
        Kind::Corrupt,
        format!(
            "verify the layer {}: it decompresses to {plain}, and the config says {diff_id}",
            layer.digest
        ),
    ))
}

/// Counts and hashes the bytes that are written.
struct Hashing<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Hashing { inner, hasher: Hasher::new(Algorithm::Sha256), size: 0 }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// What a recompressed layer is.
struct Written {
    /// Digest of the uncompressed bytes.
    plain: Digest,
    digest: Digest,
    size: u64,
    annotations: BTreeMap<String, String>,
    /// Why it has no table of contents, if it was to have one.
    no_table: Option<String>,
}

/// Recompresses a stream into a file.
fn compress(
    bytes: &mut (dyn Read + Send),
    file: &File,
    (wanted, level): (Compression, Option<u8>),
) -> std::io::Result<Written> {
    let mut plain = Plain::new(bytes)?;
    let mut out = Hashing::new(std::io::BufWriter::with_capacity(1 << 20, file));
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut copy = |to: &mut dyn Write| {
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = plain.read(&mut buffer)?;
            if read == 0 {
                return Ok::<_, std::io::Error>(());
            }
            hasher.update(&buffer[..read]);
            to.write_all(&buffer[..read])?;
        }
    };
    let mut chunked = None;
    match wanted {
        Compression::None => copy(&mut out)?,
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(
                &mut out,
                level.map_or_else(flate2::Compression::default, |level| {
                    flate2::Compression::new(level.into())
                }),
            );
            copy(&mut encoder)?;
            encoder.finish()?;
        }
        Compression::Zstd => {
            let mut encoder =
                zstd::Encoder::new(&mut out, level.map_or(zstd::DEFAULT_COMPRESSION_LEVEL, i32::from))?;
            copy(&mut encoder)?;
            encoder.finish()?;
        }
        Compression::ZstdChunked => chunked = Some(write_chunked(plain, &mut out, level)?),
    }
    out.flush()?;
    let (plain, annotations, no_table) = match chunked {
        None => (hasher.finish(), BTreeMap::new(), None),
        Some(Chunked { plain, table: Ok(table) }) => (plain, table, None),
        Some(Chunked { plain, table: Err(why) }) => (plain, BTreeMap::new(), Some(why)),
    };
    Ok(Written { plain, digest: out.hasher.finish(), size: out.size, annotations, no_table })
}
