//! Waiting for a task and following it, whichever process does the work.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::clients::{curl, records_with_key};
use crate::programs::Program;
use crate::world::{Kafka, World, text};

#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn tasks_are_waited_for_and_followed_with_rdkafka() {
    followed("follow_rdkafka", Kafka::Four, "rdkafka");
}

#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 3.9: run cargo xtask test"]
fn tasks_are_waited_for_and_followed_with_kafka_rust() {
    followed("follow_kafka_rust", Kafka::Three, "kafka-rust");
}

fn followed(name: &'static str, kafka: Kafka, client: &str) {
    let world = World::new(name, kafka, client);
    world.migrate();
    let (one, other) = (world.server(), world.server());
    // Without a worker a wait ends with the present state.
    let early = world.submit(&one, "early");
    let waited = curl(&format!("{}/tasks/{early}?wait=300ms", other.url), &[]);
    assert_eq!(waited.json()["status"], "pending", "{waited:?}");

    let mut stream = Stream::open(&other, &format!("?task={early}"), None);
    let worker = world.worker(&[]);
    // Whichever server is asked, and whoever did the work.
    for server in [&one, &other] {
        let id = world.submit(&one, "Hello world!");
        let waited = curl(&format!("{}/tasks/{id}?wait=30s", server.url), &[]);
        assert_eq!(
            waited.json()["result"],
            "!dlrow olleH (len=12)",
            "{waited:?}"
        );
    }
    let done = stream.message();
    assert_eq!(done.data["taskId"], early.as_str());
    assert_eq!(done.data["status"], "done");
    let told = records_with_key(&world.brokers, "tasks-events", &early);
    assert!(
        told.iter().any(|record| record.json() == done.data),
        "{told:?}"
    );

    // A stream goes on where it ended, at a server that was started since.
    assert_eq!(other.stop().code, Some(0));
    let end = stream.message();
    assert_eq!(end.name.as_deref(), Some("end"));
    let late = world.submit(&one, "late");
    world.done(&one, &late);
    let other = world.server();
    let mut resumed = Stream::open(&other, &format!("?task={late}"), done.id.as_deref());
    let next = resumed.message();
    assert_eq!(next.data["taskId"], late.as_str());
    assert_eq!(next.data["status"], "done");

    // A place that is not there.
    let mut reset = Stream::open(&one, "", Some("999999999999"));
    assert_eq!(reset.message().name.as_deref(), Some("reset"));
    let after = world.submit(&one, "after");
    loop {
        // Other tests share the topic.
        let message = reset.message();
        if text(&message.data["taskId"]) == after {
            break;
        }
    }
    assert_eq!(worker.stop().code, Some(0));
    assert_eq!(one.stop().code, Some(0));
    assert_eq!(other.stop().code, Some(0));
}

/// A stream of server-sent events, in HTTP/1.0 so that its body is what comes.
pub(crate) struct Stream(BufReader<TcpStream>);

pub(crate) struct Message {
    id: Option<String>,
    name: Option<String>,
    pub(crate) data: Value,
}

impl Stream {
    pub(crate) fn open(server: &Program, query: &str, last: Option<&str>) -> Self {
        let address = server.url.strip_prefix("http://").expect("an address");
        let mut stream = TcpStream::connect(address).expect("the server listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a socket takes a limit");
        let resume = last.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
        write!(
            stream,
            "GET /events{query} HTTP/1.0\r\nHost: {address}\r\n{resume}\r\n"
        )
        .expect("the server reads");
        let mut opened = Self(BufReader::new(stream));
        assert!(opened.line().contains(" 200 "));
        while !opened.line().is_empty() {}
        opened
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line comes in time");
        assert!(!line.is_empty(), "the stream ended");
        line.trim_end().to_owned()
    }

    /// The next event; comments and what is no event are passed over.
    pub(crate) fn message(&mut self) -> Message {
        let (mut id, mut name) = (None, None);
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some(("id", value)) => id = Some(value.to_owned()),
                Some(("event", value)) => name = Some(value.to_owned()),
                Some(("data", value)) => {
                    let data = serde_json::from_str(value).expect("JSON");
                    return Message { id, name, data };
                }
                _ => {}
            }
        }
    }
}
