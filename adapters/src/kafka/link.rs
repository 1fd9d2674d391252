//! A thread that owns a kafka-rust client.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kafka::client::{GroupOffsetStorage, KafkaClient as Client};
use kafka::error::{Error as KafkaError, KafkaCode};
use tokio::sync::oneshot;

use crate::kafka_probe::{self, KafkaClient, ProbeError};

/// Calls that wait for the thread. Each has a deadline, so a longer queue would only hold calls that are given up.
const QUEUE: usize = 64;

/// How long each step of finding a broker may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How old a client's knowledge of partitions and leaders may get.
const METADATA_AGE: Duration = Duration::from_secs(30);

/// kafka-rust repeats a request while the group's coordinator is busy, and spins without a pause once it has repeated it
/// often enough: it must never come to that. The watchdog ends the wait.
const RETRIES: u32 = u32::MAX;
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkFault {
    #[error("no broker can be used")]
    Probe(#[from] ProbeError),
    #[error("the client failed")]
    Client(#[from] KafkaError),
    #[error("the client panicked")]
    Panicked,
    #[error("no answer within {0:?}")]
    Slow(Duration),
    #[error("too many calls are waiting")]
    Busy,
    #[error("the call was given up with those before it")]
    GivenUp,
    #[error("no thread could be started")]
    Thread(#[source] std::io::Error),
}

impl LinkFault {
    /// What has to be changed by people before any call can succeed.
    pub(super) fn incompatible(&self) -> Option<&str> {
        match self {
            Self::Probe(ProbeError::Incompatible(text)) => Some(text),
            _ => None,
        }
    }
}

/// Whether the client may be used again after a call that gave a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Sound,
    /// A partition reported an error: metadata or connections may be out of date.
    Suspect,
}

/// How the client is made.
#[derive(Clone, Debug)]
pub(super) struct LinkSettings {
    pub(super) brokers: Vec<String>,
    pub(super) client_id: String,
    /// The topics whose partitions and leaders it must know.
    pub(super) topics: Vec<String>,
    pub(super) fetch_wait: Duration,
}

/// A way to a client on a thread of its own.
pub(super) struct Link {
    name: &'static str,
    settings: LinkSettings,
    thread: Mutex<Option<Thread>>,
}

struct Thread {
    jobs: SyncSender<Job>,
    /// Set when a call took too long: what is queued behind it must not be done later, when its callers have moved on.
    abandoned: Arc<AtomicBool>,
}

type Job = Box<dyn FnOnce(&mut Session) + Send>;

impl Link {
    pub(super) fn new(name: &'static str, settings: LinkSettings) -> Self {
        Self {
            name,
            settings,
            thread: Mutex::new(None),
        }
    }

    /// Does some work with the client, on its thread, after the calls made before. After an error or a panic the client is
    /// thrown away; after `limit` the whole thread is (it ends by itself when the call that holds it returns, two
    /// minutes later at most, and does nothing else before).
    pub(super) async fn call<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&mut Client) -> Result<(T, Health), KafkaError> + Send + 'static,
    ) -> Result<T, LinkFault> {
        let (sender, answer) = oneshot::channel();
        let job: Job = Box::new(move |session| {
            let outcome = session.run(work);
            // Whoever stopped waiting does not need the answer.
            drop(sender.send(outcome));
        });
        let abandoned = self.queue(job)?;
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_dropped)) => Err(LinkFault::GivenUp),
            Err(_elapsed) => {
                tracing::warn!(thread = self.name, ?limit, "kafka.call.given_up");
                self.abandon(&abandoned);
                Err(LinkFault::Slow(limit))
            }
        }
    }

    fn queue(&self, job: Job) -> Result<Arc<AtomicBool>, LinkFault> {
        let mut slot = self.lock();
        let mut job = job;
        if let Some(thread) = slot.as_ref() {
            match thread.jobs.try_send(job) {
                Ok(()) => return Ok(Arc::clone(&thread.abandoned)),
                Err(TrySendError::Full(_)) => return Err(LinkFault::Busy),
                Err(TrySendError::Disconnected(unsent)) => job = unsent,
            }
        }
        let thread = self.start()?;
        let abandoned = Arc::clone(&thread.abandoned);
        // The queue is new and empty.
        thread.jobs.try_send(job).map_err(|_full| LinkFault::Busy)?;
        *slot = Some(thread);
        Ok(abandoned)
    }

    fn start(&self) -> Result<Thread, LinkFault> {
        let (jobs, queued) = sync_channel(QUEUE);
        let abandoned = Arc::new(AtomicBool::new(false));
        let session = Session {
            settings: self.settings.clone(),
            client: None,
            known_at: Instant::now(),
        };
        let flag = Arc::clone(&abandoned);
        std::thread::Builder::new()
            .name(self.name.into())
            .spawn(move || serve(&queued, session, &flag))
            .map_err(LinkFault::Thread)?;
        Ok(Thread { jobs, abandoned })
    }

    fn abandon(&self, abandoned: &Arc<AtomicBool>) {
        abandoned.store(true, Ordering::Relaxed);
        let mut slot = self.lock();
        // Another caller may have replaced the thread already.
        if slot
            .as_ref()
            .is_some_and(|thread| Arc::ptr_eq(&thread.abandoned, abandoned))
        {
            *slot = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Thread>> {
        // The thread is replaced in one assignment: it is whole even after a panic.
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(queued: &Receiver<Job>, mut session: Session, abandoned: &AtomicBool) {
    while let Ok(job) = queued.recv() {
        if abandoned.load(Ordering::Relaxed) {
            return;
        }
        job(&mut session);
    }
}

struct Session {
    settings: LinkSettings,
    client: Option<Client>,
    known_at: Instant,
}

impl Session {
    fn run<T>(
        &mut self,
        work: impl FnOnce(&mut Client) -> Result<(T, Health), KafkaError>,
    ) -> Result<T, LinkFault> {
        // kafka-rust expects a connection to exist where there may be none.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let client = self.client()?;
            work(client).map_err(LinkFault::from)
        }));
        match outcome {
            Ok(Ok((value, Health::Sound))) => Ok(value),
            Ok(Ok((value, Health::Suspect))) => {
                self.client = None;
                Ok(value)
            }
            Ok(Err(fault)) => {
                self.client = None;
                Err(fault)
            }
            Err(_panic) => {
                self.client = None;
                Err(LinkFault::Panicked)
            }
        }
    }

    fn client(&mut self) -> Result<&mut Client, LinkFault> {
        let mut client = match self.client.take() {
            Some(client) if self.known_at.elapsed() < METADATA_AGE => client,
            Some(mut client) => {
                client.load_metadata_all()?;
                self.known_at = Instant::now();
                client
            }
            None => {
                let client = connect(&self.settings)?;
                self.known_at = Instant::now();
                client
            }
        };
        for topic in &self.settings.topics {
            if partition_count(&client, topic) == 0 {
                client.reset_metadata();
                return Err(KafkaError::Kafka(KafkaCode::UnknownTopicOrPartition).into());
            }
        }
        Ok(self.client.insert(client))
    }
}

/// Asks first whether there is a broker that kafka-rust can talk to: it connects without a time limit, and to a broker
/// that is too new it would connect without an error.
fn connect(settings: &LinkSettings) -> Result<Client, LinkFault> {
    kafka_probe::check_blocking(KafkaClient::KafkaRust, &settings.brokers, PROBE_TIMEOUT)?;
    let mut client = Client::new(settings.brokers.clone());
    client.set_client_id(settings.client_id.clone());
    client.set_group_offset_storage(Some(GroupOffsetStorage::Kafka));
    client.set_fetch_max_wait_time(settings.fetch_wait)?;
    client.set_fetch_min_bytes(1);
    client.set_retry_max_attempts(RETRIES);
    client.set_retry_backoff_time(RETRY_PAUSE);
    // Of all topics: a broker creates a topic whose name it is asked for, with as many partitions as it sees fit.
    client.load_metadata_all()?;
    Ok(client)
}

/// How many partitions a topic has; 0 when the client knows none.
pub(super) fn partition_count(client: &Client, topic: &str) -> u32 {
    client
        .topics()
        .partitions(topic)
        .map_or(0, |partitions| u32::try_from(partitions.len()).unwrap_or(0))
}
