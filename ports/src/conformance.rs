//! The conformance suite of every port.
//!
//! What a port's documentation promises, a case here checks: one public async function a promise. An adapter supplies a
//! *subject*, a harness around a fresh instance of itself, and calls the suite's macro, which expands to a module with one
//! `#[test]` per case, so that every promise shows by name in every adapter's test run:
//!
//! ```text
//! use ports::conformance::store::Subject;
//!
//! struct Postgres { /* a database of its own, and the adapters on it */ }
//! impl Postgres { async fn fresh() -> Self { /* … */ } }
//! #[async_trait::async_trait]
//! impl Subject for Postgres { /* … */ }
//!
//! // Attributes stand before the name of the module and land on every test of it.
//! ports::store_conformance!(#[ignore = "needs PostgreSQL: run cargo xtask test"] postgres, Postgres::fresh().await);
//! ports::idempotency_conformance!(#[ignore = "needs PostgreSQL: run cargo xtask test"] postgres_idempotency, Postgres::fresh().await);
//! ports::registry_conformance!(#[ignore = "needs PostgreSQL: run cargo xtask test"] postgres_registry, Postgres::fresh().await);
//! ports::audit_conformance!(#[ignore = "needs PostgreSQL: run cargo xtask test"] postgres_audit, Postgres::fresh().await);
//! ports::catalog_conformance!(#[ignore = "needs PostgreSQL: run cargo xtask test"] postgres_catalog, Postgres::fresh().await);
//! ```
//!
//! | macro | port | subject |
//! |---|---|---|
//! | [`store_conformance!`](crate::store_conformance) | [`TaskStore`](crate::TaskStore) | [`store::Subject`] |
//! | [`registry_conformance!`](crate::registry_conformance) | [`WorkerRegistry`](crate::WorkerRegistry) | [`store::Subject`] |
//! | [`idempotency_conformance!`](crate::idempotency_conformance) | [`TaskStore`](crate::TaskStore), requests under keys | [`store::Subject`] |
//! | [`audit_conformance!`](crate::audit_conformance) | [`TaskAudit`](crate::TaskAudit) | [`store::Subject`] |
//! | [`catalog_conformance!`](crate::catalog_conformance) | [`TaskCatalog`](crate::TaskCatalog) | [`store::Subject`] |
//! | [`survey_conformance!`](crate::survey_conformance) | [`TaskSurvey`](crate::TaskSurvey) | [`survey::Subject`] |
//! | [`log_conformance!`](crate::log_conformance) | [`TaskPublisher`](crate::TaskPublisher), [`TaskFeed`](crate::TaskFeed) | [`log::Subject`] |
//! | [`announcer_conformance!`](crate::announcer_conformance) | [`Announcer`](crate::Announcer) | [`log::Subject`] |
//! | [`events_conformance!`](crate::events_conformance) | [`Announcer::tell`](crate::Announcer::tell), [`EventFeed`](crate::EventFeed) | [`events::Subject`] |
//! | [`cache_conformance!`](crate::cache_conformance) | [`ResultCache`](crate::ResultCache) | [`cache::Subject`] |
//!
//! Beside the cases, [`histories`] plays generated sequences of calls on two stores and compares every answer.
//!
//! The expression that makes the subject may await; it is evaluated once per test, and each evaluation must give a subject
//! that shares nothing with any other. Tests run on a runtime of their own with two threads, and fail after two minutes.

pub mod announcer;
pub mod audit;
pub mod cache;
pub mod catalog;
pub mod events;
pub mod histories;
pub mod idempotency;
pub mod log;
pub mod registry;
pub mod store;
pub mod survey;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::task::{NewTask, Payload, Priority, TaskId};

/// How long one case may take: a broker on a busy machine needs tens of seconds, a hung adapter for ever.
const CASE_LIMIT: Duration = Duration::from_secs(120);

/// Runs one case against a fresh subject and closes the subject whatever came of it. The suites' macros call it.
///
/// # Panics
/// When the case panics, or takes longer than two minutes.
pub fn run<Made, Making, Case, Closing>(
    make: Making,
    case: impl FnOnce(Arc<Made>) -> Case,
    close: impl FnOnce(Arc<Made>) -> Closing,
) where
    Making: Future<Output = Made>,
    Case: Future<Output = ()> + Send + 'static,
    Closing: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    runtime.block_on(async {
        let subject = Arc::new(make.await);
        let running = tokio::spawn(tokio::time::timeout(CASE_LIMIT, case(Arc::clone(&subject))));
        let outcome = running.await;
        close(subject).await;
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(_elapsed)) => panic!("the case took longer than {CASE_LIMIT:?}"),
            Err(failure) => match failure.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(failure) => panic!("the case did not run to its end: {failure}"),
            },
        }
    });
    // An adapter may have left a blocking thread behind (a client that closes slowly); the test does not wait for it.
    runtime.shutdown_background();
}

/// Expands to one test per case; the suites' macros call it.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_cases {
    ($suite:ident, $module:ident, $attributes:tt, $subject:expr, [$($case:ident,)*]) => {
        mod $module {
            use super::*;
            $( $crate::__conformance_case!($suite, $attributes, $subject, $case); )*
        }
    };
}

/// Expands to one test; the suites' macros call it.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_case {
    ($suite:ident, [$($attribute:tt)*], $subject:expr, $case:ident) => {
        $($attribute)*
        #[test]
        fn $case() {
            $crate::conformance::run(
                async { $subject },
                |subject| async move { $crate::conformance::$suite::$case(&*subject).await },
                |subject| async move { $crate::conformance::$suite::Subject::close(&*subject).await },
            );
        }
    };
}

/// A task id for a test: every call another one, in ascending order within a process, and different between processes
/// that share a server.
fn fresh_uuid() -> Uuid {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{SystemTime, UNIX_EPOCH};

    static PROCESS: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let process = *PROCESS.get_or_init(|| {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        // Microseconds leave room for the version and variant bits that `Builder` sets.
        u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
            ^ u64::from(std::process::id()) << 48
    });
    let bits = u128::from(process) << 64 | u128::from(NEXT.fetch_add(1, Ordering::Relaxed));
    uuid::Builder::from_u128(bits)
        .with_version(uuid::Version::Random)
        .with_variant(uuid::Variant::RFC4122)
        .into_uuid()
}

fn fresh_id() -> TaskId {
    TaskId(fresh_uuid())
}

fn payload(text: &str) -> Payload {
    Payload::new(text).expect("a payload of the suite has no NUL")
}

fn priority(value: i64) -> Priority {
    Priority::new(value).expect("a priority of the suite is from 0 to 10")
}

/// A task that may be claimed at once, by age too.
fn new_task() -> NewTask {
    NewTask {
        id: fresh_id(),
        payload: payload("Hello world!"),
        priority: Priority::default(),
        max_attempts: 5,
        run_at: None,
        messaged: false,
    }
}

fn new_tasks(count: usize) -> Vec<NewTask> {
    std::iter::repeat_with(new_task).take(count).collect()
}

fn ids_of(tasks: &[NewTask]) -> Vec<TaskId> {
    tasks.iter().map(|task| task.id).collect()
}

#[cfg(test)]
mod tests {
    /// A case that no macro names would run in no adapter.
    fn check(source: &str) {
        let list = source
            .split_once("$subject, [")
            .and_then(|(_, rest)| rest.split_once("]);"))
            .map(|(list, _)| list)
            .expect("the suite has a macro with a list of its cases");
        let named: Vec<&str> = list
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .collect();
        let written: Vec<&str> = source
            .split("\npub async fn ")
            .skip(1)
            .filter_map(|rest| rest.split_once('(').map(|(name, _)| name))
            .collect();
        assert!(!written.is_empty());
        assert_eq!(
            named, written,
            "the list of the macro and the cases, in their order"
        );
    }

    #[test]
    fn every_case_is_named_by_its_macro() {
        check(include_str!("conformance/store.rs"));
        check(include_str!("conformance/idempotency.rs"));
        check(include_str!("conformance/registry.rs"));
        check(include_str!("conformance/audit.rs"));
        check(include_str!("conformance/catalog.rs"));
        check(include_str!("conformance/survey.rs"));
        check(include_str!("conformance/log.rs"));
        check(include_str!("conformance/announcer.rs"));
        check(include_str!("conformance/cache.rs"));
        check(include_str!("conformance/events.rs"));
    }
}
