//! One history: the system, its clients, and what befalls them.

mod act;
mod clients;
mod processes;
mod quiet;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use adapters::memory::{
    LogLimits, MemoryLog, MemoryResultCache, MemoryTaskStore, SequentialIds, StoreSnapshot,
    TokioClock,
};
use domain::{Metrics, Ports, Reading, Submission, SubmitConfig, SubmitError};
use ports::{
    Clock, Dependency, Fence, IdSource, Payload, Priority, Spent, TaskId, TaskMessage,
    TaskPublisher, TaskStatus, Totals,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::chaos::{CacheRecord, ChaosCache, ChaosFeed, ChaosLog, ChaosStore, SkewedClock, Topic};
use crate::ledger::{Asked, Ledger, Planted, Read, Said, Told};
use crate::link::Link;
use crate::plan::{Action, ClockOf, Plan, ProbeLog, Wish};
use crate::process::{Ended, Recovery, Server, Witness, WorkerParts, WorkerProcess, own_sources};
use crate::record::RecordingStore;
use crate::script::{Runs, Script, Scripted};
use crate::sky::{Outage, Sky};
use crate::trace::{Kind, Trace, Who};

/// How long the system has to come to rest once nothing strikes any more: a worker that may run one task at a time can have
/// a dozen that take most of a minute each.
const REST_LIMIT: Duration = Duration::from_secs(600);

/// How often the world looks whether the system has come to rest.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// How long clients of the quiet wait at most.
const CLIENT_PATIENCE: u64 = 10_000;

/// What a stop may take beyond the drain deadline: each of its three last steps has half a second, however late it is.
const STOP_MARGIN: Duration = Duration::from_millis(1_600);

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) sky: Arc<Sky>,
    store_clock: Arc<SkewedClock>,
    log_clock: Arc<SkewedClock>,
    /// Of servers, then of workers, by slot.
    clocks: Vec<Arc<SkewedClock>>,
    memory: Arc<MemoryTaskStore>,
    pub(crate) store: Arc<RecordingStore>,
    pub(crate) log: Arc<MemoryLog>,
    cache: Arc<MemoryResultCache>,
    pub(crate) cache_record: Arc<CacheRecord>,
    topic: Arc<Topic>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) runs: Arc<Runs>,
    servers: Vec<Option<Server>>,
    workers: Vec<Option<WorkerProcess>>,
    /// Servers that serve their last requests.
    retiring: JoinSet<()>,
    clients: JoinSet<()>,
    agenda: BTreeMap<(Instant, u64), Action>,
    next_turn: u64,
    next_instance: u16,
    /// Ids of rows and messages that other programs make.
    own_ids: SequentialIds,
    killed: mpsc::UnboundedReceiver<Who>,
    endings: mpsc::UnboundedSender<Ended>,
    ended: mpsc::UnboundedReceiver<Ended>,
    is_quiet: bool,
    /// Since when nothing strikes any more (virtual microseconds).
    pub(crate) quiet_at: i64,
    /// What the totals were when last looked at.
    totals: Totals,
    /// Nothing is started again.
    is_over: bool,
    /// The topic was deleted and made again.
    is_topic_new: bool,
    /// Metrics as a client read them at the end.
    pub(crate) metrics: Option<Metrics>,
    /// Tasks whose worker was killed in the quiet.
    pub(crate) bereaved: Vec<Bereaved>,
    pub(crate) tally: Tally,
}

/// What a worker held when it was killed.
pub(crate) struct Bereaved {
    /// Virtual microseconds.
    pub(crate) at: i64,
    pub(crate) tasks: Vec<(TaskId, Fence)>,
}

/// What a history consisted of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Tasks submitted.
    pub submitted: u64,
    /// Submissions answered with 201.
    pub accepted: u64,
    /// Processes that died at a port call or by the plan.
    pub killed: u64,
    /// Processes stopped politely.
    pub stopped: u64,
    /// Processes that were paused or cut off for a while.
    pub paused: u64,
    /// Outages of store, log and cache.
    pub outages: u64,
    /// Times that the topic was wiped.
    pub wiped: u64,
    /// Times that the topic was deleted and made again.
    pub recreated: u64,
    /// Messages that were lost on their way.
    pub lost: u64,
    /// Records put into the topic that cannot be read.
    pub rubbish: u64,
    /// Calls and messages that a fault struck.
    pub struck: u64,
    /// Port calls.
    pub calls: u64,
    /// Workers declared dead.
    pub declared_dead: u64,
    /// Tasks taken back from dead workers.
    pub rescued: u64,
    /// Results that came too late and were dropped.
    pub late: u64,
    /// Contradictions that the audit repaired.
    pub repaired: u64,
    /// Requests sent again under their key, or something else under it.
    pub repeated: u64,
    /// Tasks that clients cancelled.
    pub cancelled: u64,
    /// Failed tasks that clients had tried again.
    pub retried: u64,
    /// Tasks deleted after their retention.
    pub pruned: u64,
    /// Virtual time in milliseconds.
    pub virtual_millis: u64,
}

impl World {
    /// Must be called within the runtime of the history.
    pub(crate) fn new(plan: Plan, keeps_lines: bool) -> Self {
        let (sky, killed) = Sky::new(
            plan.sky_seed,
            plan.weather.clone(),
            plan.deaths,
            keeps_lines,
        );
        let sky = Arc::new(sky);
        let base_clock = TokioClock::default();
        let skewed = |offset| Arc::new(SkewedClock::new(base_clock, offset));
        let store_clock = skewed(0);
        let log_clock = skewed(0);
        let clocks = plan.skews.iter().map(|offset| skewed(*offset)).collect();
        let memory = Arc::new(MemoryTaskStore::new(
            Arc::clone(&store_clock) as Arc<dyn Clock>
        ));
        let store = Arc::new(RecordingStore::new(
            Arc::clone(&memory),
            Arc::clone(&store_clock) as Arc<dyn Clock>,
            Arc::clone(&sky),
            plan.work.prune.retention,
            plan.has_guards,
        ));
        let limits = LogLimits {
            partitions: plan.partitions,
            ..LogLimits::default()
        };
        let log = MemoryLog::with_limits(Arc::clone(&log_clock) as Arc<dyn Clock>, limits);
        let (endings, ended) = mpsc::unbounded_channel();
        let start = Instant::now();
        let agenda = (0..)
            .zip(&plan.actions)
            .map(|(turn, (at, action))| {
                ((start + Duration::from_millis(*at), turn), action.clone())
            })
            .collect();
        Self {
            next_turn: plan.actions.len() as u64,
            cache: Arc::new(MemoryResultCache::new(
                Arc::clone(&store_clock) as Arc<dyn Clock>
            )),
            servers: (0..plan.servers).map(|_| None).collect(),
            workers: (0..plan.workers).map(|_| None).collect(),
            plan,
            sky,
            store_clock,
            log_clock,
            clocks,
            memory,
            store,
            log: Arc::new(log),
            cache_record: Arc::default(),
            topic: Arc::default(),
            ledger: Arc::default(),
            runs: Arc::default(),
            retiring: JoinSet::new(),
            clients: JoinSet::new(),
            agenda,
            next_instance: 1,
            own_ids: SequentialIds::in_lane(0),
            killed,
            endings,
            ended,
            is_quiet: false,
            quiet_at: i64::MAX,
            totals: Totals::default(),
            is_over: false,
            is_topic_new: false,
            metrics: None,
            bereaved: Vec::new(),
            tally: Tally::default(),
        }
    }

    pub(crate) fn trace(&self) -> &Trace {
        &self.sky.trace
    }

    pub(crate) fn snapshot(&self) -> StoreSnapshot {
        self.memory.snapshot()
    }

    /// Lives the whole history.
    pub(crate) async fn live(&mut self) {
        let start = Instant::now();
        self.start_all();
        self.run_until(start + Duration::from_millis(self.plan.span))
            .await;
        self.quiet_down();
        // A server still stores what a client sent who has given up meanwhile: no look at the store tells of it.
        self.run_until(Instant::now() + SubmitConfig::default().patience)
            .await;
        if self.come_to_rest("after the faults").await {
            self.probe().await;
            if self.come_to_rest("after the probes").await {
                self.read_all().await;
                self.outlive_the_retention().await;
                self.stop_all().await;
            }
        }
        self.tally.virtual_millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.count();
    }

    fn count(&mut self) {
        let entries = self.ledger.entries();
        self.tally.submitted = entries.asked.len() as u64;
        let accepted = |asked: &&Asked| matches!(asked.told, Told::Accepted { .. });
        self.tally.accepted = entries.asked.iter().filter(accepted).count() as u64;
        let repeats = entries.keyed.iter().map(|keyed| keyed.heard.len() as u64);
        let keys: BTreeSet<usize> = entries.keyed.iter().map(|keyed| keyed.key).collect();
        self.tally.repeated = repeats.sum::<u64>().saturating_sub(keys.len() as u64);
        self.tally.rubbish = entries.rubbish_count as u64;
        drop(entries);
        let records = self.store.records();
        self.tally.declared_dead = records.deaths.len() as u64;
        let moves = records.lives.values().flat_map(|life| &life.moves);
        self.tally.rescued = moves.filter(|moved| moved.spent == Spent::Rescue).count() as u64;
        let moves = || records.lives.values().flat_map(|life| &life.moves);
        let cancels = moves().filter(|moved| moved.to == TaskStatus::Cancelled);
        self.tally.cancelled = cancels.count() as u64;
        let retries = moves().filter(|moved| moved.spent == Spent::Reset);
        self.tally.retried = retries.count() as u64;
        self.tally.pruned = records.pruned.len() as u64;
        drop(records);
        self.tally.struck = self.sky.struck();
        self.tally.lost = self.sky.lost();
        self.tally.late = self.sky.late();
        self.tally.repaired = self.sky.repaired();
        self.tally.calls = self.sky.calls();
    }

    /// Lets the system run, and does what is on the agenda.
    async fn run_until(&mut self, until: Instant) {
        loop {
            let due = self
                .agenda
                .first_key_value()
                .map_or(until, |((at, _), _)| (*at).min(until));
            tokio::select! {
                biased;
                Some(who) = self.killed.recv() => self.die_of_call(who),
                Some(ended) = self.ended.recv() => self.end(ended),
                () = sleep_until(due) => {
                    if let Some(entry) = self.agenda.first_entry()
                        && entry.key().0 <= Instant::now()
                    {
                        let action = entry.remove();
                        self.act(action).await;
                        self.look_for_contradictions();
                    } else if Instant::now() >= until {
                        return;
                    }
                }
            }
        }
    }

    fn plan_in(&mut self, delay: Duration, action: Action) {
        let turn = self.next_turn;
        self.next_turn += 1;
        self.agenda.insert((Instant::now() + delay, turn), action);
    }

    /// What is unfinished is findable at every moment, not only at the end.
    fn look_for_contradictions(&mut self) {
        let snapshot = self.memory.snapshot();
        let mut found = but_for(snapshot.clone(), &self.store.records().misfiled).contradictions();
        let (before, now) = (self.totals.done, snapshot.totals.done);
        if now < before {
            found.push(format!("the totals fell from {before} to {now}"));
        }
        self.totals = snapshot.totals;
        if found.is_empty() {
            return;
        }
        let mut records = self.store.records();
        for contradiction in found {
            if !records.wrong.contains(&contradiction) {
                records.wrong.push(contradiction);
            }
        }
    }
}

/// What the store holds, but for what other hands did to the list of failed and cancelled tasks: that stands until the audit
/// comes by.
fn but_for(mut snapshot: StoreSnapshot, misfiled: &BTreeSet<TaskId>) -> StoreSnapshot {
    snapshot.stopped.retain(|(_, id)| !misfiled.contains(id));
    let theirs = snapshot.tasks.iter().filter(|task| {
        let is_stopped = matches!(task.status, TaskStatus::Failed | TaskStatus::Cancelled);
        is_stopped && misfiled.contains(&task.id)
    });
    snapshot
        .stopped
        .extend(theirs.map(|task| (task.status, task.id)));
    snapshot
}

impl Tally {
    /// Adds another history's.
    pub fn add(&mut self, other: &Self) {
        for (sum, addend) in [
            (&mut self.submitted, other.submitted),
            (&mut self.accepted, other.accepted),
            (&mut self.killed, other.killed),
            (&mut self.stopped, other.stopped),
            (&mut self.paused, other.paused),
            (&mut self.outages, other.outages),
            (&mut self.wiped, other.wiped),
            (&mut self.recreated, other.recreated),
            (&mut self.lost, other.lost),
            (&mut self.rubbish, other.rubbish),
            (&mut self.struck, other.struck),
            (&mut self.calls, other.calls),
            (&mut self.declared_dead, other.declared_dead),
            (&mut self.rescued, other.rescued),
            (&mut self.late, other.late),
            (&mut self.repaired, other.repaired),
            (&mut self.repeated, other.repeated),
            (&mut self.cancelled, other.cancelled),
            (&mut self.retried, other.retried),
            (&mut self.pruned, other.pruned),
            (&mut self.virtual_millis, other.virtual_millis),
        ] {
            *sum += addend;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} tasks submitted, {} accepted; {} processes killed, {} stopped, {} paused or cut off; {} outages; \
             the topic wiped {} times, made anew {} times; {} messages lost, {} of rubbish; {} of {} calls and messages struck; \
             {} workers declared dead, {} tasks rescued, {} results late; {} contradictions repaired; {} requests repeated under \
             their keys; {} tasks cancelled, {} tried again, {} pruned; {} h of virtual time",
            self.submitted,
            self.accepted,
            self.killed,
            self.stopped,
            self.paused,
            self.outages,
            self.wiped,
            self.recreated,
            self.lost,
            self.rubbish,
            self.struck,
            self.calls,
            self.declared_dead,
            self.rescued,
            self.late,
            self.repaired,
            self.repeated,
            self.cancelled,
            self.retried,
            self.pruned,
            self.virtual_millis / 3_600_000,
        )
    }
}
