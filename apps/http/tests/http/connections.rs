//! Connections: kept, limited, cut, and never the reason for a loss.

use std::sync::Arc;
use std::time::Duration;

use adapters::faulty::{Fault, Faulty};
use ports::{Announcer, Fence, Next, TaskEvent, TaskStatus, Timestamp};
use task_processor_http::HttpConfig;
use tokio::time::timeout;

use crate::client::Client;
use crate::server::{Server, bring_to_rest, post};

#[tokio::test]
async fn one_connection_serves_many_requests_even_sent_at_once() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for _ in 0..3 {
        client
            .send(post("application/json", r#"{"payload":"x"}"#))
            .await;
        assert_eq!(client.receive().await.status, 201);
        client
            .send("GET /nowhere HTTP/1.1\r\nhost: test\r\n\r\n")
            .await;
        client.receive().await.problem(404);
    }
    let two = [
        post("application/json", r#"{"payload":1}"#),
        post("application/json", r#"{"payload":"x"}"#),
    ]
    .concat();
    client.send(two).await;
    client.receive().await.problem(400);
    assert_eq!(client.receive().await.status, 201);
}

#[tokio::test]
async fn bytes_that_are_no_http_end_their_own_connection_only() {
    let server = Server::start().await;
    let mut healthy = server.connect().await;
    for rubbish in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: test\r\nno colon\r\n\r\n",
    ] {
        let mut client = server.connect().await;
        client.send(rubbish).await;
        drop(client);
        healthy
            .send("GET /health/live HTTP/1.1\r\nhost: test\r\n\r\n")
            .await;
        assert_eq!(healthy.receive().await.status, 200);
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_during_the_commit_loses_nothing() {
    let mut faults = Arc::default();
    let server = Server::start_with(HttpConfig::default(), |ports| {
        let store = Faulty::new(ports.store.clone());
        faults = store.faults().clone();
        ports.store = Arc::new(store);
    })
    .await;
    let delay = Fault::Delay(Duration::from_millis(100));
    faults.next_of("insert", 1, delay);
    let mut client = server.connect().await;
    client
        .send(post("application/json", r#"{"payload":"x"}"#))
        .await;
    until(|| faults.calls_of("insert") == 1).await;
    assert_eq!(server.memory.store.snapshot().tasks.len(), 0);
    drop(client);
    until(|| server.memory.store.snapshot().tasks.len() == 1).await;
    assert_eq!(server.post(r#"{"payload":"y"}"#).await.status, 201);
    let contradictions = server.memory.store.snapshot().contradictions();
    assert_eq!(contradictions, Vec::<String>::new());
}

/// Waits for what others are about to do.
async fn until(happened: impl Fn() -> bool) {
    let watch = async {
        while !happened() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), watch)
        .await
        .expect("it happens in time");
}

#[tokio::test]
async fn half_a_body_stores_nothing() {
    let server = Server::start().await;
    let request = post("application/json", r#"{"payload":"x"}"#);
    for length in [1, request.len() - 20, request.len() - 1] {
        let mut client = server.connect().await;
        client.send(&request[..length]).await;
        drop(client);
    }
    assert_eq!(server.post(r#"{"payload":"y"}"#).await.status, 201);
    assert_eq!(server.memory.store.snapshot().tasks.len(), 1);
}

#[tokio::test]
async fn a_silent_connection_is_closed_wherever_it_stands() {
    let config = HttpConfig {
        idle_timeout: Duration::from_millis(200),
        ..HttpConfig::default()
    };
    let server = Server::start_with(config, |_| {}).await;
    let mut fresh = server.connect().await;
    let mut half = server.connect().await;
    half.send("GET /health/live HTTP/1.1\r\nhos").await;
    let mut used = server.connect().await;
    used.send("GET /health/live HTTP/1.1\r\nhost: test\r\n\r\n")
        .await;
    assert_eq!(used.receive().await.status, 200);
    for client in [&mut fresh, &mut half, &mut used] {
        assert!(client.is_closed().await);
    }
}

const LIVE: &str = "GET /health/live HTTP/1.1\r\nhost: test\r\n\r\n";

/// A server with four places.
async fn small() -> Server {
    let config = HttpConfig {
        max_connections: 4,
        ..HttpConfig::default()
    };
    Server::start_with(config, |_| {}).await
}

#[tokio::test]
async fn who_comes_when_every_place_is_taken_has_that_of_the_longest_unused() {
    let server = small().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = server.connect().await;
        client.send(LIVE).await;
        assert_eq!(client.receive().await.status, 200);
        clients.push(client);
    }
    clients[0].send(LIVE).await;
    assert_eq!(clients[0].receive().await.status, 200);
    let mut next = server.connect().await;
    for _ in 0..2 {
        next.send(LIVE).await;
        let answer = next.receive().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("connection"), None, "it stays");
    }
    let mut oldest = clients.remove(1);
    assert!(oldest.is_closed().await);
    for client in &mut clients {
        client.send(LIVE).await;
        assert_eq!(client.receive().await.status, 200);
    }
    // As many as like, one after the other, each of which says nothing.
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(server.connect().await);
    }
    let meters = server.get_as("/metrics", "text/plain").await;
    let cut = meters.count_of("task_processor_http_connections_cut_total{reason=\"crowded\"}");
    assert!(cut >= 200, "{cut}");
}

#[tokio::test]
async fn when_every_place_is_in_use_health_is_answered_and_the_rest_is_refused() {
    let server = small().await;
    let id = server.memory.submit("x").await;
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let mut client = server.connect().await;
        client
            .send(format!(
                "GET /tasks/{id}?wait=60s HTTP/1.1\r\nhost: test\r\n\r\n"
            ))
            .await;
        waiting.push(client);
    }
    // Whoever has said nothing yet would have to go.
    until(|| server.events.crowd().waiters == 4).await;
    let mut extra = Vec::new();
    for _ in 0..100 {
        extra.push(server.connect().await);
    }
    let mut next = server.connect().await;
    next.send(LIVE).await;
    let live = next.receive().await;
    assert_eq!(
        (live.status, live.header("connection")),
        (200, Some("close"))
    );
    assert!(next.is_closed().await);
    let refused = server.post(r#"{"payload":"x"}"#).await;
    let problem = refused.problem(503);
    assert_eq!(problem["type"], "urn:task-processor:problem:overloaded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(server.memory.store.snapshot().tasks.len(), 1);
    bring_to_rest(&server, id, Next::Cancelled).await;
    for client in &mut waiting {
        assert_eq!(client.receive().await.json()["status"], "cancelled");
    }
    // There is room again.
    assert_eq!(server.post(r#"{"payload":"x"}"#).await.status, 201);
}

#[tokio::test]
async fn whoever_waits_or_listens_is_not_idle() {
    let config = HttpConfig {
        idle_timeout: Duration::from_millis(100),
        ..HttpConfig::default()
    };
    let server = Server::start_with(config, |_| {}).await;
    let id = server.memory.submit("x").await;
    let mut listening = server.connect().await;
    listening
        .send("GET /events HTTP/1.1\r\nhost: test\r\n\r\n")
        .await;
    assert_eq!(listening.receive_opening().await.status, 200);
    listening.chunk().await;
    let waited = server.get(&format!("/tasks/{id}?wait=1s")).await;
    assert_eq!(waited.json()["status"], "pending");
    bring_to_rest(&server, id, Next::Cancelled).await;
    let event = TaskEvent {
        id,
        status: TaskStatus::Cancelled,
        fence: Fence(1),
        at: Timestamp::from_micros(0),
    };
    server.memory.log.tell(&[event]).await;
    let heard = listening.chunk().await;
    assert!(heard.contains("cancelled"), "{heard}");
}

#[tokio::test]
async fn a_stop_finishes_what_is_under_way() {
    let server = Server::start().await;
    let address = server.address;
    let request = post("application/json", r#"{"payload":"x"}"#);
    let (first, rest) = request.split_at(request.len() - 5);
    let mut client = server.connect().await;
    client.send(first).await;
    // Only when the server has read the first part is the request under way.
    let mut other = server.connect().await;
    other
        .send("GET /health/live HTTP/1.1\r\nhost: test\r\n\r\n")
        .await;
    other.receive().await;
    let stopping = server.stop();
    assert!(other.is_closed().await, "an idle connection is closed");
    client.send(rest).await;
    assert_eq!(client.receive().await.status, 201);
    assert_eq!(stopping.memory.store.snapshot().tasks.len(), 1);
    stopping.stopped().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let config = HttpConfig {
        stop_timeout: Duration::from_millis(100),
        body_timeout: Duration::MAX,
        idle_timeout: Duration::from_hours(1),
        ..HttpConfig::default()
    };
    let server = Server::start_with(config, |_| {}).await;
    let mut stuck: Client = server.connect().await;
    stuck.send("POST /tasks HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{").await;
    let mut half = server.connect().await;
    half.send("GET / HT").await;
    timeout(Duration::from_secs(20), server.stop().stopped())
        .await
        .expect("the server stops");
}

#[tokio::test]
async fn more_headers_than_anybody_needs_are_refused_before_any_operation_sees_them() {
    let server = Server::start().await;
    for path in ["/health/live", "/tasks", "/docs"] {
        let headers: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
        let answer = server
            .answer(format!(
                "GET {path} HTTP/1.1\r\nhost: test\r\n{headers}\r\n"
            ))
            .await;
        let problem = answer.problem(431);
        assert_eq!(
            problem["type"], "urn:task-processor:problem:header-too-large",
            "{path}"
        );
    }
}
