//! Identities in a known order.

use std::sync::atomic::{AtomicU64, Ordering};

use ports::IdSource;
use uuid::{Builder, Uuid, Variant, Version};

/// The number of milliseconds in the upper bits of every id: 2025-01-01T00:00:00Z.
const MILLIS: u128 = 1_735_689_600_000;

/// Makes the same ids in every run: version 7 in form, one moment and a count, in ascending order.
///
/// ```
/// use task_processor_adapters::memory::SequentialIds;
/// use ports::IdSource;
///
/// let ids = SequentialIds::default();
/// assert_eq!(ids.next().to_string(), "01941f29-7c00-7000-8000-000000000001");
/// assert_eq!(ids.next().to_string(), "01941f29-7c00-7000-8000-000000000002");
/// ```
#[derive(Debug, Default)]
pub struct SequentialIds {
    lane: u16,
    made: AtomicU64,
}

impl SequentialIds {
    /// A source whose ids differ from those of every other lane below 4096. Lane 0 is the default one.
    #[must_use]
    pub const fn in_lane(lane: u16) -> Self {
        Self {
            lane,
            made: AtomicU64::new(0),
        }
    }
}

impl IdSource for SequentialIds {
    fn next(&self) -> Uuid {
        let count = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        Builder::from_u128(MILLIS << 80 | u128::from(self.lane & 0xfff) << 64 | u128::from(count))
            .with_variant(Variant::RFC4122)
            .with_version(Version::SortRand)
            .into_uuid()
    }
}
