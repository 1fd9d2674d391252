//! Bad input: never a 500, never anything but a problem, and every wrong field named at once.

use std::time::Duration;

use serde_json::Value;
use task_processor_http::HttpConfig;

use crate::client::Answer;
use crate::server::{Server, post};

/// The names of the wrong fields.
fn fields(problem: &Value) -> Vec<&str> {
    problem["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|error| {
            assert!(error["detail"].is_string(), "{error}");
            error["field"].as_str().expect("a name")
        })
        .collect()
}

#[tokio::test]
async fn bodies_that_are_json_but_no_task() {
    let server = Server::start().await;
    let cases: [(&str, &[&str]); 24] = [
        ("{}", &["payload"]),
        (r#"{"payload":5}"#, &["payload"]),
        (r#"{"payload":true}"#, &["payload"]),
        (r#"{"payload":null}"#, &["payload"]),
        (r#"{"payload":["x"]}"#, &["payload"]),
        (r#"{"payload":{"x":1}}"#, &["payload"]),
        (r#"{"payload":"a\u0000b"}"#, &["payload"]),
        (r#"{"Payload":"x"}"#, &["payload"]),
        (r#"{"payload":"x","priority":11}"#, &["priority"]),
        (r#"{"payload":"x","priority":-1}"#, &["priority"]),
        (r#"{"payload":"x","priority":1.5}"#, &["priority"]),
        (r#"{"payload":"x","priority":"1"}"#, &["priority"]),
        (r#"{"payload":"x","priority":null}"#, &["priority"]),
        (r#"{"payload":"x","priority":[1]}"#, &["priority"]),
        (r#"{"payload":"x","priority":1e300}"#, &["priority"]),
        (
            r#"{"payload":"x","priority":18446744073709551615}"#,
            &["priority"],
        ),
        (r#"{"payload":"x","priority":4294967296}"#, &["priority"]),
        (r#"{"payload":"x","runAt":"tomorrow"}"#, &["runAt"]),
        (r#"{"payload":"x","runAt":1735689600}"#, &["runAt"]),
        (r#"{"payload":"x","runAt":null}"#, &["runAt"]),
        (r#"{"payload":"x","maxAttempts":0}"#, &["maxAttempts"]),
        (r#"{"payload":"x","maxAttempts":101}"#, &["maxAttempts"]),
        (r#"{"payload":"x","maxAttempts":"3"}"#, &["maxAttempts"]),
        (
            r#"{"payload":1,"priority":"high","runAt":"","maxAttempts":null}"#,
            &["payload", "priority", "runAt", "maxAttempts"],
        ),
    ];
    for (body, expected) in cases {
        let problem = server.post(body).await.problem(400);
        assert_eq!(
            problem["type"], "urn:task-processor:problem:invalid-task",
            "{body}"
        );
        assert_eq!(problem["instance"], "/tasks", "{body}");
        assert_eq!(fields(&problem), expected, "{body}");
    }
    assert_eq!(server.memory.store.snapshot().tasks.len(), 0);
}

#[tokio::test]
async fn a_problem_with_fields_looks_like_this() {
    let server = Server::start().await;
    let answer = server.post(r#"{"payload":"a\u0000b","priority":11}"#).await;
    answer.problem(400);
    insta::assert_snapshot!(answer.text(), @r#"{"type":"urn:task-processor:problem:invalid-task","title":"The task is invalid","status":400,"detail":"2 fields are invalid","instance":"/tasks","errors":[{"field":"payload","detail":"must not contain the NUL character (U+0000)"},{"field":"priority","detail":"must be an integer from 0 to 10"}]}"#);
}

#[tokio::test]
async fn bodies_that_are_no_json_object() {
    let server = Server::start().await;
    let deep = |open: &str, close: &str| {
        format!(
            "{{\"payload\":\"x\",\"y\":{}1{}}}",
            open.repeat(100_000),
            close.repeat(100_000)
        )
        .into_bytes()
    };
    let cases: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b" \n ".to_vec(),
        b"{".to_vec(),
        b"hello".to_vec(),
        b"payload=x".to_vec(),
        b"null".to_vec(),
        b"5".to_vec(),
        b"\"x\"".to_vec(),
        b"[]".to_vec(),
        b"[{\"payload\":\"x\"}]".to_vec(),
        br#"{"payload":"x"} {}"#.to_vec(),
        br#"{"payload":"x",}"#.to_vec(),
        br#"{payload:"x"}"#.to_vec(),
        br#"{'payload':'x'}"#.to_vec(),
        b"{\"payload\":\"a\nb\"}".to_vec(),
        b"{\"payload\":\"a\0b\"}".to_vec(),
        br#"{"payload":"\x41"}"#.to_vec(),
        br#"{"payload":"x","priority":01}"#.to_vec(),
        br#"{"payload":"x","priority":NaN}"#.to_vec(),
        br#"{"payload":"x","priority":1e999}"#.to_vec(),
        // Invalid UTF-8, a lone surrogate of either kind, a wrong pair; in a field, a name and an unknown field.
        b"{\"payload\":\"\xff\"}".to_vec(),
        b"{\"payload\":\"\xed\xa0\x80\"}".to_vec(),
        b"{\"payload\":\"\xc0\x80\"}".to_vec(),
        br#"{"payload":"\ud83d"}"#.to_vec(),
        br#"{"payload":"\udc4d"}"#.to_vec(),
        br#"{"payload":"\ud83d\ud83d"}"#.to_vec(),
        br#"{"payload":"\ud83dx"}"#.to_vec(),
        b"{\"payload\":\"x\",\"y\":\"\xff\"}".to_vec(),
        b"{\"payload\":\"x\",\"\xff\":1}".to_vec(),
        br#"{"payload":"x","y":"\ud83d"}"#.to_vec(),
        br#"{"payload":"x","\ud83d":1}"#.to_vec(),
        // UTF-16 and a byte order mark.
        b"\xff\xfe{\0}\0".to_vec(),
        b"\xef\xbb\xbf{\"payload\":\"x\"}".to_vec(),
        deep("[", "]"),
        deep("{\"z\":", "}"),
        "[".repeat(100_000).into_bytes(),
        "{\"payload\":".repeat(20_000).into_bytes(),
    ];
    for body in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answer = if body.len() <= HttpConfig::default().max_body_bytes {
            server.post(&body).await
        } else {
            let config = HttpConfig {
                max_body_bytes: body.len(),
                ..HttpConfig::default()
            };
            Server::start_with(config, |_| {}).await.post(&body).await
        };
        let problem = answer.problem(400);
        assert_eq!(
            problem["type"], "urn:task-processor:problem:malformed-body",
            "{shown}"
        );
    }
    assert_eq!(server.memory.store.snapshot().tasks.len(), 0);
}

#[tokio::test]
async fn content_types() {
    let server = Server::start().await;
    let body = r#"{"payload":"x"}"#;
    for good in [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "APPLICATION/JSON",
    ] {
        assert_eq!(server.answer(post(good, body)).await.status, 201, "{good}");
    }
    for bad in [
        "text/plain",
        "text/plain;charset=UTF-8",
        "application/x-www-form-urlencoded",
        "application/xml",
        "application/json; charset=utf-16",
        "*/*",
        "",
        "\u{e9}",
    ] {
        server.answer(post(bad, body)).await.problem(415);
    }
    let without =
        "POST /tasks HTTP/1.1\r\nhost: test\r\ncontent-length: 15\r\n\r\n{\"payload\":\"x\"}";
    server.answer(without).await.problem(415);
    let packed = "POST /tasks HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\n\
                  content-length: 15\r\n\r\n{\"payload\":\"x\"}";
    server.answer(packed).await.problem(415);
    for nothing in [
        "POST /tasks HTTP/1.1\r\nhost: test\r\n\r\n",
        "POST /tasks HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n",
        "POST /tasks HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\r\n",
    ] {
        let problem = server.answer(nothing).await.problem(400);
        assert_eq!(problem["type"], "urn:task-processor:problem:malformed-body");
    }
}

#[tokio::test]
async fn ids_that_are_no_uuid() {
    let server = Server::start().await;
    for id in [
        "42",
        "not-a-uuid",
        "01890a5d-ac96-774b-bcce-b302099a805",
        "01890a5d-ac96-774b-bcce-b302099a80577",
        "01890a5d-ac96-774b-bcce-b302099a805g",
        "%20",
        "%00",
        "%",
        "%zz",
        "%ff%fe",
        "%2e%2e%2f",
        "%F0%9F%91%8D",
        "'%20or%201=1--",
        "null",
    ] {
        let answer = server.get(&format!("/tasks/{id}")).await;
        let problem = answer.problem(400);
        assert_eq!(fields(&problem), ["id"], "{id}");
        assert_eq!(problem["instance"], format!("/tasks/{id}"), "{id}");
    }
}

#[tokio::test]
async fn routes_that_do_not_exist() {
    let server = Server::start().await;
    for path in [
        "/task",
        "/tasks/",
        "/tasks/1/2",
        "/Tasks",
        "//tasks",
        "/docs/",
        "/favicon.ico",
        "/%",
        "/%ff",
        "/../etc/passwd",
        "/tasks%2F1",
        "/*",
        "/:id",
    ] {
        let problem = server.get(path).await.problem(404);
        assert_eq!(
            problem["type"], "urn:task-processor:problem:unknown-route",
            "{path}"
        );
        assert_eq!(problem["instance"], path);
    }
    // The query is no part of the path.
    assert_eq!(server.get("/health/live?x=%ff&&=").await.status, 200);
    assert_eq!(
        server.get("/nowhere?secret=1").await.problem(404)["instance"],
        "/nowhere"
    );
}

#[tokio::test]
async fn methods_that_a_route_does_not_take() {
    let server = Server::start().await;
    let task = "/tasks/01890a5d-ac96-774b-bcce-b302099a8057";
    let cases = [
        ("GET", "/tasks/batch", "OPTIONS, POST"),
        ("HEAD", "/tasks/batch", "OPTIONS, POST"),
        ("PUT", "/tasks", "GET, HEAD, OPTIONS, POST"),
        ("DELETE", task, "GET, HEAD, OPTIONS"),
        ("POST", task, "GET, HEAD, OPTIONS"),
        ("PATCH", "/tasks/42", "GET, HEAD, OPTIONS"),
        ("POST", "/metrics", "GET, HEAD, OPTIONS"),
        ("POST", "/", "GET, HEAD, OPTIONS"),
        ("TRACE", "/docs", "GET, HEAD, OPTIONS"),
        ("BREW", "/health/live", "GET, HEAD, OPTIONS"),
    ];
    for (method, path, allow) in cases {
        let mut client = server.connect().await;
        client
            .send(format!(
                "{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n"
            ))
            .await;
        let answer = if method == "HEAD" {
            client.receive_head().await
        } else {
            let answer = client.receive().await;
            answer.problem(405);
            answer
        };
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
}

#[tokio::test]
async fn options_lists_the_methods() {
    let server = Server::start().await;
    let answer = server
        .answer("OPTIONS /tasks HTTP/1.1\r\nhost: test\r\n\r\n")
        .await;
    assert_eq!(
        (answer.status, answer.header("allow")),
        (204, Some("GET, HEAD, OPTIONS, POST"))
    );
    let answer = server
        .answer("OPTIONS /nowhere HTTP/1.1\r\nhost: test\r\n\r\n")
        .await;
    answer.problem(404);
    server
        .answer("OPTIONS * HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .problem(404);
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let server = Server::start().await;
    for path in [
        "/health/live",
        "/metrics",
        "/openapi.json",
        "/tasks/42",
        "/nowhere",
        "/",
    ] {
        let full = server.get(path).await;
        let mut client = server.connect().await;
        for _ in 0..2 {
            client
                .send(format!("HEAD {path} HTTP/1.1\r\nhost: test\r\n\r\n"))
                .await;
            let head: Answer = client.receive_head().await;
            assert_eq!(head.status, full.status, "{path}");
            for name in ["content-type", "location"] {
                assert_eq!(head.header(name), full.header(name), "{name} of {path}");
            }
            if !full.body.is_empty() {
                let length = head.header("content-length");
                assert_eq!(length, full.header("content-length"), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn bodies_over_the_limit() {
    let config = HttpConfig {
        max_body_bytes: 1_000,
        ..HttpConfig::default()
    };
    let server = Server::start_with(config, |_| {}).await;
    let body = |length: usize| {
        let frame = r#"{"payload":""}"#.len();
        format!(r#"{{"payload":"{}"}}"#, "x".repeat(length - frame))
    };
    assert_eq!(server.post(body(1_000)).await.status, 201);
    let problem = server.post(body(1_001)).await.problem(413);
    assert_eq!(
        problem["detail"],
        "the body is over the limit of 1000 bytes"
    );
    // A client that writes all of it before it reads gets the answer too, and may go on.
    let mut client = server.connect().await;
    client.send(post("application/json", body(3_000_000))).await;
    client.receive().await.problem(413);
    client.send(post("application/json", body(500))).await;
    assert_eq!(client.receive().await.status, 201);
    // And one that only announces it, or asks first.
    let announced = "POST /tasks HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: 99999999999\
                     \r\n";
    server.answer(format!("{announced}\r\n")).await.problem(413);
    server
        .answer(format!("{announced}expect: 100-continue\r\n\r\n"))
        .await
        .problem(413);
}

const CHUNKED: &str = "POST /tasks HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test]
async fn chunked_bodies() {
    let server = Server::start().await;
    let answer = server
        .answer(format!(
            "{CHUNKED}5\r\n{{\"pay\r\na\r\nload\":\"x\"}}\r\n0\r\n\r\n"
        ))
        .await;
    assert_eq!(answer.status, 201);
    let many: String = "{\"payload\":\"x\"}"
        .chars()
        .map(|c| format!("1\r\n{c}\r\n"))
        .collect();
    assert_eq!(
        server
            .answer(format!("{CHUNKED}{many}0\r\n\r\n"))
            .await
            .status,
        201
    );
    let problem = server
        .answer(format!("{CHUNKED}0\r\n\r\n"))
        .await
        .problem(400);
    assert_eq!(problem["type"], "urn:task-processor:problem:malformed-body");
    server.answer(format!("{CHUNKED}zz\r\n")).await.problem(400);
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused_before_it_ends() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x1_0000));
    client.send(CHUNKED).await;
    for _ in 0..5 {
        client.send(&chunk).await;
    }
    client.receive().await.problem(413);
    // It never ends: the server stops reading and closes.
    let mut sent = 0;
    while client.try_send(&chunk).await.is_ok() {
        sent += 1;
        assert!(sent < 10_000, "the server reads an endless body");
    }
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let config = HttpConfig {
        body_timeout: Duration::from_millis(100),
        ..HttpConfig::default()
    };
    let server = Server::start_with(config, |_| {}).await;
    let mut client = server.connect().await;
    client
        .send(
            "POST /tasks HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{\"pay",
        )
        .await;
    let problem = client.receive().await.problem(408);
    assert_eq!(problem["type"], "urn:task-processor:problem:slow-body");
    assert!(client.is_closed().await);
}
