//! `POST /tasks`.

use std::sync::Arc;

use ports::store::MockTaskStore;
use ports::{Event, StoreError};
use serde_json::json;
use task_processor_http::HttpConfig;

use crate::server::Server;

#[tokio::test]
async fn a_task_is_stored_and_published_before_it_is_confirmed() {
    let server = Server::start().await;
    let answer = server
        .post(r#"{"payload":"Hello world!","priority":1}"#)
        .await;
    assert_eq!(answer.status, 201);
    assert_eq!(
        answer.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    insta::assert_snapshot!(
        answer.text(),
        @r#"{"id":"01941f29-7c00-7000-8000-000000000001","status":"pending","createdAt":"2025-01-01T00:00:00.000Z"}"#
    );
    let id = "01941f29-7c00-7000-8000-000000000001";
    assert_eq!(
        answer.header("location"),
        Some(format!("/tasks/{id}").as_str())
    );
    let stored = server.memory.task(id.parse().expect("an id"));
    assert_eq!(stored.payload.as_str(), "Hello world!");
    assert_eq!(stored.priority.get(), 1);
}

#[tokio::test]
async fn what_a_client_may_leave_out_or_write_differently() {
    let server = Server::start().await;
    let cases = [
        (json!({"payload": ""}), 0, 5),
        (json!({"payload": "x", "priority": 1.0}), 1, 5),
        (
            json!({"payload": "x", "priority": 10, "maxAttempts": 1}),
            10,
            1,
        ),
        (json!({"payload": "x", "maxAttempts": 100.0}), 0, 100),
        (
            json!({"payload": "👍🏽é\u{1}", "unknown": {"payload": 3}}),
            0,
            5,
        ),
    ];
    for (body, priority, max_attempts) in cases {
        let answer = server.post(body.to_string()).await;
        assert_eq!(answer.status, 201, "{body}");
        let id = answer.json()["id"].as_str().and_then(|id| id.parse().ok());
        let stored = server.memory.task(id.expect("an id"));
        assert_eq!(body["payload"], stored.payload.as_str());
        assert_eq!(stored.priority.get(), priority, "{body}");
        assert_eq!(stored.max_attempts, max_attempts, "{body}");
    }
}

#[tokio::test]
async fn run_at_delays_a_task() {
    let server = Server::start().await;
    let answer = server
        .post(r#"{"payload":"x","runAt":"2025-01-01T03:00:00.5+02:00"}"#)
        .await;
    assert_eq!(answer.status, 201);
    let snapshot = server.memory.store.snapshot();
    let not_before: Vec<String> = snapshot
        .queue
        .iter()
        .map(|entry| entry.not_before.to_string())
        .collect();
    assert_eq!(not_before, ["2025-01-01T01:00:00.500Z"]);
}

#[tokio::test]
async fn a_store_that_is_down_is_a_503_that_says_when_to_come_back() {
    let mut store = MockTaskStore::new();
    store.expect_insert().returning(|_| {
        Err(StoreError::Unavailable(
            "password of the database: hunter2".into(),
        ))
    });
    let server =
        Server::start_with(HttpConfig::default(), |ports| ports.store = Arc::new(store)).await;
    let answer = server.post(r#"{"payload":"x"}"#).await;
    answer.problem(503);
    insta::assert_snapshot!(answer.text(), @r#"{"type":"urn:task-processor:problem:store-unavailable","title":"The task store is unavailable","status":503,"detail":"the task store did not answer in time","instance":"/tasks"}"#);
    assert_eq!(answer.header("retry-after"), Some("2"));
    assert!(!answer.text().contains("hunter2"));
}

#[tokio::test]
async fn a_task_that_the_store_refuses_is_a_400() {
    let mut store = MockTaskStore::new();
    store
        .expect_insert()
        .returning(|_| Err(StoreError::Rejected("value too long".into())));
    let server =
        Server::start_with(HttpConfig::default(), |ports| ports.store = Arc::new(store)).await;
    let answer = server.post(r#"{"payload":"x"}"#).await;
    let problem = answer.problem(400);
    assert_eq!(problem["type"], "urn:task-processor:problem:invalid-task");
}

#[tokio::test]
async fn a_defect_is_a_500_without_details_and_the_connection_lives_on() {
    let mut store = MockTaskStore::new();
    store.expect_get().returning(|_| panic!("secret detail"));
    let server =
        Server::start_with(HttpConfig::default(), |ports| ports.store = Arc::new(store)).await;
    let mut client = server.connect().await;
    client
        .send("GET /tasks/01890a5d-ac96-774b-bcce-b302099a8057 HTTP/1.1\r\nhost: test\r\n\r\n")
        .await;
    let answer = client.receive().await;
    answer.problem(500);
    insta::assert_snapshot!(answer.text(), @r#"{"type":"urn:task-processor:problem:internal","title":"Something went wrong","status":500,"detail":"the details are in the log of the service","instance":"/tasks/01890a5d-ac96-774b-bcce-b302099a8057"}"#);
    client
        .send("GET /health/live HTTP/1.1\r\nhost: test\r\n\r\n")
        .await;
    assert_eq!(client.receive().await.status, 200);
}

#[tokio::test]
async fn a_submission_is_counted() {
    let server = Server::start().await;
    server.post(r#"{"payload":"x"}"#).await;
    let submitted = |event: &Event| *event == Event::Submitted { count: 1 };
    assert_eq!(server.memory.observer.count(submitted), 1);
    let metrics = server.get_as("/metrics", "text/plain").await;
    assert!(
        metrics
            .text()
            .contains("\ntask_processor_tasks_submitted_total 1\n")
    );
}
