//! Submissions under a key that the client gave: a lane of their own, so that they neither slow the rest nor wait for it.
//!
//! One writer commits them in the order of their keys, so that two servers that meet on the same keys wait for each other
//! in one order.

use std::sync::Arc;
use std::time::Duration;

use ports::{Dependency, Event, KeptRequest, KeyedRequest, StoreError};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::client::{Client, Request, in_time, last_deadline, turn_away_late};
use super::publish::{Outgoing, messages_of};
use super::{Accepted, SubmitConfig, SubmitError, portions, until_told};
use crate::again::with_patience;
use crate::turn::turn;
use crate::{Ports, tell_of_failure};

/// For how long a key is kept at least.
pub const KEPT_FOR: Duration = Duration::from_secs(24 * 3_600);

/// How often old keys are looked for.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// How many old keys are forgotten together.
const PRUNE_BATCH: usize = 1_000;

/// How many requests may share a commit.
const BATCH: usize = 128;

pub(super) async fn commit_keyed(
    ports: Ports,
    config: SubmitConfig,
    mut incoming: mpsc::Receiver<Request<KeyedRequest>>,
    mut stop: watch::Receiver<bool>,
    outgoing: Outgoing,
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
        for request in &mut requests {
            request.client.places = None;
        }
        let commit = commit(&ports, &config, std::mem::take(&mut requests), &outgoing);
        // Of a panic its requests learn by the loss of their reply; the others go on.
        turn(&*ports.observer, "insert_keyed", commit).await;
    }
}

/// Commits requests together. A batch that the store refuses for its data is halved until the culprit stands alone.
async fn commit(
    ports: &Ports,
    config: &SubmitConfig,
    requests: Vec<Request<KeyedRequest>>,
    outgoing: &Outgoing,
) {
    let mut parts = portions(requests, config.batch.max(1));
    while let Some(mut part) = parts.pop_front() {
        turn_away_late(&mut part);
        let Some(last) = last_deadline(&part) else {
            continue;
        };
        let asked = part
            .into_iter()
            .map(|request| (request.asked, request.client));
        let (requests, mut clients): (Vec<KeyedRequest>, Vec<Client>) = asked.unzip();
        let storing = with_patience(ports, last, "insert_keyed", || {
            ports.store.insert_keyed(&requests)
        });
        match in_time(&mut clients, last, storing).await {
            Ok(kept) => {
                let mut count = 0;
                let mut messages = Vec::new();
                let mut rooms = Vec::new();
                let answered = requests.into_iter().zip(clients).zip(kept);
                for ((request, mut client), kept) in answered {
                    if answer(&request, &mut client, &kept) {
                        count += client.count;
                        messages.extend(messages_of(request.tasks, client.traces));
                        rooms.push(client.room);
                    }
                }
                if count > 0 {
                    ports.observer.observe(&Event::Submitted { count });
                }
                outgoing.leave(messages, rooms.into_iter());
            }
            Err(StoreError::Rejected(_)) if clients.len() > 1 => {
                let again = requests.into_iter().zip(clients);
                let mut part: Vec<_> = again
                    .map(|(asked, client)| Request { asked, client })
                    .collect();
                let rest = part.split_off(part.len() / 2);
                parts.push_front(rest);
                parts.push_front(part);
            }
            Err(error) => {
                let error = Arc::new(error);
                for mut client in clients {
                    client.answer(Err(SubmitError::of_store(&error)));
                }
            }
        }
    }
}

/// Answers, and says whether what is kept under the key was stored for this very request.
fn answer(request: &KeyedRequest, client: &mut Client, kept: &KeptRequest) -> bool {
    let answer = if kept.fingerprint == request.fingerprint {
        let accepted = |id: &_| Accepted {
            id: *id,
            created_at: kept.created_at,
        };
        Ok(kept.tasks.iter().map(accepted).collect())
    } else {
        Err(SubmitError::KeyReused)
    };
    client.answer(answer);
    // The ids were made for this request: what is kept under them was stored for it, now or before a lost answer.
    let own = request.tasks.iter().map(|task| &task.id);
    kept.tasks.iter().eq(own)
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
        turn(&*ports.observer, "prune_keys", forget_old(&ports)).await;
    }
}

async fn forget_old(ports: &Ports) {
    loop {
        match ports.store.prune_keys(KEPT_FOR, PRUNE_BATCH).await {
            Ok(PRUNE_BATCH) => {}
            Ok(_) => return,
            Err(error) => {
                tell_of_failure(&*ports.observer, Dependency::Store, "prune_keys", &error);
                return;
            }
        }
    }
}
