//! The suite of [`TaskCatalog`](crate::TaskCatalog).

use std::time::Duration;

use crate::catalog::{Inspection, Listed, Listing, Place};
use crate::ids::{ClaimId, WorkerId};
use crate::store::{DeliveryOutcome, Next, Spent, Transition, WriteOutcome};
use crate::task::{Fence, NewTask, TaskId, TaskStatus};

pub use super::store::Subject;
use super::store::{inserted, living_worker, ticket_of};
use super::{fresh_id, ids_of, new_task, new_tasks, payload, priority};

/// Expands to a module of one test per promise of [`TaskCatalog`](crate::TaskCatalog).
///
/// `catalog_conformance!(#[attribute]… module_name, expression_of_a_fresh_subject)`; see
/// [`conformance`](crate::conformance). The subject is that of the store's suite.
#[macro_export]
macro_rules! catalog_conformance {
    ($(#[$attribute:meta])* $module:ident, $subject:expr $(,)?) => {
        $crate::__conformance_cases!(catalog, $module, [$(#[$attribute])*], $subject, [
            list_answers_whole_tasks_in_descending_order_of_ids,
            list_finds_each_status_by_its_name,
            list_follows_a_task_through_its_life,
            list_forgets_what_is_pruned,
            list_finds_pending_tasks_through_the_queue,
            list_keeps_to_priority_and_age,
            list_keeps_to_its_limits,
            list_looks_at_no_more_than_it_is_told,
            list_is_stable_while_tasks_come_and_move,
            inspect_tells_where_a_waiting_task_is,
            inspect_counts_who_is_ahead_and_no_further_than_told,
            inspect_counts_nobody_ahead_of_what_is_not_due,
            inspect_tells_who_holds_a_task,
            inspect_of_what_is_nowhere_or_unknown,
        ]);
    };
}

/// Longer than any step between two calls of a case, shorter than a test would like to wait.
const MOMENT: Duration = Duration::from_millis(2);
/// More than any case has.
const ALL: usize = 10_000;

/// Everything of this status.
fn of(status: Option<TaskStatus>) -> Listing {
    Listing {
        status,
        priority: None,
        created_from: None,
        created_before: None,
        below: None,
        walk: ALL,
        limit: ALL,
        bytes: usize::MAX,
    }
}

async fn listed(subject: &dyn Subject, listing: &Listing) -> Listed {
    subject.catalog().list(listing).await.expect("list")
}

async fn ids(subject: &dyn Subject, status: Option<TaskStatus>) -> Vec<TaskId> {
    let listed = listed(subject, &of(status)).await;
    assert_eq!(listed.next, None, "the end was reached");
    listed.tasks.iter().map(|task| task.id).collect()
}

/// Every id of a listing, page after page.
async fn pages(subject: &dyn Subject, mut listing: Listing) -> Vec<Vec<TaskId>> {
    let mut pages = Vec::new();
    loop {
        let listed = listed(subject, &listing).await;
        pages.push(listed.tasks.iter().map(|task| task.id).collect());
        match listed.next {
            Some(next) => listing.below = Some(next),
            None => return pages,
        }
    }
}

fn descending(ids: impl IntoIterator<Item = TaskId>) -> Vec<TaskId> {
    let mut ids: Vec<TaskId> = ids.into_iter().collect();
    ids.sort_unstable_by(|one, other| other.cmp(one));
    ids
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
    assert_eq!(
        outcomes.expect("transition")[0].write,
        WriteOutcome::Applied
    );
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

fn failed() -> Next {
    Next::Failed {
        error: "failed".to_owned(),
    }
}

/// Claims these, under a claim of their own.
async fn in_hand(subject: &dyn Subject, worker: WorkerId, tasks: &[NewTask]) -> ClaimId {
    let ticket = ticket_of(worker);
    let claim = subject
        .store()
        .claim_delivered(ticket, &ids_of(tasks))
        .await;
    let claimed = |outcome: &DeliveryOutcome| matches!(outcome, DeliveryOutcome::Claimed(_));
    assert!(claim.expect("claim").iter().all(claimed));
    ticket.claim
}

async fn inspected(subject: &dyn Subject, id: TaskId, count_up_to: usize) -> Inspection {
    let found = subject.catalog().inspect(id, count_up_to).await;
    found.expect("inspect").expect("the task exists")
}

/// Each task as `get` answers it, whatever its status, the largest id first.
pub async fn list_answers_whole_tasks_in_descending_order_of_ids(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let tasks = new_tasks(6);
    inserted(subject, &tasks).await;
    in_hand(subject, worker, &tasks[..3]).await;
    moved(subject, tasks[0].id, 1, TaskStatus::Processing, done()).await;
    moved(subject, tasks[1].id, 1, TaskStatus::Processing, failed()).await;
    let expected = descending(ids_of(&tasks));
    let listed = listed(subject, &of(None)).await;
    let as_stored = subject.store().get(&expected).await.expect("get");
    assert_eq!(
        listed.tasks.into_iter().map(Some).collect::<Vec<_>>(),
        as_stored
    );
    assert_eq!(listed.next, None);
}

/// Nothing of another status is among them.
pub async fn list_finds_each_status_by_its_name(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let tasks = new_tasks(10);
    inserted(subject, &tasks).await;
    in_hand(subject, worker, &tasks[..8]).await;
    for (index, to) in [done(), failed(), Next::Cancelled].into_iter().enumerate() {
        for task in &tasks[2 * index..2 * index + 2] {
            moved(subject, task.id, 1, TaskStatus::Processing, to.clone()).await;
        }
    }
    let places = [
        (TaskStatus::Done, 0..2),
        (TaskStatus::Failed, 2..4),
        (TaskStatus::Cancelled, 4..6),
        (TaskStatus::Processing, 6..8),
        (TaskStatus::Pending, 8..10),
    ];
    for (status, range) in places {
        let expected = descending(ids_of(&tasks[range]));
        assert_eq!(ids(subject, Some(status)).await, expected, "{status}");
    }
}

/// It is found under the status that it has, and under no other; retried after it failed, and cancelled while it waits.
pub async fn list_follows_a_task_through_its_life(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let task = new_task();
    let only = async |status: TaskStatus| {
        for other in TaskStatus::ALL {
            let expected = Vec::from_iter((other == status).then_some(task.id));
            assert_eq!(ids(subject, Some(other)).await, expected, "{other}");
        }
    };
    inserted(subject, std::slice::from_ref(&task)).await;
    only(TaskStatus::Pending).await;
    let claim = in_hand(subject, worker, std::slice::from_ref(&task)).await;
    only(TaskStatus::Processing).await;
    moved(subject, task.id, 1, TaskStatus::Processing, failed()).await;
    only(TaskStatus::Failed).await;
    moved(subject, task.id, 2, TaskStatus::Failed, again()).await;
    only(TaskStatus::Pending).await;
    subject.store().release(&[claim]).await.expect("release");
    moved(subject, task.id, 3, TaskStatus::Pending, Next::Cancelled).await;
    only(TaskStatus::Cancelled).await;
}

/// A failed or cancelled task that is pruned is in no list, and a new one under its id is none of them.
pub async fn list_forgets_what_is_pruned(subject: &dyn Subject) {
    let tasks = new_tasks(2);
    inserted(subject, &tasks).await;
    moved(subject, tasks[0].id, 0, TaskStatus::Pending, failed()).await;
    moved(
        subject,
        tasks[1].id,
        0,
        TaskStatus::Pending,
        Next::Cancelled,
    )
    .await;
    subject.pass(MOMENT).await;
    let pruned = subject.audit().prune(None, ALL, Duration::ZERO).await;
    assert_eq!(pruned.expect("prune").0, 2);
    for status in TaskStatus::ALL {
        assert_eq!(ids(subject, Some(status)).await, [], "{status}");
    }
    inserted(subject, &tasks).await;
    assert_eq!(ids(subject, Some(TaskStatus::Failed)).await, []);
    assert_eq!(ids(subject, Some(TaskStatus::Pending)).await.len(), 2);
}

/// A row of another program is found by its status once it is in the queue, and without a status before.
pub async fn list_finds_pending_tasks_through_the_queue(subject: &dyn Subject) {
    let planted = fresh_id();
    subject.plant(&[planted], "of another program").await;
    let gone = fresh_id();
    subject.plant_queue_row(gone).await;
    assert_eq!(ids(subject, None).await, [planted]);
    assert_eq!(ids(subject, Some(TaskStatus::Pending)).await, []);
    assert_eq!(
        subject.audit().enqueue(&[planted]).await.expect("enqueue"),
        1
    );
    assert_eq!(ids(subject, Some(TaskStatus::Pending)).await, [planted]);
    assert_eq!(
        subject
            .audit()
            .sweep_queue(None, ALL)
            .await
            .expect("sweep")
            .0,
        1
    );
}

/// Of the age: the first moment counts, the last does not.
pub async fn list_keeps_to_priority_and_age(subject: &dyn Subject) {
    let mut created = Vec::new();
    let mut tasks = new_tasks(3);
    for (task, urgency) in tasks.iter_mut().zip([0, 10, 0]) {
        task.priority = priority(urgency);
        let outcomes = inserted(subject, std::slice::from_ref(task)).await;
        created.push(outcomes[0].created_at);
        subject.pass(MOMENT).await;
    }
    for status in [None, Some(TaskStatus::Pending)] {
        let found = async |listing: Listing| {
            let found = listed(subject, &listing).await;
            found.tasks.iter().map(|task| task.id).collect::<Vec<_>>()
        };
        let calm = Listing {
            priority: Some(priority(0)),
            ..of(status)
        };
        assert_eq!(found(calm).await, [tasks[2].id, tasks[0].id]);
        let middle = Listing {
            created_from: Some(created[1]),
            created_before: Some(created[2]),
            ..of(status)
        };
        assert_eq!(found(middle).await, [tasks[1].id]);
        let both = Listing {
            priority: calm.priority,
            ..middle
        };
        assert_eq!(found(both).await, []);
    }
}

/// By number and by size, and says where to go on; one task is answered whatever its size.
pub async fn list_keeps_to_its_limits(subject: &dyn Subject) {
    let mut tasks = new_tasks(5);
    for task in &mut tasks {
        task.payload = payload(&"x".repeat(100));
    }
    inserted(subject, &tasks).await;
    let all = descending(ids_of(&tasks));
    for status in [None, Some(TaskStatus::Pending)] {
        let two = Listing {
            limit: 2,
            ..of(status)
        };
        let expected = [&all[..2], &all[2..4], &all[4..]];
        assert_eq!(pages(subject, two).await, expected);
        let of_size = Listing {
            bytes: 150,
            ..of(status)
        };
        assert_eq!(listed(subject, &of_size).await.tasks.len(), 2);
        assert_eq!(pages(subject, of_size).await.concat(), all);
        let tiny = Listing {
            bytes: 0,
            ..of(status)
        };
        let found = listed(subject, &tiny).await;
        assert_eq!((found.tasks.len(), found.next), (1, Some(all[0])));
    }
}

/// Tasks that do not match are looked at too, so an answer may be short, or empty, and not the last.
pub async fn list_looks_at_no_more_than_it_is_told(subject: &dyn Subject) {
    let tasks = new_tasks(6);
    inserted(subject, &tasks).await;
    let all = descending(ids_of(&tasks));
    moved(subject, all[5], 0, TaskStatus::Pending, done()).await;
    let listing = Listing {
        walk: 2,
        ..of(Some(TaskStatus::Done))
    };
    let first = listed(subject, &listing).await;
    assert_eq!((first.tasks.len(), first.next), (0, Some(all[1])));
    assert_eq!(pages(subject, listing).await.concat(), [all[5]]);
    let nothing_left = Listing {
        below: Some(all[5]),
        ..listing
    };
    assert_eq!(listed(subject, &nothing_left).await, Listed::default());
}

/// What keeps matching is met exactly once, while others come, move and go.
pub async fn list_is_stable_while_tasks_come_and_move(subject: &dyn Subject) {
    let tasks = new_tasks(9);
    inserted(subject, &tasks).await;
    let all = descending(ids_of(&tasks));
    let mut listing = Listing {
        limit: 3,
        ..of(Some(TaskStatus::Pending))
    };
    let mut met = Vec::new();
    loop {
        let page = listed(subject, &listing).await;
        met.extend(page.tasks.iter().map(|task| task.id));
        let Some(next) = page.next else { break };
        listing.below = Some(next);
        // One that was met goes, one that was not yet goes, and newer ones come.
        if met.len() == 3 {
            moved(subject, all[1], 0, TaskStatus::Pending, done()).await;
            moved(subject, all[4], 0, TaskStatus::Pending, done()).await;
            inserted(subject, &new_tasks(2)).await;
        }
    }
    let expected: Vec<TaskId> = all.iter().copied().filter(|id| *id != all[4]).collect();
    assert_eq!(met, expected);
}

/// Its queue row as it was written.
pub async fn inspect_tells_where_a_waiting_task_is(subject: &dyn Subject) {
    let task = NewTask {
        messaged: true,
        ..new_task()
    };
    let created = inserted(subject, std::slice::from_ref(&task)).await[0].created_at;
    let found = inspected(subject, task.id, 10).await;
    let place = |messaged| Place::Queued {
        not_before: created,
        messaged,
        ahead: 0,
    };
    assert_eq!(found.place, place(true));
    assert!(found.now >= created);
    let stored = subject.store().get(&[task.id]).await.expect("get");
    assert_eq!(stored, [Some(found.task)]);
    let unmessaged = subject.store().mark_unmessaged(&[task.id]).await;
    unmessaged.expect("mark");
    assert_eq!(inspected(subject, task.id, 10).await.place, place(false));
}

/// Those that are due for longer, with a message or without; of those that are due since the same time the smaller ids.
pub async fn inspect_counts_who_is_ahead_and_no_further_than_told(subject: &dyn Subject) {
    let mut tasks = new_tasks(7);
    for (task, messaged) in tasks.iter_mut().zip([true, false].into_iter().cycle()) {
        task.messaged = messaged;
    }
    inserted(subject, &tasks[..4]).await;
    subject.pass(MOMENT).await;
    inserted(subject, &tasks[4..]).await;
    for (count_up_to, expected) in [(100, [0, 1, 2, 3, 4, 5, 6]), (3, [0, 1, 2, 3, 3, 3, 3])] {
        for (task, ahead) in tasks.iter().zip(expected) {
            let found = inspected(subject, task.id, count_up_to).await;
            let Place::Queued { ahead: counted, .. } = found.place else {
                panic!("{found:?}");
            };
            assert_eq!(counted, ahead);
        }
    }
}

/// It waits for its time, and not for anybody.
pub async fn inspect_counts_nobody_ahead_of_what_is_not_due(subject: &dyn Subject) {
    inserted(subject, &new_tasks(3)).await;
    let task = new_task();
    inserted(subject, std::slice::from_ref(&task)).await;
    let worker = living_worker(subject).await;
    in_hand(subject, worker, std::slice::from_ref(&task)).await;
    let later = Next::Pending {
        delay: Duration::from_secs(3_600),
        error: Some("busy".to_owned()),
    };
    moved(subject, task.id, 1, TaskStatus::Processing, later).await;
    let found = inspected(subject, task.id, 10).await;
    let Place::Queued {
        not_before, ahead, ..
    } = found.place
    else {
        panic!("{found:?}");
    };
    assert_eq!(ahead, 0);
    assert!(not_before > found.now);
    assert_eq!(found.task.error.as_deref(), Some("busy"));
}

/// The worker with its name, and the time of the claim; not under a fence that it had before.
pub async fn inspect_tells_who_holds_a_task(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let tasks = new_tasks(2);
    inserted(subject, &tasks).await;
    let claim = in_hand(subject, worker, &tasks).await;
    let claims = subject.store().claims_of(worker, None, ALL).await;
    let claimed_at = claims.expect("claims")[0].claimed_at;
    let expected = Place::Claimed {
        worker,
        worker_name: Some("host:1".to_owned()),
        claimed_at,
    };
    assert_eq!(inspected(subject, tasks[1].id, 10).await.place, expected);
    // Handed back and claimed again: the older claim, which is still recorded, does not hold it.
    let id = tasks[1].id;
    moved(subject, id, 1, TaskStatus::Processing, again()).await;
    subject.pass(MOMENT).await;
    in_hand(subject, worker, &tasks[1..]).await;
    let found = inspected(subject, id, 10).await;
    let Place::Claimed { claimed_at: at, .. } = found.place else {
        panic!("{found:?}");
    };
    assert!(at > claimed_at);
    subject.store().release(&[claim]).await.expect("release");
    assert_eq!(
        inspected(subject, tasks[0].id, 10).await.place,
        Place::Nowhere
    );
    moved(subject, tasks[0].id, 1, TaskStatus::Processing, done()).await;
}

/// At rest, in a claim or not; pending and never queued; never stored.
pub async fn inspect_of_what_is_nowhere_or_unknown(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let task = new_task();
    inserted(subject, std::slice::from_ref(&task)).await;
    in_hand(subject, worker, std::slice::from_ref(&task)).await;
    moved(subject, task.id, 1, TaskStatus::Processing, done()).await;
    assert_eq!(inspected(subject, task.id, 10).await.place, Place::Nowhere);
    let planted = fresh_id();
    subject.plant(&[planted], "of another program").await;
    assert_eq!(inspected(subject, planted, 10).await.place, Place::Nowhere);
    let unknown = subject.catalog().inspect(fresh_id(), 10).await;
    assert_eq!(unknown.expect("inspect"), None);
}
