//! Determines the form in which an image must be written, and whether it already has that form.

use crate::{
    Error, Kind, Repository, Result, contract::Holdings, decode::sniff, error::Context, journal::Conversion,
    schedule::queue::Load,
};
use dray_core::{
    Children, Compression, Descriptor, Form, Format, Manifest, is_compressed_as, is_image_config,
    layer_compression, media_type,
};

/// The form in which an image must be written. An unchanged form means that it is copied without conversion. Fails if
/// the destination cannot hold the image in any form.
pub(crate) fn needed(
    descriptor: &Descriptor,
    holds: Option<&Holdings>,
    asked: Form,
    destination: &str,
) -> Result<Form> {
    let mut form = asked;
    let Some(Holdings { manifests, plain, .. }) = holds else {
        if media_type::is_schema1(&descriptor.media_type) {
            // Registries no longer accept schema 1, and layouts never did.
            form.format = asked.format.or(Some(Format::Oci));
        }
        if matches!(asked.compression, Some(Compression::Zstd | Compression::ZstdChunked)) {
            // Docker's format has no media type for zstd layers.
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

/// Whether a manifest has a form already, judged by its media types. With `unpacked`, layers are uncompressed whatever
/// the manifest says.
pub(crate) fn is_in(manifest: &Manifest, form: Form, unpacked: bool) -> bool {
    if unpacked && !is_in(manifest, Form { compression: Some(Compression::None), ..form }, false) {
        return false;
    }
    let format = form.format.is_none_or(|format| Format::of(&manifest.descriptor.media_type) == Some(format));
    let layers = match &manifest.children {
        Children::Schema1(_) => false,
        // The children of an index may have any form.
        Children::Index(_) => form.compression.is_none() && form.format.is_none(),
        Children::Image { layers, .. } => layers.iter().all(|layer| {
            let Some(now) = layer_compression(&layer.media_type) else { return true };
            // A manifest of one format may use the other format's media types for its layers.
            let named = form.format.is_none_or(|format| format.layer(now) == Some(&layer.media_type));
            named && form.compression.is_none_or(|wanted| is_compressed_as(layer, now, wanted))
        }),
    };
    format && layers
}

/// Whether a manifest has a form already, and its layers are compressed as their media types say. The layers are only
/// checked if a compression is requested, and only once, because the journal remembers the result. Fails if a layer
/// cannot be read.
pub(crate) async fn is_truly_in(
    source: &Repository,
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
    let (journal, needless) = (source.place.local.journal.get(), Conversion::needless(digest, form));
    if journal.is_some_and(|journal| journal.converted(&needless).is_some()) {
        return Ok(true);
    }
    for layer in layers.iter().filter(|layer| !layer.foreign) {
        if layer_compression(&layer.media_type) != Some(compression_of(source, layer).await?) {
            return Ok(false);
        }
    }
    if let Some(journal) = journal {
        journal.convert(needless, digest.to_string());
    }
    Ok(true)
}

/// The compression of a layer, detected from its first bytes because its media type may be wrong. Fails if the layer
/// cannot be read, or if dray does not support its compression.
pub(crate) async fn compression_of(source: &Repository, layer: &Descriptor) -> Result<Compression> {
    let mut reader = source.blob(layer).await?;
    let _permits = reader.start(None, &Load::of(layer.size), None).await?;
    let first = reader.next(u64::MAX).await.context(|| format!("read the layer {}", layer.digest.short()))?;
    let told = sniff(&first.unwrap_or_default());
    told.map_err(|error| {
        Error::new(Kind::Unsupported, format!("read the layer {}: {error}", layer.digest.short()))
    })
}
