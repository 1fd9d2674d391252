//! A turn of a loop that many depend on: a panic in it ends the turn, and not the loop.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt as _;
use ports::{Event, Observer};

/// Does it; `None` when it panicked, which the observer is told. After a panic it is dropped without being polled again, so nothing
/// sees what it left broken.
pub(crate) async fn turn<T>(
    observer: &dyn Observer,
    doing: &'static str,
    work: impl Future<Output = T>,
) -> Option<T> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(done) => Some(done),
        Err(panic) => {
            let error = panic_text(panic.as_ref()).to_owned();
            let told = Event::Panicked { doing, error };
            // The observer may be what panics.
            let _ = catch_unwind(AssertUnwindSafe(|| observer.observe(&told)));
            None
        }
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}
