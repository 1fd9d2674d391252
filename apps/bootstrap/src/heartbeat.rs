//! The heartbeat on a thread of its own.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use domain::Heart;
use domain::ports::{StoreError, WorkerRegistry};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::warn;

use crate::startup::chain;

/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(500);

/// A heart that beats on its own thread until this is dropped.
#[derive(Debug)]
pub struct Heartbeat {
    /// Dropping it ends the thread.
    _stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Heartbeat {
    /// Beats on a new thread with a runtime of its own, through the registry that `connect` makes there, so that neither a
    /// busy runtime nor a full pool makes this worker look dead.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start<F>(heart: Heart, connect: impl Fn() -> F + Send + 'static) -> io::Result<Self>
    where
        F: Future<Output = Result<Arc<dyn WorkerRegistry>, StoreError>>,
    {
        let (stop, mut stopped) = oneshot::channel::<()>();
        let (alive, ended) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        thread::Builder::new()
            .name("heartbeat".to_owned())
            .spawn(move || {
                // Dropped when the thread ends, however it ends.
                let _alive = alive;
                runtime.block_on(async {
                    tokio::select! {
                        biased;
                        // An error means that the other half was dropped, which is the request to stop.
                        _ = &mut stopped => {}
                        () = beat(heart, connect) => {}
                    }
                });
                // A connection that hangs must not keep the process.
                runtime.shutdown_background();
            })?;
        Ok(Self { _stop: stop, ended })
    }

    /// Comes back only if the thread ended by itself, that is by a panic. Without its heartbeat a worker is taken for dead
    /// again and again.
    pub async fn ended(&mut self) {
        // The sender never sends; it goes with the thread.
        let _ = (&mut self.ended).await;
    }
}

async fn beat<F>(heart: Heart, connect: impl Fn() -> F)
where
    F: Future<Output = Result<Arc<dyn WorkerRegistry>, StoreError>>,
{
    let registry = loop {
        match connect().await {
            Ok(registry) => break registry,
            Err(error) => {
                let error = chain(&error);
                warn!(event = "heartbeat.not_connected", error, "trying again");
                sleep(PAUSE).await;
            }
        }
    };
    heart.run(registry).await;
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use adapters::memory::{Memory, TokioClock};
    use domain::{Worker, WorkerConfig, processor_fn};

    use super::*;

    /// What nobody waits for in vain.
    const LIMIT: Duration = Duration::from_secs(30);

    /// The only thread of the worker's runtime is held, as by a function that computes without ever giving way.
    #[tokio::test]
    async fn a_runtime_that_stands_still_does_not_stop_the_heart() {
        let memory = Memory::with_clock(TokioClock::default());
        let ports = memory.ports();
        let idle = processor_fn(|_job| async { Ok(String::new()) });
        let config = WorkerConfig {
            beat_interval: Duration::from_millis(5),
            ..WorkerConfig::default()
        };
        let feed = Arc::new(memory.log.feed());
        let worker = Worker::new(ports, feed, Arc::new(idle), config);
        let store = Arc::clone(&memory.store);
        let registry = Arc::clone(&store);
        let heartbeat = Heartbeat::start(worker.heart(), move || {
            let registry: Arc<dyn WorkerRegistry> = registry.clone();
            async move { Ok(registry) }
        });
        let heartbeat = heartbeat.expect("a thread");
        let working = tokio::spawn(worker.run(std::future::pending()));
        while store.snapshot().workers.is_empty() {
            tokio::task::yield_now().await;
        }
        let beats = || store.snapshot().workers[0].beat;
        let (before, began) = (beats(), Instant::now());
        while beats() < before + 10 {
            assert!(began.elapsed() < LIMIT, "the heart stands still");
            thread::yield_now();
        }
        drop(heartbeat);
        working.abort();
    }
}
