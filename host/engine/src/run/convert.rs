//! Converts images to another form: other media types, or layers in another compression.

use super::image::Job;
use crate::{
    Error, Event, Kind, Result,
    blob::{Payload, Transfer, check_diff_id, disk_permit, measure, recompress},
    contract::{Arrival, Incoming, Segment},
    error::Context,
    lock,
    plan::{compression_of, is_truly_in},
};
use dray_core::{
    Children, Compression, Descriptor, Digest, Form, Format, ImageConfig, Manifest, NESTING, Naming, Schema1,
    convert_image, convert_index, is_compressed_as, is_image_config, layer_compression, media_type,
    new_image, select,
};
use futures_util::future::{BoxFuture, try_join, try_join_all};
use std::sync::{Arc, atomic::Ordering};

impl Job {
    /// Copies a manifest and everything that it names in another form. Returns the manifest that was published.
    pub(super) fn converted(
        self: Arc<Self>,
        manifest: Manifest,
        form: Form,
        naming: Naming,
        depth: usize,
    ) -> BoxFuture<'static, Result<Manifest>> {
        Box::pin(async move {
            if depth > NESTING {
                return Err(Error::invalid(format!(
                    "convert it: manifests are nested deeper than {NESTING}"
                )));
            }
            let written = match &manifest.children {
                Children::Index(children) => {
                    // The platforms select children of the outermost index only; a nested index is copied in full.
                    let platforms = if depth == 0 { self.platforms() } else { &[] };
                    let kept = select(children, platforms)?.kept;
                    self.bounds.count(children.len(), manifest.descriptor.size)?;
                    let mut written = Vec::new();
                    for child in children {
                        if !kept.contains(child) {
                            written.push(child.clone());
                            continue;
                        }
                        let image = self.source.manifest_of(child).await?;
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
                    self.clone().converted_image(&manifest, config, layers, form, depth).await?
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
            if self.wanted.referrers.are_wanted() {
                self.with_referrers(&manifest.descriptor, &written, depth).await?;
            }
            self.publish(&written, &naming).await?;
            Ok(written)
        })
    }

    /// Copies the referrers of what was written as it was, before the image gets its tag. Those of converted manifests
    /// are left behind.
    async fn with_referrers(
        self: &Arc<Self>,
        source: &Descriptor,
        written: &Manifest,
        depth: usize,
    ) -> Result<()> {
        match written.descriptor.digest == source.digest {
            true => lock(&self.subjects).push(source.digest.clone()),
            // Of an image that is no index the plan has told already.
            false if depth > 0 || media_type::is_index(&source.media_type) => {
                lock(&self.converted).push(source.digest.clone())
            }
            false => {}
        }
        if depth > 0 {
            return Ok(());
        }
        self.publish(written, &Naming::Child).await?;
        self.all_referrers().await?;
        self.converted_referrers().await
    }

    async fn converted_image(
        self: Arc<Self>,
        manifest: &Manifest,
        config: &Descriptor,
        layers: &[Descriptor],
        form: Form,
        depth: usize,
    ) -> Result<Manifest> {
        if is_truly_in(&self.source, manifest, form, self.source.place.unpacks().await?).await? {
            self.clone().blobs(manifest).await?;
            return Ok(manifest.clone());
        }
        // Attestations (in-toto) have an image config, but their layers are not file system layers.
        let layered = layers.iter().all(|layer| layer_compression(&layer.media_type).is_some());
        if !is_image_config(&config.media_type) || !layered {
            let digest = manifest.descriptor.digest.short();
            if self.holds_all() && depth == 0 && self.wanted.strict {
                let text =
                    format!("convert {digest}: it is an artifact ({}), and no image", config.media_type);
                return Err(
                    Error::new(Kind::Unsupported, text).help("leave the format and the compression out")
                );
            }
            if self.holds_all() {
                // Attestations in an index are artifacts and are copied unchanged.
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
        let bytes = self.source.small_blob(config).await.context(|| "read the config")?;
        let malformed = |error: String| Error::invalid(format!("read the config {}: {error}", config.digest));
        let read: ImageConfig =
            serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        let diff_ids =
            read.diff_ids().ok_or_else(|| malformed("it names no layers (rootfs.diff_ids)".into()))?;
        let diff_ids = diff_ids.map_err(|error| malformed(error.to_string()))?;
        if diff_ids.len() != layers.len() {
            let text = format!(
                "convert {}: its config knows {} layers and its manifest {}",
                manifest.descriptor.digest.short(),
                diff_ids.len(),
                layers.len()
            );
            return Err(Error::invalid(text));
        }
        if let Some(layer) = layers.iter().find(|layer| layer.foreign && !self.wanted.include_foreign) {
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
        let (written, ()) = try_join(written, self.clone().blob(config)).await?;
        Ok(convert_image(manifest, format, &written)?)
    }

    /// Converts a schema 1 image to a current format. Its layers are read one additional time, to learn what the
    /// manifest does not tell.
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
        let (written, ()) = try_join(written, self.clone().blob(named.clone())).await?;
        Ok(new_image(&named, format, &written)?)
    }

    /// The descriptor and the diff ID of a layer that is known only by its digest. They are determined once per run.
    async fn learnt(&self, digest: &Digest, format: Format) -> Result<(Descriptor, Digest)> {
        let (once, rates) = (self.shared.untold(digest), self.rates());
        let watcher = self.shared.watcher.as_ref();
        let (size, compression, diff_id) =
            once.get_or_try_init(|| measure(&self.source, digest, &rates, watcher)).await?;
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
        let now = match unpacked.is_some() {
            true => Compression::None,
            false => compression_of(&self.source, layer).await?,
        };
        if now == Compression::None && unpacked.is_none() && layer.digest.algorithm() == diff_id.algorithm() {
            // The blob is verified by its digest when it is read, and for uncompressed data that digest is the diff ID.
            check_diff_id(layer, diff_id, &layer.digest)?;
        }
        let mut wanted = form.compression.unwrap_or(now);
        if form.compression.is_none() && format.layer(wanted).is_none() {
            wanted = Compression::Gzip;
        }
        let media_type = format.layer(wanted).ok_or_else(|| {
            Error::new(Kind::Unsupported, "write zstd layers in Docker's format: it knows none")
                .help("choose format = \"oci\", or another compression")
        })?;
        if is_compressed_as(layer, now, wanted) {
            let same = Descriptor { media_type: media_type.into(), ..layer.clone() };
            self.clone().blob(same.clone()).await?;
            return Ok(same);
        }
        let repository = if self.capabilities.shared { String::new() } else { self.destination.name.clone() };
        let once = self.shared.layer((
            self.destination.place.blobs_key(),
            repository,
            layer.digest.clone(),
            diff_id.clone(),
            wanted,
        ));
        let made = once.get_or_try_init(|| self.recompress(layer, diff_id, wanted, media_type)).await?;
        // Another manifest of the run may have another format, and so another name for the same bytes.
        Ok(Descriptor { media_type: media_type.into(), ..made.clone() })
    }

    /// The descriptor of a layer that its place holds unpacked. `None` means that the layer is read as the manifest
    /// says.
    async fn as_unpacked(
        &self,
        layer: &Descriptor,
        diff_id: &Digest,
        format: Format,
    ) -> Result<Option<Descriptor>> {
        let media_type = format.layer(Compression::None).filter(|_| layer.digest != *diff_id);
        let Some(media_type) = media_type else { return Ok(None) };
        if !self.source.place.unpacks().await? {
            return Ok(None);
        }
        let plain = Descriptor::new(media_type, diff_id.clone(), 0);
        Ok(match &self.source.locate(&plain).await?[..] {
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
    ) -> Result<Descriptor> {
        let (source, destination) = (&self.source, &self.destination);
        let (watcher, rates, ending) = (self.shared.watcher.as_ref(), self.rates(), &self.ending);
        let direct = wanted == Compression::None && destination.place.files.is_some();
        // The permit is held until the temporary file is removed, so that few of them exist at once.
        let _permit = if direct { None } else { Some(disk_permit(&source.place, &destination.place).await) };
        let (payload, blob) = match direct {
            true => (Payload::Plain(layer), Descriptor::new(media_type, diff_id.clone(), 0)),
            false => {
                let made = recompress(
                    source,
                    destination,
                    (layer, diff_id),
                    (wanted, self.wanted.form.level),
                    &rates,
                    (watcher, &self.shown),
                )
                .await?;
                let blob = Descriptor {
                    annotations: made.annotations,
                    ..Descriptor::new(media_type, made.digest, made.size)
                };
                (made.payload, blob)
            }
        };
        let size = blob.size;
        let incoming = Incoming {
            blob: blob.clone(),
            siblings: Vec::new(),
            sized: !direct,
            absent: self.fresh,
            piece: None,
        };
        let transfer = Transfer {
            image: &self.shown,
            source,
            destination,
            payload,
            incoming: &incoming,
            wanted_by: None,
            link: self.wanted.link,
            rates: &rates,
            ending,
            watcher,
        };
        if !direct {
            watcher.event(Event::Expected(size));
        }
        let stored = transfer.run().await?;
        match stored.arrival {
            Arrival::Stored => _ = self.sent.fetch_add(stored.size, Ordering::Relaxed),
            Arrival::Mounted | Arrival::Present if !direct => watcher.event(Event::Spared(size)),
            Arrival::Mounted | Arrival::Present => {}
        }
        Ok(Descriptor { size: stored.size, ..blob })
    }
}
