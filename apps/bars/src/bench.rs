//! One run of the bench: its services, its measure, and what it found.

use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use task_processor_bench::load::Report;

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
    pub(crate) async fn send(&self, load: &Load) -> Result<Report, Failure> {
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
        self.step();
        self.measured
            .push(Round::new(scenario, subject, round, report, used));
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

    /// What the services that were started say of themselves.
    pub(crate) async fn versions(&self) -> Result<Vec<(String, String)>, Failure> {
        let mut versions = Vec::new();
        for (_, service) in &self.services {
            let version = service.version(&self.directory).await?;
            versions.push((service.process.name.clone(), version));
        }
        Ok(versions)
    }
}
