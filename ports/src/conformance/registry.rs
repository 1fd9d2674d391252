//! The suite of [`WorkerRegistry`](crate::WorkerRegistry).

use std::sync::Arc;

use tokio::sync::Barrier;

use crate::ids::WorkerId;
use crate::registry::{BeatReply, RemoveReply, WorkerEntry};
use crate::store::{ClaimError, DeliveryOutcome, Next, Spent, Transition, WriteOutcome};
use crate::task::{Fence, TaskStatus};
use crate::time::Timestamp;

pub use super::store::Subject;
use super::store::{inserted, living_worker, ticket_of};
use super::{fresh_uuid, new_task};

/// Expands to a module of one test per promise of [`WorkerRegistry`](crate::WorkerRegistry).
///
/// `registry_conformance!(#[attribute]… module_name, expression_of_a_fresh_subject)`; see
/// [`conformance`](crate::conformance). The subject is that of the store's suite.
#[macro_export]
macro_rules! registry_conformance {
    ($(#[$attribute:meta])* $module:ident, $subject:expr $(,)?) => {
        $crate::__conformance_cases!(registry, $module, [$(#[$attribute])*], $subject, [
            register_makes_a_living_worker,
            register_is_idempotent,
            register_leaves_a_dead_worker_dead,
            beat_says_that_the_worker_lives,
            beat_raises_the_beat_and_keeps_the_position,
            beat_of_an_unknown_or_dead_worker_finds_it_gone,
            workers_are_listed_in_ascending_order_of_id,
            declare_dead_applies_only_if_the_beat_stood_still,
            declare_dead_repeated_reports_already_applied,
            declare_dead_leaves_the_claims_recorded,
            of_a_beat_and_a_declaration_at_once_one_wins,
            no_claim_commits_after_the_death_of_its_worker,
            remove_takes_a_worker_without_claims,
            remove_refuses_while_claims_are_recorded,
            remove_and_claim_at_once_leave_no_claim_without_its_worker,
        ]);
    };
}

async fn entry_of(subject: &dyn Subject, worker: WorkerId) -> Option<WorkerEntry> {
    let workers = subject.registry().workers().await.expect("workers");
    workers.into_iter().find(|entry| entry.id == worker)
}

async fn beat_number(subject: &dyn Subject, worker: WorkerId) -> u64 {
    entry_of(subject, worker).await.expect("registered").beat
}

async fn bury(subject: &dyn Subject, worker: WorkerId) {
    let beat = beat_number(subject, worker).await;
    let outcome = subject.registry().declare_dead(worker, beat).await;
    assert_eq!(outcome.expect("declare dead"), WriteOutcome::Applied);
}

/// Registers a worker, alive.
pub async fn register_makes_a_living_worker(subject: &dyn Subject) {
    let registry = subject.registry();
    assert!(registry.workers().await.expect("workers").is_empty());
    let worker = WorkerId(fresh_uuid());
    let name = "höst-1.example:4711 'a' \\";
    registry.register(worker, name).await.expect("register");
    let workers = registry.workers().await.expect("workers");
    assert_eq!(workers.len(), 1);
    let expected = WorkerEntry {
        id: worker,
        name: name.to_owned(),
        beat: workers[0].beat,
        position: None,
        dead: false,
    };
    assert_eq!(workers[0], expected);
}

/// Idempotent.
pub async fn register_is_idempotent(subject: &dyn Subject) {
    let registry = subject.registry();
    let worker = living_worker(subject).await;
    registry
        .register(worker, "host:1")
        .await
        .expect("register again");
    assert_eq!(registry.workers().await.expect("workers").len(), 1);
    assert_eq!(
        registry.beat(worker, None).await.expect("beat"),
        BeatReply::Alive
    );
}

/// A worker declared dead stays dead.
pub async fn register_leaves_a_dead_worker_dead(subject: &dyn Subject) {
    let registry = subject.registry();
    let worker = living_worker(subject).await;
    bury(subject, worker).await;
    registry
        .register(worker, "host:1")
        .await
        .expect("register again");
    assert!(entry_of(subject, worker).await.expect("registered").dead);
    assert_eq!(
        registry.beat(worker, None).await.expect("beat"),
        BeatReply::Gone
    );
}

/// Says that a worker lives.
pub async fn beat_says_that_the_worker_lives(subject: &dyn Subject) {
    let registry = subject.registry();
    let worker = living_worker(subject).await;
    for _ in 0..3 {
        assert_eq!(
            registry.beat(worker, None).await.expect("beat"),
            BeatReply::Alive
        );
    }
}

/// Rises with every beat; the position is that of the latest beat, to the microsecond, `None` included.
pub async fn beat_raises_the_beat_and_keeps_the_position(subject: &dyn Subject) {
    let registry = subject.registry();
    let worker = living_worker(subject).await;
    let other = living_worker(subject).await;
    let untouched = entry_of(subject, other).await;
    let mut last = beat_number(subject, worker).await;
    let positions = [
        Some(1_704_067_202_345_678),
        None,
        Some(1),
        Some(1_704_067_202_345_679),
    ];
    for position in positions.map(|micros| micros.map(Timestamp::from_micros)) {
        registry.beat(worker, position).await.expect("beat");
        let entry = entry_of(subject, worker).await.expect("registered");
        assert!(entry.beat > last, "{} after {last}", entry.beat);
        assert_eq!(entry.position, position);
        last = entry.beat;
    }
    assert_eq!(entry_of(subject, other).await, untouched);
}

/// Unknown or declared dead: `Gone`, and nothing changes.
pub async fn beat_of_an_unknown_or_dead_worker_finds_it_gone(subject: &dyn Subject) {
    let registry = subject.registry();
    let unknown = WorkerId(fresh_uuid());
    assert_eq!(
        registry.beat(unknown, None).await.expect("beat"),
        BeatReply::Gone
    );
    assert_eq!(entry_of(subject, unknown).await, None);
    let dead = living_worker(subject).await;
    bury(subject, dead).await;
    let before = entry_of(subject, dead).await;
    let position = Some(Timestamp::from_micros(1));
    assert_eq!(
        registry.beat(dead, position).await.expect("beat"),
        BeatReply::Gone
    );
    assert_eq!(entry_of(subject, dead).await, before);
}

/// Every registered worker, dead ones that are not removed included, in ascending order of id.
pub async fn workers_are_listed_in_ascending_order_of_id(subject: &dyn Subject) {
    let registry = subject.registry();
    let mut ids: Vec<WorkerId> = std::iter::repeat_with(|| WorkerId(fresh_uuid()))
        .take(6)
        .collect();
    ids.sort_unstable();
    for turn in [3, 0, 5, 1, 4, 2] {
        registry
            .register(ids[turn], &format!("host:{turn}"))
            .await
            .expect("register");
    }
    bury(subject, ids[2]).await;
    let workers = registry.workers().await.expect("workers");
    assert_eq!(
        workers.iter().map(|entry| entry.id).collect::<Vec<_>>(),
        ids
    );
    assert_eq!(
        workers.iter().map(|entry| entry.dead).collect::<Vec<_>>(),
        [false, false, true, false, false, false]
    );
    assert_eq!(workers[4].name, "host:4");
}

/// Declares a worker dead if its beat still is `last_beat`. `Stale` when it beat since or is unknown.
pub async fn declare_dead_applies_only_if_the_beat_stood_still(subject: &dyn Subject) {
    let registry = subject.registry();
    let worker = living_worker(subject).await;
    let seen = beat_number(subject, worker).await;
    registry.beat(worker, None).await.expect("beat");
    assert_eq!(
        registry
            .declare_dead(worker, seen)
            .await
            .expect("declare dead"),
        WriteOutcome::Stale
    );
    let unknown = WorkerId(fresh_uuid());
    assert_eq!(
        registry
            .declare_dead(unknown, seen)
            .await
            .expect("declare dead"),
        WriteOutcome::Stale
    );
    assert_eq!(
        registry.beat(worker, None).await.expect("beat"),
        BeatReply::Alive
    );
    bury(subject, worker).await;
    assert!(entry_of(subject, worker).await.expect("registered").dead);
}

/// `AlreadyApplied` when it was dead before.
pub async fn declare_dead_repeated_reports_already_applied(subject: &dyn Subject) {
    let registry = subject.registry();
    let worker = living_worker(subject).await;
    let beat = beat_number(subject, worker).await;
    bury(subject, worker).await;
    for _ in 0..2 {
        let outcome = registry
            .declare_dead(worker, beat)
            .await
            .expect("declare dead");
        assert_eq!(outcome, WriteOutcome::AlreadyApplied);
    }
}

/// What it held stays recorded, for the rescue to find.
pub async fn declare_dead_leaves_the_claims_recorded(subject: &dyn Subject) {
    let worker = living_worker(subject).await;
    let task = new_task();
    inserted(subject, std::slice::from_ref(&task)).await;
    let ticket = ticket_of(worker);
    subject
        .store()
        .claim_delivered(ticket, &[task.id])
        .await
        .expect("claim");
    let before = subject
        .store()
        .claims_of(worker, None, 10)
        .await
        .expect("claims");
    bury(subject, worker).await;
    assert_eq!(before.len(), 1);
    assert_eq!(
        subject
            .store()
            .claims_of(worker, None, 10)
            .await
            .expect("claims"),
        before
    );
}

/// A beat and a declaration that saw the beat before it: either the worker is dead and beats no more, or it lives and the
/// declaration was stale.
pub async fn of_a_beat_and_a_declaration_at_once_one_wins(subject: &dyn Subject) {
    for _ in 0..30 {
        let worker = living_worker(subject).await;
        let seen = beat_number(subject, worker).await;
        let start = Arc::new(Barrier::new(2));
        let (registry, gate) = (subject.registry(), Arc::clone(&start));
        let beating = tokio::spawn(async move {
            gate.wait().await;
            registry.beat(worker, None).await.expect("beat")
        });
        let registry = subject.registry();
        let declaring = tokio::spawn(async move {
            start.wait().await;
            registry
                .declare_dead(worker, seen)
                .await
                .expect("declare dead")
        });
        let found = (
            beating.await.expect("no panic"),
            declaring.await.expect("no panic"),
        );
        let dead = entry_of(subject, worker).await.expect("registered").dead;
        let allowed = match found {
            (BeatReply::Alive, WriteOutcome::Stale) => !dead,
            (BeatReply::Gone, WriteOutcome::Applied) => dead,
            _ => false,
        };
        assert!(allowed, "{found:?}, dead: {dead}");
    }
}

/// From then on its claims are refused: a claim under way either is recorded before the declaration returns, where the
/// rescue finds it, or is itself refused.
pub async fn no_claim_commits_after_the_death_of_its_worker(subject: &dyn Subject) {
    for _ in 0..30 {
        let worker = living_worker(subject).await;
        let seen = beat_number(subject, worker).await;
        let task = new_task();
        inserted(subject, std::slice::from_ref(&task)).await;
        let start = Arc::new(Barrier::new(2));
        let (store, gate) = (subject.store(), Arc::clone(&start));
        let claiming = tokio::spawn(async move {
            gate.wait().await;
            store.claim_delivered(ticket_of(worker), &[task.id]).await
        });
        let (registry, store) = (subject.registry(), subject.store());
        let declaring = tokio::spawn(async move {
            start.wait().await;
            let outcome = registry
                .declare_dead(worker, seen)
                .await
                .expect("declare dead");
            assert_eq!(outcome, WriteOutcome::Applied);
            store.claims_of(worker, None, 10).await.expect("claims")
        });
        let claim = claiming.await.expect("no panic");
        let found = declaring.await.expect("no panic");
        match claim {
            Ok(outcomes) => {
                assert!(
                    matches!(outcomes[..], [DeliveryOutcome::Claimed(_)]),
                    "{outcomes:?}"
                );
                assert_eq!(
                    found.len(),
                    1,
                    "the claim was not there when its worker was dead"
                );
            }
            Err(ClaimError::WorkerGone) => assert!(found.is_empty()),
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Removes a worker that has no recorded claims, alive or dead. `Removed` also when it was not there (any more).
pub async fn remove_takes_a_worker_without_claims(subject: &dyn Subject) {
    let registry = subject.registry();
    let (alive, dead) = (living_worker(subject).await, living_worker(subject).await);
    let left = living_worker(subject).await;
    bury(subject, dead).await;
    for worker in [alive, dead, alive, WorkerId(fresh_uuid())] {
        assert_eq!(
            registry.remove(worker).await.expect("remove"),
            RemoveReply::Removed
        );
    }
    let workers = registry.workers().await.expect("workers");
    assert_eq!(
        workers.iter().map(|entry| entry.id).collect::<Vec<_>>(),
        [left]
    );
    assert_eq!(
        registry.beat(alive, None).await.expect("beat"),
        BeatReply::Gone
    );
}

/// Claims of it are still recorded: nothing was removed. Once they are released it goes.
pub async fn remove_refuses_while_claims_are_recorded(subject: &dyn Subject) {
    let registry = subject.registry();
    let worker = living_worker(subject).await;
    let task = new_task();
    inserted(subject, std::slice::from_ref(&task)).await;
    let ticket = ticket_of(worker);
    let store = subject.store();
    store
        .claim_delivered(ticket, &[task.id])
        .await
        .expect("claim");
    assert_eq!(
        registry.remove(worker).await.expect("remove"),
        RemoveReply::HasClaims
    );
    assert_eq!(
        registry.beat(worker, None).await.expect("beat"),
        BeatReply::Alive
    );
    bury(subject, worker).await;
    assert_eq!(
        registry.remove(worker).await.expect("remove"),
        RemoveReply::HasClaims
    );
    assert!(entry_of(subject, worker).await.is_some());
    let cancel = Transition {
        id: task.id,
        fence: Fence(1),
        from: TaskStatus::Processing,
        to: Next::Cancelled,
        spent: Spent::Nothing,
    };
    store.transition(&[cancel]).await.expect("transition");
    // The task is at rest, but nobody said that this was announced.
    assert_eq!(
        registry.remove(worker).await.expect("remove"),
        RemoveReply::HasClaims
    );
    store.release(&[ticket.claim]).await.expect("release");
    assert_eq!(
        registry.remove(worker).await.expect("remove"),
        RemoveReply::Removed
    );
    assert_eq!(entry_of(subject, worker).await, None);
}

/// A claim of it that commits at the same time either makes this answer `HasClaims` or is itself refused: never is a
/// claim left without its worker.
pub async fn remove_and_claim_at_once_leave_no_claim_without_its_worker(subject: &dyn Subject) {
    for _ in 0..40 {
        let worker = living_worker(subject).await;
        let task = new_task();
        inserted(subject, std::slice::from_ref(&task)).await;
        let start = Arc::new(Barrier::new(2));
        let (store, gate) = (subject.store(), Arc::clone(&start));
        let claiming = tokio::spawn(async move {
            gate.wait().await;
            store.claim_delivered(ticket_of(worker), &[task.id]).await
        });
        let registry = subject.registry();
        let removing = tokio::spawn(async move {
            start.wait().await;
            registry.remove(worker).await.expect("remove")
        });
        let claim = claiming.await.expect("no panic");
        let removal = removing.await.expect("no panic");
        let claims = subject
            .store()
            .claims_of(worker, None, 10)
            .await
            .expect("claims");
        let kept = subject.store().get(&[task.id]).await.expect("get");
        let fence = kept[0].as_ref().expect("the task exists").fence.0;
        match (claim, removal) {
            (Ok(_), RemoveReply::HasClaims) => {
                assert_eq!((claims.len(), fence), (1, 1));
                assert!(entry_of(subject, worker).await.is_some());
            }
            (Err(ClaimError::WorkerGone), RemoveReply::Removed) => {
                assert_eq!((claims.len(), fence), (0, 0));
                assert_eq!(entry_of(subject, worker).await, None);
            }
            (claim, removal) => panic!("{claim:?} and {removal:?}"),
        }
    }
}
