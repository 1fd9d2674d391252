//! One commit for all the writes then waiting.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ports::{
    ClaimError, ClaimId, ClaimRecord, ClaimTicket, ClaimedTask, DeliveryOutcome, Horizon,
    InsertOutcome, NewTask, Next, StoreError, Task, TaskId, TaskStore, Totals, Transition,
    TransitionOutcome, WorkerId,
};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot};
use tokio::task::JoinSet;

/// How much text counts as one item more, in a batch and in the queue.
const TEXT_UNIT: usize = 16 * 1024;

/// The limits of a [`Coalesced`] store, each for inserts and for transitions apart.
///
/// What is counted are items (tasks, transitions), and one more for every 16 KiB of an item's text; so each limit bounds
/// memory too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoalesceLimits {
    /// Items in one commit, at least 1. Default 512, so at most 8 MiB of text. A call that is larger by itself goes alone.
    pub batch: usize,
    /// Commits at the same time, at least 1. Default 2.
    pub writers: usize,
    /// Items waiting or being written, at least 1. Default 8,192, so at most 128 MiB of text. A call that finds no room
    /// is refused at once with [`Overloaded`]; one that is larger by itself is let in when nothing else is there.
    pub queue: usize,
}

impl Default for CoalesceLimits {
    fn default() -> Self {
        Self {
            batch: 512,
            writers: 2,
            queue: 8_192,
        }
    }
}

/// As many writes wait for the store as may: shed load. The cause inside [`StoreError::Unavailable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store is overloaded: {limit} writes are waiting")]
pub struct Overloaded {
    /// How many may wait.
    pub limit: usize,
}

impl Overloaded {
    /// Whether this is what an error comes from, directly or through its causes.
    #[must_use]
    pub fn caused(error: &(dyn Error + 'static)) -> bool {
        let mut cause = Some(error);
        while let Some(inner) = cause {
            if inner.is::<Self>() {
                return true;
            }
            cause = inner.source();
        }
        false
    }
}

/// The commit that this call shared with others failed; the source is why.
#[derive(Clone, Debug)]
struct SharedCommitFailed(Arc<StoreError>);

impl fmt::Display for SharedCommitFailed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a commit of several calls failed")
    }
}

impl Error for SharedCommitFailed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// The task that wrote this call's commit is gone; whether the commit happened is unknown.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the commit ended without an answer")]
struct WriterGone;

/// A store that merges concurrent `insert` calls into one, and concurrent `transition` calls into one.
///
/// Natural batching: a writer takes whatever queued while the commits before it ran, so a call alone goes straight
/// through and no call is ever delayed to wait for others. The writes run in tasks of their own: a caller that hangs up
/// cancels nothing. A batch that the store rejects for its data is halved until the culprit stands alone, so a bad call
/// fails no other. Calls that name the same id never share a commit. Everything else passes through.
///
/// Dropping it ends its tasks: what is waiting then is not written. Make it inside a tokio runtime.
///
/// ```
/// use std::sync::Arc;
/// use task_processor_adapters::coalesced::{CoalesceLimits, Coalesced};
/// use task_processor_adapters::memory::Memory;
/// use ports::{TaskStore, WriteOutcome};
/// # use ports::{NewTask, Payload, Priority};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Coalesced::new(Memory::new().store, CoalesceLimits::default());
/// # let task = NewTask {
/// #     id: "0194fdc2-fa2f-7cc0-81d3-ff1204e5b6ab".parse()?,
/// #     payload: Payload::new("Hello world!")?,
/// #     priority: Priority::default(),
/// #     max_attempts: 5,
/// #     run_at: None,
/// #     messaged: false,
/// # };
/// assert_eq!(store.insert(&[task]).await?[0].write, WriteOutcome::Applied);
/// # Ok(())
/// # }
/// ```
pub struct Coalesced {
    inner: Arc<dyn TaskStore>,
    inserts: Lane<NewTask>,
    transitions: Lane<Transition>,
    /// Dropping the set is what ends the writers.
    _writers: JoinSet<()>,
}

/// What is coalesced: how it is written and what it weighs.
#[async_trait]
trait Write: Clone + Send + Sync + 'static {
    type Outcome: Send + 'static;

    async fn write(store: &dyn TaskStore, items: &[Self])
    -> Result<Vec<Self::Outcome>, StoreError>;
    fn id(&self) -> TaskId;
    fn text_bytes(&self) -> usize;
}

#[async_trait]
impl Write for NewTask {
    type Outcome = InsertOutcome;

    async fn write(
        store: &dyn TaskStore,
        items: &[Self],
    ) -> Result<Vec<InsertOutcome>, StoreError> {
        store.insert(items).await
    }

    fn id(&self) -> TaskId {
        self.id
    }

    fn text_bytes(&self) -> usize {
        self.payload.as_str().len()
    }
}

#[async_trait]
impl Write for Transition {
    type Outcome = TransitionOutcome;

    async fn write(
        store: &dyn TaskStore,
        items: &[Self],
    ) -> Result<Vec<TransitionOutcome>, StoreError> {
        store.transition(items).await
    }

    fn id(&self) -> TaskId {
        self.id
    }

    fn text_bytes(&self) -> usize {
        match &self.to {
            Next::Done { result } => result.len(),
            Next::Failed { error } => error.len(),
            Next::Pending { error, .. } => error.as_ref().map_or(0, String::len),
            Next::Cancelled => 0,
        }
    }
}

type Answer<Item> = Result<Vec<<Item as Write>::Outcome>, StoreError>;

/// One caller's slice.
struct Call<Item: Write> {
    items: Vec<Item>,
    weight: usize,
    answer: oneshot::Sender<Answer<Item>>,
    /// The room it takes in the queue, given back when it is answered.
    _room: OwnedSemaphorePermit,
}

/// The way from callers to the writers of one kind of write.
struct Lane<Item: Write> {
    calls: mpsc::UnboundedSender<Call<Item>>,
    /// What bounds the channel: every call in it holds its share.
    room: Arc<Semaphore>,
    limit: usize,
}

impl<Item: Write> Lane<Item> {
    fn start(
        store: &Arc<dyn TaskStore>,
        limits: CoalesceLimits,
        writers: &mut JoinSet<()>,
    ) -> Self {
        let (calls, waiting) = mpsc::unbounded_channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..limits.writers.max(1) {
            let writer = Writer {
                store: Arc::clone(store),
                waiting: Arc::clone(&waiting),
                batch: limits.batch,
            };
            writers.spawn(writer.run());
        }
        // The semaphore counts permits in 32 bits for a single call.
        let limit = limits
            .queue
            .clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self {
            calls,
            room: Arc::new(Semaphore::new(limit)),
            limit,
        }
    }

    async fn call(&self, items: &[Item]) -> Answer<Item> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let weight: usize = items
            .iter()
            .map(|item| 1 + item.text_bytes() / TEXT_UNIT)
            .sum();
        let share = u32::try_from(weight.min(self.limit)).unwrap_or(u32::MAX);
        let room = match Arc::clone(&self.room).try_acquire_many_owned(share) {
            Ok(room) => room,
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
                let overloaded = Overloaded { limit: self.limit };
                return Err(StoreError::Unavailable(overloaded.into()));
            }
        };
        let (answer, answered) = oneshot::channel();
        let call = Call {
            items: items.to_vec(),
            weight,
            answer,
            _room: room,
        };
        if self.calls.send(call).is_err() {
            return Err(StoreError::Unavailable(WriterGone.into()));
        }
        match answered.await {
            Ok(outcome) => outcome,
            Err(_gone) => Err(StoreError::Unavailable(WriterGone.into())),
        }
    }
}

/// Writes batches, one after the other.
struct Writer<Item: Write> {
    store: Arc<dyn TaskStore>,
    waiting: Arc<Mutex<mpsc::UnboundedReceiver<Call<Item>>>>,
    batch: usize,
}

impl<Item: Write> Writer<Item> {
    async fn run(self) {
        // A call that had no place in the batch before it.
        let mut left_over = None;
        while let Some(calls) = self.next_batch(&mut left_over).await {
            // In a task of its own, so that a panic of the store costs this batch and not the writer. It is awaited
            // here and aborted with the set, so it is never detached.
            let mut writing = JoinSet::new();
            writing.spawn(write_batch(Arc::clone(&self.store), calls));
            let _ = writing.join_next().await;
        }
    }

    /// Waits for a call and takes along what is queued behind it; `None` when the store was dropped.
    async fn next_batch(&self, left_over: &mut Option<Call<Item>>) -> Option<Vec<Call<Item>>> {
        let (first, mut waiting) = match left_over.take() {
            // If the queue is taken, another writer looks after it, perhaps for a long time: this call does not wait.
            Some(call) => match self.waiting.try_lock() {
                Ok(waiting) => (call, waiting),
                Err(_taken) => return Some(vec![call]),
            },
            None => {
                let mut waiting = self.waiting.lock().await;
                (waiting.recv().await?, waiting)
            }
        };
        let mut weight = first.weight;
        let mut ids: BTreeSet<TaskId> = first.items.iter().map(Item::id).collect();
        let mut calls = vec![first];
        while weight < self.batch
            && let Ok(call) = waiting.try_recv()
        {
            let fits = weight + call.weight <= self.batch;
            // The store answers for each id once a batch: two calls for one id must see each other's commit.
            if !fits || call.items.iter().any(|item| ids.contains(&item.id())) {
                *left_over = Some(call);
                break;
            }
            weight += call.weight;
            ids.extend(call.items.iter().map(Item::id));
            calls.push(call);
        }
        Some(calls)
    }
}

/// Writes these calls in as few commits as their data allows, and answers them.
async fn write_batch<Item: Write>(store: Arc<dyn TaskStore>, calls: Vec<Call<Item>>) {
    let mut parts = vec![calls];
    while let Some(mut calls) = parts.pop() {
        let outcome = if let [only] = &calls[..] {
            Item::write(&*store, &only.items).await
        } else {
            let items: Vec<Item> = calls.iter().flat_map(|call| &call.items).cloned().collect();
            Item::write(&*store, &items).await
        };
        match outcome {
            Err(StoreError::Rejected(_)) if calls.len() > 1 => {
                let second_half = calls.split_off(calls.len() / 2);
                parts.push(second_half);
                parts.push(calls);
            }
            outcome => answer_all(calls, outcome),
        }
    }
}

/// Gives each call its part of the outcome. Who does not wait any more does not get it.
fn answer_all<Item: Write>(mut calls: Vec<Call<Item>>, outcome: Answer<Item>) {
    match outcome {
        Ok(outcomes) => {
            let mut outcomes = outcomes.into_iter();
            for call in calls {
                let part = outcomes.by_ref().take(call.items.len()).collect();
                let _ = call.answer.send(Ok(part));
            }
        }
        Err(error) => {
            if calls.len() == 1
                && let Some(only) = calls.pop()
            {
                let _ = only.answer.send(Err(error));
                return;
            }
            let shared = SharedCommitFailed(Arc::new(error));
            for call in calls {
                let _ = call
                    .answer
                    .send(Err(StoreError::Unavailable(Box::new(shared.clone()))));
            }
        }
    }
}

impl Coalesced {
    /// Wraps a store and starts the writers.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(inner: Arc<dyn TaskStore>, limits: CoalesceLimits) -> Self {
        let mut writers = JoinSet::new();
        Self {
            inserts: Lane::start(&inner, limits, &mut writers),
            transitions: Lane::start(&inner, limits, &mut writers),
            inner,
            _writers: writers,
        }
    }
}

#[async_trait]
impl TaskStore for Coalesced {
    async fn insert(&self, tasks: &[NewTask]) -> Result<Vec<InsertOutcome>, StoreError> {
        self.inserts.call(tasks).await
    }

    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Task>>, StoreError> {
        self.inner.get(ids).await
    }

    async fn claim_delivered(
        &self,
        ticket: ClaimTicket,
        ids: &[TaskId],
    ) -> Result<Vec<DeliveryOutcome>, ClaimError> {
        self.inner.claim_delivered(ticket, ids).await
    }

    async fn claim_aged(
        &self,
        ticket: ClaimTicket,
        horizon: Horizon,
        grace: Duration,
        limit: usize,
    ) -> Result<Vec<ClaimedTask>, ClaimError> {
        self.inner.claim_aged(ticket, horizon, grace, limit).await
    }

    async fn transition(
        &self,
        transitions: &[Transition],
    ) -> Result<Vec<TransitionOutcome>, StoreError> {
        self.transitions.call(transitions).await
    }

    async fn release(&self, claims: &[ClaimId]) -> Result<(), StoreError> {
        self.inner.release(claims).await
    }

    async fn claims_of(
        &self,
        worker: WorkerId,
        limit: usize,
    ) -> Result<Vec<ClaimRecord>, StoreError> {
        self.inner.claims_of(worker, limit).await
    }

    async fn mark_unmessaged(&self, ids: &[TaskId]) -> Result<(), StoreError> {
        self.inner.mark_unmessaged(ids).await
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        self.inner.totals().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }
}

#[cfg(all(test, feature = "memory"))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ports::{Fence, Payload, Priority, Spent, TaskStatus, WriteOutcome};

    use super::*;
    use crate::faulty::{Fault, Faults, Faulty};
    use crate::memory::{Memory, MemoryTaskStore, RefusedValue};

    struct Bench {
        memory: Memory,
        faults: Arc<Faults>,
        store: Arc<Coalesced>,
    }

    fn bench(limits: CoalesceLimits) -> Bench {
        let memory = Memory::new();
        let slow: Faulty<MemoryTaskStore> = Faulty::new(memory.store.clone());
        let faults = Arc::clone(slow.faults());
        let store = Arc::new(Coalesced::new(Arc::new(slow), limits));
        Bench {
            memory,
            faults,
            store,
        }
    }

    fn task(number: u128) -> NewTask {
        NewTask {
            id: TaskId(uuid::Uuid::from_u128(number)),
            payload: Payload::default(),
            priority: Priority::default(),
            max_attempts: 5,
            run_at: None,
            messaged: false,
        }
    }

    /// One caller each, all at once.
    async fn insert_each(
        store: &Arc<Coalesced>,
        tasks: Vec<NewTask>,
    ) -> Vec<Result<Vec<InsertOutcome>, StoreError>> {
        let mut answers: Vec<_> = tasks
            .into_iter()
            .map(|task| {
                let store = Arc::clone(store);
                tokio::spawn(async move { store.insert(&[task]).await })
            })
            .collect();
        let mut outcomes = Vec::new();
        for answer in &mut answers {
            outcomes.push(answer.await.expect("no panic"));
        }
        outcomes
    }

    const SLOW: Fault = Fault::Delay(Duration::from_millis(10));

    #[tokio::test(start_paused = true)]
    async fn a_call_alone_goes_straight_through() {
        let Bench { faults, store, .. } = bench(CoalesceLimits::default());
        let start = tokio::time::Instant::now();
        for number in 1..=5 {
            store.insert(&[task(number)]).await.expect("insert");
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(faults.calls_of("insert"), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_wait_share_a_commit_and_each_gets_its_own_answer() {
        let Bench {
            memory,
            faults,
            store,
        } = bench(CoalesceLimits::default());
        store.insert(&[task(50)]).await.expect("insert");
        memory.advance(Duration::from_secs(1));
        faults.always(SLOW);
        let outcomes = insert_each(&store, (1..=100).map(task).collect()).await;
        for (number, outcome) in (1..=100).zip(outcomes) {
            let outcome = outcome.expect("insert");
            assert_eq!(outcome.len(), 1);
            let expected = if number == 50 {
                WriteOutcome::AlreadyApplied
            } else {
                WriteOutcome::Applied
            };
            assert_eq!(outcome[0].write, expected, "{number}");
        }
        // Two writers: the first takes what is there, and whatever came while they wrote goes next.
        let commits = faults.calls_of("insert") - 1;
        assert!(commits <= 4, "{commits} commits for 100 calls");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_keeps_to_its_cap() {
        let limits = CoalesceLimits {
            batch: 10,
            writers: 1,
            queue: 1_000,
        };
        let Bench {
            memory,
            faults,
            store,
        } = bench(limits);
        faults.always(SLOW);
        let outcomes = insert_each(&store, (1..=100).map(task).collect()).await;
        assert!(outcomes.iter().all(Result::is_ok));
        let commits = faults.calls_of("insert");
        assert!((10..=12).contains(&commits), "{commits}");
        // A slice above the cap is one commit all the same: all or nothing.
        let large: Vec<NewTask> = (101..=150).map(task).collect();
        store.insert(&large).await.expect("insert");
        assert_eq!(faults.calls_of("insert"), commits + 1);
        assert_eq!(memory.store.snapshot().tasks.len(), 150);
    }

    #[tokio::test(start_paused = true)]
    async fn a_culprit_stands_alone() {
        let limits = CoalesceLimits {
            writers: 1,
            ..CoalesceLimits::default()
        };
        let Bench {
            memory,
            faults,
            store,
        } = bench(limits);
        faults.next(1, SLOW);
        let mut tasks: Vec<NewTask> = (1..=64).map(task).collect();
        for culprit in [20, 21, 40] {
            tasks[culprit].max_attempts = u32::MAX;
        }
        let outcomes = insert_each(&store, tasks).await;
        for (place, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Ok(_) => assert!(![20, 21, 40].contains(&place)),
                Err(StoreError::Rejected(cause)) => {
                    assert!([20, 21, 40].contains(&place));
                    assert_eq!(cause.downcast_ref(), Some(&RefusedValue::MaxAttempts));
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(memory.store.snapshot().tasks.len(), 61);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_refuses_at_once() {
        let limits = CoalesceLimits {
            batch: 4,
            writers: 1,
            queue: 10,
        };
        let Bench { faults, store, .. } = bench(limits);
        faults.always(Fault::Delay(Duration::from_secs(60)));
        let start = tokio::time::Instant::now();
        let accepted = tokio::spawn({
            let store = Arc::clone(&store);
            async move { insert_each(&store, (1..=10).map(task).collect()).await }
        });
        while store.inserts.room.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let error = store.insert(&[task(11)]).await.expect_err("no room");
        assert!(error.is_transient());
        assert!(Overloaded::caused(&error));
        assert_eq!(start.elapsed(), Duration::ZERO);
        // Transitions have a queue of their own, and reads have none.
        assert!(store.transition(&[]).await.is_ok());
        assert!(accepted.await.expect("no panic").iter().all(Result::is_ok));
        assert_eq!(store.inserts.room.available_permits(), 10);
        faults.heal();
        store
            .insert(&[task(11)])
            .await
            .expect("there is room again");
    }

    #[tokio::test(start_paused = true)]
    async fn text_takes_room_too() {
        let limits = CoalesceLimits {
            batch: 4,
            writers: 1,
            queue: 8,
        };
        let Bench { faults, store, .. } = bench(limits);
        faults.next(1, SLOW);
        let heavy = NewTask {
            payload: Payload::new("x".repeat(4 * TEXT_UNIT)).expect("no NUL"),
            ..task(1)
        };
        let (first, second) = tokio::join!(store.insert(std::slice::from_ref(&heavy)), async {
            let other = NewTask {
                id: task(2).id,
                ..heavy.clone()
            };
            store.insert(&[other]).await
        });
        first.expect("insert");
        assert!(second.is_err_and(|error| Overloaded::caused(&error)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_hangs_up_cancels_nothing() {
        let Bench {
            memory,
            faults,
            store,
        } = bench(CoalesceLimits::default());
        faults.always(SLOW);
        for number in 1..=5 {
            let patience = Duration::from_millis(1);
            assert!(
                tokio::time::timeout(patience, store.insert(&[task(number)]))
                    .await
                    .is_err()
            );
        }
        memory.store.until(|held| held.tasks.len() == 5).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_commit_tells_every_caller_why() {
        let limits = CoalesceLimits {
            writers: 1,
            ..CoalesceLimits::default()
        };
        let Bench { faults, store, .. } = bench(limits);
        faults.next(1, Fault::FailBefore);
        let outcomes = insert_each(&store, (1..=10).map(task).collect()).await;
        let errors: Vec<&StoreError> = outcomes
            .iter()
            .filter_map(|outcome| outcome.as_ref().err())
            .collect();
        assert_eq!(errors.len(), 10);
        for error in errors {
            assert!(error.is_transient());
            let mut root: &dyn Error = error;
            while let Some(cause) = root.source() {
                root = cause;
            }
            assert_eq!(root.to_string(), "FailBefore was ordered for insert");
        }
        store.insert(&[task(11)]).await.expect("the writer goes on");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_for_one_task_never_share_a_commit() {
        let limits = CoalesceLimits {
            writers: 1,
            ..CoalesceLimits::default()
        };
        let Bench { faults, store, .. } = bench(limits);
        store.insert(&[task(1), task(2)]).await.expect("insert");
        faults.next(1, SLOW);
        let cancel = |number: u128| Transition {
            id: task(number).id,
            fence: Fence(0),
            from: TaskStatus::Pending,
            to: Next::Cancelled,
            spent: Spent::Nothing,
        };
        let mut answers = JoinSet::new();
        for number in [2, 1, 1, 1] {
            let (store, transition) = (Arc::clone(&store), cancel(number));
            answers.spawn(async move {
                store.transition(&[transition]).await.expect("transition")[0].write
            });
        }
        let mut writes = answers.join_all().await;
        writes.sort_by_key(|write| *write != WriteOutcome::Applied);
        let expected = [
            WriteOutcome::Applied,
            WriteOutcome::Applied,
            WriteOutcome::AlreadyApplied,
            WriteOutcome::AlreadyApplied,
        ];
        assert_eq!(writes, expected);
        assert!(faults.calls_of("transition") >= 3);
    }

    /// With two writers, one idle and holding the queue, a call left over by the other must not wait for it.
    #[tokio::test(start_paused = true)]
    async fn a_call_left_over_does_not_wait_for_an_idle_writer() {
        let Bench { faults, store, .. } = bench(CoalesceLimits::default());
        faults.next(1, SLOW);
        // The first writer takes one and keeps the other for later; the second then waits at the empty queue.
        let all = insert_each(&store, vec![task(1), task(1)]);
        let outcomes = tokio::time::timeout(Duration::from_secs(1), all)
            .await
            .expect("nobody waits");
        assert!(outcomes.iter().all(Result::is_ok));
        assert_eq!(faults.calls_of("insert"), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_the_store_costs_its_batch_only() {
        let memory = Memory::new();
        let calls = Arc::new(AtomicUsize::new(0));
        let faulty = Faulty::new(Arc::clone(&memory.store));
        let counted = Arc::clone(&calls);
        faulty.faults().rule(move |_| {
            assert!(
                counted.fetch_add(1, Ordering::Relaxed) != 0,
                "the first call panics"
            );
            None
        });
        let store = Coalesced::new(
            Arc::new(faulty),
            CoalesceLimits {
                writers: 1,
                ..CoalesceLimits::default()
            },
        );
        let error = store.insert(&[task(1)]).await.expect_err("it panicked");
        assert!(error.is_transient());
        store.insert(&[task(1)]).await.expect("the writer goes on");
    }
}
