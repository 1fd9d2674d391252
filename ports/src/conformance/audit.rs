//! The suite of [`TaskAudit`](crate::TaskAudit).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::audit::AuditPage;
use crate::catalog::Listing;
use crate::events::TaskEvent;
use crate::ids::{ClaimId, WorkerId};
use crate::store::{
    ClaimRecord, DeliveryOutcome, Horizon, Next, Spent, Transition, TransitionOutcome, WriteOutcome,
};
use crate::task::{Fence, NewTask, Task, TaskId, TaskStatus};
use crate::time::Timestamp;

pub use super::store::Subject;
use super::store::{inserted, living_worker, ticket_of};
use super::{fresh_id, fresh_uuid, ids_of, new_task, new_tasks};

/// Expands to a module of one test per promise of [`TaskAudit`](crate::TaskAudit).
///
/// `audit_conformance!(#[attribute]… module_name, expression_of_a_fresh_subject)`; see
/// [`conformance`](crate::conformance). The subject is that of the store's suite.
#[macro_export]
macro_rules! audit_conformance {
    ($(#[$attribute:meta])* $module:ident, $subject:expr $(,)?) => {
        $crate::__conformance_cases!(audit, $module, [$(#[$attribute])*], $subject, [
            stranded_finds_waiting_tasks_without_a_queue_row,
            stranded_finds_tasks_in_hand_without_a_claim,
            stranded_leaves_out_what_is_in_the_books,
            stranded_leaves_out_what_moved_lately,
            stranded_walks_in_order_of_ids_from_where_it_is_told,
            stranded_takes_no_traffic_for_a_contradiction,
            enqueue_makes_waiting_tasks_claimable_at_once,
            enqueue_passes_over_everything_else,
            enqueue_and_claims_at_once_get_each_task_claimed_once,
            sweep_queue_deletes_rows_without_a_waiting_task,
            sweep_queue_keeps_the_rows_of_waiting_tasks,
            sweep_queue_walks_in_order_of_ids_from_where_it_is_told,
            sweep_queue_and_transitions_at_once_strand_nobody,
            a_queue_row_without_a_waiting_task_claims_nothing,
            stranded_finds_stopped_tasks_that_are_not_listed,
            enlist_has_them_found_by_their_status,
            enlist_passes_over_everything_else,
            sweep_stopped_deletes_entries_whose_task_is_not_that,
            sweep_stopped_walks_in_order_of_ids_from_where_it_is_told,
            enlist_sweep_stopped_and_transitions_at_once_hide_nobody,
            untold_answers_cancelled_tasks_until_they_are_marked,
            untold_passes_over_everything_else,
            untold_leaves_out_what_moved_lately,
            untold_walks_in_order_of_ids_from_where_it_is_told,
            mark_told_says_nothing_of_a_later_cancellation,
            prune_deletes_what_is_at_rest_and_keeps_the_totals,
            prune_keeps_what_moved_lately,
            prune_keeps_what_stands_in_a_claim,
            prune_walks_in_order_of_ids_from_where_it_is_told,
            of_a_retry_and_a_prune_at_once_one_wins,
            orphaned_claims_are_those_of_unknown_workers,
            orphaned_claims_are_listed_in_order_of_ids_up_to_the_limit,
        ]);
    };
}

/// Longer than any step between two calls of a case, shorter than a test would like to wait.
const MOMENT: Duration = Duration::from_millis(2);
/// So long that no case sees its end.
const LONG: Duration = Duration::from_secs(3_600);
/// More than any case has.
const ALL: usize = 10_000;

async fn stranded(subject: &dyn Subject) -> Vec<Task> {
    let page = subject.audit().stranded(None, ALL, Duration::ZERO).await;
    let page = page.expect("walk");
    assert_eq!(page.next, None, "the end was reached");
    page.stranded
}

fn ids(tasks: &[Task]) -> Vec<TaskId> {
    tasks.iter().map(|task| task.id).collect()
}

fn in_order(mut ids: Vec<TaskId>) -> Vec<TaskId> {
    ids.sort_unstable();
    ids
}

async fn enqueue(subject: &dyn Subject, ids: &[TaskId]) -> usize {
    subject.audit().enqueue(ids).await.expect("enqueue")
}

async fn swept(subject: &dyn Subject) -> usize {
    let (count, next) = subject
        .audit()
        .sweep_queue(None, ALL)
        .await
        .expect("sweep the queue");
    assert_eq!(next, None, "the end was reached");
    count
}

/// Claims everything that is due.
async fn aged(subject: &dyn Subject, worker: WorkerId) -> BTreeSet<TaskId> {
    let claimed = subject
        .store()
        .claim_aged(ticket_of(worker), Horizon::Now, Duration::ZERO, ALL)
        .await;
    let claimed = claimed.expect("claim by age");
    claimed.iter().map(|task| task.id).collect()
}

async fn moved(subject: &dyn Subject, id: TaskId, fence: i64, from: TaskStatus, to: Next) {
    let transition = Transition {
        id,
        fence: Fence(fence),
        from,
        to,
        spent: Spent::Nothing,
    };
    let outcomes = subject.store().transition(&[transition]).await;
    let outcomes = outcomes.expect("transition");
    assert_eq!(outcomes[0].write, WriteOutcome::Applied);
}

fn again() -> Next {
    Next::Pending {
        delay: Duration::ZERO,
        error: None,
    }
}

fn done() -> Next {
    Next::Done {
        result: "done".to_owned(),
    }
}

/// Claims these, under a claim of their own.
async fn in_hand(subject: &dyn Subject, worker: WorkerId, tasks: &[NewTask]) -> ClaimId {
    let ticket = ticket_of(worker);
    let outcomes = subject
        .store()
        .claim_delivered(ticket, &ids_of(tasks))
        .await
        .expect("claim");
    let claimed = |outcome: &DeliveryOutcome| matches!(outcome, DeliveryOutcome::Claimed(_));
    assert!(outcomes.iter().all(claimed), "{outcomes:?}");
    ticket.claim
}

/// Tasks that are `pending` without a queue row: written by another program, or moved by this one and edited by hand. Found
/// as they stand, in ascending order of id.
pub async fn stranded_finds_waiting_tasks_without_a_queue_row(subject: &dyn Subject) {
    let planted: Vec<TaskId> = std::iter::repeat_with(fresh_id).take(3).collect();
    subject.plant(&planted, "of another program").await;
    let worker = living_worker(subject).await;
    let task = new_task();
    inserted(subject, std::slice::from_ref(&task)).await;
    let claim = in_hand(subject, worker, std::slice::from_ref(&task)).await;
    moved(subject, task.id, 1, TaskStatus::Processing, again()).await;
    subject.store().release(&[claim]).await.expect("release");
    subject.remove_queue_row(task.id).await;
    subject.pass(MOMENT).await;

    let found = stranded(subject).await;
    let mut expected = planted.clone();
    expected.push(task.id);
    let expected = in_order(expected);
    assert_eq!(ids(&found), expected);
    let as_stored = subject.store().get(&expected).await.expect("get");
    assert_eq!(found.into_iter().map(Some).collect::<Vec<_>>(), as_stored);

    assert_eq!(enqueue(subject, &expected).await, 4);
    assert!(stranded(subject).await.is_empty());
}

/// Tasks that are `processing` in no recorded claim, or in one under another fence.
pub async fn stranded_finds_tasks_in_hand_without_a_claim(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let tasks = new_tasks(5);
    inserted(subject, &tasks).await;
    let kept = in_hand(subject, worker, &tasks[..2]).await;
    let lost = in_hand(subject, worker, &tasks[2..]).await;
    subject.store().release(&[lost]).await.expect("release");
    let outdated = ClaimRecord {
        id: ClaimId(fresh_uuid()),
        worker,
        tasks: vec![(tasks[2].id, Fence(0))],
        claimed_at: Timestamp::EPOCH,
    };
    subject.plant_claim(&outdated).await;
    subject.pass(MOMENT).await;

    let found = stranded(subject).await;
    assert_eq!(ids(&found), in_order(ids_of(&tasks[2..])));
    for task in &found {
        assert_eq!(
            (task.status, task.fence),
            (TaskStatus::Processing, Fence(1))
        );
        moved(subject, task.id, 1, TaskStatus::Processing, again()).await;
    }
    assert!(stranded(subject).await.is_empty());
    // Nothing of it concerned the others.
    let claims = subject.store().claims_of(worker, None, ALL).await;
    let claims = claims.expect("claims");
    assert!(claims.iter().any(|claim| claim.id == kept));
}

/// Tasks that wait with a queue row (due, early, messaged or not), that a claim holds (of a dead worker too), and tasks at
/// rest, in a claim or not.
pub async fn stranded_leaves_out_what_is_in_the_books(subject: &dyn Subject) {
    let mut tasks = new_tasks(6);
    tasks[1].messaged = true;
    tasks[2].run_at = Some(Timestamp::from_micros(32_503_680_000_000_000));
    inserted(subject, &tasks).await;
    let worker = living_worker(subject).await;
    in_hand(subject, worker, &tasks[3..5]).await;
    moved(subject, tasks[4].id, 1, TaskStatus::Processing, done()).await;
    moved(
        subject,
        tasks[5].id,
        0,
        TaskStatus::Pending,
        Next::Cancelled,
    )
    .await;
    subject.pass(MOMENT).await;
    assert!(stranded(subject).await.is_empty());
    let outcome = subject.registry().declare_dead(worker, 0).await;
    assert_eq!(outcome.expect("declare dead"), WriteOutcome::Applied);
    assert!(stranded(subject).await.is_empty());
}

/// Only those that have not moved for the time that is asked for (store's clock).
pub async fn stranded_leaves_out_what_moved_lately(subject: &dyn Subject) {
    let (old, new) = (fresh_id(), fresh_id());
    subject.plant(&[old], "old").await;
    // Some stores stamp what another program writes to the second only.
    subject.pass(Duration::from_millis(2_100)).await;
    subject.plant(&[new], "new").await;
    let walk = async |unmoved_for| {
        let page = subject.audit().stranded(None, ALL, unmoved_for).await;
        ids(&page.expect("walk").stranded)
    };
    assert_eq!(walk(LONG).await, []);
    assert_eq!(walk(Duration::MAX).await, []);
    assert_eq!(walk(Duration::from_millis(2_050)).await, [old]);
    subject.pass(MOMENT).await;
    assert_eq!(walk(Duration::ZERO).await, in_order(vec![old, new]));
}

/// Up to `limit` tasks in ascending order of id, beginning after `after`; answers the last one walked, until the end.
pub async fn stranded_walks_in_order_of_ids_from_where_it_is_told(subject: &dyn Subject) {
    let audit = subject.audit();
    let walk = async |after, limit| {
        let page = audit.stranded(after, limit, Duration::ZERO).await;
        page.expect("walk")
    };
    assert_eq!(walk(None, 10).await, AuditPage::default());
    let tasks = new_tasks(3);
    inserted(subject, &tasks).await;
    let planted: Vec<TaskId> = std::iter::repeat_with(fresh_id).take(4).collect();
    subject.plant(&planted, "of another program").await;
    subject.pass(MOMENT).await;
    let mut all = ids_of(&tasks);
    all.extend(&planted);
    let all = in_order(all);

    let (mut found, mut pages, mut after) = (Vec::new(), 0, None);
    loop {
        let page = walk(after, 2).await;
        let walked = all[pages * 2..].iter().take(2);
        let expected: Vec<TaskId> = walked.copied().filter(|id| planted.contains(id)).collect();
        assert_eq!(ids(&page.stranded), expected);
        found.extend(expected);
        pages += 1;
        if page.next.is_none() {
            break;
        }
        assert_eq!(page.next, Some(all[pages * 2 - 1]));
        after = page.next;
    }
    assert_eq!((found.len(), pages), (4, 4));
    assert_eq!(ids(&walk(Some(all[6]), 2).await.stranded), []);
    assert_eq!(ids(&walk(None, 0).await.stranded), []);
    let last = TaskId(uuid::Uuid::max());
    assert_eq!(walk(Some(last), 2).await, AuditPage::default());
    // The exact end may show only in the next stretch, which then is empty.
    let exact = walk(None, 7).await;
    if let Some(next) = exact.next {
        assert_eq!(walk(Some(next), 7).await, AuditPage::default());
    }
}

/// Compared as they stood at one moment: claims, transitions and releases at the same time are no contradiction.
pub async fn stranded_takes_no_traffic_for_a_contradiction(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let mut traffic = JoinSet::new();
    for _ in 0..4 {
        let store = subject.store();
        traffic.spawn(async move {
            for _ in 0..15 {
                let tasks = new_tasks(5);
                store.insert(&tasks).await.expect("insert");
                let mut fence = 0;
                for next in [again(), done()] {
                    let ticket = ticket_of(worker);
                    let claimed = store.claim_delivered(ticket, &ids_of(&tasks)).await;
                    claimed.expect("claim");
                    fence += 1;
                    let moves: Vec<Transition> = tasks
                        .iter()
                        .map(|task| Transition {
                            id: task.id,
                            fence: Fence(fence),
                            from: TaskStatus::Processing,
                            to: next.clone(),
                            spent: Spent::Nothing,
                        })
                        .collect();
                    store.transition(&moves).await.expect("transition");
                    store.release(&[ticket.claim]).await.expect("release");
                    fence += 1;
                }
            }
        });
    }
    loop {
        let found = stranded(subject).await;
        assert!(found.is_empty(), "{found:?}");
        assert_eq!(swept(subject).await, 0);
        if let Some(ended) = traffic.try_join_next() {
            ended.expect("no panic");
        } else if traffic.is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    }
}

/// A queue row due at once and not messaged; the task itself does not change. Answers how many it gave.
pub async fn enqueue_makes_waiting_tasks_claimable_at_once(subject: &dyn Subject) {
    let planted: Vec<TaskId> = std::iter::repeat_with(fresh_id).take(3).collect();
    subject.plant(&planted, "of another program").await;
    let before = subject.store().get(&planted).await.expect("get");
    assert_eq!(enqueue(subject, &[]).await, 0);
    assert_eq!(enqueue(subject, &planted[..2]).await, 2);
    let after = subject.store().get(&planted).await.expect("get");
    assert_eq!(before, after);
    subject.pass(MOMENT).await;
    let worker = living_worker(subject).await;
    let claimed = subject
        .store()
        .claim_aged(ticket_of(worker), Horizon::Now, LONG, ALL)
        .await
        .expect("claim by age");
    let claimed: BTreeSet<TaskId> = claimed.iter().map(|task| task.id).collect();
    assert_eq!(claimed, planted[..2].iter().copied().collect());
}

/// Tasks that have a queue row (it keeps its time), that are not `pending`, or that do not exist; ids given twice.
pub async fn enqueue_passes_over_everything_else(subject: &dyn Subject) {
    let mut tasks = new_tasks(4);
    tasks[0].run_at = Some(Timestamp::from_micros(32_503_680_000_000_000));
    inserted(subject, &tasks).await;
    let worker = living_worker(subject).await;
    in_hand(subject, worker, &tasks[1..3]).await;
    moved(subject, tasks[2].id, 1, TaskStatus::Processing, done()).await;
    let planted = fresh_id();
    subject.plant(&[planted], "of another program").await;
    let mut ids = ids_of(&tasks[..3]);
    ids.extend([fresh_id(), planted, planted]);
    assert_eq!(enqueue(subject, &ids).await, 1);
    assert_eq!(enqueue(subject, &ids).await, 0);
    assert_eq!(swept(subject).await, 0);
    subject.pass(MOMENT).await;
    let expected = BTreeSet::from([tasks[3].id, planted]);
    assert_eq!(aged(subject, worker).await, expected);
}

/// A task that is claimed at the same time is claimed once; a queue row that this leaves behind is swept.
pub async fn enqueue_and_claims_at_once_get_each_task_claimed_once(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    for _ in 0..20 {
        let planted: Vec<TaskId> = std::iter::repeat_with(fresh_id).take(20).collect();
        subject.plant(&planted, "of another program").await;
        let start = Arc::new(Barrier::new(2));
        let (audit, gate, ids) = (subject.audit(), Arc::clone(&start), planted.clone());
        let enqueuing = tokio::spawn(async move {
            gate.wait().await;
            audit.enqueue(&ids).await.expect("enqueue")
        });
        let (store, ids) = (subject.store(), planted.clone());
        let claiming = tokio::spawn(async move {
            start.wait().await;
            let outcomes = store.claim_delivered(ticket_of(worker), &ids).await;
            let claimed =
                |outcome: &&DeliveryOutcome| matches!(outcome, DeliveryOutcome::Claimed(_));
            outcomes.expect("claim").iter().filter(claimed).count()
        });
        enqueuing.await.expect("no panic");
        let by_delivery = claiming.await.expect("no panic");
        swept(subject).await;
        subject.pass(MOMENT).await;
        let by_age = aged(subject, worker).await.len();
        assert_eq!(by_delivery + by_age, planted.len());
    }
}

/// Rows whose task is in hand, at rest, or does not exist; the answer says how many.
pub async fn sweep_queue_deletes_rows_without_a_waiting_task(subject: &dyn Subject) {
    let tasks = new_tasks(4);
    inserted(subject, &tasks).await;
    let worker = living_worker(subject).await;
    in_hand(subject, worker, &tasks[..3]).await;
    moved(subject, tasks[1].id, 1, TaskStatus::Processing, done()).await;
    for id in [tasks[0].id, tasks[1].id, fresh_id(), fresh_id()] {
        subject.plant_queue_row(id).await;
    }
    assert_eq!(swept(subject).await, 4);
    assert_eq!(swept(subject).await, 0);
    subject.pass(MOMENT).await;
    assert_eq!(aged(subject, worker).await, BTreeSet::from([tasks[3].id]));
}

/// Due or early, messaged or not.
pub async fn sweep_queue_keeps_the_rows_of_waiting_tasks(subject: &dyn Subject) {
    let mut tasks = new_tasks(4);
    tasks[1].messaged = true;
    tasks[2].run_at = Some(Timestamp::from_micros(32_503_680_000_000_000));
    inserted(subject, &tasks).await;
    let worker = living_worker(subject).await;
    let claim = in_hand(subject, worker, &tasks[3..]).await;
    moved(subject, tasks[3].id, 1, TaskStatus::Processing, again()).await;
    subject.store().release(&[claim]).await.expect("release");
    assert_eq!(swept(subject).await, 0);
    subject.pass(MOMENT).await;
    let expected = BTreeSet::from([tasks[0].id, tasks[1].id, tasks[3].id]);
    assert_eq!(aged(subject, worker).await, expected);
    assert!(stranded(subject).await.is_empty());
}

/// Up to `limit` rows in ascending order of id, beginning after `after`; answers the last one walked, until the end.
pub async fn sweep_queue_walks_in_order_of_ids_from_where_it_is_told(subject: &dyn Subject) {
    let audit = subject.audit();
    let sweep = async |after, limit| audit.sweep_queue(after, limit).await.expect("sweep");
    assert_eq!(sweep(None, 10).await, (0, None));
    let tasks = new_tasks(3);
    inserted(subject, &tasks).await;
    let planted: Vec<TaskId> = std::iter::repeat_with(fresh_id).take(4).collect();
    for id in &planted {
        subject.plant_queue_row(*id).await;
    }
    let mut all = ids_of(&tasks);
    all.extend(&planted);
    let all = in_order(all);
    let of = |walked: &[TaskId]| walked.iter().filter(|id| planted.contains(id)).count();
    assert_eq!(sweep(None, 0).await.0, 0);
    assert_eq!(sweep(Some(all[0]), 3).await, (of(&all[1..4]), Some(all[3])));
    assert_eq!(sweep(Some(all[3]), 5).await, (of(&all[4..]), None));
    assert_eq!(sweep(None, ALL).await, (of(&all[..1]), None));
    assert_eq!(sweep(Some(TaskId(uuid::Uuid::max())), 5).await, (0, None));
}

/// The row of a task that becomes `pending` at the same time is kept, whatever the row was before.
pub async fn sweep_queue_and_transitions_at_once_strand_nobody(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    for _ in 0..30 {
        let tasks = new_tasks(10);
        inserted(subject, &tasks).await;
        let claim = in_hand(subject, worker, &tasks).await;
        for task in &tasks {
            subject.plant_queue_row(task.id).await;
        }
        let start = Arc::new(Barrier::new(2));
        let (audit, gate) = (subject.audit(), Arc::clone(&start));
        let sweeping = tokio::spawn(async move {
            gate.wait().await;
            audit.sweep_queue(None, ALL).await.expect("sweep");
        });
        let moves: Vec<Transition> = tasks
            .iter()
            .map(|task| Transition {
                id: task.id,
                fence: Fence(1),
                from: TaskStatus::Processing,
                to: again(),
                spent: Spent::Nothing,
            })
            .collect();
        let store = subject.store();
        let moving = tokio::spawn(async move {
            start.wait().await;
            store.transition(&moves).await.expect("transition")
        });
        sweeping.await.expect("no panic");
        let outcomes = moving.await.expect("no panic");
        assert!(
            outcomes
                .iter()
                .all(|outcome| outcome.write == WriteOutcome::Applied)
        );
        subject.store().release(&[claim]).await.expect("release");
        let left = stranded(subject).await;
        assert!(left.is_empty(), "{left:?}");
        subject.pass(MOMENT).await;
        assert_eq!(
            aged(subject, worker).await,
            ids_of(&tasks).into_iter().collect()
        );
    }
}

/// Nobody's result is undone by it, and it stands in nobody's way.
pub async fn a_queue_row_without_a_waiting_task_claims_nothing(subject: &dyn Subject) {
    let tasks = new_tasks(3);
    inserted(subject, &tasks[..2]).await;
    let worker = living_worker(subject).await;
    in_hand(subject, worker, &tasks[..2]).await;
    moved(subject, tasks[1].id, 1, TaskStatus::Processing, done()).await;
    let before = subject.store().get(&ids_of(&tasks)).await.expect("get");
    for id in [tasks[0].id, tasks[1].id, fresh_id()] {
        subject.plant_queue_row(id).await;
    }
    subject.pass(MOMENT).await;
    inserted(subject, &tasks[2..]).await;
    subject.pass(MOMENT).await;
    let mut claimed = BTreeSet::new();
    for _ in 0..4 {
        let one = subject
            .store()
            .claim_aged(ticket_of(worker), Horizon::Now, Duration::ZERO, 1)
            .await
            .expect("claim by age");
        claimed.extend(one.iter().map(|task| task.id));
    }
    assert_eq!(claimed, BTreeSet::from([tasks[2].id]));
    let after = subject.store().get(&ids_of(&tasks)).await.expect("get");
    assert_eq!(before[..2], after[..2]);
    swept(subject).await;
}

/// Moves tasks that wait to `failed` and `cancelled` by turns.
async fn stopped(subject: &dyn Subject, tasks: &[NewTask]) {
    for (task, end) in tasks.iter().zip([failed(), Next::Cancelled].iter().cycle()) {
        moved(subject, task.id, 0, TaskStatus::Pending, end.clone()).await;
    }
}

async fn unlisted(subject: &dyn Subject) -> Vec<TaskId> {
    // However long they have not moved: nobody may be on the way to list them.
    let page = subject.audit().stranded(None, ALL, LONG).await;
    let page = page.expect("walk");
    assert_eq!(page.stranded, []);
    page.unlisted
}

async fn enlisted(subject: &dyn Subject, ids: &[TaskId]) -> usize {
    subject.audit().enlist(ids).await.expect("enlist")
}

async fn swept_list(subject: &dyn Subject) -> usize {
    let outcome = subject.audit().sweep_stopped(None, ALL).await;
    let (count, next) = outcome.expect("sweep the list");
    assert_eq!(next, None, "the end was reached");
    count
}

/// What a listing by this status shows, in ascending order of id.
async fn shown(subject: &dyn Subject, status: TaskStatus) -> Vec<TaskId> {
    let listing = Listing {
        status: Some(status),
        priority: None,
        created_from: None,
        created_before: None,
        below: None,
        walk: ALL,
        limit: ALL,
        bytes: usize::MAX,
    };
    let listed = subject.catalog().list(&listing).await.expect("list");
    in_order(ids(&listed.tasks))
}

/// Tasks that are failed or cancelled and listed not at all, or as the other of the two; in ascending order of id, whenever they
/// moved.
pub async fn stranded_finds_stopped_tasks_that_are_not_listed(subject: &dyn Subject) {
    let tasks = new_tasks(7);
    inserted(subject, &tasks).await;
    stopped(subject, &tasks[..5]).await;
    assert_eq!(unlisted(subject).await, []);
    for task in &tasks[1..4] {
        subject.remove_stopped(task.id).await;
    }
    // It is cancelled.
    subject.plant_stopped(tasks[3].id, false).await;
    assert_eq!(unlisted(subject).await, in_order(ids_of(&tasks[1..4])));
    let page = subject.audit().stranded(Some(tasks[1].id), 1, LONG).await;
    assert_eq!(page.expect("walk").unlisted, [tasks[2].id]);
    assert_eq!(enlisted(subject, &ids_of(&tasks)).await, 3);
    assert_eq!(unlisted(subject).await, []);
    assert_eq!(swept_list(subject).await, 1);
}

/// A listing by status shows them again; the task itself does not change. Answers how many it listed.
pub async fn enlist_has_them_found_by_their_status(subject: &dyn Subject) {
    let tasks = new_tasks(4);
    inserted(subject, &tasks).await;
    stopped(subject, &tasks).await;
    let all = ids_of(&tasks);
    for id in &all {
        subject.remove_stopped(*id).await;
    }
    assert_eq!(shown(subject, TaskStatus::Failed).await, []);
    assert_eq!(shown(subject, TaskStatus::Cancelled).await, []);
    let before = subject.store().get(&all).await.expect("get");
    assert_eq!(enlisted(subject, &[]).await, 0);
    assert_eq!(enlisted(subject, &all).await, 4);
    let after = subject.store().get(&all).await.expect("get");
    assert_eq!(before, after);
    let failed = in_order(vec![all[0], all[2]]);
    assert_eq!(shown(subject, TaskStatus::Failed).await, failed);
    let cancelled = in_order(vec![all[1], all[3]]);
    assert_eq!(shown(subject, TaskStatus::Cancelled).await, cancelled);
    assert_eq!(swept_list(subject).await, 0);
}

/// Tasks that are listed, that are neither failed nor cancelled, or that do not exist; ids given twice.
pub async fn enlist_passes_over_everything_else(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let tasks = new_tasks(5);
    inserted(subject, &tasks).await;
    stopped(subject, &tasks[..2]).await;
    let claim = in_hand(subject, worker, &tasks[2..4]).await;
    moved(subject, tasks[2].id, 1, TaskStatus::Processing, done()).await;
    subject.remove_stopped(tasks[0].id).await;
    let mut all = ids_of(&tasks);
    all.extend([fresh_id(), tasks[0].id]);
    assert_eq!(enlisted(subject, &all).await, 1);
    assert_eq!(enlisted(subject, &all).await, 0);
    assert_eq!(swept_list(subject).await, 0);
    moved(subject, tasks[3].id, 1, TaskStatus::Processing, done()).await;
    subject.store().release(&[claim]).await.expect("release");
}

/// Entries of tasks that wait, are in hand, are done, are the other of the two, or do not exist; the others are kept. No listing
/// shows what is listed in vain.
pub async fn sweep_stopped_deletes_entries_whose_task_is_not_that(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let tasks = new_tasks(6);
    inserted(subject, &tasks).await;
    stopped(subject, &tasks[..2]).await;
    let claim = in_hand(subject, worker, &tasks[2..4]).await;
    moved(subject, tasks[2].id, 1, TaskStatus::Processing, done()).await;
    let kept = [tasks[0].id, tasks[1].id];
    for id in [tasks[2].id, tasks[3].id, tasks[4].id, fresh_id(), kept[0]] {
        subject.plant_stopped(id, true).await;
    }
    for id in [tasks[2].id, tasks[5].id, fresh_id(), kept[1]] {
        subject.plant_stopped(id, false).await;
    }
    assert_eq!(shown(subject, TaskStatus::Failed).await, kept[..1]);
    assert_eq!(shown(subject, TaskStatus::Cancelled).await, kept[1..]);
    assert_eq!(swept_list(subject).await, 9);
    assert_eq!(swept_list(subject).await, 0);
    assert_eq!(shown(subject, TaskStatus::Failed).await, kept[..1]);
    assert_eq!(shown(subject, TaskStatus::Cancelled).await, kept[1..]);
    assert_eq!(unlisted(subject).await, []);
    moved(subject, tasks[3].id, 1, TaskStatus::Processing, done()).await;
    subject.store().release(&[claim]).await.expect("release");
}

/// Up to `limit` listed tasks in ascending order of id, whatever they are listed as, beginning after `after`; answers the last
/// one walked, until the end.
pub async fn sweep_stopped_walks_in_order_of_ids_from_where_it_is_told(subject: &dyn Subject) {
    let audit = subject.audit();
    let sweep = async |after, limit| audit.sweep_stopped(after, limit).await.expect("sweep");
    assert_eq!(sweep(None, 10).await, (0, None));
    let tasks = new_tasks(3);
    inserted(subject, &tasks).await;
    stopped(subject, &tasks).await;
    let planted: Vec<TaskId> = std::iter::repeat_with(fresh_id).take(4).collect();
    for (id, cancelled) in planted.iter().zip([true, false].iter().cycle()) {
        subject.plant_stopped(*id, *cancelled).await;
    }
    let mut all = ids_of(&tasks);
    all.extend(&planted);
    let all = in_order(all);
    let of = |walked: &[TaskId]| walked.iter().filter(|id| planted.contains(id)).count();
    assert_eq!(sweep(None, 0).await.0, 0);
    assert_eq!(sweep(Some(all[0]), 3).await, (of(&all[1..4]), Some(all[3])));
    assert_eq!(sweep(Some(all[3]), 5).await, (of(&all[4..]), None));
    assert_eq!(sweep(None, ALL).await, (of(&all[..1]), None));
    assert_eq!(sweep(Some(TaskId(uuid::Uuid::max())), 5).await, (0, None));
}

/// A task that comes to rest, or is tried again, at the same time is found by its status afterwards if it has it, and what was left
/// behind is swept.
pub async fn enlist_sweep_stopped_and_transitions_at_once_hide_nobody(subject: &dyn Subject) {
    for _ in 0..30 {
        let tasks = new_tasks(10);
        inserted(subject, &tasks).await;
        // The first half waits and is listed in vain, the others are failed and not listed.
        for task in &tasks[..5] {
            subject.plant_stopped(task.id, false).await;
        }
        for task in &tasks[5..] {
            moved(subject, task.id, 0, TaskStatus::Pending, failed()).await;
            subject.remove_stopped(task.id).await;
        }
        let start = Arc::new(Barrier::new(2));
        let (audit, gate, all) = (subject.audit(), Arc::clone(&start), ids_of(&tasks));
        let auditing = tokio::spawn(async move {
            gate.wait().await;
            audit.sweep_stopped(None, ALL).await.expect("sweep");
            audit.enlist(&all).await.expect("enlist");
        });
        let failing = |task: &NewTask| (task.id, Fence(0), TaskStatus::Pending, failed());
        let retrying = |task: &NewTask| (task.id, Fence(1), TaskStatus::Failed, again());
        let failing = tasks[..5].iter().map(failing);
        let moves: Vec<Transition> = failing
            .chain(tasks[5..].iter().map(retrying))
            .map(|(id, fence, from, to)| Transition {
                id,
                fence,
                from,
                to,
                spent: Spent::Nothing,
            })
            .collect();
        let store = subject.store();
        let moving = tokio::spawn(async move {
            start.wait().await;
            store.transition(&moves).await.expect("transition")
        });
        auditing.await.expect("no panic");
        let outcomes = moving.await.expect("no panic");
        let is_applied = |outcome: &TransitionOutcome| outcome.write == WriteOutcome::Applied;
        assert!(outcomes.iter().all(is_applied), "{outcomes:?}");
        assert_eq!(unlisted(subject).await, []);
        swept_list(subject).await;
        let expected = in_order(ids_of(&tasks[..5]));
        assert_eq!(shown(subject, TaskStatus::Failed).await, expected);
        for task in &tasks[..5] {
            moved(subject, task.id, 1, TaskStatus::Failed, Next::Cancelled).await;
        }
    }
}

/// What is to be told, whenever it moved.
async fn untold(subject: &dyn Subject) -> Vec<TaskEvent> {
    let outcome = subject.audit().untold(None, ALL, Duration::ZERO).await;
    let (events, next) = outcome.expect("walk");
    assert_eq!(next, None, "the end was reached");
    events
}

async fn told(subject: &dyn Subject, ids: &[TaskId]) {
    subject.audit().mark_told(ids).await.expect("mark");
}

/// Each as it stands, whoever cancelled it, in ascending order of id; marking is idempotent and changes no task.
pub async fn untold_answers_cancelled_tasks_until_they_are_marked(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let tasks = new_tasks(4);
    inserted(subject, &tasks).await;
    let claim = in_hand(subject, worker, &tasks[..1]).await;
    let cancelled = || Next::Cancelled;
    moved(subject, tasks[0].id, 1, TaskStatus::Processing, cancelled()).await;
    for task in &tasks[1..] {
        moved(subject, task.id, 0, TaskStatus::Pending, cancelled()).await;
    }
    let all = in_order(ids_of(&tasks));
    let before = subject.store().get(&all).await.expect("get");
    let event = |task: &Task| TaskEvent {
        id: task.id,
        status: TaskStatus::Cancelled,
        fence: task.fence,
        at: task.updated_at,
    };
    let expected: Vec<TaskEvent> = before.iter().flatten().map(event).collect();
    assert_eq!(untold(subject).await, expected);
    assert_eq!(untold(subject).await, expected, "until they are marked");
    told(subject, &[]).await;
    told(subject, &[all[1], all[1], all[3]]).await;
    assert_eq!(untold(subject).await, [expected[0], expected[2]]);
    told(subject, &all).await;
    assert_eq!(untold(subject).await, []);
    let after = subject.store().get(&all).await.expect("get");
    assert_eq!(before, after);
    assert_eq!(swept_list(subject).await, 0);
    subject.store().release(&[claim]).await.expect("release");
}

/// What failed, waits, is in hand or done, entries in vain, ids that nobody has. A cancelled task that was not listed is told of
/// once it is.
pub async fn untold_passes_over_everything_else(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let tasks = new_tasks(5);
    inserted(subject, &tasks).await;
    stopped(subject, &tasks[..2]).await;
    let claim = in_hand(subject, worker, &tasks[2..4]).await;
    moved(subject, tasks[2].id, 1, TaskStatus::Processing, done()).await;
    for id in [tasks[2].id, tasks[3].id, tasks[4].id, fresh_id()] {
        subject.plant_stopped(id, true).await;
    }
    let ids = async || -> Vec<TaskId> {
        let events = untold(subject).await;
        events.iter().map(|event| event.id).collect()
    };
    assert_eq!(ids().await, [tasks[1].id]);
    told(subject, &[tasks[0].id, tasks[2].id, fresh_id()]).await;
    assert_eq!(ids().await, [tasks[1].id]);
    told(subject, &[tasks[1].id]).await;
    assert_eq!(ids().await, []);
    subject.remove_stopped(tasks[1].id).await;
    assert_eq!(ids().await, []);
    assert_eq!(enlisted(subject, &[tasks[1].id]).await, 1);
    assert_eq!(ids().await, [tasks[1].id]);
    assert_eq!(swept_list(subject).await, 4);
    moved(subject, tasks[3].id, 1, TaskStatus::Processing, done()).await;
    subject.store().release(&[claim]).await.expect("release");
}

/// Whoever cancelled it may be about to tell.
pub async fn untold_leaves_out_what_moved_lately(subject: &dyn Subject) {
    let tasks = new_tasks(1);
    inserted(subject, &tasks).await;
    moved(
        subject,
        tasks[0].id,
        0,
        TaskStatus::Pending,
        Next::Cancelled,
    )
    .await;
    let untold_for = async |time| {
        let outcome = subject.audit().untold(None, ALL, time).await;
        outcome.expect("walk").0.len()
    };
    assert_eq!(untold_for(LONG).await, 0);
    assert_eq!(untold_for(Duration::MAX).await, 0);
    subject.pass(MOMENT).await;
    assert_eq!(untold_for(MOMENT).await, 1);
}

/// Up to `limit` entries that say cancelled, told or not, beginning after `after`; answers the last one walked, until the end.
pub async fn untold_walks_in_order_of_ids_from_where_it_is_told(subject: &dyn Subject) {
    let audit = subject.audit();
    let walk = async |after, limit| {
        let (events, next) = audit
            .untold(after, limit, Duration::ZERO)
            .await
            .expect("walk");
        let ids: Vec<TaskId> = events.iter().map(|event| event.id).collect();
        (ids, next)
    };
    assert_eq!(walk(None, 10).await, (vec![], None));
    let tasks = new_tasks(6);
    inserted(subject, &tasks).await;
    for task in &tasks {
        moved(subject, task.id, 0, TaskStatus::Pending, Next::Cancelled).await;
    }
    let all = in_order(ids_of(&tasks));
    told(subject, &all[2..4]).await;
    assert_eq!(walk(None, 0).await.0, []);
    assert_eq!(walk(None, 3).await, (all[..2].to_vec(), Some(all[2])));
    assert_eq!(walk(Some(all[2]), 1).await, (vec![], Some(all[3])));
    assert_eq!(walk(Some(all[3]), 3).await, (all[4..].to_vec(), None));
    assert_eq!(
        walk(Some(TaskId(uuid::Uuid::max())), 5).await,
        (vec![], None)
    );
}

/// A mark on an entry in vain says nothing of the cancellation that comes after it.
pub async fn mark_told_says_nothing_of_a_later_cancellation(subject: &dyn Subject) {
    let tasks = new_tasks(1);
    inserted(subject, &tasks).await;
    subject.plant_stopped(tasks[0].id, true).await;
    told(subject, &[tasks[0].id]).await;
    assert_eq!(untold(subject).await, []);
    moved(
        subject,
        tasks[0].id,
        0,
        TaskStatus::Pending,
        Next::Cancelled,
    )
    .await;
    assert_eq!(untold(subject).await.len(), 1);
}

async fn pruned(subject: &dyn Subject, older_than: Duration) -> usize {
    let outcome = subject.audit().prune(None, ALL, older_than).await;
    let (count, next) = outcome.expect("prune");
    assert_eq!(next, None, "the end was reached");
    count
}

async fn left(subject: &dyn Subject, tasks: &[NewTask]) -> Vec<bool> {
    let found = subject.store().get(&ids_of(tasks)).await.expect("get");
    found.iter().map(Option::is_some).collect()
}

fn failed() -> Next {
    Next::Failed {
        error: "failed".to_owned(),
    }
}

/// Deletes those that are done, failed or cancelled; what waits or is in hand stays. What was done stays counted.
pub async fn prune_deletes_what_is_at_rest_and_keeps_the_totals(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let tasks = new_tasks(6);
    inserted(subject, &tasks).await;
    let claim = in_hand(subject, worker, &tasks[..3]).await;
    in_hand(subject, worker, &tasks[3..4]).await;
    let ends = [done(), failed(), Next::Cancelled];
    for (task, end) in tasks.iter().zip(ends) {
        moved(subject, task.id, 1, TaskStatus::Processing, end).await;
    }
    moved(
        subject,
        tasks[4].id,
        0,
        TaskStatus::Pending,
        Next::Cancelled,
    )
    .await;
    subject.store().release(&[claim]).await.expect("release");
    let before = subject.store().totals().await.expect("totals");
    assert_eq!(before.done, 1);
    assert_eq!(pruned(subject, Duration::ZERO).await, 4);
    let stays = [false, false, false, true, false, true];
    assert_eq!(left(subject, &tasks).await, stays);
    assert_eq!(subject.store().totals().await.expect("totals"), before);
    assert_eq!(pruned(subject, Duration::ZERO).await, 0);
    moved(subject, tasks[3].id, 1, TaskStatus::Processing, done()).await;
    let after = subject.store().totals().await.expect("totals");
    assert_eq!(after.done, 2);
    // A message that comes late finds nothing.
    let late = subject
        .store()
        .claim_delivered(ticket_of(worker), &[tasks[0].id])
        .await;
    assert_eq!(late.expect("claim"), [DeliveryOutcome::Unknown]);
}

/// … that have not moved for `older_than`.
pub async fn prune_keeps_what_moved_lately(subject: &dyn Subject) {
    let tasks = new_tasks(2);
    inserted(subject, &tasks).await;
    moved(
        subject,
        tasks[0].id,
        0,
        TaskStatus::Pending,
        Next::Cancelled,
    )
    .await;
    assert_eq!(pruned(subject, LONG).await, 0);
    assert_eq!(pruned(subject, Duration::MAX).await, 0);
    assert_eq!(left(subject, &tasks).await, [true, true]);
    subject.pass(MOMENT).await;
    moved(
        subject,
        tasks[1].id,
        0,
        TaskStatus::Pending,
        Next::Cancelled,
    )
    .await;
    assert_eq!(pruned(subject, Duration::ZERO).await, 2);
}

/// … and stand in no recorded claim.
pub async fn prune_keeps_what_stands_in_a_claim(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let tasks = new_tasks(2);
    inserted(subject, &tasks).await;
    let claim = in_hand(subject, worker, &tasks).await;
    for task in &tasks {
        moved(subject, task.id, 1, TaskStatus::Processing, done()).await;
    }
    assert_eq!(pruned(subject, Duration::ZERO).await, 0);
    assert_eq!(left(subject, &tasks).await, [true, true]);
    subject.store().release(&[claim]).await.expect("release");
    assert_eq!(pruned(subject, Duration::ZERO).await, 2);
    assert_eq!(left(subject, &tasks).await, [false, false]);
}

/// In ascending order of id, beginning after `after`; `None` when the end of the table was reached.
pub async fn prune_walks_in_order_of_ids_from_where_it_is_told(subject: &dyn Subject) {
    let tasks = new_tasks(5);
    inserted(subject, &tasks).await;
    for task in [0, 1, 4].map(|index| &tasks[index]) {
        moved(subject, task.id, 0, TaskStatus::Pending, Next::Cancelled).await;
    }
    let audit = subject.audit();
    let walk = async |after, limit| {
        let outcome = audit.prune(after, limit, Duration::ZERO).await;
        outcome.expect("prune")
    };
    assert_eq!(walk(None, 0).await, (0, None));
    assert_eq!(walk(Some(tasks[0].id), 2).await, (1, Some(tasks[2].id)));
    assert_eq!(walk(Some(tasks[2].id), 2).await, (1, Some(tasks[4].id)));
    assert_eq!(walk(Some(tasks[4].id), 2).await, (0, None));
    assert_eq!(walk(None, 2).await, (1, Some(tasks[2].id)));
    assert_eq!(
        left(subject, &tasks).await,
        [false, false, true, true, false]
    );
}

/// A task that moves at the same time is kept.
pub async fn of_a_retry_and_a_prune_at_once_one_wins(subject: &dyn Subject) {
    let tasks = new_tasks(50);
    inserted(subject, &tasks).await;
    for task in &tasks {
        moved(subject, task.id, 0, TaskStatus::Pending, failed()).await;
    }
    let barrier = Arc::new(Barrier::new(2));
    let mut pruners = JoinSet::new();
    let (audit, meeting) = (subject.audit(), Arc::clone(&barrier));
    pruners.spawn(async move {
        meeting.wait().await;
        let mut count = 0;
        let mut after = None;
        loop {
            let (pruned, next) = audit.prune(after, 7, Duration::ZERO).await.expect("prune");
            count += pruned;
            after = next;
            if after.is_none() {
                return count;
            }
        }
    });
    barrier.wait().await;
    let mut retried = Vec::new();
    for task in tasks.iter().rev() {
        let retry = Transition {
            id: task.id,
            fence: Fence(1),
            from: TaskStatus::Failed,
            to: again(),
            spent: Spent::Reset,
        };
        let outcomes = subject.store().transition(&[retry]).await;
        retried.push(outcomes.expect("transition")[0].write == WriteOutcome::Applied);
    }
    retried.reverse();
    let count = pruners.join_next().await.expect("it runs");
    let kept = left(subject, &tasks).await;
    assert_eq!(kept, retried, "what was retried is there, and nothing else");
    let gone = kept.iter().filter(|kept| !**kept).count();
    assert_eq!(count.expect("no panic"), gone);
}

/// Claims of workers that live or were declared dead are no orphans; those of a worker that is not registered are, as they
/// were recorded.
pub async fn orphaned_claims_are_those_of_unknown_workers(subject: &dyn Subject) {
    let tasks = new_tasks(2);
    inserted(subject, &tasks).await;
    let (living, dead) = (living_worker(subject).await, living_worker(subject).await);
    in_hand(subject, living, &tasks[..1]).await;
    in_hand(subject, dead, &tasks[1..]).await;
    let outcome = subject.registry().declare_dead(dead, 0).await;
    assert_eq!(outcome.expect("declare dead"), WriteOutcome::Applied);
    let listed = async || {
        let claims = subject.audit().orphaned_claims(ALL).await;
        claims.expect("orphaned claims")
    };
    assert_eq!(listed().await, []);
    let mut held = vec![(fresh_id(), Fence(3)), (fresh_id(), Fence(i64::MAX))];
    held.sort_unstable();
    let orphan = ClaimRecord {
        id: ClaimId(fresh_uuid()),
        worker: WorkerId(fresh_uuid()),
        tasks: held,
        claimed_at: Timestamp::from_micros(1_704_067_202_345_678),
    };
    subject.plant_claim(&orphan).await;
    assert_eq!(listed().await, std::slice::from_ref(&orphan));
    subject
        .store()
        .release(&[orphan.id])
        .await
        .expect("release");
    assert_eq!(listed().await, []);
}

/// In ascending order of id, whoever they belong to.
pub async fn orphaned_claims_are_listed_in_order_of_ids_up_to_the_limit(subject: &dyn Subject) {
    let workers = [WorkerId(fresh_uuid()), WorkerId(fresh_uuid())];
    let mut planted = Vec::new();
    for number in [4, 1, 5, 2, 3_u128] {
        let orphan = ClaimRecord {
            id: ClaimId(uuid::Uuid::from_u128(number)),
            worker: workers[usize::from(number % 2 == 0)],
            tasks: vec![(fresh_id(), Fence(1))],
            claimed_at: Timestamp::from_micros(1),
        };
        subject.plant_claim(&orphan).await;
        planted.push(orphan);
    }
    planted.sort_unstable_by_key(|claim| claim.id.0);
    let audit = subject.audit();
    let listed = async |limit| audit.orphaned_claims(limit).await.expect("orphaned claims");
    assert_eq!(listed(3).await, planted[..3]);
    assert_eq!(listed(0).await, []);
    assert_eq!(listed(ALL).await, planted);
    let all: Vec<ClaimId> = planted.iter().map(|claim| claim.id).collect();
    subject.store().release(&all).await.expect("release");
}
