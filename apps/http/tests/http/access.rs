//! Who is let in, and to what.

use ::access::{ApiKeys, KeyHash};
use serde_json::Value;
use std::num::NonZeroU32;

use task_processor_http::{Admission, HttpConfig, RateLimit, document};

use tokio::sync::watch;

use crate::client::Answer;
use crate::server::Server;

/// A server with a key for each scope: its secret is its name with `-secret` behind.
async fn guarded() -> Server {
    limited(None).await
}

/// The same where each key may ask only so often.
async fn limited(rate_limit: Option<RateLimit>) -> Server {
    let entry = |scope: &str| {
        format!(
            "{scope}:{scope}:{}",
            KeyHash::of(&format!("{scope}-secret"))
        )
    };
    let keys = ["submit", "read", "admin"].map(entry).join(",");
    let config = HttpConfig {
        admission: Admission::by_keys(ApiKeys::parse(&keys).expect("entries")),
        rate_limit,
        ..HttpConfig::default()
    };
    Server::start_with(config, |_| {}).await
}

/// The answer to a request with these headers, each with its line end.
async fn ask(server: &Server, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    server
        .answer(format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        ))
        .await
}

fn with_key(secret: &str) -> String {
    format!("authorization: Bearer {secret}\r\n")
}

/// How many requests were refused for this reason.
async fn refusals(server: &Server, reason: &str) -> u64 {
    let headers = format!("{}accept: text/plain\r\n", with_key("read-secret"));
    let meters = ask(server, "GET", "/metrics", &headers, "").await;
    meters.count_of(&format!(
        "task_processor_http_refusals_total{{reason=\"{reason}\"}}"
    ))
}

/// How many requests with this key were refused for this reason.
async fn key_refusals(server: &Server, key: &str, reason: &str) -> u64 {
    let headers = format!("{}accept: text/plain\r\n", with_key("read-secret"));
    let meters = ask(server, "GET", "/metrics", &headers, "").await;
    meters.count_of(&format!(
        "task_processor_http_key_refusals_total{{key=\"{key}\",reason=\"{reason}\"}}"
    ))
}

const TASK: &str = r#"{"payload":"x"}"#;
const ID: &str = "0194fdc2-fa2f-7cc0-81d3-ff1204e5b6ab";

/// Every operation of the document as a request: its scope, method, path and a body.
fn operations() -> Vec<(Option<String>, String, String, &'static str)> {
    let document: Value = serde_json::from_str(&document()).expect("JSON");
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let scope = operation["x-required-scope"].as_str().map(str::to_owned);
            let body = match path.as_str() {
                "/tasks" if method == "post" => TASK,
                "/tasks/batch" => r#"[{"payload":"x"}]"#,
                _ => "",
            };
            let path = path.replace("{id}", ID);
            all.push((scope, method.to_uppercase(), path, body));
        }
    }
    all
}

#[tokio::test]
async fn whoever_brings_no_key_or_a_wrong_one_is_refused_everywhere_and_counted() {
    let server = guarded().await;
    let (mut missing, mut unknown) = (0, 0);
    for (scope, method, path, body) in operations() {
        let without = ask(&server, &method, &path, "", body).await;
        if scope.is_none() {
            assert!(without.status < 400, "{method} {path} is open: {without:?}");
            continue;
        }
        let problem = without.problem(401);
        assert_eq!(
            problem["type"],
            "urn:task-processor:problem:missing-api-key"
        );
        assert_eq!(problem["instance"], path);
        assert_eq!(
            without.header("www-authenticate"),
            Some("Bearer realm=\"task-processor\"")
        );
        missing += 1;
        for wrong in [
            "authorization: Bearer wrong\r\n".to_owned(),
            // Tampered with: a character more, one less, another case; the hash in place of the key.
            with_key("admin-secret1"),
            with_key("admin-secre"),
            with_key("Admin-secret"),
            with_key(&KeyHash::of("admin-secret").to_string()),
            "authorization: Basic YWRtaW4tc2VjcmV0\r\n".to_owned(),
            with_key("read-secret") + &with_key("admin-secret"),
        ] {
            let answer = ask(&server, &method, &path, &wrong, body).await;
            let problem = answer.problem(401);
            assert_eq!(
                problem["type"], "urn:task-processor:problem:unknown-api-key",
                "{method} {path} {wrong}"
            );
            assert_eq!(
                answer.header("www-authenticate"),
                Some("Bearer realm=\"task-processor\", error=\"invalid_token\"")
            );
            assert!(!answer.text().contains("secret"), "{}", answer.text());
            unknown += 1;
        }
    }
    assert!(missing > 5, "{missing} operations are guarded");
    assert_eq!(refusals(&server, "missing").await, missing);
    assert_eq!(refusals(&server, "unknown").await, unknown);
    assert_eq!(server.memory.store.snapshot().tasks.len(), 0);
}

#[tokio::test]
async fn a_key_opens_what_its_scope_names_and_admin_opens_everything() {
    let server = guarded().await;
    let mut refused = 0;
    for (scope, method, path, body) in operations() {
        let Some(scope) = scope else { continue };
        for held in ["submit", "read", "admin"] {
            let headers = with_key(&format!("{held}-secret"));
            if path == "/events" && (held == scope || held == "admin") {
                // It would not end.
                continue;
            }
            let answer = ask(&server, &method, &path, &headers, body).await;
            if held == scope || held == "admin" {
                assert!(
                    !matches!(answer.status, 401 | 403),
                    "{held} for {method} {path}: {answer:?}"
                );
                continue;
            }
            let problem = answer.problem(403);
            assert_eq!(problem["type"], "urn:task-processor:problem:missing-scope");
            let challenge = format!(
                "Bearer realm=\"task-processor\", error=\"insufficient_scope\", scope=\"{scope}\""
            );
            assert_eq!(answer.header("www-authenticate"), Some(challenge.as_str()));
            refused += 1;
        }
    }
    assert_eq!(refusals(&server, "scope").await, refused);
}

/// No spelling of a path leads around the guard: what is served under it is served to nobody without a key.
#[tokio::test]
async fn no_spelling_of_a_path_leads_around_the_guard() {
    let server = guarded().await;
    for path in [
        format!("/tasks/{ID}"),
        format!("/tasks/{ID}/"),
        format!("//tasks/{ID}"),
        format!("/./tasks/{ID}"),
        format!("/docs/../tasks/{ID}"),
        format!("/%74asks/{ID}"),
        format!("/tasks%2f{ID}"),
        format!("/TASKS/{ID}"),
        format!("/tasks/{ID}?view=full"),
        format!("/tasks/{ID};x=/docs"),
        format!("http://test/tasks/{ID}"),
        "/metrics".to_owned(),
        "/metrics/".to_owned(),
        "/metrics?x=/health/live".to_owned(),
    ] {
        let answer = ask(&server, "GET", &path, "", "").await;
        assert!(matches!(answer.status, 401 | 404), "{path}: {answer:?}");
        if answer.status == 404 {
            // It is no task that is not there, but no route.
            let problem = answer.problem(404);
            assert_eq!(
                problem["type"], "urn:task-processor:problem:unknown-route",
                "{path}"
            );
        }
    }
    let mut client = server.connect().await;
    client
        .send("HEAD /metrics HTTP/1.1\r\nhost: test\r\n\r\n")
        .await;
    assert_eq!(client.receive_head().await.status, 401);
}

/// A client that asks as fast as it can, until it is one request too many.
async fn exhaust(server: &Server, headers: &str) -> Answer {
    for _ in 0..1_000 {
        let answer = ask(server, "POST", "/tasks", headers, TASK).await;
        if answer.status != 201 {
            return answer;
        }
    }
    panic!("a thousand requests were let in");
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back_and_nobody_else_notices() {
    let limit = RateLimit {
        per_second: NonZeroU32::MIN,
        burst: NonZeroU32::new(5).expect("not zero"),
    };
    let server = limited(Some(limit)).await;
    let submit = with_key("submit-secret");
    let first = ask(&server, "POST", "/tasks", &submit, TASK).await;
    assert_eq!(
        first.header("ratelimit-policy"),
        Some("\"default\";q=5;w=5")
    );
    assert_eq!(first.header("ratelimit"), Some("\"default\";r=4;t=1"));
    // A failure tells too.
    let failed = ask(&server, "POST", "/tasks", &submit, "{}").await;
    assert_eq!(failed.status, 400);
    assert!(failed.header("ratelimit").is_some(), "{failed:?}");
    let refused = exhaust(&server, &submit).await;
    let problem = refused.problem(429);
    assert_eq!(problem["type"], "urn:task-processor:problem:rate-limited");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let told = refused.header("ratelimit").expect("it is told");
    assert!(told.starts_with("\"default\";r=0;t="), "{told}");
    assert_eq!(refusals(&server, "rate").await, 1);
    assert_eq!(key_refusals(&server, "submit", "rate").await, 1);
    let other = ask(&server, "POST", "/tasks", &with_key("admin-secret"), TASK).await;
    assert_eq!(other.status, 201);
    let live = ask(&server, "GET", "/health/live", "", "").await;
    assert_eq!((live.status, live.header("ratelimit")), (200, None));
}

#[tokio::test]
async fn without_keys_an_address_has_its_rate_and_without_a_limit_nothing_is_told() {
    let config = HttpConfig {
        rate_limit: Some(RateLimit {
            per_second: NonZeroU32::MIN,
            burst: NonZeroU32::MIN,
        }),
        ..HttpConfig::default()
    };
    let server = Server::start_with(config, |_| {}).await;
    exhaust(&server, "").await.problem(429);
    let server = Server::start().await;
    let answer = server.post(TASK).await;
    assert_eq!((answer.status, answer.header("ratelimit")), (201, None));
}

#[tokio::test]
async fn a_stream_ends_when_its_key_is_taken_away_and_no_other_does() {
    let entry = |name: &str| format!("{name}:read:{}", KeyHash::of(name));
    let keys = |entries: &[String]| ApiKeys::parse(&entries.join(",")).expect("entries");
    let sender = watch::Sender::new(keys(&[entry("ci"), entry("web")]));
    let config = HttpConfig {
        admission: Admission::following(sender.subscribe()),
        ..HttpConfig::default()
    };
    let server = Server::start_with(config, |_| {}).await;
    let open = async |key: &str| {
        let mut client = server.connect().await;
        let headers = with_key(key);
        client
            .send(format!(
                "GET /events HTTP/1.1\r\nhost: test\r\n{headers}\r\n"
            ))
            .await;
        assert_eq!(client.receive_opening().await.status, 200);
        assert_eq!(client.chunk().await, "retry: 2000\n\n");
        client
    };
    let (mut gone, mut kept) = (open("ci").await, open("web").await);
    sender.send_replace(keys(&[entry("web")]));
    let end = gone.chunk().await;
    assert!(
        end.contains("event: end\ndata: {\"reason\":\"API key revoked\"}"),
        "{end}"
    );
    assert_eq!(gone.chunk().await, "");
    let stopping = server.stop();
    let end = kept.chunk().await;
    assert!(end.contains("\"stopping\""), "{end}");
    stopping.stopped().await;
}

#[tokio::test]
async fn two_keys_may_use_the_same_idempotency_key() {
    let server = guarded().await;
    let submit = async |secret: &str| {
        let headers = with_key(secret) + "idempotency-key: k\r\n";
        let answer = ask(&server, "POST", "/tasks", &headers, TASK).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.text().to_owned()
    };
    let first = submit("submit-secret").await;
    assert_eq!(submit("submit-secret").await, first);
    let other = submit("admin-secret").await;
    assert_ne!(other, first);
    assert_eq!(submit("admin-secret").await, other);
    assert_eq!(server.memory.store.snapshot().tasks.len(), 2);
}

#[tokio::test]
async fn a_refused_body_is_let_go_of_and_the_connection_lives_on() {
    let server = guarded().await;
    let mut client = server.connect().await;
    let body = format!(r#"{{"payload":"{}"}}"#, "x".repeat(200_000));
    let length = body.len();
    client
        .send(format!("POST /tasks HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"))
        .await;
    client.receive().await.problem(401);
    client
        .send("GET /health/live HTTP/1.1\r\nhost: test\r\n\r\n")
        .await;
    assert_eq!(client.receive().await.status, 200);
}

#[tokio::test]
async fn without_keys_everybody_is_let_in_whatever_he_sends() {
    let server = Server::start().await;
    for headers in [
        String::new(),
        with_key("anything"),
        "authorization: Basic x\r\n".to_owned(),
    ] {
        let answer = ask(&server, "POST", "/tasks", &headers, TASK).await;
        assert_eq!(answer.status, 201, "{headers}");
    }
}

#[test]
fn the_document_tells_who_is_let_in() {
    let document: Value = serde_json::from_str(&document()).expect("JSON");
    let scheme = &document["components"]["securitySchemes"]["apiKey"];
    assert_eq!(
        (&scheme["type"], &scheme["scheme"]),
        (&"http".into(), &"bearer".into())
    );
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let name = format!("{method} {path}");
            let open = operation["x-required-scope"].is_null();
            let requirements = operation["security"].as_array().expect("requirements");
            assert_eq!(requirements.is_empty(), open, "{name}");
            for code in ["401", "403"] {
                let response = &operation["responses"][code];
                assert_eq!(response.is_null(), open, "{code} of {name}");
                if !open {
                    assert!(
                        response["headers"]["WWW-Authenticate"].is_object(),
                        "{name}"
                    );
                }
            }
        }
    }
}
