//! Secrets that an operator grants.

use crate::{Result, Secret};
use dray_core::policy::SecretRef;

/// Where secrets come from. Whoever opens a session implements it by reading the environment and files.
pub trait Secrets: Send + Sync {
    /// A secret that the policy grants.
    ///
    /// # Errors
    /// Fails if the secret does not exist.
    fn get(&self, name: &SecretRef) -> Result<Secret>;

    /// Path and content of the auth.json and config.json files, in the order of the search.
    ///
    /// # Errors
    /// Fails if a file exists and cannot be read.
    fn auth_files(&self) -> Result<Vec<(String, Secret)>>;
}
