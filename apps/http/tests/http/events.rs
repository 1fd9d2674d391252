//! `GET /events`.

use std::time::Duration;

use domain::EventsConfig;
use ports::{Announcer, Fence, TaskEvent, TaskId, TaskStatus, Timestamp};
use task_processor_http::HttpConfig;

use crate::client::Client;
use crate::server::Server;

async fn tell(server: &Server, id: TaskId, status: TaskStatus) {
    let event = TaskEvent {
        id,
        status,
        fence: Fence(2),
        at: Timestamp::from_micros(1_735_689_602_345_000),
    };
    server.memory.log.tell(&[event]).await;
}

/// Opens a stream; its head and its first chunk have come.
async fn open(server: &Server, query: &str, last: Option<&str>) -> Client {
    let mut client = server.connect().await;
    let resume = last.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
    client
        .send(format!(
            "GET /events{query} HTTP/1.1\r\nhost: test\r\n{resume}\r\n"
        ))
        .await;
    let head = client.receive_opening().await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(head.header("cache-control"), Some("no-store"));
    assert_eq!(client.chunk().await, "retry: 2000\n\n");
    client
}

fn id_of(event: &str) -> &str {
    event
        .lines()
        .find_map(|line| line.strip_prefix("id: "))
        .expect("an id")
}

#[tokio::test]
async fn changes_come_as_they_happen_for_all_or_one() {
    let server = Server::start().await;
    let (id, other) = (
        server.memory.submit("a").await,
        server.memory.submit("b").await,
    );
    let mut all = open(&server, "", None).await;
    let mut one = open(&server, &format!("?task={id}"), None).await;
    tell(&server, other, TaskStatus::Pending).await;
    let first = all.chunk().await;
    assert!(first.contains(&other.to_string()), "{first}");
    tell(&server, id, TaskStatus::Done).await;
    let second = all.chunk().await;
    let data = format!(
        "\ndata: {{\"taskId\":\"{id}\",\"status\":\"done\",\"revision\":2,\"at\":\"2025-01-01T00:00:02.345Z\"}}\n\n"
    );
    assert!(second.ends_with(&data), "{second}");
    assert_eq!(one.chunk().await, second);
    let position: u64 = id_of(&second).parse().expect("a position");
    assert_eq!(id_of(&first), (position - 1).to_string());
}

#[tokio::test]
async fn a_stream_goes_on_behind_the_last_event_or_is_reset() {
    let server = Server::start().await;
    let id = server.memory.submit("a").await;
    let mut all = open(&server, "", None).await;
    tell(&server, id, TaskStatus::Processing).await;
    let first = all.chunk().await;
    drop(all);
    tell(&server, id, TaskStatus::Done).await;
    let mut resumed = open(&server, "", Some(id_of(&first))).await;
    let next = resumed.chunk().await;
    assert!(next.contains("\"status\":\"done\""), "{next}");
    let mut known = id_of(&next).to_owned();
    for wrong in ["999999999", "not a position"] {
        let mut reset = open(&server, "", Some(wrong)).await;
        let event = reset.chunk().await;
        assert!(event.contains("event: reset\n"), "{event}");
        assert_eq!(id_of(&event), known, "what comes next is not missed");
        // The stream goes on, and so does one that begins where this was reset.
        tell(&server, id, TaskStatus::Done).await;
        let after = reset.chunk().await;
        assert!(after.contains("\"status\":\"done\""), "{after}");
        let mut again = open(&server, "", Some(&known)).await;
        assert_eq!(again.chunk().await, after);
        known = id_of(&after).to_owned();
    }
}

#[tokio::test]
async fn a_wrong_task_and_one_stream_too_many_are_refused() {
    let events = EventsConfig {
        streams: 1,
        ..EventsConfig::default()
    };
    let server = Server::start_limited(HttpConfig::default(), events, |_| {}).await;
    let problem = server.get("/events?task=42").await.problem(400);
    assert_eq!(problem["errors"][0]["field"], "task");
    let first = open(&server, "", None).await;
    let refused = server.get("/events").await;
    assert_eq!(refused.header("retry-after"), Some("5"));
    refused.problem(503);
    let meters = server.get_as("/metrics", "text/plain").await;
    assert_eq!(meters.count_of("task_processor_http_streams"), 1);
    assert_eq!(meters.count_of("task_processor_http_streams_limit"), 1);
    drop(first);
    // Its place is free as soon as the server sees it go.
    loop {
        let mut client = server.connect().await;
        client
            .send("GET /events HTTP/1.1\r\nhost: test\r\n\r\n")
            .await;
        if client.receive_opening().await.status == 200 {
            break;
        }
    }
}

#[tokio::test]
async fn a_stop_ends_streams_and_says_so() {
    let server = Server::start().await;
    let mut stream = open(&server, "", None).await;
    let stopping = server.stop();
    let end = stream.chunk().await;
    assert_eq!(
        end,
        "retry: 4000\nevent: end\ndata: {\"reason\":\"stopping\"}\n\n"
    );
    assert_eq!(stream.chunk().await, "");
    stopping.stopped().await;
}

/// As a browser asks for an `EventSource`, which another status than `200` ends for ever.
const EVENT_SOURCE: &str =
    "GET /events HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\n\r\n";

#[tokio::test]
async fn an_event_source_is_told_to_come_again_by_whoever_has_no_room_or_stops() {
    let events = EventsConfig {
        streams: 1,
        ..EventsConfig::default()
    };
    let config = HttpConfig {
        // Longer than the test takes: what is told must be longer.
        drain_delay: Duration::from_secs(600),
        stop_timeout: Duration::ZERO,
        ..HttpConfig::default()
    };
    let server = Server::start_limited(config, events, |_| {}).await;
    let mut first = open(&server, "", None).await;
    let answer = server.answer(EVENT_SOURCE).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(
        answer.text(),
        "retry: 601000\nevent: end\ndata: {\"reason\":\"too many streams\"}\n\n"
    );
    let mut late = server.connect().await;
    let mut other = server.connect().await;
    let stopping = server.stop();
    let end = "retry: 601000\nevent: end\ndata: {\"reason\":\"stopping\"}\n\n";
    assert_eq!(first.chunk().await, end);
    late.send(EVENT_SOURCE).await;
    let answer = late.receive().await;
    assert_eq!((answer.status, answer.text()), (200, end));
    // Whoever is no browser is told in its own words.
    other
        .send("GET /events HTTP/1.1\r\nhost: test\r\n\r\n")
        .await;
    other.receive().await.problem(503);
    drop(stopping);
}
