//! Mappers, which rename tags on their way.

use crate::Result;
use futures_util::future::BoxFuture;

/// Renames tags. It is bound to its configuration.
pub trait Mapper: Send + Sync {
    /// The name of the plugin.
    fn name(&self) -> &str;
    /// The names of tags at the destination, one for each tag in their order; `None` keeps the name. Nobody has checked that they
    /// are tags. Without tags, it checks the configuration.
    fn rename<'a>(
        &'a self,
        repository: &'a str,
        tags: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<Option<String>>>>;
}
