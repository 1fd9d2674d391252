//! The log on Kafka through librdkafka: brokers 3.7 and later, 4.x included; workers share partitions as a group.

mod context;
mod events;
mod feed;
mod log;
mod topics;

pub use events::RdkafkaEventFeed;
pub use feed::RdkafkaTaskFeed;
pub use log::RdkafkaLog;
pub use topics::ensure_topics;

use rdkafka::ClientConfig;

use crate::kafka_options::KafkaOptions;

/// What every client is told, whatever it is for.
fn client_config(options: &KafkaOptions) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", options.brokers.join(","))
        .set("client.id", &options.client_id)
        // With the default of 10 s, an outage of 3 s lasts 11.
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "1000")
        // A connection cut without a word is given up after this; the default is a minute.
        .set("socket.timeout.ms", "10000")
        .set("socket.keepalive.enable", "true")
        // Topics created later, and partitions added, are noticed within this; the default is five minutes.
        .set("topic.metadata.refresh.interval.ms", "10000")
        // A topic that springs up by itself has the broker's default of one partition.
        .set("allow.auto.create.topics", "false");
    config
}
