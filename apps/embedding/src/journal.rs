//! A store adapter: a file that every change is appended to, and the store in memory that these changes make.
//!
//! The store in memory is deterministic: the same calls at the same times make the same state. So the calls are what is
//! written, each with its time, one JSON object a line, before they are made; opening a file makes them again. What was
//! acknowledged is on the disk; a line that a crash cut off was never acknowledged, and is dropped.
//!
//! It is an example of small scale. A call waits for the disk on the thread that makes it, and the file is never made
//! shorter.

mod entry;

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use adapters::memory::{ManualClock, MemoryTaskStore};
use async_trait::async_trait;
use domain::ports::audit::AuditPage;
use domain::ports::store::TransitionOutcome;
use domain::ports::{
    BeatReply, ClaimError, ClaimId, ClaimRecord, ClaimTicket, ClaimedTask, Clock, DeliveryOutcome,
    Horizon, InsertOutcome, Inspection, KeptRequest, KeyedRequest, Listed, Listing, NewTask,
    RemoveReply, StoreError, Task, TaskAudit, TaskCatalog, TaskEvent, TaskId, TaskStore, Timestamp,
    Totals, Transition, Whereabouts, WorkerEntry, WorkerId, WorkerRegistry, WriteOutcome,
};

use self::entry::{Call, Entry};

/// [`TaskStore`], [`WorkerRegistry`], [`TaskAudit`] and [`TaskCatalog`] in a file.
pub struct JournalStore {
    memory: Arc<MemoryTaskStore>,
    /// The time of the call that is being made.
    time: Arc<ManualClock>,
    /// Where times come from.
    clock: Arc<dyn Clock>,
    file: Mutex<Journal>,
}

struct Journal {
    file: File,
    /// Up to where it holds whole lines.
    length: u64,
}

impl JournalStore {
    /// Opens a file, or makes it, and brings back what it holds.
    ///
    /// # Errors
    /// When the file cannot be read or written, holds something else, or is open elsewhere.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.try_lock()?;
        let time = Arc::new(ManualClock::starting_at(Timestamp::EPOCH));
        let memory = Arc::new(MemoryTaskStore::new(time.clone()));
        let mut reader = BufReader::new(&file);
        let mut length = 0;
        loop {
            let mut line = Vec::new();
            let read = reader.read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                break;
            }
            let entry: Entry = serde_json::from_slice(&line)?;
            time.set(Timestamp::from_micros(entry.at));
            at_once(entry.call.make(&memory)).ok_or_else(waited)??;
            length += read as u64;
        }
        let mut file = Journal { file, length };
        file.cut()?;
        Ok(Self {
            memory,
            time,
            clock,
            file: Mutex::new(file),
        })
    }

    /// The state that the file makes, for looking at it and for waiting until tasks are at rest. Whatever is changed through
    /// it is not written.
    #[must_use]
    pub fn state(&self) -> &Arc<MemoryTaskStore> {
        &self.memory
    }

    /// Writes a call and makes it. No other call comes between, and no one who gives up waiting can part the two.
    fn commit<T>(&self, call: Call, making: impl Future<Output = T>) -> Result<T, StoreError> {
        let mut file = self.turn();
        let at = self.time.now().as_micros();
        let unavailable = |error: io::Error| StoreError::Unavailable(error.into());
        file.append(&Entry { at, call }).map_err(unavailable)?;
        at_once(making).ok_or_else(|| unavailable(waited()))
    }

    /// Makes a call that changes nothing.
    fn look<T>(&self, making: impl Future<Output = T>) -> Result<T, StoreError> {
        let _turn = self.turn();
        at_once(making).ok_or_else(|| StoreError::Unavailable(waited().into()))
    }

    /// Waits for its turn, and moves the time on. It never goes back, whatever the clock does.
    fn turn(&self) -> MutexGuard<'_, Journal> {
        let turn = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        self.time.set(self.clock.now().max(self.time.now()));
        turn
    }
}

impl Journal {
    /// Appends a line and waits until the disk has it.
    fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| {
            if entry.call.must_last() {
                self.file.sync_data()
            } else {
                Ok(())
            }
        });
        if let Err(error) = written {
            // Half a line must not stay before the next one.
            self.cut()?;
            return Err(error);
        }
        self.length += line.len() as u64;
        Ok(())
    }

    /// Drops what is not a whole line.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        Ok(())
    }
}

/// The outcome of a call of the store in memory, which never waits.
fn at_once<T>(making: impl Future<Output = T>) -> Option<T> {
    match pin!(making).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(made) => Some(made),
        Poll::Pending => None,
    }
}

fn waited() -> io::Error {
    io::Error::other("the store in memory waited for something")
}

#[async_trait]
impl TaskStore for JournalStore {
    async fn insert(&self, tasks: &[NewTask]) -> Result<Vec<InsertOutcome>, StoreError> {
        self.commit(Call::insert(tasks), self.memory.insert(tasks))?
    }

    async fn insert_keyed(
        &self,
        requests: &[KeyedRequest],
    ) -> Result<Vec<KeptRequest>, StoreError> {
        let call = Call::insert_keyed(requests);
        self.commit(call, self.memory.insert_keyed(requests))?
    }

    async fn prune_keys(&self, age: Duration, limit: usize) -> Result<usize, StoreError> {
        let call = Call::prune_keys(age, limit);
        self.commit(call, self.memory.prune_keys(age, limit))?
    }

    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Task>>, StoreError> {
        self.look(self.memory.get(ids))?
    }

    async fn whereabouts(&self, ids: &[TaskId]) -> Result<Vec<Option<Whereabouts>>, StoreError> {
        self.look(self.memory.whereabouts(ids))?
    }

    async fn claim_delivered(
        &self,
        ticket: ClaimTicket,
        ids: &[TaskId],
    ) -> Result<Vec<DeliveryOutcome>, ClaimError> {
        let call = Call::claim_delivered(ticket, ids);
        self.commit(call, self.memory.claim_delivered(ticket, ids))?
    }

    async fn claim_aged(
        &self,
        ticket: ClaimTicket,
        horizon: Horizon,
        grace: Duration,
        limit: usize,
    ) -> Result<Vec<ClaimedTask>, ClaimError> {
        let call = Call::claim_aged(ticket, horizon, grace, limit);
        let claiming = self.memory.claim_aged(ticket, horizon, grace, limit);
        self.commit(call, claiming)?
    }

    async fn transition(
        &self,
        transitions: &[Transition],
    ) -> Result<Vec<TransitionOutcome>, StoreError> {
        let call = Call::transition(transitions);
        self.commit(call, self.memory.transition(transitions))?
    }

    async fn release(&self, claims: &[ClaimId]) -> Result<(), StoreError> {
        self.commit(Call::release(claims), self.memory.release(claims))?
    }

    async fn claims_of(
        &self,
        worker: WorkerId,
        after: Option<ClaimId>,
        limit: usize,
    ) -> Result<Vec<ClaimRecord>, StoreError> {
        self.look(self.memory.claims_of(worker, after, limit))?
    }

    async fn mark_unmessaged(&self, ids: &[TaskId]) -> Result<(), StoreError> {
        let call = Call::mark_unmessaged(ids);
        self.commit(call, self.memory.mark_unmessaged(ids))?
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        self.look(self.memory.totals())?
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.look(self.memory.ping())?
    }
}

#[async_trait]
impl WorkerRegistry for JournalStore {
    async fn register(&self, worker: WorkerId, name: &str) -> Result<(), StoreError> {
        let call = Call::register(worker, name);
        self.commit(call, self.memory.register(worker, name))?
    }

    async fn beat(
        &self,
        worker: WorkerId,
        position: Option<Timestamp>,
    ) -> Result<BeatReply, StoreError> {
        let call = Call::beat(worker, position);
        self.commit(call, self.memory.beat(worker, position))?
    }

    async fn workers(&self) -> Result<Vec<WorkerEntry>, StoreError> {
        self.look(self.memory.workers())?
    }

    async fn declare_dead(
        &self,
        worker: WorkerId,
        last_beat: u64,
    ) -> Result<WriteOutcome, StoreError> {
        let call = Call::declare_dead(worker, last_beat);
        self.commit(call, self.memory.declare_dead(worker, last_beat))?
    }

    async fn remove(&self, worker: WorkerId) -> Result<RemoveReply, StoreError> {
        self.commit(Call::remove(worker), self.memory.remove(worker))?
    }
}

#[async_trait]
impl TaskAudit for JournalStore {
    async fn stranded(
        &self,
        after: Option<TaskId>,
        limit: usize,
        unmoved_for: Duration,
    ) -> Result<AuditPage, StoreError> {
        self.look(self.memory.stranded(after, limit, unmoved_for))?
    }

    async fn enqueue(&self, ids: &[TaskId]) -> Result<usize, StoreError> {
        self.commit(Call::enqueue(ids), self.memory.enqueue(ids))?
    }

    async fn sweep_queue(
        &self,
        after: Option<TaskId>,
        limit: usize,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        let call = Call::sweep_queue(after, limit);
        self.commit(call, self.memory.sweep_queue(after, limit))?
    }

    async fn enlist(&self, ids: &[TaskId]) -> Result<usize, StoreError> {
        self.commit(Call::enlist(ids), self.memory.enlist(ids))?
    }

    async fn sweep_stopped(
        &self,
        after: Option<TaskId>,
        limit: usize,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        let call = Call::sweep_stopped(after, limit);
        self.commit(call, self.memory.sweep_stopped(after, limit))?
    }

    async fn untold(
        &self,
        after: Option<TaskId>,
        limit: usize,
        unmoved_for: Duration,
    ) -> Result<(Vec<TaskEvent>, Option<TaskId>), StoreError> {
        self.look(self.memory.untold(after, limit, unmoved_for))?
    }

    async fn mark_told(&self, ids: &[TaskId]) -> Result<(), StoreError> {
        self.commit(Call::mark_told(ids), self.memory.mark_told(ids))?
    }

    async fn prune(
        &self,
        after: Option<TaskId>,
        limit: usize,
        older_than: Duration,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        let call = Call::prune(after, limit, older_than);
        self.commit(call, self.memory.prune(after, limit, older_than))?
    }

    async fn orphaned_claims(&self, limit: usize) -> Result<Vec<ClaimRecord>, StoreError> {
        self.look(self.memory.orphaned_claims(limit))?
    }
}

#[async_trait]
impl TaskCatalog for JournalStore {
    async fn list(&self, listing: &Listing) -> Result<Listed, StoreError> {
        self.look(self.memory.list(listing))?
    }

    async fn inspect(
        &self,
        id: TaskId,
        count_up_to: usize,
    ) -> Result<Option<Inspection>, StoreError> {
        self.look(self.memory.inspect(id, count_up_to))?
    }
}
