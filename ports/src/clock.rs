//! What time it is, for code that must not ask the system.

use crate::time::Timestamp;

/// Tells the time. The domain never asks the system, so that tests drive it.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait Clock: Send + Sync {
    /// Now. Need not be monotonic: the system's clock may jump, and nothing may break when it does.
    fn now(&self) -> Timestamp;
}
