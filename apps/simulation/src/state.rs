//! A value that tasks wait for. Unlike tokio's `watch`, which wakes its waiters in random order, it wakes them in the
//! order in which they came, so that a history repeats itself.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Debug)]
pub(crate) struct Watched<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Copy + PartialEq> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            value: Mutex::new(value),
            changed: Notify::new(),
        }
    }

    pub(crate) fn get(&self) -> T {
        *self.lock()
    }

    pub(crate) fn set(&self, value: T) {
        *self.lock() = value;
        self.changed.notify_waiters();
    }

    /// Replaces one value by another; any other stays.
    pub(crate) fn replace(&self, old: T, new: T) {
        let mut value = self.lock();
        if *value == old {
            *value = new;
            drop(value);
            self.changed.notify_waiters();
        }
    }

    pub(crate) async fn until(&self, wanted: T) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.get() == wanted {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
