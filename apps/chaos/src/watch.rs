//! Watching from outside while a run goes on: memory, the programs' own counters, the age of what waits.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use crate::clock;
use crate::database::Database;
use crate::fleet::{Role, Slot};
use crate::process::resident_kib;

const INTERVAL: Duration = Duration::from_secs(2);

/// The memory of one process at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) at: i64,
    pub(crate) role: Role,
    pub(crate) index: usize,
    pub(crate) pid: u32,
    pub(crate) kib: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) memory: Vec<Sample>,
    /// The last value of every counter, by process.
    pub(crate) counters: BTreeMap<u32, BTreeMap<String, f64>>,
    /// How long the oldest due task had waited, in microseconds, by time.
    pub(crate) ages: Vec<(i64, i64)>,
}

impl Seen {
    /// The sum of a counter over all processes, as far as they were asked before they ended.
    pub(crate) fn total(&self, counter: &str) -> u64 {
        let of_all = self.counters.values().filter_map(|of| of.get(counter));
        of_all.sum::<f64>() as u64
    }
}

#[derive(Default)]
pub(crate) struct Watcher(Mutex<Seen>);

impl Watcher {
    pub(crate) fn seen(&self) -> Seen {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Watches one process after another in this place.
    pub(crate) async fn follow(self: Arc<Self>, slot: Arc<Slot>) {
        loop {
            let pid = slot.pid.load(Ordering::Relaxed);
            if let Some(kib) = resident_kib(pid).filter(|_| pid != 0) {
                let sample = Sample {
                    at: clock::now(),
                    role: slot.role,
                    index: slot.index,
                    pid,
                    kib,
                };
                self.note(|seen| seen.memory.push(sample));
            }
            let answer = slot.client.get("/metrics", "text/plain").await;
            if let Ok(answer) = answer
                && slot.pid.load(Ordering::Relaxed) == pid
            {
                let counters = counters(&String::from_utf8_lossy(&answer.body));
                self.note(|seen| drop(seen.counters.insert(pid, counters)));
            }
            sleep(INTERVAL).await;
        }
    }

    /// Watches the queue of the database at this port.
    pub(crate) async fn follow_queue(self: Arc<Self>, port: u16) {
        let mut database = None;
        loop {
            if database.is_none() {
                database = Database::connect(port).await.ok();
            }
            if let Some(open) = &database {
                match open.backlog().await {
                    Ok(backlog) => self.note(|seen| seen.ages.push((clock::now(), backlog.age))),
                    // It is away.
                    Err(_) => database = None,
                }
            }
            sleep(INTERVAL / 4).await;
        }
    }
}

/// What counts runs that were ended at their deadline, as the scrape writes it and as it is called here.
const TIMED_OUT: (&str, &str) = (
    "run_duration_seconds_count{outcome=\"timeout\"}",
    "runs_timed_out",
);

/// The counters of a scrape: names without the prefix, sums over labels.
fn counters(text: &str) -> BTreeMap<String, f64> {
    let mut counters = BTreeMap::new();
    for line in text.lines() {
        let Some((series, value)) = line
            .strip_prefix("task_processor_")
            .and_then(|line| line.rsplit_once(' '))
        else {
            continue;
        };
        let name = series.split('{').next().unwrap_or(series);
        let name = if series == TIMED_OUT.0 {
            Some(TIMED_OUT.1)
        } else {
            name.strip_suffix("_total")
        };
        if let Some(name) = name
            && let Ok(value) = value.parse::<f64>()
        {
            *counters.entry(name.to_owned()).or_insert(0.0) += value;
        }
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_summed_over_labels() {
        let text = "# TYPE task_processor_tasks_claimed_total counter\n\
            task_processor_tasks_claimed_total{by=\"age\"} 2\n\
            task_processor_tasks_claimed_total{by=\"delivery\"} 5\n\
            task_processor_ready 1\n\
            task_processor_run_duration_seconds_count{outcome=\"success\"} 9\n\
            task_processor_run_duration_seconds_count{outcome=\"timeout\"} 4\n\
            task_processor_results_late_total 3\n";
        let found = counters(text);
        assert_eq!(found.get("tasks_claimed"), Some(&7.0));
        assert_eq!(found.get("results_late"), Some(&3.0));
        assert_eq!(found.get("runs_timed_out"), Some(&4.0));
        assert_eq!(found.len(), 3);
    }
}
