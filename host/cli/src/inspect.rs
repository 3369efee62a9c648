//! `dray inspect` and `dray list-tags`

use crate::{
    DONE,
    args::{InspectOptions, ListTagsOptions, Output},
    failure::Failure,
    output::{line, print_json, print_pretty},
    setup,
};
use dray_core::{Children, Descriptor, Platform};
use dray_engine::Image;
use serde_json::{Value, json};
use std::io::Write;

pub async fn run(mut options: InspectOptions) -> Result<u8, Failure> {
    options.reference.blobs = options.shared_blob_dir.take();
    let places = setup::places(&options.access)?;
    let image = Image::open(&places, &options.reference).await?;
    if options.raw {
        return bytes(&image.manifest.body);
    }
    let chosen = image.platform(&Platform::of_this_machine()).await?;
    if options.config {
        return bytes(&chosen.config().await?);
    }
    let mut shown = json!({
        "reference": options.reference,
        "digest": image.manifest.descriptor.digest,
        "mediaType": image.manifest.descriptor.media_type,
        "size": image.manifest.descriptor.size,
    });
    if let Children::Index(children) = &image.manifest.children {
        let listed = children.iter().map(|child| {
            let platform = child.platform.as_ref().map(Platform::to_string);
            json!({ "platform": platform, "digest": child.digest, "mediaType": child.media_type, "size": child.size })
        });
        shown["manifests"] = listed.collect();
    }
    if let Children::Image { config, layers } = &chosen.manifest.children {
        shown["config"] = describe(config);
        shown["layers"] = layers.iter().map(describe).collect();
        // An artifact's config may be anything; an image's says more.
        if let Ok(config) = serde_json::from_slice::<Value>(&chosen.config().await?) {
            for key in ["created", "os", "architecture", "variant"] {
                if let Some(value) = config.get(key) {
                    shown[key] = value.clone();
                }
            }
            if let Some(labels) = config.pointer("/config/Labels").filter(|labels| labels.is_object()) {
                shown["labels"] = labels.clone();
            }
        }
    }
    print_pretty(&shown);
    Ok(DONE)
}

fn describe(blob: &Descriptor) -> Value {
    json!({ "digest": blob.digest, "mediaType": blob.media_type, "size": blob.size })
}

fn bytes(content: &[u8]) -> Result<u8, Failure> {
    let mut out = std::io::stdout();
    let written = out.write_all(content).and_then(|()| out.flush());
    match written {
        // Who reads it may have seen enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::usage(format!("write to standard output: {error}")))
        }
        _ => Ok(DONE),
    }
}

pub async fn list_tags(options: ListTagsOptions) -> Result<u8, Failure> {
    let places = setup::places(&options.access)?;
    let tags = dray_engine::list_tags(&places, &options.reference).await?;
    match options.output {
        Output::Json => print_json(&json!({ "reference": options.reference, "tags": tags })),
        Output::Text => {
            let text: String = tags.iter().map(|tag| line(tag)).collect();
            return bytes(text.as_bytes());
        }
    }
    Ok(DONE)
}
