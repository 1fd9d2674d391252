//! Reading tasks and metrics.

mod lookup;

use std::sync::Arc;

use ports::{Dependency, Event, StoreError, Task, TaskId, TaskResult, Tier};

use crate::again::for_a_client;
use crate::{Metrics, Ports, tell_of_failure};
use lookup::{Answer, Lookup};

/// What is known of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It is done; this never changes again.
    Done(TaskResult),
    /// It is not done: waiting, in hand, failed or cancelled.
    Unfinished(Box<Task>),
    /// No such task.
    Unknown,
}

/// Reads: the cache first, the store on a miss. A cache that is down, slow or holds rubbish costs time, never a wrong
/// answer: only final results are in it.
#[derive(Clone)]
pub struct Reader {
    ports: Ports,
    lookup: Arc<Lookup>,
}

impl Reader {
    /// A reader on these ports.
    #[must_use]
    pub fn new(ports: &Ports) -> Self {
        Self {
            ports: ports.clone(),
            lookup: Arc::default(),
        }
    }

    /// Reads one task. Of many callers at once those whom the cache cannot answer share a few questions to the store, and what is
    /// done is put in the cache by the one who asked. Nobody is told what was asked before it came, but that a task is done.
    ///
    /// # Errors
    /// [`StoreError`] when the cache does not hold it and the store does not answer within 3 s, in which it is asked again.
    pub async fn read(&self, id: TaskId) -> Result<Reading, StoreError> {
        if let Some(result) = self.cached(id).await {
            return Ok(Reading::Done(result));
        }
        let store = self.ports.store.as_ref();
        let looking = for_a_client(&self.ports, "read", || self.lookup.get(store, id));
        let Answer { task, to_cache } = looking.await?;
        let result = task.as_ref().and_then(Task::to_result);
        self.ports.observer.observe(&Event::TierLookup {
            tier: Tier::Store,
            hits: usize::from(result.is_some()),
            misses: usize::from(result.is_none()),
        });
        if !to_cache.is_empty()
            && let Err(error) = self.ports.cache.put(&to_cache).await
        {
            self.cache_failed("put", &error);
        }
        Ok(match (task, result) {
            (None, _) => Reading::Unknown,
            (_, Some(result)) => Reading::Done(result),
            (Some(task), None) => Reading::Unfinished(Box::new(task)),
        })
    }

    /// The numbers of `GET /metrics`.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer within 3 s, in which it is asked again.
    pub async fn metrics(&self) -> Result<Metrics, StoreError> {
        let totals = for_a_client(&self.ports, "totals", || self.ports.store.totals());
        Ok(totals.await?.into())
    }

    async fn cached(&self, id: TaskId) -> Option<TaskResult> {
        match self.ports.cache.get(&[id]).await {
            Ok(found) => {
                let result = found.into_iter().flatten().next();
                let hit = result.is_some();
                self.ports.observer.observe(&Event::CacheLookup { hit });
                result
            }
            Err(error) => {
                self.cache_failed("get", &error);
                None
            }
        }
    }

    fn cache_failed(&self, doing: &'static str, error: &ports::CacheError) {
        tell_of_failure(&*self.ports.observer, Dependency::Cache, doing, error);
    }
}
