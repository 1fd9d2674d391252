//! The suite of requests under keys, a part of [`TaskStore`](crate::TaskStore).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::store::{
    Fingerprint, Horizon, KeptRequest, KeyedRequest, RequestKey, StoreError, WriteOutcome,
};
use crate::task::{TaskId, TaskStatus};

pub use super::store::Subject;
use super::store::{inserted, living_worker, ticket_of};
use super::{fresh_uuid, ids_of, new_task, new_tasks};

/// Expands to a module of one test per promise of requests under keys.
///
/// `idempotency_conformance!(#[attribute]… module_name, expression_of_a_fresh_subject)`; see
/// [`conformance`](crate::conformance). The subject is that of the store's suite.
#[macro_export]
macro_rules! idempotency_conformance {
    ($(#[$attribute:meta])* $module:ident, $subject:expr $(,)?) => {
        $crate::__conformance_cases!(idempotency, $module, [$(#[$attribute])*], $subject, [
            insert_keyed_stores_the_tasks_of_a_new_key,
            insert_keyed_answers_what_is_kept,
            insert_keyed_folds_a_key_repeated_in_one_slice,
            insert_keyed_at_once_stores_each_key_once,
            insert_keyed_refuses_a_bad_value_with_its_whole_batch,
            insert_keyed_keeps_keys_apart,
            prune_keys_forgets_the_oldest_first_and_no_task,
        ]);
    };
}

const MOMENT: Duration = Duration::from_millis(2);

fn request(key: &str, asks: u8, count: usize) -> KeyedRequest {
    KeyedRequest {
        key: RequestKey::new("anonymous", "suite", key).expect("a valid key"),
        fingerprint: Fingerprint([asks; 32]),
        tasks: new_tasks(count),
    }
}

fn fresh_key() -> String {
    fresh_uuid().to_string()
}

async fn kept(subject: &dyn Subject, requests: &[KeyedRequest]) -> Vec<KeptRequest> {
    let kept = subject.store().insert_keyed(requests).await;
    let kept = kept.expect("insert under keys");
    assert_eq!(kept.len(), requests.len());
    kept
}

/// Which of these exist.
async fn existing(subject: &dyn Subject, ids: &[TaskId]) -> Vec<bool> {
    let found = subject.store().get(ids).await.expect("get");
    found.iter().map(Option::is_some).collect()
}

/// Stores the tasks of a request whose key is not kept, as `insert` does.
pub async fn insert_keyed_stores_the_tasks_of_a_new_key(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let requests = [request(&fresh_key(), 1, 3), request(&fresh_key(), 2, 1)];
    let outcomes = kept(subject, &requests).await;
    for (request, outcome) in requests.iter().zip(&outcomes) {
        let expected = KeptRequest {
            fingerprint: request.fingerprint,
            tasks: ids_of(&request.tasks),
            created_at: outcome.created_at,
        };
        assert_eq!(*outcome, expected);
        let found = subject.store().get(&outcome.tasks).await.expect("get");
        for (task, found) in request.tasks.iter().zip(found) {
            let found = found.expect("it is stored");
            assert_eq!(
                (&found.payload, found.status),
                (&task.payload, TaskStatus::Pending)
            );
            assert_eq!(found.created_at, outcome.created_at);
        }
    }
    subject.pass(MOMENT).await;
    let claimed = subject
        .store()
        .claim_aged(ticket_of(worker), Horizon::Now, Duration::ZERO, 100)
        .await;
    let claimed: BTreeSet<TaskId> = claimed
        .expect("claim by age")
        .iter()
        .map(|task| task.id)
        .collect();
    let stored = outcomes.iter().flat_map(|outcome| &outcome.tasks).copied();
    assert_eq!(claimed, stored.collect());
    assert_eq!(
        subject.store().insert_keyed(&[]).await.expect("nothing"),
        []
    );
}

/// A request whose key is kept stores nothing; the answer is what is kept, in input order, whatever this one asks for.
pub async fn insert_keyed_answers_what_is_kept(subject: &dyn Subject) {
    let (one, other) = (fresh_key(), fresh_key());
    let first = kept(subject, &[request(&one, 1, 2)]).await;
    subject.pass(MOMENT).await;
    let again = [
        request(&one, 1, 2),
        request(&other, 3, 1),
        request(&one, 2, 1),
    ];
    let outcomes = kept(subject, &again).await;
    assert_eq!((&outcomes[0], &outcomes[2]), (&first[0], &first[0]));
    assert_eq!(outcomes[1].tasks, ids_of(&again[1].tasks));
    assert!(outcomes[1].created_at > first[0].created_at);
    for (request, expected) in again.iter().zip([false, true, false]) {
        let stored = existing(subject, &ids_of(&request.tasks)).await;
        assert!(stored.iter().all(|found| *found == expected), "{stored:?}");
    }
    // The very same call, as after a lost answer.
    assert_eq!(kept(subject, &again).await, outcomes);
}

/// The same key twice in one slice: the first is stored.
pub async fn insert_keyed_folds_a_key_repeated_in_one_slice(subject: &dyn Subject) {
    let key = fresh_key();
    let requests = [
        request(&key, 1, 1),
        request(&fresh_key(), 1, 1),
        request(&key, 2, 1),
    ];
    let outcomes = kept(subject, &requests).await;
    assert_eq!(outcomes[0], outcomes[2]);
    assert_eq!(outcomes[0].fingerprint, requests[0].fingerprint);
    assert_eq!(existing(subject, &ids_of(&requests[0].tasks)).await, [true]);
    assert_eq!(
        existing(subject, &ids_of(&requests[2].tasks)).await,
        [false]
    );
}

/// Two callers at once with the same keys: one stores each, every one has its answer, and no order of keys makes them wait
/// for each other for ever.
pub async fn insert_keyed_at_once_stores_each_key_once(subject: &dyn Subject) {
    const CALLERS: usize = 8;
    let keys: Vec<String> = std::iter::repeat_with(fresh_key).take(20).collect();
    let mut asked = BTreeSet::new();
    for _ in 0..5 {
        let barrier = Arc::new(Barrier::new(CALLERS));
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let (store, barrier) = (subject.store(), Arc::clone(&barrier));
            let mut keys = keys.clone();
            if caller % 2 == 1 {
                keys.reverse();
            }
            let requests: Vec<KeyedRequest> = keys.iter().map(|key| request(key, 1, 1)).collect();
            asked.extend(requests.iter().flat_map(|request| ids_of(&request.tasks)));
            callers.spawn(async move {
                barrier.wait().await;
                let mut kept = store.insert_keyed(&requests).await.expect("insert");
                if caller % 2 == 1 {
                    kept.reverse();
                }
                kept
            });
        }
        let answers = callers.join_all().await;
        assert!(answers.iter().all(|answer| *answer == answers[0]));
    }
    let asked: Vec<TaskId> = asked.into_iter().collect();
    let stored = existing(subject, &asked).await;
    assert_eq!(stored.iter().filter(|found| **found).count(), keys.len());
}

/// All or nothing: with one bad value neither a task nor a key is stored.
pub async fn insert_keyed_refuses_a_bad_value_with_its_whole_batch(subject: &dyn Subject) {
    let mut requests = [request(&fresh_key(), 1, 1), request(&fresh_key(), 1, 1)];
    requests[1].tasks[0].max_attempts = u32::MAX;
    match subject.store().insert_keyed(&requests).await {
        // A store that can keep the value keeps it.
        Ok(_) => return,
        Err(StoreError::Rejected(_)) => {}
        Err(error) => panic!("{error:?}"),
    }
    let ids: Vec<TaskId> = requests
        .iter()
        .flat_map(|request| ids_of(&request.tasks))
        .collect();
    assert_eq!(existing(subject, &ids).await, [false, false]);
    requests[1].tasks[0].max_attempts = 5;
    let outcomes = kept(subject, &requests).await;
    assert_eq!(
        outcomes[0].tasks,
        ids_of(&requests[0].tasks),
        "the key was not kept"
    );
}

/// Keys of different owners or kinds have nothing to do with one another, nor with tasks stored without one.
pub async fn insert_keyed_keeps_keys_apart(subject: &dyn Subject) {
    let key = fresh_key();
    let plain = new_task();
    let mut requests = Vec::new();
    for (owner, kind) in [("one", "a"), ("one", "b"), ("other", "a")] {
        requests.push(KeyedRequest {
            key: RequestKey::new(owner, kind, &key).expect("valid"),
            ..request(&key, 1, 1)
        });
    }
    for outcome in inserted(subject, std::slice::from_ref(&plain)).await {
        assert_eq!(outcome.write, WriteOutcome::Applied);
    }
    let outcomes = kept(subject, &requests).await;
    for (request, outcome) in requests.iter().zip(outcomes) {
        assert_eq!(outcome.tasks, ids_of(&request.tasks));
    }
}

/// Forgets up to `limit` keys kept for longer than `age`, the oldest first; their tasks stay.
pub async fn prune_keys_forgets_the_oldest_first_and_no_task(subject: &dyn Subject) {
    const LONG: Duration = Duration::from_secs(3_600);
    let mut requests = Vec::new();
    for _ in 0..3 {
        requests.push(request(&fresh_key(), 1, 1));
        kept(subject, &requests[requests.len() - 1..]).await;
        subject.pass(MOMENT).await;
    }
    let store = subject.store();
    assert_eq!(store.prune_keys(LONG, 10).await.expect("prune"), 0);
    assert_eq!(store.prune_keys(Duration::ZERO, 1).await.expect("prune"), 1);
    let ids: Vec<TaskId> = requests
        .iter()
        .flat_map(|request| ids_of(&request.tasks))
        .collect();
    assert_eq!(existing(subject, &ids).await, [true; 3]);
    let again: Vec<KeyedRequest> = requests
        .iter()
        .map(|request| KeyedRequest {
            tasks: new_tasks(1),
            ..request.clone()
        })
        .collect();
    let outcomes = kept(subject, &again).await;
    assert_eq!(
        outcomes[0].tasks,
        ids_of(&again[0].tasks),
        "the oldest is forgotten"
    );
    assert_eq!([outcomes[1].tasks[0], outcomes[2].tasks[0]], ids[1..]);
    subject.pass(MOMENT).await;
    assert_eq!(
        store.prune_keys(Duration::ZERO, 10).await.expect("prune"),
        3
    );
}
