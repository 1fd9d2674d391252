//! The log.

use super::Reader;

/// Which Kafka client to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaClient {
    /// rdkafka.
    Auto,
    /// kafka-rust: pure Rust, brokers up to 3.9.
    KafkaRust,
    /// rdkafka: brokers 3.7 and later.
    Rdkafka,
}

/// Which partitions a kafka-rust worker reads: those whose number leaves `index` when divided by `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticShare {
    /// From 0 to `count - 1`.
    pub index: u32,
    /// How many workers share the partitions.
    pub count: u32,
}

/// How to reach Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSettings {
    /// Addresses to ask first, `host:port`.
    pub brokers: Vec<String>,
    /// Which client.
    pub client: KafkaClient,
    /// How many partitions a topic gets that has to be created.
    pub partitions: i32,
    /// The consumer group of the workers.
    pub group: String,
    /// The share of a kafka-rust worker.
    pub share: StaticShare,
}

impl KafkaSettings {
    /// Of a program that only publishes.
    pub(super) fn read_publisher(reader: &mut Reader) -> Self {
        reader.section("Kafka");
        let brokers = read_brokers(reader);
        let client = reader.choice(
            "KAFKA_CLIENT",
            KafkaClient::Auto,
            &[
                ("auto", KafkaClient::Auto),
                ("kafka-rust", KafkaClient::KafkaRust),
                ("rdkafka", KafkaClient::Rdkafka),
            ],
            "which client library; auto is rdkafka, kafka-rust needs brokers before 4.0",
        );
        let partitions = reader.number(
            "KAFKA_PARTITIONS",
            4,
            1..=10_000,
            "partitions",
            "how many a topic gets that does not exist yet; workers beyond as many take what waits by age",
        );
        Self {
            brokers,
            client,
            partitions,
            group: DEFAULT_GROUP.to_owned(),
            share: StaticShare { index: 0, count: 1 },
        }
    }

    /// Of a worker.
    pub(super) fn read(reader: &mut Reader) -> Self {
        let mut settings = Self::read_publisher(reader);
        settings.group = reader.text(
            "KAFKA_GROUP_ID",
            DEFAULT_GROUP,
            "name",
            "the consumer group whose members share the work and whose offsets carry over",
            |text| {
                if text.trim().is_empty() {
                    Err("must not be blank".to_owned())
                } else {
                    Ok(())
                }
            },
        );
        let index = reader.optional_number(
            "WORKER_INDEX",
            0..=9_999,
            "number",
            "with kafka-rust: which of the WORKER_COUNT workers this one is, counted from 0; 0 if left out",
        );
        let count = reader.optional_number(
            "WORKER_COUNT",
            1..=10_000,
            "workers",
            "with kafka-rust: how many workers share the partitions; 1 if left out",
        );
        let shared = index.is_some() || count.is_some();
        if shared && settings.client != KafkaClient::KafkaRust {
            reader.mistake(
                "WORKER_INDEX and WORKER_COUNT",
                "are for KAFKA_CLIENT=kafka-rust; with rdkafka the group shares the partitions out",
            );
        }
        let share = StaticShare {
            index: index.unwrap_or(0),
            count: count.unwrap_or(1),
        };
        if share.index >= share.count {
            reader.mistake(
                "WORKER_INDEX",
                format!(
                    "must be less than WORKER_COUNT ({}), but is {}",
                    share.count, share.index
                ),
            );
        }
        settings.share = share;
        settings
    }
}

const DEFAULT_GROUP: &str = "task-processor-group";

fn read_brokers(reader: &mut Reader) -> Vec<String> {
    let list = reader.text(
        "KAFKA_BROKERS",
        "localhost:9092",
        "host:port, separated by commas",
        "the brokers to ask first",
        |text| match brokers(text).find(|broker| !is_address(broker)) {
            None if brokers(text).next().is_some() => Ok(()),
            None => Err("must name at least one host:port".to_owned()),
            Some(wrong) => Err(format!(
                "must be host:port, separated by commas (of which {} is none)",
                super::shown(wrong)
            )),
        },
    );
    brokers(&list).map(ToOwned::to_owned).collect()
}

fn brokers(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|broker| !broker.is_empty())
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let plain = !host.is_empty() && !host.contains(['/', ' ', '@']);
        plain && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}
