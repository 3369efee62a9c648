//! The journal: a SQLite database in the user's state folder with facts that later runs can use. A run works without
//! it. What it says about a destination is only used to ask the destination less.

mod ownership;
mod process_lock;
mod runs;
mod tags;
mod write;

use crate::{Error, Kind, Result, lock, now};
use dray_core::{Digest, Form, Platform};
pub use ownership::TagChanged;
use process_lock::ProcessLock;
pub use runs::{RunRecord, Trimmed, Usage};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Params, Row, params};
use std::{
    fs::{OpenOptions, Permissions},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
pub(crate) use tags::{SeenTag, Writing};
use write::{Write, Writer};

/// Version of the tables. A journal of a later version is not opened.
const VERSION: i64 = 8;

/// The statements that lead from each version of the tables to the next. Times are seconds since 1970.
const MIGRATIONS: [&str; VERSION as usize] = [
    "create table conversion (
       source text not null, form text not null, place text not null, result text not null,
       primary key (source, form, place)
     ) without rowid;",
    "alter table conversion add column at integer not null default 0;
     create table repository (
       id integer primary key, place text not null, name text not null, unique (place, name)
     );
     create table tag (
       repository integer not null, name text not null, digest text not null, at integer not null,
       primary key (repository, name)
     ) without rowid;
     create table blob (
       digest text not null, repository integer not null, at integer not null,
       primary key (digest, repository)
     ) without rowid;
     create table upload (
       digest text not null, repository integer not null, progress blob not null, at integer not null,
       primary key (digest, repository)
     ) without rowid;
     create table run (
       id integer primary key, begun integer not null, ended integer, process integer not null,
       command text not null, policy text, summary text, report text
     );",
    "alter table tag add column media_type text not null default '';
     alter table tag add column size integer not null default 0;
     alter table tag add column parts text not null default '';",
    // Who is writing the tag: nobody (0), one write (its number), or several at once (-1).
    "alter table tag add column writer integer not null default 0;
     alter table run add column born integer not null default 0;",
    "create table copy (
       run integer not null, source text not null, destination text not null, action text not null,
       report text not null, primary key (run, source, destination)
     ) without rowid;
     insert or replace into copy select run.id, value ->> 'source', value ->> 'destination', value ->> 'action', value
       from run, json_each(run.report);
     alter table run drop column report;
     alter table run add column stopped integer not null default 0;",
    // The process that the upload belongs to, in the same form as in the table `run`.
    "alter table upload add column process integer not null default 0;
     alter table upload add column born integer not null default 0;",
    // A process is now identified by the lock that it holds.
    "alter table run rename column born to life;
     alter table upload drop column process;
     alter table upload rename column born to life;",
    // `source` is the repository from which dray copied a tag (0: it did not), and `listed` how many tags a repository
    // listed when it was last decided what to delete by its list.
    "alter table tag add column source integer not null default 0;
     alter table repository add column listed integer;
     create table change (
       id integer primary key, run integer not null, reference text not null, before text not null, after text,
       at integer not null
     );
     create index change_of_run on change (run);",
];

/// A database of facts that later runs can use.
pub struct Journal {
    path: PathBuf,
    reader: Mutex<Connection>,
    writer: Writer,
    /// The lock of this process. It is taken when the process first writes a row that belongs to it.
    life: OnceLock<Option<ProcessLock>>,
    /// Whether an error of reading was already reported.
    told: AtomicBool,
}

/// A journal that is opened when it is first used, because most commands never use it. If it cannot be opened, this is
/// reported once, and the command goes on without it. Clones are one journal.
#[derive(Clone)]
pub struct LazyJournal {
    path: Option<PathBuf>,
    opened: Arc<OnceLock<Option<Journal>>>,
}

impl LazyJournal {
    /// The journal in a file. `None` means that there is no journal.
    pub fn new(path: Option<PathBuf>) -> Self {
        LazyJournal { path, opened: Arc::default() }
    }

    /// The journal, opened at the first call. `None` means that it does not exist or cannot be opened.
    pub fn get(&self) -> Option<&Journal> {
        let open = || match Journal::open(self.path.as_ref()?) {
            Ok(journal) => Some(journal),
            Err(error) => {
                tracing::warn!(help = error.help, "failed to {error}; going on without it");
                None
            }
        };
        self.opened.get_or_init(open).as_ref()
    }

    /// The journal, at least to read it. For commands that cannot do without it.
    ///
    /// # Errors
    /// Fails if there is no journal, or if it cannot be opened.
    pub(crate) fn need(&self) -> Result<&Journal> {
        let none = || Error::new(Kind::NotFound, "find the journal: there is no home folder to keep it in");
        let path = self.path.as_ref().ok_or_else(none)?;
        if self.opened.get().is_none() {
            let journal = Journal::open(path).or_else(|error| Journal::open_to_read(path).ok_or(error))?;
            return self.opened.get_or_init(|| Some(journal)).as_ref().ok_or_else(none);
        }
        self.get().ok_or_else(none)
    }
}

/// What the journal says of an index with missing children.
const TAKEN: &str = "taken";
const REFUSED: &str = "refused";
/// For how many seconds that holds: a registry may be configured anew, or be another one.
const SPARSE: i64 = 7 * 86_400;

/// Identifies a conversion: what was converted, to what, and where the result is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Conversion {
    /// Digest of the source's manifest.
    pub source: String,
    /// The form that was asked for or that the destination requires, and the wanted platforms of an index.
    pub form: String,
    /// The destination's place and the repository in it.
    pub place: String,
}

impl Conversion {
    pub fn new(source: &Digest, form: Form, platforms: &[Platform], at: &RepositoryKey) -> Self {
        let mut platforms: Vec<String> = platforms.iter().map(ToString::to_string).collect();
        platforms.sort();
        Conversion {
            source: source.to_string(),
            form: [vec![form.to_string()], platforms].concat().join(", "),
            place: format!("{} {}", at.place, at.repository),
        }
    }

    /// States that a source does not need to be converted, wherever it goes: its layers were read, and are compressed
    /// as their media types say.
    pub fn needless(source: &Digest, form: Form) -> Self {
        Conversion { source: source.to_string(), form: form.to_string(), place: String::new() }
    }

    /// States whether a place takes an index of which some children are missing.
    fn sparse(place: &str) -> Self {
        Self::habit("an index with missing children", place)
    }

    /// States whether a place says in its lists of tags what they name.
    fn listing(place: &str) -> Self {
        Self::habit("a list of tags with digests", place)
    }

    /// States of which kind a registry is.
    fn kind(place: &str) -> Self {
        Self::habit("the kind of registry", place)
    }

    /// States how a place behaves.
    fn habit(what: &str, place: &str) -> Self {
        Conversion { source: String::new(), form: what.into(), place: place.into() }
    }
}

/// A repository of a place, by its canonical name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RepositoryKey {
    pub place: String,
    pub repository: String,
}

/// An error of a journal, with help for it.
fn failed(doing: &str, path: &Path, error: &rusqlite::Error) -> Error {
    let help = match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "make it and its folder writable, or set XDG_STATE_HOME to a folder that is"
        }
        Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => "make room on its disk, or look after it",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "try again when no other dray is at work"
        }
        _ => "move it away, and it is made anew",
    };
    Error::invalid(format!("{doing} the journal {}: {error}", path.display())).help(help)
}

/// How long to wait for another process that has locked the journal, and the pause between two attempts if SQLite does
/// not wait by itself.
const PATIENCE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(20);

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

/// Makes the file readable only for its owner, whatever its folder allows. It holds names of images and the addresses
/// of uploads. SQLite gives its log the same mode.
fn private(path: &Path) {
    let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    if let Ok(file) = made
        && file.metadata().is_ok_and(|metadata| metadata.mode() & 0o077 != 0)
    {
        // If the mode cannot be changed, the file belongs to another user. Whether it can be opened is found out later.
        let _ = file.set_permissions(Permissions::from_mode(0o600));
    }
}

/// Opens a connection to a journal, and creates or updates its tables.
fn connect(path: &Path) -> Result<Connection> {
    let open = || {
        private(path);
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // This is safe with a write-ahead log, and avoids a sync for each transaction.
        connection.pragma_update(None, "synchronous", "normal")?;
        let version = |connection: &Connection| {
            connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
        };
        let mut current = version(&connection)?;
        if current < VERSION {
            let change = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            // Another process may have updated the tables in the meantime.
            current = version(&change)?;
            for migration in MIGRATIONS.iter().skip(current.max(0) as usize) {
                change.execute_batch(migration)?;
            }
            change.pragma_update(None, "user_version", current.max(VERSION))?;
            change.commit()?;
        }
        Ok((connection, current))
    };
    let begun = Instant::now();
    let opened = loop {
        match open() {
            // SQLite does not wait for another process that is creating or closing the log.
            Err(error) if is_busy(&error) && begun.elapsed() < PATIENCE => std::thread::sleep(AGAIN),
            opened => break opened,
        }
    };
    let (connection, version) = opened.map_err(|error: rusqlite::Error| failed("open", path, &error))?;
    if version > VERSION {
        let text = format!("open the journal {}: a later dray made it (version {version})", path.display());
        return Err(Error::invalid(text).help("update dray, or move the journal away"));
    }
    Ok(connection)
}

/// Opens a connection to a journal that can only be read, in the state that its file has on the disk.
fn connect_to_read(path: &Path) -> rusqlite::Result<Connection> {
    // `immutable` is needed because no log and no lock can be created beside the file (sqlite.org/uri.html).
    let name: String = url::form_urlencoded::byte_serialize(path.as_os_str().as_encoded_bytes()).collect();
    let name = format!("file:{}?immutable=1", name.replace('+', "%20"));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(name, flags)?;
    match connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? {
        VERSION => Ok(connection),
        _ => Err(rusqlite::Error::InvalidQuery),
    }
}

impl Journal {
    /// Opens a journal, and creates it if it does not exist.
    ///
    /// # Errors
    /// Fails if the journal cannot be read and written, or if a later version of dray wrote it.
    pub fn open(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            // What the journal says about an upload may let a reader continue that upload, so only the owner may look
            // into the folder.
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|error| {
                Error::invalid(format!("make the journal's folder {}: {error}", folder.display()))
                    .help("set XDG_STATE_HOME to a folder that can be written")
            })?;
        }
        let reader = connect(path)?;
        let writer = Writer::start(connect(path)?, path);
        Ok(Journal {
            path: path.into(),
            reader: Mutex::new(reader),
            writer,
            life: OnceLock::new(),
            told: false.into(),
        })
    }

    /// Opens a journal that cannot be written, only to read it.
    fn open_to_read(path: &Path) -> Option<Self> {
        let reader = Mutex::new(connect_to_read(path).ok()?);
        Some(Journal {
            path: path.into(),
            reader,
            writer: Writer::none(),
            life: OnceLock::new(),
            told: false.into(),
        })
    }

    /// The number by which other processes find out whether this one is alive. 0 means that they cannot.
    fn life(&self) -> i64 {
        let begin = || {
            let begun = ProcessLock::begin(&self.path);
            begun
                .inspect_err(|error| tracing::warn!("failed to lock a file beside the journal: {error}; another dray may take this one to be dead"))
                .ok()
        };
        self.life.get_or_init(begin).as_ref().map_or(0, |life| life.number)
    }

    /// An error of this journal, with help for it.
    fn failed(&self, error: &rusqlite::Error) -> Error {
        failed("use", &self.path, error)
    }

    /// Waits until everything that was recorded is written.
    pub fn flush(&self) {
        self.writer.flush();
    }

    /// As [`Journal::flush`], for tasks.
    pub(crate) async fn settled(&self) {
        let written = self.writer.written();
        // A journal that cannot be written says so itself.
        let _ = tokio::task::spawn_blocking(move || written.recv()).await;
    }

    /// The first row of an answer. An error is reported once, and `None` is returned.
    fn one<T>(
        &self,
        sql: &str,
        parameters: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Option<T> {
        let connection = lock(&self.reader);
        let found =
            connection.prepare_cached(sql).and_then(|mut ask| ask.query_row(parameters, read).optional());
        self.told(found).flatten()
    }

    /// Turns an answer into its value. An error is reported once, and becomes `None`.
    fn told<T>(&self, answer: rusqlite::Result<T>) -> Option<T> {
        let told = |error| {
            if !self.told.swap(true, Ordering::Relaxed) {
                let error = failed("read", &self.path, &error);
                tracing::warn!(help = error.help, "failed to {error}; going on without it");
            }
        };
        answer.map_err(told).ok()
    }

    /// What a conversion became at the destination: a digest, or an opaque identifier.
    pub(crate) fn converted(&self, of: &Conversion) -> Option<String> {
        self.one(
            "select result from conversion where source = ?1 and form = ?2 and place = ?3",
            params![of.source, of.form, of.place],
            |row| row.get(0),
        )
    }

    /// Records what a conversion became.
    pub(crate) fn convert(&self, of: Conversion, result: String) {
        self.writer.send(Write::Conversion(of, result));
    }

    /// Whether a place took an index of which some children were missing, when it was last tried. `None` means that
    /// nobody has tried for a week.
    pub(crate) fn takes_sparse(&self, place: &str) -> Option<bool> {
        self.has_habit(Conversion::sparse(place))
    }

    /// Whether the lists of a place said what its tags name, when one was last read. `None` means that nobody has read one
    /// for a week.
    pub(crate) fn lists_digests(&self, place: &str) -> Option<bool> {
        self.has_habit(Conversion::listing(place))
    }

    /// Of which kind a registry is, by the name of its dialect. `None` means that nobody has recognised it for a week.
    pub(crate) fn kind(&self, place: &str) -> Option<String> {
        self.habit(Conversion::kind(place))
    }

    /// Records of which kind a registry is.
    pub(crate) fn saw_kind(&self, place: &str, kind: &str) {
        self.convert(Conversion::kind(place), kind.to_owned());
    }

    fn has_habit(&self, of: Conversion) -> Option<bool> {
        self.habit(of).map(|result| result == TAKEN)
    }

    fn habit(&self, of: Conversion) -> Option<String> {
        self.one(
            "select result from conversion where source = ?1 and form = ?2 and place = ?3 and at > ?4",
            params![of.source, of.form, of.place, now() - SPARSE],
            |row| row.get(0),
        )
    }

    /// Records whether a place takes an index of which some children are missing.
    pub(crate) fn saw_sparse(&self, place: &str, takes: bool) {
        self.convert(Conversion::sparse(place), if takes { TAKEN } else { REFUSED }.to_owned());
    }

    /// Records whether the lists of a place say what its tags name.
    pub(crate) fn saw_list(&self, place: &str, digests: bool) {
        self.convert(Conversion::listing(place), if digests { TAKEN } else { REFUSED }.to_owned());
    }

    /// A repository of a place that holds content: this one if it does, or else another one.
    pub(crate) fn holder(&self, at: &RepositoryKey, digest: &Digest) -> Option<String> {
        self.one(
            "select name from blob join repository on id = repository
             where digest = ?1 and place = ?2 order by name <> ?3, blob.at desc limit 1",
            params![digest.to_string(), at.place, at.repository],
            |row| row.get(0),
        )
    }

    /// Records that a repository holds content.
    pub(crate) fn holds(&self, at: RepositoryKey, digest: &Digest) {
        self.writer.send(Write::Blob(at, digest.to_string()));
    }

    /// Takes over an upload that this process gave up, or one that has ended since, and returns its progress. `None` means
    /// that there is no such upload, or that it belongs to another process that is alive.
    pub(crate) fn upload(&self, at: &RepositoryKey, digest: &Digest) -> Option<Vec<u8>> {
        let found = self.one(
            "select progress, life, repository from upload where digest = ?1 and repository =
               (select id from repository where place = ?2 and name = ?3)",
            params![digest.to_string(), at.place, at.repository],
            |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?)),
        );
        let (progress, life, repository) = found?;
        // In one process the claims see to it that only one task brings a blob.
        if life != self.life() && process_lock::is_alive(&self.path, life) {
            return None;
        }
        // If two processes ask for it at once, only the first one gets it.
        let taken = lock(&self.reader).execute(
            "update upload set life = ?1 where digest = ?2 and repository = ?3 and life = ?4",
            params![self.life(), digest.to_string(), repository, life],
        );
        (self.told(taken)? == 1).then_some(progress)
    }

    /// Records how far an upload has come. `None` means that the upload has ended.
    pub(crate) fn uploading(&self, at: RepositoryKey, digest: &Digest, progress: Option<Vec<u8>>) {
        self.writer.send(Write::Upload(at, digest.to_string(), self.life(), progress));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
