//! Waiting for tasks, and following what happens to them.
//!
//! One reader brings the events of every process to this one, while somebody listens. A waiter is woken by the event of
//! its task and reads the task; once a second all waiters together look where their tasks stand, in one query, so that no lost
//! event, no log that is down and no other program keeps anybody waiting. Streams read a ring of the latest events, each at
//! its own place in it: a slow one falls behind, is told so, and costs no memory.

mod follow;
mod ring;
mod wait;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ports::{EventFeed, PlacedEvent, StoreError, TaskId};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::read::Reader;
use crate::{Ports, Reading};
use ring::Ring;
use wait::Question;

/// Limits of [`Events`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventsConfig {
    /// How many may wait for tasks at once; more are refused. Default 16,384.
    pub waiters: usize,
    /// How many streams may be open at once; more are refused. Default 16,384.
    pub streams: usize,
    /// How many of the latest events a stream may resume from or fall behind. Default 262,144: 26 s of 10,000 a second. Each takes
    /// 40 bytes, from when it is read on.
    pub ring: usize,
    /// How often waiters look where their tasks stand. Default 1 s.
    pub look_interval: Duration,
    /// For how long reading goes on when nobody listens any more. Default 30 s.
    pub linger: Duration,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self {
            waiters: 16_384,
            streams: 16_384,
            ring: 262_144,
            look_interval: Duration::from_secs(1),
            linger: Duration::from_secs(30),
        }
    }
}

/// Why nobody waits or listens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventsError {
    /// As many wait, or listen, as may.
    #[error("too many are waiting")]
    Full,
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopped,
    /// The store did not answer.
    #[error("the task store is unavailable")]
    Store(#[source] Arc<StoreError>),
}

/// How many wait and listen, and how many may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// Who wait for tasks.
    pub waiters: usize,
    /// How many of them there may be.
    pub waiters_limit: usize,
    /// Streams that are open.
    pub streams: usize,
    /// How many of them there may be.
    pub streams_limit: usize,
}

/// What comes to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An event, and its position.
    Event(PlacedEvent),
    /// Events may be missing before this position: they are too old, the log was made anew, or this listener was too slow.
    Reset(u64),
}

/// Waits for tasks and follows them. Dropping it ends every wait and every stream.
pub struct Events {
    shared: Arc<Shared>,
    questions: mpsc::Sender<Question>,
    waiters: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    config: EventsConfig,
    reader: Reader,
    _work: Mutex<JoinSet<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// Rises with every change of the ring that streams of all tasks are to see.
    advanced: watch::Sender<u64>,
    /// Somebody listens or waits, and nobody did before.
    wanted: Notify,
    stopped: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    ring: Ring,
    /// Where the log ended when the reader was opened that is about to fill the ring.
    opened_at: Option<u64>,
    /// Who is to be woken by events of a task, by number: waiters, and streams of one task.
    by_task: BTreeMap<TaskId, BTreeMap<u64, Watcher>>,
    next_watcher: u64,
    /// Waiters and streams.
    listeners: usize,
    streams: usize,
}

struct Watcher {
    kind: Kind,
    bell: Arc<Notify>,
    /// Of a stream: what it has not heard yet.
    mail: VecDeque<PlacedEvent>,
    /// Of a stream: something between what it heard and what comes is missing.
    is_cut: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Waiter { since: Instant },
    Stream,
}

/// How many events of its task a stream may leave unheard.
const MAIL: usize = 64;

/// How long a new stream waits for the reading to begin, so that nothing that happens after it was opened escapes it.
const ATTACHING: Duration = Duration::from_secs(5);

impl State {
    fn watcher(&mut self, id: TaskId, number: u64) -> Option<&mut Watcher> {
        self.by_task.get_mut(&id)?.get_mut(&number)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is complete before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Someone's entry in the lists, which ends with it.
struct Place {
    shared: Arc<Shared>,
    kind: Kind,
    task: Option<(TaskId, u64)>,
    bell: Arc<Notify>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn take(
        shared: &Arc<Shared>,
        places: &Arc<Semaphore>,
        task: Option<TaskId>,
        kind: Kind,
    ) -> Result<Self, EventsError> {
        if *shared.stopped.borrow() {
            return Err(EventsError::Stopped);
        }
        let permit = Arc::clone(places)
            .try_acquire_owned()
            .map_err(|_| EventsError::Full)?;
        let bell = Arc::new(Notify::new());
        let mut state = shared.lock();
        state.listeners += 1;
        let number = state.next_watcher;
        state.next_watcher += 1;
        let task = task.map(|id| {
            let watcher = Watcher {
                kind,
                bell: Arc::clone(&bell),
                mail: VecDeque::new(),
                is_cut: false,
            };
            state.by_task.entry(id).or_default().insert(number, watcher);
            (id, number)
        });
        let mut is_first = state.listeners == 1;
        if kind == Kind::Stream {
            state.streams += 1;
            is_first |= state.streams == 1;
        }
        drop(state);
        if is_first {
            shared.wanted.notify_one();
        }
        Ok(Self {
            shared: Arc::clone(shared),
            kind,
            task,
            bell,
            _permit: permit,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.listeners -= 1;
        if self.kind == Kind::Stream {
            state.streams -= 1;
        }
        let Some((id, number)) = self.task else {
            return;
        };
        if let Some(watchers) = state.by_task.get_mut(&id) {
            watchers.remove(&number);
            if watchers.is_empty() {
                state.by_task.remove(&id);
            }
        }
    }
}

impl Events {
    /// Starts, within a tokio runtime. Nothing is read before somebody waits or listens.
    #[must_use]
    pub fn start(ports: &Ports, feed: Arc<dyn EventFeed>, config: EventsConfig) -> Self {
        let config = EventsConfig {
            waiters: config.waiters.min(Semaphore::MAX_PERMITS),
            streams: config.streams.min(Semaphore::MAX_PERMITS),
            ..config
        };
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            advanced: watch::Sender::new(0),
            wanted: Notify::new(),
            stopped: watch::Sender::new(false),
        });
        shared.lock().ring.set_limit(config.ring);
        let (questions, asked) = mpsc::channel(config.waiters.max(1));
        let mut work = JoinSet::new();
        work.spawn(follow::follow(
            Arc::clone(&shared),
            ports.clone(),
            feed,
            config,
        ));
        work.spawn(wait::look(Arc::clone(&shared), ports.clone(), config));
        work.spawn(wait::answer_all(ports.clone(), asked));
        Self {
            shared,
            questions,
            waiters: Arc::new(Semaphore::new(config.waiters)),
            streams: Arc::new(Semaphore::new(config.streams)),
            config,
            reader: Reader::new(ports),
            _work: Mutex::new(work),
        }
    }

    /// How many wait and listen now.
    #[must_use]
    pub fn crowd(&self) -> Crowd {
        let EventsConfig {
            waiters, streams, ..
        } = self.config;
        Crowd {
            waiters: waiters.saturating_sub(self.waiters.available_permits()),
            waiters_limit: waiters,
            streams: streams.saturating_sub(self.streams.available_permits()),
            streams_limit: streams,
        }
    }

    /// Ends every wait, with the task as it stands, and every stream, and refuses further ones.
    pub fn stop(&self) {
        self.shared.stopped.send_replace(true);
    }

    /// Reads a task once it is at rest, or as it stands when `limit` has passed. Dropping the future frees its place.
    ///
    /// # Errors
    /// [`EventsError`]; while the service stops the task is read as it stands.
    pub async fn wait(&self, id: TaskId, limit: Duration) -> Result<Reading, EventsError> {
        let since = Instant::now();
        let deadline = since + limit;
        let kind = Kind::Waiter { since };
        let place = match Place::take(&self.shared, &self.waiters, Some(id), kind) {
            Ok(place) => place,
            Err(EventsError::Stopped) => return self.read(id).await,
            Err(error) => return Err(error),
        };
        let mut stopped = self.shared.stopped.subscribe();
        // After the place was taken: what happens from now on rings the bell.
        let mut reading = self.read(id).await?;
        while !is_settled(&reading) {
            let is_last = tokio::select! {
                biased;
                () = place.bell.notified() => false,
                _ = stopped.wait_for(|stopped| *stopped) => true,
                () = tokio::time::sleep_until(deadline) => true,
            };
            reading = self.ask(id).await?;
            if is_last {
                break;
            }
        }
        Ok(reading)
    }

    /// Follows one task, or all, from a position on; without one from what happens next on.
    ///
    /// # Errors
    /// [`EventsError`].
    pub async fn listen(
        &self,
        task: Option<TaskId>,
        from: Option<u64>,
    ) -> Result<Listener, EventsError> {
        let place = Place::take(&self.shared, &self.streams, task, Kind::Stream)?;
        let mut listener = Listener {
            cursor: from.map_or(Cursor::Now, Cursor::From),
            advanced: self.shared.advanced.subscribe(),
            stopped: self.shared.stopped.subscribe(),
            early: VecDeque::new(),
            place,
        };
        let attaching =
            async { while !listener.is_placed() && listener.advanced.changed().await.is_ok() {} };
        // With the log down it begins when that is back.
        let _ = timeout(ATTACHING, attaching).await;
        Ok(listener)
    }

    async fn read(&self, id: TaskId) -> Result<Reading, EventsError> {
        let read = self.reader.read(id).await;
        read.map_err(|error| EventsError::Store(Arc::new(error)))
    }

    /// Reads together with whoever else asks at the moment.
    async fn ask(&self, id: TaskId) -> Result<Reading, EventsError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let question = Question { id, reply };
        if self.questions.send(question).await.is_err() {
            return Err(EventsError::Stopped);
        }
        match answer.await {
            Ok(read) => read.map_err(EventsError::Store),
            Err(_dropped) => Err(EventsError::Stopped),
        }
    }
}

fn is_settled(reading: &Reading) -> bool {
    match reading {
        Reading::Done(_) | Reading::Unknown => true,
        Reading::Unfinished(task) => task.status.is_at_rest(),
    }
}

#[derive(Clone, Copy)]
enum Cursor {
    /// From where the ring ends when it is there.
    Now,
    /// From this position on.
    From(u64),
    /// At this position of this generation of the ring.
    Next { generation: u64, position: u64 },
}

/// Follows events. Dropping it frees its place.
pub struct Listener {
    cursor: Cursor,
    advanced: watch::Receiver<u64>,
    stopped: watch::Receiver<bool>,
    /// What it found in the ring when it took its place.
    early: VecDeque<Heard>,
    place: Place,
}

impl Listener {
    /// Waits until something is to be heard and returns up to `limit` of it; `None` when the service stops. Dropping the
    /// future loses nothing.
    pub async fn hear(&mut self, limit: usize) -> Option<Vec<Heard>> {
        loop {
            if *self.stopped.borrow() {
                return None;
            }
            self.advanced.mark_unchanged();
            let (is_attached, heard) = self.look(limit.max(1));
            if !heard.is_empty() {
                return Some(heard);
            }
            tokio::select! {
                biased;
                _ = self.stopped.changed() => return None,
                () = self.place.bell.notified() => {}
                // A stream of one task is woken by its own events alone, once it has its place.
                _ = self.advanced.changed(), if self.place.task.is_none() || !is_attached => {}
            }
        }
    }

    /// Whether it has its place in the ring, and what is to be heard.
    fn look(&mut self, limit: usize) -> (bool, Vec<Heard>) {
        let shared = Arc::clone(&self.place.shared);
        let mut state = shared.lock();
        let is_attached = self.attach(&mut state);
        (is_attached, self.take(&mut state, limit))
    }

    /// Whether it knows its place in the log, be it that the ring is not filled yet.
    fn is_placed(&mut self) -> bool {
        let shared = Arc::clone(&self.place.shared);
        let mut state = shared.lock();
        if self.attach(&mut state) {
            return true;
        }
        let opened_at = state.opened_at;
        if let (Cursor::Now, Some(end)) = (self.cursor, opened_at) {
            self.cursor = Cursor::From(end);
        }
        opened_at.is_some()
    }

    /// Takes its place in the ring, once there is one; says whether it has it.
    fn attach(&mut self, state: &mut State) -> bool {
        let Some((first, end)) = state.ring.bounds() else {
            return matches!(self.cursor, Cursor::Next { .. });
        };
        let mut next = match self.cursor {
            Cursor::Next { .. } => return true,
            Cursor::Now => end,
            Cursor::From(next) if (first..=end).contains(&next) => next,
            Cursor::From(_) => {
                self.early.push_back(Heard::Reset(end));
                end
            }
        };
        if let Some((id, number)) = self.place.task {
            let of_task = state
                .ring
                .since(next)
                .filter(|placed| placed.event.is_some_and(|event| event.id == id));
            self.early.extend(of_task.map(Heard::Event));
            next = end;
            // All of that was in the ring.
            if let Some(watcher) = state.watcher(id, number) {
                watcher.mail.clear();
                watcher.is_cut = false;
            }
        }
        self.cursor = Cursor::Next {
            generation: state.ring.generation(),
            position: next,
        };
        true
    }

    fn take(&mut self, state: &mut State, limit: usize) -> Vec<Heard> {
        if !self.early.is_empty() {
            let count = limit.min(self.early.len());
            return self.early.drain(..count).collect();
        }
        let Cursor::Next {
            generation,
            position,
        } = self.cursor
        else {
            return Vec::new();
        };
        let Some((first, end)) = state.ring.bounds() else {
            return Vec::new();
        };
        if let Some((id, number)) = self.place.task {
            let Some(watcher) = state.watcher(id, number) else {
                return Vec::new();
            };
            if watcher.is_cut {
                watcher.is_cut = false;
                watcher.mail.clear();
                return vec![Heard::Reset(end)];
            }
            let count = limit.min(watcher.mail.len());
            return watcher.mail.drain(..count).map(Heard::Event).collect();
        }
        let present = state.ring.generation();
        let is_known = generation == present && (first..=end).contains(&position);
        let (mut next, mut heard) = (position, Vec::new());
        if !is_known {
            next = end;
            heard.push(Heard::Reset(end));
        }
        while next < end && heard.len() < limit {
            let event = state.ring.at(next);
            if event.is_some() {
                let position = next;
                heard.push(Heard::Event(PlacedEvent { position, event }));
            }
            next += 1;
        }
        self.cursor = Cursor::Next {
            generation: present,
            position: next,
        };
        heard
    }
}
