//! The news of tasks that no claim answers for.

use ports::{Dependency, TaskEvent, TaskStatus};

use crate::{Ports, tell_of_failure};

/// Tells the log, and marks the cancellations of which it knows as told, so that the audit tells them no more. Answers whether the
/// log took everything that it will ever take. A mark that the store does not take costs no more than telling once more.
pub(crate) async fn tell(ports: &Ports, events: &[TaskEvent]) -> bool {
    let outcomes = ports.announcer.tell(events).await;
    let mut refused = None;
    let mut taken = true;
    let mut told = Vec::new();
    for (event, outcome) in events.iter().zip(outcomes) {
        // What the log will never take must not be offered for ever.
        let is_settled = outcome
            .as_ref()
            .err()
            .is_none_or(|error| !error.is_transient());
        taken &= is_settled;
        if is_settled && event.status == TaskStatus::Cancelled {
            told.push(event.id);
        }
        refused = refused.or(outcome.err());
    }
    if let Some(error) = refused {
        tell_of_failure(&*ports.observer, Dependency::Log, "tell", &error);
    }
    if told.is_empty() {
        return taken;
    }
    if let Err(error) = ports.audit.mark_told(&told).await {
        tell_of_failure(&*ports.observer, Dependency::Store, "mark_told", &error);
    }
    taken
}
