//! Decides what may be removed.

use crate::{Error, Kind, Result};
use dray_core::Digest;

/// What was found out about an image that is to be removed.
#[derive(Debug)]
pub(super) struct Found {
    pub digest: Digest,
    /// Other tags that name the same image, sorted.
    pub siblings: Vec<String>,
    /// Tags of indexes that have the image as a child.
    pub indexes: Vec<String>,
}

/// What is to be removed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// One tag. The other tags of the image stay.
    Tag { tag: String, keep: Vec<String> },
    /// The manifest with these tags, which are all that name it.
    Whole { tags: Vec<String> },
}

impl Decision {
    /// The tags that go.
    pub fn removes(&self) -> Vec<String> {
        match self {
            Decision::Tag { tag, .. } => vec![tag.clone()],
            Decision::Whole { tags } => tags.clone(),
        }
    }

    pub fn is_whole(&self) -> bool {
        matches!(self, Decision::Whole { .. })
    }
}

impl Found {
    /// All tags of the image, if it is removed as a whole because the place does not remove `tag` alone. Fails if others
    /// would go with it.
    pub fn with_the_image(&self, tag: &str, refused: Error) -> Result<Vec<String>> {
        if !self.siblings.is_empty() {
            let text = format!("{refused}; the same image has the tags {}", self.siblings.join(", "));
            let help = "--all-tags removes the image with all of its tags";
            return Err(Error::new(Kind::Conflict, text).help(help));
        }
        self.is_needed()?;
        Ok(vec![tag.to_owned()])
    }

    /// Fails if an index of another tag needs the image.
    fn is_needed(&self) -> Result<()> {
        let Some(index) = self.indexes.first() else { return Ok(()) };
        let text = format!("it is an image of the index {index}, which would be broken without it");
        Err(Error::new(Kind::Conflict, text).help(format!("delete {index} first")))
    }
}

/// Decides what may be removed of an image that is named by a tag or a digest.
pub(super) fn decide(name: &str, found: &Found, all_tags: bool) -> Result<Decision> {
    let siblings = &found.siblings;
    let is_tag = name.parse::<Digest>().is_err();
    if is_tag && !all_tags {
        return Ok(Decision::Tag { tag: name.to_owned(), keep: siblings.clone() });
    }
    if !is_tag && !siblings.is_empty() && !all_tags {
        let text = format!("it has the tags {}", siblings.join(", "));
        return Err(Error::new(Kind::Conflict, text).help("--all-tags removes it with all of its tags"));
    }
    found.is_needed()?;
    let mut tags: Vec<String> = siblings.iter().cloned().chain(is_tag.then(|| name.to_owned())).collect();
    tags.sort();
    Ok(Decision::Whole { tags })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_that_was_not_named() {
        let digest = Digest::of(b"image");
        let named = digest.to_string();
        let texts = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (name, siblings, indexes, all_tags, expected) in [
            ("1.0", &[][..], &[][..], false, Ok((texts(&["1.0"]), false))),
            ("1.0", &["latest"], &[], false, Ok((texts(&["1.0"]), false))),
            ("1.0", &["latest"], &[], true, Ok((texts(&["1.0", "latest"]), true))),
            ("1.0", &[], &["multi"], false, Ok((texts(&["1.0"]), false))),
            ("1.0", &[], &["multi"], true, Err("index multi")),
            (&named, &[], &[], false, Ok((texts(&[]), true))),
            (&named, &["1.0"], &[], false, Err("has the tags 1.0")),
            (&named, &["1.0"], &[], true, Ok((texts(&["1.0"]), true))),
            (&named, &[], &["multi"], false, Err("index multi")),
        ] {
            let found = Found { digest: digest.clone(), siblings: texts(siblings), indexes: texts(indexes) };
            match (decide(name, &found, all_tags), expected) {
                (Ok(decision), Ok(expected)) => {
                    assert_eq!((decision.removes(), decision.is_whole()), expected);
                }
                (Err(error), Err(text)) => assert!(error.text.contains(text), "{error}"),
                (decision, expected) => panic!("{name} {siblings:?}: {decision:?}, not {expected:?}"),
            }
        }
        let refused = || Error::new(Kind::Unsupported, "it removes no tags");
        let found = |siblings: &[&str], indexes: &[&str]| Found {
            digest: digest.clone(),
            siblings: texts(siblings),
            indexes: texts(indexes),
        };
        assert_eq!(found(&[], &[]).with_the_image("1.0", refused()).unwrap(), ["1.0"]);
        let others = found(&["latest"], &[]).with_the_image("1.0", refused()).unwrap_err();
        assert!(others.text.contains("it removes no tags; the same image has the tags latest"), "{others}");
        assert!(found(&[], &["multi"]).with_the_image("1.0", refused()).is_err());
    }
}
