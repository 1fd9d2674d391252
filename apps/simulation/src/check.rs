//! The checker: it knows the promises, the ledger of the clients, and what took effect in the store. Nothing else.

use std::collections::BTreeMap;

use domain::Metrics;
use ports::{
    DeadLetter, Fence, Spent, Task, TaskEvent, TaskId, TaskResult, TaskStatus, Timestamp, Totals,
};

use crate::ledger::{Answer, Asked, Entries, Heard, Keyed, Ordered, Said, Told};
use crate::plan::{Order, ProbeLog};
use crate::record::{Claimed, Life, Moved, Records};
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
    /// A cancel or a retry wins or loses against whatever else moves the task, and its answer is the truth.
    Orders,
    /// Of all requests with one key the first is stored, and every one has its answer.
    Keys,
    /// Only what is at rest, announced and old is deleted, and then it is.
    Kept,
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
            Self::Orders => "an order wins or loses, never half",
            Self::Keys => "one key, one request",
            Self::Kept => "only what is old and at rest is pruned",
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

/// Longer than any run, in microseconds.
const LONGEST_RUN: i64 = 60_000_000;

/// How long after the death of their worker tasks may wait to be claimed by another, in microseconds.
const RESCUE_DELAY: i64 = 10_000_000;

const PLANTED_ATTEMPTS: u32 = 5;

/// Everything the checker looks at.
struct Evidence<'a> {
    /// Every task there is, and what was pruned as it last was.
    tasks: &'a [Task],
    /// When each was pruned.
    pruned_at: BTreeMap<TaskId, i64>,
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
    quiet_at: i64,
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
    let mut tasks = snapshot.tasks;
    let mut pruned_at = BTreeMap::new();
    for (task, at) in &records.pruned {
        tasks.push(task.clone());
        pruned_at.insert(task.id, *at);
    }
    let mut rubbish = Vec::new();
    for letter in world.log.dead_letters() {
        match letter {
            DeadLetter::Unreadable { reason, .. } => rubbish.push(reason),
            DeadLetter::Failed { id, .. } => letters.entry(id).or_default().push(letter),
        }
    }
    let mut evidence = Evidence {
        tasks: &tasks,
        pruned_at,
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
        quiet_at: world.quiet_at,
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
    evidence.check_keys();
    evidence.check_orders();
    evidence.check_planted();
    evidence.check_tasks();
    evidence.check_deaths();
    evidence.check_reads();
    evidence.check_rubbish();
    evidence.check_metrics(world.metrics);
    if !world.plan.has_brakes() {
        for bereaved in &world.bereaved {
            evidence.check_bereaved(bereaved);
        }
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
            let promise = if what.contains("pruning") {
                Promise::Kept
            } else if what.contains("transition") {
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
        for task in self.tasks {
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
        if self.has_brakes || self.found_by_chance(asked) {
            return;
        }
        let life = self.records.lives.get(&id);
        let Some(claimed) = life.and_then(|life| life.claims.first()) else {
            return;
        };
        if let Some(run_at) = asked.run_at {
            let waited = claimed.stamped.micros_since(run_at);
            self.expect(waited <= RUN_AT_DELAY, Promise::NobodyWaits, || {
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

    /// Whether a task that nobody was bound to find was found not long before this one was submitted: it may have the only place.
    fn found_by_chance(&self, asked: &Asked) -> bool {
        let mut strays = self.entries.planted.iter();
        let is_in_the_way = |claim: &Claimed| claim.at + LONGEST_RUN >= asked.told_at;
        !self.has_audit
            && strays.any(|stray| {
                let life = self.records.lives.get(&stray.id);
                !stray.has_message && life.is_some_and(|life| life.claims.iter().any(is_in_the_way))
            })
    }

    fn check_planted(&mut self) {
        for planted in &self.entries.planted {
            let task = self.tasks.iter().find(|task| task.id == planted.id);
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

    /// Under each key one body is stored at most, and whoever sent it was told so.
    fn check_keys(&mut self) {
        let (entries, tasks) = (self.entries, self.tasks);
        let mut keys: BTreeMap<usize, Vec<&Keyed>> = BTreeMap::new();
        for keyed in &entries.keyed {
            keys.entry(keyed.key).or_default().push(keyed);
        }
        for (key, bodies) in keys {
            let rows_of = |body: &&Keyed| rows_of(&entries.asked[body.asked.clone()], tasks);
            let stored: Vec<Vec<Option<&Task>>> = bodies.iter().map(rows_of).collect();
            let is_stored = |rows: &Vec<Option<&Task>>| rows.iter().any(Option::is_some);
            let count = stored.iter().filter(|rows| is_stored(rows)).count();
            self.expect(count <= 1, Promise::Keys, || {
                format!("under key {key} {count} different requests were stored")
            });
            for (body, rows) in bodies.into_iter().zip(&stored) {
                let is_first = is_stored(rows);
                for heard in &body.heard {
                    self.check_heard(body, heard, rows, count > usize::from(is_first));
                }
            }
        }
    }

    fn check_heard(
        &mut self,
        body: &Keyed,
        heard: &Heard,
        rows: &[Option<&Task>],
        is_another_stored: bool,
    ) {
        let asked = &self.entries.asked[body.asked.clone()];
        let (key, payload) = (body.key, &asked[0].payload);
        match heard {
            Heard::Accepted(accepted) => {
                let stored = rows.iter().flatten();
                let stored = stored.map(|task| (task.id, task.created_at));
                let told = accepted.iter();
                let told = told.map(|accepted| (accepted.id, accepted.created_at));
                let is_right = told.eq(stored) && accepted.len() == asked.len();
                self.expect(is_right, Promise::Keys, || {
                    format!(
                        "{payload} with key {key} was answered {accepted:?}, and {rows:?} is stored"
                    )
                });
            }
            Heard::Reused => self.expect(is_another_stored, Promise::Keys, || {
                format!(
                    "{payload} was told that key {key} was used for another request; none is stored"
                )
            }),
            Heard::Refused(reason) => {
                let is_load = reason.contains("too many") || reason.contains("no one");
                let is_poisoned = asked.iter().any(|asked| asked.is_poison);
                self.expect(is_poisoned || is_load, Promise::Limits, || {
                    format!("{payload} with key {key} was refused for another's data: {reason}")
                });
            }
            Heard::Nothing => {}
        }
    }

    // ---- what clients ordered ----

    fn check_orders(&mut self) {
        let (entries, records) = (self.entries, self.records);
        for ordered in &entries.orders {
            let life = records.lives.get(&ordered.id).cloned().unwrap_or_default();
            self.check_answer(ordered, &life);
        }
        for (id, life) in &records.lives {
            for moved in &life.moves {
                let order = if moved.to == TaskStatus::Cancelled {
                    Order::Cancel
                } else if moved.spent == Spent::Reset {
                    Order::Retry
                } else {
                    continue;
                };
                let mut orders = entries.orders.iter();
                let was_ordered = orders.any(|ordered| {
                    ordered.id == *id && ordered.order == order && ordered.began_at <= moved.at
                });
                self.expect(was_ordered, Promise::Orders, || {
                    format!("nobody ordered the {order:?} that moved {id}")
                });
            }
        }
    }

    fn check_answer(&mut self, ordered: &Ordered, life: &Life) {
        let Ordered {
            id,
            order,
            began_at,
            answer,
            must_be,
        } = *ordered;
        let pruned_at = self.pruned_at.get(&id).copied();
        let Some((answer, ended_at)) = answer else {
            self.expect(must_be.is_none(), Promise::Orders, || {
                format!("a client waits in vain for the answer to {order:?} {id}")
            });
            return;
        };
        let was_pruned = pruned_at.is_some_and(|at| at <= ended_at);
        if answer == Answer::Unknown {
            self.expect(was_pruned, Promise::Orders, || {
                format!("{order:?} {id} was answered that there is no such task")
            });
            return;
        }
        self.expect(
            must_be.is_none_or(|right| right == answer),
            Promise::Orders,
            || format!("{order:?} {id} was answered {answer:?} and not {must_be:?}"),
        );
        let moved_to = |status: TaskStatus, until: i64| {
            let mut moves = life.moves.iter();
            moves.any(|moved| moved.to == status && moved.at <= until)
        };
        let was_reset = life
            .moves
            .iter()
            .any(|moved| moved.spent == Spent::Reset && moved.at <= ended_at);
        // The answer is what the task was at some moment between the question and the answer.
        let is_true = match (order, answer) {
            (Order::Cancel, Answer::Obeyed) => {
                moved_to(TaskStatus::Cancelled, ended_at) && !moved_to(TaskStatus::Done, i64::MAX)
            }
            (Order::Retry, Answer::Obeyed) => was_reset,
            (Order::Cancel, Answer::Refused(status)) => {
                matches!(status, TaskStatus::Done | TaskStatus::Failed)
                    && moved_to(status, ended_at)
            }
            (Order::Retry, Answer::Refused(status)) => {
                let is_final = matches!(status, TaskStatus::Done | TaskStatus::Cancelled);
                status != TaskStatus::Failed && (!is_final || moved_to(status, ended_at))
            }
            (_, Answer::Unavailable | Answer::Unknown) => true,
        };
        self.expect(is_true, Promise::Orders, || {
            format!(
                "{order:?} {id} was answered {answer:?}, and it went {:?}",
                life.moves
            )
        });
        let was_over = [TaskStatus::Done, TaskStatus::Cancelled]
            .into_iter()
            .find(|status| moved_to(*status, began_at - 1));
        let is_refused = match (was_over, answer) {
            (None, _) | (_, Answer::Unavailable) => true,
            (Some(TaskStatus::Cancelled), Answer::Obeyed) => order == Order::Cancel,
            (Some(status), answer) => answer == Answer::Refused(status),
        };
        self.expect(is_refused, Promise::Orders, || {
            format!("{order:?} {id} was answered {answer:?} when it was {was_over:?}")
        });
    }

    // ---- what became of tasks ----

    fn check_tasks(&mut self) {
        for task in self.tasks {
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
        if task.status == TaskStatus::Cancelled {
            // Whether somebody ordered it is checked with the orders.
            return;
        }
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
        // Nothing leaves an outcome but a failed task that someone has tried again.
        let mut outcome = None;
        for moved in &life.moves {
            let may_move = match outcome {
                None => true,
                Some(outcome) => outcome == TaskStatus::Failed && moved.spent == Spent::Reset,
            };
            self.expect(may_move, Promise::OneTruth, || {
                format!("{payload} was {outcome:?} and moved to {}", moved.to)
            });
            outcome = moved.to.is_at_rest().then_some(moved.to);
        }
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
        // A retry begins the count anew.
        let resets = |moved: &Moved| moved.spent == Spent::Reset;
        let since = life.moves.iter().rposition(resets).unwrap_or(0);
        let count = |spent: Spent| {
            let moves = life.moves[since..].iter();
            let same = moves.filter(|moved| moved.spent == spent);
            u32::try_from(same.count()).unwrap_or(u32::MAX)
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
                Spent::Reset => ended = 0,
                Spent::Nothing => {}
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
        let has_letter = letters.iter().any(|letter| is_letter_of(letter, task));
        self.expect(
            !has_failed || has_letter || !is_settled,
            Promise::Announced,
            || format!("{payload} has failed and there is no dead letter of it"),
        );
        let is_of_a_rest = |letter: &&DeadLetter| {
            let mut rests = life.rests.iter();
            rests.any(|task| is_letter_of(letter, task))
        };
        let wrong = letters.iter().find(|letter| !is_of_a_rest(letter));
        self.expect(wrong.is_none(), Promise::Announced, || {
            format!("the dead letter {wrong:?} is not of {task:?}")
        });
        let events = self.events.remove(&task.id).unwrap_or_default();
        let is_told = events
            .iter()
            .any(|event| (event.status, event.fence) == (task.status, task.fence));
        let may_be_untold = !is_settled || self.need_not_be_told(task.id, life);
        self.expect(
            !task.status.is_at_rest() || is_told || may_be_untold,
            Promise::Announced,
            || format!("{payload} is {} and no event told so", task.status),
        );
        let is_a_rest = |event: &TaskEvent| {
            let mut rests = life.rests.iter();
            rests.any(|task| (task.status, task.fence) == (event.status, event.fence))
        };
        let wrong = events.iter().find(|event| {
            event.fence > task.fence || (event.status.is_at_rest() && !is_a_rest(event))
        });
        self.expect(wrong.is_none(), Promise::Announced, || {
            format!("the event {wrong:?} is not of {task:?}")
        });
    }

    /// That a waiting task was cancelled is told by the server that obeys the order, each time; no worker holds it. What that server
    /// could not tell, the audit does, where there is one and the task is not pruned before. Where there is none, it must have been
    /// told if such an order was given when nothing struck any more.
    fn need_not_be_told(&self, id: TaskId, life: &Life) -> bool {
        let was_waiting = life.moves.last().is_some_and(|moved| {
            moved.to == TaskStatus::Cancelled && moved.from == TaskStatus::Pending
        });
        let mut orders = self.entries.orders.iter();
        let was_told_in_calm = orders.any(|ordered| {
            ordered.id == id
                && ordered.order == Order::Cancel
                && ordered.began_at >= self.quiet_at
                && matches!(ordered.answer, Some((Answer::Obeyed, _)))
        });
        let is_audited = self.has_audit && !self.pruned_at.contains_key(&id);
        was_waiting && !is_audited && !(was_told_in_calm && self.probe_log == ProbeLog::Up)
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
        for task in self.tasks {
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
            let pruned_at = self.pruned_at.get(&id);
            let was_pruned = pruned_at.is_some_and(|at| *at <= read.ended_at);
            let is_gone = was_pruned && read.said == Said::Unknown;
            let is_done = matches!(read.said, Said::Done(_) | Said::Nothing);
            self.expect(
                !was_done || is_done || is_gone,
                Promise::OnlyDoneIsFinal,
                || format!("{id} was read as done and then as {:?}", read.said),
            );
            let was_told = told_at.get(&id).is_some_and(|at| *at <= read.began_at);
            self.expect(
                !(was_told && read.said == Said::Unknown) || is_gone,
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
        let done = self.tasks.iter();
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

/// What is stored of each of these submissions.
fn rows_of<'a>(asked: &[Asked], tasks: &'a [Task]) -> Vec<Option<&'a Task>> {
    let row = |asked: &Asked| {
        let mut tasks = tasks.iter();
        tasks.find(|task| task.payload.as_str() == asked.payload)
    };
    asked.iter().map(row).collect()
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
