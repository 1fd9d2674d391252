//! Counting what happens, for Prometheus.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::ports::{
    CallOutcome, ClaimedBy, Dependency, Event, Observer, Repair, RunOutcome, SkipReason, Step,
    TaskStatus, Tier,
};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::accept::MetricsFormat;
use crate::admission::Refusal;
use crate::connection::Cut;
use crate::durations::{Durations, durations, observe};
use crate::traffic::RequestMeters;

type Label = [(&'static str, &'static str); 1];
type Labels = [(&'static str, &'static str); 2];

const PREFIX: &str = "task_processor";

/// Who failed and has not failed again for so long, in a process that asks it all the time, answers: hardly anything that fails says
/// of itself that it works again.
const FORGIVEN: Duration = Duration::from_secs(30);

/// When each dependency failed last.
#[derive(Default)]
struct Failures(BTreeMap<Dependency, Instant>);

impl Failures {
    fn note(&mut self, dependency: Dependency, now: Instant) {
        self.0.insert(dependency, now);
    }

    fn forget(&mut self, dependency: Dependency) {
        self.0.remove(&dependency);
    }

    fn is_failing(&self, dependency: Dependency, now: Instant) -> bool {
        // Of the collector only the first failure of several in a row is told, and its end always.
        let is_forgiven = |failed: &Instant| {
            dependency != Dependency::Collector && now.duration_since(*failed) >= FORGIVEN
        };
        self.0
            .get(&dependency)
            .is_some_and(|failed| !is_forgiven(failed))
    }
}

/// Why a request was refused that was one too many.
pub(crate) const LIMITED: &str = "rate";

/// Counts every [`Event`] by kind and reason.
///
/// All names begin with `task_processor_`; counters end in `_total`, durations are histograms in seconds. A series whose
/// labels are known exists from the start, at zero, so that an alert on its rate sees the first event.
pub struct Meters {
    registry: Registry,
    submitted: Counter,
    published: Counter,
    unpublished: Counter,
    skipped: Family<Label, Counter>,
    claimed: Family<Label, Counter>,
    /// By step, in the order of [`Step::ALL`].
    batches: [Histogram; Step::ALL.len()],
    waited: Durations,
    /// By outcome, in the order of [`RunOutcome::ALL`].
    runs: [Durations; RunOutcome::ALL.len()],
    called: Family<Label, Counter>,
    circuit_open: Gauge,
    settled: Family<Label, Counter>,
    elapsed: Durations,
    late: Counter,
    given_up: Counter,
    dead_lettered: Counter,
    cancelled: Counter,
    revived: Counter,
    handed_back: Counter,
    rescued: Counter,
    repaired: Family<Label, Counter>,
    pruned: Counter,
    outlived: Counter,
    abandoned: Counter,
    cache_hits: Counter,
    cache_misses: Counter,
    panics: Family<Label, Counter>,
    dependency_failures: Family<Labels, Counter>,
    dependency_recoveries: Family<Label, Counter>,
    dependency_failing: Family<Label, Gauge>,
    failures: Mutex<Failures>,
    refusals: Family<Label, Counter>,
    refused: Family<Label, Counter>,
    /// By the name of the key and the reason.
    keys_refused: Family<[(&'static str, String); 2], Counter>,
    connections: Gauge,
    cut: Family<Label, Counter>,
    /// By tier, in the order of [`Tier::ALL`]: hits, misses.
    tiers: [[Counter; 2]; Tier::ALL.len()],
    pub(crate) requests: RequestMeters,
    spans_sent: Counter,
    spans_dropped: Counter,
    other: Counter,
}

impl Default for Meters {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Meters").finish_non_exhaustive()
    }
}

impl Meters {
    /// Everything at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut names = Registry::with_prefix(PREFIX);
        let skipped = Family::<Label, Counter>::default();
        for reason in SkipReason::ALL {
            drop(skipped.get_or_create(&[("reason", reason.as_str())]));
        }
        let claimed = Family::<Label, Counter>::default();
        for by in [ClaimedBy::Delivery, ClaimedBy::Age] {
            drop(claimed.get_or_create(&[("by", by.as_str())]));
        }
        let settled = Family::<Label, Counter>::default();
        for status in TaskStatus::ALL {
            // A run never leaves a task `processing`.
            if status != TaskStatus::Processing {
                drop(settled.get_or_create(&[("status", status.as_str())]));
            }
        }
        let called = Family::<Label, Counter>::default();
        for outcome in CallOutcome::ALL {
            drop(called.get_or_create(&[("outcome", outcome.as_str())]));
        }
        let repaired = Family::<Label, Counter>::default();
        for what in Repair::ALL {
            drop(repaired.get_or_create(&[("what", what.as_str())]));
        }
        let refused = Family::<Label, Counter>::default();
        for reason in Refusal::REASONS.into_iter().chain([LIMITED]) {
            drop(refused.get_or_create(&[("reason", reason)]));
        }
        let cut = Family::<Label, Counter>::default();
        for reason in Cut::ALL.map(Cut::reason) {
            drop(cut.get_or_create(&[("reason", reason)]));
        }
        let lookups = Family::<Label, Counter>::default();
        let runs = Family::<Label, Durations>::new_with_constructor(durations);
        let recoveries = Family::<Label, Counter>::default();
        let failing = Family::<Label, Gauge>::default();
        for dependency in Dependency::ALL {
            drop(recoveries.get_or_create(&dependency_label(dependency)));
            drop(failing.get_or_create(&dependency_label(dependency)));
        }
        let tiers = Family::<Labels, Counter>::default();
        names.register(
            "cache_tier_lookups",
            "Lookups of results by tier and result: in this process, in the cache that processes share, in the store",
            tiers.clone(),
        );
        let requests = RequestMeters::new(&mut names);
        let elapsed = durations();
        let waited = durations();
        let batches = Family::<Label, Histogram>::new_with_constructor(batch_histogram);
        names.register(
            "build",
            "1, labelled with the version of the program",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        names.register(
            "batch_size",
            "How many tasks shared one call, by step",
            batches.clone(),
        );
        names.register_with_unit(
            "queue_wait",
            "From when a task might have been claimed until it was, by the clock of the store",
            Unit::Seconds,
            waited.clone(),
        );
        names.register(
            "cache_lookups",
            "Lookups in the result cache, by result",
            lookups.clone(),
        );
        names.register_with_unit(
            "run_duration",
            "How long processing functions ran, by how they ended; `unavailable` spends no attempt",
            Unit::Seconds,
            runs.clone(),
        );
        names.register_with_unit(
            "task_duration",
            "From a task's creation until it was done",
            Unit::Seconds,
            elapsed.clone(),
        );
        Self {
            submitted: register(
                &mut names,
                "tasks_submitted",
                "Tasks accepted",
                Counter::default(),
            ),
            published: register(
                &mut names,
                "messages_published",
                "Messages confirmed by the log",
                Counter::default(),
            ),
            unpublished: register(
                &mut names,
                "messages_unpublished",
                "Messages not confirmed by the log; their tasks are claimed by age",
                Counter::default(),
            ),
            skipped: register(
                &mut names,
                "records_skipped",
                "Delivered records that claimed nothing, by reason",
                skipped,
            ),
            claimed: register(
                &mut names,
                "tasks_claimed",
                "Tasks claimed, by way",
                claimed,
            ),
            batches: Step::ALL.map(|step| batches.get_or_create_owned(&[("step", step.as_str())])),
            waited,
            runs: RunOutcome::ALL
                .map(|outcome| runs.get_or_create_owned(&[("outcome", outcome.as_str())])),
            called: register(
                &mut names,
                "processor_calls",
                "Calls of the processing service (PROCESSOR=http), by how they ended",
                called,
            ),
            circuit_open: register(
                &mut names,
                "processor_circuit_open",
                "1 while the processing service is not called because it keeps failing, otherwise 0",
                Gauge::default(),
            ),
            settled: register(
                &mut names,
                "tasks_settled",
                "Tasks that moved on after a run, by their new status",
                settled,
            ),
            elapsed,
            late: register(
                &mut names,
                "results_late",
                "Results dropped because their task had moved since",
                Counter::default(),
            ),
            given_up: register(
                &mut names,
                "tasks_given_up",
                "Runs of which the database took nothing, not even that the task failed: the task is handed back and run again",
                Counter::default(),
            ),
            dead_lettered: register(
                &mut names,
                "dead_letters",
                "Dead letters that the log took: records that cannot be read, and failed tasks; repeated after a crash",
                Counter::default(),
            ),
            cancelled: register(
                &mut names,
                "tasks_cancelled",
                "Tasks cancelled",
                Counter::default(),
            ),
            revived: register(
                &mut names,
                "tasks_revived",
                "Failed tasks that someone had tried again",
                Counter::default(),
            ),
            handed_back: register(
                &mut names,
                "tasks_handed_back",
                "Tasks given back unfinished at a stop",
                Counter::default(),
            ),
            rescued: register(
                &mut names,
                "tasks_rescued",
                "Tasks taken back from dead workers",
                Counter::default(),
            ),
            repaired: register(
                &mut names,
                "contradictions_repaired",
                "Contradictions between tasks, queue and claims that the audit repaired, by what was wrong",
                repaired,
            ),
            pruned: register(
                &mut names,
                "tasks_pruned",
                "Tasks deleted because they had been at rest for RETENTION",
                Counter::default(),
            ),
            outlived: register(
                &mut names,
                "worker_outlived",
                "Times this worker was declared dead while it lived",
                Counter::default(),
            ),
            abandoned: register(
                &mut names,
                "runs_abandoned",
                "Runs given up because this worker was declared dead",
                Counter::default(),
            ),
            cache_hits: lookups.get_or_create_owned(&[("result", "hit")]),
            cache_misses: lookups.get_or_create_owned(&[("result", "miss")]),
            panics: register(
                &mut names,
                "panics",
                "Turns of loops that panicked and were given up, by what was being done: each is a defect",
                Family::default(),
            ),
            dependency_failures: register(
                &mut names,
                "dependency_failures",
                "Failures of dependencies, by dependency and by what was being done",
                Family::default(),
            ),
            dependency_recoveries: register(
                &mut names,
                "dependency_recoveries",
                "Times a dependency answered again after it failed",
                recoveries,
            ),
            failures: Mutex::default(),
            refusals: register(
                &mut names,
                "store_refusals",
                "Times the store refused something for what is in it, by what was being done",
                Family::default(),
            ),
            dependency_failing: register(
                &mut names,
                "dependency_failing",
                "1 from a failure of the dependency until it is known to answer again or has not failed for 30 s, otherwise 0",
                failing,
            ),
            refused: register(
                &mut names,
                "http_refusals",
                "Requests that were not let in: no API key, an unknown one, one without the scope, or too many, by reason",
                refused,
            ),
            keys_refused: register(
                &mut names,
                "http_key_refusals",
                "Those of them whose API key is known, by its name and reason",
                Family::default(),
            ),
            connections: register(
                &mut names,
                "http_connections",
                "Connections that are open",
                Gauge::default(),
            ),
            cut: register(
                &mut names,
                "http_connections_cut",
                "Connections that were cut because their client took too long or another needed the place, by reason",
                cut,
            ),
            tiers: Tier::ALL.map(|tier| {
                ["hit", "miss"].map(|result| {
                    tiers.get_or_create_owned(&[("tier", tier.as_str()), ("result", result)])
                })
            }),
            requests,
            spans_sent: register(
                &mut names,
                "spans_sent",
                "Spans that the collector of traces took",
                Counter::default(),
            ),
            spans_dropped: register(
                &mut names,
                "spans_dropped",
                "Spans lost: the collector of traces did not take them, or not fast enough",
                Counter::default(),
            ),
            other: register(
                &mut names,
                "events_other",
                "Events of kinds that have no meter",
                Counter::default(),
            ),
            registry: names,
        }
    }

    /// All meters in Prometheus text format 0.0.4 (`text/plain; version=0.0.4`).
    #[must_use]
    pub fn render(&self) -> String {
        prometheus_text(&self.encoded())
    }

    /// All meters in OpenMetrics text format 1.0.0 (`application/openmetrics-text; version=1.0.0`).
    #[must_use]
    pub fn render_openmetrics(&self) -> String {
        let mut text = self.encoded();
        // Writing into a String cannot fail.
        let _ = encode_eof(&mut text);
        text
    }

    /// Counts a request that was not let in.
    pub(crate) fn refused(&self, refusal: &Refusal) {
        self.count_refusal(refusal.reason(), refusal.key());
    }

    /// Counts a request that was one too many.
    pub(crate) fn limited(&self, key: Option<&str>) {
        self.count_refusal(LIMITED, key);
    }

    /// There are no more names than configured keys.
    fn count_refusal(&self, reason: &'static str, key: Option<&str>) {
        self.refused.get_or_create(&[("reason", reason)]).inc();
        if let Some(key) = key {
            let labels = [("key", key.to_owned()), ("reason", reason.to_owned())];
            self.keys_refused.get_or_create(&labels).inc();
        }
    }

    /// Counts a connection as open until what is returned is dropped.
    pub(crate) fn connected(&self) -> Open {
        self.connections.inc();
        Open(self.connections.clone())
    }

    /// Counts a connection that was cut.
    pub(crate) fn cut(&self, cut: Cut) {
        self.cut.get_or_create(&[("reason", cut.reason())]).inc();
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn encoded(&self) -> String {
        let (failures, now) = (self.failures(), Instant::now());
        for dependency in Dependency::ALL {
            self.dependency_failing
                .get_or_create(&dependency_label(dependency))
                .set(i64::from(failures.is_failing(dependency, now)));
        }
        drop(failures);
        let mut text = String::with_capacity(16 * 1024);
        // Writing into a String cannot fail.
        let _ = encode_registry(&mut text, &self.registry);
        text
    }
}

/// A connection that is counted as open.
pub(crate) struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Observer for Meters {
    fn observe(&self, event: &Event) {
        match event {
            Event::Submitted { count } => add(&self.submitted, *count),
            Event::Published { count } => add(&self.published, *count),
            Event::PublishFailed { count, .. } => add(&self.unpublished, *count),
            Event::Skipped { reason, count } => {
                add(
                    &self.skipped.get_or_create(&[("reason", reason.as_str())]),
                    *count,
                );
            }
            Event::Claimed { by, count } => {
                add(&self.claimed.get_or_create(&[("by", by.as_str())]), *count);
            }
            // Both lists are in the order in which their kinds are declared.
            Event::Batched { step, size } => self.batches[*step as usize].observe(*size as f64),
            Event::Started { waited, .. } => observe(&self.waited, waited.as_secs_f64(), None),
            Event::Ran {
                took,
                outcome,
                trace,
                ..
            } => {
                let runs = &self.runs[*outcome as usize];
                observe(runs, took.as_secs_f64(), trace.as_ref());
            }
            Event::Called { outcome } => {
                self.called
                    .get_or_create(&[("outcome", outcome.as_str())])
                    .inc();
            }
            Event::CircuitOpened { .. } => {
                self.circuit_open.set(1);
            }
            Event::CircuitClosed => {
                self.circuit_open.set(0);
            }
            Event::DeadLettered { count } => add(&self.dead_lettered, *count),
            Event::Settled {
                status,
                elapsed_micros,
                trace,
                ..
            } => {
                self.settled
                    .get_or_create(&[("status", status.as_str())])
                    .inc();
                if let Some(micros) = elapsed_micros {
                    // Exact up to 285 years.
                    let seconds = *micros as f64 / 1_000_000.0;
                    observe(&self.elapsed, seconds, trace.as_ref());
                }
            }
            Event::Late { .. } => add(&self.late, 1),
            Event::GivenUp { .. } => add(&self.given_up, 1),
            Event::Cancelled { .. } => add(&self.cancelled, 1),
            Event::Revived { .. } => add(&self.revived, 1),
            Event::HandedBack { count } => add(&self.handed_back, *count),
            Event::Rescued { count } => add(&self.rescued, *count),
            Event::Repaired { what, count } => {
                add(
                    &self.repaired.get_or_create(&[("what", what.as_str())]),
                    *count,
                );
            }
            Event::Pruned { count } => add(&self.pruned, *count),
            Event::Outlived { abandoned } => {
                add(&self.outlived, 1);
                add(&self.abandoned, *abandoned);
            }
            Event::CacheLookup { hit } => {
                add(
                    if *hit {
                        &self.cache_hits
                    } else {
                        &self.cache_misses
                    },
                    1,
                );
            }
            Event::TierLookup { tier, hits, misses } => {
                let [hit, miss] = &self.tiers[*tier as usize];
                add(hit, *hits);
                add(miss, *misses);
            }
            Event::Panicked { doing, .. } => {
                self.panics.get_or_create(&[("doing", *doing)]).inc();
            }
            Event::DependencyFailed {
                dependency, doing, ..
            } => {
                let labels = [("dependency", dependency.as_str()), ("doing", *doing)];
                self.dependency_failures.get_or_create(&labels).inc();
                self.failures().note(*dependency, Instant::now());
            }
            Event::StoreRefused { doing, .. } => {
                self.refusals.get_or_create(&[("doing", *doing)]).inc();
            }
            Event::DependencyRecovered { dependency } => {
                let label = dependency_label(*dependency);
                self.dependency_recoveries.get_or_create(&label).inc();
                self.failures().forget(*dependency);
            }
            // Its end is counted, when the collector has it.
            Event::Traced(_) => {}
            Event::SpansSent { count } => add(&self.spans_sent, *count),
            Event::SpansDropped { count } => add(&self.spans_dropped, *count),
            _ => add(&self.other, 1),
        }
    }
}

fn register<M: Metric + Clone>(names: &mut Registry, name: &str, help: &str, metric: M) -> M {
    names.register(name, help, metric.clone());
    metric
}

fn add(counter: &Counter, count: usize) {
    counter.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
}

const fn dependency_label(dependency: Dependency) -> Label {
    [("dependency", dependency.as_str())]
}

/// 1 to 16,384 in steps of 4.
fn batch_histogram() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 4.0, 8))
}

/// A gauge as further lines of either format.
pub(crate) fn write_gauge(text: &mut String, name: &str, help: &str, value: impl fmt::Display) {
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        "# HELP {PREFIX}_{name} {help}\n# TYPE {PREFIX}_{name} gauge\n{PREFIX}_{name} {value}\n"
    );
}

/// A counter as further lines. OpenMetrics names it without the suffix that its line has.
pub(crate) fn write_counter(
    text: &mut String,
    format: MetricsFormat,
    name: &str,
    help: &str,
    value: impl fmt::Display,
) {
    let family = match format {
        MetricsFormat::OpenMetrics => "",
        _ => "_total",
    };
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        "# HELP {PREFIX}_{name}{family} {help}\n# TYPE {PREFIX}_{name}{family} counter\n{PREFIX}_{name}_total {value}\n"
    );
}

/// A gauge for each of several states, of which one holds, as further lines of either format.
pub(crate) fn write_states(
    text: &mut String,
    name: &str,
    help: &str,
    label: &str,
    states: &[(&str, bool)],
) {
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "# HELP {PREFIX}_{name} {help}\n# TYPE {PREFIX}_{name} gauge"
    );
    for (state, holds) in states {
        let _ = writeln!(
            text,
            "{PREFIX}_{name}{{{label}=\"{state}\"}} {}",
            u8::from(*holds)
        );
    }
}

/// OpenMetrics names a counter without `_total` and an info without `_info`, the older format with it; the older one knows no
/// units, no infos and no exemplars.
fn prometheus_text(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len() + 1_024);
    let mut help = "";
    for line in openmetrics.lines() {
        if line.starts_with("# HELP ") {
            // Held back until the type is known.
            help = line;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            let words = help
                .strip_prefix("# HELP ")
                .and_then(|rest| rest.split_once(' '))
                .map_or("", |(_, words)| words);
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "# HELP {name}{suffix} {words}\n# TYPE {name}{suffix} {kind}"
            );
        } else if !line.starts_with('#') {
            // What follows is an exemplar.
            let line = line.split_once(" # ").map_or(line, |(line, _)| line);
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::ports::{TaskId, TraceContext};

    use super::*;

    fn check(event: Event, expected: &[&str]) {
        let meters = Meters::new();
        let before = meters.render();
        meters.observe(&event);
        let after = meters.render();
        for line in expected {
            let line = format!("{PREFIX}_{line}");
            assert!(!before.lines().any(|found| found == line), "before: {line}");
            assert!(
                after.lines().any(|found| found == line),
                "{line} is missing in\n{after}"
            );
        }
        assert!(
            after.contains("task_processor_events_other_total 0\n"),
            "{event:?} has no meter"
        );
    }

    fn id() -> TaskId {
        TaskId(
            "01890a5d-ac96-774b-bcce-b302099a8057"
                .parse()
                .expect("a UUID"),
        )
    }

    #[test]
    fn every_event_is_counted() {
        check(Event::Submitted { count: 3 }, &["tasks_submitted_total 3"]);
        check(
            Event::Published { count: 2 },
            &["messages_published_total 2"],
        );
        check(
            Event::PublishFailed {
                count: 2,
                error: "down".into(),
            },
            &["messages_unpublished_total 2"],
        );
        for reason in SkipReason::ALL {
            let line = format!("records_skipped_total{{reason=\"{}\"}} 4", reason.as_str());
            check(Event::Skipped { reason, count: 4 }, &[&line]);
        }
        check(
            Event::Claimed {
                by: ClaimedBy::Age,
                count: 5,
            },
            &["tasks_claimed_total{by=\"age\"} 5"],
        );
        for outcome in RunOutcome::ALL {
            let line = format!(
                "run_duration_seconds_count{{outcome=\"{}\"}} 1",
                outcome.as_str()
            );
            let ran = Event::Ran {
                id: id(),
                took: Duration::from_millis(1),
                outcome,
                error: None,
                trace: None,
            };
            check(ran, &[&line]);
        }
        for outcome in CallOutcome::ALL {
            let line = format!(
                "processor_calls_total{{outcome=\"{}\"}} 1",
                outcome.as_str()
            );
            check(Event::Called { outcome }, &[&line]);
        }
        check(
            Event::CircuitOpened { failures: 10 },
            &["processor_circuit_open 1"],
        );
        for step in Step::ALL {
            let label = format!("step=\"{}\"", step.as_str());
            let sum = format!("batch_size_sum{{{label}}} 20.0");
            let bucket = format!("batch_size_bucket{{le=\"64.0\",{label}}} 1");
            check(Event::Batched { step, size: 20 }, &[&sum, &bucket]);
        }
        check(
            Event::Started {
                id: id(),
                waited: Duration::from_secs(2),
            },
            &[
                "queue_wait_seconds_sum 2.0",
                "queue_wait_seconds_bucket{le=\"2.5\"} 1",
            ],
        );
        check(Event::DeadLettered { count: 3 }, &["dead_letters_total 3"]);
        check(
            Event::Settled {
                id: id(),
                status: TaskStatus::Done,
                elapsed_micros: Some(2_000_000),
                trace: None,
            },
            &[
                "tasks_settled_total{status=\"done\"} 1",
                "task_duration_seconds_sum 2.0",
                "task_duration_seconds_bucket{le=\"2.5\"} 1",
            ],
        );
        check(
            Event::Settled {
                id: id(),
                status: TaskStatus::Failed,
                elapsed_micros: None,
                trace: None,
            },
            &["tasks_settled_total{status=\"failed\"} 1"],
        );
        let late = Event::Late {
            id: id(),
            trace: None,
        };
        check(late, &["results_late_total 1"]);
        let given_up = Event::GivenUp {
            id: id(),
            trace: None,
        };
        check(given_up, &["tasks_given_up_total 1"]);
        check(Event::Cancelled { id: id() }, &["tasks_cancelled_total 1"]);
        check(Event::Revived { id: id() }, &["tasks_revived_total 1"]);
        check(
            Event::HandedBack { count: 2 },
            &["tasks_handed_back_total 2"],
        );
        check(Event::Rescued { count: 7 }, &["tasks_rescued_total 7"]);
        for what in Repair::ALL {
            let line = format!(
                "contradictions_repaired_total{{what=\"{}\"}} 6",
                what.as_str()
            );
            check(Event::Repaired { what, count: 6 }, &[&line]);
        }
        check(Event::Pruned { count: 4 }, &["tasks_pruned_total 4"]);
        check(Event::SpansSent { count: 8 }, &["spans_sent_total 8"]);
        check(Event::SpansDropped { count: 9 }, &["spans_dropped_total 9"]);
        check(
            Event::Outlived { abandoned: 3 },
            &["worker_outlived_total 1", "runs_abandoned_total 3"],
        );
        check(
            Event::CacheLookup { hit: true },
            &["cache_lookups_total{result=\"hit\"} 1"],
        );
        check(
            Event::CacheLookup { hit: false },
            &["cache_lookups_total{result=\"miss\"} 1"],
        );
        for tier in Tier::ALL {
            let label = format!("tier=\"{}\"", tier.as_str());
            let hits = format!("cache_tier_lookups_total{{{label},result=\"hit\"}} 3");
            let misses = format!("cache_tier_lookups_total{{{label},result=\"miss\"}} 2");
            let looked = Event::TierLookup {
                tier,
                hits: 3,
                misses: 2,
            };
            check(looked, &[&hits, &misses]);
        }
        check(
            Event::Panicked {
                doing: "insert",
                error: "boom".into(),
            },
            &["panics_total{doing=\"insert\"} 1"],
        );
        check(
            Event::DependencyFailed {
                dependency: Dependency::Cache,
                doing: "get",
                error: "refused".into(),
            },
            &[
                "dependency_failures_total{dependency=\"cache\",doing=\"get\"} 1",
                "dependency_failing{dependency=\"cache\"} 1",
            ],
        );
        check(
            Event::StoreRefused {
                doing: "claim",
                error: "a trigger".into(),
            },
            &["store_refusals_total{doing=\"claim\"} 1"],
        );
        check(
            Event::DependencyRecovered {
                dependency: Dependency::Log,
            },
            &["dependency_recoveries_total{dependency=\"log\"} 1"],
        );
    }

    #[test]
    fn a_dependency_that_fails_no_more_is_not_failing_for_ever() {
        let mut failures = Failures::default();
        let began = Instant::now();
        let failing = |failures: &Failures, after| {
            Dependency::ALL.map(|dependency| failures.is_failing(dependency, began + after))
        };
        assert_eq!(failing(&failures, Duration::ZERO), [false; 4]);
        for dependency in Dependency::ALL {
            failures.note(dependency, began);
        }
        assert_eq!(failing(&failures, FORGIVEN / 2), [true; 4]);
        assert_eq!(failing(&failures, FORGIVEN), [false, false, false, true]);
        failures.note(Dependency::Store, began + FORGIVEN / 2);
        assert_eq!(failing(&failures, FORGIVEN), [true, false, false, true]);
        failures.forget(Dependency::Store);
        failures.forget(Dependency::Collector);
        assert_eq!(failing(&failures, FORGIVEN), [false; 4]);
    }

    #[test]
    fn a_circuit_is_open_until_it_is_closed() {
        let meters = Meters::new();
        let is_open = |value: u8| {
            let line = format!("{PREFIX}_processor_circuit_open {value}");
            meters.render().lines().any(|found| found == line)
        };
        assert!(is_open(0));
        meters.observe(&Event::CircuitOpened { failures: 10 });
        assert!(is_open(1));
        meters.observe(&Event::CircuitClosed);
        assert!(is_open(0));
        assert!(
            meters
                .render()
                .contains("task_processor_events_other_total 0\n")
        );
    }

    #[test]
    fn the_older_format_names_counters_with_their_suffix() {
        let text = Meters::new().render();
        assert!(text.contains(
            "# HELP task_processor_tasks_submitted_total Tasks accepted.\n\
             # TYPE task_processor_tasks_submitted_total counter\n\
             task_processor_tasks_submitted_total 0\n"
        ));
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
    }

    #[test]
    fn openmetrics_shows_the_trace_of_a_duration_and_the_older_format_does_not() {
        let meters = Meters::new();
        let trace = |flags: &str| {
            let parent = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
            TraceContext::parse(&parent)
        };
        for (millis, flags) in [(2, "01"), (40, "00")] {
            meters.observe(&Event::Ran {
                id: id(),
                took: Duration::from_millis(millis),
                outcome: RunOutcome::Success,
                error: None,
                trace: trace(flags),
            });
        }
        let series = |text: &str, bound: &str| {
            let start = format!(
                "{PREFIX}_run_duration_seconds_bucket{{le=\"{bound}\",outcome=\"success\"}} "
            );
            let line = text.lines().find_map(|line| line.strip_prefix(&start));
            line.unwrap_or_else(|| panic!("{start} in {text}"))
                .to_owned()
        };
        let openmetrics = meters.render_openmetrics();
        let sampled = series(&openmetrics, "0.0025");
        let exemplar = "1 # {trace_id=\"0af7651916cd43dd8448eb211c80319c\"} 0.002 ";
        assert!(sampled.starts_with(exemplar), "{sampled}");
        assert_eq!(series(&openmetrics, "0.05"), "2", "it was not sampled");
        assert_eq!(series(&meters.render(), "0.0025"), "1");
    }

    #[test]
    fn openmetrics_ends_as_it_must() {
        let text = Meters::new().render_openmetrics();
        assert!(text.contains("# TYPE task_processor_tasks_submitted counter\n"));
        assert!(text.ends_with("# EOF\n"));
    }
}
