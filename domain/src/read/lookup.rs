//! Many reads, few questions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ports::{StoreError, Task, TaskId, TaskResult, TaskStore};
use tokio::sync::oneshot;

/// How many questions to the store are under way at once; whoever comes meanwhile shares the next.
const QUESTIONS: usize = 2;

/// Asks the store for single tasks: who comes alone asks at once, and those who come while [`QUESTIONS`] are under way are
/// asked for together, each task once. Of one task no more than one question is under way.
///
/// Nothing joins a question that is already under way, so an answer is at least as new as every write that was acknowledged
/// before it was asked for. That a task is done is true for ever, so that is told to everybody who waits for it.
#[derive(Default)]
pub(super) struct Lookup {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// How many questions are under way.
    under_way: usize,
    /// The tasks that they ask for.
    asked: BTreeSet<TaskId>,
    askers: BTreeMap<TaskId, Vec<Asker>>,
}

type Asker = oneshot::Sender<Reply>;

enum Reply {
    Found(Option<Task>),
    Failed(Arc<StoreError>),
    /// To ask for everybody who waits.
    Turn(Turn),
}

/// What one asker is told.
pub(super) struct Answer {
    /// The task; `None` for an unknown id.
    pub(super) task: Option<Task>,
    /// What is done of all that this one asked for, for itself and for others. It is told to nobody else, so that each result is
    /// cached once.
    pub(super) to_cache: Vec<TaskResult>,
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
    /// Takes an asker who waits for a task that no question is about; if there is none, one question less is under way.
    fn next_asker(&mut self) -> Option<Asker> {
        let Self {
            under_way,
            asked,
            askers,
        } = self;
        loop {
            let free = askers.iter_mut().find(|(id, _)| !asked.contains(id));
            let Some((id, waiting)) = free else {
                *under_way -= 1;
                return None;
            };
            let (id, asker) = (*id, waiting.pop());
            if waiting.is_empty() {
                askers.remove(&id);
            }
            if asker.is_some() {
                return asker;
            }
        }
    }
}

/// A question under way.
struct Question<'lookup> {
    lookup: &'lookup Lookup,
    ids: Vec<TaskId>,
    /// Those who are answered by it, in the order of the ids.
    askers: Vec<Vec<Asker>>,
}

impl Question<'_> {
    /// Tells everybody what was found, and answers what of it is done.
    fn found(mut self, found: Vec<Option<Task>>) -> Vec<TaskResult> {
        let mut done = Vec::new();
        let askers = std::mem::take(&mut self.askers);
        for ((id, task), mut askers) in self.ids.iter().zip(found).zip(askers) {
            if let Some(result) = task.as_ref().and_then(Task::to_result) {
                done.push(result);
                let came_later = self.lookup.lock().askers.remove(id);
                askers.extend(came_later.into_iter().flatten());
            }
            for asker in askers {
                // Who hung up does not listen.
                let _ = asker.send(Reply::Found(task.clone()));
            }
        }
        done
    }

    fn failed(mut self, error: StoreError) {
        let error = Arc::new(error);
        for asker in std::mem::take(&mut self.askers).into_iter().flatten() {
            let _ = asker.send(Reply::Failed(Arc::clone(&error)));
        }
    }
}

impl Drop for Question<'_> {
    /// Its tasks may be asked for again, before those whom it leaves without an answer find that out.
    fn drop(&mut self) {
        let mut waiting = self.lookup.lock();
        for id in &self.ids {
            waiting.asked.remove(id);
        }
    }
}

impl Lookup {
    /// Reads one task.
    pub(super) async fn get(
        self: &Arc<Self>,
        store: &dyn TaskStore,
        id: TaskId,
    ) -> Result<Answer, StoreError> {
        let mut to_cache = Vec::new();
        let mut turn = None;
        loop {
            let (reply, answer) = oneshot::channel();
            {
                let mut waiting = self.lock();
                waiting.askers.entry(id).or_default().push(reply);
                let is_free = waiting.under_way < QUESTIONS && !waiting.asked.contains(&id);
                if turn.is_none() && is_free {
                    waiting.under_way += 1;
                    turn = Some(Turn(Arc::clone(self)));
                }
            }
            if let Some(turn) = turn.take() {
                to_cache.extend(self.ask(store).await);
                drop(turn);
            }
            match answer.await {
                Ok(Reply::Found(task)) => return Ok(Answer { task, to_cache }),
                Ok(Reply::Failed(error)) => return Err(shared(error)),
                Ok(Reply::Turn(own)) => turn = Some(own),
                // Whoever asked for this one hung up.
                Err(_) => {}
            }
        }
    }

    /// One question, for everybody who waits for a task that no other is about. Answers what it found done.
    async fn ask(&self, store: &dyn TaskStore) -> Vec<TaskResult> {
        let question = self.question();
        // Whoever has the turn may wait for a task that was asked for in the meantime.
        if question.ids.is_empty() {
            return Vec::new();
        }
        match store.get(&question.ids).await {
            Ok(found) => question.found(found),
            Err(error) => {
                question.failed(error);
                Vec::new()
            }
        }
    }

    fn question(&self) -> Question<'_> {
        let mut waiting = self.lock();
        let Waiting { asked, askers, .. } = &mut *waiting;
        let (ids, askers): (Vec<_>, Vec<_>) =
            askers.extract_if(.., |id, _| !asked.contains(id)).unzip();
        asked.extend(&ids);
        drop(waiting);
        Question {
            lookup: self,
            ids,
            askers,
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
