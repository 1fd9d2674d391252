//! A clock that is wrong.

use std::sync::atomic::{AtomicI64, Ordering};

use adapters::memory::TokioClock;
use ports::{Clock, Timestamp};

/// Virtual time with an offset that may jump.
pub(crate) struct SkewedClock {
    base: TokioClock,
    offset_micros: AtomicI64,
}

impl SkewedClock {
    pub(crate) fn new(base: TokioClock, offset_micros: i64) -> Self {
        Self {
            base,
            offset_micros: AtomicI64::new(offset_micros),
        }
    }

    pub(crate) fn jump(&self, micros: i64) {
        self.offset_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> Timestamp {
        let offset = self.offset_micros.load(Ordering::Relaxed);
        Timestamp::from_micros(self.base.now().as_micros() + offset)
    }
}
