//! The suite of [`TaskStore`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::audit::TaskAudit;
use crate::catalog::TaskCatalog;
use crate::ids::{ClaimId, WorkerId};
use crate::registry::WorkerRegistry;
use crate::store::{
    ClaimError, ClaimRecord, ClaimTicket, ClaimedTask, DeliveryOutcome, Horizon, InsertOutcome,
    Next, Spent, StoreError, TaskStore, Totals, Transition, TransitionOutcome, WriteOutcome,
};
use crate::task::{Fence, NewTask, Task, TaskId, TaskStatus};
use crate::time::Timestamp;

use super::{fresh_id, fresh_uuid, ids_of, new_task, new_tasks, payload, priority};

/// A fresh, empty store with the registry and the audit that share it, and the hand that writes in it behind their backs.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    /// The store.
    fn store(&self) -> Arc<dyn TaskStore>;

    /// The registry in the same store.
    fn registry(&self) -> Arc<dyn WorkerRegistry>;

    /// The audit of the same store.
    fn audit(&self) -> Arc<dyn TaskAudit>;

    /// The catalog of the same store.
    fn catalog(&self) -> Arc<dyn TaskCatalog>;

    /// Lets at least this much time pass on the store's clock: a manual clock is advanced, otherwise this sleeps.
    async fn pass(&self, time: Duration);

    /// Writes rows as another program does: `pending`, this payload, priority 0, fence 0, created now, no queue row.
    async fn plant(&self, ids: &[TaskId], payload: &str);

    /// Writes a queue row, due now and not messaged, whether or not there is such a task. None is there.
    async fn plant_queue_row(&self, id: TaskId);

    /// Deletes the queue row of a task.
    async fn remove_queue_row(&self, id: TaskId);

    /// Writes a claim, whether or not there are such a worker and such tasks.
    async fn plant_claim(&self, claim: &ClaimRecord);

    /// Lists a task as failed, or as cancelled, whether or not there is such a task. It is not listed as that.
    async fn plant_stopped(&self, id: TaskId, cancelled: bool);

    /// Takes a task out of the list of the failed and cancelled.
    async fn remove_stopped(&self, id: TaskId);

    /// Gives back what the subject holds (a database of its own, for example). Called after the case, failed or not.
    async fn close(&self) {}
}

/// Expands to a module of one test per promise of [`TaskStore`].
///
/// `store_conformance!(#[attribute]… module_name, expression_of_a_fresh_subject)`; see [`conformance`](crate::conformance).
#[macro_export]
macro_rules! store_conformance {
    ($(#[$attribute:meta])* $module:ident, $subject:expr $(,)?) => {
        $crate::__conformance_cases!(store, $module, [$(#[$attribute])*], $subject, [
            insert_stores_pending_tasks_as_given,
            insert_gives_each_task_a_queue_row,
            insert_is_idempotent_by_id,
            insert_leaves_a_task_that_moved_on_alone,
            insert_stores_an_id_repeated_in_one_slice_once,
            insert_answers_in_input_order,
            insert_refuses_a_bad_value_with_its_whole_batch,
            inserts_of_the_same_ids_at_once_store_each_once,
            get_answers_in_input_order_with_none_for_unknown,
            get_is_as_new_as_every_acknowledged_write,
            whereabouts_follow_a_task,
            empty_slices_are_answered_without_asking,
            a_thousand_tasks_go_through_in_one_batch,
            times_keep_their_microseconds,
            claim_delivered_moves_pending_to_processing,
            claim_delivered_says_what_became_of_each_id,
            claim_delivered_accepts_rows_of_another_program,
            claim_delivered_repeated_returns_the_same_tasks,
            claim_delivered_repeated_claims_nothing_more,
            claim_delivered_repeated_leaves_out_what_moved_on,
            a_claim_that_would_hold_nothing_is_not_recorded,
            claims_are_refused_to_an_unknown_or_dead_worker,
            two_workers_claiming_the_same_ids_at_once_get_each_once,
            claim_aged_takes_what_is_due_only,
            claim_aged_takes_the_oldest_first,
            claim_aged_gives_messaged_tasks_a_grace,
            claim_aged_keeps_to_its_horizon,
            claim_aged_keeps_to_its_limit,
            claim_aged_passes_over_rows_without_a_queue_row,
            claim_aged_repeated_returns_the_same_tasks,
            workers_claiming_by_age_at_once_get_each_once,
            claims_by_delivery_and_by_age_at_once_get_each_once,
            mark_unmessaged_ends_the_grace,
            transition_to_done_keeps_the_result,
            transition_to_failed_keeps_the_error,
            transition_to_cancelled_takes_the_task_out_of_the_queue,
            transition_to_pending_writes_a_queue_row,
            transition_to_pending_waits_for_its_delay,
            transition_counts_what_was_spent,
            transition_raises_the_fence_by_one,
            transition_repeated_reports_already_applied,
            transition_under_another_fence_or_status_is_stale,
            transition_to_something_else_after_the_fact_is_stale,
            transition_answers_in_input_order,
            transition_refuses_nul_with_its_whole_batch,
            two_transitions_of_one_id_in_one_slice_move_it_once,
            of_competing_transitions_exactly_one_is_applied,
            totals_are_exact_under_200_transitions_at_once,
            totals_sum_the_time_from_created_to_done,
            release_forgets_claims,
            claims_of_lists_in_order_of_ids_from_where_it_is_told,
            dropped_futures_leave_no_half_write,
            ping_answers,
        ]);
    };
}

/// Longer than any step between two calls of a case, shorter than a test would like to wait.
const MOMENT: Duration = Duration::from_millis(2);
/// So long that no case sees its end.
const LONG: Duration = Duration::from_secs(3_600);

/// Registers a worker.
pub(super) async fn living_worker(subject: &dyn Subject) -> WorkerId {
    let worker = WorkerId(fresh_uuid());
    let registry = subject.registry();
    registry.register(worker, "host:1").await.expect("register");
    worker
}

pub(super) fn ticket_of(worker: WorkerId) -> ClaimTicket {
    ClaimTicket {
        claim: ClaimId(fresh_uuid()),
        worker,
    }
}

pub(super) async fn inserted(subject: &dyn Subject, tasks: &[NewTask]) -> Vec<InsertOutcome> {
    let outcomes = subject.store().insert(tasks).await.expect("insert");
    assert_eq!(outcomes.len(), tasks.len());
    outcomes
}

/// Inserts this many tasks and claims them.
async fn in_hand(subject: &dyn Subject, worker: WorkerId, count: usize) -> Vec<ClaimedTask> {
    let tasks = new_tasks(count);
    inserted(subject, &tasks).await;
    claimed(subject, ticket_of(worker), &ids_of(&tasks)).await
}

/// Claims ids that are all claimable.
async fn claimed(subject: &dyn Subject, ticket: ClaimTicket, ids: &[TaskId]) -> Vec<ClaimedTask> {
    let outcomes = subject.store().claim_delivered(ticket, ids).await;
    let outcomes = outcomes.expect("claim");
    assert_eq!(outcomes.len(), ids.len());
    let tasks: Vec<ClaimedTask> = outcomes.into_iter().map(expect_claimed).collect();
    assert_eq!(tasks.iter().map(|task| task.id).collect::<Vec<_>>(), ids);
    tasks
}

fn expect_claimed(outcome: DeliveryOutcome) -> ClaimedTask {
    match outcome {
        DeliveryOutcome::Claimed(task) => task,
        other => panic!("expected a claimed task and not {other:?}"),
    }
}

async fn aged(
    subject: &dyn Subject,
    worker: WorkerId,
    horizon: Horizon,
    grace: Duration,
) -> BTreeSet<TaskId> {
    let claimed = subject
        .store()
        .claim_aged(ticket_of(worker), horizon, grace, 1_000)
        .await;
    claimed
        .expect("claim by age")
        .iter()
        .map(|task| task.id)
        .collect()
}

async fn task_of(subject: &dyn Subject, id: TaskId) -> Task {
    let mut found = subject.store().get(&[id]).await.expect("get");
    assert_eq!(found.len(), 1);
    found.pop().flatten().expect("the task exists")
}

async fn moved(subject: &dyn Subject, transitions: &[Transition]) -> Vec<TransitionOutcome> {
    let outcomes = subject
        .store()
        .transition(transitions)
        .await
        .expect("transition");
    assert_eq!(outcomes.len(), transitions.len());
    outcomes
}

async fn moved_one(subject: &dyn Subject, transition: &Transition) -> TransitionOutcome {
    moved(subject, std::slice::from_ref(transition)).await[0]
}

fn settle(task: &ClaimedTask, to: Next) -> Transition {
    Transition {
        id: task.id,
        fence: task.fence,
        from: TaskStatus::Processing,
        to,
        spent: Spent::Attempt,
    }
}

fn done(task: &ClaimedTask) -> Transition {
    settle(
        task,
        Next::Done {
            result: format!("result of {}", task.id),
        },
    )
}

fn again(delay: Duration) -> Next {
    Next::Pending { delay, error: None }
}

fn writes(outcomes: &[TransitionOutcome]) -> Vec<WriteOutcome> {
    outcomes.iter().map(|outcome| outcome.write).collect()
}

/// Stores tasks as `pending` with fence 0, everything as given.
pub async fn insert_stores_pending_tasks_as_given(subject: &dyn Subject) {
    let texts = [
        "",
        "Hello world!",
        "👍🏽é\u{1}\u{7f}",
        "'; drop table tasks; --",
        "line\r\nline\t\\N {}",
    ];
    let mut tasks: Vec<NewTask> = (0..=10)
        .map(|value| NewTask {
            priority: priority(value),
            max_attempts: u32::try_from(value).expect("small") + 1,
            ..new_task()
        })
        .collect();
    tasks.extend(texts.map(|text| NewTask {
        payload: payload(text),
        ..new_task()
    }));
    tasks.push(NewTask {
        payload: payload(&"ж".repeat(100_000)),
        ..new_task()
    });
    tasks.push(NewTask {
        messaged: true,
        ..new_task()
    });
    let outcomes = inserted(subject, &tasks).await;
    let found = subject.store().get(&ids_of(&tasks)).await.expect("get");
    for ((task, outcome), found) in tasks.iter().zip(outcomes).zip(found) {
        assert_eq!(outcome.write, WriteOutcome::Applied);
        let expected = Task {
            id: task.id,
            payload: task.payload.clone(),
            priority: task.priority,
            status: TaskStatus::Pending,
            result: None,
            error: None,
            attempts: 0,
            max_attempts: task.max_attempts,
            rescues: 0,
            fence: Fence(0),
            created_at: outcome.created_at,
            updated_at: outcome.created_at,
        };
        assert_eq!(found, Some(expected));
    }
}

/// … each with its queue row.
pub async fn insert_gives_each_task_a_queue_row(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let tasks = new_tasks(3);
    inserted(subject, &tasks).await;
    subject.pass(MOMENT).await;
    // Claiming by age sees nothing but the queue.
    let found = aged(subject, worker, Horizon::Now, LONG).await;
    assert_eq!(found, ids_of(&tasks).into_iter().collect());
}

/// Idempotent by id: an id that exists is left untouched and reported `AlreadyApplied` with the existing row's
/// `created_at`.
pub async fn insert_is_idempotent_by_id(subject: &dyn Subject) {
    let tasks = new_tasks(3);
    let first = inserted(subject, &tasks).await;
    subject.pass(MOMENT).await;
    let changed: Vec<NewTask> = tasks
        .iter()
        .map(|task| NewTask {
            payload: payload("something else"),
            priority: priority(9),
            max_attempts: 1,
            ..task.clone()
        })
        .collect();
    for repeated in [&tasks, &changed] {
        let outcomes = inserted(subject, repeated).await;
        for (one, two) in first.iter().zip(&outcomes) {
            assert_eq!(one.write, WriteOutcome::Applied);
            assert_eq!(two.write, WriteOutcome::AlreadyApplied);
            assert_eq!(one.created_at, two.created_at);
        }
    }
    for task in &tasks {
        let kept = task_of(subject, task.id).await;
        assert_eq!(
            (kept.payload, kept.priority, kept.max_attempts),
            (task.payload.clone(), task.priority, task.max_attempts)
        );
    }
}

/// An id that exists is left untouched, wherever the task went since: it is not queued again.
pub async fn insert_leaves_a_task_that_moved_on_alone(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let tasks = new_tasks(2);
    inserted(subject, &tasks).await;
    let held = claimed(subject, ticket_of(worker), &ids_of(&tasks)).await;
    moved(subject, &[done(&held[0])]).await;
    let before = subject.store().get(&ids_of(&tasks)).await.expect("get");
    let outcomes = inserted(subject, &tasks).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.write == WriteOutcome::AlreadyApplied)
    );
    assert_eq!(
        subject.store().get(&ids_of(&tasks)).await.expect("get"),
        before
    );
    subject.pass(MOMENT).await;
    assert!(
        aged(subject, worker, Horizon::Now, Duration::ZERO)
            .await
            .is_empty()
    );
}

/// The same id twice in one slice is stored once.
pub async fn insert_stores_an_id_repeated_in_one_slice_once(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let (one, other) = (new_task(), new_task());
    let outcomes = inserted(subject, &[one.clone(), other.clone(), one.clone()]).await;
    assert_eq!(outcomes[0].created_at, outcomes[2].created_at);
    assert_eq!(outcomes[0].write, WriteOutcome::Applied);
    assert_eq!(outcomes[1].write, WriteOutcome::Applied);
    subject.pass(MOMENT).await;
    let found = aged(subject, worker, Horizon::Now, Duration::ZERO).await;
    assert_eq!(found, [one.id, other.id].into());
}

/// One outcome per input, in input order.
pub async fn insert_answers_in_input_order(subject: &dyn Subject) {
    let old = new_tasks(3);
    let first = inserted(subject, &old).await;
    subject.pass(MOMENT).await;
    let mut tasks = new_tasks(3);
    tasks.insert(0, old[2].clone());
    tasks.insert(2, old[0].clone());
    tasks.push(old[1].clone());
    let outcomes = inserted(subject, &tasks).await;
    let expected = [Some(2), None, Some(0), None, None, Some(1)];
    for (outcome, old_index) in outcomes.iter().zip(expected) {
        match old_index {
            Some(index) => {
                assert_eq!(outcome.write, WriteOutcome::AlreadyApplied);
                assert_eq!(outcome.created_at, first[index].created_at);
            }
            None => {
                assert_eq!(outcome.write, WriteOutcome::Applied);
                assert!(outcome.created_at > first[0].created_at);
            }
        }
    }
}

/// `Rejected` when the store refuses a value: nothing of the batch was stored. A store that can keep the value keeps it.
pub async fn insert_refuses_a_bad_value_with_its_whole_batch(subject: &dyn Subject) {
    let mut tasks = new_tasks(3);
    tasks[1].max_attempts = u32::MAX;
    let outcome = subject.store().insert(&tasks).await;
    let found = subject.store().get(&ids_of(&tasks)).await.expect("get");
    match outcome {
        Ok(_) => {
            let kept: Vec<Option<u32>> = found
                .iter()
                .map(|task| task.as_ref().map(|task| task.max_attempts))
                .collect();
            assert_eq!(kept, [Some(5), Some(u32::MAX), Some(5)]);
        }
        Err(error) => {
            assert!(matches!(error, StoreError::Rejected(_)), "{error:?}");
            assert!(!error.is_transient());
            assert_eq!(found, [None, None, None]);
        }
    }
    // The store goes on.
    inserted(subject, &new_tasks(1)).await;
}

/// Idempotent by id, also when the repetition overlaps the first call: one `Applied` for each, one `created_at`.
pub async fn inserts_of_the_same_ids_at_once_store_each_once(subject: &dyn Subject) {
    for _ in 0..10 {
        let tasks = new_tasks(20);
        let start = Arc::new(Barrier::new(4));
        let mut inserting = JoinSet::new();
        for turn in 0..4 {
            let (store, start, mut tasks) = (subject.store(), Arc::clone(&start), tasks.clone());
            // In different orders: row locks taken in the order of the slice would deadlock.
            tasks.rotate_left(turn * 5);
            if turn % 2 == 1 {
                tasks.reverse();
            }
            inserting.spawn(async move {
                start.wait().await;
                let outcomes = store.insert(&tasks).await.expect("insert");
                ids_of(&tasks).into_iter().zip(outcomes).collect::<Vec<_>>()
            });
        }
        let mut applied: BTreeMap<TaskId, usize> = BTreeMap::new();
        let mut created: BTreeSet<(TaskId, Timestamp)> = BTreeSet::new();
        while let Some(outcomes) = inserting.join_next().await {
            for (id, outcome) in outcomes.expect("no panic") {
                *applied.entry(id).or_default() +=
                    usize::from(outcome.write == WriteOutcome::Applied);
                created.insert((id, outcome.created_at));
            }
        }
        assert!(applied.values().all(|count| *count == 1), "{applied:?}");
        assert_eq!(created.len(), tasks.len());
    }
}

/// Reads tasks, in input order; `None` for an unknown id.
pub async fn get_answers_in_input_order_with_none_for_unknown(subject: &dyn Subject) {
    let tasks = new_tasks(3);
    inserted(subject, &tasks).await;
    let asked = [
        tasks[2].id,
        fresh_id(),
        tasks[0].id,
        tasks[2].id,
        fresh_id(),
        tasks[1].id,
    ];
    let found = subject.store().get(&asked).await.expect("get");
    let found: Vec<Option<TaskId>> = found
        .iter()
        .map(|task| task.as_ref().map(|task| task.id))
        .collect();
    let expected = [
        Some(tasks[2].id),
        None,
        Some(tasks[0].id),
        Some(tasks[2].id),
        None,
        Some(tasks[1].id),
    ];
    assert_eq!(found, expected);
}

/// Reads committed state at least as new as every write acknowledged before.
pub async fn get_is_as_new_as_every_acknowledged_write(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    for _ in 0..25 {
        let task = new_task();
        inserted(subject, std::slice::from_ref(&task)).await;
        assert_eq!(task_of(subject, task.id).await.status, TaskStatus::Pending);
        let held = claimed(subject, ticket_of(worker), &[task.id]).await;
        assert_eq!(
            task_of(subject, task.id).await.status,
            TaskStatus::Processing
        );
        moved(subject, &[done(&held[0])]).await;
        assert_eq!(task_of(subject, task.id).await.status, TaskStatus::Done);
    }
}

/// Where tasks stand: status and fence after every move, in input order, `None` for an unknown id.
pub async fn whereabouts_follow_a_task(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let tasks = new_tasks(3);
    inserted(subject, &tasks).await;
    let unknown = fresh_id();
    let ids = [
        tasks[2].id,
        unknown,
        tasks[0].id,
        tasks[1].id,
        tasks[2].id,
        unknown,
    ];
    let standing = async || {
        let found = subject.store().whereabouts(&ids).await;
        let found = found.expect("whereabouts");
        assert_eq!(found.len(), ids.len());
        assert_eq!((found[1], found[5]), (None, None));
        assert_eq!(found[0], found[4]);
        [found[2], found[3], found[0]].map(|found| {
            let found = found.expect("the task exists");
            (found.status, found.fence.0)
        })
    };
    assert_eq!(standing().await, [(TaskStatus::Pending, 0); 3]);
    let held = claimed(subject, ticket_of(worker), &ids_of(&tasks[..2])).await;
    let (waits, runs) = ((TaskStatus::Pending, 0), (TaskStatus::Processing, 1));
    assert_eq!(standing().await, [runs, runs, waits]);
    let cancelled = settle(&held[0], Next::Cancelled);
    moved(subject, &[cancelled, done(&held[1])]).await;
    assert_eq!(
        standing().await,
        [(TaskStatus::Cancelled, 2), (TaskStatus::Done, 2), waits]
    );
    let nothing = subject.store().whereabouts(&[]).await.expect("nothing");
    assert_eq!(nothing, []);
}

/// An empty slice is answered without asking the store: not even the worker is looked up.
pub async fn empty_slices_are_answered_without_asking(subject: &dyn Subject) {
    let store = subject.store();
    let nobody = WorkerId(fresh_uuid());
    assert!(store.insert(&[]).await.expect("insert").is_empty());
    assert!(store.get(&[]).await.expect("get").is_empty());
    assert!(
        store
            .claim_delivered(ticket_of(nobody), &[])
            .await
            .expect("claim")
            .is_empty()
    );
    assert!(store.transition(&[]).await.expect("transition").is_empty());
    store.release(&[]).await.expect("release");
    store.mark_unmessaged(&[]).await.expect("mark");
    assert!(
        store
            .claims_of(nobody, None, 10)
            .await
            .expect("claims")
            .is_empty()
    );
    assert_eq!(store.totals().await.expect("totals"), Totals::default());
}

/// Every method takes a slice: 1,000 tasks make one batch.
pub async fn a_thousand_tasks_go_through_in_one_batch(subject: &dyn Subject) {
    let store = subject.store();
    let worker = living_worker(subject).await;
    let tasks = new_tasks(1_000);
    let ids = ids_of(&tasks);
    let outcomes = inserted(subject, &tasks).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.write == WriteOutcome::Applied)
    );
    assert!(
        store
            .get(&ids)
            .await
            .expect("get")
            .iter()
            .all(Option::is_some)
    );
    let ticket = ticket_of(worker);
    let held = claimed(subject, ticket, &ids).await;
    let records = store.claims_of(worker, None, 10).await.expect("claims");
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].tasks.len(), 1_000);
    let transitions: Vec<Transition> = held.iter().map(done).collect();
    let outcomes = moved(subject, &transitions).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.write == WriteOutcome::Applied)
    );
    assert_eq!(store.totals().await.expect("totals").done, 1_000);
    store.release(&[ticket.claim]).await.expect("release");
}

/// Times are microseconds, and what is read equals what was written.
pub async fn times_keep_their_microseconds(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let moments = [1_704_067_202_345_678, 1, 999_999, 0];
    let tasks: Vec<NewTask> = moments
        .iter()
        .map(|micros| NewTask {
            run_at: Some(Timestamp::from_micros(*micros)),
            ..new_task()
        })
        .collect();
    inserted(subject, &tasks).await;
    let held = claimed(subject, ticket_of(worker), &ids_of(&tasks)).await;
    for (task, micros) in held.iter().zip(moments) {
        assert_eq!(task.waiting_since.as_micros(), micros);
        let kept = task_of(subject, task.id).await;
        assert_eq!(
            (kept.created_at, kept.updated_at),
            (task.created_at, task.claimed_at)
        );
    }
    let outcome = moved_one(subject, &done(&held[0])).await;
    assert_eq!(
        Some(task_of(subject, held[0].id).await.updated_at),
        outcome.updated_at
    );
}

/// Claims: queue row deleted, `pending` → `processing`, fence + 1, one claim recorded for all of them.
pub async fn claim_delivered_moves_pending_to_processing(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let mut tasks = new_tasks(3);
    tasks[1].messaged = true;
    tasks[2].priority = priority(7);
    tasks[2].max_attempts = 2;
    let stored = inserted(subject, &tasks).await;
    subject.pass(MOMENT).await;
    let ticket = ticket_of(worker);
    let ids: Vec<TaskId> = ids_of(&tasks).into_iter().rev().collect();
    let held = claimed(subject, ticket, &ids).await;
    for ((task, stored), held) in tasks.iter().zip(&stored).zip(held.iter().rev()) {
        let expected = ClaimedTask {
            id: task.id,
            payload: task.payload.clone(),
            priority: task.priority,
            attempts: 0,
            max_attempts: task.max_attempts,
            fence: Fence(1),
            created_at: stored.created_at,
            waiting_since: stored.created_at,
            claimed_at: held.claimed_at,
        };
        assert_eq!(held, &expected);
        assert!(held.claimed_at > stored.created_at);
        let kept = task_of(subject, task.id).await;
        assert_eq!(
            (kept.status, kept.fence, kept.updated_at),
            (TaskStatus::Processing, Fence(1), held.claimed_at)
        );
    }
    let records = subject
        .store()
        .claims_of(worker, None, 10)
        .await
        .expect("claims");
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].id, records[0].worker), (ticket.claim, worker));
    assert_eq!(records[0].claimed_at, held[0].claimed_at);
    // In ascending order of id, whatever the order of the slice.
    let mut expected: Vec<(TaskId, Fence)> = tasks.iter().map(|task| (task.id, Fence(1))).collect();
    expected.sort_unstable();
    assert_eq!(records[0].tasks, expected);
    subject.pass(MOMENT).await;
    assert!(
        aged(subject, worker, Horizon::Now, Duration::ZERO)
            .await
            .is_empty()
    );
}

/// One outcome per id, in input order: each of the six.
pub async fn claim_delivered_says_what_became_of_each_id(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let other = living_worker(subject).await;
    let resting = in_hand(subject, worker, 3).await;
    moved(
        subject,
        &[
            done(&resting[0]),
            settle(&resting[1], Next::Failed { error: "no".into() }),
            settle(&resting[2], Next::Cancelled),
        ],
    )
    .await;
    let busy = in_hand(subject, other, 1).await;
    let mut tasks = new_tasks(3);
    let stored = inserted(subject, &tasks[..2]).await;
    tasks[2].run_at = Some(stored[0].created_at.after(LONG));
    inserted(subject, &tasks[2..]).await;
    let ids = [
        tasks[0].id,
        resting[0].id,
        tasks[0].id,
        fresh_id(),
        tasks[2].id,
        busy[0].id,
        resting[1].id,
        tasks[1].id,
        resting[2].id,
        busy[0].id,
    ];
    let outcomes = subject
        .store()
        .claim_delivered(ticket_of(worker), &ids)
        .await
        .expect("claim");
    let names: Vec<&str> = outcomes
        .iter()
        .map(|outcome| match outcome {
            DeliveryOutcome::Claimed(_) => "claimed",
            DeliveryOutcome::Early => "early",
            DeliveryOutcome::AtRest => "at rest",
            DeliveryOutcome::InHand => "in hand",
            DeliveryOutcome::Repeated => "repeated",
            DeliveryOutcome::Unknown => "unknown",
        })
        .collect();
    let expected = [
        "claimed", "at rest", "repeated", "unknown", "early", "in hand", "at rest", "claimed",
        "at rest", "repeated",
    ];
    assert_eq!(names, expected);
    assert_eq!(expect_claimed(outcomes[0].clone()).id, tasks[0].id);
    assert_eq!(expect_claimed(outcomes[7].clone()).id, tasks[1].id);
    assert_eq!(task_of(subject, busy[0].id).await.fence, busy[0].fence);
}

/// Also claims an id without a queue row that is `pending` with fence 0 (written by another program).
pub async fn claim_delivered_accepts_rows_of_another_program(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let ids = [fresh_id(), fresh_id()];
    subject.plant(&ids, "from elsewhere").await;
    let planted = task_of(subject, ids[0]).await;
    assert_eq!(
        (planted.status, planted.fence),
        (TaskStatus::Pending, Fence(0))
    );
    let held = claimed(subject, ticket_of(worker), &ids).await;
    assert_eq!(held[0].payload, payload("from elsewhere"));
    assert_eq!(held[0].fence, Fence(1));
    assert_eq!(held[0].waiting_since, held[0].created_at);
    let again = subject
        .store()
        .claim_delivered(ticket_of(worker), &ids)
        .await
        .expect("claim");
    assert_eq!(again, [DeliveryOutcome::InHand, DeliveryOutcome::InHand]);
    let outcomes = moved(
        subject,
        &[done(&held[0]), settle(&held[1], again_at_once())],
    )
    .await;
    assert_eq!(writes(&outcomes), [WriteOutcome::Applied; 2]);
    // Once it was claimed it is like any other: it is queued when it waits again.
    subject.pass(MOMENT).await;
    assert_eq!(
        aged(subject, worker, Horizon::Now, LONG).await,
        [ids[1]].into()
    );
}

fn again_at_once() -> Next {
    again(Duration::ZERO)
}

fn without_waiting(task: &ClaimedTask) -> (TaskId, Fence, u32, Timestamp) {
    (task.id, task.fence, task.attempts, task.claimed_at)
}

/// Repeating the call under the same ticket reports `Claimed` for what that ticket already holds.
pub async fn claim_delivered_repeated_returns_the_same_tasks(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let tasks = new_tasks(3);
    inserted(subject, &tasks).await;
    let ticket = ticket_of(worker);
    let first = claimed(subject, ticket, &ids_of(&tasks)).await;
    subject.pass(MOMENT).await;
    let second = claimed(subject, ticket, &ids_of(&tasks)).await;
    let key = |held: &[ClaimedTask]| held.iter().map(without_waiting).collect::<Vec<_>>();
    assert_eq!(key(&first), key(&second));
    assert_eq!(
        subject
            .store()
            .claims_of(worker, None, 10)
            .await
            .expect("claims")
            .len(),
        1
    );
    assert_eq!(task_of(subject, tasks[0].id).await.fence, Fence(1));
}

/// … and claims nothing more: not what became claimable since.
pub async fn claim_delivered_repeated_claims_nothing_more(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let tasks = new_tasks(2);
    inserted(subject, &tasks[..1]).await;
    let ticket = ticket_of(worker);
    let first = subject
        .store()
        .claim_delivered(ticket, &ids_of(&tasks))
        .await
        .expect("claim");
    assert!(matches!(first[0], DeliveryOutcome::Claimed(_)));
    assert_eq!(first[1], DeliveryOutcome::Unknown);
    inserted(subject, &tasks[1..]).await;
    let second = subject
        .store()
        .claim_delivered(ticket, &ids_of(&tasks))
        .await
        .expect("claim");
    assert!(matches!(second[0], DeliveryOutcome::Claimed(_)));
    assert!(
        !matches!(second[1], DeliveryOutcome::Claimed(_)),
        "{:?}",
        second[1]
    );
    assert_eq!(
        task_of(subject, tasks[1].id).await.status,
        TaskStatus::Pending
    );
    let records = subject
        .store()
        .claims_of(worker, None, 10)
        .await
        .expect("claims");
    assert_eq!(records[0].tasks, [(tasks[0].id, Fence(1))]);
}

/// … for what that ticket holds and that is still `processing` under its fence.
pub async fn claim_delivered_repeated_leaves_out_what_moved_on(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let tasks = new_tasks(3);
    inserted(subject, &tasks).await;
    let ticket = ticket_of(worker);
    let held = claimed(subject, ticket, &ids_of(&tasks)).await;
    moved(
        subject,
        &[done(&held[0]), settle(&held[1], again_at_once())],
    )
    .await;
    let taken = claimed(subject, ticket_of(worker), &[tasks[1].id]).await;
    assert_eq!(taken[0].fence, Fence(3));
    let outcomes = subject
        .store()
        .claim_delivered(ticket, &ids_of(&tasks))
        .await
        .expect("claim");
    assert_eq!(
        outcomes[..2],
        [DeliveryOutcome::AtRest, DeliveryOutcome::InHand]
    );
    assert_eq!(expect_claimed(outcomes[2].clone()).id, tasks[2].id);
}

/// A claim that would hold nothing is not recorded.
pub async fn a_claim_that_would_hold_nothing_is_not_recorded(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let store = subject.store();
    let outcomes = store
        .claim_delivered(ticket_of(worker), &[fresh_id()])
        .await
        .expect("claim");
    assert_eq!(outcomes, [DeliveryOutcome::Unknown]);
    let nothing = store
        .claim_aged(ticket_of(worker), Horizon::Now, LONG, 10)
        .await;
    assert!(nothing.expect("claim by age").is_empty());
    assert!(
        store
            .claims_of(worker, None, 10)
            .await
            .expect("claims")
            .is_empty()
    );
}

/// `WorkerGone` when the ticket's worker is unknown or declared dead: nothing is claimed.
pub async fn claims_are_refused_to_an_unknown_or_dead_worker(subject: &dyn Subject) {
    let store = subject.store();
    let registry = subject.registry();
    let tasks = new_tasks(2);
    inserted(subject, &tasks).await;
    subject.pass(MOMENT).await;
    let dead = living_worker(subject).await;
    let held_ticket = ticket_of(dead);
    claimed(subject, held_ticket, &[tasks[0].id]).await;
    let beat = registry.workers().await.expect("workers")[0].beat;
    assert_eq!(
        registry
            .declare_dead(dead, beat)
            .await
            .expect("declare dead"),
        WriteOutcome::Applied
    );
    // A repetition of a claim made while it lived is refused as well.
    for ticket in [
        ticket_of(WorkerId(fresh_uuid())),
        ticket_of(dead),
        held_ticket,
    ] {
        let delivered = store.claim_delivered(ticket, &ids_of(&tasks)).await;
        assert!(
            matches!(delivered, Err(ClaimError::WorkerGone)),
            "{delivered:?}"
        );
        let by_age = store
            .claim_aged(ticket, Horizon::Now, Duration::ZERO, 10)
            .await;
        assert!(matches!(by_age, Err(ClaimError::WorkerGone)), "{by_age:?}");
    }
    assert_eq!(task_of(subject, tasks[1].id).await.fence, Fence(0));
    assert_eq!(
        store.claims_of(dead, None, 10).await.expect("claims").len(),
        1
    );
}

/// Two workers that claim the same id at once: exactly one gets it.
pub async fn two_workers_claiming_the_same_ids_at_once_get_each_once(subject: &dyn Subject) {
    let workers = [living_worker(subject).await, living_worker(subject).await];
    for round in 0..20 {
        let tasks = new_tasks(20);
        inserted(subject, &tasks).await;
        let mut ids = ids_of(&tasks);
        if round % 2 == 1 {
            // Rows that other programs wrote have no queue row to lock.
            ids = std::iter::repeat_with(fresh_id).take(20).collect();
            subject.plant(&ids, "from elsewhere").await;
        }
        let start = Arc::new(Barrier::new(2));
        let mut claiming = JoinSet::new();
        for (turn, worker) in workers.into_iter().enumerate() {
            let (store, start, mut asked) = (subject.store(), Arc::clone(&start), ids.clone());
            asked.rotate_left(turn * 10);
            claiming.spawn(async move {
                start.wait().await;
                store
                    .claim_delivered(ticket_of(worker), &asked)
                    .await
                    .expect("claim")
            });
        }
        let mut won: Vec<TaskId> = Vec::new();
        while let Some(outcomes) = claiming.join_next().await {
            for outcome in outcomes.expect("no panic") {
                match outcome {
                    DeliveryOutcome::Claimed(task) => won.push(task.id),
                    other => assert_eq!(other, DeliveryOutcome::InHand),
                }
            }
        }
        won.sort_unstable();
        ids.sort_unstable();
        assert_eq!(won, ids);
    }
    let mut recorded = 0;
    for worker in workers {
        let records = subject
            .store()
            .claims_of(worker, None, 100)
            .await
            .expect("claims");
        recorded += records
            .iter()
            .map(|record| record.tasks.len())
            .sum::<usize>();
    }
    assert_eq!(recorded, 400);
}

/// Claims waiting tasks whose time has come, and no others.
pub async fn claim_aged_takes_what_is_due_only(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let mut tasks = new_tasks(3);
    let stored = inserted(subject, &tasks[..1]).await;
    let now = stored[0].created_at;
    tasks[1].run_at = Some(now.after(LONG));
    tasks[2].run_at = Some(now.after(Duration::from_millis(200)));
    inserted(subject, &tasks[1..]).await;
    subject.pass(MOMENT).await;
    let claimed = subject
        .store()
        .claim_aged(ticket_of(worker), Horizon::Now, Duration::ZERO, 10)
        .await;
    let claimed = claimed.expect("claim by age");
    assert_eq!(claimed.len(), 1);
    let expected = ClaimedTask {
        id: tasks[0].id,
        payload: tasks[0].payload.clone(),
        priority: tasks[0].priority,
        attempts: 0,
        max_attempts: 5,
        fence: Fence(1),
        created_at: now,
        waiting_since: now,
        claimed_at: claimed[0].claimed_at,
    };
    assert_eq!(claimed[0], expected);
    subject.pass(Duration::from_millis(210)).await;
    assert_eq!(
        aged(subject, worker, Horizon::Now, Duration::ZERO).await,
        [tasks[2].id].into()
    );
    assert_eq!(
        task_of(subject, tasks[1].id).await.status,
        TaskStatus::Pending
    );
}

/// Oldest `not_before` first within each of the two kinds, whatever the order of ids.
pub async fn claim_aged_takes_the_oldest_first(subject: &dyn Subject) {
    for messaged in [false, true] {
        let worker = living_worker(subject).await;
        let mut tasks = new_tasks(6);
        for (task, hour) in tasks.iter_mut().zip([4, 1, 5, 0, 3, 2]) {
            task.run_at = Some(Timestamp::from_micros(1_000_000).after(LONG * hour));
            task.messaged = messaged;
        }
        inserted(subject, &tasks).await;
        let mut order = Vec::new();
        for _ in 0..3 {
            let claimed = subject
                .store()
                .claim_aged(ticket_of(worker), Horizon::Now, Duration::ZERO, 2)
                .await;
            let pair: BTreeSet<TaskId> = claimed
                .expect("claim by age")
                .iter()
                .map(|task| task.id)
                .collect();
            order.push(pair);
        }
        let expected =
            [[3, 1], [5, 4], [0, 2]].map(|pair| pair.map(|index| tasks[index].id).into());
        assert_eq!(order, expected, "messaged: {messaged}");
    }
}

/// Messaged with `not_before` before the horizon minus `grace`.
pub async fn claim_aged_gives_messaged_tasks_a_grace(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let mut tasks = new_tasks(2);
    tasks[0].messaged = true;
    inserted(subject, &tasks).await;
    subject.pass(Duration::from_millis(20)).await;
    assert_eq!(
        aged(subject, worker, Horizon::Now, LONG).await,
        [tasks[1].id].into()
    );
    assert_eq!(
        aged(subject, worker, Horizon::Now, Duration::from_millis(10)).await,
        [tasks[0].id].into()
    );
}

/// Only tasks whose `not_before` is earlier than the horizon (and than the store's present).
pub async fn claim_aged_keeps_to_its_horizon(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let horizon = Timestamp::from_micros(1_704_067_202_345_678);
    let grace = Duration::from_secs(5);
    let at = |micros: i64, messaged: bool| NewTask {
        run_at: Some(Timestamp::from_micros(horizon.as_micros() + micros)),
        messaged,
        ..new_task()
    };
    let tasks = [
        at(-1, false),
        at(0, false),
        at(1, false),
        at(-5_000_001, true),
        at(-5_000_000, true),
        at(-1, true),
    ];
    let stored = inserted(subject, &tasks).await;
    let claimed = aged(subject, worker, Horizon::Before(horizon), grace).await;
    assert_eq!(claimed, [tasks[0].id, tasks[3].id].into());
    // A horizon ahead of the store's present opens nothing early.
    let early = NewTask {
        run_at: Some(stored[0].created_at.after(LONG)),
        ..new_task()
    };
    inserted(subject, std::slice::from_ref(&early)).await;
    let far = Horizon::Before(stored[0].created_at.after(LONG * 2));
    let claimed = aged(subject, worker, far, Duration::ZERO).await;
    assert_eq!(
        claimed,
        [tasks[1].id, tasks[2].id, tasks[4].id, tasks[5].id].into()
    );
}

/// Claims up to `limit` waiting tasks.
pub async fn claim_aged_keeps_to_its_limit(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let mut tasks = new_tasks(10);
    for task in &mut tasks[5..] {
        task.messaged = true;
    }
    inserted(subject, &tasks).await;
    subject.pass(MOMENT).await;
    let store = subject.store();
    let mut counts = Vec::new();
    for limit in [0, 4, 4, 4, 4] {
        let claimed = store
            .claim_aged(ticket_of(worker), Horizon::Now, Duration::ZERO, limit)
            .await;
        counts.push(claimed.expect("claim by age").len());
    }
    assert_eq!(counts, [0, 4, 4, 2, 0]);
}

/// Rows that another program wrote are claimed by delivery alone: claiming by age looks at the queue.
pub async fn claim_aged_passes_over_rows_without_a_queue_row(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    subject.plant(&[fresh_id()], "from elsewhere").await;
    subject.pass(MOMENT).await;
    assert!(
        aged(subject, worker, Horizon::Now, Duration::ZERO)
            .await
            .is_empty()
    );
}

/// Otherwise as `claim_delivered`, the idempotence by ticket included.
pub async fn claim_aged_repeated_returns_the_same_tasks(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let store = subject.store();
    inserted(subject, &new_tasks(5)).await;
    subject.pass(MOMENT).await;
    let ticket = ticket_of(worker);
    let key = |held: &[ClaimedTask]| held.iter().map(without_waiting).collect::<BTreeSet<_>>();
    let first = store
        .claim_aged(ticket, Horizon::Now, Duration::ZERO, 3)
        .await
        .expect("claim by age");
    assert_eq!(first.len(), 3);
    let second = store
        .claim_aged(ticket, Horizon::Now, Duration::ZERO, 3)
        .await
        .expect("claim by age");
    assert_eq!(key(&first), key(&second));
    moved(subject, &[done(&first[0])]).await;
    let third = store
        .claim_aged(ticket, Horizon::Now, Duration::ZERO, 3)
        .await
        .expect("claim by age");
    assert_eq!(key(&first[1..]), key(&third));
    assert_eq!(
        store
            .claims_of(worker, None, 10)
            .await
            .expect("claims")
            .len(),
        1
    );
}

/// Never waits for a row that someone else is claiming: it is skipped, and each task goes to exactly one worker.
pub async fn workers_claiming_by_age_at_once_get_each_once(subject: &dyn Subject) {
    let tasks = new_tasks(200);
    inserted(subject, &tasks).await;
    subject.pass(MOMENT).await;
    let start = Arc::new(Barrier::new(4));
    let mut claiming = JoinSet::new();
    for _ in 0..4 {
        let worker = living_worker(subject).await;
        let (store, start) = (subject.store(), Arc::clone(&start));
        claiming.spawn(async move {
            start.wait().await;
            let mut won = Vec::new();
            // More rounds than needed: a round may come back empty while others hold what is left.
            for _ in 0..30 {
                let claimed = store
                    .claim_aged(ticket_of(worker), Horizon::Now, Duration::ZERO, 10)
                    .await;
                won.extend(
                    claimed
                        .expect("claim by age")
                        .into_iter()
                        .map(|task| task.id),
                );
            }
            won
        });
    }
    let mut won: Vec<TaskId> = claiming.join_all().await.into_iter().flatten().collect();
    won.sort_unstable();
    let mut ids = ids_of(&tasks);
    ids.sort_unstable();
    assert_eq!(won, ids);
}

/// The two ways to claim are one: a task goes to exactly one of them.
pub async fn claims_by_delivery_and_by_age_at_once_get_each_once(subject: &dyn Subject) {
    let workers = [living_worker(subject).await, living_worker(subject).await];
    for _ in 0..20 {
        let tasks = new_tasks(20);
        inserted(subject, &tasks).await;
        subject.pass(MOMENT).await;
        let start = Arc::new(Barrier::new(2));
        let (store, ids, gate) = (subject.store(), ids_of(&tasks), Arc::clone(&start));
        let by_delivery = tokio::spawn(async move {
            gate.wait().await;
            store
                .claim_delivered(ticket_of(workers[0]), &ids)
                .await
                .expect("claim")
        });
        let (store, gate) = (subject.store(), start);
        let by_age = tokio::spawn(async move {
            gate.wait().await;
            store
                .claim_aged(ticket_of(workers[1]), Horizon::Now, Duration::ZERO, 20)
                .await
                .expect("claim by age")
        });
        let mut won: Vec<TaskId> = by_age
            .await
            .expect("no panic")
            .into_iter()
            .map(|task| task.id)
            .collect();
        for outcome in by_delivery.await.expect("no panic") {
            match outcome {
                DeliveryOutcome::Claimed(task) => won.push(task.id),
                other => assert_eq!(other, DeliveryOutcome::InHand),
            }
        }
        // What claiming by age skipped because the other was at it is with the other.
        won.sort_unstable();
        let mut all = ids_of(&tasks);
        all.sort_unstable();
        assert_eq!(won, all);
    }
}

/// Claimed by age without the grace. Ids without a queue row are passed over.
pub async fn mark_unmessaged_ends_the_grace(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let mut tasks = new_tasks(3);
    for task in &mut tasks {
        task.messaged = true;
    }
    inserted(subject, &tasks).await;
    let held = claimed(subject, ticket_of(worker), &[tasks[2].id]).await;
    for _ in 0..2 {
        let marked = [tasks[0].id, fresh_id(), tasks[2].id, tasks[0].id];
        subject
            .store()
            .mark_unmessaged(&marked)
            .await
            .expect("mark");
    }
    subject.pass(MOMENT).await;
    assert_eq!(
        aged(subject, worker, Horizon::Now, LONG).await,
        [tasks[0].id].into()
    );
    assert_eq!(task_of(subject, tasks[2].id).await.fence, held[0].fence);
    assert_eq!(task_of(subject, tasks[1].id).await.fence, Fence(0));
}

/// Done, with this result. Clears `error`; `updated_at` becomes now.
pub async fn transition_to_done_keeps_the_result(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let held = in_hand(subject, worker, 1).await;
    let retry = settle(
        &held[0],
        Next::Pending {
            delay: Duration::ZERO,
            error: Some("at first".into()),
        },
    );
    moved(subject, &[retry]).await;
    assert_eq!(
        task_of(subject, held[0].id).await.error.as_deref(),
        Some("at first")
    );
    let held = claimed(subject, ticket_of(worker), &[held[0].id]).await;
    assert_eq!(held[0].attempts, 1);
    subject.pass(MOMENT).await;
    let text = "!dlrow olleH (len=12) 👍🏽 \u{1} '\\ é";
    let outcome = moved_one(
        subject,
        &settle(
            &held[0],
            Next::Done {
                result: text.into(),
            },
        ),
    )
    .await;
    assert_eq!(outcome.write, WriteOutcome::Applied);
    let kept = task_of(subject, held[0].id).await;
    assert_eq!(kept.status, TaskStatus::Done);
    assert_eq!(kept.result.as_deref(), Some(text));
    assert_eq!(kept.error, None);
    assert_eq!(kept.attempts, 2);
    assert_eq!(Some(kept.updated_at), outcome.updated_at);
    assert!(kept.updated_at > held[0].claimed_at);
    assert_eq!(kept.created_at, held[0].created_at);
}

/// Failed, with this error; not counted in the totals, and in no queue.
pub async fn transition_to_failed_keeps_the_error(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let held = in_hand(subject, worker, 1).await;
    let outcome = moved_one(
        subject,
        &settle(
            &held[0],
            Next::Failed {
                error: "it's \"broken\"".into(),
            },
        ),
    )
    .await;
    assert_eq!(outcome.write, WriteOutcome::Applied);
    let kept = task_of(subject, held[0].id).await;
    assert_eq!((kept.status, kept.result), (TaskStatus::Failed, None));
    assert_eq!(kept.error.as_deref(), Some("it's \"broken\""));
    assert_eq!(
        subject.store().totals().await.expect("totals"),
        Totals::default()
    );
    subject.pass(MOMENT).await;
    assert!(
        aged(subject, worker, Horizon::Now, Duration::ZERO)
            .await
            .is_empty()
    );
}

/// Queue rows follow in the same commit: deleted when `from` is `Pending`.
pub async fn transition_to_cancelled_takes_the_task_out_of_the_queue(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let tasks = new_tasks(2);
    inserted(subject, &tasks).await;
    let cancel = Transition {
        id: tasks[0].id,
        fence: Fence(0),
        from: TaskStatus::Pending,
        to: Next::Cancelled,
        spent: Spent::Nothing,
    };
    assert_eq!(
        moved_one(subject, &cancel).await.write,
        WriteOutcome::Applied
    );
    let kept = task_of(subject, tasks[0].id).await;
    assert_eq!(
        (kept.status, kept.fence, kept.attempts),
        (TaskStatus::Cancelled, Fence(1), 0)
    );
    subject.pass(MOMENT).await;
    assert_eq!(
        aged(subject, worker, Horizon::Now, Duration::ZERO).await,
        [tasks[1].id].into()
    );
    let delivered = subject
        .store()
        .claim_delivered(ticket_of(worker), &[tasks[0].id])
        .await;
    assert_eq!(delivered.expect("claim"), [DeliveryOutcome::AtRest]);
}

/// Queue rows follow in the same commit: written for `Next::Pending`, not messaged. `Some` replaces the kept error,
/// `None` leaves it.
pub async fn transition_to_pending_writes_a_queue_row(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let mut tasks = new_tasks(1);
    tasks[0].messaged = true;
    inserted(subject, &tasks).await;
    let mut held = claimed(subject, ticket_of(worker), &ids_of(&tasks)).await;
    let errors = [
        (Some("one"), Some("one")),
        (None, Some("one")),
        (Some("two"), Some("two")),
    ];
    for (given, expected) in errors {
        let next = Next::Pending {
            delay: Duration::ZERO,
            error: given.map(str::to_owned),
        };
        let outcome = moved_one(subject, &settle(&held[0], next)).await;
        let kept = task_of(subject, tasks[0].id).await;
        assert_eq!(kept.status, TaskStatus::Pending);
        assert_eq!(kept.error.as_deref(), expected);
        assert_eq!(Some(kept.updated_at), outcome.updated_at);
        subject.pass(MOMENT).await;
        // The grace for messaged tasks does not hold it back.
        let ticket = ticket_of(worker);
        held = subject
            .store()
            .claim_aged(ticket, Horizon::Now, LONG, 10)
            .await
            .expect("claim by age");
        assert_eq!(held.len(), 1);
        assert_eq!(Some(held[0].waiting_since), outcome.updated_at);
    }
    // From pending to pending: the queue row is replaced.
    let back = settle(&held[0], again(LONG));
    moved(subject, &[back]).await;
    let sooner = Transition {
        id: tasks[0].id,
        fence: held[0].fence.next(),
        from: TaskStatus::Pending,
        to: again_at_once(),
        spent: Spent::Nothing,
    };
    assert_eq!(
        moved_one(subject, &sooner).await.write,
        WriteOutcome::Applied
    );
    subject.pass(MOMENT).await;
    assert_eq!(
        aged(subject, worker, Horizon::Now, LONG).await,
        [tasks[0].id].into()
    );
}

/// How long from now (store's clock) before it may be claimed, either way.
pub async fn transition_to_pending_waits_for_its_delay(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let held = in_hand(subject, worker, 2).await;
    let delay = Duration::from_millis(200);
    let outcomes = moved(
        subject,
        &[
            settle(&held[0], again(delay)),
            settle(&held[1], again(LONG)),
        ],
    )
    .await;
    let ids = [held[0].id, held[1].id];
    let early = subject
        .store()
        .claim_delivered(ticket_of(worker), &ids)
        .await
        .expect("claim");
    assert_eq!(early, [DeliveryOutcome::Early, DeliveryOutcome::Early]);
    assert!(
        aged(subject, worker, Horizon::Now, Duration::ZERO)
            .await
            .is_empty()
    );
    subject.pass(Duration::from_millis(210)).await;
    let outcome = subject
        .store()
        .claim_delivered(ticket_of(worker), &ids)
        .await
        .expect("claim");
    let claimed = expect_claimed(outcome[0].clone());
    assert_eq!(
        Some(claimed.waiting_since),
        outcomes[0].updated_at.map(|moment| moment.after(delay))
    );
    assert_eq!(outcome[1], DeliveryOutcome::Early);
}

/// `attempts` + 1, `rescues` + 1, neither, or both back to 0.
pub async fn transition_counts_what_was_spent(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let task = new_task();
    inserted(subject, std::slice::from_ref(&task)).await;
    let steps = [
        (Spent::Attempt, (1, 0)),
        (Spent::Attempt, (2, 0)),
        (Spent::Rescue, (2, 1)),
        (Spent::Nothing, (2, 1)),
        (Spent::Attempt, (3, 1)),
    ];
    for (spent, expected) in steps {
        let held = claimed(subject, ticket_of(worker), &[task.id]).await;
        moved(
            subject,
            &[Transition {
                spent,
                ..settle(&held[0], again_at_once())
            }],
        )
        .await;
        let kept = task_of(subject, task.id).await;
        assert_eq!((kept.attempts, kept.rescues), expected, "{spent:?}");
    }
    let held = claimed(subject, ticket_of(worker), &[task.id]).await;
    assert_eq!(held[0].attempts, 3);
    moved(
        subject,
        &[settle(&held[0], Next::Failed { error: "no".into() })],
    )
    .await;
    let retry = Transition {
        id: task.id,
        fence: held[0].fence.next(),
        from: TaskStatus::Failed,
        to: again_at_once(),
        spent: Spent::Reset,
    };
    assert_eq!(
        moved_one(subject, &retry).await.write,
        WriteOutcome::Applied
    );
    let kept = task_of(subject, task.id).await;
    assert_eq!(
        (kept.attempts, kept.rescues, kept.error.as_deref()),
        (0, 0, Some("no"))
    );
    claimed(subject, ticket_of(worker), &[task.id]).await;
}

/// The fence rises by one at every transition, claims included, and never falls.
pub async fn transition_raises_the_fence_by_one(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let task = new_task();
    inserted(subject, std::slice::from_ref(&task)).await;
    for round in 0..3 {
        let held = claimed(subject, ticket_of(worker), &[task.id]).await;
        assert_eq!(held[0].fence, Fence(2 * round + 1));
        moved(subject, &[settle(&held[0], again_at_once())]).await;
        assert_eq!(task_of(subject, task.id).await.fence, Fence(2 * round + 2));
    }
}

/// Repeating a call whose answer was lost reports `AlreadyApplied` for what is still as that call left it, with the same
/// `updated_at`; totals move once.
pub async fn transition_repeated_reports_already_applied(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let held = in_hand(subject, worker, 5).await;
    let transitions = [
        done(&held[0]),
        settle(&held[1], Next::Failed { error: "no".into() }),
        settle(&held[2], Next::Cancelled),
        settle(&held[3], again(LONG)),
        settle(
            &held[4],
            Next::Pending {
                delay: LONG,
                error: Some("later".into()),
            },
        ),
    ];
    let first = moved(subject, &transitions).await;
    assert_eq!(writes(&first), [WriteOutcome::Applied; 5]);
    let ids: Vec<TaskId> = held.iter().map(|task| task.id).collect();
    let before = subject.store().get(&ids).await.expect("get");
    let totals = subject.store().totals().await.expect("totals");
    assert_eq!(totals.done, 1);
    subject.pass(MOMENT).await;
    for _ in 0..2 {
        let second = moved(subject, &transitions).await;
        assert_eq!(writes(&second), [WriteOutcome::AlreadyApplied; 5]);
        let times = |outcomes: &[TransitionOutcome]| {
            outcomes
                .iter()
                .map(|outcome| outcome.updated_at)
                .collect::<Vec<_>>()
        };
        assert_eq!(times(&first), times(&second));
    }
    assert_eq!(subject.store().get(&ids).await.expect("get"), before);
    assert_eq!(subject.store().totals().await.expect("totals"), totals);
}

/// Moves a task only if it still has the status and the fence that the transition names; a stale one changes nothing.
pub async fn transition_under_another_fence_or_status_is_stale(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let held = in_hand(subject, worker, 1).await;
    let right = done(&held[0]);
    let before = task_of(subject, held[0].id).await;
    let wrong = [
        Transition {
            fence: Fence(0),
            ..right.clone()
        },
        Transition {
            fence: Fence(2),
            ..right.clone()
        },
        Transition {
            fence: Fence(-1),
            ..right.clone()
        },
        Transition {
            from: TaskStatus::Pending,
            ..right.clone()
        },
        Transition {
            from: TaskStatus::Failed,
            ..right.clone()
        },
        Transition {
            id: fresh_id(),
            ..right.clone()
        },
    ];
    for transition in wrong {
        let outcome = moved_one(subject, &transition).await;
        let stale = TransitionOutcome {
            write: WriteOutcome::Stale,
            updated_at: None,
        };
        assert_eq!(outcome, stale, "{transition:?}");
    }
    assert_eq!(task_of(subject, held[0].id).await, before);
    assert_eq!(
        subject.store().totals().await.expect("totals"),
        Totals::default()
    );
    assert_eq!(
        moved_one(subject, &right).await.write,
        WriteOutcome::Applied
    );
}

/// `AlreadyApplied` is for the very same write only, and only while nothing moved the task since: a worker that comes
/// back late with another outcome is told so.
pub async fn transition_to_something_else_after_the_fact_is_stale(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let held = in_hand(subject, worker, 3).await;
    let first = [
        done(&held[0]),
        settle(&held[1], again_at_once()),
        settle(&held[2], Next::Failed { error: "no".into() }),
    ];
    moved(subject, &first).await;
    let other = [
        settle(
            &held[0],
            Next::Done {
                result: "another".into(),
            },
        ),
        done(&held[1]),
        settle(
            &held[2],
            Next::Failed {
                error: "another".into(),
            },
        ),
    ];
    assert_eq!(
        writes(&moved(subject, &other).await),
        [WriteOutcome::Stale; 3]
    );
    let other = [
        settle(&held[0], Next::Failed { error: "no".into() }),
        settle(&held[1], Next::Cancelled),
        done(&held[2]),
    ];
    assert_eq!(
        writes(&moved(subject, &other).await),
        [WriteOutcome::Stale; 3]
    );
    claimed(subject, ticket_of(worker), &[held[1].id]).await;
    assert_eq!(
        moved_one(subject, &first[1]).await.write,
        WriteOutcome::Stale
    );
    assert_eq!(subject.store().totals().await.expect("totals").done, 1);
    let kept = task_of(subject, held[0].id).await;
    assert_eq!(kept.result, Some(format!("result of {}", held[0].id)));
}

/// One outcome per input, in input order; a stale one stops none of the others.
pub async fn transition_answers_in_input_order(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let held = in_hand(subject, worker, 4).await;
    moved(subject, &[done(&held[1])]).await;
    let transitions = [
        Transition {
            id: fresh_id(),
            ..done(&held[0])
        },
        done(&held[3]),
        done(&held[1]),
        Transition {
            fence: Fence(7),
            ..done(&held[2])
        },
        settle(&held[0], Next::Failed { error: "no".into() }),
    ];
    let outcomes = moved(subject, &transitions).await;
    let expected = [
        WriteOutcome::Stale,
        WriteOutcome::Applied,
        WriteOutcome::AlreadyApplied,
        WriteOutcome::Stale,
        WriteOutcome::Applied,
    ];
    assert_eq!(writes(&outcomes), expected);
    for (transition, outcome) in transitions.iter().zip(&outcomes) {
        if outcome.write != WriteOutcome::Stale {
            assert_eq!(
                Some(task_of(subject, transition.id).await.updated_at),
                outcome.updated_at
            );
        }
    }
}

/// `Rejected` when the store refuses a value: nothing of the batch happened. NUL is refused by every store.
pub async fn transition_refuses_nul_with_its_whole_batch(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let held = in_hand(subject, worker, 2).await;
    let nul = "a\0b".to_owned();
    let bad = [
        Next::Done {
            result: nul.clone(),
        },
        Next::Failed { error: nul.clone() },
        Next::Pending {
            delay: Duration::ZERO,
            error: Some(nul),
        },
    ];
    for next in bad {
        let outcome = subject
            .store()
            .transition(&[done(&held[0]), settle(&held[1], next)])
            .await;
        assert!(
            matches!(outcome, Err(StoreError::Rejected(_))),
            "{outcome:?}"
        );
    }
    for task in &held {
        let kept = task_of(subject, task.id).await;
        assert_eq!(
            (kept.status, kept.fence),
            (TaskStatus::Processing, task.fence)
        );
    }
    assert_eq!(
        subject.store().totals().await.expect("totals"),
        Totals::default()
    );
    let outcomes = moved(subject, &[done(&held[0]), done(&held[1])]).await;
    assert_eq!(writes(&outcomes), [WriteOutcome::Applied; 2]);
}

/// Two transitions of one id in one slice are not allowed; whoever does it moves the task once, and counts it once.
pub async fn two_transitions_of_one_id_in_one_slice_move_it_once(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let held = in_hand(subject, worker, 2).await;
    let transitions = [done(&held[0]), done(&held[1]), done(&held[0])];
    let outcomes = moved(subject, &transitions).await;
    assert_eq!(outcomes[1].write, WriteOutcome::Applied);
    assert_eq!(
        task_of(subject, held[0].id).await.fence,
        held[0].fence.next()
    );
    assert_eq!(subject.store().totals().await.expect("totals").done, 2);
}

/// Compare-and-set: of several writes that name one fence at once, exactly one is applied.
pub async fn of_competing_transitions_exactly_one_is_applied(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    for _ in 0..10 {
        let held = in_hand(subject, worker, 10).await;
        let ways: [fn(&ClaimedTask) -> Next; 4] = [
            |task| Next::Done {
                result: task.id.to_string(),
            },
            |_| Next::Failed { error: "no".into() },
            |_| again_at_once(),
            |_| Next::Cancelled,
        ];
        let start = Arc::new(Barrier::new(ways.len()));
        let mut moving = JoinSet::new();
        for (turn, way) in ways.into_iter().enumerate() {
            let mut transitions: Vec<Transition> =
                held.iter().map(|task| settle(task, way(task))).collect();
            // In different orders: row locks taken in the order of the slice would deadlock.
            transitions.rotate_left(turn * 3);
            let (store, start) = (subject.store(), Arc::clone(&start));
            moving.spawn(async move {
                start.wait().await;
                let outcomes = store.transition(&transitions).await.expect("transition");
                transitions.into_iter().zip(outcomes).collect::<Vec<_>>()
            });
        }
        let mut applied: BTreeMap<TaskId, Vec<TaskStatus>> = BTreeMap::new();
        for (transition, outcome) in moving.join_all().await.into_iter().flatten() {
            match outcome.write {
                WriteOutcome::Applied => applied
                    .entry(transition.id)
                    .or_default()
                    .push(transition.to.status()),
                WriteOutcome::Stale => {}
                WriteOutcome::AlreadyApplied => panic!("each way was tried once"),
            }
        }
        for task in &held {
            let kept = task_of(subject, task.id).await;
            assert_eq!(applied.get(&task.id), Some(&vec![kept.status]));
            assert_eq!(kept.fence, task.fence.next());
        }
    }
}

/// Totals move only with rows that became done now, so repeating never counts twice: not at once either.
pub async fn totals_are_exact_under_200_transitions_at_once(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let held = in_hand(subject, worker, 200).await;
    let start = Arc::new(Barrier::new(200));
    let mut moving = JoinSet::new();
    for turn in 0..200 {
        // Each task is completed by two calls of two tasks.
        let transitions = [done(&held[turn]), done(&held[(turn + 1) % 200])];
        let (store, start) = (subject.store(), Arc::clone(&start));
        moving.spawn(async move {
            start.wait().await;
            store.transition(&transitions).await.expect("transition")
        });
    }
    let outcomes: Vec<TransitionOutcome> = moving.join_all().await.into_iter().flatten().collect();
    let count = |write| {
        outcomes
            .iter()
            .filter(|outcome| outcome.write == write)
            .count()
    };
    assert_eq!(
        (
            count(WriteOutcome::Applied),
            count(WriteOutcome::AlreadyApplied)
        ),
        (200, 200)
    );
    check_totals(subject, &held).await;
}

/// Compares the totals with the rows of these tasks, which are all that ever became done.
async fn check_totals(subject: &dyn Subject, held: &[ClaimedTask]) {
    let ids: Vec<TaskId> = held.iter().map(|task| task.id).collect();
    let kept = subject.store().get(&ids).await.expect("get");
    let elapsed = kept
        .iter()
        .flatten()
        .filter(|task| task.status == TaskStatus::Done);
    let elapsed: Vec<i64> = elapsed
        .map(|task| task.updated_at.micros_since(task.created_at))
        .collect();
    let expected = Totals {
        done: u64::try_from(elapsed.len()).expect("small"),
        elapsed_micros: elapsed.iter().copied().map(i128::from).sum(),
    };
    assert_eq!(subject.store().totals().await.expect("totals"), expected);
}

/// The sum of (done − created) in microseconds. Exact.
pub async fn totals_sum_the_time_from_created_to_done(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    assert_eq!(
        subject.store().totals().await.expect("totals"),
        Totals::default()
    );
    let mut held = Vec::new();
    for micros in [1_001, 2_003, 3_007] {
        held.extend(in_hand(subject, worker, 2).await);
        subject.pass(Duration::from_micros(micros)).await;
        let last: Vec<Transition> = held[held.len() - 2..].iter().map(done).collect();
        moved(subject, &last).await;
        check_totals(subject, &held).await;
    }
    let totals = subject.store().totals().await.expect("totals");
    assert_eq!(totals.done, 6);
    assert!(
        totals.elapsed_micros >= 2 * (1_001 + 2_003 + 3_007),
        "{totals:?}"
    );
    // What fails or is cancelled does not count.
    let rest = in_hand(subject, worker, 2).await;
    let outcomes = [
        settle(&rest[0], Next::Failed { error: "no".into() }),
        settle(&rest[1], Next::Cancelled),
    ];
    moved(subject, &outcomes).await;
    assert_eq!(subject.store().totals().await.expect("totals"), totals);
}

/// Forgets claims. Unknown claims are passed over, and so are those forgotten before.
pub async fn release_forgets_claims(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let store = subject.store();
    let tickets = [ticket_of(worker), ticket_of(worker), ticket_of(worker)];
    for ticket in tickets {
        let task = new_task();
        inserted(subject, std::slice::from_ref(&task)).await;
        let held = claimed(subject, ticket, &[task.id]).await;
        moved(subject, &[done(&held[0])]).await;
    }
    let gone = [tickets[0].claim, ClaimId(fresh_uuid()), tickets[2].claim];
    for _ in 0..2 {
        store.release(&gone).await.expect("release");
        let left = store.claims_of(worker, None, 10).await.expect("claims");
        assert_eq!(
            left.iter().map(|record| record.id).collect::<Vec<_>>(),
            [tickets[1].claim]
        );
    }
}

/// Up to `limit` claims recorded for a worker, oldest first.
pub async fn claims_of_lists_in_order_of_ids_from_where_it_is_told(subject: &dyn Subject) {
    let workers = [living_worker(subject).await, living_worker(subject).await];
    let store = subject.store();
    let mut made = Vec::new();
    // Made in descending order of ids, so that the order of making is not the one asked for.
    let mut tickets: Vec<ClaimTicket> = (0..8).map(|turn| ticket_of(workers[turn % 2])).collect();
    tickets.sort_by_key(|ticket| std::cmp::Reverse(ticket.claim));
    for ticket in tickets {
        let task = new_task();
        inserted(subject, std::slice::from_ref(&task)).await;
        claimed(subject, ticket, &[task.id]).await;
        made.push((ticket, task.id));
    }
    made.reverse();
    for worker in workers {
        let expected: Vec<_> = made
            .iter()
            .filter(|(ticket, _)| ticket.worker == worker)
            .collect();
        for (told, skipped) in [(None, 0), (Some(expected[1].0.claim), 2)] {
            for limit in [0, 1, 3, 100] {
                let records = store.claims_of(worker, told, limit).await.expect("claims");
                assert_eq!(records.len(), limit.min(4 - skipped));
                for (record, (ticket, id)) in records.iter().zip(&expected[skipped..]) {
                    assert_eq!((record.id, record.worker), (ticket.claim, worker));
                    assert_eq!(record.tasks, [(*id, Fence(1))]);
                }
            }
        }
    }
    assert!(
        store
            .claims_of(WorkerId(fresh_uuid()), None, 10)
            .await
            .expect("claims")
            .is_empty()
    );
}

/// Dropping a returned future never leaves half a write: the work was not started or runs to its end. And the store goes
/// on: no connection is left in the middle of something.
pub async fn dropped_futures_leave_no_half_write(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let store = subject.store();
    let mut completed = Vec::new();
    for turn in 0..60 {
        // From before the first statement to after the last, on a store that takes a millisecond or two.
        let patience = Duration::from_micros(turn * 50);
        let tasks = new_tasks(20);
        let ids = ids_of(&tasks);
        let _ = timeout(patience, store.insert(&tasks)).await;
        let stored = store.get(&ids).await.expect("get").iter().flatten().count();
        assert!(stored == 0 || stored == 20, "{stored} of 20 were stored");
        inserted(subject, &tasks).await;
        let ticket = ticket_of(worker);
        let _ = timeout(patience, store.claim_delivered(ticket, &ids)).await;
        let held = claimed(subject, ticket, &ids).await;
        let transitions: Vec<Transition> = held.iter().map(done).collect();
        let _ = timeout(patience, store.transition(&transitions)).await;
        let outcomes = moved(subject, &transitions).await;
        assert!(
            outcomes
                .iter()
                .all(|outcome| outcome.write != WriteOutcome::Stale)
        );
        completed.extend(held);
        let _ = timeout(patience, store.release(&[ticket.claim])).await;
        store.release(&[ticket.claim]).await.expect("release");
    }
    assert!(
        store
            .claims_of(worker, None, 10)
            .await
            .expect("claims")
            .is_empty()
    );
    check_totals(subject, &completed).await;
}

/// The store answers.
pub async fn ping_answers(subject: &dyn Subject) {
    subject.store().ping().await.expect("ping");
}
