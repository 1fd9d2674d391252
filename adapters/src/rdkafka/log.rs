//! Writing: task messages, results and dead letters.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ports::{
    AnnounceError, Announcer, Cause, DeadLetter, PublishError, TaskEvent, TaskMessage,
    TaskPublisher, TaskResult, TraceContext,
};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use tokio::time::Instant;

use super::client_config;
use super::context::Traced;
use crate::kafka_options::{KafkaConnectError, KafkaOptions};
use crate::wire;

/// How long a batch waits for room in librdkafka's queue before it asks again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// How long past the delivery timeout librdkafka may take to report that it was missed.
const REPORT_GRACE: Duration = Duration::from_secs(2);

/// How long a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Somebody waits for the record: this only lets a batch that comes ready-made reach the queue whole.
const PROMPT_LINGER: &str = "0.5";

/// Nobody waits for the record. librdkafka sends a request for each partition, and a request costs the broker far more than
/// a record in it.
const OUTCOME_LINGER: &str = "10";

type Producer = FutureProducer<Traced>;

/// Writes `tasks-input`, `tasks-output`, `tasks-dead-letter` and `tasks-events`.
///
/// A whole batch is queued, then awaited. Confirmed means written by all in-sync replicas; what librdkafka repeats by itself
/// is written once (idempotent producer). The partition follows from the key as in every other client (murmur2).
pub struct RdkafkaLog {
    options: KafkaOptions,
    /// Messages and events: somebody waits for them.
    prompt: Line,
    outcomes: Line,
}

/// A producer and what it is made of.
struct Line {
    config: ClientConfig,
    delivery_timeout: Duration,
    /// `None` only while this is being dropped.
    producer: Mutex<Option<Producer>>,
}

/// A record to be written.
struct Outgoing {
    key: Option<Vec<u8>>,
    value: Vec<u8>,
    trace: Option<TraceContext>,
}

impl Outgoing {
    fn of_result(result: &TaskResult, trace: Option<TraceContext>) -> Self {
        Self {
            key: Some(wire::record_key(result.id).into_bytes()),
            value: wire::encode_result(result),
            trace,
        }
    }
}

fn headers(trace: &TraceContext) -> OwnedHeaders {
    let parent = trace.traceparent();
    let headers = OwnedHeaders::new().insert(Header {
        key: wire::TRACEPARENT,
        value: Some(&parent),
    });
    match trace.tracestate() {
        None => headers,
        state @ Some(_) => headers.insert(Header {
            key: wire::TRACESTATE,
            value: state,
        }),
    }
}

#[derive(Debug, thiserror::Error)]
enum SendFault {
    #[error("the record was not confirmed")]
    Failed(#[source] KafkaError),
    #[error("no word of the record within the delivery timeout")]
    Silent,
}

impl SendFault {
    /// Whether the log would refuse this record whenever it is sent.
    const fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Failed(KafkaError::MessageProduction(
                RDKafkaErrorCode::MessageSizeTooLarge
                    | RDKafkaErrorCode::InvalidMessageSize
                    | RDKafkaErrorCode::InvalidMessage
                    | RDKafkaErrorCode::InvalidRecord
            ))
        )
    }
}

impl From<SendFault> for PublishError {
    fn from(fault: SendFault) -> Self {
        if fault.is_final() {
            Self::Rejected(Box::new(fault))
        } else {
            Self::Unavailable(Box::new(fault))
        }
    }
}

impl From<SendFault> for AnnounceError {
    fn from(fault: SendFault) -> Self {
        if fault.is_final() {
            Self::Rejected(Box::new(fault))
        } else {
            Self::Unavailable(Box::new(fault))
        }
    }
}

impl RdkafkaLog {
    /// Makes the producer. No broker need be up.
    ///
    /// # Errors
    /// [`KafkaConnectError::Settings`] when librdkafka refuses the settings.
    pub fn connect(options: &KafkaOptions) -> Result<Self, KafkaConnectError> {
        Ok(Self {
            options: options.clone(),
            prompt: Line::new(options, PROMPT_LINGER)?,
            outcomes: Line::new(options, OUTCOME_LINGER)?,
        })
    }

    async fn send_results(&self, records: &[Outgoing]) -> Vec<Result<(), AnnounceError>> {
        let outcomes = self
            .outcomes
            .send(&self.options.topics.output, records)
            .await;
        outcomes
            .into_iter()
            .map(|outcome| outcome.map_err(Into::into))
            .collect()
    }
}

impl Line {
    fn new(options: &KafkaOptions, linger: &str) -> Result<Self, KafkaConnectError> {
        let mut config = client_config(options);
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", linger)
            .set(
                "message.timeout.ms",
                options.delivery_timeout.as_millis().max(1).to_string(),
            )
            // What waits for a broker that is down stays within this much memory.
            .set("queue.buffering.max.kbytes", "65536");
        let producer = make(&config)?;
        Ok(Self {
            config,
            delivery_timeout: options.delivery_timeout,
            producer: Mutex::new(Some(producer)),
        })
    }

    /// Queues every record, then waits for each. One outcome per record, in order.
    async fn send(&self, topic: &str, records: &[Outgoing]) -> Vec<Result<(), SendFault>> {
        let Some(producer) = self.lock().clone() else {
            return Vec::new();
        };
        let deadline = Instant::now() + self.delivery_timeout;
        let mut outcomes = send_through(&producer, topic, records, deadline).await;
        if records.len() > 1 {
            // A broker refuses a batch as a whole when it is too large for the topic, small records and all.
            for (record, outcome) in records.iter().zip(&mut outcomes) {
                if outcome.as_ref().is_err_and(SendFault::is_final) {
                    let alone = std::slice::from_ref(record);
                    if let Some(retried) =
                        send_through(&producer, topic, alone, deadline).await.pop()
                    {
                        *outcome = retried;
                    }
                }
            }
        }
        if outcomes.iter().any(Result::is_err) {
            self.replace_if_fatal(&producer);
        }
        outcomes
    }

    /// After a fatal error an idempotent producer refuses everything for ever.
    fn replace_if_fatal(&self, used: &Producer) {
        let Some((code, reason)) = used.client().fatal_error() else {
            return;
        };
        tracing::warn!(
            event = "kafka.producer.replaced",
            %code,
            reason,
            "the Kafka producer broke for good and is made anew"
        );
        let mut current = self.lock();
        // Another batch may have replaced it already.
        if current
            .as_ref()
            .is_none_or(|producer| producer.client().fatal_error().is_none())
        {
            return;
        }
        match make(&self.config) {
            Ok(producer) => {
                let broken = current.replace(producer);
                drop(current);
                retire(broken);
            }
            Err(error) => tracing::error!(
                event = "kafka.producer.not_replaced",
                %error,
                "the Kafka producer could not be made anew"
            ),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Producer>> {
        // The producer is replaced in one assignment: it is whole even after a panic.
        self.producer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make(config: &ClientConfig) -> Result<Producer, KafkaConnectError> {
    config
        .create_with_context(Traced)
        .map_err(|error| KafkaConnectError::Settings(error.to_string()))
}

/// Dropping a producer joins its thread and flushes for up to half a second: nothing for a thread that serves others.
fn retire(producer: Option<Producer>) {
    let spawned = std::thread::Builder::new()
        .name("kafka-retire".into())
        .spawn(move || drop(producer));
    if let Err(error) = spawned {
        tracing::warn!(
            event = "kafka.producer.dropped_in_place",
            %error,
            "no thread could be started to close the Kafka producer"
        );
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let last = self.lock().take();
        retire(last);
    }
}

async fn send_through(
    producer: &Producer,
    topic: &str,
    records: &[Outgoing],
    deadline: Instant,
) -> Vec<Result<(), SendFault>> {
    let mut waiting = Vec::with_capacity(records.len());
    for outgoing in records {
        let queued = loop {
            let mut record = FutureRecord::<[u8], [u8]>::to(topic).payload(&outgoing.value);
            if let Some(key) = &outgoing.key {
                record = record.key(key);
            }
            if let Some(trace) = &outgoing.trace {
                record = record.headers(headers(trace));
            }
            match producer.send_result(record) {
                Ok(delivery) => break Ok(delivery),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _))
                    if Instant::now() < deadline =>
                {
                    tokio::time::sleep(QUEUE_FULL_PAUSE).await;
                }
                Err((error, _)) => break Err(SendFault::Failed(error)),
            }
        };
        waiting.push(queued);
    }
    // librdkafka reports every record within the delivery timeout; the limit here is for the day it does not.
    let limit = deadline + REPORT_GRACE;
    let mut outcomes = Vec::with_capacity(records.len());
    for queued in waiting {
        outcomes.push(match queued {
            Ok(delivery) => match tokio::time::timeout_at(limit, delivery).await {
                Ok(Ok(Ok(_delivery))) => Ok(()),
                Ok(Ok(Err((error, _record)))) => Err(SendFault::Failed(error)),
                Ok(Err(_canceled)) => Err(SendFault::Failed(KafkaError::Canceled)),
                Err(_elapsed) => Err(SendFault::Silent),
            },
            Err(fault) => Err(fault),
        });
    }
    outcomes
}

#[async_trait]
impl TaskPublisher for RdkafkaLog {
    async fn publish(&self, messages: &[TaskMessage]) -> Vec<Result<(), PublishError>> {
        let records: Vec<Outgoing> = messages
            .iter()
            .map(|message| Outgoing {
                key: Some(wire::record_key(message.id).into_bytes()),
                value: wire::encode_message(message),
                trace: message.trace.clone(),
            })
            .collect();
        let outcomes = self.prompt.send(&self.options.topics.input, &records).await;
        outcomes
            .into_iter()
            .map(|outcome| outcome.map_err(Into::into))
            .collect()
    }

    async fn ping(&self) -> Result<(), PublishError> {
        let producer = self.prompt.lock().clone();
        let topic = self.options.topics.input.clone();
        let asking = tokio::task::spawn_blocking(move || {
            let producer = producer.ok_or(KafkaError::Canceled)?;
            let metadata = producer
                .client()
                .fetch_metadata(Some(&topic), PING_TIMEOUT)?;
            // Without the topic nothing can be published, however well the brokers are.
            let code = metadata.topics().iter().find_map(MetadataTopic::error);
            code.map_or(Ok(()), |code| {
                Err(KafkaError::MetadataFetch(RDKafkaErrorCode::from(code)))
            })
        });
        let outcome: Result<(), Cause> = match asking.await {
            Ok(outcome) => outcome.map_err(Into::into),
            Err(stopped) => Err(stopped.into()),
        };
        outcome.map_err(PublishError::Unavailable)
    }
}

#[async_trait]
impl Announcer for RdkafkaLog {
    async fn announce(&self, results: &[TaskResult]) -> Vec<Result<(), AnnounceError>> {
        let records: Vec<Outgoing> = results
            .iter()
            .map(|result| Outgoing::of_result(result, None))
            .collect();
        self.send_results(&records).await
    }

    async fn announce_traced(
        &self,
        results: &[TaskResult],
        traces: &[Option<TraceContext>],
    ) -> Vec<Result<(), AnnounceError>> {
        let records: Vec<Outgoing> = results
            .iter()
            .zip(traces)
            .map(|(result, trace)| Outgoing::of_result(result, trace.clone()))
            .collect();
        self.send_results(&records).await
    }

    async fn dead_letter(&self, letters: &[DeadLetter]) -> Vec<Result<(), AnnounceError>> {
        let records: Vec<Outgoing> = letters
            .iter()
            .map(|letter| {
                let record = wire::encode_dead_letter(letter, &self.options.topics.input);
                Outgoing {
                    key: record.key,
                    value: record.value,
                    trace: None,
                }
            })
            .collect();
        let outcomes = self
            .outcomes
            .send(&self.options.topics.dead_letter, &records)
            .await;
        outcomes
            .into_iter()
            .map(|outcome| outcome.map_err(Into::into))
            .collect()
    }

    async fn tell(&self, events: &[TaskEvent]) -> Vec<Result<(), AnnounceError>> {
        let records: Vec<Outgoing> = events
            .iter()
            .map(|event| Outgoing {
                key: Some(wire::record_key(event.id).into_bytes()),
                value: wire::encode_event(event),
                trace: None,
            })
            .collect();
        let outcomes = self
            .prompt
            .send(&self.options.topics.events, &records)
            .await;
        outcomes
            .into_iter()
            .map(|outcome| outcome.map_err(Into::into))
            .collect()
    }
}
