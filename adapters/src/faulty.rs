//! Failure on purpose: a port that does what it wraps does, and fails when it is told to.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ports::{
    AnnounceError, Announcer, AuditPage, BeatReply, CacheError, ClaimError, ClaimId, ClaimRecord,
    ClaimTicket, ClaimedTask, DeadLetter, Delivery, DeliveryOutcome, Failure, FeedError, Horizon,
    InsertOutcome, Inspection, Job, KeptRequest, KeyedRequest, Listed, Listing, NewTask, Position,
    Processor, PublishError, RemoveReply, ResultCache, Standing, StoreError, Task, TaskAudit,
    TaskCatalog, TaskEvent, TaskFeed, TaskId, TaskMessage, TaskPublisher, TaskResult, TaskStore,
    Timestamp, Totals, TraceContext, Transition, TransitionOutcome, Whereabouts, WorkerEntry,
    WorkerId, WorkerRegistry, WriteOutcome,
};

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done; the answer is the port's `Unavailable`.
    FailBefore,
    /// The work is done, but its answer is lost: the answer is the port's `Unavailable`.
    FailAfter,
    /// Nothing is done; the answer is the port's refusal that no repetition cures (`Unavailable` where it has none).
    Refuse,
    /// The work is done after this time (tokio's).
    Delay(Duration),
    /// The work is done twice, and the second answer is given. A feed delivers the same records again next time.
    Twice,
}

/// The cause inside every error of a [`Faulty`] port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault:?} was ordered for {method}")]
pub struct InjectedFault {
    /// The method that was called.
    pub method: &'static str,
    /// What was ordered.
    pub fault: Fault,
}

type Rule = Box<dyn Fn(&'static str) -> Option<Fault> + Send + Sync>;

type Guard = Box<dyn Fn(&Transition) -> bool + Send + Sync>;

/// What a [`Faulty`] port was told to do, and what it was asked.
#[derive(Default)]
pub struct Faults {
    state: Mutex<Orders>,
}

#[derive(Default)]
struct Orders {
    /// Orders for single calls, of one method or of any.
    once: VecDeque<(Option<&'static str>, Fault)>,
    /// For calls without an order of their own.
    rule: Option<Rule>,
    /// Which moves a store refuses.
    guard: Option<Guard>,
    /// The task that a store lets nobody claim or delete.
    shielded: Option<TaskId>,
    calls: Vec<&'static str>,
}

/// How many calls are remembered.
const KEPT_CALLS: usize = 100_000;

impl Faults {
    /// The next `count` calls, whichever the method, go wrong like this. Orders are taken in the order they were given.
    pub fn next(&self, count: usize, fault: Fault) {
        let mut orders = self.lock();
        orders
            .once
            .extend(std::iter::repeat_n((None, fault), count));
    }

    /// The next `count` calls of a method (by its name in the port's trait) go wrong like this.
    pub fn next_of(&self, method: &'static str, count: usize, fault: Fault) {
        let mut orders = self.lock();
        orders
            .once
            .extend(std::iter::repeat_n((Some(method), fault), count));
    }

    /// Every call that has no order of its own goes wrong like this, until [`heal`](Self::heal): an outage.
    pub fn always(&self, fault: Fault) {
        self.rule(move |_| Some(fault));
    }

    /// Asks this function about every call that has no order of its own: a seeded simulation decides here.
    pub fn rule(&self, decide: impl Fn(&'static str) -> Option<Fault> + Send + Sync + 'static) {
        self.lock().rule = Some(Box::new(decide));
    }

    /// A store refuses each batch with such a move in it, until [`heal`](Self::heal), like a table with a trigger of others.
    pub fn guard(&self, refuses: impl Fn(&Transition) -> bool + Send + Sync + 'static) {
        self.lock().guard = Some(Box::new(refuses));
    }

    /// A store lets nobody claim or delete this task, alone or among others, until [`heal`](Self::heal), like a table with a trigger
    /// of others. While it exists it counts as one of those that wait for longest.
    pub fn shield(&self, task: TaskId) {
        self.lock().shielded = Some(task);
    }

    /// Takes every order back.
    pub fn heal(&self) {
        let mut orders = self.lock();
        orders.once.clear();
        orders.rule = None;
        orders.guard = None;
        orders.shielded = None;
    }

    /// How often a method was called, as far back as the latest 100,000 calls go; failed calls count too.
    #[must_use]
    pub fn calls_of(&self, method: &str) -> usize {
        self.lock()
            .calls
            .iter()
            .filter(|called| **called == method)
            .count()
    }

    fn decide(&self, method: &'static str) -> Option<Fault> {
        let mut orders = self.lock();
        if orders.calls.len() == KEPT_CALLS {
            orders.calls.drain(..KEPT_CALLS / 2);
        }
        orders.calls.push(method);
        let ordered = orders
            .once
            .iter()
            .position(|(only, _)| only.is_none_or(|only| only == method));
        match ordered.and_then(|place| orders.once.remove(place)) {
            Some((_, fault)) => Some(fault),
            None => orders.rule.as_ref().and_then(|rule| rule(method)),
        }
    }

    fn refuses(&self, transitions: &[Transition]) -> bool {
        let orders = self.lock();
        let guard = orders.guard.as_ref();
        guard.is_some_and(|refuses| transitions.iter().any(refuses))
    }

    fn shielded(&self) -> Option<TaskId> {
        self.lock().shielded
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A port that fails when it is told to, and otherwise does what the wrapped one does.
///
/// It implements every fallible port that the wrapped one implements: a `Faulty<MemoryTaskStore>` is a store, a
/// registry and an audit under one script.
///
/// ```
/// use std::sync::Arc;
/// use task_processor_adapters::faulty::{Fault, Faulty};
/// use task_processor_adapters::memory::Memory;
/// use ports::{ResultCache, TaskId};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Faulty::new(Memory::new().cache);
/// cache.faults().next(2, Fault::FailBefore);
/// assert!(cache.ping().await.is_err());
/// assert!(cache.ping().await.is_err());
/// assert!(cache.ping().await.is_ok());
/// # }
/// ```
pub struct Faulty<P: ?Sized> {
    faults: Arc<Faults>,
    /// Whether the latest call of a feed failed.
    down: AtomicBool,
    /// Records that a feed delivers (again) before it asks the wrapped one.
    waiting: Mutex<VecDeque<Delivery>>,
    inner: Arc<P>,
}

fn refused(method: &'static str) -> StoreError {
    let fault = Fault::Refuse;
    StoreError::Rejected(InjectedFault { method, fault }.into())
}

enum Injected {
    Unavailable(InjectedFault),
    Refused(InjectedFault),
}

impl Injected {
    const fn fault(&self) -> InjectedFault {
        match self {
            Self::Unavailable(fault) | Self::Refused(fault) => *fault,
        }
    }

    fn store_error(&self) -> StoreError {
        match self {
            Self::Unavailable(fault) => StoreError::Unavailable((*fault).into()),
            Self::Refused(fault) => StoreError::Rejected((*fault).into()),
        }
    }

    fn publish_error(&self) -> PublishError {
        match self {
            Self::Unavailable(fault) => PublishError::Unavailable((*fault).into()),
            Self::Refused(fault) => PublishError::Rejected((*fault).into()),
        }
    }

    fn announce_error(&self) -> AnnounceError {
        match self {
            Self::Unavailable(fault) => AnnounceError::Unavailable((*fault).into()),
            Self::Refused(fault) => AnnounceError::Rejected((*fault).into()),
        }
    }

    fn feed_error(&self) -> FeedError {
        match self {
            Self::Unavailable(fault) => FeedError::Unavailable((*fault).into()),
            Self::Refused(fault) => FeedError::Refused(fault.to_string()),
        }
    }

    fn cache_error(&self) -> CacheError {
        CacheError::Unavailable(self.fault().into())
    }

    fn failure(&self) -> Failure {
        match self {
            Self::Unavailable(fault) => Failure::Unavailable(fault.to_string()),
            Self::Refused(fault) => Failure::Permanent(fault.to_string()),
        }
    }
}

impl<P: ?Sized> Faulty<P> {
    /// Wraps a port. Nothing goes wrong until it is ordered.
    #[must_use]
    pub fn new(inner: Arc<P>) -> Self {
        Self {
            faults: Arc::default(),
            down: AtomicBool::new(false),
            waiting: Mutex::default(),
            inner,
        }
    }

    /// Where faults are ordered and calls are counted. A clone of the handle stays with the test.
    #[must_use]
    pub const fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }

    /// What is wrapped.
    #[must_use]
    pub const fn inner(&self) -> &Arc<P> {
        &self.inner
    }

    async fn through<Answer, Working>(
        &self,
        method: &'static str,
        mut work: impl FnMut() -> Working + Send,
    ) -> Result<Answer, Injected>
    where
        Answer: Send,
        Working: Future<Output = Answer> + Send,
    {
        let Some(fault) = self.faults.decide(method) else {
            return Ok(work().await);
        };
        let injected = InjectedFault { method, fault };
        match fault {
            Fault::FailBefore => Err(Injected::Unavailable(injected)),
            Fault::FailAfter => {
                work().await;
                Err(Injected::Unavailable(injected))
            }
            Fault::Refuse => Err(Injected::Refused(injected)),
            Fault::Delay(time) => {
                tokio::time::sleep(time).await;
                Ok(work().await)
            }
            Fault::Twice => {
                work().await;
                Ok(work().await)
            }
        }
    }

    async fn store_call<Answer: Send, Working>(
        &self,
        method: &'static str,
        work: impl FnMut() -> Working + Send,
    ) -> Result<Answer, StoreError>
    where
        Working: Future<Output = Result<Answer, StoreError>> + Send,
    {
        match self.through(method, work).await {
            Ok(answer) => answer,
            Err(injected) => Err(injected.store_error()),
        }
    }

    async fn claim_call<Answer: Send, Working>(
        &self,
        method: &'static str,
        work: impl FnMut() -> Working + Send,
    ) -> Result<Answer, ClaimError>
    where
        Working: Future<Output = Result<Answer, ClaimError>> + Send,
    {
        match self.through(method, work).await {
            Ok(answer) => answer,
            Err(injected) => Err(ClaimError::Store(injected.store_error())),
        }
    }

    async fn cache_call<Answer: Send, Working>(
        &self,
        method: &'static str,
        work: impl FnMut() -> Working + Send,
    ) -> Result<Answer, CacheError>
    where
        Working: Future<Output = Result<Answer, CacheError>> + Send,
    {
        match self.through(method, work).await {
            Ok(answer) => answer,
            Err(injected) => Err(injected.cache_error()),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Delivery>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail_feed(&self, method: &'static str, fault: Fault) -> FeedError {
        self.down.store(true, Ordering::Relaxed);
        let injected = InjectedFault { method, fault };
        match fault {
            Fault::Refuse => Injected::Refused(injected).feed_error(),
            _ => Injected::Unavailable(injected).feed_error(),
        }
    }
}

#[async_trait]
impl<P: TaskStore + ?Sized> TaskStore for Faulty<P> {
    async fn insert(&self, tasks: &[NewTask]) -> Result<Vec<InsertOutcome>, StoreError> {
        self.store_call("insert", || self.inner.insert(tasks)).await
    }

    async fn insert_keyed(
        &self,
        requests: &[KeyedRequest],
    ) -> Result<Vec<KeptRequest>, StoreError> {
        self.store_call("insert_keyed", || self.inner.insert_keyed(requests))
            .await
    }

    async fn prune_keys(&self, age: Duration, limit: usize) -> Result<usize, StoreError> {
        self.store_call("prune_keys", || self.inner.prune_keys(age, limit))
            .await
    }

    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Task>>, StoreError> {
        self.store_call("get", || self.inner.get(ids)).await
    }

    async fn whereabouts(&self, ids: &[TaskId]) -> Result<Vec<Option<Whereabouts>>, StoreError> {
        self.store_call("whereabouts", || self.inner.whereabouts(ids))
            .await
    }

    async fn claim_delivered(
        &self,
        ticket: ClaimTicket,
        ids: &[TaskId],
    ) -> Result<Vec<DeliveryOutcome>, ClaimError> {
        let method = "claim_delivered";
        self.claim_call(method, || async move {
            if self.faults.shielded().is_some_and(|id| ids.contains(&id)) {
                return Err(refused(method).into());
            }
            self.inner.claim_delivered(ticket, ids).await
        })
        .await
    }

    async fn claim_aged(
        &self,
        ticket: ClaimTicket,
        horizon: Horizon,
        grace: Duration,
        limit: usize,
    ) -> Result<Vec<ClaimedTask>, ClaimError> {
        let method = "claim_aged";
        self.claim_call(method, || async move {
            if let Some(id) = self.faults.shielded()
                && self.inner.get(&[id]).await?[0].is_some()
            {
                return Err(refused(method).into());
            }
            self.inner.claim_aged(ticket, horizon, grace, limit).await
        })
        .await
    }

    async fn transition(
        &self,
        transitions: &[Transition],
    ) -> Result<Vec<TransitionOutcome>, StoreError> {
        let method = "transition";
        self.store_call(method, || async move {
            if self.faults.refuses(transitions) {
                return Err(refused(method));
            }
            self.inner.transition(transitions).await
        })
        .await
    }

    async fn release(&self, claims: &[ClaimId]) -> Result<(), StoreError> {
        self.store_call("release", || self.inner.release(claims))
            .await
    }

    async fn claims_of(
        &self,
        worker: WorkerId,
        after: Option<ClaimId>,
        limit: usize,
    ) -> Result<Vec<ClaimRecord>, StoreError> {
        self.store_call("claims_of", || self.inner.claims_of(worker, after, limit))
            .await
    }

    async fn mark_unmessaged(&self, ids: &[TaskId]) -> Result<(), StoreError> {
        self.store_call("mark_unmessaged", || self.inner.mark_unmessaged(ids))
            .await
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        self.store_call("totals", || self.inner.totals()).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.store_call("ping", || self.inner.ping()).await
    }
}

#[async_trait]
impl<P: WorkerRegistry + ?Sized> WorkerRegistry for Faulty<P> {
    async fn register(&self, worker: WorkerId, name: &str) -> Result<(), StoreError> {
        self.store_call("register", || self.inner.register(worker, name))
            .await
    }

    async fn beat(
        &self,
        worker: WorkerId,
        position: Option<Timestamp>,
    ) -> Result<BeatReply, StoreError> {
        self.store_call("beat", || self.inner.beat(worker, position))
            .await
    }

    async fn workers(&self) -> Result<Vec<WorkerEntry>, StoreError> {
        self.store_call("workers", || self.inner.workers()).await
    }

    async fn declare_dead(
        &self,
        worker: WorkerId,
        last_beat: u64,
    ) -> Result<WriteOutcome, StoreError> {
        self.store_call("declare_dead", || {
            self.inner.declare_dead(worker, last_beat)
        })
        .await
    }

    async fn remove(&self, worker: WorkerId) -> Result<RemoveReply, StoreError> {
        self.store_call("remove", || self.inner.remove(worker))
            .await
    }
}

#[async_trait]
impl<P: TaskAudit + ?Sized> TaskAudit for Faulty<P> {
    async fn stranded(
        &self,
        after: Option<TaskId>,
        limit: usize,
        unmoved_for: Duration,
    ) -> Result<AuditPage, StoreError> {
        self.store_call("stranded", || {
            self.inner.stranded(after, limit, unmoved_for)
        })
        .await
    }

    async fn enqueue(&self, ids: &[TaskId]) -> Result<usize, StoreError> {
        self.store_call("enqueue", || self.inner.enqueue(ids)).await
    }

    async fn sweep_queue(
        &self,
        after: Option<TaskId>,
        limit: usize,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        self.store_call("sweep_queue", || self.inner.sweep_queue(after, limit))
            .await
    }

    async fn enlist(&self, ids: &[TaskId]) -> Result<usize, StoreError> {
        self.store_call("enlist", || self.inner.enlist(ids)).await
    }

    async fn sweep_stopped(
        &self,
        after: Option<TaskId>,
        limit: usize,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        self.store_call("sweep_stopped", || self.inner.sweep_stopped(after, limit))
            .await
    }

    async fn untold(
        &self,
        after: Option<TaskId>,
        limit: usize,
        unmoved_for: Duration,
    ) -> Result<(Vec<TaskEvent>, Option<TaskId>), StoreError> {
        self.store_call("untold", || self.inner.untold(after, limit, unmoved_for))
            .await
    }

    async fn mark_told(&self, ids: &[TaskId]) -> Result<(), StoreError> {
        self.store_call("mark_told", || self.inner.mark_told(ids))
            .await
    }

    async fn prune(
        &self,
        after: Option<TaskId>,
        limit: usize,
        older_than: Duration,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        let method = "prune";
        self.store_call(method, || async move {
            if let Some(id) = self.faults.shielded().filter(|id| after < Some(*id)) {
                let stretch = self.inner.stranded(after, limit, older_than).await?;
                if stretch.next.is_none_or(|last| id <= last) {
                    return Err(refused(method));
                }
            }
            self.inner.prune(after, limit, older_than).await
        })
        .await
    }

    async fn orphaned_claims(&self, limit: usize) -> Result<Vec<ClaimRecord>, StoreError> {
        self.store_call("orphaned_claims", || self.inner.orphaned_claims(limit))
            .await
    }
}

#[async_trait]
impl<P: TaskCatalog + ?Sized> TaskCatalog for Faulty<P> {
    async fn list(&self, listing: &Listing) -> Result<Listed, StoreError> {
        self.store_call("list", || self.inner.list(listing)).await
    }

    async fn inspect(
        &self,
        id: TaskId,
        count_up_to: usize,
    ) -> Result<Option<Inspection>, StoreError> {
        self.store_call("inspect", || self.inner.inspect(id, count_up_to))
            .await
    }
}

#[async_trait]
impl<P: TaskPublisher + ?Sized> TaskPublisher for Faulty<P> {
    async fn publish(&self, messages: &[TaskMessage]) -> Vec<Result<(), PublishError>> {
        match self
            .through("publish", || self.inner.publish(messages))
            .await
        {
            Ok(outcomes) => outcomes,
            Err(injected) => messages
                .iter()
                .map(|_| Err(injected.publish_error()))
                .collect(),
        }
    }

    async fn ping(&self) -> Result<(), PublishError> {
        match self.through("ping", || self.inner.ping()).await {
            Ok(answer) => answer,
            Err(injected) => Err(injected.publish_error()),
        }
    }
}

#[async_trait]
impl<P: Announcer + ?Sized> Announcer for Faulty<P> {
    async fn announce_traced(
        &self,
        results: &[TaskResult],
        traces: &[Option<TraceContext>],
    ) -> Vec<Result<(), AnnounceError>> {
        match self
            .through("announce", || self.inner.announce_traced(results, traces))
            .await
        {
            Ok(outcomes) => outcomes,
            Err(injected) => results
                .iter()
                .map(|_| Err(injected.announce_error()))
                .collect(),
        }
    }

    async fn announce(&self, results: &[TaskResult]) -> Vec<Result<(), AnnounceError>> {
        match self
            .through("announce", || self.inner.announce(results))
            .await
        {
            Ok(outcomes) => outcomes,
            Err(injected) => results
                .iter()
                .map(|_| Err(injected.announce_error()))
                .collect(),
        }
    }

    async fn dead_letter(&self, letters: &[DeadLetter]) -> Vec<Result<(), AnnounceError>> {
        match self
            .through("dead_letter", || self.inner.dead_letter(letters))
            .await
        {
            Ok(outcomes) => outcomes,
            Err(injected) => letters
                .iter()
                .map(|_| Err(injected.announce_error()))
                .collect(),
        }
    }

    async fn tell(&self, events: &[TaskEvent]) -> Vec<Result<(), AnnounceError>> {
        match self.through("tell", || self.inner.tell(events)).await {
            Ok(outcomes) => outcomes,
            Err(injected) => events
                .iter()
                .map(|_| Err(injected.announce_error()))
                .collect(),
        }
    }
}

/// A lost answer loses no record: what the wrapped feed had given is delivered by the next call, as the port promises.
#[async_trait]
impl<P: TaskFeed + ?Sized> TaskFeed for Faulty<P> {
    async fn receive(&self, limit: usize) -> Result<Vec<Delivery>, FeedError> {
        let fault = self.faults.decide("receive");
        match fault {
            Some(fault @ (Fault::FailBefore | Fault::Refuse)) => {
                return Err(self.fail_feed("receive", fault));
            }
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::FailAfter | Fault::Twice) | None => {}
        }
        let held: Vec<Delivery> = {
            let mut waiting = self.waiting();
            let count = limit.min(waiting.len());
            waiting.drain(..count).collect()
        };
        // Nothing is awaited once records are taken, so a dropped future loses none.
        let deliveries = if held.is_empty() {
            self.inner.receive(limit).await?
        } else {
            held
        };
        match fault {
            Some(fault @ Fault::FailAfter) => {
                self.waiting().extend(deliveries);
                Err(self.fail_feed("receive", fault))
            }
            Some(Fault::Twice) => {
                self.waiting().extend(deliveries.iter().cloned());
                self.down.store(false, Ordering::Relaxed);
                Ok(deliveries)
            }
            _ => {
                self.down.store(false, Ordering::Relaxed);
                Ok(deliveries)
            }
        }
    }

    async fn acknowledge(&self, upto: &[Position]) -> Result<(), FeedError> {
        match self
            .through("acknowledge", || self.inner.acknowledge(upto))
            .await
        {
            Ok(answer) => answer,
            Err(injected) => Err(injected.feed_error()),
        }
    }

    /// `Down` from a failed `receive` to the next that succeeds.
    fn standing(&self) -> Standing {
        if self.down.load(Ordering::Relaxed) {
            return Standing::Down;
        }
        if !self.waiting().is_empty() {
            return Standing::Behind;
        }
        self.inner.standing()
    }
}

#[async_trait]
impl<P: ResultCache + ?Sized> ResultCache for Faulty<P> {
    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<TaskResult>>, CacheError> {
        self.cache_call("get", || self.inner.get(ids)).await
    }

    async fn put(&self, results: &[TaskResult]) -> Result<(), CacheError> {
        self.cache_call("put", || self.inner.put(results)).await
    }

    async fn ping(&self) -> Result<(), CacheError> {
        self.cache_call("ping", || self.inner.ping()).await
    }
}

#[async_trait]
impl<P: Processor + ?Sized> Processor for Faulty<P> {
    async fn process(&self, job: Job) -> Result<String, Failure> {
        match self
            .through("process", || self.inner.process(job.clone()))
            .await
        {
            Ok(answer) => answer,
            Err(injected) => Err(injected.failure()),
        }
    }

    fn timeout(&self, job: &Job) -> Option<Duration> {
        self.inner.timeout(job)
    }
}

#[cfg(all(test, feature = "memory"))]
mod tests {
    use super::*;
    use crate::memory::Memory;

    fn some_id() -> TaskId {
        TaskId(uuid::Uuid::from_u128(7))
    }

    fn some_task() -> NewTask {
        NewTask {
            id: some_id(),
            payload: ports::Payload::default(),
            priority: ports::Priority::default(),
            max_attempts: 1,
            run_at: None,
            messaged: false,
        }
    }

    #[tokio::test]
    async fn a_lost_answer_leaves_the_work_done() {
        let memory = Memory::new();
        let store = Faulty::new(Arc::clone(&memory.store));
        store.faults().next(1, Fault::FailBefore);
        store.faults().next(1, Fault::FailAfter);
        let failed = store.insert(&[some_task()]).await;
        assert!(matches!(failed, Err(StoreError::Unavailable(_))));
        assert_eq!(memory.store.task(some_id()), None);
        let lost = store.insert(&[some_task()]).await;
        assert!(matches!(lost, Err(StoreError::Unavailable(_))));
        assert!(memory.store.task(some_id()).is_some());
        let repeated = store.insert(&[some_task()]).await.expect("insert");
        assert_eq!(repeated[0].write, WriteOutcome::AlreadyApplied);
        assert_eq!(store.faults().calls_of("insert"), 3);
    }

    #[tokio::test]
    async fn orders_for_a_method_wait_for_that_method() {
        let store = Faulty::new(Memory::new().store);
        store.faults().next_of("get", 1, Fault::Refuse);
        store.faults().always(Fault::FailBefore);
        assert!(
            store
                .totals()
                .await
                .is_err_and(|error| error.is_transient())
        );
        assert!(
            store
                .get(&[some_id()])
                .await
                .is_err_and(|error| !error.is_transient())
        );
        assert!(
            store
                .get(&[some_id()])
                .await
                .is_err_and(|error| error.is_transient())
        );
        store.faults().heal();
        assert!(store.totals().await.is_ok());
    }

    #[tokio::test]
    async fn a_feed_delivers_twice_and_loses_nothing_with_an_answer() {
        let memory = Memory::new();
        let id = memory.submit("Hello world!").await;
        let feed = Faulty::new(Arc::new(memory.log.feed()));
        feed.faults().next(1, Fault::FailAfter);
        feed.faults().next(1, Fault::Twice);
        assert!(feed.receive(10).await.is_err());
        assert_eq!(feed.standing(), Standing::Down);
        for _ in 0..2 {
            let deliveries = feed.receive(10).await.expect("receive");
            assert_eq!(deliveries.len(), 1);
            assert_eq!(deliveries[0].content, ports::RecordContent::Task(id));
        }
        assert_eq!(feed.standing(), Standing::CaughtUp);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_takes_its_time() {
        let cache = Faulty::new(Memory::new().cache);
        cache
            .faults()
            .next(1, Fault::Delay(Duration::from_secs(60)));
        let start = tokio::time::Instant::now();
        cache.ping().await.expect("ping");
        assert_eq!(start.elapsed(), Duration::from_secs(60));
    }
}
