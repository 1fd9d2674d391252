//! What both databases do with a batch before and after they are asked.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use ports::{
    Fingerprint, KeptRequest, KeyedRequest, Listed, Listing, NewTask, Next, Spent, StoreError,
    Task, TaskId, Transition, TransitionOutcome, WriteOutcome,
};
use sea_orm::{DbErr, QueryResult};

use super::failure::Unsupported;
use super::row::column;

/// Refuses what the tables' integers cannot hold.
pub(super) fn check_limits(tasks: &[NewTask]) -> Result<(), StoreError> {
    match tasks
        .iter()
        .find(|task| i32::try_from(task.max_attempts).is_err())
    {
        Some(task) => Err(StoreError::Rejected(Box::new(Unsupported::because(
            format!(
                "task {} allows {} attempts, which is more than {}",
                task.id,
                task.max_attempts,
                i32::MAX
            ),
        )))),
        None => Ok(()),
    }
}

/// Each key once, in ascending order: two statements that meet on the same rows then lock them in the same order.
pub(super) fn distinct<T: Copy + Ord>(keys: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut keys: Vec<T> = keys.into_iter().collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The first item of each key, in ascending order of the keys.
pub(super) fn first_of_each<'a, T, K: Copy + Ord + Hash>(
    items: &'a [T],
    key: impl Fn(&'a T) -> K,
) -> Vec<&'a T> {
    let mut seen = HashSet::with_capacity(items.len());
    let mut first: Vec<&T> = items.iter().filter(|item| seen.insert(key(item))).collect();
    first.sort_unstable_by_key(|item| key(item));
    first
}

/// The rows that were found, in the order in which they were asked for.
pub(super) fn in_order<T: Clone>(
    ids: &[TaskId],
    found: impl IntoIterator<Item = (TaskId, T)>,
) -> Vec<Option<T>> {
    let mut by_id: HashMap<TaskId, T> = found.into_iter().collect();
    let mut answers: Vec<Option<T>> = Vec::with_capacity(ids.len());
    let mut answered: HashMap<TaskId, usize> = HashMap::with_capacity(ids.len());
    for id in ids {
        let answer = match by_id.remove(id) {
            Some(row) => Some(row),
            // The same id again: the row has been handed out above.
            None => answered.get(id).and_then(|&index| answers[index].clone()),
        };
        answered.entry(*id).or_insert(answers.len());
        answers.push(answer);
    }
    answers
}

/// What is kept under the key of each request.
pub(super) fn kept_in_order(
    requests: &[KeyedRequest],
    kept: &HashMap<String, KeptRequest>,
) -> Result<Vec<KeptRequest>, StoreError> {
    let one = |request: &KeyedRequest| kept.get(request.key.as_str()).cloned();
    requests
        .iter()
        .map(one)
        .collect::<Option<Vec<_>>>()
        // It was too old, and is gone between two statements: asked again, it is new.
        .ok_or_else(|| StoreError::Unavailable("a key was forgotten while it was read".into()))
}

pub(super) fn read_fingerprint(row: &QueryResult, index: usize) -> Result<Fingerprint, DbErr> {
    let text: String = column(row, index)?;
    Fingerprint::from_hex(&text).ok_or_else(|| DbErr::Type(format!("{text:?} is no fingerprint")))
}

/// What the row of a transition that did not happen now says: whether the very same one happened before.
pub(super) fn outcome_of_unmoved(transition: &Transition, row: Option<&Task>) -> TransitionOutcome {
    match row {
        Some(task) if is_left_as(task, transition) => TransitionOutcome {
            write: WriteOutcome::AlreadyApplied,
            updated_at: Some(task.updated_at),
        },
        _ => TransitionOutcome {
            write: WriteOutcome::Stale,
            updated_at: None,
        },
    }
}

fn is_left_as(task: &Task, transition: &Transition) -> bool {
    let content = match &transition.to {
        Next::Done { result } => task.result.as_ref() == Some(result),
        Next::Failed { error } => task.error.as_ref() == Some(error),
        Next::Cancelled => true,
        Next::Pending { error, .. } => error.is_none() || task.error == *error,
    };
    let counted = match transition.spent {
        Spent::Attempt => task.attempts >= 1,
        Spent::Rescue => task.rescues >= 1,
        Spent::Nothing => true,
        Spent::Reset => task.attempts == 0 && task.rescues == 0,
    };
    content
        && counted
        && task.fence == transition.fence.next()
        && task.status == transition.to.status()
}

/// A stretch of the catalog: the tasks that are answered, how many match, and the last id that was walked if there may be more
/// behind it.
pub(super) fn page_of(
    listing: &Listing,
    tasks: Vec<Task>,
    matching: usize,
    last_walked: Option<TaskId>,
) -> Listed {
    let is_cut = tasks.len() < matching || matching >= listing.limit.max(1);
    let last_answered = tasks.last().map(|task| task.id);
    let next = last_answered.filter(|_| is_cut).or(last_walked);
    Listed { tasks, next }
}
