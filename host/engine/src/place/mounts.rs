//! What a place says to linking a blob from another repository.

use crate::lock;
use std::{collections::HashSet, sync::Mutex};

/// Pairs of repositories, one after the other, after whose refusals a place is taken to link nothing.
const ENOUGH: usize = 8;

/// What was learnt of a place in a run: a refusal is not asked for again.
#[derive(Default)]
pub(crate) struct Mounts(Mutex<State>);

#[derive(Default)]
struct State {
    /// From, to.
    refused: HashSet<(String, String)>,
    /// Refusals since something was linked last.
    in_a_row: usize,
}

impl Mounts {
    /// Whether linking from one repository to another is worth a request.
    pub fn may(&self, from: &str, to: &str) -> bool {
        let state = lock(&self.0);
        state.in_a_row < ENOUGH && !state.refused.contains(&(from.to_owned(), to.to_owned()))
    }

    /// A request was answered, or refused.
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
