//! Takes turns where a place keeps all of its names in one document, and lets those who wait be named together.

use crate::{Result, contract::NewName, lock};
use std::{collections::VecDeque, mem, sync::Mutex};
use tokio::sync::{Mutex as Turn, MutexGuard, oneshot};

/// How many images are named in one step at most, so that a step takes a bounded time.
const AT_ONCE: usize = 256;

/// A name that somebody waits for.
struct Waiting {
    name: NewName,
    answer: oneshot::Sender<Result<()>>,
}

/// The turns of one place.
#[derive(Default)]
pub(super) struct Names {
    waiting: Mutex<VecDeque<Waiting>>,
    turn: Turn<()>,
}

impl Names {
    /// Waits for the turn of somebody who publishes an image by itself.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Names an image together with those that wait by then. One of them has the turn and calls `step` for all. `None` means
    /// that the step failed for good, or that the one who called it was interrupted, so that nothing is known of this name.
    pub async fn name<S>(&self, name: NewName, step: impl Fn(Vec<NewName>) -> S) -> Option<Result<()>>
    where
        S: Future<Output = Result<Vec<Result<()>>>>,
    {
        let (answer, mut told) = oneshot::channel();
        lock(&self.waiting).push_back(Waiting { name, answer });
        let _turn = self.turn.lock().await;
        loop {
            match told.try_recv() {
                Ok(result) => return Some(result),
                Err(oneshot::error::TryRecvError::Closed) => return None,
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            let (names, answers) = self.take();
            match step(names).await {
                Ok(results) => answers.into_iter().zip(results).for_each(|(answer, result)| {
                    // Who waits no longer needs no answer.
                    let _ = answer.send(result);
                }),
                // A place that asks for patience is not asked once for each of them instead.
                Err(error) if error.is_transient() => answers.into_iter().for_each(|answer| {
                    let _ = answer.send(Err(error.clone()));
                }),
                Err(error) => tracing::info!("naming {} images one by one: failed to {error}", answers.len()),
            }
        }
    }

    /// Those who wait longest, as far as one step takes them and they still wait.
    fn take(&self) -> (Vec<NewName>, Vec<oneshot::Sender<Result<()>>>) {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|one| !one.answer.is_closed());
        let most = waiting.len().min(AT_ONCE);
        let rest = waiting.split_off(most);
        mem::replace(&mut *waiting, rest).into_iter().map(|one| (one.name, one.answer)).unzip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, Kind};
    use dray_core::{Descriptor, Digest};
    use futures_util::future::join_all;

    fn name(tag: usize) -> NewName {
        NewName {
            repository: "r".into(),
            manifest: Descriptor::new("m", Digest::of(b"x"), 1),
            tag: Some(tag.to_string()),
        }
    }

    #[tokio::test]
    async fn those_who_wait_are_named_together_and_each_gets_its_own_answer() {
        let (names, steps) = (Names::default(), Mutex::new(Vec::new()));
        let step = async |given: Vec<NewName>| {
            lock(&steps).push(given.len());
            tokio::task::yield_now().await;
            let answer = |name: &NewName| match name.tag.as_deref() {
                Some("7") => Err(Error::new(Kind::Denied, "name it")),
                _ => Ok(()),
            };
            Ok(given.iter().map(answer).collect())
        };
        let answers = join_all((0..600).map(|tag| names.name(name(tag), &step))).await;
        for (tag, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.map(|answer| answer.is_ok()), Some(tag != 7), "{tag}");
        }
        // The first finds nobody else.
        assert_eq!(*lock(&steps), [1, 256, 256, 87]);
    }

    #[tokio::test]
    async fn a_step_that_fails_is_told_to_all() {
        let names = Names::default();
        let step = async |_: Vec<NewName>| Err(Error::new(Kind::Transient, "name them"));
        let answers = join_all((0..3).map(|tag| names.name(name(tag), step))).await;
        assert!(answers.iter().all(|answer| answer.as_ref().is_some_and(Result::is_err)));
        let step = async |_: Vec<NewName>| Err(Error::new(Kind::Plugin, "name them"));
        assert!(join_all((0..3).map(|tag| names.name(name(tag), step))).await.iter().all(Option::is_none));
    }

    #[tokio::test]
    async fn an_interrupted_step_is_unknown_to_those_it_had_taken() {
        let (names, taken) = (Names::default(), Mutex::new(Vec::new()));
        let step = async |given: Vec<NewName>| {
            lock(&taken).extend(given.iter().filter_map(|name| name.tag.clone()));
            std::future::pending().await
        };
        let turn = names.turn().await;
        let mut waiting: Vec<_> = (0..3).map(|tag| Box::pin(names.name(name(tag), &step))).collect();
        for one in &mut waiting {
            assert!(futures_util::poll!(one).is_pending());
        }
        // Nobody waits for the last one any more.
        drop(waiting.pop());
        drop(turn);
        assert!(futures_util::poll!(&mut waiting[0]).is_pending());
        assert_eq!(*lock(&taken), ["0", "1"]);
        drop(waiting.remove(0));
        assert!(waiting.remove(0).await.is_none());
    }
}
