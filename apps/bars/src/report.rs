//! The table, the document and the plots.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::outcome::{Outcome, Round, Verdict, Wanted};
use crate::plot::Plot;

/// What a run found.
pub(crate) struct Results {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) rounds: Vec<Round>,
    pub(crate) plots: Vec<Plot>,
    /// Machine, versions, settings.
    pub(crate) circumstances: Value,
}

impl Results {
    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "\n{:<68}{:>11}  {:<23}{:>9}{:>9}\n",
            "", "median", "least – most", "bar", "stretch"
        );
        for outcome in &self.outcomes {
            let (least, most) = outcome.spread();
            let spread = format!("{} – {}", number(least), number(most));
            let sign = |wanted| match wanted {
                Wanted::AtLeast => "≥",
                Wanted::AtMost => "≤",
            };
            let limits = outcome.bar.map_or_else(
                || (String::new(), String::new()),
                |bar| {
                    let sign = sign(bar.wanted);
                    (
                        format!("{sign} {}", number(bar.bar)),
                        format!("{sign} {}", number(bar.stretch)),
                    )
                },
            );
            let verdict = match outcome.verdict() {
                Verdict::Stretch => "stretch",
                Verdict::Bar => "reached",
                Verdict::Below => "MISSED",
                Verdict::Shown => "",
            };
            let value = format!("{} {}", number(outcome.median()), outcome.unit);
            // Writing into a String cannot fail.
            let _ = writeln!(
                table,
                "{:<68}{value:>11}  {spread:<23}{:>9}{:>9}  {verdict}",
                outcome.what, limits.0, limits.1
            );
        }
        table
    }

    /// What each process used for each task, in the middle of the rounds.
    pub(crate) fn costs(&self) -> String {
        let mut lines = String::new();
        let mut seen: Vec<(&str, &str)> = Vec::new();
        for round in &self.rounds {
            let key = (round.scenario, round.subject.as_str());
            if seen.contains(&key) {
                continue;
            }
            seen.push(key);
            let same: Vec<&Round> = self
                .rounds
                .iter()
                .filter(|other| (other.scenario, other.subject.as_str()) == key)
                .collect();
            let _ = write!(lines, "{:<17}{:<11}", key.0, key.1);
            for name in round.processor_micros_each.keys() {
                let samples = same
                    .iter()
                    .filter_map(|round| round.processor_micros_each.get(name).copied());
                let middle = Outcome::new("", "", "", None, samples.collect()).median();
                let _ = write!(lines, "  {name} {}", number(middle));
            }
            lines.push('\n');
        }
        format!("\nprocessor time per request or task, µs\n{lines}")
    }

    /// Whatever must not be: bars missed, tasks lost, requests failed.
    pub(crate) fn wrong(&self, bars_count: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        if bars_count {
            wrong.extend(
                self.outcomes
                    .iter()
                    .filter(|outcome| outcome.verdict() == Verdict::Below)
                    .map(|outcome| format!("below the bar: {}", outcome.what)),
            );
        }
        for round in &self.rounds {
            let Round {
                scenario,
                subject,
                round: number,
                ..
            } = round;
            let place = format!("{scenario}, {subject}, round {number}");
            for (count, what) in [
                (round.failures, "requests failed"),
                (round.lost.unwrap_or(0), "tasks were lost"),
                (
                    round.doubled.unwrap_or(0),
                    "tasks were announced twice, differently",
                ),
            ] {
                if count > 0 {
                    wrong.push(format!("{place}: {count} {what}"));
                }
            }
        }
        wrong
    }

    pub(crate) fn write(&self, into: &Path) -> Result<(), Failure> {
        fs::create_dir_all(into)?;
        let rows: Vec<Value> = self
            .outcomes
            .iter()
            .map(|outcome| {
                let (least, most) = outcome.spread();
                json!({
                    "outcome": outcome,
                    "median": outcome.median(),
                    "least": least,
                    "most": most,
                    "verdict": outcome.verdict(),
                })
            })
            .collect();
        let document = json!({
            "circumstances": self.circumstances,
            "rows": rows,
            "rounds": self.rounds,
        });
        fs::write(
            into.join("bench.json"),
            serde_json::to_string_pretty(&document)? + "\n",
        )?;
        for plot in &self.plots {
            fs::write(into.join(format!("{}.svg", plot.name)), plot.to_svg())?;
        }
        Ok(())
    }
}

/// With as many digits as a figure of this size deserves.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1_000.0 {
        let whole = format!("{value:.0}");
        let mut grouped = String::new();
        for (index, digit) in whole.chars().enumerate() {
            if index > 0 && (whole.len() - index).is_multiple_of(3) {
                grouped.push(' ');
            }
            grouped.push(digit);
        }
        grouped
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        for (value, text) in [
            (0.4216, "0.42"),
            (12.34, "12.3"),
            (512.4, "512"),
            (10_543.2, "10 543"),
            (1_234_567.0, "1 234 567"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
