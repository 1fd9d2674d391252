//! Reading `tasks-input` by a static share of its partitions.
//!
//! A task of the feed's own fetches into a bounded buffer; commits go through a client of their own, so that a fetch that
//! waits for records does not hold them up.

mod fetch;
mod reader;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kafka::client::CommitOffset;
use kafka::error::{Error as KafkaError, KafkaCode};
use ports::{Delivery, FeedError, Position, Standing, TaskFeed};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::link::{Health, Link, LinkFault, LinkSettings};
use super::must_be_plain;
use crate::kafka_options::{KafkaConnectError, KafkaFeedOptions, KafkaOptions};
use crate::kafka_partition::OwnPartition;
use reader::Reader;

/// How long a fetch waits for records at a broker that has none.
const FETCH_WAIT: Duration = Duration::from_millis(100);

/// Which partitions this worker reads: every one whose number leaves the remainder `index` when divided by `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    index: u32,
    count: u32,
}

/// Not a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("WORKER_INDEX must be below WORKER_COUNT, and WORKER_COUNT at least 1")]
pub struct WrongShare;

impl Share {
    /// All partitions.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Share `index` (`WORKER_INDEX`) of `count` (`WORKER_COUNT`).
    ///
    /// # Errors
    /// [`WrongShare`] unless `index < count`.
    pub const fn new(index: u32, count: u32) -> Result<Self, WrongShare> {
        if index < count {
            Ok(Self { index, count })
        } else {
            Err(WrongShare)
        }
    }

    /// Whether the partition belongs to this share.
    #[must_use]
    pub fn holds(self, partition: i32) -> bool {
        u32::try_from(partition).is_ok_and(|partition| partition % self.count == self.index)
    }
}

/// Reads this worker's share of `tasks-input`. Offsets are stored under the group's name, so that a worker of the same share
/// goes on where this one stopped; nothing keeps two workers of one share apart.
///
/// A record has no time of its own here (kafka-rust reads none): that of a version 7 task id stands in for it, or
/// else the time of its receipt. Records compressed with lz4 or zstd arrive as unreadable: kafka-rust cannot read them.
pub struct KafkaTaskFeed {
    shared: Arc<Shared>,
    committer: Link,
    /// One commit at a time, so that none overtakes a later one.
    committing: tokio::sync::Mutex<()>,
    group_id: String,
    topic: String,
    commit_timeout: Duration,
    reader: JoinHandle<()>,
}

/// What the reader and the callers share.
struct Shared {
    state: Mutex<State>,
    arrived: Notify,
    room: Notify,
}

#[derive(Default)]
struct State {
    buffer: VecDeque<Delivery>,
    /// The partitions of the share; `None` until the cluster was asked.
    owned: Option<BTreeMap<i32, OwnPartition>>,
    /// Why the last exchange with the cluster failed.
    outage: Option<Arc<LinkFault>>,
    /// Why the group took no commit, from one that it refused to the next that it takes.
    refusal: Option<String>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KafkaTaskFeed {
    /// Starts the feed, within a Tokio runtime. No broker need be up: until one is, [`receive`](TaskFeed::receive) says that
    /// the log is unavailable.
    ///
    /// # Errors
    /// [`KafkaConnectError::Settings`] when the list of brokers is empty, or TLS or a login is asked for.
    pub fn connect(
        options: &KafkaOptions,
        feed: &KafkaFeedOptions,
        share: Share,
    ) -> Result<Self, KafkaConnectError> {
        if options.brokers.is_empty() {
            return Err(KafkaConnectError::Settings("no broker is named".into()));
        }
        must_be_plain(options)?;
        let settings = LinkSettings {
            brokers: options.brokers.clone(),
            client_id: options.client_id.clone(),
            topics: vec![options.topics.input.clone()],
            fetch_wait: FETCH_WAIT,
        };
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            arrived: Notify::new(),
            room: Notify::new(),
        });
        let reader = Reader::new(
            Link::new("kafka-fetch", settings.clone()),
            Arc::clone(&shared),
            options.topics.input.clone(),
            feed.group_id.clone(),
            share,
            feed.buffer.max(1),
        );
        Ok(Self {
            shared,
            committer: Link::new("kafka-commit", settings),
            committing: tokio::sync::Mutex::default(),
            group_id: feed.group_id.clone(),
            topic: options.topics.input.clone(),
            commit_timeout: feed.commit_timeout,
            reader: tokio::spawn(reader.run()),
        })
    }

    fn take(&self, limit: usize) -> Option<Result<Vec<Delivery>, FeedError>> {
        let mut state = self.shared.lock();
        if state.buffer.is_empty() {
            let fault = state.outage.as_ref()?;
            return Some(Err(match fault.incompatible() {
                Some(text) => FeedError::Refused(text.to_owned()),
                None => FeedError::Unavailable(Box::new(Arc::clone(fault))),
            }));
        }
        let count = state.buffer.len().min(limit);
        let taken: Vec<Delivery> = state.buffer.drain(..count).collect();
        for delivery in &taken {
            let Position { partition, offset } = delivery.position;
            if let Some(owned) = state
                .owned
                .as_mut()
                .and_then(|owned| owned.get_mut(&partition))
            {
                owned.receive(offset);
            }
        }
        if !state.buffer.is_empty() {
            // Another caller may be waiting for what is left.
            self.shared.arrived.notify_one();
        }
        drop(state);
        self.shared.room.notify_one();
        Some(Ok(taken))
    }

    /// Per partition, the offset to commit: what was received here and lies ahead of what was committed.
    fn to_commit(&self, upto: &[Position]) -> BTreeMap<i32, i64> {
        let state = self.shared.lock();
        let mut next_offsets = BTreeMap::new();
        for position in upto {
            let owned = state
                .owned
                .as_ref()
                .and_then(|owned| owned.get(&position.partition));
            if let Some(next) = owned.and_then(|owned| owned.to_commit(position.offset)) {
                let wanted = next_offsets.entry(position.partition).or_insert(next);
                *wanted = next.max(*wanted);
            }
        }
        next_offsets
    }

    fn committed(&self, next_offsets: &BTreeMap<i32, i64>) {
        let mut state = self.shared.lock();
        state.refusal = None;
        let Some(owned) = state.owned.as_mut() else {
            return;
        };
        for (partition, next) in next_offsets {
            if let Some(owned) = owned.get_mut(partition) {
                owned.committed(*next);
            }
        }
    }

    async fn commit(&self, next_offsets: &BTreeMap<i32, i64>) -> Result<(), LinkFault> {
        let group = self.group_id.clone();
        let topic = self.topic.clone();
        let offsets: Vec<(i32, i64)> = next_offsets
            .iter()
            .map(|(partition, next)| (*partition, *next))
            .collect();
        self.committer
            .call(self.commit_timeout, move |client| {
                let offsets = offsets
                    .iter()
                    .map(|(partition, next)| CommitOffset::new(&topic, *partition, *next));
                client.commit_offsets(&group, offsets)?;
                Ok(((), Health::Sound))
            })
            .await
    }

    fn feed_error(&self, fault: LinkFault) -> FeedError {
        if let Some(text) = fault.incompatible() {
            return FeedError::Refused(text.to_owned());
        }
        match fault {
            LinkFault::Client(KafkaError::Kafka(
                KafkaCode::UnknownMemberId
                | KafkaCode::IllegalGeneration
                | KafkaCode::RebalanceInProgress,
            )) => FeedError::Refused(format!(
                "the group {} has live members of another client, and while it has, kafka-rust may not commit to it: stop \
                 them, or set KAFKA_GROUP_ID to a group of its own",
                self.group_id
            )),
            LinkFault::Client(KafkaError::Kafka(KafkaCode::GroupAuthorizationFailed)) => {
                FeedError::Refused(format!(
                    "this client may not use the group {}: grant it READ, or set KAFKA_GROUP_ID to a group it may use",
                    self.group_id
                ))
            }
            fault => FeedError::Unavailable(Box::new(fault)),
        }
    }
}

impl Drop for KafkaTaskFeed {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[async_trait]
impl TaskFeed for KafkaTaskFeed {
    async fn receive(&self, limit: usize) -> Result<Vec<Delivery>, FeedError> {
        loop {
            let arrival = self.shared.arrived.notified();
            if let Some(outcome) = self.take(limit) {
                return outcome;
            }
            arrival.await;
        }
    }

    async fn acknowledge(&self, upto: &[Position]) -> Result<(), FeedError> {
        let mut fault = None;
        // A coordinator that moved, or a connection that had been idle for long, shows as one failure.
        for _attempt in 0..2 {
            let _committing = self.committing.lock().await;
            let next_offsets = self.to_commit(upto);
            if next_offsets.is_empty() {
                return Ok(());
            }
            match self.commit(&next_offsets).await {
                Ok(()) => {
                    self.committed(&next_offsets);
                    return Ok(());
                }
                Err(failed) => fault = Some(failed),
            }
        }
        let Some(fault) = fault else {
            return Ok(());
        };
        let error = self.feed_error(fault);
        if let FeedError::Refused(reason) = &error {
            self.shared.lock().refusal = Some(reason.clone());
        }
        Err(error)
    }

    fn standing(&self) -> Standing {
        let state = self.shared.lock();
        if let Some(fault) = &state.outage {
            return fault.incompatible().map_or(Standing::Down, |reason| {
                Standing::Refused(reason.to_owned())
            });
        }
        if let Some(refusal) = &state.refusal {
            return Standing::Refused(refusal.clone());
        }
        let Some(owned) = &state.owned else {
            return Standing::Down;
        };
        if owned.is_empty() {
            return Standing::Unassigned;
        }
        if state.buffer.is_empty() && owned.values().all(|owned| owned.at_end) {
            return Standing::CaughtUp;
        }
        Standing::Behind
    }
}

#[cfg(test)]
mod tests {
    use super::{Share, WrongShare};

    #[test]
    fn shares_divide_the_partitions() {
        assert_eq!(Share::new(0, 0), Err(WrongShare));
        assert_eq!(Share::new(2, 2), Err(WrongShare));
        for count in 1..5 {
            for partition in 0..12 {
                let holders = (0..count)
                    .filter(|index| {
                        Share::new(*index, count).is_ok_and(|share| share.holds(partition))
                    })
                    .count();
                assert_eq!(holders, 1, "{partition} of {count}");
            }
        }
        assert!((0..12).all(|partition| Share::WHOLE.holds(partition)));
    }
}
