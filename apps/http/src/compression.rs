//! Packing answers for whoever takes them packed (gzip), where it pays.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body as _, Bytes};
use poem::http::{HeaderValue, header};
use poem::{Body, Response};

use crate::vary;

/// From how many bytes on it pays: less fits in a packet or two as it is.
const LEAST: u64 = 1_024;

/// Up to how many bytes are packed where they are; with more, others would wait for this thread.
const AT_ONCE: usize = 64 * 1_024;

const GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// Whether the answer is long enough, whole (a stream is not), and text that is not packed yet. Nothing of a shorter one is touched.
pub(crate) fn pays(response: &mut Response) -> bool {
    let headers = response.headers();
    let is_text = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(is_text);
    if !is_text || headers.contains_key(header::CONTENT_ENCODING) {
        return false;
    }
    let body: BoxBody<Bytes, io::Error> = response.take_body().into();
    let length = body.size_hint().exact();
    response.set_body(Body::from(body));
    length.is_some_and(|length| length >= LEAST)
}

/// Json, problems and the texts of metrics; the page of the documentation brings its own packed form.
fn is_text(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    matches!(
        kind,
        "application/json"
            | "application/problem+json"
            | "application/openmetrics-text"
            | "text/plain"
    )
}

/// The same answer, packed if the client takes it so. An answer that is the same only in what it means has a weak tag.
pub(crate) async fn pack(mut response: Response, takes_gzip: bool) -> Response {
    vary::on(response.headers_mut(), "Accept-Encoding");
    if !takes_gzip {
        return response;
    }
    // It is in memory, so there is nothing to wait for.
    let Ok(plain) = response.take_body().into_bytes().await else {
        return response;
    };
    let packed = if plain.len() <= AT_ONCE {
        gzip(&plain)
    } else {
        let copy = plain.clone();
        let packed = tokio::task::spawn_blocking(move || gzip(&copy));
        packed.await.unwrap_or_default()
    };
    if packed.is_empty() || packed.len() >= plain.len() {
        response.set_body(plain);
        return response;
    }
    response.set_body(packed);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, GZIP);
    if let Some(tag) = headers.get(header::ETAG).and_then(weak) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// The quickest level: of JSON it leaves little more than the others, for a fraction of their time.
fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 2), Compression::fast());
    // Writing into memory cannot fail.
    let packed = encoder.write_all(plain).and_then(|()| encoder.finish());
    packed.unwrap_or_default()
}

fn weak(tag: &HeaderValue) -> Option<HeaderValue> {
    let tag = tag.to_str().ok().filter(|tag| !tag.starts_with("W/"))?;
    HeaderValue::try_from(format!("W/{tag}")).ok()
}
