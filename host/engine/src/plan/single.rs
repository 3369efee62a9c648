//! `dray copy`: plans a single image.

use super::{
    before::Before,
    choose::choose_at,
    item::PlannedCopy,
    observe::{Comparison, wanted_at},
};
use crate::trust::Demand;
use crate::{Error, Places, Result};
use dray_core::{Digest, Reference, Wanted};
use std::sync::Arc;

/// A request to copy one image.
pub struct CopyRequest {
    /// The source.
    pub source: Reference,
    /// The destination. Without a tag, it gets the tag of the source.
    pub destination: Reference,
    /// The parts of the image to copy, and the form to write them in.
    pub wanted: Wanted,
    /// The signatures that the image must have, beside what the machine's policy demands.
    pub require: Vec<Demand>,
}

/// Plans the copy of one image. Fails if the source or the destination cannot be read.
pub async fn plan_copy(places: &Arc<Places>, request: &CopyRequest) -> Result<PlannedCopy> {
    let source = places.source(&request.source, false).await?;
    let destination = places.destination(&request.destination).await?;
    let wanted = &wanted_at(&request.wanted, &destination).await?;
    let reference = source.reference.as_deref();
    let before = &Before::of(&destination, reference);
    let (chosen, source) = match choose_at(places, &source, reference, wanted, (before, None)).await {
        Ok(chosen) => chosen,
        Err(error) => return Err(source.repository.instead(reference, error).await),
    };
    if let Some(named) = destination.reference.as_ref().and_then(|reference| reference.parse::<Digest>().ok())
        && named != chosen.descriptor.digest
    {
        return Err(Error::invalid(format!(
            "copy to {}: the source is {}",
            request.destination, chosen.descriptor.digest
        )));
    }
    let (source, destination) = (&source, &destination);
    Comparison {
        rule: "copy",
        source,
        reference,
        pin: None,
        tag: None,
        destination,
        wanted,
        require: &request.require,
        always: true,
        before,
        beneath: None,
    }
    .planned(chosen)
    .await
}
