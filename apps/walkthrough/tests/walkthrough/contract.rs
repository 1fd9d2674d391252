//! The life of a task, as every client, topic reader and cache reader sees it.

use serde_json::{Value, json};

use crate::clients::{Record, curl, partitions, post, post_all, records_with_key, redis};
use crate::eventually;
use crate::world::{Kafka, World, meter, text};

#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 3.9: run cargo xtask test"]
fn rdkafka_on_kafka_3_9() {
    walk(&World::new("rdkafka_3", Kafka::Three, "rdkafka"));
}

#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn rdkafka_on_kafka_4() {
    walk(&World::new("rdkafka_4", Kafka::Four, "rdkafka"));
}

#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 3.9: run cargo xtask test"]
fn kafka_rust_on_kafka_3_9() {
    walk(&World::new("kafka_rust_3", Kafka::Three, "kafka-rust"));
}

#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn kafka_rust_refuses_kafka_4() {
    let world = World::new("kafka_rust_4", Kafka::Four, "kafka-rust");
    world.migrate();
    for program in ["task-processor-server", "task-processor-worker"] {
        let end = world.run(program, &[]);
        assert_eq!(end.code, Some(1), "{program}: {}", end.log);
        for word in ["kafka-rust", "4.", "KAFKA_CLIENT"] {
            assert!(
                end.log.contains(word),
                "{program} does not say {word}: {}",
                end.log
            );
        }
    }
}

fn walk(world: &World) {
    world.migrate();
    world.migrate();
    let server = world.server();
    for topic in ["tasks-input", "tasks-output"] {
        eventually("the topics are known", || {
            (partitions(&world.brokers, topic) > 0).then_some(())
        });
    }

    // Nobody works yet, so the first form can be seen.
    let accepted = post(
        &format!("{}/tasks", server.url),
        r#"{"payload":"Hello world!","priority":1}"#,
    );
    assert_eq!(accepted.status, 201, "{accepted:?}");
    let task = accepted.json();
    let id = text(&task["id"]);
    let created_at = text(&task["createdAt"]);
    assert_eq!(
        task,
        json!({ "id": id, "status": "pending", "createdAt": created_at })
    );
    assert_is_uuid(&id);
    assert_is_time(&created_at);
    assert_eq!(
        accepted.header("location"),
        Some(format!("/tasks/{id}").as_str())
    );

    let url = format!("{}/tasks/{id}", server.url);
    let unfinished = curl(&url, &[]).json();
    let of_contract = [
        "id",
        "payload",
        "priority",
        "status",
        "result",
        "createdAt",
        "updatedAt",
    ];
    let shown: Value = of_contract
        .iter()
        .map(|name| ((*name).to_owned(), unfinished[*name].clone()))
        .collect();
    let expected = json!({
        "id": id, "payload": "Hello world!", "priority": 1, "status": "pending", "result": null,
        "createdAt": created_at, "updatedAt": created_at,
    });
    assert_eq!(shown, expected, "{unfinished}");

    let input = only(&world.brokers, "tasks-input", &id);
    assert_eq!(
        input.json(),
        json!({ "taskId": id, "payload": "Hello world!", "priority": 1 })
    );
    assert_eq!(
        redis(&world.redis, &["EXISTS", &format!("task:result:{id}")]),
        "0",
        "only done tasks are cached"
    );

    let worker = world.worker(&[]);
    let body = world.done(&server, &id);
    let done: Value = serde_json::from_str(&body).expect("it is JSON");
    let processed_at = text(&done["processedAt"]);
    assert_is_time(&processed_at);
    assert_eq!(
        done,
        json!({ "taskId": id, "result": "!dlrow olleH (len=12)", "processedAt": processed_at })
    );

    // The same bytes in the cache, on the topic and by HTTP.
    let key = format!("task:result:{id}");
    let cached = eventually("the result is cached", || {
        Some(redis(&world.redis, &["GET", &key])).filter(|text| !text.is_empty())
    });
    assert_eq!(cached, body);
    let left: u32 = redis(&world.redis, &["TTL", &key])
        .parse()
        .expect("a number of seconds");
    assert!((3_500..=3_600).contains(&left), "{left} s to live");
    let output = eventually("the result is announced", || {
        records_with_key(&world.brokers, "tasks-output", &id).pop()
    });
    assert_eq!(output.value, body);

    // The columns that others read.
    let row = world.sql(&format!(
        "SELECT payload, priority, status, result, \
         to_char(created_at, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), \
         to_char(date_trunc('milliseconds', updated_at), 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') FROM tasks WHERE id = '{id}'"
    ));
    let created_in_table = world.sql(&format!(
        "SELECT to_char(date_trunc('milliseconds', created_at), 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') FROM tasks WHERE id = '{id}'"
    ));
    assert_eq!(created_in_table, created_at);
    let fields: Vec<&str> = row.split('|').collect();
    assert_eq!(
        fields[..4],
        ["Hello world!", "1", "done", "!dlrow olleH (len=12)"]
    );
    assert_eq!(fields[5], processed_at);

    let bodies: Vec<String> = (0..100)
        .map(|number| json!({ "payload": format!("many {number}"), "priority": 10 }).to_string())
        .collect();
    let accepted = post_all(&format!("{}/tasks", server.url), &bodies);
    assert_eq!(accepted.len(), 100);
    for task in &accepted {
        world.done(&server, &text(&task["id"]));
    }
    world.at_rest();
    assert_eq!(
        world.sql("SELECT count(*) FROM tasks WHERE status = 'done'"),
        "101"
    );

    // Rounded half up, as the mean over the table is.
    let mean = world.sql(
        "SELECT floor(avg(extract(epoch FROM updated_at - created_at)) * 1000 + 0.5)::bigint FROM tasks WHERE status = 'done'",
    );
    let mean: u64 = mean.parse().expect("a number of milliseconds");
    let metrics = curl(&format!("{}/metrics", server.url), &[]).json();
    assert_eq!(
        metrics,
        json!({ "totalTasks": 101, "averageProcessingTimeMs": mean })
    );

    assert_eq!(
        meter(
            &worker,
            "task_processor_tasks_settled_total{status=\"done\"}"
        ),
        101
    );
    let end = worker.stop();
    assert_eq!(end.code, Some(0), "{}", end.log);
    assert_eq!(
        world.sql("SELECT count(*) FROM workers"),
        "0",
        "a worker that stopped says so"
    );
    problems(&server.url);
    let end = server.stop();
    assert_eq!(end.code, Some(0), "{}", end.log);
}

/// The form of failures.
fn problems(server: &str) {
    let tasks = format!("{server}/tasks");
    let unknown = format!("{tasks}/00000000-0000-4000-8000-000000000000");
    let no_id = format!("{tasks}/42");
    let nowhere = format!("{server}/nowhere");
    let json = "Content-Type: application/json";
    for (url, arguments, status) in [
        (
            &tasks,
            vec![
                "--header",
                json,
                "--data-binary",
                r#"{"payload":"x","priority":11}"#,
            ],
            400,
        ),
        (
            &tasks,
            vec!["--header", json, "--data-binary", r#"{"payload":"\u0000"}"#],
            400,
        ),
        (&tasks, vec!["--header", json, "--data-binary", "{"], 400),
        (
            &tasks,
            vec!["--header", "Content-Type: text/plain", "--data-binary", "x"],
            415,
        ),
        (&tasks, vec!["--request", "DELETE"], 405),
        (&unknown, vec![], 404),
        (&no_id, vec![], 400),
        (&nowhere, vec![], 404),
    ] {
        let answer = curl(url, &arguments);
        assert_eq!(answer.status, status, "{url} {arguments:?}: {answer:?}");
        assert_eq!(
            answer
                .header("content-type")
                .map(|value| value.split(';').next()),
            Some(Some("application/problem+json"))
        );
        assert_eq!(answer.json()["status"], status, "{answer:?}");
    }
}

fn only(brokers: &str, topic: &str, key: &str) -> Record {
    let mut records = records_with_key(brokers, topic, key);
    let record = records
        .pop()
        .unwrap_or_else(|| panic!("nothing of {key} on {topic}"));
    assert_eq!(records, [], "one record on {topic}");
    record
}

fn assert_is_uuid(text: &str) {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12], "{text}");
    assert!(
        text.chars().all(|c| c == '-' || c.is_ascii_hexdigit()),
        "{text}"
    );
}

/// RFC 3339, UTC, milliseconds, `Z`.
fn assert_is_time(text: &str) {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{text}");
}
