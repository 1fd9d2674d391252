//! What is logged.

use tracing_subscriber::EnvFilter;

use super::Reader;

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// How a line looks.
    pub format: LogFormat,
    /// Directives of `tracing-subscriber`'s `EnvFilter`.
    pub filter: String,
}

impl LogSettings {
    pub(super) fn read(reader: &mut Reader) -> Self {
        reader.section("Log");
        let format = reader.choice(
            "LOG_FORMAT",
            LogFormat::Pretty,
            &[("pretty", LogFormat::Pretty), ("json", LogFormat::Json)],
            "how a line on standard error looks",
        );
        let level = reader.choice(
            "LOG_LEVEL",
            "info",
            &[
                ("error", "error"),
                ("warn", "warn"),
                ("info", "info"),
                ("debug", "debug"),
                ("trace", "trace"),
            ],
            "how much of our own is logged; libraries log warnings and errors",
        );
        // While a broker is down librdkafka warns many times a second; whoever is hurt reports it, at its own pace.
        let libraries = match level {
            "error" => "error",
            "warn" | "info" => "warn,librdkafka=error",
            _ => "warn",
        };
        let directives = reader.text(
            "RUST_LOG",
            "",
            "directives like info,task_processor=debug",
            "wins over LOG_LEVEL and chooses by module",
            |text| {
                // Its parser panics within a letter of several bytes.
                if !text.is_ascii() {
                    return Err("must be log directives, in ASCII alone".to_owned());
                }
                match EnvFilter::builder().parse(text) {
                    Ok(_) => Ok(()),
                    Err(error) => Err(format!("must be log directives ({error})")),
                }
            },
        );
        let filter = if directives.is_empty() {
            format!("{libraries},task_processor={level}")
        } else {
            directives
        };
        Self { format, filter }
    }
}
