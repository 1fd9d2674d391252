//! Which client may talk to a broker, found out before a client is built.
//!
//! kafka-rust speaks versions of `Fetch`, `ListOffsets` and `OffsetCommit` that Kafka 4.0 removed. Its producer is created
//! there without an error and every send then fails, so the broker is asked first, in bytes that every version reads.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ports::Cause;

use crate::kafka_options::KafkaOptions;

pub(crate) mod exchange;

use exchange::{Broken, Reader, Wire};

const API_VERSIONS: i16 = 18;
const FETCH: i16 = 1;
const LIST_OFFSETS: i16 = 2;
const OFFSET_COMMIT: i16 = 8;

/// Which client library talks to Kafka; `KAFKA_CLIENT` in the environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KafkaClient {
    /// rdkafka where it is compiled in, kafka-rust otherwise.
    #[default]
    Auto,
    /// The crate `kafka`: brokers up to 3.9, static shares instead of group membership.
    KafkaRust,
    /// librdkafka: brokers 3.7 and later, 4.x included.
    Rdkafka,
}

/// Not the name of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be auto, kafka-rust or rdkafka")]
pub struct UnknownKafkaClient;

impl KafkaClient {
    /// The name used in configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::KafkaRust => "kafka-rust",
            Self::Rdkafka => "rdkafka",
        }
    }

    /// The client that is meant: never `Auto`.
    #[must_use]
    pub const fn resolved(self) -> Self {
        match self {
            Self::Auto if cfg!(feature = "rdkafka") => Self::Rdkafka,
            Self::Auto => Self::KafkaRust,
            chosen => chosen,
        }
    }

    /// Whether this build contains the client.
    #[must_use]
    pub const fn is_compiled_in(self) -> bool {
        let wants_rdkafka = matches!(self.resolved(), Self::Rdkafka);
        (wants_rdkafka && cfg!(feature = "rdkafka")) || (!wants_rdkafka && cfg!(feature = "kafka"))
    }
}

impl fmt::Display for KafkaClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for KafkaClient {
    type Err = UnknownKafkaClient;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Auto, Self::KafkaRust, Self::Rdkafka]
            .into_iter()
            .find(|client| client.as_str() == name)
            .ok_or(UnknownKafkaClient)
    }
}

/// The lowest version a broker speaks of each request that tells the generations apart. (Of `Produce`, Kafka 4.0 still
/// advertises version 0.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerVersions {
    /// `Fetch`: 0 up to Kafka 3.9, 4 from 4.0.
    pub fetch: i16,
    /// `ListOffsets`: 0 up to Kafka 3.9, 1 from 4.0.
    pub list_offsets: i16,
    /// `OffsetCommit`: 0 up to Kafka 3.9, 2 from 4.0.
    pub offset_commit: i16,
}

impl BrokerVersions {
    /// Whether kafka-rust and this broker have a language in common.
    #[must_use]
    pub const fn suit_kafka_rust(self) -> bool {
        self.fetch <= 0 && self.list_offsets <= 0 && self.offset_commit <= 1
    }
}

/// Why a client must not be built, or not yet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// No broker answers; ask again after a pause.
    #[error("no Kafka broker answers")]
    Unreachable(#[source] Cause),
    /// Client and broker have no language in common; the text says what to set.
    #[error("{0}")]
    Incompatible(String),
    /// A broker does not know this name and password, or this way to prove it; the text is librdkafka's.
    #[error("{0}")]
    Login(String),
    /// We do not trust a broker's certificate, or it does not trust ours, or one end speaks no TLS; the text says which.
    #[error("{0}")]
    Tls(String),
}

impl ProbeError {
    /// Whether asking again may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }
}

/// Whether `client` can work with the brokers, and they with us: [`check`] where nothing protects them, and by the client's own
/// means where something does, with `timeout` for each of its steps.
///
/// # Errors
/// [`ProbeError`].
pub async fn reach(
    client: KafkaClient,
    options: &KafkaOptions,
    timeout: Duration,
) -> Result<(), ProbeError> {
    if options.security.is_none() {
        return check(client, &options.brokers, timeout).await.map(drop);
    }
    #[cfg(feature = "rdkafka")]
    if client.resolved() == KafkaClient::Rdkafka {
        let options = options.clone();
        let asking =
            tokio::task::spawn_blocking(move || crate::rdkafka::reach(&options, timeout)).await;
        return asking.unwrap_or_else(|stopped| Err(ProbeError::Unreachable(Box::new(stopped))));
    }
    Err(ProbeError::Incompatible(format!(
        "{} cannot speak {} here; rdkafka can",
        client.resolved(),
        options.security.protocol()
    )))
}

/// Asks the brokers in turn until one answers, and judges whether `client` can work with it.
///
/// `timeout` bounds each step with each broker: connecting, sending, receiving.
///
/// # Errors
/// [`ProbeError::Unreachable`] when none answers; [`ProbeError::Incompatible`] when the client cannot talk to the one that
/// did, or is not part of this build.
pub async fn check(
    client: KafkaClient,
    brokers: &[String],
    timeout: Duration,
) -> Result<BrokerVersions, ProbeError> {
    let brokers = brokers.to_vec();
    let asking = tokio::task::spawn_blocking(move || check_blocking(client, &brokers, timeout));
    match asking.await {
        Ok(outcome) => outcome,
        Err(stopped) => Err(ProbeError::Unreachable(Box::new(stopped))),
    }
}

/// [`check`] for threads that may block.
pub(crate) fn check_blocking(
    client: KafkaClient,
    brokers: &[String],
    timeout: Duration,
) -> Result<BrokerVersions, ProbeError> {
    if !client.is_compiled_in() {
        return Err(ProbeError::Incompatible(format!(
            "this build does not contain the Kafka client {}",
            client.resolved()
        )));
    }
    let mut last: Option<(&str, Broken)> = None;
    for broker in brokers {
        match versions_of(broker, timeout) {
            Ok(versions) => return judge(client, broker, versions),
            Err(error @ Broken::ExpectsTls) => {
                return Err(ProbeError::Tls(format!("{broker}: {error}")));
            }
            Err(error) => last = Some((broker, error)),
        }
    }
    Err(ProbeError::Unreachable(match last {
        Some((broker, error)) => Box::new(AtBroker {
            broker: broker.to_owned(),
            error,
        }),
        None => "the list of brokers is empty".into(),
    }))
}

#[derive(Debug, thiserror::Error)]
#[error("{broker}")]
struct AtBroker {
    broker: String,
    #[source]
    error: Broken,
}

fn judge(
    client: KafkaClient,
    broker: &str,
    versions: BrokerVersions,
) -> Result<BrokerVersions, ProbeError> {
    if client.resolved() == KafkaClient::KafkaRust && !versions.suit_kafka_rust() {
        return Err(ProbeError::Incompatible(format!(
            "kafka-rust cannot talk to the broker {broker}: it speaks Fetch v0, ListOffsets v0 and OffsetCommit v1, which \
             Kafka 4.0 removed (this broker begins at v{}, v{} and v{}); set KAFKA_CLIENT=rdkafka or KAFKA_CLIENT=auto",
            versions.fetch, versions.list_offsets, versions.offset_commit
        )));
    }
    Ok(versions)
}

fn versions_of(broker: &str, timeout: Duration) -> Result<BrokerVersions, Broken> {
    let mut wire = Wire::open(broker, timeout)?;
    let answer = wire.ask(API_VERSIONS, 0, &[])?;
    read_versions(&answer)
}

fn read_versions(answer: &[u8]) -> Result<BrokerVersions, Broken> {
    let mut reader = Reader::new(answer);
    let error = reader.i16()?;
    if error != 0 {
        return Err(Broken::Code(error));
    }
    let mut versions = BrokerVersions {
        fetch: i16::MAX,
        list_offsets: i16::MAX,
        offset_commit: i16::MAX,
    };
    for _ in 0..reader.i32()? {
        let (key, lowest, _highest) = (reader.i16()?, reader.i16()?, reader.i16()?);
        match key {
            FETCH => versions.fetch = lowest,
            LIST_OFFSETS => versions.list_offsets = lowest,
            OFFSET_COMMIT => versions.offset_commit = lowest,
            _ => {}
        }
    }
    Ok(versions)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn answer(entries: &[(i16, i16, i16)]) -> Vec<u8> {
        let mut bytes = vec![0, 0];
        bytes.extend(i32::try_from(entries.len()).unwrap_or(0).to_be_bytes());
        for (key, lowest, highest) in entries {
            for number in [key, lowest, highest] {
                bytes.extend(number.to_be_bytes());
            }
        }
        bytes
    }

    #[test]
    fn kafka_3_suits_kafka_rust_and_kafka_4_does_not() {
        let three = read_versions(&answer(&[(0, 0, 11), (1, 0, 17), (2, 0, 9), (8, 0, 9)]));
        assert!(three.expect("it is complete").suit_kafka_rust());
        let four = read_versions(&answer(&[(0, 0, 13), (1, 4, 18), (2, 1, 11), (8, 2, 10)]));
        assert!(!four.expect("it is complete").suit_kafka_rust());
        // A broker that does not serve clients at all (a controller) suits nobody.
        let none = read_versions(&answer(&[]));
        assert!(!none.expect("it is complete").suit_kafka_rust());
    }

    #[test]
    fn fuzz_probe_answers() {
        const ANSWERS: &[&[u8]] = &[
            b"\0\0\0\0\0\x02\0\x01\0\0\0\x11\0\x02\0\0\0\x09",
            b"\0\0\0\0\0\x03\0\x01\0\x04\0\x12\0\x02\0\x01\0\x0b\0\x08\0\x02\0\x0a",
            b"\0\x23\0\0\0\0",
        ];
        fuzz::run("probe answers", &fuzz::bytes(ANSWERS), |bytes| {
            let Ok(versions) = read_versions(&bytes) else {
                return Ok(());
            };
            // Whoever is said to suit advertised all three requests: an answer that names none is not that.
            if versions.suit_kafka_rust() {
                proptest::prop_assert!(bytes.len() >= 2 + 4 + 3 * 6, "{bytes:?}");
            }
            Ok(())
        });
    }

    #[test]
    fn an_answer_cut_short_is_an_error() {
        let whole = answer(&[(1, 0, 17), (2, 0, 9)]);
        for length in 0..whole.len() {
            assert!(read_versions(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_port_that_is_silent_is_said_to_be() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let timeout = Duration::from_millis(50);
        let error = versions_of(&address, timeout).expect_err("nobody answers");
        assert_eq!(error.to_string(), "nothing answered within 50ms");
    }

    #[test]
    fn a_port_that_expects_tls_is_said_to() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let broker = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody calls");
            // Version 1.2, two bytes: fatal, unexpected message.
            stream.write_all(&[21, 3, 3, 0, 2, 2, 10])
        });
        let timeout = Duration::from_secs(5);
        let checked = check_blocking(KafkaClient::Auto, &[address], timeout);
        broker.join().expect("no panic").expect("it is heard");
        assert!(matches!(checked, Err(ProbeError::Tls(_))), "{checked:?}");
    }

    #[test]
    fn names_round_trip() {
        for client in [
            KafkaClient::Auto,
            KafkaClient::KafkaRust,
            KafkaClient::Rdkafka,
        ] {
            assert_eq!(client.as_str().parse(), Ok(client));
        }
        assert_eq!("kafka".parse::<KafkaClient>(), Err(UnknownKafkaClient));
        assert_ne!(KafkaClient::Auto.resolved(), KafkaClient::Auto);
    }
}
