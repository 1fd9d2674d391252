//! The OpenAPI document.

use std::collections::HashMap;
use std::sync::LazyLock;

use access::Scope;
use poem::endpoint::BoxEndpoint;
use poem::http::{HeaderValue, Method, StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::registry::{
    MetaApi, MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef,
    Registry,
};
use poem_openapi::{ApiResponse, LicenseObject, OpenApi, OpenApiService, ServerObject};
use serde_json::{Map, Value, json};

use crate::admission::Refusal;
use crate::answer::one_response;
use crate::conditional::Published;
use crate::guard;
use crate::problem::{self, Kind, of_status};
use crate::routes::{FAILURES, Routes};
use crate::schema::uri;

const DESCRIPTION: &str = "\
Accepts tasks, processes them in the background and answers with their results.

* `POST /tasks` stores a task; `GET /tasks/{id}` shows what came of it.
* Times are RFC 3339 in UTC with milliseconds; ids are UUIDs.
* Every failure is a problem (`application/problem+json`, RFC 9457). A wrong method is answered `405` with `Allow`, an \
unknown route `404`, a header that is too large `431`.";

/// The name under `components.securitySchemes`.
const SCHEME: &str = "apiKey";

/// The order of the groups in the page.
const TAGS: [&str; 4] = ["Tasks", "Metrics", "Health", "Documentation"];

static DOCUMENT: LazyLock<String> = LazyLock::new(build);

/// The OpenAPI document of the API: JSON, indented by two spaces, with a newline at the end. The same text whenever it
/// is asked for; `docs/openapi.json` is this text.
#[must_use]
pub fn document() -> String {
    DOCUMENT.clone()
}

/// The routes, described.
pub(crate) fn service<T: OpenApi>(routes: T) -> OpenApiService<T, ()> {
    OpenApiService::new(routes, "Task Processor", env!("CARGO_PKG_VERSION"))
        .description(DESCRIPTION)
        .license(LicenseObject::new("MIT").url("https://spdx.org/licenses/MIT.html"))
        .server(ServerObject::new("/").description("This server"))
}

/// The routes as a description without anything behind them.
struct Description;

impl OpenApi for Description {
    fn meta() -> Vec<MetaApi> {
        Routes::meta()
    }

    fn register(registry: &mut Registry) {
        Routes::register(registry);
    }

    fn add_routes(self, _table: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {}
}

/// Swagger UI with the document in it: one page that needs nothing else.
pub(crate) fn page() -> String {
    let generated = service(Description);
    // `</` would end the script that the document stands in; JSON may write it as `<\/`.
    let document = DOCUMENT.trim_end().replace("</", "<\\/");
    generated
        .swagger_ui_html()
        .replacen(&generated.spec(), &document, 1)
        .replacen(
            "<title>Swagger UI</title>",
            // Without an icon of its own the browser would ask for `/favicon.ico`.
            "<title>Task Processor</title>\n    <link rel=\"icon\" href=\"data:,\">",
            1,
        )
}

/// The generated document, and in it what the generator has no words for.
fn build() -> String {
    let generated = service(Description).spec();
    let Ok(mut document) = serde_json::from_str::<Value>(&generated) else {
        return generated;
    };
    // The generator writes 3.0.0; nothing in the document changed its meaning since.
    document["openapi"] = json!("3.0.3");
    order_tags(&mut document);
    document["components"]["securitySchemes"] = json!({SCHEME: {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key. Needed where the service is configured with API keys; without, everybody is let in.",
    }});
    for operation in operations(&mut document) {
        let kinds = FAILURES
            .iter()
            .find(|(name, _)| operation["operationId"] == *name)
            .map_or(&[][..], |(_, kinds)| kinds);
        let need = guard::need_of(operation["operationId"].as_str().unwrap_or_default());
        describe_security(operation, need);
        let mut kinds = kinds.to_vec();
        if need.is_some() {
            kinds.extend(Refusal::KINDS);
            kinds.push(Kind::RateLimited);
            describe_rate(operation);
        }
        describe_problems(operation, &kinds);
        describe_head(operation);
    }
    let mut text = serde_json::to_string_pretty(&document).unwrap_or(generated);
    text.push('\n');
    text
}

fn order_tags(document: &mut Value) {
    if let Some(tags) = document["tags"].as_array_mut() {
        tags.sort_by_key(|tag| TAGS.iter().position(|name| tag["name"] == *name));
    }
}

fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    document["paths"]
        .as_object_mut()
        .into_iter()
        .flat_map(Map::values_mut)
        .filter_map(Value::as_object_mut)
        .flat_map(Map::values_mut)
}

/// What an operation needs: a scope, which OpenAPI 3.0 has no place for with keys, or nothing. The second of the requirements, an
/// empty one, says that there are servers without keys.
fn describe_security(operation: &mut Value, need: Option<Scope>) {
    let Some(scope) = need else {
        operation["security"] = json!([]);
        return;
    };
    operation["security"] = json!([{SCHEME: []}, {}]);
    operation["x-required-scope"] = scope.as_str().into();
    let description = operation["description"].as_str().unwrap_or_default();
    operation["description"] = format!(
        "{description}\n\nWhere API keys are configured, the key needs the scope `{scope}`{}.",
        if scope == Scope::Admin {
            ""
        } else {
            " or `admin`"
        }
    )
    .into();
    let Some(responses) = operation["responses"].as_object_mut() else {
        return;
    };
    for kind in Refusal::KINDS {
        responses
            .entry(kind.status().as_str())
            .or_insert_with(|| {
                json!({
                    "headers": {"WWW-Authenticate": {
                        "description": "What to send, as RFC 6750 has it.",
                        "required": true,
                        "schema": {"type": "string", "example": "Bearer realm=\"task-processor\""},
                    }},
                    "content": {problem::CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                })
            });
    }
    responses.sort_keys();
}

/// That an operation may be asked too often.
fn describe_rate(operation: &mut Value) {
    let Some(responses) = operation["responses"].as_object_mut() else {
        return;
    };
    let header = |description: &str, schema: Value| json!({"description": description, "required": true, "schema": schema});
    let text = |example: &str| json!({"type": "string", "example": example});
    responses.insert(
        Kind::RateLimited.status().as_str().to_owned(),
        json!({
            "headers": {
                "RateLimit": header(
                    "How many requests are left now, and in how many seconds all are (draft-ietf-httpapi-ratelimit-headers-10). \
                     Where rates are limited, every answer of the operation carries it.",
                    text("\"default\";r=0;t=20"),
                ),
                "RateLimit-Policy": header(
                    "How many requests may come at once, and in how many seconds that many are regained.",
                    text("\"default\";q=100;w=20"),
                ),
                "Retry-After": header(
                    "After how many seconds to try again.",
                    json!({"type": "integer", "minimum": 1, "example": 1}),
                ),
            },
            "content": {problem::CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }),
    );
    responses.sort_keys();
}

/// A status code that stands for several kinds of problem is described by all of them, with an example of each.
fn describe_problems(operation: &mut Value, kinds: &[Kind]) {
    let Some(responses) = operation["responses"].as_object_mut() else {
        return;
    };
    for (code, response) in responses {
        let Ok(status) = StatusCode::from_bytes(code.as_bytes()) else {
            continue;
        };
        let same: Vec<Kind> = of_status(kinds, status).collect();
        if same.is_empty() {
            continue;
        }
        let meanings: Vec<&str> = same.iter().map(|kind| kind.meaning()).collect();
        response["description"] = meanings.join(" ").into();
        let examples: Map<String, Value> = same
            .iter()
            .filter_map(|kind| {
                let example = json!({"summary": kind.meaning(), "value": kind.example()});
                Some((kind.name()?.to_owned(), example))
            })
            .collect();
        response["content"][problem::CONTENT_TYPE]["examples"] = examples.into();
    }
}

/// An operation that refuses nothing itself may be refused for the head of the request, before it sees it. So may every other, but
/// there one more answer would only cost generated clients the type of all the others.
fn describe_head(operation: &mut Value) {
    let Some(responses) = operation["responses"].as_object_mut() else {
        return;
    };
    if responses.keys().any(|code| code.starts_with('4')) {
        return;
    }
    responses.insert(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_str().to_owned(),
        json!({"description": "The headers are too many or too long: a problem, after which the connection closes."}),
    );
    responses.sort_keys();
}

/// `200` to a GET of the document.
pub(crate) struct Document {
    /// What the client has of it.
    pub(crate) if_none_match: Option<String>,
}

static PUBLISHED: LazyLock<Published> = LazyLock::new(|| Published::of(&DOCUMENT));

impl IntoResponse for Document {
    fn into_response(self) -> Response {
        // It is packed on its way.
        PUBLISHED.answer(self.if_none_match.as_deref(), false, || {
            Response::builder()
                .content_type(Self::CONTENT_TYPE)
                .body(DOCUMENT.as_str())
        })
    }
}

impl Document {
    const CONTENT_TYPE: &'static str = "application/json";
}

impl ApiResponse for Document {
    fn meta() -> MetaResponses {
        Published::meta(
            "The OpenAPI document.",
            MetaMediaType {
                content_type: Self::CONTENT_TYPE,
                schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new("object"))),
            },
        )
    }

    fn register(_registry: &mut Registry) {}
}

/// The redirect to the documentation.
pub(crate) struct ToDocs;

impl IntoResponse for ToDocs {
    fn into_response(self) -> Response {
        let mut response = Response::from(StatusCode::FOUND);
        response
            .headers_mut()
            .insert(header::LOCATION, HeaderValue::from_static("/docs"));
        response
    }
}

impl ApiResponse for ToDocs {
    fn meta() -> MetaResponses {
        one_response(MetaResponse {
            description: "The documentation is at `/docs`.",
            status: Some(302),
            status_range: None,
            content: Vec::new(),
            headers: vec![MetaHeader {
                name: "Location".into(),
                description: Some("Where the documentation is.".into()),
                required: true,
                deprecated: false,
                schema: MetaSchemaRef::Inline(Box::new(uri("A path.", "/docs"))),
            }],
        })
    }

    fn register(_registry: &mut Registry) {}
}
