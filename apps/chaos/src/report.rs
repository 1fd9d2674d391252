//! What a run says at its end: lines for people, and one line of JSON, the last.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::check::{Facts, Verdict, Violation};
use crate::clock::SECOND;
use crate::fleet::Role;
use crate::judge::{Judgement, OVERRUN, REPAIR, RESCUE, RUN_AT, UNMESSAGED};
use crate::ledger::Outcome;
use crate::measure::{
    Lateness, Memory, Times, Waits, memory, overruns, repairs, rescues, run_at, waits,
};
use crate::watch::Seen;

/// How a run was made.
pub(crate) struct Outline {
    pub(crate) seed: u64,
    pub(crate) rate: u32,
    pub(crate) raged: Duration,
    pub(crate) rested: Duration,
    pub(crate) faults: usize,
}

pub(crate) struct Report {
    outline: Outline,
    verdict: Verdict,
    sent: usize,
    accepted: usize,
    done: usize,
    failed: usize,
    /// Stored although their client was not told so.
    unanswered: usize,
    reads: (u64, usize),
    reasons: BTreeMap<String, usize>,
    /// Failed requests by the faults that were on.
    blame: BTreeMap<String, usize>,
    counters: BTreeMap<&'static str, u64>,
    rescued: u64,
    rescues: (Times, Times),
    repairs: (Times, Times),
    waits: Waits,
    run_at: Lateness,
    overruns: Lateness,
    oldest: Times,
    servers: Option<Memory>,
    workers: Option<Memory>,
}

const COUNTERS: [&str; 8] = [
    "results_late",
    "worker_outlived",
    "runs_abandoned",
    "runs_timed_out",
    "tasks_handed_back",
    "messages_unpublished",
    "contradictions_repaired",
    "records_skipped",
];

impl Report {
    pub(crate) fn new(outline: Outline, facts: &Facts, seen: &Seen, verdict: Verdict) -> Self {
        let rows = |status: &str| {
            facts
                .rows
                .values()
                .filter(|row| row.status == status)
                .count()
        };
        let accepted = facts
            .entries
            .iter()
            .filter(|entry| entry.accepted().is_some())
            .count();
        let (mut reasons, mut blame) = (BTreeMap::new(), BTreeMap::new());
        let mut calm = 0;
        let mut rolled = 0;
        let mut count = |on: &[&str]| {
            calm += usize::from(on.is_empty());
            rolled += usize::from(!on.is_empty() && on.iter().all(|kind| is_orderly(kind)));
        };
        for (asked_at, ended_at) in &facts.reads.failed {
            count(&faults_on(facts, *asked_at, *ended_at));
        }
        for entry in &facts.entries {
            if let Outcome::Failed(reason) = &entry.outcome {
                *reasons.entry(reason.clone()).or_insert(0) += 1;
                let on = faults_on(facts, entry.sent_at, entry.answered_at);
                count(&on);
                let on = if on.is_empty() {
                    "none".to_owned()
                } else {
                    on.join(", ")
                };
                *blame.entry(on).or_insert(0) += 1;
            }
        }
        let mut report = Self {
            outline,
            sent: facts.entries.len(),
            accepted,
            done: rows("done"),
            failed: rows("failed"),
            unanswered: facts.rows.len().saturating_sub(accepted),
            reads: (facts.reads.answered, facts.reads.failed.len()),
            reasons,
            blame,
            counters: COUNTERS
                .into_iter()
                .map(|name| (name, seen.total(name)))
                .collect(),
            rescued: facts.rows.values().map(|row| u64::from(row.rescues)).sum(),
            rescues: rescues(facts),
            repairs: repairs(facts),
            waits: waits(facts),
            run_at: run_at(facts),
            overruns: overruns(facts),
            oldest: Times::of(seen.ages.iter().map(|(_, age)| *age)),
            servers: memory(&seen.memory, &facts.history.windows, Role::Server),
            workers: memory(&seen.memory, &facts.history.windows, Role::Worker),
            verdict,
        };
        report.judge(calm, rolled);
        report
    }

    fn judge(&mut self, calm: usize, rolled: usize) {
        let mut broken = |promise, what| self.verdict.violations.push(Violation { promise, what });
        for (bar, times) in [
            (RESCUE, &self.rescues.1),
            (REPAIR, &self.repairs.1),
            (UNMESSAGED, &self.waits.unmessaged),
            (RUN_AT, &self.run_at.calm),
            (OVERRUN, &self.overruns.calm),
        ] {
            if let Judgement::Broken(how) = bar.judge(times) {
                broken(bar.promise, format!("{how}; {}", times.to_text()));
            }
        }
        // Every half kills a worker for nothing else, so there is always something to measure.
        if self.rescues.1.len() == 0 {
            broken(RESCUE.promise, "no rescue was measured".to_owned());
        }
        // Of all that is sent some have a time, and the last of them are due when the last fault is long over.
        if self.run_at.calm.len() == 0 {
            broken(RUN_AT.promise, "no runAt was measured".to_owned());
        }
        if let Some(what) = miscounted(self.counters["runs_timed_out"], self.overruns.all.len()) {
            broken("failures differ", what);
        }
        for memory in [self.servers, self.workers].into_iter().flatten() {
            for violation in memory.violations() {
                broken(violation.promise, violation.what);
            }
        }
        if calm > 0 {
            broken(
                "what works, works",
                format!("{calm} requests failed while no fault was on"),
            );
        }
        if rolled > 0 {
            broken(
                "a rolling restart fails no request",
                format!(
                    "{rolled} requests failed while programs were restarted in turn, or contradictions planted, and nothing else"
                ),
            );
        }
    }

    pub(crate) fn holds(&self) -> bool {
        self.verdict.violations.is_empty()
    }

    pub(crate) fn print(&self) {
        let line = |name: &str, value: String| println!("{name:<34} {value}");
        println!();
        line("seed", self.outline.seed.to_string());
        line(
            "time",
            format!(
                "{:.0} s with {} faults, {:.1} s until all was at rest",
                self.outline.raged.as_secs_f64(),
                self.outline.faults,
                self.outline.rested.as_secs_f64()
            ),
        );
        line(
            "requests",
            format!("{} sent, {} a second", self.sent, self.outline.rate),
        );
        line("accepted", self.accepted.to_string());
        line(
            "done, failed as they should",
            format!("{}, {}", self.done, self.failed),
        );
        line("stored without an answer", self.unanswered.to_string());
        line("lost", self.verdict.lost.len().to_string());
        line("doubled", self.verdict.doubled.len().to_string());
        line("attempts burnt by faults", self.verdict.burnt.to_string());
        line(
            "runs whose result came to nothing",
            self.verdict.in_vain.to_string(),
        );
        line("records wiped unread", self.verdict.unread.to_string());
        line("taken back from dead workers", self.rescued.to_string());
        for (name, value) in &self.counters {
            line(
                &format!("{} (at least)", name.replace('_', " ")),
                value.to_string(),
            );
        }
        line("rescue", self.rescues.0.to_text());
        line("rescue, nothing else wrong", self.rescues.1.to_text());
        line("", RESCUE.judge(&self.rescues.1).to_string());
        line("repair", self.repairs.0.to_text());
        line("repair, nothing else wrong", self.repairs.1.to_text());
        line("", REPAIR.judge(&self.repairs.1).to_string());
        line("accepted to first run", self.waits.all.to_text());
        line("the same, nothing wrong", self.waits.calm.to_text());
        line(
            "the same, log down, nothing else",
            self.waits.unmessaged.to_text(),
        );
        line("", UNMESSAGED.judge(&self.waits.unmessaged).to_string());
        line("runAt to first run", self.run_at.all.to_text());
        line("the same, nothing wrong", self.run_at.calm.to_text());
        line("", RUN_AT.judge(&self.run_at.calm).to_string());
        line("overrun deadline to end", self.overruns.all.to_text());
        line("the same, nothing wrong", self.overruns.calm.to_text());
        line("", OVERRUN.judge(&self.overruns.calm).to_string());
        line("age of the oldest due task", self.oldest.to_text());
        for (name, memory) in [
            ("memory, servers", self.servers),
            ("memory, workers", self.workers),
        ] {
            if let Some(memory) = memory {
                line(name, memory.to_text());
            }
        }
        line(
            "reads",
            format!("{} answered, {} failed", self.reads.0, self.reads.1),
        );
        line(
            "requests failed",
            self.reasons.values().sum::<usize>().to_string(),
        );
        for (reason, count) in &self.reasons {
            line(&format!("  {reason}"), count.to_string());
        }
        println!("  by the faults that were on:");
        for (faults, count) in &self.blame {
            println!("  {count:>8}  {faults}");
        }
        self.print_violations();
        println!("{}", self.to_json());
    }

    fn print_violations(&self) {
        /// Of one promise; the rest is counted.
        const SHOWN: usize = 20;
        let mut by_promise: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for violation in &self.verdict.violations {
            let of_promise = by_promise.entry(violation.promise).or_default();
            of_promise.push(&violation.what);
        }
        for (promise, whats) in by_promise {
            println!("\nBROKEN: {promise} ({} times)", whats.len());
            for what in whats.iter().take(SHOWN) {
                println!("  {what}");
            }
        }
        println!();
    }

    fn to_json(&self) -> Value {
        json!({
            "holds": self.holds(),
            "seed": self.outline.seed,
            "seconds": self.outline.raged.as_secs(),
            "faults": self.outline.faults,
            "sent": self.sent,
            "accepted": self.accepted,
            "done": self.done,
            "failed": self.failed,
            "storedWithoutAnswer": self.unanswered,
            "lost": self.verdict.lost.len(),
            "doubled": self.verdict.doubled.len(),
            "violations": self.verdict.violations.len(),
            "attemptsBurnt": self.verdict.burnt,
            "resultsInVain": self.verdict.in_vain,
            "lateResultsRefused": self.counters["results_late"],
            "recordsWipedUnread": self.verdict.unread,
            "rescued": self.rescued,
            "rescue": self.rescues.0.to_json(),
            "rescueAlone": self.rescues.1.to_json(),
            "rescueJudged": RESCUE.judge(&self.rescues.1).word(),
            "repair": self.repairs.0.to_json(),
            "repairAlone": self.repairs.1.to_json(),
            "repairJudged": REPAIR.judge(&self.repairs.1).word(),
            "wait": self.waits.all.to_json(),
            "waitCalm": self.waits.calm.to_json(),
            "waitWithoutMessage": self.waits.unmessaged.to_json(),
            "waitWithoutMessageJudged": UNMESSAGED.judge(&self.waits.unmessaged).word(),
            "runAt": self.run_at.all.to_json(),
            "runAtCalm": self.run_at.calm.to_json(),
            "runAtJudged": RUN_AT.judge(&self.run_at.calm).word(),
            "overrun": self.overruns.all.to_json(),
            "overrunCalm": self.overruns.calm.to_json(),
            "overrunJudged": OVERRUN.judge(&self.overruns.calm).word(),
            "requestsFailed": self.reasons,
            "memoryMiB": {
                "server": self.servers.map(|memory| memory.most.round()),
                "worker": self.workers.map(|memory| memory.most.round()),
            },
            "memoryFlatJudged": {
                "server": self.servers.map(|memory| memory.flat().word()),
                "worker": self.workers.map(|memory| memory.flat().word()),
            },
        })
    }
}

impl Memory {
    pub(crate) fn to_text(self) -> String {
        let (bound, flat) = (self.bound(), self.flat());
        format!("{bound}, in {} lives; growth {flat}", self.lives)
    }

    /// What is wrong with it.
    pub(crate) fn violations(self) -> impl Iterator<Item = Violation> {
        [
            ("memory is bounded", self.bound()),
            ("memory is flat", self.flat()),
        ]
        .into_iter()
        .filter_map(|(promise, judgement)| match judgement {
            Judgement::Broken(what) => Some(Violation { promise, what }),
            Judgement::Kept(_) | Judgement::NotJudged(_) => None,
        })
    }
}

/// What is wrong with the number of runs that the workers counted as timed out. Of those that were killed less is known than
/// they counted; of each that overran its deadline the record knows.
fn miscounted(counted: u64, overran: usize) -> Option<String> {
    if overran == 0 {
        return Some("no run overran its deadline".to_owned());
    }
    let is_right = (1..=overran as u64).contains(&counted);
    (!is_right).then(|| format!("{counted} runs were counted as timed out, and {overran} were"))
}

/// Faults under which no request may fail.
fn is_orderly(kind: &str) -> bool {
    matches!(
        kind,
        "servers restarted in turn"
            | "workers restarted in turn"
            | "programs changed over"
            | "contradictions planted"
    )
}

/// The kinds of faults that a request could feel.
fn faults_on(facts: &Facts, from: i64, to: i64) -> Vec<&'static str> {
    let mut on: Vec<&str> = facts
        .history
        .windows
        .iter()
        .filter(|window| window.meets(from - 5 * SECOND, to))
        .map(|window| window.kind)
        .collect();
    on.sort_unstable();
    on.dedup();
    on
}

#[cfg(test)]
mod tests {
    use super::miscounted;

    #[test]
    fn timeouts_are_counted_and_nothing_else_as_one() {
        for (counted, overran, is_right) in [
            (1, 1, true),
            (40, 60, true),
            (0, 60, false),
            (61, 60, false),
            (0, 0, false),
        ] {
            let found = miscounted(counted, overran);
            assert_eq!(found.is_none(), is_right, "{found:?}");
        }
    }
}
