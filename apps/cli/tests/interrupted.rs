//! The program against a server that breaks off, or is gone for a while: what it advises stores nothing twice.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../adapters/tests/http_processor/service.rs"]
mod script;

use bootstrap::testing::{Said, Sandbox};

use script::{Act, Request, Service};

const ID: &str = "00000000-0000-0000-0000-000000000000";

fn run(service: &Service, sandbox: &Sandbox, arguments: &[&str]) -> Said {
    let environment = [("TASK_URL", service.address.as_str())];
    sandbox.run(env!("CARGO_BIN_EXE_task"), arguments, &environment)
}

fn answer(status: &str, body: &str) -> Act {
    let length = body.len();
    Act::Answer(format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
}

fn accepted() -> String {
    format!(r#"{{"id":"{ID}","status":"pending","createdAt":"2025-01-01T00:00:00.000Z"}}"#)
}

/// A stream that breaks off after an event.
fn event(place: u64, status: &str) -> Act {
    Act::AnswerAndClose(format!(
        "HTTP/1.1 200 OK\r\n\r\nretry: 1\n\nid: {place}\ndata: {{\"taskId\":\"{ID}\",\"status\":\"{status}\",\"revision\":2,\"at\":\"2025-01-01T00:00:00.000Z\"}}\n\n"
    ))
}

fn key(request: &Request) -> &str {
    request.header("idempotency-key")
}

/// The word behind this one.
fn word_after<'text>(text: &'text str, name: &str) -> &'text str {
    let (_, rest) = text.split_once(name).unwrap_or_else(|| panic!("{text}"));
    rest.split_whitespace().next().expect("a word")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_batch_was_not_answered_goes_on_and_stores_none_twice() {
    let service = Service::start(|number| match number {
        0 => answer(
            "201 Created",
            &format!("[{}]", vec![accepted(); 1_000].join(",")),
        ),
        1..=4 => Act::Reset,
        _ => answer(
            "201 Created",
            &format!("[{}]", vec![accepted(); 5].join(",")),
        ),
    })
    .await;
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("tasks.ndjson");
    std::fs::write(&path, "{\"payload\":\"a\"}\n".repeat(1_005)).expect("a file");
    let call = ["submit", "--file", "tasks.ndjson"];
    let said = run(&service, &sandbox, &call);
    assert_eq!((said.code, said.out.lines().count()), (Some(8), 1_000));
    let after = word_after(&said.err, "--after ");
    let given = word_after(&said.err, "--idempotency-key ");
    assert_eq!(after, "1000", "{}", said.err);
    let advised = [&call[..], &["--after", after, "--idempotency-key", given]].concat();
    let rest = run(&service, &sandbox, &advised);
    assert_eq!((rest.code, rest.out.lines().count()), (Some(0), 5));
    let requests = service.requests();
    assert_eq!(requests.len(), 6);
    for again in &requests[1..] {
        assert_eq!(key(again), format!("{given}-1000"));
        assert_eq!(again.body, requests[1].body);
    }
    assert_eq!(key(&requests[0]), format!("{given}-0"));
    run(&service, &sandbox, &advised[..3]);
    let another = service.requests();
    assert_ne!(key(&another[6]), key(&requests[0]), "each call has its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_was_not_answered_is_repeated_under_the_key_that_is_told() {
    let service = Service::start(|number| match number {
        0..4 => Act::Reset,
        4 => answer("201 Created", &accepted()),
        _ => answer(
            "400 Bad Request",
            r#"{"type":"about:blank","title":"no","status":400}"#,
        ),
    })
    .await;
    let sandbox = Sandbox::new();
    let said = run(&service, &sandbox, &["submit", "a"]);
    assert_eq!(said.code, Some(8), "{}", said.err);
    let given = word_after(&said.err, "--idempotency-key ");
    let advised = ["submit", "a", "--idempotency-key", given];
    assert_eq!(run(&service, &sandbox, &advised).code, Some(0));
    let requests = service.requests();
    let keys: Vec<&str> = requests.iter().map(key).collect();
    assert_eq!(keys, [given; 5]);
    // What is refused is not worth repeating.
    let refused = run(&service, &sandbox, &["submit", "a"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        !refused.err.contains("--idempotency-key"),
        "{}",
        refused.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_followed_for_as_long_as_no_server_is_there_and_across_calls() {
    let service = Service::start(|number| match number {
        0 => event(41, "processing"),
        1..=5 => Act::Reset,
        6 => event(42, "done"),
        _ => answer(
            "401 Unauthorized",
            r#"{"type":"about:blank","title":"no","status":401}"#,
        ),
    })
    .await;
    let sandbox = Sandbox::new();
    let said = run(&service, &sandbox, &["watch", "--after", "40"]);
    assert_eq!(said.code, Some(7), "{}", said.err);
    let places: Vec<&str> = said
        .out
        .lines()
        .map(|line| word_after(line, "\"eventId\":"))
        .collect();
    assert_eq!(places, ["41}", "42}"]);
    let requests = service.requests();
    let after: Vec<&str> = requests
        .iter()
        .map(|request| request.header("last-event-id"))
        .collect();
    assert_eq!(after, [&["40"][..], &["41"; 6], &["42"]].concat());
    let wrong = run(&service, &sandbox, &["watch", "--after", "yesterday"]);
    assert_eq!(wrong.code, Some(2));
}
