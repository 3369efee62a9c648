//! Facts about the images of a repository, for filters that ask for them.

use crate::{
    Kind, Repository, Result,
    contract::{Facts, Images},
};
use dray_core::{Children, Descriptor, ImageConfig, NESTING, Platform};
use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};

/// Answers the questions of filters about the images of one repository.
pub(crate) struct RepositoryImages(pub Repository);

/// Number of images that are read at once for one question of a filter.
const AT_ONCE: usize = 16;

impl Images for RepositoryImages {
    fn inspect(&self, tags: Vec<String>) -> BoxFuture<'_, Result<Vec<Facts>>> {
        let facts = stream::iter(tags).map(|tag| self.facts_if_there(tag)).buffered(AT_ONCE);
        facts.try_collect().boxed()
    }
}

impl RepositoryImages {
    /// A tag may be removed after it was listed, or name something that is not an image. Its facts are empty then.
    async fn facts_if_there(&self, tag: String) -> Result<Facts> {
        match self.facts(tag.clone()).await {
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Unsupported | Kind::Corrupt) => {
                tracing::warn!(
                    "nothing is known of {}:{tag}, which is listed: failed to {error}",
                    self.0.name
                );
                Ok(Facts { digest: String::new(), created: None, labels: Vec::new(), platforms: Vec::new() })
            }
            facts => facts,
        }
    }

    async fn facts(&self, tag: String) -> Result<Facts> {
        let top = self.0.manifest(Some(&tag)).await?;
        let digest = top.descriptor.digest.to_string();
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
            image = self.0.manifest_of(child).await?;
        }
        let config = match &image.children {
            Children::Image { config, .. } => {
                let bytes = self.0.small_blob(config).await?;
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
        Ok(Facts {
            digest,
            created: created.map(|created| created.as_millisecond()),
            labels: config.labels().into_iter().collect(),
            platforms,
        })
    }
}
