//! Several workers, and the death of one; the death of a server.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::clients::{curl, post_all};
use crate::eventually;
use crate::programs::Program;
use crate::world::{Kafka, World, meter, text};

const DONE: &str = "task_processor_tasks_settled_total{status=\"done\"}";

#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn two_workers_of_a_group_share_the_work() {
    share(
        &World::new("share_rdkafka", Kafka::Four, "rdkafka"),
        [&[], &[]],
    );
}

#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 3.9: run cargo xtask test"]
fn two_workers_with_static_shares_share_the_work() {
    let first: &[(&str, &str)] = &[("WORKER_INDEX", "0"), ("WORKER_COUNT", "2")];
    let second: &[(&str, &str)] = &[("WORKER_INDEX", "1"), ("WORKER_COUNT", "2")];
    share(
        &World::new("share_kafka_rust", Kafka::Three, "kafka-rust"),
        [first, second],
    );
}

/// Every task is done once, and by both.
fn share(world: &World, settings: [&[(&str, &str)]; 2]) {
    world.migrate();
    let server = world.server();
    let workers = settings.map(|settings| world.worker(settings));
    let mut posted = 0;
    // A group takes its time to give the second member its share, and until then all records go to the first.
    eventually("both workers have done something", || {
        let bodies: Vec<String> = (0..50)
            .map(|number| json!({ "payload": format!("shared {number}") }).to_string())
            .collect();
        let accepted = post_all(&format!("{}/tasks", server.url), &bodies);
        for task in &accepted {
            world.done(&server, &text(&task["id"]));
        }
        posted += accepted.len() as u64;
        workers
            .iter()
            .all(|worker| meter(worker, DONE) > 0)
            .then_some(())
    });
    world.at_rest();
    let settled: Vec<u64> = workers.iter().map(|worker| meter(worker, DONE)).collect();
    assert_eq!(settled.iter().sum::<u64>(), posted, "{settled:?}");
    for worker in workers {
        let end = worker.stop();
        assert_eq!(end.code, Some(0), "{}", end.log);
    }
}

/// The worker is killed with tasks in hand, which is certain: somebody else's transaction keeps it from completing them.
#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn the_tasks_of_a_killed_worker_run_elsewhere() {
    let world = World::new("killed", Kafka::Four, "rdkafka");
    world.migrate();
    let server = world.server();
    let quick: &[(&str, &str)] = &[("BEAT", "200ms"), ("LEASE", "2s")];
    let victim = world.worker(quick);

    let mut blocker = Command::new("psql")
        .args(["--no-psqlrc", "-qtA", &world.database])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("psql is installed");
    let mut orders = blocker.stdin.take().expect("it is piped");
    orders
        .write_all(b"BEGIN; LOCK TABLE totals IN EXCLUSIVE MODE; SELECT 'locked';\n")
        .expect("psql reads");
    let mut said = String::new();
    BufReader::new(blocker.stdout.take().expect("it is piped"))
        .read_line(&mut said)
        .expect("psql answers");
    assert_eq!(said, "locked\n");

    let ids: Vec<String> = (0..20)
        .map(|number| world.submit(&server, &format!("in hand {number}")))
        .collect();
    eventually("the worker has all tasks in hand", || {
        (world.sql("SELECT count(*) FROM tasks WHERE status = 'processing'") == "20").then_some(())
    });
    let survivor = world.worker(quick);
    victim.kill();
    drop(orders);
    blocker.wait().expect("psql ends");
    // What the victim was about to write may have been waiting in the server, and is then as good as done.
    for id in &ids {
        world.done(&server, id);
    }
    world.at_rest();
    assert_eq!(
        world.sql("SELECT count(*) FROM tasks WHERE status = 'done'"),
        "20"
    );
    let totals = curl(&format!("{}/metrics", server.url), &[]).json();
    assert_eq!(totals["totalTasks"], 20, "counted once");
    eventually("the dead worker is gone from the registry", || {
        (world.sql("SELECT count(*) FROM workers") == "1").then_some(())
    });
    assert_eq!(survivor.stop().code, Some(0));
}

/// The client that saw no answer asks again, elsewhere: what the dead server promised is promised once.
#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 3.9: run cargo xtask test"]
fn a_key_survives_the_server_that_answered_it() {
    let world = World::new("key_crash", Kafka::Three, "rdkafka");
    world.migrate();
    let first = world.server();
    let task = r#"{"payload":"once","priority":4}"#;
    let batch = r#"[{"payload":"once"},{"payload":"and again","priority":9}]"#;
    let keyed = |server: &Program, path: &str, body: &str| {
        let arguments = [
            "--header",
            "Content-Type: application/json",
            "--header",
            "Idempotency-Key: \"order-17\"",
            "--data-binary",
            body,
        ];
        curl(&format!("{}{path}", server.url), &arguments)
    };
    let answers = [("/tasks", task), ("/tasks/batch", batch)]
        .map(|(path, body)| (path, body, keyed(&first, path, body)));
    for (path, _, answer) in &answers {
        assert_eq!(answer.status, 201, "{path}: {answer:?}");
    }
    first.kill();
    let rows = "SELECT id, payload, priority FROM tasks ORDER BY id";
    let stored = world.sql(rows);
    assert_eq!(stored.lines().count(), 3, "{stored}");

    let second = world.server();
    for (path, body, answer) in &answers {
        let again = keyed(&second, path, body);
        assert_eq!((again.status, &again.body), (201, &answer.body), "{path}");
        assert_eq!(
            again.header("location"),
            answer.header("location"),
            "{path}"
        );
    }
    assert!(answers[0].2.header("location").is_some(), "{answers:?}");
    for (path, body) in [
        ("/tasks", r#"{"payload":"twice","priority":4}"#),
        (
            "/tasks/batch",
            r#"[{"payload":"and again","priority":9},{"payload":"once"}]"#,
        ),
    ] {
        let other = keyed(&second, path, body);
        assert_eq!(other.status, 422, "{path}: {other:?}");
    }
    assert_eq!(world.sql(rows), stored, "nothing was stored again");

    let _worker = world.worker(&[]);
    for id in stored.lines().filter_map(|row| row.split('|').next()) {
        world.done(&second, id);
    }
    world.at_rest();
    let totals = curl(&format!("{}/metrics", second.url), &[]).json();
    assert_eq!(totals["totalTasks"], 3, "done once");
}
