//! Facts about the images of a repository, for filters that ask for them.

use crate::{
    Kind, Repository, Result,
    contract::{Facts, Images, Known, KnownTag, Listed, no_destination},
};
use dray_core::{Children, Descriptor, ImageConfig, NESTING, Platform, cosign_signatures};
use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use std::collections::HashMap;
use tokio::sync::OnceCell;

/// Answers the questions of filters about the images of one repository.
pub(crate) struct RepositoryImages {
    repository: Repository,
    /// When each tag was pushed, as far as its list said it.
    pushed: HashMap<String, u64>,
    /// What the registry's dialect told, which is asked once. `None` means that it tells nothing.
    told: OnceCell<Option<HashMap<String, Known>>>,
    /// Where all tags of the repository go. `None` means that there is no one destination.
    destination: Option<Repository>,
}

/// Number of images that are read at once for one question of a filter.
const AT_ONCE: usize = 16;

impl Images for RepositoryImages {
    fn inspect(&self, tags: Vec<String>) -> BoxFuture<'_, Result<Vec<Facts>>> {
        let facts = stream::iter(tags).map(|tag| self.facts_if_there(tag)).buffered(AT_ONCE);
        facts.try_collect().boxed()
    }

    fn look_up(&self, tags: Vec<String>) -> BoxFuture<'_, Result<Vec<Known>>> {
        async move {
            let told = self.told.get_or_try_init(|| self.ask()).await?;
            let known = stream::iter(tags).map(|tag| self.known(told.as_ref(), tag)).buffered(AT_ONCE);
            known.try_collect().await
        }
        .boxed()
    }

    fn at_destination(&self) -> BoxFuture<'_, Result<Vec<Listed>>> {
        async move {
            let Some(destination) = &self.destination else { return Err(no_destination()) };
            let mut listed = match destination.listed(&destination.name).await {
                Ok(list) => list.tags,
                // It is made when the first image arrives.
                Err(error) if error.kind == Kind::NotFound => Vec::new(),
                Err(error) => return Err(error),
            };
            listed.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(listed)
        }
        .boxed()
    }
}

/// Artifact types of what cosign attaches as a signature. The beginning is enough, because versions differ behind it.
const SIGNATURES: [&str; 3] = [
    "application/vnd.dev.cosign.artifact.sig",
    "application/vnd.dev.sigstore.bundle",
    "application/vnd.cncf.notary.signature",
];

impl RepositoryImages {
    /// The images of a repository whose list of tags said when some were pushed.
    pub fn new(repository: Repository, pushed: HashMap<String, u64>) -> Self {
        RepositoryImages { repository, pushed, told: OnceCell::new(), destination: None }
    }

    /// The same, for filters that may ask where the tags go.
    pub fn towards(self, destination: Option<Repository>) -> Self {
        RepositoryImages { destination, ..self }
    }

    /// What the registry knows of all tags.
    async fn ask(&self) -> Result<Option<HashMap<String, Known>>> {
        let told = self.repository.known().await?;
        Ok(told.map(|told| told.into_iter().map(|KnownTag { name, known, .. }| (name, known)).collect()))
    }

    /// What is known of one tag. The registry's word counts, and what it does not tell is looked for.
    async fn known(&self, told: Option<&HashMap<String, Known>>, tag: String) -> Result<Known> {
        let mut known = told.and_then(|told| told.get(&tag)).cloned().unwrap_or_default();
        known.pushed = known.pushed.or_else(|| self.pushed.get(&tag).copied());
        if known.signed.is_none() {
            known.signed = self.is_signed(&tag).await?;
        }
        Ok(known)
    }

    /// Whether signatures of an image are there: beneath cosign's tag, or among its referrers. `None` means that the image
    /// is not there any more.
    async fn is_signed(&self, tag: &str) -> Result<Option<bool>> {
        let Some(image) = self.repository.resolve(Some(tag), None).await? else { return Ok(None) };
        let digest = image.descriptor.digest;
        if image.manifest.is_some_and(|manifest| !manifest.signatures.is_empty()) {
            return Ok(Some(true));
        }
        let beneath = cosign_signatures(&digest);
        match self.repository.resolve(Some(&beneath), None).await {
            Ok(Some(_)) => return Ok(Some(true)),
            Ok(None) => {}
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Unsupported | Kind::Invalid) => {}
            Err(error) => return Err(error),
        }
        let referrers = match self.repository.referrers(&digest).await {
            Err(error) if error.kind == Kind::Unsupported => Vec::new(),
            referrers => referrers?,
        };
        let is_signature = |referrer: &Descriptor| {
            let kind = referrer.artifact_type.as_deref().unwrap_or_default();
            SIGNATURES.iter().any(|beginning| kind.starts_with(beginning))
        };
        Ok(Some(referrers.iter().any(is_signature)))
    }

    /// A tag may be removed after it was listed, or name something that is not an image. Its facts are empty then.
    async fn facts_if_there(&self, tag: String) -> Result<Facts> {
        match self.facts(tag.clone()).await {
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Unsupported | Kind::Corrupt) => {
                tracing::warn!(
                    "nothing is known of {}:{tag}, which is listed: failed to {error}",
                    self.repository.name
                );
                Ok(Facts::default())
            }
            facts => facts,
        }
    }

    async fn facts(&self, tag: String) -> Result<Facts> {
        let top = self.repository.manifest(Some(&tag)).await?;
        let descriptor = top.descriptor.clone();
        let mut platforms = Vec::new();
        let mut image = top;
        for _ in 0..NESTING {
            let Children::Index(children) = &image.children else { break };
            let real =
                |child: &&Descriptor| child.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
            if platforms.is_empty() {
                platforms.extend(
                    children
                        .iter()
                        .filter(real)
                        .filter_map(|child| child.platform.as_ref())
                        .map(Platform::to_string),
                );
            }
            let Some(child) = children.iter().find(real) else { break };
            image = self.repository.manifest_of(child).await?;
        }
        let config = match &image.children {
            Children::Image { config, .. } => {
                let bytes = self.repository.small_blob(config).await?;
                // The config of an artifact may have any format. If it cannot be parsed, it gives no facts.
                serde_json::from_slice::<ImageConfig>(&bytes).unwrap_or_default()
            }
            // The facts do not depend on the diff IDs of the layers, so none are given.
            Children::Schema1(old) => serde_json::from_slice(&old.config(&[])).unwrap_or_default(),
            Children::Index(_) => ImageConfig::default(),
        };
        if platforms.is_empty()
            && let (Some(os), Some(architecture)) = (config.os.clone(), config.architecture.clone())
        {
            platforms.push(Platform { os, architecture, variant: config.variant.clone() }.to_string());
        }
        let created = config.created.as_ref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let size = match &image.children {
            Children::Image { config, layers } => {
                Some(layers.iter().chain([config]).map(|blob| blob.size).sum())
            }
            _ => None,
        };
        Ok(Facts {
            digest: descriptor.digest.to_string(),
            media_type: descriptor.media_type,
            artifact_type: descriptor.artifact_type,
            size,
            annotations: descriptor.annotations.into_iter().collect(),
            created: created.map(|created| created.as_millisecond()),
            labels: config.labels().into_iter().collect(),
            platforms,
        })
    }
}
