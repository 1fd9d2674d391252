//! One run of the bench: its services, its measure, and what it found.

use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};
use task_processor_bench::load::Report;

use crate::database::{Database, without_password};
use crate::failure::Failure;
use crate::generator::Load;
use crate::outcome::Round;
use crate::services::{Kind, Service};
use crate::stand::Used;

pub(crate) struct Bench {
    pub(crate) binaries: PathBuf,
    pub(crate) directory: PathBuf,
    pub(crate) rounds: usize,
    /// Of one measurement.
    pub(crate) length: Duration,
    /// Only to see that everything works: small tables, and no bar counts.
    pub(crate) smoke: bool,
    /// Everything that was measured.
    pub(crate) measured: Vec<Round>,
    /// Programs of ours that were started, and their settings.
    pub(crate) started: Vec<Value>,
    progress: ProgressBar,
    services: Vec<(Kind, Service)>,
}

impl Bench {
    pub(crate) fn new(
        binaries: PathBuf,
        directory: PathBuf,
        rounds: usize,
        length: Duration,
        smoke: bool,
        steps: u64,
    ) -> Self {
        let progress = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
        if let Ok(style) =
            ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {pos}/{len} {msg}")
        {
            progress.set_style(style.progress_chars("=> "));
        }
        progress.enable_steady_tick(Duration::from_secs(1));
        Self {
            binaries,
            directory,
            rounds,
            length,
            smoke,
            measured: Vec::new(),
            started: Vec::new(),
            progress,
            services: Vec::new(),
        }
    }

    /// Says what is going on: on a terminal behind the progress bar, elsewhere as lines.
    pub(crate) fn say(&self, text: &str) {
        if self.progress.is_hidden() {
            let elapsed = self.progress.elapsed().as_secs_f64();
            eprintln!("{elapsed:>8.1} s  {text}");
        }
        self.progress.set_message(text.to_owned());
    }

    /// Ends a step of the progress bar.
    pub(crate) fn step(&self) {
        self.progress.inc(1);
    }

    pub(crate) fn end(&self) {
        self.progress.finish_and_clear();
    }

    /// Sends load as fast or as slow as it says.
    pub(crate) async fn send(&self, load: &Load<'_>) -> Result<Report, Failure> {
        load.send(&self.binaries, &self.directory).await
    }

    /// Keeps what one measurement of one subject showed, per request or task of `count`.
    pub(crate) fn keep(
        &mut self,
        scenario: &'static str,
        subject: &str,
        round: usize,
        report: &Report,
        used: &Used,
    ) -> &mut Round {
        self.keep_round(Round::new(scenario, subject, round, report, used))
    }

    pub(crate) fn keep_round(&mut self, round: Round) -> &mut Round {
        self.step();
        self.measured.push(round);
        let last = self.measured.len() - 1;
        &mut self.measured[last]
    }

    /// Port and process id.
    pub(crate) async fn postgres(&mut self) -> Result<(u16, u32), Failure> {
        self.service(Kind::Postgres).await
    }

    pub(crate) async fn redis(&mut self) -> Result<(u16, u32), Failure> {
        self.service(Kind::Redis).await
    }

    pub(crate) async fn kafka(&mut self, major: u8) -> Result<(u16, u32), Failure> {
        self.service(Kind::Kafka(major)).await
    }

    /// Started when first asked for.
    async fn service(&mut self, kind: Kind) -> Result<(u16, u32), Failure> {
        let running = self.services.iter().find(|(of, _)| *of == kind);
        if let Some((_, service)) = running {
            return Ok((service.port, service.process.pid));
        }
        self.say(&format!("starting {kind:?}"));
        let xtask = self.binaries.join("xtask");
        let service = Service::start(kind, &xtask, &self.directory).await?;
        let found = (service.port, service.process.pid);
        self.services.push((kind, service));
        Ok(found)
    }

    /// Notes with which settings a program of ours runs.
    pub(crate) fn note(&mut self, of: &str, program: &str, settings: &[(&str, String)]) {
        let settings: Map<String, Value> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), without_password(value).into()))
            .collect();
        self.started
            .push(json!({ "of": of, "program": program, "settings": settings }));
    }

    /// What the services that were started say of themselves, and what our programs are made of.
    pub(crate) async fn versions(&self) -> Result<Map<String, Value>, Failure> {
        let mut versions = Map::new();
        for (_, service) in &self.services {
            let version = service.version(&self.directory).await?;
            versions.insert(service.process.name.clone(), version.into());
        }
        let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
        versions.insert("librdkafka".to_owned(), librdkafka.into());
        for program in ["server", "worker", "migrate"] {
            let name = format!("task-processor-{program}");
            versions.insert(name.clone(), self.version_of(&name).await?.into());
        }
        let embedded = self.version_of("task-processor").await?;
        versions.insert("task-processor".to_owned(), embedded.into());
        Ok(versions)
    }

    async fn version_of(&self, program: &str) -> Result<String, Failure> {
        let output = tokio::process::Command::new(self.binaries.join(program))
            .arg("--version")
            .output()
            .await?;
        let said = String::from_utf8(output.stdout)?;
        Ok(said
            .split_whitespace()
            .last()
            .unwrap_or("unknown")
            .to_owned())
    }

    /// The settings of PostgreSQL, if it was started.
    pub(crate) async fn postgres_settings(&self) -> Result<Value, Failure> {
        let running = self
            .services
            .iter()
            .find(|(kind, _)| *kind == Kind::Postgres);
        let Some((_, service)) = running else {
            return Ok(Value::Null);
        };
        let database = Database::connect(service.port, "taskdb").await?;
        let settings = database.settings().await;
        database.close().await?;
        Ok(serde_json::from_str(&settings?)?)
    }
}
