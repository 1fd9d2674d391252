//! The bodies of `POST /tasks` and `POST /tasks/batch`: read within limits, parsed once, every wrong field named at once.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use domain::ports::{Payload, Priority, Timestamp, TraceContext};
use domain::{Arrival, Submission, SubmitError};
use futures_util::{Stream, StreamExt};
use poem::http::header;
use poem::web::RequestBody;
use poem::{Body, Request};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::json;
use tokio::time::timeout;

use crate::problem::{FieldError, Kind, Problem};
use crate::schema::{Member, Shape, integer, list, matching, object, text, time, with_default};

const MAX_ATTEMPTS: i64 = 100;

/// How many tasks a batch may hold.
pub(crate) const MAX_BATCH: usize = 1_000;

/// How much of a refused body is still read, so that a client that writes before it reads gets the answer and not a
/// reset connection.
const LINGER_BYTES: usize = 4 * 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// The body of a request that may carry a task; nothing of it has been read.
pub(crate) struct TaskBody(Unread);

/// The body of a request that may carry a batch of tasks; nothing of it has been read.
pub(crate) struct BatchBody(Unread);

struct Unread {
    body: Body,
    announced: Option<usize>,
    waits_for_continue: bool,
    trace: Option<TraceContext>,
}

impl<'a> ApiExtractor<'a> for TaskBody {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        NewTaskShape::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(MetaRequest {
            description: Some("The task. Unknown fields are ignored."),
            content: vec![MetaMediaType {
                content_type: "application/json",
                schema: NewTaskShape::reference(),
            }],
            required: true,
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _options: ExtractParamOptions<Self::ParamType>,
    ) -> poem::Result<Self> {
        Unread::take(request, body, MISSING_TASK).map(Self)
    }
}

impl<'a> ApiExtractor<'a> for BatchBody {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        NewTaskShape::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        let tasks = list("From 1 to 1,000 tasks.", NewTaskShape::reference());
        let schema = MetaSchema {
            min_items: Some(1),
            max_items: Some(MAX_BATCH),
            ..tasks
        };
        Some(MetaRequest {
            description: Some(
                "The tasks, together at most 16 times as long as the body of a single task may be (4 MiB unless configured \
                 otherwise).",
            ),
            content: vec![MetaMediaType {
                content_type: "application/json",
                schema: MetaSchemaRef::Inline(Box::new(schema)),
            }],
            required: true,
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _options: ExtractParamOptions<Self::ParamType>,
    ) -> poem::Result<Self> {
        Unread::take(request, body, MISSING_BATCH).map(Self)
    }
}

const MISSING_TASK: &str = "the body is missing: send a JSON object with a `payload`";
const MISSING_BATCH: &str = "the body is missing: send a JSON array of tasks";

fn check_content_type(
    request: &Request,
    body: &Body,
    missing: &'static str,
) -> Result<(), Problem> {
    let unsupported = |detail: &'static str| Err(Problem::new(Kind::UnsupportedMediaType, detail));
    if let Some(encoding) = request.headers().get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return unsupported("send the body without a content encoding");
    }
    match request.headers().get(header::CONTENT_TYPE) {
        Some(value) if value.to_str().is_ok_and(is_json) => Ok(()),
        None if body.is_empty() => Err(Problem::new(Kind::MalformedBody, missing)),
        _ => unsupported("send the body as application/json"),
    }
}

/// `application/json`, with no charset or with UTF-8.
fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';');
    let media_type = parts.next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json")
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
                let charset = value.trim().trim_matches('"');
                charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8")
            }
            _ => true,
        })
}

impl TaskBody {
    /// Reads and parses the body, for which it takes room as it comes.
    pub(crate) async fn read(
        self,
        limit: usize,
        patience: Duration,
        arrival: &mut Arrival,
    ) -> Result<Submission, Problem> {
        let trace = self.0.trace.clone();
        let submission = self.0.read(limit, patience, arrival, parse).await?;
        Ok(Submission {
            trace,
            ..submission
        })
    }
}

impl BatchBody {
    /// Reads and parses the body, for which it takes room as it comes.
    pub(crate) async fn read(
        self,
        limit: usize,
        patience: Duration,
        arrival: &mut Arrival,
    ) -> Result<Vec<Submission>, Problem> {
        let trace = self.0.trace.clone();
        let mut submissions = self.0.read(limit, patience, arrival, parse_batch).await?;
        for submission in &mut submissions {
            submission.trace.clone_from(&trace);
        }
        Ok(submissions)
    }
}

impl Unread {
    fn take(
        request: &Request,
        body: &mut RequestBody,
        missing: &'static str,
    ) -> poem::Result<Self> {
        let body = body.take()?;
        check_content_type(request, &body, missing)?;
        let headers = request.headers();
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse().ok());
        Ok(Self {
            body,
            announced,
            waits_for_continue: headers.contains_key(header::EXPECT),
            trace: request.data::<TraceContext>().cloned(),
        })
    }

    async fn read<T>(
        self,
        limit: usize,
        patience: Duration,
        arrival: &mut Arrival,
        parse: impl FnOnce(&[u8]) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let (announced, waits_for_continue) = (self.announced, self.waits_for_continue);
        let mut chunks = self.body.into_bytes_stream();
        let read = if announced.is_some_and(|bytes| bytes > limit) {
            Err(Refusal::TooLarge)
        } else {
            match timeout(patience, collect(&mut chunks, announced, limit, arrival)).await {
                Ok(read) => read,
                Err(_) => Err(Refusal::Slow),
            }
        };
        match read {
            Ok(bytes) => parse(bytes.as_ref()),
            Err(Refusal::TooLarge) => {
                // A client that waits for `100 Continue` has sent nothing, and reading would ask it to.
                if !waits_for_continue {
                    tokio::spawn(linger(chunks));
                }
                Err(Problem::new(
                    Kind::BodyTooLarge,
                    format!("the body is over the limit of {limit} bytes"),
                ))
            }
            Err(Refusal::Overloaded) => {
                tokio::spawn(linger(chunks));
                Err(SubmitError::Overloaded.into())
            }
            Err(Refusal::Slow) => Err(Problem::new(
                Kind::SlowBody,
                format!(
                    "the body did not arrive within {} s",
                    patience.as_secs_f32()
                ),
            )),
            Err(Refusal::Broken) => Err(Problem::new(
                Kind::MalformedBody,
                "the body ended before it was complete",
            )),
        }
    }
}

enum Refusal {
    TooLarge,
    Overloaded,
    Slow,
    Broken,
}

/// All chunks in one piece; the usual single chunk is not copied.
async fn collect<C: AsRef<[u8]>, E>(
    chunks: &mut (impl Stream<Item = Result<C, E>> + Unpin),
    announced: Option<usize>,
    limit: usize,
    arrival: &mut Arrival,
) -> Result<Collected<C>, Refusal> {
    let mut collected = Collected::Whole(None);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Refusal::Broken)?;
        let length = collected.as_ref().len() + chunk.as_ref().len();
        if length > limit {
            return Err(Refusal::TooLarge);
        }
        if !arrival.grow(chunk.as_ref().len(), announced == Some(length)) {
            return Err(Refusal::Overloaded);
        }
        collected = match collected {
            Collected::Whole(None) => Collected::Whole(Some(chunk)),
            Collected::Whole(Some(first)) => {
                let mut bytes = Vec::with_capacity(announced.unwrap_or(0));
                bytes.extend_from_slice(first.as_ref());
                bytes.extend_from_slice(chunk.as_ref());
                Collected::Joined(bytes)
            }
            Collected::Joined(mut bytes) => {
                bytes.extend_from_slice(chunk.as_ref());
                Collected::Joined(bytes)
            }
        };
    }
    Ok(collected)
}

enum Collected<C> {
    Whole(Option<C>),
    Joined(Vec<u8>),
}

impl<C: AsRef<[u8]>> AsRef<[u8]> for Collected<C> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Whole(None) => &[],
            Self::Whole(Some(chunk)) => chunk.as_ref(),
            Self::Joined(bytes) => bytes,
        }
    }
}

/// Reads on, for a while, what nobody wants to read, so that its client gets the answer.
pub(crate) fn let_go_of_body(request: &mut Request) {
    let waits_for_continue = request.headers().contains_key(header::EXPECT);
    let body = request.take_body();
    // A client that waits for `100 Continue` has sent nothing, and reading would ask it to.
    if !waits_for_continue && !body.is_empty() {
        tokio::spawn(linger(body.into_bytes_stream()));
    }
}

/// Reads on for a while; the connection is closed when the body is dropped unfinished.
async fn linger<C: AsRef<[u8]>, E>(mut chunks: impl Stream<Item = Result<C, E>> + Unpin) {
    let mut left = LINGER_BYTES;
    let drain = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            match left.checked_sub(chunk.as_ref().len()) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // Either way the body has had its chance.
    let _ = timeout(LINGER_TIME, drain).await;
}

fn parse(bytes: &[u8]) -> Result<Submission, Problem> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Problem::new(Kind::MalformedBody, MISSING_TASK));
    }
    let fields: Fields =
        serde_json::from_slice(bytes).map_err(|error| malformed("a JSON object", &error))?;
    let mut errors = Vec::new();
    let submission = fields.check(|field, detail| errors.push(FieldError::new(field, detail)));
    if errors.is_empty() {
        Ok(submission)
    } else {
        Err(Problem::invalid(errors))
    }
}

/// What is said of a text that stands where an object should repeats all of it; the beginning and the place are enough.
fn malformed(expected: &str, error: &serde_json::Error) -> Problem {
    const ENOUGH: usize = 160;
    let mut said = error.to_string();
    if said.len() > ENOUGH {
        said.truncate(said.floor_char_boundary(ENOUGH));
        let (line, column) = (error.line(), error.column());
        said.push_str(&format!("… at line {line} column {column}"));
    }
    Problem::new(Kind::MalformedBody, format!("not {expected}: {said}"))
}

fn parse_batch(bytes: &[u8]) -> Result<Vec<Submission>, Problem> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Problem::new(Kind::MalformedBody, MISSING_BATCH));
    }
    let Batch { items, count } =
        serde_json::from_slice(bytes).map_err(|error| malformed("a JSON array", &error))?;
    if !(1..=MAX_BATCH).contains(&count) {
        let detail = format!("must hold from 1 to {MAX_BATCH} tasks, not {count}");
        return Err(Problem::invalid(vec![FieldError::new("", detail)]));
    }
    let mut errors = Vec::new();
    let mut submissions = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        match item {
            Item::Object(fields) => submissions.push(fields.check(|field, detail| {
                errors.push(FieldError::new(format!("/{index}/{field}"), detail));
            })),
            Item::Other => {
                errors.push(FieldError::new(format!("/{index}"), "must be an object"));
            }
        }
    }
    if errors.is_empty() {
        Ok(submissions)
    } else {
        Err(Problem::invalid(errors))
    }
}

/// The items of an array, as many as a batch may hold, and how many there were.
struct Batch {
    items: Vec<Item>,
    count: usize,
}

enum Item {
    Object(Fields),
    Other,
}

/// The known fields as they came.
#[derive(Default)]
struct Fields {
    payload: Option<Json>,
    priority: Option<Json>,
    run_at: Option<Json>,
    max_attempts: Option<Json>,
}

impl Fields {
    /// The submission, and every wrong field with what is wrong with it.
    fn check(self, mut wrong: impl FnMut(&'static str, Cow<'static, str>)) -> Submission {
        let mut payload = None;
        match self.payload {
            None => wrong("payload", "is required".into()),
            Some(Json::Text(text)) => match Payload::new(text) {
                Ok(valid) => payload = Some(valid),
                Err(error) => wrong("payload", error.to_string().into()),
            },
            Some(_) => wrong("payload", "must be a string".into()),
        }
        let mut submission = Submission::new(payload.unwrap_or_default());
        match self
            .priority
            .map(|value| value.whole().and_then(|n| Priority::new(n).ok()))
        {
            None => {}
            Some(Some(priority)) => submission.priority = priority,
            Some(None) => wrong("priority", "must be an integer from 0 to 10".into()),
        }
        match self.run_at {
            None => {}
            Some(Json::Text(text)) if let Some(time) = Timestamp::parse_rfc3339(&text) => {
                submission.run_at = Some(time);
            }
            Some(_) => wrong(
                "runAt",
                "must be an RFC 3339 time such as 2025-01-01T00:00:00Z".into(),
            ),
        }
        match self
            .max_attempts
            .map(|value| value.whole().and_then(attempts))
        {
            None => {}
            Some(Some(attempts)) => submission.max_attempts = Some(attempts),
            Some(None) => wrong(
                "maxAttempts",
                format!("must be an integer from 1 to {MAX_ATTEMPTS}").into(),
            ),
        }
        submission
    }
}

fn attempts(number: i64) -> Option<u32> {
    (1..=MAX_ATTEMPTS)
        .contains(&number)
        .then(|| u32::try_from(number).ok())
        .flatten()
}

/// A JSON value, as far as it matters here. Reading one checks all of it: its strings are valid Unicode and it nests at
/// most 128 deep. (serde's `IgnoredAny` would check neither.)
enum Json {
    Text(String),
    Whole(i64),
    Other,
}

impl Json {
    fn whole(&self) -> Option<i64> {
        match self {
            Self::Whole(number) => Some(*number),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Whole(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(i64::try_from(number).map_or(Json::Other, Json::Whole))
    }

    /// `1.0` is an integer. Up to 2^53 the conversion is exact; beyond it no field has a use for the number.
    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        let exact = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
        Ok(if exact {
            Json::Whole(number as i64)
        } else {
            Json::Other
        })
    }

    fn visit_bool<E>(self, _value: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        while items.next_element::<Json>()?.is_some() {}
        Ok(Json::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        while members.next_entry::<Name, Json>()?.is_some() {}
        Ok(Json::Other)
    }
}

/// The name of a member.
enum Name {
    Payload,
    Priority,
    RunAt,
    MaxAttempts,
    Unknown,
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = Name;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Name, E> {
        Ok(match name {
            "payload" => Name::Payload,
            "priority" => Name::Priority,
            "runAt" => Name::RunAt,
            "maxAttempts" => Name::MaxAttempts,
            _ => Name::Unknown,
        })
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    /// Of a name that comes twice the last value counts, as in JavaScript.
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some((name, value)) = members.next_entry::<Name, Json>()? {
            match name {
                Name::Payload => fields.payload = Some(value),
                Name::Priority => fields.priority = Some(value),
                Name::RunAt => fields.run_at = Some(value),
                Name::MaxAttempts => fields.max_attempts = Some(value),
                Name::Unknown => {}
            }
        }
        Ok(fields)
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BatchVisitor)
    }
}

struct BatchVisitor;

impl<'de> Visitor<'de> for BatchVisitor {
    type Value = Batch;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Batch, A::Error> {
        let mut batch = Batch {
            items: Vec::new(),
            count: 0,
        };
        while batch.count < MAX_BATCH {
            let Some(item) = items.next_element()? else {
                return Ok(batch);
            };
            batch.items.push(item);
            batch.count += 1;
        }
        // What is too many is counted and not kept.
        while items.next_element::<Json>()?.is_some() {
            batch.count += 1;
        }
        Ok(batch)
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a task")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Item, A::Error> {
        FieldsVisitor.visit_map(members).map(Item::Object)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Item, A::Error> {
        JsonVisitor.visit_seq(items).map(|_| Item::Other)
    }

    fn visit_str<E>(self, _text: &str) -> Result<Item, E> {
        Ok(Item::Other)
    }

    fn visit_i64<E>(self, _number: i64) -> Result<Item, E> {
        Ok(Item::Other)
    }

    fn visit_u64<E>(self, _number: u64) -> Result<Item, E> {
        Ok(Item::Other)
    }

    fn visit_f64<E>(self, _number: f64) -> Result<Item, E> {
        Ok(Item::Other)
    }

    fn visit_bool<E>(self, _value: bool) -> Result<Item, E> {
        Ok(Item::Other)
    }

    fn visit_unit<E>(self) -> Result<Item, E> {
        Ok(Item::Other)
    }
}

/// The description of the body in the document.
struct NewTaskShape;

impl Shape for NewTaskShape {
    const NAME: &'static str = "NewTask";

    fn schema() -> MetaSchema {
        object(
            "A task to be stored and processed.",
            vec![
                Member::required(
                    "payload",
                    matching(
                        text("What to process: any text without U+0000.", "Hello world!"),
                        r"^[^\u0000]*$",
                    ),
                ),
                Member::optional(
                    "priority",
                    with_default(
                        integer(
                            "How urgent it is among those that a worker takes at once, as many as it has room to run; 10 is the most urgent.",
                            Some(0.0),
                            Some(10.0),
                            1,
                        ),
                        0,
                    ),
                ),
                Member::optional(
                    "runAt",
                    time(
                        "Not to be started before this time (RFC 3339, any offset). Without it: at once.",
                        "2025-01-01T00:00:00Z",
                    ),
                ),
                Member::optional(
                    "maxAttempts",
                    integer(
                        "After how many failed attempts the task ends `failed`. Without it: the service's default.",
                        Some(1.0),
                        Some(100.0),
                        5,
                    ),
                ),
            ],
            json!({"payload": "Hello world!", "priority": 1}),
        )
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Result<Submission, &str>) {
        let parsed = parse(body.as_bytes()).map_err(|problem| problem.to_string());
        assert_eq!(parsed, expected.map_err(str::to_owned), "{body}");
    }

    fn task(text: &str, priority: i64) -> Result<Submission, &str> {
        Ok(Submission {
            payload: Payload::new(text).expect("no NUL"),
            priority: Priority::new(priority).expect("0..=10"),
            ..Submission::default()
        })
    }

    #[test]
    fn integers_may_be_written_with_a_fraction_of_zero() {
        check(r#"{"payload":"x"}"#, task("x", 0));
        check(r#"{"payload":"x","priority":1.0}"#, task("x", 1));
        check(r#"{"payload":"x","priority":1e1}"#, task("x", 10));
        check(r#"{"payload":"x","priority":-0}"#, task("x", 0));
    }

    #[test]
    fn unknown_fields_are_ignored_and_the_last_of_a_name_counts() {
        check(
            r#" {"x":[{"payload":3},null,true,1e300],"payload":"a","payload":"b","priority":"1","priority":2} "#,
            task("b", 2),
        );
        check(
            r#"{"\u0070ayload":"\ud83d\udc4d\u001f"}"#,
            task("👍\u{1f}", 0),
        );
    }

    #[test]
    fn content_types() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/json; boundary=x",
            "application/json;",
        ] {
            assert!(is_json(good), "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "application/jsonx",
            "application/x-www-form-urlencoded",
            "application/json; charset=iso-8859-1",
            "application/json, text/plain",
        ] {
            assert!(!is_json(bad), "{bad}");
        }
    }
}
