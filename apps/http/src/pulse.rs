//! What the bytes of a connection, its requests, and whoever looks for a place know of each other.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use poem::http::Version;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::connection::Cut;
use crate::line::Line;

/// A connection as others see it.
pub(crate) struct Pulse {
    line: Arc<Line>,
    /// Tells it apart from every other.
    pub(crate) number: u64,
    begun: AtomicU64,
    ended: AtomicU64,
    /// When a request last ended, or the connection began, by the clock of the line.
    used: AtomicU64,
    multiplexed: AtomicBool,
    /// Bytes wait for the client to take them.
    stuck: AtomicBool,
    /// How many periods have begun, and how many answers that are no streams are not written yet, those that began in an even
    /// period and those that began in an odd one.
    period: AtomicUsize,
    unwritten: [AtomicUsize; 2],
    /// It was in use when somebody was to leave, and stands in line again when it is not.
    pub(crate) aside: AtomicBool,
    leave: Notify,
    cut: OnceLock<Cut>,
}

impl Pulse {
    pub(crate) fn new(line: Arc<Line>, number: u64) -> Self {
        Self {
            number,
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            used: AtomicU64::new(line.now()),
            multiplexed: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            period: AtomicUsize::new(0),
            unwritten: Default::default(),
            aside: AtomicBool::new(false),
            leave: Notify::new(),
            cut: OnceLock::new(),
            line,
        }
    }

    /// A request whose header has arrived; it is under way until the answer is written or given up.
    pub(crate) fn begin(self: &Arc<Self>, version: Version) -> Underway {
        self.begun.fetch_add(1, Ordering::Relaxed);
        if version == Version::HTTP_2 {
            self.multiplexed.store(true, Ordering::Relaxed);
        }
        Underway {
            pulse: Arc::clone(self),
            answers_since: None,
        }
    }

    /// How many requests have begun.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether a request is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.begun.load(Ordering::Relaxed) != self.ended.load(Ordering::SeqCst)
    }

    /// Whether nothing is lost when it is cut.
    pub(crate) fn is_unused(&self) -> bool {
        !self.is_busy() && !self.stuck.load(Ordering::SeqCst)
    }

    /// Whether it is of HTTP/2, as far as is known.
    pub(crate) fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Ordering::Relaxed)
    }

    /// When a request last ended, or the connection began, by the clock of the line.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The same as a moment.
    pub(crate) fn used_at(&self) -> Instant {
        self.line.moment(self.used())
    }

    /// Bytes wait for the client to take them, or do no longer.
    pub(crate) fn set_stuck(self: &Arc<Self>, stuck: bool) {
        self.stuck.store(stuck, Ordering::SeqCst);
        self.come_back();
    }

    /// Begins another period. Says whether there is an answer that was begun before the last one, and still is not written.
    pub(crate) fn begin_period(&self) -> bool {
        let period = self.period.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        self.unwritten[period % 2].load(Ordering::Relaxed) > 0
    }

    /// Asks it to leave.
    pub(crate) fn send_away(&self) {
        self.leave.notify_one();
    }

    /// Comes back when it is asked to leave.
    pub(crate) async fn sent_away(&self) {
        self.leave.notified().await;
    }

    /// Only the first reason counts.
    pub(crate) fn set_cut(&self, cut: Cut) {
        let _ = self.cut.set(cut);
    }

    /// Why the connection was cut, if it was.
    pub(crate) fn cut(&self) -> Option<Cut> {
        self.cut.get().copied()
    }

    fn come_back(self: &Arc<Self>) {
        if self.aside.load(Ordering::SeqCst) && self.is_unused() {
            self.line.take_back(self);
        }
    }
}

/// A request that is under way.
pub(crate) struct Underway {
    pulse: Arc<Pulse>,
    /// In which period its answer began, where the client could leave it unwritten.
    answers_since: Option<usize>,
}

impl Underway {
    /// Its answer begins, which is not a stream. One of HTTP/1 is in the buffer of its connection at once, where it is stuck; one of
    /// HTTP/2 stays here for as long as its client allows none of it.
    pub(crate) fn answers(&mut self) {
        if self.pulse.is_multiplexed() {
            let period = self.pulse.period.load(Ordering::Relaxed);
            self.pulse.unwritten[period % 2].fetch_add(1, Ordering::Relaxed);
            self.answers_since = Some(period);
        }
    }

    /// Whether its client may leave the answer here.
    pub(crate) const fn is_portioned(&self) -> bool {
        self.answers_since.is_some()
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let pulse = &self.pulse;
        if let Some(period) = self.answers_since {
            pulse.unwritten[period % 2].fetch_sub(1, Ordering::Relaxed);
        }
        pulse.used.store(pulse.line.now(), Ordering::Relaxed);
        // Either this sees that it stands aside, or whoever put it there that it is not in use.
        pulse.ended.fetch_add(1, Ordering::SeqCst);
        pulse.come_back();
    }
}
