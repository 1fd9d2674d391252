//! Submissions under a key that the client gave: a lane of their own, so that they neither slow the rest nor wait for it.
//!
//! One writer commits them in the order of their keys, so that two servers that meet on the same keys wait for each other
//! in one order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ports::{Dependency, Event, KeptRequest, KeyedRequest, StoreError};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    Accepted, Batches, SubmitConfig, SubmitError, Traces, hand_to_publisher, portions, until_told,
};
use crate::again::with_patience;
use crate::{Ports, chain};

/// For how long a key is kept at least.
pub const KEPT_FOR: Duration = Duration::from_secs(24 * 3_600);

/// How often old keys are looked for.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// How many old keys are forgotten together.
const PRUNE_BATCH: usize = 1_000;

/// How many requests may share a commit.
const BATCH: usize = 128;

pub(super) struct Keyed {
    pub(super) request: KeyedRequest,
    pub(super) traces: Traces,
    /// Given back when a commit takes the request.
    pub(super) places: Option<OwnedSemaphorePermit>,
    pub(super) reply: oneshot::Sender<Result<Vec<Accepted>, SubmitError>>,
}

pub(super) async fn commit_keyed(
    ports: Ports,
    config: SubmitConfig,
    mut incoming: mpsc::Receiver<Keyed>,
    mut stop: watch::Receiver<bool>,
    batches: Batches,
) {
    let mut requests = Vec::new();
    loop {
        let received = tokio::select! {
            biased;
            received = incoming.recv_many(&mut requests, BATCH) => received,
            () = until_told(&mut stop), if !incoming.is_closed() => {
                // What waits already is still committed.
                incoming.close();
                continue;
            }
        };
        if received == 0 {
            break;
        }
        for keyed in &mut requests {
            keyed.places = None;
        }
        commit(&ports, &config, std::mem::take(&mut requests), &batches).await;
    }
}

/// Commits requests together. A batch that the store refuses for its data is halved until the culprit stands alone.
async fn commit(ports: &Ports, config: &SubmitConfig, requests: Vec<Keyed>, batches: &Batches) {
    let size = |keyed: &Keyed| keyed.request.tasks.len();
    let mut parts: VecDeque<Vec<Keyed>> = portions(requests, config.batch.max(1), size);
    while let Some(mut part) = parts.pop_front() {
        let requests: Vec<KeyedRequest> = part.iter().map(|keyed| keyed.request.clone()).collect();
        let stored = with_patience(ports, config.patience, "insert_keyed", || {
            ports.store.insert_keyed(&requests)
        });
        match stored.await {
            Ok(kept) => {
                for (keyed, kept) in part.into_iter().zip(kept) {
                    answer(ports, keyed, kept, batches).await;
                }
            }
            Err(StoreError::Rejected(_)) if part.len() > 1 => {
                let rest = part.split_off(part.len() / 2);
                parts.push_front(rest);
                parts.push_front(part);
            }
            Err(error) => {
                let error = Arc::new(error);
                for keyed in part {
                    // A client that hung up does not listen.
                    let _ = keyed.reply.send(Err(SubmitError::of_store(&error)));
                }
            }
        }
    }
}

async fn answer(ports: &Ports, keyed: Keyed, kept: KeptRequest, batches: &Batches) {
    let Keyed {
        request,
        traces,
        reply,
        ..
    } = keyed;
    let answer = if kept.fingerprint == request.fingerprint {
        let accepted = |id: &_| Accepted {
            id: *id,
            created_at: kept.created_at,
        };
        Ok(kept.tasks.iter().map(accepted).collect())
    } else {
        Err(SubmitError::KeyReused)
    };
    // A client that hung up does not listen; its tasks are stored all the same.
    let _ = reply.send(answer);
    // The ids were made for this request: what is kept under them was stored for it, now or before a lost answer.
    let is_first = kept
        .tasks
        .iter()
        .eq(request.tasks.iter().map(|task| &task.id));
    if is_first {
        let count = request.tasks.len();
        ports.observer.observe(&Event::Submitted { count });
        hand_to_publisher(ports, batches, request.tasks, traces).await;
    }
}

/// Forgets old keys, a small batch at a time.
pub(super) async fn prune_keys(ports: Ports, mut stop: watch::Receiver<bool>) {
    let mut ticks = interval(PRUNE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once, and a server that just started has more to do.
    ticks.tick().await;
    loop {
        tokio::select! {
            biased;
            () = until_told(&mut stop) => return,
            _ = ticks.tick() => {}
        }
        loop {
            match ports.store.prune_keys(KEPT_FOR, PRUNE_BATCH).await {
                Ok(PRUNE_BATCH) => {}
                Ok(_) => break,
                Err(error) => {
                    ports.observer.observe(&Event::DependencyFailed {
                        dependency: Dependency::Store,
                        doing: "prune_keys",
                        error: chain(&error),
                    });
                    break;
                }
            }
        }
    }
}
