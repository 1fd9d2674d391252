//! What was measured.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Latencies above this count as this.
const LONGEST: Duration = Duration::from_secs(3_600);
const DIGITS: u8 = 3;

/// Latencies in microseconds, to three digits.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let longest = u64::try_from(LONGEST.as_micros()).unwrap_or(u64::MAX);
        Self(Histogram::new_with_max(longest, DIGITS).expect("the bounds are valid"))
    }
}

impl Latencies {
    pub(super) fn record(&mut self, latency: Duration) {
        self.0
            .saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    fn add(&mut self, other: &Self) {
        // The bounds are the same.
        let _ = self.0.add(&other.0);
    }

    fn summary(&self) -> Summary {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1_000.0;
        Summary {
            count: self.0.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: if self.0.is_empty() { 0.0 } else { at(1.0) },
            mean: self.0.mean() / 1_000.0,
        }
    }
}

/// Latencies in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many were measured.
    pub count: u64,
    /// Half were not longer.
    pub p50: f64,
    /// 90 % were not longer.
    pub p90: f64,
    /// 99 % were not longer.
    pub p99: f64,
    /// 99.9 % were not longer.
    pub p999: f64,
    /// The longest.
    pub max: f64,
    /// Their mean.
    pub mean: f64,
}

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) due: Instant,
    /// What is left to wait for is its result.
    pub(super) is_answered: bool,
}

impl Pending {
    pub(super) const fn since(due: Instant) -> Self {
        Self {
            due,
            is_answered: false,
        }
    }
}

/// What one thread measured.
#[derive(Clone, Debug)]
pub(super) struct Record {
    warm: Instant,
    /// Whether results are waited for.
    watches: bool,
    answered: Latencies,
    visible: Latencies,
    statuses: BTreeMap<u16, u64>,
    faults: BTreeMap<String, u64>,
    per_second: Vec<u64>,
    unanswered: u64,
    answered_in_all: u64,
    accepted_in_all: u64,
}

impl Record {
    pub(super) fn new(begin: Instant, warmup: Duration, watches: bool) -> Self {
        Self {
            warm: begin + warmup,
            watches,
            answered: Latencies::default(),
            visible: Latencies::default(),
            statuses: BTreeMap::new(),
            faults: BTreeMap::new(),
            per_second: Vec::new(),
            unanswered: 0,
            answered_in_all: 0,
            accepted_in_all: 0,
        }
    }

    /// Whether what was due then counts.
    fn counts(&self, due: Instant) -> bool {
        due >= self.warm
    }

    pub(super) fn answered(&mut self, due: Instant, status: u16) {
        let now = Instant::now();
        self.answered_in_all += 1;
        self.accepted_in_all += u64::from(status == 201);
        if !self.counts(due) {
            return;
        }
        self.answered.record(now - due);
        *self.statuses.entry(status).or_default() += 1;
        let second = usize::try_from((now - self.warm).as_secs()).unwrap_or(usize::MAX);
        if self.per_second.len() <= second {
            self.per_second.resize(second + 1, 0);
        }
        self.per_second[second] += 1;
    }

    pub(super) fn visible(&mut self, due: Instant) {
        if self.counts(due) {
            self.visible.record(due.elapsed());
        }
    }

    pub(super) fn failed(&mut self, pending: Pending, reason: &str) {
        if self.counts(pending.due) {
            self.waited_in_vain(pending);
            *self.faults.entry(reason.to_owned()).or_default() += 1;
        }
    }

    /// What was due and has no answer, or no result, when the patience is over.
    pub(super) fn gave_up(&mut self, pending: Pending) {
        if self.counts(pending.due) {
            self.waited_in_vain(pending);
            self.unanswered += 1;
        }
    }

    /// Whatever did not come counts with the time that was waited for it, so that a server that stops answering looks as bad
    /// as it is.
    fn waited_in_vain(&mut self, pending: Pending) {
        let waited = pending.due.elapsed();
        if !pending.is_answered {
            self.answered.record(waited);
        }
        if self.watches {
            self.visible.record(waited);
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.answered.add(&other.answered);
        self.visible.add(&other.visible);
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (reason, count) in &other.faults {
            *self.faults.entry(reason.clone()).or_default() += count;
        }
        let seconds = self.per_second.len().max(other.per_second.len());
        self.per_second.resize(seconds, 0);
        for (sum, count) in self.per_second.iter_mut().zip(&other.per_second) {
            *sum += count;
        }
        self.unanswered += other.unanswered;
        self.answered_in_all += other.answered_in_all;
        self.accepted_in_all += other.accepted_in_all;
    }

    /// Without what the generator used itself.
    pub(super) fn report(&self, measured: Duration) -> Report {
        let whole = usize::try_from(measured.as_secs()).unwrap_or(usize::MAX);
        let in_time: u64 = if measured.subsec_nanos() == 0 {
            self.per_second.iter().take(whole).sum()
        } else {
            self.statuses.values().sum()
        };
        Report {
            seconds: measured.as_secs_f64(),
            answered_per_second: in_time as f64 / measured.as_secs_f64(),
            answer_ms: self.answered.summary(),
            visible_ms: self.visible.summary(),
            statuses: self.statuses.clone(),
            faults: self.faults.clone(),
            unanswered: self.unanswered,
            answered_in_all: self.answered_in_all,
            accepted_in_all: self.accepted_in_all,
            processor_seconds: 0.0,
            busy: 0.0,
            peak_mib: 0.0,
            answered_in_each_second: self.per_second.clone(),
        }
    }
}

/// What a run measured, warm-up left out where not said otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How long it measured.
    pub seconds: f64,
    /// Answers in that time, by the second.
    pub answered_per_second: f64,
    /// From the time a request was due to its whole answer, failures and requests without an answer included.
    pub answer_ms: Summary,
    /// From the time a submission was due until a `GET` showed its result, those without one included; scenario `visible` only.
    pub visible_ms: Summary,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests that got no answer, by reason.
    pub faults: BTreeMap<String, u64>,
    /// Requests that were due and still had no answer, or no result, when the patience was over.
    pub unanswered: u64,
    /// Answers, those of the warm-up included.
    #[serde(default)]
    pub answered_in_all: u64,
    /// `201`s, those of the warm-up included.
    pub accepted_in_all: u64,
    /// Processor time of this program for the whole run, in seconds; 0 where the system does not tell.
    #[serde(default)]
    pub processor_seconds: f64,
    /// Its share of what the threads of this program could have used until the last request was due.
    #[serde(default)]
    pub busy: f64,
    /// The most memory that this program had, in MiB; 0 where the system does not tell.
    #[serde(default)]
    pub peak_mib: f64,
    /// Answers in each second after the warm-up.
    pub answered_in_each_second: Vec<u64>,
}

impl Report {
    /// Requests that did not end as they should.
    #[must_use]
    pub fn failures(&self) -> u64 {
        let refused: u64 = self
            .statuses
            .iter()
            .filter(|(status, _)| !(200..300).contains(*status))
            .map(|(_, count)| count)
            .sum();
        refused + self.faults.values().sum::<u64>() + self.unanswered
    }

    /// Whether the generator had so little time to spare that it may be the limit itself.
    #[must_use]
    pub fn is_held_up(&self) -> bool {
        self.busy > 0.9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_counted_from_when_requests_were_due() {
        let begin = Instant::now() - Duration::from_secs(3);
        let mut record = Record::new(begin, Duration::from_secs(1), false);
        // Due in the warm-up.
        record.answered(begin, 201);
        // Due after it, answered now.
        record.answered(begin + Duration::from_secs(1), 201);
        record.gave_up(Pending::since(begin + Duration::from_secs(2)));
        let report = record.report(Duration::from_secs(2));
        assert_eq!((report.answer_ms.count, report.unanswered), (2, 1));
        assert!(report.answer_ms.max >= 2_000.0, "{report:?}");
        assert!(report.answer_ms.p50 >= 1_000.0, "{report:?}");
        assert_eq!((report.answered_in_all, report.accepted_in_all), (2, 2));
        assert_eq!(report.failures(), 1);
    }
}
