//! Publishes a manifest after all of its parts have been brought.

use super::image::Job;
use crate::{Event, Kind, Result, error::Context, http::Backoff, journal::SeenTag, lock};
use dray_core::{Children, Format, Manifest, Naming};
use std::{sync::atomic::Ordering, time::Duration};

/// The waits before publishing again after the destination reported missing parts, about half a minute in all. Some
/// registries show a blob or a child only after some seconds.
const MISSED: [Duration; 7] = [
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
];
/// After this many waits, the user is told.
const TOLD: usize = 3;

impl Job {
    /// Publishes a manifest after all of its parts have been brought. If another process writes the same parts at the
    /// same time, a registry may report them as missing until it is done (docker-registry 2.8 writes its links in
    /// place).
    pub async fn publish(&self, manifest: &Manifest, naming: &Naming) -> Result<()> {
        let network = self.destination.place.http.is_some();
        let (mut at, mut backoff) = (0, Backoff::new());
        loop {
            let error = match self.publish_at_once(manifest, naming).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let digest = manifest.descriptor.digest.short();
            match &error.kind {
                Kind::Transient => {
                    let Some(after) = backoff.after(&error) else { return Err(backoff.give_up(error)) };
                    self.shared.watcher.event(Event::Retrying {
                        image: Some(&self.shown),
                        error: &error,
                        after,
                    });
                    tokio::time::sleep(after).await;
                }
                // If a sparse index is refused, waiting does not help, because its missing children are not being
                // brought.
                Kind::Missing(missing) if network && (at < TOLD || !self.is_sparse(manifest)) => {
                    let Some(wait) = MISSED.get(at) else { return Err(error) };
                    // Another process may be writing the parts, so we wait a little before we send them again.
                    if at < TOLD || !self.bring_missing(manifest, missing).await? {
                        let place = &self.destination.place.location;
                        match at {
                            TOLD => tracing::warn!(
                                "{place} does not show yet what {digest} is made of: it is waited for, half a minute at most"
                            ),
                            _ => tracing::debug!(?missing, ?wait, "publishing {digest} again"),
                        }
                        tokio::time::sleep(*wait).await;
                    }
                    at += 1;
                }
                _ => return Err(error),
            }
        }
    }

    /// Whether some children of the index were left out.
    fn is_sparse(&self, manifest: &Manifest) -> bool {
        matches!(manifest.children, Children::Index(_)) && self.wanted.choice.is_partial()
    }

    pub(super) async fn publish_at_once(&self, manifest: &Manifest, naming: &Naming) -> Result<()> {
        let place = &self.destination.place;
        let alone = manifest.subject.as_ref().map(|subject| {
            lock(&self.shared.subjects)
                .entry((place.key(), self.destination.name.clone(), subject.clone()))
                .or_default()
                .clone()
        });
        let _one_at_a_time = match &alone {
            Some(alone) => Some(alone.lock().await),
            None => None,
        };
        self.shared.finish.publishes(place);
        let digest = &manifest.descriptor.digest;
        let left = manifest.signatures.len();
        if left > 0 && !self.capabilities.signatures {
            let (digest, place) = (digest.short(), place.key());
            tracing::warn!("{left} signatures of {digest} stay behind: {place} keeps none");
        }
        if let Naming::Tag(tag) = naming {
            self.before_replacing(tag, digest).await?;
        }
        let writing = match (self.destination.memory(), naming) {
            (Some((journal, at)), Naming::Tag(tag)) => match journal.writes_tag(&at, tag).await {
                Ok(writing) => Some(writing),
                // The tag's entry in the journal would be wrong after this write.
                Err(error) if place.assumed() && journal.tag(&at, tag).is_some() => {
                    return Err(
                        error.help("leave `assume-unchanged` out while the journal cannot be written")
                    );
                }
                Err(_) => None,
            },
            (None, Naming::Tag(_))
                if place.assumed() && !self.shared.unremembered.swap(true, Ordering::Relaxed) =>
            {
                tracing::warn!(
                    help = "`dray cache trim --older-than 0s` once it can be written, or leave `assume-unchanged` out",
                    "the journal hears nothing of what is written to {}, and later runs that assume it unchanged may be wrong",
                    place.location
                );
                None
            }
            _ => None,
        };
        let published = self.destination.publish(manifest, naming).await;
        published.map_err(|error| match &error.kind {
            Kind::Missing(_) if matches!(naming, Naming::Tag(_)) && matches!(manifest.children, Children::Index(_)) => error.help("the destination may refuse an index whose other platforms are missing; `index = \"trim\"` in the rule writes a smaller one"),
            Kind::Invalid | Kind::Unsupported if error.help.is_none() && Format::of(&manifest.descriptor.media_type) == Some(Format::Oci) && refuses_types(&error.text) => error.help("the registry may take no OCI images: `format = \"docker\"` in the rule, or --format docker, writes Docker's"),
            _ => error,
        })
        .context(|| format!("publish the manifest {}", digest.short()))?;
        if let Some((journal, at)) = self.destination.memory() {
            if let (Naming::Tag(tag), Some(writing)) = (naming, writing) {
                let seen = SeenTag::now(&manifest.descriptor, &self.wanted.parts());
                journal.wrote_tag(&at, tag, seen, writing, self.named.clone());
            }
            journal.holds(at, digest);
        }
        Ok(())
    }
}

/// Whether a refusal of a manifest may be due to its media types.
fn refuses_types(text: &str) -> bool {
    ["415", "MANIFEST_INVALID", "media type", "mediaType", "UNSUPPORTED"]
        .iter()
        .any(|word| text.contains(word))
}
