//! What both Kafka clients are told.

use std::time::Duration;

use crate::kafka_security::KafkaSecurity;

/// How to reach Kafka and what the topics are called.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// Bootstrap brokers, `host:port` each.
    pub brokers: Vec<String>,
    /// The topics.
    pub topics: TopicNames,
    /// TLS and a name to go in by; rdkafka alone knows any. Default: none.
    pub security: KafkaSecurity,
    /// How this process calls itself in the broker's logs. Default `task-processor`.
    pub client_id: String,
    /// How long a record may take until it is confirmed. Default 5 s.
    pub delivery_timeout: Duration,
}

impl KafkaOptions {
    /// The defaults, for these brokers.
    #[must_use]
    pub fn new(brokers: Vec<String>) -> Self {
        Self {
            brokers,
            topics: TopicNames::default(),
            security: KafkaSecurity::default(),
            client_id: "task-processor".into(),
            delivery_timeout: Duration::from_secs(5),
        }
    }
}

/// The names of the topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicNames {
    /// Where task messages go. Default `tasks-input`.
    pub input: String,
    /// Where results go. Default `tasks-output`.
    pub output: String,
    /// Where unreadable records and failed tasks go. Default `tasks-dead-letter`.
    pub dead_letter: String,
    /// Where changes of state go: one partition, so that the order is one. Default `tasks-events`.
    pub events: String,
}

impl Default for TopicNames {
    fn default() -> Self {
        Self {
            input: "tasks-input".into(),
            output: "tasks-output".into(),
            dead_letter: "tasks-dead-letter".into(),
            events: "tasks-events".into(),
        }
    }
}

impl TopicNames {
    /// The names: input, output, dead letter, events.
    #[must_use]
    pub fn all(&self) -> [&str; 4] {
        [&self.input, &self.output, &self.dead_letter, &self.events]
    }

    /// How many partitions a topic gets when it is created.
    pub(crate) fn partitions_of(&self, name: &str, settings: TopicSettings) -> i32 {
        if name == self.events {
            1
        } else {
            settings.partitions.max(1)
        }
    }
}

/// What a worker's feed is told.
#[derive(Clone, Debug)]
pub struct KafkaFeedOptions {
    /// The consumer group, under whose name offsets are committed. Default `task-processor-group`.
    pub group_id: String,
    /// How many received records wait in memory before the partitions are paused; at least 1. Default 10,000.
    pub buffer: usize,
    /// How long an acknowledgement may take. Default 5 s.
    pub commit_timeout: Duration,
    /// How rdkafka's members agree on who reads what; kafka-rust knows no groups. Default [`GroupProtocol::Classic`].
    pub group_protocol: GroupProtocol,
}

/// How the members of a consumer group agree on who reads what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupProtocol {
    /// The members agree among themselves (cooperative-sticky); every broker knows it.
    #[default]
    Classic,
    /// The broker decides (KIP-848); Kafka 4.0 and later.
    Consumer,
}

impl Default for KafkaFeedOptions {
    fn default() -> Self {
        Self {
            group_id: "task-processor-group".into(),
            buffer: 10_000,
            commit_timeout: Duration::from_secs(5),
            group_protocol: GroupProtocol::Classic,
        }
    }
}

/// How topics that are missing are created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// Partitions, at least 1; that of the events has one whatever this says. Default 4: a batch is a request for each of its
    /// partitions, and a request costs the brokers far more than a record in it. Topics that exist keep theirs.
    pub partitions: i32,
    /// Replicas of each partition; `None` (the default) is what the broker is configured for.
    pub replication: Option<i16>,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            partitions: 4,
            replication: None,
        }
    }
}

/// A topic as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicState {
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: i32,
    /// Whether it was missing and was created now.
    pub created: bool,
}

/// Why a client was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KafkaConnectError {
    /// The settings are such that no broker could be reached; the text says which.
    #[error("the Kafka settings are wrong: {0}")]
    Settings(String),
    /// The system gave no thread.
    #[error("no thread could be started")]
    Thread(#[source] std::io::Error),
}

/// Why topics were not created or looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// No broker answers; ask again after a pause.
    #[error("Kafka is unavailable")]
    Unavailable(#[source] ports::Cause),
    /// The cluster refuses; the text says what and why.
    #[error("Kafka refuses: {0}")]
    Refused(String),
}

/// The brokers of a comma-separated list, without blanks and empty entries; the port is 9092 where none is given.
#[must_use]
pub fn brokers_of(list: &str) -> Vec<String> {
    list.split(',')
        .map(str::trim)
        .filter(|broker| !broker.is_empty())
        .map(|broker| {
            let has_port = broker.rsplit_once(':').is_some_and(|(host, port)| {
                // A colon inside brackets or one of several belongs to an IPv6 address.
                port.bytes().all(|byte| byte.is_ascii_digit())
                    && (host.ends_with(']') || !host.contains(':'))
            });
            if has_port {
                broker.to_owned()
            } else {
                format!("{broker}:9092")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::brokers_of;

    #[test]
    fn lists_of_brokers_are_taken_apart() {
        fn check(list: &str, expected: &[&str]) {
            assert_eq!(brokers_of(list), expected, "{list}");
        }
        check("localhost:9092", &["localhost:9092"]);
        check(" a:1 ,b, ,", &["a:1", "b:9092"]);
        check("[::1]:9093,[::1]", &["[::1]:9093", "[::1]:9092"]);
        check("", &[]);
    }
}
