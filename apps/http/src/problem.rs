//! Every failure as `application/problem+json` (RFC 9457). This is the only file that maps failures to status codes.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use domain::SubmitError;
use domain::ports::{StoreError, TaskStatus};
use poem::Response;
use poem::error::{MethodNotAllowedError, NotFoundError, ResponseError};
use poem::http::{HeaderValue, StatusCode, header};
use poem_openapi::ApiResponse;
use poem_openapi::error::ParsePathError;
use poem_openapi::registry::{
    MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::health::{Dependencies, Progress};
use crate::schema::{Member, Shape, choice, integer, list, object, text, uri};

/// The media type of every failure.
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// What can go wrong, as far as a client would tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    MalformedBody,
    InvalidTask,
    InvalidId,
    UnknownTask,
    WrongState,
    InvalidParameter,
    InvalidIdempotencyKey,
    KeyReused,
    MissingApiKey,
    UnknownApiKey,
    MissingScope,
    RateLimited,
    UnknownRoute,
    MethodNotAllowed,
    SlowBody,
    BodyTooLarge,
    MalformedRequest,
    HeaderTooLarge,
    UnsupportedMediaType,
    Overloaded,
    TooManyWaiters,
    TooManyStreams,
    StoreUnavailable,
    NotReady,
    Stopping,
    Internal,
    /// Anything else that the framework refuses.
    Other(StatusCode),
}

impl Kind {
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::MalformedBody
            | Self::MalformedRequest
            | Self::InvalidTask
            | Self::InvalidId
            | Self::InvalidParameter
            | Self::InvalidIdempotencyKey => StatusCode::BAD_REQUEST,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::MissingApiKey | Self::UnknownApiKey => StatusCode::UNAUTHORIZED,
            Self::MissingScope => StatusCode::FORBIDDEN,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::UnknownTask | Self::UnknownRoute => StatusCode::NOT_FOUND,
            Self::WrongState => StatusCode::CONFLICT,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Overloaded
            | Self::TooManyWaiters
            | Self::TooManyStreams
            | Self::StoreUnavailable
            | Self::NotReady
            | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Other(status) => status,
        }
    }

    /// The last part of `type`; `None` where the status says it all.
    pub(crate) const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::MalformedBody => "malformed-body",
            Self::InvalidTask => "invalid-task",
            Self::InvalidId => "invalid-id",
            Self::UnknownTask => "unknown-task",
            Self::WrongState => "wrong-state",
            Self::InvalidParameter => "invalid-parameter",
            Self::InvalidIdempotencyKey => "invalid-idempotency-key",
            Self::KeyReused => "idempotency-key-reused",
            Self::MissingApiKey => "missing-api-key",
            Self::UnknownApiKey => "unknown-api-key",
            Self::MissingScope => "missing-scope",
            Self::RateLimited => "rate-limited",
            Self::UnknownRoute => "unknown-route",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::SlowBody => "slow-body",
            Self::BodyTooLarge => "body-too-large",
            Self::MalformedRequest => "malformed-request",
            Self::HeaderTooLarge => "header-too-large",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::Overloaded => "overloaded",
            Self::TooManyWaiters => "too-many-waiters",
            Self::TooManyStreams => "too-many-streams",
            Self::StoreUnavailable => "store-unavailable",
            Self::NotReady => "not-ready",
            Self::Stopping => "stopping",
            Self::Internal => "internal",
            Self::Other(_) => return None,
        })
    }

    fn title(self) -> &'static str {
        match self {
            Self::MalformedBody => "The body cannot be read",
            Self::InvalidTask => "The task is invalid",
            Self::InvalidId => "The id is not a UUID",
            Self::UnknownTask => "No such task",
            Self::WrongState => "The state of the task does not allow it",
            Self::InvalidParameter => "A parameter is invalid",
            Self::InvalidIdempotencyKey => "The idempotency key is invalid",
            Self::KeyReused => "The idempotency key was used for another request",
            Self::MissingApiKey => "An API key is needed",
            Self::UnknownApiKey => "The API key is not known",
            Self::MissingScope => "The API key does not allow it",
            Self::RateLimited => "Too many requests",
            Self::UnknownRoute => "No such route",
            Self::MethodNotAllowed => "The method is not allowed here",
            Self::SlowBody => "The body did not arrive in time",
            Self::BodyTooLarge => "The body is too large",
            Self::MalformedRequest => "The request cannot be read",
            Self::HeaderTooLarge => "The header is too large",
            Self::UnsupportedMediaType => "The content type is not supported",
            Self::Overloaded => "Too many requests are waiting",
            Self::TooManyWaiters => "Too many clients wait for tasks",
            Self::TooManyStreams => "Too many clients follow tasks",
            Self::StoreUnavailable => "The task store is unavailable",
            Self::NotReady => "The service is not ready",
            Self::Stopping => "The service is stopping",
            Self::Internal => "Something went wrong",
            Self::Other(status) => status.canonical_reason().unwrap_or("Refused"),
        }
    }

    /// After how many seconds trying again makes sense.
    const fn retry_after_seconds(self) -> Option<u16> {
        match self {
            Self::Overloaded | Self::NotReady | Self::Stopping => Some(1),
            Self::TooManyWaiters | Self::TooManyStreams => Some(5),
            Self::StoreUnavailable => Some(2),
            _ => None,
        }
    }

    /// When this happens, for the document.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::MalformedBody => "The body is missing or is not a JSON object.",
            Self::InvalidTask => {
                "Some fields are missing or invalid; `errors` names every one of them."
            }
            Self::InvalidId => "The id in the path is not a UUID.",
            Self::UnknownTask => "There is no task with this id.",
            Self::WrongState => {
                "The state of the task does not allow it; `taskStatus` names the state."
            }
            Self::InvalidParameter => "A query parameter is invalid; `errors` names it.",
            Self::InvalidIdempotencyKey => {
                "The header `Idempotency-Key` is not a single one of 1 to 255 visible ASCII characters."
            }
            Self::KeyReused => {
                "The same `Idempotency-Key` came with another body within the last 24 h; nothing was stored."
            }
            Self::MissingApiKey => "API keys are configured, and the request brings none.",
            Self::UnknownApiKey => "The request brings something that is no API key known here.",
            Self::MissingScope => "The API key has not the scope that the operation needs.",
            Self::RateLimited => {
                "The client asked more often than it may; `Retry-After` says when to come back."
            }
            Self::UnknownRoute => "There is no such route.",
            Self::MethodNotAllowed => "The route does not take this method.",
            Self::SlowBody => "The body did not arrive in time.",
            Self::BodyTooLarge => "The body is over the limit.",
            Self::MalformedRequest => "What came is not a request of HTTP.",
            Self::HeaderTooLarge => {
                "The header of the request is over the limit, in bytes or in fields."
            }
            Self::UnsupportedMediaType => "The body is not declared as `application/json`.",
            Self::Overloaded => "Too many requests are waiting; nothing was stored.",
            Self::TooManyWaiters => {
                "As many clients wait for tasks as this server takes; ask without `wait`, or again later."
            }
            Self::TooManyStreams => "As many clients follow tasks as this server takes.",
            Self::StoreUnavailable => {
                "The task store did not answer. After a POST it is not known whether the task was stored."
            }
            Self::NotReady => "A required dependency does not answer, or the service is stopping.",
            Self::Stopping => {
                "The service is stopping; it is not known whether the task was stored."
            }
            Self::Internal => "A defect of the service. The details are in its log.",
            Self::Other(_) => "Refused.",
        }
    }

    /// One such problem, for the document.
    pub(crate) fn example(self) -> Value {
        let (instance, detail) = match self {
            Self::MalformedBody => (
                "/tasks",
                "not valid JSON: EOF while parsing an object at line 1 column 11",
            ),
            Self::InvalidTask => ("/tasks", "2 fields are invalid"),
            Self::InvalidId => ("/tasks/42", "42 is not a UUID"),
            Self::UnknownTask => (
                "/tasks/01890a5d-ac96-774b-bcce-b302099a8057",
                "there is no task with this id",
            ),
            Self::WrongState => (
                "/tasks/01890a5d-ac96-774b-bcce-b302099a8057/cancel",
                "the task is done",
            ),
            Self::InvalidParameter => (
                "/tasks/01890a5d-ac96-774b-bcce-b302099a8057",
                "the parameter wait is invalid",
            ),
            Self::InvalidIdempotencyKey => ("/tasks", "the header Idempotency-Key is invalid"),
            Self::KeyReused => (
                "/tasks",
                "this Idempotency-Key came with another body before; nothing was stored",
            ),
            Self::MissingApiKey => ("/tasks", "send an API key as Authorization: Bearer <key>"),
            Self::UnknownApiKey => (
                "/tasks",
                "the Authorization header holds no key that is known here",
            ),
            Self::MissingScope => ("/tasks", "the API key has not the scope submit"),
            Self::RateLimited => ("/tasks", "too many requests; come back in 1 s"),
            Self::UnknownRoute => ("/task", "there is no such route"),
            Self::MethodNotAllowed => ("/tasks/batch", "this route takes POST"),
            Self::SlowBody => ("/tasks", "the body did not arrive within 30 s"),
            Self::BodyTooLarge => ("/tasks", "the body is over the limit of 262144 bytes"),
            Self::MalformedRequest => ("", "this is not a request of HTTP"),
            Self::HeaderTooLarge => (
                "",
                "the request line and the header fields together are too long, or too many",
            ),
            Self::UnsupportedMediaType => ("/tasks", "send the body as application/json"),
            Self::TooManyWaiters => (
                "/tasks/01890a5d-ac96-774b-bcce-b302099a8057",
                "as many clients wait for tasks as this server takes",
            ),
            Self::TooManyStreams => (
                "/events",
                "as many clients follow tasks as this server takes",
            ),
            Self::Overloaded => (
                "/tasks",
                "too many tasks are waiting to be stored; nothing was stored",
            ),
            Self::StoreUnavailable => ("/tasks", "the task store did not answer in time"),
            Self::Stopping => ("/tasks", "try again: another instance will answer"),
            Self::NotReady => ("/health/ready", "the task store does not answer"),
            Self::Internal | Self::Other(_) => {
                ("/tasks", "the details are in the log of the service")
            }
        };
        let problem = match self {
            Self::InvalidTask => Problem::invalid(vec![
                FieldError::new("payload", "is required"),
                FieldError::new("priority", "must be an integer from 0 to 10"),
            ]),
            Self::InvalidId => Problem::invalid_id(),
            Self::WrongState => Problem::wrong_state(TaskStatus::Done),
            Self::NotReady => {
                Problem::new(self, detail).with_dependencies(Dependencies::example_down())
            }
            _ => Problem::new(self, detail),
        };
        serde_json::to_value(problem.body(instance)).unwrap_or_default()
    }
}

/// One wrong field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FieldError {
    field: Cow<'static, str>,
    detail: Cow<'static, str>,
}

impl FieldError {
    pub(crate) fn new(
        field: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            field: field.into(),
            detail: detail.into(),
        }
    }
}

/// One failure.
#[derive(Debug)]
pub(crate) struct Problem {
    kind: Kind,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    task_status: Option<TaskStatus>,
    dependencies: Option<Box<Dependencies>>,
    progress: Option<Box<Progress>>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            task_status: None,
            dependencies: None,
            progress: None,
        }
    }

    pub(crate) fn unknown_task() -> Self {
        Self::new(Kind::UnknownTask, "there is no task with this id")
    }

    /// A task whose status does not allow what was asked for.
    pub(crate) fn wrong_state(status: TaskStatus) -> Self {
        Self {
            task_status: Some(status),
            ..Self::new(Kind::WrongState, format!("the task is {status}"))
        }
    }

    /// A task with these wrong fields.
    pub(crate) fn invalid(errors: Vec<FieldError>) -> Self {
        let detail: Cow<'static, str> = match errors.len() {
            1 => "1 field is invalid".into(),
            count => format!("{count} fields are invalid").into(),
        };
        Self {
            errors,
            ..Self::new(Kind::InvalidTask, detail)
        }
    }

    /// What a batch was refused for: the field that is wrong is named by a JSON pointer into the body.
    pub(crate) fn of_batch(error: SubmitError) -> Self {
        match error {
            SubmitError::Invalid {
                index,
                field,
                reason,
            } => Self::invalid(vec![FieldError::new(format!("/{index}/{field}"), reason)]),
            SubmitError::Rejected(_) => Self::new(
                Kind::InvalidTask,
                "the task store cannot keep one of these tasks",
            ),
            other => other.into(),
        }
    }

    fn invalid_id() -> Self {
        let errors = vec![FieldError::new("id", "must be a UUID")];
        Self::with_errors(Kind::InvalidId, "the id in the path is not a UUID", errors)
    }

    pub(crate) fn with_errors(
        kind: Kind,
        detail: impl Into<Cow<'static, str>>,
        errors: Vec<FieldError>,
    ) -> Self {
        Self {
            errors,
            ..Self::new(kind, detail)
        }
    }

    pub(crate) fn internal() -> Self {
        Self::new(Kind::Internal, "the details are in the log of the service")
    }

    pub(crate) fn with_dependencies(mut self, dependencies: Dependencies) -> Self {
        self.dependencies = Some(Box::new(dependencies));
        self
    }

    pub(crate) fn with_progress(mut self, progress: Progress) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    pub(crate) const fn status(&self) -> StatusCode {
        self.kind.status()
    }

    fn body<'a>(&'a self, instance: &'a str) -> Body<'a> {
        Body {
            kind: match self.kind.name() {
                Some(name) => format!("urn:task-processor:problem:{name}").into(),
                None => "about:blank".into(),
            },
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            detail: &self.detail,
            instance,
            errors: &self.errors,
            task_status: self.task_status.map(TaskStatus::as_str),
            dependencies: self.dependencies.as_deref(),
            progress: self.progress.as_deref(),
        }
    }

    /// The body of the response, about the path that was asked for.
    pub(crate) fn text(&self, instance: &str) -> Vec<u8> {
        // Serializing text and numbers into memory cannot fail.
        serde_json::to_vec(&self.body(instance)).unwrap_or_default()
    }

    /// The response, about the path that was asked for.
    pub(crate) fn respond(&self, instance: &str) -> Response {
        let mut response = Response::builder()
            .status(self.status())
            .content_type(CONTENT_TYPE)
            .body(self.text(instance));
        if let Some(seconds) = self.kind.retry_after_seconds() {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The problem as it goes over the wire.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: Cow<'static, str>,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    instance: &'a str,
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(rename = "taskStatus", skip_serializing_if = "Option::is_none")]
    task_status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dependencies: Option<&'a Dependencies>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<&'a Progress>,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.kind.title(), self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status(&self) -> StatusCode {
        Self::status(self)
    }

    fn as_response(&self) -> Response {
        self.respond("")
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Invalid { field, reason, .. } => {
                Self::invalid(vec![FieldError::new(field, reason)])
            }
            SubmitError::Overloaded => Self::new(
                Kind::Overloaded,
                "too many tasks are waiting to be stored; nothing was stored",
            ),
            SubmitError::Unavailable(_) => Self::new(
                Kind::StoreUnavailable,
                "the task store did not answer in time",
            ),
            SubmitError::KeyReused => Self::new(
                Kind::KeyReused,
                "this Idempotency-Key came with another body before; nothing was stored",
            ),
            SubmitError::Stopped => {
                Self::new(Kind::Stopping, "try again: another instance will answer")
            }
            SubmitError::Rejected(_) => {
                Self::new(Kind::InvalidTask, "the task store cannot keep this task")
            }
            unforeseen => {
                tracing::error!(event = "http.submit_unforeseen", error = %unforeseen, "a submission failed in an unknown way");
                Self::internal()
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.is_transient() {
            Self::new(
                Kind::StoreUnavailable,
                "the task store did not answer in time",
            )
        } else {
            Self::internal()
        }
    }
}

impl From<poem::Error> for Problem {
    /// Our own problems travel through the framework as its errors; the rest are the framework's.
    fn from(error: poem::Error) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(problem) => return problem,
            Err(error) => error,
        };
        if error.is::<NotFoundError>() {
            return Self::new(Kind::UnknownRoute, "there is no such route");
        }
        if error.is::<MethodNotAllowedError>() {
            return Self::new(
                Kind::MethodNotAllowed,
                "the route does not take this method",
            );
        }
        if error.is::<ParsePathError>() {
            return Self::invalid_id();
        }
        let status = error.status();
        if status.is_server_error() {
            tracing::error!(event = "http.framework_failed", %error, "the HTTP framework failed");
            return Self::internal();
        }
        Self::new(Kind::Other(status), error.to_string())
    }
}

/// The description of a problem in the document.
pub(crate) struct ProblemShape;

impl Shape for ProblemShape {
    const NAME: &'static str = "Problem";

    fn schema() -> MetaSchema {
        object(
            "What went wrong (RFC 9457).",
            vec![
                Member::required(
                    "type",
                    uri(
                        "Names the kind of problem; `about:blank` where the status says it all.",
                        "urn:task-processor:problem:invalid-task",
                    ),
                ),
                Member::required(
                    "title",
                    text("The kind of problem in words.", "The task is invalid"),
                ),
                Member::required(
                    "status",
                    integer(
                        "The status code of the answer.",
                        Some(400.0),
                        Some(599.0),
                        400,
                    ),
                ),
                Member::required(
                    "detail",
                    text("What went wrong this time.", "2 fields are invalid"),
                ),
                Member::optional("instance", uri("The path that was asked for.", "/tasks")),
                Member::optional(
                    "errors",
                    list("Every wrong field.", FieldErrorShape::reference()),
                ),
                Member::optional(
                    "taskStatus",
                    choice(
                        "The state of the task, when it does not allow what was asked for.",
                        TaskStatus::ALL.map(TaskStatus::as_str),
                        "done",
                    ),
                ),
                Member::optional("dependencies", Dependencies::reference()),
                Member::optional("progress", Progress::reference()),
            ],
            Kind::InvalidTask.example(),
        )
    }

    fn register_parts(registry: &mut Registry) {
        FieldErrorShape::register(registry);
        Dependencies::register(registry);
        Progress::register(registry);
    }
}

struct FieldErrorShape;

impl Shape for FieldErrorShape {
    const NAME: &'static str = "FieldError";

    fn schema() -> MetaSchema {
        object(
            "A wrong field.",
            vec![
                Member::required(
                    "field",
                    text(
                        "The name of the field or parameter; in a batch, a JSON pointer such as `/3/priority`.",
                        "priority",
                    ),
                ),
                Member::required(
                    "detail",
                    text("What is wrong with it.", "must be an integer from 0 to 10"),
                ),
            ],
            json!({"field": "priority", "detail": "must be an integer from 0 to 10"}),
        )
    }
}

/// The failures that an operation documents.
pub(crate) trait Failures {
    /// The `operationId`.
    const OPERATION: &'static str;
    /// What can go wrong.
    const KINDS: &'static [Kind];
}

/// A problem answered by the operation that documents `F`.
pub(crate) struct Refused<F>(Problem, PhantomData<fn() -> F>);

impl<F, E: Into<Problem>> From<E> for Refused<F> {
    fn from(error: E) -> Self {
        Self(error.into(), PhantomData)
    }
}

impl<F> From<Refused<F>> for poem::Error {
    fn from(refused: Refused<F>) -> Self {
        refused.0.into()
    }
}

impl<F: Failures> ApiResponse for Refused<F> {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: statuses(F::KINDS)
                .into_iter()
                .map(|status| {
                    let kinds: Vec<Kind> = of_status(F::KINDS, status).collect();
                    describe(status, &kinds)
                })
                .collect(),
        }
    }

    fn register(registry: &mut Registry) {
        ProblemShape::register(registry);
    }
}

/// The distinct status codes, rising.
fn statuses(kinds: &[Kind]) -> Vec<StatusCode> {
    let mut statuses: Vec<StatusCode> = kinds.iter().map(|kind| kind.status()).collect();
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

/// The kinds that share a status code.
pub(crate) fn of_status(kinds: &[Kind], status: StatusCode) -> impl Iterator<Item = Kind> {
    kinds
        .iter()
        .copied()
        .filter(move |kind| kind.status() == status)
}

fn describe(status: StatusCode, kinds: &[Kind]) -> MetaResponse {
    let mut headers = Vec::new();
    if kinds
        .iter()
        .any(|kind| kind.retry_after_seconds().is_some())
    {
        headers.push(MetaHeader {
            name: "Retry-After".into(),
            description: Some("After how many seconds to try again.".into()),
            required: true,
            deprecated: false,
            schema: MetaSchemaRef::Inline(Box::new(integer("Seconds.", Some(0.0), None, 1))),
        });
    }
    MetaResponse {
        description: kinds.first().map_or("", |kind| kind.meaning()),
        status: Some(status.as_u16()),
        status_range: None,
        content: vec![MetaMediaType {
            content_type: CONTENT_TYPE,
            schema: ProblemShape::reference(),
        }],
        headers,
    }
}
