//! The second stage: runs of the processing function, many at once, each with a deadline.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ports::{Event, Failure, Job};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{Held, Life, Placed, Ran};

pub(super) async fn run_all(
    life: Arc<Life>,
    mut claimed: UnboundedReceiver<Vec<Placed>>,
    settle: UnboundedSender<Ran>,
) {
    let mut runs = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = runs.join_next(), if !runs.is_empty() => {}
            batch = claimed.recv() => {
                let Some(batch) = batch else { break };
                for Placed { held, slot } in batch {
                    let (life, settle) = (Arc::clone(&life), settle.clone());
                    runs.spawn(async move {
                        let outcome = life.run_one(&held).await;
                        drop(slot);
                        let _ = settle.send(Ran { held, outcome });
                    });
                }
            }
        }
    }
    while runs.join_next().await.is_some() {}
}

impl Life {
    async fn run_one(&self, held: &Held) -> Result<String, Failure> {
        let run = self.running.enter(held.task.id, held.task.fence);
        let cancellation = run.cancellation();
        let job = Job {
            id: held.task.id,
            payload: held.task.payload.clone(),
            priority: held.task.priority,
            attempt: held.task.attempts.saturating_add(1),
            fence: held.task.fence,
            cancellation: cancellation.clone(),
        };
        let deadline = self
            .processor
            .timeout(&job)
            .unwrap_or(self.config.task_timeout);
        let started = Instant::now();
        let outcome = match self.run_with_deadline(job, deadline).await {
            Ok(result) => self.check_result(result),
            Err(failure) => Err(failure),
        };
        match &outcome {
            // A run that was told to stop may say anything: it tells nothing of a dependency.
            Err(Failure::Unavailable(_)) if !cancellation.is_cancelled() => self.brake.pull(),
            _ => self.brake.release(started),
        }
        self.ports.observer.observe(&Event::Ran {
            id: held.task.id,
            took: started.elapsed(),
            error: outcome.as_ref().err().map(ToString::to_string),
        });
        outcome
    }

    async fn run_with_deadline(&self, job: Job, deadline: Duration) -> Result<String, Failure> {
        let run = Guarded(self.processor.process(job));
        if deadline.is_zero() {
            return run.await;
        }
        match timeout(deadline, run).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Retryable(format!("timed out after {deadline:?}"))),
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

/// A run whose panic is a failure of the task, not of the worker.
struct Guarded<'run>(Pin<Box<dyn Future<Output = Result<String, Failure>> + Send + 'run>>);

impl Future for Guarded<'_> {
    type Output = Result<String, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let run = self.0.as_mut();
        // After a panic the future is dropped without being polled again, so nothing sees what it left broken.
        catch_unwind(AssertUnwindSafe(|| run.poll(context))).unwrap_or_else(|panic| {
            let text = panic_text(panic.as_ref());
            Poll::Ready(Err(Failure::Retryable(format!("panicked: {text}"))))
        })
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}
