//! What is promised in numbers, held against what was measured.

use std::fmt;

use crate::measure::{Memory, Times};

/// A promised time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bar {
    pub(crate) promise: &'static str,
    /// What 99 of 100 may take at most, in seconds. Of fewer than 100 the p99 is the slowest, and nothing is left to the machine.
    p99: f64,
}

/// The tasks of a dead worker run elsewhere.
pub(crate) const RESCUE: Bar = Bar::of("rescued within 10 s", 10.0);
/// A task of which no message tells is claimed.
pub(crate) const UNMESSAGED: Bar = Bar::of("claimed within 5 s without a message", 5.0);
/// A contradiction in the books is found and repaired.
pub(crate) const REPAIR: Bar = Bar::of("contradictions repaired within 30 s", 30.0);
/// A task that a client gave a time begins to run.
pub(crate) const RUN_AT: Bar = Bar::of("run within 1 s of its runAt", 1.0);
/// A run that goes on past its deadline is ended.
pub(crate) const OVERRUN: Bar = Bar::of("ended within 1 s of its deadline", 1.0);

/// The most that a program may hold, in MiB: its limits, and what they do not count.
const MEMORY_BOUND: f64 = 256.0;

/// To how much of itself memory may grow in an undisturbed stretch of a life. Measured of programs that leak nothing: 1.11.
const MEMORY_GROWTH: f64 = 1.20;

/// Whether a promise was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// And by which measure.
    Kept(String),
    /// And how.
    Broken(String),
    /// And what there was too little of.
    NotJudged(&'static str),
}

impl Judgement {
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Kept(_) => "kept",
            Self::Broken(_) => "broken",
            Self::NotJudged(_) => "not judged",
        }
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word();
        match self {
            Self::Kept(how) | Self::Broken(how) => write!(formatter, "{word}: {how}"),
            Self::NotJudged(why) => write!(formatter, "{word}: {why}"),
        }
    }
}

impl Bar {
    const fn of(promise: &'static str, seconds: f64) -> Self {
        Self {
            promise,
            p99: seconds,
        }
    }

    pub(crate) fn judge(&self, times: &Times) -> Judgement {
        let Some(millis) = times.percentile(99.0) else {
            return Judgement::NotJudged("none measured");
        };
        let limit = self.p99;
        verdict(millis / 1_000.0 <= limit, format!("p99 at most {limit} s"))
    }
}

impl Memory {
    /// Whether it is bounded.
    pub(crate) fn bound(&self) -> Judgement {
        let held = format!("{:.0} MiB of at most {MEMORY_BOUND}", self.most);
        verdict(self.most <= MEMORY_BOUND, held)
    }

    /// Whether it stays flat. See [`WARM`](crate::measure::WARM) and [`LONG`](crate::measure::LONG) for what is judged.
    pub(crate) fn flat(&self) -> Judgement {
        let Some(growth) = self.growth else {
            return Judgement::NotJudged("no life was undisturbed for three minutes");
        };
        verdict(
            growth <= MEMORY_GROWTH,
            format!("grew to {growth:.2} of itself, at most {MEMORY_GROWTH:.2}"),
        )
    }
}

fn verdict(is_kept: bool, how: String) -> Judgement {
    if is_kept {
        Judgement::Kept(how)
    } else {
        Judgement::Broken(how)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;

    #[test]
    fn times_are_judged_by_their_p99_which_of_few_is_the_slowest() {
        let with_slow = |quick: usize, slow: usize, seconds: i64| {
            let quick = std::iter::repeat_n(6 * SECOND, quick);
            Times::of(quick.chain(std::iter::repeat_n(seconds * SECOND, slow)))
        };
        for (times, word) in [
            (with_slow(0, 0, 0), "not judged"),
            (with_slow(0, 1, 10), "kept"),
            (with_slow(0, 1, 11), "broken"),
            (with_slow(98, 1, 10), "kept"),
            (with_slow(98, 1, 11), "broken"),
            (with_slow(99, 1, 60), "kept"),
            (with_slow(198, 2, 60), "kept"),
            (with_slow(197, 3, 11), "broken"),
        ] {
            let judgement = RESCUE.judge(&times);
            assert_eq!(judgement.word(), word, "{}: {judgement}", times.to_text());
        }
    }

    #[test]
    fn memory_is_judged_by_its_bound_and_its_growth() {
        for (most, growth, bound, flat) in [
            (35.0, None, "kept", "not judged"),
            (35.0, Some(1.10), "kept", "kept"),
            (35.0, Some(1.53), "kept", "broken"),
            (300.0, Some(1.0), "broken", "kept"),
        ] {
            let memory = Memory {
                most,
                growth,
                lives: 1,
            };
            let found = (memory.bound(), memory.flat());
            assert_eq!((found.0.word(), found.1.word()), (bound, flat), "{found:?}");
        }
    }
}
