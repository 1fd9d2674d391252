//! How often each client may ask.

use std::num::NonZeroU32;

use super::Reader;

const MOST: u32 = 1_000_000;
const BURST: NonZeroU32 = NonZeroU32::new(100).expect("100 is not 0");

/// How often each client may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateSettings {
    /// Requests a second, sustained.
    pub per_second: NonZeroU32,
    /// Requests at once, after a pause.
    pub burst: NonZeroU32,
}

impl RateSettings {
    /// Declares and reads them; `None` sets no limit.
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let per_second = reader.number(
            "RATE_LIMIT",
            0,
            0..=MOST,
            "requests a second",
            "how often each API key may ask, or without keys each address; more is answered 429. 0 sets no limit",
        );
        let burst = reader.number(
            "RATE_BURST",
            BURST,
            NonZeroU32::MIN..=NonZeroU32::MIN.saturating_add(MOST - 1),
            "requests",
            "with RATE_LIMIT, how many it may send at once after a pause",
        );
        NonZeroU32::new(per_second).map(|per_second| Self { per_second, burst })
    }
}
