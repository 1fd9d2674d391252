//! The cache as one process sees it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adapters::memory::MemoryResultCache;
use async_trait::async_trait;
use ports::{CacheError, ResultCache, TaskId, TaskResult};

use super::Struck;
use crate::link::Link;
use crate::sky::Call;

/// Every result that was ever put, whatever the cache still holds: the first of each task, and those that differ from it.
#[derive(Default)]
pub(crate) struct CacheRecord {
    put: Mutex<BTreeMap<TaskId, Vec<TaskResult>>>,
}

impl CacheRecord {
    pub(crate) fn put(&self) -> MutexGuard<'_, BTreeMap<TaskId, Vec<TaskResult>>> {
        self.put.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, results: &[TaskResult]) {
        let mut put = self.put();
        for result in results {
            let seen = put.entry(result.id).or_default();
            if !seen.contains(result) {
                seen.push(result.clone());
            }
        }
    }
}

pub(crate) struct ChaosCache {
    inner: Arc<MemoryResultCache>,
    record: Arc<CacheRecord>,
    link: Arc<Link>,
}

impl ChaosCache {
    pub(crate) fn new(
        inner: Arc<MemoryResultCache>,
        record: Arc<CacheRecord>,
        link: Arc<Link>,
    ) -> Self {
        Self {
            inner,
            record,
            link,
        }
    }

    fn forgets(&self) -> bool {
        let sky = &self.link.sky;
        sky.strikes(sky.weather.cache_forgets)
    }
}

fn unavailable<T>() -> Result<T, CacheError> {
    Err(CacheError::Unavailable(Struck.into()))
}

#[async_trait]
impl ResultCache for ChaosCache {
    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<TaskResult>>, CacheError> {
        let (inner, owned) = (Arc::clone(&self.inner), ids.to_vec());
        let deed = async move { inner.get(&owned).await };
        let answer = self.link.call(Call::CacheGet, deed).await;
        let mut found = answer.unwrap_or_else(unavailable)?;
        for result in &mut found {
            // Gone, or rubbish that the adapter takes for a miss.
            if self.forgets() {
                *result = None;
            }
        }
        Ok(found)
    }

    async fn put(&self, results: &[TaskResult]) -> Result<(), CacheError> {
        let kept: Vec<TaskResult> = results
            .iter()
            .filter(|_| !self.forgets())
            .cloned()
            .collect();
        let (inner, record) = (Arc::clone(&self.inner), Arc::clone(&self.record));
        let deed = async move {
            record.note(&kept);
            inner.put(&kept).await
        };
        let answer = self.link.call(Call::CachePut, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn ping(&self) -> Result<(), CacheError> {
        let inner = Arc::clone(&self.inner);
        let deed = async move { inner.ping().await };
        let answer = self.link.call(Call::PingCache, deed).await;
        answer.unwrap_or_else(unavailable)
    }
}
