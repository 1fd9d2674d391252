//! Reading topics whole, and writing what strangers write.

use std::time::{Duration, Instant};

use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::failure::Failure;

const PATIENCE: Duration = Duration::from_secs(20);
/// A topic of some hundred thousand records takes seconds.
const LIMIT: Duration = Duration::from_secs(300);

/// The values of every record that is in the topic now; none if there is no such topic.
pub(crate) async fn read_all(port: u16, topic: &'static str) -> Result<Vec<Vec<u8>>, Failure> {
    tokio::task::spawn_blocking(move || read_blocking(port, topic)).await?
}

fn read_blocking(port: u16, topic: &str) -> Result<Vec<Vec<u8>>, Failure> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", format!("127.0.0.1:{port}"))
        .set("group.id", "chaos-reads-everything")
        .set("enable.auto.commit", "false")
        .create()?;
    let metadata = consumer.fetch_metadata(None, PATIENCE)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Ok(Vec::new());
    };
    let mut wanted = TopicPartitionList::new();
    let mut left = 0;
    for partition in found.partitions() {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), PATIENCE)?;
        left += high - low;
        wanted.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    consumer.assign(&wanted)?;
    let mut values = Vec::with_capacity(usize::try_from(left).unwrap_or(0));
    let deadline = Instant::now() + LIMIT;
    while left > 0 {
        if Instant::now() > deadline {
            return Err(format!("{left} records of {topic} did not come").into());
        }
        if let Some(record) = consumer.poll(Duration::from_millis(500)) {
            values.push(record?.payload().unwrap_or_default().to_vec());
            left -= 1;
        }
    }
    Ok(values)
}

/// Another program that writes to a topic.
pub(crate) struct Stranger(FutureProducer<DefaultClientContext>);

impl Stranger {
    pub(crate) fn at(port: u16) -> Result<Self, Failure> {
        Ok(Self(
            ClientConfig::new()
                .set("bootstrap.servers", format!("127.0.0.1:{port}"))
                .set("message.timeout.ms", "5000")
                .create()?,
        ))
    }

    /// Says whether the log confirmed it.
    pub(crate) async fn send(&self, topic: &str, key: &str, value: &str) -> bool {
        let record = FutureRecord::to(topic).key(key).payload(value);
        self.0.send(record, PATIENCE).await.is_ok()
    }
}
