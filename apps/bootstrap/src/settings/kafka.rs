//! The log.

use adapters::kafka_security::{KafkaIdentity, KafkaLogin, KafkaSecurity, KafkaTls, SaslMechanism};

use super::Reader;
use super::tls::{check_chain, check_key, read_authorities, read_file};

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
    /// TLS, and the name to go in by.
    pub security: KafkaSecurity,
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
        let security = read_security(reader, client);
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
            security,
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

const PROTOCOL: &str = "KAFKA_SECURITY_PROTOCOL";
const MECHANISM: &str = "KAFKA_SASL_MECHANISM";
const USERNAME: &str = "KAFKA_SASL_USERNAME";
const PASSWORD: &str = "KAFKA_SASL_PASSWORD";
const CA: &str = "KAFKA_SSL_CA_LOCATION";
const CERTIFICATE: &str = "KAFKA_SSL_CERTIFICATE_LOCATION";
const KEY: &str = "KAFKA_SSL_KEY_LOCATION";

/// Kafka's names of what is spoken with a broker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

const PROTOCOLS: [(&str, Protocol); 4] = [
    ("plaintext", Protocol::Plaintext),
    ("ssl", Protocol::Ssl),
    ("sasl_plaintext", Protocol::SaslPlaintext),
    ("sasl_ssl", Protocol::SaslSsl),
];

const MECHANISMS: [(&str, SaslMechanism); 3] = [
    ("PLAIN", SaslMechanism::Plain),
    ("SCRAM-SHA-256", SaslMechanism::ScramSha256),
    ("SCRAM-SHA-512", SaslMechanism::ScramSha512),
];

fn read_security(reader: &mut Reader, client: KafkaClient) -> KafkaSecurity {
    let protocol = reader.choice(
        PROTOCOL,
        Protocol::Plaintext,
        &PROTOCOLS,
        "whether to speak TLS with the brokers (ssl) and to log in (sasl); all but plaintext needs rdkafka",
    );
    let root_certificates = read_authorities(
        reader,
        CA,
        "with TLS: certificates in PEM, one of which must have signed the brokers'; none: those that the system trusts",
    );
    let certificate = read_file(
        reader,
        CERTIFICATE,
        "for brokers that ask for one: our certificate in PEM, followed by those between it and its root",
        check_chain,
    );
    let key = read_file(
        reader,
        KEY,
        "the private key of that certificate, in PEM, without a password",
        check_key,
    );
    let mechanism = reader.choice(
        MECHANISM,
        SaslMechanism::Plain,
        &MECHANISMS,
        "with sasl: how the password is proven",
    );
    let username = reader.text(USERNAME, "", "name", "with sasl: who we are", |_| Ok(()));
    let password = reader.secret(
        PASSWORD,
        "",
        "text, never shown",
        "with sasl: the password of that name",
    );
    let speaks_tls = matches!(protocol, Protocol::Ssl | Protocol::SaslSsl);
    let logs_in = matches!(protocol, Protocol::SaslPlaintext | Protocol::SaslSsl);
    if protocol != Protocol::Plaintext && client == KafkaClient::KafkaRust {
        reader.mistake(
            PROTOCOL,
            "must be plaintext with KAFKA_CLIENT=kafka-rust, which speaks neither TLS nor SASL; use KAFKA_CLIENT=rdkafka",
        );
    }
    for (name, wanted, how) in [
        (CA, speaks_tls, "ssl or sasl_ssl"),
        (CERTIFICATE, speaks_tls, "ssl or sasl_ssl"),
        (KEY, speaks_tls, "ssl or sasl_ssl"),
        (USERNAME, logs_in, "sasl_ssl or sasl_plaintext"),
        (PASSWORD, logs_in, "sasl_ssl or sasl_plaintext"),
    ] {
        if reader.is_set(name) && !wanted {
            reader.mistake(name, format!("is for {PROTOCOL}={how}"));
        }
    }
    for name in [USERNAME, PASSWORD] {
        if logs_in && !reader.is_set(name) {
            reader.mistake(name, format!("must be set with sasl in {PROTOCOL}"));
        }
    }
    for (name, other) in [(CERTIFICATE, KEY), (KEY, CERTIFICATE)] {
        if speaks_tls && reader.is_set(other) && !reader.is_set(name) {
            reader.mistake(name, format!("must be set when {other} is"));
        }
    }
    KafkaSecurity {
        tls: speaks_tls.then(|| KafkaTls {
            root_certificates,
            identity: certificate
                .zip(key)
                .map(|(certificate, key)| KafkaIdentity { certificate, key }),
        }),
        login: logs_in.then_some(KafkaLogin {
            mechanism,
            username,
            password,
        }),
    }
}

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
