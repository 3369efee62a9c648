//! What a destination would refuse of a planned copy, as far as it tells without being written to.

use super::item::PlannedCopy;
use crate::Result;
use dray_core::{Children, ImageChoice, media_type, policy::IndexMode, select};
use std::sync::atomic::Ordering;

/// What is known of whether a destination takes an index with missing platforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SparseIndex {
    /// No platform of this image would be missing.
    NotNeeded,
    /// It took one before, or is known to take them.
    Taken,
    /// Nobody knows before one is written.
    Unknown,
}

impl PlannedCopy {
    /// Asks for the right to write to the destination, and writes nothing. A registry that lets everybody read, and has not
    /// asked for a login yet, is not asked.
    ///
    /// # Errors
    /// Fails if the login is refused.
    pub async fn check_login(&self) -> Result<()> {
        let Some(http) = &self.destination.place.http else { return Ok(()) };
        http.check_login(&self.destination.name).await
    }

    /// Says whether the destination takes the image's index without the platforms that are left out, and writes nothing.
    /// The index is read, if the plan has not read it.
    ///
    /// # Errors
    /// Fails if the destination refused such an index before, or if the index cannot be read.
    pub async fn check_index(&self) -> Result<SparseIndex> {
        let ImageChoice::Some(platforms, IndexMode::Keep) = &self.copy.wanted.choice else {
            return Ok(SparseIndex::NotNeeded);
        };
        if !media_type::is_index(&self.copy.descriptor.media_type) {
            return Ok(SparseIndex::NotNeeded);
        }
        let place = &self.destination.place;
        let told = place.capabilities().await?.sparse;
        let seen = place.sparse_seen.load(Ordering::Relaxed).then_some(true);
        let known = told.or(seen).or_else(|| place.memory()?.takes_sparse(&place.key()));
        if known == Some(true) {
            return Ok(SparseIndex::Taken);
        }
        let index = match &self.manifest {
            Some(index) => index,
            None => &self.source.manifest_of(&self.copy.descriptor).await?,
        };
        let Children::Index(children) = &index.children else { return Ok(SparseIndex::NotNeeded) };
        let dropped = select(children, platforms)?.dropped;
        match known {
            _ if dropped.is_empty() => Ok(SparseIndex::NotNeeded),
            // Where all of them are there, none would be missing.
            Some(false) if self.destination.has_all(&dropped).await? => Ok(SparseIndex::NotNeeded),
            Some(false) => Err(place.refused_sparse()),
            _ => Ok(SparseIndex::Unknown),
        }
    }
}
