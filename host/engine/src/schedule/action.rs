//! What a request does, as registries limit it: each action has a window of its own.

use super::window::Window;
use std::sync::Arc;

#[derive(Clone, Copy)]
pub(crate) enum Action {
    /// GET or HEAD of a document: registries count the two together.
    Read,
    /// GET of a blob.
    Download,
    /// POST: uploads are begun, blobs are mounted.
    Begin,
    /// A request with a blob in it.
    Upload,
    /// Any other: manifests are written, things are deleted.
    Write,
}

impl Action {
    /// What a request without a blob does.
    pub fn of(method: &str) -> Self {
        match method {
            "GET" | "HEAD" => Action::Read,
            "POST" => Action::Begin,
            _ => Action::Write,
        }
    }
}

/// How many requests of each action a host has at once.
pub(crate) struct Windows([Arc<Window>; 5]);

impl Windows {
    /// Those that open as far as `ceiling`.
    pub fn new(ceiling: usize) -> Self {
        Windows(std::array::from_fn(|_| Window::new(ceiling)))
    }

    pub fn of(&self, action: Action) -> &Arc<Window> {
        &self.0[action as usize]
    }
}
