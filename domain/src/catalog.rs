//! Finding tasks, and saying why one is not done yet.

mod pace;
mod reason;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ports::{
    Inspection, Listing, Place, Priority, StoreError, Task, TaskId, TaskStatus, Timestamp,
};
use tokio::time::{Instant, sleep};

use crate::Ports;
use crate::again::for_a_client;
use pace::Pace;

pub use reason::Reason;

/// How many tasks one search looks at, how long it may take, and how much text it answers.
const ROWS: usize = 20_000;
const TIME: Duration = Duration::from_millis(250);
const BYTES: usize = 1024 * 1024;

/// How many it looks at in one question.
const STEP: usize = 4_000;

/// The clock that made an id and the store's may differ by less than this.
const MARGIN: Duration = Duration::from_secs(24 * 3_600);

/// 2020-01-01: no id of version 7 was made earlier.
const FIRST_IDS: Timestamp = Timestamp::from_micros(1_577_836_800_000_000);

/// How far those ahead of a task are counted.
const COUNTED: usize = 10_000;

/// How often it is looked how fast tasks become done.
const PACE_INTERVAL: Duration = Duration::from_secs(5);

/// What is looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// Only tasks of this status.
    pub status: Option<TaskStatus>,
    /// Only tasks of this priority.
    pub priority: Option<Priority>,
    /// Only tasks created at this time or later.
    pub created_from: Option<Timestamp>,
    /// Only tasks created earlier than this.
    pub created_before: Option<Timestamp>,
    /// Only tasks with smaller ids: where an earlier page ended.
    pub below: Option<TaskId>,
    /// How many at most; at least 1.
    pub limit: usize,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In descending order of id: the newest first, as far as ids are of version 7.
    pub tasks: Vec<Task>,
    /// Below which id the next page begins; `None` when there is none. A page may be short, or empty, and not be the last: one
    /// search looks at a bounded number of tasks.
    pub next: Option<TaskId>,
}

/// A task, and why it is not done yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The task and where it is.
    pub inspection: Inspection,
    /// Why it is not done; `None` when it is.
    pub reason: Option<Reason>,
    /// When it is likely to start; `None` when that is not known, or when it has started or is at rest.
    pub estimated_start: Option<Timestamp>,
}

/// Finds tasks and explains them.
#[derive(Clone)]
pub struct Catalog {
    ports: Ports,
    pace: Arc<Mutex<Pace>>,
}

impl Catalog {
    /// One on these ports.
    #[must_use]
    pub fn new(ports: &Ports) -> Self {
        Self {
            ports: ports.clone(),
            pace: Arc::default(),
        }
    }

    /// Looks for tasks, the newest first. Whoever follows `next` meets each task that keeps matching exactly once, whatever
    /// happens meanwhile.
    ///
    /// Ids of version 7 tell their time, so a search by age passes over those that lie a day or more out of it; an id of another
    /// version that by chance looks like one of these is passed over with them.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer a question within 3 s, in which it is asked again.
    pub async fn search(&self, search: &Search) -> Result<Page, StoreError> {
        let give_up = Instant::now() + TIME;
        let now = self.ports.clock.now();
        let limit = search.limit.max(1);
        let mut page = Page {
            tasks: Vec::new(),
            next: search.below,
        };
        let mut walk = limit.min(STEP);
        let (mut rows, mut bytes) = (ROWS, BYTES);
        loop {
            let listing = Listing {
                status: search.status,
                priority: search.priority,
                created_from: search.created_from,
                created_before: search.created_before,
                below: page.next.map(|below| passed_over(search, below, now)),
                walk,
                limit: limit - page.tasks.len(),
                bytes,
            };
            let listed = for_a_client(&self.ports, "list", || self.ports.catalog.list(&listing));
            let listed = listed.await?;
            rows = rows.saturating_sub(walk);
            bytes = listed.tasks.iter().fold(bytes, |left, task| {
                left.saturating_sub(task.payload.as_str().len() + length(task))
            });
            page.tasks.extend(listed.tasks);
            page.next = listed.next;
            let is_full = page.tasks.len() >= limit || bytes == 0;
            if page.next.is_none() || is_full || rows == 0 || Instant::now() >= give_up {
                return Ok(page);
            }
            walk = (walk * 4).min(STEP).min(rows);
        }
    }

    /// Reads a task and finds out why it is not done yet; `None` for an unknown id.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer within 3 s, in which it is asked again.
    pub async fn explain(&self, id: TaskId) -> Result<Option<Explanation>, StoreError> {
        for_a_client(&self.ports, "explain", || self.explanation(id)).await
    }

    async fn explanation(&self, id: TaskId) -> Result<Option<Explanation>, StoreError> {
        let counted_up_to = COUNTED + 1;
        let Some(inspection) = self.ports.catalog.inspect(id, counted_up_to).await? else {
            return Ok(None);
        };
        let mut reason = Reason::of(&inspection, COUNTED);
        let mut rate = None;
        if reason.as_ref().is_some_and(Reason::is_due) {
            rate = self.rate().await?;
            if !self.has_worker().await? {
                reason = Some(Reason::NoWorker);
            }
        }
        let estimated_start = match (&reason, &inspection.place) {
            (Some(reason), Place::Queued { ahead, .. }) if reason.is_due() => {
                rate.map(|per_second| pace::after(inspection.now, *ahead, per_second))
            }
            (Some(Reason::Scheduled { until } | Reason::BackingOff { until, .. }), _) => {
                Some(*until)
            }
            _ => None,
        };
        Ok(Some(Explanation {
            inspection,
            reason,
            estimated_start,
        }))
    }

    /// Looks every few seconds how much is done, for as long as it is polled, so that the first who asks for an explanation is told
    /// when his task is likely to start. Whoever does not run it learns that from the second question on. A store that is down is
    /// looked at again next time.
    pub async fn keep_pace(&self) {
        loop {
            sleep(PACE_INTERVAL).await;
            let _ = self.rate().await;
        }
    }

    /// Whether a worker is registered that was not declared dead.
    async fn has_worker(&self) -> Result<bool, StoreError> {
        let workers = self.ports.registry.workers().await?;
        Ok(workers.iter().any(|worker| !worker.dead))
    }

    /// How many tasks become done a second, from looks at the totals; `None` until there are two.
    async fn rate(&self) -> Result<Option<f64>, StoreError> {
        let now = self.ports.clock.now();
        let is_stale = self.pace().is_stale(now);
        if is_stale {
            let done = self.ports.store.totals().await?.done;
            self.pace().note(now, done);
        }
        Ok(self.pace().per_second(now))
    }

    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn length(task: &Task) -> usize {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    length(&task.result) + length(&task.error)
}

/// Where to go on, once the ids whose time is out of the search are left out.
fn passed_over(search: &Search, below: TaskId, now: Timestamp) -> TaskId {
    // Above this, ids are none of version 7; they have to be looked at.
    let ceiling = TaskId::first_at(now.after(MARGIN));
    if below > ceiling {
        return below;
    }
    let latest = search
        .created_before
        .map(|time| TaskId::first_at(time.after(MARGIN)));
    let below = latest.map_or(below, |latest| below.min(latest));
    let earliest = search
        .created_from
        .map(|time| TaskId::first_at(time.before(MARGIN)));
    let first = TaskId::first_at(FIRST_IDS);
    match earliest {
        Some(earliest) if below <= earliest => below.min(first),
        _ => below,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    fn at(day: i64) -> Timestamp {
        FIRST_IDS.after(Duration::from_micros((day * DAY).unsigned_abs()))
    }

    #[test]
    fn ids_out_of_the_time_are_passed_over_and_others_are_not() {
        let search = Search {
            created_from: Some(at(100)),
            created_before: Some(at(110)),
            ..Search::default()
        };
        let check = |below: TaskId, expected: TaskId| {
            assert_eq!(passed_over(&search, below, at(1_000)), expected);
        };
        let id = |day| TaskId::first_at(at(day));
        // Newer than the search, within it, and older.
        check(id(900), id(111));
        check(id(111), id(111));
        check(id(105), id(105));
        check(id(99), id(0));
        check(id(50), id(0));
        // Of no time.
        let of_none = id(1_002);
        check(of_none, of_none);
        let lowest = TaskId::first_at(Timestamp::EPOCH);
        check(lowest, lowest);
        let unbounded = Search::default();
        assert_eq!(passed_over(&unbounded, id(50), at(1_000)), id(50));
    }
}
