//! Copies what is kept beneath tags that are made of the digest of an image: cosign's signatures, attestations and SBOMs
//! (cosign, `SIGNATURE_SPEC.md`), and what `related` of a rule names. They arrive before the image gets its tag.

use super::image::{CHILDREN, Job, all};
use crate::{Error, Kind, Result, error::Context, lock};
use dray_core::{Digest, Naming, media_type, policy::OnChange};
use std::{collections::HashSet, sync::Arc};

impl Job {
    /// Copies what is beneath the tags of these manifests at the source.
    pub(super) async fn related_tags(self: &Arc<Self>, subjects: HashSet<Digest>) -> Result<()> {
        let tags = subjects.iter().flat_map(|subject| self.wanted.related_tags(subject)).collect::<Vec<_>>();
        all(tags.into_iter().map(|tag| self.clone().related_tag(tag)), CHILDREN).await
    }

    async fn related_tag(self: Arc<Self>, tag: String) -> Result<()> {
        let doing = || format!("copy what is beneath the tag {tag}");
        let there = match self.source.resolve(Some(&tag), None).await {
            // Places for one image have no other tags.
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Unsupported) => None,
            there => there.context(doing)?,
        };
        let Some(there) = there else { return Ok(()) };
        let descriptor = there.descriptor;
        if media_type::is_index(&descriptor.media_type) {
            // What belongs to an image is small, and an index would lead anywhere.
            tracing::warn!("{tag} is an index, and so nothing that belongs to an image: it stays behind");
            return Ok(());
        }
        let named = match (self.destination.resolve(Some(&tag), None).await, self.wanted.on_change) {
            (Ok(named), _) => named.map(|named| named.descriptor.digest),
            // It is only a question whether the work can be spared.
            (Err(_), OnChange::Copy) => None,
            (Err(error), OnChange::Keep | OnChange::Refuse) => return Err(error.context(doing())),
        };
        match (&named, self.wanted.on_change) {
            (Some(named), _) if *named == descriptor.digest => return Ok(()),
            (Some(named), OnChange::Keep) => {
                tracing::info!("{tag} is kept at the destination, where it has {}", named.short());
                return Ok(());
            }
            (Some(named), OnChange::Refuse) => {
                let text = format!(
                    "{}: the destination has {}, the source has {}, and the rule does not let tags change",
                    doing(),
                    named.short(),
                    descriptor.digest.short()
                );
                return Err(Error::new(Kind::Conflict, text));
            }
            _ => {}
        }
        self.bounds.count(1, 0)?;
        self.clone().with_its_parts(&descriptor, &Naming::Tag(tag.clone()), 1).await.context(doing)
    }

    /// The manifests of the image that may have something beneath their tags.
    pub(super) fn all_subjects(&self) -> HashSet<Digest> {
        lock(&self.subjects).iter().cloned().collect()
    }
}
