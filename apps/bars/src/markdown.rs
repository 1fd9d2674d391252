//! The table of docs/PERFORMANCE.md.

use std::fmt::Write as _;

use serde_json::Value;

use crate::outcome::Verdict;
use crate::report::{Results, limit, number};

/// Ready to be pasted, with what a reader must know of the run in its head.
pub(crate) fn of(results: &Results) -> String {
    let mut text = head(&results.circumstances)
        + "| | form | bar | stretch | median | least to most | |\n|---|---|---|---|---|---|---|\n";
    for outcome in &results.outcomes {
        let (bar, stretch) = outcome.bar.map_or_else(Default::default, |bar| {
            (limit(bar, bar.bar), limit(bar, bar.stretch))
        });
        let verdict = match outcome.verdict() {
            Verdict::Stretch => "stretch",
            Verdict::Bar => "reached",
            Verdict::Below => "**missed**",
            Verdict::Shown => "",
        };
        let (least, most) = outcome.spread();
        let median = format!("{} {}", number(outcome.median()), outcome.unit);
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {bar} | {stretch} | {} | {} to {} | {verdict} |",
            outcome.what,
            outcome.form,
            median.trim_end(),
            number(least),
            number(most)
        );
    }
    text
}

fn head(circumstances: &Value) -> String {
    let said = |path: &str| match circumstances.pointer(path) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "unknown".to_owned(),
    };
    let versions: Vec<String> = circumstances["versions"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| format!("{name} {}", said(&format!("/versions/{name}"))))
        .collect();
    format!(
        "Revision `{}`: {} rounds of {} s after a warm-up of a fifth of that, {} minutes in all. {} processors ({}), {} of memory, \
         Linux {}, load average before the run {}. {}.\n\n",
        said("/revision"),
        said("/rounds"),
        said("/seconds"),
        said("/minutes"),
        said("/machine/processors"),
        said("/machine/processor"),
        said("/machine/memory"),
        said("/machine/kernel"),
        said("/loadAverageBefore"),
        versions.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::outcome::{Bar, Outcome};

    #[test]
    fn a_row_says_what_was_wanted_and_what_was_found() {
        let bar = Some(Bar::at_least(10_000.0, 15_000.0));
        let mut outcome =
            Outcome::new("flow", "tasks", "/s", bar, vec![9_000.0, 8_000.0, 12_000.0]);
        outcome.form = "rdkafka";
        let results = Results {
            outcomes: vec![outcome],
            rounds: Vec::new(),
            plots: Vec::new(),
            circumstances: json!({
                "revision": "abc",
                "loadAverageBefore": 0.25,
                "versions": { "postgres": "15.8", "redis": "7.0" },
            }),
        };
        let text = of(&results);
        assert!(text.contains("load average before the run 0.25. postgres 15.8, redis 7.0."));
        let row = text.lines().last();
        let expected =
            "| tasks | rdkafka | ≥ 10,000 | ≥ 15,000 | 9,000 /s | 8,000 to 12,000 | **missed** |";
        assert_eq!(row, Some(expected));
    }
}
