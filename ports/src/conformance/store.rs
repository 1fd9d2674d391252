//! The suite of [`TaskStore`](crate::TaskStore).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::registry::WorkerRegistry;
use crate::store::{TaskStore, WriteOutcome};
use crate::task::TaskId;

use super::{ids_of, new_tasks};

/// A fresh, empty store with the registry that shares it.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    /// The store.
    fn store(&self) -> Arc<dyn TaskStore>;

    /// The registry in the same store.
    fn registry(&self) -> Arc<dyn WorkerRegistry>;

    /// Lets at least this much time pass on the store's clock: a manual clock is advanced, otherwise this sleeps.
    async fn pass(&self, time: Duration);

    /// Writes rows as another program does: `pending`, this payload, priority 0, fence 0, created now, no queue row.
    async fn plant(&self, ids: &[TaskId], payload: &str);

    /// Gives back what the subject holds (a database of its own, for example). Called after the case, failed or not.
    async fn close(&self) {}
}

/// Expands to a module of one test per promise of [`TaskStore`](crate::TaskStore).
///
/// `store_conformance!(#[attribute]… module_name, expression_of_a_fresh_subject)`; see [`conformance`](crate::conformance).
#[macro_export]
macro_rules! store_conformance {
    ($(#[$attribute:meta])* $module:ident, $subject:expr $(,)?) => {
        $crate::__conformance_cases!(store, $module, [$(#[$attribute])*], $subject, [
            insert_is_idempotent_by_id,
        ]);
    };
}

/// Idempotent by id: an id that exists is left untouched and reported `AlreadyApplied` with the existing row's
/// `created_at`.
pub async fn insert_is_idempotent_by_id(subject: &dyn Subject) {
    let store = subject.store();
    let tasks = new_tasks(3);
    let first = store.insert(&tasks).await.expect("insert");
    subject.pass(Duration::from_millis(2)).await;
    let again = store.insert(&tasks).await.expect("insert again");
    for (one, two) in first.iter().zip(&again) {
        assert_eq!(one.write, WriteOutcome::Applied);
        assert_eq!(two.write, WriteOutcome::AlreadyApplied);
        assert_eq!(one.created_at, two.created_at);
    }
    let kept = store.get(&ids_of(&tasks)).await.expect("get");
    assert!(kept.iter().all(Option::is_some));
}
