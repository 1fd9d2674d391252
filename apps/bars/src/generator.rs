//! The load generator, as a process of its own.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use task_processor_bench::load::Report;

use crate::failure::Failure;
use crate::process::Process;

/// Connections that one thread of the generator carries easily.
const CONNECTIONS_OF_A_THREAD: u32 = 128;

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    /// As the generator's `--scenario`.
    pub(crate) scenario: &'static str,
    pub(crate) port: u16,
    pub(crate) connections: u32,
    /// Requests a second in open loop; none is as fast as the connections carry.
    pub(crate) rate: Option<f64>,
    /// Before anything counts.
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    /// For answers, and for results, at the end.
    pub(crate) patience: Duration,
    /// The file of paths that `get` reads in turn.
    pub(crate) paths: Option<&'a Path>,
}

impl<'a> Load<'a> {
    /// As fast as it goes, after a warm-up of a fifth of the length.
    pub(crate) fn closed(
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
            warmup: duration / 5,
            duration,
            patience: Duration::from_secs(60),
            paths: None,
        }
    }

    /// The same for reading what the file names.
    pub(crate) fn reading(
        paths: &'a Path,
        port: u16,
        connections: u32,
        duration: Duration,
    ) -> Self {
        Self {
            paths: Some(paths),
            ..Self::closed("get", port, connections, duration)
        }
    }

    pub(crate) async fn send(&self, binaries: &Path, directory: &Path) -> Result<Report, Failure> {
        let out = directory.join("load.json");
        let threads = self.connections.div_ceil(CONNECTIONS_OF_A_THREAD);
        let seconds = |time: Duration| format!("{}s", time.as_secs_f64());
        let mut arguments: Vec<String> = [
            ("--url", format!("http://127.0.0.1:{}", self.port)),
            ("--scenario", self.scenario.to_owned()),
            ("--connections", self.connections.to_string()),
            ("--threads", threads.to_string()),
            ("--duration", seconds(self.duration)),
            ("--warmup", seconds(self.warmup)),
            ("--poll", "1ms".to_owned()),
            ("--patience", seconds(self.patience)),
            ("--json", out.display().to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect();
        arguments.push("--quiet".to_owned());
        if let Some(rate) = self.rate {
            arguments.extend(["--rate".to_owned(), rate.to_string()]);
        }
        if let Some(paths) = self.paths {
            arguments.extend(["--paths".to_owned(), paths.display().to_string()]);
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
