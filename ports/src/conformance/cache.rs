//! The suite of [`ResultCache`](crate::ResultCache).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::cache::ResultCache;
use crate::task::{TaskId, TaskResult};
use crate::time::Timestamp;

use super::fresh_id;

/// A fresh, empty cache with room for 2,000 small results.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    /// The cache.
    fn cache(&self) -> Arc<dyn ResultCache>;

    /// The time to live the cache was made with. A cache whose clock cannot be advanced is made with a short one
    /// (a second or two: long enough for the other cases).
    fn time_to_live(&self) -> Duration;

    /// Lets at least this much time pass on the cache's clock: a manual clock is advanced, otherwise this sleeps.
    async fn pass(&self, time: Duration);

    /// Puts something unreadable under the key of this id. A cache that cannot hold anything unreadable does nothing.
    async fn plant_rubbish(&self, id: TaskId);

    /// Gives back what the subject holds. Called after the case, failed or not.
    async fn close(&self) {}
}

/// Expands to a module of one test per promise of [`ResultCache`](crate::ResultCache).
///
/// `cache_conformance!(#[attribute]… module_name, expression_of_a_fresh_subject)`; see [`conformance`](crate::conformance).
#[macro_export]
macro_rules! cache_conformance {
    ($(#[$attribute:meta])* $module:ident, $subject:expr $(,)?) => {
        $crate::__conformance_cases!(cache, $module, [$(#[$attribute])*], $subject, [
            get_finds_what_was_put,
        ]);
    };
}

fn result(text: &str) -> TaskResult {
    TaskResult {
        id: fresh_id(),
        result: text.into(),
        // Whole milliseconds: that is what the contract's cached value keeps.
        processed_at: Timestamp::from_micros(1_735_689_602_345_000),
    }
}

/// What was put is found, exactly.
pub async fn get_finds_what_was_put(subject: &dyn Subject) {
    let cache = subject.cache();
    let kept = result("!dlrow olleH (len=12)");
    cache.put(std::slice::from_ref(&kept)).await.expect("put");
    assert_eq!(cache.get(&[kept.id]).await.expect("get"), [Some(kept)]);
}
