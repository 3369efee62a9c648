//! The actions of requests. Registries limit each action separately, so each has a window of its own.

use super::window::Window;
use std::sync::Arc;

#[derive(Clone, Copy)]
pub(crate) enum Action {
    /// GET or HEAD of a document. Registries count both together.
    Read,
    /// GET of a blob.
    Download,
    /// POST: begins an upload or mounts a blob.
    Begin,
    /// A request that has a blob as its body.
    Upload,
    /// Any other request: writes a manifest or deletes something.
    Write,
}

impl Action {
    /// The action of a request without a blob.
    pub fn of(method: &str) -> Self {
        match method {
            "GET" | "HEAD" => Action::Read,
            "POST" => Action::Begin,
            _ => Action::Write,
        }
    }
}

/// The windows of a host: how many requests of each action it gets at once.
pub(crate) struct Windows([Arc<Window>; 5]);

impl Windows {
    /// Creates windows that open up to `ceiling` requests.
    pub fn new(ceiling: usize) -> Self {
        Windows(std::array::from_fn(|_| Window::new(ceiling)))
    }

    pub fn of(&self, action: Action) -> &Arc<Window> {
        &self.0[action as usize]
    }
}
