//! The JSON bodies of successful answers.

use std::fmt::Display;

use domain::ports::{Task, TaskResult, TaskStatus};
use domain::{Accepted, Metrics, Reading};
use poem::http::{HeaderValue, StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{
    MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use serde::{Serialize, Serializer};
use serde_json::json;

use crate::accept::MetricsFormat;
use crate::schema::{Member, Shape, choice, id, integer, list, nullable, object, text, time, uri};

/// The media type of every JSON answer, as the existing service sends it.
const JSON: &str = "application/json; charset=utf-8";

/// The same in the document, without the parameter that client generators stumble over.
pub(crate) const JSON_DESCRIBED: &str = "application/json";

const JSON_VALUE: HeaderValue = HeaderValue::from_static(JSON);

/// The id that every example uses.
pub(crate) const EXAMPLE_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

pub(crate) fn as_text<T: Display, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

pub(crate) fn json_response(status: StatusCode, body: &impl Serialize) -> Response {
    // Serializing text and numbers into memory cannot fail.
    let mut response = Response::from(serde_json::to_vec(body).unwrap_or_default());
    response.set_status(status);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, JSON_VALUE);
    response
}

/// A JSON answer with status 200.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize + Send> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        json_response(StatusCode::OK, &self.0)
    }
}

impl<T: Shape> ApiResponse for Json<T> {
    fn meta() -> MetaResponses {
        one_response(MetaResponse {
            description: T::schema().description.unwrap_or_default(),
            status: Some(200),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: JSON_DESCRIBED,
                schema: T::reference(),
            }],
            headers: Vec::new(),
        })
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

pub(crate) fn one_response(response: MetaResponse) -> MetaResponses {
    MetaResponses {
        responses: vec![response],
    }
}

/// `201` to a POST.
pub(crate) struct Created(pub(crate) Accepted);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TaskAccepted<'a> {
    #[serde(serialize_with = "as_text")]
    id: &'a domain::ports::TaskId,
    status: &'static str,
    #[serde(serialize_with = "as_text")]
    created_at: &'a domain::ports::Timestamp,
}

impl<'a> TaskAccepted<'a> {
    const fn of(accepted: &'a Accepted) -> Self {
        Self {
            id: &accepted.id,
            status: TaskStatus::Pending.as_str(),
            created_at: &accepted.created_at,
        }
    }
}

impl IntoResponse for Created {
    fn into_response(self) -> Response {
        let mut response = json_response(StatusCode::CREATED, &TaskAccepted::of(&self.0));
        // A UUID is always a valid header value.
        if let Ok(location) = HeaderValue::try_from(format!("/tasks/{}", self.0.id)) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}

/// `201` to a POST of many tasks.
pub(crate) struct CreatedBatch(pub(crate) Vec<Accepted>);

impl IntoResponse for CreatedBatch {
    fn into_response(self) -> Response {
        let tasks: Vec<TaskAccepted<'_>> = self.0.iter().map(TaskAccepted::of).collect();
        json_response(StatusCode::CREATED, &tasks)
    }
}

impl ApiResponse for CreatedBatch {
    fn meta() -> MetaResponses {
        let tasks = list(
            "The tasks, in the order in which they came.",
            Created::reference(),
        );
        one_response(MetaResponse {
            description: "The tasks are stored.",
            status: Some(201),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: JSON_DESCRIBED,
                schema: MetaSchemaRef::Inline(Box::new(tasks)),
            }],
            headers: Vec::new(),
        })
    }

    fn register(registry: &mut Registry) {
        <Created as Shape>::register(registry);
    }
}

impl Shape for Created {
    const NAME: &'static str = "TaskAccepted";

    fn schema() -> MetaSchema {
        object(
            "A task that is stored and will come to rest as `done`, `failed` or `cancelled`, whatever crashes next.",
            vec![
                Member::required("id", id("The id to ask for it with.", EXAMPLE_ID)),
                Member::required(
                    "status",
                    choice("Always `pending`.", ["pending"], "pending"),
                ),
                Member::required(
                    "createdAt",
                    time("When it was stored (UTC).", "2025-01-01T00:00:00.000Z"),
                ),
            ],
            json!({"id": EXAMPLE_ID, "status": "pending", "createdAt": "2025-01-01T00:00:00.000Z"}),
        )
    }
}

impl ApiResponse for Created {
    fn meta() -> MetaResponses {
        one_response(MetaResponse {
            description: "The task is stored.",
            status: Some(201),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: JSON_DESCRIBED,
                schema: Self::reference(),
            }],
            headers: vec![MetaHeader {
                name: "Location".into(),
                description: Some("Where the task can be read.".into()),
                required: true,
                deprecated: false,
                schema: MetaSchemaRef::Inline(Box::new(uri(
                    "A path.",
                    "/tasks/01890a5d-ac96-774b-bcce-b302099a8057",
                ))),
            }],
        })
    }

    fn register(registry: &mut Registry) {
        <Self as Shape>::register(registry);
    }
}

/// `200` to a GET of a task: its result once it is done, its state before.
pub(crate) enum Found {
    Done(TaskResult),
    NotDone(Box<Task>),
}

impl Found {
    /// Names this very state of the task: everything that is shown moves with the fence.
    pub(crate) fn tag(&self) -> String {
        match self {
            Self::Done(_) => "\"done\"".to_owned(),
            Self::NotDone(task) => format!("\"{}-{}\"", task.status, task.fence.0),
        }
    }

    /// Whether it never changes again.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Done(_) => true,
            Self::NotDone(task) => task.status == TaskStatus::Cancelled,
        }
    }

    /// `None` for an unknown task.
    pub(crate) fn from_reading(reading: Reading) -> Option<Self> {
        match reading {
            Reading::Done(result) => Some(Self::Done(result)),
            Reading::Unfinished(task) => Some(Self::NotDone(task)),
            Reading::Unknown => None,
        }
    }
}

impl IntoResponse for Found {
    fn into_response(self) -> Response {
        match self {
            Self::Done(result) => json_response(
                StatusCode::OK,
                &Done {
                    task_id: &result.id,
                    result: &result.result,
                    processed_at: &result.processed_at,
                },
            ),
            Self::NotDone(task) => json_response(StatusCode::OK, &NotDone::of(&task)),
        }
    }
}

impl Shape for Found {
    const NAME: &'static str = "TaskState";

    fn schema() -> MetaSchema {
        MetaSchema {
            description: Some(
                "The result of a task that is done, or the details of one that is not.",
            ),
            one_of: vec![Done::reference(), NotDone::reference()],
            ..MetaSchema::ANY
        }
    }

    fn register_parts(registry: &mut Registry) {
        Done::register(registry);
        NotDone::register(registry);
    }
}

/// `200` to an order about a task that is not done.
pub(crate) struct Details(pub(crate) Box<Task>);

impl IntoResponse for Details {
    fn into_response(self) -> Response {
        json_response(StatusCode::OK, &NotDone::of(&self.0))
    }
}

impl ApiResponse for Details {
    fn meta() -> MetaResponses {
        one_response(MetaResponse {
            description: "The task as it is now.",
            status: Some(200),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: JSON_DESCRIBED,
                schema: NotDone::reference(),
            }],
            headers: Vec::new(),
        })
    }

    fn register(registry: &mut Registry) {
        NotDone::register(registry);
    }
}

/// The done form: the bytes that also stand in the cache and in `tasks-output`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done<'a> {
    #[serde(serialize_with = "as_text")]
    task_id: &'a domain::ports::TaskId,
    result: &'a str,
    #[serde(serialize_with = "as_text")]
    processed_at: &'a domain::ports::Timestamp,
}

impl Shape for Done<'static> {
    const NAME: &'static str = "TaskResult";

    fn schema() -> MetaSchema {
        object(
            "The result of a task that is done.",
            vec![
                Member::required("taskId", id("The task.", EXAMPLE_ID)),
                Member::required(
                    "result",
                    text("The processed payload.", "!dlrow olleH (len=12)"),
                ),
                Member::required(
                    "processedAt",
                    time("When it became done (UTC).", "2025-01-01T00:00:02.345Z"),
                ),
            ],
            json!({
                "taskId": EXAMPLE_ID,
                "result": "!dlrow olleH (len=12)",
                "processedAt": "2025-01-01T00:00:02.345Z",
            }),
        )
    }
}

/// The other form.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NotDone<'a> {
    #[serde(serialize_with = "as_text")]
    id: &'a domain::ports::TaskId,
    payload: &'a str,
    priority: u8,
    status: &'static str,
    result: Option<&'a str>,
    #[serde(serialize_with = "as_text")]
    created_at: &'a domain::ports::Timestamp,
    #[serde(serialize_with = "as_text")]
    updated_at: &'a domain::ports::Timestamp,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<'a> NotDone<'a> {
    fn of(task: &'a Task) -> Self {
        Self {
            id: &task.id,
            payload: task.payload.as_str(),
            priority: task.priority.get(),
            status: task.status.as_str(),
            result: None,
            created_at: &task.created_at,
            updated_at: &task.updated_at,
            attempts: task.attempts,
            error: match task.status {
                TaskStatus::Failed => task.error.as_deref(),
                _ => None,
            },
        }
    }
}

impl Shape for NotDone<'static> {
    const NAME: &'static str = "TaskDetails";

    fn schema() -> MetaSchema {
        object(
            "A task that is not done: waiting, in hand, failed or cancelled.",
            vec![
                Member::required("id", id("The task.", EXAMPLE_ID)),
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
                        "`pending` waits, `processing` is in hand; `failed` and `cancelled` are at rest.",
                        TaskStatus::ALL
                            .into_iter()
                            .filter(|status| *status != TaskStatus::Done)
                            .map(TaskStatus::as_str),
                        "pending",
                    ),
                ),
                Member::required(
                    "result",
                    nullable(text("Always `null` in this form.", serde_json::Value::Null)),
                ),
                Member::required(
                    "createdAt",
                    time("When it was stored (UTC).", "2025-01-01T00:00:00.000Z"),
                ),
                Member::required(
                    "updatedAt",
                    time(
                        "When its status last changed (UTC).",
                        "2025-01-01T00:00:00.000Z",
                    ),
                ),
                Member::required(
                    "attempts",
                    integer("How many attempts have ended.", Some(0.0), None, 0),
                ),
                Member::optional(
                    "error",
                    text(
                        "Why it failed; on a `failed` task only.",
                        "exited with code 3",
                    ),
                ),
            ],
            json!({
                "id": EXAMPLE_ID,
                "payload": "Hello world!",
                "priority": 1,
                "status": "pending",
                "result": null,
                "createdAt": "2025-01-01T00:00:00.000Z",
                "updatedAt": "2025-01-01T00:00:00.000Z",
                "attempts": 0,
            }),
        )
    }
}

/// The numbers over all done tasks.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Numbers {
    total_tasks: u64,
    average_processing_time_ms: Option<i64>,
}

impl Shape for Numbers {
    const NAME: &'static str = "Metrics";

    fn schema() -> MetaSchema {
        object(
            "Numbers over all tasks that ever became done.",
            vec![
                Member::required("totalTasks", integer("How many.", Some(0.0), None, 5)),
                Member::required(
                    "averageProcessingTimeMs",
                    nullable(integer(
                        "The mean time from creation to completion in milliseconds, rounded half up; `null` while \
                         there are none.",
                        None,
                        None,
                        1_200,
                    )),
                ),
            ],
            json!({"totalTasks": 5, "averageProcessingTimeMs": 1_200}),
        )
    }
}

/// `200` to a GET of the metrics.
pub(crate) enum Measured {
    Numbers(Metrics),
    Text(MetricsFormat, String),
}

impl IntoResponse for Measured {
    fn into_response(self) -> Response {
        let mut response = match self {
            Self::Numbers(metrics) => json_response(
                StatusCode::OK,
                &Numbers {
                    total_tasks: metrics.total_tasks,
                    average_processing_time_ms: metrics.average_processing_time_ms,
                },
            ),
            Self::Text(format, text) => Response::builder()
                .content_type(format.content_type())
                .body(text),
        };
        response
            .headers_mut()
            .insert(header::VARY, HeaderValue::from_static("Accept"));
        response
    }
}

impl ApiResponse for Measured {
    fn meta() -> MetaResponses {
        let text_schema = || {
            MetaSchemaRef::Inline(Box::new(text(
                "One sample a line.",
                "# HELP task_processor_tasks_submitted_total Tasks accepted.\n\
                 # TYPE task_processor_tasks_submitted_total counter\n\
                 task_processor_tasks_submitted_total 5\n",
            )))
        };
        one_response(MetaResponse {
            description: "The numbers, in the form that `Accept` asks for.",
            status: Some(200),
            status_range: None,
            content: vec![
                MetaMediaType {
                    content_type: JSON_DESCRIBED,
                    schema: Numbers::reference(),
                },
                MetaMediaType {
                    content_type: "text/plain",
                    schema: text_schema(),
                },
                MetaMediaType {
                    content_type: "application/openmetrics-text",
                    schema: text_schema(),
                },
            ],
            headers: Vec::new(),
        })
    }

    fn register(registry: &mut Registry) {
        Numbers::register(registry);
    }
}
