//! The log on Kafka through librdkafka: brokers 3.7 and later, 4.x included; workers share partitions as a group.

mod context;
mod events;
mod feed;
mod log;
mod reach;
mod topics;

pub use events::RdkafkaEventFeed;
pub use feed::RdkafkaTaskFeed;
pub use log::RdkafkaLog;
pub(crate) use reach::reach;
pub use topics::ensure_topics;

use std::path::Path;

use rdkafka::ClientConfig;

use crate::kafka_options::KafkaOptions;
use crate::kafka_security::KafkaSecurity;

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
    protect(&mut config, &options.security);
    config
}

fn protect(config: &mut ClientConfig, security: &KafkaSecurity) {
    config.set("security.protocol", security.protocol());
    let mut file = |name: &str, path: &Path| {
        config.set(name, path.to_string_lossy());
    };
    if let Some(tls) = &security.tls {
        if let Some(roots) = &tls.root_certificates {
            file("ssl.ca.location", roots);
        }
        if let Some(identity) = &tls.identity {
            file("ssl.certificate.location", &identity.certificate);
            file("ssl.key.location", &identity.key);
        }
    }
    if let Some(login) = &security.login {
        config
            .set("sasl.mechanism", login.mechanism.as_str())
            .set("sasl.username", &login.username)
            .set("sasl.password", &login.password);
    }
}
