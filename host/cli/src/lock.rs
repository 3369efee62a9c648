//! `dray lock`, and `--locked`.

use crate::{
    DONE, DUE, FAILED,
    args::{LockOptions, Output},
    failure::Failure,
    output::{counted, print_json, say, tell},
    policy::{self, Loaded},
};
use dray_core::policy::{Lock, LockChange, LockedPlugin, SourceDigests};
use dray_engine::{Error, Kind, source_tags};
use std::{collections::BTreeMap, io::Write, os::unix::fs::PermissionsExt, path::Path};

/// Narrows a policy to what its lock file names.
pub fn narrow(loaded: &mut Loaded) -> Result<(), Failure> {
    let path = loaded.lock_file()?;
    let lock = read(&path)?.ok_or_else(|| missing(&path))?;
    lock.narrow(&mut loaded.policy).map_err(|problems| loaded.mistaken(problems))
}

fn missing(path: &Path) -> Failure {
    let text = format!("read the lock file {}: there is none", path.display());
    Failure::Usage(Error::new(Kind::NotFound, text).help("`dray lock` writes it"))
}

/// The plugins that the lock file of a policy has. A policy without a lock file, such as that of standard input, has none.
pub fn plugins(loaded: &Loaded) -> Result<BTreeMap<String, LockedPlugin>, Failure> {
    let Ok(path) = loaded.lock_file() else { return Ok(BTreeMap::new()) };
    Ok(read(&path)?.map(|lock| lock.plugins().clone()).unwrap_or_default())
}

/// Locks plugins of a policy in its lock file, and forgets those that the policy does not have any more. Returns whether that changed
/// anything.
pub fn set_plugins(loaded: &Loaded, now: BTreeMap<String, LockedPlugin>) -> Result<bool, Failure> {
    edit(&loaded.lock_file()?, |lock| {
        let mut plugins = lock.plugins().clone();
        plugins.retain(|name, _| loaded.policy.plugins.contains_key(name));
        plugins.extend(now);
        let changed = *lock.plugins() != plugins;
        lock.set_plugins(plugins);
        changed
    })
}

/// Changes a lock file. No other command changes it meanwhile, so none takes back what another one did.
fn edit(path: &Path, change: impl FnOnce(&mut Lock) -> bool) -> Result<bool, Failure> {
    let failed = |error| Error::new(Kind::Io, format!("write {}: {error}", path.display()));
    // The file itself is replaced, so its folder is locked.
    let folder = std::fs::File::open(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    folder.lock().map_err(failed)?;
    let mut lock = read(path)?.unwrap_or_default();
    let changed = change(&mut lock);
    if changed {
        write(path, &lock).map_err(failed)?;
    }
    Ok(changed)
}

/// Reads a lock file. `None` means that it does not exist.
fn read(path: &Path) -> Result<Option<Lock>, Failure> {
    let failed = |why: String| {
        let text = format!("read the lock file {}: {why}", path.display());
        Failure::Usage(Error::new(Kind::Invalid, text).help("mend it, or remove it and write it anew: `dray plugin install` locks plugins, and `dray lock` tags"))
    };
    let read = || match std::fs::metadata(path)?.is_file() {
        true => policy::bounded(path),
        false => Err(std::io::Error::other("it is no regular file")),
    };
    match read() {
        Ok(text) => Lock::parse(&text).map(Some).map_err(failed),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::usage(format!("read the lock file {}: {error}", path.display()))),
    }
}

/// Replaces a lock file as a whole.
fn write(path: &Path, lock: &Lock) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(lock.to_toml().as_bytes())?;
    // Others may read it, as they may read a policy.
    file.as_file().set_permissions(PermissionsExt::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// `dray lock`
pub async fn run(options: LockOptions) -> Result<u8, Failure> {
    let loaded = policy::load(&options.policies)?;
    let path = loaded.lock_file()?;
    let before = match read(&path)? {
        None if options.check => return Err(missing(&path)),
        before => before.unwrap_or_default(),
    };
    let rules = loaded.policy.rules.clone();
    let session = loaded.open().await?;
    let (mut lock, mut failed) = (Lock::default(), 0);
    // Rules are bound in their order, or not at all.
    for (rule, bound) in rules.iter().zip(session.rules()) {
        let mut entries = SourceDigests::new();
        for found in source_tags(bound).await {
            match found {
                Ok(found) => {
                    if found.untagged {
                        failed += 1;
                        tell!("error: failed to lock {}: its image has no tag", found.from);
                    }
                    entries.entry(found.from).or_default().extend(found.tags);
                }
                Err(error) => {
                    failed += 1;
                    tell!("error: failed to {error}");
                    if let Some(help) = &error.help {
                        tell!("  help: {help}");
                    }
                }
            }
        }
        *lock.add(rule) = entries;
    }
    if failed > 0 {
        tell!("{} could not be read, so {} stays as it was", counted(failed, "source"), path.display());
        return Ok(FAILED);
    }
    let changes = lock.changes(&before);
    match options.output {
        Output::Json => print_json(&changes),
        Output::Text => changes.iter().for_each(show),
    }
    if options.check {
        let rules = lock.changed_rules(&before);
        if options.output == Output::Text {
            for rule in &rules {
                say!("~ the rule `{rule}` has changed since it was locked");
            }
            let count =
                |wanted: fn(&LockChange) -> bool| changes.iter().filter(|change| wanted(change)).count();
            let (moved, new, gone) = (
                count(|change| change.before.is_some() && change.now.is_some()),
                count(|change| change.before.is_none()),
                count(|change| change.now.is_none()),
            );
            let locked = counted(before.len() as u64, "tag");
            say!("{locked} locked in {}: {moved} moved, {gone} no longer chosen, {new} new", path.display());
        }
        return Ok(if changes.is_empty() && rules.is_empty() { DONE } else { DUE });
    }
    let tags = lock.len();
    edit(&path, |there| {
        // Plugins may have been locked while the tags were read.
        lock.set_plugins(there.plugins().clone());
        *there = lock;
        true
    })?;
    if options.output == Output::Text {
        say!("{} locks {}", path.display(), counted(tags as u64, "tag"));
    }
    Ok(DONE)
}

fn show(change: &LockChange) {
    let LockChange { rule, from, tag, before, now } = change;
    match (before, now) {
        (None, Some(now)) => say!("{rule}: + {from}:{tag} {}", now.short()),
        (Some(before), Some(now)) => say!("{rule}: ~ {from}:{tag} {} -> {}", before.short(), now.short()),
        (Some(before), None) => say!("{rule}: - {from}:{tag} {}", before.short()),
        (None, None) => {}
    }
}
