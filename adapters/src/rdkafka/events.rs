//! Reading `tasks-events` without a group.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ports::{Cause, EventFeed, EventFeedError, EventReader, PlacedEvent};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::client_config;
use super::context::Traced;
use crate::kafka_options::KafkaOptions;
use crate::wire;

/// How long finding the end of the topic may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one poll waits for a record; also how soon a dropped reader is noticed.
const POLL_WAIT: Duration = Duration::from_millis(100);

/// How many records wait between the polling thread and the reader.
const BUFFER: usize = 4_096;

type Consumer = BaseConsumer<Traced>;

/// Reads `tasks-events`: its only partition, assigned by hand. Nothing is stored anywhere about who read what.
pub struct RdkafkaEventFeed {
    options: KafkaOptions,
}

impl RdkafkaEventFeed {
    /// Prepares the feed; no broker need be up.
    #[must_use]
    pub fn new(options: &KafkaOptions) -> Self {
        Self {
            options: options.clone(),
        }
    }
}

#[async_trait]
impl EventFeed for RdkafkaEventFeed {
    async fn open(&self, latest: usize) -> Result<Box<dyn EventReader>, EventFeedError> {
        let options = self.options.clone();
        let opening = tokio::task::spawn_blocking(move || start(&options, latest));
        match opening.await {
            Ok(Ok(reader)) => Ok(Box::new(reader)),
            Ok(Err(error)) => Err(EventFeedError::Unavailable(error)),
            Err(stopped) => Err(EventFeedError::Unavailable(Box::new(stopped))),
        }
    }
}

fn start(options: &KafkaOptions, latest: usize) -> Result<RdkafkaEventReader, Cause> {
    let topic = &options.topics.events;
    let mut config = client_config(options);
    config
        // It joins none; librdkafka wants a name all the same.
        .set("group.id", "task-processor-events")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A place that is gone is told, not passed over.
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "500")
        .set("queued.max.messages.kbytes", "4096");
    let consumer: Consumer = config.create_with_context(Traced)?;
    let (low, high) = consumer.fetch_watermarks(topic, 0, LOOK_TIMEOUT)?;
    let latest = i64::try_from(latest).unwrap_or(i64::MAX);
    let from = high.saturating_sub(latest).max(low);
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Offset(from))?;
    consumer.assign(&assignment)?;
    let (sender, records) = mpsc::channel(BUFFER);
    let closed = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&closed);
    std::thread::Builder::new()
        .name("kafka-events".into())
        .spawn(move || poll(&consumer, &sender, &told))?;
    Ok(RdkafkaEventReader {
        records,
        begin: u64::try_from(from).unwrap_or(0),
        end: u64::try_from(high).unwrap_or(0),
        closed,
    })
}

type Polled = Result<PlacedEvent, KafkaError>;

/// Polls until the reader is dropped or stands where nothing is any more. librdkafka reconnects by itself.
fn poll(consumer: &Consumer, sender: &mpsc::Sender<Polled>, closed: &AtomicBool) {
    while !closed.load(Ordering::Relaxed) {
        let polled = match consumer.poll(POLL_WAIT) {
            None => continue,
            Some(Ok(message)) => Ok(PlacedEvent {
                position: u64::try_from(message.offset()).unwrap_or(0),
                event: message
                    .payload()
                    .and_then(|value| wire::decode_event(value).ok()),
            }),
            Some(Err(error)) if is_final(&error) => Err(error),
            Some(Err(_passing)) => continue,
        };
        let is_over = polled.is_err();
        if sender.blocking_send(polled).is_err() || is_over {
            return;
        }
    }
}

fn is_final(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumptionFatal(_))
        || matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::AutoOffsetReset
                    | RDKafkaErrorCode::OffsetOutOfRange
                    | RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownPartition
            )
        )
}

struct RdkafkaEventReader {
    records: mpsc::Receiver<Polled>,
    begin: u64,
    end: u64,
    closed: Arc<AtomicBool>,
}

impl Drop for RdkafkaEventReader {
    fn drop(&mut self) {
        // The thread drops the consumer: that takes a moment.
        self.closed.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl EventReader for RdkafkaEventReader {
    fn begin(&self) -> u64 {
        self.begin
    }

    fn end(&self) -> u64 {
        self.end
    }

    async fn read(&mut self, limit: usize) -> Result<Vec<PlacedEvent>, EventFeedError> {
        let mut polled = Vec::new();
        let received = self.records.recv_many(&mut polled, limit.max(1)).await;
        let mut events = Vec::with_capacity(received);
        for record in polled {
            match record {
                Ok(event) => events.push(event),
                // The last of them; the next call finds the channel closed.
                Err(error) if events.is_empty() => {
                    return Err(EventFeedError::Unavailable(Box::new(error)));
                }
                Err(_) => break,
            }
        }
        if events.is_empty() {
            return Err(EventFeedError::Unavailable(
                "the reader is at its end".into(),
            ));
        }
        Ok(events)
    }
}
