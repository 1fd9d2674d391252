//! Kafka and Redis absent when a task is posted.

use crate::clients::{curl, partitions, records_with_key, redis};
use crate::eventually;
use crate::programs::{Program, directory, free_port};
use crate::world::World;

#[test]
#[ignore = "needs PostgreSQL, and programs to start Redis and Kafka 4: run cargo xtask test"]
fn tasks_are_done_without_kafka_and_redis_with_rdkafka() {
    outage("outage_rdkafka", "4", "rdkafka");
}

#[test]
#[ignore = "needs PostgreSQL, and programs to start Redis and Kafka 3.9: run cargo xtask test"]
fn tasks_are_done_without_kafka_and_redis_with_kafka_rust() {
    outage("outage_kafka_rust", "3", "kafka-rust");
}

/// A broker and a Redis of its own go away and come back.
fn outage(name: &'static str, major: &str, client: &str) {
    let home = directory(&format!("{name}-services-{}", std::process::id()));
    let (kafka_port, redis_port) = (free_port(), free_port());
    let kafka = Program::broker(major, kafka_port, &home);
    let cache = Program::redis(redis_port, &home);
    let brokers = format!("127.0.0.1:{kafka_port}");
    let world = World::on(
        name,
        brokers.clone(),
        format!("redis://127.0.0.1:{redis_port}"),
        client,
    );
    world.migrate();
    let server = world.server();
    let worker = world.worker(&[]);
    for topic in ["tasks-input", "tasks-output", "tasks-dead-letter"] {
        // The programs serve while the topics are still being made.
        let made = eventually("the topics are there", || {
            Some(partitions(&brokers, topic)).filter(|count| *count > 0)
        });
        assert_eq!(
            made, 4,
            "{topic} was made by us, not by a broker that was asked about it"
        );
    }
    let before = world.submit(&server, "before");
    world.done(&server, &before);
    world.at_rest();

    kafka.kill();
    cache.kill();
    let during = world.submit(&server, "during");
    let body = world.done(&server, &during);
    assert!(body.contains("gnirud (len=6)"), "{body}");
    assert_eq!(
        curl(&format!("{}/health/ready", server.url), &[]).status,
        200,
        "the database is all it needs"
    );

    let _kafka = Program::broker(major, kafka_port, &home);
    let _cache = Program::redis(redis_port, &home);
    // What could not be announced is kept until it can be.
    let announced = eventually("the result is announced after all", || {
        records_with_key(&brokers, "tasks-output", &during).pop()
    });
    assert_eq!(announced.value, body);
    // The server looks once a second whether the log is back; what it accepts before is done without a message.
    let (after, body) = eventually("messages are sent again", || {
        let after = world.submit(&server, "after");
        let body = world.done(&server, &after);
        let sent = records_with_key(&brokers, "tasks-input", &after).len();
        assert!(sent <= 1, "{sent} messages for one task");
        (sent == 1).then_some((after, body))
    });
    world.at_rest();
    eventually("the cache is used again", || {
        (redis(&world.redis, &["GET", &format!("task:result:{after}")]) == body).then_some(())
    });
    assert_eq!(worker.stop().code, Some(0));
    assert_eq!(server.stop().code, Some(0));
}
