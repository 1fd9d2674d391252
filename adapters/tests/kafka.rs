//! The log on real Kafka, through both clients: the suites, who shares with whom, and what happens when the network fails,
//! records cannot be read, or client and broker do not fit.

#[path = "kafka/cluster.rs"]
mod cluster;
#[path = "memory/log.rs"]
mod in_memory;
#[path = "network/proxy.rs"]
mod proxy;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster::{Client, Cluster, TWELVE, message, messages, proxy_of, task_ids};
use in_memory::LogInMemory;
use ports::conformance::histories::{Range, logs_alike};
use ports::conformance::log;
use ports::{
    Delivery, FeedError, Payload, Position, PublishError, RecordContent, Standing, TaskFeed, TaskId,
};
use task_processor_adapters::kafka::{self, KafkaLog, Share};
use task_processor_adapters::kafka_options::{
    GroupProtocol, KafkaFeedOptions, KafkaOptions, TopicError, TopicSettings,
};
use task_processor_adapters::kafka_probe::{self, KafkaClient, ProbeError};
use task_processor_adapters::rdkafka::{RdkafkaLog, RdkafkaTaskFeed};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

ports::log_conformance!(
    #[ignore = "needs Kafka: run cargo xtask test"]
    rdkafka_on_3,
    Cluster::three(Client::Rdkafka).await
);
ports::log_conformance!(
    #[ignore = "needs Kafka: run cargo xtask test"]
    rdkafka_on_4,
    Cluster::four(Client::Rdkafka).await
);
ports::log_conformance!(
    #[ignore = "needs Kafka: run cargo xtask test"]
    kafka_rust_on_3,
    Cluster::three(Client::KafkaRust).await
);
ports::announcer_conformance!(
    #[ignore = "needs Kafka: run cargo xtask test"]
    announcer_of_rdkafka_on_3,
    Cluster::three(Client::Rdkafka).await
);
ports::announcer_conformance!(
    #[ignore = "needs Kafka: run cargo xtask test"]
    announcer_of_rdkafka_on_4,
    Cluster::four(Client::Rdkafka).await
);
ports::announcer_conformance!(
    #[ignore = "needs Kafka: run cargo xtask test"]
    announcer_of_kafka_rust_on_3,
    Cluster::three(Client::KafkaRust).await
);

ports::events_conformance!(
    #[ignore = "needs Kafka: run cargo xtask test"]
    events_of_rdkafka_on_3,
    Cluster::three(Client::Rdkafka).await
);
ports::events_conformance!(
    #[ignore = "needs Kafka: run cargo xtask test"]
    events_of_rdkafka_on_4,
    Cluster::four(Client::Rdkafka).await
);
ports::events_conformance!(
    #[ignore = "needs Kafka: run cargo xtask test"]
    events_of_kafka_rust_on_3,
    Cluster::three(Client::KafkaRust).await
);

/// How many histories each client plays, unless told: each has topics of its own.
const HISTORIES: u64 = 3;

fn holds_what_memory_does(cluster: impl AsyncFn() -> Cluster) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    logs_alike(
        &runtime.expect("a runtime starts"),
        Range::of_environment(HISTORIES),
        async || Arc::new(LogInMemory::plain()) as Arc<dyn log::Subject>,
        async || Arc::new(cluster().await) as Arc<dyn log::Subject>,
    );
}

#[test]
#[ignore = "needs Kafka: run cargo xtask test"]
fn rdkafka_on_3_holds_what_memory_does_in_every_history() {
    holds_what_memory_does(async || Cluster::three(Client::Rdkafka).await);
}

#[test]
#[ignore = "needs Kafka: run cargo xtask test"]
fn rdkafka_on_4_holds_what_memory_does_in_every_history() {
    holds_what_memory_does(async || Cluster::four(Client::Rdkafka).await);
}

#[test]
#[ignore = "needs Kafka: run cargo xtask test"]
fn kafka_rust_on_3_holds_what_memory_does_in_every_history() {
    holds_what_memory_does(async || Cluster::three(Client::KafkaRust).await);
}

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn published(cluster: &Cluster, count: usize) -> BTreeSet<TaskId> {
    let sent = messages(count);
    for outcome in cluster.log().publish(&sent).await {
        outcome.expect("confirmed");
    }
    sent.iter().map(|message| message.id).collect()
}

/// Receives until every wanted task came, whatever fails in between.
async fn receive_all(feed: &dyn TaskFeed, wanted: &BTreeSet<TaskId>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    let mut found = BTreeSet::new();
    let receiving = async {
        while !wanted.is_subset(&found) {
            match feed.receive(1_000).await {
                Ok(batch) => {
                    found.extend(task_ids(&batch));
                    deliveries.extend(batch);
                }
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(PATIENCE, receiving).await.unwrap_or_else(|_| {
        panic!(
            "{} of {} tasks came",
            found.intersection(wanted).count(),
            wanted.len()
        )
    });
    deliveries
}

fn partitions_of(deliveries: &[Delivery]) -> BTreeSet<i32> {
    deliveries
        .iter()
        .map(|delivery| delivery.position.partition)
        .collect()
}

fn highest(deliveries: &[Delivery]) -> Vec<Position> {
    let mut offsets = BTreeMap::new();
    for Position { partition, offset } in deliveries.iter().map(|delivery| delivery.position) {
        let highest = offsets.entry(partition).or_insert(offset);
        *highest = offset.max(*highest);
    }
    offsets
        .into_iter()
        .map(|(partition, offset)| Position { partition, offset })
        .collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Which client on which broker, with a cluster to itself.
async fn combinations() -> Vec<Cluster> {
    vec![
        Cluster::three(Client::Rdkafka).await,
        Cluster::four(Client::Rdkafka).await,
        Cluster::three(Client::KafkaRust).await,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn topics_that_are_missing_are_created() {
    for cluster in combinations().await {
        let cluster = cluster.with_fresh_topics();
        let states = cluster.ensure(TWELVE).await.expect("created");
        assert_eq!(states.len(), 4);
        // The order of the events is one.
        let of = |name: &str| {
            if name == cluster.options.topics.events {
                1
            } else {
                12
            }
        };
        for state in &states {
            let expected = (of(&state.name), true);
            assert_eq!((state.partitions, state.created), expected, "{state:?}");
        }
        // Those that are there stay as they are.
        let twenty = TopicSettings {
            partitions: 20,
            ..TWELVE
        };
        let states = cluster.ensure(twenty).await.expect("looked at");
        for state in &states {
            let expected = (of(&state.name), false);
            assert_eq!((state.partitions, state.created), expected, "{state:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn topics_that_the_cluster_will_not_create_are_named() {
    for cluster in combinations().await {
        let cluster = cluster.with_fresh_topics();
        let impossible = TopicSettings {
            partitions: 1,
            replication: Some(99),
        };
        match cluster.ensure(impossible).await {
            Err(TopicError::Refused(text)) => {
                assert!(text.contains(&cluster.options.topics.input), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A share that nothing overlaps: both feeds together bring everything, and when one goes the other takes over.
async fn shared_by_group(cluster: Cluster, protocol: GroupProtocol) {
    let options = KafkaFeedOptions {
        group_protocol: protocol,
        ..cluster.feed_options()
    };
    let connect = || RdkafkaTaskFeed::connect(&cluster.options, &options).expect("the settings");
    let (one, other) = (connect(), connect());
    // Both have joined when neither has everything.
    let (mut of_one, mut of_other) = (BTreeSet::new(), BTreeSet::new());
    let started = Instant::now();
    while of_one.len() + of_other.len() != 12 || of_one.is_empty() || of_other.is_empty() {
        assert!(started.elapsed() < PATIENCE, "{of_one:?} {of_other:?}");
        published(&cluster, 200).await;
        for (feed, partitions) in [(&one, &mut of_one), (&other, &mut of_other)] {
            let mut deliveries = Vec::new();
            while let Ok(Ok(batch)) = timeout(Duration::from_millis(700), feed.receive(1_000)).await
            {
                deliveries.extend(batch);
            }
            *partitions = partitions_of(&deliveries);
            if !deliveries.is_empty() {
                feed.acknowledge(&highest(&deliveries))
                    .await
                    .expect("acknowledged");
            }
        }
    }
    assert!(of_one.is_disjoint(&of_other), "{of_one:?} {of_other:?}");
    assert_eq!(one.standing(), Standing::CaughtUp);

    assert!(one.close(Duration::from_secs(20)).await, "it left in time");
    let sent = published(&cluster, 200).await;
    let deliveries = receive_all(&other, &sent).await;
    assert_eq!(partitions_of(&deliveries).len(), 12);
    // Nothing that was acknowledged came again, from the partitions taken over neither.
    assert_eq!(deliveries.len(), sent.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn feeds_of_a_group_share_on_3() {
    shared_by_group(
        Cluster::three(Client::Rdkafka).await,
        GroupProtocol::Classic,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn feeds_of_a_group_share_on_4() {
    shared_by_group(Cluster::four(Client::Rdkafka).await, GroupProtocol::Classic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn feeds_of_a_group_share_on_4_by_the_brokers_own_protocol() {
    shared_by_group(
        Cluster::four(Client::Rdkafka).await,
        GroupProtocol::Consumer,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn a_late_acknowledgement_does_not_undo_that_of_the_next_owner() {
    for cluster in [
        Cluster::three(Client::Rdkafka).await,
        Cluster::four(Client::Rdkafka).await,
    ] {
        let connect = || {
            RdkafkaTaskFeed::connect(&cluster.options, &cluster.feed_options())
                .expect("the settings")
        };
        // The first owner of everything acknowledges nothing yet.
        let one = connect();
        let before = published(&cluster, 200).await;
        let early = receive_all(&one, &before).await;
        assert_eq!(partitions_of(&early).len(), 12);

        let other = connect();
        let (mut of_one, mut of_other) = (Vec::new(), Vec::new());
        // Has its share when something of it came.
        of_other.extend(other.receive(1_000).await.expect("its share"));
        published(&cluster, 200).await;
        until_caught_up(&other, &mut of_other).await;
        other
            .acknowledge(&highest(&of_other))
            .await
            .expect("acknowledged");
        one.acknowledge(&highest(&early))
            .await
            .expect("passed over where it is not its own");
        until_caught_up(&one, &mut of_one).await;
        one.acknowledge(&highest(&of_one))
            .await
            .expect("acknowledged");
        assert!(one.close(Duration::from_secs(20)).await);
        assert!(other.close(Duration::from_secs(20)).await);

        let after = published(&cluster, 20).await;
        let deliveries = receive_all(&connect(), &after).await;
        assert_eq!(deliveries.len(), after.len(), "old records came again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn feeds_of_kafka_rust_share_by_number() {
    let cluster = Cluster::three(Client::KafkaRust).await;
    let sent = published(&cluster, 600).await;
    let mut found = Vec::new();
    for index in 0..3 {
        let feed = cluster.share(Share::new(index, 3).expect("a share"));
        let mut deliveries = Vec::new();
        until_caught_up(&*feed, &mut deliveries).await;
        assert!(
            partitions_of(&deliveries)
                .iter()
                .all(|partition| partition % 3 == i32::try_from(index).expect("small")),
        );
        found.extend(task_ids(&deliveries));
    }
    assert_eq!(found.len(), sent.len());
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), sent);
    // One more than there are partitions.
    let idle = cluster.share(Share::new(12, 13).expect("a share"));
    until("unassigned", || idle.standing() == Standing::Unassigned).await;
}

async fn until_caught_up(feed: &dyn TaskFeed, deliveries: &mut Vec<Delivery>) {
    let started = Instant::now();
    while feed.standing() != Standing::CaughtUp {
        assert!(started.elapsed() < PATIENCE, "{:?}", feed.standing());
        if let Ok(Ok(batch)) = timeout(Duration::from_millis(100), feed.receive(1_000)).await {
            deliveries.extend(batch);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn both_clients_put_a_key_on_the_same_partition() {
    let cluster = Cluster::three(Client::Rdkafka).await;
    let sent = messages(200);
    for log in [cluster.log(), cluster.log_of(Client::KafkaRust)] {
        for outcome in log.publish(&sent).await {
            outcome.expect("confirmed");
        }
    }
    let mut places: BTreeMap<TaskId, Vec<i32>> = BTreeMap::new();
    for record in cluster.records(&cluster.options.topics.input, 400).await {
        let id = String::from_utf8(record.key.expect("a key")).expect("text");
        places
            .entry(id.parse().expect("a UUID"))
            .or_default()
            .push(record.partition);
    }
    assert_eq!(places.len(), 200);
    assert!(
        places
            .values()
            .all(|places| places.len() == 2 && places[0] == places[1])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn committed_offsets_carry_over_to_the_other_client() {
    let cluster = Cluster::three(Client::Rdkafka).await;
    let clients = [Client::Rdkafka, Client::KafkaRust, Client::Rdkafka];
    for client in clients {
        let sent = published(&cluster, 100).await;
        let feed = cluster.feed_of(client);
        let deliveries = receive_all(&*feed, &sent).await;
        assert_eq!(deliveries.len(), 100, "{client:?} got old records too");
        // A group that was just left refuses kafka-rust until the last member is gone.
        let started = Instant::now();
        while let Err(error) = feed.acknowledge(&highest(&deliveries)).await {
            assert!(started.elapsed() < PATIENCE, "{error:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn a_record_too_large_is_refused_and_its_neighbours_are_not() {
    for cluster in combinations().await {
        // Room for the small ones only, as the topic sees it: a batch of several counts as one.
        cluster.limit_batches(20_000).await;
        let mut sent = messages(300);
        for index in [100, 200] {
            sent[index].payload = Payload::new("x".repeat(50_000)).expect("no NUL");
        }
        let outcomes = cluster.log().publish(&sent).await;
        for (index, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Err(PublishError::Rejected(_)) if [100, 200].contains(&index) => {}
                Ok(()) if ![100, 200].contains(&index) => {}
                other => panic!("{index}: {other:?} ({:?})", cluster.client),
            }
        }
        // Far beyond what any broker takes.
        sent[0].payload = Payload::new("x".repeat(2_000_000)).expect("no NUL");
        let outcomes = cluster.log().publish(&sent[..2]).await;
        assert!(
            matches!(outcomes[0], Err(PublishError::Rejected(_))),
            "{outcomes:?}"
        );
        assert!(outcomes[1].is_ok(), "{outcomes:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn compressed_records_of_other_producers_are_read() {
    for cluster in combinations().await {
        let mut legible = BTreeSet::new();
        let mut illegible = 0;
        // Between them uncompressed ones: kafka-rust drops these from an answer that also holds a compressed batch. What
        // it cannot read has partitions of its own, because there the broker answers with one batch at a time.
        let batches = [
            (3, "none"),
            (3, "gzip"),
            (3, "none"),
            (3, "snappy"),
            (3, "none"),
            (4, "none"),
            (4, "lz4"),
            (4, "none"),
            (5, "none"),
            (5, "zstd"),
            (5, "gzip"),
        ];
        for (partition, codec) in batches {
            let sent = messages(20);
            cluster.produce(codec, partition, &sent).await;
            let ids = sent.iter().map(|message| message.id);
            if cluster.client == Client::KafkaRust && ["lz4", "zstd"].contains(&codec) {
                illegible += 20;
            } else {
                legible.extend(ids);
            }
        }
        let feed = cluster.feed_of(cluster.client);
        let deliveries = receive_all(&*feed, &legible).await;
        let unreadable: Vec<&RecordContent> = deliveries
            .iter()
            .map(|delivery| &delivery.content)
            .filter(|content| matches!(content, RecordContent::Unreadable { .. }))
            .collect();
        assert_eq!(unreadable.len(), illegible, "{:?}", cluster.client);
        for content in unreadable {
            let RecordContent::Unreadable { reason, .. } = content else {
                continue;
            };
            assert!(reason.contains("KAFKA_CLIENT=rdkafka"), "{reason}");
        }
        assert_eq!(deliveries.len(), legible.len() + illegible);
        until("caught up", || feed.standing() == Standing::CaughtUp).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn a_small_buffer_brings_everything_in_time() {
    for cluster in combinations().await {
        let options = KafkaFeedOptions {
            buffer: 50,
            ..cluster.feed_options()
        };
        let sent = published(&cluster, 5_000).await;
        let feed = cluster.feed_with(&options);
        // Long enough for the buffer to fill and the partitions to be paused.
        sleep(Duration::from_millis(1_500)).await;
        let deliveries = receive_all(&*feed, &sent).await;
        assert_eq!(deliveries.len(), sent.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn a_connection_that_is_cut_is_survived() {
    for cluster in combinations().await {
        let proxy = proxy_of(&cluster.options.brokers[0]).await;
        let far = cluster.through(proxy.address());
        let log = far.log();
        let feed = far.feed_of(far.client);
        let first = published_by(&*log, 50).await;
        let deliveries = receive_all(&*feed, &first).await;
        feed.acknowledge(&highest(&deliveries))
            .await
            .expect("acknowledged");

        for _ in 0..2 {
            proxy.cut();
            // The proxy may be slower than the client.
            let cut = Instant::now();
            while log.ping().await.is_ok() {
                assert!(cut.elapsed() < PATIENCE, "never cut");
            }
            let started = Instant::now();
            let outcomes = log.publish(&messages(10)).await;
            assert_eq!(outcomes.len(), 10);
            for outcome in outcomes {
                assert!(
                    matches!(outcome, Err(PublishError::Unavailable(_))),
                    "{outcome:?}"
                );
            }
            let took = started.elapsed();
            assert!(took < Duration::from_secs(8), "{took:?}");
            log.ping().await.expect_err("the log is down");
            until("down", || feed.standing() == Standing::Down).await;
            match feed.receive(1).await {
                Err(FeedError::Unavailable(_)) => {}
                other => panic!("{other:?}"),
            }

            proxy.mend();
            let started = Instant::now();
            let again = published_by(&*log, 50).await;
            let deliveries = receive_all(&*feed, &again).await;
            let took = started.elapsed();
            assert!(took < Duration::from_secs(10), "{:?}: {took:?}", far.client);
            let started = Instant::now();
            while let Err(error) = feed.acknowledge(&highest(&deliveries)).await {
                assert!(started.elapsed() < PATIENCE, "{error:?}");
                sleep(Duration::from_millis(100)).await;
            }
            until("caught up", || feed.standing() == Standing::CaughtUp).await;
        }
    }
}

/// Confirmed sooner or later.
async fn published_by(log: &dyn cluster::Log, count: usize) -> BTreeSet<TaskId> {
    let sent = messages(count);
    let started = Instant::now();
    let mut left = sent.clone();
    while !left.is_empty() {
        assert!(started.elapsed() < PATIENCE, "never confirmed");
        let outcomes = log.publish(&left).await;
        let mut outcomes = outcomes.into_iter();
        left.retain(|_| outcomes.next().is_some_and(|outcome| outcome.is_err()));
    }
    sent.iter().map(|message| message.id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn a_connection_that_freezes_is_given_up() {
    // Noticing takes its time; the three wait together.
    let mut waiting = JoinSet::new();
    for cluster in combinations().await {
        waiting.spawn(async move {
            let proxy = proxy_of(&cluster.options.brokers[0]).await;
            let far = cluster.through(proxy.address());
            let log = far.log();
            let feed = far.feed_of(far.client);
            let sent = published_by(&*log, 5).await;
            let deliveries = receive_all(&*feed, &sent).await;
            proxy.freeze();
            let started = Instant::now();
            for outcome in log.publish(&[message()]).await {
                assert!(
                    matches!(outcome, Err(PublishError::Unavailable(_))),
                    "{outcome:?}"
                );
            }
            let took = started.elapsed();
            assert!(took < Duration::from_secs(8), "{took:?}");
            match timeout(PATIENCE, feed.acknowledge(&highest(&deliveries))).await {
                Ok(Err(FeedError::Unavailable(_))) => {}
                other => panic!("{other:?}"),
            }
            until("down", || feed.standing() == Standing::Down).await;
            proxy.mend();
            let sent = published_by(&*log, 5).await;
            receive_all(&*feed, &sent).await;
        });
    }
    waiting.join_all().await;
}

/// How long what is sent is swallowed.
const HOLE: Duration = Duration::from_secs(8);

/// How long after it everything works again: librdkafka gives up what was swallowed last after 10 s, and connects anew.
const RECOVERY: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn after_a_hole_of_eight_seconds_the_log_is_used_again_within_seconds() {
    let mut waiting = JoinSet::new();
    for cluster in combinations().await {
        waiting.spawn(async move {
            let proxy = proxy_of(&cluster.options.brokers[0]).await;
            let far = cluster.through(proxy.address());
            let log = far.log();
            let feed = far.feed_of(far.client);
            let sent = published_by(&*log, 5).await;
            receive_all(&*feed, &sent).await;
            proxy.swallow();
            let end = Instant::now() + HOLE;
            while Instant::now() < end {
                let outcomes = timeout(HOLE, log.publish(&[message()])).await;
                assert!(outcomes.is_ok_and(|outcomes| outcomes[0].is_err()));
            }
            proxy.mend();
            let mended = Instant::now();
            let sent = published_by(&*log, 5).await;
            let published = mended.elapsed();
            receive_all(&*feed, &sent).await;
            let received = mended.elapsed();
            println!("{:?}: {published:?} {received:?}", far.client);
            assert!(published < RECOVERY, "{:?}: {published:?}", far.client);
            assert!(received < RECOVERY, "{:?}: {received:?}", far.client);
        });
    }
    waiting.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn a_log_that_is_down_from_the_start_is_found_later() {
    for cluster in combinations().await {
        let proxy = proxy_of(&cluster.options.brokers[0]).await;
        let far = cluster.through(proxy.address());
        proxy.cut();
        let log = far.log();
        let feed = far.feed_of(far.client);
        match kafka_probe::check(far.client.kind(), &far.options.brokers, PATIENCE).await {
            Err(error) if error.is_transient() => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(feed.standing(), Standing::Down);
        for outcome in log.publish(&messages(3)).await {
            assert!(
                matches!(outcome, Err(PublishError::Unavailable(_))),
                "{outcome:?}"
            );
        }
        match timeout(PATIENCE, feed.receive(1)).await {
            Ok(Err(FeedError::Unavailable(_))) => {}
            other => panic!("{other:?}"),
        }
        proxy.mend();
        let sent = published_by(&*log, 5).await;
        receive_all(&*feed, &sent).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn kafka_rust_refuses_kafka_4() {
    let cluster = Cluster::four(Client::Rdkafka).await;
    let brokers = cluster.options.brokers.clone();
    let says_what_to_set = |text: &str| {
        assert!(text.contains("KAFKA_CLIENT=rdkafka"), "{text}");
        assert!(text.contains("4.0"), "{text}");
    };
    match kafka_probe::check(KafkaClient::KafkaRust, &brokers, PATIENCE).await {
        Err(ProbeError::Incompatible(text)) => says_what_to_set(&text),
        other => panic!("{other:?}"),
    }
    let versions = kafka_probe::check(KafkaClient::Auto, &brokers, PATIENCE).await;
    assert!(versions.is_ok_and(|versions| !versions.suit_kafka_rust()));

    let feed = cluster.share(Share::WHOLE);
    match timeout(PATIENCE, feed.receive(1)).await {
        Ok(Err(FeedError::Refused(text))) => says_what_to_set(&text),
        other => panic!("{other:?}"),
    }
    match feed.standing() {
        Standing::Refused(text) => says_what_to_set(&text),
        other => panic!("{other:?}"),
    }
    let started = Instant::now();
    for outcome in cluster
        .log_of(Client::KafkaRust)
        .publish(&messages(2))
        .await
    {
        assert!(
            matches!(outcome, Err(PublishError::Unavailable(_))),
            "{outcome:?}"
        );
    }
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "it does not wait for a miracle"
    );
    let ensured = kafka::ensure_topics(&cluster.options, TopicSettings::default());
    match ensured.await {
        Err(TopicError::Refused(text)) => says_what_to_set(&text),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn kafka_rust_suits_kafka_3() {
    let cluster = Cluster::three(Client::KafkaRust).await;
    let versions =
        kafka_probe::check(KafkaClient::KafkaRust, &cluster.options.brokers, PATIENCE).await;
    assert!(versions.expect("it answers").suit_kafka_rust());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn a_group_with_other_members_refuses_and_says_so() {
    for cluster in [
        Cluster::three(Client::Rdkafka).await,
        Cluster::four(Client::Rdkafka).await,
    ] {
        // As the former service's workers do, it offers one protocol, and not ours.
        let theirs = cluster.foreign_member();
        let feed = cluster.feed_of(Client::Rdkafka);
        let refused = async {
            loop {
                if let Err(FeedError::Refused(text)) = feed.receive(1).await {
                    return text;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let text = timeout(PATIENCE, refused).await.expect("it is refused");
        assert!(text.contains(&cluster.group), "{text}");
        assert!(text.contains("KAFKA_GROUP_ID"), "{text}");
        theirs.leave();
        // No restart is needed when they are gone.
        let sent = published(&cluster, 10).await;
        receive_all(&*feed, &sent).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn kafka_rust_may_not_commit_to_a_group_with_members() {
    let cluster = Cluster::three(Client::KafkaRust).await;
    let theirs = cluster.foreign_member();
    let sent = published(&cluster, 10).await;
    let feed = cluster.share(Share::WHOLE);
    let deliveries = receive_all(&*feed, &sent).await;
    match feed.acknowledge(&highest(&deliveries)).await {
        Err(FeedError::Refused(text)) => assert!(text.contains(&cluster.group), "{text}"),
        other => panic!("{other:?}"),
    }
    theirs.leave();
    let started = Instant::now();
    while let Err(error) = feed.acknowledge(&highest(&deliveries)).await {
        assert!(started.elapsed() < PATIENCE, "{error:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn rubbish_in_numbers_stops_no_partition() {
    for cluster in combinations().await {
        let producer = cluster.producer();
        for index in 0..300_u32 {
            let value = match index % 3 {
                0 => Some(vec![0xff; 10]),
                1 => Some(Vec::new()),
                _ => None,
            };
            cluster
                .put(&producer, None, value)
                .await
                .expect("confirmed");
        }
        let sent = published(&cluster, 100).await;
        let feed = cluster.feed_of(cluster.client);
        let deliveries = receive_all(&*feed, &sent).await;
        assert_eq!(deliveries.len(), 400);
        let tombstones = deliveries
            .iter()
            .filter(|delivery| {
                matches!(
                    &delivery.content,
                    RecordContent::Unreadable { value: None, .. }
                )
            })
            .count();
        assert_eq!(tombstones, 100, "{:?}", cluster.client);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn a_wiped_topic_is_read_from_its_new_beginning() {
    for cluster in combinations().await {
        let sent = published(&cluster, 300).await;
        let feed = cluster.feed_of(cluster.client);
        let deliveries = receive_all(&*feed, &sent).await;
        feed.acknowledge(&highest(&deliveries))
            .await
            .expect("acknowledged");
        drop(feed);
        // The group's offsets now lie behind the beginning.
        published(&cluster, 300).await;
        cluster.delete_records().await;
        let fresh = published(&cluster, 50).await;
        let feed = cluster.feed_of(cluster.client);
        let deliveries = receive_all(&*feed, &fresh).await;
        assert_eq!(deliveries.len(), 50, "{:?}", cluster.client);
    }
}

/// Whoever reads on, and whoever comes later, gets what the new topic holds, and what was acknowledged of it does not come again. Nor
/// is what is gone taken for a backlog: that would keep waiting tasks from being claimed by age.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: run cargo xtask test"]
async fn a_topic_made_anew_is_read_from_its_beginning() {
    for cluster in combinations().await {
        let client = cluster.client;
        let sent = published(&cluster, 300).await;
        let feed = cluster.feed_of(client);
        let deliveries = receive_all(&*feed, &sent).await;
        feed.acknowledge(&highest(&deliveries))
            .await
            .expect("acknowledged");
        cluster.remake_input().await;
        let fresh = published(&cluster, 50).await;
        let deliveries = receive_all(&*feed, &fresh).await;
        assert_eq!(task_ids(&deliveries).len(), 50, "{client:?}");
        until("it is not behind", || feed.standing() == Standing::CaughtUp).await;
        feed.acknowledge(&highest(&deliveries))
            .await
            .expect("acknowledged");
        drop(feed);
        let later = published(&cluster, 50).await;
        let feed = cluster.feed_of(client);
        let deliveries = receive_all(&*feed, &later).await;
        let of_before = task_ids(&deliveries)
            .into_iter()
            .filter(|id| fresh.contains(id))
            .count();
        assert_eq!(
            of_before, 0,
            "{client:?}: what was acknowledged comes again"
        );
        feed.acknowledge(&highest(&deliveries))
            .await
            .expect("acknowledged");
        drop(feed);
        // The same while nobody reads.
        published(&cluster, 300).await;
        cluster.remake_input().await;
        let fresh = published(&cluster, 50).await;
        let feed = cluster.feed_of(client);
        let deliveries = receive_all(&*feed, &fresh).await;
        assert_eq!(task_ids(&deliveries).len(), 50, "{client:?}, nobody there");
    }
}

#[test]
fn settings_that_cannot_work_are_refused_at_once() {
    let nowhere = KafkaOptions::new(Vec::new());
    assert!(KafkaLog::connect(&nowhere).is_err());
    let backward = KafkaOptions {
        delivery_timeout: Duration::MAX,
        ..KafkaOptions::new(vec!["localhost:9092".into()])
    };
    assert!(RdkafkaLog::connect(&backward).is_err());
}
