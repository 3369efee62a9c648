//! `--progress json`: one JSON object for each event, on standard error. `docs/progress.schema.json` describes them.

use crate::output::{exact, print_aside};
use dray_core::{Copy, CopyReport};
use serde::Serialize;

/// Version of the format.
const VERSION: u32 = 1;

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    dray_progress: u32,
    #[serde(flatten)]
    event: ProgressEvent<'a>,
}

/// What happened.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum ProgressEvent<'a> {
    /// The plan is complete: its images do not become more.
    Planned { images: u64 },
    /// An image begins to move.
    Started { rule: &'a str, source: &'a str, destination: &'a str, digest: String },
    /// How far everything is; at most once a second.
    Moving {
        #[serde(flatten)]
        totals: Totals,
        /// The blobs that move.
        blobs: Vec<MovingBlob>,
        /// Whom it waits for.
        waiting: Vec<Wait>,
    },
    /// The run was told to stop: blobs that are nearly there have so much time to arrive.
    Stopping { grace_seconds: f64 },
    /// Something failed and is tried again.
    Retrying {
        /// The image, at the destination, if it is of one.
        #[serde(skip_serializing_if = "Option::is_none")]
        image: Option<&'a str>,
        error: String,
        after_seconds: f64,
    },
    /// An image is done: `action` says how.
    Finished(&'a CopyReport),
}

/// How far a run is.
#[derive(Serialize)]
pub struct Totals {
    /// Bytes of blobs that were sent.
    pub sent_bytes: u64,
    /// Bytes of blobs that are known to have to be sent; it grows until everything is planned.
    pub expected_bytes: u64,
    pub images_done: u64,
    pub images_planned: u64,
    /// Since the run began.
    pub seconds: f64,
}

/// A blob that moves.
#[derive(Clone, Serialize)]
pub struct MovingBlob {
    /// The image with which it comes, at the destination.
    pub image: String,
    pub digest: String,
    pub size_bytes: u64,
    pub sent_bytes: u64,
}

/// A registry that asked to wait before the next request (429 with Retry-After).
#[derive(Clone, Serialize)]
pub struct Wait {
    pub registry: String,
    /// How much longer.
    pub seconds: f64,
}

impl<'a> ProgressEvent<'a> {
    pub fn started(copy: &'a Copy) -> Self {
        ProgressEvent::Started {
            rule: &copy.rule,
            source: &copy.source.display,
            destination: &copy.destination.display,
            digest: copy.descriptor.digest.to_string(),
        }
    }

    /// Writes it as a line.
    pub fn print(self) {
        let line = Line { dray_progress: VERSION, event: self };
        // Its values are texts and numbers, which can all be written.
        if let Ok(json) = serde_json::to_string(&line) {
            print_aside(&format!("{}\n", exact(&json)));
        }
    }
}
