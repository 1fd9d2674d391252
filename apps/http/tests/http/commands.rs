//! `POST /tasks/{id}/cancel` and `POST /tasks/{id}/retry`.

use std::sync::Arc;

use ports::store::MockTaskStore;
use ports::{Event, Next, StoreError, TaskStatus};
use task_processor_http::HttpConfig;

use crate::server::{Server, bring_to_rest};

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn failed() -> Next {
    Next::Failed {
        error: "out of order".to_owned(),
    }
}

#[tokio::test]
async fn a_task_is_cancelled_once_and_the_answer_is_repeated() {
    let server = Server::start().await;
    let id = server.memory.submit("Hello world!").await;
    let first = server.post_to(&format!("/tasks/{id}/cancel")).await;
    assert_eq!(first.status, 200, "{first:?}");
    insta::assert_snapshot!(first.text(), @r#"{"id":"01941f29-7c00-7000-8000-000000000001","payload":"Hello world!","priority":0,"status":"cancelled","result":null,"createdAt":"2025-01-01T00:00:00.000Z","updatedAt":"2025-01-01T00:00:00.000Z","attempts":0}"#);
    server.memory.advance(std::time::Duration::from_secs(60));
    let again = server.post_to(&format!("/tasks/{id}/cancel")).await;
    assert_eq!((again.status, again.text()), (200, first.text()));
    let read = server.get(&format!("/tasks/{id}")).await;
    assert_eq!((read.status, read.text()), (200, first.text()));
    let cancelled = |event: &Event| *event == Event::Cancelled { id };
    assert_eq!(server.memory.observer.count(cancelled), 1);
    let refused = server.post_to(&format!("/tasks/{id}/retry")).await;
    assert_eq!(refused.problem(409)["taskStatus"], "cancelled");
}

#[tokio::test]
async fn what_is_done_or_failed_is_not_cancelled() {
    let server = Server::start().await;
    let done = server.memory.submit("a").await;
    let result = "A".to_owned();
    bring_to_rest(&server, done, Next::Done { result }).await;
    let refused = server.post_to(&format!("/tasks/{done}/cancel")).await;
    refused.problem(409);
    insta::assert_snapshot!(refused.text(), @r#"{"type":"urn:task-processor:problem:wrong-state","title":"The state of the task does not allow it","status":409,"detail":"the task is done","instance":"/tasks/01941f29-7c00-7000-8000-000000000001/cancel","taskStatus":"done"}"#);
    let broken = server.memory.submit("b").await;
    bring_to_rest(&server, broken, failed()).await;
    let refused = server.post_to(&format!("/tasks/{broken}/cancel")).await;
    assert_eq!(refused.problem(409)["taskStatus"], "failed");
}

#[tokio::test]
async fn only_a_failed_task_is_retried() {
    let server = Server::start().await;
    let id = server.memory.submit("a").await;
    let refused = server.post_to(&format!("/tasks/{id}/retry")).await;
    assert_eq!(refused.problem(409)["taskStatus"], "pending");
    bring_to_rest(&server, id, failed()).await;
    let retried = server.post_to(&format!("/tasks/{id}/retry")).await;
    assert_eq!(retried.status, 200);
    insta::assert_snapshot!(retried.text(), @r#"{"id":"01941f29-7c00-7000-8000-000000000001","payload":"a","priority":0,"status":"pending","result":null,"createdAt":"2025-01-01T00:00:00.000Z","updatedAt":"2025-01-01T00:00:00.000Z","attempts":0}"#);
    let task = server.memory.task(id);
    assert_eq!((task.status, task.attempts), (TaskStatus::Pending, 0));
}

#[tokio::test]
async fn unknown_tasks_and_ids_that_are_none() {
    let server = Server::start().await;
    for order in ["cancel", "retry"] {
        let unknown = server.post_to(&format!("/tasks/{ID}/{order}")).await;
        assert_eq!(
            unknown.problem(404)["detail"],
            "there is no task with this id"
        );
        let invalid = server.post_to(&format!("/tasks/42/{order}")).await;
        assert_eq!(invalid.problem(400)["errors"][0]["field"], "id");
        let read = server.get(&format!("/tasks/{ID}/{order}")).await;
        read.problem(405);
        assert_eq!(read.header("allow"), Some("OPTIONS, POST"));
    }
}

#[tokio::test]
async fn a_store_that_is_down_is_a_503() {
    let mut store = MockTaskStore::new();
    store
        .expect_get()
        .returning(|_| Err(StoreError::Unavailable("refused".into())));
    let server =
        Server::start_with(HttpConfig::default(), |ports| ports.store = Arc::new(store)).await;
    let answer = server.post_to(&format!("/tasks/{ID}/cancel")).await;
    answer.problem(503);
    assert_eq!(answer.header("retry-after"), Some("2"));
}
