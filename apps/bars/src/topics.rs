//! Topics: emptied between scenarios, and read to see what was announced.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::failure::Failure;

const PATIENCE: Duration = Duration::from_secs(20);
/// A topic of ten million records takes a minute.
const READ_LIMIT: Duration = Duration::from_secs(600);
const OUTPUT: &str = "tasks-output";
const ALL: [&str; 3] = ["tasks-input", OUTPUT, "tasks-dead-letter"];

fn client(port: u16) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", format!("127.0.0.1:{port}"))
        .set("group.id", "bars")
        .set("enable.auto.commit", "false")
        .set("log_level", "0");
    config
}

pub(crate) async fn answers(port: u16) -> Result<(), Failure> {
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = client(port).create()?;
        consumer.fetch_metadata(None, Duration::from_secs(2))?;
        Ok(())
    })
    .await?
}

/// Deletes every topic of the programs, and waits until they are gone.
pub(crate) async fn forget(port: u16) -> Result<(), Failure> {
    let admin: AdminClient<DefaultClientContext> = client(port).create()?;
    let there = existing(port).await?;
    let there: Vec<&str> = there.iter().map(String::as_str).collect();
    if there.is_empty() {
        return Ok(());
    }
    for outcome in admin.delete_topics(&there, &AdminOptions::new()).await? {
        outcome.map_err(|(topic, error)| format!("cannot delete {topic}: {error}"))?;
    }
    let deadline = Instant::now() + PATIENCE;
    while !existing(port).await?.is_empty() {
        if Instant::now() > deadline {
            return Err("topics that were deleted are still there".into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn existing(port: u16) -> Result<Vec<String>, Failure> {
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = client(port).create()?;
        let metadata = consumer.fetch_metadata(None, PATIENCE)?;
        let names = metadata
            .topics()
            .iter()
            .map(rdkafka::metadata::MetadataTopic::name);
        Ok(names
            .filter(|name| ALL.contains(name))
            .map(ToOwned::to_owned)
            .collect())
    })
    .await?
}

/// Where each partition of `tasks-output` ends.
pub(crate) type Ends = Vec<(i32, i64)>;

pub(crate) async fn ends(port: u16) -> Result<Ends, Failure> {
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = client(port).create()?;
        ends_of(&consumer)
    })
    .await?
}

fn ends_of(consumer: &BaseConsumer) -> Result<Ends, Failure> {
    let metadata = consumer.fetch_metadata(Some(OUTPUT), PATIENCE)?;
    let mut ends = Vec::new();
    for partition in metadata
        .topics()
        .iter()
        .flat_map(rdkafka::metadata::MetadataTopic::partitions)
    {
        let (_, end) = consumer.fetch_watermarks(OUTPUT, partition.id(), PATIENCE)?;
        ends.push((partition.id(), end));
    }
    Ok(ends)
}

/// What was announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Announced {
    /// Different tasks.
    pub(crate) tasks: u64,
    /// Records.
    pub(crate) records: u64,
    /// Tasks with two records that do not say the same.
    pub(crate) doubled: u64,
}

/// Reads what came after these ends.
pub(crate) async fn announced_since(port: u16, since: Ends) -> Result<Announced, Failure> {
    tokio::task::spawn_blocking(move || read(port, &since)).await?
}

fn read(port: u16, since: &Ends) -> Result<Announced, Failure> {
    let consumer: BaseConsumer = client(port).create()?;
    let mut wanted = TopicPartitionList::new();
    let mut left = 0;
    for (partition, end) in ends_of(&consumer)? {
        let begin = since
            .iter()
            .find(|(number, _)| *number == partition)
            .map_or(0, |(_, begin)| *begin);
        if end > begin {
            left += end - begin;
            wanted.add_partition_offset(OUTPUT, partition, Offset::Offset(begin))?;
        }
    }
    let mut announced = Announced::default();
    if left == 0 {
        return Ok(announced);
    }
    consumer.assign(&wanted)?;
    // What a record says, by its key, as numbers: ten million of them fit.
    let mut seen: HashMap<u64, u64> = HashMap::with_capacity(usize::try_from(left)?);
    let deadline = Instant::now() + READ_LIMIT;
    while left > 0 {
        if Instant::now() > deadline {
            return Err(format!("{left} records of {OUTPUT} did not come").into());
        }
        let Some(record) = consumer.poll(Duration::from_millis(500)) else {
            continue;
        };
        let record = record?;
        left -= 1;
        announced.records += 1;
        let says = hash(record.payload());
        match seen.insert(hash(record.key()), says) {
            None => announced.tasks += 1,
            Some(before) if before != says => announced.doubled += 1,
            Some(_) => {}
        }
    }
    Ok(announced)
}

fn hash(bytes: Option<&[u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
