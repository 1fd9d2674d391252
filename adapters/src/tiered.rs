//! A cache in two tiers: one near, in this process, before one far.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use ports::observer::Tier;
use ports::{CacheError, Dependency, Event, Observer, ResultCache, TaskId, TaskResult};

/// Asks a near cache first and a far one for the rest, and remembers near what it found far.
///
/// A far cache that fails costs its timeout, never the answer: `get` takes it for empty and tells the observer
/// ([`Event::DependencyFailed`], and [`Event::DependencyRecovered`] once it answers again). `put` writes both and
/// reports the failure of the far one to its caller. Results are final, so the tiers cannot disagree.
///
/// ```
/// use std::sync::Arc;
/// use task_processor_adapters::memory::Memory;
/// use task_processor_adapters::tiered::Tiered;
/// use ports::{NoObserver, ResultCache, TaskResult, Timestamp};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (near, far) = (Memory::new().cache, Memory::new().cache);
/// let cache = Tiered::new(near.clone(), far.clone(), Arc::new(NoObserver));
/// let result = TaskResult {
///     id: "0194fdc2-fa2f-7cc0-81d3-ff1204e5b6ab".parse()?,
///     result: "!dlrow olleH (len=12)".into(),
///     processed_at: Timestamp::EPOCH,
/// };
/// far.put(std::slice::from_ref(&result)).await?; // another process did this
/// assert_eq!(cache.get(&[result.id]).await?, [Some(result.clone())]);
/// assert_eq!(near.get(&[result.id]).await?, [Some(result)]);
/// # Ok(())
/// # }
/// ```
pub struct Tiered {
    near: Arc<dyn ResultCache>,
    far: Arc<dyn ResultCache>,
    observer: Arc<dyn Observer>,
    failing: AtomicBool,
}

impl Tiered {
    /// A near cache before a far one.
    #[must_use]
    pub fn new(
        near: Arc<dyn ResultCache>,
        far: Arc<dyn ResultCache>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            near,
            far,
            observer,
            failing: AtomicBool::new(false),
        }
    }

    fn tell(&self, tier: Tier, found: &[Option<TaskResult>]) {
        let hits = found.iter().flatten().count();
        let misses = found.len() - hits;
        self.observer
            .observe(&Event::TierLookup { tier, hits, misses });
    }

    fn report(&self, doing: &'static str, error: &CacheError) {
        self.failing.store(true, Ordering::Relaxed);
        self.observer.observe(&Event::DependencyFailed {
            dependency: Dependency::Cache,
            doing,
            error: with_causes(error),
        });
    }

    fn report_recovery(&self) {
        // Read before written: this stands in the way of every lookup.
        if self.failing.load(Ordering::Relaxed) && self.failing.swap(false, Ordering::Relaxed) {
            self.observer.observe(&Event::DependencyRecovered {
                dependency: Dependency::Cache,
            });
        }
    }
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[async_trait]
impl ResultCache for Tiered {
    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<TaskResult>>, CacheError> {
        let mut found = match self.near.get(ids).await {
            Ok(found) => found,
            Err(error) => {
                self.report("reading the near cache", &error);
                vec![None; ids.len()]
            }
        };
        let missing: Vec<usize> = (0..ids.len())
            .filter(|place| found[*place].is_none())
            .collect();
        self.tell(Tier::Process, &found);
        if missing.is_empty() {
            return Ok(found);
        }
        let asked: Vec<TaskId> = missing.iter().map(|place| ids[*place]).collect();
        let far = match self.far.get(&asked).await {
            Ok(far) => far,
            Err(error) => {
                self.report("reading the far cache", &error);
                return Ok(found);
            }
        };
        self.report_recovery();
        self.tell(Tier::Shared, &far);
        let fresh: Vec<TaskResult> = far.iter().flatten().cloned().collect();
        if !fresh.is_empty()
            && let Err(error) = self.near.put(&fresh).await
        {
            self.report("filling the near cache", &error);
        }
        for (place, result) in missing.into_iter().zip(far) {
            found[place] = result;
        }
        Ok(found)
    }

    async fn put(&self, results: &[TaskResult]) -> Result<(), CacheError> {
        if let Err(error) = self.near.put(results).await {
            self.report("filling the near cache", &error);
        }
        self.far.put(results).await
    }

    /// Whether the far one answers; the near one is here.
    async fn ping(&self) -> Result<(), CacheError> {
        self.far.ping().await
    }
}

#[cfg(all(test, feature = "memory"))]
mod tests {
    use super::*;
    use crate::faulty::{Fault, Faulty};
    use crate::memory::{Memory, MemoryResultCache};
    use ports::Timestamp;

    struct Tiers {
        memory: Memory,
        far: Arc<Faulty<MemoryResultCache>>,
        tiered: Tiered,
    }

    fn tiers() -> Tiers {
        let memory = Memory::new();
        let far = Arc::new(Faulty::new(Memory::new().cache));
        let tiered = Tiered::new(memory.cache.clone(), far.clone(), memory.observer.clone());
        Tiers {
            memory,
            far,
            tiered,
        }
    }

    fn result(number: u128) -> TaskResult {
        TaskResult {
            id: TaskId(uuid::Uuid::from_u128(number)),
            result: number.to_string(),
            processed_at: Timestamp::EPOCH,
        }
    }

    #[tokio::test]
    async fn asks_far_only_for_what_is_not_near() {
        let Tiers {
            memory,
            far,
            tiered,
        } = tiers();
        let all = [result(1), result(2), result(3)];
        memory.cache.put(&all[..1]).await.expect("put");
        far.inner().put(&all[1..2]).await.expect("put");
        let ids = [all[2].id, all[1].id, all[0].id];
        let expected = [None, Some(all[1].clone()), Some(all[0].clone())];
        assert_eq!(tiered.get(&ids).await.expect("get"), expected);
        // Now both are near.
        let calls = far.faults().calls_of("get");
        assert_eq!(tiered.get(&ids[1..]).await.expect("get"), expected[1..]);
        assert_eq!(far.faults().calls_of("get"), calls);
    }

    #[tokio::test]
    async fn a_far_cache_that_is_down_is_taken_for_empty_and_reported() {
        let Tiers {
            memory,
            far,
            tiered,
        } = tiers();
        let one = result(1);
        memory
            .cache
            .put(std::slice::from_ref(&one))
            .await
            .expect("put");
        far.faults().always(Fault::FailBefore);
        let ids = [one.id, result(2).id];
        assert_eq!(
            tiered.get(&ids).await.expect("get"),
            [Some(one.clone()), None]
        );
        assert!(tiered.put(&[result(2)]).await.is_err());
        assert!(tiered.ping().await.is_err());
        // What was put is near all the same.
        assert_eq!(
            tiered.get(&ids).await.expect("get"),
            [Some(one), Some(result(2))]
        );
        far.faults().heal();
        for _ in 0..2 {
            tiered.get(&[result(3).id]).await.expect("get");
        }
        let mut events = memory.observer.events();
        let looked = |event: &Event| match event {
            Event::TierLookup { tier, hits, misses } => Some((*tier, *hits, *misses)),
            _ => None,
        };
        let told: Vec<_> = events.iter().filter_map(looked).collect();
        assert_eq!(told.last(), Some(&(Tier::Shared, 0, 1)), "{told:?}");
        events.retain(|event| looked(event).is_none());
        assert!(
            matches!(
                &events[..],
                [Event::DependencyFailed { dependency: Dependency::Cache, error, .. }, Event::DependencyRecovered { .. }]
                    if error == "the result cache is unavailable: FailBefore was ordered for get"
            ),
            "{events:?}"
        );
    }
}
