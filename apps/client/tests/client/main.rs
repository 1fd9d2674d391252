//! The client against a whole service, and against servers that do not answer as they should.

#[path = "../../../../adapters/tests/http_processor/service.rs"]
mod script;
mod server;

use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use task_processor_client::{
    Client, ClientOptions, Error, Filter, Heard, InvalidOptions, NewTask, Status, Task,
};
use uuid::Uuid;

use script::{Act, Service};
use server::Server;

const PATIENCE: Duration = Duration::from_secs(30);

fn quick() -> ClientOptions {
    ClientOptions {
        backoff: Duration::from_millis(1),
        ..ClientOptions::default()
    }
}

fn client(url: &str) -> Client {
    Client::with_options(url, quick()).expect("a client")
}

#[tokio::test]
async fn a_task_is_submitted_waited_for_and_counted() {
    let server = Server::start().await;
    let client = client(&server.url);
    let accepted = client
        .submit(&NewTask::new("Hello world!"))
        .await
        .expect("accepted");
    assert_eq!(accepted.status, Status::Pending);
    let task = client.wait(accepted.id, PATIENCE).await.expect("read");
    let Task::Done(done) = &task else {
        panic!("{task:?}");
    };
    assert_eq!(
        (done.task_id, done.result.as_str()),
        (accepted.id, "!dlrow olleH (len=12)")
    );
    assert_eq!(client.get(accepted.id).await.expect("read"), task);
    let metrics = client.metrics().await.expect("numbers");
    assert_eq!(metrics.total_tasks, 1);
    assert!(metrics.average_processing_time_ms.is_some());
}

#[tokio::test]
async fn a_failed_task_is_at_rest_with_its_error_and_a_hanging_one_is_not() {
    let server = Server::start().await;
    let client = client(&server.url);
    let failing = client
        .submit(&NewTask::new("fail"))
        .await
        .expect("accepted");
    let Task::Open(task) = client.wait(failing.id, PATIENCE).await.expect("read") else {
        panic!("not failed");
    };
    assert_eq!((task.status, task.attempts), (Status::Failed, 1));
    assert_eq!(task.error.as_deref(), Some("it was told to fail"));
    let hanging = client
        .submit(&NewTask::new("hang"))
        .await
        .expect("accepted");
    let asked = Instant::now();
    let patience = Duration::from_millis(300);
    let task = client.wait(hanging.id, patience).await.expect("read");
    assert!(!task.is_at_rest());
    assert!(asked.elapsed() >= patience);
}

#[tokio::test]
async fn a_task_is_explained_while_it_is_not_done_and_when_it_is() {
    let server = Server::start().await;
    let client = client(&server.url);
    let submit = async |payload: &str| {
        let accepted = client.submit(&NewTask::new(payload)).await;
        accepted.expect("accepted").id
    };
    let done = submit("Hello world!").await;
    client.wait(done, PATIENCE).await.expect("read");
    let record = client.explain(done).await.expect("explained");
    assert_eq!((record.id, record.task_id), (done, done));
    assert_eq!((record.status, record.attempts), (Status::Done, 1));
    assert_eq!(record.result.as_deref(), Some("!dlrow olleH (len=12)"));
    assert_eq!((record.reason, record.estimated_start), (None, None));
    assert_eq!(record.processed_at, record.finished_at);
    assert!(record.finished_at.is_some());

    let failed = submit("fail").await;
    client.wait(failed, PATIENCE).await.expect("read");
    let record = client.explain(failed).await.expect("explained");
    assert_eq!(record.error.as_deref(), Some("it was told to fail"));
    assert_eq!(record.reason.expect("a reason").code, "failed");
    assert_eq!(record.processed_at, None);

    let later = NewTask {
        run_at: Some("2999-01-01T00:00:00Z".into()),
        ..NewTask::new("later")
    };
    let later = client.submit(&later).await.expect("accepted").id;
    let record = client.explain(later).await.expect("explained");
    let reason = record.reason.expect("a reason");
    assert_eq!((reason.code.as_str(), reason.ahead), ("scheduled", None));
    let start = Some("2999-01-01T00:00:00.000Z");
    assert_eq!(record.not_before.as_deref(), start);
    assert_eq!(record.estimated_start.as_deref(), start);

    let unknown = client.explain(Uuid::nil()).await;
    assert_eq!(unknown.expect_err("there is none").status(), Some(404));
}

#[tokio::test]
async fn what_the_server_refuses_is_told_in_its_own_words() {
    let server = Server::start().await;
    let client = client(&format!("{}/", server.url));
    let unknown = client.get(Uuid::nil()).await.expect_err("there is none");
    assert_eq!(unknown.status(), Some(404));
    let wrong = NewTask {
        priority: Some(11),
        run_at: Some("tomorrow".into()),
        ..NewTask::new("a")
    };
    let refused = client.submit(&wrong).await.expect_err("it is wrong");
    let problem = refused.problem().expect("a problem");
    assert_eq!(problem.status, 400);
    assert_eq!(problem.kind, "urn:task-processor:problem:invalid-task");
    let fields: Vec<&str> = problem
        .errors
        .iter()
        .map(|error| error.field.as_str())
        .collect();
    assert_eq!(fields, ["priority", "runAt"]);
    assert!(
        refused
            .to_string()
            .contains("priority must be an integer from 0 to 10"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_task_is_called_off_and_a_failed_one_retried() {
    let server = Server::start().await;
    let client = client(&server.url);
    let hanging = client
        .submit(&NewTask::new("hang"))
        .await
        .expect("accepted");
    for _ in 0..2 {
        let task = client.cancel(hanging.id).await.expect("called off");
        assert_eq!((task.id, task.status), (hanging.id, Status::Cancelled));
    }
    let failing = client
        .submit(&NewTask::new("fail"))
        .await
        .expect("accepted");
    client.wait(failing.id, PATIENCE).await.expect("read");
    let task = client.retry(failing.id).await.expect("put back");
    assert_eq!((task.status, task.attempts), (Status::Pending, 0));
    client.wait(failing.id, PATIENCE).await.expect("read");
    let refused = client.cancel(failing.id).await.expect_err("it has failed");
    let problem = refused.problem().expect("a problem");
    assert_eq!(
        (problem.status, problem.task_status),
        (409, Some(Status::Failed))
    );
    let refused = client
        .retry(hanging.id)
        .await
        .expect_err("it has not failed");
    assert_eq!(refused.status(), Some(409));
}

fn problem(status: &str, headers: &str) -> Act {
    problem_of("about:blank", status, headers)
}

fn problem_of(kind: &str, status: &str, headers: &str) -> Act {
    let code = &status[..3];
    let body = format!(r#"{{"type":"{kind}","title":"{status}","status":{code},"detail":"no"}}"#);
    let length = body.len();
    Act::Answer(format!(
        "HTTP/1.1 {status}\r\n{headers}content-type: application/problem+json\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
}

fn accepted() -> Act {
    let body = r#"{"id":"01890a5d-ac96-774b-bcce-b302099a8057","status":"pending","createdAt":"2025-01-01T00:00:00.000Z"}"#;
    let length = body.len();
    Act::Answer(format!(
        "HTTP/1.1 201 Created\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
}

fn ok(body: &str) -> Act {
    let length = body.len();
    Act::Answer(format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
}

fn open() -> Act {
    ok(
        r#"{"id":"00000000-0000-0000-0000-000000000000","payload":"a","priority":0,"status":"pending","result":null,"createdAt":"2025-01-01T00:00:00.000Z","updatedAt":"2025-01-01T00:00:00.000Z","attempts":0}"#,
    )
}

fn done() -> Act {
    ok(
        r#"{"taskId":"00000000-0000-0000-0000-000000000000","result":"a (len=1)","processedAt":"2025-01-01T00:00:00.000Z"}"#,
    )
}

/// A stream that breaks off after this.
fn stream(text: &str) -> Act {
    Act::AnswerAndClose(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{text}"
    ))
}

fn event(id: u64) -> String {
    format!(
        "id: {id}\ndata: {{\"taskId\":\"00000000-0000-0000-0000-000000000000\",\"status\":\"done\",\"revision\":2,\"at\":\"2025-01-01T00:00:00.000Z\"}}\n\n"
    )
}

#[tokio::test]
async fn reads_are_repeated_and_submissions_only_where_nothing_was_stored() {
    let service = Service::start(|number| match number {
        0 => Act::Reset,
        1 => problem("503 Service Unavailable", "retry-after: 0\r\n"),
        2 => Act::AnswerAndClose("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n".into()),
        3 => problem("429 Too Many Requests", "retry-after: 0\r\n"),
        4 => accepted(),
        _ => problem("503 Service Unavailable", "retry-after: 0\r\n"),
    })
    .await;
    let options = ClientOptions {
        attempts: 3,
        api_key: Some("s3cret".into()),
        ..quick()
    };
    let client = Client::with_options(&service.address, options).expect("a client");
    let cut = client
        .get(Uuid::nil())
        .await
        .expect_err("the answer breaks off");
    assert!(cut.is_unanswered(), "{cut}");
    assert_eq!(service.requests().len(), 3);
    client.submit(&NewTask::new("a")).await.expect("accepted");
    let in_doubt = client
        .submit(&NewTask::new("a"))
        .await
        .expect_err("refused");
    assert_eq!(in_doubt.status(), Some(503));
    let requests = service.requests();
    assert_eq!(
        requests.len(),
        6,
        "what may have been stored is not sent again"
    );
    assert_eq!(requests[3].line, "POST /tasks HTTP/1.1");
    assert_eq!(requests[3].header("authorization"), "Bearer s3cret");
    assert_eq!(requests[3].body, br#"{"payload":"a"}"#);
}

#[tokio::test]
async fn a_server_that_was_too_busy_to_store_anything_is_asked_again_without_a_key() {
    const OVERLOADED: &str = "urn:task-processor:problem:overloaded";
    let service = Service::start(|number| match number {
        0 => problem_of(OVERLOADED, "503 Service Unavailable", "retry-after: 0\r\n"),
        _ => accepted(),
    })
    .await;
    let client = client(&service.address);
    client.submit(&NewTask::new("a")).await.expect("accepted");
    assert_eq!(service.requests().len(), 2);
}

#[tokio::test]
async fn who_waits_has_the_patience_that_was_given() {
    let service = Service::start(|number| match number {
        0..8 => Act::Reset,
        8 => problem("503 Service Unavailable", ""),
        _ => done(),
    })
    .await;
    let client = client(&service.address);
    let task = client.wait(Uuid::nil(), PATIENCE).await.expect("read");
    assert!(task.is_at_rest());
    assert_eq!(service.requests().len(), 10, "more than the attempts");
    let unknown = Service::start(|_| problem("404 Not Found", "")).await;
    let refused = Client::new(&unknown.address).expect("an address");
    let refused = refused.wait(Uuid::nil(), PATIENCE).await.expect_err("none");
    assert_eq!((refused.status(), unknown.requests().len()), (Some(404), 1));
    let (asked, short) = (Instant::now(), Duration::from_millis(100));
    let nobody = Client::with_options(&Service::free_address().await, quick());
    let unreached = nobody.expect("a client").wait(Uuid::nil(), short).await;
    assert!(unreached.expect_err("nobody").is_unreached());
    assert!(asked.elapsed() >= short);
}

#[tokio::test]
async fn where_no_more_may_wait_a_task_is_looked_at_until_it_is_done() {
    const FULL: &str = "urn:task-processor:problem:too-many-waiters";
    let service = Service::start(|number| match number {
        0 | 2 => problem_of(FULL, "503 Service Unavailable", "retry-after: 5\r\n"),
        1 => open(),
        _ => done(),
    })
    .await;
    let (client, asked) = (client(&service.address), Instant::now());
    let task = client.wait(Uuid::nil(), PATIENCE).await.expect("read");
    assert!(task.is_at_rest());
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "at once, without waiting"
    );
    let lines: Vec<bool> = service
        .requests()
        .iter()
        .map(|request| request.line.contains("wait="))
        .collect();
    assert_eq!(lines, [true, false, true, false]);
}

#[tokio::test]
async fn under_a_key_a_submission_is_repeated_until_it_is_answered() {
    let service = Service::start(|number| match number {
        0 => Act::Reset,
        1 => problem("503 Service Unavailable", "retry-after: 0\r\n"),
        2 => Act::AnswerAndClose("HTTP/1.1 201 Created\r\ncontent-length: 99\r\n\r\n".into()),
        _ => accepted(),
    })
    .await;
    let client = client(&service.address);
    let task = NewTask::new("a");
    // The third answer breaks off, after the task was stored.
    let cut = client.submit_keyed(&task, "order-17").await;
    assert!(cut.is_err_and(|error| error.is_unanswered()));
    client
        .submit_keyed(&task, "order-17")
        .await
        .expect("accepted");
    let requests = service.requests();
    assert_eq!(requests.len(), 4);
    for request in requests {
        assert_eq!(request.header("idempotency-key"), "order-17");
        assert_eq!(request.body, br#"{"payload":"a"}"#);
    }
    let long = "a".repeat(256);
    for wrong in ["", "two words", "line\nbreak", "schlüssel", &long] {
        let refused = client.submit_keyed(&task, wrong).await;
        assert!(matches!(refused, Err(Error::InvalidKey)), "{wrong}");
    }
    assert_eq!(service.requests().len(), 4, "nothing was sent");
}

#[tokio::test]
async fn under_a_key_tasks_are_stored_once() {
    let server = Server::start().await;
    let client = client(&server.url);
    let (task, tasks) = (NewTask::new("a"), vec![NewTask::new("b"); 3]);
    let first = client.submit_keyed(&task, "k").await.expect("accepted");
    let all = client.submit_batch_keyed(&tasks, "k").await;
    let all = all.expect("accepted: the key of another operation is another one");
    for _ in 0..2 {
        let again = client.submit_keyed(&task, "k").await.expect("accepted");
        assert_eq!(again, first);
        let again = client.submit_batch_keyed(&tasks, "k").await;
        assert_eq!(again.expect("accepted"), all);
    }
    let other = NewTask::new("another");
    let refused = client.submit_keyed(&other, "k").await.expect_err("refused");
    assert_eq!(refused.status(), Some(422));
    let stored = client.list(Filter::default()).into_stream();
    let stored: Vec<_> = stored.try_collect().await.expect("listed");
    assert_eq!(stored.len(), 4);
}

#[tokio::test]
async fn a_batch_is_stored_whole_or_not_at_all() {
    let server = Server::start().await;
    let client = client(&server.url);
    let mut tasks: Vec<NewTask> = (0..1_000)
        .map(|number| NewTask::new(number.to_string()))
        .collect();
    let accepted = client.submit_batch(&tasks).await.expect("accepted");
    assert_eq!(accepted.len(), 1_000);
    let last = client.wait(accepted[999].id, PATIENCE).await.expect("read");
    assert!(
        matches!(&last, Task::Done(done) if done.result == "999 (len=3)"),
        "{last:?}"
    );
    tasks[7].priority = Some(11);
    let refused = client.submit_batch(&tasks).await.expect_err("one is wrong");
    let problem = refused.problem().expect("a problem");
    assert_eq!(
        (problem.status, problem.errors[0].field.as_str()),
        (400, "/7/priority")
    );
}

#[tokio::test]
async fn what_the_server_asks_to_wait_is_waited_and_no_answer_is_asked_for_in_vain() {
    let service = Service::start(|number| match number {
        0 => problem("429 Too Many Requests", "retry-after: 1\r\n"),
        1 => accepted(),
        2 => problem("401 Unauthorized", "retry-after: 1\r\n"),
        _ => Act::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n<html".to_vec()),
    })
    .await;
    let client = client(&service.address);
    let asked = Instant::now();
    client.submit(&NewTask::new("a")).await.expect("accepted");
    assert!(asked.elapsed() >= Duration::from_secs(1));
    let refused = client
        .submit(&NewTask::new("a"))
        .await
        .expect_err("refused");
    assert_eq!(refused.status(), Some(401));
    let unreadable = client.get(Uuid::nil()).await.expect_err("no task");
    assert!(
        matches!(unreadable, Error::Unreadable { status: 200, .. }),
        "{unreadable:?}"
    );
    assert_eq!(
        service.requests().len(),
        4,
        "the first alone was sent again"
    );
    assert_eq!(service.connections(), 1, "it was kept");
}

/// Asks twice, and waits for a tenth of a second each time.
fn impatient(server: &str) -> Client {
    let options = ClientOptions {
        timeout: Duration::from_millis(100),
        attempts: 2,
        ..quick()
    };
    Client::with_options(server, options).expect("a client")
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_from_one_that_is_slow() {
    let nobody = Service::free_address().await;
    let unreached = client(&nobody).get(Uuid::nil()).await.expect_err("nobody");
    assert!(unreached.is_unanswered() && unreached.is_unreached());
    let service = Service::start(|_| Act::Answer(String::new())).await;
    let slow = impatient(&service.address);
    let late = slow.metrics().await.expect_err("too slow");
    assert!(late.is_unanswered() && !late.is_unreached());
    assert_eq!(service.requests().len(), 2);
    service.until(|seen| seen.closed == 2).await;
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_sent() {
    for (url, key) in [
        ("tasks", None),
        ("ftp://tasks", None),
        ("http://tasks", Some("a\nb")),
    ] {
        let options = ClientOptions {
            api_key: key.map(Into::into),
            ..ClientOptions::default()
        };
        let refused = Client::with_options(url, options).expect_err("wrong");
        let expected = match (url, key) {
            ("tasks", _) => matches!(refused, InvalidOptions::Address(_)),
            ("ftp://tasks", _) => matches!(refused, InvalidOptions::Scheme),
            _ => matches!(refused, InvalidOptions::ApiKey),
        };
        assert!(expected, "{refused:?}");
    }
}

#[tokio::test]
async fn a_task_is_followed_until_it_is_done() {
    let server = Server::start().await;
    let client = Client::new(&server.url).expect("an address");
    let mut all = client.watch(None).await.expect("followed");
    let accepted = client.submit(&NewTask::new("ab")).await.expect("stored");
    let last = loop {
        let Heard::Event { id, event } = all.next().await.expect("heard") else {
            panic!("nothing is missing");
        };
        assert_eq!(event.task_id, accepted.id);
        if event.status == Status::Done {
            break id;
        }
    };
    // Another process goes on where that one ended, and hears what happened in between.
    drop((all, client));
    let client = Client::new(&server.url).expect("an address");
    let next = client.submit(&NewTask::new("cd")).await.expect("stored");
    client.wait(next.id, PATIENCE).await.expect("read");
    let mut rest = client.watch_after(None, last).await.expect("followed");
    let Heard::Event { id, event } = rest.next().await.expect("heard") else {
        panic!("nothing is missing");
    };
    assert!(id > last && event.task_id == next.id, "{event:?}");
    let mut gone = client.watch_after(None, u64::MAX).await.expect("followed");
    assert_eq!(gone.next().await.expect("heard"), Heard::Missed);
}

#[tokio::test]
async fn a_stream_is_made_anew_at_the_servers_pace_and_goes_on_behind_the_last_event() {
    let service = Service::start(|number| match number {
        0 => stream(&format!("retry: 20\n\n{}", event(41))),
        1..8 => Act::Reset,
        8 => stream(&event(42)),
        9 => stream("id: -1\nevent: reset\ndata: {}\n\n"),
        10 => stream(&event(7)),
        _ => Act::Reset,
    })
    .await;
    let watch = client(&service.address).watch(None).await;
    let (mut watch, begun) = (watch.expect("followed"), Instant::now());
    for expected in [41, 42] {
        let heard = watch.next().await.expect("heard");
        assert!(matches!(heard, Heard::Event { id, .. } if id == expected));
    }
    assert!(begun.elapsed() >= 8 * Duration::from_millis(20));
    assert_eq!(watch.next().await.expect("heard"), Heard::Missed);
    let heard = watch.next().await.expect("heard");
    assert!(matches!(heard, Heard::Event { id: 7, .. }));
    let asked = Instant::now();
    let mut watch = watch.with_patience(Duration::from_millis(50));
    let gone = watch.next().await.expect_err("nobody answers");
    assert!(gone.is_unanswered() && asked.elapsed() >= Duration::from_millis(50));
    let requests = service.requests();
    let after: Vec<&str> = requests[..12]
        .iter()
        .map(|request| request.header("last-event-id"))
        .collect();
    let first = [&[""][..], &["41"; 8], &["42", "-1", "7"]].concat();
    assert_eq!(after, first);
    // A browser would be told in a stream that there is no room.
    let accepts = |request: &script::Request| request.header("accept") == "*/*";
    assert!(requests.iter().all(accepts));
}

#[tokio::test]
async fn a_server_that_takes_a_stream_and_says_nothing_is_given_up_in_time() {
    let service = Service::start(|_| Act::Answer(String::new())).await;
    let slow = impatient(&service.address);
    let late = slow.watch(None).await.expect_err("too slow");
    assert!(matches!(late, Error::Late) && late.is_unanswered());
    assert_eq!(service.requests().len(), 2);
}

#[tokio::test]
async fn tasks_are_listed_page_by_page_by_what_they_are() {
    let server = Server::start().await;
    let client = client(&server.url);
    let mut urgent = Vec::new();
    for number in 0..7 {
        let task = NewTask {
            priority: Some(number % 2),
            ..NewTask::new(format!("hang {number}"))
        };
        let accepted = client.submit(&task).await.expect("accepted");
        if number % 2 == 1 {
            urgent.insert(0, accepted.id);
        }
    }
    let filter = Filter {
        priority: Some(1),
        page: Some(2),
        ..Filter::default()
    };
    let mut listing = client.list(filter.clone());
    let mut met = Vec::new();
    while let Some(task) = listing.next().await.expect("a page") {
        assert_eq!((task.priority, task.result), (1, None));
        met.push(task.id);
    }
    assert_eq!(met, urgent);
    assert_eq!(listing.next().await.expect("the end"), None);
    let streamed: Vec<Uuid> = client
        .list(filter)
        .into_stream()
        .map_ok(|task| task.id)
        .try_collect()
        .await
        .expect("all pages");
    assert_eq!(streamed, urgent);
    let done = client.submit(&NewTask::new("a")).await.expect("accepted");
    client.wait(done.id, PATIENCE).await.expect("read");
    let mut listing = client.list(Filter {
        status: Some(Status::Done),
        ..Filter::default()
    });
    let task = listing.next().await.expect("a page").expect("a task");
    assert_eq!(
        (task.id, task.result.as_deref()),
        (done.id, Some("a (len=1)"))
    );
    assert_eq!(listing.next().await.expect("the end"), None);
    let mut wrong = client.list(Filter {
        created_after: Some("yesterday".into()),
        page: Some(0),
        ..Filter::default()
    });
    let refused = wrong.next().await.expect_err("it is wrong");
    let fields: Vec<&str> = refused
        .problem()
        .into_iter()
        .flat_map(|problem| &problem.errors)
        .map(|error| error.field.as_str())
        .collect();
    assert_eq!(fields, ["createdAfter", "limit"]);
}

#[tokio::test]
async fn a_page_that_did_not_come_is_asked_for_again() {
    let page = |id: u8, next: &str| {
        let body = format!(
            r#"{{"tasks":[{{"id":"00000000-0000-0000-0000-00000000000{id}","payload":"a","priority":0,"status":"pending","result":null,"createdAt":"2025-01-01T00:00:00.000Z","updatedAt":"2025-01-01T00:00:00.000Z","attempts":0}}],"next":{next}}}"#
        );
        let length = body.len();
        Act::Answer(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
    };
    let service = Service::start(move |number| match number {
        0 => page(2, r#""a cursor""#),
        1 => problem("500 Internal Server Error", ""),
        _ => page(1, "null"),
    })
    .await;
    let mut listing = client(&service.address).list(Filter::default());
    let mut met = Vec::new();
    met.push(listing.next().await.expect("the first page"));
    listing.next().await.expect_err("the second is refused");
    met.push(listing.next().await.expect("the second page"));
    let ids: Vec<u128> = met.iter().flatten().map(|task| task.id.as_u128()).collect();
    assert_eq!(ids, [2, 1]);
    let lines: Vec<String> = service.requests().into_iter().map(|it| it.line).collect();
    for again in &lines[1..] {
        assert_eq!(again, "GET /tasks?cursor=a+cursor HTTP/1.1");
    }
    assert_eq!(listing.next().await.expect("the end"), None);
}
