//! Minutes of flow at the limit.

use std::time::Duration;

use super::Finding;
use super::flow::{Course, Form, Works, per_second};
use crate::bench::Bench;
use crate::failure::Failure;
use crate::generator::Load;
use crate::outcome::{Bar, Outcome};
use crate::plot::{Line, Plot};

const MINUTE: Duration = Duration::from_secs(60);
/// More than it can carry, so that it is never idle, and little enough that the backlog stays one.
const PRESSURE: f64 = 1.05;

pub(super) async fn sustained(bench: &mut Bench) -> Result<Finding, Failure> {
    const NAME: &str = "sustained";
    let works = Works::begin(bench, NAME, Form::Rdkafka).await?;
    let run = press(bench, &works, NAME, 5).await?;
    works.end().await?;
    let outcome = |what: &str, unit, bar, value| {
        Outcome::new(
            NAME,
            format!("{what}, 5 minutes"),
            unit,
            Some(bar),
            vec![value],
        )
    };
    Ok(Finding {
        outcomes: vec![
            outcome(
                "tasks end to end",
                "/s",
                Bar::at_least(10_000.0, 15_000.0),
                run.per_second,
            ),
            outcome(
                "processor time per task",
                "µs",
                Bar::at_most(120.0, 80.0),
                run.cost,
            ),
            outcome(
                "memory of the server",
                "MiB",
                Bar::at_most(256.0, 128.0),
                run.server_mib,
            ),
            outcome(
                "memory of the worker",
                "MiB",
                Bar::at_most(256.0, 128.0),
                run.worker_mib,
            ),
        ],
        plots: vec![plot(NAME, "Five minutes", &run.course)],
    })
}

pub(super) async fn soak(bench: &mut Bench) -> Result<Finding, Failure> {
    const NAME: &str = "soak";
    const MINUTES: u32 = 30;
    let (minutes, rows) = if bench.smoke {
        (1, 10_000)
    } else {
        // Half an hour adds the other half, and more.
        (MINUTES, 5_000_000)
    };
    let works = Works::begin(bench, NAME, Form::Rdkafka).await?;
    bench.say(&format!("{NAME}, filling {rows} rows"));
    works.stand.database.seed(rows).await?;
    let run = press(bench, &works, NAME, minutes).await?;
    let rows: i64 = works
        .stand
        .database
        .one("SELECT count(*) FROM tasks")
        .await?;
    works.end().await?;
    let first = between(&run.course, 0.0, 60.0);
    let end = f64::from(minutes) * 60.0;
    let last = between(&run.course, end - 60.0, end);
    Ok(Finding {
        outcomes: vec![
            Outcome::new(
                NAME,
                format!("minute {minutes} / minute 1"),
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
                vec![run.per_second],
            ),
        ],
        plots: vec![plot(NAME, "Thirty minutes", &run.course)],
    })
}

/// Finds out how much it carries, and offers a little more, for this long.
async fn press(
    bench: &mut Bench,
    works: &Works,
    name: &'static str,
    minutes: u32,
) -> Result<super::flow::Stretch, Failure> {
    let length = if bench.smoke {
        bench.length
    } else {
        MINUTE * minutes
    };
    bench.say(&format!("{name}, finding the limit"));
    let probe = Load::closed("post", works.server.port, 64, bench.length);
    let limit = works.stretch(bench, name, 0, &probe).await?.per_second;
    let load = Load {
        rate: Some(limit * PRESSURE),
        duration: length,
        ..probe
    };
    bench.say(&format!("{name}, {:.0} tasks a second", limit * PRESSURE));
    let run = works.stretch(bench, name, 1, &load).await?;
    if let Some(last) = bench.measured.last_mut() {
        let offered = "offeredEachSecond".to_owned();
        last.more.insert(offered, limit * PRESSURE);
    }
    Ok(run)
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

    #[test]
    fn a_minute_is_measured_between_the_looks_nearest_to_it() {
        let course = vec![(1.0, 100), (2.0, 200), (61.0, 6_100), (121.0, 9_100)];
        assert!((between(&course, 0.0, 62.0) - 100.0).abs() < 1e-9);
        assert!((between(&course, 61.0, 121.0) - 50.0).abs() < 1e-9);
        assert!(between(&course, 200.0, 300.0).is_nan());
    }
}
