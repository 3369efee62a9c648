//! Writing to the journal: on a thread of its own, many changes a transaction.

use super::{At, Conversion, Seen, now};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use std::{
    collections::HashMap,
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How long a change waits for others.
const GATHER: Duration = Duration::from_millis(100);
/// Changes of one transaction.
const MANY: usize = 1000;

/// Something that is to be remembered.
pub(super) enum Change {
    Conversion(Conversion, String),
    Tag(At, String, Box<Seen>),
    Blob(At, String),
    /// None: it has ended.
    Upload(At, String, Option<Vec<u8>>),
    /// Everything before is to be written.
    Flush(mpsc::Sender<()>),
}

/// The thread that writes.
pub(super) struct Writer {
    changes: Option<mpsc::Sender<Change>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(connection: Connection) -> Self {
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || work(connection, &receiver));
        Writer { changes: Some(sender), thread: Some(thread) }
    }

    pub fn send(&self, change: Change) {
        if let Some(changes) = &self.changes {
            // A thread that has ended has told why.
            let _ = changes.send(change);
        }
    }

    /// Waits until all that was sent is written.
    pub fn flush(&self) {
        let (sender, receiver) = mpsc::channel();
        self.send(Change::Flush(sender));
        let _ = receiver.recv();
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

fn work(mut connection: Connection, changes: &mpsc::Receiver<Change>) {
    let mut repositories = HashMap::new();
    while let Ok(first) = changes.recv() {
        let mut batch = vec![first];
        let until = Instant::now() + GATHER;
        while batch.len() < MANY && !matches!(batch.last(), Some(Change::Flush(_))) {
            match changes.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(change) => batch.push(change),
                Err(_) => break,
            }
        }
        if let Err(error) = write(&mut connection, &mut repositories, &batch) {
            tracing::warn!(%error, "the journal could not be written; what this run learns is forgotten");
            // Whoever waits for a flush is not kept waiting.
            return;
        }
        for change in batch {
            if let Change::Flush(done) = change {
                let _ = done.send(());
            }
        }
    }
}

/// Numbers of repositories that were asked for before.
type Repositories = HashMap<At, i64>;

fn write(
    connection: &mut Connection,
    repositories: &mut Repositories,
    batch: &[Change],
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for change in batch {
        match change {
            Change::Flush(_) => {}
            Change::Conversion(of, result) => {
                transaction
                    .prepare_cached("insert or replace into conversion (source, form, place, result, at) values (?1, ?2, ?3, ?4, ?5)")?
                    .execute(params![of.source, of.form, of.place, result, now()])?;
            }
            Change::Tag(at, tag, found) => {
                let Seen { named, parts, at: seen } = &**found;
                let repository = number(&transaction, repositories, at)?;
                transaction
                    .prepare_cached(
                        "insert or replace into tag (repository, name, digest, media_type, size, parts, at)
                         values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    )?
                    .execute(params![
                        repository,
                        tag,
                        named.digest.to_string(),
                        named.media_type,
                        i64::try_from(named.size).unwrap_or_default(),
                        parts,
                        seen
                    ])?;
            }
            Change::Blob(at, digest) => {
                let repository = number(&transaction, repositories, at)?;
                transaction
                    .prepare_cached(
                        "insert or replace into blob (digest, repository, at) values (?1, ?2, ?3)",
                    )?
                    .execute(params![digest, repository, now()])?;
            }
            Change::Upload(at, digest, Some(progress)) => {
                let repository = number(&transaction, repositories, at)?;
                transaction
                    .prepare_cached("insert or replace into upload (digest, repository, progress, at) values (?1, ?2, ?3, ?4)")?
                    .execute(params![digest, repository, progress, now()])?;
            }
            Change::Upload(at, digest, None) => {
                let repository = number(&transaction, repositories, at)?;
                transaction
                    .prepare_cached("delete from upload where digest = ?1 and repository = ?2")?
                    .execute(params![digest, repository])?;
            }
        }
    }
    transaction.commit()
}

fn number(transaction: &Transaction<'_>, known: &mut Repositories, at: &At) -> rusqlite::Result<i64> {
    if let Some(number) = known.get(at) {
        return Ok(*number);
    }
    // Upserting what is there gives its number back.
    let number = transaction
        .prepare_cached(
            "insert into repository (place, name) values (?1, ?2)
             on conflict (place, name) do update set name = name returning id",
        )?
        .query_row(params![at.place, at.repository], |row| row.get(0))?;
    known.insert(at.clone(), number);
    Ok(number)
}
