//! What an answer that is no result means.

use std::time::{Duration, UNIX_EPOCH};

use ports::{CallOutcome, Failure, Timestamp};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use super::Failed;

/// How much of a refusal's body is kept with the task, in bytes.
const BEGINNING: usize = 1_024;

/// The beginning of a body. One that breaks off says no less than it said.
pub(super) async fn beginning(mut answer: Response) -> String {
    let mut body = Vec::new();
    while body.len() < BEGINNING {
        match answer.chunk().await {
            Ok(Some(piece)) => body.extend_from_slice(&piece),
            Ok(None) | Err(_) => break,
        }
    }
    body.truncate(BEGINNING);
    let text = String::from_utf8_lossy(&body);
    // A character that the cut went through is none.
    text.trim_end_matches(char::REPLACEMENT_CHARACTER)
        .trim()
        .to_owned()
}

/// What a status other than 2xx says of the task and of the service.
pub(super) fn refusal(
    status: StatusCode,
    headers: &HeaderMap,
    said: &str,
    now: Timestamp,
) -> Failed {
    let mut text = format!("the processing service answered {status}");
    if !said.is_empty() {
        text.push_str(": ");
        text.push_str(said);
    }
    let retryable = |text| match retry_after(headers, now) {
        Some(delay) => Failure::RetryableAfter(text, delay),
        None => Failure::Retryable(text),
    };
    match status.as_u16() {
        401 | 403 => Failed::of_the_task(Failure::Permanent(text)).being(CallOutcome::Refused),
        408 | 425 => Failed::of_the_task(retryable(text)),
        429 => Failed::of_the_task(retryable(text)).being(CallOutcome::Throttled),
        400..=499 => Failed::of_the_task(Failure::Permanent(text)),
        503 => Failed::of_the_service(retryable(text)),
        _ => Failed::of_the_service(Failure::Retryable(text)),
    }
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or the date of an HTTP message.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let since_epoch = date.duration_since(UNIX_EPOCH).ok()?;
    let micros = i64::try_from(since_epoch.as_micros()).ok()?;
    let ahead = Timestamp::from_micros(micros).micros_since(now);
    // A date that has passed asks for no wait.
    Some(Duration::from_micros(u64::try_from(ahead).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn fuzz_refusals() {
        const SAID: &[&[u8]] = &[
            b"120",
            b"Sun, 06 Nov 1994 08:49:37 GMT",
            b"Sunday, 06-Nov-94 08:49:37 GMT",
            b"Sun Nov  6 08:49:37 1994",
        ];
        let now = Timestamp::parse_rfc3339("1994-11-06T08:49:30Z").expect("a time");
        fuzz::run("refusals", &fuzz::bytes(SAID), |bytes| {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                headers.insert(RETRY_AFTER, value);
            }
            let text = String::from_utf8_lossy(&bytes);
            for status in [400, 429, 500, 503] {
                let status = StatusCode::from_u16(status).expect("a status");
                refusal(status, &headers, &text, now);
            }
            // No later than the calendar of HTTP goes, whatever the header says in seconds.
            if let Some(delay) = retry_after(&headers, now)
                && text.contains(':')
            {
                proptest::prop_assert!(delay < Duration::from_secs(10_000 * 366 * 86_400));
            }
            Ok(())
        });
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::parse_rfc3339("1994-11-06T08:49:30Z").expect("a time");
        for (text, expected) in [
            ("120", Some(Duration::from_secs(120))),
            (" 0 ", Some(Duration::ZERO)),
            (
                "Sun, 06 Nov 1994 08:49:37 GMT",
                Some(Duration::from_secs(7)),
            ),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(Duration::ZERO)),
            ("soon", None),
            ("-1", None),
            ("1.5", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            assert_eq!(retry_after(&headers, now), expected, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
