//! Telling a run that nobody waits for its result any more.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Told once, for ever: whoever holds a clone can ask, or wait. [`Default`] is one that nobody tells.
///
/// It belongs to no runtime: the future of [`cancelled`](Self::cancelled) can be awaited anywhere.
///
/// ```
/// use task_processor_ports::Cancellation;
///
/// let cancellation = Cancellation::default();
/// let given_away = cancellation.clone();
/// assert!(!given_away.is_cancelled());
/// cancellation.cancel();
/// assert!(given_away.is_cancelled());
/// ```
#[derive(Clone, Default)]
pub struct Cancellation {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_cancelled: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Cancellation {
    /// Whether it was told.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.shared.is_cancelled.load(Ordering::Acquire)
    }

    /// Tells everyone who waits, now and later. Telling again changes nothing.
    pub fn cancel(&self) {
        self.shared.is_cancelled.store(true, Ordering::Release);
        let woken = std::mem::take(&mut self.waiting().wakers);
        for waker in woken.into_values() {
            waker.wake();
        }
    }

    /// Waits until it is told; for ever if it never is.
    #[must_use]
    pub fn cancelled(&self) -> Cancelled<'_> {
        Cancelled {
            cancellation: self,
            place: None,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.shared
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Cancellation")
            .field("is_cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}

impl PartialEq for Cancellation {
    /// Whether they are clones of one another.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for Cancellation {}

/// The future of [`Cancellation::cancelled`].
#[derive(Debug)]
pub struct Cancelled<'a> {
    cancellation: &'a Cancellation,
    place: Option<u64>,
}

impl Future for Cancelled<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let cancellation = self.cancellation;
        let mut waiting = cancellation.waiting();
        // Asked under the lock that `cancel` takes after it has told: no waker is left behind.
        if cancellation.is_cancelled() {
            return Poll::Ready(());
        }
        let place = self.place.unwrap_or_else(|| {
            waiting.next += 1;
            waiting.next
        });
        waiting.wakers.insert(place, context.waker().clone());
        drop(waiting);
        self.place = Some(place);
        Poll::Pending
    }
}

impl Drop for Cancelled<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.cancellation.waiting().wakers.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn everyone_who_waits_is_woken_once() {
        let cancellation = Cancellation::default();
        let counted = Arc::new(Counted::default());
        let waker = Waker::from(Arc::clone(&counted));
        let mut context = Context::from_waker(&waker);
        let mut one = std::pin::pin!(cancellation.cancelled());
        let mut other = std::pin::pin!(cancellation.cancelled());
        for _ in 0..3 {
            assert_eq!(one.as_mut().poll(&mut context), Poll::Pending);
            assert_eq!(other.as_mut().poll(&mut context), Poll::Pending);
        }
        cancellation.clone().cancel();
        cancellation.cancel();
        assert_eq!(counted.0.load(Ordering::Relaxed), 2);
        assert_eq!(one.as_mut().poll(&mut context), Poll::Ready(()));
        let mut late = std::pin::pin!(cancellation.cancelled());
        assert_eq!(late.as_mut().poll(&mut context), Poll::Ready(()));
    }

    #[test]
    fn whoever_stops_waiting_leaves_nothing_behind() {
        let cancellation = Cancellation::default();
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..10 {
            let mut waiting = Box::pin(cancellation.cancelled());
            assert_eq!(waiting.as_mut().poll(&mut context), Poll::Pending);
        }
        assert!(cancellation.waiting().wakers.is_empty());
    }

    #[test]
    fn only_clones_are_equal() {
        let one = Cancellation::default();
        assert_eq!(one, one.clone());
        assert_ne!(one, Cancellation::default());
    }
}
