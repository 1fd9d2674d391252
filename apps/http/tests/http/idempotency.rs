//! The `Idempotency-Key` of both POSTs.

use crate::client::Answer;
use crate::server::Server;

async fn post(server: &Server, path: &str, headers: &str, body: &str) -> Answer {
    server
        .answer(format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await
}

async fn keyed(server: &Server, path: &str, key: &str, body: &str) -> Answer {
    post(server, path, &format!("idempotency-key: {key}\r\n"), body).await
}

#[tokio::test]
async fn the_same_request_has_the_same_answer_byte_for_byte() {
    let server = Server::start().await;
    let first = keyed(
        &server,
        "/tasks",
        "\"k-1\"",
        r#"{"payload":"a","priority":1}"#,
    )
    .await;
    assert_eq!(first.status, 201, "{first:?}");
    server.memory.advance(std::time::Duration::from_secs(3_600));
    // The same in other words.
    for body in [
        r#"{"payload":"a","priority":1}"#,
        r#" {"priority":1.0,"x":[],"payload":"\u0061"} "#,
    ] {
        let again = keyed(&server, "/tasks", "\"k-1\"", body).await;
        assert_eq!((again.status, again.text()), (201, first.text()));
        assert_eq!(again.header("location"), first.header("location"));
    }
    assert_eq!(server.memory.store.snapshot().tasks.len(), 1);
    let other = keyed(
        &server,
        "/tasks",
        "\"k-1\"",
        r#"{"payload":"a","priority":2}"#,
    )
    .await;
    other.problem(422);
    insta::assert_snapshot!(other.text(), @r#"{"type":"urn:task-processor:problem:idempotency-key-reused","title":"The idempotency key was used for another request","status":422,"detail":"this Idempotency-Key came with another body before; nothing was stored","instance":"/tasks"}"#);
    // The other route has keys of its own.
    let batch = r#"[{"payload":"a"},{"payload":"b"}]"#;
    let first = keyed(&server, "/tasks/batch", "\"k-1\"", batch).await;
    assert_eq!(first.status, 201);
    let again = keyed(&server, "/tasks/batch", "\"k-1\"", batch).await;
    assert_eq!((again.status, again.text()), (201, first.text()));
    let turned = r#"[{"payload":"b"},{"payload":"a"}]"#;
    let other = keyed(&server, "/tasks/batch", "\"k-1\"", turned).await;
    assert_eq!(other.status, 422);
    assert_eq!(server.memory.store.snapshot().tasks.len(), 3);
}

#[tokio::test]
async fn a_key_is_from_1_to_255_visible_ascii_characters_and_comes_once() {
    let server = Server::start().await;
    let longest = "k".repeat(255);
    for good in ["k", "!~", &longest] {
        let answer = keyed(&server, "/tasks", good, r#"{"payload":"a"}"#).await;
        assert_eq!(answer.status, 201, "{good}");
    }
    let too_long = "k".repeat(256);
    for bad in ["", "a b", "a\tb", "schlüssel", &too_long] {
        let answer = keyed(&server, "/tasks", bad, r#"{"payload":"a"}"#).await;
        let problem = answer.problem(400);
        assert_eq!(
            problem["type"], "urn:task-processor:problem:invalid-idempotency-key",
            "{bad}"
        );
        assert_eq!(problem["errors"][0]["field"], "Idempotency-Key");
    }
    let twice = "idempotency-key: a\r\nidempotency-key: a\r\n";
    let answer = post(&server, "/tasks", twice, r#"{"payload":"a"}"#).await;
    answer.problem(400);
    assert_eq!(server.memory.store.snapshot().tasks.len(), 3);
}

#[tokio::test]
async fn a_request_that_is_refused_keeps_no_key() {
    let server = Server::start().await;
    let refused = keyed(&server, "/tasks", "k", r#"{"payload":5}"#).await;
    assert_eq!(refused.status, 400);
    let accepted = keyed(&server, "/tasks", "k", r#"{"payload":"5"}"#).await;
    assert_eq!(accepted.status, 201);
}
