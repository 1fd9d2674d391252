//! The suite of [`WorkerRegistry`](crate::WorkerRegistry).

use crate::ids::WorkerId;

use super::fresh_uuid;
pub use super::store::Subject;

/// Expands to a module of one test per promise of [`WorkerRegistry`](crate::WorkerRegistry).
///
/// `registry_conformance!(#[attribute]… module_name, expression_of_a_fresh_subject)`; see
/// [`conformance`](crate::conformance). The subject is that of the store's suite.
#[macro_export]
macro_rules! registry_conformance {
    ($(#[$attribute:meta])* $module:ident, $subject:expr $(,)?) => {
        $crate::__conformance_cases!(registry, $module, [$(#[$attribute])*], $subject, [
            register_is_idempotent,
        ]);
    };
}

/// Registers a worker, alive. Idempotent.
pub async fn register_is_idempotent(subject: &dyn Subject) {
    let registry = subject.registry();
    let worker = WorkerId(fresh_uuid());
    for _ in 0..2 {
        registry.register(worker, "host:1").await.expect("register");
    }
    let workers = registry.workers().await.expect("workers");
    assert_eq!(workers.len(), 1);
    assert_eq!(workers[0].id, worker);
    assert_eq!(workers[0].name, "host:1");
    assert!(!workers[0].dead);
}
