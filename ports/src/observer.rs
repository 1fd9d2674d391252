//! What happened, for logs, metrics and traces.

use std::time::Duration;

use crate::task::{TaskId, TaskStatus};
use crate::trace::{Span, TraceContext};

/// Something outside that the service needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependency {
    /// The task store and the worker registry.
    Store,
    /// The log: publishing, receiving, announcing.
    Log,
    /// The result cache.
    Cache,
    /// Whoever collects traces. Nothing but traces is lost while it is down.
    Collector,
}

impl Dependency {
    /// Every dependency.
    pub const ALL: [Self; 4] = [Self::Store, Self::Log, Self::Cache, Self::Collector];

    /// A name for logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Log => "log",
            Self::Cache => "cache",
            Self::Collector => "collector",
        }
    }
}

/// Why a delivered record claimed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SkipReason {
    /// The task's time has not come.
    Early,
    /// The task is done, failed or cancelled.
    AtRest,
    /// Someone else has the task.
    InHand,
    /// The same id came earlier in the same batch.
    Repeated,
    /// No such task.
    Unknown,
    /// The record cannot be read.
    Unreadable,
}

impl SkipReason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Early,
        Self::AtRest,
        Self::InHand,
        Self::Repeated,
        Self::Unknown,
        Self::Unreadable,
    ];

    /// A name for logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Early => "early",
            Self::AtRest => "at_rest",
            Self::InHand => "in_hand",
            Self::Repeated => "repeated",
            Self::Unknown => "unknown",
            Self::Unreadable => "unreadable",
        }
    }
}

/// How a batch was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimedBy {
    /// The log brought the ids.
    Delivery,
    /// They had waited long enough.
    Age,
}

impl ClaimedBy {
    /// A name for logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivery => "delivery",
            Self::Age => "age",
        }
    }
}

/// A contradiction between the tasks and the books about them, by what it was. Nothing that the service does makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Repair {
    /// A queue row whose task does not wait, or does not exist: it was deleted.
    QueueRowWithoutWaitingTask,
    /// A recorded claim whose worker is not registered: its tasks went back, what it had brought to rest was announced, and
    /// it was released.
    ClaimWithoutWorker,
    /// A waiting task without a queue row: it got one. Tasks that another program wrote are among them when their message
    /// is late, or never came.
    WaitingTaskWithoutQueueRow,
    /// A task in no recorded claim that was said to be in someone's hands: it waits again.
    ProcessingTaskWithoutClaim,
    /// A failed or cancelled task that the list of those lacked: it was listed.
    StoppedTaskWithoutListEntry,
    /// An entry in that list whose task is not what it says, or does not exist: it was deleted.
    ListEntryWithoutStoppedTask,
}

impl Repair {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::QueueRowWithoutWaitingTask,
        Self::ClaimWithoutWorker,
        Self::WaitingTaskWithoutQueueRow,
        Self::ProcessingTaskWithoutClaim,
        Self::StoppedTaskWithoutListEntry,
        Self::ListEntryWithoutStoppedTask,
    ];

    /// A name for logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueRowWithoutWaitingTask => "queue_row_without_waiting_task",
            Self::ClaimWithoutWorker => "claim_without_worker",
            Self::WaitingTaskWithoutQueueRow => "waiting_task_without_queue_row",
            Self::ProcessingTaskWithoutClaim => "processing_task_without_claim",
            Self::StoppedTaskWithoutListEntry => "stopped_task_without_list_entry",
            Self::ListEntryWithoutStoppedTask => "list_entry_without_stopped_task",
        }
    }
}

/// Where a finished task is looked for, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// In the memory of this process.
    Process,
    /// In the cache that processes share.
    Shared,
    /// In the store.
    Store,
}

impl Tier {
    /// Every tier.
    pub const ALL: [Self; 3] = [Self::Process, Self::Shared, Self::Store];

    /// A name for logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Shared => "shared",
            Self::Store => "store",
        }
    }
}

/// How a run of a processing function ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunOutcome {
    /// With a result.
    Success,
    /// With a failure that another run may mend.
    Retryable,
    /// With a failure that no other run mends.
    Permanent,
    /// Not before its deadline.
    Timeout,
    /// In a panic.
    Panic,
    /// Something the function needs is down: no attempt was spent.
    Unavailable,
}

impl RunOutcome {
    /// Every outcome.
    pub const ALL: [Self; 6] = [
        Self::Success,
        Self::Retryable,
        Self::Permanent,
        Self::Timeout,
        Self::Panic,
        Self::Unavailable,
    ];

    /// A name for logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Retryable => "retryable",
            Self::Permanent => "permanent",
            Self::Timeout => "timeout",
            Self::Panic => "panic",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How a call of a processing function behind a URL ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallOutcome {
    /// With a result.
    Success,
    /// With a refusal of the task, or with a result that cannot be kept: no other call mends it.
    Permanent,
    /// With a failure of the service, or an answer that broke off: another call may mend it.
    Retryable,
    /// With the wish to be asked later.
    Throttled,
    /// The service does not believe that the call is ours: it knows another secret, or another clock.
    Refused,
    /// Not before its deadline.
    Timeout,
    /// The service could not be connected to: no attempt was spent.
    Unreachable,
}

impl CallOutcome {
    /// Every outcome.
    pub const ALL: [Self; 7] = [
        Self::Success,
        Self::Permanent,
        Self::Retryable,
        Self::Throttled,
        Self::Refused,
        Self::Timeout,
        Self::Unreachable,
    ];

    /// A name for logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Permanent => "permanent",
            Self::Retryable => "retryable",
            Self::Throttled => "throttled",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A step in which many tasks share one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// A commit of submitted tasks.
    Insert,
    /// Messages sent to the log together.
    Publish,
    /// A claim that holds something.
    Claim,
    /// A commit of what became of runs.
    Settle,
    /// Results and dead letters told together.
    Announce,
}

impl Step {
    /// Every step.
    pub const ALL: [Self; 5] = [
        Self::Insert,
        Self::Publish,
        Self::Claim,
        Self::Settle,
        Self::Announce,
    ];

    /// A name for logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Publish => "publish",
            Self::Claim => "claim",
            Self::Settle => "settle",
            Self::Announce => "announce",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Tasks were accepted: their commit is durable.
    Submitted {
        /// How many.
        count: usize,
    },
    /// Messages were confirmed by the log.
    Published {
        /// How many.
        count: usize,
    },
    /// Messages were not confirmed; their tasks will be claimed by age.
    PublishFailed {
        /// How many.
        count: usize,
        /// The first cause.
        error: String,
    },
    /// Delivered records claimed nothing and were acknowledged.
    Skipped {
        /// Why.
        reason: SkipReason,
        /// How many.
        count: usize,
    },
    /// Tasks were claimed.
    Claimed {
        /// How.
        by: ClaimedBy,
        /// How many.
        count: usize,
    },
    /// One call was made for this many tasks.
    Batched {
        /// Which call.
        step: Step,
        /// For how many tasks; at least one.
        size: usize,
    },
    /// A run of a processing function begins.
    Started {
        /// The task.
        id: TaskId,
        /// From when it might have been claimed until it was (store's clock).
        waited: Duration,
    },
    /// A run of a processing function ended.
    Ran {
        /// The task.
        id: TaskId,
        /// How long it ran.
        took: Duration,
        /// How it ended.
        outcome: RunOutcome,
        /// `None` for success, otherwise the failure's text.
        error: Option<String>,
        /// The trace it belongs to, if any.
        trace: Option<TraceContext>,
    },
    /// A call of a processing function behind a URL ended. Not told of one that was given up because its task was called off.
    Called {
        /// How it ended.
        outcome: CallOutcome,
    },
    /// A processing function behind a URL keeps failing: it is not called for a while, and then by one task at a time until
    /// it answers.
    CircuitOpened {
        /// How many calls in a row failed.
        failures: u32,
    },
    /// It answers again, and is called as before.
    CircuitClosed,
    /// A task moved on after a run.
    Settled {
        /// The task.
        id: TaskId,
        /// Where it is now: `done`, `failed`, `pending` (will be retried) or `cancelled`.
        status: TaskStatus,
        /// From its creation to its end in microseconds; for `done` only.
        elapsed_micros: Option<i64>,
        /// The trace it belongs to, if any.
        trace: Option<TraceContext>,
    },
    /// A result came too late: the task had moved since. It was dropped.
    Late {
        /// The task.
        id: TaskId,
        /// The trace it belongs to, if any.
        trace: Option<TraceContext>,
    },
    /// The store takes nothing of what came of a task, not even that it failed. Nothing else waits for it: it goes back when the rest
    /// of its claim has ended, and is run again.
    GivenUp {
        /// The task.
        id: TaskId,
        /// The trace it belongs to, if any.
        trace: Option<TraceContext>,
    },
    /// The log took dead letters.
    DeadLettered {
        /// How many.
        count: usize,
    },
    /// Someone called a task off.
    Cancelled {
        /// The task.
        id: TaskId,
    },
    /// Someone had a failed task tried again.
    Revived {
        /// The task.
        id: TaskId,
    },
    /// Tasks were given back unfinished at a stop; no attempt was spent.
    HandedBack {
        /// How many.
        count: usize,
    },
    /// Tasks were taken back from a dead worker.
    Rescued {
        /// How many.
        count: usize,
    },
    /// The audit found a contradiction and repaired it.
    Repaired {
        /// What was wrong.
        what: Repair,
        /// How often.
        count: usize,
    },
    /// Tasks at rest were deleted because of their age.
    Pruned {
        /// How many.
        count: usize,
    },
    /// This worker was declared dead while it lived, stopped its work and registers anew.
    Outlived {
        /// How many runs it gave up.
        abandoned: usize,
    },
    /// A cache lookup.
    CacheLookup {
        /// Whether it was found.
        hit: bool,
    },
    /// One tier was asked for the results of tasks.
    TierLookup {
        /// Which.
        tier: Tier,
        /// For how many tasks it held one.
        hits: usize,
        /// For how many it did not.
        misses: usize,
    },
    /// A dependency failed; told at every failure, what it was doing and why. Of the collector only the first of several in a
    /// row is told.
    DependencyFailed {
        /// Which.
        dependency: Dependency,
        /// What was being done.
        doing: &'static str,
        /// The error with its causes.
        error: String,
    },
    /// The store refuses something for what is in it, and would refuse it again: a constraint or a trigger of others forbids it,
    /// say. Nothing else waits for it.
    StoreRefused {
        /// What was being done.
        doing: &'static str,
        /// The error with its causes.
        error: String,
    },
    /// A dependency answers again after it failed.
    DependencyRecovered {
        /// Which.
        dependency: Dependency,
    },
    /// A turn of a loop panicked and was given up; the loop goes on, or of a worker's stage the next life of the worker.
    Panicked {
        /// What was being done.
        doing: &'static str,
        /// What the panic said.
        error: String,
    },
    /// A piece of work of a sampled trace ended.
    Traced(Span),
    /// The collector took spans.
    SpansSent {
        /// How many.
        count: usize,
    },
    /// Spans were lost: the collector did not take them, or not fast enough.
    SpansDropped {
        /// How many.
        count: usize,
    },
}

/// Is told what happened. Must return quickly: it is called in the middle of the work.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait Observer: Send + Sync {
    /// Takes note of an event.
    fn observe(&self, event: &Event);

    /// The place in a trace of a piece of work that begins: within the trace of `parent`, or in a new one. `None` when nobody
    /// traces; the parent is then passed on as it came. Where the answer is sampled, [`Event::Traced`] tells the end.
    fn begin_span(&self, parent: Option<TraceContext>) -> Option<TraceContext> {
        let _ = parent;
        None
    }
}

/// Takes note of nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn observe(&self, _event: &Event) {}
}
