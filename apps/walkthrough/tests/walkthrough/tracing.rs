//! A task followed by a collector of traces: `docs/TRACING.md`.

use std::path::Path;
use std::time::Duration;

use adapters::otlp::collector::{Collected, Collector, Manner, Seen};
use serde_json::{Value, json};

use crate::clients::{Answer, curl};
use crate::eventually;
use crate::programs::{Program, directory, free_port};
use crate::world::{Kafka, World, meter, text};
use crate::{SERVER, WORKER};

const PATIENCE: Duration = Duration::from_secs(60);
const STANDALONE: &str = "task-processor";

/// The caller's span.
const CALLER: &str = "b7ad6b7169203331";

/// Posts a task from within a trace of this number; the answer.
fn post_within(program: &Program, trace: u8, flags: &str) -> Answer {
    let parent = format!("traceparent: 00-{}-{CALLER}-{flags}", number(trace));
    let json = "content-type: application/json";
    let body = json!({ "payload": "Hello world!" }).to_string();
    let arguments = ["--header", json, "--header", &parent, "--data", &body];
    let answer = curl(&format!("{}/tasks", program.url), &arguments);
    assert_eq!(answer.status, 201, "{answer:?}");
    answer
}

fn number(trace: u8) -> String {
    format!("{trace:02x}").repeat(16)
}

fn of_trace(collected: &Collected, trace: u8) -> Vec<Seen> {
    let spans = collected.spans.iter();
    let spans = spans.filter(|span| span.trace == number(trace));
    spans.cloned().collect()
}

/// Waits until the whole of a trace is there, and compares it with the page.
fn assert_whole(collector: &Collector, trace: u8, id: &str, server: &str, worker: &str) {
    let expected = [
        ("POST /tasks", "SERVER", server, None),
        ("submit", "INTERNAL", server, Some("POST /tasks")),
        ("send tasks-input", "PRODUCER", server, Some("POST /tasks")),
        (
            "receive tasks-input",
            "CLIENT",
            worker,
            Some("send tasks-input"),
        ),
        (
            "process tasks-input",
            "CONSUMER",
            worker,
            Some("receive tasks-input"),
        ),
        ("settle", "INTERNAL", worker, Some("receive tasks-input")),
        (
            "send tasks-output",
            "PRODUCER",
            worker,
            Some("receive tasks-input"),
        ),
    ];
    let whole = |collected: &Collected| of_trace(collected, trace).len() >= expected.len();
    let Some(collected) = collector.wait(PATIENCE, whole) else {
        panic!("not whole: {:#?}", collector.collected());
    };
    let spans = of_trace(&collected, trace);
    assert_eq!(spans.len(), expected.len(), "{spans:#?}");
    let find = |name: &str| {
        let found = spans.iter().find(|span| span.name == name);
        found.unwrap_or_else(|| panic!("{name} is not in {spans:#?}"))
    };
    for (name, kind, service, parent) in expected {
        let span = find(name);
        assert_eq!((span.kind.as_str(), span.service.as_str()), (kind, service));
        let parent = parent.map_or(CALLER, |parent| &find(parent).span);
        assert_eq!(span.parent, parent, "{name}");
        assert_eq!(span.error, None, "{name}");
        if parent == CALLER {
            assert_eq!(span.attributes["http.response.status_code"], "201");
        } else {
            assert_eq!(span.attributes["task.id"], id, "{name}");
        }
    }
    assert_eq!(find("process tasks-input").attributes["task.attempt"], "1");
    let outcome = &find("process tasks-input").attributes["task.outcome"];
    assert_eq!(outcome, "success");
    assert_eq!(find("settle").attributes["task.status"], "done");
}

fn followed(world: &World) {
    world.migrate();
    let collector = Collector::start().expect("a port");
    let endpoint = collector.endpoint();
    let traced = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20s3cret",
        ),
        ("LOG_FORMAT", "json"),
        ("LOG_LEVEL", "debug"),
    ];
    let server = world.server_with(&traced);
    let worker = world.worker(&traced);
    // A trace that the caller does not keep is not kept.
    let unkept = text(&post_within(&server, 1, "00").json()["id"]);
    world.done(&server, &unkept);
    let answer = post_within(&server, 2, "01");
    let place = answer.header("traceresponse").expect("it is traced");
    assert!(place.starts_with(&format!("00-{}-", number(2))), "{place}");
    let id = text(&answer.json()["id"]);
    world.done(&server, &id);
    assert_whole(&collector, 2, &id, SERVER, WORKER);
    let collected = collector.collected();
    assert_eq!(of_trace(&collected, 1), []);
    assert!(collected.head.contains("authorization: Bearer s3cret"));

    let log = worker.log();
    let line = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["event"] == "task.settled" && line["task_id"] == id)
        .unwrap_or_else(|| panic!("no line in {log}"));
    assert_eq!(line["trace_id"], number(2));
    for program in [server, worker] {
        eventually("what was sent is counted", || {
            (meter(&program, "task_processor_spans_sent_total") > 0).then_some(())
        });
        let end = program.stop();
        assert_eq!(end.code, Some(0), "{}", end.log);
        assert!(!end.log.contains("s3cret"), "{}", end.log);
    }
}

#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn one_trace_leads_from_the_post_to_the_completion_with_rdkafka() {
    followed(&World::new("traced_rdkafka", Kafka::Four, "rdkafka"));
}

#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 3.9: run cargo xtask test"]
fn one_trace_leads_from_the_post_to_the_completion_with_kafka_rust() {
    followed(&World::new("traced_kafka_rust", Kafka::Three, "kafka-rust"));
}

/// A stop takes no longer because nobody takes the last spans.
#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn a_collector_that_hangs_is_noticed_by_the_log_alone() {
    let world = World::new("traced_in_vain", Kafka::Four, "rdkafka");
    world.migrate();
    let collector = Collector::start().expect("a port");
    collector.behave(Manner::Hangs);
    let endpoint = collector.endpoint();
    let traced = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "100"),
    ];
    let server = world.server_with(&traced);
    let worker = world.worker(&traced);
    for _ in 0..20 {
        let id = world.submit(&server, "abc");
        world.done(&server, &id);
    }
    for program in [&server, &worker] {
        // The first failure, and the pauses between the attempts that follow it.
        eventually("several requests were in vain", || {
            let failing = "task_processor_dependency_failing{dependency=\"collector\"}";
            (meter(program, failing) == 1).then_some(())
        });
    }
    let again = |collected: &Collected| collected.requests >= 6;
    assert!(
        collector.wait(PATIENCE, again).is_some(),
        "it is tried again"
    );
    for program in [server, worker] {
        let began = std::time::Instant::now();
        let end = program.stop();
        assert_eq!(end.code, Some(0), "{}", end.log);
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(
            end.log.matches("doing=\"send spans\"").count(),
            1,
            "{}",
            end.log
        );
        assert!(end.log.contains("traces.not_flushed"), "{}", end.log);
        assert!(!end.log.contains("process.cut_short"), "{}", end.log);
    }
}

#[test]
#[ignore = "needs the programs: run cargo xtask test"]
fn one_trace_leads_through_the_embedded_form() {
    let home = directory("standalone-traced");
    let collector = Collector::start().expect("a port");
    let program = standalone(
        &home,
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint()),
            ("OTEL_SERVICE_NAME", "of a test"),
        ],
    );
    let id = text(&post_within(&program, 3, "01").json()["id"]);
    assert_whole(&collector, 3, &id, "of a test", "of a test");
    // Who is no member of a trace begins one.
    let before = collector.collected().spans.len();
    let url = format!("{}/tasks/{id}", program.url);
    assert!(curl(&url, &[]).header("traceresponse").is_some());
    let end = program.stop();
    assert_eq!(end.code, Some(0), "{}", end.log);
    let spans = collector.collected().spans.split_off(before);
    let [read] = spans.as_slice() else {
        panic!("what the end of the program sent: {spans:#?}");
    };
    assert_eq!(read.name, "GET /tasks/{id}");
    assert_eq!(read.parent, "");
    assert_eq!(read.attributes["http.route"], "/tasks/{id}");
}

fn standalone(home: &Path, settings: &[(&str, &str)]) -> Program {
    let port = free_port();
    let number = port.to_string();
    let settings: Vec<(String, String)> = settings
        .iter()
        .chain(&[("PORT", number.as_str())])
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Program::serve(STANDALONE, port, home, &settings)
}
