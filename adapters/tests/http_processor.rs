//! The processing function behind a URL, against services that answer in every way there is.

#[path = "http_processor/service.rs"]
mod service;

use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use ports::{
    Beginning, CallOutcome, Cancellation, Event, Failure, Fence, Job, Payload, Priority,
    Processor as _, TaskId, Timestamp,
};
use sha2::Sha256;
use task_processor_adapters::http_processor::{HttpProcessor, HttpProcessorOptions, Limits};
use task_processor_adapters::memory::{ManualClock, MemoryObserver};
use tokio::task::JoinSet;
use tokio::time::Instant;

use service::{Act, Request, Service};

const KEY: &[u8] = b"twenty-four bytes are in";
const SECRET: &str = "whsec_dHdlbnR5LWZvdXIgYnl0ZXMgYXJlIGlu";

fn job(payload: &str) -> Job {
    Job {
        id: TaskId(uuid::Uuid::from_u128(7)),
        payload: Payload::new(payload).expect("no NUL"),
        priority: Priority::new(3).expect("a priority"),
        attempt: 2,
        fence: Fence(5),
        cancellation: Cancellation::default(),
        beginning: Beginning::default(),
        trace: None,
    }
}

fn limits() -> Limits {
    Limits {
        timeout: Duration::from_secs(20),
        // A test that wants the circuit says so.
        circuit_failures: u32::MAX,
        ..Limits::default()
    }
}

fn processor(address: &str, limits: Limits) -> HttpProcessor {
    observed(address, limits, Arc::default())
}

fn observed(address: &str, limits: Limits, observer: Arc<MemoryObserver>) -> HttpProcessor {
    let options = HttpProcessorOptions {
        url: address.parse().expect("an address"),
        secrets: vec![SECRET.parse().expect("a secret")],
        limits,
    };
    let noon = Timestamp::parse_rfc3339("2025-01-01T12:00:00Z").expect("a time");
    let clock = Arc::new(ManualClock::starting_at(noon));
    HttpProcessor::new(options, clock, observer).expect("a client")
}

/// What comes of one call that is answered so.
async fn outcome(act: Act) -> Result<String, Failure> {
    let service = Service::start(move |_| act.clone()).await;
    processor(&service.address, limits())
        .process(job("a"))
        .await
}

fn answer(status: &str, headers: &str, body: &str) -> Act {
    let length = body.len();
    Act::Answer(format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}"
    ))
}

fn signed(request: &Request, key: &[u8]) -> bool {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key");
    for part in [
        request.header("webhook-id"),
        request.header("webhook-timestamp"),
    ] {
        mac.update(part.as_bytes());
        mac.update(b".");
    }
    mac.update(&request.body);
    use base64::Engine as _;
    let sent = request.header("webhook-signature").strip_prefix("v1,");
    let sent = sent.expect("the version of the signature");
    let sent = base64::engine::general_purpose::STANDARD.decode(sent);
    mac.verify_slice(&sent.expect("base64")).is_ok()
}

#[tokio::test]
async fn the_request_is_the_documented_one_and_its_signature_covers_all_of_it() {
    let service = Service::start(|_| answer("200 OK", "", "fine")).await;
    let processor = processor(&format!("{}/work?kind=a", service.address), limits());
    assert_eq!(
        processor.process(job("Grüße \"x\"")).await,
        Ok("fine".into())
    );
    let mut request = service.requests().remove(0);
    assert_eq!(request.line, "POST /work?kind=a HTTP/1.1");
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("user-agent"), "task-processor");
    let id = "00000000-0000-0000-0000-000000000007";
    assert_eq!(request.header("webhook-id"), id);
    assert_eq!(request.header("webhook-timestamp"), "1735732800");
    let body: serde_json::Value = serde_json::from_slice(&request.body).expect("JSON");
    let expected =
        serde_json::json!({"taskId": id, "payload": "Grüße \"x\"", "priority": 3, "attempt": 2});
    assert_eq!(body, expected);
    assert!(signed(&request, KEY));
    assert!(!signed(&request, b"twenty-four other bytes.."));
    let last = request.body.len() - 2;
    request.body[last] ^= 1;
    assert!(!signed(&request, KEY), "another body");
}

#[tokio::test]
async fn every_status_has_its_meaning() {
    let text = |status: &str| format!("the processing service answered {status}: no");
    for status in ["200 OK", "201 Created", "299 Odd"] {
        assert_eq!(outcome(answer(status, "", "yes")).await, Ok("yes".into()));
    }
    assert_eq!(
        outcome(Act::Answer("HTTP/1.1 204 No Content\r\n\r\n".into())).await,
        Ok(String::new())
    );
    for status in [
        "400 Bad Request",
        "401 Unauthorized",
        "404 Not Found",
        "410 Gone",
        "422 Unprocessable Entity",
    ] {
        let failure = outcome(answer(status, "retry-after: 5\r\n", "no")).await;
        assert_eq!(failure, Err(Failure::Permanent(text(status))));
    }
    for status in [
        "302 Found",
        "408 Request Timeout",
        "425 Too Early",
        "429 Too Many Requests",
        "500 Internal Server Error",
        "502 Bad Gateway",
        "503 Service Unavailable",
        "504 Gateway Timeout",
    ] {
        let failure = outcome(answer(status, "location: /elsewhere\r\n", "no")).await;
        assert_eq!(failure, Err(Failure::Retryable(text(status))));
    }
}

#[tokio::test]
async fn retry_after_is_the_delay_before_the_next_attempt() {
    for (status, header, seconds) in [
        ("429 Too Many Requests", "retry-after: 17", 17),
        ("503 Service Unavailable", "Retry-After: 0", 0),
        (
            "429 Too Many Requests",
            "retry-after: Wed, 01 Jan 2025 12:01:30 GMT",
            90,
        ),
        (
            "408 Request Timeout",
            "retry-after: Wed, 01 Jan 2025 11:00:00 GMT",
            0,
        ),
    ] {
        let failure = outcome(answer(status, &format!("{header}\r\n"), "")).await;
        let expected = format!("the processing service answered {status}");
        let delay = Duration::from_secs(seconds);
        assert_eq!(failure, Err(Failure::RetryableAfter(expected, delay)));
    }
}

#[tokio::test]
async fn of_a_refusal_the_beginning_is_kept() {
    let long = "é".repeat(4_000);
    let Err(Failure::Permanent(text)) = outcome(answer("400 Bad Request", "", &long)).await else {
        panic!("not permanent");
    };
    let said = text.strip_prefix("the processing service answered 400 Bad Request: ");
    assert_eq!(said, Some("é".repeat(512).as_str()));
    let cut =
        Act::AnswerAndClose("HTTP/1.1 400 Bad Request\r\ncontent-length: 99\r\n\r\nhalf".into());
    let text = "the processing service answered 400 Bad Request: half".to_owned();
    assert_eq!(outcome(cut).await, Err(Failure::Permanent(text)));
}

#[tokio::test]
async fn what_is_too_long_or_no_text_is_permanent_and_not_read_to_its_end() {
    // More is announced than is ever sent: whoever reads on waits for ever.
    let announced = Act::Answer("HTTP/1.1 200 OK\r\ncontent-length: 262145\r\n\r\nx".into());
    let piece = "x".repeat(0x1000);
    let chunks = format!("1000\r\n{piece}\r\n").repeat(65);
    let chunked = Act::Answer(format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"
    ));
    let text = "the result is longer than the limit of 262144 bytes".to_owned();
    for act in [announced, chunked] {
        assert_eq!(outcome(act).await, Err(Failure::Permanent(text.clone())));
    }
    let whole = "x".repeat(262_144);
    assert_eq!(outcome(answer("200 OK", "", &whole)).await, Ok(whole));
    let latin = Act::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xe9!".to_vec());
    let text = "the result is not UTF-8 text".to_owned();
    assert_eq!(outcome(latin).await, Err(Failure::Permanent(text)));
}

#[tokio::test]
async fn what_breaks_off_is_retryable() {
    for act in [
        Act::AnswerAndClose(String::new()),
        Act::AnswerAndClose("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".into()),
        Act::AnswerAndClose(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n".into(),
        ),
        Act::Answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhalf\r\n".into()),
        Act::Answer("SSH-2.0-OpenSSH_9.9\r\n\r\n".into()),
        Act::Reset,
    ] {
        let failure = outcome(act.clone()).await;
        assert!(
            matches!(failure, Err(Failure::Retryable(_))),
            "{act:?}: {failure:?}"
        );
    }
}

#[tokio::test]
async fn what_takes_too_long_is_retryable() {
    let slow_head = Act::Answer(String::new());
    let slow_body = Act::Answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".into());
    let limits = Limits {
        timeout: Duration::from_millis(200),
        ..limits()
    };
    for act in [slow_head, slow_body] {
        let service = Service::start(move |_| act.clone()).await;
        let started = Instant::now();
        let failure = processor(&service.address, limits).process(job("a")).await;
        let text = "the processing service did not answer within 200ms".to_owned();
        assert_eq!(failure, Err(Failure::Retryable(text)));
        assert!(started.elapsed() >= limits.timeout);
    }
}

#[tokio::test]
async fn a_service_that_cannot_be_reached_is_down_and_its_address_is_not_told() {
    let nobody = Service::free_address().await;
    for address in [
        format!(
            "{}/?key=s3cret",
            nobody.replace("http://", "http://me:s3cret@")
        ),
        "http://nobody.invalid/?key=s3cret".to_owned(),
    ] {
        let failure = processor(&address, limits()).process(job("a")).await;
        let Err(Failure::Unavailable(text)) = failure else {
            panic!("{failure:?}");
        };
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[tokio::test]
async fn each_call_is_told_by_how_it_ended() {
    let limits = Limits {
        timeout: Duration::from_secs(2),
        ..limits()
    };
    let told = async |address: &str| {
        let observer = Arc::<MemoryObserver>::default();
        let processor = observed(address, limits, Arc::clone(&observer));
        // The outcome of the task is the subject of other tests.
        let _ = processor.process(job("a")).await;
        observer.events()
    };
    let retry_after = "retry-after: 5\r\n";
    for (act, outcome) in [
        (answer("200 OK", "", "fine"), CallOutcome::Success),
        (
            Act::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n\xe9".to_vec()),
            CallOutcome::Permanent,
        ),
        (answer("400 Bad Request", "", ""), CallOutcome::Permanent),
        (
            answer("404 Not Found", retry_after, ""),
            CallOutcome::Permanent,
        ),
        (answer("401 Unauthorized", "", ""), CallOutcome::Refused),
        (answer("403 Forbidden", "", ""), CallOutcome::Refused),
        (
            answer("429 Too Many Requests", "", ""),
            CallOutcome::Throttled,
        ),
        (
            answer("408 Request Timeout", retry_after, ""),
            CallOutcome::Throttled,
        ),
        (
            answer("503 Service Unavailable", retry_after, ""),
            CallOutcome::Throttled,
        ),
        (
            answer("503 Service Unavailable", "", ""),
            CallOutcome::Retryable,
        ),
        (answer("425 Too Early", "", ""), CallOutcome::Retryable),
        (answer("302 Found", "", ""), CallOutcome::Retryable),
        (Act::Reset, CallOutcome::Retryable),
        (Act::Answer(String::new()), CallOutcome::Timeout),
    ] {
        let service = Service::start({
            let act = act.clone();
            move |_| act.clone()
        })
        .await;
        let told = told(&service.address).await;
        assert_eq!(told, [Event::Called { outcome }], "{act:?}");
    }
    let outcome = CallOutcome::Unreachable;
    let told = told(&Service::free_address().await).await;
    assert_eq!(told, [Event::Called { outcome }]);
}

#[tokio::test]
async fn connections_are_kept_and_calls_at_once_are_limited() {
    let service = Service::start(|_| answer("200 OK", "", "fine")).await;
    let limits = Limits {
        concurrency: 3,
        ..limits()
    };
    let processor = Arc::new(processor(&service.address, limits));
    for _ in 0..5 {
        assert!(processor.process(job("a")).await.is_ok());
    }
    assert_eq!(service.connections(), 1);
    let mut calls = JoinSet::new();
    for _ in 0..60 {
        let processor = Arc::clone(&processor);
        calls.spawn(async move { processor.process(job("a")).await });
    }
    while let Some(called) = calls.join_next().await {
        assert_eq!(called.expect("no panic"), Ok("fine".into()));
    }
    assert!(service.connections() <= 3, "{}", service.connections());
    assert_eq!(service.requests().len(), 65);
}

#[tokio::test]
async fn the_circuit_opens_on_a_failing_service_and_closes_when_it_is_back() {
    let limits = Limits {
        circuit_failures: 4,
        circuit_pause: Duration::from_millis(300),
        ..limits()
    };
    let service = Service::start(|number| match number {
        0..4 => answer("400 Bad Request", "", ""),
        4..9 => answer("500 Internal Server Error", "", ""),
        _ => answer("200 OK", "", "back"),
    })
    .await;
    let observer = Arc::<MemoryObserver>::default();
    let processor = observed(&service.address, limits, Arc::clone(&observer));
    for _ in 0..4 {
        let failure = processor.process(job("a")).await;
        assert!(matches!(failure, Err(Failure::Permanent(_))), "{failure:?}");
    }
    for _ in 0..4 {
        let failure = processor.process(job("a")).await;
        assert!(matches!(failure, Err(Failure::Retryable(_))), "{failure:?}");
    }
    let failure = processor.process(job("a")).await;
    assert!(
        matches!(failure, Err(Failure::Unavailable(_))),
        "{failure:?}"
    );
    assert_eq!(service.requests().len(), 8, "nothing was sent");
    // The trial after the first pause finds it failing, the one after the second finds it well.
    let give_up = Instant::now() + Duration::from_secs(20);
    while processor.process(job("a")).await != Ok("back".into()) {
        assert!(Instant::now() < give_up, "it stays open");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(service.requests().len(), 10, "one trial a pause");
    assert_eq!(processor.process(job("a")).await, Ok("back".into()));
    // What the circuit kept back was no call. The failed trial opened nothing that was not open.
    let called = |outcome, times| vec![Event::Called { outcome }; times];
    let told = [
        called(CallOutcome::Permanent, 4),
        called(CallOutcome::Retryable, 4),
        vec![Event::CircuitOpened { failures: 4 }],
        called(CallOutcome::Retryable, 1),
        called(CallOutcome::Success, 1),
        vec![Event::CircuitClosed],
        called(CallOutcome::Success, 1),
    ];
    assert_eq!(observer.events(), told.concat());
}

#[tokio::test]
async fn the_call_of_a_task_that_is_called_off_ends_at_once() {
    let service = Service::start(|_| Act::Answer(String::new())).await;
    let limits = Limits {
        circuit_failures: 1,
        ..limits()
    };
    let observer = Arc::<MemoryObserver>::default();
    let processor = Arc::new(observed(&service.address, limits, Arc::clone(&observer)));
    let job = job("a");
    let cancellation = job.cancellation.clone();
    let calling = tokio::spawn({
        let processor = Arc::clone(&processor);
        async move { processor.process(job).await }
    });
    service.until(|seen| seen.requests.len() == 1).await;
    cancellation.cancel();
    let outcome = calling.await.expect("no panic");
    assert!(matches!(outcome, Err(Failure::Permanent(_))), "{outcome:?}");
    service.until(|seen| seen.closed == 1).await;
    assert_eq!(observer.events(), [], "nothing is said of the service");
}
