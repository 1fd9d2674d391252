//! One for each bar, or for a few that are measured together.

mod flow;
mod growth;
mod intake;
mod long;
mod reads;
mod store;

use clap::ValueEnum;

use crate::bench::Bench;
use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::plot::Plot;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Scenario {
    /// Accepting tasks against the same routes without input and output, 64 connections, no worker
    #[value(name = "post-64")]
    Post64,
    /// The same, 256 connections
    #[value(name = "post-256")]
    Post256,
    /// Accepting one task at a time against one plain INSERT a request
    #[value(name = "post-1")]
    Post1,
    /// From accepted to announced, as fast as it goes: processor time, tasks a second, memory; PostgreSQL, Redis, Kafka 4 with rdkafka
    Flow,
    /// The same with kafka-rust, on Kafka 3.9
    FlowKafkaRust,
    /// The same in one process on SQLite
    FlowEmbedded,
    /// From submitted to visible, 500 tasks a second, open loop
    Visible,
    /// The same at rising rates; no bar
    Curve,
    /// Reading finished tasks, from memory, from Redis and from neither, against the same route without input and output
    Get,
    /// GET /metrics in a long table against a short one
    Metrics,
    /// Sharing commits on SQLite against a commit for each task
    Sqlite,
    /// Bytes of write-ahead log for the whole life of a task, in batches of 500, and updates that stay on their page
    Wal,
    /// Five minutes of flow at the limit, after one that does not count
    Sustained,
    /// Thirty minutes of it, in a table that passes ten million rows; not part of a run without names
    Soak,
    /// Accepting, reading, listing and flow in a table of ten million rows against one of 50,000; not part of a run without names
    Growth,
}

/// What a scenario found.
#[derive(Default)]
pub(crate) struct Finding {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) plots: Vec<Plot>,
}

impl Scenario {
    pub(crate) const ALL: [Self; 15] = [
        Self::Post64,
        Self::Post256,
        Self::Post1,
        Self::Flow,
        Self::FlowKafkaRust,
        Self::FlowEmbedded,
        Self::Visible,
        Self::Curve,
        Self::Get,
        Self::Metrics,
        Self::Sqlite,
        Self::Wal,
        Self::Sustained,
        Self::Soak,
        Self::Growth,
    ];

    /// Whether it is part of a run without names.
    pub(crate) const fn is_short(self) -> bool {
        !matches!(self, Self::Soak | Self::Growth)
    }

    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// How many measurements it takes, for the progress bar.
    pub(crate) const fn steps(self, rounds: usize) -> usize {
        match self {
            Self::Get => 4 * rounds,
            Self::Flow | Self::FlowKafkaRust | Self::FlowEmbedded | Self::Visible | Self::Wal => {
                rounds
            }
            Self::Curve => flow::CURVE.len(),
            Self::Sustained | Self::Soak => 2,
            Self::Growth => 8 * rounds,
            _ => 2 * rounds,
        }
    }

    /// Which programs on which services, for a reader of the table.
    const fn form(self) -> &'static str {
        match self {
            Self::FlowKafkaRust => "kafka-rust, Kafka 3.9",
            Self::FlowEmbedded => "embedded, SQLite",
            Self::Sqlite => "the store alone, SQLite",
            Self::Wal => "the store alone, PostgreSQL",
            _ => "rdkafka, Kafka 4",
        }
    }

    pub(crate) async fn run(self, bench: &mut Bench) -> Result<Finding, Failure> {
        let mut finding = self.measure(bench).await?;
        for outcome in &mut finding.outcomes {
            outcome.form = self.form();
        }
        Ok(finding)
    }

    async fn measure(self, bench: &mut Bench) -> Result<Finding, Failure> {
        match self {
            Self::Post64 => intake::against_nothing(bench, 64).await,
            Self::Post256 => intake::against_nothing(bench, 256).await,
            Self::Post1 => intake::against_an_insert(bench).await,
            Self::Flow => flow::distributed(bench, flow::Form::Rdkafka).await,
            Self::FlowKafkaRust => flow::distributed(bench, flow::Form::KafkaRust).await,
            Self::FlowEmbedded => flow::embedded(bench).await,
            Self::Visible => flow::visible(bench).await,
            Self::Curve => flow::curve(bench).await,
            Self::Get => reads::finished(bench).await,
            Self::Metrics => reads::metrics(bench).await,
            Self::Sqlite => store::sqlite(bench).await,
            Self::Wal => store::wal(bench).await,
            Self::Sustained => long::sustained(bench).await,
            Self::Soak => long::soak(bench).await,
            Self::Growth => growth::run(bench).await,
        }
    }
}

/// Share of the first in the second, round by round.
fn shares(first: &[f64], second: &[f64]) -> Vec<f64> {
    first
        .iter()
        .zip(second)
        .map(|(first, second)| first / second)
        .collect()
}

/// Those of whom each has its turn first, by round.
fn in_turn<T>(round: usize, first: T, second: T) -> [T; 2] {
    if round % 2 == 1 {
        [first, second]
    } else {
        [second, first]
    }
}
