//! The table, the document and the plots.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::markdown;
use crate::outcome::{Bar, NOIO, Outcome, Round, Verdict, Wanted, median};
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
            let limits = outcome.bar.map_or_else(Default::default, |bar| {
                (limit(bar, bar.bar), limit(bar, bar.stretch))
            });
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
        for round in self
            .rounds
            .iter()
            .filter(|round| !round.processor_micros_each.is_empty())
        {
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
                let samples: Vec<f64> = same
                    .iter()
                    .filter_map(|round| round.processor_micros_each.get(name).copied())
                    .collect();
                let _ = write!(lines, "  {name} {}", number(median(&samples)));
            }
            lines.push('\n');
        }
        format!("\nprocessor time per request or task, µs\n{lines}")
    }

    /// Whatever must not be: what could not be measured, bars missed, tasks lost, requests failed.
    pub(crate) fn wrong(&self, bars_count: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        for outcome in &self.outcomes {
            if !outcome.is_measured() {
                wrong.push(format!("gave no number: {}", outcome.what));
            } else if bars_count && outcome.verdict() == Verdict::Below {
                wrong.push(format!("below the bar: {}", outcome.what));
            }
        }
        for round in &self.rounds {
            let Round {
                scenario,
                subject,
                round: number,
                ..
            } = round;
            let place = format!("{scenario}, {subject}, round {number}");
            if bars_count && subject == NOIO && round.load_is_held_up {
                wrong.push(format!(
                    "{place}: the load generator was the limit (busy for {:.0} % of the time), so the share of it is too good",
                    round.load_busy * 100.0
                ));
            }
            for (count, what) in [
                (round.failures, "requests failed"),
                (round.unanswered, "requests were not answered"),
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
        fs::write(into.join("bench.md"), markdown::of(self))?;
        for plot in &self.plots {
            fs::write(into.join(format!("{}.svg", plot.name)), plot.to_svg())?;
        }
        Ok(())
    }
}

/// A bar, with the way that is better.
pub(crate) fn limit(bar: Bar, value: f64) -> String {
    let sign = match bar.wanted {
        Wanted::AtLeast => "≥",
        Wanted::AtMost => "≤",
    };
    format!("{sign} {}", number(value))
}

/// With as many digits as a figure of this size deserves.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1_000.0 {
        let whole = format!("{value:.0}");
        let mut grouped = String::new();
        for (index, digit) in whole.chars().enumerate() {
            if index > 0 && (whole.len() - index).is_multiple_of(3) {
                grouped.push(',');
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
            (10_543.2, "10,543"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn what_could_not_be_measured_is_wrong_even_where_no_bar_counts() {
        let wrong = |samples: &[f64]| {
            let outcome = Outcome::new("test", "something", "", None, samples.to_vec());
            let results = Results {
                outcomes: vec![outcome],
                rounds: Vec::new(),
                plots: Vec::new(),
                circumstances: Value::Null,
            };
            results.wrong(false)
        };
        assert!(wrong(&[1.0, 2.0]).is_empty());
        for samples in [&[][..], &[1.0, f64::NAN], &[f64::INFINITY]] {
            assert_eq!(wrong(samples), ["gave no number: something"], "{samples:?}");
        }
    }

    #[test]
    fn a_reference_that_its_load_generator_held_up_is_wrong() {
        let wrong = |subject: &str, load_is_held_up| {
            let round = Round {
                scenario: "test",
                subject: subject.to_owned(),
                load_is_held_up,
                ..Round::default()
            };
            let results = Results {
                outcomes: Vec::new(),
                rounds: vec![round],
                plots: Vec::new(),
                circumstances: Value::Null,
            };
            results.wrong(true).len()
        };
        assert_eq!(wrong(NOIO, true), 1);
        assert_eq!(wrong(NOIO, false), 0);
        // Held up, the product looks worse than it is.
        assert_eq!(wrong("durable", true), 0);
    }
}
