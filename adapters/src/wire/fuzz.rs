//! Hostile records and cache values.

use ::fuzz::{bytes, linear, run};
use ports::Position;
use proptest::prelude::*;

use super::*;

const MESSAGES: &[&[u8]] = &[
    include_bytes!("samples/tasks-input.json"),
    include_bytes!("samples/tasks-input-old-row.json"),
    include_bytes!("samples/tasks-input-other-producer.json"),
];
const RESULTS: &[&[u8]] = &[include_bytes!("samples/result.json")];
const DEAD_LETTERS: &[&[u8]] = &[
    include_bytes!("samples/dead-letter-binary.json"),
    include_bytes!("samples/dead-letter-failed.json"),
    include_bytes!("samples/dead-letter-unreadable.json"),
];

/// What is said of a bad record is written into the log and into a dead letter, whatever the record holds.
fn says_enough_and_not_too_much(error: &Unreadable) -> Result<(), TestCaseError> {
    let text = error.to_string();
    prop_assert!(
        (1..=400).contains(&text.len()),
        "{} bytes: {text}",
        text.len()
    );
    prop_assert!(!text.contains(char::is_control), "{text:?}");
    Ok(())
}

#[test]
fn fuzz_messages() {
    run("messages", &bytes(MESSAGES), |value| {
        let hint = decode_hint(&value);
        match decode_message(&value) {
            Ok(message) => {
                let hinted = (message.id, message.trace.clone());
                prop_assert_eq!(hint.as_ref(), Ok(&hinted));
                prop_assert_eq!(decode_message(&encode_message(&message)), Ok(message));
            }
            Err(error) => says_enough_and_not_too_much(&error)?,
        }
        hint.map_or_else(|error| says_enough_and_not_too_much(&error), |_| Ok(()))
    });
}

#[test]
fn fuzz_results() {
    run("results", &bytes(RESULTS), |value| {
        match decode_result(&value) {
            Ok(result) => {
                let as_written = TaskResult {
                    processed_at: result.processed_at.truncated_to_millis(),
                    ..result.clone()
                };
                prop_assert_eq!(decode_result(&encode_result(&result)), Ok(as_written));
                Ok(())
            }
            Err(error) => says_enough_and_not_too_much(&error),
        }
    });
}

#[test]
fn fuzz_events() {
    const EVENTS: &[&[u8]] = &[
        br#"{"taskId":"01941f29-7c00-7001-8000-000000000009","status":"done","revision":2,"at":"2025-01-01T00:00:02.345Z"}"#,
    ];
    run("events", &bytes(EVENTS), |value| {
        match decode_event(&value) {
            Ok(event) => {
                let as_written = TaskEvent {
                    at: event.at.truncated_to_millis(),
                    ..event
                };
                prop_assert_eq!(decode_event(&encode_event(&event)), Ok(as_written));
                Ok(())
            }
            Err(error) => says_enough_and_not_too_much(&error),
        }
    });
}

/// The two headers of a record that anybody reads.
#[test]
fn fuzz_record_headers() {
    const PARENTS: &[&[u8]] = &[
        b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more",
    ];
    const STATES: &[&[u8]] = &[b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", b""];
    let both = (bytes(PARENTS), bytes(STATES));
    run("record headers", &both, |(parent, state)| {
        let state = std::str::from_utf8(&state).ok();
        let Some(trace) = std::str::from_utf8(&parent)
            .ok()
            .and_then(|parent| decode_trace(parent, state))
        else {
            return Ok(());
        };
        // It goes on in a header of HTTP, and in a body.
        let kept = trace.tracestate();
        prop_assert!(kept.is_none_or(|kept| Some(kept) == state && kept.len() <= 512));
        prop_assert!(
            kept.is_none_or(|kept| kept.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
        );
        let again = decode_trace(&trace.traceparent(), kept);
        prop_assert_eq!(again, Some(trace));
        Ok(())
    });
}

#[test]
fn fuzz_dead_letters() {
    run("dead letters", &bytes(DEAD_LETTERS), |value| {
        let read = match decode_dead_letter(&value) {
            Ok(read) => read,
            Err(error) => return says_enough_and_not_too_much(&error),
        };
        let (Some(partition), Some(offset)) = (read.partition, read.offset) else {
            return Ok(());
        };
        let again = DeadLetter::Unreadable {
            reason: read.reason.clone(),
            position: Position { partition, offset },
            key: read.key.clone(),
            value: read.value.clone(),
            failed_at: read.failed_at,
        };
        let record = encode_dead_letter(&again, &read.topic);
        let expected = ReadDeadLetter {
            failed_at: read.failed_at.truncated_to_millis(),
            task_id: None,
            attempts: None,
            error: None,
            ..read
        };
        prop_assert_eq!(decode_dead_letter(&record.value), Ok(expected));
        Ok(())
    });
}

/// A name, and the beginning, the repeated middle and the end of an input of any length.
type Shape = (&'static str, &'static [u8], &'static [u8], &'static [u8]);

#[test]
fn reading_takes_time_in_proportion() {
    let shapes: [Shape; 6] = [
        ("text", b"{\"payload\":\"", b"a", b"\"}"),
        ("escapes", b"{\"payload\":\"", b"\\u0041", b"\"}"),
        ("depth", b"", b"[", b""),
        ("fields", b"{", b"\"taskId\":1,", b"\"x\":1}"),
        ("digits", b"{\"priority\":", b"9", b"}"),
        ("list", b"[", b"0,", b"0]"),
    ];
    for (name, head, middle, tail) in shapes {
        let input = |size: usize| [head, &middle.repeat(size / middle.len()), tail].concat();
        linear(name, input, |value| {
            drop(decode_message(value));
            drop(decode_hint(value));
            drop(decode_result(value));
            drop(decode_dead_letter(value));
        });
    }
}
