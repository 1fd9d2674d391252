//! Reading `tasks-events` without a group.

use std::time::Duration;

use async_trait::async_trait;
use kafka::client::fetch::Topic;
use kafka::client::{FetchOffset, FetchPartition, KafkaClient as Client};
use kafka::error::{Error as KafkaError, KafkaCode};
use ports::{EventFeed, EventFeedError, EventReader, PlacedEvent};

use super::link::{Health, Link, LinkFault, LinkSettings};
use super::must_be_plain;
use crate::kafka_options::KafkaOptions;
use crate::wire;

/// How long a fetch waits for records at a broker that has none. It answers at once when one comes.
const FETCH_WAIT: Duration = Duration::from_millis(500);

/// How long one fetch may take.
const FETCH_LIMIT: Duration = Duration::from_secs(15);

/// How long finding the end of the topic may take.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// More than a broker's limit of a batch, so that any batch fits.
const FETCH_BYTES: i32 = 1024 * 1024 + 64 * 1024;

/// After a fetch that failed; the next one is on a client made anew.
const PAUSE: Duration = Duration::from_millis(200);

/// Reads `tasks-events`: its only partition, from a place of its own.
pub struct KafkaEventFeed {
    options: KafkaOptions,
}

impl KafkaEventFeed {
    /// Prepares the feed; no broker need be up.
    #[must_use]
    pub fn new(options: &KafkaOptions) -> Self {
        Self {
            options: options.clone(),
        }
    }
}

#[async_trait]
impl EventFeed for KafkaEventFeed {
    async fn open(&self, latest: usize) -> Result<Box<dyn EventReader>, EventFeedError> {
        must_be_plain(&self.options)
            .map_err(|error| EventFeedError::Unavailable(Box::new(error)))?;
        let topic = self.options.topics.events.clone();
        let link = Link::new(
            "kafka-events",
            LinkSettings {
                brokers: self.options.brokers.clone(),
                client_id: self.options.client_id.clone(),
                topics: vec![topic.clone()],
                fetch_wait: FETCH_WAIT,
            },
        );
        let name = topic.clone();
        let (first, end) = link
            .call(LOOK_LIMIT, move |client| {
                let first = offset(client, &name, FetchOffset::Earliest)?;
                let end = offset(client, &name, FetchOffset::Latest)?;
                Ok(((first, end), Health::Sound))
            })
            .await
            .map_err(unavailable)?;
        let latest = i64::try_from(latest).unwrap_or(i64::MAX);
        let begin = end.saturating_sub(latest).max(first);
        Ok(Box::new(KafkaEventReader {
            link,
            topic,
            begin: u64::try_from(begin).unwrap_or(0),
            next: begin,
            end: u64::try_from(end).unwrap_or(0),
            fetched: Vec::new(),
        }))
    }
}

fn unavailable(fault: LinkFault) -> EventFeedError {
    EventFeedError::Unavailable(Box::new(fault))
}

fn offset(client: &mut Client, topic: &str, wanted: FetchOffset) -> Result<i64, KafkaError> {
    client
        .fetch_topic_offsets(topic, wanted)?
        .iter()
        .find(|found| found.partition == 0)
        .map(|found| found.offset.max(0))
        .ok_or(KafkaError::Kafka(KafkaCode::LeaderNotAvailable))
}

struct KafkaEventReader {
    link: Link,
    topic: String,
    begin: u64,
    next: i64,
    end: u64,
    /// Fetched and not yet read, the last first.
    fetched: Vec<PlacedEvent>,
}

enum Fetched {
    Records(Vec<PlacedEvent>),
    /// This place is not in the topic, or nothing here can be read by kafka-rust.
    Lost,
}

fn fetch(client: &mut Client, topic: &str, from: i64) -> Result<(Fetched, Health), KafkaError> {
    let wanted = [FetchPartition::new(topic, 0, from).with_max_bytes(FETCH_BYTES)];
    let responses = match client.fetch_messages(&wanted) {
        Ok(responses) => responses,
        Err(
            KafkaError::InvalidSnappy(_)
            | KafkaError::UnsupportedProtocol
            | KafkaError::UnsupportedCompression
            | KafkaError::CodecError,
        ) => return Ok((Fetched::Lost, Health::Suspect)),
        Err(error) => return Err(error),
    };
    let mut events = Vec::new();
    for partition in responses
        .iter()
        .flat_map(|response| response.topics())
        .flat_map(Topic::partitions)
    {
        match partition.data() {
            Ok(data) => events.extend(
                data.messages()
                    .iter()
                    // A batch comes whole, whatever of it was read before.
                    .filter(|message| message.offset >= from)
                    .map(|message| PlacedEvent {
                        position: u64::try_from(message.offset).unwrap_or(0),
                        event: wire::decode_event(message.value).ok(),
                    }),
            ),
            Err(error) => match &*error {
                KafkaError::Kafka(KafkaCode::OffsetOutOfRange) => {
                    return Ok((Fetched::Lost, Health::Sound));
                }
                KafkaError::Kafka(code) => return Err(KafkaError::Kafka(*code)),
                _ => return Err(KafkaError::Kafka(KafkaCode::Unknown)),
            },
        }
    }
    Ok((Fetched::Records(events), Health::Sound))
}

#[async_trait]
impl EventReader for KafkaEventReader {
    fn begin(&self) -> u64 {
        self.begin
    }

    fn end(&self) -> u64 {
        self.end
    }

    async fn read(&mut self, limit: usize) -> Result<Vec<PlacedEvent>, EventFeedError> {
        while self.fetched.is_empty() {
            let (topic, from) = (self.topic.clone(), self.next);
            let fetched = self
                .link
                .call(FETCH_LIMIT, move |client| fetch(client, &topic, from))
                .await;
            match fetched {
                Ok(Fetched::Records(events)) => {
                    self.fetched = events;
                    self.fetched.reverse();
                }
                Ok(Fetched::Lost) => {
                    return Err(EventFeedError::Unavailable(
                        "the topic does not hold the place that was read".into(),
                    ));
                }
                Err(fault) if fault.incompatible().is_some() => return Err(unavailable(fault)),
                Err(_passing) => tokio::time::sleep(PAUSE).await,
            }
        }
        let count = self.fetched.len().min(limit.max(1));
        let mut read = self.fetched.split_off(self.fetched.len() - count);
        read.reverse();
        if let Some(last) = read.last() {
            self.next = i64::try_from(last.position + 1).unwrap_or(i64::MAX);
        }
        Ok(read)
    }
}
