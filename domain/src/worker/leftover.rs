//! What one life of a worker received and did not see through, for its next life to begin with.
//!
//! The log brings a record once to a member of the group. A life that ends because the worker was presumed dead takes its
//! claims with it, and others have those; but a record that it had received and neither claimed nor sent on would be
//! passed over by the next life's first acknowledgement.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ports::{DeadLetter, Delivery, RecordContent, Timestamp};

/// Kept from life to life.
#[derive(Default)]
pub(super) struct Leftover(Mutex<Vec<Delivery>>);

impl Leftover {
    /// Up to `limit` of them, in the order in which they were left.
    pub(super) fn take(&self, limit: usize) -> Vec<Delivery> {
        let mut left = self.lock();
        let count = left.len().min(limit);
        left.drain(..count).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Delivery>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records on their way: dropped before they were seen through, they are left over.
pub(super) struct Received {
    deliveries: Vec<Delivery>,
    leftover: Arc<Leftover>,
}

impl Received {
    pub(super) fn new(deliveries: Vec<Delivery>, leftover: &Arc<Leftover>) -> Self {
        Self {
            deliveries,
            leftover: Arc::clone(leftover),
        }
    }

    pub(super) fn deliveries(&self) -> &[Delivery] {
        &self.deliveries
    }

    /// The tasks among them are claimed, or want no work.
    pub(super) fn keep_unreadable(&mut self) {
        self.deliveries
            .retain(|delivery| matches!(delivery.content, RecordContent::Unreadable { .. }));
    }

    /// Dead letters for those that cannot be read.
    pub(super) fn to_letters(&self, failed_at: Timestamp) -> Vec<DeadLetter> {
        let letters = self.deliveries.iter().filter_map(|delivery| {
            let RecordContent::Unreadable { reason, key, value } = &delivery.content else {
                return None;
            };
            Some(DeadLetter::Unreadable {
                reason: reason.clone(),
                position: delivery.position,
                key: key.clone(),
                value: value.clone(),
                failed_at,
            })
        });
        letters.collect()
    }

    pub(super) fn seen_through(mut self) {
        self.deliveries.clear();
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if !self.deliveries.is_empty() {
            self.leftover.lock().append(&mut self.deliveries);
        }
    }
}
