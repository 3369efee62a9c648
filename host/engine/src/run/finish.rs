//! The end of a run: completes archives and daemons, and records conversions in the journal.

use crate::{Error, Event, Kind, Repository, Watcher, journal::Conversion, lock, place::Place};
use dray_core::{Action, Report};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

/// The work that is left after the last image.
#[derive(Default)]
pub(crate) struct Finish {
    /// Places to which something was published.
    places: Mutex<HashMap<String, Arc<Place>>>,
    /// Images that were written in another form.
    learnt: Mutex<Vec<Learnt>>,
}

/// An image that was written in another form.
pub(crate) struct Learnt {
    pub of: Conversion,
    pub repository: Repository,
    pub tag: Option<String>,
    /// The identifier that the place is expected to report. `None` means that it reports one of its own.
    pub expected: Option<String>,
}

impl Finish {
    /// Records that something is published to a place.
    pub fn publishes(&self, place: &Arc<Place>) {
        lock(&self.places).entry(place.key()).or_insert_with(|| place.clone());
    }

    /// Whether the place with this key only appears as a whole at the end.
    pub fn is_whole(&self, key: &str) -> bool {
        lock(&self.places).get(key).is_some_and(|place| is_whole(place))
    }

    /// Records that an image was written in another form.
    pub fn learn(&self, learnt: Learnt) {
        lock(&self.learnt).push(learnt);
    }

    /// Completes archives and daemons: they get everything that was written in one step. If the run was given up,
    /// archives are not written at all.
    pub async fn finish(&self, report: &mut Report, given_up: bool, watcher: &dyn Watcher) {
        let places = std::mem::take(&mut *lock(&self.places));
        let mut left = Vec::new();
        for (key, place) in places {
            let whole = is_whole(&place);
            let done = match (whole, given_up) {
                (true, true) => Err(Error::new(Kind::Cancelled, "write it: the run did not come to its end")
                    .help("without --fail-fast, an archive gets what could be copied")),
                (false, true) => continue,
                _ => place.complete().await,
            };
            let failed = done.map_err(|error| error.context(format!("complete {}", place.location))).err();
            let copies = report.copies.iter_mut();
            for copy in copies.filter(|copy| copy.action == Action::Copy && copy.place == key) {
                if let Some(error) = &failed {
                    copy.action = Action::Fail;
                    (copy.error, copy.help) = (Some(format!("failed to {error}")), error.help.clone());
                    report.summary.copied -= 1;
                    report.summary.failed += 1;
                }
                if whole || failed.is_some() {
                    watcher.event(Event::Finished(copy));
                }
            }
            if failed.is_some() {
                left.push(key);
            }
        }
        let learnt = std::mem::take(&mut *lock(&self.learnt));
        for Learnt { of, repository, tag, expected } in learnt {
            let place = &repository.place;
            let Some(journal) = place.local.journal.get() else { continue };
            if left.contains(&place.key()) {
                continue;
            }
            // Without this record, the next run only has to copy the image again.
            if let Ok(Some(mark)) = repository.opaque_id(tag.as_deref()).await
                && expected.is_none_or(|expected| expected == mark)
            {
                journal.convert(of, mark);
            }
        }
    }
}

fn is_whole(place: &Place) -> bool {
    place.files.as_ref().is_some_and(|files| files.is_archive())
}
