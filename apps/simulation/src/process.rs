//! The processes of the simulated system: servers and workers, as the real programs wire them.

use std::sync::Arc;
use std::time::Duration;

use adapters::memory::{SeededRandom, SequentialIds};
use domain::worker::Stopped;
use domain::{Commander, Ports, Reader, SubmitConfig, Submitter, Worker, WorkerConfig};
use ports::{Event, Observer, Processor, WorkerRegistry};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::chaos::ChaosFeed;
use crate::link::Link;
use crate::trace::Who;

/// A server. Dropping it is a crash.
pub(crate) struct Server {
    pub(crate) link: Arc<Link>,
    pub(crate) submitter: Arc<Submitter>,
    pub(crate) reader: Reader,
    pub(crate) commander: Commander,
    /// Requests being served.
    pub(crate) handlers: JoinSet<()>,
}

impl Server {
    pub(crate) fn start(link: Arc<Link>, ports: &Ports, config: SubmitConfig) -> Self {
        Self {
            link,
            submitter: Arc::new(Submitter::start(ports, config)),
            reader: Reader::new(ports),
            commander: Commander::new(ports),
            handlers: JoinSet::new(),
        }
    }
}

/// A worker that came to its end by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) who: Who,
    pub(crate) stopped: Stopped,
}

/// A worker with its heart. Dropping it is a crash.
pub(crate) struct WorkerProcess {
    pub(crate) link: Arc<Link>,
    pub(crate) feed: Arc<ChaosFeed>,
    stop: Option<oneshot::Sender<()>>,
    pub(crate) stop_asked_at: Option<Instant>,
    _tasks: JoinSet<()>,
}

/// What an embedded worker does before it begins.
pub(crate) struct Recovery {
    pub(crate) ports: Ports,
    pub(crate) max_rescues: u32,
    /// Looks at what it left.
    pub(crate) done: Box<dyn FnOnce() + Send>,
}

impl Recovery {
    async fn run(self) {
        while domain::rescue::recover_all(&self.ports, self.max_rescues)
            .await
            .is_err()
        {
            sleep(RECOVERY_PAUSE).await;
        }
        (self.done)();
    }
}

/// A program whose store does not answer at its start is started again by whoever watches it.
const RECOVERY_PAUSE: Duration = Duration::from_millis(200);

pub(crate) struct WorkerParts {
    pub(crate) ports: Ports,
    pub(crate) registry_of_heart: Option<Arc<dyn WorkerRegistry>>,
    pub(crate) feed: Arc<ChaosFeed>,
    pub(crate) processor: Arc<dyn Processor>,
    pub(crate) config: WorkerConfig,
    pub(crate) recovery: Option<Recovery>,
}

impl WorkerProcess {
    pub(crate) fn start(
        link: Arc<Link>,
        parts: WorkerParts,
        endings: mpsc::UnboundedSender<Ended>,
    ) -> Self {
        let (stop, mut stopped) = oneshot::channel::<()>();
        let recovery = parts.recovery;
        let feed = Arc::clone(&parts.feed);
        let worker = Worker::new(parts.ports, parts.feed, parts.processor, parts.config);
        let mut tasks = JoinSet::new();
        if let Some(registry) = parts.registry_of_heart {
            tasks.spawn(worker.heart().run(registry));
        }
        let who = link.who;
        tasks.spawn(async move {
            if let Some(recovery) = recovery {
                tokio::select! {
                    biased;
                    Ok(()) = &mut stopped => {
                        let stopped = Stopped { handed_back: 0, clean: false };
                        let _ = endings.send(Ended { who, stopped });
                        return;
                    }
                    () = recovery.run() => {}
                }
            }
            let stopped = worker
                .run(async {
                    if stopped.await.is_err() {
                        std::future::pending::<()>().await;
                    }
                })
                .await;
            let _ = endings.send(Ended { who, stopped });
        });
        Self {
            link,
            feed,
            stop: Some(stop),
            stop_asked_at: None,
            _tasks: tasks,
        }
    }

    pub(crate) fn ask_to_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            self.stop_asked_at = Some(Instant::now());
            let _ = stop.send(());
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop_asked_at.is_some()
    }
}

/// Ids and chance of one process: nobody else's, and the same in every run.
pub(crate) fn own_sources(who: Who, seed: u64) -> (Arc<SequentialIds>, Arc<SeededRandom>) {
    let instance = who.instance;
    (
        Arc::new(SequentialIds::in_lane(instance)),
        Arc::new(SeededRandom::new(seed ^ (u64::from(instance) << 48))),
    )
}

/// Writes what a process says into the history.
pub(crate) struct Witness(pub(crate) Arc<Link>);

impl Observer for Witness {
    fn observe(&self, event: &Event) {
        let trace = &self.0.sky.trace;
        let who = self.0.who;
        match event {
            Event::Late { .. } => {
                self.0.sky.count_late();
                trace.note(who, "late result", 0, String::new);
            }
            Event::Outlived { abandoned } => trace.note(who, "outlived", 0, || {
                format!("was declared dead, gives up {abandoned} tasks")
            }),
            Event::HandedBack { count } => {
                trace.note(who, "handed back", *count as u64, || count.to_string());
            }
            Event::Rescued { count } => {
                trace.note(who, "rescued", *count as u64, || count.to_string());
            }
            Event::Repaired { what, count } => {
                self.0.sky.count_repaired(*count);
                trace.note(who, "repaired", *count as u64, || {
                    format!("{count} {}", what.as_str())
                });
            }
            Event::Skipped { reason, count } => {
                trace.note(who, "skipped", *count as u64, || {
                    format!("{count} {}", reason.as_str())
                });
            }
            Event::PublishFailed { count, .. } => {
                trace.note(who, "publish failed", *count as u64, || count.to_string());
            }
            Event::DependencyFailed {
                dependency, doing, ..
            } => trace.note(who, "failed", *dependency as u64, || (*doing).to_owned()),
            _ => {}
        }
    }
}
