//! Copies the referrers of an image, after its graph is complete and before it gets its tag.

use super::{
    claims::{Claim, Sharing},
    image::{CHILDREN, Job, all},
};
use crate::{Error, Kind, Result, lock};
use dray_core::{Descriptor, Digest, Naming, policy::Referrers};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// The waits between two checks of a list of referrers that others may write at the same time.
const LISTED: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];

impl Job {
    /// Copies the referrers of the image's manifests, and the referrers of those, before the image gets its tag.
    pub(super) async fn all_referrers(self: &Arc<Self>) -> Result<()> {
        let mut seen = HashSet::new();
        loop {
            let mut found = std::mem::take(&mut *lock(&self.subjects));
            found.retain(|subject| seen.insert(subject.clone()));
            if !self.wanted.referrers.are_wanted() || found.is_empty() {
                return Ok(());
            }
            all(found.into_iter().map(|subject| self.clone().referrers_of(subject)), CHILDREN).await?;
        }
    }

    /// Tells which referrers of the image's converted manifests are left behind. Fails if the rule requires them.
    pub(super) async fn converted_referrers(&self) -> Result<()> {
        let converted = std::mem::take(&mut *lock(&self.converted));
        for subject in converted {
            let what = |count| match count {
                1 => format!("1 referrer of {}", subject.short()),
                _ => format!("{count} referrers of {}", subject.short()),
            };
            match self.source.referrers(&subject).await {
                Ok(listed) if !listed.iter().any(|referrer| self.wanted.wants_referrer(referrer)) => {}
                Ok(listed) => {
                    let text = "bring them: the image is converted on its way, and referrers name the image before that";
                    let error = Error::new(Kind::Unsupported, text);
                    self.left(what(listed.len()), error.help("leave `referrers` out, or what converts it"))?;
                }
                Err(error) => self.left(format!("the referrers of {}", subject.short()), error)?,
            }
        }
        Ok(())
    }

    /// Copies the referrers of one manifest.
    async fn referrers_of(self: Arc<Self>, subject: Digest) -> Result<()> {
        let key = self.key(&subject);
        let Claim::Yours { ticket, .. } =
            self.shared.referred.claim(&key, &self.destination.name, Sharing::None).await
        else {
            return Ok(());
        };
        let mut listed = match self.source.referrers(&subject).await {
            Ok(listed) => listed,
            Err(error) => {
                ticket.held();
                return self.left(format!("the referrers of {}", subject.short()), error);
            }
        };
        listed.retain(|referrer| self.wanted.wants_referrer(referrer));
        self.bounds.count(listed.len(), 0)?;
        let wanted = listed.clone();
        let copies = listed.into_iter().map(|descriptor| {
            let job = self.clone();
            async move {
                let shown = format!("the referrer {}", descriptor.digest.short());
                let digest = descriptor.digest.clone();
                match job.clone().manifest(descriptor, Naming::Root, 1).await {
                    Ok(()) => Ok(()),
                    Err(error) => {
                        lock(&job.behind).insert(digest);
                        job.left(shown, error)
                    }
                }
            }
        });
        all(copies, CHILDREN).await?;
        let behind = lock(&self.behind).clone();
        let brought = wanted.into_iter().filter(|wanted| !behind.contains(&wanted.digest)).collect();
        self.are_listed(&subject, brought).await?;
        ticket.held();
        Ok(())
    }

    /// Makes sure that copied referrers are listed with their subject. If the list is a tag, another process may have
    /// overwritten it at the same time, without them.
    async fn are_listed(self: &Arc<Self>, subject: &Digest, wanted: Vec<Descriptor>) -> Result<()> {
        let place = &self.destination.place;
        if wanted.is_empty() || place.http.is_none() {
            return Ok(());
        }
        let mut failed: HashMap<Digest, Error> = HashMap::new();
        for wait in LISTED {
            let listed = match self.destination.referrers(subject).await {
                Ok(listed) => listed,
                Err(error) => {
                    return self.left(format!("the list of referrers of {}", subject.short()), error);
                }
            };
            let is_listed = |wanted: &&Descriptor| listed.iter().any(|listed| listed.digest == wanted.digest);
            let missing =
                wanted.iter().filter(|wanted| !failed.contains_key(&wanted.digest) && !is_listed(wanted));
            let missing: Vec<&Descriptor> = missing.collect();
            if missing.is_empty() {
                return Ok(());
            }
            for referrer in missing {
                match self.clone().with_its_parts(referrer, &Naming::Root, 1).await {
                    Ok(()) => {}
                    Err(error) if error.kind == Kind::Cancelled => return Err(error),
                    // A referrer that cannot be copied cannot be listed either, but the others still can.
                    Err(error) => _ = failed.insert(referrer.digest.clone(), error),
                }
            }
            tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64())).await;
        }
        let text = format!("list them with it: {} does not show them", place.location);
        self.left(format!("some referrers of {}", subject.short()), Error::invalid(text))
    }

    /// Handles something that could not be copied with the image: warns, and fails the image only if the rule requires
    /// it.
    fn left(&self, what: String, error: Error) -> Result<()> {
        if self.wanted.referrers == Referrers::Required || error.kind == Kind::Cancelled {
            return Err(error.context(what));
        }
        let from = format!("{}/{}", self.source.place.location, self.source.name);
        tracing::warn!(help = error.help, "{what} of {from} stays behind: failed to {error}");
        Ok(())
    }
}
