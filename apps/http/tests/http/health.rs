//! `GET /health/live` and `GET /health/ready`.

use std::sync::Arc;
use std::time::Duration;

use ports::cache::MockResultCache;
use ports::publisher::MockTaskPublisher;
use ports::store::MockTaskStore;
use ports::{CacheError, PublishError, StoreError};
use serde_json::Value;
use task_processor_http::HttpConfig;

use crate::server::Server;

fn statuses(body: &Value) -> [&str; 3] {
    ["store", "log", "cache"].map(|name| {
        let check = &body["dependencies"][name];
        assert!(
            check["latencyMs"]
                .as_f64()
                .is_some_and(|millis| millis >= 0.0),
            "{body}"
        );
        check["status"].as_str().expect("a status")
    })
}

#[tokio::test]
async fn a_service_with_everything_is_ready() {
    let server = Server::start().await;
    let answer = server.get("/health/ready").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["status"], "ready");
    assert_eq!(statuses(&answer.json()), ["up", "up", "up"]);
    assert_eq!(
        server.get("/health/live").await.text(),
        r#"{"status":"up"}"#
    );
}

#[tokio::test]
async fn without_log_and_cache_it_is_ready_all_the_same() {
    let mut publisher = MockTaskPublisher::new();
    publisher
        .expect_ping()
        .returning(|| Err(PublishError::Unavailable("refused".into())));
    let mut cache = MockResultCache::new();
    cache
        .expect_ping()
        .returning(|| Err(CacheError::Unavailable("refused".into())));
    let server = Server::start_with(HttpConfig::default(), |ports| {
        ports.publisher = Arc::new(publisher);
        ports.cache = Arc::new(cache);
    })
    .await;
    let answer = server.get("/health/ready").await;
    assert_eq!(answer.status, 200);
    assert_eq!(statuses(&answer.json()), ["up", "down", "down"]);
}

#[tokio::test]
async fn without_the_store_it_is_alive_but_not_ready() {
    let mut store = MockTaskStore::new();
    store
        .expect_ping()
        .returning(|| Err(StoreError::Unavailable("refused".into())));
    let server =
        Server::start_with(HttpConfig::default(), |ports| ports.store = Arc::new(store)).await;
    let answer = server.get("/health/ready").await;
    let problem = answer.problem(503);
    assert_eq!(problem["type"], "urn:task-processor:problem:not-ready");
    assert_eq!(statuses(&problem), ["down", "up", "up"]);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(!answer.text().contains("refused"));
    assert_eq!(server.get("/health/live").await.status, 200);
}

#[tokio::test]
async fn a_stopping_server_turns_readiness_red_and_serves_on_until_the_delay_is_over() {
    let config = HttpConfig {
        drain_delay: Duration::from_millis(500),
        ..HttpConfig::default()
    };
    let server = Server::start_with(config, |_| {}).await;
    let address = server.address;
    let mut early = server.connect().await;
    let mut idle = server.connect().await;
    let stopping = server.stop();
    loop {
        early
            .send("GET /health/ready HTTP/1.1\r\nhost: test\r\n\r\n")
            .await;
        let answer = early.receive().await;
        if answer.status == 503 {
            assert_eq!(answer.problem(503)["detail"], "the service is stopping");
            assert_eq!(answer.header("connection"), Some("close"));
            break;
        }
        assert_eq!(answer.header("connection"), None);
    }
    assert!(
        early.is_closed().await,
        "an answer that says so closes its connection"
    );
    let mut late = crate::client::Client::connect(address).await;
    late.send(crate::server::post(
        "application/json",
        r#"{"payload":"x"}"#,
    ))
    .await;
    let answer = late.receive().await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(late.is_closed().await);
    assert!(
        idle.is_closed().await,
        "idle connections are closed at the end"
    );
    stopping.stopped().await;
}
