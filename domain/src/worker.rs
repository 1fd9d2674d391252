//! The worker: a continuous flow from the log to the announcement.
//!
//! ```text
//! intake ──▶ run ──▶ settle ──▶ announce ──▶ release
//!    └─────▶ acknowledge
//! ```
//!
//! Every stage takes whatever is ready and works while the others do, so a slow task never holds up the batch it came
//! with. One worker lives several lives: when the registry no longer knows it, it drops everything in hand (others have
//! it by then) and registers under a new identity.

mod acknowledge;
mod announce;
mod brake;
mod duty;
mod heed;
mod intake;
mod leftover;
mod load;
mod progress;
mod run;
mod settle;

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use ports::{
    ClaimId, ClaimedTask, Dependency, Event, Failure, Horizon, Processor, RemoveReply, Span, Step,
    TaskFeed, Timestamp, TraceContext, Work, WorkerEntry, WorkerId,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use crate::again::{Backoff, OF_A_WORKER};
use crate::audit::AuditConfig;
use crate::heart::{Heart, Pulse};
use crate::prune::PruneConfig;
use crate::rescue::{Undertaker, Watch};
use crate::resolve::{Told, Unfinished, resolve_claims};
use crate::turn::{panic_text, tell_of_panic};
use crate::{Ports, RetryPolicy, tell_of_failure};
use brake::Brake;
use heed::Running;
use leftover::Leftover;
use load::{Load, Weight};

pub use progress::{Pace, Progress};

/// How long a stop waits for the claim that is under way.
const LAST_CLAIM: Duration = Duration::from_secs(2);

/// The least time that each of the last steps of a stop gets.
const LAST_STEP: Duration = Duration::from_millis(500);

/// What panics whenever it begins must not make a life after the other.
const AFTER_A_PANIC: Duration = Duration::from_secs(1);

/// Limits and intervals of a [`Worker`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// A name for people; default `worker`.
    pub name: String,
    /// How many runs of the processing function at once. Default 1,024.
    pub concurrency: usize,
    /// How many tasks may be claimed and not yet announced. Default 8,192.
    pub in_flight: usize,
    /// How many bytes of payloads and results may be in hand; until a result is there it is taken to be as long as its payload. A claim
    /// takes as many tasks as fit if each payload has 256 KiB, or as much as the longest of the sixteen claims before where that is
    /// more: 128 by default. So a small limit makes small claims. What adapters copy in
    /// reading, writing and telling them is not counted. Default 64 MiB.
    pub in_flight_bytes: usize,
    /// How many tasks a claim, a completion or an announcement may hold; see also `in_flight_bytes`. Default 512.
    pub batch: usize,
    /// The deadline of one run; zero is none. Default 60 s.
    pub task_timeout: Duration,
    /// The longest result in bytes. Default 256 KiB.
    pub max_result_bytes: usize,
    /// What follows a failure.
    pub retry: RetryPolicy,
    /// How much longer than `not_before` a task with a message waits before it is claimed by age. Default 2 s.
    pub grace: Duration,
    /// How often waiting tasks are claimed by age. Default 250 ms.
    pub age_interval: Duration,
    /// How often the worker says that it lives. Default 1 s.
    pub beat_interval: Duration,
    /// How long another worker's beat must be watched standing still before it is dead. Default 5 s.
    pub lease: Duration,
    /// How often a task may be taken back from a dead worker before it is taken for the killer. Default 10.
    pub max_rescues: u32,
    /// How the tasks are compared with the books about them. The living workers do it in turns.
    pub audit: AuditConfig,
    /// Which old tasks are deleted. The living workers do it in turns.
    pub prune: PruneConfig,
    /// How long a stop may take. What is in hand has four fifths of it; what is not finished then is handed back in the rest.
    /// Default 25 s.
    pub drain_deadline: Duration,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            name: "worker".into(),
            concurrency: 1_024,
            in_flight: 8_192,
            in_flight_bytes: 64 * 1024 * 1024,
            batch: 512,
            task_timeout: Duration::from_secs(60),
            max_result_bytes: 256 * 1024,
            retry: RetryPolicy::default(),
            grace: Duration::from_secs(2),
            age_interval: Duration::from_millis(250),
            beat_interval: Duration::from_secs(1),
            lease: Duration::from_secs(5),
            max_rescues: 10,
            audit: AuditConfig::default(),
            prune: PruneConfig::default(),
            drain_deadline: Duration::from_secs(25),
        }
    }
}

/// Processes tasks until it is told to stop.
pub struct Worker {
    ports: Ports,
    feed: Arc<dyn TaskFeed>,
    processor: Arc<dyn Processor>,
    config: Arc<WorkerConfig>,
    pulse: Arc<Pulse>,
    leftover: Arc<Leftover>,
    progress: Progress,
    heart_is_out: AtomicBool,
}

/// How a worker's last life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// How many tasks were handed back unfinished.
    pub handed_back: usize,
    /// Whether the store confirmed that nothing of this worker is left in it. Otherwise another worker takes it back.
    pub clean: bool,
}

/// A task in hand, on its way through the stages.
struct Held {
    task: ClaimedTask,
    claim: ClaimId,
    trace: Option<TraceContext>,
    in_hand: InHand,
}

/// What a task in hand takes of the limits. It is given back when the task leaves the last of the stages.
struct InHand {
    weight: Weight,
    _permit: OwnedSemaphorePermit,
}

/// A task in hand with a place to run.
struct Placed {
    held: Held,
    slot: OwnedSemaphorePermit,
}

/// A run that ended.
struct Ran {
    held: Held,
    outcome: Result<String, Failure>,
}

/// What the stages of one life share.
struct Life {
    id: WorkerId,
    ports: Ports,
    feed: Arc<dyn TaskFeed>,
    processor: Arc<dyn Processor>,
    config: Arc<WorkerConfig>,
    pulse: Arc<Pulse>,
    /// Records that an earlier life received and did not see through.
    leftover: Arc<Leftover>,
    progress: Progress,
    /// Free places for runs.
    slots: Arc<Semaphore>,
    /// Free places for tasks in hand.
    in_flight: Arc<Semaphore>,
    /// The bytes in hand.
    load: Load,
    /// The claims in hand.
    book: Mutex<BTreeMap<ClaimId, Page>>,
    /// The log does not take announcements.
    log_is_down: AtomicBool,
    /// Claims whose tasks all left this worker are still recorded, because they could not be announced or released.
    owing: AtomicBool,
    /// The earliest position in the log among the living workers, and when it was read.
    earliest: Mutex<Option<(Timestamp, Instant)>>,
    /// Whether it was this worker's turn to do what one does for all, as last read.
    is_on_duty: AtomicBool,
    brake: Brake,
    /// The runs that go on, to be told when their task is cancelled.
    running: Running,
}

/// What is left of a claim.
struct Page {
    /// Tasks still on their way through the stages.
    left: usize,
    /// Tasks that left them without being announced.
    owed: usize,
    /// Some left them still in the hands of the claim, because the store takes nothing of what came of them.
    has_given_up: bool,
}

impl Page {
    const fn of(count: usize) -> Self {
        Self {
            left: count,
            owed: 0,
            has_given_up: false,
        }
    }
}

impl Worker {
    /// A worker on these ports that takes what `feed` brings and gives it to `processor`.
    #[must_use]
    pub fn new(
        ports: Ports,
        feed: Arc<dyn TaskFeed>,
        processor: Arc<dyn Processor>,
        config: WorkerConfig,
    ) -> Self {
        Self {
            ports,
            feed,
            processor,
            config: Arc::new(config),
            pulse: Arc::new(Pulse::new()),
            leftover: Arc::default(),
            progress: Progress::new(),
            heart_is_out: AtomicBool::new(false),
        }
    }

    /// Hands out the heart, to be run on a thread and a connection of its own. Whoever takes it must run it as long as
    /// the worker, or the worker will be declared dead.
    #[must_use]
    pub fn heart(&self) -> Heart {
        self.heart_is_out.store(true, Ordering::Relaxed);
        Heart {
            life: Arc::clone(&self.pulse),
            feed: Arc::clone(&self.feed),
            observer: Arc::clone(&self.ports.observer),
            interval: self.config.beat_interval,
            limit: self.config.lease / 2,
            progress: self.progress.clone(),
            grace: self.config.grace,
        }
    }

    /// Whether the worker gets on, for as long as it runs.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Works until `shutdown` resolves, then stops taking, finishes or hands back what is in hand within the drain
    /// deadline, and returns. Dropping the future instead is a crash: others take the tasks back.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Stopped {
        let mut own = JoinSet::new();
        if !self.heart_is_out.load(Ordering::Relaxed) {
            own.spawn(self.heart().run(Arc::clone(&self.ports.registry)));
        }
        let stop = watch::Sender::new(false);
        let lives = self.live_until(stop.subscribe());
        tokio::pin!(lives, shutdown);
        tokio::select! {
            biased;
            stopped = &mut lives => stopped,
            () = &mut shutdown => {
                stop.send_replace(true);
                lives.await
            }
        }
    }

    async fn live_until(&self, mut stop: watch::Receiver<bool>) -> Stopped {
        let mut outlived = false;
        loop {
            let id = self.ports.ids.worker_id();
            // What kept an earlier life busy is no excuse for this one.
            self.progress.looks();
            let registered = tokio::select! {
                biased;
                () = stopped(&mut stop) => false,
                () = self.register(id) => true,
            };
            if !registered {
                // What an outlived life held is for others to take back.
                return Stopped {
                    handed_back: 0,
                    clean: !outlived,
                };
            }
            let life = Arc::new(self.new_life(id));
            self.pulse.live_as(Some(id));
            let end = life.live(stop.clone()).await;
            self.pulse.live_as(None);
            match end {
                End::Stopped(stopped) => return stopped,
                End::Gone { abandoned } => {
                    outlived = true;
                    self.ports.observer.observe(&Event::Outlived { abandoned });
                }
            }
        }
    }

    async fn register(&self, id: WorkerId) {
        let mut backoff = Backoff::new(Duration::from_millis(50), OF_A_WORKER);
        while let Err(error) = self.ports.registry.register(id, &self.config.name).await {
            tell_of_failure(&*self.ports.observer, Dependency::Store, "register", &error);
            backoff.pause().await;
        }
    }

    fn new_life(&self, id: WorkerId) -> Life {
        Life {
            id,
            ports: self.ports.clone(),
            feed: Arc::clone(&self.feed),
            processor: Arc::clone(&self.processor),
            config: Arc::clone(&self.config),
            pulse: Arc::clone(&self.pulse),
            leftover: Arc::clone(&self.leftover),
            progress: self.progress.clone(),
            slots: Arc::new(Semaphore::new(self.config.concurrency.max(1))),
            in_flight: Arc::new(Semaphore::new(self.config.in_flight.max(1))),
            load: Load::new(self.config.in_flight_bytes),
            book: Mutex::new(BTreeMap::new()),
            log_is_down: AtomicBool::new(false),
            owing: AtomicBool::new(false),
            earliest: Mutex::new(None),
            is_on_duty: AtomicBool::new(false),
            brake: Brake::default(),
            running: Running::default(),
        }
    }
}

/// Waits until one of these panics, and answers what it said.
async fn first_panic(stages: &mut [&mut JoinSet<()>]) -> String {
    poll_fn(|context| {
        for stage in &mut *stages {
            while let Poll::Ready(Some(ended)) = stage.poll_join_next(context) {
                if let Err(error) = ended
                    && let Ok(panic) = error.try_into_panic()
                {
                    return Poll::Ready(panic_text(panic.as_ref()).to_owned());
                }
            }
        }
        Poll::Pending
    })
    .await
}

enum End {
    Stopped(Stopped),
    Gone { abandoned: usize },
}

impl Life {
    async fn live(self: Arc<Self>, mut stop: watch::Receiver<bool>) -> End {
        let (to_runs, runs) = mpsc::unbounded_channel();
        let (to_settle, ran) = mpsc::unbounded_channel();
        let (to_announce, settled) = mpsc::unbounded_channel();
        let (to_release, ended) = mpsc::unbounded_channel();
        let (to_acknowledge, received) = mpsc::unbounded_channel();

        // Bounded by `in_flight`: every task in a channel holds a permit.
        let mut intake = JoinSet::new();
        intake.spawn(intake::take(
            Arc::clone(&self),
            stop.clone(),
            to_runs,
            to_acknowledge,
        ));
        let mut running = JoinSet::new();
        running.spawn(run::run_all(Arc::clone(&self), runs, to_settle));
        let mut finishing = JoinSet::new();
        finishing.spawn(settle::settle_all(Arc::clone(&self), ran, to_announce));
        finishing.spawn(announce::announce_all(
            Arc::clone(&self),
            settled,
            to_release,
        ));
        finishing.spawn(announce::release_all(Arc::clone(&self), ended));
        let mut acknowledging = JoinSet::new();
        acknowledging.spawn(acknowledge::acknowledge_all(Arc::clone(&self), received));
        let mut aside = JoinSet::new();
        aside.spawn(watch_others(Arc::clone(&self)));
        aside.spawn(announce::announce_owed(Arc::clone(&self)));
        aside.spawn(duty::audit_in_turn(Arc::clone(&self)));
        aside.spawn(heed::heed_cancellations(Arc::clone(&self)));
        aside.spawn(heed::tell_of_runs(Arc::clone(&self)));
        aside.spawn(duty::prune_in_turn(Arc::clone(&self)));

        let mut stages = [
            &mut intake,
            &mut running,
            &mut finishing,
            &mut acknowledging,
            &mut aside,
        ];
        let goes_on = tokio::select! {
            biased;
            () = self.pulse.until_gone(self.id) => false,
            () = stopped(&mut stop) => true,
            // Without one of its stages this life would take tasks and do nothing with them: it ends, and what it held is taken
            // back from it like from the dead.
            text = first_panic(&mut stages) => {
                tell_of_panic(&*self.ports.observer, "stage", text);
                sleep(AFTER_A_PANIC).await;
                false
            }
        };
        if !goes_on {
            let abandoned = self.tasks_in_hand();
            // Only when they have ended is known what they leave to the next life.
            intake.shutdown().await;
            acknowledging.shutdown().await;
            return End::Gone { abandoned };
        }
        tokio::select! {
            biased;
            () = self.pulse.until_gone(self.id) => End::Gone { abandoned: self.tasks_in_hand() },
            drained = self.drain(intake, running, finishing, acknowledging) => End::Stopped(drained),
        }
    }

    /// Stops taking, waits for what is in hand, hands back the rest, leaves the registry.
    async fn drain(
        &self,
        mut intake: JoinSet<()>,
        mut running: JoinSet<()>,
        mut finishing: JoinSet<()>,
        mut acknowledging: JoinSet<()>,
    ) -> Stopped {
        let deadline = Instant::now() + self.config.drain_deadline;
        let end_of_runs = deadline
            .checked_sub(self.config.drain_deadline / 5)
            .unwrap_or(deadline);
        // A claim under way has a moment; if it commits later, it is handed back below.
        let moment = self.config.drain_deadline.min(LAST_CLAIM);
        let _ = timeout(moment, async {
            while intake.join_next().await.is_some() {}
        })
        .await;
        intake.shutdown().await;
        // Others wait with what is claimed by age for whoever is behind, and this worker would be for as long as it drains.
        self.pulse.receives_no_more();
        // Each stage ends when the one before it has ended and its channel is empty.
        let _ = timeout_at(end_of_runs, async {
            while running.join_next().await.is_some() {}
        })
        .await;
        running.shutdown().await;
        // What was run must still be written. A step that hangs takes no more than half of what is left, so that the others
        // get their turn, and with a deadline of nothing there still is a moment for each.
        let last = || (deadline.saturating_duration_since(Instant::now()) / 2).max(LAST_STEP);
        let _ = timeout(last(), async {
            while finishing.join_next().await.is_some() {}
        })
        .await;
        finishing.shutdown().await;
        let _ = timeout(last(), async {
            while acknowledging.join_next().await.is_some() {}
        })
        .await;
        acknowledging.shutdown().await;
        let end = deadline.max(Instant::now() + LAST_STEP);
        match timeout_at(end, self.leave()).await {
            Ok(Ok(stopped)) => stopped,
            Ok(Err(error)) => {
                self.failed(Dependency::Store, "hand_back", &error);
                Stopped {
                    handed_back: 0,
                    clean: false,
                }
            }
            Err(_) => Stopped {
                handed_back: 0,
                clean: false,
            },
        }
    }

    async fn leave(&self) -> Result<Stopped, ports::StoreError> {
        let (mut handed_back, mut told) = (0, Told::new());
        loop {
            let resolved =
                resolve_claims(&self.ports, self.id, Unfinished::HandBack, &mut told).await?;
            handed_back += resolved.returned;
            if !resolved.is_complete() {
                return Ok(Stopped {
                    handed_back,
                    clean: false,
                });
            }
            if self.ports.registry.remove(self.id).await? == RemoveReply::Removed {
                return Ok(Stopped {
                    handed_back,
                    clean: true,
                });
            }
        }
    }

    fn tasks_in_hand(&self) -> usize {
        self.book().values().map(|page| page.left).sum()
    }

    fn book(&self) -> std::sync::MutexGuard<'_, BTreeMap<ClaimId, Page>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, dependency: Dependency, doing: &'static str, error: &dyn std::error::Error) {
        tell_of_failure(&*self.ports.observer, dependency, doing, error);
    }

    fn batched(&self, step: Step, size: usize) {
        self.ports.observer.observe(&Event::Batched { step, size });
    }

    fn recovered(&self, dependency: Dependency) {
        self.ports
            .observer
            .observe(&Event::DependencyRecovered { dependency });
    }

    /// A piece of work on a task begins; `None` when the task is not traced, or its trace not sampled.
    fn begin_span(&self, parent: Option<&TraceContext>) -> Option<TraceContext> {
        let parent = parent.filter(|parent| parent.is_sampled())?;
        self.ports.observer.begin_span(Some(parent.clone()))
    }

    /// It ended.
    fn end_span(
        &self,
        context: TraceContext,
        parent: Option<TraceContext>,
        work: Work,
        took: Duration,
        error: Option<String>,
    ) {
        self.ports.observer.observe(&Event::Traced(Span {
            context,
            parent,
            work,
            took,
            error,
        }));
    }

    /// Up to when this worker helps whoever waits. With nothing to do of its own: everybody. While the log has more for
    /// it: only those that the log has passed for every living worker that gets on.
    ///
    /// A position was reported up to a beat before it was read, up to a beat ago. Workers that keep up have moved on with the time
    /// since, and what came due in it would wait for the next report; so it is taken to be where it then would be. A worker that
    /// stands still meanwhile loses its place in the order to what no message was sent for, by two beats at most.
    fn horizon(&self) -> Horizon {
        if self.feed.standing() != ports::Standing::Behind {
            return Horizon::Now;
        }
        let beat = self.config.beat_interval;
        let earliest = *self.earliest.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = earliest.map(|(position, read)| {
            let since = beat + read.elapsed().min(beat);
            // No message that the log has yet to bring is taken to be lost.
            position.after(since.min(self.config.grace))
        });
        let positions = [earliest, self.pulse.last_received()];
        positions
            .into_iter()
            .flatten()
            .min()
            .map_or(Horizon::Now, Horizon::Before)
    }
}

/// Watches the other workers: buries the dead, and keeps the earliest log position of the living.
async fn watch_others(life: Arc<Life>) {
    let every = life.config.beat_interval;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch::new(life.config.lease, every);
    let mut undertaker = Undertaker::new(&life.ports, life.config.max_rescues);
    loop {
        ticks.tick().await;
        match life.ports.registry.workers().await {
            Ok(workers) => {
                let earliest = earliest_position(&workers).map(|at| (at, Instant::now()));
                *life.earliest.lock().unwrap_or_else(PoisonError::into_inner) = earliest;
                let is_on_duty = duty::on_turn(&workers) == Some(life.id);
                life.is_on_duty.store(is_on_duty, Ordering::Relaxed);
                let mut dead = watch.look(Instant::now(), &workers);
                // Its own death is for others to declare.
                dead.retain(|(worker, _)| *worker != life.id);
                undertaker.see_to(&dead).await;
            }
            Err(error) => {
                watch.interrupt();
                life.failed(Dependency::Store, "watch", &error);
            }
        }
    }
}

fn earliest_position(workers: &[WorkerEntry]) -> Option<Timestamp> {
    workers
        .iter()
        .filter(|worker| !worker.dead)
        .filter_map(|worker| worker.position)
        .min()
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone without a word is no order to stop.
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
