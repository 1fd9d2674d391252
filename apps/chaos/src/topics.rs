//! Reading topics whole, writing what strangers write, and taking away what is written.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::clock;
use crate::failure::Failure;

/// What tells the workers of tasks.
pub(crate) const INPUT: &str = "tasks-input";
/// Under which name they read it, unless they are told another.
const GROUP: &str = "task-processor-group";

const PATIENCE: Duration = Duration::from_secs(20);
/// A topic of some hundred thousand records takes seconds.
const LIMIT: Duration = Duration::from_secs(300);

/// The values of every record that is in the topic now; none if there is no such topic.
pub(crate) async fn read_all(port: u16, topic: &'static str) -> Result<Vec<Vec<u8>>, Failure> {
    tokio::task::spawn_blocking(move || read_blocking(port, topic)).await?
}

fn read_blocking(port: u16, topic: &str) -> Result<Vec<Vec<u8>>, Failure> {
    let consumer: BaseConsumer = config(port)
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
            config(port).set("message.timeout.ms", "5000").create()?,
        ))
    }

    /// Where the log put it, if it confirmed it.
    pub(crate) async fn send(&self, topic: &str, key: &str, value: &str) -> Option<Place> {
        let record = FutureRecord::to(topic).key(key).payload(value);
        let delivery = self.0.send(record, PATIENCE).await.ok()?;
        Some(Place {
            partition: delivery.partition,
            offset: delivery.offset,
        })
    }
}

/// Where a record is in its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// What was taken away of a partition before the workers had acknowledged it: the records from one offset to before another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    /// The broker's.
    pub(crate) port: u16,
    pub(crate) at: i64,
    pub(crate) partition: i32,
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// Whether the offsets began anew. Then an acknowledgement of old positions may pass over as many of the new records.
    pub(crate) anew: bool,
}

impl Gone {
    /// Whether a record that was confirmed at this time may have gone unread.
    pub(crate) fn took(&self, port: u16, confirmed_at: i64, place: Place) -> bool {
        let Place { partition, offset } = place;
        let is_here = self.port == port && self.partition == partition;
        is_here
            && if confirmed_at <= self.at {
                offset >= self.from && (self.anew || offset < self.to)
            } else {
                self.anew && offset < self.to
            }
    }
}

/// Whoever takes away what is in the log of one broker. It answers soon, or is taken to be away.
pub(crate) struct Janitor {
    port: u16,
    admin: AdminClient<DefaultClientContext>,
    options: AdminOptions,
    /// Sees what the workers see, and is none of them.
    reader: Arc<BaseConsumer>,
}

impl Janitor {
    const PATIENCE: Duration = Duration::from_secs(5);

    pub(crate) fn at(port: u16) -> Result<Self, Failure> {
        Ok(Self {
            port,
            admin: config(port).create()?,
            options: AdminOptions::new().request_timeout(Some(Self::PATIENCE)),
            reader: Arc::new(config(port).set("group.id", GROUP).create()?),
        })
    }

    /// What of `tasks-input` would be gone unread if all of it went now.
    pub(crate) async fn unread(&self, anew: bool) -> Result<Vec<Gone>, Failure> {
        let (port, reader) = (self.port, Arc::clone(&self.reader));
        tokio::task::spawn_blocking(move || {
            let metadata = reader.fetch_metadata(Some(INPUT), Self::PATIENCE)?;
            let topic = metadata.topics().first().ok_or("there is no tasks-input")?;
            let mut all = TopicPartitionList::new();
            for partition in topic.partitions() {
                all.add_partition(INPUT, partition.id());
            }
            let committed = reader.committed_offsets(all, Self::PATIENCE)?;
            let mut unread = Vec::new();
            for read in committed.elements() {
                let partition = read.partition();
                let (low, high) = reader.fetch_watermarks(INPUT, partition, Self::PATIENCE)?;
                unread.push(Gone {
                    port,
                    at: clock::now(),
                    partition,
                    from: match read.offset() {
                        Offset::Offset(next) => next,
                        _ => low,
                    },
                    to: high,
                    anew,
                });
            }
            Ok(unread)
        })
        .await?
    }

    /// Deletes every record, and notes how far it went.
    pub(crate) async fn wipe(&self, gone: &mut [Gone]) -> Result<(), Failure> {
        let mut all = TopicPartitionList::new();
        for Gone { partition, .. } in &*gone {
            all.add_partition_offset(INPUT, *partition, Offset::End)?;
        }
        let wiped = self.admin.delete_records(&all, &self.options).await?;
        for gone in gone {
            let left = wiped.find_partition(INPUT, gone.partition);
            if let Some(Offset::Offset(first)) = left.map(|left| left.offset()) {
                gone.to = gone.to.max(first);
            }
        }
        Ok(())
    }

    /// Deletes the topic.
    pub(crate) async fn delete(&self) -> Result<(), Failure> {
        for deleted in self.admin.delete_topics(&[INPUT], &self.options).await? {
            deleted.map_err(|(topic, code)| format!("{topic} was not deleted: {code}"))?;
        }
        Ok(())
    }

    /// Makes the topic, with so many partitions.
    pub(crate) async fn make(&self, partitions: usize) -> Result<(), Failure> {
        let partitions = i32::try_from(partitions)?;
        let topic = NewTopic::new(INPUT, partitions, TopicReplication::Fixed(1));
        for made in self.admin.create_topics([&topic], &self.options).await? {
            match made {
                // A program that starts makes it too.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(format!("{topic} was not made: {code}").into()),
            }
        }
        Ok(())
    }
}

fn config(port: u16) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", format!("127.0.0.1:{port}"));
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_wipe_took_is_told_from_what_was_read_or_came_later() {
        const PORT: u16 = 1;
        let gone = |anew| Gone {
            port: PORT,
            at: 100,
            partition: 2,
            from: 10,
            to: 20,
            anew,
        };
        let took = |anew, confirmed_at, partition, offset| {
            gone(anew).took(PORT, confirmed_at, Place { partition, offset })
        };
        for anew in [false, true] {
            assert!(took(anew, 99, 2, 10));
            assert!(!took(anew, 99, 2, 9), "it was read");
            assert!(!took(anew, 99, 1, 10), "another partition");
            assert_eq!(took(anew, 99, 2, 20), anew, "it stays, unless all goes");
            // The same offset in the new topic.
            assert_eq!(took(anew, 101, 2, 3), anew, "it came later");
            assert!(!took(anew, 101, 2, 20), "behind what was acknowledged");
        }
        assert!(!gone(true).took(
            2,
            99,
            Place {
                partition: 2,
                offset: 10
            }
        ));
    }
}
