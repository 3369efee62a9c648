//! `dray inspect` and `dray list-tags`

use crate::{
    DONE,
    args::{InspectOptions, ListTagsOptions, LsOptions, Output},
    failure::Failure,
    output::{bytes as numbered, bytes_out, counted, line, print, print_json, print_pretty},
    setup,
};
use dray_core::{Children, Descriptor, Platform, Reference};
use dray_engine::Image;
use serde_json::{Value, json};
use std::cmp::Ordering;

pub async fn run(mut options: InspectOptions) -> Result<u8, Failure> {
    options.reference.blobs = options.shared_blob_dir.take();
    let places = setup::places(&options.access).await?;
    let image = Image::open(&places, &options.reference).await?;
    if options.raw {
        return bytes_out(&image.manifest.body).map(|()| DONE);
    }
    let chosen = image.platform(&Platform::of_this_machine()).await?;
    if options.config {
        return bytes_out(&chosen.config().await?).map(|()| DONE);
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
    match options.output {
        Output::Json => print_pretty(&shown),
        Output::Text => print(&told(&shown)),
    }
    Ok(DONE)
}

/// What was learnt of an image, for people.
fn told(shown: &Value) -> String {
    let text = |key: &str| shown[key].as_str().unwrap_or_default();
    let size = |value: &Value| numbered(value.as_u64().unwrap_or_default());
    let mut out = String::new();
    let mut row = |name: &str, value: &str| out.push_str(&line(&format!("{name:<10} {value}")));
    row("image", text("reference"));
    row("digest", text("digest"));
    row("type", text("mediaType"));
    if let Some(created) = shown["created"].as_str() {
        row("created", &aged(created));
    }
    if let Some(os) = shown["os"].as_str() {
        let variant = shown["variant"].as_str().map(|variant| format!("/{variant}")).unwrap_or_default();
        row("platform", &format!("{os}/{}{variant}", text("architecture")));
    }
    if let Some(layers) = shown["layers"].as_array() {
        let total: u64 = layers.iter().filter_map(|layer| layer["size"].as_u64()).sum();
        row("size", &format!("{} in {}", numbered(total), counted(layers.len() as u64, "layer")));
    }
    for (at, child) in shown["manifests"].as_array().into_iter().flatten().enumerate() {
        let platform = child["platform"].as_str().unwrap_or("no platform");
        let digest = child["digest"].as_str().unwrap_or_default();
        row(if at == 0 { "index of" } else { "" }, &format!("{platform:<16} {digest}"));
    }
    for (at, layer) in shown["layers"].as_array().into_iter().flatten().enumerate() {
        let digest = layer["digest"].as_str().unwrap_or_default();
        row(if at == 0 { "layers" } else { "" }, &format!("{:>10} {digest}", size(&layer["size"])));
    }
    for (at, (key, value)) in shown["labels"].as_object().into_iter().flatten().enumerate() {
        row(if at == 0 { "labels" } else { "" }, &format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    out
}

/// A time with how long ago it was, in the largest unit of which there are two.
fn aged(created: &str) -> String {
    let Ok(at) = created.parse::<jiff::Timestamp>() else { return created.to_owned() };
    let seconds = jiff::Timestamp::now().as_second() - at.as_second();
    let units = [("year", 31_557_600), ("month", 2_629_800), ("day", 86_400), ("hour", 3600), ("minute", 60)];
    match units.into_iter().find(|(_, length)| seconds >= 2 * length) {
        Some((unit, length)) => format!("{created} ({} ago)", counted((seconds / length) as u64, unit)),
        None => created.to_owned(),
    }
}

/// Orders texts by their numbers where they have some, so that 1.9 comes before 1.10.
fn by_number(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one, other);
    loop {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let (a, b) = (digits(one), digits(other));
        if a > 0 && b > 0 {
            let [left, right] = [&one[..a], &other[..b]].map(|number| number.trim_start_matches('0'));
            // Of two numbers without leading zeros the longer one is the larger one.
            let order = left.len().cmp(&right.len()).then_with(|| left.cmp(right)).then(a.cmp(&b));
            if order != Ordering::Equal {
                return order;
            }
            (one, other) = (&one[a..], &other[b..]);
            continue;
        }
        let (mut left, mut right) = (one.chars(), other.chars());
        match (left.next(), right.next()) {
            (Some(a), Some(b)) if a == b => (one, other) = (left.as_str(), right.as_str()),
            // What follows a dash is a pre-release, and goes before the version itself.
            (None, Some('-')) => return Ordering::Greater,
            (Some('-'), None) => return Ordering::Less,
            (a, b) => return a.cmp(&b),
        }
    }
}

/// `dray ls`
pub async fn ls(options: LsOptions) -> Result<u8, Failure> {
    // A host may have a port, and an IPv6 address has colons: no scheme is followed by digits.
    let is_host = match options.registry.split_once(':') {
        None => true,
        Some((before, rest)) => {
            let port = rest.split('/').next().unwrap_or(rest);
            before.starts_with('[') || (!port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
        }
    };
    let text = if is_host { format!("docker://{}", options.registry) } else { options.registry.clone() };
    let whole = text.strip_prefix("docker://").is_some_and(|rest| !rest.trim_end_matches('/').contains('/'));
    let text = if whole { format!("{}/**", text.trim_end_matches('/')) } else { text };
    let reference: Reference = text.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let places = setup::places(&options.access).await?;
    let names = dray_engine::list_repositories(&places, &reference).await?;
    match options.output {
        Output::Json => print_json(&json!({ "reference": reference, "repositories": names })),
        Output::Text => {
            let text: String = names.iter().map(|name| line(name)).collect();
            return bytes_out(text.as_bytes()).map(|()| DONE);
        }
    }
    Ok(DONE)
}

fn describe(blob: &Descriptor) -> Value {
    json!({ "digest": blob.digest, "mediaType": blob.media_type, "size": blob.size })
}

pub async fn list_tags(options: ListTagsOptions) -> Result<u8, Failure> {
    let places = setup::places(&options.access).await?;
    let mut tags = dray_engine::list_tags(&places, &options.reference).await?;
    tags.sort_by(|one, other| by_number(one, other));
    match options.output {
        Output::Json => print_json(&json!({ "reference": options.reference, "tags": tags })),
        Output::Text => {
            let text: String = tags.iter().map(|tag| line(tag)).collect();
            return bytes_out(text.as_bytes()).map(|()| DONE);
        }
    }
    Ok(DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_listed_by_their_numbers() {
        let mut tags = ["v1.10", "latest", "v1.9", "v1.9-rc", "1.2", "01.2", "v1.9.1", "é", "20240807"];
        tags.sort_by(|one, other| by_number(one, other));
        assert_eq!(tags, ["1.2", "01.2", "20240807", "latest", "v1.9-rc", "v1.9", "v1.9.1", "v1.10", "é"]);
    }
}
