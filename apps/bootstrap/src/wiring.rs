//! Ports made of adapters: the only place that names both.

#[cfg(feature = "distributed")]
pub mod distributed;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod observers;
pub mod processing;
