//! Reads that a client, or a cache on the way, may keep: `ETag`, `If-None-Match`, `Cache-Control`, `Vary`.

use poem::http::{HeaderValue, StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{
    MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchemaRef, Registry,
};
use sha2::{Digest as _, Sha256};

use crate::answer::{Found, JSON_DESCRIBED};
use crate::schema::{Shape, text};
use crate::vary;

/// What never changes again may be kept for a year, by the client alone: who may read it is another question.
const FINAL: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

/// What may change is kept only to be asked about.
const CHANGING: HeaderValue = HeaderValue::from_static("private, no-cache");

/// The same, for caches on the way too.
const ASK_FIRST: HeaderValue = HeaderValue::from_static("no-cache");

/// Another key may not be allowed to read the same task.
const VARY: HeaderValue = HeaderValue::from_static("Authorization");

/// Where the task is not sent it is not known whether it would have been packed.
const VARY_UNSENT: HeaderValue = HeaderValue::from_static("Authorization, Accept-Encoding");

/// A task as it was found, and what the client has of it.
pub(crate) struct Conditional {
    found: Found,
    if_none_match: Option<String>,
}

impl Conditional {
    pub(crate) const fn new(found: Found, if_none_match: Option<String>) -> Self {
        Self {
            found,
            if_none_match,
        }
    }
}

impl IntoResponse for Conditional {
    fn into_response(self) -> Response {
        let tag = self.found.tag();
        let lifetime = if self.found.is_final() {
            FINAL
        } else {
            CHANGING
        };
        let known = self.if_none_match.and_then(|tags| known(&tag, &tags));
        let (mut response, tag, vary) = match known {
            Some(tag) => (StatusCode::NOT_MODIFIED.into(), tag, VARY_UNSENT),
            None => (self.found.into_response(), tag, VARY),
        };
        let headers = response.headers_mut();
        // A status and a number are always a valid header value.
        if let Ok(tag) = HeaderValue::try_from(tag) {
            headers.insert(header::ETAG, tag);
        }
        headers.insert(header::CACHE_CONTROL, lifetime);
        headers.insert(header::VARY, vary);
        response
    }
}

/// The tag as the client has it, if it has it: a weak one of an answer that was packed. The weak comparison of RFC 9110, section
/// 8.8.3.2. Our tags hold no comma.
fn known(tag: &str, tags: &str) -> Option<String> {
    tags.split(',').map(str::trim).find_map(|known| {
        if known == "*" {
            return Some(tag.to_owned());
        }
        let is_it = known.strip_prefix("W/").unwrap_or(known) == tag;
        is_it.then(|| known.to_owned())
    })
}

fn header(name: &str, description: &'static str, example: &'static str) -> MetaHeader {
    MetaHeader {
        name: name.into(),
        description: Some(description.into()),
        required: true,
        deprecated: false,
        schema: MetaSchemaRef::Inline(Box::new(text(description, example))),
    }
}

/// This answer, or `304` with the same headers.
fn or_unchanged(answer: MetaResponse, unchanged: &'static str) -> MetaResponses {
    let headers = answer.headers.iter().map(|told| MetaHeader {
        name: told.name.clone(),
        description: told.description.clone(),
        required: told.required,
        deprecated: told.deprecated,
        schema: told.schema.clone(),
    });
    let unchanged = MetaResponse {
        description: unchanged,
        status: Some(304),
        status_range: None,
        content: Vec::new(),
        headers: headers.collect(),
    };
    MetaResponses {
        responses: vec![answer, unchanged],
    }
}

/// A text that is the same for whoever asks, until a program of another version answers.
pub(crate) struct Published {
    tag: String,
}

impl Published {
    pub(crate) fn of(text: &str) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(text));
        let number = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        Self {
            tag: format!("\"{number:016x}\""),
        }
    }

    /// The answer with its tag, a weak one if it is packed; an empty `304` to whoever has it.
    pub(crate) fn answer(
        &self,
        if_none_match: Option<&str>,
        is_packed: bool,
        answer: impl FnOnce() -> Response,
    ) -> Response {
        let weak = if is_packed { "W/" } else { "" };
        let (mut response, tag) = match if_none_match.and_then(|tags| known(&self.tag, tags)) {
            Some(tag) => (StatusCode::NOT_MODIFIED.into(), tag),
            None => (answer(), format!("{weak}{}", self.tag)),
        };
        let headers = response.headers_mut();
        // Digits are always a valid header value.
        if let Ok(tag) = HeaderValue::try_from(tag) {
            headers.insert(header::ETAG, tag);
        }
        headers.insert(header::CACHE_CONTROL, ASK_FIRST);
        vary::on(headers, "Accept-Encoding");
        response
    }

    /// As the OpenAPI document describes it.
    pub(crate) fn meta(description: &'static str, content: MetaMediaType) -> MetaResponses {
        let text = MetaResponse {
            description,
            status: Some(200),
            status_range: None,
            content: vec![content],
            headers: vec![
                header(
                    "ETag",
                    "Names this version of the text.",
                    "\"8d94e3cf1c5a2b70\"",
                ),
                header("Cache-Control", "Ask every time.", "no-cache"),
            ],
        };
        or_unchanged(text, "The client has this version already.")
    }
}

impl ApiResponse for Conditional {
    fn meta() -> MetaResponses {
        let found = MetaResponse {
            description: "The task.",
            status: Some(200),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: JSON_DESCRIBED,
                schema: Found::reference(),
            }],
            headers: vec![
                header("ETag", "Names this state of the task.", "\"done\""),
                header(
                    "Cache-Control",
                    "A year for what is done or cancelled; otherwise ask every time.",
                    "private, max-age=31536000, immutable",
                ),
            ],
        };
        or_unchanged(found, "The client has this state of the task already.")
    }

    fn register(registry: &mut Registry) {
        <Found as Shape>::register(registry);
    }
}

#[cfg(test)]
mod tests {
    use super::known;

    fn is_among(tag: &str, tags: &str) -> bool {
        known(tag, tags).is_some()
    }

    #[test]
    fn fuzz_if_none_match() {
        const TAGS: &[&[u8]] = &[b"\"done\"", b"W/\"done\", \"pending-3\"", b"*"];
        fuzz::run("If-None-Match", &fuzz::text(TAGS), |tags| {
            // Only who names the tag, or all of them, is told that nothing changed.
            let named = tags.contains("\"done\"") || tags.contains('*');
            proptest::prop_assert!(named || !is_among("\"done\"", &tags));
            Ok(())
        });
    }

    #[test]
    fn tags_are_compared_weakly_one_by_one() {
        for matching in [
            "\"done\"",
            "W/\"done\"",
            "*",
            "\"a\", \"done\"",
            " W/\"b\",W/\"done\" ",
        ] {
            assert!(is_among("\"done\"", matching), "{matching}");
        }
        for other in ["", "done", "\"done", "\"Done\"", "\"done-2\"", "w/\"done\""] {
            assert!(!is_among("\"done\"", other), "{other}");
        }
    }
}
