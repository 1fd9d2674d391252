//! Whose turn it is to do what one worker does for all.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ports::{WorkerEntry, WorkerId};

use super::Life;
use crate::audit::audit;
use crate::prune::prune;

/// How many beats of the first living worker a turn lasts: seconds, as many as it takes to compare a queue of 100,000 rows.
const TURN: u64 = 12;

/// Whose turn it is, of all the living. Everybody reads the same rows, so everybody comes to the same answer, a beat earlier or
/// later. Beats come from threads of their own: a worker whose runtime or pool hangs lives on, but only its own turns are lost.
pub(super) fn on_turn(workers: &[WorkerEntry]) -> Option<WorkerId> {
    let mut living: Vec<&WorkerEntry> = workers.iter().filter(|worker| !worker.dead).collect();
    living.sort_unstable_by_key(|worker| worker.id);
    let turn = living.first()?.beat / TURN;
    let place = turn.checked_rem(living.len() as u64)?;
    living
        .get(usize::try_from(place).ok()?)
        .map(|worker| worker.id)
}

/// Audits while it is this worker's turn. For a moment there may be two of them, or none: neither does harm.
pub(super) async fn audit_in_turn(life: Arc<Life>) {
    let (config, max_rescues) = (life.config.audit, life.config.max_rescues);
    let on_duty = || life.is_on_duty.load(Ordering::Relaxed);
    audit(&life.ports, config, max_rescues, on_duty).await;
}

/// Prunes while it is this worker's turn.
pub(super) async fn prune_in_turn(life: Arc<Life>) {
    let on_duty = || life.is_on_duty.load(Ordering::Relaxed);
    prune(&life.ports, life.config.prune, on_duty).await;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ports::{TaskId, Timestamp};

    use super::*;

    fn entry(number: i64) -> WorkerEntry {
        let id = TaskId::first_at(Timestamp::from_micros(number * 1_000));
        WorkerEntry {
            id: WorkerId(id.0),
            name: "w".into(),
            beat: 0,
            position: None,
            dead: false,
        }
    }

    #[test]
    fn every_living_worker_has_its_turn_and_the_dead_have_none() {
        let mut workers: Vec<_> = (1..=5).map(entry).collect();
        workers[0].dead = true;
        workers[3].dead = true;
        let mut turns: BTreeMap<WorkerId, u64> = BTreeMap::new();
        for beat in 0..TURN * 6 {
            workers[1].beat = beat;
            workers.rotate_left(1);
            *turns
                .entry(on_turn(&workers).expect("some live"))
                .or_default() += 1;
            workers.rotate_right(1);
        }
        let living = [1, 2, 4].map(|place: usize| (workers[place].id, TURN * 2));
        assert_eq!(turns, BTreeMap::from(living));
        assert_eq!(on_turn(&workers[..1]), None);
        assert_eq!(on_turn(&[]), None);
    }
}
