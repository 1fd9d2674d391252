//! An observer that remembers.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ports::{Event, Observer};

/// How many events are kept.
const KEPT: usize = 10_000;

/// Keeps the latest 10,000 events for tests to read, the oldest dropped first.
///
/// ```
/// use task_processor_adapters::memory::MemoryObserver;
/// use ports::{Event, Observer};
///
/// let observer = MemoryObserver::default();
/// observer.observe(&Event::Submitted { count: 3 });
/// assert_eq!(observer.events(), [Event::Submitted { count: 3 }]);
/// ```
#[derive(Debug, Default)]
pub struct MemoryObserver {
    events: Mutex<VecDeque<Event>>,
}

impl MemoryObserver {
    /// The latest events, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.lock().iter().cloned().collect()
    }

    /// How many of the latest events match.
    pub fn count(&self, matches: impl Fn(&Event) -> bool) -> usize {
        self.lock().iter().filter(|event| matches(event)).count()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for MemoryObserver {
    fn observe(&self, event: &Event) {
        let mut events = self.lock();
        if events.len() == KEPT {
            events.pop_front();
        }
        events.push_back(event.clone());
    }
}
