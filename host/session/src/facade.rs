//! What most programs that embed dray need, in few words: a session of a policy file, a sync, and one copy.

#[cfg(feature = "plugins")]
use crate::artifact::{Silent, ready};
use crate::{Environment, OpenError, Record, Session, read_policy, record};
#[cfg(feature = "plugins")]
use dray_core::policy::{Lock, Policy};
use dray_core::{
    Reference, Report, Wanted,
    policy::{PolicyError, Problem, Variables},
};
use dray_engine::{CopyRequest, Error, Kind, Planned, RunOptions, Watcher, plan_copy};
use std::{fs, path::Path, sync::Arc};
use tokio::sync::{mpsc, watch};

impl Session {
    /// Opens a session of a policy file: reads it with what it includes and with its lock, fetches the plugins that the lock or the
    /// policy names by their digests and that this machine does not hold, and loads them; without the feature `plugins`, none is.
    /// `variables` are those of `${env:NAME}`.
    ///
    /// # Errors
    /// Fails if a file cannot be read, if the policy is wrong, or if a plugin cannot be fetched or loaded.
    pub async fn from_policy(
        path: &Path,
        variables: Variables<'_>,
        environment: Environment,
    ) -> Result<Session, OpenError> {
        let path = std::path::absolute(path).map_err(|error| failed(path, &error))?;
        let base = path.parent().unwrap_or(Path::new("/"));
        let text = fs::read_to_string(&path).map_err(|error| failed(&path, &error))?;
        let (policy, _texts) = read_policy(&path.display().to_string(), text, base, &[], variables)?;
        #[cfg(feature = "plugins")]
        let policy = with_plugins(policy, &path, base, &environment).await?;
        Session::open(policy, base, environment).await
    }

    /// Plans the rules and carries the plan out. Turning `stop` to true ends the run: what is under way is not published, and a
    /// later one goes on with it.
    pub async fn sync(&self, watcher: Arc<dyn Watcher>, stop: watch::Receiver<bool>) -> Report {
        let mut options = RunOptions::default();
        options.keep_going = true;
        let record = Record::of("sync");
        self.run(self.plan(), watcher, options, record, stop).await
    }

    /// Copies one image with all of its platforms, as it is.
    ///
    /// # Errors
    /// Fails if an end cannot be read. What fails while it is copied is in the report.
    pub async fn copy(
        &self,
        source: Reference,
        destination: Reference,
        watcher: Arc<dyn Watcher>,
        stop: watch::Receiver<bool>,
    ) -> Result<Report, Error> {
        let planned = plan_copy(self.places(), &whole(source, destination)).await?;
        let (sender, receiver) = mpsc::channel(1);
        // The channel has room for it.
        let _ = sender.send(Planned::Copy(Box::new(planned))).await;
        drop(sender);
        let mut options = RunOptions::default();
        options.unchanged = true;
        let record = Record::of("copy");
        Ok(record::run(self.places(), receiver, watcher, options, record, stop).await)
    }
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Invalid, format!("read {}: {error}", path.display()))
}

/// Finds the plugins that a policy and its lock name, and fetches those that this machine does not hold.
#[cfg(feature = "plugins")]
async fn with_plugins(
    mut policy: Policy,
    path: &Path,
    base: &Path,
    environment: &Environment,
) -> Result<Policy, OpenError> {
    let lock = path.with_extension("lock");
    let locked = match fs::read_to_string(&lock) {
        Ok(text) => Lock::parse(&text).map_err(|error| failed(&lock, &error))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Lock::default(),
        Err(error) => return Err(failed(&lock, &error).into()),
    };
    let missing = ready(&mut policy, base, locked.plugins(), environment, true, Arc::new(Silent)).await?;
    debug_assert!(missing.is_empty(), "they were fetched");
    Ok(policy)
}

/// A copy of everything, as it is.
pub(crate) fn whole(source: Reference, destination: Reference) -> CopyRequest {
    CopyRequest { source, destination, wanted: Wanted::whole(), require: Vec::new() }
}

impl From<crate::ReadPolicyError> for OpenError {
    fn from(error: crate::ReadPolicyError) -> Self {
        match error {
            crate::ReadPolicyError::Failed(error) => OpenError::Failed(error),
            crate::ReadPolicyError::Wrong(texts, PolicyError(problems)) => {
                // Whoever embeds dray has no texts, so each mistake says where it is.
                let placed = |problem: Problem| match problem.span.as_ref().and_then(|span| texts.at(span)) {
                    Some((text, span)) => {
                        let line = text.text[..span.start].matches('\n').count() + 1;
                        Problem { message: format!("{}:{line}: {}", text.name, problem.message), ..problem }
                    }
                    None => problem,
                };
                PolicyError(problems.into_iter().map(placed).collect()).into()
            }
        }
    }
}
