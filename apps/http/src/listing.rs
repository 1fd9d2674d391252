//! `GET /tasks`: its parameters and its answer.

use domain::ports::{Priority, Task, TaskStatus, Timestamp};
use domain::{Page, Search};
use poem::http::{HeaderValue, StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{
    MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::answer::{EXAMPLE_ID, JSON_DESCRIBED, as_text, json_response, one_response};
use crate::cursor;
use crate::problem::Problem;
use crate::query::{Asked, Parameter, invalid};
use crate::schema::{
    Member, Shape, choice, id, integer, list, nullable, object, text, time, with_default,
};

/// How many tasks a page has, unless asked otherwise, and at most.
const LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 1_000;

pub(crate) struct Status;
pub(crate) struct OfPriority;
pub(crate) struct CreatedAfter;
pub(crate) struct CreatedBefore;
pub(crate) struct Limit;
pub(crate) struct Cursor;

impl Parameter for Status {
    const NAME: &'static str = "status";

    fn schema() -> MetaSchema {
        let names = TaskStatus::ALL.map(TaskStatus::as_str);
        choice("A status.", names, "failed")
    }
}

impl Parameter for OfPriority {
    const NAME: &'static str = "priority";

    fn schema() -> MetaSchema {
        integer("A priority.", Some(0.0), Some(10.0), 1)
    }
}

impl Parameter for CreatedAfter {
    const NAME: &'static str = "createdAfter";

    fn schema() -> MetaSchema {
        time("A time with any offset.", "2025-01-01T00:00:00Z")
    }
}

impl Parameter for CreatedBefore {
    const NAME: &'static str = "createdBefore";

    fn schema() -> MetaSchema {
        time("A time with any offset.", "2025-01-02T00:00:00Z")
    }
}

impl Parameter for Limit {
    const NAME: &'static str = "limit";

    fn schema() -> MetaSchema {
        let number = integer("How many tasks.", Some(1.0), Some(1_000.0), LIMIT);
        with_default(number, LIMIT)
    }
}

impl Parameter for Cursor {
    const NAME: &'static str = "cursor";

    fn schema() -> MetaSchema {
        text("What an earlier page gave as `next`.", EXAMPLE_CURSOR)
    }
}

const EXAMPLE_CURSOR: &str = "01890a5dac96774bbcceb302099a80573f1c0d5a8e2b7946";

/// What may be asked for.
pub(crate) struct Asking {
    pub(crate) status: Asked<Status>,
    pub(crate) priority: Asked<OfPriority>,
    pub(crate) created_after: Asked<CreatedAfter>,
    pub(crate) created_before: Asked<CreatedBefore>,
    pub(crate) limit: Asked<Limit>,
    pub(crate) cursor: Asked<Cursor>,
}

impl Asking {
    /// What is looked for, or everything that is wrong.
    pub(crate) fn search(&self) -> Result<Search, Problem> {
        let mut wrong = Vec::new();
        let number = |text: &str| text.parse::<i64>().ok();
        let time = |text: &str| {
            // To the millisecond, as times are shown.
            let time = Timestamp::parse_rfc3339(text).map(Timestamp::truncated_to_millis);
            time.ok_or("must be an RFC 3339 time such as 2025-01-01T00:00:00Z")
        };
        let mut search = Search {
            status: self.status.read(&mut wrong, |text| {
                TaskStatus::from_name(text)
                    .ok_or("must be one of pending, processing, done, failed, cancelled")
            }),
            priority: self.priority.read(&mut wrong, |text| {
                number(text)
                    .and_then(|number| Priority::new(number).ok())
                    .ok_or("must be an integer from 0 to 10")
            }),
            created_from: self.created_after.read(&mut wrong, time),
            created_before: self.created_before.read(&mut wrong, time),
            below: None,
            limit: 0,
        };
        let limit = self.limit.read(&mut wrong, |text| {
            number(text)
                .filter(|limit| (1..=MAX_LIMIT).contains(limit))
                .ok_or("must be an integer from 1 to 1000")
        });
        search.limit = usize::try_from(limit.unwrap_or(LIMIT)).unwrap_or_default();
        // Read against the other parameters: while one of them is wrong nothing can be said of it.
        if wrong.is_empty() {
            search.below = self.cursor.read(&mut wrong, |text| {
                cursor::read(&search, text).ok_or(
                    "must be the `next` of a page that was asked for with the same parameters",
                )
            });
        }
        if wrong.is_empty() {
            Ok(search)
        } else {
            Err(invalid(wrong))
        }
    }
}

/// `200` to a GET of the tasks.
pub(crate) struct Listing {
    search: Search,
    page: Page,
}

impl Listing {
    pub(crate) const fn new(search: Search, page: Page) -> Self {
        Self { search, page }
    }

    /// The same request for the next page.
    fn link(&self, next: &str) -> String {
        let Search {
            status,
            priority,
            created_from,
            created_before,
            limit,
            ..
        } = self.search;
        let parameters = [
            (Status::NAME, status.map(|status| status.to_string())),
            (
                OfPriority::NAME,
                priority.map(|priority| priority.get().to_string()),
            ),
            (
                CreatedAfter::NAME,
                created_from.map(|time| time.to_string()),
            ),
            (
                CreatedBefore::NAME,
                created_before.map(|time| time.to_string()),
            ),
            (Limit::NAME, Some(limit.to_string())),
            (Cursor::NAME, Some(next.to_owned())),
        ];
        let given = parameters
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        format!(
            "</tasks?{}>; rel=\"next\"",
            given.collect::<Vec<_>>().join("&")
        )
    }
}

#[derive(Serialize)]
struct Body<'a> {
    tasks: Vec<Listed<'a>>,
    next: Option<&'a str>,
}

/// A task among others: the form of those that are not done, for every status.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    #[serde(serialize_with = "as_text")]
    id: &'a domain::ports::TaskId,
    payload: &'a str,
    priority: u8,
    status: &'static str,
    result: Option<&'a str>,
    #[serde(serialize_with = "as_text")]
    created_at: &'a Timestamp,
    #[serde(serialize_with = "as_text")]
    updated_at: &'a Timestamp,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<'a> Listed<'a> {
    fn of(task: &'a Task) -> Self {
        Self {
            id: &task.id,
            payload: task.payload.as_str(),
            priority: task.priority.get(),
            status: task.status.as_str(),
            result: task.result.as_deref(),
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

impl IntoResponse for Listing {
    fn into_response(self) -> Response {
        let next = self.page.next.map(|next| cursor::write(&self.search, next));
        let body = Body {
            tasks: self.page.tasks.iter().map(Listed::of).collect(),
            next: next.as_deref(),
        };
        let mut response = json_response(StatusCode::OK, &body);
        let headers = response.headers_mut();
        let changing = HeaderValue::from_static("private, no-cache");
        headers.insert(header::CACHE_CONTROL, changing);
        // Another key may not be allowed to read them.
        headers.insert(header::VARY, HeaderValue::from_static("Authorization"));
        // Names, numbers and times are always a valid header value.
        let link = next.and_then(|next| HeaderValue::try_from(self.link(&next)).ok());
        if let Some(link) = link {
            headers.insert(header::LINK, link);
        }
        response
    }
}

impl Shape for Listed<'static> {
    const NAME: &'static str = "ListedTask";

    fn schema() -> MetaSchema {
        object(
            "A task among others.",
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
                        "Where it is in its life.",
                        TaskStatus::ALL.map(TaskStatus::as_str),
                        "done",
                    ),
                ),
                Member::required(
                    "result",
                    nullable(text(
                        "The processed payload of a `done` task; otherwise `null`.",
                        "!dlrow olleH (len=12)",
                    )),
                ),
                Member::required(
                    "createdAt",
                    time("When it was stored (UTC).", "2025-01-01T00:00:00.000Z"),
                ),
                Member::required(
                    "updatedAt",
                    time(
                        "When its status last changed (UTC); of a `done` task, when it became done.",
                        "2025-01-01T00:00:02.345Z",
                    ),
                ),
                Member::required(
                    "attempts",
                    integer("How many attempts have ended.", Some(0.0), None, 1),
                ),
                Member::optional(
                    "error",
                    text(
                        "Why it failed; on a `failed` task only.",
                        "exited with code 3",
                    ),
                ),
            ],
            Self::example(),
        )
    }
}

impl Listed<'static> {
    fn example() -> Value {
        json!({
            "id": EXAMPLE_ID,
            "payload": "Hello world!",
            "priority": 1,
            "status": "done",
            "result": "!dlrow olleH (len=12)",
            "createdAt": "2025-01-01T00:00:00.000Z",
            "updatedAt": "2025-01-01T00:00:02.345Z",
            "attempts": 1,
        })
    }
}

impl Shape for Listing {
    const NAME: &'static str = "TaskPage";

    fn schema() -> MetaSchema {
        object(
            "Some tasks, in descending order of id: the newest first.",
            vec![
                Member::required("tasks", list("The tasks.", Listed::reference())),
                Member::required(
                    "next",
                    nullable(text(
                        "The `cursor` of the next page; `null` on the last one.",
                        EXAMPLE_CURSOR,
                    )),
                ),
            ],
            json!({"tasks": [Listed::example()], "next": EXAMPLE_CURSOR}),
        )
    }

    fn register_parts(registry: &mut Registry) {
        Listed::register(registry);
    }
}

impl ApiResponse for Listing {
    fn meta() -> MetaResponses {
        one_response(MetaResponse {
            description: "A page of tasks. It may be short, or empty, and not be the last: `next` says.",
            status: Some(200),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: JSON_DESCRIBED,
                schema: Self::reference(),
            }],
            headers: vec![MetaHeader {
                name: "Link".into(),
                description: Some("The next page, as `rel=\"next\"`, if there is one.".into()),
                required: false,
                deprecated: false,
                schema: MetaSchemaRef::Inline(Box::new(text(
                    "A link.",
                    "</tasks?limit=50&cursor=01890a5dac96774bbcceb302099a80573f1c0d5a8e2b7946>; rel=\"next\"",
                ))),
            }],
        })
    }

    fn register(registry: &mut Registry) {
        <Self as Shape>::register(registry);
    }
}
