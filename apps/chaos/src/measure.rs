//! How long things took.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::check::Facts;
use crate::clock::SECOND;
use crate::fleet::Role;
use crate::history::{Pages, Part, Repair, Window};
use crate::ledger::Entry;
use crate::nemesis::{INPUT_REMADE, INPUT_WIPED};
use crate::run_log::Run;
use crate::script::{Script, TASK_TIMEOUT};
use crate::watch::Sample;

/// Times in microseconds, in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times(Vec<i64>);

impl Times {
    pub(crate) fn of(times: impl IntoIterator<Item = i64>) -> Self {
        let mut times: Vec<i64> = times.into_iter().collect();
        times.sort_unstable();
        Self(times)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest time that at least this share of all does not exceed, in milliseconds.
    pub(crate) fn percentile(&self, percent: f64) -> Option<f64> {
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        let micros = self.0.get(rank.max(1) - 1)?;
        Some(*micros as f64 / 1_000.0)
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "count": self.len(),
            "p50Ms": self.percentile(50.0),
            "p99Ms": self.percentile(99.0),
            "maxMs": self.percentile(100.0),
        })
    }

    pub(crate) fn to_text(&self) -> String {
        let seconds = |percent| self.percentile(percent).map(|millis| millis / 1_000.0);
        match (seconds(50.0), seconds(99.0), seconds(100.0)) {
            (Some(p50), Some(p99), Some(max)) => format!(
                "p50 {p50:.3} s, p99 {p99:.3} s, max {max:.3} s ({} measured)",
                self.len()
            ),
            _ => "none measured".to_owned(),
        }
    }
}

/// How long until the tasks that a worker held when it died, hung or was cut off began to run elsewhere: over all, and over
/// those that nothing else hit meanwhile.
pub(crate) fn rescues(facts: &Facts) -> (Times, Times) {
    let mut all = Vec::new();
    let mut alone = Vec::new();
    for death in &facts.history.deaths {
        for runs in facts.runs.values() {
            let Some(took) = rescue(runs, &death.process, death.at) else {
                continue;
            };
            all.push(took);
            let until = death.at + took;
            let others = facts.history.windows.iter().filter(|window| {
                window.meets(death.at - SECOND, until)
                    && !(window.part == Part::Workers && is_of(window, death.at))
            });
            if others.count() == 0 {
                alone.push(took);
            }
        }
    }
    (Times::of(all), Times::of(alone))
}

/// A death is noted in the window of the fault that caused it, at its beginning.
fn is_of(window: &Window, death: i64) -> bool {
    (0..SECOND).contains(&(death - window.from))
}

/// From the death of `process` until this task's next run, if the process held it then and the next run is not a retry.
fn rescue(runs: &[Run], process: &str, died: i64) -> Option<i64> {
    let held = runs.iter().position(|run| {
        *run.process == *process
            && run.began < died
            && run.ended.as_ref().is_none_or(|(ended, _)| *ended > died)
    })?;
    let next = runs.get(held + 1)?;
    // A run that ended by itself and was followed by the next attempt, or found something down, was not rescued.
    let unavailable = runs[held]
        .ended
        .as_ref()
        .is_some_and(|(_, how)| how == "unavailable");
    (next.attempt == runs[held].attempt && !unavailable).then(|| next.began - died)
}

/// How long planted contradictions stood: over all, and over those beside which nothing else was wrong.
pub(crate) fn repairs(facts: &Facts) -> (Times, Times) {
    /// One worker audits; when it dies, the next begins when it is buried.
    const BEFORE: i64 = 10 * SECOND;
    let Pages {
        windows, repairs, ..
    } = &facts.history;
    let is_alone = |repair: &&Repair| {
        let (from, to) = (repair.at - BEFORE, repair.at + repair.took);
        let mut others = windows.iter().filter(|window| window.meets(from, to));
        others.all(|window| window.part == Part::Books)
    };
    let took = |repair: &Repair| repair.took;
    (
        Times::of(repairs.iter().map(took)),
        Times::of(repairs.iter().filter(is_alone).map(took)),
    )
}

/// How long accepted tasks waited for their first run.
pub(crate) struct Waits {
    pub(crate) all: Times,
    /// Of tasks accepted while no fault was on.
    pub(crate) calm: Times,
    /// Of those accepted while the log took nothing, or lost what it had, and nothing else was wrong: no message told of them.
    pub(crate) unmessaged: Times,
}

/// How long after a fault its traces may be felt.
const AFTER: i64 = 5 * SECOND;

pub(crate) fn waits(facts: &Facts) -> Waits {
    const NO_LOG: [&str; 3] = ["Kafka killed", "Kafka silent", "Kafka refusing"];
    /// Of these some messages are read before they are gone; who waits for long had none.
    const WIPED: [&str; 2] = [INPUT_WIPED, INPUT_REMADE];
    let (mut all, mut calm, mut unmessaged) = (Vec::new(), Vec::new(), Vec::new());
    for Wait { entry, waited, met } in every_wait(facts) {
        all.push(waited);
        if met.is_empty() {
            calm.push(waited);
        }
        if let [only] = met[..]
            && only.meets(entry.sent_at, entry.answered_at)
            && (NO_LOG.contains(&only.kind) || (WIPED.contains(&only.kind) && waited >= SECOND))
        {
            unmessaged.push(waited);
        }
    }
    Waits {
        all: Times::of(all),
        calm: Times::of(calm),
        unmessaged: Times::of(unmessaged),
    }
}

/// How long tasks waited that met no faults but of these kinds.
pub(crate) fn waits_beside(facts: &Facts, kinds: &[&str]) -> Vec<i64> {
    let alone = |wait: &Wait<'_>| wait.met.iter().all(|window| kinds.contains(&window.kind));
    let waits = every_wait(facts).filter(alone);
    waits.map(|wait| wait.waited).collect()
}

/// An accepted task that was to run at once.
struct Wait<'a> {
    entry: &'a Entry,
    /// From its acceptance to its first run.
    waited: i64,
    /// The faults that it met meanwhile, or whose traces.
    met: Vec<&'a Window>,
}

fn every_wait(facts: &Facts) -> impl Iterator<Item = Wait<'_>> {
    // Those that a client gave a time wait for that.
    let at_once = |entry: &&Entry| entry.script.run_at.is_none();
    facts.entries.iter().filter(at_once).filter_map(|entry| {
        let first = facts.runs.get(&entry.accepted()?)?.first()?.began;
        let windows = facts.history.windows.iter();
        Some(Wait {
            entry,
            waited: (first - entry.answered_at).max(0),
            met: windows
                .filter(|window| window.meets(entry.sent_at - AFTER, first))
                .collect(),
        })
    })
}

/// How late what was due came: over all, and over what had nothing wrong around it.
pub(crate) struct Lateness {
    pub(crate) all: Times,
    pub(crate) calm: Times,
}

impl Lateness {
    /// Each was due at the first of its two times and came at the second.
    fn of(windows: &[Window], dues: &[(i64, i64)]) -> Self {
        let is_calm = |(due, came): &&(i64, i64)| {
            let mut met = windows.iter();
            !met.any(|window| window.meets(due - AFTER, *came))
        };
        let late = |(due, came): &(i64, i64)| came - due;
        Self {
            all: Times::of(dues.iter().map(late)),
            calm: Times::of(dues.iter().filter(is_calm).map(late)),
        }
    }
}

/// From the `runAt` of tasks, or from when they were stored if that was later, to their first run.
pub(crate) fn run_at(facts: &Facts) -> Lateness {
    let dues: Vec<_> = facts
        .rows
        .iter()
        .filter_map(|(id, row)| {
            let run_at = Script::parse(&row.payload)?.run_at?;
            let first = facts.runs.get(id)?.first()?;
            Some((run_at.max(row.created_at), first.began))
        })
        .collect();
    Lateness::of(&facts.history.windows, &dues)
}

/// From the deadline of runs that were to overrun it to their end.
pub(crate) fn overruns(facts: &Facts) -> Lateness {
    let dues: Vec<_> = facts
        .rows
        .iter()
        .filter(|(_, row)| Script::parse(&row.payload).is_some_and(|script| script.overruns))
        .flat_map(|(id, _)| facts.runs.get(id).into_iter().flatten())
        .filter(|run| run.attempt == 1)
        .filter_map(|run| {
            let lasted = run.given_up_after(TASK_TIMEOUT)?;
            let deadline = i64::try_from(TASK_TIMEOUT.as_micros()).ok()?;
            Some((run.began + deadline, run.began + lasted))
        })
        .collect();
    Lateness::of(&facts.history.windows, &dues)
}

/// Memory of one kind of program, in MiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Memory {
    /// The most that any process had.
    pub(crate) most: f64,
    /// How much a process held in the last quarter of an undisturbed stretch of its life, against the first quarter of it: the
    /// largest of these ratios. None when no stretch was long enough.
    pub(crate) growth: Option<f64>,
    pub(crate) lives: usize,
}

/// What does not count of an undisturbed stretch: a program that was just started fills its pools and caches, and one that was
/// just disturbed holds what waits.
pub(crate) const WARM: i64 = 60 * SECOND;
/// How much must be left of it.
pub(crate) const LONG: i64 = 120 * SECOND;

/// Faults of any kind disturb every program.
pub(crate) fn memory(samples: &[Sample], faults: &[Window], role: Role) -> Option<Memory> {
    let of_role = || samples.iter().filter(|sample| sample.role == role);
    let most = of_role().map(|sample| sample.kib).max()?;
    let mut lives: BTreeMap<u32, Vec<Sample>> = BTreeMap::new();
    for sample in of_role() {
        lives.entry(sample.pid).or_default().push(*sample);
    }
    let growths = lives.values().flat_map(|life| {
        let stretches = life.chunk_by(|before, after| {
            let between = |fault: &Window| fault.meets(before.at, after.at);
            !faults.iter().any(between)
        });
        stretches.filter_map(growth).collect::<Vec<_>>()
    });
    Some(Memory {
        most: most as f64 / 1_024.0,
        growth: growths.reduce(f64::max),
        lives: lives.len(),
    })
}

fn growth(stretch: &[Sample]) -> Option<f64> {
    let from = stretch.first()?.at + WARM;
    let (_, warm) = stretch.split_at(stretch.partition_point(|sample| sample.at < from));
    (warm.last()?.at - warm.first()?.at >= LONG).then_some(())?;
    let (first, last) = (
        &warm[..warm.len() / 4],
        &warm[warm.len() - warm.len() / 4..],
    );
    Some(median(last)? / median(first)?)
}

/// What is held for a moment does not decide.
fn median(samples: &[Sample]) -> Option<f64> {
    let mut held: Vec<u64> = samples.iter().map(|sample| sample.kib).collect();
    held.sort_unstable();
    held.get(held.len() / 2).map(|kib| *kib as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(process: &str, attempt: u32, began: i64, ended: Option<i64>) -> Run {
        Run {
            process: process.into(),
            fence: began,
            attempt,
            began,
            ended: ended.map(|at| (at, "retryable".to_owned())),
        }
    }

    #[test]
    fn percentiles_are_of_the_times_themselves() {
        let times = Times::of((1..=200).rev().map(|n| n * 1_000));
        assert_eq!(times.percentile(50.0), Some(100.0));
        assert_eq!(times.percentile(99.0), Some(198.0));
        assert_eq!(times.percentile(100.0), Some(200.0));
        assert_eq!(Times::default().percentile(99.0), None);
    }

    #[test]
    fn a_rescue_is_told_from_a_retry() {
        let held = |next: Run| rescue(&[run("a", 1, 10, None), next], "a", 50);
        assert_eq!(held(run("b", 1, 90, None)), Some(40));
        assert_eq!(held(run("b", 2, 90, None)), None, "the next attempt");
        let ended = [run("a", 1, 10, Some(20)), run("b", 2, 90, None)];
        assert_eq!(rescue(&ended, "a", 50), None, "not in hand any more");
        assert_eq!(rescue(&ended[..1], "a", 15), None, "nobody took it up");
    }

    #[test]
    fn what_was_late_is_told_with_and_without_faults_around_it() {
        let windows = [fault(100)];
        let second = |second: i64| second * SECOND;
        let dues = [
            (second(50), second(51)),
            // Due before the fault was felt, and not begun until it was over.
            (second(99), second(104)),
            (second(107), second(108)),
            (second(109), second(111)),
        ];
        let late = Lateness::of(&windows, &dues);
        assert_eq!(late.all, Times::of([1, 5, 1, 2].map(second)));
        assert_eq!(late.calm, Times::of([1, 2].map(second)));
    }

    /// A task that was given this time, stored at 0, with these runs.
    fn facts_of(script: &Script, runs: Vec<Run>) -> Facts {
        let id = uuid::Uuid::from_u128(1);
        let row = crate::database::Row {
            payload: script.to_string(),
            status: "done".into(),
            result: None,
            error: None,
            fence: 9,
            attempts: 2,
            rescues: 0,
            created_at: 0,
            updated_at: 0,
            processed_at: String::new(),
        };
        Facts {
            rows: BTreeMap::from([(id, row)]),
            runs: BTreeMap::from([(id, runs)]),
            ..Facts::default()
        }
    }

    #[test]
    fn a_task_is_late_from_its_time_or_from_when_it_was_stored() {
        let script = Script {
            run_at: Some(5 * SECOND),
            ..Script::parse(&crate::script::at_once(1)).expect("a script")
        };
        let mut facts = facts_of(&script, vec![run("a", 1, 7 * SECOND, None)]);
        assert_eq!(run_at(&facts).all, Times::of([2 * SECOND]));
        for row in facts.rows.values_mut() {
            row.created_at = 6 * SECOND;
        }
        assert_eq!(run_at(&facts).all, Times::of([SECOND]));
    }

    #[test]
    fn only_what_lasted_until_its_deadline_overran_it() {
        let script = Script {
            overruns: true,
            ..Script::parse(&crate::script::at_once(1)).expect("a script")
        };
        let given_up = |attempt, seconds: i64| Run {
            ended: Some((seconds * SECOND, "given-up".to_owned())),
            ..run("a", attempt, 0, None)
        };
        let found = |run| overruns(&facts_of(&script, vec![run])).all;
        assert_eq!(found(given_up(1, 12)), Times::of([2 * SECOND]));
        assert_eq!(found(given_up(1, 9)), Times::default(), "a fault");
        assert_eq!(found(given_up(2, 12)), Times::default(), "not meant to");
        assert_eq!(found(run("a", 1, 0, Some(12 * SECOND))), Times::default());
    }

    /// A sample every two seconds of a life of so many.
    fn life(pid: u32, seconds: i64, kib: impl Fn(i64) -> i64) -> Vec<Sample> {
        let sample = |second: i64| Sample {
            at: second * SECOND,
            role: Role::Worker,
            index: 0,
            pid,
            kib: u64::try_from(kib(second)).expect("it is positive"),
        };
        (0..=seconds).step_by(2).map(sample).collect()
    }

    fn fault(second: i64) -> Window {
        Window {
            kind: "worker killed",
            part: Part::Workers,
            from: second * SECOND,
            to: (second + 3) * SECOND,
        }
    }

    #[test]
    fn growth_is_of_undisturbed_stretches_after_their_first_minute() {
        let growth = |samples: &[Sample], faults: &[Window]| {
            memory(samples, faults, Role::Worker).and_then(|memory| memory.growth)
        };
        let flat = |second: i64| 30_000 + second % 3;
        let warming = |second: i64| 20_000 + second.min(50) * 200;
        let leaking = |second: i64| 30_000 + second * 100;
        assert_eq!(growth(&life(1, 170, leaking), &[]), None, "too short");
        let undisturbed = |kib: fn(i64) -> i64| growth(&life(1, 200, kib), &[]);
        assert!(undisturbed(flat).is_some_and(|growth| growth < 1.01));
        assert_eq!(undisturbed(warming), Some(1.0), "the first minute");
        assert!(undisturbed(leaking).is_some_and(|growth| growth > 1.25));
        let spike = |second: i64| if second == 190 { 90_000 } else { 30_000 };
        assert_eq!(undisturbed(spike), Some(1.0), "for a moment");

        assert_eq!(growth(&life(1, 300, leaking), &[fault(150)]), None);
        let after = growth(&life(1, 400, leaking), &[fault(150)]);
        assert!(after.is_some_and(|growth| growth > 1.20), "{after:?}");
        // What one process leaks another does not make good.
        let both = [life(1, 200, flat), life(2, 200, leaking)].concat();
        assert!(growth(&both, &[]).is_some_and(|growth| growth > 1.25));
    }
}
