//! What happened, in order: a fingerprint always, and lines to read when asked for.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// A process of the simulated system, in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Who {
    pub(crate) kind: Kind,
    pub(crate) slot: usize,
    /// Rises with every process started, whatever its kind.
    pub(crate) instance: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    World,
    Server,
    Worker,
}

impl Who {
    pub(crate) const WORLD: Self = Self {
        kind: Kind::World,
        slot: 0,
        instance: 0,
    };
}

impl fmt::Display for Who {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::World => formatter.write_str("world"),
            Kind::Server => write!(formatter, "server {}#{}", self.slot, self.instance),
            Kind::Worker => write!(formatter, "worker {}#{}", self.slot, self.instance),
        }
    }
}

pub(crate) struct Trace {
    origin: Instant,
    state: Mutex<State>,
    keeps_lines: bool,
}

struct State {
    fingerprint: u64,
    lines: Vec<String>,
}

impl Trace {
    pub(crate) fn new(keeps_lines: bool) -> Self {
        Self {
            origin: Instant::now(),
            state: Mutex::new(State {
                fingerprint: 0xcbf2_9ce4_8422_2325,
                lines: Vec::new(),
            }),
            keeps_lines,
        }
    }

    /// Microseconds of virtual time since the history began.
    pub(crate) fn now(&self) -> i64 {
        i64::try_from(self.origin.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    /// Notes an event in the fingerprint, and in words when lines are kept.
    pub(crate) fn note(
        &self,
        who: Who,
        label: &'static str,
        number: u64,
        text: impl FnOnce() -> String,
    ) {
        let now = self.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.mix(now.cast_unsigned());
        state.mix((who.kind as u64) << 32 | (who.slot as u64) << 16 | u64::from(who.instance));
        for byte in label.bytes() {
            state.mix(u64::from(byte));
        }
        state.mix(number);
        if self.keeps_lines {
            let (seconds, millis) = (now / 1_000_000, now / 1_000 % 1_000);
            let line = format!(
                "{seconds:>4}.{millis:03} s  {:<13} {label:<16} {}",
                who.to_string(),
                text()
            );
            state.lines.push(line.trim_end().to_owned());
        }
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fingerprint
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .lines
            .clone()
    }
}

impl State {
    /// One step of FNV-1a over a word instead of a byte: enough to tell two histories apart.
    fn mix(&mut self, word: u64) {
        self.fingerprint = (self.fingerprint ^ word)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(23);
    }
}
