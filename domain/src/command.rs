//! What someone may order about a task that is stored: that it is called off, or tried again.

use std::time::Duration;

use ports::{
    Dependency, Event, Next, Spent, StoreError, Task, TaskId, TaskStatus, Transition,
    TransitionOutcome, WriteOutcome,
};
use tokio::time::timeout;

use crate::again::for_a_client;
use crate::lifecycle::{self, Trigger};
use crate::resolve::event_of;
use crate::{Ports, news, tell_of_failure};

/// How long the log may take to take the news before the client is answered without.
const TELLING: Duration = Duration::from_millis(500);

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The task is as it was ordered to be, by this order or an earlier one.
    Obeyed(Box<Task>),
    /// Its status does not allow it; nothing changed.
    Refused(TaskStatus),
    /// No such task.
    Unknown,
}

/// Calls tasks off and has failed ones tried again. Each is one compare-and-set, which wins or loses against whatever else
/// moves the task at that moment; one that lost looks again.
#[derive(Clone)]
pub struct Commander {
    ports: Ports,
}

impl Commander {
    /// One on these ports.
    #[must_use]
    pub fn new(ports: &Ports) -> Self {
        Self {
            ports: ports.clone(),
        }
    }

    /// Cancels a task that waits or is in hand. A worker that runs it is told within 2 s; what it answers is dropped.
    /// `Obeyed` also when it was cancelled before; `Refused` when it is done or failed.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer; whether the task was cancelled is then unknown. Ask again.
    pub async fn cancel(&self, id: TaskId) -> Result<Verdict, StoreError> {
        self.order(id, Trigger::Cancel, Next::Cancelled, Spent::Nothing)
            .await
    }

    /// Has a failed task tried again, at once, with its attempts and rescues counted from 0. `Refused` for any other.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer; whether the task waits again is then unknown.
    pub async fn retry(&self, id: TaskId) -> Result<Verdict, StoreError> {
        let again = Next::Pending {
            delay: Duration::ZERO,
            error: None,
        };
        self.order(id, Trigger::Revive, again, Spent::Reset).await
    }

    async fn order(
        &self,
        id: TaskId,
        trigger: Trigger,
        to: Next,
        spent: Spent,
    ) -> Result<Verdict, StoreError> {
        loop {
            let Some(task) = self.read(id).await? else {
                return Ok(Verdict::Unknown);
            };
            if trigger == Trigger::Cancel && task.status == TaskStatus::Cancelled {
                // Whoever asked before may have crashed between the move and the news of it, and the audit takes its time.
                self.tell(&task).await;
                return Ok(Verdict::Obeyed(Box::new(task)));
            }
            if lifecycle::next(task.status, trigger).is_none() {
                return Ok(Verdict::Refused(task.status));
            }
            let transition = lifecycle::advance(&task, to.clone(), spent);
            let outcome = self.write_with_patience(transition).await?;
            // Each time that it lost, the task has moved: towards rest, which ends this.
            let (WriteOutcome::Applied | WriteOutcome::AlreadyApplied, Some(updated_at)) =
                (outcome.write, outcome.updated_at)
            else {
                continue;
            };
            self.ports.observer.observe(&match trigger {
                Trigger::Cancel => Event::Cancelled { id },
                _ => Event::Revived { id },
            });
            let counted = match spent {
                Spent::Reset => (0, 0),
                _ => (task.attempts, task.rescues),
            };
            let moved = Task {
                status: to.status(),
                fence: task.fence.next(),
                attempts: counted.0,
                rescues: counted.1,
                updated_at,
                ..task
            };
            self.tell(&moved).await;
            return Ok(Verdict::Obeyed(Box::new(moved)));
        }
    }

    /// A client does not wait for a log that is down. What was in hand is told again by the worker that held it, and whatever
    /// was cancelled by the audit; whoever waits for the task looks for himself.
    async fn tell(&self, task: &Task) {
        let event = [event_of(task)];
        if let Err(elapsed) = timeout(TELLING, news::tell(&self.ports, &event)).await {
            tell_of_failure(&*self.ports.observer, Dependency::Log, "tell", &elapsed);
        }
    }

    async fn read(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        let ids = [id];
        let found = for_a_client(&self.ports, "read", || self.ports.store.get(&ids)).await?;
        Ok(found.into_iter().flatten().next())
    }

    /// Repeats the very same move while the store is unavailable: after a commit whose answer was lost the repeat finds it
    /// made.
    async fn write_with_patience(
        &self,
        transition: Transition,
    ) -> Result<TransitionOutcome, StoreError> {
        let moves = [transition];
        let store = &self.ports.store;
        let written = for_a_client(&self.ports, "command", || store.transition(&moves));
        let outcome = written.await?.first().copied();
        outcome.ok_or_else(|| StoreError::Rejected("the store gave no answer to a move".into()))
    }
}
