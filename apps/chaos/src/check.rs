//! The promises, held against everything that is known when a run has come to rest.
//!
//! The checker knows what clients were told, what the functions did, and what can be seen from outside: the rows, both topics,
//! the cache, `/metrics`. It knows nothing of how the system keeps its promises.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;
use uuid::Uuid;

use crate::database::Row;
use crate::history::Pages;
use crate::ledger::{Entry, Reads};
use crate::run_log::{Run, Runs};
use crate::script::{Script, TASK_TIMEOUT};

/// Everything that is known.
#[derive(Default)]
pub(crate) struct Facts {
    pub(crate) entries: Vec<Entry>,
    pub(crate) reads: Reads,
    pub(crate) rows: BTreeMap<Uuid, Row>,
    pub(crate) runs: Runs,
    /// The values of `tasks-output` by task.
    pub(crate) outputs: HashMap<Uuid, Vec<String>>,
    /// The values of `tasks-dead-letter`.
    pub(crate) letters: Vec<Value>,
    /// What is in the cache, by task.
    pub(crate) cached: HashMap<Uuid, String>,
    /// What each server answers on `/metrics`.
    pub(crate) metrics: Vec<(String, Value)>,
    /// Whether the shipped check of the database is content, and what it says.
    pub(crate) verified: (bool, String),
    pub(crate) history: Pages,
}

/// A promise that broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) promise: &'static str,
    pub(crate) what: String,
}

/// What the checker found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<Violation>,
    pub(crate) lost: BTreeSet<Uuid>,
    pub(crate) doubled: BTreeSet<Uuid>,
    /// Attempts that were counted and that no script asked for.
    pub(crate) burnt: u64,
    /// Successful runs whose result did not count, because the task was elsewhere by then.
    pub(crate) in_vain: u64,
    /// Records without a dead letter that were taken out of the log before they were acknowledged.
    pub(crate) unread: u64,
}

impl Verdict {
    fn broken(&mut self, promise: &'static str, what: String) {
        self.violations.push(Violation { promise, what });
    }

    fn lost(&mut self, id: Uuid, what: &str) {
        self.lost.insert(id);
        self.broken("accepted is never lost", format!("{id} {what}"));
    }

    fn doubled(&mut self, id: Uuid, what: &str) {
        self.doubled.insert(id);
        self.broken("one truth per task", format!("{id} {what}"));
    }
}

pub(crate) fn check(facts: &Facts) -> Verdict {
    let mut verdict = Verdict::default();
    for entry in &facts.entries {
        if let Some(id) = entry.accepted()
            && !facts.rows.contains_key(&id)
        {
            verdict.lost(id, "was accepted and has no row");
        }
    }
    one_row_for_a_request(facts, &mut verdict);
    let letters = letters_by_task(facts);
    for (id, row) in &facts.rows {
        let Some(script) = Script::parse(&row.payload) else {
            verdict.broken(
                "accepted is never lost",
                format!("{id} has a strange payload"),
            );
            continue;
        };
        let runs = facts.runs.get(id).map_or(&[][..], Vec::as_slice);
        let outputs = facts.outputs.get(id).map_or(&[][..], Vec::as_slice);
        let letters = letters.get(id).map_or(&[][..], Vec::as_slice);
        let cached = facts.cached.get(id);
        check_runs(*id, row, &script, runs, &mut verdict);
        match row.status.as_str() {
            "done" => check_done(*id, row, &script, runs, outputs, cached, &mut verdict),
            "failed" => check_failed(*id, row, &script, letters, &mut verdict),
            other => verdict.lost(*id, &format!("does not come to rest, it is {other}")),
        }
        if row.status != "done" && (!outputs.is_empty() || cached.is_some()) {
            verdict.broken(
                "only done is final for ever",
                format!("{id} is {} and was announced as done", row.status),
            );
        }
        if row.status != "failed" && !letters.is_empty() {
            verdict.broken(
                "every outcome is announced",
                format!("{id} is {} and has a dead letter", row.status),
            );
        }
        verdict.burnt += u64::from(row.attempts.saturating_sub(script.attempts()));
    }
    for id in facts.outputs.keys().chain(facts.cached.keys()) {
        if !facts.rows.contains_key(id) {
            verdict.lost(*id, "was announced as done and has no row");
        }
    }
    check_rubbish(facts, &mut verdict);
    check_metrics(facts, &mut verdict);
    if !facts.verified.0 {
        verdict.broken(
            "everything unfinished is findable",
            format!("verify: {}", facts.verified.1),
        );
    }
    for wrong in &facts.reads.wrong {
        verdict.broken("only done is final for ever", wrong.clone());
    }
    for entry in &facts.entries {
        if let crate::ledger::Outcome::Failed(reason) = &entry.outcome
            && must_not_be_answered(reason)
        {
            verdict.broken(
                "everything has a limit",
                format!("a POST was answered {reason}"),
            );
        }
    }
    for surprise in &facts.history.surprises {
        verdict.broken("stopping, starting and resting", surprise.clone());
    }
    verdict
}

/// A valid request may be refused for lack of room or of a database, for no other reason.
fn must_not_be_answered(reason: &str) -> bool {
    let status = reason.split(' ').next().unwrap_or("");
    status.len() == 3
        && status.bytes().all(|byte| byte.is_ascii_digit())
        && !matches!(status, "503" | "429")
}

fn one_row_for_a_request(facts: &Facts, verdict: &mut Verdict) {
    let mut first = HashMap::new();
    for (id, row) in &facts.rows {
        if let Some(other) = first.insert(row.payload.as_str(), *id) {
            verdict.doubled(*id, &format!("and {other} are of one request"));
        }
    }
}

fn letters_by_task(facts: &Facts) -> HashMap<Uuid, Vec<&Value>> {
    let mut by_task: HashMap<Uuid, Vec<&Value>> = HashMap::new();
    for letter in &facts.letters {
        if let Some(id) = letter["taskId"].as_str().and_then(|id| id.parse().ok()) {
            by_task.entry(id).or_default().push(letter);
        }
    }
    by_task
}

/// A fence is given once, so no two runs have the same, and none has one that the task never had. None begins before its time.
/// An attempt that was to overrun its deadline was spent by a run that did, and by no fault.
fn check_runs(id: Uuid, row: &Row, script: &Script, runs: &[Run], verdict: &mut Verdict) {
    for pair in runs.windows(2) {
        if pair[0].fence == pair[1].fence {
            verdict.doubled(id, &format!("has two runs under fence {}", pair[0].fence));
        }
    }
    if let Some(last) = runs.last()
        && last.fence >= row.fence
    {
        verdict.doubled(
            id,
            &format!(
                "ran under fence {} and rests under {}",
                last.fence, row.fence
            ),
        );
    }
    if let Some(run_at) = script.run_at {
        for early in runs.iter().filter(|run| run.began < run_at) {
            verdict.broken(
                "not before its runAt",
                format!("{id} ran {} µs too early", run_at - early.began),
            );
        }
    }
    let overran = |run: &Run| run.attempt == 1 && run.given_up_after(TASK_TIMEOUT).is_some();
    if script.overruns && row.attempts > 0 && !runs.iter().any(overran) {
        verdict.broken(
            "failures differ",
            format!("{id} spent its first attempt, and no run of it lasted until its deadline"),
        );
    }
}

fn check_done(
    id: Uuid,
    row: &Row,
    script: &Script,
    runs: &[Run],
    outputs: &[String],
    cached: Option<&String>,
    verdict: &mut Verdict,
) {
    if !script.succeeds() {
        verdict.broken("failures differ", format!("{id} is done and cannot be"));
        return;
    }
    // The move to done raised the fence by one, so the run that counts is the one under the fence before.
    let counts = row.fence - 1;
    let right = script.result(row.attempts, counts);
    if row.result.as_deref() != Some(right.as_str()) {
        let found = row.result.as_deref().unwrap_or("no result");
        verdict.doubled(id, &format!("has {found:?} and must have {right:?}"));
    }
    let ended_well = |run: &&Run| run.ended.as_ref().is_some_and(|(_, how)| how == "success");
    let succeeded: Vec<&Run> = runs.iter().filter(ended_well).collect();
    if !succeeded.iter().any(|run| run.fence == counts) {
        verdict.doubled(id, &format!("is done without a run under fence {counts}"));
    }
    verdict.in_vain += succeeded.len().saturating_sub(1) as u64;
    if row.attempts != script.attempts() {
        verdict.broken(
            "failures differ",
            format!(
                "{id} took {} attempts instead of {}",
                row.attempts,
                script.attempts()
            ),
        );
    }
    let announced = |text: &str| {
        serde_json::from_str(text).is_ok_and(|value: Value| {
            value["taskId"] == id.to_string()
                && value["result"] == right
                && value["processedAt"] == row.processed_at
        })
    };
    if outputs.is_empty() {
        verdict.broken(
            "every outcome is announced",
            format!("{id} is done and not on tasks-output"),
        );
    }
    for output in outputs {
        if !announced(output) {
            verdict.doubled(id, &format!("was announced as {output}"));
        }
    }
    if let Some(cached) = cached
        && !announced(cached)
    {
        verdict.doubled(id, &format!("is cached as {cached}"));
    }
}

fn check_failed(id: Uuid, row: &Row, script: &Script, letters: &[&Value], verdict: &mut Verdict) {
    if script.succeeds() {
        let error = row.error.as_deref().unwrap_or("");
        verdict.broken(
            "failures differ",
            format!("{id} failed and should not have: {error}"),
        );
    } else if row.attempts != script.attempts() {
        verdict.broken(
            "failures differ",
            format!(
                "{id} failed after {} attempts instead of {}",
                row.attempts,
                script.attempts()
            ),
        );
    }
    if letters.is_empty() {
        verdict.broken(
            "every outcome is announced",
            format!("{id} failed and has no dead letter"),
        );
    }
}

fn check_rubbish(facts: &Facts, verdict: &mut Verdict) {
    let found: BTreeSet<&str> = facts
        .letters
        .iter()
        .filter_map(|letter| letter["value"].as_str())
        .collect();
    for rubbish in &facts.history.rubbish {
        if found.contains(rubbish.value.as_str()) {
            continue;
        }
        if facts.history.is_gone(rubbish) {
            verdict.unread += 1;
        } else {
            verdict.broken(
                "every outcome is announced",
                format!("{} cannot be read and has no dead letter", rubbish.value),
            );
        }
    }
}

fn check_metrics(facts: &Facts, verdict: &mut Verdict) {
    let done: Vec<&Row> = facts
        .rows
        .values()
        .filter(|row| row.status == "done")
        .collect();
    let sum: i128 = done
        .iter()
        .map(|row| i128::from(row.updated_at - row.created_at))
        .sum();
    let count = done.len() as i128;
    // Rounded half up, from microseconds to milliseconds.
    let mean = (count > 0).then(|| (sum + count * 500).div_euclid(count * 1_000));
    for (server, answer) in &facts.metrics {
        let total = answer["totalTasks"].as_i64().map(i128::from);
        let average = answer["averageProcessingTimeMs"].as_i64().map(i128::from);
        if total != Some(count) || average != mean {
            verdict.broken(
                "the metrics are exact",
                format!("{server} says {answer}; the table has {count} done, mean {mean:?} ms"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::history::Rubbish;
    use crate::ledger::Outcome;
    use crate::script::End;
    use crate::topics::{Gone, Place};

    const ID: Uuid = Uuid::from_u128(1);
    const PROCESSED_AT: &str = "2025-01-01T00:00:00.250Z";

    fn script(end: End) -> Script {
        Script {
            number: 0,
            sleep: Duration::ZERO,
            failures: 0,
            end,
            needs: false,
            overruns: false,
            run_at: None,
        }
    }

    fn output(fence: i64) -> String {
        let result = script(End::Success).result(1, fence);
        json!({"taskId": ID.to_string(), "result": result, "processedAt": PROCESSED_AT}).to_string()
    }

    fn run(fence: i64, ended: Option<&str>) -> Run {
        Run {
            process: "worker-0.1".into(),
            fence,
            attempt: 1,
            began: fence,
            ended: ended.map(|how| (fence + 1, how.to_owned())),
        }
    }

    /// A task that was run twice, because its first worker was killed, and done once.
    fn healthy() -> Facts {
        let script = script(End::Success);
        let row = Row {
            payload: script.to_string(),
            status: "done".into(),
            result: Some(script.result(1, 3)),
            error: None,
            fence: 4,
            attempts: 1,
            rescues: 1,
            created_at: 0,
            updated_at: 250_000,
            processed_at: PROCESSED_AT.into(),
        };
        Facts {
            entries: vec![Entry {
                script,
                server: 0,
                sent_at: 0,
                answered_at: 1,
                outcome: Outcome::Accepted(ID),
            }],
            rows: BTreeMap::from([(ID, row)]),
            runs: BTreeMap::from([(ID, vec![run(1, None), run(3, Some("success"))])]),
            outputs: HashMap::from([(ID, vec![output(3), output(3)])]),
            cached: HashMap::from([(ID, output(3))]),
            metrics: vec![(
                "server-0".into(),
                json!({"totalTasks": 1, "averageProcessingTimeMs": 250}),
            )],
            verified: (true, String::new()),
            ..Facts::default()
        }
    }

    /// A task that was given a time, and whose first attempt overran its deadline.
    fn later() -> Facts {
        let mut facts = healthy();
        let script = Script {
            overruns: true,
            run_at: Some(1_000_000),
            ..script(End::Success)
        };
        let result = script.result(2, 3);
        let announced =
            json!({"taskId": ID.to_string(), "result": result, "processedAt": PROCESSED_AT})
                .to_string();
        facts.entries[0].script = script.clone();
        *row(&mut facts) = Row {
            payload: script.to_string(),
            result: Some(result),
            attempts: 2,
            ..row(&mut facts).clone()
        };
        let deadline = i64::try_from(TASK_TIMEOUT.as_micros()).expect("it fits");
        let overran = Run {
            began: 1_000_000,
            ended: Some((1_000_000 + deadline, "given-up".to_owned())),
            ..run(1, None)
        };
        let done = Run {
            attempt: 2,
            began: 20_000_000,
            ..run(3, Some("success"))
        };
        facts.runs.insert(ID, vec![overran, done]);
        facts.outputs.insert(ID, vec![announced.clone()]);
        facts.cached.insert(ID, announced);
        facts
    }

    fn row(facts: &mut Facts) -> &mut Row {
        facts.rows.get_mut(&ID).expect("it is there")
    }

    /// A task that failed, as it should.
    fn failed() -> Facts {
        let mut facts = healthy();
        let failing = script(End::Permanent);
        facts.entries[0].script = failing.clone();
        *row(&mut facts) = Row {
            payload: failing.to_string(),
            status: "failed".into(),
            result: None,
            error: Some("x".into()),
            ..row(&mut facts).clone()
        };
        facts.runs.insert(ID, vec![run(3, Some("permanent"))]);
        facts.outputs.clear();
        facts.cached.clear();
        facts.letters = vec![json!({"taskId": ID.to_string(), "value": "x"})];
        facts.metrics = vec![(
            "server-0".into(),
            json!({"totalTasks": 0, "averageProcessingTimeMs": null}),
        )];
        facts
    }

    fn rubbish() -> Rubbish {
        Rubbish {
            value: "rubbish".into(),
            port: 1,
            confirmed_at: 5,
            place: Place {
                partition: 0,
                offset: 7,
            },
        }
    }

    #[test]
    fn only_rubbish_that_was_taken_away_unread_needs_no_letter() {
        let gone_to = |to| {
            let mut facts = healthy();
            facts.history.rubbish.push(rubbish());
            facts.history.gone.push(Gone {
                port: 1,
                at: 9,
                partition: 0,
                from: 7,
                to,
                anew: false,
            });
            let verdict = check(&facts);
            (verdict.unread, verdict.violations.len())
        };
        assert_eq!(gone_to(8), (1, 0));
        assert_eq!(gone_to(7), (0, 1), "it was not");
    }

    /// The promise that is found broken when `spoil` has been at the facts.
    fn found(mut facts: Facts, spoil: impl FnOnce(&mut Facts)) -> Vec<&'static str> {
        spoil(&mut facts);
        let verdict = check(&facts);
        verdict
            .violations
            .iter()
            .map(|violation| violation.promise)
            .collect()
    }

    #[test]
    fn what_is_as_promised_is_not_objected_to() {
        assert_eq!(check(&healthy()).violations, []);
        assert_eq!(check(&failed()).violations, []);
        assert_eq!(check(&later()).violations, []);
        assert_eq!(check(&later()).burnt, 0, "the overrun asked for it");
    }

    #[test]
    fn every_broken_promise_is_found() {
        const LOST: &str = "accepted is never lost";
        const TRUTH: &str = "one truth per task";
        const TOLD: &str = "every outcome is announced";
        const FAILURES: &str = "failures differ";
        type Spoil = fn(&mut Facts);
        let cases: [(&str, &'static str, Spoil); 16] = [
            ("the row is gone", LOST, |facts| {
                facts.rows.clear();
                facts.metrics.clear();
            }),
            ("it never comes to rest", LOST, |facts| {
                row(facts).status = "pending".into();
            }),
            ("the result is of another run", TRUTH, |facts| {
                row(facts).result = Some(script(End::Success).result(1, 1));
            }),
            ("a late result was announced", TRUTH, |facts| {
                facts.outputs.insert(ID, vec![output(3), output(1)]);
            }),
            ("a late result is cached", TRUTH, |facts| {
                facts.cached.insert(ID, output(1));
            }),
            ("two runs under one fence", TRUTH, |facts| {
                facts
                    .runs
                    .insert(ID, vec![run(3, Some("success")), run(3, None)]);
            }),
            ("a run under a fence not given", TRUTH, |facts| {
                facts
                    .runs
                    .insert(ID, vec![run(3, Some("success")), run(4, None)]);
            }),
            ("nobody ran it", TRUTH, |facts| facts.runs.clear()),
            ("one request, two tasks", TRUTH, |facts| {
                let twin = Uuid::from_u128(2);
                let other = row(facts).clone();
                facts.rows.insert(twin, other);
            }),
            ("it was not announced", TOLD, |facts| facts.outputs.clear()),
            ("an attempt was burnt", FAILURES, |facts| {
                row(facts).attempts = 2;
            }),
            (
                "the metrics count it twice",
                "the metrics are exact",
                |facts| {
                    facts.metrics[0].1 = json!({"totalTasks": 2, "averageProcessingTimeMs": 250});
                },
            ),
            ("the mean is wrong", "the metrics are exact", |facts| {
                facts.metrics[0].1 = json!({"totalTasks": 1, "averageProcessingTimeMs": 251});
            }),
            (
                "verify objects",
                "everything unfinished is findable",
                |facts| facts.verified.0 = false,
            ),
            ("a 500", "everything has a limit", |facts| {
                facts.entries[0].outcome = Outcome::Failed("500 Internal".into());
            }),
            ("rubbish without a letter", TOLD, |facts| {
                facts.history.rubbish.push(rubbish());
            }),
        ];
        for (name, promise, spoil) in cases {
            let found = found(healthy(), spoil);
            assert!(found.contains(&promise), "{name}: {found:?}");
        }
    }

    #[test]
    fn a_failed_task_is_held_to_its_promises_too() {
        type Spoil = fn(&mut Facts);
        let cases: [(&str, &'static str, Spoil); 3] = [
            (
                "it has no dead letter",
                "every outcome is announced",
                |facts| facts.letters.clear(),
            ),
            (
                "it was announced as done",
                "only done is final for ever",
                |facts| drop(facts.cached.insert(ID, output(3))),
            ),
            ("it should not have failed", "failures differ", |facts| {
                row(facts).payload = script(End::Success).to_string();
            }),
        ];
        for (name, promise, spoil) in cases {
            let found = found(failed(), spoil);
            assert!(found.contains(&promise), "{name}: {found:?}");
        }
    }

    #[test]
    fn a_task_with_a_time_and_a_deadline_is_held_to_them() {
        fn run_of(facts: &mut Facts, number: usize) -> &mut Run {
            &mut facts.runs.get_mut(&ID).expect("it ran")[number]
        }
        type Spoil = fn(&mut Facts);
        let cases: [(&str, &'static str, Spoil); 5] = [
            (
                "it ran a microsecond too early",
                "not before its runAt",
                |facts| run_of(facts, 0).began -= 1,
            ),
            (
                "a later run was too early",
                "not before its runAt",
                |facts| run_of(facts, 1).began = 999_999,
            ),
            ("nobody ended it", "failures differ", |facts| {
                run_of(facts, 0).ended = Some((31_000_000, "success".to_owned()));
            }),
            ("it was given up early", "failures differ", |facts| {
                run_of(facts, 0).ended = Some((4_000_000, "given-up".to_owned()));
            }),
            (
                "its attempt was spent by a kill",
                "failures differ",
                |facts| {
                    run_of(facts, 0).ended = None;
                },
            ),
        ];
        for (name, promise, spoil) in cases {
            let found = found(later(), spoil);
            assert!(found.contains(&promise), "{name}: {found:?}");
        }
        let mut burnt = later();
        row(&mut burnt).attempts = 3;
        assert_eq!(check(&burnt).burnt, 1);
    }

    #[test]
    fn lost_and_doubled_are_counted() {
        let mut facts = healthy();
        facts.rows.clear();
        assert_eq!(check(&facts).lost.len(), 1);
        let mut facts = healthy();
        facts.outputs.insert(ID, vec![output(3), output(1)]);
        assert_eq!(check(&facts).doubled.len(), 1);
    }
}
