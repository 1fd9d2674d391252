//! `GET /tasks/{id}?wait=`.

use std::time::Duration;

use domain::EventsConfig;
use ports::{Announcer, Fence, Next, TaskEvent, TaskId, TaskStatus, Timestamp};
use task_processor_http::HttpConfig;

use crate::server::{Server, bring_to_rest};

async fn tell_done(server: &Server, id: TaskId) {
    let event = TaskEvent {
        id,
        status: TaskStatus::Done,
        fence: Fence(1),
        at: Timestamp::EPOCH,
    };
    server.memory.log.tell(&[event]).await;
}

#[tokio::test]
async fn the_answer_comes_when_the_task_is_done() {
    let server = Server::start().await;
    let id = server.memory.submit("a").await;
    let mut client = server.connect().await;
    client
        .send(format!(
            "GET /tasks/{id}?wait=60s HTTP/1.1\r\nhost: test\r\n\r\n"
        ))
        .await;
    // A second request of the same kind that is answered shows that the first was read.
    let path = format!("/tasks/{id}?wait=1ms");
    let waiting = server.get(&path).await;
    assert_eq!(waiting.json()["status"], "pending");
    let result = "A".to_owned();
    bring_to_rest(&server, id, Next::Done { result }).await;
    tell_done(&server, id).await;
    let done = client.receive().await;
    assert_eq!(done.status, 200);
    assert_eq!(done.json()["result"], "A");
}

#[tokio::test]
async fn a_wrong_wait_is_refused_by_name() {
    let server = Server::start().await;
    let id = server.memory.submit("a").await;
    for wrong in ["", "30", "61s", "soon", "-1s"] {
        let problem = server
            .get(&format!("/tasks/{id}?wait={wrong}"))
            .await
            .problem(400);
        assert_eq!(
            problem["type"],
            "urn:task-processor:problem:invalid-parameter"
        );
        assert_eq!(problem["errors"][0]["field"], "wait", "{wrong}");
    }
    let unknown = "/tasks/01890a5d-ac96-774b-bcce-b302099a8057?wait=30s";
    server.get(unknown).await.problem(404);
}

#[tokio::test]
async fn a_waiter_that_hangs_up_frees_its_place_and_one_too_many_is_told_to_come_again() {
    let events = EventsConfig {
        waiters: 1,
        ..EventsConfig::default()
    };
    let server = Server::start_limited(HttpConfig::default(), events, |_| {}).await;
    let id = server.memory.submit("a").await;
    let mut first = server.connect().await;
    first
        .send(format!(
            "GET /tasks/{id}?wait=60s HTTP/1.1\r\nhost: test\r\n\r\n"
        ))
        .await;
    let path = format!("/tasks/{id}?wait=1ms");
    let refused = loop {
        let answer = server.get(&path).await;
        if answer.status == 503 {
            break answer;
        }
    };
    assert_eq!(refused.header("retry-after"), Some("5"));
    assert_eq!(
        refused.problem(503)["title"],
        "Too many clients wait for tasks"
    );
    let meters = server.get_as("/metrics", "text/plain").await;
    assert_eq!(meters.count_of("task_processor_http_waiters"), 1);
    assert_eq!(meters.count_of("task_processor_http_waiters_limit"), 1);
    drop(first);
    let freed = async { while server.get(&path).await.status != 200 {} };
    tokio::time::timeout(Duration::from_secs(20), freed)
        .await
        .expect("its place is free");
}

#[tokio::test]
async fn a_stop_answers_who_waits() {
    let server = Server::start().await;
    let id = server.memory.submit("a").await;
    let mut client = server.connect().await;
    client
        .send(format!(
            "GET /tasks/{id}?wait=60s HTTP/1.1\r\nhost: test\r\n\r\n"
        ))
        .await;
    server.get("/health/live").await;
    let stopping = server.stop();
    let answer = client.receive().await;
    assert_eq!(answer.json()["status"], "pending");
    assert_eq!(answer.header("connection"), Some("close"));
    stopping.stopped().await;
}
