//! How much of something there may be at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A limit that many share. To take of it costs one atomic operation, and so does giving back; nobody waits.
pub(super) struct Budget {
    limit: usize,
    taken: AtomicUsize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            taken: AtomicUsize::new(0),
        })
    }

    /// A room of no size yet.
    pub(super) fn room(self: &Arc<Self>) -> Room {
        Room {
            budget: Arc::clone(self),
            size: 0,
        }
    }

    /// A room of this size, if there is as much left.
    pub(super) fn take(self: &Arc<Self>, size: usize) -> Option<Room> {
        let mut room = self.room();
        room.grow(size).then_some(room)
    }
}

/// What somebody has taken of a limit that many share; given back when it is dropped.
#[must_use]
pub(super) struct Room {
    budget: Arc<Budget>,
    size: usize,
}

impl Room {
    /// Takes so much more, or nothing and says `false` when there is not as much left.
    #[must_use]
    pub(super) fn grow(&mut self, more: usize) -> bool {
        let limit = self.budget.limit;
        let within = |taken: usize| taken.checked_add(more).filter(|taken| *taken <= limit);
        let grown = self
            .budget
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, within);
        if grown.is_ok() {
            self.size += more;
        }
        grown.is_ok()
    }

    /// Takes over what another has taken of the same limit.
    pub(super) fn join(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.budget, &other.budget), "of one limit");
        self.size += std::mem::take(&mut other.size);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.size > 0 {
            self.budget.taken.fetch_sub(self.size, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_and_what_is_dropped_is_there_again() {
        let budget = Budget::new(10);
        let mut first = budget.take(4).expect("there is as much");
        let mut second = budget.room();
        assert!(second.grow(6));
        assert!(!first.grow(1) && !second.grow(usize::MAX));
        assert!(first.grow(0), "nothing is always there");
        drop(first);
        assert!(second.grow(4), "what was refused was not taken");
        assert!(budget.take(1).is_none());
        drop(second);
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn rooms_that_join_are_given_back_together() {
        let budget = Budget::new(10);
        let mut one = budget.take(4).expect("there is as much");
        one.join(budget.take(6).expect("there is as much"));
        assert!(budget.take(1).is_none(), "joining gives nothing back");
        drop(one);
        assert!(budget.take(10).is_some());
    }
}
