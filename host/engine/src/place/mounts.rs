//! Remembers whether a place links blobs from one of its repositories to another (mounts).

use crate::lock;
use std::{collections::HashSet, sync::Mutex};

/// After this many pairs of repositories were refused in a row, we assume that the place links nothing.
const ENOUGH: usize = 8;

/// What was learnt about a place in this run. A pair that was refused is not tried again.
#[derive(Default)]
pub(crate) struct Mounts(Mutex<State>);

#[derive(Default)]
struct State {
    /// Pairs of a source and a destination repository.
    refused: HashSet<(String, String)>,
    /// The number of refusals since the last successful link.
    in_a_row: usize,
}

impl Mounts {
    /// Whether linking from one repository to another is worth a request.
    pub fn may(&self, from: &str, to: &str) -> bool {
        let state = lock(&self.0);
        state.in_a_row < ENOUGH && !state.refused.contains(&(from.to_owned(), to.to_owned()))
    }

    /// Records the answer to a request to link a blob.
    pub fn answered(&self, from: &str, to: &str, refused: bool) {
        let mut state = lock(&self.0);
        if !refused {
            state.in_a_row = 0;
        } else if state.refused.insert((from.to_owned(), to.to_owned())) {
            state.in_a_row += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_remembered() {
        let mounts = Mounts::default();
        mounts.answered("a", "b", true);
        assert!(!mounts.may("a", "b") && mounts.may("a", "c"));
        (0..ENOUGH).for_each(|to| mounts.answered("a", &to.to_string(), true));
        assert!(!mounts.may("x", "y"));
        mounts.answered("x", "y", false);
        assert!(mounts.may("x", "y") && !mounts.may("a", "b"));
    }
}
