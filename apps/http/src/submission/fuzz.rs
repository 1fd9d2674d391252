//! Hostile bodies.

use ::fuzz::{bytes, linear, run};
use proptest::prelude::*;

use super::*;

const TASKS: &[&[u8]] = &[
    br#"{"payload":"Hello world!","priority":1}"#,
    br#"{"payload":"\ud83d\udc4d\u001f","priority":1.0,"runAt":"2025-01-01T02:00:00.123456+02:00","maxAttempts":5}"#,
    br#" {"x":[{"payload":3},null,true,1e300],"payload":"a","payload":"b","priority":"1","priority":2} "#,
];
const BATCHES: &[&[u8]] = &[
    br#"[{"payload":"a"},{"payload":"b","priority":10}]"#,
    br#"[{"payload":"a","maxAttempts":1},{},null,{"payload":"\u0000"}]"#,
];

/// The same task, as a client that writes everything would.
fn written(submission: &Submission) -> serde_json::Value {
    let mut task = json!({
        "payload": submission.payload.as_str(),
        "priority": submission.priority.get(),
    });
    if let Some(time) = submission.run_at {
        task["runAt"] = json!(time.to_string());
    }
    if let Some(attempts) = submission.max_attempts {
        task["maxAttempts"] = json!(attempts);
    }
    task
}

/// What is kept of a task whose times were written in milliseconds.
fn kept(submission: Submission) -> Submission {
    Submission {
        run_at: submission.run_at.map(Timestamp::truncated_to_millis),
        ..submission
    }
}

/// A refusal is a client's mistake, says what is wrong, and is no longer than it has to be.
fn is_a_clear_problem(problem: &Problem, fields: usize) -> Result<(), TestCaseError> {
    prop_assert_eq!(problem.status(), poem::http::StatusCode::BAD_REQUEST);
    let text = format!("{problem:?}");
    prop_assert!(
        text.len() <= 400 + 120 * fields,
        "{} bytes: {text}",
        text.len()
    );
    Ok(())
}

#[test]
fn a_refusal_does_not_repeat_the_body() {
    let body = format!("\"{}\"", "é".repeat(100_000));
    let problem = parse(body.as_bytes()).expect_err("a text is no object");
    let text = format!("{problem:?}");
    assert!(text.contains("at line 1 column"), "{text}");
    is_a_clear_problem(&problem, 0).expect("is short");
    let problem = parse_batch(body.as_bytes()).expect_err("a text is no array");
    is_a_clear_problem(&problem, 0).expect("is short");
}

#[test]
fn fuzz_task_bodies() {
    run("task bodies", &bytes(TASKS), |body| match parse(&body) {
        Ok(submission) => {
            let again = parse(written(&submission).to_string().as_bytes());
            prop_assert_eq!(again.ok(), Some(kept(submission)));
            Ok(())
        }
        Err(problem) => is_a_clear_problem(&problem, 4),
    });
}

#[test]
fn fuzz_batch_bodies() {
    run("batch bodies", &bytes(BATCHES), |body| {
        match parse_batch(&body) {
            Ok(submissions) => {
                let all: Vec<_> = submissions.iter().map(written).collect();
                let again = parse_batch(json!(all).to_string().as_bytes());
                let expected: Vec<_> = submissions.into_iter().map(kept).collect();
                prop_assert_eq!(again.ok(), Some(expected));
                Ok(())
            }
            Err(problem) => is_a_clear_problem(&problem, 4 * body.len() / 2),
        }
    });
}

/// A name, and the beginning, the repeated middle and the end of an input of any length.
type Shape = (&'static str, &'static [u8], &'static [u8], &'static [u8]);

#[test]
fn reading_takes_time_in_proportion() {
    let shapes: [Shape; 5] = [
        ("text", b"{\"payload\":\"", b"a", b"\"}"),
        ("depth", b"{\"x\":", b"[", b""),
        ("fields", b"{", b"\"priority\":1,", b"\"x\":1}"),
        ("digits", b"{\"priority\":", b"9", b"}"),
        ("tasks", b"[", b"{},", b"{}]"),
    ];
    for (name, head, middle, tail) in shapes {
        let input = |size: usize| [head, &middle.repeat(size / middle.len()), tail].concat();
        linear(name, input, |body| {
            drop(parse(body));
            drop(parse_batch(body));
        });
    }
}
