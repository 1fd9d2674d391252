//! A corner of a Kafka cluster for one test: topics and a group of its own, and a plain client to look and meddle with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use ports::conformance::{events, log};
use ports::{
    Announcer, Delivery, EventFeed, FeedError, Payload, Position, Priority, RecordContent,
    Standing, TaskFeed, TaskId, TaskMessage, TaskPublisher, Timestamp,
};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use task_processor_adapters::kafka::{KafkaEventFeed, KafkaLog, KafkaTaskFeed, Share};
use task_processor_adapters::kafka_options::{
    KafkaFeedOptions, KafkaOptions, TopicError, TopicNames, TopicSettings, TopicState, brokers_of,
};
use task_processor_adapters::kafka_probe::KafkaClient;
use task_processor_adapters::rdkafka::{RdkafkaEventFeed, RdkafkaLog, RdkafkaTaskFeed};
use task_processor_adapters::{kafka, rdkafka as by_rdkafka, wire};
use tokio::time::Instant;
use uuid::Uuid;

use crate::proxy::Proxy;

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Rdkafka,
    KafkaRust,
}

impl Client {
    pub(crate) fn kind(self) -> KafkaClient {
        match self {
            Self::Rdkafka => KafkaClient::Rdkafka,
            Self::KafkaRust => KafkaClient::KafkaRust,
        }
    }
}

/// A proxy in front of a broker that gives its clients the address `server`: in its answers that address becomes the
/// proxy's, or clients would go past it.
pub(crate) async fn proxy_of(server: &str) -> Proxy {
    let (host, port) = server.rsplit_once(':').expect("host:port");
    let port: i32 = port.parse().expect("a port");
    let host = host.to_owned();
    // In every answer that names a broker, its port follows its host.
    let place = move |port: i32| [host.as_bytes(), &port.to_be_bytes()[..]].concat();
    Proxy::start(server, move |own_port| {
        let (theirs, ours) = (place(port), place(i32::from(own_port)));
        let mut waiting = Vec::new();
        Box::new(move |bytes| {
            waiting.extend(bytes);
            let mut whole = Vec::new();
            // An answer is passed on when all of it is there.
            while let Some(length) = waiting.first_chunk::<4>() {
                let length = 4 + usize::try_from(u32::from_be_bytes(*length)).expect("it fits");
                if waiting.len() < length {
                    break;
                }
                let rest = waiting.split_off(length);
                replace(&mut waiting, &theirs, &ours);
                whole.append(&mut waiting);
                waiting = rest;
            }
            whole
        })
    })
    .await
}

fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    let mut at = 0;
    while at + old.len() <= bytes.len() {
        if bytes[at..].starts_with(old) {
            bytes[at..at + old.len()].copy_from_slice(new);
        }
        at += 1;
    }
}

/// Both ends that write.
pub(crate) trait Log: TaskPublisher + Announcer {}
impl<T: TaskPublisher + Announcer> Log for T {}

pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) options: KafkaOptions,
    pub(crate) group: String,
    log: Arc<dyn Log>,
    /// Whether the topics go with it.
    owner: bool,
}

/// A record as any client sees it.
pub(crate) struct Record {
    pub(crate) partition: i32,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
}

pub(crate) fn message() -> TaskMessage {
    TaskMessage {
        id: TaskId(Uuid::now_v7()),
        payload: Payload::new("Hello world!").expect("no NUL"),
        priority: Priority::default(),
        trace: None,
    }
}

pub(crate) fn messages(count: usize) -> Vec<TaskMessage> {
    std::iter::repeat_with(message).take(count).collect()
}

pub(crate) fn task_ids(deliveries: &[Delivery]) -> Vec<TaskId> {
    deliveries
        .iter()
        .filter_map(|delivery| match delivery.content {
            RecordContent::Task(id) => Some(id),
            RecordContent::Unreadable { .. } => None,
        })
        .collect()
}

/// Enough partitions for every group of the tests, and more than a batch has of its own accord.
pub(crate) const TWELVE: TopicSettings = TopicSettings {
    partitions: 12,
    replication: None,
};

impl Cluster {
    /// Kafka 3.9, with topics of 12 partitions.
    pub(crate) async fn three(client: Client) -> Self {
        Self::fresh(client, "TEST_KAFKA_3_BROKERS").await
    }

    /// Kafka 4, with topics of 12 partitions.
    pub(crate) async fn four(client: Client) -> Self {
        Self::fresh(client, "TEST_KAFKA_4_BROKERS").await
    }

    async fn fresh(client: Client, variable: &str) -> Self {
        let brokers = std::env::var(variable).unwrap_or_else(|_| {
            panic!("{variable} names the Kafka for tests: run cargo xtask test")
        });
        let cluster = Self::new(client, KafkaOptions::new(brokers_of(&brokers)), "");
        let cluster = cluster.with_fresh_topics();
        cluster
            .ensure(TWELVE)
            .await
            .expect("the topics are created");
        cluster
    }

    fn new(client: Client, options: KafkaOptions, group: &str) -> Self {
        let log = log_of(client, &options);
        Self {
            client,
            options,
            group: group.into(),
            log,
            owner: false,
        }
    }

    /// The same brokers with topics and a group that nobody has used.
    pub(crate) fn with_fresh_topics(&self) -> Self {
        let name = Uuid::now_v7().simple();
        let options = KafkaOptions {
            topics: TopicNames {
                input: format!("test-{name}-input"),
                output: format!("test-{name}-output"),
                dead_letter: format!("test-{name}-dead-letter"),
                events: format!("test-{name}-events"),
            },
            ..self.options.clone()
        };
        let mut fresh = Self::new(self.client, options, &format!("test-{name}"));
        fresh.owner = true;
        fresh
    }

    /// The same topics and group by another way.
    pub(crate) fn through(&self, address: &str) -> Self {
        let options = KafkaOptions {
            brokers: vec![address.to_owned()],
            delivery_timeout: Duration::from_secs(3),
            ..self.options.clone()
        };
        Self::new(self.client, options, &self.group)
    }

    pub(crate) async fn ensure(
        &self,
        settings: TopicSettings,
    ) -> Result<Vec<TopicState>, TopicError> {
        match self.client {
            Client::Rdkafka => by_rdkafka::ensure_topics(&self.options, settings).await,
            Client::KafkaRust => kafka::ensure_topics(&self.options, settings).await,
        }
    }

    pub(crate) fn log(&self) -> Arc<dyn Log> {
        self.log.clone()
    }

    pub(crate) fn log_of(&self, client: Client) -> Arc<dyn Log> {
        log_of(client, &self.options)
    }

    pub(crate) fn feed_options(&self) -> KafkaFeedOptions {
        KafkaFeedOptions {
            group_id: self.group.clone(),
            ..KafkaFeedOptions::default()
        }
    }

    pub(crate) fn feed_of(&self, client: Client) -> Box<dyn TaskFeed> {
        match client {
            Client::Rdkafka => Box::new(
                RdkafkaTaskFeed::connect(&self.options, &self.feed_options())
                    .expect("the settings are sound"),
            ),
            Client::KafkaRust => self.share(Share::WHOLE),
        }
    }

    pub(crate) fn feed_with(&self, options: &KafkaFeedOptions) -> Box<dyn TaskFeed> {
        match self.client {
            Client::Rdkafka => Box::new(
                RdkafkaTaskFeed::connect(&self.options, options).expect("the settings are sound"),
            ),
            Client::KafkaRust => Box::new(
                KafkaTaskFeed::connect(&self.options, options, Share::WHOLE)
                    .expect("the settings are sound"),
            ),
        }
    }

    pub(crate) fn share(&self, share: Share) -> Box<dyn TaskFeed> {
        Box::new(
            KafkaTaskFeed::connect(&self.options, &self.feed_options(), share)
                .expect("the settings are sound"),
        )
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.options.brokers.join(","));
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().expect("an admin client")
    }

    /// Another producer's messages, all on one partition, in one batch of the given compression.
    pub(crate) async fn produce(&self, codec: &str, partition: i32, messages: &[TaskMessage]) {
        let producer: FutureProducer = self
            .config()
            .set("compression.type", codec)
            .set("linger.ms", "200")
            .create()
            .expect("a producer");
        let sending: Vec<_> = messages
            .iter()
            .map(|message| {
                let key = wire::record_key(message.id);
                let value = wire::encode_message(message);
                producer
                    .send_result(
                        FutureRecord::to(&self.options.topics.input)
                            .partition(partition)
                            .key(&key)
                            .payload(&value),
                    )
                    .map_err(|(error, _)| error)
                    .expect("queued")
            })
            .collect();
        for sent in sending {
            sent.await.expect("not cancelled").expect("confirmed");
        }
    }

    pub(crate) fn producer(&self) -> FutureProducer {
        self.config().create().expect("a producer")
    }

    /// A record as it is.
    pub(crate) async fn put(
        &self,
        producer: &FutureProducer,
        key: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
    ) -> Result<(), KafkaError> {
        let mut record = FutureRecord::<[u8], [u8]>::to(&self.options.topics.input);
        if let Some(key) = &key {
            record = record.key(key);
        }
        if let Some(value) = &value {
            record = record.payload(value);
        }
        producer
            .send(record, PATIENCE)
            .await
            .map(drop)
            .map_err(|(error, _)| error)
    }

    /// Everything on a topic, waiting until there are `at_least` records.
    pub(crate) async fn records(&self, topic: &str, at_least: usize) -> Vec<Record> {
        let consumer: BaseConsumer = self
            .config()
            .set("group.id", "nobody")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .expect("a consumer");
        let topic = topic.to_owned();
        let reading = tokio::task::spawn_blocking(move || {
            let mut all = TopicPartitionList::new();
            for partition in 0..12 {
                all.add_partition_offset(&topic, partition, Offset::Beginning)
                    .expect("a partition");
            }
            consumer.assign(&all).expect("assigned");
            let mut records = Vec::new();
            let mut ended = std::collections::BTreeSet::new();
            let started = Instant::now();
            while records.len() < at_least || ended.len() < 12 {
                assert!(started.elapsed() < PATIENCE, "{} records", records.len());
                match consumer.poll(Duration::from_millis(100)) {
                    Some(Ok(message)) => {
                        ended.remove(&message.partition());
                        records.push(Record {
                            partition: message.partition(),
                            key: message.key().map(<[u8]>::to_vec),
                            value: message.payload().map(<[u8]>::to_vec),
                        });
                    }
                    Some(Err(KafkaError::PartitionEOF(partition))) => {
                        ended.insert(partition);
                    }
                    Some(Err(_)) | None => {}
                }
            }
            records
        });
        reading.await.expect("it does not panic")
    }

    /// Lets the input topic refuse batches over this many bytes.
    pub(crate) async fn limit_batches(&self, bytes: u32) {
        let bytes = bytes.to_string();
        let change = AlterConfig::new(ResourceSpecifier::Topic(&self.options.topics.input))
            .set("max.message.bytes", &bytes);
        let outcomes = self
            .admin()
            .alter_configs([&change], &AdminOptions::new())
            .await
            .expect("altered");
        for outcome in outcomes {
            outcome.expect("altered");
        }
        // The broker takes a moment to follow.
        let producer = self.producer();
        let too_large = vec![b'x'; 60_000];
        let started = Instant::now();
        while self
            .put(&producer, None, Some(too_large.clone()))
            .await
            .is_ok()
        {
            assert!(started.elapsed() < PATIENCE, "the limit never holds");
        }
    }

    /// Deletes every record of the input topic.
    pub(crate) async fn delete_records(&self) {
        let mut all = TopicPartitionList::new();
        for partition in 0..12 {
            all.add_partition_offset(&self.options.topics.input, partition, Offset::End)
                .expect("a partition");
        }
        self.admin()
            .delete_records(&all, &AdminOptions::new())
            .await
            .expect("deleted");
    }

    /// Deletes the input topic and makes it again: its offsets begin anew.
    pub(crate) async fn remake_input(&self) {
        let deleted = self
            .admin()
            .delete_topics(&[&self.options.topics.input], &AdminOptions::new())
            .await
            .expect("asked");
        for topic in deleted {
            topic.expect("deleted");
        }
        // A broker goes on refusing the name for a moment.
        let started = Instant::now();
        loop {
            let made = self.ensure(TWELVE).await.ok();
            let input = made.and_then(|states| {
                let mut states = states.into_iter();
                states.find(|state| state.name == self.options.topics.input)
            });
            if input.is_some_and(|state| state.created) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "it does not come again");
        }
    }

    /// A member of the group that does not know our way of sharing; there when this returns.
    pub(crate) fn foreign_member(&self) -> Foreign {
        let consumer: BaseConsumer = self
            .config()
            .set("group.id", &self.group)
            .set("partition.assignment.strategy", "roundrobin")
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer");
        consumer
            .subscribe(&[&self.options.topics.output])
            .expect("subscribed");
        let started = Instant::now();
        while consumer
            .assignment()
            .is_ok_and(|assigned| assigned.count() == 0)
        {
            assert!(started.elapsed() < PATIENCE, "never assigned");
            consumer.poll(Duration::from_millis(50));
        }
        let leaving = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&leaving);
        let polling = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                consumer.poll(Duration::from_millis(50));
            }
        });
        Foreign {
            leaving,
            polling: Some(polling),
        }
    }
}

fn log_of(client: Client, options: &KafkaOptions) -> Arc<dyn Log> {
    match client {
        Client::Rdkafka => Arc::new(RdkafkaLog::connect(options).expect("the settings are sound")),
        Client::KafkaRust => Arc::new(KafkaLog::connect(options).expect("the settings are sound")),
    }
}

/// A member of the group that is not ours.
pub(crate) struct Foreign {
    leaving: Arc<AtomicBool>,
    polling: Option<JoinHandle<()>>,
}

impl Foreign {
    pub(crate) fn leave(self) {
        drop(self);
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.leaving.store(true, Ordering::Relaxed);
        if let Some(polling) = self.polling.take() {
            polling.join().expect("it does not panic");
        }
    }
}

/// kafka-rust reads no record times. Where an id tells none either, the time of receipt stands in, which differs from one
/// receipt to the next; the suite compares deliveries whole.
struct Timeless(Box<dyn TaskFeed>);

#[async_trait]
impl TaskFeed for Timeless {
    async fn receive(&self, limit: usize) -> Result<Vec<Delivery>, FeedError> {
        let mut deliveries = self.0.receive(limit).await?;
        for delivery in &mut deliveries {
            assert!(delivery.recorded_at.as_micros() > 0);
            delivery.recorded_at = Timestamp::from_micros(1);
        }
        Ok(deliveries)
    }

    async fn acknowledge(&self, upto: &[Position]) -> Result<(), FeedError> {
        self.0.acknowledge(upto).await
    }

    fn standing(&self) -> Standing {
        self.0.standing()
    }
}

#[async_trait]
impl log::Subject for Cluster {
    fn publisher(&self) -> Arc<dyn TaskPublisher> {
        self.log.clone()
    }

    fn announcer(&self) -> Arc<dyn Announcer> {
        self.log.clone()
    }

    async fn feed(&self) -> Box<dyn TaskFeed> {
        let feed = self.feed_of(self.client);
        match self.client {
            Client::Rdkafka => feed,
            Client::KafkaRust => Box::new(Timeless(feed)),
        }
    }

    async fn put_raw(&self, key: Option<Vec<u8>>, value: Option<Vec<u8>>) {
        self.put(&self.producer(), key, value)
            .await
            .expect("confirmed");
    }

    async fn outputs(&self, at_least: usize) -> Vec<log::OutputRecord> {
        self.records(&self.options.topics.output, at_least)
            .await
            .into_iter()
            .map(|record| log::OutputRecord {
                key: record.key,
                result: wire::decode_result(&record.value.expect("a value")).expect("a result"),
            })
            .collect()
    }

    async fn dead_letters(&self, at_least: usize) -> Vec<log::DeadLetterRecord> {
        self.records(&self.options.topics.dead_letter, at_least)
            .await
            .into_iter()
            .map(|record| {
                let letter = wire::decode_dead_letter(&record.value.expect("a value"))
                    .expect("a dead letter");
                log::DeadLetterRecord {
                    key: record.key,
                    reason: letter.reason,
                    value: letter.value,
                    task: letter.task_id,
                    attempts: letter.attempts,
                    error: letter.error,
                }
            })
            .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.owner {
            return;
        }
        let admin = self.admin();
        let topics = self.options.topics.clone();
        // Dropped within a runtime, which must not be blocked on. Topics that stay behind are in nobody's way.
        let deleting = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime");
            let deleted =
                runtime.block_on(admin.delete_topics(&topics.all(), &AdminOptions::new()));
            drop(deleted);
        });
        drop(deleting.join());
    }
}

#[async_trait]
impl events::Subject for Cluster {
    fn announcer(&self) -> Arc<dyn Announcer> {
        self.log.clone()
    }

    fn feed(&self) -> Arc<dyn EventFeed> {
        match self.client {
            Client::Rdkafka => Arc::new(RdkafkaEventFeed::new(&self.options)),
            Client::KafkaRust => Arc::new(KafkaEventFeed::new(&self.options)),
        }
    }
}
