//! `GET /metrics`.

use std::sync::Arc;

use ports::store::MockTaskStore;
use ports::{StoreError, Totals};
use task_processor_http::HttpConfig;

use crate::server::Server;

const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;\
                          q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

async fn server_with(totals: Totals) -> Server {
    let mut store = MockTaskStore::new();
    store.expect_totals().returning(move || Ok(totals));
    Server::start_with(HttpConfig::default(), |ports| ports.store = Arc::new(store)).await
}

#[tokio::test]
async fn clients_without_a_preference_get_the_numbers_as_json() {
    let server = server_with(Totals {
        done: 5,
        elapsed_micros: 6_000_000,
    })
    .await;
    for accept in [
        "*/*",
        "application/json, text/plain, */*",
        "application/json",
    ] {
        let answer = server.get_as("/metrics", accept).await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("content-type"),
            Some("application/json; charset=utf-8")
        );
        assert_eq!(answer.header("vary"), Some("Accept"));
        assert_eq!(
            answer.text(),
            r#"{"totalTasks":5,"averageProcessingTimeMs":1200}"#
        );
    }
}

#[tokio::test]
async fn the_mean_of_nothing_is_null() {
    let server = server_with(Totals::default()).await;
    let answer = server.get("/metrics").await;
    assert_eq!(
        answer.text(),
        r#"{"totalTasks":0,"averageProcessingTimeMs":null}"#
    );
    let scrape = server.get_as("/metrics", "text/plain").await;
    assert!(scrape.text().contains("\ntask_processor_tasks_done 0\n"));
    assert!(
        !scrape
            .text()
            .contains("task_processor_task_mean_duration_seconds")
    );
}

#[tokio::test]
async fn a_scrape_gets_every_meter_and_the_numbers() {
    let server = server_with(Totals {
        done: 5,
        elapsed_micros: 6_000_000,
    })
    .await;
    let openmetrics = server.get_as("/metrics", PROMETHEUS).await;
    assert_eq!(
        openmetrics.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(openmetrics.text().ends_with("# EOF\n"));
    let plain = server.get_as("/metrics", "text/plain;version=0.0.4").await;
    assert_eq!(
        plain.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    for answer in [openmetrics, plain] {
        assert!(answer.text().contains("\ntask_processor_tasks_done 5\n"));
        assert!(
            answer
                .text()
                .contains("\ntask_processor_task_mean_duration_seconds 1.2\n")
        );
        assert!(
            answer
                .text()
                .contains("\ntask_processor_cache_lookups_total{result=\"hit\"} 0\n")
        );
    }
}

#[tokio::test]
async fn while_the_store_is_down_a_scrape_still_shows_the_process() {
    let mut store = MockTaskStore::new();
    store
        .expect_totals()
        .returning(|| Err(StoreError::Unavailable("refused".into())));
    let server =
        Server::start_with(HttpConfig::default(), |ports| ports.store = Arc::new(store)).await;
    let answer = server.get("/metrics").await;
    answer.problem(503);
    assert_eq!(answer.header("retry-after"), Some("2"));
    let scrape = server.get_as("/metrics", PROMETHEUS).await;
    assert_eq!(scrape.status, 200);
    assert!(!scrape.text().contains("task_processor_tasks_done"));
    assert!(
        scrape
            .text()
            .contains("task_processor_dependency_failing{dependency=\"store\"} 1\n")
    );
}

/// How often a request to this route ended so.
async fn ended(server: &Server, labels: &str) -> u64 {
    let answer = server.get_as("/metrics", "text/plain").await;
    let text = answer.text();
    let series = format!("task_processor_http_requests_total{{{labels}}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&series));
    let count = line.unwrap_or_else(|| panic!("{series} is not in {text}"));
    count.parse().expect("a number")
}

#[tokio::test]
async fn requests_are_counted_by_route_method_and_end() {
    let server = server_with(Totals::default()).await;
    for (request, labels) in [
        (
            "GET /tasks/rubbish",
            "route=\"/tasks/{id}\",method=\"GET\",status=\"4xx\"",
        ),
        (
            "HEAD /health/live",
            "route=\"/health/live\",method=\"GET\",status=\"2xx\"",
        ),
        ("GET /", "route=\"/\",method=\"GET\",status=\"3xx\""),
        (
            "DELETE /tasks",
            "route=\"other\",method=\"other\",status=\"4xx\"",
        ),
        (
            "GET /nothing",
            "route=\"other\",method=\"other\",status=\"4xx\"",
        ),
    ] {
        let before = ended(&server, labels).await;
        let mut client = server.connect().await;
        client
            .send(format!("{request} HTTP/1.1\r\nhost: a\r\n\r\n"))
            .await;
        // The answer to a `HEAD` has no body.
        client.receive_head().await;
        assert_eq!(ended(&server, labels).await, before + 1, "{request}");
    }
    let answer = server.get_as("/metrics", "text/plain").await;
    let text = answer.text();
    // The scrape itself is under way.
    assert!(
        text.contains("\ntask_processor_http_requests_in_flight 1\n"),
        "{text}"
    );
    let took = "task_processor_http_request_duration_seconds_count{route=\"/tasks/{id}\",method=\"GET\"} 1\n";
    assert!(text.contains(took), "{text}");
}
