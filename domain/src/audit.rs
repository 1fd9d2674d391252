//! Comparing the tasks with the books about them, all the time, and repairing what does not fit.
//!
//! Nothing that the service does strands a task; this finds what others did: rows edited by hand, written by the API of the
//! existing service and never published, restored from a backup. What it repairs is counted, so that nothing is repaired in
//! silence.

use std::time::Duration;

use ports::observer::Repair;
use ports::{
    AuditPage, Dependency, Event, Next, Spent, StoreError, Task, TaskId, TaskStatus, Timestamp,
    Transition, WriteOutcome,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::moves::move_each;
use crate::resolve::{BATCH, PAGE, Told, Unfinished, resolve};
use crate::{Ports, lifecycle, news, tell_of_failure};

/// How the audit goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// How often a stretch is walked. Default 1 s.
    pub interval: Duration,
    /// How many tasks a stretch has. Default 1,000: a table of 10 million rows is walked in three hours, at a cost that does
    /// not show. Of the queue, whose rows are few and narrow, up to ten times as many are compared, 10,000 at most: 100,000 in ten
    /// seconds.
    pub stretch: usize,
    /// How long a task must not have moved before it counts as stranded: the message of the existing API may be on its way.
    /// Default 10 s.
    pub unmoved_for: Duration,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            stretch: 1_000,
            unmoved_for: Duration::from_secs(10),
        }
    }
}

/// How many times as long a stretch of the queue is, as long as it is quick.
const OF_THE_QUEUE: usize = 10;

/// No stretch of the queue is made longer than this.
const LONGEST_OF_THE_QUEUE: usize = 10_000;

/// A stretch of the queue that took longer is followed by one of half the length: a store that is busy has better things to do.
const QUICK: Duration = Duration::from_millis(250);

/// Audits until dropped, whenever `on_duty` says that it is this one's turn: one auditor at a time is enough, and several do no harm.
pub(crate) async fn audit(
    ports: &Ports,
    config: AuditConfig,
    max_rescues: u32,
    on_duty: impl Fn() -> bool,
) {
    let mut ticks = interval(config.interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut walks = Walks::new(ports, config, max_rescues);
    loop {
        ticks.tick().await;
        if on_duty() {
            walks.step().await;
        }
    }
}

/// How far the walks have come.
struct Walks<'ports> {
    ports: &'ports Ports,
    stretch: usize,
    /// How many queue rows the next stretch of them has.
    queue_stretch: usize,
    unmoved_for: Duration,
    max_rescues: u32,
    /// The last task compared.
    tasks: Option<TaskId>,
    /// This walk went somewhere else after its first stretch.
    has_jumped: bool,
    /// The last queue row compared.
    queue: Option<TaskId>,
    /// The last entry of the list of failed and cancelled tasks compared.
    stopped: Option<TaskId>,
    /// The last entry of a cancelled task whose news, and that of all before it, is told.
    cancelled: Option<TaskId>,
    /// News that nobody told on its way to the log, which may be down; ends with where the walk goes on.
    news: JoinSet<Option<TaskId>>,
    /// Claims of nobody on their way to their end, one page at a time: they may wait for the log.
    orphans: JoinSet<Result<Told, StoreError>>,
    told: Told,
    /// The store did not answer when it was last asked.
    failing: bool,
}

impl<'ports> Walks<'ports> {
    fn new(ports: &'ports Ports, config: AuditConfig, max_rescues: u32) -> Self {
        Self {
            ports,
            stretch: config.stretch.max(1),
            queue_stretch: longest_of_the_queue(config.stretch.max(1)),
            unmoved_for: config.unmoved_for,
            max_rescues,
            tasks: None,
            has_jumped: false,
            queue: None,
            stopped: None,
            cancelled: None,
            news: JoinSet::new(),
            orphans: JoinSet::new(),
            told: Told::new(),
            failing: false,
        }
    }

    /// One stretch of each walk. What stops one does not stop the others.
    async fn step(&mut self) {
        let outcomes = [
            ("audit_queue", self.compare_queue().await),
            ("audit_claims", self.compare_claims().await),
            ("audit_stopped", self.compare_stopped().await),
            ("audit_news", self.tell_news().await),
            ("audit_tasks", self.compare_tasks().await),
        ];
        let was_failing = std::mem::take(&mut self.failing);
        for (doing, outcome) in outcomes {
            if let Err(error) = outcome {
                self.failing = true;
                tell_of_failure(&*self.ports.observer, Dependency::Store, doing, &error);
            }
        }
        if was_failing && !self.failing {
            let dependency = Dependency::Store;
            let recovered = Event::DependencyRecovered { dependency };
            self.ports.observer.observe(&recovered);
        }
    }

    async fn compare_queue(&mut self) -> Result<(), StoreError> {
        let audit = &self.ports.audit;
        let begun = Instant::now();
        let swept = audit.sweep_queue(self.queue, self.queue_stretch).await;
        self.queue_stretch = if begun.elapsed() > QUICK {
            (self.queue_stretch / 2).max(self.stretch)
        } else {
            (self.queue_stretch * 2).min(longest_of_the_queue(self.stretch))
        };
        let (deleted, next) = swept?;
        self.queue = next;
        self.repaired(Repair::QueueRowWithoutWaitingTask, deleted);
        Ok(())
    }

    /// Looks for claims of nobody, unless those of an earlier look still wait for the log: no other walk waits with them.
    async fn compare_claims(&mut self) -> Result<(), StoreError> {
        if let Some(Ok(ended)) = self.orphans.try_join_next() {
            self.told = ended?;
        }
        if !self.orphans.is_empty() {
            return Ok(());
        }
        let orphans = self.ports.audit.orphaned_claims(PAGE).await?;
        if orphans.is_empty() {
            return Ok(());
        }
        let (ports, limit) = (self.ports.clone(), self.max_rescues);
        let mut told = std::mem::take(&mut self.told);
        self.orphans.spawn(async move {
            let rescue = Unfinished::Rescue { limit };
            let resolved = resolve(&ports, &orphans, rescue, &mut told).await?;
            // What the log does not take, or the store refuses, stays recorded, and is found again.
            if resolved.announced {
                let ended = orphans.len() - resolved.kept;
                repaired(&ports, Repair::ClaimWithoutWorker, ended);
            }
            Ok(told)
        });
        Ok(())
    }

    async fn compare_stopped(&mut self) -> Result<(), StoreError> {
        let audit = &self.ports.audit;
        let (deleted, next) = audit.sweep_stopped(self.stopped, self.stretch).await?;
        self.stopped = next;
        self.repaired(Repair::ListEntryWithoutStoppedTask, deleted);
        Ok(())
    }

    /// Tells of cancelled tasks what whoever cancelled them could not. What the log does not take is offered again, and no other
    /// walk waits with it.
    async fn tell_news(&mut self) -> Result<(), StoreError> {
        if let Some(Ok(last_told)) = self.news.try_join_next() {
            self.cancelled = last_told;
        }
        if !self.news.is_empty() {
            return Ok(());
        }
        let after = self.cancelled;
        let stretch = longest_of_the_queue(self.stretch);
        let untold = self.ports.audit.untold(after, stretch, self.unmoved_for);
        let (events, next) = untold.await?;
        if events.is_empty() {
            self.cancelled = next;
            return Ok(());
        }
        let ports = self.ports.clone();
        self.news.spawn(async move {
            for batch in events.chunks(BATCH) {
                if !news::tell(&ports, batch).await {
                    return after;
                }
            }
            next
        });
        Ok(())
    }

    async fn compare_tasks(&mut self) -> Result<(), StoreError> {
        let page = self
            .ports
            .audit
            .stranded(self.tasks, self.stretch, self.unmoved_for)
            .await?;
        let repaired = self.repair(&page).await;
        // What could not be repaired is looked at again, unless it never can be: it must not hold up the walk.
        if repaired
            .as_ref()
            .err()
            .is_none_or(|error| !error.is_transient())
        {
            self.tasks = page.next;
            if let Some(first) = page.next.filter(|_| !self.has_jumped) {
                self.has_jumped = true;
                let (now, drawn) = (self.ports.clock.now(), self.ports.random.next());
                self.tasks = Some(somewhere_after(first, now, drawn));
            }
        }
        repaired
    }

    async fn repair(&self, page: &AuditPage) -> Result<(), StoreError> {
        let stranded = &page.stranded;
        let waiting: Vec<TaskId> = of_status(stranded, TaskStatus::Pending)
            .map(|task| task.id)
            .collect();
        // What the store refuses of one kind keeps nothing else from being repaired.
        let enqueued = match &waiting[..] {
            [] => Ok(0),
            waiting => self.ports.audit.enqueue(waiting).await,
        };
        let given = enqueued.as_ref().copied().unwrap_or_default();
        self.repaired(Repair::WaitingTaskWithoutQueueRow, given);
        let in_no_hand: Vec<Transition> = of_status(stranded, TaskStatus::Processing)
            .map(|task| {
                let again = Next::Pending {
                    delay: Duration::ZERO,
                    error: None,
                };
                lifecycle::advance(task, again, Spent::Nothing)
            })
            .collect();
        if !in_no_hand.is_empty() {
            let outcomes = move_each(self.ports, "audit_tasks", &in_no_hand).await?;
            let moved = outcomes
                .iter()
                .flatten()
                .filter(|outcome| outcome.write == WriteOutcome::Applied)
                .count();
            self.repaired(Repair::ProcessingTaskWithoutClaim, moved);
        }
        if !page.unlisted.is_empty() {
            let listed = self.ports.audit.enlist(&page.unlisted).await?;
            self.repaired(Repair::StoppedTaskWithoutListEntry, listed);
        }
        enqueued.map(drop)
    }

    fn repaired(&self, what: Repair, count: usize) {
        repaired(self.ports, what, count);
    }
}

/// Where a walk goes on after its first stretch, as the number drawn says. Workers that were started together and take turns would
/// otherwise walk in step, all of them over the same part of a long table, and leave the rest for long. Ids of version 7 stand
/// between there and now; those of another version, which tell no time, anywhere.
fn somewhere_after(first: TaskId, now: Timestamp, drawn: u64) -> TaskId {
    let millis = if first.0.get_version_num() == 7 {
        let begun = first.made_at().as_micros() / 1_000;
        let span = (now.as_micros() / 1_000).saturating_sub(begun);
        let ahead = drawn.checked_rem(u64::try_from(span).unwrap_or_default());
        u64::try_from(begun).unwrap_or_default() + ahead.unwrap_or_default()
    } else {
        // As many bits as an id has for its time.
        drawn >> 16
    };
    TaskId::first_at(Timestamp::EPOCH.after(Duration::from_millis(millis))).max(first)
}

fn longest_of_the_queue(stretch: usize) -> usize {
    let longer = stretch.saturating_mul(OF_THE_QUEUE);
    longer.min(LONGEST_OF_THE_QUEUE).max(stretch)
}

fn repaired(ports: &Ports, what: Repair, count: usize) {
    if count > 0 {
        ports.observer.observe(&Event::Repaired { what, count });
    }
}

fn of_status(tasks: &[Task], status: TaskStatus) -> impl Iterator<Item = &Task> {
    tasks.iter().filter(move |task| task.status == status)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_735_689_610_000_000);

    fn jump(first: &str, drawn: u64) -> String {
        let first = first.parse().expect("an id");
        somewhere_after(first, NOW, drawn).to_string()
    }

    #[test]
    fn a_walk_over_ids_that_tell_their_time_goes_on_between_them_and_now() {
        // Made 10 s before now.
        let first = "01941f29-7c00-7abc-8def-0123456789ab";
        assert_eq!(jump(first, 0), first);
        assert_eq!(jump(first, 1), "01941f29-7c01-0000-0000-000000000000");
        assert_eq!(jump(first, 9_999), "01941f29-a30f-0000-0000-000000000000");
        assert_eq!(jump(first, 10_000), first);
        let later = "02941f29-7c00-7abc-8def-0123456789ab";
        assert_eq!(jump(later, u64::MAX), later, "made after now");
    }

    #[test]
    fn a_walk_over_ids_that_tell_no_time_goes_on_anywhere() {
        let first = "00418937-4bc6-4abc-8def-0123456789ab";
        let drawn = 0x89ab_cdef_0123_4567;
        assert_eq!(jump(first, drawn), "89abcdef-0123-0000-0000-000000000000");
        assert_eq!(
            jump(first, u64::MAX),
            "ffffffff-ffff-0000-0000-000000000000"
        );
        assert_eq!(jump(first, 0), first, "never back");
    }
}
