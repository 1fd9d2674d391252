//! `GET /tasks/{id}?view=full`: the whole record, and why the task is not done yet.

use domain::ports::{Place, Task, TaskStatus, Timestamp};
use domain::{Explanation, Reason};
use poem::http::{HeaderValue, StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{MetaResponses, MetaSchema, MetaSchemaRef, Registry};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::answer::{EXAMPLE_ID, Found, as_text, json_response};
use crate::conditional::Conditional;
use crate::query::Parameter;
use crate::schema::{Member, Shape, choice, id, integer, nullable, object, text, time};

/// How much of a task is asked for.
pub(crate) struct View;

impl View {
    pub(crate) const FULL: &'static str = "full";
}

impl Parameter for View {
    const NAME: &'static str = "view";

    fn schema() -> MetaSchema {
        choice("The whole record.", [Self::FULL], Self::FULL)
    }
}

/// `200` to a GET of a task, in the form that was asked for.
pub(crate) enum Read {
    Plain(Conditional),
    Full(Box<Explanation>),
}

impl IntoResponse for Read {
    fn into_response(self) -> Response {
        match self {
            Self::Plain(found) => found.into_response(),
            Self::Full(explanation) => {
                let mut response = json_response(StatusCode::OK, &Record::of(&explanation));
                // Who is ahead changes with every moment.
                response
                    .headers_mut()
                    .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                response
            }
        }
    }
}

impl ApiResponse for Read {
    /// The whole record first: it has everything that the other forms have.
    fn meta() -> MetaResponses {
        let mut meta = Conditional::meta();
        for response in &mut meta.responses {
            for header in &mut response.headers {
                // The whole record has no tag.
                header.required &= header.name != "ETag";
            }
            for content in &mut response.content {
                content.schema = MetaSchemaRef::Inline(Box::new(MetaSchema {
                    any_of: vec![Record::reference(), Found::reference()],
                    ..MetaSchema::ANY
                }));
            }
        }
        meta
    }

    fn register(registry: &mut Registry) {
        Record::register(registry);
        Conditional::register(registry);
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(serialize_with = "as_text")]
    id: &'a domain::ports::TaskId,
    #[serde(serialize_with = "as_text")]
    task_id: &'a domain::ports::TaskId,
    payload: &'a str,
    priority: u8,
    status: &'static str,
    result: Option<&'a str>,
    error: Option<&'a str>,
    attempts: u32,
    max_attempts: u32,
    rescues: u32,
    #[serde(serialize_with = "as_text")]
    created_at: &'a Timestamp,
    #[serde(serialize_with = "as_text")]
    updated_at: &'a Timestamp,
    #[serde(serialize_with = "as_text_or_null")]
    not_before: Option<Timestamp>,
    #[serde(serialize_with = "as_text_or_null")]
    claimed_at: Option<Timestamp>,
    worker: Option<String>,
    #[serde(serialize_with = "as_text_or_null")]
    finished_at: Option<Timestamp>,
    #[serde(serialize_with = "as_text_or_null")]
    processed_at: Option<Timestamp>,
    reason: Option<Why>,
    #[serde(serialize_with = "as_text_or_null")]
    estimated_start: Option<Timestamp>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Why {
    code: &'static str,
    sentence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ahead: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    more_ahead: Option<bool>,
}

fn as_text_or_null<S: Serializer>(
    time: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(time),
        None => serializer.serialize_none(),
    }
}

impl Why {
    fn of(reason: &Reason) -> Self {
        let (ahead, more_ahead) = match reason {
            Reason::Behind { count, more } => (Some(*count), Some(*more)),
            _ => (None, None),
        };
        Self {
            code: reason.code(),
            sentence: reason.to_string(),
            ahead,
            more_ahead,
        }
    }
}

impl<'a> Record<'a> {
    fn of(explanation: &'a Explanation) -> Self {
        let Explanation {
            inspection,
            reason,
            estimated_start,
        } = explanation;
        let task: &Task = &inspection.task;
        let (mut not_before, mut claimed_at, mut worker) = (None, None, None);
        match &inspection.place {
            Place::Queued {
                not_before: time, ..
            } => not_before = Some(*time),
            Place::Claimed {
                worker: id,
                worker_name,
                claimed_at: time,
            } => {
                claimed_at = Some(*time);
                worker = Some(worker_name.clone().unwrap_or_else(|| id.to_string()));
            }
            Place::Nowhere => {}
        }
        let rested = task.updated_at;
        Self {
            id: &task.id,
            task_id: &task.id,
            payload: task.payload.as_str(),
            priority: task.priority.get(),
            status: task.status.as_str(),
            result: task.result.as_deref(),
            error: task.error.as_deref(),
            attempts: task.attempts,
            max_attempts: task.max_attempts,
            rescues: task.rescues,
            created_at: &task.created_at,
            updated_at: &task.updated_at,
            not_before,
            claimed_at,
            worker,
            finished_at: task.status.is_at_rest().then_some(rested),
            processed_at: (task.status == TaskStatus::Done).then_some(rested),
            reason: reason.as_ref().map(Why::of),
            estimated_start: *estimated_start,
        }
    }
}

const CODE: &str = "For programs. `no-worker`: it may start, and no worker lives; one that died and was not declared dead by \
    another still counts.";

impl Shape for Why {
    const NAME: &'static str = "Reason";

    fn schema() -> MetaSchema {
        object(
            "Why a task is not done yet.",
            vec![
                Member::required("code", choice(CODE, Reason::CODES, "behind")),
                Member::required(
                    "sentence",
                    text("For people.", "It waits behind 12 others."),
                ),
                Member::optional(
                    "ahead",
                    integer(
                        "With `behind`: how many wait for longer, counted up to 10,000.",
                        Some(1.0),
                        Some(10_000.0),
                        12,
                    ),
                ),
                Member::optional(
                    "moreAhead",
                    MetaSchema {
                        description: Some(
                            "With `behind`: whether there are more than were counted.",
                        ),
                        example: Some(json!(false)),
                        ..MetaSchema::new("boolean")
                    },
                ),
            ],
            Self::example(),
        )
    }
}

impl Why {
    fn example() -> Value {
        json!({
            "code": "behind",
            "sentence": "It waits behind 12 others.",
            "ahead": 12,
            "moreAhead": false,
        })
    }
}

const CREATED: &str = "2025-01-01T00:00:00.000Z";

fn maybe_time(description: &'static str) -> MetaSchema {
    nullable(time(description, CREATED))
}

impl Shape for Record<'static> {
    const NAME: &'static str = "TaskRecord";

    fn schema() -> MetaSchema {
        let counter = |description, example| integer(description, Some(0.0), None, example);
        object(
            "Everything that is known of a task, with why it is not done yet.",
            vec![
                Member::required("id", id("The task.", EXAMPLE_ID)),
                Member::required("taskId", id("The same.", EXAMPLE_ID)),
                Member::required("payload", text("What is to be processed.", "Hello world!")),
                Member::required(
                    "priority",
                    integer(
                        "How urgent it is; 10 is the most urgent.",
                        Some(0.0),
                        Some(10.0),
                        1,
                    ),
                ),
                Member::required(
                    "status",
                    choice(
                        "Where it is in its life.",
                        TaskStatus::ALL.map(TaskStatus::as_str),
                        "pending",
                    ),
                ),
                Member::required(
                    "result",
                    nullable(text("The processed payload, once it is done.", Value::Null)),
                ),
                Member::required(
                    "error",
                    nullable(text("The last error, if there was one.", Value::Null)),
                ),
                Member::required("attempts", counter("How many attempts have ended.", 0)),
                Member::required(
                    "maxAttempts",
                    counter("After how many failed attempts it ends `failed`.", 5),
                ),
                Member::required(
                    "rescues",
                    counter("How often it was taken back from a worker that died.", 0),
                ),
                Member::required("createdAt", time("When it was stored (UTC).", CREATED)),
                Member::required(
                    "updatedAt",
                    time("When its status last changed (UTC).", CREATED),
                ),
                Member::required(
                    "notBefore",
                    maybe_time("While it waits: not to be started before this time (UTC)."),
                ),
                Member::required(
                    "claimedAt",
                    maybe_time("While it is in hand: since when (UTC)."),
                ),
                Member::required(
                    "worker",
                    nullable(text("While it is in hand: who has it.", Value::Null)),
                ),
                Member::required("finishedAt", maybe_time("When it came to rest (UTC).")),
                Member::required("processedAt", maybe_time("When it became done (UTC).")),
                Member::required(
                    "reason",
                    MetaSchema {
                        description: Some("Why it is not done yet; `null` when it is."),
                        nullable: true,
                        all_of: vec![Why::reference()],
                        ..MetaSchema::new("object")
                    },
                ),
                Member::required(
                    "estimatedStart",
                    maybe_time(
                        "When it is likely to start (UTC), from how fast tasks became done in the last minute; with more than \
                         10,000 ahead, no earlier than this. `null` while that is not known, which is as long as nothing becomes done and for the \
                         first seconds of a server, once it has started and at rest.",
                    ),
                ),
            ],
            json!({
                "id": EXAMPLE_ID,
                "taskId": EXAMPLE_ID,
                "payload": "Hello world!",
                "priority": 1,
                "status": "pending",
                "result": null,
                "error": null,
                "attempts": 0,
                "maxAttempts": 5,
                "rescues": 0,
                "createdAt": CREATED,
                "updatedAt": CREATED,
                "notBefore": CREATED,
                "claimedAt": null,
                "worker": null,
                "finishedAt": null,
                "processedAt": null,
                "reason": Why::example(),
                "estimatedStart": "2025-01-01T00:00:01.200Z",
            }),
        )
    }

    fn register_parts(registry: &mut Registry) {
        Why::register(registry);
    }
}
