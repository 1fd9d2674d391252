//! Content negotiation for `GET /metrics` and the compressed pages.

use poem::http::{HeaderMap, header};

/// A form in which `GET /metrics` can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricsFormat {
    /// The numbers of the contract. What a client gets that has no preference.
    Json,
    /// Prometheus text format 0.0.4.
    Prometheus,
    /// OpenMetrics text format 1.0.0.
    OpenMetrics,
}

impl MetricsFormat {
    /// In the order in which a tie is decided.
    const ALL: [Self; 3] = [Self::Json, Self::Prometheus, Self::OpenMetrics];

    /// The value of `Content-Type`.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    const fn media_type(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Json => ("application", "json", ""),
            Self::Prometheus => ("text", "plain", "0.0.4"),
            Self::OpenMetrics => ("application", "openmetrics-text", "1.0.0"),
        }
    }

    /// The form the client likes best. A client that accepts none of them gets JSON: an answer it did not ask for says
    /// more than a refusal.
    pub(crate) fn negotiate(headers: &HeaderMap) -> Self {
        let mut best = (0, Self::Json);
        for format in Self::ALL {
            let quality = quality(headers, format.media_type());
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }
}

/// Whether the client takes gzip.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let mut wildcard = false;
    for element in elements(headers, header::ACCEPT_ENCODING) {
        let (coding, parameters) = split(element);
        let accepted = weight(parameters) > 0;
        if coding.eq_ignore_ascii_case("gzip") {
            return accepted;
        }
        if coding == "*" {
            wildcard = accepted;
        }
    }
    wildcard
}

/// Whether the client asked for a stream of events by name, as browsers do for an `EventSource`. Whatever is not a stream ends that for
/// ever.
pub(crate) fn takes_events(headers: &HeaderMap) -> bool {
    elements(headers, header::ACCEPT).any(|element| {
        let (range, parameters) = split(element);
        range.eq_ignore_ascii_case("text/event-stream") && weight(parameters) > 0
    })
}

/// The weight in thousandths that the most specific matching element gives to a media type (RFC 9110, 12.5.1).
fn quality(headers: &HeaderMap, media_type: (&str, &str, &str)) -> u16 {
    let mut best = (0, 0);
    for element in elements(headers, header::ACCEPT) {
        let (range, parameters) = split(element);
        if let Some(specificity) = specificity(range, parameters, media_type) {
            best = best.max((specificity, weight(parameters)));
        }
    }
    best.1
}

fn specificity(
    range: &str,
    parameters: &str,
    (kind, subtype, version): (&str, &str, &str),
) -> Option<u8> {
    if range == "*/*" {
        return Some(1);
    }
    let (range_kind, range_subtype) = range.split_once('/')?;
    if !range_kind.eq_ignore_ascii_case(kind) {
        return None;
    }
    if range_subtype == "*" {
        return Some(2);
    }
    if !range_subtype.eq_ignore_ascii_case(subtype) {
        return None;
    }
    match parameter(parameters, "version") {
        None => Some(3),
        Some(wanted) if wanted == version => Some(4),
        Some(_) => None,
    }
}

fn elements(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
}

/// The part before the first `;` and the parameters after it.
fn split(element: &str) -> (&str, &str) {
    let (head, parameters) = element.split_once(';').unwrap_or((element, ""));
    (head.trim(), parameters)
}

fn parameter<'a>(parameters: &'a str, wanted: &str) -> Option<&'a str> {
    parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case(wanted)
            .then(|| value.trim().trim_matches('"'))
    })
}

/// `q` in thousandths: 1000 when it is missing, 0 when it is no number.
fn weight(parameters: &str) -> u16 {
    let Some(text) = parameter(parameters, "q") else {
        return 1_000;
    };
    match text.parse::<f32>() {
        // The range keeps the cast exact.
        Ok(value) if (0.0..=1.0).contains(&value) => (value * 1_000.0).round() as u16,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), value.parse().expect("a header value"));
        }
        headers
    }

    fn check(accept: &[&str], expected: MetricsFormat) {
        let negotiated = MetricsFormat::negotiate(&headers(header::ACCEPT, accept));
        assert_eq!(negotiated, expected, "{accept:?}");
    }

    #[test]
    fn fuzz_accept() {
        const WANTED: &[&[u8]] = &[
            b"application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            b"application/json, text/*;q=0.3",
            b"gzip;q=0.5, deflate, *;q=0",
        ];
        fuzz::run("Accept", &fuzz::bytes(WANTED), |value| {
            let mut headers = HeaderMap::new();
            let Ok(value) = poem::http::HeaderValue::from_bytes(&value) else {
                return Ok(());
            };
            headers.insert(header::ACCEPT, value.clone());
            headers.insert(header::ACCEPT_ENCODING, value.clone());
            let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
            // Nobody gets what he did not name.
            let format = MetricsFormat::negotiate(&headers);
            let (kind, subtype, _) = format.media_type();
            let named = text.contains(&format!("{kind}/")) && text.contains(subtype);
            let any = text.contains("/*");
            proptest::prop_assert!(format == MetricsFormat::Json || named || any, "{format:?}");
            proptest::prop_assert!(
                !takes_gzip(&headers) || text.contains("gzip") || text.contains('*')
            );
            Ok(())
        });
    }

    #[test]
    fn clients_without_a_preference_get_json() {
        check(&[], MetricsFormat::Json);
        check(&["*/*"], MetricsFormat::Json);
        check(&["application/json, text/plain, */*"], MetricsFormat::Json);
        check(&["application/*"], MetricsFormat::Json);
        check(&["image/png"], MetricsFormat::Json);
        check(&["rubbish;;;=,,"], MetricsFormat::Json);
        check(
            &["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"],
            MetricsFormat::Json,
        );
    }

    #[test]
    fn a_scrape_gets_text() {
        // Prometheus 2.x.
        check(
            &[
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
               text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            ],
            MetricsFormat::OpenMetrics,
        );
        // Prometheus 3.x.
        check(
            &[
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
               application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
               text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            ],
            MetricsFormat::OpenMetrics,
        );
        check(
            &[
                "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            ],
            MetricsFormat::Prometheus,
        );
        check(&["text/plain"], MetricsFormat::Prometheus);
        check(
            &["TEXT/Plain; Version=\"0.0.4\""],
            MetricsFormat::Prometheus,
        );
        check(&["text/*"], MetricsFormat::Prometheus);
        check(
            &["text/plain;q=0.5", "application/json;q=0.4"],
            MetricsFormat::Prometheus,
        );
    }

    #[test]
    fn weights_decide_and_zero_refuses() {
        check(
            &["application/json;q=0.9, text/plain"],
            MetricsFormat::Prometheus,
        );
        check(&["application/json;q=0, */*"], MetricsFormat::Prometheus);
        check(&["text/plain;q=7"], MetricsFormat::Json);
        check(
            &["*/*;q=0.9, application/json;q=0.1"],
            MetricsFormat::Prometheus,
        );
    }

    #[test]
    fn gzip_is_used_only_when_it_is_taken() {
        let check = |accept: &[&str], expected| {
            let headers = headers(header::ACCEPT_ENCODING, accept);
            assert_eq!(takes_gzip(&headers), expected, "{accept:?}");
        };
        check(&["gzip, deflate, br"], true);
        check(&["br", "GZIP;q=0.1"], true);
        check(&["*"], true);
        check(&[], false);
        check(&["identity"], false);
        check(&["gzip;q=0, *"], false);
    }
}
