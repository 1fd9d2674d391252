//! A whole system in memory: what the tests act on.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use adapters::memory::{Memory, TokioClock};
use domain::worker::{Progress, Stopped};
use domain::{Ports, Submission, SubmitConfig, Submitter, Worker, WorkerConfig};
use ports::{Failure, Payload, Processor, TaskFeed, TaskId};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

pub(crate) struct World {
    pub(crate) memory: Memory<TokioClock>,
    pub(crate) ports: Ports,
}

/// A worker that runs beside the test.
pub(crate) struct Running {
    pub(crate) progress: Progress,
    stop: oneshot::Sender<()>,
    task: JoinSet<Stopped>,
}

impl World {
    pub(crate) fn new() -> Self {
        let memory = Memory::with_clock(TokioClock::default());
        Self {
            ports: memory.ports(),
            memory,
        }
    }

    pub(crate) fn submitter(&self) -> Submitter {
        Submitter::start(&self.ports, SubmitConfig::default())
    }

    pub(crate) fn work(&self, processor: impl Processor + 'static) -> Running {
        self.work_with(processor, WorkerConfig::default())
    }

    pub(crate) fn work_with(
        &self,
        processor: impl Processor + 'static,
        config: WorkerConfig,
    ) -> Running {
        self.work_on(Arc::new(self.memory.log.feed()), processor, config)
    }

    pub(crate) fn work_on(
        &self,
        feed: Arc<dyn TaskFeed>,
        processor: impl Processor + 'static,
        config: WorkerConfig,
    ) -> Running {
        let (stop, stopped) = oneshot::channel::<()>();
        let worker = Worker::new(self.ports.clone(), feed, Arc::new(processor), config);
        let progress = worker.progress();
        let mut task = JoinSet::new();
        task.spawn(worker.run(async {
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        }));
        Running {
            progress,
            stop,
            task,
        }
    }

    /// Everything in the books agrees with everything else.
    pub(crate) fn assert_consistent(&self) {
        let contradictions = self.memory.store.snapshot().contradictions();
        assert!(contradictions.is_empty(), "{contradictions:#?}");
    }
}

impl Running {
    pub(crate) async fn stop(mut self) -> Stopped {
        let _ = self.stop.send(());
        let ended = self.task.join_next().await.expect("it runs");
        ended.expect("the worker does not panic")
    }

    /// Ends the worker without a word.
    pub(crate) async fn crash(mut self) {
        self.task.shutdown().await;
    }
}

pub(crate) fn submission(payload: &str) -> Submission {
    Submission::new(Payload::new(payload).expect("no NUL"))
}

pub(crate) async fn submit(submitter: &Submitter, payloads: &[&str]) -> Vec<TaskId> {
    let submissions = payloads.iter().map(|payload| submission(payload)).collect();
    let accepted = submitter.submit(submissions).await.expect("accepted");
    accepted.into_iter().map(|accepted| accepted.id).collect()
}

/// What a test's processing function does is named by the payload: `ok`, `retry`, `permanent`, `down`, `panic`, `nul`,
/// `big`, `sleep <seconds>`.
pub(crate) fn scripted() -> impl Processor {
    domain::processor_fn(|job| async move {
        let payload = job.payload.as_str().to_owned();
        let (word, rest) = payload.split_once(' ').unwrap_or((&payload, ""));
        match word {
            "retry" => Err(Failure::Retryable(format!("attempt {}", job.attempt))),
            "permanent" => Err(Failure::Permanent("never".into())),
            "down" => Err(Failure::Unavailable("the mill is down".into())),
            "panic" => panic!("boom"),
            "nul" => Ok("a\0b".into()),
            "big" => Ok("x".repeat(256 * 1024 + 1)),
            "sleep" => {
                let seconds = rest.parse().expect("seconds");
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                Ok(format!("slept {seconds}"))
            }
            _ => Ok(payload.to_uppercase()),
        }
    })
}

/// Polls borrowed futures together on this one thread, so that they queue while the first commit runs.
pub(crate) async fn all<T, F: Future<Output = T>>(futures: impl Iterator<Item = F>) -> Vec<T> {
    let mut waiting: Vec<_> = futures.map(Box::pin).collect();
    let mut answers = Vec::new();
    std::future::poll_fn(|context| {
        waiting.retain_mut(|future| match future.as_mut().poll(context) {
            Poll::Ready(answer) => {
                answers.push(answer);
                false
            }
            Poll::Pending => true,
        });
        if waiting.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    answers
}
