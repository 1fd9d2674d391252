//! The log on Kafka through kafka-rust: brokers up to 3.9; workers share partitions by number.
//!
//! kafka-rust is blocking, never reconnects, and knows nothing of groups beyond storing offsets. So every use of it goes
//! through a `link`: a thread of its own that makes the client anew after any error, with a watchdog on each call.

mod events;
mod feed;
mod link;
mod log;
mod partitioner;
mod topics;

pub use events::KafkaEventFeed;
pub use feed::{KafkaTaskFeed, Share, WrongShare};
pub use log::KafkaLog;
pub use topics::ensure_topics;

use crate::kafka_options::{KafkaConnectError, KafkaOptions};

/// kafka-rust knows no SASL. Of TLS it makes use in a way that cuts requests: it writes each with one call and never looks how
/// much of it was taken, which of an encrypted connection is 16 KiB.
fn must_be_plain(options: &KafkaOptions) -> Result<(), KafkaConnectError> {
    if options.security.is_none() {
        return Ok(());
    }
    Err(KafkaConnectError::Settings(format!(
        "kafka-rust cannot speak {}; rdkafka can",
        options.security.protocol()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka_options::{KafkaFeedOptions, TopicError, TopicSettings};
    use crate::kafka_security::{KafkaSecurity, KafkaTls};
    use ports::EventFeed as _;

    /// Whoever asks for TLS must not be given a connection without.
    #[tokio::test]
    async fn nothing_goes_out_in_the_clear_where_tls_was_asked_for() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let broker = listener.local_addr().expect("it is bound").to_string();
        let options = KafkaOptions {
            security: KafkaSecurity {
                tls: Some(KafkaTls::default()),
                login: None,
            },
            ..KafkaOptions::new(vec![broker])
        };
        let share = Share::new(0, 1).expect("the only one");
        let feed = KafkaTaskFeed::connect(&options, &KafkaFeedOptions::default(), share);
        let log = KafkaLog::connect(&options);
        for refused in [feed.err(), log.err()] {
            let text = refused.map(|error| error.to_string()).unwrap_or_default();
            assert!(text.contains("cannot speak ssl"), "{text}");
        }
        assert!(KafkaEventFeed::new(&options).open(0).await.is_err());
        let topics = ensure_topics(&options, TopicSettings::default()).await;
        assert!(matches!(topics, Err(TopicError::Refused(_))), "{topics:?}");
        listener.set_nonblocking(true).expect("it can be asked");
        let called = listener.accept().map(|(_, from)| from);
        assert!(called.is_err(), "{called:?}");
    }
}
