//! `traceparent` on its way through the API.

use std::num::NonZeroU64;
use std::sync::Arc;

use adapters::memory::MemoryObserver;
use ports::{Event, Observer, Span, TaskFeed as _, TraceContext, Work};
use task_processor_http::HttpConfig;

use crate::server::Server;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const BODY: &str = r#"{"payload":"Hello world!"}"#;

struct Tracing(Arc<MemoryObserver>);

impl Observer for Tracing {
    fn observe(&self, event: &Event) {
        self.0.observe(event);
    }

    fn begin_span(&self, parent: Option<TraceContext>) -> Option<TraceContext> {
        match parent {
            Some(parent) => Some(parent.at(NonZeroU64::new(9)?, parent.is_sampled())),
            None => TraceContext::new(8, 9, true),
        }
    }
}

fn post(headers: &str) -> String {
    format!(
        "POST /tasks HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{BODY}",
        BODY.len()
    )
}

async fn message_trace(server: &Server) -> Option<TraceContext> {
    let feed = server.memory.log.feed();
    let deliveries = feed.receive(10).await.expect("the log is there");
    deliveries[0].trace.clone()
}

#[tokio::test]
async fn a_trace_is_passed_on_when_nobody_traces() {
    let server = Server::start().await;
    let request = post(&format!(
        "traceparent: {PARENT}\r\ntracestate: a=1\r\ntracestate: b=2\r\n"
    ));
    let answer = server.answer(request).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("traceresponse"), None);
    let trace = message_trace(&server).await.expect("it has one");
    assert_eq!(trace.traceparent(), PARENT);
    assert_eq!(trace.tracestate(), Some("a=1,b=2"));
}

#[tokio::test]
async fn a_traced_request_is_a_span_and_is_named_in_its_answer() {
    let told = Arc::new(MemoryObserver::default());
    let observer = Arc::new(Tracing(told.clone()));
    let server = Server::start_with(HttpConfig::default(), |ports| ports.observer = observer).await;
    let answer = server
        .answer(post(&format!("traceparent: {PARENT}\r\n")))
        .await;
    let own = "00-0af7651916cd43dd8448eb211c80319c-0000000000000009-01";
    assert_eq!(answer.header("traceresponse"), Some(own));
    let served = |event: Event| match event {
        Event::Traced(
            span @ Span {
                work: Work::Request { .. },
                ..
            },
        ) => Some(span),
        _ => None,
    };
    let spans: Vec<Span> = told.events().into_iter().filter_map(served).collect();
    let [span] = spans.as_slice() else {
        panic!("{spans:#?}");
    };
    assert_eq!(span.parent, TraceContext::parse(PARENT));
    assert_eq!(Some(&span.context), TraceContext::parse(own).as_ref());
    let work = Work::Request {
        method: "POST".into(),
        path: "/tasks".into(),
        route: Some("/tasks".into()),
        status: 201,
    };
    assert_eq!(span.work, work);
    let trace = message_trace(&server).await.expect("it has one");
    assert_eq!(trace.trace_id(), span.context.trace_id());
}

#[tokio::test]
async fn routes_are_named_as_in_the_document_however_the_request_ends() {
    let told = Arc::new(MemoryObserver::default());
    let observer = Arc::new(Tracing(told.clone()));
    let server = Server::start_with(HttpConfig::default(), |ports| ports.observer = observer).await;
    let unknown = "/tasks/01890a5d-ac96-774b-bcce-b302099a8057";
    for (request, route, status) in [
        (format!("GET {unknown}"), Some("/tasks/{id}"), 404),
        ("GET /tasks/rubbish".to_owned(), Some("/tasks/{id}"), 400),
        (format!("DELETE {unknown}"), Some("/tasks/{id}"), 405),
        ("GET /tasks".to_owned(), Some("/tasks"), 200),
        ("GET /nothing".to_owned(), None, 404),
    ] {
        let answer = server
            .answer(format!("{request} HTTP/1.1\r\nhost: a\r\n\r\n"))
            .await;
        assert_eq!(answer.status, status, "{request}");
        let Some(Event::Traced(span)) = told.events().pop() else {
            panic!("{request} is no span");
        };
        let (method, path) = request.split_once(' ').expect("two words");
        let work = Work::Request {
            method: method.to_owned(),
            path: path.to_owned(),
            route: route.map(str::to_owned),
            status,
        };
        assert_eq!(span.work, work);
    }
}

#[tokio::test]
async fn whoever_probes_begins_no_trace() {
    let told = Arc::new(MemoryObserver::default());
    let observer = Arc::new(Tracing(told.clone()));
    let server = Server::start_with(HttpConfig::default(), |ports| ports.observer = observer).await;
    for path in ["/health/live", "/health/ready", "/metrics"] {
        let answer = server.get(path).await;
        assert_eq!(answer.header("traceresponse"), None, "{path}");
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\ntraceparent: {PARENT}\r\n\r\n");
        let answer = server.answer(request).await;
        assert!(answer.header("traceresponse").is_some(), "{path}");
    }
    assert_eq!(told.count(|event| matches!(event, Event::Traced(_))), 3);
}

#[tokio::test]
async fn rubbish_in_the_headers_of_a_trace_does_no_harm() {
    let server = Server::start().await;
    let twice = format!("traceparent: {PARENT}\r\ntraceparent: {PARENT}\r\n");
    let long = format!("traceparent: {}\r\n", "0".repeat(5_000));
    for headers in [
        "traceparent:\r\n",
        "traceparent: rubbish\r\n",
        "traceparent: \u{e9}\u{fffd}\r\n",
        "traceparent: 00-00000000000000000000000000000000-0000000000000000-00\r\n",
        "tracestate: a=1\r\n",
        &twice,
        &long,
    ] {
        let answer = server.answer(post(headers)).await;
        assert_eq!(answer.status, 201, "{headers:.80}");
    }
    let feed = server.memory.log.feed();
    let mut count = 0;
    while count < 7 {
        let deliveries = feed.receive(10).await.expect("the log is there");
        count += deliveries.len();
        assert!(deliveries.iter().all(|delivery| delivery.trace.is_none()));
    }
}
