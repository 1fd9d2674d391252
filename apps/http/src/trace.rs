//! The trace of a request: read from its headers, given to whoever answers it, named in the answer and in the log.

use std::sync::Arc;
use std::time::Instant;

use domain::ports::{Event, Observer, Span, TraceContext, Work};
use poem::http::{HeaderMap, HeaderValue, Method};
use poem::{Endpoint, PathPattern, Request, Response};
use tracing::Instrument as _;

/// Stands before everything else of the API.
pub(crate) struct Traced<E> {
    inner: E,
    observer: Arc<dyn Observer>,
}

impl<E> Traced<E> {
    pub(crate) fn new(inner: E, observer: Arc<dyn Observer>) -> Self {
        Self { inner, observer }
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for Traced<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let parent = context_of(request.headers());
        // Whoever looks every few seconds begins no traces, nor a browser that asks first what it may.
        let is_asked = request.method() != Method::OPTIONS && !is_probe(request.uri().path());
        let is_traced = parent.is_some() || is_asked;
        let span = is_traced
            .then(|| self.observer.begin_span(parent.clone()))
            .flatten();
        let Some(context) = span.clone().or_else(|| parent.clone()) else {
            return self.inner.call(request).await;
        };
        let started = Instant::now();
        let method = request.method().to_string();
        let path = request.uri().path().to_owned();
        request.set_data(context.clone());
        let logged = tracing::info_span!(
            "request",
            trace_id = %context.trace_id(),
            // Said when it is known.
            api_key = tracing::field::Empty
        );
        let mut response = self.inner.call(request).instrument(logged).await?;
        let Some(context) = span else {
            return Ok(response);
        };
        if context.is_sampled() {
            let status = response.status();
            let route = response.data::<PathPattern>();
            self.observer.observe(&Event::Traced(Span {
                context: context.clone(),
                parent,
                work: Work::Request {
                    method,
                    path,
                    route: route.map(|pattern| pattern.0.to_string()),
                    status: status.as_u16(),
                },
                took: started.elapsed(),
                error: status.is_server_error().then(|| status.to_string()),
            }));
            // For whoever counts how long it took.
            response.set_data(context.clone());
        }
        // Hexadecimal digits and dashes are valid in a header.
        if let Ok(value) = HeaderValue::try_from(context.traceparent()) {
            response.headers_mut().insert("traceresponse", value);
        }
        Ok(response)
    }
}

/// Whether somebody only looks how the service is.
pub(crate) fn is_probe(path: &str) -> bool {
    path == "/metrics" || path.starts_with("/health/")
}

/// What the client says of its trace; rubbish, and more than one `traceparent`, is nothing.
fn context_of(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all("traceparent").iter();
    let parent = parents.next().filter(|_| parents.next().is_none())?;
    let context = TraceContext::parse(parent.to_str().ok()?)?;
    let states: Vec<&str> = headers
        .get_all("tracestate")
        .iter()
        .filter_map(|state| state.to_str().ok())
        .collect();
    Some(context.with_state(&states.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_traceparents() {
        const PARENTS: &[&[u8]] = &[
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            b"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-will-be-like",
        ];
        const STATES: &[&[u8]] = &[b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", b""];
        let both = (fuzz::bytes(PARENTS), fuzz::bytes(STATES));
        fuzz::run("traceparent", &both, |(parent, state)| {
            let mut headers = HeaderMap::new();
            for (name, value) in [("traceparent", parent), ("tracestate", state)] {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.insert(name, value);
                }
            }
            let Some(context) = context_of(&headers) else {
                return Ok(());
            };
            let state = context.tracestate().unwrap_or_default().to_owned();
            proptest::prop_assert!(state.len() <= 512 && !state.contains(char::is_control));
            let again = TraceContext::parse(&context.traceparent());
            let again = again.map(|again| again.with_state(&state));
            proptest::prop_assert_eq!(again, Some(context));
            Ok(())
        });
    }
}
