//! What dray asks of the config of an image (OCI image specification, configuration).

use crate::{Digest, ParseDigestError};
use serde::Deserialize;
use std::collections::HashMap;

/// The config of an image, as far as dray asks for it. Whatever a config does not say is empty.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ImageConfig {
    /// When the image was made (RFC 3339).
    pub created: Option<String>,
    /// Go's GOOS.
    pub os: Option<String>,
    /// Go's GOARCH.
    pub architecture: Option<String>,
    /// Of the processor.
    pub variant: Option<String>,
    config: Option<Process>,
    rootfs: Option<RootFs>,
}

/// What a container of the image begins with.
#[derive(Clone, Debug, Default, Deserialize)]
struct Process {
    #[serde(rename = "Labels")]
    labels: Option<HashMap<String, String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
}

impl ImageConfig {
    /// Its labels.
    pub fn labels(&self) -> HashMap<String, String> {
        self.config.clone().and_then(|process| process.labels).unwrap_or_default()
    }

    /// The digests of its layers' plain tars, in order. `None` means that the config does not say.
    ///
    /// # Errors
    /// Fails if one of them is no digest.
    pub fn diff_ids(&self) -> Option<Result<Vec<Digest>, ParseDigestError>> {
        let diff_ids = self.rootfs.as_ref()?.diff_ids.as_ref()?;
        Some(diff_ids.iter().map(|text| text.parse()).collect())
    }
}
