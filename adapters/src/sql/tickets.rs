//! Calls under one ticket, one after the other.
//!
//! A claim that is repeated must find what the first call did, and the first call may still be under way: its caller was
//! dropped, or its connection broke while the server went on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ports::{ClaimError, ClaimId};
use tokio::sync::OwnedMutexGuard;

/// Beyond this many, tickets whose call was never answered are forgotten: nobody repeats one that long.
const REMEMBERED: usize = 4_096;

/// Whether a call under this ticket was sent and not answered.
type Doubt = Arc<tokio::sync::Mutex<bool>>;

#[derive(Default)]
pub(super) struct Tickets {
    doubts: Arc<Mutex<HashMap<ClaimId, Doubt>>>,
}

/// The right to make a call under a ticket.
pub(super) struct Turn {
    claim: ClaimId,
    doubtful: OwnedMutexGuard<bool>,
    doubts: Arc<Mutex<HashMap<ClaimId, Doubt>>>,
}

impl Tickets {
    /// Waits until earlier calls under this ticket have ended.
    pub(super) async fn turn(&self, claim: ClaimId) -> Turn {
        let doubt = {
            let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
            if doubts.len() >= REMEMBERED {
                doubts.retain(|_, doubt| Arc::strong_count(doubt) > 1);
            }
            Arc::clone(doubts.entry(claim).or_default())
        };
        Turn {
            claim,
            doubtful: doubt.lock_owned().await,
            doubts: Arc::clone(&self.doubts),
        }
    }
}

impl Turn {
    /// Whether an earlier call under this ticket may still run in the server.
    #[cfg(feature = "postgres")]
    pub(super) fn is_doubtful(&self) -> bool {
        *self.doubtful
    }

    /// From here on, no answer means doubt.
    pub(super) fn begin(&mut self) {
        *self.doubtful = true;
    }

    /// Takes note of the answer and lets the next call have its turn.
    pub(super) fn end<T>(mut self, outcome: &Result<T, ClaimError>) {
        let answered = match outcome {
            Ok(_) | Err(ClaimError::WorkerGone) => true,
            Err(ClaimError::Store(error)) => !error.is_transient(),
            Err(_) => false,
        };
        if !answered {
            return;
        }
        *self.doubtful = false;
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and this turn's: nobody else waits for it.
        if doubts
            .get(&self.claim)
            .is_some_and(|doubt| Arc::strong_count(doubt) == 2)
        {
            doubts.remove(&self.claim);
        }
    }
}
