//! Creating what is missing, in Kafka's own bytes: kafka-rust has no request for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kafka::client::KafkaClient as Client;

use super::must_be_plain;
use crate::kafka_options::{KafkaOptions, TopicError, TopicSettings, TopicState};
use crate::kafka_probe::exchange::{Broken, Reader, Wire};
use crate::kafka_probe::{self, KafkaClient, ProbeError};

const CREATE_TOPICS: i16 = 19;
/// The first version that takes -1 for 'the broker's default' (Kafka 2.4).
const CREATE_TOPICS_VERSION: i16 = 4;

const ALREADY_EXISTS: i16 = 36;
const NOT_CONTROLLER: i16 = 41;
const TIMED_OUT: i16 = 7;

/// How long each step may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a topic may take from its creation until the cluster shows it.
const APPEAR_TIMEOUT: Duration = Duration::from_secs(10);

/// Creates the topics that are missing and says how many partitions each has. Safe to repeat, and from many processes at
/// once; topics that exist are left as they are.
///
/// # Errors
/// [`TopicError::Unavailable`] when the cluster does not answer; [`TopicError::Refused`] when it will not create a topic, or
/// when kafka-rust cannot talk to it.
pub async fn ensure_topics(
    options: &KafkaOptions,
    settings: TopicSettings,
) -> Result<Vec<TopicState>, TopicError> {
    let options = options.clone();
    let asking = tokio::task::spawn_blocking(move || ensure(&options, settings));
    match asking.await {
        Ok(outcome) => outcome,
        Err(stopped) => Err(TopicError::Unavailable(Box::new(stopped))),
    }
}

fn ensure(options: &KafkaOptions, settings: TopicSettings) -> Result<Vec<TopicState>, TopicError> {
    must_be_plain(options).map_err(|error| TopicError::Refused(error.to_string()))?;
    let checked =
        kafka_probe::check_blocking(KafkaClient::KafkaRust, &options.brokers, STEP_TIMEOUT);
    match checked {
        Ok(_versions) => {}
        Err(ProbeError::Incompatible(text)) => return Err(TopicError::Refused(text)),
        Err(error) => return Err(TopicError::Unavailable(Box::new(error))),
    }
    let mut cluster = Cluster::look(options)?;
    let names = options.topics.all();
    let missing: Vec<&str> = names
        .into_iter()
        .filter(|name| !cluster.partitions.contains_key(*name))
        .collect();
    if !missing.is_empty() {
        create(options, &cluster.brokers, &missing, settings)?;
    }
    let started = Instant::now();
    loop {
        let states: Option<Vec<TopicState>> = names
            .iter()
            .map(|name| {
                Some(TopicState {
                    name: (*name).to_owned(),
                    partitions: *cluster.partitions.get(*name)?,
                    created: missing.contains(name),
                })
            })
            .collect();
        if let Some(states) = states {
            return Ok(states);
        }
        if started.elapsed() > APPEAR_TIMEOUT {
            return Err(TopicError::Unavailable(
                "the topics were created and do not appear".into(),
            ));
        }
        std::thread::sleep(Duration::from_millis(100));
        cluster = Cluster::look(options)?;
    }
}

/// What the cluster says of itself.
struct Cluster {
    /// Those named in the settings first, then those that lead partitions.
    brokers: Vec<String>,
    partitions: BTreeMap<String, i32>,
}

impl Cluster {
    /// Asks about every topic: asking for one by name could create it.
    fn look(options: &KafkaOptions) -> Result<Self, TopicError> {
        let mut client = Client::new(options.brokers.clone());
        client
            .load_metadata_all()
            .map_err(|error| TopicError::Unavailable(Box::new(error)))?;
        let mut leaders = BTreeSet::new();
        let mut partitions = BTreeMap::new();
        for topic in &client.topics() {
            let of_topic = topic.partitions();
            // Partitions get their leaders a moment after the topic appears.
            if of_topic.is_empty() || of_topic.available_ids().len() < of_topic.len() {
                continue;
            }
            for partition in &of_topic {
                leaders.extend(partition.leader().map(|leader| leader.host().to_owned()));
            }
            let count = i32::try_from(of_topic.len()).unwrap_or(i32::MAX);
            partitions.insert(topic.name().to_owned(), count);
        }
        let mut brokers = options.brokers.clone();
        brokers.extend(
            leaders
                .into_iter()
                .filter(|leader| !options.brokers.contains(leader)),
        );
        Ok(Self {
            brokers,
            partitions,
        })
    }
}

/// Asks one broker after the other: before KRaft only the controller creates topics.
fn create(
    options: &KafkaOptions,
    brokers: &[String],
    missing: &[&str],
    settings: TopicSettings,
) -> Result<(), TopicError> {
    let body = request(options, missing, settings);
    let mut last = TopicError::Unavailable("no broker creates topics".into());
    for broker in brokers {
        let answer = Wire::open(broker, STEP_TIMEOUT)
            .and_then(|mut wire| wire.ask(CREATE_TOPICS, CREATE_TOPICS_VERSION, &body));
        let outcomes = match answer.and_then(|answer| read_answer(&answer)) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                last = TopicError::Unavailable(Box::new(error));
                continue;
            }
        };
        let failed = outcomes
            .into_iter()
            .find(|outcome| outcome.code != 0 && outcome.code != ALREADY_EXISTS);
        match failed {
            None => return Ok(()),
            Some(Created { code, name, reason }) => {
                let text = format!("the topic {name} was not created: {reason} (code {code})");
                if code != NOT_CONTROLLER && code != TIMED_OUT {
                    return Err(TopicError::Refused(text));
                }
                last = TopicError::Unavailable(text.into());
            }
        }
    }
    Err(last)
}

fn request(options: &KafkaOptions, missing: &[&str], settings: TopicSettings) -> Vec<u8> {
    let mut body = Vec::new();
    let length = |count: usize| i32::try_from(count).unwrap_or(i32::MAX).to_be_bytes();
    body.extend(length(missing.len()));
    for name in missing {
        body.extend(i16::try_from(name.len()).unwrap_or(i16::MAX).to_be_bytes());
        body.extend(name.as_bytes());
        body.extend(options.topics.partitions_of(name, settings).to_be_bytes());
        body.extend(settings.replication.unwrap_or(-1).to_be_bytes());
        // No partition is placed by hand, and no setting of the topic is changed.
        body.extend(length(0));
        body.extend(length(0));
    }
    let patience = i32::try_from(STEP_TIMEOUT.as_millis()).unwrap_or(i32::MAX);
    body.extend(patience.to_be_bytes());
    // Not a rehearsal.
    body.push(0);
    body
}

struct Created {
    name: String,
    code: i16,
    reason: String,
}

fn read_answer(answer: &[u8]) -> Result<Vec<Created>, Broken> {
    let mut reader = Reader::new(answer);
    let _throttled_for = reader.i32()?;
    let mut outcomes = Vec::new();
    for _ in 0..reader.i32()? {
        outcomes.push(Created {
            name: reader.text()?.unwrap_or_default(),
            code: reader.i16()?,
            reason: reader.text()?.unwrap_or_default(),
        });
    }
    Ok(outcomes)
}
