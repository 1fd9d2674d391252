//! The feed's threads: one polls, one commits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ports::{Delivery, Position, RecordContent, Timestamp, TraceContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use tokio::sync::watch;

use super::super::context;
use super::desk::{CommitFault, CommitRequest, Desk};
use crate::kafka_options::KafkaConnectError;
use crate::wire;

/// How long one poll waits for a record; also how soon a closed feed is noticed.
const POLL_WAIT: Duration = Duration::from_millis(100);

/// After how many records in a row callers are told, even if more come.
const HANDFUL: usize = 256;

/// How long a full buffer is waited for before the partitions are paused. Pausing throws away what librdkafka has fetched
/// ahead, so it is worth some patience; the group does not miss a member for half a second.
const FULL_PATIENCE: Duration = Duration::from_millis(500);

/// How often a log that is down is asked whether it is back, and how long it has to answer.
const RETURN_INTERVAL: Duration = Duration::from_millis(500);
const RETURN_TIMEOUT: Duration = Duration::from_secs(1);

/// Between two attempts of a commit that met a rebalance, and for how long.
const COMMIT_PAUSE: Duration = Duration::from_millis(100);
const COMMIT_PATIENCE: Duration = Duration::from_secs(5);

/// Before a consumer that broke for good is made anew.
const REMAKE_PAUSE: Duration = Duration::from_secs(1);

type Member = BaseConsumer<Membership>;

/// Takes note of what the group decides.
struct Membership {
    desk: Arc<Desk>,
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        context::trace(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            // The worker is told by `receive`, and tells it.
            self.desk.went_down(reason.to_owned());
            return;
        }
        tracing::warn!(target: "librdkafka", %error, "{reason}");
    }
}

impl ConsumerContext for Membership {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            self.desk.revoked(numbers(partitions));
            tracing::info!(
                event = "kafka.feed.revoked",
                partitions = partitions.count(),
                "partitions of the log went to others"
            );
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance {
            self.desk.assigned(numbers(partitions));
            tracing::info!(
                event = "kafka.feed.assigned",
                partitions = partitions.count(),
                "partitions of the log were assigned to this worker"
            );
        }
    }
}

fn numbers(partitions: &TopicPartitionList) -> impl Iterator<Item = i32> {
    let elements = partitions.elements();
    let numbers: Vec<i32> = elements
        .iter()
        .map(TopicPartitionListElem::partition)
        .collect();
    numbers.into_iter()
}

/// Owns the consumer and the two threads.
pub(super) struct Pump {
    config: ClientConfig,
    topic: String,
    capacity: usize,
    desk: Arc<Desk>,
    /// The consumer in use, for the committing thread.
    member: Mutex<Option<Arc<Member>>>,
}

impl Pump {
    /// Starts the threads; `ending` is told when the consumer has left the group.
    pub(super) fn start(
        config: ClientConfig,
        topic: String,
        capacity: usize,
        desk: Arc<Desk>,
        ending: watch::Sender<bool>,
    ) -> Result<(), KafkaConnectError> {
        let pump = Arc::new(Self {
            config,
            topic,
            capacity,
            desk,
            member: Mutex::new(None),
        });
        let first = pump
            .make()
            .map_err(|error| KafkaConnectError::Settings(error.to_string()))?;
        let committing = Arc::clone(&pump);
        let committer = std::thread::Builder::new()
            .name("kafka-commit".into())
            .spawn(move || committing.commit_all())
            .map_err(KafkaConnectError::Thread)?;
        let polling = Arc::clone(&pump);
        let started = std::thread::Builder::new()
            .name("kafka-poll".into())
            .spawn(move || {
                polling.poll_all(first);
                // The last one to let go of the consumer leaves the group; both have, when both threads are through.
                if committer.join().is_err() {
                    tracing::error!(
                        event = "kafka.feed.committer_panicked",
                        "the thread that commits to the log panicked"
                    );
                }
                ending.send_replace(true);
            });
        if let Err(error) = started {
            // The committing thread must not wait for a feed that never came to be.
            pump.desk.close();
            return Err(KafkaConnectError::Thread(error));
        }
        Ok(())
    }

    fn make(&self) -> Result<Arc<Member>, KafkaError> {
        let membership = Membership {
            desk: Arc::clone(&self.desk),
        };
        let member: Member = self.config.create_with_context(membership)?;
        member.subscribe(&[&self.topic])?;
        let member = Arc::new(member);
        self.lend(Some(Arc::clone(&member)));
        Ok(member)
    }

    fn lend(&self, member: Option<Arc<Member>>) {
        *self.member.lock().unwrap_or_else(PoisonError::into_inner) = member;
    }

    fn borrow(&self) -> Option<Arc<Member>> {
        let member = self.member.lock().unwrap_or_else(PoisonError::into_inner);
        member.clone()
    }

    /// Polls until the feed closes; a consumer that broke for good is replaced.
    fn poll_all(&self, first: Arc<Member>) {
        let mut member = Some(first);
        while !self.desk.is_closed() {
            if let Some(working) = member.take() {
                self.poll_until_broken(&working);
                self.lend(None);
                // Here the consumer leaves the group, unless a commit still holds it.
                drop(working);
                self.desk.lost_everything();
                continue;
            }
            std::thread::sleep(REMAKE_PAUSE);
            match self.make() {
                Ok(remade) => member = Some(remade),
                Err(error) => self.desk.went_down(error.to_string()),
            }
        }
        self.lend(None);
    }

    /// Returns when the feed is closed or the consumer will never work again.
    fn poll_until_broken(&self, member: &Member) {
        let mut paused = false;
        let mut untold = 0;
        let mut asked_at = Instant::now();
        while !self.desk.is_closed() {
            if self.desk.waiting() >= self.capacity {
                self.tell(&mut untold);
                self.desk.wait_for_room(self.capacity, FULL_PATIENCE);
                if self.desk.waiting() >= self.capacity {
                    // Again at every turn: partitions assigned meanwhile are not paused.
                    note(member.assignment().and_then(|all| member.pause(&all)));
                    paused = true;
                }
            } else if paused && self.desk.waiting() <= self.capacity / 2 {
                note(member.assignment().and_then(|all| member.resume(&all)));
                paused = false;
            }
            let wait = if untold > 0 {
                Duration::ZERO
            } else {
                POLL_WAIT
            };
            match member.poll(wait) {
                Some(Ok(message)) => {
                    self.desk.put(read(&message));
                    untold += 1;
                    if untold >= HANDFUL {
                        self.tell(&mut untold);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.desk.reached_end(partition);
                    self.tell(&mut untold);
                }
                Some(Err(error)) => {
                    self.tell(&mut untold);
                    if !self.survives(&error) {
                        return;
                    }
                }
                None => self.tell(&mut untold),
            }
            if self.desk.is_down() && asked_at.elapsed() >= RETURN_INTERVAL {
                self.ask_for_return(member);
                asked_at = Instant::now();
            }
        }
    }

    fn tell(&self, untold: &mut usize) {
        if *untold > 0 {
            *untold = 0;
            self.desk.announce_arrivals();
        }
    }

    /// Draws the conclusion from an error of a poll; `false`: this consumer is finished.
    fn survives(&self, error: &KafkaError) -> bool {
        if let KafkaError::MessageConsumptionFatal(code) = error {
            tracing::warn!(
                event = "kafka.feed.consumer_replaced",
                %code,
                "the Kafka consumer broke for good and is made anew"
            );
            self.desk.went_down(error.to_string());
            return false;
        }
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::InconsistentGroupProtocol) => self.desk.refused(format!(
                "the group {} has members that agree on partitions by another protocol, such as workers of the former \
                 service: stop them first, or set KAFKA_GROUP_ID to a group of its own",
                self.desk.group_id()
            )),
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => self.desk.refused(format!(
                "this client may not use the group {}: grant it READ, or set KAFKA_GROUP_ID to a group it may use",
                self.desk.group_id()
            )),
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => self.desk.refused(format!(
                "this client may not read the topic {}: grant it READ",
                self.desk.topic()
            )),
            Some(
                code @ (RDKafkaErrorCode::InvalidGroupId
                | RDKafkaErrorCode::InvalidSessionTimeout
                | RDKafkaErrorCode::GroupMaxSizeReached
                | RDKafkaErrorCode::UnsupportedAssignor
                | RDKafkaErrorCode::UnsupportedVersion),
            ) => self.desk.refused(format!(
                "the broker does not accept this member of the group {}: {code}",
                self.desk.group_id()
            )),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                self.desk
                    .went_down(format!("the topic {} does not exist", self.desk.topic()));
            }
            // Told by the context, with its reason.
            Some(RDKafkaErrorCode::AllBrokersDown) => {}
            // librdkafka tries again by itself.
            _ => tracing::debug!(
                event = "kafka.feed.error",
                %error,
                "a poll of the log failed and is repeated"
            ),
        }
        true
    }

    /// librdkafka says when all brokers are gone, not when one is back.
    fn ask_for_return(&self, member: &Member) {
        match member.fetch_metadata(Some(&self.topic), RETURN_TIMEOUT) {
            Ok(metadata) => {
                if metadata
                    .topics()
                    .iter()
                    .all(|topic| topic.error().is_none())
                {
                    self.desk.came_back();
                }
            }
            Err(error) => self.desk.stays_down(&error),
        }
    }

    fn commit_all(&self) {
        while let Some(mut request) = self.desk.next_commit() {
            let outcome = self.commit(&mut request);
            if outcome.is_ok() {
                self.desk.committed(&request);
            }
            request.answer(&outcome);
        }
    }

    /// Commits what is still this member's, once more after a rebalance.
    fn commit(&self, request: &mut CommitRequest) -> Result<(), CommitFault> {
        let started = Instant::now();
        loop {
            self.desk.prune(request);
            if request.next.is_empty() {
                return Ok(());
            }
            let Some(member) = self.borrow() else {
                return Err(CommitFault::Closed);
            };
            let mut offsets = TopicPartitionList::with_capacity(request.next.len());
            for (partition, next) in &request.next {
                offsets
                    .add_partition_offset(&self.topic, *partition, Offset::Offset(*next))
                    .map_err(CommitFault::Failed)?;
            }
            let error = match member.commit(&offsets, CommitMode::Sync) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let rebalancing = matches!(
                error.rdkafka_error_code(),
                Some(
                    RDKafkaErrorCode::RebalanceInProgress
                        | RDKafkaErrorCode::IllegalGeneration
                        | RDKafkaErrorCode::UnknownMemberId
                        | RDKafkaErrorCode::StaleMemberEpoch
                        | RDKafkaErrorCode::AssignmentLost
                        | RDKafkaErrorCode::NotCoordinator
                        | RDKafkaErrorCode::CoordinatorNotAvailable
                        | RDKafkaErrorCode::CoordinatorLoadInProgress
                )
            );
            if !rebalancing || started.elapsed() >= COMMIT_PATIENCE || self.desk.is_closed() {
                return Err(CommitFault::Failed(error));
            }
            drop(member);
            std::thread::sleep(COMMIT_PAUSE);
        }
    }
}

/// Pausing and resuming are local to librdkafka and fail only for partitions that were just revoked.
fn note(outcome: Result<(), KafkaError>) {
    if let Err(error) = outcome {
        tracing::debug!(
            event = "kafka.feed.pause",
            %error,
            "partitions could not be paused or resumed"
        );
    }
}

fn read(message: &rdkafka::message::BorrowedMessage<'_>) -> Delivery {
    let mut trace = None;
    let content = match message.payload().map(wire::decode_hint) {
        Some(Ok((id, in_body))) => {
            trace = in_headers(message).or(in_body);
            RecordContent::Task(id)
        }
        Some(Err(error)) => unreadable(message, error.to_string()),
        None => unreadable(message, "the record has no value".into()),
    };
    let recorded_at = message.timestamp().to_millis().map_or_else(now, |millis| {
        Timestamp::from_micros(millis.saturating_mul(1_000))
    });
    Delivery {
        position: Position {
            partition: message.partition(),
            offset: message.offset(),
        },
        recorded_at,
        content,
        trace,
    }
}

/// The trace in the headers of a record; what cannot be read is none.
fn in_headers(message: &rdkafka::message::BorrowedMessage<'_>) -> Option<TraceContext> {
    let headers = message.headers()?;
    let text = |name| {
        let header = headers.iter().find(|header| header.key == name)?;
        std::str::from_utf8(header.value?).ok()
    };
    wire::decode_trace(text(wire::TRACEPARENT)?, text(wire::TRACESTATE))
}

fn unreadable(message: &rdkafka::message::BorrowedMessage<'_>, reason: String) -> RecordContent {
    RecordContent::Unreadable {
        reason,
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
    }
}

/// A record without a time of its own was written before now, at least.
fn now() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
}
