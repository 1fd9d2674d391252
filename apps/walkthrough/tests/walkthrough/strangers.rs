//! Others on the same topics, the same table and the same cache.

use serde_json::{Value, json};

use crate::clients::{Member, Record, curl, produce, records, records_with_key, redis, try_curl};
use crate::eventually;
use crate::world::{Kafka, World, text};

/// Members of one group must agree on a protocol: workers of the older service and ours cannot be in one. Ours says so, goes
/// on by age, and joins when the others have left.
#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn a_worker_that_its_group_refuses_says_so_and_works_by_age() {
    let world = World::new("refused", Kafka::Four, "rdkafka");
    world.migrate();
    let server = world.server();
    let older = Member::join(&world.brokers, world.group(), "tasks-input");
    let worker = world.unready_worker();
    let ready = format!("{}/health/ready", worker.url);
    let refusal = eventually("the worker is refused", || {
        try_curl(&ready, &[]).filter(|answer| answer.status == 503)
    });
    let detail = text(&refusal.json()["detail"]);
    assert!(detail.contains(world.group()), "{detail}");
    let id = world.submit(&server, "abc");
    assert!(world.done(&server, &id).contains("cba (len=3)"));
    drop(older);
    eventually("the worker has joined", || {
        try_curl(&ready, &[]).filter(|answer| answer.status == 200)
    });
}

#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn rubbish_stops_no_partition_with_rdkafka() {
    rubbish(&World::new("rubbish_rdkafka", Kafka::Four, "rdkafka"));
}

#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 3.9: run cargo xtask test"]
fn rubbish_stops_no_partition_with_kafka_rust() {
    rubbish(&World::new(
        "rubbish_kafka_rust",
        Kafka::Three,
        "kafka-rust",
    ));
}

fn rubbish(world: &World) {
    world.migrate();
    let server = world.server();
    let _worker = world.worker(&[]);
    let early = world.submit(&server, "early");
    let body = world.done(&server, &early);

    let mark = format!("{}-{}", world.name, std::process::id());
    let unreadable = format!("not JSON {mark}");
    let binary = [b"\xff\xfe\x00".as_slice(), mark.as_bytes()].concat();
    let fieldless = format!("{{\"payload\":\"{mark}\"}}");
    let unknown = "00000000-0000-4000-8000-00000000dead";
    produce(&world.brokers, "tasks-input", &mark, unreadable.as_bytes());
    produce(&world.brokers, "tasks-input", &mark, &binary);
    produce(&world.brokers, "tasks-input", &mark, fieldless.as_bytes());
    produce(
        &world.brokers,
        "tasks-input",
        unknown,
        format!("{{\"taskId\":\"{unknown}\",\"payload\":\"{mark}\",\"priority\":1}}").as_bytes(),
    );
    // A repeat of a task that is done, with another payload: the stored one counts, and nothing changes.
    produce(
        &world.brokers,
        "tasks-input",
        &early,
        format!("{{\"taskId\":\"{early}\",\"payload\":\"{mark}\",\"priority\":1}}").as_bytes(),
    );

    // The same key goes to the same partition, behind the rubbish.
    let id = world.sql(&format!(
        "INSERT INTO tasks (payload, priority) VALUES ('{mark}', 3) RETURNING id"
    ));
    produce(
        &world.brokers,
        "tasks-input",
        &mark,
        format!("{{\"taskId\":\"{id}\",\"payload\":\"{mark}\",\"priority\":3}}").as_bytes(),
    );
    world.done(&server, &id);

    let dead: Vec<Record> = eventually("rubbish is kept as dead letters", || {
        let dead = records_with_key(&world.brokers, "tasks-dead-letter", &mark);
        (dead.len() >= 3).then_some(dead)
    });
    let letters: Vec<Value> = dead.iter().map(Record::json).collect();
    for letter in &letters {
        for field in [
            "reason",
            "topic",
            "partition",
            "offset",
            "key",
            "value",
            "valueEncoding",
            "failedAt",
        ] {
            assert!(letter.get(field).is_some(), "{field} in {letter}");
        }
        assert_eq!(letter["topic"], "tasks-input");
    }
    for value in [&unreadable, &fieldless] {
        let found = letters.iter().any(|letter| {
            letter["value"] == **value && letter["key"] == mark && letter["valueEncoding"] == "utf8"
        });
        assert!(found, "{value} in {letters:?}");
    }
    // The first three bytes of what is not text are the first four letters in base 64.
    let in_base64 = |letter: &&Value| letter["valueEncoding"] == "base64";
    let value = text(&letters.iter().find(in_base64).expect("one is not text")["value"]);
    assert!(value.starts_with("//4A"), "{value}");
    assert_eq!(
        records_with_key(&world.brokers, "tasks-dead-letter", unknown).len(),
        0,
        "an unknown task is no dead letter"
    );
    assert_eq!(
        world.done(&server, &early),
        body,
        "a done task never changes"
    );
    assert_eq!(
        world.sql(&format!(
            "SELECT count(*) FROM tasks WHERE id = '{unknown}'"
        )),
        "0"
    );

    // Rubbish in the cache is a miss.
    redis(
        &world.redis,
        &["SET", &format!("task:result:{id}"), "rubbish"],
    );
    let answer = curl(&format!("{}/tasks/{id}", server.url), &[]);
    assert_eq!(
        (answer.status, answer.json()["taskId"] == id.as_str()),
        (200, true),
        "{answer:?}"
    );
}

/// The table of the existing service with rows of every status, its cache entry, its messages; then its API goes on writing.
#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 3.9: run cargo xtask test"]
fn the_existing_service_is_taken_over() {
    let world = World::new("takeover", Kafka::Three, "rdkafka");
    world.sql(
        "CREATE TYPE task_status AS ENUM ('pending', 'processing', 'done', 'failed'); \
         CREATE TABLE tasks (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), payload text NOT NULL, priority integer NOT NULL, \
         status task_status NOT NULL DEFAULT 'pending', result text, \
         created_at timestamp NOT NULL DEFAULT now(), updated_at timestamp NOT NULL DEFAULT now()); \
         INSERT INTO tasks (payload, priority, status, result, created_at, updated_at) VALUES \
         ('old done', 1, 'done', 'enod dlo (len=8)', '2025-01-01 00:00:00', '2025-01-01 00:00:02.345'), \
         ('old pending', 2, 'pending', NULL, '2025-01-01 00:00:00', '2025-01-01 00:00:00'), \
         ('old processing', 3, 'processing', NULL, '2025-01-01 00:00:00', '2025-01-01 00:00:01'), \
         ('old failed', 4, 'failed', NULL, '2025-01-01 00:00:00', '2025-01-01 00:00:01')",
    );
    let id_of =
        |payload: &str| world.sql(&format!("SELECT id FROM tasks WHERE payload = '{payload}'"));
    let before = world.sql("SELECT id, payload, priority, created_at FROM tasks ORDER BY payload");
    world.migrate();
    assert_eq!(
        world.sql("SELECT id, payload, priority, created_at FROM tasks ORDER BY payload"),
        before
    );

    let server = world.server();
    let worker = world.worker(&[]);
    let metrics = curl(&format!("{}/metrics", server.url), &[]).json();
    assert!(
        metrics["totalTasks"]
            .as_u64()
            .is_some_and(|total| total >= 1),
        "{metrics}"
    );
    let old = curl(&format!("{}/tasks/{}", server.url, id_of("old done")), &[]).json();
    let expected = json!({ "taskId": id_of("old done"), "result": "enod dlo (len=8)", "processedAt": "2025-01-01T00:00:02.345Z" });
    assert_eq!(old, expected);
    let failed = curl(
        &format!("{}/tasks/{}", server.url, id_of("old failed")),
        &[],
    )
    .json();
    assert_eq!(failed["status"], "failed");
    for (payload, result) in [
        ("old pending", "gnidnep dlo (len=11)"),
        ("old processing", "gnissecorp dlo (len=14)"),
    ] {
        let body = world.done(&server, &id_of(payload));
        assert!(body.contains(result), "{body}");
    }

    // The existing API inserts a row and sends a message; it knows nothing of a queue.
    let id = world
        .sql("INSERT INTO tasks (payload, priority) VALUES ('from the old API', 5) RETURNING id");
    let message = json!({ "taskId": id, "payload": "from the old API", "priority": 5 }).to_string();
    produce(&world.brokers, "tasks-input", &id, message.as_bytes());
    let key = format!("task:result:{id}");
    let cached = eventually("the old API's task is cached", || {
        Some(redis(&world.redis, &["GET", &key])).filter(|text| !text.is_empty())
    });
    let done: Value = serde_json::from_str(&cached).expect("it is JSON");
    let processed_at = text(&done["processedAt"]);
    assert_eq!(
        done,
        json!({ "taskId": id, "result": "IPA dlo eht morf (len=16)", "processedAt": processed_at })
    );
    let announced = eventually("it is announced", || {
        records_with_key(&world.brokers, "tasks-output", &id).pop()
    });
    assert_eq!(announced.value, cached);
    // The old API reads status and result from the table.
    let row = world.sql(&format!(
        "SELECT status, result FROM tasks WHERE id = '{id}'"
    ));
    assert_eq!(row, "done|IPA dlo eht morf (len=16)");
    world.at_rest();

    assert_eq!(worker.stop().code, Some(0));
    assert_eq!(server.stop().code, Some(0));
    // The way back keeps the table.
    let down = world.run("task-processor-migrate", &["down"]);
    assert_eq!(down.code, Some(0), "{}", down.log);
    assert_eq!(world.sql("SELECT count(*) FROM tasks"), "5");
    let columns = "SELECT string_agg(column_name, ' ' ORDER BY ordinal_position) FROM information_schema.columns WHERE table_name = 'tasks'";
    assert!(
        world
            .sql(columns)
            .starts_with("id payload priority status result created_at updated_at")
    );
    assert!(
        records(&world.brokers, "tasks-output")
            .iter()
            .any(|record| record.key == id)
    );
}
