//! Images in another form than their source has them: other media types, layers compressed in
//! another way. The bytes stream; a layer whose digest is known only at its end rests in a
//! temporary file.

use crate::{
    Error, Kind, Place, Result,
    blob::reader::{BlobReader, through},
    blob::transfer::{Payload, Side, disk_turn, transfer},
    contract::{Holdings, Incoming, Naming, Segment},
    decode::{Plain, sniff},
    error::Context,
    http::Load,
    journal::Conversion,
    place::graph::{read_blob, read_manifest},
    run::{DEPTH, Job},
};
use dray_core::{
    Children, Compression, Descriptor, Digest, Form, Format, Hasher, Manifest, Schema1, convert_image,
    convert_index, is_image_config, layer_compression, media_type, new_image, select,
};
use futures_util::future::{BoxFuture, try_join_all};
use serde::Deserialize;
use std::{
    fs::File,
    io::{Read, Write},
    sync::{Arc, Mutex, atomic::Ordering},
};

/// The form in which an image must be written; none: as it is.
///
/// # Errors
/// Where the destination cannot hold it in any form.
pub(crate) fn needed(
    descriptor: &Descriptor,
    holds: Option<&Holdings>,
    asked: Form,
    destination: &str,
) -> Result<Form> {
    let mut form = asked;
    let Some(Holdings { manifests, plain, .. }) = holds else {
        if media_type::is_schema1(&descriptor.media_type) {
            // Registries take it no longer, and layouts never did.
            form.format = asked.format.or(Some(Format::Oci));
        }
        if asked.compression == Some(Compression::Zstd) {
            // Docker's format knows none.
            form.format = asked.format.or(Some(Format::Oci));
        }
        return Ok(form);
    };
    let index = media_type::is_index(&descriptor.media_type);
    let fitting = manifests.iter().filter(|held| media_type::is_index(held) == index);
    let formats: Vec<Format> = fitting.filter_map(|held| Format::of(held)).collect();
    let wanted = asked.format.or(Format::of(&descriptor.media_type));
    match formats.first() {
        None => {
            let text = format!("copy an index to {destination}: it holds images of one platform each");
            return Err(Error::new(Kind::Unsupported, text).help(
                "choose one: `--platform linux/amd64`, or `platforms = [\"linux/amd64\"]` in the rule",
            ));
        }
        Some(first) if !wanted.is_some_and(|wanted| formats.contains(&wanted)) => {
            if asked.format.is_some() {
                let text =
                    format!("copy to {destination}: it does not hold images of the format that is asked for");
                return Err(Error::new(Kind::Unsupported, text));
            }
            form.format = Some(*first);
        }
        Some(_) => {}
    }
    if *plain {
        if asked.compression.is_some_and(|asked| asked != Compression::None) {
            let text = format!("copy to {destination}: it holds layers uncompressed");
            return Err(Error::new(Kind::Unsupported, text).help("leave the compression out"));
        }
        form.compression = Some(Compression::None);
    }
    Ok(form)
}

/// Whether a manifest is in a form already. Where layers are kept `unpacked`, they are plain whatever
/// the manifest says.
pub(crate) fn is_in(manifest: &Manifest, form: Form, unpacked: bool) -> bool {
    if unpacked && !is_in(manifest, Form { compression: Some(Compression::None), ..form }, false) {
        return false;
    }
    let format = form.format.is_none_or(|format| Format::of(&manifest.descriptor.media_type) == Some(format));
    let layers = match &manifest.children {
        Children::Schema1(_) => false,
        // Its children may be in any form.
        Children::Index(_) => form.compression.is_none() && form.format.is_none(),
        Children::Image { layers, .. } => layers.iter().all(|layer| {
            let Some(now) = layer_compression(&layer.media_type) else { return true };
            // A manifest of one format may name layers as the other does.
            let named = form.format.is_none_or(|format| format.layer(now) == Some(&layer.media_type));
            named && form.compression.is_none_or(|wanted| now == wanted)
        }),
    };
    format && layers
}

/// Whether a manifest is in a form already, and its layers are what their types say. That is looked at only where a
/// form is asked for, and once: the journal remembers it.
pub(crate) async fn is_truly_in(
    place: &Arc<Place>,
    repository: &str,
    manifest: &Manifest,
    form: Form,
    unpacked: bool,
) -> Result<bool> {
    if !is_in(manifest, form, unpacked) {
        return Ok(false);
    }
    let Children::Image { config, layers } = &manifest.children else { return Ok(true) };
    let layered = layers.iter().all(|layer| layer_compression(&layer.media_type).is_some());
    if form.compression.is_none() || unpacked || !is_image_config(&config.media_type) || !layered {
        return Ok(true);
    }
    let digest = &manifest.descriptor.digest;
    let (journal, needless) = (place.local.journal.get(), Conversion::needless(digest, form));
    if journal.is_some_and(|journal| journal.converted(&needless).is_some()) {
        return Ok(true);
    }
    for layer in layers.iter().filter(|layer| !layer.foreign) {
        if layer_compression(&layer.media_type) != Some(sniffed(place, repository, layer).await?) {
            return Ok(false);
        }
    }
    if let Some(journal) = journal {
        journal.convert(needless, digest.to_string());
    }
    Ok(true)
}

/// How a layer is compressed, by its first bytes: its type may lie.
async fn sniffed(place: &Arc<Place>, repository: &str, layer: &Descriptor) -> Result<Compression> {
    let mut reader = BlobReader::open(place, repository, layer).await?;
    let _permits = reader.start(None, &Load::of(layer.size), None).await?;
    let first = reader.next(u64::MAX).await.context(|| format!("read the layer {}", layer.digest.short()))?;
    let told = sniff(&first.unwrap_or_default());
    told.map_err(|error| {
        Error::new(Kind::Unsupported, format!("read the layer {}: {error}", layer.digest.short()))
    })
}

/// What of an image's config conversions ask for (OCI image specification, configuration).
#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

impl Job {
    /// Copies a manifest and what it names in another form; what was published.
    pub(crate) fn converted(
        self: Arc<Self>,
        manifest: Manifest,
        form: Form,
        naming: Naming,
        depth: usize,
    ) -> BoxFuture<'static, Result<Manifest>> {
        Box::pin(async move {
            if depth > DEPTH {
                return Err(Error::invalid(format!("convert it: manifests are nested deeper than {DEPTH}")));
            }
            let written = match &manifest.children {
                Children::Index(children) => {
                    // What is within a wanted index is wanted.
                    let platforms = if depth == 0 { self.platforms() } else { &[] };
                    let kept = select(children, platforms)?.kept;
                    self.bounds.count(children.len(), manifest.descriptor.size)?;
                    let mut written = Vec::new();
                    for child in children {
                        if !kept.contains(child) {
                            written.push(child.clone());
                            continue;
                        }
                        let image = read_manifest(&self.source.0, &self.source.1, None, Some(child)).await?;
                        let image = self.clone().converted(image, form, Naming::Child, depth + 1).await?;
                        written.push(Descriptor { platform: child.platform.clone(), ..image.descriptor });
                    }
                    let now = Format::of(&manifest.descriptor.media_type).unwrap_or(Format::Oci);
                    let format = form.format.unwrap_or(now);
                    let same = |(before, after): (&Descriptor, &Descriptor)| {
                        (&before.digest, &before.media_type) == (&after.digest, &after.media_type)
                    };
                    match format == now && children.iter().zip(&written).all(same) {
                        true => manifest.clone(),
                        false => convert_index(&manifest, format, &written)?,
                    }
                }
                Children::Image { config, layers } => {
                    self.clone().image(&manifest, config, layers, form, depth).await?
                }
                Children::Schema1(old) => self.clone().modern(old, form).await?,
            };
            let lost = manifest.signatures.len();
            if lost > 0 && written.descriptor.digest != manifest.descriptor.digest {
                let digest = manifest.descriptor.digest.short();
                tracing::warn!(
                    "{lost} signatures of {digest} stay behind: they are not of what was made of it"
                );
            }
            self.publish(&written, &naming).await?;
            Ok(written)
        })
    }

    async fn image(
        self: Arc<Self>,
        manifest: &Manifest,
        config: &Descriptor,
        layers: &[Descriptor],
        form: Form,
        depth: usize,
    ) -> Result<Manifest> {
        let (place, repository) = &self.source;
        if is_truly_in(place, repository, manifest, form, place.unpacks().await?).await? {
            self.clone().blobs(manifest).await?;
            return Ok(manifest.clone());
        }
        // Attestations have the config of an image, and layers of their own (in-toto).
        let layered = layers.iter().all(|layer| layer_compression(&layer.media_type).is_some());
        if !is_image_config(&config.media_type) || !layered {
            let digest = manifest.descriptor.digest.short();
            if self.holds_all() && depth == 0 && self.strict {
                let text =
                    format!("convert {digest}: it is an artifact ({}), and no image", config.media_type);
                return Err(
                    Error::new(Kind::Unsupported, text).help("leave the format and the compression out")
                );
            }
            if self.holds_all() {
                // Attestations in an index are artifacts, and stay what they are.
                if depth == 0 {
                    tracing::warn!(
                        "{digest} is copied as it is: it is an artifact ({}), and no image",
                        config.media_type
                    );
                }
                self.clone().blobs(manifest).await?;
                return Ok(manifest.clone());
            }
            let text = format!(
                "copy {}: the destination holds images, and this is an artifact ({})",
                manifest.descriptor.digest.short(),
                config.media_type
            );
            return Err(Error::new(Kind::Unsupported, text));
        }
        let format = form.format.or(Format::of(&manifest.descriptor.media_type)).unwrap_or(Format::Oci);
        let bytes = read_blob(&self.source.0, &self.source.1, config).await.context(|| "read the config")?;
        let diff_ids = serde_json::from_slice::<Config>(&bytes).map(|config| config.rootfs.diff_ids);
        let diff_ids = diff_ids
            .map_err(|error| Error::invalid(format!("read the config {}: {error}", config.digest)))?;
        if diff_ids.len() != layers.len() {
            let text = format!(
                "convert {}: its config knows {} layers and its manifest {}",
                manifest.descriptor.digest.short(),
                diff_ids.len(),
                layers.len()
            );
            return Err(Error::invalid(text));
        }
        if let Some(layer) = layers.iter().find(|layer| layer.foreign && !self.include_foreign) {
            let digest = manifest.descriptor.digest.short();
            let text =
                format!("convert {digest}: its layer {} is not to be distributed", layer.digest.short());
            let help = "`include-foreign = true` in the rule, or --include-foreign, copies such layers";
            return Err(Error::new(Kind::Unsupported, text).help(help));
        }
        let written = try_join_all(
            layers.iter().zip(&diff_ids).map(|(layer, diff_id)| self.layer(layer, diff_id, format, form)),
        );
        let config = Descriptor { media_type: format.config().into(), ..config.clone() };
        let (written, ()) = futures_util::future::try_join(written, self.clone().blob(config)).await?;
        Ok(convert_image(manifest, format, &written)?)
    }

    /// Makes an image of today of one of schema 1. Its layers are read once more than others, to learn
    /// what its manifest does not tell.
    async fn modern(self: Arc<Self>, old: &Schema1, form: Form) -> Result<Manifest> {
        let format = form.format.unwrap_or(Format::Oci);
        let layers = try_join_all(old.layers.iter().map(|digest| self.learnt(digest, format))).await?;
        let written =
            try_join_all(layers.iter().map(|(layer, diff_id)| self.layer(layer, diff_id, format, form)));
        let diff_ids: Vec<Digest> = layers.iter().map(|(_, diff_id)| diff_id.clone()).collect();
        let config = old.config(&diff_ids);
        let digest = Digest::of(&config);
        let mut named = Descriptor::new(format.config(), digest, config.len() as u64);
        named.data = Some(config);
        let (written, ()) = futures_util::future::try_join(written, self.clone().blob(named.clone())).await?;
        Ok(new_image(&named, format, &written)?)
    }

    /// A layer of which only the digest is known, and its diff id; learnt once a run.
    async fn learnt(&self, digest: &Digest, format: Format) -> Result<(Descriptor, Digest)> {
        let once = self.shared.untold(digest);
        let (size, compression, diff_id) = once
            .get_or_try_init(async || {
                let (place, repository) = &self.source;
                let blob = Descriptor::new("", digest.clone(), 0);
                let mut reader = BlobReader::open(place, repository, &blob).await?.of_unknown_size();
                let observer = Some(self.shared.observer.as_ref());
                let _permits = reader.start(None, &Load::of(0), observer).await?;
                let pace = place.http.as_ref().and_then(|http| http.pace());
                let read = through(
                    &mut reader,
                    pace,
                    "decompress it",
                    |_| {},
                    |bytes| {
                        let mut plain = Plain::new(bytes)?;
                        let mut hashing = Hashing::new(std::io::sink());
                        std::io::copy(&mut plain, &mut hashing)?;
                        Ok((plain.compression, hashing.hasher.finish()))
                    },
                );
                let read = read.await.context(|| format!("read the layer {}", digest.short()))?;
                Ok::<_, Error>((reader.position(), read.0, read.1))
            })
            .await?;
        let media_type = format.layer(*compression).or(format.layer(Compression::Gzip)).unwrap_or_default();
        Ok((Descriptor::new(media_type, digest.clone(), *size), diff_id.clone()))
    }

    async fn layer(
        self: &Arc<Self>,
        layer: &Descriptor,
        diff_id: &Digest,
        format: Format,
        form: Form,
    ) -> Result<Descriptor> {
        let unpacked = self.as_unpacked(layer, diff_id, format).await?;
        let layer = unpacked.as_ref().unwrap_or(layer);
        let (place, repository) = &self.source;
        let now = match unpacked.is_some() {
            true => Compression::None,
            false => sniffed(place, repository, layer).await?,
        };
        if now == Compression::None && unpacked.is_none() && layer.digest.algorithm() == diff_id.algorithm() {
            // It is read by its digest, and that is the digest of its plain bytes.
            verify(layer, diff_id, &layer.digest)?;
        }
        let mut wanted = form.compression.unwrap_or(now);
        if form.compression.is_none() && format.layer(wanted).is_none() {
            wanted = Compression::Gzip;
        }
        let media_type = format.layer(wanted).ok_or_else(|| {
            Error::new(Kind::Unsupported, "write zstd layers in Docker's format: it knows none")
                .help("choose format = \"oci\", or another compression")
        })?;
        if wanted == now {
            let same = Descriptor { media_type: media_type.into(), ..layer.clone() };
            self.clone().blob(same.clone()).await?;
            return Ok(same);
        }
        let repository = if self.capabilities.shared { String::new() } else { self.destination.1.clone() };
        let once = self.shared.layer((
            self.destination.0.blobs_key(),
            repository,
            layer.digest.clone(),
            diff_id.clone(),
            wanted,
        ));
        let (digest, size) =
            once.get_or_try_init(|| self.recompress(layer, diff_id, wanted, media_type)).await?.clone();
        Ok(Descriptor::new(media_type, digest, size))
    }

    /// A layer as its place has it, where that is not as the manifest says.
    async fn as_unpacked(
        &self,
        layer: &Descriptor,
        diff_id: &Digest,
        format: Format,
    ) -> Result<Option<Descriptor>> {
        let (place, repository) = &self.source;
        let media_type = format.layer(Compression::None).filter(|_| layer.digest != *diff_id);
        let Some(media_type) = media_type else { return Ok(None) };
        if !place.unpacks().await? {
            return Ok(None);
        }
        let plain = Descriptor::new(media_type, diff_id.clone(), 0);
        Ok(match &place.transport.locate(place, repository, &plain).await?[..] {
            [Segment::Unpacked { size, .. }] => Some(Descriptor { size: *size, ..plain }),
            _ => None,
        })
    }

    async fn recompress(
        self: &Arc<Self>,
        layer: &Descriptor,
        diff_id: &Digest,
        wanted: Compression,
        media_type: &str,
    ) -> Result<(Digest, u64)> {
        let (source, destination) = self.sides();
        let observer = self.shared.observer.as_ref();
        let direct = wanted == Compression::None && self.destination.0.files.is_some();
        // Held until the temporary file is gone, so that there are few of them.
        let _turn = if direct { None } else { Some(disk_turn(source.place, destination.place).await) };
        let (payload, digest, size) = match direct {
            true => (Payload::Plain(layer), diff_id.clone(), 0),
            false => self.spool(&source, layer, diff_id, wanted).await?,
        };
        let blob = Descriptor::new(media_type, digest.clone(), size);
        let incoming = Incoming { blob, siblings: Vec::new(), sized: !direct, absent: self.fresh };
        let stored = transfer(source, destination, payload, &incoming, observer).await?;
        if stored.finish == crate::contract::Arrival::Stored {
            self.sent.fetch_add(stored.size, Ordering::Relaxed);
        }
        Ok((digest, stored.size))
    }

    /// Writes a layer in another compression: into the folder where it will get its name once its digest
    /// is known, or to a temporary file where the destination is no folder.
    async fn spool(
        &self,
        source: &Side<'_>,
        layer: &Descriptor,
        diff_id: &Digest,
        wanted: Compression,
    ) -> Result<(Payload<'static>, Digest, u64)> {
        let place = &self.destination.0;
        let scratch = place.local.scratch.clone();
        let files = if place.unpacks().await? { None } else { place.files.clone() };
        let mut reader = BlobReader::open(source.place, source.repository, layer).await?;
        let observer = Some(self.shared.observer.as_ref());
        let _permits = reader.start(None, &Load::of(layer.size), observer).await?;
        let pace = source.place.http.as_ref().and_then(|http| http.pace());
        let spooled = through(
            &mut reader,
            pace,
            "decompress it",
            |_| {},
            move |bytes| {
                if let Some(fresh) = files.and_then(|files| files.fresh()).transpose()? {
                    let facts = compress(bytes, fresh.file(), wanted)?;
                    return Ok((Payload::Written(Arc::new(Mutex::new(Some(fresh)))), facts));
                }
                let file = tempfile::tempfile_in(&scratch)?;
                let facts = compress(bytes, &file, wanted)?;
                Ok((Payload::Local(Arc::new(file)), facts))
            },
        );
        let (payload, (plain, digest, size)) =
            spooled.await.context(|| format!("convert the layer {}", layer.digest.short()))?;
        verify(layer, diff_id, &plain)?;
        Ok((payload, digest, size))
    }
}

/// A layer is what the image's config says it is.
pub(crate) fn verify(layer: &Descriptor, diff_id: &Digest, plain: &Digest) -> Result<()> {
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

/// Counts and hashes what passes.
struct Hashing<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Hashing { inner, hasher: Hasher::new(dray_core::Algorithm::Sha256), size: 0 }
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

/// Writes a stream in another compression: the digest of the plain bytes, digest and size of those
/// that were written.
fn compress(
    bytes: &mut (dyn Read + Send),
    file: &File,
    wanted: Compression,
) -> std::io::Result<(Digest, Digest, u64)> {
    let mut plain = Plain::new(bytes)?;
    let mut out = Hashing::new(std::io::BufWriter::with_capacity(1 << 20, file));
    let mut hasher = Hasher::new(dray_core::Algorithm::Sha256);
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
    match wanted {
        Compression::None => copy(&mut out)?,
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(&mut out, flate2::Compression::default());
            copy(&mut encoder)?;
            encoder.finish()?;
        }
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(&mut out, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            copy(&mut encoder)?;
            encoder.finish()?;
        }
    }
    out.flush()?;
    Ok((hasher.finish(), out.hasher.finish(), out.size))
}
