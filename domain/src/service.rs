//! Everything in one: accept, read and process in the embedding program.

use std::future::Future;
use std::sync::Arc;

use ports::{Processor, StoreError, TaskFeed, TaskId};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::worker::Stopped;
use crate::{
    Accepted, Metrics, Ports, Reader, Reading, Submission, SubmitConfig, SubmitError, Submitter,
    Worker, WorkerConfig,
};

/// A task service inside another program: a submitter, a reader and one worker on the same ports.
///
/// Dropping it is a crash, which loses nothing: what is unfinished is in the store. [`stop`](Self::stop) is the polite way.
pub struct Service {
    submitter: Submitter,
    reader: Reader,
    worker: JoinSet<Stopped>,
    stop: oneshot::Sender<()>,
}

impl Service {
    /// Starts a service with default limits. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(
        ports: Ports,
        feed: Arc<dyn TaskFeed>,
        processor: impl Processor + 'static,
    ) -> Self {
        let config = WorkerConfig::default();
        Self::start_with(ports, feed, processor, SubmitConfig::default(), config)
    }

    /// Starts a service. Must be called within a tokio runtime.
    #[must_use]
    pub fn start_with(
        ports: Ports,
        feed: Arc<dyn TaskFeed>,
        processor: impl Processor + 'static,
        submit: SubmitConfig,
        work: WorkerConfig,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let submitter = Submitter::start(&ports, submit);
        let reader = Reader::new(&ports);
        let worker = Worker::new(ports, feed, Arc::new(processor), work);
        let mut running = JoinSet::new();
        running.spawn(worker.run(until(stopped)));
        Self {
            submitter,
            reader,
            worker: running,
            stop,
        }
    }

    /// Stores one task and has it processed.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn submit(&self, submission: Submission) -> Result<Accepted, SubmitError> {
        let accepted = self.submitter.submit(vec![submission]).await?;
        accepted.into_iter().next().ok_or(SubmitError::Stopped)
    }

    /// Reads one task.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn read(&self, id: TaskId) -> Result<Reading, StoreError> {
        self.reader.read(id).await
    }

    /// How many tasks became done, and how long they took.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn metrics(&self) -> Result<Metrics, StoreError> {
        self.reader.metrics().await
    }

    /// Stops taking, finishes what is in hand or hands it back, and returns.
    pub async fn stop(mut self) -> Option<Stopped> {
        let _ = self.stop.send(());
        self.worker.join_next().await?.ok()
    }
}

async fn until(stopped: oneshot::Receiver<()>) {
    // A service that was dropped takes its worker with it; until then this is the only way to stop.
    if stopped.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Keeps the promise that the worker can be spawned.
const _: fn(Worker) = |worker| {
    fn spawnable<F: Future + Send>(_: F) {}
    spawnable(worker.run(std::future::ready(())));
};
