//! `GET /tasks/{id}`.

use std::sync::Arc;

use ports::cache::MockResultCache;
use ports::store::MockTaskStore;
use ports::{
    CacheError, Event, Fence, Payload, Priority, StoreError, Task, TaskId, TaskStatus, Timestamp,
};
use task_processor_http::HttpConfig;

use crate::server::Server;

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
const DONE: &str = r#"{"taskId":"01890a5d-ac96-774b-bcce-b302099a8057","result":"!dlrow \"olleH\" (len=14)","processedAt":"2025-01-01T00:00:02.345Z"}"#;

fn task(status: TaskStatus) -> Task {
    Task {
        id: ID.parse().expect("an id"),
        payload: Payload::new("\"Hello\" world!").expect("no NUL"),
        priority: Priority::new(3).expect("0..=10"),
        status,
        result: (status == TaskStatus::Done).then(|| "!dlrow \"olleH\" (len=14)".to_owned()),
        error: Some("the last error".to_owned()),
        attempts: 2,
        max_attempts: 5,
        rescues: 0,
        fence: Fence(4),
        created_at: Timestamp::from_micros(1_735_689_600_000_999),
        updated_at: Timestamp::from_micros(1_735_689_602_345_999),
    }
}

async fn server_with(task: Task) -> Server {
    let mut store = MockTaskStore::new();
    store.expect_get().returning(move |ids| {
        Ok(ids
            .iter()
            .map(|id| (*id == task.id).then(|| task.clone()))
            .collect())
    });
    Server::start_with(HttpConfig::default(), |ports| ports.store = Arc::new(store)).await
}

#[tokio::test]
async fn a_done_task_is_the_bytes_of_its_result_from_store_and_cache_alike() {
    let server = server_with(task(TaskStatus::Done)).await;
    for lookup in ["store", "cache"] {
        let answer = server.get(&format!("/tasks/{ID}")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("content-type"),
            Some("application/json; charset=utf-8")
        );
        assert_eq!(answer.text(), DONE, "from the {lookup}");
    }
    for hit in [false, true] {
        let count = server
            .memory
            .observer
            .count(|event| *event == Event::CacheLookup { hit });
        assert_eq!(count, 1, "hit: {hit}");
    }
}

#[tokio::test]
async fn a_waiting_task_shows_its_details() {
    let server = server_with(task(TaskStatus::Pending)).await;
    let answer = server.get(&format!("/tasks/{ID}")).await;
    insta::assert_snapshot!(answer.text(), @r#"{"id":"01890a5d-ac96-774b-bcce-b302099a8057","payload":"\"Hello\" world!","priority":3,"status":"pending","result":null,"createdAt":"2025-01-01T00:00:00.000Z","updatedAt":"2025-01-01T00:00:02.345Z","attempts":2}"#);
}

#[tokio::test]
async fn only_a_failed_task_shows_an_error() {
    let server = server_with(task(TaskStatus::Failed)).await;
    let answer = server.get(&format!("/tasks/{ID}")).await;
    insta::assert_snapshot!(answer.text(), @r#"{"id":"01890a5d-ac96-774b-bcce-b302099a8057","payload":"\"Hello\" world!","priority":3,"status":"failed","result":null,"createdAt":"2025-01-01T00:00:00.000Z","updatedAt":"2025-01-01T00:00:02.345Z","attempts":2,"error":"the last error"}"#);
    for status in [TaskStatus::Processing, TaskStatus::Cancelled] {
        let server = server_with(task(status)).await;
        let body = server.get(&format!("/tasks/{ID}")).await.json();
        assert_eq!(body["status"], status.as_str());
        assert_eq!(body.get("error"), None, "{status}");
        assert_eq!(
            body.get("result"),
            Some(&serde_json::Value::Null),
            "{status}"
        );
    }
}

#[tokio::test]
async fn an_id_may_be_of_any_version_and_case() {
    let mut waiting = task(TaskStatus::Pending);
    waiting.id = TaskId(
        "5d3ba2c4-8b3a-4e0d-9b57-0a6f0d6c1f11"
            .parse()
            .expect("a UUID"),
    );
    let server = server_with(waiting).await;
    for id in [
        "5d3ba2c4-8b3a-4e0d-9b57-0a6f0d6c1f11",
        "5D3BA2C4-8B3A-4E0D-9B57-0A6F0D6C1F11",
        "%35d3ba2c4-8b3a-4e0d-9b57-0a6f0d6c1f11",
    ] {
        assert_eq!(
            server.get(&format!("/tasks/{id}")).await.status,
            200,
            "{id}"
        );
    }
}

#[tokio::test]
async fn an_unknown_task_is_a_404() {
    let server = Server::start().await;
    let answer = server.get(&format!("/tasks/{ID}")).await;
    answer.problem(404);
    insta::assert_snapshot!(answer.text(), @r#"{"type":"urn:task-processor:problem:unknown-task","title":"No such task","status":404,"detail":"there is no task with this id","instance":"/tasks/01890a5d-ac96-774b-bcce-b302099a8057"}"#);
}

#[tokio::test]
async fn a_cache_that_fails_costs_no_answer() {
    let mut cache = MockResultCache::new();
    cache
        .expect_get()
        .returning(|_| Err(CacheError::Unavailable("refused".into())));
    cache
        .expect_put()
        .returning(|_| Err(CacheError::Unavailable("refused".into())));
    let mut store = MockTaskStore::new();
    store
        .expect_get()
        .returning(|_| Ok(vec![Some(task(TaskStatus::Done))]));
    let server = Server::start_with(HttpConfig::default(), |ports| {
        ports.cache = Arc::new(cache);
        ports.store = Arc::new(store);
    })
    .await;
    assert_eq!(server.get(&format!("/tasks/{ID}")).await.text(), DONE);
}

#[tokio::test]
async fn a_store_that_is_down_is_a_503_and_is_told_to_the_observer() {
    let mut store = MockTaskStore::new();
    store
        .expect_get()
        .returning(|_| Err(StoreError::Unavailable("refused".into())));
    let server =
        Server::start_with(HttpConfig::default(), |ports| ports.store = Arc::new(store)).await;
    let answer = server.get(&format!("/tasks/{ID}")).await;
    answer.problem(503);
    assert_eq!(answer.header("retry-after"), Some("2"));
    let told = server.memory.observer.events().iter().any(|event| {
        matches!(event, Event::DependencyFailed { doing: "read", error, .. }
            if error == "the task store is unavailable: refused")
    });
    assert!(told);
}
