//! The second stage: runs of the processing function, many at once, each with a deadline.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ports::{Beginning, Event, Failure, Job, RunOutcome, Work};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{Held, Life, Placed, Ran};
use crate::turn::{guarded, tell_of_panic};

pub(super) async fn run_all(
    life: Arc<Life>,
    mut claimed: UnboundedReceiver<Vec<Placed>>,
    settle: UnboundedSender<Ran>,
) {
    let stage = Arc::new(Stage {
        life,
        settle,
        placed: Mutex::default(),
    });
    let mut runs = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = runs.join_next(), if !runs.is_empty() => {}
            batch = claimed.recv() => {
                let Some(batch) = batch else { break };
                let count = batch.len();
                stage.placed().extend(batch);
                for _ in 0..count {
                    let stage = Arc::clone(&stage);
                    runs.spawn(async move { stage.run_next().await });
                }
            }
        }
    }
    while runs.join_next().await.is_some() {}
}

/// What the runs share.
struct Stage {
    life: Arc<Life>,
    settle: UnboundedSender<Ran>,
    /// What has a place and was not begun, in the order in which it is to begin: claim after claim, and of each the most urgent first.
    placed: Mutex<VecDeque<Placed>>,
}

impl Stage {
    /// Runs whatever is to begin next. A runtime with several threads begins what was spawned in an order of its own, so a run is
    /// told its task only then.
    async fn run_next(&self) {
        let Some(Placed { mut held, slot }) = self.placed().pop_front() else {
            return;
        };
        // The function's own panics are told of as runs; what is caught here came from elsewhere, say from its choice of a deadline. The
        // task must come to the next stage all the same, or it would be in hand for as long as the worker lives.
        let outcome = match guarded(self.life.run_one(&held)).await {
            Ok(outcome) => outcome,
            Err(text) => {
                tell_of_panic(&*self.life.ports.observer, "run", text.clone());
                Err(panicked(&text))
            }
        };
        drop(slot);
        held.in_hand
            .weight
            .has_result(outcome.as_ref().map_or(0, String::len));
        let _ = self.settle.send(Ran { held, outcome });
    }

    fn placed(&self) -> MutexGuard<'_, VecDeque<Placed>> {
        self.placed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Life {
    async fn run_one(&self, held: &Held) -> Result<String, Failure> {
        let run = self.running.enter(&held.task);
        let cancellation = run.cancellation();
        let span = self.begin_span(held.trace.as_ref());
        let attempt = held.task.attempts.saturating_add(1);
        let job = Job {
            id: held.task.id,
            payload: held.task.payload.clone(),
            priority: held.task.priority,
            attempt,
            fence: held.task.fence,
            cancellation: cancellation.clone(),
            beginning: Beginning::default(),
            trace: span.clone().or_else(|| held.trace.clone()),
        };
        let deadline = self
            .processor
            .timeout(&job)
            .unwrap_or(self.config.task_timeout);
        let waited = held.task.claimed_at.micros_since(held.task.waiting_since);
        self.ports.observer.observe(&Event::Started {
            id: held.task.id,
            waited: Duration::from_micros(u64::try_from(waited).unwrap_or(0)),
        });
        let started = Instant::now();
        let ended = self.run_with_deadline(job, deadline).await;
        let began = !matches!(ended, Ended::Unbegun);
        let (how, outcome) = match ended {
            Ended::Answered(answer) => {
                let outcome = answer.and_then(|result| self.check_result(result));
                (outcome_of(&outcome), outcome)
            }
            Ended::Panicked(text) => (RunOutcome::Panic, Err(panicked(&text))),
            Ended::TimedOut => (
                RunOutcome::Timeout,
                Err(Failure::Retryable(format!("timed out after {deadline:?}"))),
            ),
            Ended::Unbegun => (
                RunOutcome::Unavailable,
                Err(Failure::Unavailable(format!(
                    "no place to run became free within {deadline:?}"
                ))),
            ),
        };
        match &outcome {
            // A run that was told to stop may say anything, and one that did not begin says nothing: neither tells of a dependency.
            Err(Failure::Unavailable(_)) if began && !cancellation.is_cancelled() => {
                self.brake.pull();
            }
            _ => self.brake.release(started),
        }
        let took = started.elapsed();
        let error = outcome.as_ref().err().map(ToString::to_string);
        if let Some(context) = span {
            let work = Work::Run {
                id: held.task.id,
                attempt,
                outcome: how,
            };
            self.end_span(context, held.trace.clone(), work, took, error.clone());
        }
        self.ports.observer.observe(&Event::Ran {
            id: held.task.id,
            took,
            outcome: how,
            error,
            trace: held.trace.clone(),
        });
        outcome
    }

    async fn run_with_deadline(&self, job: Job, deadline: Duration) -> Ended {
        let beginning = job.beginning.clone();
        // Within the guard, for it may panic before it has a future to answer.
        let run = guarded(async { self.processor.process(job).await });
        if deadline.is_zero() {
            return ended(run.await);
        }
        let past_deadline = async {
            // Who waits for a place for so long is better off with another worker.
            if timeout(deadline, beginning.begun()).await.is_err() {
                return Ended::Unbegun;
            }
            sleep(deadline).await;
            Ended::TimedOut
        };
        tokio::select! {
            biased;
            // First, for that is when the processor may postpone the beginning.
            answered = run => ended(answered),
            late = past_deadline => late,
        }
    }

    fn check_result(&self, result: String) -> Result<String, Failure> {
        if result.contains('\0') {
            return Err(Failure::Permanent(
                "the result contains the NUL character (U+0000), which cannot be stored".into(),
            ));
        }
        let limit = self.config.max_result_bytes;
        if result.len() > limit {
            let length = result.len();
            return Err(Failure::Permanent(format!(
                "the result is {length} bytes long, more than the limit of {limit}"
            )));
        }
        Ok(result)
    }
}

/// How a run ended.
enum Ended {
    Answered(Result<String, Failure>),
    Panicked(String),
    TimedOut,
    /// It was postponed for as long as it might have run.
    Unbegun,
}

fn ended(run: Result<Result<String, Failure>, String>) -> Ended {
    run.map_or_else(Ended::Panicked, Ended::Answered)
}

/// A panic is the failure of a task, not of the worker.
fn panicked(text: &str) -> Failure {
    Failure::Retryable(format!("panicked: {text}"))
}

const fn outcome_of(outcome: &Result<String, Failure>) -> RunOutcome {
    match outcome {
        Ok(_) => RunOutcome::Success,
        Err(Failure::Permanent(_)) => RunOutcome::Permanent,
        Err(Failure::Unavailable(_)) => RunOutcome::Unavailable,
        // The others that there are, and may be, leave room for another run.
        Err(_) => RunOutcome::Retryable,
    }
}
