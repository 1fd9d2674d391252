//! What every answer tells a browser, so that nothing is made of it that it is not.

use poem::http::{HeaderMap, HeaderValue, header};

const AS_DECLARED: HeaderValue = HeaderValue::from_static("nosniff");

/// A path holds the id of a task, which is nobody else's business.
const NO_REFERRER: HeaderValue = HeaderValue::from_static("no-referrer");

/// For 30 days: long enough for whoever comes now and then, and short enough to find back from a TLS that was a mistake.
const TLS_ALONE: HeaderValue = HeaderValue::from_static("max-age=2592000");

/// The same fields as lines, for answers that are made before there is a request.
pub(crate) const LINES: &str = "x-content-type-options: nosniff\r\nreferrer-policy: no-referrer";

/// What is put on every answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Protection {
    /// Whether the listener speaks TLS, and nothing else.
    pub(crate) tls: bool,
}

impl Protection {
    pub(crate) fn put_on(self, headers: &mut HeaderMap) {
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, AS_DECLARED);
        headers.insert(header::REFERRER_POLICY, NO_REFERRER);
        if self.tls {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, TLS_ALONE);
        }
    }
}
