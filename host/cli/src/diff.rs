//! `dray diff`: what is different between two images or two repositories.

use crate::{
    DONE, DUE,
    args::{DiffOptions, Output},
    failure::Failure,
    output::{bytes, counted, print_json, say},
    setup,
};
use dray_core::{Children, Descriptor, Digest, Platform, Reference};
use dray_engine::{Image, Kind, Places, list_tags, tag_digests};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Digests by name. `None` means that the place does not tell.
type Digests = BTreeMap<String, Option<Digest>>;

/// One difference.
#[derive(Debug, PartialEq, Serialize)]
struct Difference {
    /// A tag, a platform, or `config` and `layer`.
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Side>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Side>,
}

/// What one of the two has.
#[derive(Debug, PartialEq, Serialize)]
struct Side {
    /// `None` means that the place does not tell.
    digest: Option<Digest>,
    /// In bytes, of a layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
}

impl Side {
    fn of(digest: &Digest) -> Self {
        Side { digest: Some(digest.clone()), size: None }
    }

    fn shown(&self) -> String {
        let digest = self.digest.as_ref().map_or("unknown".to_owned(), Digest::short);
        match self.size {
            Some(size) => format!("{digest} {}", bytes(size)),
            None => digest,
        }
    }
}

/// All differences, and how much is the same.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Compared {
    differences: Vec<Difference>,
    same: u64,
    /// What `same` counts.
    #[serde(skip)]
    unit: &'static str,
}

pub async fn run(options: DiffOptions) -> Result<u8, Failure> {
    let places = setup::places(&options.access).await?;
    let named = [is_image(&places, &options.before).await?, is_image(&places, &options.after).await?];
    let compared = match named {
        [true, true] => images(&places, &options).await?,
        [false, false] => {
            let (before, after) =
                (tag_digests(&places, &options.before).await?, tag_digests(&places, &options.after).await?);
            tags(before, after)
        }
        _ => {
            let (before, after) = (&options.before, &options.after);
            return Err(Failure::usage(format!(
                "compare {before} with {after}: one is an image and the other one a repository"
            )));
        }
    };
    match options.output {
        Output::Json => print_json(&compared),
        Output::Text => show(&compared),
    }
    Ok(if compared.differences.is_empty() { DONE } else { DUE })
}

async fn is_image(places: &Arc<Places>, reference: &Reference) -> Result<bool, Failure> {
    let parsed = places.parse(reference, false).await?;
    if parsed.reference.is_some() {
        return Ok(true);
    }
    // A place of one image lists no tags.
    let listed = list_tags(places, reference).await;
    Ok(listed.is_err_and(|error| error.kind == Kind::Unsupported))
}

fn show(compared: &Compared) {
    for Difference { what, before, after } in &compared.differences {
        match (before, after) {
            (Some(before), None) => say!("- {what} {}", before.shown()),
            (None, Some(after)) => say!("+ {what} {}", after.shown()),
            (Some(before), Some(after)) => say!("~ {what} {} -> {}", before.shown(), after.shown()),
            (None, None) => {}
        }
    }
    let differences = counted(compared.differences.len() as u64, "difference");
    say!("{differences}; {} the same", counted(compared.same, compared.unit));
}

/// Adds the differences of two lists of names, and gives how many names have the same digest in both.
fn named(before: Digests, mut after: Digests, differences: &mut Vec<Difference>) -> u64 {
    let side = |digest: Option<Digest>| Side { digest, size: None };
    let mut same = 0;
    for (what, digest) in before {
        match after.remove(&what) {
            Some(other) if other == digest && digest.is_some() => same += 1,
            other => {
                differences.push(Difference { what, before: Some(side(digest)), after: other.map(side) })
            }
        }
    }
    let added = after.into_iter();
    differences.extend(added.map(|(what, digest)| Difference {
        what,
        before: None,
        after: Some(side(digest)),
    }));
    same
}

/// Compares two repositories by what their tags name.
fn tags(before: Digests, after: Digests) -> Compared {
    let mut compared = Compared { unit: "tag", ..Compared::default() };
    compared.same = named(before, after, &mut compared.differences);
    compared
}

/// Compares two images: by their platforms, and of the image for this machine by its config and layers.
async fn images(places: &Arc<Places>, options: &DiffOptions) -> Result<Compared, Failure> {
    let before = Image::open(places, &options.before).await?;
    let after = Image::open(places, &options.after).await?;
    let mut compared = Compared { unit: "layer", ..Compared::default() };
    if before.manifest.descriptor.digest == after.manifest.descriptor.digest {
        return Ok(compared);
    }
    compared.differences.push(Difference {
        what: "manifest".into(),
        before: Some(Side::of(&before.manifest.descriptor.digest)),
        after: Some(Side::of(&after.manifest.descriptor.digest)),
    });
    if let (Children::Index(before), Children::Index(after)) =
        (&before.manifest.children, &after.manifest.children)
    {
        named(by_platform(before), by_platform(after), &mut compared.differences);
    }
    let machine = Platform::of_this_machine();
    let (before, after) = (before.platform(&machine).await?, after.platform(&machine).await?);
    if let (Children::Image { config: old, layers: before }, Children::Image { config: new, layers: after }) =
        (&before.manifest.children, &after.manifest.children)
    {
        if old.digest != new.digest {
            compared.differences.push(Difference {
                what: "config".into(),
                before: Some(Side::of(&old.digest)),
                after: Some(Side::of(&new.digest)),
            });
        }
        layers(before, after, &mut compared);
    }
    Ok(compared)
}

fn by_platform(children: &[Descriptor]) -> Digests {
    let named = children
        .iter()
        .filter_map(|child| Some((child.platform.as_ref()?.to_string(), Some(child.digest.clone()))));
    named.collect()
}

fn layers(before: &[Descriptor], after: &[Descriptor], compared: &mut Compared) {
    let digests =
        |layers: &[Descriptor]| layers.iter().map(|layer| layer.digest.clone()).collect::<BTreeSet<_>>();
    let (old, new) = (digests(before), digests(after));
    let shown = |layer: &Descriptor| Side { digest: Some(layer.digest.clone()), size: Some(layer.size) };
    for layer in before.iter().filter(|layer| !new.contains(&layer.digest)) {
        let difference = Difference { what: "layer".into(), before: Some(shown(layer)), after: None };
        compared.differences.push(difference);
    }
    for layer in after.iter().filter(|layer| !old.contains(&layer.digest)) {
        let difference = Difference { what: "layer".into(), before: None, after: Some(shown(layer)) };
        compared.differences.push(difference);
    }
    compared.same += old.intersection(&new).count() as u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_differ_by_their_tags() {
        let digest = |letter: &str| Some(format!("sha256:{}", letter.repeat(64)).parse().unwrap());
        let side = |tags: &[(&str, Option<Digest>)]| {
            tags.iter().map(|(tag, digest)| ((*tag).to_owned(), digest.clone())).collect()
        };
        let before = side(&[("gone", digest("a")), ("moved", digest("a")), ("same", digest("a"))]);
        let after = side(&[("moved", digest("b")), ("new", digest("c")), ("same", digest("a"))]);
        let compared = tags(before, after);
        let kinds: Vec<_> = compared
            .differences
            .iter()
            .map(|one| (one.what.as_str(), one.before.is_some(), one.after.is_some()))
            .collect();
        assert_eq!(kinds, [("gone", true, false), ("moved", true, true), ("new", false, true)]);
        assert_eq!(compared.same, 1);
    }
}
