//! Files that list images: one a line, Kubernetes manifests, oc-mirror's ImageSetConfiguration, hauler's Images.

use super::{
    Asked, Wrong,
    draft::{Draft, Rule, docker, parts},
    others, text, texts,
};
use dray_core::{Yaml, policy};
use serde_json::json;

/// A list, or manifests: the policy names the file itself.
pub fn images(text: &str, asked: &Asked<'_>, draft: &mut Draft) -> Result<(), Wrong> {
    let to = asked.destination()?;
    match policy::images_in(&asked.file.to_string_lossy(), text) {
        Ok(images) if !images.is_empty() => {}
        Ok(_) => return Err(none("it names no image; --kind says of which tool it is".into())),
        Err(why) => return Err(none(format!("{why}; --kind says of which tool it is"))),
    }
    let file = std::fs::canonicalize(asked.file).unwrap_or_else(|_| asked.file.to_owned());
    let below = if asked.scoped { format!("{to}/{{registry}}/{{path}}") } else { format!("{to}/{{path}}") };
    let mut rule = Rule::of(vec![("images-from", json!(file)), ("to", json!(below))]);
    rule.comment(format!("{}: the images that it names", asked.file.display()));
    draft.rules.push(rule);
    Ok(())
}

fn none(text: String) -> Wrong {
    Wrong { line: None, text }
}

/// `spec.images` of hauler.
pub fn hauler(document: &Yaml, asked: &Asked<'_>, draft: &mut Draft) -> Result<(), Wrong> {
    if document.get("kind").and_then(Yaml::text) != Some("Images") {
        draft.leave(
            document,
            format!("a document of another kind is left out: {}", text(document, "kind").unwrap_or("none")),
        );
        return Ok(());
    }
    let to = asked.destination()?;
    let annotations = document.get("metadata").and_then(|meta| meta.get("annotations"));
    for (key, value) in annotations.map(Yaml::entries).unwrap_or_default() {
        draft.leave(
            value,
            format!("the annotation `{key}: {value}` holds for all images: write it into each rule"),
        );
    }
    for image in document.get("spec").and_then(|spec| spec.get("images")).map(Yaml::items).unwrap_or_default()
    {
        let name = text(image, "name").ok_or_else(|| Wrong::at(image, "an image has no name"))?;
        others(draft, image, &["name", "key", "platform", "rewrite", "exclude-extras"], name);
        let target = match text(image, "rewrite") {
            Some(path) => format!("{to}/{}", path.trim_matches('/')),
            None => format!("{to}/{{path}}"),
        };
        let reference = docker(name, image)?;
        let bare = parts(reference.trim_start_matches("docker://")).1.is_none() && !reference.contains('@');
        let reference = if bare { format!("{reference}:latest") } else { reference };
        let mut rule = Rule::new(reference, target);
        if let Some(platform) = text(image, "platform") {
            rule.set("platforms", json!([platform]));
            rule.set("index", json!("trim"));
        }
        if let Some(key) = text(image, "key") {
            rule.set("require", json!([{ "signed": { "key": key } }]));
        }
        rule.set(
            "referrers",
            json!(
                image.get("exclude-extras").and_then(Yaml::bool) != Some(true)
                    && text(image, "platform").is_none()
            ),
        );
        draft.add(rule, image, name);
    }
    Ok(())
}

/// `mirror.additionalImages` of oc-mirror.
pub fn oc_mirror(document: &Yaml, asked: &Asked<'_>, draft: &mut Draft) -> Result<(), Wrong> {
    let to = asked.destination()?;
    let Some(mirror) = document.get("mirror") else {
        return Err(Wrong::at(document, "it has no `mirror`"));
    };
    for (key, value) in document.entries() {
        if !["kind", "apiVersion", "mirror"].contains(&key.as_str()) {
            draft.leave(value, format!("`{key}` has no counterpart: {value}"));
        }
    }
    for (key, value) in mirror.entries() {
        match key.as_str() {
            "additionalImages" => {}
            "blockedImages" => draft.leave(
                value,
                format!(
                    "`blockedImages`: `blocked` in registries.conf, or leave them out of the rules: {value}"
                ),
            ),
            "platform" | "operators" | "helm" => {
                draft.leave(value, format!("`{key}`: list the images with `oc-mirror --dry-run`, and give its mapping.txt to `dray migrate`"));
            }
            other => draft.leave(value, format!("`{other}` has no counterpart: {value}")),
        }
    }
    for image in mirror.get("additionalImages").map(Yaml::items).unwrap_or_default() {
        let name = text(image, "name").ok_or_else(|| Wrong::at(image, "an image has no name"))?;
        others(draft, image, &["name", "targetRepo", "targetTag", "platforms"], name);
        let reference = docker(name, image)?;
        let (_, tag, _) = parts(reference.trim_start_matches("docker://"));
        let target = match (text(image, "targetRepo"), text(image, "targetTag")) {
            (Some(repository), Some(tag)) => format!("{to}/{repository}:{tag}"),
            (Some(repository), None) => format!("{to}/{repository}"),
            (None, Some(tag)) => format!("{to}/{{path}}:{tag}"),
            (None, None) => format!("{to}/{{path}}"),
        };
        let mut rule = match tag.is_none() && !reference.contains('@') {
            true => Rule::new(format!("{reference}:latest"), target),
            false => Rule::new(reference, target),
        };
        let platforms = texts(image, "platforms");
        if !platforms.is_empty() {
            rule.set("platforms", json!(platforms));
            rule.set("index", json!("trim"));
        }
        draft.add(rule, image, name);
    }
    Ok(())
}
