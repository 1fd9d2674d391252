//! Conditional reads of `GET /tasks/{id}`.

use ports::{Next, TaskId};

use crate::client::Answer;
use crate::server::{Server, bring_to_rest};

const LONG: &str = "private, max-age=31536000, immutable";

async fn get_unless(server: &Server, id: TaskId, tag: &str) -> Answer {
    server
        .answer(format!(
            "GET /tasks/{id} HTTP/1.1\r\nhost: test\r\nif-none-match: {tag}\r\n\r\n"
        ))
        .await
}

fn tag_of(answer: &Answer) -> String {
    answer.header("etag").expect("a tag").to_owned()
}

#[tokio::test]
async fn an_answer_that_the_client_has_is_not_sent_again() {
    let server = Server::start().await;
    let id = server.memory.submit("a").await;
    let waiting = server.get(&format!("/tasks/{id}")).await;
    assert_eq!(waiting.header("cache-control"), Some("private, no-cache"));
    assert_eq!(waiting.header("vary"), Some("Authorization"));
    let tag = tag_of(&waiting);
    let same = get_unless(&server, id, &tag).await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    assert_eq!(tag_of(&same), tag);
    assert_eq!(same.header("cache-control"), Some("private, no-cache"));
    let result = "A".to_owned();
    bring_to_rest(&server, id, Next::Done { result }).await;
    let done = get_unless(&server, id, &tag).await;
    assert_eq!(done.status, 200);
    assert_eq!(done.header("cache-control"), Some(LONG));
    assert_eq!(done.json()["result"], "A");
    // From the cache alike.
    for known in [
        tag_of(&done),
        format!("\"x\", W/{}", tag_of(&done)),
        "*".to_owned(),
    ] {
        let same = get_unless(&server, id, &known).await;
        assert_eq!((same.status, same.body.len()), (304, 0), "{known}");
        assert_eq!(same.header("cache-control"), Some(LONG));
    }
}

#[tokio::test]
async fn cancelled_is_kept_and_failed_is_asked_about() {
    let server = Server::start().await;
    let error = "broken".to_owned();
    for (to, kept) in [
        (Next::Cancelled, LONG),
        (Next::Failed { error }, "private, no-cache"),
    ] {
        let id = server.memory.submit("a").await;
        let waiting = tag_of(&server.get(&format!("/tasks/{id}")).await);
        bring_to_rest(&server, id, to).await;
        let rests = server.get(&format!("/tasks/{id}")).await;
        assert_eq!(rests.header("cache-control"), Some(kept));
        assert_ne!(tag_of(&rests), waiting);
    }
}

#[tokio::test]
async fn the_documentation_that_a_client_has_is_not_sent_again() {
    let server = Server::start().await;
    let mut tags = Vec::new();
    for path in ["/docs", "/openapi.json"] {
        for coding in ["identity", "gzip"] {
            let ask = async |known: &str| {
                let request = format!(
                    "GET {path} HTTP/1.1\r\nhost: test\r\naccept-encoding: {coding}\r\nif-none-match: {known}\r\n\r\n"
                );
                server.answer(request).await
            };
            let first = ask("\"another\"").await;
            assert_eq!(first.status, 200);
            let tag = tag_of(&first);
            assert_eq!(tag.starts_with("W/"), coding == "gzip", "{path}: {tag}");
            for known in [tag.as_str(), "*"] {
                let same = ask(known).await;
                assert_eq!((same.status, same.body.len()), (304, 0), "{path}");
                assert_eq!(same.header("vary"), Some("Accept-Encoding"));
                assert_eq!(same.header("cache-control"), Some("no-cache"));
                assert_eq!(same.header("content-encoding"), None);
            }
            assert_eq!(first.header("cache-control"), Some("no-cache"));
            assert_eq!(first.header("vary"), Some("Accept-Encoding"));
            tags.push(tag);
        }
    }
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), 4, "{tags:?}");
}
