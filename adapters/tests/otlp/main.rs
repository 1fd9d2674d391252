//! Spans on their way to a collector.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ports::observer::{ClaimedBy, RunOutcome};
use ports::{Dependency, Event, Observer as _, Span, TaskId, TaskStatus, TraceContext, Work};
use task_processor_adapters::memory::MemoryObserver;
use task_processor_adapters::otlp::collector::{Collected, Collector, Manner, Seen};
use task_processor_adapters::otlp::{OtlpOptions, OtlpTracer, Sampling, Share};
use tokio::task::block_in_place;

const PATIENCE: Duration = Duration::from_secs(30);
const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// More than wait and travel together.
const TOO_MANY: usize = 20_000;

struct Sender {
    tracer: Arc<OtlpTracer>,
    told: Arc<MemoryObserver>,
}

impl Sender {
    fn start(endpoint: &str) -> Self {
        Self::with_timeout(endpoint, Duration::from_secs(10))
    }

    fn with_timeout(endpoint: &str, timeout: Duration) -> Self {
        let options = OtlpOptions {
            endpoint: format!("{endpoint}/v1/traces").parse().expect("an address"),
            headers: vec![("x-key".into(), "s3cret".into())],
            timeout,
            service_name: "a-service".into(),
            sampling: Sampling {
                follows_parent: true,
                share: Share::ALL,
            },
        };
        assert!(!format!("{options:?}").contains("s3cret"));
        let told = Arc::new(MemoryObserver::default());
        let tracer = OtlpTracer::start(options, told.clone()).expect("good options");
        Self { tracer, told }
    }

    fn send(&self, work: Work, error: Option<&str>) -> TraceContext {
        let context = self.tracer.begin_span(None).expect("it traces");
        self.tracer.observe(&Event::Traced(Span {
            context: context.clone(),
            parent: None,
            work,
            took: Duration::from_millis(5),
            error: error.map(str::to_owned),
        }));
        context
    }

    /// What was told of the collector, and of spans that were lost.
    fn troubles(&self) -> Vec<&'static str> {
        let events = self.told.events();
        let trouble = |event: &Event| match event {
            Event::DependencyFailed {
                dependency: Dependency::Collector,
                error,
                ..
            } => {
                assert!(!error.contains("s3cret"), "{error}");
                Some("failed")
            }
            Event::DependencyRecovered {
                dependency: Dependency::Collector,
            } => Some("recovered"),
            Event::SpansDropped { .. } => Some("dropped"),
            _ => None,
        };
        let mut troubles: Vec<_> = events.iter().filter_map(trouble).collect();
        troubles.dedup();
        troubles
    }

    fn sent(&self) -> usize {
        self.counted(|event| match event {
            Event::SpansSent { count } => Some(*count),
            _ => None,
        })
    }

    fn dropped(&self) -> usize {
        self.counted(|event| match event {
            Event::SpansDropped { count } => Some(*count),
            _ => None,
        })
    }

    fn counted(&self, of: impl Fn(&Event) -> Option<usize>) -> usize {
        self.told.events().iter().filter_map(of).sum()
    }
}

fn id() -> TaskId {
    TaskId(ID.parse().expect("a UUID"))
}

fn settle() -> Work {
    let status = Some(TaskStatus::Done);
    Work::Settle { id: id(), status }
}

fn wait(collector: &Collector, wanted: impl Fn(&Collected) -> bool) -> Collected {
    let collected = block_in_place(|| collector.wait(PATIENCE, wanted));
    collected.unwrap_or_else(|| panic!("it did not come: {:?}", collector.collected()))
}

async fn seen(work: Work, error: Option<&str>) -> Seen {
    let collector = Collector::start().expect("a port");
    let sender = Sender::start(&collector.endpoint());
    sender.send(work, error);
    assert_eq!(sender.tracer.stop(PATIENCE).await, 0);
    assert_eq!(sender.sent(), 1);
    collector.collected().spans.remove(0)
}

async fn check(work: Work, name: &str, kind: &str, attributes: &[(&str, &str)]) {
    let seen = seen(work, None).await;
    assert_eq!((seen.name.as_str(), seen.kind.as_str()), (name, kind));
    let expected: BTreeMap<String, String> = attributes
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    assert_eq!(seen.attributes, expected, "{name}");
    assert_eq!(seen.service, "a-service");
    assert_eq!(seen.took, Duration::from_millis(5));
}

fn request(method: &str, route: Option<&str>, status: u16) -> Work {
    Work::Request {
        method: method.into(),
        path: "/tasks".into(),
        route: route.map(str::to_owned),
        status,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_work_has_its_name_kind_and_attributes() {
    let message = |operation, kind, topic| {
        [
            ("task.id", ID),
            ("messaging.system", "kafka"),
            ("messaging.operation.name", operation),
            ("messaging.operation.type", kind),
            ("messaging.destination.name", topic),
            ("messaging.kafka.message.key", ID),
        ]
    };
    let http = |method, status| {
        vec![
            ("http.request.method", method),
            ("url.path", "/tasks"),
            ("http.response.status_code", status),
        ]
    };
    let post = [http("POST", "201"), vec![("http.route", "/tasks")]].concat();
    let served = request("POST", Some("/tasks"), 201);
    check(served, "POST /tasks", "SERVER", &post).await;
    let unknown = [
        http("_OTHER", "503"),
        vec![
            ("http.request.method_original", "BREW"),
            ("error.type", "503"),
        ],
    ]
    .concat();
    check(request("BREW", None, 503), "HTTP", "SERVER", &unknown).await;

    let submit = Work::Submit {
        id: Some(id()),
        count: 3,
    };
    let attributes = [("task.id", ID), ("task.count", "3")];
    check(submit, "submit", "INTERNAL", &attributes).await;
    let attributes = message("send", "send", "tasks-input");
    let publish = Work::Publish { id: id() };
    check(publish, "send tasks-input", "PRODUCER", &attributes).await;
    let by = |by| Work::Claim { id: id(), by };
    let mut attributes = message("claim", "receive", "tasks-input").to_vec();
    attributes.push(("task.claimed_by", "delivery"));
    let delivered = by(ClaimedBy::Delivery);
    check(delivered, "receive tasks-input", "CLIENT", &attributes).await;
    let attributes = [("task.id", ID), ("task.claimed_by", "age")];
    check(by(ClaimedBy::Age), "claim", "INTERNAL", &attributes).await;
    let run = Work::Run {
        id: id(),
        attempt: 2,
        outcome: RunOutcome::Timeout,
    };
    let mut attributes = message("process", "process", "tasks-input").to_vec();
    attributes.extend([
        ("task.attempt", "2"),
        ("task.outcome", "timeout"),
        ("error.type", "timeout"),
    ]);
    check(run, "process tasks-input", "CONSUMER", &attributes).await;
    let attributes = [("task.id", ID), ("task.status", "done")];
    check(settle(), "settle", "INTERNAL", &attributes).await;
    let late = Work::Settle {
        id: id(),
        status: None,
    };
    let attributes = [("task.id", ID), ("task.status", "moved_before")];
    check(late, "settle", "INTERNAL", &attributes).await;
    let attributes = message("announce", "send", "tasks-output");
    let announce = Work::Announce { id: id() };
    check(announce, "send tasks-output", "PRODUCER", &attributes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_the_status_and_no_longer_than_need_be() {
    let long = "é".repeat(3_000);
    let failed = seen(settle(), Some(&long)).await;
    assert_eq!(failed.error, Some("é".repeat(512)));
    assert_eq!(failed.attributes["error.type"], "_OTHER");
    assert_eq!(seen(settle(), None).await.error, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_within_a_trace_keeps_its_place_and_the_decision() {
    let collector = Collector::start().expect("a port");
    let sender = Sender::start(&collector.endpoint());
    let begin = |is_sampled| {
        let parent = TraceContext::new(7, 8, is_sampled).map(|parent| parent.with_state("a=1"));
        let context = sender.tracer.begin_span(parent.clone()).expect("it traces");
        (parent.expect("not zero"), context)
    };
    let (_, context) = begin(false);
    assert!(!context.is_sampled());
    let (parent, context) = begin(true);
    assert_eq!(context.trace_id(), parent.trace_id());
    assert_ne!(context.span_id(), parent.span_id());
    let span = Span {
        context: context.clone(),
        parent: Some(parent),
        work: Work::Claim {
            id: id(),
            by: ClaimedBy::Delivery,
        },
        took: Duration::ZERO,
        error: None,
    };
    sender.tracer.observe(&Event::Traced(span));
    let collected = wait(&collector, |collected| !collected.spans.is_empty());
    let seen = &collected.spans[0];
    assert_eq!(seen.trace, format!("{:032x}", 7));
    assert_eq!(seen.span, format!("{:016x}", context.span_id()));
    assert_eq!(seen.parent, format!("{:016x}", 8));
    assert!(seen.parent_is_remote);
    assert_eq!(seen.state, "a=1");
    let head = collected.head.to_lowercase();
    assert!(head.contains("\r\nx-key: s3cret\r\n"), "{head}");
    let kind = "\r\ncontent-type: application/x-protobuf\r\n";
    assert!(head.contains(kind), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_that_begin_here_differ() {
    let collector = Collector::start().expect("a port");
    let sender = Sender::start(&collector.endpoint());
    let other = Sender::start(&collector.endpoint());
    let mut begun: Vec<TraceContext> = (0..1_000)
        .flat_map(|_| [&sender, &other])
        .map(|sender| sender.tracer.begin_span(None).expect("it traces"))
        .collect();
    begun.sort_by_key(|context| context.trace_id().get());
    begun.dedup_by_key(|context| context.trace_id());
    assert_eq!(begun.len(), 2_000);
    let spans: std::collections::BTreeSet<NonZeroU64> =
        begun.iter().map(TraceContext::span_id).collect();
    assert_eq!(spans.len(), 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_collector_does_not_take_for_now_arrives_later() {
    for manner in [Manner::Refuses(503), Manner::Refuses(429), Manner::Hangs] {
        let collector = Collector::start().expect("a port");
        collector.behave(manner);
        let sender = Sender::with_timeout(&collector.endpoint(), Duration::from_millis(100));
        sender.send(settle(), None);
        wait(&collector, |collected| collected.requests == 2);
        collector.behave(Manner::Takes);
        wait(&collector, |collected| collected.spans.len() == 1);
        assert_eq!(sender.tracer.stop(PATIENCE).await, 0);
        assert_eq!(sender.troubles(), ["failed", "recovered"], "{manner:?}");
        assert_eq!((sender.sent(), sender.dropped()), (1, 0), "{manner:?}");
    }
}

/// On one thread: the sender gets to run when the three spans are with it, so they travel together.
#[tokio::test]
async fn what_a_collector_never_takes_is_dropped_and_counted() {
    for (manner, sent, troubles) in [
        (Manner::Refuses(400), 0, &["failed", "dropped"][..]),
        (Manner::Refuses(302), 0, &["failed", "dropped"]),
        (Manner::Rejects(1), 2, &["dropped"]),
        (Manner::Rejects(i64::MAX), 0, &["dropped"]),
        (Manner::Rejects(-1), 3, &[]),
    ] {
        let collector = Collector::start().expect("a port");
        collector.behave(manner);
        let sender = Sender::start(&collector.endpoint());
        for _ in 0..3 {
            sender.send(settle(), None);
        }
        assert_eq!(sender.tracer.stop(PATIENCE).await, 0);
        let counted = (sender.sent(), sender.dropped());
        assert_eq!(counted, (sent, 3 - sent), "{manner:?}");
        assert_eq!(sender.troubles(), troubles, "{manner:?}");
        assert_eq!(collector.collected().requests, 1, "{manner:?}");
    }
}

/// Nothing listens, or whoever listens never answers: the work goes on, the excess is counted, the stop is in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_down_or_hangs_costs_nobody_anything() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let hanging = Collector::start().expect("a port");
    hanging.behave(Manner::Hangs);
    for endpoint in [nobody, hanging.endpoint()] {
        let sender = Sender::start(&endpoint);
        let began = Instant::now();
        for _ in 0..TOO_MANY {
            sender.send(settle(), None);
        }
        // A span costs some microseconds; in a build without optimisation, on a busy machine, too.
        assert!(began.elapsed() < Duration::from_secs(5));
        let before = sender.dropped();
        assert!(before > 0, "the buffer is bounded");
        let limit = Duration::from_millis(300);
        let began = Instant::now();
        let lost = sender.tracer.stop(limit).await;
        assert!(began.elapsed() < limit + Duration::from_secs(5));
        assert_eq!(sender.sent(), 0);
        assert_eq!(before + lost, TOO_MANY);
        assert_eq!(sender.dropped(), TOO_MANY);
    }
}
