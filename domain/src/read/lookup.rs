//! Many reads, few questions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ports::{StoreError, Task, TaskId, TaskStore};
use tokio::sync::oneshot;

/// How many questions to the store are under way at once; whoever comes meanwhile shares the next.
const QUESTIONS: usize = 2;

/// Asks the store for single tasks: who comes alone asks at once, and those who come while [`QUESTIONS`] are under way are
/// asked for together, each task once.
///
/// Nothing joins a question that is already under way, so an answer is at least as new as every write that was acknowledged
/// before it was asked for.
#[derive(Default)]
pub(super) struct Lookup {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    under_way: usize,
    askers: BTreeMap<TaskId, Vec<oneshot::Sender<Reply>>>,
}

enum Reply {
    Found(Option<Task>),
    Failed(Arc<StoreError>),
    /// To ask for everybody who waits.
    Turn(Turn),
}

/// The right to ask one question. Whoever lets go of it, and be it by hanging up, passes it on to the next who waits.
struct Turn(Arc<Lookup>);

impl Drop for Turn {
    fn drop(&mut self) {
        loop {
            let Some(next) = self.0.lock().next_asker() else {
                return;
            };
            match next.send(Reply::Turn(Self(Arc::clone(&self.0)))) {
                Ok(()) => return,
                // This one hung up. What was made for it is not dropped, or it would be passed on twice.
                Err(refused) => std::mem::forget(refused),
            }
        }
    }
}

impl Waiting {
    /// Takes an asker who waits; if there is none, one question less is under way.
    fn next_asker(&mut self) -> Option<oneshot::Sender<Reply>> {
        loop {
            let Some(mut first) = self.askers.first_entry() else {
                self.under_way -= 1;
                return None;
            };
            let asker = first.get_mut().pop();
            if first.get().is_empty() {
                first.remove();
            }
            if asker.is_some() {
                return asker;
            }
        }
    }
}

impl Lookup {
    /// Reads one task; `None` for an unknown id.
    pub(super) async fn get(
        self: &Arc<Self>,
        store: &dyn TaskStore,
        id: TaskId,
    ) -> Result<Option<Task>, StoreError> {
        let mut turn = None;
        loop {
            let (reply, answer) = oneshot::channel();
            {
                let mut waiting = self.lock();
                waiting.askers.entry(id).or_default().push(reply);
                if turn.is_none() && waiting.under_way < QUESTIONS {
                    waiting.under_way += 1;
                    turn = Some(Turn(Arc::clone(self)));
                }
            }
            if let Some(turn) = turn.take() {
                self.ask(store).await;
                drop(turn);
            }
            match answer.await {
                Ok(Reply::Found(task)) => return Ok(task),
                Ok(Reply::Failed(error)) => return Err(shared(error)),
                Ok(Reply::Turn(own)) => turn = Some(own),
                // Whoever asked for this one hung up.
                Err(_) => {}
            }
        }
    }

    /// One question, for everybody who waits.
    async fn ask(&self, store: &dyn TaskStore) {
        let asked = std::mem::take(&mut self.lock().askers);
        let ids: Vec<TaskId> = asked.keys().copied().collect();
        match store.get(&ids).await {
            Ok(found) => {
                for (task, askers) in found.into_iter().zip(asked.into_values()) {
                    for asker in askers {
                        // Who hung up does not listen.
                        let _ = asker.send(Reply::Found(task.clone()));
                    }
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for asker in asked.into_values().flatten() {
                    let _ = asker.send(Reply::Failed(Arc::clone(&error)));
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing is half done under the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What several askers were told at once.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Shared(Arc<StoreError>);

fn shared(error: Arc<StoreError>) -> StoreError {
    match Arc::try_unwrap(error) {
        Ok(own) => own,
        Err(error) if error.is_transient() => StoreError::Unavailable(Box::new(Shared(error))),
        Err(error) => StoreError::Rejected(Box::new(Shared(error))),
    }
}
