//! The dialect of a place: of which kind a registry is, and what must exist before it is written to.

use super::Place;
use crate::{
    Error, Kind, Result,
    contract::{Dialect, KnownBy, TagPage},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::{Mutex, OnceCell};

/// What begins the token of a page that a dialect gave. Tokens of the specification are addresses.
const PAGE: &str = "dialect ";

/// What is known about the dialect of a place.
#[derive(Default)]
pub(super) struct Speech {
    /// By its kind in the policy, or by its host.
    named: OnceCell<Option<Arc<dyn Dialect>>>,
    /// By its challenge, or by that of an earlier run.
    recognised: OnceCell<Arc<dyn Dialect>>,
    /// Whether its lists failed, so that tags are listed as the specification says.
    is_silent: AtomicBool,
    /// Prefixes of the repositories for which everything exists.
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

    /// A page of the tags of a repository, as the dialect lists them or else as the specification says.
    pub(super) async fn tag_page(
        self: &Arc<Self>,
        repository: &str,
        next: Option<String>,
    ) -> Result<TagPage> {
        let of_dialect = next.as_deref().and_then(|next| next.strip_prefix(PAGE));
        let dialect = match of_dialect.is_some() || next.is_none() {
            true => self.dialect().await?.filter(|dialect| dialect.offers().lists),
            false => None,
        };
        let silent = self.speech.is_silent.load(Ordering::Relaxed) && of_dialect.is_none();
        if let Some(dialect) = dialect.filter(|_| !silent) {
            match dialect.tags(self.context(), repository, of_dialect).await {
                Ok(page) => {
                    let next = page.next.map(|next| format!("{PAGE}{next}"));
                    return Ok(TagPage { next, ..page });
                }
                Err(error) if of_dialect.is_some() || is_passing(&error) => return Err(error),
                Err(error) => {
                    tracing::debug!(
                        %error,
                        "{} lists no tags as {} does, so they are listed as the specification says",
                        self.location,
                        dialect.name()
                    );
                    // A repository that does not exist tells nothing of others.
                    if error.kind != Kind::NotFound {
                        self.speech.is_silent.store(true, Ordering::Relaxed);
                    }
                }
            }
        }
        let page = self.transport.tags(self.context(), repository, next).await?;
        // The answer may have come with a challenge, by which the registry is recognised the next time.
        if let Err(error) = self.dialect().await {
            tracing::debug!(%error, "the kind of {} is not known", self.location);
        }
        Ok(page)
    }

    /// Whether the dialect lists tags with what they name.
    pub(super) async fn lists_in_bulk(&self) -> bool {
        let offers = |dialect: Arc<dyn Dialect>| dialect.offers().lists;
        !self.speech.is_silent.load(Ordering::Relaxed)
            && self.dialect().await.ok().flatten().is_some_and(offers)
    }

    /// Makes what must exist before a repository is written to, once.
    pub(super) async fn prepare(self: &Arc<Self>, repository: &str) -> Result<()> {
        let Some(dialect) = self.dialect().await?.filter(|dialect| dialect.offers().prepares) else {
            return Ok(());
        };
        // The lock is held meanwhile, so that two images do not make the same project.
        let mut prepared = self.speech.prepared.lock().await;
        let covers = |prefix: &String| {
            repository.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if prepared.iter().any(covers) {
            return Ok(());
        }
        match dialect.prepare(self.context(), repository).await {
            Ok(prefix) => {
                tracing::debug!("{} has {prefix}", self.location);
                prepared.push(prefix);
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

    /// Takes a tag away alone, if the dialect can. Returns false if it cannot.
    pub(crate) async fn remove_tag(self: &Arc<Self>, repository: &str, tag: &str) -> Result<bool> {
        match self.dialect().await?.filter(|dialect| dialect.offers().removes) {
            Some(dialect) => dialect.remove_tag(self.context(), repository, tag).await.map(|()| true),
            None => Ok(false),
        }
    }
}

/// Whether an error may be gone in a while, so that nothing is decided by it.
fn is_passing(error: &Error) -> bool {
    matches!(error.kind, Kind::RateLimited(_) | Kind::Transient | Kind::Cancelled)
}
