//! What a sync would fail at, of which `dray plan` learns without writing: a refused login, a refused index.

use dray_core::Action;
use dray_engine::{Error, Kind, Planned, PlannedCopy, SparseIndex};
use std::collections::{HashMap, HashSet};

/// Repositories of one place whose logins are tried. Where these are right, the others are taken to be.
const LOGINS: usize = 100;

/// What was found out so far. Each repository's login is tried once, and each place is asked once for what it takes.
#[derive(Default)]
pub struct Foreseen {
    /// By place and repository.
    logins: HashMap<String, HashMap<String, Result<(), Error>>>,
    /// Places of which it is known that they take an index with missing platforms, or that nobody knows.
    indexes: HashSet<String>,
}

impl Foreseen {
    /// An item as it is, or as a failure if its destination would refuse it.
    pub async fn checked(&mut self, planned: Planned) -> Planned {
        let Planned::Copy(copy) = &planned else { return planned };
        if copy.copy.action != Action::Copy {
            return planned;
        }
        let Some(error) = self.refusal(copy).await else { return planned };
        let (source, destination) = (copy.copy.source.display.clone(), copy.copy.destination.display.clone());
        Planned::Failed { rule: copy.copy.rule.clone(), source, destination, error, deletes: false }
    }

    async fn refusal(&mut self, copy: &PlannedCopy) -> Option<Error> {
        if let Some(error) = self.login(copy).await {
            return Some(error);
        }
        self.index(copy).await
    }

    async fn login(&mut self, copy: &PlannedCopy) -> Option<Error> {
        let destination = &copy.copy.destination;
        let known = self.logins.entry(destination.place.clone()).or_default();
        if !known.contains_key(&destination.repository) && known.len() < LOGINS {
            let checked = match copy.check_login().await {
                // Only a refusal will be one when the sync comes.
                Err(error) if !matches!(error.kind, Kind::Unauthorized | Kind::Denied) => {
                    tracing::debug!(%error, "the login could not be tried");
                    Ok(())
                }
                checked => checked,
            };
            known.insert(destination.repository.clone(), checked);
        }
        known.get(&destination.repository)?.as_ref().err().cloned()
    }

    async fn index(&mut self, copy: &PlannedCopy) -> Option<Error> {
        let place = &copy.copy.destination.place;
        if self.indexes.contains(place) {
            return None;
        }
        match copy.check_index().await {
            Ok(SparseIndex::NotNeeded) => return None,
            Ok(SparseIndex::Taken) => {}
            Ok(SparseIndex::Unknown) => {
                let shown = place.split_once(':').map_or(place.as_str(), |(_, shown)| shown);
                tracing::warn!(
                    help = "many registries refuse it; `index = \"trim\"` in the rule writes a smaller index, which all take",
                    "whether {shown} takes an index whose other platforms are missing is only seen when it is written"
                );
            }
            Err(error) if error.kind == Kind::Unsupported => return Some(error),
            Err(error) => {
                tracing::debug!(%error, "the index could not be looked into");
                return None;
            }
        }
        self.indexes.insert(place.clone());
        None
    }
}
