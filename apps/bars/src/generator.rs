//! The load generator, as a process of its own.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use task_processor_bench::load::Report;

use crate::failure::Failure;
use crate::process::Process;

/// What is sent. A measurement warms up for a fifth of its length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// As the generator's `--scenario`.
    pub(crate) scenario: &'static str,
    pub(crate) port: u16,
    pub(crate) connections: u32,
    /// Requests a second in open loop; none is as fast as the connections carry.
    pub(crate) rate: Option<f64>,
    pub(crate) duration: Duration,
}

impl Load {
    pub(crate) const fn closed(
        scenario: &'static str,
        port: u16,
        connections: u32,
        duration: Duration,
    ) -> Self {
        Self {
            scenario,
            port,
            connections,
            rate: None,
            duration,
        }
    }

    pub(crate) async fn send(&self, binaries: &Path, directory: &Path) -> Result<Report, Failure> {
        let out = directory.join("load.json");
        let seconds = |time: Duration| format!("{}s", time.as_secs_f64());
        let mut arguments: Vec<String> = [
            ("--url", format!("http://127.0.0.1:{}", self.port)),
            ("--scenario", self.scenario.to_owned()),
            ("--connections", self.connections.to_string()),
            ("--duration", seconds(self.duration)),
            ("--warmup", seconds(self.duration / 5)),
            ("--poll", "1ms".to_owned()),
            ("--patience", "60s".to_owned()),
            ("--json", out.display().to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect();
        arguments.push("--quiet".to_owned());
        if let Some(rate) = self.rate {
            arguments.extend(["--rate".to_owned(), rate.to_string()]);
        }
        if out.exists() {
            std::fs::remove_file(&out)?;
        }
        let program = binaries.join("task-processor-bench");
        let process = Process::start("load", &program, &arguments, &[], directory)?;
        // It ends with 1 when a request failed; how many did is in its report.
        let status = process.end().await?;
        let text = std::fs::read_to_string(&out).map_err(|error| {
            format!("the load generator ended with {status} and without a report: {error}")
        })?;
        let mut document: Value = serde_json::from_str(&text)?;
        Ok(serde_json::from_value(document["report"].take())?)
    }
}
