//! What outlives a run: a SQLite database in the user's state folder. A run works without it.

use crate::{Error, Place, Result, lock};
use dray_core::{Digest, Form, Platform};
use rusqlite::{Connection, OptionalExtension, params};
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock},
    time::Duration,
};

/// Of the tables. A journal of a later one is left alone.
const VERSION: i64 = 1;

/// Facts that a later run can use.
pub struct Journal(Mutex<Connection>);

/// A journal that is opened when it is first asked: most commands never do. One that cannot be
/// opened is told once, and done without.
pub struct LazyJournal {
    path: Option<PathBuf>,
    opened: OnceLock<Option<Journal>>,
}

impl LazyJournal {
    /// The journal in a file; none: no journal.
    pub fn new(path: Option<PathBuf>) -> Self {
        LazyJournal { path, opened: OnceLock::new() }
    }

    pub(crate) fn get(&self) -> Option<&Journal> {
        let open = || match Journal::open(self.path.as_ref()?) {
            Ok(journal) => Some(journal),
            Err(error) => {
                tracing::warn!(help = error.help, "failed to {error}; going on without it");
                None
            }
        };
        self.opened.get_or_init(open).as_ref()
    }
}

/// What was made of a source, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Conversion {
    /// Digest of the source's manifest.
    pub source: String,
    /// The form that was asked for or demanded, and which platforms of an index.
    pub form: String,
    /// The destination's place and the repository in it.
    pub place: String,
}

impl Conversion {
    pub fn new(
        source: &Digest,
        form: Form,
        platforms: &[Platform],
        (place, repository): (&Place, &str),
    ) -> Self {
        let mut platforms: Vec<String> = platforms.iter().map(ToString::to_string).collect();
        platforms.sort();
        Conversion {
            source: source.to_string(),
            form: [vec![form.to_string()], platforms].concat().join(", "),
            place: format!("{} {repository}", place.key()),
        }
    }
}

fn failed(error: rusqlite::Error) -> Error {
    Error::invalid(format!("use the journal: {error}"))
}

impl Journal {
    /// Opens a journal, and makes it if it is not there.
    ///
    /// # Errors
    /// Where it cannot be read and written, or a later dray made it.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| Error::invalid(format!("make the folder {}: {error}", folder.display())))?;
        }
        let open = || {
            let connection = Connection::open(path)?;
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "normal")?;
            let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if version == 0 {
                connection.execute_batch(
                    "begin immediate;
                     create table if not exists conversion (
                       source text not null, form text not null, place text not null, result text not null,
                       primary key (source, form, place)
                     ) without rowid;
                     pragma user_version = 1;
                     commit;",
                )?;
            }
            Ok((connection, version))
        };
        let (connection, version) = open().map_err(|error: rusqlite::Error| {
            Error::invalid(format!("open the journal {shown}: {error}"))
                .help("move it away, and it is made anew")
        })?;
        if version > VERSION {
            let text = format!("open the journal {shown}: a later dray made it (version {version})");
            return Err(Error::invalid(text).help("update dray, or move the journal away"));
        }
        Ok(Journal(Mutex::new(connection)))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        lock(&self.0)
    }

    /// What the destination told of itself after a conversion: a digest, or a mark.
    pub(crate) fn converted(&self, of: &Conversion) -> Result<Option<String>> {
        let found = self.connection().query_row(
            "select result from conversion where source = ?1 and form = ?2 and place = ?3",
            params![of.source, of.form, of.place],
            |row| row.get(0),
        );
        found.optional().map_err(failed)
    }

    /// Remembers what became of a source.
    pub(crate) fn record(&self, of: &Conversion, result: &str) -> Result<()> {
        let done = self.connection().execute(
            "insert or replace into conversion (source, form, place, result) values (?1, ?2, ?3, ?4)",
            params![of.source, of.form, of.place, result],
        );
        done.map(|_| ()).map_err(failed)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn conversions_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/journal.db");
        let of = Conversion { source: "s".into(), form: "f".into(), place: "p".into() };
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.converted(&of).unwrap(), None);
        journal.record(&of, "one").unwrap();
        Journal::open(&path).unwrap().record(&of, "two").unwrap();
        assert_eq!(journal.converted(&of).unwrap().as_deref(), Some("two"));
    }

    #[test]
    fn a_journal_of_the_future_or_a_broken_one_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        drop(Journal::open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = Journal::open(&path).err().unwrap();
        assert!(error.text.contains("later dray"), "{error}");
        std::fs::write(&path, "no database at all, but some text that is long enough").unwrap();
        assert!(Journal::open(&path).err().unwrap().help.is_some());
    }
}
