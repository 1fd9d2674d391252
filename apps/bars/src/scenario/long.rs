//! Minutes of flow at the limit.

use std::mem;
use std::time::Duration;

use super::Finding;
use super::flow::{CONNECTIONS, Course, Form, MEMORY, Memory, PRODUCT, Stretch, Works, per_second};
use crate::bench::Bench;
use crate::failure::Failure;
use crate::generator::Load;
use crate::outcome::{Bar, Outcome, Round};
use crate::plot::{Line, Plot};

/// More than it can carry, so that it is never idle, and little enough that the backlog stays one.
const PRESSURE: f64 = 1.05;

pub(super) async fn sustained(bench: &mut Bench) -> Result<Finding, Failure> {
    const NAME: &str = "sustained";
    let works = Works::begin(bench, NAME, Form::Rdkafka).await?;
    let run = press(bench, &works, NAME, 5).await?;
    works.end().await?;
    let outcome = |what: &str, unit, bar, value| {
        let what = format!("{what}, 5 minutes");
        Outcome::new(NAME, what, unit, Some(bar), vec![value])
    };
    let mut outcomes = vec![
        outcome(
            "tasks end to end",
            "/s",
            Bar::at_least(10_000.0, 15_000.0),
            run.per_second(0, run.minutes),
        ),
        outcome(
            "processor time per task",
            "µs",
            Bar::at_most(120.0, 80.0),
            run.stretch.cost,
        ),
    ];
    outcomes.extend(run.memory(NAME));
    Ok(Finding {
        outcomes,
        plots: vec![plot(NAME, "Five minutes", &run.stretch.course)],
    })
}

pub(super) async fn soak(bench: &mut Bench) -> Result<Finding, Failure> {
    const NAME: &str = "soak";
    // Half an hour adds the other half, and more.
    let rows = if bench.smoke { 10_000 } else { 5_000_000 };
    let works = Works::begin(bench, NAME, Form::Rdkafka).await?;
    bench.say(&format!("{NAME}, filling {rows} rows"));
    works.stand.database.seed(rows).await?;
    let run = press(bench, &works, NAME, 30).await?;
    let rows: i64 = works
        .stand
        .database
        .one("SELECT count(*) FROM tasks")
        .await?;
    works.end().await?;
    let (first, last) = (
        run.per_second(0, 1),
        run.per_second(run.minutes - 1, run.minutes),
    );
    let mut outcomes = vec![
        Outcome::new(
            NAME,
            "minute 30 / minute 1",
            "",
            Some(Bar::at_least(0.95, 0.99)),
            vec![last / first],
        ),
        Outcome::new(NAME, "rows at the end", "", None, vec![rows as f64]),
        Outcome::new(
            NAME,
            "tasks end to end, 30 minutes",
            "/s",
            None,
            vec![run.per_second(0, run.minutes)],
        ),
    ];
    outcomes.extend(run.memory(NAME));
    Ok(Finding {
        outcomes,
        plots: vec![plot(NAME, "Thirty minutes", &run.stretch.course)],
    })
}

/// Minutes at the limit, after one that does not count.
struct Minutes {
    stretch: Stretch,
    /// How long a minute was: to see whether everything works it is shorter.
    minute: Duration,
    minutes: u32,
}

impl Minutes {
    /// Tasks done a second from the end of one minute to that of another.
    fn per_second(&self, from: u32, to: u32) -> f64 {
        let end_of = |minute: u32| (self.minute * (minute + 1)).as_secs_f64();
        between(&self.stretch.course, end_of(from), end_of(to))
    }

    fn memory(&self, name: &'static str) -> Vec<Outcome> {
        let rows = |program: &str, memory: Memory| {
            let row = |what: &str, unit, bar, value| {
                let what = format!("{what} of the {program}, {name}");
                Outcome::new(name, what, unit, Some(bar), vec![value])
            };
            [
                row("memory", "MiB", MEMORY, memory.peak_mib),
                row(
                    "memory of the last quarter / of the first",
                    "×",
                    Bar::at_most(1.2, 1.05),
                    memory.growth,
                ),
            ]
        };
        [
            rows("server", self.stretch.server),
            rows("worker", self.stretch.worker),
        ]
        .concat()
    }
}

/// Finds out how much it carries, and offers a little more: for a minute to warm up, and for so many that count.
async fn press(
    bench: &mut Bench,
    works: &Works,
    name: &'static str,
    minutes: u32,
) -> Result<Minutes, Failure> {
    let (minute, minutes) = if bench.smoke {
        (bench.length, 3)
    } else {
        (Duration::from_secs(60), minutes)
    };
    bench.say(&format!("{name}, finding the limit"));
    let probe = Load::closed("post", works.server.port, CONNECTIONS, bench.length);
    let limit = works.stretch(bench, name, "probe", 1, &probe).await?;
    let rate = limit.per_second * PRESSURE;
    let load = Load {
        rate: Some(rate),
        warmup: minute,
        duration: minute * minutes,
        patience: Duration::from_secs(1),
        ..probe
    };
    bench.say(&format!("{name}, {rate:.0} tasks a second"));
    let stretch = works.stretch(bench, name, PRODUCT, 1, &load).await?;
    if let Some(last) = bench.measured.last_mut() {
        overload(last, rate);
    }
    Ok(Minutes {
        stretch,
        minute,
        minutes,
    })
}

/// More was offered than it carries: that some of it was left at the end is no failure.
fn overload(round: &mut Round, rate: f64) {
    let left = mem::take(&mut round.unanswered);
    round.more.extend([
        ("offeredEachSecond".to_owned(), rate),
        ("leftAtTheEnd".to_owned(), left as f64),
    ]);
}

/// How many a second became done between these seconds.
fn between(course: &Course, begin: f64, end: f64) -> f64 {
    let at = |second: f64| {
        course
            .iter()
            .rfind(|(when, _)| *when <= second)
            .copied()
            .unwrap_or((0.0, 0))
    };
    let ((from, before), (to, after)) = (at(begin), at(end));
    (after - before) as f64 / (to - from)
}

fn plot(name: &str, title: &str, course: &Course) -> Plot {
    // By ten seconds: single ones only show when the looks happened.
    let tens: Course = course.iter().step_by(10).copied().collect();
    let course = if tens.len() > 2 { &tens } else { course };
    Plot {
        name: name.to_owned(),
        title: format!("{title} at the limit"),
        across: "seconds",
        up: "tasks done a second",
        lines: vec![Line {
            name: "done".to_owned(),
            points: per_second(course),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Results;

    #[test]
    fn a_minute_is_measured_between_the_looks_nearest_to_it() {
        let course = vec![(1.0, 100), (2.0, 200), (61.0, 6_100), (121.0, 9_100)];
        assert!((between(&course, 0.0, 62.0) - 100.0).abs() < 1e-9);
        assert!((between(&course, 61.0, 121.0) - 50.0).abs() < 1e-9);
        assert!(between(&course, 200.0, 300.0).is_nan());
    }

    #[test]
    fn what_is_left_of_more_than_it_carries_is_no_failure() {
        let run = |failures| {
            // Half an hour at 95 of 105 that were offered.
            let mut round = Round {
                scenario: "soak",
                failures,
                unanswered: 10 * 1_860,
                ..Round::default()
            };
            overload(&mut round, 105.0);
            let results = Results {
                outcomes: Vec::new(),
                rounds: vec![round],
                plots: Vec::new(),
                circumstances: serde_json::Value::Null,
            };
            results.wrong(true)
        };
        assert!(run(0).is_empty(), "{:?}", run(0));
        assert_eq!(run(1).len(), 1, "a refusal is one");
    }
}
