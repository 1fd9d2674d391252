//! Logs, and the observers that events are told to.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use domain::ports::{Dependency, Event, Observer, SkipReason, TaskStatus, TraceContext};
use domain::worker::Stopped;
use tracing::{debug, error, info, trace, warn};
use tracing_subscriber::EnvFilter;

use crate::settings::{LogFormat, LogSettings};
use crate::startup::without_source_line;

/// Sends what is logged to standard error. The first call of a process counts; later ones change nothing.
pub fn start(settings: &LogSettings) {
    // The directives were checked when the settings were read.
    let filter = EnvFilter::builder().parse_lossy(&settings.filter);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match settings.format {
        // The event's name says more than the module it comes from.
        LogFormat::Pretty => subscriber.with_target(false).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        debug!(event = "telemetry.started_before", %error, "logging was started before");
    }
}

/// Logs events, and tells `also` of them.
#[must_use]
pub fn observed_by(also: Arc<dyn Observer>) -> Arc<dyn Observer> {
    Arc::new(Tee::new(vec![Arc::new(LogObserver::default()), also]))
}

/// Logs how a worker's last life ended.
pub fn stopped(worker: Stopped) {
    let Stopped { handed_back, clean } = worker;
    if clean {
        info!(event = "worker.stopped", handed_back, "the worker stopped");
    } else {
        warn!(
            event = "worker.stopped_unclean",
            handed_back,
            "the worker stopped and could not give everything back; it will be taken back from it"
        );
    }
}

/// Tells several observers.
pub struct Tee(Vec<Arc<dyn Observer>>);

impl Tee {
    /// An observer that tells each of these, in this order.
    #[must_use]
    pub fn new(observers: Vec<Arc<dyn Observer>>) -> Self {
        Self(observers)
    }
}

impl Observer for Tee {
    fn observe(&self, event: &Event) {
        for observer in &self.0 {
            observer.observe(event);
        }
    }

    fn begin_span(&self, parent: Option<TraceContext>) -> Option<TraceContext> {
        // One of them traces, if any does.
        let mut observers = self.0.iter();
        observers.find_map(|observer| observer.begin_span(parent.clone()))
    }
}

/// How often the same trouble is logged while it lasts.
const REPEAT: Duration = Duration::from_secs(10);

/// Logs events. What happens per task or per batch is `debug`; what an operator wants to know of is `info` and above.
/// A trouble that repeats is logged once and then every ten seconds, with the number of times in between.
#[derive(Default)]
pub struct LogObserver {
    troubles: Mutex<Troubles>,
}

impl Observer for LogObserver {
    fn observe(&self, event: &Event) {
        match event {
            Event::Submitted { count } => {
                debug!(event = "tasks.submitted", count, "tasks were accepted");
            }
            Event::Published { count } => debug!(
                event = "tasks.published",
                count, "the log confirmed messages"
            ),
            Event::PublishFailed { count, error } => {
                if let Some(before) = self.trouble(Dependency::Log, "publish tasks") {
                    warn!(
                        event = "tasks.publish_failed",
                        count,
                        error,
                        suppressed = before,
                        "the log did not confirm messages; their tasks will be claimed by age"
                    );
                }
            }
            Event::Skipped { reason, count } if *reason == SkipReason::Unreadable => {
                if let Some(before) = self.trouble(Dependency::Log, "read records") {
                    warn!(
                        event = "records.unreadable",
                        count,
                        suppressed = before,
                        "records of tasks-input cannot be read; they go to tasks-dead-letter"
                    );
                }
            }
            Event::Skipped { reason, count } => {
                debug!(
                    event = "records.skipped",
                    reason = reason.as_str(),
                    count,
                    "records ask for nothing"
                );
            }
            Event::Claimed { by, count } => {
                debug!(
                    event = "tasks.claimed",
                    by = by.as_str(),
                    count,
                    "tasks were claimed"
                );
            }
            Event::Ran {
                id,
                took,
                outcome,
                error,
                trace,
            } => {
                let outcome = outcome.as_str();
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                match error {
                    None => {
                        debug!(event = "task.ran", task_id = %id, trace_id = trace_id(trace), took_ms, "a run succeeded");
                    }
                    // What comes of it, another run or the end of the task, is another line.
                    Some(error) => {
                        info!(event = "task.run_failed", task_id = %id, trace_id = trace_id(trace), took_ms, outcome, error, "a run failed");
                    }
                }
            }
            // What it means for the task is another line.
            Event::Called { outcome } => debug!(
                event = "processor.called",
                outcome = outcome.as_str(),
                "the processing service was called"
            ),
            Event::CircuitOpened { failures } => warn!(
                event = "processor.circuit_opened",
                failures,
                "the processing service keeps failing; tasks wait, and no attempt is spent"
            ),
            Event::CircuitClosed => info!(
                event = "processor.circuit_closed",
                "the processing service answers again"
            ),
            Event::Settled {
                id,
                status,
                elapsed_micros,
                trace,
            } => match status {
                TaskStatus::Failed => warn!(
                    event = "task.failed",
                    task_id = %id,
                    trace_id = trace_id(trace),
                    "a task failed for good; GET /tasks/{id} and tasks-dead-letter tell why"
                ),
                _ => {
                    let elapsed_ms = elapsed_micros.map(|micros| micros / 1_000);
                    debug!(event = "task.settled", task_id = %id, trace_id = trace_id(trace), status = status.as_str(), elapsed_ms, "a task was settled");
                }
            },
            Event::Late { id, trace } => {
                info!(event = "task.late", task_id = %id, trace_id = trace_id(trace), "a result came after the task had moved; dropped");
            }
            Event::GivenUp { id, trace } => {
                warn!(event = "task.given_up", task_id = %id, trace_id = trace_id(trace), "the database refuses whatever came of a task; it is handed back and run again");
            }
            Event::Cancelled { id } => {
                info!(event = "task.cancelled", task_id = %id, "a task was cancelled");
            }
            Event::Revived { id } => {
                info!(event = "task.revived", task_id = %id, "a failed task is tried again");
            }
            Event::HandedBack { count } => info!(
                event = "tasks.handed_back",
                count, "unfinished tasks were given back to the queue"
            ),
            Event::Rescued { count } => warn!(
                event = "tasks.rescued",
                count, "tasks were taken back from a dead worker"
            ),
            Event::Repaired { what, count } => warn!(
                event = "audit.repaired",
                what = what.as_str(),
                count,
                "the tasks and the books about them contradicted each other; repaired"
            ),
            Event::Pruned { count } => debug!(
                event = "tasks.pruned",
                count, "tasks that had been at rest for RETENTION were deleted"
            ),
            Event::Outlived { abandoned } => warn!(
                event = "worker.outlived",
                abandoned, "this worker was declared dead while it lived; it registers anew"
            ),
            Event::CacheLookup { hit } => {
                trace!(event = "cache.lookup", hit, "the cache was asked");
            }
            Event::TierLookup { tier, hits, misses } => {
                let tier = tier.as_str();
                trace!(
                    event = "cache.tier_lookup",
                    tier, hits, misses, "a tier was asked"
                );
            }
            Event::DependencyFailed {
                dependency,
                doing,
                error,
            } => {
                if let Some(before) = self.trouble(*dependency, doing) {
                    let error = without_source_line(error);
                    warn!(
                        event = "dependency.failed",
                        dependency = dependency.as_str(),
                        doing,
                        error,
                        suppressed = before,
                        "a dependency does not answer"
                    );
                }
            }
            Event::StoreRefused { doing, error } => {
                if let Some(before) = self.trouble(Dependency::Store, doing) {
                    let error = without_source_line(error);
                    warn!(
                        event = "store.refused",
                        doing,
                        error,
                        suppressed = before,
                        "the database refuses this for what is in it; nothing else waits for it"
                    );
                }
            }
            Event::DependencyRecovered { dependency } => {
                self.recovered(*dependency);
                info!(
                    event = "dependency.recovered",
                    dependency = dependency.as_str(),
                    "a dependency answers again"
                );
            }
            Event::Panicked { doing, error } => error!(
                event = "defect.panicked",
                doing, error, "a defect: this was given up, and what comes after it goes on"
            ),
            // Spans are for a collector.
            Event::Traced(_) => {}
            Event::SpansSent { count } => {
                trace!(event = "spans.sent", count, "the collector took spans");
            }
            // Why, was said when it began to fail.
            Event::SpansDropped { count } => {
                debug!(event = "spans.dropped", count, "spans were lost");
            }
            // Kinds that a later version of the ports adds.
            other => debug!(event = "other", detail = ?other, "something else happened"),
        }
    }
}

fn trace_id(trace: &Option<TraceContext>) -> Option<String> {
    trace.as_ref().map(|context| context.trace_id().to_string())
}

impl LogObserver {
    fn trouble(&self, dependency: Dependency, doing: &'static str) -> Option<u64> {
        self.troubles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note(dependency, doing, Instant::now())
    }

    fn recovered(&self, dependency: Dependency) {
        self.troubles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .forget(dependency);
    }
}

/// When each kind of trouble was last logged, and how often it was seen since.
#[derive(Default)]
struct Troubles(BTreeMap<(Dependency, &'static str), (Instant, u64)>);

impl Troubles {
    /// Notes a trouble; `Some` when it is to be logged, with the number of times it was not.
    fn note(&mut self, dependency: Dependency, doing: &'static str, now: Instant) -> Option<u64> {
        match self.0.get_mut(&(dependency, doing)) {
            Some((logged, suppressed)) if now.duration_since(*logged) < REPEAT => {
                *suppressed += 1;
                None
            }
            Some(entry) => {
                let suppressed = entry.1;
                *entry = (now, 0);
                Some(suppressed)
            }
            None => {
                self.0.insert((dependency, doing), (now, 0));
                Some(0)
            }
        }
    }

    /// The dependency answers: its next trouble is news.
    fn forget(&mut self, dependency: Dependency) {
        self.0.retain(|(about, _), _| *about != dependency);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lasting_trouble_is_logged_once_in_ten_seconds() {
        let mut troubles = Troubles::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(troubles.note(Dependency::Log, "receive", at(0)), Some(0));
        assert_eq!(troubles.note(Dependency::Log, "receive", at(1)), None);
        assert_eq!(troubles.note(Dependency::Log, "announce", at(1)), Some(0));
        assert_eq!(troubles.note(Dependency::Log, "receive", at(9)), None);
        assert_eq!(troubles.note(Dependency::Log, "receive", at(10)), Some(2));
        assert_eq!(troubles.note(Dependency::Log, "receive", at(11)), None);
    }

    #[test]
    fn after_a_recovery_the_next_trouble_is_news() {
        let mut troubles = Troubles::default();
        let now = Instant::now();
        assert_eq!(troubles.note(Dependency::Cache, "look up", now), Some(0));
        assert_eq!(troubles.note(Dependency::Store, "insert", now), Some(0));
        troubles.forget(Dependency::Cache);
        assert_eq!(troubles.note(Dependency::Cache, "look up", now), Some(0));
        assert_eq!(troubles.note(Dependency::Store, "insert", now), None);
    }

    #[test]
    fn a_tee_tells_every_observer() {
        #[derive(Default)]
        struct Count(Mutex<u32>);
        impl Observer for Count {
            fn observe(&self, _event: &Event) {
                *self.0.lock().expect("not poisoned") += 1;
            }
        }
        let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let tee = Tee::new(vec![first.clone(), second.clone()]);
        tee.observe(&Event::Rescued { count: 1 });
        assert_eq!(*first.0.lock().expect("not poisoned"), 1);
        assert_eq!(*second.0.lock().expect("not poisoned"), 1);
    }
}
