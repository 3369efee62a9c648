//! Referrers that cannot come along, because the manifest that they are about does not arrive as it is.

use crate::{Error, Kind, Result, error::Context, place::OpenReference};
use dray_core::{Action, Descriptor, Digest, Form, media_type, policy::Referrers};

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
    pub form: Form,
    /// Whether the destination holds one image and nothing with it.
    pub alone: bool,
}

impl Subject<'_> {
    /// Why its referrers cannot come along. `None` means that they can.
    pub(crate) fn lost(&self) -> Option<&'static str> {
        if self.alone {
            return Some("the destination holds one image and nothing with it");
        }
        // What becomes of an index is only known when its images are converted.
        if !self.form.is_unchanged() && !media_type::is_index(&self.written.media_type) {
            return Some("the image is converted on its way, and they are about the one before");
        }
        let chosen = *self.named != self.written.digest;
        chosen.then_some("only some platforms are written, and they are about the whole index")
    }
}

impl Ends<'_> {
    /// Warns of referrers that stay behind, once for each image that is written, or fails if the rule requires them.
    pub(crate) async fn check_referrers(
        &self,
        wanted: Referrers,
        subject: &Subject<'_>,
        action: Action,
    ) -> Result<()> {
        let Some(why) = subject.lost() else { return Ok(()) };
        match wanted {
            Referrers::No => return Ok(()),
            // It was told when the image was written.
            Referrers::Wanted if action == Action::Unchanged => return Ok(()),
            Referrers::Wanted | Referrers::Required => {}
        }
        let from = self.source.endpoint(self.reference);
        let listed = self.source.repository.referrers(subject.named).await;
        let count = match listed.context(|| format!("plan {from}")) {
            Ok(listed) => listed.len(),
            Err(error) if wanted == Referrers::Required => return Err(error),
            Err(error) => {
                tracing::warn!(help = error.help, "failed to {error}");
                return Ok(());
            }
        };
        let referrers = match count {
            0 => return Ok(()),
            1 => "1 referrer".to_owned(),
            _ => format!("{count} referrers"),
        };
        if wanted == Referrers::Required {
            let text = format!("copy {referrers} of {from} to {}: {why}", self.destination.written);
            let help = "leave `referrers` out, or what changes the image (`index`, `format`, `compression`)";
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
        for (media_type, written, form, alone, why) in [
            (media_type::OCI_INDEX, &whole, Form::default(), false, None),
            (media_type::OCI_INDEX, &whole, Form::default(), true, Some("one image")),
            (media_type::OCI_INDEX, &part, Form::default(), false, Some("some platforms")),
            (media_type::OCI_INDEX, &whole, docker, false, None),
            (media_type::OCI_INDEX, &part, docker, false, Some("some platforms")),
            (media_type::OCI_MANIFEST, &whole, docker, false, Some("converted")),
            (media_type::OCI_MANIFEST, &part, docker, false, Some("converted")),
        ] {
            let written = &Descriptor::new(media_type, written.clone(), 1);
            let found = Subject { named: &whole, written, form, alone }.lost();
            assert_eq!(found.is_some(), why.is_some(), "{found:?}");
            assert!(why.is_none_or(|why| found.is_some_and(|found| found.contains(why))), "{found:?}");
        }
    }
}
