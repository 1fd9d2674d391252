//! Looking at the queue and the claims.

use std::time::Duration;

use async_trait::async_trait;
use ports::survey::COUNTED;
use ports::{StoreError, Survey, TaskSurvey, Timestamp};

use super::MemoryTaskStore;

#[async_trait]
impl TaskSurvey for MemoryTaskStore {
    async fn survey(&self) -> Result<Survey, StoreError> {
        let now = self.clock.now();
        let age = |since: Timestamp| {
            Duration::from_micros(u64::try_from(now.micros_since(since)).unwrap_or(0))
        };
        let state = self.lock();
        let due = |messaged| {
            let oldest = state.queue.oldest(messaged);
            oldest
                .map(|(time, _)| time)
                .take_while(move |time| *time <= now)
        };
        let counted = due(false).chain(due(true)).count();
        let first = due(false).next().into_iter().chain(due(true).next()).min();
        Ok(Survey {
            waiting: number(state.queue.rows.len()),
            due: number(counted),
            oldest_due: first.map(age),
            claims: number(state.claims.len()).min(COUNTED),
            oldest_claim: state
                .claims
                .values()
                .next()
                .map(|claim| age(claim.claimed_at)),
            oldest_transaction: None,
        })
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
