//! Histories of caches.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::Found;
use crate::cache::ResultCache;
use crate::conformance::fresh_id;
use crate::task::{TaskId, TaskResult};
use crate::time::Timestamp;

/// How many tasks there are names for: few, so that most of what is asked for was put.
const TASKS: u8 = 6;

const TEXTS: [&str; 5] = [
    "!dlrow olleH (len=12)",
    "",
    " (len=0)",
    "é👍🏽 (len=2) \"quoted\" \u{1} \n\\",
    "{\"taskId\":null}",
];

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A task, a text and a time for each; a task may be there twice, and the later counts.
    Put(Vec<(u8, u8, u16)>),
    /// A task may be asked for twice.
    Get(Vec<u8>),
}

pub(super) fn steps(length: usize) -> impl Strategy<Value = Vec<Step>> {
    let put = (0..TASKS, any::<u8>(), any::<u16>());
    let step = prop_oneof![
        1 => vec(put, 0..6).prop_map(Step::Put),
        2 => vec(0..TASKS, 0..8).prop_map(Step::Get),
    ];
    vec(step, 1..length)
}

pub(super) async fn compare(steps: &[Step], caches: &[Arc<dyn ResultCache>; 2]) -> Found {
    let tasks: Vec<TaskId> = (0..TASKS).map(|_| fresh_id()).collect();
    let mut told = String::new();
    let everything = Step::Get((0..TASKS).collect());
    for step in steps.iter().chain(std::iter::once(&everything)) {
        let mut answers = Vec::new();
        for cache in caches {
            answers.push(make(step, &tasks, cache.as_ref()).await);
        }
        told.push_str(&format!("  {step:?}\n    {:?}\n", answers[0]));
        if answers[0] != answers[1] {
            let other = &answers[1];
            return Err(format!("{told}  the other cache answered\n    {other:?}\n"));
        }
    }
    Ok(())
}

/// What was found; nothing after a put. An error as text, so that it can be compared.
async fn make(
    step: &Step,
    tasks: &[TaskId],
    cache: &dyn ResultCache,
) -> Result<Vec<Option<TaskResult>>, String> {
    match step {
        Step::Put(puts) => {
            let results: Vec<TaskResult> = puts
                .iter()
                .map(|(task, text, millis)| TaskResult {
                    id: tasks[usize::from(*task)],
                    result: TEXTS[usize::from(*text) % TEXTS.len()].into(),
                    // Whole milliseconds: that is what the contract's cached value keeps.
                    processed_at: Timestamp::from_micros(
                        1_704_067_202_000_000 + 1_000 * i64::from(*millis),
                    ),
                })
                .collect();
            let put = cache.put(&results).await;
            put.map(|()| Vec::new()).map_err(|error| error.to_string())
        }
        Step::Get(wanted) => {
            let ids: Vec<TaskId> = wanted
                .iter()
                .map(|task| tasks[usize::from(*task)])
                .collect();
            cache.get(&ids).await.map_err(|error| error.to_string())
        }
    }
}
