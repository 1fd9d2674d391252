//! Accepting tasks: coalesced into few commits, then published.
//!
//! Requests that arrive while a commit runs share the next one ('natural batching'): a request alone goes straight
//! through, a thousand share a few commits, and no delay is ever added. The work runs in tasks that the [`Submitter`]
//! owns, so a client that hangs up cancels nothing.

mod budget;
mod client;
mod keyed;
mod publish;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use ports::{
    Event, Fingerprint, InsertOutcome, KeyedRequest, NewTask, Payload, Priority, RequestKey, Span,
    Step, StoreError, TaskId, Timestamp, TraceContext, Work,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::again::with_patience;
use crate::turn::turn;
use crate::{Ports, chain};

use budget::Budget;
pub use budget::{Arrival, Room};
use client::{Answer, Client, Request, in_time, last_deadline, turn_away_late};
pub use keyed::KEPT_FOR;
use publish::{Outgoing, messages_of};

/// While as many submissions as this are being committed, those that come gather for the next commit: it is the larger for it, and
/// each of its submissions the cheaper. With fewer another writer may go ahead, so that nobody waits for a neighbour's commit.
const MANY: usize = 4;

/// The traces of tasks, in their order; empty when none of them has one.
type Traces = Vec<Option<TraceContext>>;

/// Limits of a [`Submitter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubmitConfig {
    /// How many submissions may wait for a commit; beyond it they are refused at once. Default 8,192.
    pub queue: usize,
    /// How many bytes may be under way: submissions that arrive, of which the incomplete may take half, those that wait for their
    /// commit, and messages that wait for the log, which may take a quarter. Beyond it submissions are refused at once, and tasks beyond
    /// that quarter are left to be claimed by age. Default 64 MiB.
    pub max_bytes: usize,
    /// How many submissions may share a commit; those of one request stay together. Default 512.
    pub batch: usize,
    /// How many commits may be under way at once, while they are of a few submissions. Default 2.
    pub writers: usize,
    /// How many messages may wait to be published; the tasks beyond are left to be claimed by age. Default 65,536.
    pub publish_queue: usize,
    /// How many batches may be on their way to the log at once; what comes meanwhile shares the next. Default 1.
    pub publishers: usize,
    /// How long a client waits at most, from its arrival on, while commits fail, or those before its own take their time. Default
    /// 3 s.
    pub patience: Duration,
    /// How often a log that is down is tried again. Default 1 s.
    pub probe_interval: Duration,
    /// The longest payload in bytes. Default 256 KiB.
    pub max_payload_bytes: usize,
    /// `max_attempts` of a submission that names none. Default 5.
    pub max_attempts: u32,
}

impl Default for SubmitConfig {
    fn default() -> Self {
        Self {
            queue: 8_192,
            max_bytes: 64 << 20,
            batch: 512,
            writers: 2,
            publish_queue: 65_536,
            publishers: 1,
            patience: Duration::from_secs(3),
            probe_interval: Duration::from_secs(1),
            max_payload_bytes: 256 * 1024,
            max_attempts: 5,
        }
    }
}

/// What a client wants done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Submission {
    /// What to process.
    pub payload: Payload,
    /// How urgent.
    pub priority: Priority,
    /// Not to be started before this time.
    pub run_at: Option<Timestamp>,
    /// After how many failed attempts to give up, at least 1; `None` takes the default.
    pub max_attempts: Option<u32>,
    /// The trace of whoever submits.
    pub trace: Option<TraceContext>,
}

impl Submission {
    /// A submission of this payload with defaults for the rest.
    #[must_use]
    pub fn new(payload: Payload) -> Self {
        Self {
            payload,
            priority: Priority::default(),
            run_at: None,
            max_attempts: None,
            trace: None,
        }
    }
}

/// A task that is committed and will come to rest, whatever crashes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its identity.
    pub id: TaskId,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// Why nothing was accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// A submission breaks a limit; nothing was stored.
    #[error("submission {index}: {field} {reason}")]
    Invalid {
        /// Which of the submissions, from 0.
        index: usize,
        /// The field that is wrong.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Too many submissions wait already, or too large ones, or this one waited in vain for its turn; nothing was stored. Try again
    /// in a moment.
    #[error("too many submissions are waiting")]
    Overloaded,
    /// The store did not confirm in time. Whether the tasks were stored is unknown.
    #[error("the task store is unavailable")]
    Unavailable(#[source] Option<Arc<StoreError>>),
    /// The store refused this submission for its data; nothing of it was stored.
    #[error("the task store refused the data")]
    Rejected(#[source] Arc<StoreError>),
    /// The key was used for a request that asked for something else; nothing was stored.
    #[error("the key was used for another request")]
    KeyReused,
    /// The submitter has been stopped.
    #[error("the submitter has stopped")]
    Stopped,
}

impl SubmitError {
    fn of_store(error: &Arc<StoreError>) -> Self {
        if error.is_transient() {
            Self::Unavailable(Some(Arc::clone(error)))
        } else {
            Self::Rejected(Arc::clone(error))
        }
    }
}

/// Accepts tasks.
pub struct Submitter {
    requests: mpsc::Sender<Request<Vec<NewTask>>>,
    keyed: mpsc::Sender<Request<KeyedRequest>>,
    /// Free places for submissions that wait.
    places: Arc<Semaphore>,
    /// Bytes that are under way, and those of submissions that are not complete.
    bytes: Arc<Budget>,
    incomplete: Arc<Budget>,
    config: SubmitConfig,
    ports: Ports,
    log_is_down: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    // Dropping the submitter ends its work: what is committed stays safe, the rest was never answered.
    work: Mutex<JoinSet<()>>,
}

/// A traced request that waits for its commit.
struct Wait {
    context: TraceContext,
    parent: TraceContext,
    began: Instant,
}

impl Submitter {
    /// Starts accepting. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(ports: &Ports, config: SubmitConfig) -> Self {
        let (requests, incoming) = mpsc::channel(config.queue.max(1));
        let (keyed, keyed_incoming) = mpsc::channel(config.queue.max(1));
        let log_is_down = Arc::new(AtomicBool::new(false));
        let stop = watch::Sender::new(false);
        let mut work = JoinSet::new();
        let outgoing = Outgoing::start(ports, config, Arc::clone(&log_is_down), &mut work);
        work.spawn(commit_loop(
            ports.clone(),
            config,
            incoming,
            stop.subscribe(),
            outgoing.clone(),
        ));
        work.spawn(keyed::commit_keyed(
            ports.clone(),
            config,
            keyed_incoming,
            stop.subscribe(),
            outgoing,
        ));
        work.spawn(keyed::prune_keys(ports.clone(), stop.subscribe()));
        Self {
            requests,
            keyed,
            places: Arc::new(Semaphore::new(config.queue.max(1))),
            bytes: Budget::new(config.max_bytes),
            incomplete: Budget::new(config.max_bytes / 2),
            config,
            ports: ports.clone(),
            log_is_down,
            stop,
            work: Mutex::new(work),
        }
    }

    /// Accepts nothing more, and returns when what was accepted is committed, answered and published, or the deadline has
    /// passed.
    pub async fn stop(&self, deadline: Duration) {
        self.stop.send_replace(true);
        let mut work =
            std::mem::take(&mut *self.work.lock().unwrap_or_else(PoisonError::into_inner));
        // What is committed and not published is claimed by age.
        let _ = timeout(deadline, async {
            while work.join_next().await.is_some() {}
        })
        .await;
    }

    /// Stores tasks, all of them or none, and has them published. When it returns `Ok` they are committed.
    ///
    /// # Errors
    /// [`SubmitError`]; `Invalid` names the submission and the field.
    pub async fn submit(&self, submissions: Vec<Submission>) -> Result<Vec<Accepted>, SubmitError> {
        self.submit_in(self.bytes.room(), submissions).await
    }

    /// The same for what came from outside, in the room that it took when it arrived.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn submit_in(
        &self,
        room: Room,
        submissions: Vec<Submission>,
    ) -> Result<Vec<Accepted>, SubmitError> {
        self.ask(&self.requests, room, submissions, |tasks| tasks)
            .await
    }

    /// The same under a key: of all requests with this key, on whichever server, however often repeated, the first is
    /// stored and every one has its answer, for at least [`KEPT_FOR`].
    ///
    /// # Errors
    /// [`SubmitError`]; `KeyReused` when the first request with this key had another fingerprint.
    pub async fn submit_keyed(
        &self,
        key: RequestKey,
        fingerprint: Fingerprint,
        submissions: Vec<Submission>,
    ) -> Result<Vec<Accepted>, SubmitError> {
        self.submit_keyed_in(self.bytes.room(), key, fingerprint, submissions)
            .await
    }

    /// The same for what came from outside, in the room that it took when it arrived.
    ///
    /// # Errors
    /// As [`Self::submit_keyed`].
    pub async fn submit_keyed_in(
        &self,
        room: Room,
        key: RequestKey,
        fingerprint: Fingerprint,
        submissions: Vec<Submission>,
    ) -> Result<Vec<Accepted>, SubmitError> {
        let under_key = |tasks| KeyedRequest {
            key,
            fingerprint,
            tasks,
        };
        self.ask(&self.keyed, room, submissions, under_key).await
    }

    /// A submission begins to arrive: whoever reads it takes room for each piece, and refuses what finds none as
    /// [`SubmitError::Overloaded`].
    pub fn arrival(&self) -> Arrival {
        Arrival::new(&self.bytes, &self.incomplete)
    }

    /// Puts tasks where a lane takes them, and waits for its answer.
    async fn ask<T>(
        &self,
        lane: &mpsc::Sender<Request<T>>,
        mut room: Room,
        submissions: Vec<Submission>,
        asked: impl FnOnce(Vec<NewTask>) -> T,
    ) -> Answer {
        if submissions.is_empty() {
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + self.config.patience;
        let traces = traces_of(&submissions);
        let wait = self.begin_span(&traces);
        let tasks = self.to_tasks(submissions)?;
        let count = tasks.len();
        let payloads = tasks.iter().map(|task| task.payload.as_str());
        if !room.reach(payloads.map(str::len).sum()) {
            return Err(SubmitError::Overloaded);
        }
        let places = Some(self.take_places(count)?);
        let (reply, answer) = oneshot::channel();
        let client = Client {
            count,
            traces,
            places,
            room,
            deadline,
            reply: Some(reply),
        };
        let asked = asked(tasks);
        lane.try_send(Request { asked, client }).map_err(refusal)?;
        let answer = answer.await.unwrap_or(Err(SubmitError::Stopped));
        self.end_span(wait, &answer);
        answer
    }

    /// The wait for a commit begins; `None` when nobody traces the request, or its trace is not sampled.
    fn begin_span(&self, traces: &Traces) -> Option<Wait> {
        let mut parents = traces.iter().flatten();
        let parent = parents.find(|parent| parent.is_sampled())?.clone();
        let context = self.ports.observer.begin_span(Some(parent.clone()))?;
        let is_sampled = context.is_sampled();
        is_sampled.then(|| Wait {
            context,
            parent,
            began: Instant::now(),
        })
    }

    /// It ended.
    fn end_span(&self, wait: Option<Wait>, answer: &Answer) {
        let Some(wait) = wait else { return };
        let stored = answer.as_deref().unwrap_or_default();
        self.ports.observer.observe(&Event::Traced(Span {
            context: wait.context,
            parent: Some(wait.parent),
            work: Work::Submit {
                id: stored.first().map(|accepted| accepted.id),
                count: stored.len(),
            },
            took: wait.began.elapsed(),
            error: answer.as_ref().err().map(|error| chain(error)),
        }));
    }

    /// One request may be larger than the whole queue: it then waits alone.
    fn take_places(&self, count: usize) -> Result<OwnedSemaphorePermit, SubmitError> {
        let count = count.min(self.config.queue.max(1));
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Arc::clone(&self.places)
            .try_acquire_many_owned(count)
            .map_err(|_| SubmitError::Overloaded)
    }

    fn to_tasks(&self, submissions: Vec<Submission>) -> Result<Vec<NewTask>, SubmitError> {
        // While the log is down no message will come, so the row must not wait the grace for one.
        let log_is_up = !self.log_is_down.load(Ordering::Relaxed);
        submissions
            .into_iter()
            .enumerate()
            .map(|(index, submission)| {
                let invalid = |field, reason| SubmitError::Invalid {
                    index,
                    field,
                    reason,
                };
                let limit = self.config.max_payload_bytes;
                if submission.payload.as_str().len() > limit {
                    return Err(invalid("payload", format!("must be at most {limit} bytes")));
                }
                let max_attempts = submission.max_attempts.unwrap_or(self.config.max_attempts);
                if max_attempts == 0 {
                    return Err(invalid("maxAttempts", "must be at least 1".into()));
                }
                Ok(NewTask {
                    id: self.ports.ids.task_id(),
                    payload: submission.payload,
                    priority: submission.priority,
                    max_attempts,
                    run_at: submission.run_at,
                    messaged: submission.run_at.is_none() && log_is_up,
                })
            })
            .collect()
    }
}

fn traces_of(submissions: &[Submission]) -> Traces {
    let traces = submissions
        .iter()
        .map(|submission| submission.trace.as_ref());
    if traces.clone().all(|trace| trace.is_none()) {
        return Traces::new();
    }
    traces.map(Option::<&TraceContext>::cloned).collect()
}

fn refusal<T>(error: mpsc::error::TrySendError<T>) -> SubmitError {
    match error {
        mpsc::error::TrySendError::Full(_) => SubmitError::Overloaded,
        mpsc::error::TrySendError::Closed(_) => SubmitError::Stopped,
    }
}

async fn commit_loop(
    ports: Ports,
    config: SubmitConfig,
    mut incoming: mpsc::Receiver<Request<Vec<NewTask>>>,
    mut stop: watch::Receiver<bool>,
    outgoing: Outgoing,
) {
    let mut commits = FuturesUnordered::new();
    let mut under_way = 0;
    let mut requests = Vec::new();
    loop {
        let received = tokio::select! {
            biased;
            Some(committed) = commits.next() => {
                under_way -= committed;
                continue;
            }
            received = incoming.recv_many(&mut requests, config.batch.max(1)),
                if commits.len() < config.writers.max(1) && under_way < MANY => received,
            () = until_told(&mut stop), if !incoming.is_closed() => {
                // What waits already is still committed.
                incoming.close();
                continue;
            }
        };
        if received == 0 {
            break;
        }
        let mut taken = std::mem::take(&mut requests);
        let mut count = 0;
        for request in &mut taken {
            request.client.places = None;
            count += request.client.count;
        }
        under_way += count;
        let observer = Arc::clone(&ports.observer);
        let commit = commit(ports.clone(), config, taken, outgoing.clone());
        commits.push(async move {
            // Of a panic its requests learn by the loss of their reply; the others go on.
            turn(&*observer, "insert", commit).await;
            count
        });
    }
    while commits.next().await.is_some() {}
}

async fn until_told(stop: &mut watch::Receiver<bool>) {
    // A submitter that was dropped takes this loop with it.
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Commits requests together. A batch that the store refuses for its data is halved until the culprit stands alone.
async fn commit(
    ports: Ports,
    config: SubmitConfig,
    requests: Vec<Request<Vec<NewTask>>>,
    outgoing: Outgoing,
) {
    let mut parts = portions(requests, config.batch.max(1));
    while let Some(mut part) = parts.pop_front() {
        turn_away_late(&mut part);
        let Some(last) = last_deadline(&part) else {
            continue;
        };
        let (tasks, mut clients) = together(part);
        let inserting = with_patience(&ports, last, "insert", || ports.store.insert(&tasks));
        match in_time(&mut clients, last, inserting).await {
            Ok(outcomes) => {
                ports
                    .observer
                    .observe(&Event::Submitted { count: tasks.len() });
                ports.observer.observe(&Event::Batched {
                    step: Step::Insert,
                    size: tasks.len(),
                });
                let traces = gather_traces(&mut clients, &tasks);
                answer(&mut clients, &tasks, &outcomes);
                let rooms = clients.into_iter().map(|client| client.room);
                let messages = messages_of(tasks, traces).collect();
                outgoing.leave(messages, rooms);
            }
            Err(StoreError::Rejected(_)) if clients.len() > 1 => {
                let mut part = apart(tasks, clients);
                let rest = part.split_off(part.len() / 2);
                parts.push_front(rest);
                parts.push_front(part);
            }
            Err(error) => {
                let error = Arc::new(error);
                for mut client in clients {
                    client.answer(Err(SubmitError::of_store(&error)));
                }
            }
        }
    }
}

/// All their tasks, and who waits for them.
fn together(requests: Vec<Request<Vec<NewTask>>>) -> (Vec<NewTask>, Vec<Client>) {
    let count: usize = requests.iter().map(|request| request.client.count).sum();
    let mut all = Vec::new();
    let mut clients = Vec::with_capacity(requests.len());
    for Request { asked, client } in requests {
        if all.is_empty() {
            all = asked;
            all.reserve(count - all.len());
        } else {
            all.extend(asked);
        }
        clients.push(client);
    }
    (all, clients)
}

/// To each the tasks that are its own.
fn apart(tasks: Vec<NewTask>, clients: Vec<Client>) -> Vec<Request<Vec<NewTask>>> {
    let mut tasks = tasks.into_iter();
    let own = |client: Client| Request {
        asked: tasks.by_ref().take(client.count).collect(),
        client,
    };
    clients.into_iter().map(own).collect()
}

/// The traces of the tasks of these clients, which together are `tasks`.
fn gather_traces(clients: &mut [Client], tasks: &[NewTask]) -> Traces {
    if let [only] = clients {
        return std::mem::take(&mut only.traces);
    }
    if clients.iter().all(|client| client.traces.is_empty()) {
        return Traces::new();
    }
    let mut gathered = Traces::with_capacity(tasks.len());
    for client in clients {
        let end = gathered.len() + client.count;
        gathered.append(&mut client.traces);
        gathered.resize(end, None);
    }
    gathered
}

/// Requests in their order, no more of them together than hold this many submissions.
fn portions<T>(requests: Vec<Request<T>>, batch: usize) -> VecDeque<Vec<Request<T>>> {
    let all: usize = requests.iter().map(|request| request.client.count).sum();
    if all <= batch {
        return VecDeque::from([requests]);
    }
    let mut portions = VecDeque::new();
    let mut portion: Vec<Request<T>> = Vec::new();
    let mut count = 0;
    for request in requests {
        let own = request.client.count;
        count += own;
        if count > batch && !portion.is_empty() {
            count = own;
            portions.push_back(std::mem::take(&mut portion));
        }
        portion.push(request);
    }
    portions.push_back(portion);
    portions
}

fn answer(clients: &mut [Client], tasks: &[NewTask], outcomes: &[InsertOutcome]) {
    let mut accepted = tasks.iter().zip(outcomes).map(|(task, outcome)| Accepted {
        id: task.id,
        created_at: outcome.created_at,
    });
    for client in clients {
        let own = accepted.by_ref().take(client.count).collect();
        client.answer(Ok(own));
    }
}
