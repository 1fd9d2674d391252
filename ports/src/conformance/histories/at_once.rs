//! Two calls at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::ids::WorkerId;
use crate::store::{ClaimRecord, DeliveryOutcome, WriteOutcome};
use crate::task::{Fence, Task, TaskId, TaskStatus};

use super::super::store::Subject;
use super::Found;
use super::call::{Answer, Call, ending, make};
use super::plan::{self, Step};
use super::state::{State, all_tasks};

/// What a program of ours may do: no other hands, and no claim is released that holds something.
pub(super) fn pairs(length: usize) -> impl Strategy<Value = Vec<(Step, Step)>> {
    let step = || {
        prop_oneof![
            2 => plan::inserting(),
            5 => plan::delivered(),
            5 => plan::aged(),
            8 => plan::transition(),
            2 => plan::books(),
            3 => plan::registry(),
            2 => Just(Step::Repeat),
        ]
    };
    vec((step(), step()), 1..=length)
}

/// The moves that answers told of: by task and fence after the move, how often.
#[derive(Default)]
struct Moves {
    by_fence: BTreeMap<(TaskId, Fence), usize>,
}

impl Moves {
    fn note(&mut self, call: &Call, answer: &Answer) {
        match (call, answer) {
            (_, Answer::Delivered(outcomes)) => {
                for outcome in outcomes {
                    if let DeliveryOutcome::Claimed(task) = outcome {
                        *self.by_fence.entry((task.id, task.fence)).or_default() += 1;
                    }
                }
            }
            (_, Answer::Claimed(tasks)) => {
                for task in tasks {
                    *self.by_fence.entry((task.id, task.fence)).or_default() += 1;
                }
            }
            (Call::Transition(transitions), Answer::Moved(outcomes)) => {
                for (transition, outcome) in transitions.iter().zip(outcomes) {
                    if outcome.write == WriteOutcome::Applied {
                        let moved = (transition.id, transition.fence.next());
                        *self.by_fence.entry(moved).or_default() += 1;
                    }
                }
            }
            _ => {}
        }
    }
}

/// Plays pairs and checks what must hold.
pub(super) async fn check(pairs: &[(Step, Step)], store: &Arc<dyn Subject>) -> Found {
    let mut state = State::default();
    let mut moves = Moves::default();
    let mut told = String::new();
    let mut tickets = 0;
    for (one, other) in pairs {
        let one = state.resolve(one);
        let first = fresh_ticket(one, &mut tickets);
        let second = match other {
            // The same call at the same time: its caller lost patience.
            Step::Repeat => first.clone(),
            other => fresh_ticket(state.resolve(other), &mut tickets),
        };
        let is_same = matches!(other, Step::Repeat);
        let running = [first.clone(), second.clone()].map(|call| {
            let store = Arc::clone(store);
            tokio::spawn(async move { make(&call, store.as_ref()).await })
        });
        let mut answers = Vec::new();
        for running in running {
            answers.push(running.await.map_err(|error| format!("{told}{error}"))?);
        }
        told.push_str(&format!(
            "  {first:?}\n    {:?}\n  at once {second:?}\n    {:?}\n",
            answers[0], answers[1]
        ));
        if let Some(Answer::Unavailable(cause)) = answers
            .iter()
            .find(|answer| matches!(answer, Answer::Unavailable(_)))
        {
            return Err(format!("{told}  nothing was the matter, and yet: {cause}"));
        }
        let is_claim = matches!(first, Call::ClaimDelivered(..) | Call::ClaimAged(..));
        if is_same && is_claim && answers[0] != answers[1] && !both_passed_over(&answers) {
            return Err(format!("{told}  one ticket was answered in two ways"));
        }
        moves.note(&first, &answers[0]);
        if !(is_same && is_claim) {
            moves.note(&second, &answers[1]);
        }
        state
            .follow(&Call::Release(Vec::new()), store.as_ref())
            .await;
    }
    let wrong = contradictions(store.as_ref(), &moves).await;
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("{told}  {}", wrong.join("\n  ")))
}

/// What a ticket does not hold may be said in two ways while others move it.
fn both_passed_over(answers: &[Answer]) -> bool {
    let claimed = |answer: &Answer| match answer {
        Answer::Delivered(outcomes) => outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                DeliveryOutcome::Claimed(task) => Some((task.id, task.fence)),
                _ => None,
            })
            .collect(),
        Answer::Claimed(tasks) => tasks.iter().map(|task| (task.id, task.fence)).collect(),
        _ => Vec::new(),
    };
    claimed(&answers[0]) == claimed(&answers[1])
}

/// Claims of different callers bear different ids.
fn fresh_ticket(call: Call, tickets: &mut u128) -> Call {
    let mut call = call;
    if let Call::ClaimDelivered(ticket, _) | Call::ClaimAged(ticket, ..) = &mut call {
        *tickets += 1;
        ticket.claim.0 = uuid::Uuid::from_u128(0x0190_0000_2000 + *tickets);
    }
    call
}

/// What contradicts the promises, in words, when nothing is under way.
async fn contradictions(subject: &dyn Subject, moves: &Moves) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((id, fence), times) in &moves.by_fence {
        if *times > 1 {
            wrong.push(format!(
                "{times} callers moved task {id} to fence {}",
                fence.0
            ));
        }
    }
    let found = subject.store().get(&all_tasks()).await.expect("get");
    let tasks: BTreeMap<TaskId, Task> = found
        .into_iter()
        .flatten()
        .map(|task| (task.id, task))
        .collect();
    for (id, task) in &tasks {
        let range = (*id, Fence(i64::MIN))..=(*id, Fence(i64::MAX));
        let told = moves.by_fence.range(range).count();
        if usize::try_from(task.fence.0) != Ok(told) {
            wrong.push(format!(
                "task {id} has fence {} after {told} moves",
                task.fence.0
            ));
        }
    }
    let workers = subject.registry().workers().await.expect("workers");
    let mut claims = subject.audit().orphaned_claims(100).await.expect("claims");
    if !claims.is_empty() {
        wrong.push(format!("claims of nobody: {claims:?}"));
    }
    for entry in workers {
        let worker: WorkerId = entry.id;
        let of_worker = subject.store().claims_of(worker, None, 1_000).await;
        claims.extend(of_worker.expect("claims"));
    }
    for task in tasks
        .values()
        .filter(|task| task.status == TaskStatus::Processing)
    {
        let held = |claim: &&ClaimRecord| claim.tasks.contains(&(task.id, task.fence));
        let holders = claims.iter().filter(held).count();
        if holders != 1 {
            wrong.push(format!(
                "task {} is in the hands of {holders} claims",
                task.id
            ));
        }
    }
    let page = subject.audit().stranded(None, 100, Duration::ZERO).await;
    let page = page.expect("stranded");
    if !page.stranded.is_empty() {
        wrong.push(format!("stranded: {:?}", page.stranded));
    }
    if !page.unlisted.is_empty() {
        wrong.push(format!("stopped and not listed: {:?}", page.unlisted));
    }
    let (deleted, _) = subject.audit().sweep_queue(None, 100).await.expect("sweep");
    if deleted > 0 {
        wrong.push(format!("{deleted} queue rows of tasks that do not wait"));
    }
    for call in ending() {
        match (make(&call, subject).await, call) {
            (Answer::Totals { right: false, done }, _) => {
                wrong.push(format!(
                    "the totals ({done} done) are not those of the tasks"
                ));
            }
            (Answer::Delivered(outcomes), _) => {
                for (id, outcome) in all_tasks().iter().zip(outcomes) {
                    let status = tasks.get(id).map(|task| task.status);
                    let is_right = match outcome {
                        DeliveryOutcome::Unknown => status.is_none(),
                        DeliveryOutcome::Early => status == Some(TaskStatus::Pending),
                        // Claimed by age just before, if it waited.
                        DeliveryOutcome::InHand => {
                            status.is_some_and(|status| !status.is_at_rest())
                        }
                        DeliveryOutcome::AtRest => status.is_some_and(TaskStatus::is_at_rest),
                        DeliveryOutcome::Claimed(_) | DeliveryOutcome::Repeated => false,
                    };
                    if !is_right {
                        wrong.push(format!("task {id} was {status:?}, and was not due by age"));
                    }
                }
            }
            _ => {}
        }
    }
    for task in tasks.values() {
        if task.result.is_some() != matches!(task.status, TaskStatus::Done) {
            wrong.push(format!(
                "task {} is {} with a wrong result",
                task.id, task.status
            ));
        }
    }
    wrong
}
