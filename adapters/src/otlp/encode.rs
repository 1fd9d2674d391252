//! Our spans in the words of OpenTelemetry: names, kinds and attributes after its semantic conventions (1.37).

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, SpanFlags, Status};
use ports::observer::ClaimedBy;
use ports::{RunOutcome, TaskId, Work};

/// How much of a text that comes from outside is kept, in bytes.
const TEXT_LIMIT: usize = 1_024;

/// The bit of the trace flags that says 'sampled'.
const SAMPLED: u32 = 1;

/// The methods that the conventions know; any other is `_OTHER`.
const METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
];

const INPUT: &str = "tasks-input";
const OUTPUT: &str = "tasks-output";

/// Spans on their way to the collector, in the name of a service.
pub(super) fn request(service: &[KeyValue], spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: "task-processor".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: service.to_vec(),
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

/// A span that has just ended.
pub(super) fn span(span: &ports::Span, ended: SystemTime) -> Span {
    let context = &span.context;
    let Described {
        name,
        kind,
        mut attributes,
    } = describe(&span.work);
    let comes_from_outside = match span.work {
        Work::Request { .. } | Work::Claim { .. } => SpanFlags::ContextIsRemoteMask as u32,
        _ => 0,
    };
    let status = span.error.as_deref().map(|error| {
        if !attributes.iter().any(|pair| pair.key == "error.type") {
            attributes.push(text("error.type", "_OTHER"));
        }
        Status {
            message: shortened(error).to_owned(),
            code: StatusCode::Error.into(),
        }
    });
    Span {
        trace_id: context.trace_id().get().to_be_bytes().to_vec(),
        span_id: context.span_id().get().to_be_bytes().to_vec(),
        trace_state: context.tracestate().unwrap_or_default().to_owned(),
        parent_span_id: span.parent.as_ref().map_or_else(Vec::new, |parent| {
            parent.span_id().get().to_be_bytes().to_vec()
        }),
        flags: SAMPLED | SpanFlags::ContextHasIsRemoteMask as u32 | comes_from_outside,
        name,
        kind: kind.into(),
        start_time_unix_nano: nanos(ended.checked_sub(span.took).unwrap_or(ended)),
        end_time_unix_nano: nanos(ended),
        attributes,
        status,
        ..Span::default()
    }
}

struct Described {
    name: String,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
}

impl Described {
    fn new(
        name: impl Into<String>,
        kind: SpanKind,
        attributes: impl IntoIterator<Item = KeyValue>,
    ) -> Self {
        Self {
            name: name.into(),
            kind,
            attributes: attributes.into_iter().collect(),
        }
    }
}

fn describe(work: &Work) -> Described {
    match work {
        Work::Request {
            method,
            path,
            route,
            status,
        } => request_span(method, path, route.as_deref(), *status),
        Work::Submit { id, count } => {
            let mut attributes = vec![number("task.count", *count)];
            attributes.extend(id.map(task));
            Described::new("submit", SpanKind::Internal, attributes)
        }
        Work::Publish { id } => Described::new(
            format!("send {INPUT}"),
            SpanKind::Producer,
            message(*id, "send", "send", INPUT),
        ),
        Work::Claim { id, by } => claim_span(*id, *by),
        Work::Run {
            id,
            attempt,
            outcome,
        } => {
            let mut attributes = vec![
                task(*id),
                number("task.attempt", *attempt),
                text("task.outcome", outcome.as_str()),
            ];
            attributes.extend(message(*id, "process", "process", INPUT).skip(1));
            if *outcome != RunOutcome::Success {
                attributes.push(text("error.type", outcome.as_str()));
            }
            Described::new(format!("process {INPUT}"), SpanKind::Consumer, attributes)
        }
        Work::Settle { id, status } => {
            let status = status.map_or("moved_before", |status| status.as_str());
            let attributes = [task(*id), text("task.status", status)];
            Described::new("settle", SpanKind::Internal, attributes)
        }
        Work::Announce { id } => Described::new(
            format!("send {OUTPUT}"),
            SpanKind::Producer,
            message(*id, "announce", "send", OUTPUT),
        ),
        // Kinds that a later version of the ports adds.
        _ => Described::new("other", SpanKind::Internal, []),
    }
}

fn request_span(method: &str, path: &str, route: Option<&str>, status: u16) -> Described {
    let known = METHODS.contains(&method);
    let mut attributes = vec![
        text("http.request.method", if known { method } else { "_OTHER" }),
        text("url.path", shortened(path)),
        number("http.response.status_code", status),
    ];
    if !known {
        attributes.push(text("http.request.method_original", shortened(method)));
    }
    if status >= 500 {
        attributes.push(text("error.type", &status.to_string()));
    }
    let mut name = if known { method } else { "HTTP" }.to_owned();
    if let Some(route) = route {
        name = format!("{name} {route}");
        attributes.push(text("http.route", route));
    }
    Described::new(name, SpanKind::Server, attributes)
}

fn claim_span(id: TaskId, by: ClaimedBy) -> Described {
    let claimed_by = text("task.claimed_by", by.as_str());
    match by {
        ClaimedBy::Delivery => {
            let attributes = message(id, "claim", "receive", INPUT).chain([claimed_by]);
            Described::new(format!("receive {INPUT}"), SpanKind::Client, attributes)
        }
        // No message brought it.
        ClaimedBy::Age => Described::new("claim", SpanKind::Internal, [task(id), claimed_by]),
    }
}

/// Of something that is done with a record, whose key is the task's id. The task comes first.
fn message(
    id: TaskId,
    operation: &str,
    kind: &str,
    topic: &str,
) -> impl Iterator<Item = KeyValue> + use<> {
    let id_text = id.to_string();
    [
        task(id),
        text("messaging.system", "kafka"),
        text("messaging.operation.name", operation),
        text("messaging.operation.type", kind),
        text("messaging.destination.name", topic),
        text("messaging.kafka.message.key", &id_text),
    ]
    .into_iter()
}

fn task(id: TaskId) -> KeyValue {
    text("task.id", &id.to_string())
}

pub(super) fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: impl TryInto<i64>) -> KeyValue {
    pair(key, Value::IntValue(value.try_into().unwrap_or(i64::MAX)))
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// As much of a text as is kept.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_LIMIT)]
}

fn nanos(time: SystemTime) -> u64 {
    // A clock before 1970 or after 2554 is no clock.
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
