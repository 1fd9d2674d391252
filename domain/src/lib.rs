#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

pub use ports::{self, Ports};

mod again;
pub mod audit;
pub mod catalog;
pub mod command;
pub mod error_text;
pub mod events;
mod gather;
pub mod heart;
pub mod lifecycle;
pub mod metrics;
mod moves;
mod news;
pub mod processing;
pub mod prune;
pub mod read;
pub mod rescue;
mod resolve;
pub mod retry;
pub mod service;
pub mod submit;
mod turn;
pub mod worker;

use ports::{Dependency, Event, Observer};

pub use audit::AuditConfig;
pub use catalog::{Catalog, Explanation, Page, Reason, Search};
pub use command::{Commander, Verdict};
pub use events::{Crowd, Events, EventsConfig, EventsError, Heard, Listener};
pub use heart::Heart;
pub use metrics::Metrics;
pub use processing::{ReverseText, processor_fn};
pub use prune::PruneConfig;
pub use read::{Reader, Reading};
pub use retry::RetryPolicy;
pub use service::Service;
pub use submit::{
    Accepted, Arrival, KEPT_FOR, Room, Submission, SubmitConfig, SubmitError, Submitter,
};
pub use worker::{Worker, WorkerConfig};

/// An error with its causes on one line, for [`Event`]s. Many errors repeat their cause in their own text: what
/// was said is not said again.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    for cause in causes.map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

fn tell_of_failure(
    observer: &dyn Observer,
    dependency: Dependency,
    doing: &'static str,
    error: &dyn std::error::Error,
) {
    observer.observe(&Event::DependencyFailed {
        dependency,
        doing,
        error: chain(error),
    });
}

fn tell_of_refusal(observer: &dyn Observer, doing: &'static str, error: &dyn std::error::Error) {
    let error = chain(error);
    observer.observe(&Event::StoreRefused { doing, error });
}

#[cfg(test)]
mod tests {
    use super::chain;
    use ports::StoreError;

    #[test]
    fn causes_are_told_once() {
        let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let plain = StoreError::Unavailable(Box::new(refused()));
        assert_eq!(
            chain(&plain),
            "the task store is unavailable: connection refused"
        );
        let repeating = StoreError::Unavailable(Box::new(std::io::Error::other(refused())));
        assert_eq!(chain(&repeating), chain(&plain));
    }
}
