//! What a run did, for people and machines.

use crate::{Action, Copy};
use serde::{Deserialize, Serialize};

/// The result of one copy.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct CopyReport {
    /// The rule that asked for it.
    pub rule: String,
    /// From where.
    pub source: String,
    /// To where.
    pub destination: String,
    /// What was to be copied; none where it could not be learnt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What was written, where it was converted on its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
    /// Canonical name of the destination's place.
    #[serde(skip)]
    pub place: String,
    /// What was done.
    pub action: Action,
    /// Why.
    pub reason: String,
    /// Bytes of blobs that were sent for it.
    pub bytes: u64,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl CopyReport {
    /// Of an item that was carried out, or that needed nothing.
    pub fn of(copy: &Copy) -> Self {
        CopyReport {
            rule: copy.rule.clone(),
            source: copy.source.display.clone(),
            destination: copy.destination.display.clone(),
            digest: Some(copy.descriptor.digest.to_string()),
            written: None,
            place: copy.destination.place.clone(),
            action: copy.action,
            reason: copy.reason.to_string(),
            bytes: 0,
            error: None,
            help: None,
        }
    }

    /// Of what a filter, or the source itself, took out of a plan.
    pub fn dropped(rule: &str, source: &str, by: &str) -> Self {
        CopyReport {
            action: Action::Drop,
            reason: format!("dropped by {by}"),
            ..CopyReport::failed(rule, source, "", "it failed", None)
        }
    }

    /// Of what could not be planned or carried out.
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
    /// What to do about it.
    pub help: Option<&'a str>,
}

/// The counts of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Summary {
    /// Images copied.
    pub copied: u64,
    /// Images that the destination had already.
    pub unchanged: u64,
    /// Images that could not be copied, and rules that could not be planned.
    pub failed: u64,
    /// Bytes of blobs sent.
    pub bytes: u64,
    /// Bytes of blobs that were mounted from another repository instead of being sent.
    pub mounted_bytes: u64,
    /// Wall time.
    pub seconds: f64,
}

/// A run's summary, and the result of every copy.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The counts.
    pub summary: Summary,
    /// In the order in which they ended.
    pub copies: Vec<CopyReport>,
}

impl Report {
    /// Adds the result of one copy.
    pub fn add(&mut self, copy: CopyReport) {
        match copy.action {
            Action::Copy => self.summary.copied += 1,
            Action::Unchanged => self.summary.unchanged += 1,
            Action::Fail => self.summary.failed += 1,
            Action::Drop => return,
        }
        self.copies.push(copy);
    }
}
