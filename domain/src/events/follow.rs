//! The reader that fills the ring and rings the bells, while somebody listens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ports::{Dependency, Event, EventFeed, EventFeedError, PlacedEvent};
use tokio::time::{Instant, sleep, timeout};

use super::{EventsConfig, Kind, MAIL, Shared, State};
use crate::{Ports, chain};

/// How many events are taken together.
const BATCH: usize = 1_024;

/// After a failure, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

pub(super) async fn follow(
    shared: Arc<Shared>,
    ports: Ports,
    feed: Arc<dyn EventFeed>,
    config: EventsConfig,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        shared.until_wanted().await;
        let began = Instant::now();
        match shared.read_while_wanted(&*feed, config).await {
            Ok(()) => pause = FIRST_PAUSE,
            Err(error) => {
                ports.observer.observe(&Event::DependencyFailed {
                    dependency: Dependency::Log,
                    doing: "follow_events",
                    error: chain(&error),
                });
                if began.elapsed() > LONGEST_PAUSE {
                    pause = FIRST_PAUSE;
                }
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

impl Shared {
    async fn until_wanted(&self) {
        while self.lock().listeners == 0 {
            self.wanted.notified().await;
        }
    }

    /// Reads until nobody has listened for a while, or the reader is at its end. In that case the ring is kept for the next
    /// reader: where it goes on, nobody notices.
    async fn read_while_wanted(
        &self,
        feed: &dyn EventFeed,
        config: EventsConfig,
    ) -> Result<(), EventFeedError> {
        let mut reader = feed.open(config.ring).await?;
        let (mut next, end) = (reader.begin(), reader.end());
        let mut latest = Vec::new();
        while next < end {
            let read = reader.read(BATCH).await?;
            next = read.last().map_or(next, |last| last.position + 1);
            latest.extend(read);
        }
        self.begin(reader.begin(), &latest);
        let mut unwanted_since = None;
        loop {
            let look = config.linger.max(Duration::from_millis(4)) / 4;
            if let Ok(read) = timeout(look, reader.read(BATCH)).await {
                self.take_in(&read?);
            }
            let mut state = self.lock();
            if state.listeners > 0 {
                unwanted_since = None;
            } else if unwanted_since.get_or_insert_with(Instant::now).elapsed() >= config.linger {
                state.ring.close();
                return Ok(());
            }
        }
    }

    /// What was read before goes on, or everybody is told that it does not.
    fn begin(&self, begin: u64, latest: &[PlacedEvent]) {
        let mut state = self.lock();
        if !state.ring.open(begin) {
            state.cut_streams();
        }
        drop(state);
        self.take_in(latest);
    }

    fn take_in(&self, read: &[PlacedEvent]) {
        let mut state = self.lock();
        for placed in read {
            match state.ring.push(placed) {
                None => continue,
                Some(true) => {}
                Some(false) => state.cut_streams(),
            }
            state.deliver(placed);
        }
        drop(state);
        self.advanced.send_modify(|turns| *turns += 1);
    }
}

impl State {
    /// Puts an event into the hands of those who asked for its task.
    fn deliver(&mut self, placed: &PlacedEvent) {
        let Some(event) = placed.event else { return };
        let Some(watchers) = self.by_task.get_mut(&event.id) else {
            return;
        };
        for watcher in watchers.values_mut() {
            match watcher.kind {
                Kind::Waiter { .. } if event.status.is_at_rest() => watcher.bell.notify_one(),
                Kind::Waiter { .. } => {}
                Kind::Stream => {
                    if watcher.mail.len() < MAIL {
                        watcher.mail.push_back(*placed);
                    } else {
                        watcher.is_cut = true;
                    }
                    watcher.bell.notify_one();
                }
            }
        }
    }

    /// The events are no longer what they were: whoever follows a task has to be told.
    fn cut_streams(&mut self) {
        for watcher in self.by_task.values_mut().flat_map(BTreeMap::values_mut) {
            if watcher.kind == Kind::Stream {
                watcher.mail.clear();
                watcher.is_cut = true;
                watcher.bell.notify_one();
            }
        }
    }
}
