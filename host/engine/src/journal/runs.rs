//! Earlier runs, and the size of the journal.

use super::{Journal, now, process_lock, tags, write::Write};
use crate::{Result, lock};
use dray_core::{Action, CopyReport, Summary};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use std::{path::Path, time::Duration};

/// A run that the journal has recorded.
#[derive(Clone, Debug, Serialize)]
pub struct RunRecord {
    /// Number of the run, for `dray runs show`.
    pub id: i64,
    /// When the run began, in seconds since 1970.
    pub begun: i64,
    /// When the run ended, in seconds since 1970. `None` means that it has not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<i64>,
    /// ID of the process.
    pub process: u32,
    /// Whether the run has not ended and its process is alive.
    pub under_way: bool,
    /// `sync`, or `copy` with its source and destination.
    pub command: String,
    /// Path of the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Whether the run was told to stop before its end.
    pub stopped: bool,
    /// Summary of the run. `None` means that it has not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// Number of images that were copied. If the process was killed, those of its last tenth of a second may be
    /// missing.
    pub copied: u64,
    /// Number of images that could not be copied, with the same restriction.
    pub failed: u64,
}

/// Number of entries in the journal, and its size.
#[derive(Clone, Debug, Serialize)]
pub struct Usage {
    /// Path of the journal.
    pub path: std::path::PathBuf,
    /// Size on the disk in bytes, with its log.
    pub bytes: u64,
    /// Repositories of destinations.
    pub repositories: u64,
    /// Tags of these repositories.
    pub tags: u64,
    /// Blobs and manifests in these repositories.
    pub blobs: u64,
    /// Uploads that can be resumed.
    pub uploads: u64,
    /// Images that were converted.
    pub conversions: u64,
    /// Earlier runs.
    pub runs: u64,
}

/// How much was removed from the journal.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Trimmed {
    /// Facts of any kind.
    pub facts: u64,
    /// Earlier runs.
    pub runs: u64,
}

fn record(journal: &Path, row: &Row<'_>) -> rusqlite::Result<RunRecord> {
    let summary: Option<String> = row.get(6)?;
    let ended = row.get(2)?;
    Ok(RunRecord {
        id: row.get(0)?,
        begun: row.get(1)?,
        ended,
        process: row.get(3)?,
        under_way: Option::is_none(&ended) && process_lock::is_alive(journal, row.get(7)?),
        command: row.get(4)?,
        policy: row.get(5)?,
        summary: summary.and_then(|text| serde_json::from_str(&text).ok()),
        stopped: row.get(8)?,
        copied: row.get::<_, i64>(9)? as u64,
        failed: row.get::<_, i64>(10)? as u64,
    })
}

const RUNS: &str = "select id, begun, ended, process, command, policy, summary, life, stopped,
    (select count(*) from copy where run = id and action = ?1), (select count(*) from copy where run = id and action = ?2)
    from run";

impl Journal {
    /// Records that a run begins, and returns its number.
    ///
    /// # Errors
    /// Fails if the journal cannot be written.
    pub fn begin(&self, command: &str, policy: Option<&str>) -> Result<i64> {
        let life = self.life();
        let connection = lock(&self.reader);
        connection
            .execute(
                "insert into run (begun, process, life, command, policy) values (?1, ?2, ?3, ?4, ?5)",
                params![now(), std::process::id(), life, command, policy],
            )
            .map_err(|error| self.failed(&error))?;
        Ok(connection.last_insert_rowid())
    }

    /// Records the result of one copy of a run.
    pub fn did(&self, run: i64, copy: &CopyReport) {
        self.writer.send(Write::Copied(run, Box::new(copy.clone())));
    }

    /// Records that a run has ended, by itself or because it was told to stop.
    ///
    /// # Errors
    /// Fails if the journal cannot be written.
    pub fn end(&self, run: i64, summary: &Summary, stopped: bool) -> Result<()> {
        self.flush();
        // The summary consists of numbers, so it always serialises.
        let summary = serde_json::to_string(summary).unwrap_or_default();
        lock(&self.reader)
            .execute(
                "update run set ended = ?2, summary = ?3, stopped = ?4 where id = ?1",
                params![run, now(), summary, stopped],
            )
            .map(|_| ())
            .map_err(|error| self.failed(&error))
    }

    /// At most `most` earlier runs, the latest one first.
    ///
    /// # Errors
    /// Fails if the journal cannot be read.
    pub fn runs(&self, most: u32) -> Result<Vec<RunRecord>> {
        self.runs_of(&lock(&self.reader), most)
    }

    fn runs_of(&self, connection: &Connection, most: u32) -> Result<Vec<RunRecord>> {
        let mut ask = connection
            .prepare(&format!("{RUNS} order by id desc limit ?3"))
            .map_err(|error| self.failed(&error))?;
        let rows = ask
            .query_map(params![Action::Copy.as_str(), Action::Fail.as_str(), most], |row| {
                record(&self.path, row)
            })
            .map_err(|error| self.failed(&error))?;
        rows.collect::<rusqlite::Result<_>>().map_err(|error| self.failed(&error))
    }

    /// A run by its number. `None` means that there is no such run.
    ///
    /// # Errors
    /// Fails if the journal cannot be read.
    pub fn run(&self, id: i64) -> Result<Option<RunRecord>> {
        let connection = lock(&self.reader);
        let asked = params![Action::Copy.as_str(), Action::Fail.as_str(), id];
        connection
            .query_row(&format!("{RUNS} where id = ?3"), asked, |row| record(&self.path, row))
            .optional()
            .map_err(|error| self.failed(&error))
    }

    /// Calls `each` for each copy of a run that changed something or failed, in the order of the destinations.
    ///
    /// # Errors
    /// Fails if the journal cannot be read.
    pub fn copies(&self, run: i64, mut each: impl FnMut(CopyReport)) -> Result<()> {
        let connection = lock(&self.reader);
        let mut ask = connection
            .prepare("select report from copy where run = ?1 order by destination, source")
            .map_err(|error| self.failed(&error))?;
        let mut rows = ask.query([run]).map_err(|error| self.failed(&error))?;
        while let Some(row) = rows.next().map_err(|error| self.failed(&error))? {
            let text: String = row.get(0).map_err(|error| self.failed(&error))?;
            // A report that another version of dray wrote may not be readable, and is then left out.
            serde_json::from_str(&text).into_iter().for_each(&mut each);
        }
        Ok(())
    }

    /// Counts the entries of the journal.
    ///
    /// # Errors
    /// Fails if the journal cannot be read.
    pub fn usage(&self) -> Result<Usage> {
        let connection = lock(&self.reader);
        let count = |table: &str| {
            connection
                .query_row(&format!("select count(*) from {table}"), [], |row| row.get::<_, i64>(0))
                .map(|count| count as u64)
                .map_err(|error| self.failed(&error))
        };
        let files = ["", "-wal", "-shm"].map(|end| {
            let mut path = self.path.clone().into_os_string();
            path.push(end);
            std::fs::metadata(path).map_or(0, |metadata| metadata.len())
        });
        Ok(Usage {
            path: self.path.clone(),
            bytes: files.iter().sum(),
            repositories: count("repository")?,
            tags: count("tag")?,
            blobs: count("blob")?,
            uploads: count("upload")?,
            conversions: count("conversion")?,
            runs: count("run")?,
        })
    }

    /// Removes facts that were not seen, and runs that ended, for at least `older`, and gives the space back. Runs that
    /// are under way stay.
    ///
    /// # Errors
    /// Fails if the journal cannot be written.
    pub fn trim(&self, older: Duration) -> Result<Trimmed> {
        let before = now() - i64::try_from(older.as_secs()).unwrap_or(i64::MAX);
        let connection = lock(&self.reader);
        let remove = |sql: &str| {
            connection.execute(sql, [before]).map(|count| count as u64).map_err(|error| self.failed(&error))
        };
        let mut facts = 0;
        for table in ["blob", "upload", "conversion"] {
            facts += remove(&format!("delete from {table} where at <= ?1"))?;
        }
        // A tag that is being written stays, because its writer has yet to record what the tag names. While a run is
        // under way, recent records are emptied and not removed: otherwise that run could still record what it saw
        // before another process wrote the tag.
        let all = self.runs_of(&connection, u32::MAX)?;
        let busy = all.iter().any(|run| run.under_way);
        let over = now() - tags::FRESH;
        let young = match busy {
            true => "update tag set digest = '', writer = -1 where at <= ?1 and at > ?2 and writer = 0",
            false => "delete from tag where at <= ?1 and at > ?2 and writer = 0",
        };
        for sql in [young, "delete from tag where at <= ?1 and at <= ?2"] {
            let count = connection.execute(sql, [before, over]).map_err(|error| self.failed(&error))?;
            facts += count as u64;
        }
        let mut runs = 0;
        for run in all {
            if run.ended.unwrap_or(run.begun) <= before && !run.under_way {
                for table in ["copy", "change"] {
                    connection
                        .execute(&format!("delete from {table} where run = ?1"), [run.id])
                        .map_err(|error| self.failed(&error))?;
                }
                runs += connection
                    .execute("delete from run where id = ?1", [run.id])
                    .map_err(|error| self.failed(&error))? as u64;
            }
        }
        connection
            .execute_batch(
                "delete from repository where id not in
                   (select repository from tag union select source from tag union select repository from blob
                    union select repository from upload) and listed is null;
                 vacuum;
                 pragma wal_checkpoint(truncate);",
            )
            .map_err(|error| self.failed(&error))?;
        Ok(Trimmed { facts, runs })
    }
}
