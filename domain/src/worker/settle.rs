//! The third stage: what became of runs is written, whatever finished meanwhile in one commit.

use std::collections::VecDeque;
use std::sync::Arc;

use ports::store::TransitionOutcome;
use ports::{
    ClaimId, DeadLetter, Dependency, Event, Next, Spent, Step, StoreError, TaskEvent, TaskId,
    TaskResult, TaskStatus, TraceContext, Transition, Work, WriteOutcome,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;

use super::{Held, InHand, Life, Ran};
use crate::again::{Backoff, OF_A_WORKER, SOON};
use crate::gather::{FOR_THE_STORE, Gather};
use crate::lifecycle;

/// A task that left the hands of this worker, and what the world must be told of it.
pub(super) struct Settled {
    pub(super) claim: ClaimId,
    pub(super) news: Option<News>,
    /// What is told of its new state.
    pub(super) event: Option<TaskEvent>,
    /// Someone else moved it: what came of it then may still have to be announced for this claim.
    pub(super) is_late: bool,
    pub(super) trace: Option<TraceContext>,
    _in_hand: InHand,
}

pub(super) enum News {
    Result(TaskResult),
    Letter(DeadLetter),
}

struct Move {
    held: Held,
    transition: Transition,
}

pub(super) async fn settle_all(
    life: Arc<Life>,
    mut ran: UnboundedReceiver<Ran>,
    announce: UnboundedSender<Settled>,
) {
    let mut batch = Vec::new();
    let mut gather = Gather::new(FOR_THE_STORE);
    while ran.recv_many(&mut batch, life.config.batch.max(1)).await > 0 {
        gather.began(Instant::now(), batch.len());
        let moves = batch.drain(..).map(|ran| life.decide(ran)).collect();
        for settled in life.write(moves).await {
            let _ = announce.send(settled);
        }
        gather.wait().await;
    }
}

impl Life {
    fn decide(&self, ran: Ran) -> Move {
        let (to, spent) = match ran.outcome {
            Ok(result) => (Next::Done { result }, Spent::Attempt),
            Err(failure) => self.config.retry.after_failure(
                &ran.held.task,
                &failure,
                self.ports.random.as_ref(),
            ),
        };
        let transition = lifecycle::settle(&ran.held.task, to, spent);
        Move {
            held: ran.held,
            transition,
        }
    }

    /// Writes until the store has answered. A batch that it refuses for its data is halved until the culprit stands
    /// alone; that task fails.
    async fn write(&self, moves: Vec<Move>) -> Vec<Settled> {
        let started = Instant::now();
        let mut settled = Vec::with_capacity(moves.len());
        let mut parts = VecDeque::from([moves]);
        while let Some(mut part) = parts.pop_front() {
            let transitions: Vec<Transition> =
                part.iter().map(|step| step.transition.clone()).collect();
            match self.write_with_patience(&transitions).await {
                Ok(outcomes) => {
                    let steps = part.into_iter().zip(outcomes);
                    settled
                        .extend(steps.map(|(step, outcome)| self.settled(step, outcome, started)));
                }
                Err(_) if part.len() > 1 => {
                    let rest = part.split_off(part.len() / 2);
                    parts.push_front(rest);
                    parts.push_front(part);
                }
                Err(error) => {
                    self.failed(Dependency::Store, "settle", &error);
                    for step in &mut part {
                        step.transition.to = Next::Failed {
                            error: "the task store refused the result".into(),
                        };
                    }
                    parts.push_front(part);
                }
            }
        }
        settled
    }

    /// Answers with an error only when the store refused the data.
    async fn write_with_patience(
        &self,
        transitions: &[Transition],
    ) -> Result<Vec<TransitionOutcome>, StoreError> {
        let mut backoff = Backoff::new(SOON, OF_A_WORKER);
        let mut failing = false;
        loop {
            match self.ports.store.transition(transitions).await {
                Ok(outcomes) => {
                    if failing {
                        self.recovered(Dependency::Store);
                    }
                    self.batched(Step::Settle, transitions.len());
                    return Ok(outcomes);
                }
                Err(error) if error.is_transient() => {
                    failing = true;
                    self.failed(Dependency::Store, "settle", &error);
                    backoff.pause().await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn settled(&self, step: Move, outcome: TransitionOutcome, started: Instant) -> Settled {
        let Held {
            task,
            claim,
            trace,
            in_hand: _in_hand,
        } = step.held;
        let id = task.id;
        let updated_at = match (outcome.write, outcome.updated_at) {
            (WriteOutcome::Applied | WriteOutcome::AlreadyApplied, Some(updated_at)) => updated_at,
            _ => {
                self.trace_settle(id, None, trace.as_ref(), started);
                self.ports.observer.observe(&Event::Late {
                    id,
                    trace: trace.clone(),
                });
                return Settled {
                    claim,
                    news: None,
                    event: None,
                    is_late: true,
                    trace,
                    _in_hand,
                };
            }
        };
        let status = step.transition.to.status();
        self.trace_settle(id, Some(status), trace.as_ref(), started);
        self.ports.observer.observe(&Event::Settled {
            id,
            status,
            elapsed_micros: (status == TaskStatus::Done)
                .then(|| updated_at.micros_since(task.created_at)),
            trace: trace.clone(),
        });
        let attempts = match step.transition.spent {
            Spent::Attempt => task.attempts.saturating_add(1),
            _ => task.attempts,
        };
        let news = match step.transition.to {
            Next::Done { result } => Some(News::Result(TaskResult {
                id,
                result,
                processed_at: updated_at,
            })),
            Next::Failed { error } => Some(News::Letter(DeadLetter::Failed {
                id,
                payload: task.payload,
                priority: task.priority,
                attempts,
                error,
                failed_at: updated_at,
            })),
            Next::Pending { .. } | Next::Cancelled => None,
        };
        Settled {
            claim,
            news,
            event: Some(TaskEvent {
                id,
                status,
                fence: step.transition.fence.next(),
                at: updated_at,
            }),
            is_late: false,
            trace,
            _in_hand,
        }
    }

    fn trace_settle(
        &self,
        id: TaskId,
        status: Option<TaskStatus>,
        parent: Option<&TraceContext>,
        started: Instant,
    ) {
        if let Some(context) = self.begin_span(parent) {
            let work = Work::Settle { id, status };
            self.end_span(context, parent.cloned(), work, started.elapsed(), None);
        }
    }
}
