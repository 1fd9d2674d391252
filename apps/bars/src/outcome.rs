//! What was measured, and the bars it is held against.

use std::collections::BTreeMap;

use serde::Serialize;
use task_processor_bench::load::{Report, Summary};

use crate::stand::Used;

/// The subject that others are compared with: the API on ports that do nothing.
pub(crate) const NOIO: &str = "noio";

/// One measurement of one subject.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Round {
    pub(crate) scenario: &'static str,
    pub(crate) subject: String,
    /// From 1.
    pub(crate) round: usize,
    /// Answers, or what the store did.
    pub(crate) per_second: f64,
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) answer_ms: Summary,
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) visible_ms: Summary,
    /// Requests, or tasks, of the whole measurement, warm-up included: what the figures below are shared by.
    pub(crate) count: u64,
    /// Requests that were refused, or broke.
    pub(crate) failures: u64,
    /// Requests without an answer, or without a result, when the patience was over.
    pub(crate) unanswered: u64,
    /// How busy the threads of the load generator were, 1 being always.
    pub(crate) load_busy: f64,
    /// Whether it may have been the limit itself.
    pub(crate) load_is_held_up: bool,
    /// Of each process.
    pub(crate) processor_micros_each: BTreeMap<String, f64>,
    pub(crate) peak_mib: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wal_bytes_each: Option<f64>,
    /// Accepted, and never done, or done and never announced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<u64>,
    /// Announced twice with different results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) doubled: Option<u64>,
    /// Whatever else belongs to this scenario.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) more: BTreeMap<String, f64>,
}

fn is_empty(summary: &Summary) -> bool {
    summary.count == 0
}

impl Round {
    pub(crate) fn new(
        scenario: &'static str,
        subject: &str,
        round: usize,
        report: &Report,
        used: &Used,
    ) -> Self {
        let count = match report.accepted_in_all {
            0 => report.answered_in_all,
            accepted => accepted,
        };
        let each = |sum: f64| sum / count.max(1) as f64;
        let mut processor_micros_each: BTreeMap<String, f64> = used
            .seconds
            .iter()
            .map(|(name, seconds)| (name.clone(), each(seconds * 1e6)))
            .collect();
        processor_micros_each.insert("load".to_owned(), each(report.processor_seconds * 1e6));
        let mut peak_mib = used.peak_mib.clone();
        peak_mib.insert("load".to_owned(), report.peak_mib);
        Self {
            scenario,
            subject: subject.to_owned(),
            round,
            per_second: report.answered_per_second,
            answer_ms: report.answer_ms,
            visible_ms: report.visible_ms,
            count,
            failures: report.failures() - report.unanswered,
            unanswered: report.unanswered,
            load_busy: report.busy,
            load_is_held_up: report.is_held_up(),
            processor_micros_each,
            peak_mib,
            wal_bytes_each: used.wal_bytes.map(|bytes| each(bytes as f64)),
            lost: None,
            doubled: None,
            more: BTreeMap::new(),
        }
    }

    /// What each task costs, brokers and load generator apart.
    pub(crate) fn cost_micros(&self) -> f64 {
        self.processor_micros_each
            .iter()
            .filter(|(name, _)| !["kafka", "load"].contains(&name.as_str()))
            .map(|(_, micros)| micros)
            .sum()
    }
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Wanted {
    AtLeast,
    AtMost,
}

/// What must be reached, and what should.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Bar {
    pub(crate) wanted: Wanted,
    pub(crate) bar: f64,
    pub(crate) stretch: f64,
}

impl Bar {
    pub(crate) const fn at_least(bar: f64, stretch: f64) -> Self {
        Self {
            wanted: Wanted::AtLeast,
            bar,
            stretch,
        }
    }

    pub(crate) const fn at_most(bar: f64, stretch: f64) -> Self {
        Self {
            wanted: Wanted::AtMost,
            bar,
            stretch,
        }
    }

    fn reached(self, limit: f64, value: f64) -> bool {
        match self.wanted {
            Wanted::AtLeast => value >= limit,
            Wanted::AtMost => value <= limit,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Verdict {
    Stretch,
    Bar,
    Below,
    /// There is no bar.
    Shown,
}

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    pub(crate) scenario: &'static str,
    /// Which of the forms, on which services.
    pub(crate) form: &'static str,
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) bar: Option<Bar>,
    /// One for each round.
    pub(crate) samples: Vec<f64>,
}

impl Outcome {
    pub(crate) fn new(
        scenario: &'static str,
        what: impl Into<String>,
        unit: &'static str,
        bar: Option<Bar>,
        samples: Vec<f64>,
    ) -> Self {
        Self {
            scenario,
            form: "",
            what: what.into(),
            unit,
            bar,
            samples,
        }
    }

    pub(crate) fn median(&self) -> f64 {
        median(&self.samples)
    }

    /// Whether every round gave a number.
    pub(crate) fn is_measured(&self) -> bool {
        !self.samples.is_empty() && self.samples.iter().all(|sample| sample.is_finite())
    }

    /// The least and the most.
    pub(crate) fn spread(&self) -> (f64, f64) {
        let least = self.samples.iter().copied().fold(f64::NAN, f64::min);
        let most = self.samples.iter().copied().fold(f64::NAN, f64::max);
        (least, most)
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let median = self.median();
        match self.bar {
            None => Verdict::Shown,
            Some(bar) if bar.reached(bar.stretch, median) => Verdict::Stretch,
            Some(bar) if bar.reached(bar.bar, median) => Verdict::Bar,
            // A measurement that gave no number has reached nothing.
            Some(_) => Verdict::Below,
        }
    }
}

/// Not a number when there is none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_the_rounds_is_held_against_the_bar() {
        let check = |bar: Bar, samples: &[f64], expected: Verdict| {
            let outcome = Outcome::new("test", "something", "", Some(bar), samples.to_vec());
            assert_eq!(outcome.verdict(), expected, "{samples:?}");
        };
        let share = Bar::at_least(0.33, 0.42);
        check(share, &[0.1, 0.42, 0.9], Verdict::Stretch);
        check(share, &[0.9, 0.33, 0.1], Verdict::Bar);
        check(share, &[0.32, 0.33], Verdict::Below);
        check(share, &[], Verdict::Below);
        check(share, &[f64::NAN], Verdict::Below);
        let cost = Bar::at_most(120.0, 80.0);
        check(cost, &[80.0], Verdict::Stretch);
        check(cost, &[81.0], Verdict::Bar);
        check(cost, &[120.1], Verdict::Below);
    }
}
