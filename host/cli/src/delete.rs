//! `dray delete`

use crate::{
    DONE,
    args::{DeleteOptions, Output},
    failure::Failure,
    output::{print_json, say},
    setup,
};
use dray_core::{Action, CopyReport, Reference, Report, Trouble};
use dray_engine::{Error, RemoveOptions, Removed, forget_signatures, remove};
use serde_json::json;
use std::time::Instant;

pub async fn run(options: DeleteOptions) -> Result<u8, Failure> {
    let places = setup::places(&options.access).await?;
    let DeleteOptions { reference, all_tags, dry_run, output, .. } = options;
    let begun = Instant::now();
    let journal = places.journal().filter(|_| !dry_run);
    let run = match journal {
        Some(journal) => Some(journal.begin(&format!("delete {reference}"), None)?),
        None => None,
    };
    let removed = remove(&places, &reference, RemoveOptions { all_tags, dry_run, run }).await;
    if let (Some(journal), Some(run)) = (journal, run) {
        let mut report = Report::default();
        report.add(result(&reference, &removed));
        report.copies.iter().for_each(|copy| journal.did(run, copy));
        report.summary.seconds = begun.elapsed().as_secs_f64();
        journal.end(run, &report.summary, false)?;
    }
    let removed = removed?;
    if removed.manifest && !dry_run {
        // The image is gone, so what cannot be removed of it is no failure.
        if let Err(error) = forget_signatures(&places, &reference, &removed.digest).await {
            tracing::warn!("signatures of {reference} are left: failed to {error}");
        }
    }
    if output == Output::Json {
        print_json(&json!({
            "reference": reference,
            "digest": removed.digest,
            "tags": removed.tags,
            "manifest": removed.manifest,
            "dry_run": dry_run,
        }));
        return Ok(DONE);
    }
    let done = if dry_run { "would delete" } else { "deleted" };
    let digest = removed.digest.short();
    match (&removed.tags[..], removed.manifest) {
        ([tag], false) => say!("{done} the tag {tag} of {reference} (it named {digest})"),
        ([], _) => say!("{done} {digest} of {reference}"),
        (tags, _) => say!("{done} {digest} of {reference}, with the tags {}", tags.join(", ")),
    }
    Ok(DONE)
}

/// What the journal keeps of a deletion.
fn result(reference: &Reference, removed: &Result<Removed, Error>) -> CopyReport {
    let shown = reference.to_string();
    match removed {
        Ok(removed) => CopyReport {
            action: Action::Delete,
            digest: Some(removed.digest.to_string()),
            ..CopyReport::failed("", &shown, &shown, "it was asked for", None)
        },
        Err(error) => {
            let trouble = Trouble { text: &error.text, help: error.help.as_deref() };
            CopyReport::failed("", &shown, &shown, "it failed", Some(trouble))
        }
    }
}
