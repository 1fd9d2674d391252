//! The checker: it knows the promises, the ledger of the clients, and what took effect in the store. Nothing else.

use std::collections::BTreeMap;

use adapters::memory::StoreSnapshot;
use domain::Metrics;
use ports::{
    DeadLetter, Fence, Spent, Task, TaskEvent, TaskId, TaskResult, TaskStatus, Timestamp, Totals,
};

use crate::ledger::{Asked, Entries, Said, Told};
use crate::plan::ProbeLog;
use crate::record::{Life, Records};
use crate::script::{RunEnd, RunsState, Script, result_of};
use crate::world::{Bereaved, World};

/// What the system promises, as far as a history can show it broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// After `201` a task comes to rest, whatever crashes.
    Accepted,
    /// A status moves only under its fence, and one outcome counts.
    OneTruth,
    /// What is unfinished is in the queue or in a recorded claim.
    Findable,
    /// Healthy tasks do not wait behind stuck ones, lost messages or dead workers.
    NobodyWaits,
    /// Failures differ: what spends an attempt, and what ends a task.
    FailuresDiffer,
    /// Only `done` is final for ever, and only it is cached.
    OnlyDoneIsFinal,
    /// Every step may be repeated.
    Repeatable,
    /// Everything has a limit, and one bad item fails alone.
    Limits,
    /// A stop ends in time and leaves nothing behind.
    Stopping,
    /// Only a worker that was silent for the whole lease is declared dead.
    Liveness,
    /// Nothing starts before its `runAt`.
    RunAt,
    /// Every result and every failure is announced, and nothing else is.
    Announced,
    /// The metrics are exact.
    Metrics,
    /// No component panics or spins.
    Sound,
}

impl Promise {
    /// The promise in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted is never lost",
            Self::OneTruth => "one truth per task",
            Self::Findable => "everything unfinished is findable",
            Self::NobodyWaits => "nobody waits behind the stuck",
            Self::FailuresDiffer => "failures differ",
            Self::OnlyDoneIsFinal => "only done is final for ever",
            Self::Repeatable => "ten of anything is fine",
            Self::Limits => "everything has a limit",
            Self::Stopping => "stopping is a feature",
            Self::Liveness => "no living worker is declared dead",
            Self::RunAt => "nothing before its runAt",
            Self::Announced => "every outcome is announced",
            Self::Metrics => "the metrics are exact",
            Self::Sound => "nothing panics or spins",
        }
    }
}

/// A promise that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// What was seen.
    pub what: String,
}

/// How long a message that never comes may delay its task, in microseconds.
const LOST_MESSAGE_DELAY: i64 = 5_000_000;

/// How long a task may wait to be claimed when its message comes, in microseconds.
const DELIVERED_DELAY: i64 = 1_000_000;

/// How much later than its `runAt` an idle worker may claim, in microseconds.
const RUN_AT_DELAY: i64 = 1_000_000;

/// How long after the death of their worker tasks may wait to be claimed by another, in microseconds.
const RESCUE_DELAY: i64 = 10_000_000;

const PLANTED_ATTEMPTS: u32 = 5;

/// Everything the checker looks at.
struct Evidence<'a> {
    snapshot: &'a StoreSnapshot,
    entries: &'a Entries,
    records: &'a Records,
    runs: &'a RunsState,
    outputs: BTreeMap<TaskId, Vec<TaskResult>>,
    letters: BTreeMap<TaskId, Vec<DeadLetter>>,
    events: BTreeMap<TaskId, Vec<TaskEvent>>,
    rubbish: Vec<String>,
    cached: &'a BTreeMap<TaskId, Vec<TaskResult>>,
    max_rescues: u32,
    lease: i64,
    probe_log: ProbeLog,
    has_brakes: bool,
    has_audit: bool,
    found: Vec<Violation>,
}

pub(crate) fn check(world: &World, panics: Vec<String>) -> Vec<Violation> {
    let snapshot = world.snapshot();
    let (entries, records) = (world.ledger.entries(), world.store.records());
    let (runs, cached) = (world.runs.state(), world.cache_record.put());
    let mut outputs: BTreeMap<TaskId, Vec<TaskResult>> = BTreeMap::new();
    for result in world.log.outputs() {
        outputs.entry(result.id).or_default().push(result);
    }
    let mut letters: BTreeMap<TaskId, Vec<DeadLetter>> = BTreeMap::new();
    let mut events: BTreeMap<TaskId, Vec<TaskEvent>> = BTreeMap::new();
    for event in world.log.events() {
        events.entry(event.id).or_default().push(event);
    }
    let mut rubbish = Vec::new();
    for letter in world.log.dead_letters() {
        match letter {
            DeadLetter::Unreadable { reason, .. } => rubbish.push(reason),
            DeadLetter::Failed { id, .. } => letters.entry(id).or_default().push(letter),
        }
    }
    let mut evidence = Evidence {
        snapshot: &snapshot,
        entries: &entries,
        records: &records,
        runs: &runs,
        outputs,
        letters,
        events,
        rubbish,
        cached: &cached,
        max_rescues: world.plan.work.max_rescues,
        lease: i64::try_from(world.plan.work.lease.as_micros()).unwrap_or(i64::MAX),
        probe_log: world.plan.probe_log,
        has_brakes: world.plan.has_brakes(),
        has_audit: world.plan.has_audit(),
        found: Vec::new(),
    };
    for panic in panics {
        evidence.report(Promise::Sound, panic);
    }
    if world.sky.is_exhausted() {
        evidence.report(Promise::Sound, "a component asks without end".into());
    }
    evidence.check_what_was_seen();
    evidence.check_submissions();
    evidence.check_planted();
    evidence.check_tasks();
    evidence.check_deaths();
    evidence.check_reads();
    evidence.check_rubbish();
    evidence.check_metrics(world.metrics);
    if let Some(bereaved) = world.bereaved.as_ref().filter(|_| !world.plan.has_brakes()) {
        evidence.check_bereaved(bereaved);
    }
    evidence.found
}

impl Evidence<'_> {
    fn report(&mut self, promise: Promise, what: String) {
        self.found.push(Violation { promise, what });
    }

    fn expect(&mut self, holds: bool, promise: Promise, what: impl FnOnce() -> String) {
        if !holds {
            self.report(promise, what());
        }
    }

    fn check_what_was_seen(&mut self) {
        for what in &self.entries.unrest {
            self.report(Promise::Accepted, format!("not at rest {what}"));
        }
        for what in &self.entries.wrong {
            self.report(Promise::Stopping, what.clone());
        }
        for what in &self.records.wrong {
            let promise = if what.contains("transition") {
                Promise::OneTruth
            } else if what.contains("totals") {
                Promise::Metrics
            } else {
                Promise::Findable
            };
            self.report(promise, what.clone());
        }
        for what in &self.runs.wrong {
            let promise = if what.contains("limit") {
                Promise::Limits
            } else {
                Promise::OneTruth
            };
            self.report(promise, what.clone());
        }
    }

    // ---- what clients were told ----

    fn check_submissions(&mut self) {
        let mut rows: BTreeMap<&str, Vec<&Task>> = BTreeMap::new();
        for task in &self.snapshot.tasks {
            rows.entry(task.payload.as_str()).or_default().push(task);
        }
        let mut requests: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        let mut poisoned: BTreeMap<usize, bool> = BTreeMap::new();
        for asked in &self.entries.asked {
            *poisoned.entry(asked.request).or_default() |= asked.is_poison;
        }
        for asked in &self.entries.asked {
            let rows = rows.remove(asked.payload.as_str()).unwrap_or_default();
            let counts = requests.entry(asked.request).or_default();
            counts.0 += rows.len();
            counts.1 += 1;
            self.expect(rows.len() <= 1, Promise::Repeatable, || {
                format!("{} was stored {} times", asked.payload, rows.len())
            });
            self.check_told(asked, &rows, poisoned[&asked.request]);
            if asked.is_probe {
                self.check_probe(asked);
            }
        }
        for (request, (stored, asked)) in requests {
            self.expect(stored == 0 || stored == asked, Promise::Limits, || {
                format!("request {request} had {asked} submissions and {stored} were stored")
            });
        }
        for (payload, tasks) in rows {
            let ours = self.entries.planted.iter();
            let planted = ours.filter(|planted| planted.payload == payload).count();
            self.expect(planted == tasks.len(), Promise::Repeatable, || {
                format!("{payload} is stored {} times", tasks.len())
            });
        }
    }

    fn check_told(&mut self, asked: &Asked, rows: &[&Task], is_poisoned: bool) {
        let payload = &asked.payload;
        match &asked.told {
            Told::Accepted { id, created_at } => {
                let row = rows.iter().find(|task| task.id == *id);
                self.expect(row.is_some(), Promise::Accepted, || {
                    format!("{payload} was accepted and is not stored under its id")
                });
                self.expect(
                    row.is_none_or(|task| task.created_at == *created_at),
                    Promise::Accepted,
                    || format!("{payload} was not created when the client was told"),
                );
                self.expect(!is_poisoned, Promise::Limits, || {
                    format!("{payload} was accepted with data that cannot be stored")
                });
            }
            Told::Refused(reason) => {
                self.expect(rows.is_empty(), Promise::Repeatable, || {
                    format!("{payload} was refused ({reason}) and stored")
                });
                let is_load = reason.contains("too many") || reason.contains("no one");
                self.expect(is_poisoned || is_load, Promise::Limits, || {
                    format!("{payload} was refused for another's data: {reason}")
                });
            }
            Told::Unavailable | Told::Nothing => {}
        }
    }

    fn check_probe(&mut self, asked: &Asked) {
        let payload = &asked.payload;
        let Told::Accepted { id, .. } = asked.told else {
            let told = &asked.told;
            let what = format!("{payload} was sent when all was well, and {told:?}");
            return self.report(Promise::Accepted, what);
        };
        if self.has_brakes {
            return;
        }
        let life = self.records.lives.get(&id);
        let Some(claimed) = life.and_then(|life| life.claims.first()) else {
            return;
        };
        if let Some(run_at) = asked.run_at {
            let waited = claimed.stamped.micros_since(run_at);
            let limit = if self.probe_log == ProbeLog::Up {
                RUN_AT_DELAY
            } else {
                LOST_MESSAGE_DELAY
            };
            self.expect(waited <= limit, Promise::NobodyWaits, || {
                format!("{payload} was claimed {waited} µs after its time")
            });
            return;
        }
        let waited = claimed.at - asked.told_at;
        let limit = match self.probe_log {
            ProbeLog::Up => DELIVERED_DELAY,
            ProbeLog::Losing | ProbeLog::Down => LOST_MESSAGE_DELAY,
        };
        self.expect(waited <= limit, Promise::NobodyWaits, || {
            format!("{payload} was claimed {waited} µs after it was accepted")
        });
    }

    fn check_planted(&mut self) {
        for planted in &self.entries.planted {
            let task = self
                .snapshot
                .tasks
                .iter()
                .find(|task| task.id == planted.id);
            let Some(task) = task else {
                let what = format!("{} is gone", planted.payload);
                self.report(Promise::Accepted, what);
                continue;
            };
            let must_run = planted.has_message || self.has_audit;
            self.expect(
                !must_run || task.status.is_at_rest(),
                Promise::Accepted,
                || format!("{} of another program is {}", planted.payload, task.status),
            );
        }
    }

    // ---- what became of tasks ----

    fn check_tasks(&mut self) {
        let snapshot = self.snapshot;
        for task in &snapshot.tasks {
            let Some((script, max_attempts)) = self.script_of(task) else {
                continue;
            };
            let life = self
                .records
                .lives
                .get(&task.id)
                .cloned()
                .unwrap_or_default();
            self.check_life(task, &life);
            self.check_attempts(task, &life);
            self.check_announced(task, &life);
            if task.status.is_at_rest() {
                self.check_ending(task, script, max_attempts);
            }
        }
    }

    fn script_of(&self, task: &Task) -> Option<(Script, u32)> {
        let payload = task.payload.as_str();
        let asked = self
            .entries
            .asked
            .iter()
            .find(|asked| asked.payload == payload)
            .map(|asked| (asked.script.clone(), asked.max_attempts));
        let planted = || {
            let planted = self.entries.planted.iter();
            planted
                .filter(|planted| planted.id == task.id)
                .map(|planted| (planted.script.clone(), PLANTED_ATTEMPTS))
                .next()
        };
        asked.or_else(planted)
    }

    fn check_ending(&mut self, task: &Task, script: Script, max_attempts: u32) {
        let payload = task.payload.as_str();
        let ending = script.ending(max_attempts);
        if task.status == TaskStatus::Failed && task.rescues > self.max_rescues {
            // It was taken for the killer of its workers.
            return;
        }
        self.expect(
            task.status == ending.status,
            Promise::FailuresDiffer,
            || {
                format!(
                    "{payload} ended {} instead of {}",
                    task.status, ending.status
                )
            },
        );
        self.expect(
            task.attempts == ending.attempts,
            Promise::FailuresDiffer,
            || {
                let (spent, right) = (task.attempts, ending.attempts);
                format!("{payload} spent {spent} attempts instead of {right}")
            },
        );
    }

    /// Claims and transitions make one chain of fences, with one outcome at its end.
    fn check_life(&mut self, task: &Task, life: &Life) {
        let payload = task.payload.as_str();
        let mut fences: Vec<i64> = life.claims.iter().map(|claim| claim.fence.0).collect();
        fences.extend(life.moves.iter().map(|moved| moved.fence.0 + 1));
        fences.sort_unstable();
        let is_chain = fences.iter().copied().eq(1..=task.fence.0);
        self.expect(is_chain, Promise::OneTruth, || {
            format!(
                "{payload} went through the fences {fences:?} to {}",
                task.fence.0
            )
        });
        let outcomes = life
            .moves
            .iter()
            .filter(|moved| moved.to.is_at_rest())
            .count();
        self.expect(outcomes <= 1, Promise::OneTruth, || {
            format!("{payload} came to {outcomes} outcomes")
        });
        // What had begun and was taken back is due at once, even if the store's clock has gone back since.
        if let (Some(run_at), Some(claim)) = (life.run_at, life.claims.first()) {
            let stamped = claim.stamped;
            self.expect(stamped >= run_at, Promise::RunAt, || {
                format!("{payload} was claimed at {stamped}, before {run_at}")
            });
        }
    }

    /// Every attempt counted is a run that ended by itself, and none is counted for what befell its worker.
    fn check_attempts(&mut self, task: &Task, life: &Life) {
        let payload = task.payload.as_str();
        let count = |spent: Spent| {
            let same = |moved: &&crate::record::Moved| moved.spent == spent;
            u32::try_from(life.moves.iter().filter(same).count()).unwrap_or(u32::MAX)
        };
        let counts = (count(Spent::Attempt), count(Spent::Rescue));
        self.expect(
            counts == (task.attempts, task.rescues),
            Promise::FailuresDiffer,
            || {
                let (attempts, rescues) = (task.attempts, task.rescues);
                format!("{payload} has {attempts} attempts and {rescues} rescues, not {counts:?}")
            },
        );
        let mut ended = 0;
        for moved in &life.moves {
            match moved.spent {
                Spent::Attempt => {
                    ended += 1;
                    self.check_run(task, moved.fence, ended);
                }
                Spent::Rescue => self.check_rescue(task, life, moved.fence, moved.at),
                Spent::Nothing | Spent::Reset => {}
            }
        }
    }

    fn check_run(&mut self, task: &Task, fence: Fence, attempt: u32) {
        let payload = task.payload.as_str();
        match self.runs.started.get(&(task.id, fence)) {
            None => self.report(
                Promise::FailuresDiffer,
                format!(
                    "{payload} spent an attempt under fence {} without a run",
                    fence.0
                ),
            ),
            Some((number, end)) => {
                let number = *number;
                self.expect(number == attempt, Promise::FailuresDiffer, || {
                    format!("{payload} ran attempt {number} when it was attempt {attempt}")
                });
                self.expect(
                    *end != Some(RunEnd::Unavailable),
                    Promise::FailuresDiffer,
                    || format!("{payload} spent an attempt because something was down"),
                );
            }
        }
    }

    /// What was rescued was in the hands of a worker that had been declared dead.
    fn check_rescue(&mut self, task: &Task, life: &Life, fence: Fence, at: i64) {
        let payload = task.payload.as_str();
        let claim = life.claims.iter().find(|claim| claim.fence == fence);
        let was_dead = claim.is_some_and(|claim| {
            let deaths = self.records.deaths.iter();
            deaths
                .filter(|death| death.worker == claim.worker && death.at <= at)
                .count()
                > 0
        });
        self.expect(was_dead, Promise::Liveness, || {
            format!("{payload} was taken back from a worker that was not declared dead")
        });
    }

    /// Topic and cache hold the one result of a done task, and nothing of any other.
    fn check_announced(&mut self, task: &Task, life: &Life) {
        let payload = task.payload.as_str();
        let result = task.to_result();
        if let Some(result) = &result {
            let done = life
                .moves
                .iter()
                .find(|moved| moved.to == TaskStatus::Done)
                .map(|moved| moved.fence);
            let right = done.map(|fence| result_of(payload, fence));
            self.expect(
                right.as_ref() == Some(&result.result),
                Promise::OneTruth,
                || {
                    format!(
                        "{payload} has the result {:?} and not {right:?}",
                        result.result
                    )
                },
            );
        }
        let outputs = self.outputs.remove(&task.id).unwrap_or_default();
        let is_settled = self.entries.unrest.is_empty();
        self.expect(
            result.is_none() || !outputs.is_empty() || !is_settled,
            Promise::Announced,
            || format!("{payload} is done and was never announced"),
        );
        let wrong = outputs
            .iter()
            .find(|announced| Some(*announced) != result.as_ref());
        self.expect(wrong.is_none(), Promise::Announced, || {
            format!("{payload} is {result:?} and was announced as {wrong:?}")
        });
        let mut cached = self.cached.get(&task.id).into_iter().flatten();
        let wrong = cached.find(|cached| Some(*cached) != result.as_ref());
        self.expect(wrong.is_none(), Promise::OnlyDoneIsFinal, || {
            format!("{payload} is {result:?} and was cached as {wrong:?}")
        });
        let letters = self.letters.remove(&task.id).unwrap_or_default();
        let has_failed = task.status == TaskStatus::Failed;
        self.expect(
            !has_failed || !letters.is_empty() || !is_settled,
            Promise::Announced,
            || format!("{payload} has failed and there is no dead letter of it"),
        );
        let wrong = letters.iter().find(|letter| !is_letter_of(letter, task));
        self.expect(wrong.is_none(), Promise::Announced, || {
            format!("the dead letter {wrong:?} is not of {task:?}")
        });
        let events = self.events.remove(&task.id).unwrap_or_default();
        let is_told = events
            .iter()
            .any(|event| (event.status, event.fence) == (task.status, task.fence));
        self.expect(
            !task.status.is_at_rest() || is_told || !is_settled,
            Promise::Announced,
            || format!("{payload} is {} and no event told so", task.status),
        );
        let wrong = events.iter().find(|event| {
            event.fence > task.fence || (event.status.is_at_rest() && event.fence != task.fence)
        });
        self.expect(wrong.is_none(), Promise::Announced, || {
            format!("the event {wrong:?} is not of {task:?}")
        });
    }

    // ---- the rest ----

    fn check_deaths(&mut self) {
        for death in &self.records.deaths {
            let silent = death.at - death.last_beat_at;
            let lease = self.lease;
            let name = self.records.names.get(&death.worker);
            self.expect(
                !death.was_living || silent >= lease,
                Promise::Liveness,
                || format!("{name:?} was declared dead {silent} µs after its last beat"),
            );
            self.expect(death.has_excuse, Promise::Liveness, || {
                format!("{name:?} was declared dead though nothing but an outage befell it")
            });
        }
    }

    fn check_bereaved(&mut self, bereaved: &Bereaved) {
        for (id, fence) in &bereaved.tasks {
            let life = self.records.lives.get(id);
            let claims = life.into_iter().flat_map(|life| &life.claims);
            let again = claims.filter(|claim| claim.fence > *fence);
            // A task that was in the hands of too many dead workers ends there.
            let moves = life.into_iter().flat_map(|life| &life.moves);
            let ends = moves.filter(|moved| moved.to == TaskStatus::Failed);
            let known = again.map(|claim| claim.at).chain(ends.map(|end| end.at));
            let waited = known.min().map(|at| at - bereaved.at);
            self.expect(
                waited.is_some_and(|waited| waited <= RESCUE_DELAY),
                Promise::NobodyWaits,
                || format!("{id} was taken up again {waited:?} µs after the death of its worker"),
            );
        }
    }

    fn check_reads(&mut self) {
        let entries = self.entries;
        let mut rows: BTreeMap<TaskId, &Task> = BTreeMap::new();
        for task in &self.snapshot.tasks {
            rows.insert(task.id, task);
        }
        let mut told_at: BTreeMap<TaskId, i64> = BTreeMap::new();
        for asked in &entries.asked {
            if let Told::Accepted { id, .. } = asked.told {
                told_at.insert(id, asked.told_at);
            }
        }
        let mut done_at: BTreeMap<TaskId, i64> = BTreeMap::new();
        for read in &entries.reads {
            if let Said::Done(result) = &read.said {
                let ended = done_at.entry(read.id).or_insert(read.ended_at);
                *ended = read.ended_at.min(*ended);
                let truth = rows.get(&read.id).and_then(|task| task.to_result());
                self.expect(truth.as_ref() == Some(result), Promise::OneTruth, || {
                    format!("a client read {result:?}, and the task is {truth:?}")
                });
            }
        }
        for read in &entries.reads {
            let id = read.id;
            let was_done = done_at.get(&id).is_some_and(|at| *at <= read.began_at);
            let is_done = matches!(read.said, Said::Done(_) | Said::Nothing);
            self.expect(!was_done || is_done, Promise::OnlyDoneIsFinal, || {
                format!("{id} was read as done and then as {:?}", read.said)
            });
            let was_told = told_at.get(&id).is_some_and(|at| *at <= read.began_at);
            self.expect(
                !(was_told && read.said == Said::Unknown),
                Promise::Accepted,
                || format!("{id} was accepted and then unknown"),
            );
        }
    }

    fn check_rubbish(&mut self) {
        let entries = self.entries;
        for reason in &entries.rubbish {
            let has_letter = self.rubbish.contains(reason) || !entries.unrest.is_empty();
            self.expect(has_letter, Promise::Announced, || {
                format!("{reason} is in the topic and there is no dead letter of it")
            });
        }
    }

    fn check_metrics(&mut self, metrics: Option<Metrics>) {
        let Some(metrics) = metrics else {
            return;
        };
        let done = self.snapshot.tasks.iter();
        let done = done.filter(|task| task.status == TaskStatus::Done);
        let mut totals = Totals::default();
        for task in done {
            totals.done += 1;
            totals.elapsed_micros += elapsed(task.created_at, task.updated_at);
        }
        let right = Metrics::from(totals);
        self.expect(metrics == right, Promise::Metrics, || {
            format!("the metrics are {metrics:?} and not {right:?}")
        });
    }
}

fn elapsed(from: Timestamp, to: Timestamp) -> i128 {
    i128::from(to.micros_since(from))
}

fn is_letter_of(letter: &DeadLetter, task: &Task) -> bool {
    matches!(letter, DeadLetter::Failed { payload, attempts, error, failed_at, .. }
        if task.status == TaskStatus::Failed
            && *payload == task.payload
            && *attempts == task.attempts
            && Some(error) == task.error.as_ref()
            && *failed_at == task.updated_at)
}
