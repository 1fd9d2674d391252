//! Several workers, and the death of one; the death of a server.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::callee;
use crate::clients::{curl, post_all};
use crate::eventually;
use crate::patience::PATIENCE;
use crate::programs::Program;
use crate::world::{Kafka, World, meter, text};

/// Within which the tasks of a dead worker run elsewhere.
const PROMISED: Duration = Duration::from_secs(10);

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

/// The worker is killed while it runs the function of every task, with the settings that users have.
#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn the_tasks_of_a_killed_worker_run_elsewhere_within_10_seconds() {
    let world = World::new("killed", Kafka::Four, "rdkafka");
    world.migrate();
    let server = world.server();
    let (tell, runs) = channel();
    let known = Mutex::<BTreeSet<String>>::default();
    // The first run of a task takes for ever, the second no time.
    let url = callee::serve(move |call| {
        let is_first = known.lock().expect("no panic").insert(call.id.clone());
        tell.send((call.id.clone(), call.attempt, Instant::now()))
            .ok();
        if is_first {
            call.until_given_up();
        } else {
            call.answer("200 OK", "heard").expect("the worker reads");
        }
    });
    let settings = callee::settings(&url);
    let victim = world.worker(&settings);

    let ids: BTreeSet<String> = (0..20)
        .map(|number| world.submit(&server, &format!("in hand {number}")))
        .collect();
    let next = || runs.recv_timeout(PATIENCE).expect("a task is run");
    let in_hand: BTreeSet<String> = ids.iter().map(|_| next().0).collect();
    assert_eq!(in_hand, ids);
    let survivor = world.worker(&settings);
    let killed = Instant::now();
    victim.kill();
    let mut slowest = Duration::ZERO;
    let rescued: BTreeSet<String> = ids
        .iter()
        .map(|_| {
            let (id, attempt, began) = next();
            assert_eq!(attempt, 1, "no attempt was spent");
            slowest = slowest.max(began.duration_since(killed));
            id
        })
        .collect();
    assert_eq!(rescued, ids);
    println!("the last task runs elsewhere after {slowest:?}");
    assert!(slowest <= PROMISED, "{slowest:?}");

    for id in &ids {
        world.done(&server, id);
    }
    world.at_rest();
    assert_eq!(
        world.sql("SELECT status, attempts, rescues, count(*) FROM tasks GROUP BY 1, 2, 3"),
        "done|1|1|20"
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
