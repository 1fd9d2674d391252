//! Taking back what dead workers held.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ports::{Dependency, RemoveReply, StoreError, WorkerEntry, WorkerId, WriteOutcome};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::resolve::{Told, Unfinished, resolve_claims, return_all};
use crate::{Ports, tell_of_failure};

/// Watches the registry and declares death.
///
/// A worker is dead once this watcher has itself seen the beat stand still for the whole lease through a healthy
/// connection. Clocks are never compared, and every interruption of the watch (a failed read, a watcher that was itself
/// stopped) starts it anew: after a database outage nobody is dead.
pub(crate) struct Watch {
    lease: Duration,
    /// The longest gap between two looks that still counts as watching.
    patience: Duration,
    seen: BTreeMap<WorkerId, Sight>,
    last_look: Option<Instant>,
}

struct Sight {
    beat: u64,
    dead: bool,
    since: Instant,
}

impl Watch {
    pub(crate) fn new(lease: Duration, interval: Duration) -> Self {
        Self {
            lease,
            patience: interval * 3,
            seen: BTreeMap::new(),
            last_look: None,
        }
    }

    /// Forgets what was seen: the watch was interrupted.
    pub(crate) fn interrupt(&mut self) {
        self.seen.clear();
        self.last_look = None;
    }

    /// Takes a look at the registry and answers which workers stood still for the whole lease.
    pub(crate) fn look(&mut self, now: Instant, workers: &[WorkerEntry]) -> Vec<(WorkerId, u64)> {
        if self
            .last_look
            .is_some_and(|last| now.duration_since(last) > self.patience)
        {
            self.interrupt();
        }
        self.last_look = Some(now);
        let mut seen = BTreeMap::new();
        let mut still = Vec::new();
        for worker in workers {
            let before = self.seen.get(&worker.id);
            let unchanged =
                before.filter(|sight| sight.beat == worker.beat && sight.dead == worker.dead);
            let since = unchanged.map_or(now, |sight| sight.since);
            if now.duration_since(since) >= self.lease {
                still.push((worker.id, worker.beat));
            }
            seen.insert(
                worker.id,
                Sight {
                    beat: worker.beat,
                    dead: worker.dead,
                    since,
                },
            );
        }
        self.seen = seen;
        still
    }
}

/// Declares a worker dead and takes back what it had in hand; `false` when it has beaten since. Announces nothing, so it waits
/// for the store alone.
async fn take_back(
    ports: &Ports,
    worker: WorkerId,
    last_beat: u64,
    max_rescues: u32,
) -> Result<bool, StoreError> {
    if ports.registry.declare_dead(worker, last_beat).await? == WriteOutcome::Stale {
        return Ok(false);
    }
    let unfinished = Unfinished::Rescue { limit: max_rescues };
    return_all(ports, worker, unfinished).await?;
    Ok(true)
}

/// Buries a worker that was declared dead: announces what it brought to rest, removes it.
async fn bury(
    ports: &Ports,
    worker: WorkerId,
    max_rescues: u32,
    told: &mut Told,
) -> Result<(), StoreError> {
    let unfinished = Unfinished::Rescue { limit: max_rescues };
    loop {
        if !resolve_claims(ports, worker, unfinished, told)
            .await?
            .is_complete()
        {
            // What is left stays recorded until the log is up, or the store takes it, and the watch comes back.
            return Ok(());
        }
        // A claim that committed while this went on is found in the next round.
        if ports.registry.remove(worker).await? == RemoveReply::Removed {
            return Ok(());
        }
    }
}

/// Takes back, at once, what every registered worker holds. Only for a program that knows that none of them lives: the
/// embedded form, which holds the exclusive lock on its database file.
///
/// # Errors
/// [`StoreError`] when the store does not answer; calling again continues.
pub async fn recover_all(ports: &Ports, max_rescues: u32) -> Result<(), StoreError> {
    // A last beat may have been on its way when its process died: whoever beat meanwhile is looked at again.
    loop {
        let mut all_buried = true;
        for worker in ports.registry.workers().await? {
            if take_back(ports, worker.id, worker.beat, max_rescues).await? {
                bury(ports, worker.id, max_rescues, &mut Told::new()).await?;
            } else {
                all_buried = false;
            }
        }
        if all_buried {
            return Ok(());
        }
    }
}

/// Sees to the dead. The tasks of all of them go back before anything is announced, and what has to be announced is announced
/// aside: the log may take seconds to say that it is down, and who dies next must be missed meanwhile.
///
/// Whoever drops it crashes in the middle of a rescue: each step can be repeated, and another worker goes on.
pub(crate) struct Undertaker {
    ports: Ports,
    max_rescues: u32,
    /// The dead whose tasks went back, and who are still registered.
    returned: BTreeSet<WorkerId>,
    /// The burials under way: one round at a time, so that nobody is buried twice at once.
    round: JoinSet<Told>,
    told: Told,
}

impl Undertaker {
    pub(crate) fn new(ports: &Ports, max_rescues: u32) -> Self {
        Self {
            ports: ports.clone(),
            max_rescues,
            returned: BTreeSet::new(),
            round: JoinSet::new(),
            told: Told::new(),
        }
    }

    /// Sees to those of whom the watch says that they are dead: all who are, those of earlier looks among them.
    pub(crate) async fn see_to(&mut self, dead: &[(WorkerId, u64)]) {
        let is_dead = |worker: &WorkerId| dead.iter().any(|(id, _)| id == worker);
        self.returned.retain(is_dead);
        for (worker, last_beat) in dead {
            if self.returned.contains(worker) {
                continue;
            }
            match take_back(&self.ports, *worker, *last_beat, self.max_rescues).await {
                Ok(true) => {
                    self.returned.insert(*worker);
                }
                Ok(false) => {}
                Err(error) => failed(&self.ports, &error),
            }
        }
        while let Some(round) = self.round.try_join_next() {
            self.told = round.unwrap_or_default();
        }
        if self.round.is_empty() && !self.returned.is_empty() {
            let (ports, max_rescues) = (self.ports.clone(), self.max_rescues);
            let dead = self.returned.clone();
            let mut told = std::mem::take(&mut self.told);
            self.round.spawn(async move {
                for worker in dead {
                    if let Err(error) = bury(&ports, worker, max_rescues, &mut told).await {
                        failed(&ports, &error);
                    }
                }
                told
            });
        }
    }
}

fn failed(ports: &Ports, error: &StoreError) {
    tell_of_failure(&*ports.observer, Dependency::Store, "rescue", error);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ports::ids::WorkerId;

    fn entry(beat: u64) -> WorkerEntry {
        WorkerEntry {
            id: WorkerId(Default::default()),
            name: "w".into(),
            beat,
            position: None,
            dead: false,
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn watch() -> Watch {
        Watch::new(5 * SECOND, SECOND)
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_is_dead_only_after_a_whole_lease_of_standing_still() {
        let mut watch = watch();
        let start = Instant::now();
        for second in 0..5 {
            assert!(watch.look(start + SECOND * second, &[entry(7)]).is_empty());
        }
        assert_eq!(watch.look(start + SECOND * 5, &[entry(7)]).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_beat_starts_the_lease_anew() {
        let mut watch = watch();
        let start = Instant::now();
        for second in 0..60 {
            let beat = u64::from(second / 4);
            assert!(
                watch
                    .look(start + SECOND * second, &[entry(beat)])
                    .is_empty()
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_interrupted_watch_proves_nothing() {
        let mut watch = watch();
        let start = Instant::now();
        watch.look(start, &[entry(7)]);
        // The watcher itself was stopped for a minute: it has not watched.
        assert!(watch.look(start + SECOND * 60, &[entry(7)]).is_empty());
        watch.interrupt();
        assert!(watch.look(start + SECOND * 62, &[entry(7)]).is_empty());
        for second in 63..67 {
            assert!(watch.look(start + SECOND * second, &[entry(7)]).is_empty());
        }
        assert_eq!(watch.look(start + SECOND * 67, &[entry(7)]).len(), 1);
    }
}
