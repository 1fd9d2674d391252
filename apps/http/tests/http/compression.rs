//! Answers packed for whoever takes them so.

use std::io::Read as _;

use flate2::read::GzDecoder;
use ports::{Next, TaskId};
use serde_json::json;

use crate::client::Answer;
use crate::server::{Server, bring_to_rest};

async fn ask(server: &Server, path: &str, headers: &str) -> Answer {
    server
        .answer(format!(
            "GET {path} HTTP/1.1\r\nhost: test\r\n{headers}\r\n"
        ))
        .await
}

async fn packed(server: &Server, path: &str) -> Answer {
    ask(server, path, "accept-encoding: gzip, deflate, br\r\n").await
}

fn unpacked(answer: &Answer) -> Vec<u8> {
    assert_eq!(
        answer.header("content-encoding"),
        Some("gzip"),
        "{answer:?}"
    );
    let mut plain = Vec::new();
    GzDecoder::new(answer.body.as_slice())
        .read_to_end(&mut plain)
        .expect("the answer is gzip");
    plain
}

/// A task that is done with a result of so many bytes.
async fn done(server: &Server, bytes: usize) -> TaskId {
    let id = server.memory.submit("a").await;
    let result = "a task ".repeat(bytes / 7 + 1)[..bytes].to_owned();
    bring_to_rest(server, id, Next::Done { result }).await;
    id
}

#[tokio::test]
async fn long_answers_are_packed_for_whoever_takes_it_and_say_so_to_caches() {
    let server = Server::start().await;
    // Packed where it is, and on a thread of its own.
    for bytes in [2_000, 200_000] {
        let path = format!("/tasks/{}", done(&server, bytes).await);
        let plain = server.get(&path).await;
        assert_eq!(plain.header("content-encoding"), None);
        assert_eq!(plain.json()["result"].as_str().map(str::len), Some(bytes));
        let packed = packed(&server, &path).await;
        assert!(
            packed.body.len() < plain.body.len() / 4,
            "{}",
            packed.body.len()
        );
        assert!(unpacked(&packed) == plain.body);
        for answer in [plain, packed] {
            assert_eq!(
                answer.header("vary"),
                Some("Authorization, Accept-Encoding")
            );
        }
        let refused = ask(&server, &path, "accept-encoding: gzip;q=0, *;q=0\r\n").await;
        assert_eq!(refused.header("content-encoding"), None);
    }
    for path in ["/openapi.json", "/tasks?limit=100"] {
        for _ in 0..10 {
            server.memory.submit("a").await;
        }
        let (plain, packed) = (server.get(path).await, packed(&server, path).await);
        assert!(unpacked(&packed) == plain.body, "{path}");
    }
    let headers = "accept: text/plain\r\naccept-encoding: gzip\r\n";
    let scrape = unpacked(&ask(&server, "/metrics", headers).await);
    assert!(scrape.starts_with(b"# "), "{scrape:?}");
}

#[tokio::test]
async fn long_problems_are_packed_too() {
    let server = Server::start().await;
    let tasks = json!(vec![json!({"priority": 99}); 50]).to_string();
    let refused = server
        .answer(format!(
            "POST /tasks/batch HTTP/1.1\r\nhost: test\r\naccept-encoding: gzip\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{tasks}",
            tasks.len()
        ))
        .await;
    assert_eq!(refused.status, 400);
    let problem: serde_json::Value = serde_json::from_slice(&unpacked(&refused)).expect("JSON");
    assert_eq!(problem["status"], 400);
}

#[tokio::test]
async fn short_answers_and_what_packing_makes_no_shorter_stay_as_they_are() {
    let server = Server::start().await;
    let id = server.memory.submit("a").await;
    let short = packed(&server, &format!("/tasks/{id}")).await;
    assert_eq!(short.header("content-encoding"), None);
    assert_eq!(short.header("vary"), Some("Authorization"));
    assert_eq!(
        short.header("etag").map(|tag| tag.starts_with('"')),
        Some(true)
    );
    // The last that is too short, and the first that is not.
    let around = |bytes| done(&server, bytes);
    let frame = packed(&server, &format!("/tasks/{}", around(1).await))
        .await
        .body
        .len()
        - 1;
    for (bytes, coding) in [(1_023, None), (1_024, Some("gzip"))] {
        let id = around(bytes - frame).await;
        let answer = packed(&server, &format!("/tasks/{id}")).await;
        assert_eq!(answer.header("content-encoding"), coding, "{bytes}");
    }
}

#[tokio::test]
async fn a_packed_answer_has_a_weak_tag_and_is_not_sent_again() {
    let server = Server::start().await;
    let path = format!("/tasks/{}", done(&server, 5_000).await);
    let plain = server.get(&path).await;
    let strong = plain.header("etag").expect("a tag").to_owned();
    assert!(!strong.starts_with("W/"), "{strong}");
    let packed = packed(&server, &path).await;
    let weak = format!("W/{strong}");
    assert_eq!(packed.header("etag"), Some(weak.as_str()));
    // A cache finds the answer that it has by the very tag.
    for tag in [&strong, &weak] {
        let headers = format!("accept-encoding: gzip\r\nif-none-match: {tag}\r\n");
        let same = ask(&server, &path, &headers).await;
        assert_eq!((same.status, same.body.len()), (304, 0));
        assert_eq!(same.header("etag"), Some(tag.as_str()));
        assert_eq!(same.header("content-encoding"), None);
        assert_eq!(same.header("vary"), Some("Authorization, Accept-Encoding"));
    }
}

#[tokio::test]
async fn a_head_tells_of_the_packed_answer() {
    let server = Server::start().await;
    let path = format!("/tasks/{}", done(&server, 5_000).await);
    let length = packed(&server, &path).await.body.len().to_string();
    let mut client = server.connect().await;
    client
        .send(format!(
            "HEAD {path} HTTP/1.1\r\nhost: test\r\naccept-encoding: gzip\r\n\r\n"
        ))
        .await;
    let head = client.receive_head().await;
    assert_eq!(head.header("content-encoding"), Some("gzip"));
    assert_eq!(head.header("content-length"), Some(length.as_str()));
}

#[tokio::test]
async fn a_stream_is_never_packed() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client
        .send("GET /events HTTP/1.1\r\nhost: test\r\naccept-encoding: gzip\r\n\r\n")
        .await;
    let head = client.receive_opening().await;
    assert_eq!(head.header("content-encoding"), None);
    assert_eq!(client.chunk().await, "retry: 2000\n\n");
}
