//! From accepted to announced.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Finding;
use crate::bench::Bench;
use crate::failure::Failure;
use crate::generator::Load;
use crate::machine;
use crate::outcome::{Bar, Outcome, median};
use crate::plot::{Line, Plot};
use crate::stand::{self, KAFKA_RUST, Meter, RDKAFKA, Running, Stand, total_tasks};
use crate::topics;

/// The subject of what is compared with nothing.
pub(super) const PRODUCT: &str = "product";
pub(super) const CONNECTIONS: u32 = 64;
/// How many measurements long the load before them is.
const WARM_LENGTHS: u32 = 4;
/// How long what was accepted may take until all of it is done.
const DRAIN_LIMIT: Duration = Duration::from_secs(900);
const PAUSE: Duration = Duration::from_millis(100);
/// Between two looks at what was done so far, or a tenth of what is measured if that is less.
const LOOK: Duration = Duration::from_secs(1);
/// Of each program, in MiB.
pub(super) const MEMORY: Bar = Bar::at_most(256.0, 128.0);
/// Tasks a second, for the curve.
pub(super) const CURVE: [u32; 7] = [100, 250, 500, 1_000, 2_000, 3_000, 4_000];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Rdkafka,
    KafkaRust,
}

/// A server and a worker on a stand.
pub(super) struct Works {
    pub(super) stand: Stand,
    pub(super) server: Running,
    pub(super) worker: Running,
}

/// What the database was seen to have done, second by second.
pub(super) type Course = Vec<(f64, u64)>;

/// Of one program, through a stretch.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) peak_mib: f64,
    /// What it held in the last quarter, warm-up left out, against the first.
    pub(super) growth: f64,
}

/// One stretch of flow.
pub(super) struct Stretch {
    /// Done, by all the time that it took until the last was announced.
    pub(super) per_second: f64,
    pub(super) cost: f64,
    pub(super) server: Memory,
    pub(super) worker: Memory,
    pub(super) course: Course,
}

impl Works {
    pub(super) async fn begin(bench: &mut Bench, name: &str, form: Form) -> Result<Self, Failure> {
        let line = match form {
            Form::Rdkafka => RDKAFKA,
            Form::KafkaRust => KAFKA_RUST,
        };
        let stand = Stand::lay_out(bench, name, line).await?;
        Self::start(bench, stand, WARM_LENGTHS).await
    }

    /// Warm after the load of so many measurements.
    pub(super) async fn start(
        bench: &mut Bench,
        stand: Stand,
        warm_lengths: u32,
    ) -> Result<Self, Failure> {
        let server = stand.server(bench, &[]).await?;
        let worker = stand.worker(bench).await?;
        let works = Self {
            stand,
            server,
            worker,
        };
        works.warm_up(bench, warm_lengths).await?;
        Ok(works)
    }

    /// Until tasks go through (groups form and topics are made meanwhile), and then as fast as it goes: for its first half
    /// minute the Java of the brokers is busy with translating itself.
    async fn warm_up(&self, bench: &Bench, lengths: u32) -> Result<(), Failure> {
        let load = Load {
            rate: Some(100.0),
            ..Load::closed("visible", self.server.port, 8, Duration::from_secs(1))
        };
        let report = bench.send(&load).await?;
        if report.failures() > 0 {
            return Err(format!("tasks do not go through: {report:?}").into());
        }
        bench
            .send(&Load::closed(
                "post",
                self.server.port,
                CONNECTIONS,
                bench.length * lengths,
            ))
            .await?;
        self.until_at_rest().await
    }

    pub(super) async fn until_at_rest(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + DRAIN_LIMIT;
        while !self.stand.database.is_at_rest().await? {
            if Instant::now() > deadline {
                return Err("what was accepted does not come to rest".into());
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Sends load, waits until all that was accepted is done and announced, and looks whether anything is missing.
    pub(super) async fn stretch(
        &self,
        bench: &mut Bench,
        name: &'static str,
        subject: &str,
        round: usize,
        load: &Load<'_>,
    ) -> Result<Stretch, Failure> {
        let database = &self.stand.database;
        database.checkpoint().await?;
        let before = database.done().await?;
        let cached_before = self.stand.cached().await?;
        let announced_before = topics::ends(self.stand.kafka_port).await?;
        let mut meter = self.stand.meter(&[&self.server, &self.worker]).await?;
        let begin = Instant::now();
        let mut course = Course::new();
        let (mut of_server, mut of_worker) = (Vec::new(), Vec::new());
        let pause = LOOK.min(load.duration / 10);
        let report = {
            let sending = bench.send(load);
            tokio::pin!(sending);
            loop {
                tokio::select! {
                    report = &mut sending => break report?,
                    () = sleep(pause) => {
                        course.push((begin.elapsed().as_secs_f64(), database.done().await? - before));
                        meter.look();
                        if begin.elapsed() > load.warmup {
                            of_server.push(machine::resident_mib(self.server.process.pid));
                            of_worker.push(machine::resident_mib(self.worker.process.pid));
                        }
                    }
                }
            }
        };
        let backlog = report
            .accepted_in_all
            .saturating_sub(database.done().await? - before);
        let deadline = Instant::now() + DRAIN_LIMIT;
        while database.done().await? - before < report.accepted_in_all {
            if Instant::now() > deadline {
                break;
            }
            sleep(PAUSE).await;
            course.push((
                begin.elapsed().as_secs_f64(),
                database.done().await? - before,
            ));
        }
        self.until_at_rest().await?;
        let used = meter.read(Some(database)).await?;
        let done = database.done().await? - before;
        let announced = topics::announced_since(self.stand.kafka_port, announced_before).await?;
        let cached = self.stand.cached().await?.saturating_sub(cached_before);
        let round = bench.keep(name, subject, round, &report, &used);
        let per_second = done as f64 / used.elapsed;
        round.lost = Some(lost(report.accepted_in_all, done, announced.tasks, cached));
        round.doubled = Some(announced.doubled);
        let memory = |name: &str, held: &[f64]| Memory {
            peak_mib: used.peak_mib.get(name).copied().unwrap_or(f64::NAN),
            growth: growth(held),
        };
        let (server, worker) = (memory("server", &of_server), memory("worker", &of_worker));
        round.more.extend([
            ("doneEachSecond".to_owned(), per_second),
            ("backlogAtTheEndOfTheLoad".to_owned(), backlog as f64),
            ("announcedRecords".to_owned(), announced.records as f64),
            ("cachedResults".to_owned(), cached as f64),
            ("serverGrowth".to_owned(), server.growth),
            ("workerGrowth".to_owned(), worker.growth),
        ]);
        Ok(Stretch {
            per_second,
            cost: round.cost_micros(),
            server,
            worker,
            course,
        })
    }

    /// Stops the programs.
    pub(super) async fn stop(self) -> Result<Stand, Failure> {
        stand::stop(vec![self.server, self.worker]).await?;
        Ok(self.stand)
    }

    pub(super) async fn end(self) -> Result<(), Failure> {
        self.stand.clear(vec![self.server, self.worker]).await
    }
}

/// Accepted and never done, or done and never announced, or done and not in the cache.
const fn lost(accepted: u64, done: u64, announced: u64, cached: u64) -> u64 {
    accepted.saturating_sub(done) + done.saturating_sub(announced) + done.saturating_sub(cached)
}

/// What is held for a moment does not decide.
fn growth(held: &[f64]) -> f64 {
    let quarter = held.len() / 4;
    median(&held[held.len() - quarter..]) / median(&held[..quarter])
}

pub(super) async fn distributed(bench: &mut Bench, form: Form) -> Result<Finding, Failure> {
    let (name, database, of, barred) = match form {
        Form::Rdkafka => ("flow", "flow", "rdkafka", true),
        Form::KafkaRust => ("flow-kafka-rust", "flow_kafka_rust", "kafka-rust", false),
    };
    let works = Works::begin(bench, database, form).await?;
    let mut stretches = Vec::new();
    for round in 1..=bench.rounds {
        bench.say(&format!("{name}, round {round}"));
        let load = Load::closed("post", works.server.port, CONNECTIONS, bench.length);
        stretches.push(works.stretch(bench, name, PRODUCT, round, &load).await?);
    }
    works.end().await?;
    let samples = |of: fn(&Stretch) -> f64| stretches.iter().map(of).collect::<Vec<f64>>();
    let barred = |bar| barred.then_some(bar);
    let lines = stretches.iter().enumerate().map(|(round, stretch)| Line {
        name: format!("round {}", round + 1),
        points: per_second(&stretch.course),
    });
    Ok(Finding {
        outcomes: vec![
            Outcome::new(
                name,
                format!("processor time per task, {of}"),
                "µs",
                barred(Bar::at_most(120.0, 80.0)),
                samples(|stretch| stretch.cost),
            ),
            Outcome::new(
                name,
                format!("tasks end to end, {of}"),
                "/s",
                barred(Bar::at_least(10_000.0, 15_000.0)),
                samples(|stretch| stretch.per_second),
            ),
            Outcome::new(
                name,
                format!("memory of the server, {of}"),
                "MiB",
                Some(MEMORY),
                samples(|stretch| stretch.server.peak_mib),
            ),
            Outcome::new(
                name,
                format!("memory of the worker, {of}"),
                "MiB",
                Some(MEMORY),
                samples(|stretch| stretch.worker.peak_mib),
            ),
        ],
        plots: vec![Plot {
            name: name.to_owned(),
            title: format!("Tasks done, at the limit ({of})"),
            across: "seconds",
            up: "tasks a second",
            lines: lines.collect(),
        }],
    })
}

/// How fast the number rose between two looks.
pub(super) fn per_second(course: &Course) -> Vec<(f64, f64)> {
    course
        .windows(2)
        .filter_map(|pair| match pair {
            [(begin, before), (end, after)] if end > begin => {
                Some((*end, (after - before) as f64 / (end - begin)))
            }
            _ => None,
        })
        .collect()
}

pub(super) async fn embedded(bench: &mut Bench) -> Result<Finding, Failure> {
    const NAME: &str = "flow-embedded";
    let program = stand::standalone(bench, NAME).await?;
    let (mut costs, mut rates, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        bench.say(&format!("{NAME}, round {round}"));
        let before = total_tasks(program.port).await?;
        let meter = Meter::of(&[&program]);
        let load = Load::closed("post", program.port, CONNECTIONS, bench.length);
        let report = bench.send(&load).await?;
        let deadline = Instant::now() + DRAIN_LIMIT;
        while total_tasks(program.port).await? - before < report.accepted_in_all
            && Instant::now() < deadline
        {
            sleep(PAUSE).await;
        }
        let used = meter.read(None).await?;
        let done = total_tasks(program.port).await? - before;
        let round = bench.keep(NAME, PRODUCT, round, &report, &used);
        round.lost = Some(report.accepted_in_all.saturating_sub(done));
        costs.push(round.cost_micros());
        rates.push(done as f64 / used.elapsed);
        peaks.push(used.peak_mib.values().sum());
    }
    program.process.stop().await?;
    Ok(Finding {
        outcomes: vec![
            Outcome::new(NAME, "processor time per task, embedded", "µs", None, costs),
            Outcome::new(NAME, "tasks end to end, embedded", "/s", None, rates),
            Outcome::new(NAME, "memory, embedded", "MiB", Some(MEMORY), peaks),
        ],
        plots: Vec::new(),
    })
}

pub(super) async fn visible(bench: &mut Bench) -> Result<Finding, Failure> {
    const NAME: &str = "visible";
    const RATE: f64 = 500.0;
    let works = Works::begin(bench, NAME, Form::Rdkafka).await?;
    let (mut medians, mut tails) = (Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        bench.say(&format!("{NAME}, round {round}"));
        let load = Load {
            rate: Some(RATE),
            ..Load::closed("visible", works.server.port, CONNECTIONS, bench.length)
        };
        works.stretch(bench, NAME, PRODUCT, round, &load).await?;
        if let Some(last) = bench.measured.last() {
            medians.push(last.visible_ms.p50);
            tails.push(last.visible_ms.p99);
        }
    }
    works.end().await?;
    Ok(Finding {
        outcomes: vec![
            Outcome::new(
                NAME,
                "submitted to visible at 500/s, p50",
                "ms",
                Some(Bar::at_most(10.0, 5.0)),
                medians,
            ),
            Outcome::new(
                NAME,
                "submitted to visible at 500/s, p99",
                "ms",
                Some(Bar::at_most(50.0, 20.0)),
                tails,
            ),
        ],
        plots: Vec::new(),
    })
}

pub(super) async fn curve(bench: &mut Bench) -> Result<Finding, Failure> {
    const NAME: &str = "curve";
    let works = Works::begin(bench, NAME, Form::Rdkafka).await?;
    let names = ["p50", "p90", "p99", "p99.9"];
    let mut lines = names.map(|name| Line {
        name: name.to_owned(),
        points: Vec::new(),
    });
    let rates = if bench.smoke { &CURVE[..2] } else { &CURVE };
    for (round, rate) in (1..).zip(rates.iter().copied()) {
        bench.say(&format!("{NAME}, {rate} tasks a second"));
        let load = Load {
            rate: Some(f64::from(rate)),
            ..Load::closed("visible", works.server.port, 4 * CONNECTIONS, bench.length)
        };
        works.stretch(bench, NAME, PRODUCT, round, &load).await?;
        if let Some(last) = bench.measured.last_mut() {
            last.more
                .insert("offeredEachSecond".to_owned(), rate.into());
            let seen = last.visible_ms;
            for (line, value) in lines
                .iter_mut()
                .zip([seen.p50, seen.p90, seen.p99, seen.p999])
            {
                line.points.push((rate.into(), value));
            }
        }
    }
    works.end().await?;
    Ok(Finding {
        outcomes: Vec::new(),
        plots: vec![Plot {
            name: "latency".to_owned(),
            title: "From submitted to visible, by load".to_owned(),
            across: "tasks a second offered, open loop",
            up: "milliseconds",
            lines: lines.into(),
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_arrive_everywhere_is_lost() {
        assert_eq!(lost(10, 10, 10, 10), 0);
        // Stored, and the answer did not come in time.
        assert_eq!(lost(9, 10, 10, 10), 0);
        assert_eq!(lost(10, 9, 9, 9), 1);
        assert_eq!(lost(10, 10, 8, 10), 2);
        assert_eq!(lost(10, 10, 10, 0), 10);
    }

    #[test]
    fn growth_is_of_quarters() {
        let grows: Vec<f64> = (0..8).map(|n| 100.0 + f64::from(n)).collect();
        assert!((growth(&grows) - 106.5 / 100.5).abs() < 1e-9);
        assert!((growth(&[100.0, 100.0, 900.0, 100.0]) - 1.0).abs() < 1e-9);
        assert!(growth(&[1.0, 2.0, 3.0]).is_nan());
    }
}
