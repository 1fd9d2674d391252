//! Pages of other origins, and what every answer tells a browser.

use serde_json::Value;
use std::num::NonZeroU32;
use std::sync::Arc;

use ::access::{ApiKeys, KeyHash};
use ports::StoreError;
use ports::store::MockTaskStore;
use task_processor_http::{Admission, HttpConfig, RateLimit, document};

use crate::client::Answer;
use crate::server::Server;

const APP: &str = "https://app.example";
const OTHER: &str = "https://other.example";
const ID: &str = "0194fdc2-fa2f-7cc0-81d3-ff1204e5b6ab";

fn open_to(origins: &[&str]) -> HttpConfig {
    HttpConfig {
        allowed_origins: origins.iter().map(ToString::to_string).collect(),
        ..HttpConfig::default()
    }
}

async fn server(origins: &[&str]) -> Server {
    Server::start_with(open_to(origins), |_| {}).await
}

/// The same where a key is needed, with which one request an hour may be sent.
async fn guarded() -> Server {
    let entry = format!("app:admin:{}", KeyHash::of("secret"));
    let config = HttpConfig {
        admission: Admission::by_keys(ApiKeys::parse(&entry).expect("an entry")),
        rate_limit: Some(RateLimit {
            per_second: NonZeroU32::MIN,
            burst: NonZeroU32::MIN,
        }),
        ..open_to(&[APP])
    };
    Server::start_with(config, |_| {}).await
}

async fn ask(server: &Server, method: &str, path: &str, headers: &str) -> Answer {
    server
        .answer(format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n{headers}\r\n"
        ))
        .await
}

fn from(origin: &str) -> String {
    format!("origin: {origin}\r\n")
}

/// What a browser sends before a page's request.
fn before(origin: &str, method: &str) -> String {
    format!(
        "origin: {origin}\r\naccess-control-request-method: {method}\r\naccess-control-request-headers: authorization,content-type\r\n"
    )
}

fn listed(answer: &Answer, name: &str) -> Vec<String> {
    let value = answer.header(name).unwrap_or_default();
    value
        .split(',')
        .map(|name| name.trim().to_lowercase())
        .collect()
}

fn says_nothing(answer: &Answer) -> bool {
    [
        "allow-origin",
        "allow-methods",
        "allow-headers",
        "expose-headers",
        "max-age",
        "allow-credentials",
    ]
    .iter()
    .all(|name| answer.header(&format!("access-control-{name}")).is_none())
}

/// Every method of every path of the document.
fn operations() -> Vec<(String, String)> {
    let document: Value = serde_json::from_str(&document()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods").keys();
            methods.map(|method| (method.to_uppercase(), path.replace("{id}", ID)))
        })
        .collect()
}

#[tokio::test]
async fn where_no_origin_is_allowed_nothing_is_said_of_origins() {
    let server = Server::start().await;
    for (method, path) in operations() {
        let asked = ask(&server, "OPTIONS", &path, &before(APP, &method)).await;
        assert!(says_nothing(&asked), "{method} {path} {asked:?}");
        assert!(asked.header("allow").is_some(), "{asked:?}");
    }
    let read = ask(&server, "GET", "/metrics", &from(APP)).await;
    assert!(says_nothing(&read), "{read:?}");
    assert_eq!(read.header("vary"), Some("Accept"));
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_ask_for_every_operation_without_a_key() {
    let server = guarded().await;
    let operations = operations();
    assert!(operations.len() > 10, "{operations:?}");
    for (method, path) in operations {
        let answer = ask(&server, "OPTIONS", &path, &before(APP, &method)).await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
        assert_eq!(answer.header("access-control-max-age"), Some("7200"));
        assert_eq!(answer.header("vary"), Some("Origin"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let methods = listed(&answer, "access-control-allow-methods");
        assert!(methods.contains(&method.to_lowercase()), "{methods:?}");
    }
    // It is told the same of what is not there, so that it can read the problem then.
    let nowhere = ask(&server, "OPTIONS", "/nowhere", &before(APP, "GET")).await;
    assert_eq!(nowhere.status, 204);
}

#[tokio::test]
async fn a_page_may_send_and_read_every_header_that_the_document_names() {
    /// What Fetch lets every page send, and read.
    const ALWAYS: [&str; 6] = [
        "accept",
        "accept-language",
        "cache-control",
        "content-language",
        "content-length",
        "content-type",
    ];
    let server = server(&[APP]).await;
    let permit = ask(&server, "OPTIONS", "/tasks", &before(APP, "POST")).await;
    let sent = listed(&permit, "access-control-allow-headers");
    let answer = ask(&server, "GET", "/metrics", &from(APP)).await;
    let read = listed(&answer, "access-control-expose-headers");
    let document: Value = serde_json::from_str(&document()).expect("JSON");
    let (mut parameters, mut headers) = (0, 0);
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for operation in methods.as_object().expect("methods").values() {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().expect("a name").to_lowercase();
                if parameter["in"] == "header" {
                    assert!(sent.contains(&name), "{name} of {path}");
                    parameters += 1;
                }
            }
            for answer in operation["responses"]
                .as_object()
                .expect("answers")
                .values()
            {
                for name in answer["headers"].as_object().into_iter().flatten() {
                    let name = name.0.to_lowercase();
                    let is_read = read.contains(&name) || ALWAYS.contains(&name.as_str());
                    assert!(is_read, "{name} of {path}");
                    headers += 1;
                }
            }
        }
    }
    assert!(parameters > 3 && headers > 20, "{parameters} {headers}");
    for name in ["authorization", "content-type", "traceparent"] {
        assert!(sent.contains(&name.to_owned()), "{name}");
    }
    for name in ["allow", "traceresponse"] {
        assert!(read.contains(&name.to_owned()), "{name}");
    }
}

#[tokio::test]
async fn failures_can_be_read_by_an_allowed_origin_too() {
    let guarded = guarded().await;
    let with_key = from(APP) + "authorization: Bearer secret\r\n";
    let missing = format!("/tasks/{ID}");
    let down = Server::start_with(open_to(&[APP]), |ports| {
        let mut store = MockTaskStore::new();
        store
            .expect_get()
            .returning(|_| Err(StoreError::Unavailable("gone".into())));
        ports.store = Arc::new(store);
    })
    .await;
    for (answer, status) in [
        (ask(&guarded, "GET", "/tasks", &from(APP)).await, 401),
        (ask(&guarded, "GET", &missing, &with_key).await, 404),
        (ask(&guarded, "GET", &missing, &with_key).await, 429),
        (ask(&guarded, "GET", "/nowhere", &from(APP)).await, 404),
        (ask(&guarded, "PUT", "/tasks", &from(APP)).await, 405),
        (ask(&down, "GET", &missing, &from(APP)).await, 503),
    ] {
        answer.problem(status);
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some(APP),
            "{answer:?}"
        );
        let exposed = listed(&answer, "access-control-expose-headers");
        assert!(exposed.contains(&"retry-after".to_owned()), "{answer:?}");
        let vary = answer.header("vary");
        assert_eq!(vary, Some("Origin"), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
}

#[tokio::test]
async fn another_origin_is_answered_and_may_not_read_it() {
    let server = server(&["http://localhost:5173", APP]).await;
    for other in [
        OTHER,
        "null",
        "https://app.example:8443",
        "http://app.example",
        "https://app.example.evil.example",
        "HTTPS://APP.EXAMPLE",
    ] {
        let asked = ask(&server, "OPTIONS", "/tasks", &before(other, "POST")).await;
        assert!(says_nothing(&asked), "{other} {asked:?}");
        // Swagger UI on this port is such an origin, unless it is named.
        let answer = ask(&server, "GET", "/metrics", &from(other)).await;
        assert_eq!(answer.status, 200);
        assert!(says_nothing(&answer), "{other} {answer:?}");
        assert_eq!(answer.header("vary"), Some("Accept, Origin"));
    }
    // A cache must not give it what was kept without.
    let without = ask(&server, "GET", "/metrics", "").await;
    assert!(says_nothing(&without), "{without:?}");
    assert_eq!(without.header("vary"), Some("Accept, Origin"));
    for allowed in ["http://localhost:5173", APP] {
        let answer = ask(&server, "GET", "/metrics", &from(allowed)).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some(allowed));
    }
}

#[tokio::test]
async fn a_star_lets_every_page_read_without_telling_them_apart() {
    let server = server(&["*"]).await;
    for headers in [from(OTHER), String::new()] {
        let answer = ask(&server, "GET", "/metrics", &headers).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("vary"), Some("Accept"));
    }
    let permit = ask(&server, "OPTIONS", "/events", &before(OTHER, "GET")).await;
    assert_eq!(permit.header("access-control-allow-origin"), Some("*"));
    let headers = listed(&permit, "access-control-allow-headers");
    // A star would not name it.
    assert!(headers.contains(&"authorization".to_owned()), "{headers:?}");
}

#[tokio::test]
async fn a_stream_can_be_read_by_an_allowed_origin() {
    let server = server(&[APP]).await;
    let mut client = server.connect().await;
    client
        .send(format!(
            "GET /events HTTP/1.1\r\nhost: test\r\n{}\r\n",
            from(APP)
        ))
        .await;
    let head = client.receive_opening().await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("access-control-allow-origin"), Some(APP));
    assert_eq!(client.chunk().await, "retry: 2000\n\n");
}

#[tokio::test]
async fn every_answer_says_that_it_is_what_it_declares() {
    let server = guarded().await;
    let mut answers = Vec::new();
    for path in [
        "/",
        "/docs",
        "/openapi.json",
        "/health/live",
        "/tasks",
        "/nowhere",
    ] {
        answers.push(server.get(path).await);
    }
    answers.push(server.answer("what is this\r\n\r\n").await);
    let long = "a".repeat(40 * 1024);
    let head = format!("GET / HTTP/1.1\r\nhost: test\r\nlong: {long}\r\n\r\n");
    answers.push(server.answer(head).await);
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [302, 200, 200, 200, 401, 404, 400, 431]);
    for answer in answers {
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        // Without TLS it would mean nothing.
        assert_eq!(answer.header("strict-transport-security"), None);
    }
    let policy = server.get("/docs").await;
    let policy = policy.header("content-security-policy").expect("a policy");
    assert!(policy.ends_with("frame-ancestors 'none'"), "{policy}");
}
