//! `dray copy`: a plan of one image.

use crate::{
    Error, Places, Result,
    plan::compare::{Before, ImageChoice, PlannedCopy, Wanted, compare, resolve},
};
use dray_core::{Digest, Form, Reference, policy::Referrers};
use std::sync::Arc;

/// One image to be copied.
pub struct CopyRequest {
    /// From where.
    pub source: Reference,
    /// To where; without a tag, the source's.
    pub destination: Reference,
    /// Which part of it.
    pub choice: ImageChoice,
    /// In which form.
    pub form: Form,
    /// Copy layers that their makers do not let others distribute.
    pub include_foreign: bool,
    /// Files of the destination may be further names of the source's.
    pub link: bool,
}

/// Plans the copy of one image.
///
/// # Errors
/// Where either end cannot be read.
pub async fn plan_copy(places: &Arc<Places>, request: &CopyRequest) -> Result<PlannedCopy> {
    let source = places.spot(&request.source, false).await?;
    let destination = places.destination(&request.destination).await?;
    let wanted = Wanted {
        rule: "copy".into(),
        choice: request.choice.clone(),
        referrers: Referrers::No,
        include_foreign: request.include_foreign,
        strict: true,
        link: request.link,
        form: request.form,
    };
    let wanted = wanted.at(&destination).await?;
    let reference = source.reference.clone();
    let before = Before::of(&destination, reference.as_deref());
    let resolved = resolve(&source, reference.as_deref(), &wanted, &before).await?;
    if let Some(named) = destination.reference.as_ref().and_then(|reference| reference.parse::<Digest>().ok())
        && named != resolved.descriptor.digest
    {
        return Err(Error::invalid(format!(
            "copy to {}: the source is {}",
            request.destination, resolved.descriptor.digest
        )));
    }
    compare(&source, reference.as_deref(), &destination, &wanted, resolved, &before).await
}
