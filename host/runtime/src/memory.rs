//! What an auth provider remembers while dray runs.

use dray_engine::Secret;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How many texts are kept.
const NAMES: usize = 64;
/// The size in bytes of the longest text that is kept, and of its name.
pub(crate) const TEXT: usize = 64 << 10;
/// No run takes longer.
const LONG: u64 = 365 * 86_400;

struct Kept {
    name: String,
    text: Secret,
    until: Instant,
}

/// The texts of one table of a provider, the oldest first.
#[derive(Default)]
pub(crate) struct Memory(Mutex<VecDeque<Kept>>);

impl Memory {
    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        kept.retain(|kept| kept.until > now);
        kept
    }

    /// `None` means that nothing is kept under this name, or not any more.
    pub fn recall(&self, name: &str) -> Option<Secret> {
        self.kept().iter().find(|kept| kept.name == name).map(|kept| kept.text.clone())
    }

    /// Keeps a text. One that is too long is not kept.
    pub fn keep(&self, name: String, text: Secret, seconds: u64) {
        if name.len().max(text.expose().len()) > TEXT {
            return;
        }
        let until = Instant::now() + Duration::from_secs(seconds.min(LONG));
        let mut kept = self.kept();
        kept.retain(|kept| kept.name != name);
        if kept.len() == NAMES {
            kept.pop_front();
        }
        kept.push_back(Kept { name, text, until });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_few_short_and_end() {
        let memory = Memory::default();
        let recalled = |memory: &Memory, name: &str| memory.recall(name).map(|text| text.expose().to_owned());
        memory.keep("a".into(), Secret::new("1"), 60);
        memory.keep("a".into(), Secret::new("2"), 60);
        assert_eq!(recalled(&memory, "a"), Some("2".into()));
        memory.keep("gone".into(), Secret::new("3"), 0);
        assert_eq!(recalled(&memory, "gone"), None);
        memory.keep("long".into(), Secret::new("x".repeat(TEXT + 1)), 60);
        assert_eq!(recalled(&memory, "long"), None);
        for number in 0..NAMES {
            memory.keep(number.to_string(), Secret::new("4"), u64::MAX);
        }
        assert_eq!(recalled(&memory, "a"), None);
        assert_eq!(recalled(&memory, "0"), Some("4".into()));
    }
}
