//! `dray delete`

use crate::{
    DONE,
    args::{DeleteOptions, Output},
    failure::Failure,
    output::{print_json, say},
    setup,
};
use dray_engine::{RemoveOptions, forget_signatures, remove};
use serde_json::json;

pub async fn run(options: DeleteOptions) -> Result<u8, Failure> {
    let places = setup::places(&options.access)?;
    let DeleteOptions { reference, all_tags, dry_run, output, .. } = options;
    let removed = remove(&places, &reference, RemoveOptions { all_tags, dry_run }).await?;
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
