//! What tags of destinations named when they were last seen or written. The row of a tag is emptied before a write to
//! the tag begins, so that a process that is killed during the write leaves no record of the old content.

use super::{Journal, RepositoryKey, now, write::Write};
use crate::{Error, Result, lock};
use dray_core::{Descriptor, Digest};
use rusqlite::{Row, Transaction, params};
use std::{
    collections::HashMap,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::oneshot;

/// What a tag named when it was last seen or written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeenTag {
    /// What the tag named. If an earlier version of dray recorded it, it has no media type.
    pub named: Descriptor,
    /// The parts of the image that were there.
    pub parts: String,
    /// Seconds since 1970.
    pub at: i64,
}

/// Seconds after which a recorded tag is checked in full again, and after which an unfinished write counts as ended.
pub(super) const FRESH: i64 = 3600;

impl SeenTag {
    /// A tag that is seen now.
    pub fn now(named: &Descriptor, parts: &str) -> Self {
        SeenTag::at(now(), named, parts)
    }

    /// A tag that was seen at a time, in seconds since 1970.
    pub fn at(at: i64, named: &Descriptor, parts: &str) -> Self {
        let named = Descriptor::new(named.media_type.clone(), named.digest.clone(), named.size);
        SeenTag { named, parts: parts.into(), at }
    }

    /// Whether the tag was seen or written so recently that the destination only has to confirm that it has not
    /// changed.
    pub fn is_fresh(&self) -> bool {
        // If the clock was set back, the time is in the future, and the record is not fresh.
        (self.at..self.at.saturating_add(FRESH)).contains(&now())
    }

    /// Whether seeing this now changes the record.
    pub fn is_news(&self, named: &Descriptor, parts: &str) -> bool {
        let known = (&self.named.digest, &self.named.media_type, self.named.size, &*self.parts);
        known != (&named.digest, &named.media_type, named.size, parts) || !self.is_fresh()
    }
}

/// Reads a row of digest, media type, size, parts and time. `None` means that the row has no digest, because the tag is
/// being written.
fn seen(row: &Row<'_>) -> rusqlite::Result<Option<SeenTag>> {
    let (digest, size) = (row.get::<_, String>(0)?.parse(), u64::try_from(row.get::<_, i64>(2)?));
    let (Ok(digest), Ok(size)) = (digest, size) else { return Ok(None) };
    let named = Descriptor::new(row.get::<_, String>(1)?, digest, size);
    Ok(Some(SeenTag { named, parts: row.get(3)?, at: row.get(4)? }))
}

/// The number of a write of a tag that is recorded in the journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writing(i64);

/// A change of the row of a tag.
pub(super) enum TagChange {
    /// The tag was seen. The second value is digest and time of the record that was known when the tag was asked for.
    Saw(SeenTag, Option<(Digest, i64)>),
    /// The tag is about to be written. The channel gets a message when this is on the disk.
    Writes(Writing, oneshot::Sender<()>),
    /// The tag was deleted.
    Gone(Writing),
    /// The tag was written, with the image that has the same tag in this repository.
    Wrote(Writing, SeenTag, Option<RepositoryKey>),
}

impl Journal {
    /// What a tag named when it was last seen. A record of an earlier version of dray has no media type.
    pub(crate) fn tag(&self, at: &RepositoryKey, tag: &str) -> Option<SeenTag> {
        let found = self.one(
            "select digest, media_type, size, parts, at from tag where name = ?3 and repository =
               (select id from repository where place = ?1 and name = ?2)",
            params![at.place, at.repository, tag],
            seen,
        );
        found.flatten()
    }

    /// What the tags of a repository named when they were last seen. The map is empty if none was seen.
    pub(crate) fn tags(&self, at: &RepositoryKey) -> HashMap<String, SeenTag> {
        let connection = lock(&self.reader);
        let read = || {
            let mut ask = connection.prepare_cached(
                "select digest, media_type, size, parts, at, name from tag where repository =
                   (select id from repository where place = ?1 and name = ?2)",
            )?;
            let rows =
                ask.query_map(params![at.place, at.repository], |row| Ok((row.get(5)?, seen(row)?)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let rows = self.told(read()).unwrap_or_default();
        rows.into_iter().filter_map(|(name, seen)| Some((name, seen?))).collect()
    }

    /// Records that a tag was seen. `seen.at` is the time at which it was asked for. If the record is no longer
    /// `before`, this is ignored: another process has written the tag in the meantime, or is about to write it.
    pub(crate) fn saw_tag(&self, at: &RepositoryKey, tag: &str, seen: SeenTag, before: Option<&SeenTag>) {
        let before = before.map(|seen| (seen.named.digest.clone(), seen.at));
        self.writer.send(Write::Tag(at.clone(), tag.into(), Box::new(TagChange::Saw(seen, before))));
    }

    /// Records that a tag is about to be written. What it named before is forgotten, and this is on the disk when the
    /// function returns.
    ///
    /// # Errors
    /// Fails if the journal cannot be written.
    pub(crate) async fn writes_tag(&self, at: &RepositoryKey, tag: &str) -> Result<Writing> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Unique among the writes of one tag, so that two writes that begin at once are told apart.
        let writing = Writing(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX).max(1));
        let (done, written) = oneshot::channel();
        let change = TagChange::Writes(writing, done);
        self.writer.send(Write::Tag(at.clone(), tag.into(), Box::new(change)));
        written.await.map_err(|_| Error::internal(format!("write the journal {}", self.path.display())))?;
        Ok(writing)
    }

    /// Records that a tag was deleted. If another process wrote the tag in the meantime, nothing changes.
    pub(crate) fn tag_gone(&self, at: &RepositoryKey, tag: &str, writing: Writing) {
        self.writer.send(Write::Tag(at.clone(), tag.into(), Box::new(TagChange::Gone(writing))));
    }

    /// Records that a tag was written, with the image that has the same tag in the repository `source`. If another process wrote the tag in the meantime, nobody can say which write
    /// came last, so the row is emptied instead.
    pub(crate) fn wrote_tag(
        &self,
        at: &RepositoryKey,
        tag: &str,
        seen: SeenTag,
        writing: Writing,
        source: impl Into<Option<RepositoryKey>>,
    ) {
        let change = TagChange::Wrote(writing, seen, source.into());
        self.writer.send(Write::Tag(at.clone(), tag.into(), Box::new(change)));
    }
}

/// Changes the row of a tag. `source` is the number of the repository from which it was copied. Returns whether a known record was forgotten.
pub(super) fn change(
    transaction: &Transaction<'_>,
    repository: i64,
    tag: &str,
    change: &TagChange,
    source: i64,
) -> rusqlite::Result<bool> {
    let size = |named: &Descriptor| i64::try_from(named.size).unwrap_or_default();
    match change {
        TagChange::Saw(SeenTag { named, parts, at }, before) => {
            let (digest, media_type) = (named.digest.to_string(), &named.media_type);
            let (before, then) = before.as_ref().map(|(digest, at)| (digest.to_string(), at)).unzip();
            transaction
                .prepare_cached(
                    "insert into tag (repository, name, digest, media_type, size, parts, at)
                     values (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                     on conflict do update set digest = excluded.digest, media_type = excluded.media_type,
                       size = excluded.size, parts = excluded.parts, at = excluded.at, writer = 0,
                       source = case when tag.digest = excluded.digest then tag.source else 0 end
                     where tag.writer = 0 and tag.digest = ?8 and tag.at = ?9 or tag.writer <> 0 and tag.at <= ?10",
                )?
                .execute(params![
                    repository,
                    tag,
                    digest,
                    media_type,
                    size(named),
                    parts,
                    at,
                    before,
                    then,
                    at - FRESH
                ])?;
            Ok(false)
        }
        TagChange::Writes(Writing(writer), _) => {
            let known = transaction
                .prepare_cached("select 1 from tag where repository = ?1 and name = ?2 and writer = 0")?
                .exists(params![repository, tag])?;
            transaction
                .prepare_cached(
                    "insert into tag (repository, name, digest, at, writer) values (?1, ?2, '', ?3, ?4)
                     on conflict do update set digest = '', at = excluded.at, writer =
                       case when tag.writer = 0 or tag.at <= ?5 then excluded.writer else -1 end",
                )?
                .execute(params![repository, tag, now(), writer, now() - FRESH])?;
            Ok(known)
        }
        TagChange::Gone(Writing(writer)) => {
            transaction
                .prepare_cached("delete from tag where repository = ?1 and name = ?2 and writer = ?3")?
                .execute(params![repository, tag, writer])?;
            Ok(false)
        }
        TagChange::Wrote(Writing(writer), SeenTag { named, parts, at }, _) => {
            let ours = transaction
                .prepare_cached(
                    "update tag set digest = ?4, media_type = ?5, size = ?6, parts = ?7, at = ?8, writer = 0, source = ?9
                     where repository = ?1 and name = ?2 and writer = ?3",
                )?
                .execute(params![
                    repository,
                    tag,
                    writer,
                    named.digest.to_string(),
                    named.media_type,
                    size(named),
                    parts,
                    at,
                    source
                ])?;
            if ours == 0 {
                // This write may have come after the one that another process recorded, so what the tag names is not
                // known.
                transaction
                    .prepare_cached(
                        "insert or replace into tag (repository, name, digest, at, writer) values (?1, ?2, '', ?3, -1)",
                    )?
                    .execute(params![repository, tag, now()])?;
            }
            Ok(false)
        }
    }
}
