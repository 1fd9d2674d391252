//! `POST /tasks/batch`.

use std::sync::Arc;

use ports::StoreError;
use ports::store::MockTaskStore;
use serde_json::{Value, json};
use task_processor_http::HttpConfig;

use crate::server::Server;

#[tokio::test]
async fn a_batch_is_stored_together_and_answered_in_its_order() {
    let server = Server::start().await;
    let answer = server
        .post_batch(r#"[{"payload":"a","priority":3},{"payload":"b","maxAttempts":1}]"#)
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    insta::assert_snapshot!(answer.text(), @r#"[{"id":"01941f29-7c00-7000-8000-000000000001","status":"pending","createdAt":"2025-01-01T00:00:00.000Z"},{"id":"01941f29-7c00-7000-8000-000000000002","status":"pending","createdAt":"2025-01-01T00:00:00.000Z"}]"#);
    let tasks = server.memory.store.snapshot().tasks;
    let kept: Vec<_> = tasks
        .iter()
        .map(|task| {
            (
                task.payload.as_str(),
                task.priority.get(),
                task.max_attempts,
            )
        })
        .collect();
    assert_eq!(kept, [("a", 3, 5), ("b", 0, 1)]);
}

#[tokio::test]
async fn a_thousand_are_a_batch_and_one_more_is_none() {
    let server = Server::start().await;
    let tasks = |count| Value::Array(vec![json!({"payload": "x"}); count]).to_string();
    let answer = server.post_batch(tasks(1_000)).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.json().as_array().map(Vec::len), Some(1_000));
    for (count, told) in [(0, "not 0"), (1_001, "not 1001"), (5_000, "not 5000")] {
        let answer = server.post_batch(tasks(count)).await;
        let problem = answer.problem(400);
        assert_eq!(problem["errors"][0]["field"], "");
        let detail = problem["errors"][0]["detail"].as_str().expect("a text");
        assert!(detail.ends_with(told), "{detail}");
    }
    assert_eq!(server.memory.store.snapshot().tasks.len(), 1_000);
}

#[tokio::test]
async fn every_wrong_field_of_every_item_is_named_and_nothing_is_stored() {
    let server = Server::start().await;
    let answer = server
        .post_batch(
            r#"[{"payload":"fine"},{"priority":11},5,{"payload":"x","runAt":"soon"},[{}],null]"#,
        )
        .await;
    let problem = answer.problem(400);
    let fields: Vec<&Value> = problem["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|error| &error["field"])
        .collect();
    assert_eq!(
        fields,
        ["/1/payload", "/1/priority", "/2", "/3/runAt", "/4", "/5"]
    );
    let long = "x".repeat(256 * 1024 + 1);
    let answer = server
        .post_batch(json!([{"payload": "fine"}, {"payload": long}]).to_string())
        .await;
    assert_eq!(answer.problem(400)["errors"][0]["field"], "/1/payload");
    assert!(server.memory.store.snapshot().tasks.is_empty());
}

#[tokio::test]
async fn bodies_that_are_no_batch() {
    let server = Server::start().await;
    for body in [
        "",
        " ",
        "{}",
        r#"{"payload":"x"}"#,
        "[",
        r#"[{"payload":"x"},]"#,
        "5",
    ] {
        let problem = server.post_batch(body).await.problem(400);
        assert_eq!(
            problem["type"], "urn:task-processor:problem:malformed-body",
            "{body}"
        );
    }
    let config = HttpConfig {
        max_body_bytes: 64,
        ..HttpConfig::default()
    };
    let server = Server::start_with(config, |_| {}).await;
    let within = json!([{"payload": "x".repeat(40)}, {"payload": "x".repeat(40)}]).to_string();
    assert_eq!(server.post_batch(&within).await.status, 201);
    let beyond = json!([{"payload": "x".repeat(64 * 16)}]).to_string();
    server.post_batch(&beyond).await.problem(413);
}

#[tokio::test]
async fn a_store_that_is_down_is_a_503() {
    let mut store = MockTaskStore::new();
    store
        .expect_insert()
        .returning(|_| Err(StoreError::Unavailable("refused".into())));
    let server =
        Server::start_with(HttpConfig::default(), |ports| ports.store = Arc::new(store)).await;
    server.post_batch(r#"[{"payload":"x"}]"#).await.problem(503);
}
