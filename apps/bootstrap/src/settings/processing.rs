//! What processes a task.

use std::time::Duration;

use adapters::http_processor::{HttpProcessorOptions, Limits, SigningSecret};
use domain::WorkerConfig;
use url::Url;

use super::Reader;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// What turns a payload into a result. `Debug` shows no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessingSettings {
    /// The function of this program: the text reversed.
    Reverse,
    /// A service behind a URL.
    Http(HttpProcessorOptions),
}

impl ProcessingSettings {
    /// Declares and reads them. A worker that has its tasks processed elsewhere takes no more than may be called at once.
    pub(super) fn read(reader: &mut Reader, work: &mut WorkerConfig) -> Self {
        reader.section("Processing");
        let is_http = reader.choice(
            "PROCESSOR",
            false,
            &[("reverse", false), ("http", true)],
            "what is done with a payload: its text is reversed, or a service is asked over HTTP (docs/PROCESSOR-HTTP.md)",
        );
        let url = reader.optional_secret(
            "PROCESSOR_URL",
            "",
            "http:// or https://host:port/path",
            "with PROCESSOR=http: where each task is posted",
            address,
        );
        let secrets = reader.optional_secret(
            "PROCESSOR_SECRET",
            "",
            "whsec_ and base64, never shown; several are separated by commas",
            "with PROCESSOR=http: what requests are signed with; with several, by each, so that one can replace another",
            secrets,
        );
        let limits = read_limits(reader, work.max_result_bytes);
        for (name, is_read) in [
            ("PROCESSOR_URL", url.is_some()),
            ("PROCESSOR_SECRET", secrets.is_some()),
        ] {
            if is_http && !is_read && !reader.is_set(name) {
                reader.mistake(name, "must be set when PROCESSOR is http");
            }
            if !is_http && is_read {
                reader.mistake(name, "is for PROCESSOR=http");
            }
        }
        match (url, secrets) {
            (Some(url), Some(secrets)) if is_http => {
                work.concurrency = work.concurrency.min(limits.concurrency);
                Self::Http(HttpProcessorOptions {
                    url,
                    secrets,
                    limits,
                })
            }
            _ => Self::Reverse,
        }
    }
}

fn read_limits(reader: &mut Reader, max_result_bytes: usize) -> Limits {
    let default = Limits::default();
    Limits {
        max_result_bytes,
        timeout: reader.duration(
            "PROCESSOR_TIMEOUT",
            default.timeout,
            MILLISECOND * 10..=SECOND * 3_600,
            "how long one call may take, its answer included, before it counts as failed; in place of TASK_TIMEOUT",
        ),
        concurrency: reader.number(
            "PROCESSOR_CONCURRENCY",
            default.concurrency,
            1..=100_000,
            "calls",
            "how many calls at once; in place of CONCURRENCY where that is more",
        ),
        circuit_failures: reader.number(
            "PROCESSOR_CIRCUIT_FAILURES",
            default.circuit_failures,
            1..=10_000,
            "calls",
            "after how many calls in a row that found the service failing it is taken to be down",
        ),
        circuit_pause: reader.duration(
            "PROCESSOR_CIRCUIT_PAUSE",
            default.circuit_pause,
            MILLISECOND * 10..=SECOND * 3_600,
            "how long a service that is down is left alone before one call tries it",
        ),
    }
}

fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(format!(
            "must begin with http:// or https:// but begins with {other}:"
        )),
    }
}

fn secrets(text: &str) -> Result<Vec<SigningSecret>, String> {
    text.split(',')
        .map(|secret| secret.trim().parse())
        .collect::<Result<_, _>>()
        .map_err(|wrong: adapters::http_processor::InvalidSecret| wrong.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn read(pairs: &[(&str, &str)]) -> Result<(ProcessingSettings, WorkerConfig), Vec<String>> {
        let mut reader = Reader::new(Source::of_pairs(pairs));
        let mut work = WorkerConfig::default();
        let read = ProcessingSettings::read(&mut reader, &mut work);
        let read = reader.finish((read, work));
        read.map_err(|mistakes| mistakes.0.into_iter().map(|wrong| wrong.name).collect())
    }

    #[test]
    fn a_service_needs_an_address_and_a_secret() {
        let (processing, work) = read(&[]).expect("the default");
        assert_eq!(processing, ProcessingSettings::Reverse);
        assert_eq!(work, WorkerConfig::default());
        let both = vec!["PROCESSOR_URL".to_owned(), "PROCESSOR_SECRET".to_owned()];
        assert_eq!(read(&[("PROCESSOR", "http")]), Err(both.clone()));
        let address = (
            "PROCESSOR_URL",
            "https://me:s3cret@mill:8080/grind?key=s3cret",
        );
        assert_eq!(read(&[address, ("PROCESSOR_SECRET", SECRET)]), Err(both));
        let two = format!("{SECRET}, {SECRET}");
        let pairs = [("PROCESSOR", "http"), address, ("PROCESSOR_SECRET", &two)];
        let (processing, work) = read(&pairs).expect("all right");
        let ProcessingSettings::Http(options) = &processing else {
            panic!("{processing:?}");
        };
        assert_eq!(options.secrets.len(), 2);
        assert_eq!(work.concurrency, options.limits.concurrency);
        assert_eq!(options.limits.max_result_bytes, work.max_result_bytes);
        let shown = format!("{processing:?}");
        for secret in ["s3cret", "MfKQ"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn wrong_values_are_told_once_and_not_shown() {
        for (name, value) in [
            ("PROCESSOR_URL", "ftp://mill/"),
            ("PROCESSOR_URL", "mill"),
            ("PROCESSOR_SECRET", "hunter2"),
            ("PROCESSOR_SECRET", "whsec_aHVudGVyMg=="),
        ] {
            let url = ("PROCESSOR_URL", "http://mill/");
            let mut pairs = vec![("PROCESSOR", "http"), url, ("PROCESSOR_SECRET", SECRET)];
            pairs.retain(|(declared, _)| *declared != name);
            pairs.push((name, value));
            assert_eq!(read(&pairs), Err(vec![name.to_owned()]), "{value}");
        }
    }
}
