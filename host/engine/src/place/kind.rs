//! The dialect of a place: of which kind a registry is, and what must exist before it is written to.

use super::Place;
use crate::{
    Error, Kind, Result,
    contract::{Dialect, KnownBy},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::{Mutex, OnceCell};

/// What is known about the dialect of a place.
#[derive(Default)]
pub(super) struct Speech {
    /// By its kind in the policy, or by its host.
    named: OnceCell<Option<Arc<dyn Dialect>>>,
    /// By its challenge, or by that of an earlier run.
    recognised: OnceCell<Arc<dyn Dialect>>,
    /// Whether its lists failed, so that tags are listed as the specification says.
    is_silent: AtomicBool,
    /// Whether the transport said that nothing ever has to be made.
    needs_nothing: AtomicBool,
    /// The repositories for which everything exists: a name, or a prefix that ends with a slash.
    prepared: Mutex<Vec<String>>,
}

impl Place {
    /// The dialect of the registry. `None` means that it has none, or that it is not recognised yet. Fails if the operator
    /// names a kind that does not exist.
    pub(crate) async fn dialect(&self) -> Result<Option<Arc<dyn Dialect>>> {
        let Some(http) = self.http.as_ref().filter(|_| self.transport.has_dialects()) else {
            return Ok(None);
        };
        let by = match http.kind() {
            Some("none") => return Ok(None),
            Some(kind) => KnownBy::Kind(kind),
            None => KnownBy::Host(&self.location),
        };
        let named = self.speech.named.get_or_try_init(|| self.plugins.dialect(by)).await?;
        if named.is_some() || http.kind().is_some() {
            return Ok(named.clone());
        }
        let recognised = self.speech.recognised.get_or_try_init(|| self.recognised(http.service()));
        Ok(recognised.await.ok().cloned())
    }

    /// The dialect by the challenge of the registry, or as an earlier run recognised it. An error means that it is not
    /// known yet.
    async fn recognised(&self, service: Option<String>) -> Result<Arc<dyn Dialect>, ()> {
        let by = service.as_deref().map(KnownBy::Service);
        if let Some(by) = by {
            let dialect = self.plugins.dialect(by).await.ok().flatten().ok_or(())?;
            if let Some(journal) = self.memory() {
                journal.saw_kind(&self.key(), dialect.name());
            }
            return Ok(dialect);
        }
        let kind = self.memory().and_then(|journal| journal.kind(&self.key())).ok_or(())?;
        self.plugins.dialect(KnownBy::Kind(&kind)).await.ok().flatten().ok_or(())
    }

    /// The dialect, if it lists tags, and has not failed to do so. Fails if the operator names a kind that does not exist.
    pub(super) async fn listing_dialect(&self) -> Result<Option<Arc<dyn Dialect>>> {
        if self.speech.is_silent.load(Ordering::Relaxed) {
            return Ok(None);
        }
        Ok(self.dialect().await?.filter(|dialect| dialect.offers().lists))
    }

    /// Remembers that the lists of a dialect fail, so that nothing is asked of it in vain. A repository that does not exist
    /// tells nothing of others.
    pub(super) fn cannot_list(&self, dialect: &dyn Dialect, error: &Error) {
        tracing::debug!(
            %error,
            "{} lists no tags as {} does, so they are listed as the specification says",
            self.location,
            dialect.name()
        );
        if error.kind != Kind::NotFound {
            self.speech.is_silent.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the dialect lists tags with what they name.
    pub(super) async fn lists_in_bulk(&self) -> bool {
        self.listing_dialect().await.is_ok_and(|dialect| dialect.is_some())
    }

    /// Makes what must exist before a repository is written to, once.
    pub(super) async fn prepare(self: &Arc<Self>, repository: &str) -> Result<()> {
        let dialect = self.dialect().await?.filter(|dialect| dialect.offers().prepares);
        let needs = self.transport.provisions() && !self.speech.needs_nothing.load(Ordering::Relaxed);
        if dialect.is_none() && !needs {
            return Ok(());
        }
        // The lock is held meanwhile, so that two images do not make the same project.
        let mut prepared = self.speech.prepared.lock().await;
        let covers = |known: &String| match known.ends_with('/') {
            true => repository.starts_with(known.as_str()),
            false => known == repository,
        };
        if prepared.iter().any(covers) {
            return Ok(());
        }
        let made = match &dialect {
            Some(dialect) => dialect.prepare(self.context(), repository).await,
            None => self.transport.prepare(self.context(), repository).await,
        };
        match made {
            Err(error) if dialect.is_none() && error.kind == Kind::Unsupported => {
                self.speech.needs_nothing.store(true, Ordering::Relaxed);
                Ok(())
            }
            Ok(prefix) => {
                tracing::debug!("{} has {prefix}", self.location);
                // A prefix of other repositories says nothing of this one.
                prepared.push(if covers(&prefix) { prefix } else { repository.to_owned() });
                Ok(())
            }
            Err(error) if is_passing(&error) => Err(error),
            // Who may write to a project may not always look at it, so the push decides.
            Err(error) => {
                let error = error.context(format!("prepare {repository}"));
                tracing::warn!("{}: failed to {error}", self.location);
                prepared.push(repository.to_owned());
                Ok(())
            }
        }
    }

    /// Whether the dialect takes a tag away alone.
    pub(crate) async fn removes_tags(&self) -> bool {
        self.dialect().await.is_ok_and(|dialect| dialect.is_some_and(|dialect| dialect.offers().removes))
    }

    /// Takes a tag away alone, if the dialect can. Returns false if it cannot, or if its API takes no such login.
    pub(crate) async fn remove_tag(self: &Arc<Self>, repository: &str, tag: &str) -> Result<bool> {
        let Some(dialect) = self.dialect().await?.filter(|dialect| dialect.offers().removes) else {
            return Ok(false);
        };
        match dialect.remove_tag(self.context(), repository, tag).await {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind, Kind::Unauthorized | Kind::Unsupported) => {
                tracing::debug!(%error, "the tag is removed as the specification says");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether an error may be gone in a while, so that nothing is decided by it.
fn is_passing(error: &Error) -> bool {
    matches!(error.kind, Kind::RateLimited(_) | Kind::Transient | Kind::Cancelled)
}
