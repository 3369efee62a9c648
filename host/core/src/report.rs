//! The result of a run, for people and machines.

use crate::{Action, Copy, Deletion};
use serde::{Deserialize, Serialize};

/// The result of one copy.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct CopyReport {
    /// The name of the rule that asked for it.
    pub rule: String,
    /// The reference from which it was copied.
    pub source: String,
    /// The reference to which it was copied.
    pub destination: String,
    /// The digest of what was to be copied. `None` means that it could not be found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The digest of what was written, if it was converted while it was copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
    /// The tag under which is kept what the destination's tag named before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// Canonical name of the destination's place.
    #[serde(skip)]
    pub place: String,
    /// What was done.
    pub action: Action,
    /// Why it was done.
    pub reason: String,
    /// Bytes of blobs that were sent for it.
    pub bytes: u64,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the user can do about the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl CopyReport {
    /// The report of an item that was carried out, or for which nothing had to be done.
    pub fn of(copy: &Copy) -> Self {
        CopyReport {
            rule: copy.rule.clone(),
            source: copy.source.display.clone(),
            destination: copy.destination.display.clone(),
            digest: Some(copy.descriptor.digest.to_string()),
            written: None,
            backup: None,
            place: copy.destination.place.clone(),
            action: copy.action,
            reason: copy.reason.to_string(),
            bytes: 0,
            error: None,
            help: None,
        }
    }

    /// The report of a tag that was deleted at the destination.
    pub fn deleted(deletion: &Deletion) -> Self {
        CopyReport {
            digest: Some(deletion.digest.to_string()),
            place: deletion.destination.place.clone(),
            action: Action::Delete,
            reason: deletion.reason().into(),
            ..CopyReport::failed(
                &deletion.rule,
                &deletion.source.display,
                &deletion.destination.display,
                "it failed",
                None,
            )
        }
    }

    /// The report of a tag that a filter, or the source itself, removed from the plan.
    pub fn dropped(rule: &str, source: &str, by: &str, why: Option<&str>) -> Self {
        CopyReport {
            action: Action::Drop,
            reason: match why {
                Some(why) => format!("dropped by {by}: {why}"),
                None => format!("dropped by {by}"),
            },
            ..CopyReport::failed(rule, source, "", "it failed", None)
        }
    }

    /// The report of something that could not be planned or carried out.
    pub fn failed(
        rule: &str,
        source: &str,
        destination: &str,
        reason: &str,
        error: Option<Trouble<'_>>,
    ) -> Self {
        CopyReport {
            rule: rule.into(),
            source: source.into(),
            destination: destination.into(),
            digest: None,
            written: None,
            backup: None,
            place: String::new(),
            action: Action::Fail,
            reason: reason.into(),
            bytes: 0,
            error: error.map(|trouble| format!("failed to {}", trouble.text)),
            help: error.and_then(|trouble| trouble.help).map(str::to_owned),
        }
    }
}

/// Why something failed, for people.
#[derive(Clone, Copy, Debug)]
pub struct Trouble<'a> {
    /// A fragment that fits "failed to {text}".
    pub text: &'a str,
    /// What the user can do about it.
    pub help: Option<&'a str>,
}

/// The counts of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Summary {
    /// Number of images that were copied.
    pub copied: u64,
    /// Number of images that the destination already had.
    pub unchanged: u64,
    /// Number of images that could not be copied, and of rules that could not be planned.
    pub failed: u64,
    /// Number of tags that were deleted at the destination.
    #[serde(default)]
    pub deleted: u64,
    /// Number of images that `require` refused, in rules that leave such images out.
    #[serde(default)]
    pub refused: u64,
    /// Bytes of blobs that were sent.
    pub bytes: u64,
    /// Bytes of blobs that were mounted from another repository instead of being sent.
    pub mounted_bytes: u64,
    /// Elapsed time in seconds.
    pub seconds: f64,
}

/// The summary of a run, and the result of every copy.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The counts.
    pub summary: Summary,
    /// Whether the run was told to stop, so that further copies may be due.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// The results, in the order in which the copies ended.
    pub copies: Vec<CopyReport>,
}

impl Report {
    /// Adds the result of one copy.
    pub fn add(&mut self, copy: CopyReport) {
        match copy.action {
            Action::Copy => self.summary.copied += 1,
            Action::Delete => self.summary.deleted += 1,
            Action::Unchanged => self.summary.unchanged += 1,
            Action::Fail => self.summary.failed += 1,
            Action::Drop => self.summary.refused += 1,
        }
        self.copies.push(copy);
    }
}
