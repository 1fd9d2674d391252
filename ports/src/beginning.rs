//! From when the deadline of a run counts.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::cancellation::Cancellation;

/// When a run begins: as soon as its processor is called, unless that one postpones it because all its places are taken. A
/// run that waits for a place spends nothing of its deadline; one that waits for as long as its deadline is given back, at the price of
/// no attempt.
///
/// ```
/// use std::future::Future;
/// use std::pin::pin;
/// use std::task::{Context, Poll, Waker};
/// use task_processor_ports::Beginning;
///
/// let beginning = Beginning::default();
/// let postponed = beginning.postpone();
/// let mut begun = pin!(beginning.begun());
/// let mut context = Context::from_waker(Waker::noop());
/// assert_eq!(begun.as_mut().poll(&mut context), Poll::Pending);
/// // There is a place.
/// drop(postponed);
/// assert_eq!(begun.as_mut().poll(&mut context), Poll::Ready(()));
/// ```
#[derive(Clone, Default)]
pub struct Beginning {
    /// Once it was postponed. The signal is told when it begins after all.
    postponed: Arc<OnceLock<Cancellation>>,
}

/// The run does not begin while this is held.
#[derive(Debug)]
#[must_use = "the run begins when it is dropped"]
pub struct Postponed(Cancellation);

impl Beginning {
    /// Postpones it until the answer is dropped. To be called before the processor first awaits anything: then it is looked at.
    pub fn postpone(&self) -> Postponed {
        Postponed(self.postponed.get_or_init(Cancellation::default).clone())
    }

    /// Waits until the run has begun; not at all unless it was postponed.
    pub async fn begun(&self) {
        if let Some(begins) = self.postponed.get() {
            begins.cancelled().await;
        }
    }

    fn is_postponed(&self) -> bool {
        let postponed = self.postponed.get();
        postponed.is_some_and(|begins| !begins.is_cancelled())
    }
}

impl Drop for Postponed {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl fmt::Debug for Beginning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Beginning")
            .field("is_postponed", &self.is_postponed())
            .finish()
    }
}

impl PartialEq for Beginning {
    /// Whether they are clones of one another.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.postponed, &other.postponed)
    }
}

impl Eq for Beginning {}
