//! Writes to the journal on a thread of its own, with many changes in one transaction.

use super::{Conversion, RepositoryKey, TagChanged, failed, is_busy, now, ownership, tags, tags::TagChange};
use crate::{Error, Result};
use dray_core::CopyReport;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How long a change waits for others that share its transaction.
const GATHER: Duration = Duration::from_millis(100);
/// The most changes in one transaction.
const MANY: usize = 1000;
/// How long to wait for another process that has locked the journal. Giving space back takes a while.
const PATIENCE: Duration = Duration::from_secs(60);

/// A change that is to be written to the journal.
pub(super) enum Write {
    Conversion(Conversion, String),
    Tag(RepositoryKey, String, Box<TagChange>),
    Blob(RepositoryKey, String),
    /// The number of the process that uploads, and its progress. `None` means that the upload has ended.
    Upload(RepositoryKey, String, i64, Option<Vec<u8>>),
    /// The result of a copy of a run.
    Copied(i64, Box<CopyReport>),
    /// How many tags a repository lists.
    Listed(RepositoryKey, usize),
    /// A tag that a run makes name something else, or deletes.
    Changed(i64, TagChanged),
    /// Asks for a message when everything before it is written.
    Flush(mpsc::Sender<()>),
}

impl Write {
    /// Whether a task waits until it is written.
    fn is_awaited(&self) -> bool {
        match self {
            Write::Flush(_) => true,
            Write::Tag(_, _, change) => matches!(**change, TagChange::Writes(..)),
            _ => false,
        }
    }

    /// Tells the task that waits for it.
    fn done(self) {
        // If the task no longer waits, nothing has to be done.
        match self {
            Write::Flush(done) => _ = done.send(()),
            Write::Tag(_, _, change) => {
                if let TagChange::Writes(_, done) = *change {
                    let _ = done.send(());
                }
            }
            _ => {}
        }
    }
}

/// The thread that writes.
pub(super) struct Writer {
    changes: Option<mpsc::Sender<Write>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(connection: Connection, path: &Path) -> Self {
        let (sender, receiver) = mpsc::channel();
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let path = path.to_owned();
        let thread = std::thread::spawn(move || work(connection, &path, &PathBuf::from(log), &receiver));
        Writer { changes: Some(sender), thread: Some(thread) }
    }

    /// The writer of a journal that cannot be written. It drops all changes.
    pub fn none() -> Self {
        Writer { changes: None, thread: None }
    }

    pub fn send(&self, change: Write) {
        if let Some(changes) = &self.changes {
            // If the thread has ended, it has already reported why.
            let _ = changes.send(change);
        }
    }

    /// Waits until everything that was sent is written.
    pub fn flush(&self) {
        let _ = self.written().recv();
    }

    /// Tells when everything that was sent is written.
    pub fn written(&self) -> mpsc::Receiver<()> {
        let (sender, receiver) = mpsc::channel();
        self.send(Write::Flush(sender));
        receiver
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.changes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(mut connection: Connection, path: &Path, log: &Path, changes: &mpsc::Receiver<Write>) {
    while let Ok(first) = changes.recv() {
        let mut awaited = first.is_awaited();
        let mut batch = vec![first];
        let until = Instant::now() + GATHER;
        while batch.len() < MANY {
            // If a task waits for this batch, only changes that have already arrived are added.
            let next = match awaited {
                true => changes.try_recv().ok(),
                false => changes.recv_timeout(until.saturating_duration_since(Instant::now())).ok(),
            };
            let Some(next) = next else { break };
            awaited |= next.is_awaited();
            batch.push(next);
        }
        if let Err(error) = patiently(&mut connection, path, log, &batch) {
            tracing::warn!(help = error.help, "failed to {error}; what this run learns is forgotten");
            // The end of the thread closes the channels, so no task waits any longer.
            return;
        }
        batch.into_iter().for_each(Write::done);
    }
}

/// Writes a batch, and waits while another process has locked the journal.
fn patiently(connection: &mut Connection, path: &Path, log: &Path, batch: &[Write]) -> Result<()> {
    let begun = Instant::now();
    let forgot = loop {
        match write(connection, batch) {
            Err(error) if is_busy(&error) && begun.elapsed() < PATIENCE => {}
            written => break written.map_err(|error| failed("write", path, &error))?,
        }
    };
    if forgot {
        // A commit alone can be lost when the power fails, but a write to the registry that follows it cannot. So the
        // log is synced.
        let synced = File::open(log).and_then(|log| log.sync_data());
        synced.map_err(|error| Error::io(format!("write {} to the disk", log.display()), error))?;
    }
    Ok(())
}

/// Numbers of repositories, kept for one batch only: `dray cache trim` may remove a repository between two batches, and
/// its number can then become that of another one.
type Repositories = HashMap<RepositoryKey, i64>;

/// Writes a batch. Returns whether a known record of a tag was forgotten.
fn write(connection: &mut Connection, batch: &[Write]) -> rusqlite::Result<bool> {
    let mut repositories = Repositories::new();
    let mut forgot = false;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for change in batch {
        match change {
            Write::Flush(_) => {}
            Write::Conversion(of, result) => {
                transaction
                    .prepare_cached("insert or replace into conversion (source, form, place, result, at) values (?1, ?2, ?3, ?4, ?5)")?
                    .execute(params![of.source, of.form, of.place, result, now()])?;
            }
            Write::Tag(at, tag, change) => {
                let repository = number(&transaction, &mut repositories, at)?;
                let source = match &**change {
                    TagChange::Wrote(_, _, Some(source)) => number(&transaction, &mut repositories, source)?,
                    _ => 0,
                };
                forgot |= tags::change(&transaction, repository, tag, change, source)?;
            }
            Write::Listed(at, tags) => {
                let repository = number(&transaction, &mut repositories, at)?;
                transaction
                    .prepare_cached("update repository set listed = ?2 where id = ?1")?
                    .execute(params![repository, i64::try_from(*tags).unwrap_or(i64::MAX)])?;
            }
            Write::Changed(run, changed) => ownership::record(&transaction, *run, changed)?,
            Write::Copied(run, copy) => {
                // The report consists of strings and numbers, so it always serialises.
                let report = serde_json::to_string(copy).unwrap_or_default();
                transaction
                    .prepare_cached(
                        "insert or replace into copy (run, source, destination, action, report)
                         values (?1, ?2, ?3, ?4, ?5)",
                    )?
                    .execute(params![run, copy.source, copy.destination, copy.action.as_str(), report])?;
            }
            Write::Blob(at, digest) => {
                let repository = number(&transaction, &mut repositories, at)?;
                transaction
                    .prepare_cached(
                        "insert or replace into blob (digest, repository, at) values (?1, ?2, ?3)",
                    )?
                    .execute(params![digest, repository, now()])?;
            }
            Write::Upload(at, digest, life, Some(progress)) => {
                let repository = number(&transaction, &mut repositories, at)?;
                transaction
                    .prepare_cached(
                        "insert or replace into upload (digest, repository, progress, at, life)
                         values (?1, ?2, ?3, ?4, ?5)",
                    )?
                    .execute(params![digest, repository, progress, now(), life])?;
            }
            Write::Upload(at, digest, life, None) => {
                let repository = number(&transaction, &mut repositories, at)?;
                transaction
                    .prepare_cached("delete from upload where digest = ?1 and repository = ?2 and life = ?3")?
                    .execute(params![digest, repository, life])?;
            }
        }
    }
    transaction.commit()?;
    Ok(forgot)
}

fn number(
    transaction: &Transaction<'_>,
    known: &mut Repositories,
    at: &RepositoryKey,
) -> rusqlite::Result<i64> {
    if let Some(number) = known.get(at) {
        return Ok(*number);
    }
    // An upsert of a row that exists returns its number.
    let number = transaction
        .prepare_cached(
            "insert into repository (place, name) values (?1, ?2)
             on conflict (place, name) do update set name = name returning id",
        )?
        .query_row(params![at.place, at.repository], |row| row.get(0))?;
    known.insert(at.clone(), number);
    Ok(number)
}
