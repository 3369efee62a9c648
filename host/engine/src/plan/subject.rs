//! Referrers that cannot come along, because the manifest that they are about does not arrive as it is.

use crate::{Error, Kind, Result, error::Context, place::OpenReference};
use dray_core::{
    Action, Children, Descriptor, Digest, Form, Platform, media_type, policy::Referrers, select,
};

/// The two ends of a copy.
pub(crate) struct Ends<'a> {
    pub source: &'a OpenReference,
    /// The tag or digest at the source.
    pub reference: Option<&'a str>,
    pub destination: &'a OpenReference,
}

/// What a tag of the source names, and what is to be written of it.
pub(crate) struct Subject<'a> {
    /// The digest that the tag names at the source.
    pub named: &'a Digest,
    /// What is to be written, before it is converted.
    pub written: &'a Descriptor,
    /// The platforms of an index that are written. An empty list means all.
    pub platforms: &'a [Platform],
    pub form: Form,
    /// Whether the destination holds one image and nothing with it.
    pub alone: bool,
    /// Whether it is known that the image was converted to something else before.
    pub became_another: bool,
}

/// Referrers that cannot come along.
#[derive(Debug, PartialEq)]
pub(crate) struct Lost<'a> {
    /// What they are about.
    subjects: Vec<&'a Digest>,
    why: &'static str,
    help: &'static str,
}

impl<'a> Subject<'a> {
    /// The referrers that cannot come along. `None` means that all can.
    pub(crate) fn lost(&self) -> Option<Lost<'a>> {
        let chosen = *self.named != self.written.digest;
        let both = || match chosen {
            true => vec![self.named, &self.written.digest],
            false => vec![self.named],
        };
        if self.alone {
            return Some(Lost {
                subjects: both(),
                why: "the destination holds one image and nothing with it",
                help: "leave `referrers` out, or copy to a registry or a layout (oci:)",
            });
        }
        // What becomes of an index is only known when its images are converted.
        let index = media_type::is_index(&self.written.media_type) && !self.became_another;
        if !self.form.is_unchanged() && !index {
            return Some(Lost {
                subjects: both(),
                why: "the image is converted on its way, and referrers name the image before that",
                help: "leave `referrers` out, or what converts the image (`format`, `compression`)",
            });
        }
        chosen.then(|| Lost {
            subjects: vec![self.named],
            why: "only some platforms are written, and referrers of the index name the whole one",
            help: "leave `referrers` out, or copy the whole index (`index`, `platforms`)",
        })
    }
}

impl Ends<'_> {
    /// The images of the index that is written, which have referrers of their own. An image has none.
    async fn children(&self, subject: &Subject<'_>) -> Result<Vec<Digest>> {
        if !media_type::is_index(&subject.written.media_type) {
            return Ok(Vec::new());
        }
        // What is written may be a smaller index, which the source does not have.
        let index = self.source.repository.manifest(self.reference).await?;
        let Children::Index(children) = &index.children else { return Ok(Vec::new()) };
        Ok(select(children, subject.platforms)?.kept.into_iter().map(|child| child.digest).collect())
    }

    /// Warns of referrers that stay behind, once for each image that is written, or fails if the rule requires them.
    pub(crate) async fn check_referrers(
        &self,
        wanted: Referrers,
        subject: &Subject<'_>,
        action: Action,
    ) -> Result<()> {
        let Some(Lost { subjects, why, help }) = subject.lost() else { return Ok(()) };
        match wanted {
            Referrers::No => return Ok(()),
            // It was told when the image was written.
            Referrers::Wanted if action == Action::Unchanged => return Ok(()),
            Referrers::Wanted | Referrers::Required => {}
        }
        let from = self.source.endpoint(self.reference);
        let mut subjects: Vec<Digest> = subjects.into_iter().cloned().collect();
        if subject.alone {
            subjects.extend(self.children(subject).await.context(|| format!("plan {from}"))?);
        }
        let mut count = 0;
        for subject in &subjects {
            match self.source.repository.referrers(subject).await.context(|| format!("plan {from}")) {
                Ok(listed) => count += listed.len(),
                Err(error) if wanted == Referrers::Required => return Err(error),
                Err(error) => tracing::warn!(help = error.help, "failed to {error}"),
            }
        }
        let referrers = match count {
            0 => return Ok(()),
            1 => "1 referrer".to_owned(),
            _ => format!("{count} referrers"),
        };
        if wanted == Referrers::Required {
            let text = format!("copy {referrers} of {from} to {}: {why}", self.destination.written);
            return Err(Error::new(Kind::Unsupported, text).help(help));
        }
        tracing::warn!("{referrers} of {from} cannot come along: {why}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_core::Format;

    #[test]
    fn referrers_come_along_with_what_arrives_as_it_is() {
        let (whole, part) = (Digest::of(b"whole"), Digest::of(b"part"));
        let docker = Form { format: Some(Format::Docker), ..Form::default() };
        let (one, both) = (vec![&whole], vec![&whole, &part]);
        for (media_type, written, form, alone, expected) in [
            (media_type::OCI_INDEX, &whole, Form::default(), false, None),
            (media_type::OCI_INDEX, &whole, Form::default(), true, Some(("one image", &one))),
            (media_type::OCI_MANIFEST, &part, Form::default(), true, Some(("one image", &both))),
            (media_type::OCI_INDEX, &part, Form::default(), false, Some(("some platforms", &one))),
            (media_type::OCI_INDEX, &whole, docker, false, None),
            (media_type::OCI_INDEX, &part, docker, false, Some(("some platforms", &one))),
            (media_type::OCI_MANIFEST, &whole, docker, false, Some(("converted", &one))),
            (media_type::OCI_MANIFEST, &part, docker, false, Some(("converted", &both))),
        ] {
            let written = &Descriptor::new(media_type, written.clone(), 1);
            let subject =
                Subject { named: &whole, written, platforms: &[], form, alone, became_another: false };
            let found = subject.lost();
            let found = found.as_ref().map(|lost| (lost.why, &lost.subjects));
            assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
            if let (Some((found, subjects)), Some((why, expected))) = (found, expected) {
                assert!(found.contains(why) && subjects == expected, "{found} {subjects:?}");
            }
        }
        let index = &Descriptor::new(media_type::OCI_INDEX, whole.clone(), 1);
        let before = Subject {
            named: &whole,
            written: index,
            platforms: &[],
            form: docker,
            alone: false,
            became_another: true,
        };
        assert!(before.lost().is_some());
    }
}
