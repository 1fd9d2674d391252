//! Stored samples of every record, what is said of wrong ones, and that nothing makes a reader panic.

use ports::Position;
use proptest::prelude::*;

use super::*;

const ID: &str = "0190a5d4-7b1c-7c3e-9f00-0123456789ab";
const NOON: i64 = 1_735_689_602_345_000;

fn id(text: &str) -> TaskId {
    text.parse().expect("the sample id is a UUID")
}

fn message() -> TaskMessage {
    TaskMessage {
        id: id(ID),
        payload: Payload::new("Hello world!").expect("no NUL"),
        priority: Priority::new(1).expect("in range"),
        trace: None,
    }
}

fn result() -> TaskResult {
    TaskResult {
        id: id(ID),
        result: "!dlrow olleH (len=12)".into(),
        processed_at: Timestamp::from_micros(NOON),
    }
}

/// The stored sample is what is written now, and is still read as what it meant.
macro_rules! sample {
    ($name:literal) => {
        include_bytes!(concat!("samples/", $name, ".json")).trim_ascii_end()
    };
}

#[test]
fn messages_are_written_and_read_as_the_sample() {
    assert_eq!(encode_message(&message()), sample!("tasks-input"));
    assert_eq!(decode_message(sample!("tasks-input")), Ok(message()));
    assert_eq!(decode_hint(sample!("tasks-input")), Ok((id(ID), None)));
}

#[test]
fn messages_with_a_trace_are_written_and_read_as_the_sample() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let trace = decode_trace(trace, Some("vendor=a")).expect("valid");
    let traced = TaskMessage {
        trace: Some(trace.clone()),
        ..message()
    };
    let sample = sample!("tasks-input-traced");
    assert_eq!(encode_message_with_trace(&traced), sample);
    assert_eq!(decode_message(sample), Ok(traced.clone()));
    assert_eq!(decode_hint(sample), Ok((id(ID), Some(trace))));
    // Headers carry it where there are headers, and without a trace there is no field for one.
    assert_eq!(encode_message(&traced), sample!("tasks-input"));
    assert_eq!(
        encode_message_with_trace(&message()),
        sample!("tasks-input")
    );
}

#[test]
fn an_unreadable_trace_is_passed_over() {
    for trace in [
        r#""traceparent":"rubbish""#,
        r#""traceparent":"""#,
        r#""traceparent":null"#,
        r#""traceparent":7"#,
        r#""traceparent":{"a":[1]}"#,
        r#""traceparent":"00-00000000000000000000000000000000-b7ad6b7169203331-01""#,
        r#""tracestate":"vendor=a""#,
    ] {
        let value = format!(r#"{{"taskId":"{ID}","payload":"Hello world!","priority":1,{trace}}}"#);
        assert_eq!(decode_hint(value.as_bytes()), Ok((id(ID), None)), "{value}");
        assert_eq!(decode_message(value.as_bytes()), Ok(message()), "{value}");
    }
}

#[test]
fn messages_of_other_producers_are_read() {
    let expected = TaskMessage {
        id: id("3f2504e0-4f89-41d3-9a0c-0305e82c3301"),
        payload: Payload::new("Hi \"there\" é👍").expect("no NUL"),
        priority: Priority::MAX,
        trace: None,
    };
    assert_eq!(
        decode_message(sample!("tasks-input-other-producer")),
        Ok(expected)
    );
}

#[test]
fn events_are_written_and_read_as_the_sample() {
    let event = TaskEvent {
        id: id(ID),
        status: TaskStatus::Done,
        fence: Fence(2),
        at: Timestamp::from_micros(NOON),
    };
    assert_eq!(encode_event(&event), sample!("event"));
    assert_eq!(decode_event(sample!("event")), Ok(event));
    assert!(decode_event(br#"{"taskId":"x","status":"Done"}"#).is_err());
}

#[test]
fn results_are_written_and_read_as_the_sample() {
    assert_eq!(encode_result(&result()), sample!("result"));
    assert_eq!(decode_result(sample!("result")), Ok(result()));
}

#[test]
fn results_are_cut_to_milliseconds() {
    let exact = TaskResult {
        processed_at: Timestamp::from_micros(NOON + 999),
        ..result()
    };
    assert_eq!(encode_result(&exact), sample!("result"));
}

fn unreadable(key: &[u8], value: &[u8], reason: &str, partition: i32, offset: i64) -> DeadLetter {
    DeadLetter::Unreadable {
        reason: reason.into(),
        position: Position { partition, offset },
        key: Some(key.to_vec()),
        value: Some(value.to_vec()),
        failed_at: Timestamp::from_micros(NOON),
    }
}

#[test]
fn dead_letters_of_text_are_written_and_read_as_the_sample() {
    let record = encode_dead_letter(
        &unreadable(b"k", b"{}", "payload is missing", 3, 42),
        "tasks-input",
    );
    assert_eq!(record.key.as_deref(), Some(&b"k"[..]));
    assert_eq!(record.value, sample!("dead-letter-unreadable"));
    let read = decode_dead_letter(&record.value).expect("it is what was written");
    assert_eq!((read.partition, read.offset), (Some(3), Some(42)));
    assert_eq!(read.value.as_deref(), Some(&b"{}"[..]));
    assert_eq!(
        (read.task_id, read.attempts, read.error),
        (None, None, None)
    );
}

#[test]
fn dead_letters_of_bytes_are_written_and_read_as_the_sample() {
    let reason = "not JSON: expected value at line 1 column 1";
    let record = encode_dead_letter(&unreadable(b"k", b"\xff\0", reason, 0, 7), "tasks-input");
    assert_eq!(record.value, sample!("dead-letter-binary"));
    let read = decode_dead_letter(&record.value).expect("it is what was written");
    assert_eq!(read.key.as_deref(), Some(&b"k"[..]));
    assert_eq!(read.value.as_deref(), Some(&b"\xff\0"[..]));
}

#[test]
fn a_key_that_is_not_text_says_so_itself() {
    let record = encode_dead_letter(&unreadable(b"\xfe", b"{}", "x", 0, 7), "tasks-input");
    let text = String::from_utf8(record.value.clone()).expect("JSON is text");
    assert!(
        text.contains(r#""key":"/g==","keyEncoding":"base64","value":"{}","valueEncoding":"utf8""#),
        "{text}"
    );
    let read = decode_dead_letter(&record.value).expect("it is what was written");
    assert_eq!(read.key.as_deref(), Some(&b"\xfe"[..]));
    assert_eq!(read.value.as_deref(), Some(&b"{}"[..]));
}

#[test]
fn dead_letters_of_failed_tasks_are_written_and_read_as_the_sample() {
    let letter = DeadLetter::Failed {
        id: id(ID),
        payload: message().payload,
        priority: message().priority,
        attempts: 5,
        error: "boom".into(),
        failed_at: Timestamp::from_micros(NOON),
    };
    let record = encode_dead_letter(&letter, "tasks-input");
    assert_eq!(record.key.as_deref(), Some(ID.as_bytes()));
    assert_eq!(record.value, sample!("dead-letter-failed"));
    let read = decode_dead_letter(&record.value).expect("it is what was written");
    assert_eq!(read.task_id, Some(id(ID)));
    assert_eq!(read.attempts, Some(5));
    assert_eq!(read.error.as_deref(), Some("boom"));
    assert_eq!(
        decode_message(&read.value.expect("the message")),
        Ok(message())
    );
}

#[test]
fn a_dead_letter_too_large_for_the_log_travels_without_its_value() {
    let value = vec![0xff_u8; DEAD_LETTER_CONTENT_LIMIT + 1];
    let record = encode_dead_letter(&unreadable(b"", &value, "not JSON", 0, 7), "tasks-input");
    let read = decode_dead_letter(&record.value).expect("it is what was written");
    assert_eq!(read.value, None);
    assert_eq!(
        read.reason,
        format!("not JSON (key and value left out: {} bytes)", value.len())
    );
    let fitting = vec![0xff_u8; DEAD_LETTER_CONTENT_LIMIT];
    let record = encode_dead_letter(&unreadable(b"", &fitting, "not JSON", 0, 7), "tasks-input");
    assert!(record.value.len() < 1_000_000, "{}", record.value.len());
}

fn check(value: &str, expected: &str) {
    let error = decode_message(value.as_bytes()).expect_err(value);
    assert!(
        error.to_string().contains(expected),
        "{value}: {error} does not say {expected}"
    );
}

/// As [`check`], for what not even the id may be read from.
fn check_id(value: &str, expected: &str) {
    let error = decode_hint(value.as_bytes()).expect_err(value);
    assert!(
        error.to_string().starts_with(expected),
        "{value}: {error} does not say {expected}"
    );
}

#[test]
fn the_id_is_read_whatever_text_and_integer_come_with_it() {
    assert_eq!(
        decode_hint(sample!("tasks-input-old-row")),
        Ok((id(ID), None))
    );
    for priority in [
        "11",
        "-1",
        "99",
        "1.0",
        "1e18",
        "-9223372036854775808",
        "18446744073709551615",
    ] {
        let value = format!(r#"{{"taskId":"{ID}","payload":"","priority":{priority}}}"#);
        assert_eq!(decode_hint(value.as_bytes()), Ok((id(ID), None)), "{value}");
    }
    for priority in ["1.5", "\"1\"", "null", "true", "[]"] {
        let value = format!(r#"{{"taskId":"{ID}","payload":"","priority":{priority}}}"#);
        check_id(&value, "priority must be an integer");
    }
    check_id("", "not JSON");
    check_id("[]", "not a JSON object");
    check_id(
        "{}",
        "taskId is missing; payload is missing; priority is missing",
    );
    check_id(
        r#"{"taskId":"no","payload":7,"priority":1}"#,
        "taskId must be a UUID; payload must be a string",
    );
}

#[test]
fn every_fault_of_a_message_is_named() {
    check("", "not JSON");
    check("rubbish", "not JSON");
    check("{", "not JSON");
    check(&"[".repeat(100_000), "not JSON");
    check("[]", "not a JSON object");
    check("null", "not a JSON object");
    check(
        "{}",
        "taskId is missing; payload is missing; priority is missing",
    );
    let with = |payload: &str, priority: &str| {
        format!(r#"{{"taskId":"{ID}","payload":{payload},"priority":{priority}}}"#)
    };
    check(&with("null", "1"), "payload must be a string");
    check(&with("5", "1"), "payload must be a string");
    check(
        &with(r#""a\u0000b""#, "1"),
        "payload must not contain the NUL",
    );
    check(&with(r#""\ud800""#, "1"), "not JSON");
    for priority in ["11", "-1", "1.5", "\"1\"", "null", "1e18", "true"] {
        check(
            &with("\"\"", priority),
            "priority must be an integer from 0 to 10",
        );
    }
    check(
        r#"{"taskId":"no","payload":7,"priority":1}"#,
        "taskId must be a UUID; payload must be a string",
    );
    let whole = with("\"\"", "1.0");
    assert_eq!(
        decode_message(whole.as_bytes()).map(|message| message.priority.get()),
        Ok(1)
    );
}

#[test]
fn every_fault_of_a_result_is_named() {
    let said = |value: &str| {
        decode_result(value.as_bytes())
            .expect_err(value)
            .to_string()
    };
    assert_eq!(
        said("{}"),
        "taskId is missing; result is missing; processedAt is missing"
    );
    assert_eq!(
        said(&format!(
            r#"{{"taskId":"{ID}","result":"","processedAt":"soon"}}"#
        )),
        "processedAt must be an RFC 3339 time"
    );
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(decode_message(&bytes));
        drop(decode_hint(&bytes));
        drop(decode_result(&bytes));
        drop(decode_dead_letter(&bytes));
    }

    #[test]
    fn no_json_makes_a_reader_panic(
        task in "\"[0-9a-f-]{0,40}\"|null|[0-9]{1,30}",
        payload in "\"[a-z\\\\\"u0-9]{0,20}\"|\\[\\]|\\{\\}",
        number in "-?[0-9]{1,25}(\\.[0-9]{1,5})?(e[0-9]{1,3})?",
    ) {
        for name in ["payload", "result", "reason"] {
            let text = format!(
                r#"{{"taskId":{task},"{name}":{payload},"priority":{number},"partition":{number},"attempts":{number},"processedAt":{payload}}}"#
            );
            drop(decode_message(text.as_bytes()));
            drop(decode_result(text.as_bytes()));
            drop(decode_dead_letter(text.as_bytes()));
        }
    }

    #[test]
    fn messages_come_back(text in "[^\0]*", number in 0_i64..=10, bits in any::<u128>()) {
        let message = TaskMessage {
            id: TaskId(uuid::Uuid::from_u128(bits)),
            payload: Payload::new(text).expect("no NUL"),
            priority: Priority::new(number).expect("in range"),
            trace: None,
        };
        prop_assert_eq!(decode_message(&encode_message(&message)), Ok(message));
    }

    #[test]
    fn results_come_back(text in any::<String>(), millis in 0_i64..4_102_444_800_000, bits in any::<u128>()) {
        let result = TaskResult {
            id: TaskId(uuid::Uuid::from_u128(bits)),
            result: text,
            processed_at: Timestamp::from_micros(millis * 1_000),
        };
        prop_assert_eq!(decode_result(&encode_result(&result)), Ok(result));
    }

    #[test]
    fn dead_letters_come_back(
        key in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        value in prop::option::of(prop::collection::vec(any::<u8>(), 0..100)),
        reason in any::<String>(),
    ) {
        let letter = DeadLetter::Unreadable {
            reason: reason.clone(),
            position: Position { partition: 1, offset: 2 },
            key: key.clone(),
            value: value.clone(),
            failed_at: Timestamp::from_micros(NOON),
        };
        let record = encode_dead_letter(&letter, "tasks-input");
        prop_assert_eq!(&record.key, &key);
        let read = decode_dead_letter(&record.value).expect("it is what was written");
        prop_assert_eq!((read.reason, read.key, read.value), (reason, key, value));
    }
}
