//! Creating what is missing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::RDKafkaErrorCode;

use super::client_config;
use super::context::Traced;
use crate::kafka_options::{KafkaOptions, TopicError, TopicSettings, TopicState};

/// How long one question to the cluster may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a topic may take from its creation until the cluster shows it.
const APPEAR_TIMEOUT: Duration = Duration::from_secs(10);

/// Creates the topics that are missing and says how many partitions each has. Safe to repeat, and from many processes at
/// once; topics that exist are left as they are.
///
/// # Errors
/// [`TopicError::Unavailable`] within 20 s when the cluster does not answer; [`TopicError::Refused`] when it will not create
/// a topic.
pub async fn ensure_topics(
    options: &KafkaOptions,
    settings: TopicSettings,
) -> Result<Vec<TopicState>, TopicError> {
    let config = client_config(options);
    let options = options.clone();
    let runtime = tokio::runtime::Handle::current();
    // Metadata is asked for by blocking calls, and dropping the client joins its thread.
    let asking = tokio::task::spawn_blocking(move || {
        let admin = AdminClient::from_config_and_context(&config, Traced)
            .map_err(|error| TopicError::Refused(error.to_string()))?;
        let before = partitions_of(&admin)?;
        let names = options.topics.all();
        let missing: Vec<&str> = names
            .into_iter()
            .filter(|name| !before.contains_key(*name))
            .collect();
        if !missing.is_empty() {
            runtime.block_on(create(&admin, &options, &missing, settings))?;
        }
        let started = Instant::now();
        loop {
            let now = partitions_of(&admin)?;
            let states: Option<Vec<TopicState>> = names
                .iter()
                .map(|name| {
                    Some(TopicState {
                        name: (*name).to_owned(),
                        partitions: *now.get(*name)?,
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
        }
    });
    match asking.await {
        Ok(outcome) => outcome,
        Err(stopped) => Err(TopicError::Unavailable(Box::new(stopped))),
    }
}

/// Every topic of the cluster. Asking for one by name could create it.
fn partitions_of(admin: &AdminClient<Traced>) -> Result<BTreeMap<String, i32>, TopicError> {
    let metadata = admin
        .inner()
        .fetch_metadata(None, ASK_TIMEOUT)
        .map_err(|error| TopicError::Unavailable(Box::new(error)))?;
    Ok(metadata
        .topics()
        .iter()
        .filter(|topic| topic.error().is_none() && !topic.partitions().is_empty())
        .map(|topic| {
            let count = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
            (topic.name().to_owned(), count)
        })
        .collect())
}

async fn create(
    admin: &AdminClient<Traced>,
    kafka: &KafkaOptions,
    missing: &[&str],
    settings: TopicSettings,
) -> Result<(), TopicError> {
    // To the broker, -1 is its own default.
    let replication = settings.replication.map_or(-1, i32::from);
    let wanted: Vec<NewTopic<'_>> = missing
        .iter()
        .map(|name| {
            let replication = TopicReplication::Fixed(replication);
            NewTopic::new(
                name,
                kafka.topics.partitions_of(name, settings),
                replication,
            )
        })
        .collect();
    let options = AdminOptions::new()
        .request_timeout(Some(ASK_TIMEOUT))
        .operation_timeout(Some(ASK_TIMEOUT));
    let outcomes = admin
        .create_topics(&wanted, &options)
        .await
        .map_err(|error| TopicError::Unavailable(Box::new(error)))?;
    for outcome in outcomes {
        match outcome {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((
                _,
                code @ (RDKafkaErrorCode::RequestTimedOut | RDKafkaErrorCode::NotController),
            )) => {
                return Err(TopicError::Unavailable(Box::new(code)));
            }
            Err((name, code)) => {
                return Err(TopicError::Refused(format!(
                    "the topic {name} was not created: {code}"
                )));
            }
        }
    }
    Ok(())
}
