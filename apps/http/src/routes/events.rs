//! Following tasks as server-sent events.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use access::Scope;
use domain::{Events, EventsError, Heard, Listener};
use futures_util::future::BoxFuture;
use futures_util::stream;
use poem::http::{HeaderMap, HeaderName, HeaderValue, header};
use poem::{Body, IntoResponse, Response};
use poem_openapi::param::Header;
use poem_openapi::registry::{
    MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::{ApiResponse, OpenApi};
use serde_json::json;
use tokio::time::timeout;

use super::Tag;
use crate::HttpConfig;
use crate::accept::takes_events;
use crate::admission::{Admission, Caller};
use crate::answer::{EXAMPLE_ID, one_response};
use crate::problem::{Failures, Kind, Problem, Refused};
use crate::query::{self, Asked, Parameter};
use crate::schema::{Member, Shape, choice, id, object, text};

/// After how long a silent stream says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How many events are written together.
const HANDFUL: usize = 64;

/// The first thing on every stream: after how many milliseconds a client that lost it comes again.
const OPENING: &str = "retry: 2000\n\n";

pub(crate) const EVENT_STREAM: &str = "text/event-stream";

/// For how long whoever is sent away stays so at least.
pub(crate) const AWAY: Duration = Duration::from_secs(4);

/// The only task to follow.
pub(crate) struct Followed;

impl Parameter for Followed {
    const NAME: &'static str = "task";

    fn schema() -> MetaSchema {
        id("A task.", EXAMPLE_ID)
    }
}

/// The route of the stream.
#[derive(Clone)]
pub(crate) struct Stream {
    events: Arc<Events>,
    admission: Admission,
    /// For how long whoever is sent away stays so.
    pause: Duration,
}

impl Stream {
    /// At a stop, new streams are sent away for this long.
    pub(crate) fn new(events: Arc<Events>, config: &HttpConfig) -> Self {
        // Whoever came back while this server still listens would find what has sent him away.
        let pause = AWAY.max(config.drain_delay.saturating_add(Duration::from_secs(1)));
        Self {
            events,
            admission: config.admission.clone(),
            pause,
        }
    }
}

pub(crate) struct FollowFailures;

impl Failures for FollowFailures {
    const OPERATION: &'static str = "followTasks";
    const KINDS: &'static [Kind] = &[
        Kind::InvalidParameter,
        Kind::TooManyStreams,
        Kind::Stopping,
        Kind::Internal,
    ];
}

#[OpenApi]
impl Stream {
    /// Follow tasks
    ///
    /// Server-sent events: a message for every change of state, of one task or of all, whichever process made it. `id` is its
    /// position in the topic `tasks-events`; with the last one in `Last-Event-ID`, as browsers send it by themselves, a stream goes
    /// on where another ended. Changes to `done`, `failed` and `cancelled` come at least once; earlier ones may be missed. `revision`
    /// rises with every change of a task. The event `reset` says that events are missing before its `id`, because the position is too
    /// old or the client was too slow; `end` that this server stops, or has no room: come again after the time that `retry` says; or
    /// that the API key is no longer known. Whoever asks for `text/event-stream` by name, as browsers do, is told so in a stream of
    /// its own, for another status than `200` would keep a browser away for ever; everybody else gets `503`.
    #[oai(
        path = "/events",
        method = "get",
        operation_id = "followTasks",
        tag = "Tag::Tasks"
    )]
    async fn follow(
        &self,
        /// The id of the only task to follow.
        task: Asked<Followed>,
        /// The `id` of the last event that the client has.
        #[oai(name = "Last-Event-ID")]
        last_event_id: Header<Option<String>>,
        headers: &HeaderMap,
        caller: Caller,
    ) -> Result<Following, Refused<FollowFailures>> {
        let mut wrong = Vec::new();
        let task = task.read(&mut wrong, |id| id.parse().map_err(|_| "must be a UUID"));
        if !wrong.is_empty() {
            return Err(query::invalid(wrong).into());
        }
        let from = last_event_id.0.map(|id| place_behind(&id));
        let pause = self.pause;
        match self.events.listen(task, from).await {
            Ok(listener) => Ok(Following::Listening {
                listener,
                revoked: Box::pin(self.admission.revoked(caller, Scope::Read)),
                pause,
            }),
            Err(error) if takes_events(headers) => Ok(Following::SentAway {
                reason: reason(&error),
                pause,
            }),
            Err(error) => Err(refusal(error).into()),
        }
    }
}

/// The `id` behind which the first event of a log comes.
const BEFORE_THE_FIRST: &str = "-1";

/// The position behind an event. What is no position of ours is as good as too old: a browser must not be refused for ever.
fn place_behind(last_event_id: &str) -> u64 {
    let last = match last_event_id.trim() {
        BEFORE_THE_FIRST => return 0,
        text => text.parse::<u64>(),
    };
    last.map_or(u64::MAX, |last| last.saturating_add(1))
}

fn reason(error: &EventsError) -> &'static str {
    match error {
        EventsError::Full => "too many streams",
        _ => STOPPING,
    }
}

const STOPPING: &str = "stopping";
const REVOKED: &str = "API key revoked";

fn refusal(error: EventsError) -> Problem {
    match error {
        EventsError::Full => Problem::new(
            Kind::TooManyStreams,
            "as many clients follow tasks as this server takes",
        ),
        _ => Problem::new(Kind::Stopping, "try again: another instance will answer"),
    }
}

/// `200` and a stream.
pub(crate) enum Following {
    Listening {
        listener: Listener,
        /// Comes back when whoever listens may no longer.
        revoked: BoxFuture<'static, ()>,
        pause: Duration,
    },
    SentAway {
        reason: &'static str,
        pause: Duration,
    },
}

/// A stream that says why it ends, and when to come again, and nothing else.
pub(crate) fn sent_away(reason: &str, pause: Duration) -> Response {
    stream_of(Body::from_string(end(reason, pause)))
}

fn end(reason: &str, pause: Duration) -> String {
    format!(
        "retry: {}\nevent: end\ndata: {{\"reason\":\"{reason}\"}}\n\n",
        pause.as_millis()
    )
}

fn stream_of(body: Body) -> Response {
    let mut response = Response::builder().content_type(EVENT_STREAM).body(body);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that gather answers would keep events back.
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}

impl IntoResponse for Following {
    fn into_response(self) -> Response {
        let (listener, revoked, pause) = match self {
            Self::Listening {
                listener,
                revoked,
                pause,
            } => (listener, revoked, pause),
            Self::SentAway { reason, pause } => return sent_away(reason, pause),
        };
        let chunks = stream::unfold(
            Some((listener, revoked, true)),
            move |following| async move {
                let (mut listener, mut revoked, is_new) = following?;
                if is_new {
                    return Some((chunk(OPENING.to_owned()), Some((listener, revoked, false))));
                }
                let heard = tokio::select! {
                    biased;
                    () = &mut revoked => return Some((chunk(end(REVOKED, pause)), None)),
                    heard = timeout(HEARTBEAT, listener.hear(HANDFUL)) => heard,
                };
                let text = match heard {
                    Ok(Some(heard)) => write(&heard),
                    Ok(None) => return Some((chunk(end(STOPPING, pause)), None)),
                    Err(_elapsed) => ":\n\n".to_owned(),
                };
                Some((chunk(text), Some((listener, revoked, false))))
            },
        );
        stream_of(Body::from_bytes_stream(chunks))
    }
}

fn chunk(text: String) -> Result<String, std::io::Error> {
    Ok(text)
}

fn write(heard: &[Heard]) -> String {
    let mut out = String::with_capacity(heard.len() * 160);
    for heard in heard {
        // Writing into a String cannot fail.
        let _ = match heard {
            Heard::Event(placed) => {
                let Some(event) = placed.event else { continue };
                write!(
                    out,
                    "id: {}\ndata: {{\"taskId\":\"{}\",\"status\":\"{}\",\"revision\":{},\"at\":\"{}\"}}\n\n",
                    placed.position, event.id, event.status, event.fence.0, event.at
                )
            }
            // The next position that was not missed is behind this one; of an empty log that is -1.
            Heard::Reset(end) => write!(
                out,
                "id: {}\nevent: reset\ndata: {{\"reason\":\"events are missing\"}}\n\n",
                i128::from(*end) - 1
            ),
        };
    }
    out
}

impl ApiResponse for Following {
    fn meta() -> MetaResponses {
        one_response(MetaResponse {
            description: "The stream; it ends when the client or the server does.",
            status: Some(200),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: EVENT_STREAM,
                // OpenAPI 3.0 knows a stream only as one text; tools that read it event by event hold each against the other.
                schema: MetaSchemaRef::Inline(Box::new(MetaSchema {
                    any_of: vec![
                        MetaSchemaRef::Inline(Box::new(text(
                            "The whole stream.",
                            "id: 42\ndata: {\"taskId\":\"01890a5d-ac96-774b-bcce-b302099a8057\",\"status\":\"done\",\
                             \"revision\":2,\"at\":\"2025-01-01T00:00:02.345Z\"}\n\n",
                        ))),
                        StreamEvent::reference(),
                    ],
                    ..MetaSchema::ANY
                })),
            }],
            headers: Vec::new(),
        })
    }

    fn register(registry: &mut Registry) {
        StreamEvent::register(registry);
    }
}

/// One event of the stream.
struct StreamEvent;

impl Shape for StreamEvent {
    const NAME: &'static str = "StreamEvent";

    fn schema() -> MetaSchema {
        let data = json!({
            "taskId": EXAMPLE_ID,
            "status": "done",
            "revision": 2,
            "at": "2025-01-01T00:00:02.345Z",
        })
        .to_string();
        object(
            "A server-sent event.",
            vec![
                Member::optional(
                    "id",
                    text("Its position in the topic; `end` has none.", "42"),
                ),
                Member::optional(
                    "event",
                    choice(
                        "A change of state, which is a `message`, or news of the stream.",
                        ["message", "reset", "end"],
                        "message",
                    ),
                ),
                Member::required(
                    "data",
                    text(
                        "A JSON object: of a message the task, its status, the revision and the time; otherwise the reason.",
                        data.clone(),
                    ),
                ),
            ],
            json!({"id": "42", "event": "message", "data": data}),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_says_where_to_go_on_in_an_empty_log_too() {
        for end in [0, 1, 42, u64::MAX] {
            let reset = write(&[Heard::Reset(end)]);
            let id = reset
                .lines()
                .next()
                .and_then(|line| line.strip_prefix("id: "));
            assert_eq!(id.map(place_behind), Some(end), "{reset}");
        }
    }

    #[test]
    fn fuzz_last_event_ids() {
        const IDS: &[&[u8]] = &[b"-1", b"0", b"1735689600000042", b" 18446744073709551615 "];
        fuzz::run("Last-Event-ID", &fuzz::text(IDS), |text| {
            let place = place_behind(&text);
            let digits = text.trim().trim_start_matches('+').trim_start_matches('0');
            let is_place = match place {
                0 => text.trim() == BEFORE_THE_FIRST,
                u64::MAX => true,
                place => (place - 1).to_string().trim_start_matches('0') == digits,
            };
            proptest::prop_assert!(is_place, "{place}");
            Ok(())
        });
    }
}
