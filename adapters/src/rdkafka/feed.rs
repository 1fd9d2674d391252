//! Reading `tasks-input` as a member of a consumer group.
//!
//! Two threads of the feed's own: one polls (and so keeps the membership alive whatever the worker is doing) and fills
//! the buffer, the other commits. They share the [`Desk`] with the callers, who only ever take from it and leave
//! requests on it.

mod desk;
mod pump;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ports::{Delivery, FeedError, Position, Standing, TaskFeed};
use rdkafka::ClientConfig;
use tokio::sync::watch;

use super::client_config;
use crate::kafka_options::{GroupProtocol, KafkaConnectError, KafkaFeedOptions, KafkaOptions};
use desk::{CommitFault, Desk};
use pump::Pump;

/// Reads `tasks-input`. Partitions are shared with the other members of the group; offsets are committed only by
/// [`acknowledge`](TaskFeed::acknowledge).
///
/// When the buffer is full the partitions are paused, but polling goes on. Dropping the feed leaves the group on a thread of
/// its own; [`close`](Self::close) does the same and waits for it.
pub struct RdkafkaTaskFeed {
    desk: Arc<Desk>,
    commit_timeout: Duration,
    ended: watch::Receiver<bool>,
}

impl RdkafkaTaskFeed {
    /// Starts the feed. No broker need be up: until one is, [`receive`](TaskFeed::receive) says that the log is unavailable.
    ///
    /// # Errors
    /// [`KafkaConnectError::Settings`] when librdkafka refuses the settings.
    pub fn connect(
        options: &KafkaOptions,
        feed: &KafkaFeedOptions,
    ) -> Result<Self, KafkaConnectError> {
        let desk = Arc::new(Desk::new(&feed.group_id, &options.topics.input));
        let (ending, ended) = watch::channel(false);
        Pump::start(
            consumer_config(options, feed),
            options.topics.input.clone(),
            feed.buffer.max(1),
            Arc::clone(&desk),
            ending,
        )?;
        Ok(Self {
            desk,
            commit_timeout: feed.commit_timeout,
            ended,
        })
    }

    /// Leaves the group, so that the others take over at once, and waits for it, at most this long. Says whether it was
    /// done in time; if not, it goes on in the background. Nothing is received or acknowledged afterwards.
    pub async fn close(&self, deadline: Duration) -> bool {
        self.desk.close();
        let mut ended = self.ended.clone();
        tokio::time::timeout(deadline, ended.wait_for(|ended| *ended))
            .await
            .is_ok()
    }
}

impl Drop for RdkafkaTaskFeed {
    fn drop(&mut self) {
        self.desk.close();
    }
}

fn consumer_config(options: &KafkaOptions, feed: &KafkaFeedOptions) -> ClientConfig {
    let mut config = client_config(options);
    config
        .set("group.id", &feed.group_id)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        // Without it nobody could tell 'caught up' from 'waiting'.
        .set("enable.partition.eof", "true")
        // librdkafka's own buffer, in front of ours.
        .set("queued.max.messages.kbytes", "16384")
        // How long fetching rests when that buffer was full; with the default of 1 s a fast worker starves.
        .set("fetch.queue.backoff.ms", "50");
    match feed.group_protocol {
        GroupProtocol::Classic => config
            .set("partition.assignment.strategy", "cooperative-sticky")
            // A worker that died frees its partitions after this; a busy one beats from a thread of librdkafka's.
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "3000"),
        GroupProtocol::Consumer => config.set("group.protocol", "consumer"),
    };
    config
}

#[async_trait]
impl TaskFeed for RdkafkaTaskFeed {
    async fn receive(&self, limit: usize) -> Result<Vec<Delivery>, FeedError> {
        loop {
            let arrival = self.desk.arrival();
            if let Some(outcome) = self.desk.take(limit) {
                return outcome;
            }
            arrival.await;
        }
    }

    async fn acknowledge(&self, upto: &[Position]) -> Result<(), FeedError> {
        let Some(confirmation) = self.desk.request_commit(upto)? else {
            return Ok(());
        };
        match tokio::time::timeout(self.commit_timeout, confirmation).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(fault))) => Err(FeedError::Unavailable(Box::new(fault))),
            Ok(Err(_closed)) => Err(FeedError::Unavailable(Box::new(CommitFault::Closed))),
            Err(_elapsed) => Err(FeedError::Unavailable(Box::new(CommitFault::Slow(
                self.commit_timeout,
            )))),
        }
    }

    fn standing(&self) -> Standing {
        self.desk.standing()
    }
}
