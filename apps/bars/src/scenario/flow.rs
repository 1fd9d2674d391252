//! From accepted to announced.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Finding;
use crate::bench::Bench;
use crate::failure::Failure;
use crate::generator::Load;
use crate::machine;
use crate::outcome::{Bar, Outcome};
use crate::plot::{Line, Plot};
use crate::stand::{self, KAFKA_RUST, Meter, RDKAFKA, Running, Stand, total_tasks};
use crate::topics;

const CONNECTIONS: u32 = 64;
/// How many measurements long the load before them is.
const WARM_LENGTHS: u32 = 4;
/// How long what was accepted may take until all of it is done.
const DRAIN_LIMIT: Duration = Duration::from_secs(900);
const PAUSE: Duration = Duration::from_millis(100);
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

/// One stretch of flow.
pub(super) struct Stretch {
    /// Done, by all the time that it took until the last was announced.
    pub(super) per_second: f64,
    pub(super) cost: f64,
    pub(super) server_mib: f64,
    pub(super) worker_mib: f64,
    pub(super) course: Course,
}

impl Works {
    pub(super) async fn begin(bench: &mut Bench, name: &str, form: Form) -> Result<Self, Failure> {
        let line = match form {
            Form::Rdkafka => RDKAFKA,
            Form::KafkaRust => KAFKA_RUST,
        };
        let stand = Stand::lay_out(bench, name, line).await?;
        let server = stand.server(&[]).await?;
        let worker = stand.worker().await?;
        let works = Self {
            stand,
            server,
            worker,
        };
        works.warm_up(bench).await?;
        Ok(works)
    }

    /// Until tasks go through (groups form and topics are made meanwhile), and then as fast as it goes: for its first half
    /// minute the Java of the brokers is busy with translating itself.
    async fn warm_up(&self, bench: &Bench) -> Result<(), Failure> {
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
                bench.length * WARM_LENGTHS,
            ))
            .await?;
        self.until_at_rest().await
    }

    async fn until_at_rest(&self) -> Result<(), Failure> {
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
        round: usize,
        load: &Load,
    ) -> Result<Stretch, Failure> {
        let database = &self.stand.database;
        database.checkpoint().await?;
        let before = database.done().await?;
        let announced_before = topics::ends(self.stand.kafka_port).await?;
        let meter = self.stand.meter(&[&self.server, &self.worker]).await?;
        let begin = Instant::now();
        let mut course = Course::new();
        let mut resident = Vec::new();
        let report = {
            let sending = bench.send(load);
            tokio::pin!(sending);
            loop {
                tokio::select! {
                    report = &mut sending => break report?,
                    () = sleep(Duration::from_secs(1)) => {
                        course.push((begin.elapsed().as_secs_f64(), database.done().await? - before));
                        resident.push((
                            machine::resident_mib(self.server.process.pid),
                            machine::resident_mib(self.worker.process.pid),
                        ));
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
        let round = bench.keep(name, "product", round, &report, &used);
        let per_second = done as f64 / used.elapsed;
        let lost = round.count.saturating_sub(done) + done.saturating_sub(announced.tasks);
        round.lost = Some(lost);
        round.doubled = Some(announced.doubled);
        round.more.extend([
            ("doneEachSecond".to_owned(), per_second),
            ("backlogAtTheEndOfTheLoad".to_owned(), backlog as f64),
            ("announcedRecords".to_owned(), announced.records as f64),
        ]);
        // Flat is what does not grow once everything is warm.
        if let (Some(early), Some(late)) = (resident.get(resident.len() / 4), resident.last()) {
            round.more.extend([
                ("serverGrowthMib".to_owned(), late.0 - early.0),
                ("workerGrowthMib".to_owned(), late.1 - early.1),
            ]);
        }
        let peak = |name: &str| used.peak_mib.get(name).copied().unwrap_or(f64::NAN);
        Ok(Stretch {
            per_second,
            cost: round.cost_micros(),
            server_mib: peak("server"),
            worker_mib: peak("worker"),
            course,
        })
    }

    pub(super) async fn end(self) -> Result<(), Failure> {
        self.stand.clear(vec![self.server, self.worker]).await
    }
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
        stretches.push(works.stretch(bench, name, round, &load).await?);
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
                barred(Bar::at_most(256.0, 128.0)),
                samples(|stretch| stretch.server_mib),
            ),
            Outcome::new(
                name,
                format!("memory of the worker, {of}"),
                "MiB",
                barred(Bar::at_most(256.0, 128.0)),
                samples(|stretch| stretch.worker_mib),
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
        let round = bench.keep(NAME, "product", round, &report, &used);
        round.lost = Some(round.count.saturating_sub(done));
        costs.push(round.cost_micros());
        rates.push(done as f64 / used.elapsed);
        peaks.push(used.peak_mib.values().sum());
    }
    program.process.stop().await?;
    Ok(Finding {
        outcomes: vec![
            Outcome::new(NAME, "processor time per task, embedded", "µs", None, costs),
            Outcome::new(NAME, "tasks end to end, embedded", "/s", None, rates),
            Outcome::new(NAME, "memory, embedded", "MiB", None, peaks),
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
        works.stretch(bench, NAME, round, &load).await?;
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
        works.stretch(bench, NAME, round, &load).await?;
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
