//! Which times of one store's clock are equal to which, so that answers of stores with different clocks can be compared.

use std::collections::BTreeMap;

use crate::catalog::Place;
use crate::ids::WorkerId;

use crate::store::{ClaimRecord, ClaimedTask, DeliveryOutcome};
use crate::task::Task;
use crate::time::Timestamp;

use super::call::Answer;
use super::state::is_of_the_history;

/// Each time of the store's clock becomes the number under which it was met first.
#[derive(Debug, Default)]
pub(super) struct Book {
    times: BTreeMap<Timestamp, i64>,
    /// Only standing still means anything, never the value.
    beats: BTreeMap<(WorkerId, u64), u64>,
}

impl Book {
    /// The answer as every store must give it. A ticket that was used before need not tell since when its tasks waited.
    pub(super) fn enter(&mut self, answer: Answer, ticket_was_used: bool) -> Answer {
        let mut answer = answer;
        match &mut answer {
            Answer::Inserted(outcomes) => {
                for outcome in outcomes {
                    self.number(&mut outcome.created_at);
                }
            }
            Answer::Tasks(tasks, _) => tasks.iter_mut().flatten().for_each(|task| self.task(task)),
            Answer::Delivered(outcomes) => {
                for outcome in outcomes {
                    if let DeliveryOutcome::Claimed(task) = outcome {
                        self.claimed(task, ticket_was_used);
                    }
                }
            }
            Answer::Claimed(tasks) => {
                for task in tasks {
                    self.claimed(task, ticket_was_used);
                }
            }
            Answer::Moved(outcomes) => {
                for outcome in outcomes {
                    if let Some(time) = &mut outcome.updated_at {
                        self.number(time);
                    }
                }
            }
            Answer::Claims(claims) => claims.iter_mut().for_each(|claim| self.claim(claim)),
            Answer::Workers(workers) => {
                for entry in workers {
                    let next = self.beats.len() as u64;
                    entry.beat = *self.beats.entry((entry.id, entry.beat)).or_insert(next);
                }
            }
            Answer::Page(page) => page.stranded.iter_mut().for_each(|task| self.task(task)),
            Answer::Untold(events, _) => {
                for event in events {
                    self.number(&mut event.at);
                }
            }
            Answer::Listed(listed) => listed.tasks.iter_mut().for_each(|task| self.task(task)),
            Answer::Inspected(Some((task, place))) => {
                self.task(task);
                match place {
                    Place::Queued { not_before, .. } => self.number(not_before),
                    Place::Claimed { claimed_at, .. } => self.number(claimed_at),
                    Place::Nowhere => {}
                }
            }
            Answer::Nothing
            | Answer::Inspected(None)
            | Answer::Totals { .. }
            | Answer::Beaten(_)
            | Answer::Declared(_)
            | Answer::Removed(_)
            | Answer::Given(_)
            | Answer::Swept(..)
            | Answer::Pruned(..)
            | Answer::WorkerGone
            | Answer::Rejected
            | Answer::Unavailable(_) => {}
        }
        answer
    }

    fn number(&mut self, time: &mut Timestamp) {
        if !is_of_the_history(*time) {
            let next = i64::try_from(self.times.len()).unwrap_or(i64::MAX);
            *time = Timestamp::from_micros(*self.times.entry(*time).or_insert(next));
        }
    }

    fn task(&mut self, task: &mut Task) {
        self.number(&mut task.created_at);
        self.number(&mut task.updated_at);
    }

    fn claimed(&mut self, task: &mut ClaimedTask, ticket_was_used: bool) {
        self.number(&mut task.created_at);
        self.number(&mut task.claimed_at);
        if ticket_was_used {
            task.waiting_since = task.created_at;
        } else {
            self.number(&mut task.waiting_since);
        }
    }

    fn claim(&mut self, claim: &mut ClaimRecord) {
        self.number(&mut claim.claimed_at);
    }
}
