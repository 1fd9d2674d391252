//! A [`Processor`] on threads of its own.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ports::{Failure, Job, Processor};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// Runs another processor on threads of its own, for functions that compute for longer than some 100 µs without awaiting
/// anything: on the worker's threads each of them holds up claims, completions and health for as long.
///
/// It costs a task two handovers between threads, some microseconds. No more functions compute at once than there are threads; of
/// those that await something as many as the worker runs. The deadline counts from when a thread begins the run: a task that waits
/// for one spends no attempt, and is given back for another worker when it has waited for as long as it might run.
///
/// A run that was given up ends at its next `await`; one that never awaits keeps its thread until it returns.
pub struct OwnThreads<P> {
    processor: Arc<P>,
    /// Tasks with a shorter payload are not worth a handover.
    least_bytes: usize,
    /// `None` only while this is being dropped.
    runtime: Option<Runtime>,
}

impl<P: Processor + 'static> OwnThreads<P> {
    /// Starts this many threads, at least one.
    ///
    /// # Errors
    /// When the system does not let a thread be started.
    pub fn start(processor: P, threads: usize) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("processor")
            .enable_all()
            .build()?;
        Ok(Self {
            processor: Arc::new(processor),
            least_bytes: 0,
            runtime: Some(runtime),
        })
    }

    /// Leaves tasks whose payload has fewer bytes to the threads of the worker: for a function that computes the longer the more it is
    /// given.
    #[must_use]
    pub const fn from_bytes(self, least_bytes: usize) -> Self {
        let mut own = self;
        own.least_bytes = least_bytes;
        own
    }
}

impl<P> Drop for OwnThreads<P> {
    fn drop(&mut self) {
        // A function that never returns must not hold up whoever drops this.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Gives the run up when nobody waits for it any more.
struct Run(JoinHandle<Result<String, Failure>>);

impl Drop for Run {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[async_trait]
impl<P: Processor + 'static> Processor for OwnThreads<P> {
    async fn process(&self, job: Job) -> Result<String, Failure> {
        if job.payload.as_str().len() < self.least_bytes {
            return self.processor.process(job).await;
        }
        let Some(runtime) = &self.runtime else {
            return Err(Failure::Unavailable("the threads have ended".into()));
        };
        let processor = Arc::clone(&self.processor);
        let waiting = job.beginning.postpone();
        let mut run = Run(runtime.spawn(async move {
            drop(waiting);
            processor.process(job).await
        }));
        match (&mut run.0).await {
            Ok(outcome) => outcome,
            // The worker makes of it what it makes of any panic.
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            Err(_ended) => Err(Failure::Unavailable("the threads have ended".into())),
        }
    }

    fn timeout(&self, job: &Job) -> Option<Duration> {
        self.processor.timeout(job)
    }
}
