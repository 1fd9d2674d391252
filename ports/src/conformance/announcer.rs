//! The suite of [`Announcer`](crate::Announcer).

use crate::announcer::DeadLetter;
use crate::feed::Position;
use crate::task::{TaskId, TaskResult};
use crate::time::Timestamp;

pub use super::log::Subject;
use super::log::{DeadLetterRecord, Given, bytes_of};
use super::{fresh_id, payload, priority};

/// Expands to a module of one test per promise of [`Announcer`](crate::Announcer).
///
/// `announcer_conformance!(#[attribute]… module_name, expression_of_a_fresh_subject)`; see
/// [`conformance`](crate::conformance). The subject is that of the log's suite.
#[macro_export]
macro_rules! announcer_conformance {
    ($(#[$attribute:meta])* $module:ident, $subject:expr $(,)?) => {
        $crate::__conformance_cases!(announcer, $module, [$(#[$attribute])*], $subject, [
            announce_sends_results_keyed_by_task_id,
            announce_answers_once_per_input,
            announce_may_be_repeated,
            announcements_at_once_lose_nothing,
            dead_letter_tells_of_failed_tasks,
            dead_letter_keeps_the_bytes_of_unreadable_records,
            empty_slices_announce_nothing,
        ]);
    };
}

/// Whole milliseconds: that is what the contract's records keep.
const MOMENT: Timestamp = Timestamp::from_micros(1_704_067_202_345_000);

fn result(text: &str) -> TaskResult {
    TaskResult {
        id: fresh_id(),
        result: text.into(),
        processed_at: MOMENT,
    }
}

fn results(count: usize) -> Vec<TaskResult> {
    std::iter::repeat_with(|| result("!dlrow olleH (len=12)"))
        .take(count)
        .collect()
}

async fn announced(subject: &dyn Subject, results: &[TaskResult]) {
    let outcomes = subject.announcer().announce(results).await;
    assert_eq!(outcomes.len(), results.len());
    for outcome in outcomes {
        outcome.expect("confirmed");
    }
}

/// What stands on `tasks-output`, in order of id.
async fn found(subject: &dyn Subject, at_least: usize) -> Vec<TaskResult> {
    let mut found = Vec::new();
    for record in subject.outputs(at_least).await {
        assert_eq!(record.key, Some(key_of(record.result.id)));
        found.push(record.result);
    }
    found.sort_by_key(|result| result.id);
    found
}

fn key_of(id: TaskId) -> Vec<u8> {
    id.to_string().into_bytes()
}

fn failed(id: TaskId, error: &str) -> DeadLetter {
    DeadLetter::Failed {
        id,
        payload: payload("Hello world!"),
        priority: priority(1),
        attempts: 3,
        error: error.to_owned(),
        failed_at: MOMENT,
    }
}

async fn buried(subject: &dyn Subject, letters: &[DeadLetter]) -> Vec<DeadLetterRecord> {
    let outcomes = subject.announcer().dead_letter(letters).await;
    assert_eq!(outcomes.len(), letters.len());
    for outcome in outcomes {
        outcome.expect("confirmed");
    }
    let records = subject.dead_letters(letters.len()).await;
    assert!(records.iter().all(|record| !record.reason.is_empty()));
    records
}

/// Sends results to `tasks-output`, keyed by task id, and waits until each is confirmed.
pub async fn announce_sends_results_keyed_by_task_id(subject: &dyn Subject) {
    let mut sent = [
        "!dlrow olleH (len=12)",
        "",
        "é👍🏽 (len=2) \"quoted\" \u{1} \n",
    ]
    .map(result);
    announced(subject, &sent).await;
    sent.sort_by_key(|result| result.id);
    assert_eq!(found(subject, 3).await, sent);
}

/// One outcome per input, in batches of any size.
pub async fn announce_answers_once_per_input(subject: &dyn Subject) {
    let mut sent = results(1_000);
    announced(subject, &sent).await;
    sent.sort_by_key(|result| result.id);
    assert_eq!(found(subject, 1_000).await, sent);
}

/// May announce a result more than once: repeating is allowed, and changes nothing in what is read.
pub async fn announce_may_be_repeated(subject: &dyn Subject) {
    let sent = results(1);
    for _ in 0..2 {
        announced(subject, &sent).await;
    }
    let mut records = found(subject, 2).await;
    records.dedup();
    assert_eq!(records, sent);
}

/// What was confirmed is there, whoever else announces.
pub async fn announcements_at_once_lose_nothing(subject: &dyn Subject) {
    let mut announcing = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let announcer = subject.announcer();
        announcing.spawn(async move {
            let sent = results(5);
            for outcome in announcer.announce(&sent).await {
                outcome.expect("confirmed");
            }
            sent
        });
    }
    let mut sent: Vec<TaskResult> = announcing.join_all().await.into_iter().flatten().collect();
    sent.sort_by_key(|result| result.id);
    assert_eq!(found(subject, 100).await, sent);
}

/// Tasks that ended `failed`: keyed by task id, with attempts and the last error.
pub async fn dead_letter_tells_of_failed_tasks(subject: &dyn Subject) {
    let ids = [fresh_id(), fresh_id()];
    let errors = ["it's \"broken\"", ""];
    let letters = [failed(ids[0], errors[0]), failed(ids[1], errors[1])];
    let records = buried(subject, &letters).await;
    assert_eq!(records.len(), 2);
    for (id, error) in ids.into_iter().zip(errors) {
        let record = records
            .iter()
            .find(|record| record.task == Some(id))
            .expect("the record is there");
        assert_eq!(record.key, Some(key_of(id)));
        assert_eq!(record.attempts, Some(3));
        assert_eq!(record.error.as_deref(), Some(error));
    }
}

/// Records that cannot be read: with the key and the value as received, whatever bytes they are.
pub async fn dead_letter_keeps_the_bytes_of_unreadable_records(subject: &dyn Subject) {
    let bytes: [(Given, Given); 4] = [
        (Some(b"key"), Some(b"not json")),
        (None, Some(b"\xff\xfe\x00\x80")),
        (Some(b"tombstone"), None),
        (None, Some(b"")),
    ];
    let owned = |bytes: Given| bytes.map(<[u8]>::to_vec);
    let letters: Vec<DeadLetter> = (0..)
        .zip(bytes)
        .map(|(offset, (key, value))| DeadLetter::Unreadable {
            reason: "not a task message".to_owned(),
            position: Position {
                partition: 0,
                offset,
            },
            key: owned(key),
            value: owned(value),
            failed_at: MOMENT,
        })
        .collect();
    let records = buried(subject, &letters).await;
    assert!(records.iter().all(|record| record.task.is_none()));
    let mut found: Vec<_> = records
        .iter()
        .map(|record| (bytes_of(&record.key), bytes_of(&record.value)))
        .collect();
    found.sort();
    let mut expected = bytes.map(|(key, value)| (bytes_of(&owned(key)), bytes_of(&owned(value))));
    expected.sort();
    assert_eq!(found, expected);
}

/// An empty slice has no outcome and leaves no record.
pub async fn empty_slices_announce_nothing(subject: &dyn Subject) {
    assert!(subject.announcer().announce(&[]).await.is_empty());
    assert!(subject.announcer().dead_letter(&[]).await.is_empty());
    assert!(subject.outputs(0).await.is_empty());
    assert!(subject.dead_letters(0).await.is_empty());
}
