//! Pages of other origins: what a browser lets them ask and read (CORS, as the Fetch standard has it).
//!
//! The framework's own middleware refuses every request that names another origin, Swagger UI's on this very port among them,
//! and puts its `Vary` in the place of ours; so this is not it.

use std::collections::HashSet;

use poem::Response;
use poem::http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::vary;

/// Stands for every origin.
const ANY: &str = "*";

/// What a request may carry beside the fields that every page may send. `*` would not do: it leaves out `Authorization`.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, if-none-match, last-event-id, traceparent, tracestate",
);

/// What a page may read of an answer beside the fields that every page may read.
const ANSWER_HEADERS: HeaderValue = HeaderValue::from_static(
    "allow, etag, link, location, ratelimit, ratelimit-policy, retry-after, traceresponse, www-authenticate",
);

/// For how many seconds a browser need not ask again; the longest that all of them keep to.
const KEPT_SECONDS: HeaderValue = HeaderValue::from_static("7200");

/// Which pages of other origins may ask and read.
pub(crate) struct CrossOrigin {
    origins: Origins,
    methods: HeaderValue,
}

enum Origins {
    Any,
    These(HashSet<HeaderValue>),
}

impl CrossOrigin {
    /// `None` where no origin is allowed: then nothing is said of it.
    pub(crate) fn new(allowed: &[String], methods: HeaderValue) -> Option<Self> {
        if allowed.is_empty() {
            return None;
        }
        let origins = if allowed.iter().any(|origin| origin == ANY) {
            Origins::Any
        } else {
            // What cannot stand in a header comes in none.
            let values = allowed.iter().filter_map(|origin| origin.parse().ok());
            Origins::These(values.collect())
        };
        Some(Self { origins, methods })
    }

    /// The origin that the answer to this request names. No other reads it: a browser sees to that, so it is answered all the same.
    pub(crate) fn of(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        match &self.origins {
            Origins::Any => Some(HeaderValue::from_static(ANY)),
            Origins::These(these) => {
                let origin = headers.get(header::ORIGIN)?;
                these.contains(origin).then(|| origin.clone())
            }
        }
    }

    /// The answer to a browser that asks, before it sends a request, whether it may. It has no key yet, and needs none.
    pub(crate) fn permit(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        let is_asked = method == Method::OPTIONS
            && headers.contains_key(header::ORIGIN)
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !is_asked {
            return None;
        }
        let origin = self.of(headers)?;
        let mut response = Response::from(StatusCode::NO_CONTENT);
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, KEPT_SECONDS);
        self.name(Some(origin), headers);
        Some(response)
    }

    /// Says on an answer who may read it.
    pub(crate) fn tell(&self, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        if origin.is_some() {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, ANSWER_HEADERS);
        }
        self.name(origin, headers);
    }

    fn name(&self, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        if let Some(origin) = origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
        // Whoever keeps the answer for one origin, or for none, must not give it to another.
        if matches!(self.origins, Origins::These(_)) {
            vary::on(headers, "Origin");
        }
    }
}
