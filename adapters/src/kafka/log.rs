//! Writing: task messages, results and dead letters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kafka::client::{KafkaClient as Client, ProduceMessage, RequiredAcks};
use kafka::error::{Error as KafkaError, KafkaCode};
use ports::{
    AnnounceError, Announcer, DeadLetter, PublishError, TaskEvent, TaskMessage, TaskPublisher,
    TaskResult,
};
use tokio::time::Instant;

use super::link::{Health, Link, LinkFault, LinkSettings, partition_count};
use super::must_be_plain;
use super::partitioner::partition_of;
use crate::kafka_options::{KafkaConnectError, KafkaOptions};
use crate::wire;

/// The most bytes of one partition, and of all, in one request. Brokers refuse batches over 1 MiB unless told otherwise.
const PARTITION_BYTES: usize = 768 * 1024;
const REQUEST_BYTES: usize = 16 * 1024 * 1024;

/// What a record costs beyond its key and value.
const RECORD_OVERHEAD: usize = 64;

/// Between attempts, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(800);

/// How long a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Writes `tasks-input`, `tasks-output`, `tasks-dead-letter` and `tasks-events`.
///
/// Confirmed means written by all in-sync replicas. What fails is sent again, on a client made anew, until the delivery
/// timeout; records may be doubled by that.
pub struct KafkaLog {
    options: KafkaOptions,
    input: Link,
    output: Link,
    dead_letter: Link,
    events: Link,
}

/// A record to be written.
struct Outgoing {
    key: Option<Vec<u8>>,
    value: Vec<u8>,
}

impl Outgoing {
    fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.value.len() + RECORD_OVERHEAD
    }
}

#[derive(Debug, thiserror::Error)]
enum SendFault {
    #[error("the broker refuses the record: {0:?}")]
    Refused(KafkaCode),
    #[error("the broker did not take the record: {0:?}")]
    Failed(KafkaCode),
    #[error("the record was not confirmed")]
    Link(#[source] Arc<LinkFault>),
    #[error("the record was not confirmed within the delivery timeout")]
    Late,
}

impl From<SendFault> for PublishError {
    fn from(fault: SendFault) -> Self {
        match fault {
            SendFault::Refused(_) => Self::Rejected(Box::new(fault)),
            _ => Self::Unavailable(Box::new(fault)),
        }
    }
}

impl From<SendFault> for AnnounceError {
    fn from(fault: SendFault) -> Self {
        match fault {
            SendFault::Refused(_) => Self::Rejected(Box::new(fault)),
            _ => Self::Unavailable(Box::new(fault)),
        }
    }
}

/// What is left to send, and how it went so far.
struct Pending {
    index: usize,
    /// Its batch was refused as too large: it travels alone, so that only the culprit is refused again.
    alone: bool,
}

/// How one record of a round fared, and whether it was the only one of its partition.
struct Fared {
    index: usize,
    outcome: Result<(), KafkaCode>,
    was_alone: bool,
}

impl KafkaLog {
    /// Prepares the writer. No broker need be up.
    ///
    /// # Errors
    /// [`KafkaConnectError::Settings`] when the list of brokers is empty, or TLS or a login is asked for.
    pub fn connect(options: &KafkaOptions) -> Result<Self, KafkaConnectError> {
        if options.brokers.is_empty() {
            return Err(KafkaConnectError::Settings("no broker is named".into()));
        }
        must_be_plain(options)?;
        let link = |name, topic: &str| {
            Link::new(
                name,
                LinkSettings {
                    brokers: options.brokers.clone(),
                    client_id: options.client_id.clone(),
                    topics: vec![topic.to_owned()],
                    fetch_wait: Duration::from_millis(100),
                },
            )
        };
        Ok(Self {
            input: link("kafka-publish", &options.topics.input),
            output: link("kafka-announce", &options.topics.output),
            dead_letter: link("kafka-bury", &options.topics.dead_letter),
            events: link("kafka-tell", &options.topics.events),
            options: options.clone(),
        })
    }

    /// Sends every record, again and again until it is confirmed, refused or late. One outcome per record, in order.
    async fn send(
        &self,
        link: &Link,
        topic: &str,
        records: Vec<Outgoing>,
    ) -> Vec<Result<(), SendFault>> {
        let deadline = Instant::now() + self.options.delivery_timeout;
        let records = Arc::new(records);
        let mut outcomes: Vec<Result<(), SendFault>> =
            records.iter().map(|_| Err(SendFault::Late)).collect();
        let mut pending: Vec<Pending> = (0..records.len())
            .map(|index| Pending {
                index,
                alone: false,
            })
            .collect();
        let mut pause = None;
        while !pending.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let round = Round {
                topic: topic.to_owned(),
                records: Arc::clone(&records),
                wanted: pending
                    .iter()
                    .map(|pending| (pending.index, pending.alone))
                    .collect(),
                ack_timeout: left,
            };
            match link.call(left, move |client| round.send(client)).await {
                Ok(fared) => {
                    let before = pending.len();
                    for record in fared {
                        settle(record, &mut outcomes, &mut pending);
                    }
                    if pending.len() < before {
                        pause = None;
                        continue;
                    }
                }
                Err(fault) => {
                    let hopeless = fault.incompatible().is_some();
                    let fault = Arc::new(fault);
                    for record in &pending {
                        outcomes[record.index] = Err(SendFault::Link(Arc::clone(&fault)));
                    }
                    if hopeless {
                        break;
                    }
                }
            }
            // The first repetition comes at once: a connection that had been idle for long is simply gone.
            if let Some(pause) = pause {
                tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
            }
            pause = Some(pause.map_or(FIRST_PAUSE, |pause: Duration| {
                (pause * 2).min(LONGEST_PAUSE)
            }));
        }
        outcomes
    }
}

fn settle(record: Fared, outcomes: &mut [Result<(), SendFault>], pending: &mut Vec<Pending>) {
    let Fared {
        index,
        outcome,
        was_alone,
    } = record;
    let too_large = matches!(
        outcome,
        Err(KafkaCode::MessageSizeTooLarge
            | KafkaCode::RecordListTooLarge
            | KafkaCode::InvalidMessageSize)
    );
    match outcome {
        Err(_) if too_large && !was_alone => {
            for other in pending.iter_mut().filter(|other| other.index == index) {
                other.alone = true;
            }
        }
        Err(code) if too_large => {
            outcomes[index] = Err(SendFault::Refused(code));
            pending.retain(|other| other.index != index);
        }
        Err(code) => outcomes[index] = Err(SendFault::Failed(code)),
        Ok(()) => {
            outcomes[index] = Ok(());
            pending.retain(|other| other.index != index);
        }
    }
}

/// One request: as many of the wanted records as fit.
struct Round {
    topic: String,
    records: Arc<Vec<Outgoing>>,
    /// Indexes into the records, and whether each must be the only one of its partition.
    wanted: Vec<(usize, bool)>,
    ack_timeout: Duration,
}

impl Round {
    fn send(&self, client: &mut Client) -> Result<(Vec<Fared>, Health), KafkaError> {
        let count = partition_count(client, &self.topic);
        if count == 0 {
            return Err(KafkaError::Kafka(KafkaCode::UnknownTopicOrPartition));
        }
        let chosen = self.choose(count);
        let messages: Vec<ProduceMessage<'_, '_>> = chosen
            .iter()
            .flat_map(|(partition, indexes)| {
                indexes.iter().map(|index| {
                    let record = &self.records[*index];
                    ProduceMessage::new(
                        &self.topic,
                        *partition,
                        record.key.as_deref(),
                        Some(&record.value),
                    )
                })
            })
            .collect();
        let confirms = client.produce_messages(RequiredAcks::All, self.ack_timeout, messages)?;
        let by_partition: BTreeMap<i32, Result<(), KafkaCode>> = confirms
            .into_iter()
            .flat_map(|confirm| confirm.partition_confirms)
            .map(|confirm| (confirm.partition, confirm.offset.map(drop)))
            .collect();
        let mut health = Health::Sound;
        let mut fared = Vec::new();
        for (partition, indexes) in chosen {
            let outcome = by_partition
                .get(&partition)
                .copied()
                .unwrap_or(Err(KafkaCode::Unknown));
            if outcome.is_err() {
                health = Health::Suspect;
            }
            let was_alone = indexes.len() == 1;
            fared.extend(indexes.into_iter().map(|index| Fared {
                index,
                outcome,
                was_alone,
            }));
        }
        Ok((fared, health))
    }

    fn choose(&self, count: u32) -> BTreeMap<i32, Vec<usize>> {
        let mut chosen: BTreeMap<i32, (Vec<usize>, usize)> = BTreeMap::new();
        let mut total = 0;
        for &(index, alone) in &self.wanted {
            let record = &self.records[index];
            let size = record.bytes();
            let partition = match &record.key {
                Some(key) => partition_of(key, count),
                // Without a key any partition will do; the value spreads them.
                None => partition_of(&record.value, count),
            };
            let full = match chosen.get(&partition) {
                Some((_, held)) => alone || held + size > PARTITION_BYTES,
                None => false,
            };
            if full || (total > 0 && total + size > REQUEST_BYTES) {
                continue;
            }
            total += size;
            let (indexes, held) = chosen.entry(partition).or_default();
            indexes.push(index);
            // Nothing may join a record that travels alone.
            *held += if alone { PARTITION_BYTES } else { size };
        }
        chosen
            .into_iter()
            .map(|(partition, (indexes, _))| (partition, indexes))
            .collect()
    }
}

#[async_trait]
impl TaskPublisher for KafkaLog {
    async fn publish(&self, messages: &[TaskMessage]) -> Vec<Result<(), PublishError>> {
        let records = messages
            .iter()
            .map(|message| Outgoing {
                key: Some(wire::record_key(message.id).into_bytes()),
                value: wire::encode_message_with_trace(message),
            })
            .collect();
        let outcomes = self
            .send(&self.input, &self.options.topics.input, records)
            .await;
        outcomes
            .into_iter()
            .map(|outcome| outcome.map_err(Into::into))
            .collect()
    }

    async fn ping(&self) -> Result<(), PublishError> {
        self.input
            .call(PING_TIMEOUT, |client| {
                // Of all topics, or a broker would create the one that is named.
                client.load_metadata_all()?;
                Ok(((), Health::Sound))
            })
            .await
            .map_err(|fault| PublishError::Unavailable(Box::new(fault)))
    }
}

#[async_trait]
impl Announcer for KafkaLog {
    async fn announce(&self, results: &[TaskResult]) -> Vec<Result<(), AnnounceError>> {
        let records = results
            .iter()
            .map(|result| Outgoing {
                key: Some(wire::record_key(result.id).into_bytes()),
                value: wire::encode_result(result),
            })
            .collect();
        let outcomes = self
            .send(&self.output, &self.options.topics.output, records)
            .await;
        outcomes
            .into_iter()
            .map(|outcome| outcome.map_err(Into::into))
            .collect()
    }

    async fn dead_letter(&self, letters: &[DeadLetter]) -> Vec<Result<(), AnnounceError>> {
        let records = letters
            .iter()
            .map(|letter| {
                let record = wire::encode_dead_letter(letter, &self.options.topics.input);
                Outgoing {
                    key: record.key,
                    value: record.value,
                }
            })
            .collect();
        let outcomes = self
            .send(&self.dead_letter, &self.options.topics.dead_letter, records)
            .await;
        outcomes
            .into_iter()
            .map(|outcome| outcome.map_err(Into::into))
            .collect()
    }

    async fn tell(&self, events: &[TaskEvent]) -> Vec<Result<(), AnnounceError>> {
        let records = events
            .iter()
            .map(|event| Outgoing {
                key: Some(wire::record_key(event.id).into_bytes()),
                value: wire::encode_event(event),
            })
            .collect();
        let outcomes = self
            .send(&self.events, &self.options.topics.events, records)
            .await;
        outcomes
            .into_iter()
            .map(|outcome| outcome.map_err(Into::into))
            .collect()
    }
}
