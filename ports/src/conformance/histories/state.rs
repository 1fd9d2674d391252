//! What a history did so far, so that its next step can be made a call: with the fence that a task has, or with one that it
//! had.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uuid::Uuid;

use crate::ids::{ClaimId, WorkerId};
use crate::store::{ClaimRecord, ClaimTicket, Horizon, Next, Transition};
use crate::task::{Fence, NewTask, Payload, Priority, Task, TaskId, TaskStatus};
use crate::time::Timestamp;

use super::super::store::Subject;
use super::call::{Call, listing};
use super::plan::{Fresh, Move, Seen, Step, TASKS, To, Until, WORKERS, When};

/// 2020-01-01T00:00:00Z: the times that a history names lie around it, long before those of every store's clock.
const PAST: Timestamp = Timestamp::from_micros(1_577_836_800_000_000);
/// 2100-01-01T00:00:00Z.
const FUTURE: Timestamp = Timestamp::from_micros(4_102_444_800_000_000);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);
const MINUTE: Duration = Duration::from_secs(60);
/// More than any row of a history is old.
const LONG_GRACE: Duration = Duration::from_secs(200 * 60);

/// Whether the history named this time, and no store's clock.
pub(super) fn is_of_the_history(time: Timestamp) -> bool {
    time < PAST.after(YEAR) || time > FUTURE.before(YEAR)
}

/// Some are of version 7 and some of version 4, as in a table that was adopted.
pub(super) fn task_of(number: u8) -> TaskId {
    let base = if number.is_multiple_of(3) {
        0x9f1c_0000_0000_4000_8000_0000_0000_0000
    } else {
        0x0190_0000_0000_7000_8000_0000_0000_0000
    };
    TaskId(Uuid::from_u128(base + u128::from(number)))
}

pub(super) fn all_tasks() -> Vec<TaskId> {
    tasks_of(&(0..TASKS).collect::<Vec<_>>())
}

fn tasks_of(numbers: &[u8]) -> Vec<TaskId> {
    numbers.iter().copied().map(task_of).collect()
}

pub(super) fn worker_of(number: u8) -> WorkerId {
    WorkerId(Uuid::from_u128(0x0190_0000_0001 + u128::from(number)))
}

fn claim_of(number: u8) -> ClaimId {
    ClaimId(Uuid::from_u128(0x0190_0000_1000 + u128::from(number)))
}

#[derive(Debug, Default)]
pub(super) struct State {
    tasks: BTreeMap<TaskId, Task>,
    recorded: BTreeSet<ClaimId>,
    /// The time before which each task was not to be claimed, if the history named it.
    named: BTreeMap<TaskId, Timestamp>,
    /// Every time that is named is another one.
    times: u64,
    /// A claim by age that cannot take all has a choice between rows of both kinds, and between rows of one time.
    some_messaged: bool,
    some_equal: bool,
}

impl State {
    /// Whether this call claims under a ticket that was used before.
    pub(super) fn is_recorded(&self, call: &Call) -> bool {
        match call {
            Call::ClaimDelivered(ticket, _) | Call::ClaimAged(ticket, ..) => {
                self.recorded.contains(&ticket.claim)
            }
            _ => false,
        }
    }

    /// Sees what a call left.
    pub(super) async fn follow(&mut self, call: &Call, subject: &dyn Subject) {
        match call {
            Call::Insert(_) | Call::ClaimDelivered(..) | Call::ClaimAged(..) => {}
            Call::Transition(_) | Call::Release(_) | Call::Prune(..) => {}
            Call::Plant(_) | Call::PlantClaim(_) => {}
            _ => return,
        }
        let found = subject.store().get(&all_tasks()).await.expect("get");
        self.tasks = found
            .into_iter()
            .flatten()
            .map(|task| (task.id, task))
            .collect();
        let mut claims = subject
            .audit()
            .orphaned_claims(1_000)
            .await
            .expect("claims");
        for worker in 0..WORKERS {
            let store = subject.store();
            let of_worker = store.claims_of(worker_of(worker), None, 1_000).await;
            claims.extend(of_worker.expect("claims"));
        }
        self.recorded = claims.into_iter().map(|claim| claim.id).collect();
    }

    pub(super) fn resolve(&mut self, step: &Step) -> Call {
        let ticket = |worker: u8, claim: u8| ClaimTicket {
            claim: claim_of(claim),
            worker: worker_of(worker),
        };
        match step {
            Step::Insert(tasks) => self.insert(tasks),
            Step::Get(tasks) => Call::Get(tasks_of(tasks)),
            Step::ClaimDelivered {
                worker,
                claim,
                tasks,
            } => Call::ClaimDelivered(ticket(*worker, *claim), tasks_of(tasks)),
            Step::ClaimAged {
                worker,
                claim,
                until,
                grace_minutes,
                limit,
            } => {
                let grace = MINUTE * u32::from(*grace_minutes);
                let limit = usize::from(*limit);
                let (horizon, grace) = self.aged(*until, grace, limit);
                Call::ClaimAged(ticket(*worker, *claim), horizon, grace, limit)
            }
            Step::Transition(moves) => self.transition(moves),
            Step::Release(claims) => Call::Release(claims.iter().copied().map(claim_of).collect()),
            Step::ClaimsOf {
                worker,
                after,
                limit,
            } => Call::ClaimsOf(worker_of(*worker), after.map(claim_of), usize::from(*limit)),
            Step::MarkUnmessaged(tasks) => Call::MarkUnmessaged(tasks_of(tasks)),
            Step::Totals => Call::Totals,
            Step::Register(worker) => {
                Call::Register(worker_of(*worker), format!("host:{worker} 'é'"))
            }
            Step::Beat { worker, position } => {
                let position = position.map(|minutes| PAST.before(MINUTE * u32::from(minutes)));
                Call::Beat(worker_of(*worker), position)
            }
            Step::Workers => Call::Workers,
            Step::DeclareDead { worker, beat_since } => {
                Call::DeclareDead(worker_of(*worker), u64::from(*beat_since))
            }
            Step::Remove(worker) => Call::Remove(worker_of(*worker)),
            Step::Stranded {
                after,
                limit,
                unmoved,
            } => {
                let unmoved_for = if *unmoved { Duration::ZERO } else { YEAR };
                Call::Stranded(after.map(task_of), usize::from(*limit), unmoved_for)
            }
            Step::Enqueue(tasks) => {
                let ids = tasks_of(tasks);
                self.some_equal |= ids.iter().collect::<BTreeSet<_>>().len() > 1;
                Call::Enqueue(ids)
            }
            Step::SweepQueue { after, limit } => {
                Call::SweepQueue(after.map(task_of), usize::from(*limit))
            }
            Step::Enlist(tasks) => Call::Enlist(tasks_of(tasks)),
            Step::SweepStopped { after, limit } => {
                Call::SweepStopped(after.map(task_of), usize::from(*limit))
            }
            Step::Untold {
                after,
                limit,
                unmoved,
            } => {
                let unmoved_for = if *unmoved { Duration::ZERO } else { YEAR };
                Call::Untold(after.map(task_of), usize::from(*limit), unmoved_for)
            }
            Step::MarkTold(tasks) => Call::MarkTold(tasks_of(tasks)),
            Step::OrphanedClaims(limit) => Call::OrphanedClaims(usize::from(*limit)),
            Step::Prune {
                after,
                limit,
                unmoved,
            } => {
                let older_than = if *unmoved { Duration::ZERO } else { YEAR };
                Call::Prune(after.map(task_of), usize::from(*limit), older_than)
            }
            Step::List {
                status,
                below,
                walk,
            } => Call::List(listing(*status, below.map(task_of), usize::from(*walk))),
            Step::Inspect { task, count_up_to } => {
                Call::Inspect(task_of(*task), usize::from(*count_up_to))
            }
            Step::Plant(task) if self.tasks.contains_key(&task_of(*task)) => {
                Call::Get(vec![task_of(*task)])
            }
            Step::Plant(task) => Call::Plant(task_of(*task)),
            Step::PlantQueueRow(task) => Call::PlantQueueRow(task_of(*task)),
            Step::RemoveQueueRow(task) => Call::RemoveQueueRow(task_of(*task)),
            Step::PlantClaim { claim, .. } if self.recorded.contains(&claim_of(*claim)) => {
                Call::Release(vec![claim_of(*claim)])
            }
            Step::PlantClaim {
                claim,
                worker,
                tasks,
                under_its_fence,
            } => self.plant_claim(*claim, *worker, tasks, *under_its_fence),
            Step::PlantStopped { task, cancelled } => {
                Call::PlantStopped(task_of(*task), *cancelled)
            }
            Step::RemoveStopped(task) => Call::RemoveStopped(task_of(*task)),
            Step::Repeat => Call::Totals,
        }
    }

    fn another_time(&mut self) -> Duration {
        self.times += 1;
        Duration::from_micros(self.times)
    }

    fn insert(&mut self, tasks: &[Fresh]) -> Call {
        let mut now_is_taken = false;
        let tasks = tasks.iter().map(|fresh| {
            let id = task_of(fresh.task);
            let run_at = match fresh.when {
                When::Now if !now_is_taken => {
                    now_is_taken = true;
                    None
                }
                When::Now => Some(PAST.after(self.another_time())),
                When::Past(minutes) => Some(
                    PAST.before(MINUTE * u32::from(minutes))
                        .after(self.another_time()),
                ),
                When::Future => Some(FUTURE.after(self.another_time())),
            };
            if let Some(time) = run_at {
                self.named.entry(id).or_insert(time);
            }
            self.some_messaged |= fresh.messaged;
            NewTask {
                id,
                payload: Payload::new(text(fresh.payload)).expect("no NUL"),
                priority: Priority::clamped(i64::from(fresh.priority)),
                max_attempts: fresh.max_attempts,
                run_at,
                messaged: fresh.messaged,
            }
        });
        Call::Insert(tasks.collect())
    }

    fn aged(&self, until: Until, grace: Duration, limit: usize) -> (Horizon, Duration) {
        let before = match until {
            Until::Now => None,
            Until::Past(minutes) => Some(PAST.before(MINUTE * u32::from(minutes))),
            Until::Row(task) => self.named.get(&task_of(task)).copied(),
            Until::Future => Some(FUTURE),
        };
        let takes_all = limit == 0 || limit >= usize::from(TASKS);
        if takes_all || !(self.some_messaged || self.some_equal) {
            return (before.map_or(Horizon::Now, Horizon::Before), grace);
        }
        // Among rows without a message whose times were named there is no choice.
        let before = before.unwrap_or(PAST).min(PAST);
        (Horizon::Before(before), LONG_GRACE)
    }

    fn transition(&self, moves: &[Move]) -> Call {
        let mut named = BTreeSet::new();
        let transitions = moves
            .iter()
            // Two moves of one task in one slice are not allowed.
            .filter(|planned| named.insert(planned.task))
            .zip(1_u64..)
            .map(|(planned, number)| self.one_transition(planned, number));
        Call::Transition(transitions.collect())
    }

    fn one_transition(&self, planned: &Move, number: u64) -> Transition {
        let id = task_of(planned.task);
        let (status, fence) = match self.tasks.get(&id) {
            Some(task) => (task.status, task.fence),
            None => (TaskStatus::Pending, Fence(0)),
        };
        let (mut seen_fence, from) = match planned.seen {
            Seen::Right => (fence, status),
            Seen::FenceBefore => (Fence(fence.0 - 1), status),
            Seen::FenceAfter => (fence.next(), status),
            Seen::Status(other) => (fence, other),
        };
        if status == TaskStatus::Done && from == status && seen_fence == fence {
            // Nothing moves a task that is done: the totals count on it.
            seen_fence = Fence(fence.0 - 1);
        }
        let error = || text(planned.text);
        let to = match planned.to {
            To::Done => Next::Done { result: error() },
            To::Failed => Next::Failed { error: error() },
            To::Cancelled => Next::Cancelled,
            To::Soon | To::Later => Next::Pending {
                delay: match planned.to {
                    // Over before the next call, and another one for each.
                    To::Soon => Duration::from_micros(number),
                    _ => YEAR,
                },
                error: (planned.text.is_multiple_of(2)).then(error),
            },
        };
        Transition {
            id,
            fence: seen_fence,
            from,
            to,
            spent: planned.spent,
        }
    }

    fn plant_claim(&mut self, claim: u8, worker: u8, tasks: &[u8], under_its_fence: bool) -> Call {
        let held: BTreeMap<TaskId, Fence> = tasks
            .iter()
            .map(|number| {
                let id = task_of(*number);
                let fence = self.tasks.get(&id).map_or(Fence(1), |task| task.fence);
                (id, if under_its_fence { fence } else { fence.next() })
            })
            .collect();
        Call::PlantClaim(ClaimRecord {
            id: claim_of(claim),
            worker: worker_of(worker),
            tasks: held.into_iter().collect(),
            claimed_at: PAST.after(self.another_time()),
        })
    }
}

/// Few, so that the same come again; one is refused by every store.
fn text(number: u8) -> String {
    match number {
        0 => String::new(),
        1 => "Hello world!".to_owned(),
        2 => "👍🏽é \\ 'x' \"y\" {}".to_owned(),
        29 => "a\0b".to_owned(),
        other => format!("text {}", other % 3),
    }
}
