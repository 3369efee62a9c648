//! Carries out the deletions of a plan, after its copies.

use super::{Broken, Run, failed, keep::keep};
use crate::{
    Error, Kind, PlannedDeletion, Result, journal::RepositoryKey, place::OpenReference, remove::Removal,
};
use dray_core::{Action, CopyReport, Deletion, Endpoint, Report};
use futures_util::{StreamExt, stream};
use std::collections::HashMap;
use tokio::sync::watch;

/// Number of repositories in which tags are deleted at once.
const AT_ONCE: usize = 8;

/// What came of a deletion. `None` means that the tag was not there any more.
type Deleted = Result<Option<Done>>;

/// A deletion that was carried out.
struct Done {
    /// The tag under which the image is kept.
    backup: Option<String>,
}

impl Run {
    /// Deletes tags. Nothing is deleted for a rule of which something failed, because what is gone may be what the failed
    /// copies were to replace.
    pub(super) async fn delete(
        &self,
        deletions: Vec<PlannedDeletion>,
        broken: &Broken,
        report: &mut Report,
        stop: &watch::Receiver<bool>,
    ) {
        let mut repositories: HashMap<(String, String), Vec<PlannedDeletion>> = HashMap::new();
        for planned in deletions {
            let Deletion { rule, destination, .. } = &planned.deletion;
            if broken.anything || broken.rules.contains(rule) {
                let text = format!(
                    "delete {destination}: copies of the rule `{rule}` failed, so it deletes nothing"
                );
                let error = Error::new(Kind::Conflict, text).help("run it again when what failed is mended");
                self.told(report, &planned.deletion, Err(error));
                continue;
            }
            let key = (destination.place.clone(), destination.repository.clone());
            repositories.entry(key).or_default().push(planned);
        }
        let each = repositories.into_values().map(|deletions| {
            let (run, stop) = (self.options.run, stop.clone());
            async move { in_one_repository(run, deletions, &stop).await }
        });
        let mut done = std::pin::pin!(stream::iter(each).buffer_unordered(AT_ONCE));
        while let Some(done) = done.next().await {
            for (deletion, deleted) in done {
                self.told(report, &deletion, deleted);
            }
        }
    }

    fn told(&self, report: &mut Report, deletion: &Deletion, deleted: Deleted) {
        let done = match deleted {
            Ok(Some(Done { backup })) => CopyReport { backup, ..CopyReport::deleted(deletion) },
            Ok(None) => CopyReport {
                action: Action::Unchanged,
                reason: "it is gone already".into(),
                ..CopyReport::deleted(deletion)
            },
            Err(error) => CopyReport {
                digest: Some(deletion.digest.to_string()),
                ..failed(&deletion.rule, &deletion.source.display, &deletion.destination.display, &error)
            },
        };
        self.finished(report, done, 0);
    }
}

/// Deletes tags of one repository, one after the other, until the run is told to stop.
async fn in_one_repository(
    run: Option<i64>,
    deletions: Vec<PlannedDeletion>,
    stop: &watch::Receiver<bool>,
) -> Vec<(Deletion, Deleted)> {
    let Some(first) = deletions.first() else { return Vec::new() };
    let opened = first.destination.clone();
    let mut out = Vec::new();
    let doing = |deletion: &Deletion| format!("delete {}", deletion.destination);
    let mut removal = match Removal::new(&opened).await {
        Ok(removal) => removal,
        Err(error) => {
            let failed = |planned: PlannedDeletion| {
                let error = error.clone().context(doing(&planned.deletion));
                (planned.deletion, Err(error))
            };
            return deletions.into_iter().map(failed).collect();
        }
    };
    let mut changed = false;
    let mut listed = HashMap::new();
    for PlannedDeletion { deletion, listed: count, .. } in deletions {
        if *stop.borrow() {
            break;
        }
        if let Some(count) = count {
            let Endpoint { place, repository, .. } = deletion.source.clone();
            listed.insert(RepositoryKey { place, repository }, count);
        }
        let deleted = one(run, &opened, &mut removal, &deletion).await;
        changed |= matches!(deleted, Ok(Some(_)));
        out.push((deletion.clone(), deleted.map_err(|error| error.context(doing(&deletion)))));
    }
    // What was deleted by a shorter list makes that list the usual one.
    if let Some(journal) = opened.place().local.journal.get().filter(|_| changed) {
        for (source, count) in listed {
            journal.saw_listed(source, count);
        }
    }
    if changed && let Err(error) = opened.place().complete().await {
        tracing::warn!("failed to {}", error.context(format!("tidy up {}", opened.place().location)));
    }
    out
}

/// Deletes one tag, if it still names what the plan saw. Returns whether it was there.
async fn one(
    run: Option<i64>,
    opened: &OpenReference,
    removal: &mut Removal<'_>,
    deletion: &Deletion,
) -> Deleted {
    let (repository, digest) = (&opened.repository, &deletion.digest);
    let Some(tag) = deletion.destination.reference.as_deref() else {
        return Err(Error::internal("delete an image that has no tag"));
    };
    let Some(there) = repository.resolve(Some(tag), None).await? else { return Ok(None) };
    if there.descriptor.digest != *digest {
        let text = format!(
            "the plan saw {} there, and now it is {}",
            digest.short(),
            there.descriptor.digest.short()
        );
        return Err(
            Error::new(Kind::Conflict, text).help("somebody else writes to it: look at it, and plan again")
        );
    }
    if deletion.is_untagged() {
        removal.untagged(digest).await?;
        return Ok(Some(Done { backup: None }));
    }
    let mut backup = None;
    if let Some(template) = &deletion.backup {
        // A backup of a tag that cannot be deleted would stay, and each run would add one.
        removal.can_delete(tag).await?;
        if let Some(kept) = keep(repository, tag, digest, template).await? {
            removal.learn(&kept.tag, digest);
            tracing::info!("{} is kept as {}", deletion.destination, kept.tag);
            backup = Some(kept.tag);
        }
    }
    repository.record(run, (tag, &deletion.destination.display), digest.clone(), None).await;
    let Endpoint { place, repository, .. } = deletion.source.clone();
    removal.tag_alone(tag, digest, &RepositoryKey { place, repository }).await?;
    Ok(Some(Done { backup }))
}
