//! A turn of a loop that many depend on: a panic in it ends the turn, and not the loop.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt as _;
use ports::{Event, Observer};

/// Does it; `None` when it panicked, which the observer is told.
pub(crate) async fn turn<T>(
    observer: &dyn Observer,
    doing: &'static str,
    work: impl Future<Output = T>,
) -> Option<T> {
    match guarded(work).await {
        Ok(done) => Some(done),
        Err(error) => {
            tell_of_panic(observer, doing, error);
            None
        }
    }
}

/// Does it, or answers what its panic said. After a panic it is dropped without being polled again, so nothing sees what it left broken.
pub(crate) async fn guarded<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    done.map_err(|panic| panic_text(panic.as_ref()).to_owned())
}

pub(crate) fn tell_of_panic(observer: &dyn Observer, doing: &'static str, error: String) {
    let told = Event::Panicked { doing, error };
    // The observer may be what panics.
    let _ = catch_unwind(AssertUnwindSafe(|| observer.observe(&told)));
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}
