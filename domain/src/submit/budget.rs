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
pub struct Room {
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

    /// Takes as much more as makes it this large, if it is not already.
    pub(super) fn reach(&mut self, size: usize) -> bool {
        size <= self.size || self.grow(size - self.size)
    }

    /// Gives back what is more than this.
    pub(super) fn shrink(&mut self, size: usize) {
        if size < self.size {
            let more = self.size - size;
            self.budget.taken.fetch_sub(more, Ordering::Relaxed);
            self.size = size;
        }
    }

    /// Takes over what another has taken of the same limit.
    pub(super) fn join(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.budget, &other.budget), "of one limit");
        self.size += std::mem::take(&mut other.size);
    }

    /// Both in one.
    pub(super) fn joined(mut self, other: Self) -> Self {
        self.join(other);
        self
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// What a submission takes that comes in pieces. Those that are not complete may take only a part of the whole, so that whoever holds
/// the rest of his back keeps nobody out whose submission is there.
#[must_use]
pub struct Arrival {
    room: Room,
    incomplete: Room,
}

impl Arrival {
    pub(super) fn new(whole: &Arc<Budget>, incomplete: &Arc<Budget>) -> Self {
        Self {
            room: whole.room(),
            incomplete: incomplete.room(),
        }
    }

    /// Takes room for another piece, which may be the last; `false` when there is none.
    #[must_use]
    pub fn grow(&mut self, bytes: usize, is_last: bool) -> bool {
        self.room.grow(bytes) && (is_last || self.incomplete.grow(bytes))
    }

    /// All of it is there.
    pub fn complete(self) -> Room {
        self.room
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

    #[test]
    fn a_room_becomes_as_large_as_it_has_to_be() {
        let budget = Budget::new(10);
        let left = |size| budget.take(size).is_some() && budget.take(size + 1).is_none();
        let mut room = budget.take(4).expect("there is as much");
        assert!(room.reach(3) && left(6));
        assert!(room.reach(9) && !room.reach(11) && left(1));
        room.shrink(10);
        assert!(left(1));
        room.shrink(2);
        assert!(left(8));
    }

    #[test]
    fn what_is_not_complete_takes_a_part_of_the_whole() {
        let (whole, incomplete) = (Budget::new(10), Budget::new(5));
        let arrival = || Arrival::new(&whole, &incomplete);
        let (mut first, mut second) = (arrival(), arrival());
        assert!(first.grow(3, false) && !second.grow(3, false));
        drop(second);
        assert!(
            whole.take(7).is_some(),
            "who was refused gives all of it back"
        );
        let mut third = arrival();
        assert!(
            third.grow(4, true),
            "what is there at once is not held back"
        );
        assert!(first.grow(3, true) && !arrival().grow(1, true));
        let room = first.complete();
        assert!(incomplete.take(5).is_some() && whole.take(1).is_none());
        drop((room, third));
        assert!(whole.take(10).is_some());
    }
}
