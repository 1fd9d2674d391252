//! The result cache in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ports::{CacheError, Clock, ResultCache, TaskId, TaskResult, Timestamp};

/// What an entry takes beside its text: two tree entries, the id, the times (estimated from their sizes).
const ENTRY_BYTES: usize = 160;

/// The limits of a [`MemoryResultCache`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// How much it may hold, texts and an estimate of what surrounds them. Default 64 MiB. 0 keeps nothing.
    pub max_bytes: usize,
    /// How long a result is kept. Default one hour.
    pub time_to_live: Duration,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self {
            max_bytes: 64 * 1024 * 1024,
            time_to_live: Duration::from_secs(3_600),
        }
    }
}

/// [`ResultCache`] in this process: the tier before a cache elsewhere, the cache of the embedded form, and the fake of
/// tests. Bounded by bytes; what came first goes first. A result is final, so nothing in it is ever stale.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use task_processor_adapters::memory::{ManualClock, MemoryResultCache};
/// use ports::{ResultCache, TaskResult, Timestamp};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let clock = Arc::new(ManualClock::default());
/// let cache = MemoryResultCache::new(clock.clone());
/// let result = TaskResult {
///     id: "0194fdc2-fa2f-7cc0-81d3-ff1204e5b6ab".parse()?,
///     result: "!dlrow olleH (len=12)".into(),
///     processed_at: Timestamp::EPOCH,
/// };
/// cache.put(std::slice::from_ref(&result)).await?;
/// assert_eq!(cache.get(&[result.id]).await?, [Some(result.clone())]);
/// clock.advance(Duration::from_secs(3_600));
/// assert_eq!(cache.get(&[result.id]).await?, [None]);
/// # Ok(())
/// # }
/// ```
pub struct MemoryResultCache {
    clock: Arc<dyn Clock>,
    limits: CacheLimits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<TaskId, Entry>,
    /// Ids in the order in which they came.
    order: BTreeMap<u64, TaskId>,
    next_turn: u64,
    bytes: usize,
}

struct Entry {
    result: TaskResult,
    expires_at: Timestamp,
    turn: u64,
}

impl Entry {
    fn bytes(&self) -> usize {
        size_of(&self.result)
    }
}

fn size_of(result: &TaskResult) -> usize {
    ENTRY_BYTES + result.result.len()
}

impl State {
    fn forget(&mut self, id: TaskId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.order.remove(&entry.turn);
            self.bytes -= entry.bytes();
        }
    }

    fn keep(&mut self, result: TaskResult, expires_at: Timestamp) {
        let turn = self.next_turn;
        self.next_turn += 1;
        self.bytes += size_of(&result);
        self.order.insert(turn, result.id);
        self.entries.insert(
            result.id,
            Entry {
                result,
                expires_at,
                turn,
            },
        );
    }

    fn shrink_to(&mut self, max_bytes: usize) {
        while self.bytes > max_bytes {
            let Some((_, oldest)) = self.order.pop_first() else {
                return;
            };
            if let Some(entry) = self.entries.remove(&oldest) {
                self.bytes -= entry.bytes();
            }
        }
    }

    /// Results that came first expire first, since all live equally long.
    fn forget_expired(&mut self, now: Timestamp) {
        while let Some((_, oldest)) = self.order.first_key_value() {
            let id = *oldest;
            if self
                .entries
                .get(&id)
                .is_some_and(|entry| entry.expires_at > now)
            {
                return;
            }
            self.forget(id);
        }
    }
}

impl MemoryResultCache {
    /// An empty cache with the default [`CacheLimits`].
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_limits(clock, CacheLimits::default())
    }

    /// An empty cache with these limits.
    #[must_use]
    pub fn with_limits(clock: Arc<dyn Clock>, limits: CacheLimits) -> Self {
        Self {
            clock,
            limits,
            state: Mutex::default(),
        }
    }

    /// How many results it holds, expired ones that were not cleared yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How much it holds, as [`CacheLimits::max_bytes`] counts it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Forgets everything, as a restart does.
    pub fn clear(&self) {
        *self.lock() = State::default();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Losing an entry is always allowed, so a panic elsewhere leaves nothing that could be wrong.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ResultCache for MemoryResultCache {
    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<TaskResult>>, CacheError> {
        let now = self.clock.now();
        let state = self.lock();
        let found = ids.iter().map(|id| {
            let entry = state.entries.get(id)?;
            (entry.expires_at > now).then(|| entry.result.clone())
        });
        Ok(found.collect())
    }

    async fn put(&self, results: &[TaskResult]) -> Result<(), CacheError> {
        let now = self.clock.now();
        let expires_at = now.after(self.limits.time_to_live);
        let mut state = self.lock();
        state.forget_expired(now);
        for result in results {
            state.forget(result.id);
            // One that would push out everything and still not fit is not kept at all.
            if size_of(result) <= self.limits.max_bytes {
                state.keep(result.clone(), expires_at);
                state.shrink_to(self.limits.max_bytes);
            }
        }
        Ok(())
    }

    async fn ping(&self) -> Result<(), CacheError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::ManualClock;

    fn result(number: u128, length: usize) -> TaskResult {
        TaskResult {
            id: TaskId(uuid::Uuid::from_u128(number)),
            result: "x".repeat(length),
            processed_at: Timestamp::EPOCH,
        }
    }

    async fn held(cache: &MemoryResultCache, numbers: impl IntoIterator<Item = u128>) -> Vec<bool> {
        let ids: Vec<TaskId> = numbers
            .into_iter()
            .map(|number| result(number, 0).id)
            .collect();
        let found = cache.get(&ids).await.expect("get");
        found.iter().map(Option::is_some).collect()
    }

    #[tokio::test]
    async fn what_came_first_goes_first_and_the_bytes_are_bounded() {
        let limits = CacheLimits {
            max_bytes: 3 * (ENTRY_BYTES + 100),
            ..CacheLimits::default()
        };
        let cache = MemoryResultCache::with_limits(Arc::new(ManualClock::default()), limits);
        cache
            .put(&[result(1, 100), result(2, 100), result(3, 100)])
            .await
            .expect("put");
        assert_eq!(held(&cache, 1..=3).await, [true; 3]);
        // Put again, the first is the youngest.
        cache
            .put(&[result(1, 100), result(4, 100)])
            .await
            .expect("put");
        assert_eq!(held(&cache, 1..=4).await, [true, false, true, true]);
        assert_eq!(cache.bytes(), limits.max_bytes);
        // What can never fit pushes nothing out, but what stood under its id is gone.
        cache
            .put(&[result(3, limits.max_bytes)])
            .await
            .expect("put");
        assert_eq!(held(&cache, 1..=4).await, [true, false, false, true]);
        cache.clear();
        assert!(cache.is_empty());
        assert_eq!(cache.bytes(), 0);
    }

    #[tokio::test]
    async fn what_expired_is_forgotten_at_the_next_put() {
        let clock = Arc::new(ManualClock::default());
        let cache = MemoryResultCache::new(clock.clone());
        cache.put(&[result(1, 1), result(2, 1)]).await.expect("put");
        clock.advance(CacheLimits::default().time_to_live);
        assert_eq!(
            (cache.len(), held(&cache, 1..=2).await),
            (2, vec![false, false])
        );
        cache.put(&[result(3, 1)]).await.expect("put");
        assert_eq!(cache.len(), 1);
    }
}
