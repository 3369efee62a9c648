//! Checks a saved item of a plan before it is executed, so that exactly what was reviewed is done.

use super::{
    before::{Absent, Before},
    choose::choose_at,
    item::{PlannedCopy, PlannedDeletion},
    observe::Comparison,
};
use crate::trust::Demand;
use crate::{Error, Kind, Places, Result, error::Context, place::OpenReference};
use dray_core::{Action, Copy, Deletion, Endpoint, Reference};
use std::sync::Arc;

/// Observes both ends of a saved item again. Fails with `Conflict` if an end is no longer as the plan saw it, and with
/// another error if an end cannot be opened or asked, or if the image lacks signatures that the rule demands.
pub async fn observe_again(places: &Arc<Places>, saved: &Copy, require: &[Demand]) -> Result<PlannedCopy> {
    let source = opened(places, &saved.source, false).await?;
    let destination = opened(places, &saved.destination, true).await?;
    let reference = saved.source.reference.as_deref();
    // The journal is not used, because somebody may have changed the destination since it was written.
    let before = Before { absent: Absent::Unknown, tag: None, listed: None };
    let (chosen, source) = choose_at(places, &source, reference, &saved.wanted, (&before, None)).await?;
    if chosen.named != saved.seen.source || chosen.descriptor.digest != saved.descriptor.digest {
        let (now, then) = (chosen.named.short(), saved.seen.source.short());
        return Err(changed(format!(
            "copy {}: the plan saw {then} there, and now it is {now}",
            saved.source
        )));
    }
    let (rule, wanted) = (saved.rule.as_str(), &saved.wanted);
    let (source, destination, before) = (&source, &destination, &before);
    let now = Comparison {
        rule,
        source,
        reference,
        pin: None,
        tag: saved.pinned.as_deref(),
        destination,
        wanted,
        require,
        always: false,
        before,
        beneath: None,
    }
    .planned(chosen)
    .await?;
    let (there, then) = (&now.copy.seen.destination, &saved.seen.destination);
    // The plan may have been carried out in part, and what it wanted is there.
    let done = now.copy.action == Action::Unchanged;
    if !done && !then.allows(there) {
        let text = format!("copy to {}: the plan saw {then} there, and now it is {there}", saved.destination);
        return Err(changed(text));
    }
    if now.copy.naming != saved.naming || now.copy.form != saved.form {
        let text =
            format!("copy to {}: the place takes images in another way than before", saved.destination);
        return Err(changed(text));
    }
    let PlannedCopy { copy, manifest, source, destination, checked, lead } = now;
    // Less of the image may be missing than before, but nothing is written that the plan did not name.
    let copy = match done {
        true => copy,
        false => Copy { reason: saved.reason.clone(), backup: saved.backup.clone(), ..copy },
    };
    Ok(PlannedCopy { copy, manifest, source, destination, checked, lead })
}

/// Opens the repository of a saved deletion again. What its tag names is looked at when it is deleted.
///
/// # Errors
/// Fails if a repository cannot be opened or is not the one of the plan, and with `Conflict` if the source has the tag again
/// or does not tell.
pub async fn delete_again(places: &Arc<Places>, saved: &Deletion) -> Result<PlannedDeletion> {
    if saved.is_untagged() {
        let text = format!("delete {}: what needs it now is not in the plan", saved.destination);
        return Err(Error::new(Kind::Conflict, text).help("`dray retain --apply` looks, and deletes at once"));
    }
    let mut destination = opened(places, &saved.destination, true).await?;
    if let Some(tag) = destination.reference.take() {
        // The deletion names the tag itself.
        let written = &mut destination.written.rest;
        *written = written.strip_suffix(&format!(":{tag}")).unwrap_or(written).to_owned();
    }
    if saved.unkept {
        return Ok(PlannedDeletion { deletion: saved.clone(), destination, listed: None });
    }
    let source = opened(places, &saved.source, false).await?;
    let again = match source.repository.resolve(saved.source.reference.as_deref(), None).await {
        Err(error) if error.kind == Kind::NotFound => None,
        again => again.context(|| format!("see whether {} is still gone", saved.source))?,
    };
    if again.is_some() {
        return Err(changed(format!("delete {}: {} is there again", saved.destination, saved.source)));
    }
    Ok(PlannedDeletion { deletion: saved.clone(), destination, listed: None })
}

fn changed(text: String) -> Error {
    Error::new(Kind::Conflict, text).help("plan again, and look at the new plan")
}

/// Opens one end, and checks that it is the one in the plan.
async fn opened(places: &Arc<Places>, end: &Endpoint, writes: bool) -> Result<OpenReference> {
    let written: Reference = end.display.parse().map_err(|error| Error::invalid(format!("{error}")))?;
    let opened = match writes {
        true => places.destination(&written).await?,
        false => places.source(&written, false).await?,
    };
    let named = (opened.place().key(), opened.repository.name.as_str());
    let same_tag = match (&opened.reference, &end.reference) {
        (None, _) => true,
        (Some(opened), named) => Some(opened) == named.as_ref(),
    };
    if named != (end.place.clone(), end.repository.as_str()) || !same_tag {
        return Err(Error::invalid(format!(
            "open {end}: the plan says that it is {} in {}",
            end.repository, end.place
        )));
    }
    Ok(opened)
}
