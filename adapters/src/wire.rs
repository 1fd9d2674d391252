//! The JSON of the Kafka records and of the Redis value.
//!
//! What is written here is a contract with programs that are not ours: fields are only ever added, and stored samples of
//! every record must still decode. Reading is lenient about fields it does not know and strict about those it does;
//! whatever is wrong is named, and nothing panics.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ports::{
    DeadLetter, Fence, Payload, Priority, TaskEvent, TaskId, TaskMessage, TaskResult, TaskStatus,
    Timestamp, TraceContext,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The most bytes of a dead letter's received value and key, together, that travel in the envelope. Brokers refuse batches
/// over 1 MiB unless told otherwise, and base64 makes a third more of the bytes.
const DEAD_LETTER_CONTENT_LIMIT: usize = 640 * 1024;

/// The names of the headers, or fields, that a trace travels in.
pub const TRACEPARENT: &str = "traceparent";
/// See [`TRACEPARENT`].
pub const TRACESTATE: &str = "tracestate";

/// A record or value that cannot be read: every fault that was found, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

/// A record of `tasks-input`:
/// `{"taskId":"<uuid>","payload":"Hello world!","priority":1}`. Its trace is for the record's headers.
#[must_use]
pub fn encode_message(message: &TaskMessage) -> Vec<u8> {
    to_bytes(&MessageShape {
        task_id: message.id,
        payload: message.payload.as_str(),
        priority: message.priority.get(),
        traceparent: None,
        tracestate: None,
    })
}

/// The same for a client that knows no headers: the trace, if there is one, stands in two fields more, `traceparent` and
/// `tracestate`.
#[must_use]
pub fn encode_message_with_trace(message: &TaskMessage) -> Vec<u8> {
    to_bytes(&MessageShape {
        task_id: message.id,
        payload: message.payload.as_str(),
        priority: message.priority.get(),
        traceparent: message.trace.as_ref(),
        tracestate: message.trace.as_ref().and_then(TraceContext::tracestate),
    })
}

/// Reads a record of `tasks-input`.
///
/// # Errors
/// [`Unreadable`] naming every field that is missing or wrong.
pub fn decode_message(value: &[u8]) -> Result<TaskMessage, Unreadable> {
    let Message {
        id,
        payload,
        priority,
        trace,
    } = read_message(value)?;
    Ok(TaskMessage {
        id,
        payload: Payload::new(payload).map_err(|error| Unreadable(format!("payload {error}")))?,
        priority,
        trace,
    })
}

/// Reads what a record of `tasks-input` tells a worker: the task, and the trace in its body. The stored row has the last word
/// on the rest, and may hold what is not accepted any more, so any text is a payload here and any integer a priority.
/// A trace that cannot be read is none.
///
/// # Errors
/// [`Unreadable`] naming every field that is missing or of another type.
pub fn decode_hint(value: &[u8]) -> Result<(TaskId, Option<TraceContext>), Unreadable> {
    if let Ok(message) = read_message(value) {
        return Ok((message.id, message.trace));
    }
    let mut fields = Fields::read(value)?;
    let id = fields.task_id();
    fields.text("payload");
    fields.any_integer("priority");
    let trace = fields.trace();
    match id {
        Some(id) if fields.faults.is_empty() => Ok((id, trace)),
        _ => Err(fields.into_error()),
    }
}

/// A trace as it travels: `None` when its `traceparent` is unreadable.
#[must_use]
pub fn decode_trace(traceparent: &str, tracestate: Option<&str>) -> Option<TraceContext> {
    let context = TraceContext::parse(traceparent)?;
    Some(match tracestate {
        Some(state) => context.with_state(state),
        None => context,
    })
}

/// The result of a done task, the same bytes in Redis, on `tasks-output` and over HTTP:
/// `{"taskId":"<uuid>","result":"!dlrow olleH (len=12)","processedAt":"2025-01-01T00:00:02.345Z"}`.
#[must_use]
pub fn encode_result(result: &TaskResult) -> Vec<u8> {
    to_bytes(&ResultShape {
        task_id: result.id,
        result: &result.result,
        processed_at: result.processed_at,
    })
}

/// Reads the result of a done task. Its time comes back in whole milliseconds, as it was written.
///
/// # Errors
/// [`Unreadable`] naming every field that is missing or wrong.
pub fn decode_result(value: &[u8]) -> Result<TaskResult, Unreadable> {
    #[derive(Deserialize)]
    struct Exact<'a> {
        #[serde(rename = "taskId", borrow)]
        task_id: Cow<'a, str>,
        result: String,
        #[serde(rename = "processedAt", borrow)]
        processed_at: Cow<'a, str>,
    }
    if let Ok(exact) = serde_json::from_slice::<Exact<'_>>(value)
        && let Ok(id) = exact.task_id.parse()
        && let Some(processed_at) = Timestamp::parse_rfc3339(&exact.processed_at)
    {
        return Ok(TaskResult {
            id,
            result: exact.result,
            processed_at,
        });
    }
    let mut fields = Fields::read(value)?;
    let id = fields.task_id();
    let result = fields.text("result");
    let processed_at = fields.text("processedAt").and_then(|text| {
        let time = Timestamp::parse_rfc3339(&text);
        if time.is_none() {
            fields.fault("processedAt must be an RFC 3339 time");
        }
        time
    });
    match (id, result, processed_at) {
        (Some(id), Some(result), Some(processed_at)) if fields.faults.is_empty() => {
            Ok(TaskResult {
                id,
                result,
                processed_at,
            })
        }
        _ => Err(fields.into_error()),
    }
}

/// A record of `tasks-events`:
/// `{"taskId":"<uuid>","status":"done","revision":2,"at":"2025-01-01T00:00:02.345Z"}`. `revision` rises with every change of
/// a task, so that of two of its events, however they arrive, the later one can be told.
#[must_use]
pub fn encode_event(event: &TaskEvent) -> Vec<u8> {
    to_bytes(&EventShape {
        task_id: event.id,
        status: event.status.as_str(),
        revision: event.fence.0,
        at: event.at,
    })
}

/// Reads a record of `tasks-events`. Its time comes back in whole milliseconds, as it was written.
///
/// # Errors
/// [`Unreadable`] naming every field that is missing or wrong.
pub fn decode_event(value: &[u8]) -> Result<TaskEvent, Unreadable> {
    let mut fields = Fields::read(value)?;
    let id = fields.task_id();
    let status = fields.text("status").and_then(|name| {
        let status = TaskStatus::from_name(&name);
        if status.is_none() {
            fields.fault("status must be the name of one");
        }
        status
    });
    let fence = fields.optional_integer("revision").map(Fence);
    if fence.is_none() {
        fields.fault("revision must be an integer");
    }
    let at = fields.text("at").and_then(|text| {
        let time = Timestamp::parse_rfc3339(&text);
        if time.is_none() {
            fields.fault("at must be an RFC 3339 time");
        }
        time
    });
    match (id, status, fence, at) {
        (Some(id), Some(status), Some(fence), Some(at)) if fields.faults.is_empty() => {
            Ok(TaskEvent {
                id,
                status,
                fence,
                at,
            })
        }
        _ => Err(fields.into_error()),
    }
}

/// The key of a task's records: its id, in lower case with hyphens.
#[must_use]
pub fn record_key(id: TaskId) -> String {
    id.to_string()
}

/// A dead letter as a record: its key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterRecord {
    /// The task id of a failed task, the key received otherwise.
    pub key: Option<Vec<u8>>,
    /// `{reason, topic, partition, offset, key, keyEncoding?, value, valueEncoding, taskId?, attempts?, error?, failedAt}`.
    pub value: Vec<u8>,
}

/// The record of `tasks-dead-letter`.
///
/// For a record that cannot be read, `topic`, `partition` and `offset` say where it stands, `key` and `value` what it held:
/// each as text where it is UTF-8 and as base64 otherwise. `valueEncoding` says which of the two for the value; `keyEncoding`
/// is there, and `base64`, only for a key that is not text. A value so large that the envelope would be
/// refused in its turn is left out (`null`), and `reason` says so. For a task that failed, `value` is the message that
/// announces it, `partition` and `offset` are `null`, and `taskId`, `attempts` and `error` say what happened.
#[must_use]
pub fn encode_dead_letter(letter: &DeadLetter, input_topic: &str) -> DeadLetterRecord {
    match letter {
        DeadLetter::Unreadable {
            reason,
            position,
            key,
            value,
            failed_at,
        } => {
            let size = key.as_ref().map_or(0, Vec::len) + value.as_ref().map_or(0, Vec::len);
            let fits = size <= DEAD_LETTER_CONTENT_LIMIT;
            let (shown_key, shown_value, reason) = if fits {
                (
                    key.as_deref(),
                    value.as_deref(),
                    Cow::Borrowed(reason.as_str()),
                )
            } else {
                let reason = format!("{reason} (key and value left out: {size} bytes)");
                (None, None, Cow::Owned(reason))
            };
            let (key_text, key_encoding) = as_text(shown_key);
            let (value_text, value_encoding) = as_text(shown_value);
            DeadLetterRecord {
                key: if fits { key.clone() } else { None },
                value: to_bytes(&DeadLetterShape {
                    reason: &reason,
                    topic: input_topic,
                    partition: Some(position.partition),
                    offset: Some(position.offset),
                    key: key_text,
                    key_encoding: Some(key_encoding).filter(|encoding| *encoding != UTF8),
                    value: value_text,
                    value_encoding,
                    task_id: None,
                    attempts: None,
                    error: None,
                    failed_at: *failed_at,
                }),
            }
        }
        DeadLetter::Failed {
            id,
            payload,
            priority,
            attempts,
            error,
            failed_at,
        } => {
            let key = record_key(*id);
            let message = MessageShape {
                task_id: *id,
                payload: payload.as_str(),
                priority: priority.get(),
                traceparent: None,
                tracestate: None,
            };
            let value = serde_json::to_string(&message).ok();
            let fits = value.as_ref().map_or(0, String::len) <= DEAD_LETTER_CONTENT_LIMIT;
            DeadLetterRecord {
                value: to_bytes(&DeadLetterShape {
                    reason: if fits {
                        "the task failed"
                    } else {
                        "the task failed (value left out: too large)"
                    },
                    topic: input_topic,
                    partition: None,
                    offset: None,
                    key: Some(Cow::Borrowed(&key)),
                    key_encoding: None,
                    value: value.filter(|_| fits).map(Cow::Owned),
                    value_encoding: UTF8,
                    task_id: Some(*id),
                    attempts: Some(*attempts),
                    error: Some(error),
                    failed_at: *failed_at,
                }),
                key: Some(key.into_bytes()),
            }
        }
    }
}

/// A dead letter as somebody who reads the topic sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadDeadLetter {
    /// Why it is there.
    pub reason: String,
    /// The topic of the record in question.
    pub topic: String,
    /// Its partition; `None` for a failed task.
    pub partition: Option<i32>,
    /// Its offset; `None` for a failed task.
    pub offset: Option<i64>,
    /// Its key, decoded.
    pub key: Option<Vec<u8>>,
    /// Its value, decoded.
    pub value: Option<Vec<u8>>,
    /// The failed task.
    pub task_id: Option<TaskId>,
    /// Attempts that ended, of a failed task.
    pub attempts: Option<u32>,
    /// The last error of a failed task.
    pub error: Option<String>,
    /// When it was found, or when the task failed.
    pub failed_at: Timestamp,
}

/// Reads a record of `tasks-dead-letter`.
///
/// # Errors
/// [`Unreadable`] naming every field that is missing or wrong.
pub fn decode_dead_letter(value: &[u8]) -> Result<ReadDeadLetter, Unreadable> {
    let mut fields = Fields::read(value)?;
    let reason = fields.text("reason");
    let topic = fields.text("topic");
    let partition = fields.optional_integer("partition").and_then(|number| {
        let small = i32::try_from(number).ok();
        if small.is_none() {
            fields.fault("partition must be a 32-bit integer");
        }
        small
    });
    let offset = fields.optional_integer("offset");
    let in_base64 = |encoding: Option<String>, fields: &mut Fields, name| match encoding.as_deref()
    {
        Some(BASE64) => true,
        Some(UTF8) | None => false,
        Some(_) => {
            fields.fault(format!("{name} must be utf8 or base64"));
            false
        }
    };
    let key_encoding = fields.optional_text("keyEncoding");
    let key_in_base64 = in_base64(key_encoding, &mut fields, "keyEncoding");
    let value_encoding = fields.text("valueEncoding");
    let value_in_base64 = in_base64(value_encoding, &mut fields, "valueEncoding");
    let key = fields.optional_bytes("key", key_in_base64);
    let content = fields.optional_bytes("value", value_in_base64);
    let task_id = if fields.holds("taskId") {
        fields.task_id()
    } else {
        None
    };
    let attempts = fields.optional_integer("attempts").and_then(|number| {
        let small = u32::try_from(number).ok();
        if small.is_none() {
            fields.fault("attempts must be a 32-bit unsigned integer");
        }
        small
    });
    let error = fields.optional_text("error");
    let failed_at = fields.text("failedAt").and_then(|text| {
        let time = Timestamp::parse_rfc3339(&text);
        if time.is_none() {
            fields.fault("failedAt must be an RFC 3339 time");
        }
        time
    });
    match (reason, topic, failed_at) {
        (Some(reason), Some(topic), Some(failed_at)) if fields.faults.is_empty() => {
            Ok(ReadDeadLetter {
                reason,
                topic,
                partition,
                offset,
                key,
                value: content,
                task_id,
                attempts,
                error,
                failed_at,
            })
        }
        _ => Err(fields.into_error()),
    }
}

#[derive(Serialize)]
struct EventShape {
    #[serde(rename = "taskId", serialize_with = "displayed")]
    task_id: TaskId,
    status: &'static str,
    revision: i64,
    #[serde(serialize_with = "displayed")]
    at: Timestamp,
}

#[derive(Serialize)]
struct MessageShape<'a> {
    #[serde(rename = "taskId", serialize_with = "displayed")]
    task_id: TaskId,
    payload: &'a str,
    priority: u8,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "displayed_option"
    )]
    traceparent: Option<&'a TraceContext>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<&'a str>,
}

#[derive(Serialize)]
struct ResultShape<'a> {
    #[serde(rename = "taskId", serialize_with = "displayed")]
    task_id: TaskId,
    result: &'a str,
    #[serde(rename = "processedAt", serialize_with = "displayed")]
    processed_at: Timestamp,
}

#[derive(Serialize)]
struct DeadLetterShape<'a> {
    reason: &'a str,
    topic: &'a str,
    partition: Option<i32>,
    offset: Option<i64>,
    key: Option<Cow<'a, str>>,
    #[serde(rename = "keyEncoding", skip_serializing_if = "Option::is_none")]
    key_encoding: Option<&'static str>,
    value: Option<Cow<'a, str>>,
    #[serde(rename = "valueEncoding")]
    value_encoding: &'static str,
    #[serde(
        rename = "taskId",
        skip_serializing_if = "Option::is_none",
        serialize_with = "displayed_option"
    )]
    task_id: Option<TaskId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(rename = "failedAt", serialize_with = "displayed")]
    failed_at: Timestamp,
}

fn displayed<T: fmt::Display, S: serde::Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn displayed_option<T: fmt::Display, S: serde::Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

/// The shapes above hold strings and numbers only: nothing in them can fail to become JSON.
fn to_bytes<T: Serialize>(shape: &T) -> Vec<u8> {
    serde_json::to_vec(shape).unwrap_or_default()
}

const UTF8: &str = "utf8";
const BASE64: &str = "base64";

/// Bytes as JSON can hold them, and how.
fn as_text(bytes: Option<&[u8]>) -> (Option<Cow<'_, str>>, &'static str) {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => (None, UTF8),
        Some(Ok(text)) => (Some(Cow::Borrowed(text)), UTF8),
        Some(Err(bytes)) => (Some(Cow::Owned(STANDARD.encode(bytes))), BASE64),
    }
}

struct Message<'a> {
    id: TaskId,
    payload: Cow<'a, str>,
    priority: Priority,
    trace: Option<TraceContext>,
}

fn read_message(value: &[u8]) -> Result<Message<'_>, Unreadable> {
    #[derive(Deserialize)]
    struct Exact<'a> {
        #[serde(rename = "taskId", borrow)]
        task_id: Cow<'a, str>,
        #[serde(borrow)]
        payload: Cow<'a, str>,
        priority: u8,
        #[serde(borrow, default)]
        traceparent: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        tracestate: Option<Cow<'a, str>>,
    }
    // Nearly every record is exactly right; only the others pay for a list of what is wrong.
    if let Ok(exact) = serde_json::from_slice::<Exact<'_>>(value)
        && let Ok(id) = exact.task_id.parse()
        && !exact.payload.contains('\0')
        && let Ok(priority) = Priority::new(i64::from(exact.priority))
    {
        let trace = exact
            .traceparent
            .and_then(|parent| decode_trace(&parent, exact.tracestate.as_deref()));
        return Ok(Message {
            id,
            payload: exact.payload,
            priority,
            trace,
        });
    }
    let mut fields = Fields::read(value)?;
    let id = fields.task_id();
    let payload = fields.text("payload").and_then(|text| {
        Payload::new(text)
            .inspect_err(|error| fields.fault(format!("payload {error}")))
            .ok()
    });
    let priority = fields.priority();
    let trace = fields.trace();
    match (id, payload, priority) {
        (Some(id), Some(payload), Some(priority)) if fields.faults.is_empty() => Ok(Message {
            id,
            payload: Cow::Owned(payload.into_string()),
            priority,
            trace,
        }),
        _ => Err(fields.into_error()),
    }
}

/// The fields of a JSON object, taken out one by one, and what was wrong with them.
struct Fields {
    object: Map<String, Value>,
    faults: Vec<Cow<'static, str>>,
}

impl Fields {
    fn read(value: &[u8]) -> Result<Self, Unreadable> {
        match serde_json::from_slice::<Value>(value) {
            Ok(Value::Object(object)) => Ok(Self {
                object,
                faults: Vec::new(),
            }),
            Ok(_) => Err(Unreadable("not a JSON object".into())),
            Err(error) => Err(Unreadable(format!("not JSON: {error}"))),
        }
    }

    fn fault(&mut self, text: impl Into<Cow<'static, str>>) {
        self.faults.push(text.into());
    }

    fn into_error(self) -> Unreadable {
        Unreadable(self.faults.join("; "))
    }

    fn holds(&self, name: &str) -> bool {
        self.object.get(name).is_some_and(|value| !value.is_null())
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        match self.object.remove(name) {
            Some(Value::String(text)) => Some(text),
            Some(_) => {
                self.fault(format!("{name} must be a string"));
                None
            }
            None => {
                self.fault(format!("{name} is missing"));
                None
            }
        }
    }

    fn optional_text(&mut self, name: &'static str) -> Option<String> {
        if self.holds(name) {
            self.text(name)
        } else {
            None
        }
    }

    fn optional_bytes(&mut self, name: &'static str, base64: bool) -> Option<Vec<u8>> {
        let text = self.optional_text(name)?;
        if !base64 {
            return Some(text.into_bytes());
        }
        let bytes = STANDARD.decode(text).ok();
        if bytes.is_none() {
            self.fault(format!("{name} must be base64"));
        }
        bytes
    }

    fn optional_integer(&mut self, name: &'static str) -> Option<i64> {
        if !self.holds(name) {
            return None;
        }
        let number = self.object.remove(name).as_ref().and_then(whole_number);
        if number.is_none() {
            self.fault(format!("{name} must be an integer"));
        }
        number
    }

    fn task_id(&mut self) -> Option<TaskId> {
        let text = self.text("taskId")?;
        let id = text.parse().ok();
        if id.is_none() {
            self.fault("taskId must be a UUID");
        }
        id
    }

    /// Notes a fault unless the field is an integer, of whatever size.
    fn any_integer(&mut self, name: &'static str) {
        match self.object.remove(name) {
            None => self.fault(format!("{name} is missing")),
            Some(Value::Number(number)) if is_whole(&number) => {}
            Some(_) => self.fault(format!("{name} must be an integer")),
        }
    }

    /// Whatever is wrong with a trace is no fault of the message.
    fn trace(&mut self) -> Option<TraceContext> {
        let parent = self.object.remove(TRACEPARENT)?;
        let state = self.object.remove(TRACESTATE);
        decode_trace(parent.as_str()?, state.as_ref().and_then(Value::as_str))
    }

    fn priority(&mut self) -> Option<Priority> {
        let Some(value) = self.object.remove("priority") else {
            self.fault("priority is missing");
            return None;
        };
        let priority = whole_number(&value).and_then(|number| Priority::new(number).ok());
        if priority.is_none() {
            self.fault("priority must be an integer from 0 to 10");
        }
        priority
    }
}

fn is_whole(number: &serde_json::Number) -> bool {
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|float| float.fract() == 0.0)
}

/// JSON has one kind of number: `1.0` is the integer 1.
fn whole_number(value: &Value) -> Option<i64> {
    if let Some(number) = value.as_i64() {
        return Some(number);
    }
    let float = value.as_f64()?;
    // Doubles hold every integer up to 2^53 exactly; nothing here is larger.
    let whole = float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be whole and in range"
    )]
    whole.then_some(float as i64)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
