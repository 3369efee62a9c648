//! The parts of an image's config that dray reads (OCI image specification, configuration).

use crate::{Digest, ParseDigestError};
use serde::Deserialize;
use std::collections::HashMap;

/// The parts of an image's config that dray reads. `None` means that the config does not have the field.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ImageConfig {
    /// When the image was made (RFC 3339).
    pub created: Option<String>,
    /// The operating system, as in Go's GOOS.
    pub os: Option<String>,
    /// The processor architecture, as in Go's GOARCH.
    pub architecture: Option<String>,
    /// The variant of the architecture.
    pub variant: Option<String>,
    config: Option<Process>,
    rootfs: Option<RootFs>,
}

/// The parameters with which a container of the image starts.
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
    /// The labels of the image. Empty if the config has none.
    pub fn labels(&self) -> HashMap<String, String> {
        self.config.clone().and_then(|process| process.labels).unwrap_or_default()
    }

    /// The digests of the uncompressed layer tars, in order. `None` means that the config does not list them.
    ///
    /// # Errors
    /// Fails if one of them is not a digest.
    pub fn diff_ids(&self) -> Option<Result<Vec<Digest>, ParseDigestError>> {
        let diff_ids = self.rootfs.as_ref()?.diff_ids.as_ref()?;
        Some(diff_ids.iter().map(|text| text.parse()).collect())
    }
}
