//! `dray lock`, and `--locked`.

use crate::{
    DONE, DUE, FAILED,
    args::{LockOptions, Output},
    failure::Failure,
    lock_file,
    output::{counted, print_json, say, tell},
    policy::{self, Loaded},
};
use dray_core::policy::{Lock, LockChange, LockedPlugin, SourceDigests};
use dray_engine::{Error, Kind, source_tags};
use std::{collections::BTreeMap, path::Path};

/// Narrows a policy to what its lock file names.
pub fn narrow(loaded: &mut Loaded) -> Result<(), Failure> {
    let path = loaded.lock_file()?;
    let lock = lock_file::read(&path)?.ok_or_else(|| missing(&path))?;
    lock.narrow(&mut loaded.policy).map_err(|problems| loaded.mistaken(problems))
}

fn missing(path: &Path) -> Failure {
    let text = format!("read the lock file {}: there is none", path.display());
    Failure::Usage(Error::new(Kind::NotFound, text).help("`dray lock` writes it"))
}

/// Locks plugins of a policy in its lock file, and forgets those that the policy does not have any more. Returns whether that changed
/// anything.
pub fn set_plugins(loaded: &Loaded, now: BTreeMap<String, LockedPlugin>) -> Result<bool, Failure> {
    lock_file::edit(&loaded.lock_file()?, |lock| {
        let mut plugins = lock.plugins().clone();
        plugins.retain(|name, _| loaded.policy.plugins.contains_key(name));
        plugins.extend(now);
        let changed = *lock.plugins() != plugins;
        lock.set_plugins(plugins);
        changed
    })
}

/// `dray lock`
pub async fn run(options: LockOptions) -> Result<u8, Failure> {
    let loaded = policy::load(&options.policies)?;
    let path = loaded.lock_file()?;
    let before = match lock_file::read(&path)? {
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
    lock_file::edit(&path, |there| {
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
