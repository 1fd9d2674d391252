//! Clients that mean harm: slow, endless, many.

use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use task_processor_http::HttpConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::Client;
use crate::server::{Server, post};

const HOUR: Duration = Duration::from_hours(1);
const SHORT: Duration = Duration::from_millis(200);
const LIVE: &str = "GET /health/live HTTP/1.1\r\nhost: test\r\n\r\n";

/// A server where only the header of a request must be quick.
async fn hurried() -> Server {
    let config = HttpConfig {
        header_timeout: SHORT,
        idle_timeout: HOUR,
        body_timeout: HOUR,
        ..HttpConfig::default()
    };
    Server::start_with(config, |_| {}).await
}

/// How many connections were cut for this reason.
async fn cuts(server: &Server, reason: &str) -> u64 {
    let series = format!("task_processor_http_connections_cut_total{{reason=\"{reason}\"}}");
    let meters = server.get_as("/metrics", "text/plain").await;
    meters.count_of(&series)
}

/// Sends a byte, and another one whenever the server has had a moment to close the connection, until it does.
async fn drip(client: &mut Client) {
    let dripping = async {
        while client.try_send("x").await.is_ok() {
            if timeout(SHORT / 10, client.is_closed()).await == Ok(true) {
                return;
            }
        }
    };
    timeout(Duration::from_secs(20), dripping)
        .await
        .expect("the server closes the connection");
}

#[tokio::test]
async fn a_header_that_drips_is_cut_in_time_on_a_new_and_on_a_used_connection() {
    let server = hurried().await;
    let mut silent = server.connect().await;
    let mut fresh = server.connect().await;
    fresh.send("GET /health/live HTTP/1.1\r\nx: ").await;
    drip(&mut fresh).await;
    assert!(silent.is_closed().await, "it asked for nothing");
    let mut used = server.connect().await;
    used.send(LIVE).await;
    assert_eq!(used.receive().await.status, 200);
    used.send("GET /health/live HTTP/1.1\r\nx: ").await;
    drip(&mut used).await;
    assert_eq!(cuts(&server, "header").await, 3);
    assert_eq!(cuts(&server, "idle").await, 0);
}

/// The time for a header runs while one is sent, and at no other time.
#[tokio::test]
async fn neither_a_long_answer_nor_a_slow_body_nor_a_pause_counts_as_header() {
    let server = hurried().await;
    let mut pausing = server.connect().await;
    pausing.send(LIVE).await;
    assert_eq!(pausing.receive().await.status, 200);
    let mut slow = server.connect().await;
    let request = post("application/json", r#"{"payload":"x"}"#);
    slow.send(&request[..request.len() - 1]).await;
    let id = server.post(r#"{"payload":"y"}"#).await.json()["id"].clone();
    let id = id.as_str().expect("an id");
    let mut waiting = server.connect().await;
    waiting
        .send(format!(
            "GET /tasks/{id}?wait=1s HTTP/1.1\r\nhost: test\r\n\r\n"
        ))
        .await;
    // A second, five times as long as a header may take.
    assert_eq!(waiting.receive().await.json()["status"], "pending");
    slow.send(&request[request.len() - 1..]).await;
    assert_eq!(slow.receive().await.status, 201);
    pausing.send(LIVE).await;
    assert_eq!(pausing.receive().await.status, 200);
    assert_eq!(cuts(&server, "header").await, 0);
}

#[tokio::test]
async fn a_header_over_the_limit_is_refused_with_a_problem() {
    let server = Server::start().await;
    let limit = HttpConfig::default().max_header_bytes;
    let of = |bytes: usize| {
        format!(
            "GET /health/live HTTP/1.1\r\nhost: test\r\nx: {}\r\n\r\n",
            "x".repeat(bytes)
        )
    };
    assert_eq!(server.answer(of(limit - 100)).await.status, 200);
    let mut client = server.connect().await;
    client.send(of(limit)).await;
    let answer = client.receive().await;
    let problem = answer.problem(431);
    assert_eq!(
        problem["type"],
        "urn:task-processor:problem:header-too-large"
    );
    assert!(client.is_closed().await);
    // It never ends.
    let mut client = server.connect().await;
    client.send("GET /health/live HTTP/1.1\r\nx: ").await;
    let mut sent = 0;
    while client.try_send("x".repeat(4_096)).await.is_ok() {
        sent += 1;
        assert!(sent < 10_000, "the server reads an endless header");
    }
    let fields = |count: usize| {
        let fields: String = (0..count).map(|field| format!("x{field}: y\r\n")).collect();
        format!("GET /health/live HTTP/1.1\r\nhost: test\r\n{fields}\r\n")
    };
    assert_eq!(server.answer(fields(99)).await.status, 200);
    server.answer(fields(100)).await.problem(431);
}

#[tokio::test]
async fn what_is_no_http_is_told_so_in_words() {
    let server = Server::start().await;
    for rubbish in [
        "hello\r\n\r\n",
        "GET /health/live HTTP/1.1\r\nno colon\r\n\r\n",
        "GET /health/live HTTP/1.1\r\nhost: test\r\ncontent-length: many\r\n\r\n",
        "GET /health/live HTTP/9.9\r\nhost: test\r\n\r\n",
    ] {
        let problem = server.answer(rubbish).await.problem(400);
        assert_eq!(
            problem["type"], "urn:task-processor:problem:malformed-request",
            "{rubbish}"
        );
    }
    // After an answer on the same connection too.
    let mut client = server.connect().await;
    client.send(LIVE).await;
    assert_eq!(client.receive().await.status, 200);
    client.send("hello\r\n\r\n").await;
    client.receive().await.problem(400);
    assert!(client.is_closed().await);
}

/// A connection of HTTP/2 whose client sends a PING every few milliseconds.
async fn pinging(
    server: &Server,
) -> (
    hyper::client::conn::http2::SendRequest<String>,
    tokio::task::JoinHandle<hyper::Result<()>>,
) {
    let stream = TcpStream::connect(server.address)
        .await
        .expect("the server listens");
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(SHORT / 10)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await
        .expect("HTTP/2 is spoken");
    (sender, tokio::spawn(connection))
}

/// Whether the other side ends the connection in time.
async fn ended(connection: tokio::task::JoinHandle<hyper::Result<()>>) {
    // How it ends is the client's business.
    let _ = timeout(Duration::from_secs(20), connection)
        .await
        .expect("the server ends the connection");
}

#[tokio::test]
async fn frames_that_ask_for_nothing_keep_no_connection_of_http_2() {
    let server = hurried().await;
    let (_sender, connection) = pinging(&server).await;
    ended(connection).await;
    assert_eq!(cuts(&server, "header").await, 1);
    let config = HttpConfig {
        idle_timeout: SHORT,
        ..HttpConfig::default()
    };
    let server = Server::start_with(config, |_| {}).await;
    let (mut sender, connection) = pinging(&server).await;
    let request = hyper::Request::get("http://test/health/live")
        .body(String::new())
        .expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    drop(answer);
    ended(connection).await;
    assert_eq!(cuts(&server, "idle").await, 1);
}

/// A byte now and then is no way to keep what was answered, nor is a window of HTTP/2 that stays shut.
#[tokio::test]
async fn who_does_not_take_his_answers_is_cut() {
    let config = HttpConfig {
        idle_timeout: SHORT,
        ..HttpConfig::default()
    };
    let server = Server::start_with(config, |_| {}).await;
    let mut client = server.connect().await;
    // More than the system keeps for both sides.
    let request = "GET /openapi.json HTTP/1.1\r\nhost: test\r\n\r\n";
    client.send(request.repeat(400)).await;
    let reading = async {
        while cuts(&server, "slow").await == 0 {
            client.some_byte().await;
        }
    };
    timeout(Duration::from_secs(20), reading)
        .await
        .expect("it is cut");
    let stream = TcpStream::connect(server.address)
        .await
        .expect("the server listens");
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(SHORT / 10)
        .initial_stream_window_size(1)
        .handshake(TokioIo::new(stream))
        .await
        .expect("HTTP/2 is spoken");
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get("http://test/openapi.json")
        .body(String::new())
        .expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    ended(connection).await;
    drop(answer);
    // It is counted when the connection is gone.
    timeout(Duration::from_secs(20), async {
        while cuts(&server, "slow").await < 2 {}
    })
    .await
    .expect("it is counted");
}

#[tokio::test]
async fn open_connections_are_counted_until_they_close() {
    let server = Server::start().await;
    let open = async || {
        let meters = server.get_as("/metrics", "text/plain").await;
        let line = "task_processor_http_connections ";
        let found = meters
            .text()
            .lines()
            .find_map(|text| text.strip_prefix(line));
        found
            .expect("it is there")
            .parse::<u64>()
            .expect("a number")
    };
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = server.connect().await;
        client.send(LIVE).await;
        assert_eq!(client.receive().await.status, 200);
        clients.push(client);
    }
    assert!(open().await >= 6, "five and the one that asks");
    drop(clients);
    timeout(Duration::from_secs(20), async { while open().await > 1 {} })
        .await
        .expect("they are counted as closed");
}
