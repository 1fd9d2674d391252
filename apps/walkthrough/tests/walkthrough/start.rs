//! Many replicas started at the same moment.

use crate::clients::try_curl;
use crate::programs::Program;
use crate::world::{Kafka, World};
use crate::{SERVER, WORKER, eventually};

/// On an empty database one of them makes the schema, the others wait for that, and all become ready.
#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn ten_replicas_start_at_once_on_an_empty_database() {
    let world = World::new("start", Kafka::Four, "rdkafka");
    // Making a connection is slow work for programs that are not optimised.
    let settings: &[(&str, &str)] = &[("MIGRATE", "true"), ("DATABASE_POOL", "2")];
    let mut replicas: Vec<Program> = [SERVER, WORKER]
        .iter()
        .cycle()
        .take(10)
        .map(|name| world.begin(name, settings))
        .collect();
    for replica in &mut replicas {
        replica.wait_until_ready();
    }
    let migrated = replicas
        .iter()
        .filter(|replica| replica.log().contains("schema.migrated"))
        .count();
    assert_eq!(migrated, 1, "one of them made the schema");
    let status = world.run("task-processor-migrate", &["status"]);
    assert_eq!(status.code, Some(0), "{}", status.log);
    eventually("five workers are registered", || {
        (world.sql("SELECT count(*) FROM workers WHERE NOT dead") == "5").then_some(())
    });
    let task = world.submit(&replicas[0], "first");
    world.done(&replicas[2], &task);
    for replica in &replicas {
        let url = format!("{}/health/ready", replica.url);
        assert_eq!(try_curl(&url, &[]).map(|answer| answer.status), Some(200));
        replica.signal("TERM");
    }
    for replica in &mut replicas {
        let end = replica.ended();
        assert_eq!(end.code, Some(0), "{}", end.log);
    }
}
