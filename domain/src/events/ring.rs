//! The latest events, by position.

use std::collections::VecDeque;

use ports::{PlacedEvent, TaskEvent};

/// What [`EventsConfig::ring`](super::EventsConfig::ring) and the documents say that an event takes.
const _: () = assert!(size_of::<Option<TaskEvent>>() == 40);

/// Holds an unbroken run of positions. What does not follow on it starts a new generation.
#[derive(Default)]
pub(super) struct Ring {
    limit: usize,
    events: VecDeque<Option<TaskEvent>>,
    /// The position after the last one; `None` while nothing is read.
    end: Option<u64>,
    generation: u64,
}

impl Ring {
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit.max(1);
    }

    /// Where reading begins: goes on where it was if that place is the same. `false` when a new generation began.
    pub(super) fn open(&mut self, from: u64) -> bool {
        let goes_on = self
            .bounds()
            .is_some_and(|(first, end)| from >= first && from <= end);
        if !goes_on {
            self.restart(from);
        }
        goes_on
    }

    fn restart(&mut self, from: u64) {
        self.events.clear();
        self.end = Some(from);
        self.generation += 1;
    }

    /// Nothing is read any more.
    pub(super) fn close(&mut self) {
        self.events = VecDeque::new();
        self.end = None;
        self.generation += 1;
    }

    /// Takes the next record; what is in the ring already is passed over (`None`). Answers whether it followed on the last.
    pub(super) fn push(&mut self, placed: &PlacedEvent) -> Option<bool> {
        let end = self.end.unwrap_or(placed.position);
        if placed.position < end && self.at(placed.position) == placed.event {
            return None;
        }
        let follows = placed.position == end;
        if !follows {
            self.restart(placed.position);
        }
        // Before the new one comes: a full ring of a power of two would double.
        if self.events.len() == self.limit {
            self.events.pop_front();
        }
        self.events.push_back(placed.event);
        self.end = Some(placed.position + 1);
        Some(follows)
    }

    /// The first position in it, and the one after the last.
    pub(super) fn bounds(&self) -> Option<(u64, u64)> {
        let end = self.end?;
        Some((end - self.events.len() as u64, end))
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn at(&self, position: u64) -> Option<TaskEvent> {
        let (first, _) = self.bounds()?;
        let index = usize::try_from(position.checked_sub(first)?).ok()?;
        self.events.get(index).copied().flatten()
    }

    /// What it holds from a position on.
    pub(super) fn since(&self, position: u64) -> impl Iterator<Item = PlacedEvent> {
        let (first, end) = self.bounds().unwrap_or_default();
        let begin = position.clamp(first, end);
        let skipped = usize::try_from(begin - first).unwrap_or(usize::MAX);
        (begin..)
            .zip(self.events.range(skipped.min(self.events.len())..))
            .map(|(position, event)| PlacedEvent {
                position,
                event: *event,
            })
    }
}

#[cfg(test)]
mod tests {
    use ports::{Fence, TaskId, TaskStatus, Timestamp};

    use super::*;

    fn placed(position: u64, fence: i64) -> PlacedEvent {
        PlacedEvent {
            position,
            event: Some(TaskEvent {
                id: TaskId(Default::default()),
                status: TaskStatus::Done,
                fence: Fence(fence),
                at: Timestamp::EPOCH,
            }),
        }
    }

    fn ring() -> Ring {
        let mut ring = Ring::default();
        ring.set_limit(3);
        assert!(!ring.open(10));
        ring
    }

    #[test]
    fn the_oldest_goes_when_it_is_full() {
        let mut ring = ring();
        for position in 10..15 {
            assert_eq!(ring.push(&placed(position, 0)), Some(true));
        }
        assert_eq!(ring.bounds(), Some((12, 15)));
        assert_eq!(ring.at(11), None);
        assert_eq!(ring.at(12), placed(12, 0).event);
    }

    #[test]
    fn a_gap_a_step_back_and_other_events_in_old_places_start_anew() {
        for wrong in [placed(13, 0), placed(3, 0), placed(11, 7)] {
            let mut ring = ring();
            ring.push(&placed(10, 0));
            ring.push(&placed(11, 0));
            let before = ring.generation();
            assert_eq!(ring.push(&wrong), Some(false), "{wrong:?}");
            assert_ne!(ring.generation(), before);
            assert_eq!(ring.bounds(), Some((wrong.position, wrong.position + 1)));
        }
    }

    #[test]
    fn reading_again_what_is_there_changes_nothing() {
        let mut ring = ring();
        ring.push(&placed(10, 0));
        ring.push(&placed(11, 0));
        assert!(ring.open(10));
        assert_eq!(ring.push(&placed(10, 0)), None);
        assert_eq!(ring.push(&placed(11, 0)), None);
        assert_eq!(ring.push(&placed(12, 0)), Some(true));
        assert_eq!(ring.bounds(), Some((10, 13)));
    }
}
