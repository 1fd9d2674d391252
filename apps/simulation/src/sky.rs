//! What strikes a system from outside: the faults of one history, and the time in which they strike.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ports::Dependency;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::chance::Chance;
use crate::state::Watched;
use crate::trace::{Trace, Who};

/// How long an adapter waits for a dependency that says nothing.
const ADAPTER_TIMEOUT: Duration = Duration::from_secs(5);

/// More port calls than any healthy history makes: a component that asks without end spins.
const MOST_CALLS: u64 = 400_000;

/// How often each fault strikes, in 10,000 calls or messages; 0 for the faults that a history does without.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) slow: u64,
    pub(crate) refused: u64,
    pub(crate) answer_lost: u64,
    /// The caller is told that it failed, and the work is done later.
    pub(crate) late: u64,
    pub(crate) killed: u64,
    pub(crate) message_lost: u64,
    pub(crate) message_repeated: u64,
    pub(crate) message_early: u64,
    pub(crate) shuffled: u64,
    pub(crate) cache_forgets: u64,
}

/// What a component asks of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Insert,
    InsertKeyed,
    PruneKeys,
    Get,
    Whereabouts,
    ClaimDelivered,
    ClaimAged,
    Transition,
    Release,
    ClaimsOf,
    MarkUnmessaged,
    Totals,
    PingStore,
    Register,
    Beat,
    Workers,
    DeclareDead,
    Remove,
    Stranded,
    Enqueue,
    SweepQueue,
    Enlist,
    SweepStopped,
    Untold,
    MarkTold,
    Prune,
    OrphanedClaims,
    Publish,
    PingLog,
    Receive,
    Acknowledge,
    Announce,
    DeadLetter,
    Tell,
    CacheGet,
    CachePut,
    PingCache,
}

impl Call {
    pub(crate) const fn dependency(self) -> Dependency {
        match self {
            Self::Publish
            | Self::PingLog
            | Self::Receive
            | Self::Acknowledge
            | Self::Announce
            | Self::DeadLetter
            | Self::Tell => Dependency::Log,
            Self::CacheGet | Self::CachePut | Self::PingCache => Dependency::Cache,
            _ => Dependency::Store,
        }
    }

    /// Calls that an idle system makes all the time. Faults strike the others more often, or they would hit nothing.
    pub(crate) const fn is_routine(self) -> bool {
        matches!(
            self,
            Self::ClaimAged
                | Self::PruneKeys
                | Self::Beat
                | Self::Workers
                | Self::Receive
                | Self::Stranded
                | Self::SweepQueue
                | Self::SweepStopped
                | Self::Untold
                | Self::Prune
                | Self::OrphanedClaims
        )
    }

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::InsertKeyed => "insert_keyed",
            Self::PruneKeys => "prune_keys",
            Self::Get => "get",
            Self::Whereabouts => "whereabouts",
            Self::ClaimDelivered => "claim_delivered",
            Self::ClaimAged => "claim_aged",
            Self::Transition => "transition",
            Self::Release => "release",
            Self::ClaimsOf => "claims_of",
            Self::MarkUnmessaged => "mark_unmessaged",
            Self::Totals => "totals",
            Self::PingStore => "ping store",
            Self::Register => "register",
            Self::Beat => "beat",
            Self::Workers => "workers",
            Self::DeclareDead => "declare_dead",
            Self::Remove => "remove",
            Self::Stranded => "stranded",
            Self::Enqueue => "enqueue",
            Self::SweepQueue => "sweep_queue",
            Self::Enlist => "enlist",
            Self::SweepStopped => "sweep_stopped",
            Self::Untold => "untold",
            Self::MarkTold => "mark_told",
            Self::Prune => "prune",
            Self::OrphanedClaims => "orphaned_claims",
            Self::Publish => "publish",
            Self::PingLog => "ping log",
            Self::Receive => "receive",
            Self::Acknowledge => "acknowledge",
            Self::Announce => "announce",
            Self::DeadLetter => "dead_letter",
            Self::Tell => "tell",
            Self::CacheGet => "cache get",
            Self::CachePut => "cache put",
            Self::PingCache => "ping cache",
        }
    }
}

/// What strikes one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Pass,
    /// Takes time before and after. A sturdy one is done even when the caller is killed meanwhile.
    Slow {
        before: Duration,
        after: Duration,
        sturdy: bool,
    },
    Refused,
    AnswerLost,
    Late(Duration),
    KilledBefore,
    KilledAfter,
}

/// How a dependency that is down behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outage {
    /// Every call fails at once.
    Refusing,
    /// Every call hangs until the adapter's time limit or the end of the outage.
    Silent,
}

/// What all components of a history share.
pub(crate) struct Sky {
    pub(crate) chance: Chance,
    pub(crate) trace: Trace,
    pub(crate) weather: Weather,
    stormy: AtomicBool,
    outages: [Watched<Option<Outage>>; 3],
    /// Requests that are on their way without anyone waiting for them.
    adrift: Mutex<JoinSet<()>>,
    kills: mpsc::UnboundedSender<Who>,
    /// How many more processes may die of a port call.
    kills_left: AtomicU64,
    calls: AtomicU64,
    struck: AtomicU64,
    /// Messages that were lost on their way, by the log or to a reader.
    lost: AtomicU64,
    /// Contradictions that the audit repaired.
    repaired: AtomicU64,
    /// Results that the store refused because their task had moved.
    late: AtomicU64,
    /// Calls under way that were made to take long.
    delayed: AtomicU64,
    /// Until when processing functions find what they need down.
    function_down_until: Mutex<Option<Instant>>,
}

impl Sky {
    pub(crate) fn new(
        seed: u64,
        weather: Weather,
        kills_left: u64,
        keeps_lines: bool,
    ) -> (Self, mpsc::UnboundedReceiver<Who>) {
        let (kills, killed) = mpsc::unbounded_channel();
        let sky = Self {
            chance: Chance::new(seed),
            trace: Trace::new(keeps_lines),
            weather,
            stormy: AtomicBool::new(true),
            outages: [None, None, None].map(Watched::new),
            adrift: Mutex::new(JoinSet::new()),
            kills,
            kills_left: AtomicU64::new(kills_left),
            calls: AtomicU64::new(0),
            struck: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            repaired: AtomicU64::new(0),
            late: AtomicU64::new(0),
            delayed: AtomicU64::new(0),
            function_down_until: Mutex::new(None),
        };
        (sky, killed)
    }

    /// Chooses what strikes this call.
    pub(crate) fn fate(&self, call: Call) -> Fate {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if !self.stormy.load(Ordering::Relaxed) {
            return Fate::Pass;
        }
        let weight = if call.is_routine() { 1 } else { 6 };
        let mut drawn = self.chance.below(10_000);
        let mut hit = |rate: u64| {
            let rate = rate * weight;
            if drawn < rate {
                return true;
            }
            drawn -= rate;
            false
        };
        let weather = &self.weather;
        let fate = if hit(weather.slow) {
            self.slow()
        } else if hit(weather.refused) {
            Fate::Refused
        } else if hit(weather.answer_lost) {
            Fate::AnswerLost
        } else if hit(weather.late) {
            Fate::Late(self.chance.millis(1, 8_000))
        } else if hit(weather.killed) && self.kills_left.load(Ordering::Relaxed) > 0 {
            self.kills_left.fetch_sub(1, Ordering::Relaxed);
            if self.chance.one_in(2) {
                Fate::KilledBefore
            } else {
                Fate::KilledAfter
            }
        } else {
            return Fate::Pass;
        };
        self.struck.fetch_add(1, Ordering::Relaxed);
        fate
    }

    fn slow(&self) -> Fate {
        let most = *self.chance.pick(&[5, 5, 50, 50, 500, 500, 3_000, 12_000]);
        Fate::Slow {
            before: self.chance.millis(0, most),
            after: self.chance.millis(0, most),
            sturdy: self.chance.one_in(2),
        }
    }

    /// Whether a fault of this rate strikes a message now.
    pub(crate) fn strikes(&self, rate: u64) -> bool {
        let strikes = self.stormy.load(Ordering::Relaxed) && self.chance.happens(rate);
        if strikes {
            self.struck.fetch_add(1, Ordering::Relaxed);
        }
        strikes
    }

    /// Whether faults may strike.
    pub(crate) fn is_stormy(&self) -> bool {
        self.stormy.load(Ordering::Relaxed)
    }

    /// Whether a message is lost now.
    pub(crate) fn loses_message(&self) -> bool {
        let loses = self.strikes(self.weather.message_lost);
        self.lost.fetch_add(u64::from(loses), Ordering::Relaxed);
        loses
    }

    pub(crate) fn count_repaired(&self, count: usize) {
        self.repaired.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    /// From here on nothing strikes any more.
    pub(crate) fn clear(&self) {
        self.stormy.store(false, Ordering::Relaxed);
        for dependency in [Dependency::Store, Dependency::Log, Dependency::Cache] {
            self.set_outage(dependency, None);
        }
        self.set_function_down_until(None);
    }

    pub(crate) fn struck(&self) -> u64 {
        self.struck.load(Ordering::Relaxed)
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(crate) fn repaired(&self) -> u64 {
        self.repaired.load(Ordering::Relaxed)
    }

    pub(crate) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.calls() > MOST_CALLS
    }

    pub(crate) fn set_outage(&self, dependency: Dependency, outage: Option<Outage>) {
        self.outages[dependency as usize].set(outage);
    }

    pub(crate) fn outage(&self, dependency: Dependency) -> Option<Outage> {
        self.outages[dependency as usize].get()
    }

    /// Waits until the dependency is up.
    pub(crate) async fn until_up(&self, dependency: Dependency) {
        self.outages[dependency as usize].until(None).await;
    }

    /// Whether a call gets through to the dependency; takes the time that it takes to find out.
    pub(crate) async fn reaches(&self, dependency: Dependency) -> bool {
        match self.outage(dependency) {
            None => true,
            Some(Outage::Refusing) => false,
            Some(Outage::Silent) => timeout(ADAPTER_TIMEOUT, self.until_up(dependency))
                .await
                .is_ok(),
        }
    }

    /// Sends a request on its way; it arrives whatever becomes of the sender.
    pub(crate) fn set_adrift(&self, request: impl Future<Output = ()> + Send + 'static) {
        let mut adrift = self.adrift.lock().unwrap_or_else(PoisonError::into_inner);
        while adrift.try_join_next().is_some() {}
        adrift.spawn(request);
    }

    /// Whether no request is under way that a fault still delays.
    pub(crate) fn has_settled(&self) -> bool {
        let mut adrift = self.adrift.lock().unwrap_or_else(PoisonError::into_inner);
        while adrift.try_join_next().is_some() {}
        adrift.is_empty() && self.delayed.load(Ordering::Relaxed) == 0
    }

    /// Takes note of a call that is made to take long, until what it gives is dropped.
    pub(crate) fn delay(&self) -> Delayed<'_> {
        self.delayed.fetch_add(1, Ordering::Relaxed);
        Delayed(&self.delayed)
    }

    /// Asks for the death of a process.
    pub(crate) fn kill(&self, who: Who) {
        let _ = self.kills.send(who);
    }

    pub(crate) fn set_function_down_until(&self, until: Option<Instant>) {
        *self
            .function_down_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = until;
    }

    pub(crate) fn function_is_down(&self) -> bool {
        self.function_down_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| Instant::now() < until)
    }
}

pub(crate) struct Delayed<'a>(&'a AtomicU64);

impl Drop for Delayed<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
