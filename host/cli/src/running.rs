//! One run of a policy at a time: a second one would do the same work twice.

use crate::{failure::Failure, local, output::tell, signals::Stop};
use dray_core::{Digest, Shard};
use dray_engine::{Error, Kind};
use std::{
    collections::BTreeSet,
    fs::{File, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// How often somebody who waits looks again.
const AGAIN: Duration = Duration::from_millis(250);

/// The right to run a policy. Another process may have it when this is dropped.
pub struct Running {
    _file: File,
}

/// Takes the right to run policies, or with `wait` waits for it.
///
/// Runs of different rules (none means all) or of different shards do different work, and may be under way at once.
pub async fn take(
    policies: &[PathBuf],
    part: (&[String], Option<Shard>),
    wait: bool,
    stop: &Stop,
) -> Result<Vec<Running>, Failure> {
    // All processes take them in one order, so that no two wait for each other.
    let policies: BTreeSet<&PathBuf> = policies.iter().collect();
    let mut held = Vec::new();
    for policy in policies {
        held.extend(take_one(policy, part, wait, stop).await?);
    }
    Ok(held)
}

/// Takes the right to run one policy. `None` means that there is no folder for the lock, so that nobody can be kept out.
async fn take_one(
    policy: &Path,
    (rules, shard): (&[String], Option<Shard>),
    wait: bool,
    stop: &Stop,
) -> Result<Option<Running>, Failure> {
    let Some(state) = local::state_folder() else { return Ok(None) };
    let folder = state.join("running");
    let mut key = policy.as_os_str().as_encoded_bytes().to_vec();
    rules.iter().for_each(|rule| key.extend(format!("\n{rule}").bytes()));
    key.extend(shard.map(|shard| format!("\n\n{shard}")).unwrap_or_default().bytes());
    let path = folder.join(Digest::of(&key).hex());
    let opened = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).and_then(|()| {
        File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)
    });
    let mut file = match opened {
        Ok(file) => file,
        Err(error) => {
            tracing::debug!("cannot keep other runs of this policy out: {}: {error}", path.display());
            return Ok(None);
        }
    };
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if told => {
                // A lock that is waited for in the kernel could not be given up at Ctrl-C.
                tokio::time::sleep(AGAIN).await;
                if stop.code().is_some() {
                    let text = format!("run {}: it was stopped while it waited", policy.display());
                    return Err(Error::new(Kind::Cancelled, text).into());
                }
                continue;
            }
            Err(TryLockError::WouldBlock) => told = true,
            Err(TryLockError::Error(error)) => return Err(failed(policy, &error)),
        }
        let mut process = String::new();
        // Who has the lock may just be writing this.
        let _ = file.read_to_string(&mut process);
        let who = match process.trim().parse::<u32>() {
            Ok(process) => format!(" (process {process})"),
            Err(_) => String::new(),
        };
        if !wait {
            let text = format!("run {}: another run of it is under way{who}", policy.display());
            let error = Error::new(Kind::Conflict, text);
            return Err(error.help("--wait waits until it has ended; `dray runs` shows it").into());
        }
        tell!("waiting for another run of {}{who}", policy.display());
    }
    let written =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    if let Err(error) = written {
        tracing::debug!("{}: {error}", path.display());
    }
    Ok(Some(Running { _file: file }))
}

fn failed(policy: &Path, error: &std::io::Error) -> Failure {
    Error::new(Kind::Io, format!("wait for other runs of {}: {error}", policy.display())).into()
}
