//! Kafka, through whichever client was chosen.

use std::sync::Arc;
use std::time::Duration;

use adapters::kafka::{self, KafkaEventFeed, KafkaLog, KafkaTaskFeed, Share};
use adapters::kafka_options::{
    KafkaConnectError, KafkaFeedOptions, KafkaOptions, TopicError, TopicSettings, TopicState,
};
use adapters::kafka_probe::{self, KafkaClient as Client, ProbeError};
use adapters::rdkafka::{self, RdkafkaEventFeed, RdkafkaLog, RdkafkaTaskFeed};
use domain::ports::{Announcer, EventFeed, TaskFeed, TaskPublisher, WorkerRegistry};
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::Failure;
use crate::settings::{KafkaClient, KafkaSettings};
use crate::startup::{StartupError, chain};

/// How long each step of the probe may take.
const PROBE: Duration = Duration::from_secs(2);
/// Between two attempts to prepare the topics.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long workers that start together are given to appear in the registry before they are counted.
const GATHERING: Duration = Duration::from_secs(5);

/// The two writing ends.
pub(super) struct Log {
    pub(super) publisher: Arc<dyn TaskPublisher>,
    pub(super) announcer: Arc<dyn Announcer>,
}

impl Log {
    fn of(log: Arc<impl TaskPublisher + Announcer + 'static>) -> Self {
        Self {
            publisher: log.clone(),
            announcer: log,
        }
    }
}

/// Kafka as this process uses it.
pub(super) struct Kafka {
    client: Client,
    options: KafkaOptions,
    settings: KafkaSettings,
}

impl Kafka {
    /// Asks the broker whether the chosen client can talk to it. A broker that does not answer is no reason not to start:
    /// tasks are accepted without it, and processed by age.
    ///
    /// # Errors
    /// When client and broker have no language in common.
    pub(super) async fn choose(
        settings: &KafkaSettings,
        client_id: &str,
    ) -> Result<Self, StartupError> {
        let client = match settings.client {
            KafkaClient::Auto => Client::Auto,
            KafkaClient::KafkaRust => Client::KafkaRust,
            KafkaClient::Rdkafka => Client::Rdkafka,
        }
        .resolved();
        let options = KafkaOptions {
            client_id: client_id.to_owned(),
            security: settings.security.clone(),
            ..KafkaOptions::new(settings.brokers.clone())
        };
        match kafka_probe::reach(client, &options, PROBE).await {
            Ok(()) => {}
            Err(error) if error.is_transient() => warn!(
                event = "kafka.not_there",
                brokers = settings.brokers.join(","),
                reason = chain(&error),
                "Kafka does not answer; starting without it, tasks are processed by age until it does"
            ),
            Err(error) => {
                return Err(StartupError::Refused {
                    what: format!("Kafka at {}", settings.brokers.join(",")),
                    reason: told(&error),
                });
            }
        }
        info!(
            event = "kafka.client",
            client = client.as_str(),
            "the Kafka client"
        );
        Ok(Self {
            client,
            options,
            settings: settings.clone(),
        })
    }
}

impl Kafka {
    /// Makes the writing ends; no broker need be up.
    pub(super) fn log(&self) -> Result<Log, KafkaConnectError> {
        Ok(if self.is_kafka_rust() {
            Log::of(Arc::new(KafkaLog::connect(&self.options)?))
        } else {
            Log::of(Arc::new(RdkafkaLog::connect(&self.options)?))
        })
    }

    /// Reads what happens to tasks; no broker need be up.
    pub(super) fn events(&self) -> Arc<dyn EventFeed> {
        if self.is_kafka_rust() {
            Arc::new(KafkaEventFeed::new(&self.options))
        } else {
            Arc::new(RdkafkaEventFeed::new(&self.options))
        }
    }

    /// Makes the reading end; no broker need be up.
    pub(super) fn feed(&self) -> Result<Feed, Failure> {
        let options = KafkaFeedOptions {
            group_id: self.settings.group.clone(),
            ..KafkaFeedOptions::default()
        };
        if self.is_kafka_rust() {
            let share = Share::new(self.settings.share.index, self.settings.share.count)?;
            let feed = KafkaTaskFeed::connect(&self.options, &options, share)?;
            return Ok(Feed::KafkaRust(Arc::new(feed)));
        }
        let feed = RdkafkaTaskFeed::connect(&self.options, &options)?;
        Ok(Feed::Rdkafka(Arc::new(feed)))
    }

    /// Creates the topics that are missing, however long it takes until a broker answers, and warns when there are fewer
    /// partitions than workers. `registry` is that of a worker.
    pub(super) async fn prepare(self, registry: Option<Arc<dyn WorkerRegistry>>) {
        let topics = self.topics().await;
        for topic in topics.iter().filter(|topic| topic.created) {
            info!(
                event = "kafka.topic_created",
                topic = topic.name,
                partitions = topic.partitions,
                "a missing topic was created"
            );
        }
        let input = topics
            .iter()
            .find(|topic| topic.name == self.options.topics.input);
        let (Some(input), Some(registry)) = (input, registry) else {
            return;
        };
        sleep(GATHERING).await;
        let living = match registry.workers().await {
            Ok(workers) => workers.iter().filter(|worker| !worker.dead).count(),
            // Whoever works with the registry reports its failures; this was only a courtesy.
            Err(_) => return,
        };
        let shares = usize::try_from(self.settings.share.count).unwrap_or(usize::MAX);
        let workers = living.max(shares);
        let partitions = usize::try_from(input.partitions).unwrap_or(0);
        if workers > partitions {
            warn!(
                event = "kafka.too_few_partitions",
                topic = input.name,
                partitions,
                workers,
                "more workers than partitions: some get nothing from the log and only help by age; add partitions to the topic"
            );
        }
    }

    fn is_kafka_rust(&self) -> bool {
        self.client == Client::KafkaRust
    }

    async fn ensure(&self, settings: TopicSettings) -> Result<Vec<TopicState>, TopicError> {
        if self.is_kafka_rust() {
            kafka::ensure_topics(&self.options, settings).await
        } else {
            rdkafka::ensure_topics(&self.options, settings).await
        }
    }

    async fn topics(&self) -> Vec<TopicState> {
        let settings = TopicSettings {
            partitions: self.settings.partitions,
            ..TopicSettings::default()
        };
        let mut pause = FIRST_PAUSE;
        loop {
            // The broker may not have answered when the client was chosen, and be one that it cannot talk to.
            match kafka_probe::reach(self.client, &self.options, PROBE).await {
                Ok(()) => match self.ensure(settings).await {
                    Ok(topics) => return topics,
                    Err(refused @ TopicError::Refused(_)) => {
                        let reason = chain(&refused);
                        error!(
                            event = "kafka.topics_refused",
                            reason, "the topics are not there"
                        );
                    }
                    Err(error) => {
                        let reason = chain(&error);
                        warn!(
                            event = "kafka.topics_not_ready",
                            reason, "the topics are not there yet"
                        );
                    }
                },
                Err(unsuitable) if !unsuitable.is_transient() => {
                    let reason = told(&unsuitable);
                    error!(
                        event = "kafka.unsuitable",
                        reason, "Kafka cannot be used like this"
                    );
                }
                // Said when the client was chosen; whoever uses the log reports its failures.
                Err(_) => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// What is wrong, and where to look.
fn told(error: &ProbeError) -> String {
    let reason = chain(error);
    match error {
        ProbeError::Login(_) => format!(
            "{reason}; KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD say who we are"
        ),
        ProbeError::Tls(_) => format!(
            "{reason}; KAFKA_SECURITY_PROTOCOL and KAFKA_SSL_CA_LOCATION say how TLS is spoken and whom it trusts"
        ),
        _ => reason,
    }
}

/// The reading end.
pub(super) enum Feed {
    KafkaRust(Arc<KafkaTaskFeed>),
    Rdkafka(Arc<RdkafkaTaskFeed>),
}

impl Feed {
    pub(super) fn port(&self) -> Arc<dyn TaskFeed> {
        match self {
            Self::KafkaRust(feed) => feed.clone(),
            Self::Rdkafka(feed) => feed.clone(),
        }
    }

    /// Leaves the group, so that the others take its partitions over at once.
    pub(super) async fn close(&self) {
        // kafka-rust is in no group.
        if let Self::Rdkafka(feed) = self {
            feed.close(LEAVING).await;
        }
    }
}

/// How long leaving the group may hold a stop up.
const LEAVING: Duration = Duration::from_secs(3);
