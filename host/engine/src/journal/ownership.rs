//! Which tags dray itself wrote, from where, and what they named before: for pruning, and to undo a run.

use super::{Journal, RepositoryKey, now, write::Write};
use crate::{Result, lock};
use dray_core::Digest;
use rusqlite::params;
use std::collections::{HashMap, HashSet};

/// A change of a tag that replaced or deleted an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagChanged {
    /// The tag, as a reference that people write.
    pub reference: String,
    /// What it named before.
    pub before: Digest,
    /// What it named afterwards. `None` means that it was deleted.
    pub after: Option<Digest>,
}

impl Journal {
    /// The tags of a repository that dray copied from `source`, with what they named then.
    pub(crate) fn copied_from(&self, at: &RepositoryKey, source: &RepositoryKey) -> HashMap<String, Digest> {
        let connection = lock(&self.reader);
        let read = || {
            let mut ask = connection.prepare_cached(
                "select name, digest from tag where writer = 0 and repository =
                   (select id from repository where place = ?1 and name = ?2) and source =
                   (select id from repository where place = ?3 and name = ?4)",
            )?;
            let asked = params![at.place, at.repository, source.place, source.repository];
            let rows = ask.query_map(asked, |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let rows = self.told(read()).unwrap_or_default();
        rows.into_iter().filter_map(|(name, digest)| Some((name, digest.parse().ok()?))).collect()
    }

    /// The tags of a repository that dray copied from other repositories than `source`.
    pub(crate) fn copied_elsewhere(&self, at: &RepositoryKey, source: &RepositoryKey) -> HashSet<String> {
        let connection = lock(&self.reader);
        let read = || {
            let mut ask = connection.prepare_cached(
                "select name from tag where source <> 0 and repository =
                   (select id from repository where place = ?1 and name = ?2) and source <>
                   coalesce((select id from repository where place = ?3 and name = ?4), 0)",
            )?;
            let asked = params![at.place, at.repository, source.place, source.repository];
            let rows = ask.query_map(asked, |row| row.get(0))?;
            rows.collect::<rusqlite::Result<HashSet<String>>>()
        };
        self.told(read()).unwrap_or_default()
    }

    /// The repositories of a place from which dray copied tags that may still be where it wrote them.
    pub(crate) fn copied_repositories(&self, place: &str) -> Vec<String> {
        let connection = lock(&self.reader);
        let read = || {
            let mut ask = connection.prepare_cached(
                "select name from repository where place = ?1 and id in
                   (select source from tag where source <> 0 and writer = 0)",
            )?;
            let rows = ask.query_map([place], |row| row.get(0))?;
            rows.collect::<rusqlite::Result<Vec<String>>>()
        };
        self.told(read()).unwrap_or_default()
    }

    /// How many tags a repository listed when it was last decided what to delete by its list. `None` means that this never
    /// was decided.
    pub(crate) fn listed(&self, at: &RepositoryKey) -> Option<usize> {
        let count: Option<i64> = self.one(
            "select listed from repository where place = ?1 and name = ?2",
            params![at.place, at.repository],
            |row| row.get(0),
        )?;
        count.and_then(|count| usize::try_from(count).ok())
    }

    /// Records how many tags a repository lists.
    pub(crate) fn saw_listed(&self, at: RepositoryKey, tags: usize) {
        self.writer.send(Write::Listed(at, tags));
    }

    /// Records that a run is about to make a tag name something else, or to delete it. This is on the disk before the tag
    /// changes if [`Journal::writes_tag`] is called in between.
    pub(crate) fn changes_tag(&self, run: i64, changed: TagChanged) {
        self.writer.send(Write::Changed(run, changed));
    }

    /// The tags that a run made name something else or deleted, the latest change first.
    ///
    /// # Errors
    /// Fails if the journal cannot be read.
    pub fn changes(&self, run: i64) -> Result<Vec<TagChanged>> {
        let connection = lock(&self.reader);
        let read = || {
            let mut ask = connection
                .prepare("select reference, before, after from change where run = ?1 order by id desc")?;
            let row = |row: &rusqlite::Row<'_>| {
                Ok((row.get(0)?, row.get::<_, String>(1)?, row.get::<_, Option<String>>(2)?))
            };
            ask.query_map([run], row)?.collect::<rusqlite::Result<Vec<_>>>()
        };
        let rows = read().map_err(|error| self.failed(&error))?;
        let change = |(reference, before, after): (String, String, Option<String>)| {
            let after = match after {
                Some(after) => Some(after.parse().ok()?),
                None => None,
            };
            Some(TagChanged { reference, before: before.parse().ok()?, after })
        };
        Ok(rows.into_iter().filter_map(change).collect())
    }
}

/// Writes a change of a tag.
pub(super) fn record(
    transaction: &rusqlite::Transaction<'_>,
    run: i64,
    changed: &TagChanged,
) -> rusqlite::Result<()> {
    let TagChanged { reference, before, after } = changed;
    transaction
        .prepare_cached("insert into change (run, reference, before, after, at) values (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![run, reference, before.to_string(), after.as_ref().map(Digest::to_string), now()])?;
    Ok(())
}
