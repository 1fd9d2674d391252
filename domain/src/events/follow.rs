//! The reader that fills the ring and rings the bells, while somebody listens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ports::{Dependency, EventFeed, EventFeedError, PlacedEvent};
use tokio::time::{Instant, sleep, timeout};

use super::{EventsConfig, Kind, MAIL, Shared, State};
use crate::turn::turn;
use crate::{Ports, tell_of_failure};

/// How far back reading begins for who only wait: what happened just before they came.
const JUST_BEFORE: usize = 1_024;

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
        let reading = read(&shared, &ports, &*feed, config);
        let is_over = turn(&*ports.observer, "follow_events", reading).await;
        if is_over == Some(true) {
            pause = FIRST_PAUSE;
            continue;
        }
        shared.lock().opened_at = None;
        if began.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether it read for as long as somebody wanted it to.
async fn read(shared: &Shared, ports: &Ports, feed: &dyn EventFeed, config: EventsConfig) -> bool {
    let Err(error) = shared.read_while_wanted(feed, config).await else {
        return true;
    };
    tell_of_failure(&*ports.observer, Dependency::Log, "follow_events", &error);
    false
}

impl Shared {
    async fn until_wanted(&self) {
        while self.lock().listeners == 0 {
            self.wanted.notified().await;
        }
    }

    /// Only streams need the ring, and to read so far back takes a second of a busy log: waiters are not kept from their
    /// events for that long.
    async fn read_while_wanted(
        &self,
        feed: &dyn EventFeed,
        config: EventsConfig,
    ) -> Result<(), EventFeedError> {
        let is_followed = self.lock().is_followed();
        if is_followed {
            self.read_for_streams(feed, config).await
        } else {
            self.read_for_waiters(feed, config).await
        }
    }

    /// Reads until a stream comes, or nobody has waited for a while, or the reader is at its end.
    async fn read_for_waiters(
        &self,
        feed: &dyn EventFeed,
        config: EventsConfig,
    ) -> Result<(), EventFeedError> {
        let mut reader = feed.open(JUST_BEFORE.min(config.ring)).await?;
        let mut lull = Lull::default();
        loop {
            tokio::select! {
                biased;
                read = timeout(look_pause(config), reader.read(BATCH)) => {
                    if let Ok(read) = read {
                        let read = read?;
                        let mut state = self.lock();
                        read.iter().for_each(|placed| state.deliver(placed));
                    }
                }
                () = self.wanted.notified() => {}
            }
            let state = self.lock();
            // A stream that came meanwhile reads all of it again.
            if state.streams > 0 || lull.has_lasted(state.listeners, config) {
                return Ok(());
            }
        }
    }

    /// Reads until there has been no stream for a while, or the reader is at its end. In that case the ring is kept for the
    /// next reader: where it goes on, nobody notices.
    async fn read_for_streams(
        &self,
        feed: &dyn EventFeed,
        config: EventsConfig,
    ) -> Result<(), EventFeedError> {
        let mut reader = feed.open(config.ring).await?;
        let (mut next, end) = (reader.begin(), reader.end());
        // Streams need not wait for the rest.
        self.lock().opened_at = Some(end);
        self.advanced.send_modify(|turns| *turns += 1);
        let mut latest = Vec::new();
        while next < end {
            let read = reader.read(BATCH).await?;
            next = read.last().map_or(next, |last| last.position + 1);
            latest.extend(read);
        }
        self.begin(reader.begin(), &latest);
        let mut lull = Lull::default();
        loop {
            if let Ok(read) = timeout(look_pause(config), reader.read(BATCH)).await {
                self.take_in(&read?);
            }
            let mut state = self.lock();
            if lull.has_lasted(state.streams, config) {
                state.ring.close();
                return Ok(());
            }
        }
    }

    /// What was read before goes on, or everybody is told that it does not.
    fn begin(&self, begin: u64, latest: &[PlacedEvent]) {
        let mut state = self.lock();
        state.opened_at = None;
        if !state.ring.open(begin) {
            state.cut_streams();
        }
        // Under the same lock: in a ring that is open and not filled yet, whoever comes back would miss what it is to hold.
        state.take_in(latest);
        drop(state);
        self.advanced.send_modify(|turns| *turns += 1);
    }

    fn take_in(&self, read: &[PlacedEvent]) {
        self.lock().take_in(read);
        self.advanced.send_modify(|turns| *turns += 1);
    }
}

/// How often it is looked whether anybody is left.
fn look_pause(config: EventsConfig) -> Duration {
    config.linger.max(Duration::from_millis(4)) / 4
}

/// Since when nobody is there.
#[derive(Default)]
struct Lull(Option<Instant>);

impl Lull {
    fn has_lasted(&mut self, present: usize, config: EventsConfig) -> bool {
        if present > 0 {
            self.0 = None;
            return false;
        }
        self.0.get_or_insert_with(Instant::now).elapsed() >= config.linger
    }
}

impl State {
    /// Whether there are streams, or there was one a moment ago.
    fn is_followed(&self) -> bool {
        self.streams > 0 || self.ring.bounds().is_some()
    }

    fn take_in(&mut self, read: &[PlacedEvent]) {
        for placed in read {
            match self.ring.push(placed) {
                None => continue,
                Some(true) => {}
                Some(false) => self.cut_streams(),
            }
            self.deliver(placed);
        }
    }

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
