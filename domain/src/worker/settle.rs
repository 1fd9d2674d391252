//! The third stage: what became of runs is written, whatever finished meanwhile in one commit.

use std::sync::Arc;

use ports::store::TransitionOutcome;
use ports::{
    ClaimId, DeadLetter, Dependency, Event, Next, Spent, Step, TaskEvent, TaskId, TaskResult,
    TaskStatus, TraceContext, Transition, Work, WriteOutcome,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;

use super::{Held, InHand, Life, Ran};
use crate::again::{Backoff, OF_A_WORKER, SOON};
use crate::gather::{FOR_THE_STORE, Gather};
use crate::lifecycle;
use crate::moves::move_each;

/// A task that left the hands of this worker, and what the world must be told of it.
pub(super) struct Settled {
    pub(super) claim: ClaimId,
    pub(super) news: Option<News>,
    /// What is told of its new state.
    pub(super) event: Option<TaskEvent>,
    /// Someone else moved it: what came of it then may still have to be announced for this claim.
    pub(super) is_late: bool,
    /// The store takes nothing of what came of it: it is still in the hands of this claim, which must not be released.
    pub(super) is_given_up: bool,
    pub(super) trace: Option<TraceContext>,
    _in_hand: InHand,
}

pub(super) enum News {
    Result(TaskResult),
    Letter(DeadLetter),
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
        let (held, moves) = batch.drain(..).map(|ran| life.decide(ran)).unzip();
        for settled in life.write(held, moves).await {
            let _ = announce.send(settled);
        }
        gather.wait().await;
    }
}

impl Life {
    fn decide(&self, ran: Ran) -> (Held, Transition) {
        let (to, spent) = match ran.outcome {
            Ok(result) => (Next::Done { result }, Spent::Attempt),
            Err(failure) => self.config.retry.after_failure(
                &ran.held.task,
                &failure,
                self.ports.random.as_ref(),
            ),
        };
        let transition = lifecycle::settle(&ran.held.task, to, spent);
        (ran.held, transition)
    }

    /// Writes until the store has answered. A task whose outcome it refuses fails; one of which it refuses that too is given up.
    async fn write(&self, held: Vec<Held>, moves: Vec<Transition>) -> Vec<Settled> {
        let mut settled = Vec::with_capacity(moves.len());
        let (held, mut moves) = self.write_what_is_taken(held, moves, &mut settled).await;
        for step in &mut moves {
            step.to = Next::Failed {
                error: "the task store refused the result".into(),
            };
        }
        let (held, _) = self.write_what_is_taken(held, moves, &mut settled).await;
        settled.extend(held.into_iter().map(|held| self.give_up(held)));
        settled
    }

    /// Adds what the store took, and answers what it refused.
    async fn write_what_is_taken(
        &self,
        held: Vec<Held>,
        moves: Vec<Transition>,
        settled: &mut Vec<Settled>,
    ) -> (Vec<Held>, Vec<Transition>) {
        if moves.is_empty() {
            return (held, moves);
        }
        let started = Instant::now();
        let outcomes = self.write_with_patience(&moves).await;
        let mut refused = (Vec::new(), Vec::new());
        for ((held, step), outcome) in held.into_iter().zip(moves).zip(outcomes) {
            match outcome {
                Some(outcome) => settled.push(self.settled(held, step, outcome, started)),
                None => refused.extend([(held, step)]),
            }
        }
        refused
    }

    /// Answers what came of each; `None` is what the store refuses.
    async fn write_with_patience(&self, moves: &[Transition]) -> Vec<Option<TransitionOutcome>> {
        let mut backoff = Backoff::new(SOON, OF_A_WORKER);
        let mut failing = false;
        loop {
            match move_each(&self.ports, "settle", moves).await {
                Ok(outcomes) => {
                    if failing {
                        self.recovered(Dependency::Store);
                    }
                    self.batched(Step::Settle, moves.len());
                    return outcomes;
                }
                Err(error) => {
                    failing = true;
                    self.failed(Dependency::Store, "settle", &error);
                    backoff.pause().await;
                }
            }
        }
    }

    /// Asking once more would be in vain, and hold up the others. The task goes back when its claim has ended (see `pay_owed`).
    fn give_up(&self, held: Held) -> Settled {
        self.ports.observer.observe(&Event::GivenUp {
            id: held.task.id,
            trace: held.trace.clone(),
        });
        Settled {
            claim: held.claim,
            news: None,
            event: None,
            is_late: false,
            is_given_up: true,
            trace: held.trace,
            _in_hand: held.in_hand,
        }
    }

    fn settled(
        &self,
        held: Held,
        step: Transition,
        outcome: TransitionOutcome,
        started: Instant,
    ) -> Settled {
        let Held {
            task,
            claim,
            trace,
            in_hand: _in_hand,
        } = held;
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
                    is_given_up: false,
                    trace,
                    _in_hand,
                };
            }
        };
        let status = step.to.status();
        self.trace_settle(id, Some(status), trace.as_ref(), started);
        self.ports.observer.observe(&Event::Settled {
            id,
            status,
            elapsed_micros: (status == TaskStatus::Done)
                .then(|| updated_at.micros_since(task.created_at)),
            trace: trace.clone(),
        });
        let attempts = match step.spent {
            Spent::Attempt => task.attempts.saturating_add(1),
            _ => task.attempts,
        };
        let news = match step.to {
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
                fence: step.fence.next(),
                at: updated_at,
            }),
            is_late: false,
            is_given_up: false,
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
