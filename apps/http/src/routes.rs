//! The routes, by group.

use domain::Ports;
use domain::ports::{Dependency, Event, StoreError};
use poem_openapi::Tags;

use crate::problem::{Failures, Kind, Problem};

mod commands;
mod documentation;
mod events;
mod probes;
mod tasks;

pub(crate) use commands::Commands;
pub(crate) use documentation::Documentation;
pub(crate) use events::{AWAY, EVENT_STREAM, Stream, sent_away};
pub(crate) use probes::Probes;
pub(crate) use tasks::Tasks;

/// Every route of the API.
pub(crate) type Routes = (Tasks, Commands, Stream, Probes, Documentation);

/// The failures of every operation that can fail, by its `operationId`.
pub(crate) const FAILURES: [(&str, &[Kind]); 10] = [
    of::<tasks::SubmitFailures>(),
    of::<tasks::BatchFailures>(),
    of::<tasks::ListFailures>(),
    of::<tasks::ReadFailures>(),
    of::<commands::CancelFailures>(),
    of::<commands::RetryFailures>(),
    of::<events::FollowFailures>(),
    of::<probes::MetricsFailures>(),
    of::<probes::ReadyFailures>(),
    of::<documentation::DocsFailures>(),
];

const fn of<F: Failures>() -> (&'static str, &'static [Kind]) {
    (F::OPERATION, F::KINDS)
}

#[derive(Tags)]
pub(crate) enum Tag {
    /// Submitting tasks and reading what came of them.
    Tasks,
    /// Numbers for people and for Prometheus.
    Metrics,
    /// Whether the service is fit to be sent requests.
    Health,
    /// This document, as a page and as JSON.
    Documentation,
}

/// A failure of the store is told to the observer, who counts and logs it.
pub(crate) fn store_failed(ports: &Ports, doing: &'static str, error: StoreError) -> Problem {
    ports.observer.observe(&Event::DependencyFailed {
        dependency: Dependency::Store,
        doing,
        error: domain::chain(&error),
    });
    error.into()
}
