//! Where traces go. The names are those of OpenTelemetry.

use std::time::Duration;

use adapters::otlp::{OtlpOptions, Sampling, Share};
use percent_encoding::percent_decode_str;
use url::Url;

use super::Reader;

/// The samplers by their standard names.
const SAMPLERS: [(&str, Sampler); 6] = [
    ("parentbased_always_on", Sampler::new(true, Kept::All)),
    ("parentbased_always_off", Sampler::new(true, Kept::None)),
    ("parentbased_traceidratio", Sampler::new(true, Kept::Share)),
    ("always_on", Sampler::new(false, Kept::All)),
    ("always_off", Sampler::new(false, Kept::None)),
    ("traceidratio", Sampler::new(false, Kept::Share)),
];

#[derive(Clone, Copy, PartialEq)]
struct Sampler {
    follows_parent: bool,
    kept: Kept,
}

/// Which of the traces that are for the sampler to decide.
#[derive(Clone, Copy, PartialEq)]
enum Kept {
    All,
    None,
    Share,
}

impl Sampler {
    const fn new(follows_parent: bool, kept: Kept) -> Self {
        Self {
            follows_parent,
            kept,
        }
    }
}

/// Where traces go; `None` is nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSettings(pub Option<OtlpOptions>);

impl TraceSettings {
    /// Declares and reads them for a program of this name.
    pub(super) fn read(reader: &mut Reader, program: &'static str) -> Self {
        reader.section("Traces");
        let endpoint = reader.optional_secret(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "",
            "http:// or https://host:port",
            "where traces are sent, /v1/traces is added; without it nothing is traced, and a traceparent is passed on",
            endpoint,
        );
        // There is no other choice.
        reader.choice(
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            true,
            &[("http/protobuf", true)],
            "how traces are sent",
        );
        let headers = reader.optional_secret(
            "OTEL_EXPORTER_OTLP_HEADERS",
            "",
            "name=value, separated by commas, values percent-encoded, never shown",
            "sent with every request to the collector",
            headers,
        );
        let timeout = reader.number(
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            10_000_u64,
            1..=600_000,
            "milliseconds",
            "how long the collector may take to answer; nobody else waits for it",
        );
        let service_name = reader.text(
            "OTEL_SERVICE_NAME",
            program,
            "text",
            "the name under which this program appears in traces",
            |_| Ok(()),
        );
        let sampler = reader.choice(
            "OTEL_TRACES_SAMPLER",
            SAMPLERS[0].1,
            &SAMPLERS,
            "which traces are kept; parentbased follows the decision that a traceparent brings",
        );
        let ratio = reader.text(
            "OTEL_TRACES_SAMPLER_ARG",
            "1",
            "number, 0 to 1",
            "with a sampler by traceidratio: the share that is kept of the traces it decides on",
            |text| share(text).map(drop),
        );
        Self(endpoint.map(|endpoint| OtlpOptions {
            endpoint,
            headers: headers.unwrap_or_default(),
            timeout: Duration::from_millis(timeout),
            service_name,
            sampling: Sampling {
                follows_parent: sampler.follows_parent,
                share: match sampler.kept {
                    Kept::All => Share::ALL,
                    Kept::None => Share::NONE,
                    // What was read was checked.
                    Kept::Share => share(&ratio).unwrap_or(Share::ALL),
                },
            },
        }))
    }
}

fn share(text: &str) -> Result<Share, String> {
    text.parse()
        .ok()
        .and_then(Share::of)
        .ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

fn endpoint(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must begin with http:// or https://".to_owned());
    }
    let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

fn headers(text: &str) -> Result<Vec<(String, String)>, String> {
    let header = |pair: &str| {
        let (name, value) = pair
            .split_once('=')
            .ok_or("must be name=value pairs, separated by commas")?;
        let name = name.trim();
        let value = percent_decode_str(value.trim()).decode_utf8_lossy();
        let is_name = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !is_name || !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err("must be names and values that HTTP allows in a header".to_owned());
        }
        Ok((name.to_owned(), value.into_owned()))
    };
    text.split(',')
        .filter(|pair| !pair.trim().is_empty())
        .map(header)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::*;

    const ENDPOINT: (&str, &str) = (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "https://collector:4318/s3cret/",
    );

    fn read(pairs: &[(&str, &str)]) -> Result<TraceSettings, Vec<String>> {
        let mut reader = Reader::new(Source::of_pairs(pairs));
        let read = TraceSettings::read(&mut reader, "task-processor");
        let read = reader.finish(read);
        read.map_err(|mistakes| mistakes.0.into_iter().map(|wrong| wrong.name).collect())
    }

    #[test]
    fn without_an_endpoint_nothing_is_traced() {
        assert_eq!(read(&[]), Ok(TraceSettings(None)));
        let sampler = ("OTEL_TRACES_SAMPLER", "always_on");
        assert_eq!(read(&[sampler]), Ok(TraceSettings(None)));
    }

    #[test]
    fn the_standard_names_are_read_and_secrets_not_shown() {
        let pairs = [
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=s3cret%3D, b=2,"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ];
        let Ok(TraceSettings(Some(options))) = read(&pairs) else {
            panic!("all right");
        };
        assert_eq!(
            options.endpoint.as_str(),
            "https://collector:4318/s3cret/v1/traces"
        );
        let headers = [("x-key", "s3cret="), ("b", "2")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(options.headers, headers);
        assert_eq!(options.service_name, "task-processor");
        let sampling = Sampling {
            follows_parent: true,
            share: Share::of(0.25).expect("from 0 to 1"),
        };
        assert_eq!(options.sampling, sampling);
        let shown = format!("{options:?}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn wrong_values_are_named() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=%0A"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=%FF"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=c"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_TRACES_SAMPLER_ARG", "NaN"),
        ] {
            assert_eq!(
                read(&[(name, value)]),
                Err(vec![name.to_owned()]),
                "{value}"
            );
        }
    }
}
