//! Why a task is not done yet, as a code and as a sentence.

use std::fmt;

use ports::{Fence, Inspection, Place, TaskStatus, Timestamp};

/// Why a task is not done yet. `Display` is the sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It is the next: its message is on its way, or a worker with room is about to take it.
    NotDelivered,
    /// Others wait for longer.
    Behind {
        /// How many.
        count: usize,
        /// Whether there are more than were counted.
        more: bool,
    },
    /// It may start, and no worker is registered that was not declared dead.
    NoWorker,
    /// It was submitted to run at a later time.
    Scheduled {
        /// That time.
        until: Timestamp,
    },
    /// It was tried, and is to be tried again later.
    BackingOff {
        /// Not before this time.
        until: Timestamp,
        /// The last error, if there was one.
        error: Option<String>,
    },
    /// A worker has it in hand.
    Claimed {
        /// The worker's name or, without one, its id.
        by: String,
        /// Since when.
        since: Timestamp,
    },
    /// The books about it contradict themselves; the audit puts them right.
    Stranded,
    /// It gave up.
    Failed {
        /// The last error.
        error: Option<String>,
    },
    /// It was called off.
    Cancelled,
}

impl Reason {
    /// Every code there is.
    pub const CODES: [&'static str; 9] = [
        "not-delivered",
        "behind",
        "no-worker",
        "scheduled",
        "backing-off",
        "claimed",
        "stranded",
        "failed",
        "cancelled",
    ];

    /// The name for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        let [
            not_delivered,
            behind,
            no_worker,
            scheduled,
            backing_off,
            claimed,
            stranded,
            failed,
            cancelled,
        ] = Self::CODES;
        match self {
            Self::NotDelivered => not_delivered,
            Self::Behind { .. } => behind,
            Self::NoWorker => no_worker,
            Self::Scheduled { .. } => scheduled,
            Self::BackingOff { .. } => backing_off,
            Self::Claimed { .. } => claimed,
            Self::Stranded => stranded,
            Self::Failed { .. } => failed,
            Self::Cancelled => cancelled,
        }
    }

    /// Whether it waits for nothing but a worker.
    pub(super) const fn is_due(&self) -> bool {
        matches!(self, Self::NotDelivered | Self::Behind { .. })
    }

    /// What the books say; `None` for a task that is done.
    pub(super) fn of(inspection: &Inspection, counted: usize) -> Option<Self> {
        let task = &inspection.task;
        Some(match (task.status, &inspection.place) {
            (TaskStatus::Done, _) => return None,
            (TaskStatus::Failed, _) => Self::Failed {
                error: task.error.clone(),
            },
            (TaskStatus::Cancelled, _) => Self::Cancelled,
            (TaskStatus::Pending, Place::Queued { not_before, .. })
                if *not_before > inspection.now =>
            {
                let until = *not_before;
                if task.fence == Fence::default() {
                    Self::Scheduled { until }
                } else {
                    let error = task.error.clone();
                    Self::BackingOff { until, error }
                }
            }
            (TaskStatus::Pending, Place::Queued { ahead: 0, .. }) => Self::NotDelivered,
            (TaskStatus::Pending, Place::Queued { ahead, .. }) => Self::Behind {
                count: (*ahead).min(counted),
                more: *ahead > counted,
            },
            // Another program wrote it, and its message may be on its way.
            (TaskStatus::Pending, _) if task.fence == Fence::default() => Self::NotDelivered,
            (
                TaskStatus::Processing,
                Place::Claimed {
                    worker,
                    worker_name,
                    claimed_at,
                },
            ) => Self::Claimed {
                by: worker_name.clone().unwrap_or_else(|| worker.to_string()),
                since: *claimed_at,
            },
            (TaskStatus::Pending | TaskStatus::Processing, _) => Self::Stranded,
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDelivered => {
                formatter.write_str("No one waits for longer; it is not delivered to a worker yet.")
            }
            Self::Behind { count, more: true } => {
                write!(formatter, "It waits behind more than {count} others.")
            }
            Self::Behind { count: 1, .. } => formatter.write_str("It waits behind 1 other."),
            Self::Behind { count, .. } => write!(formatter, "It waits behind {count} others."),
            Self::NoWorker => formatter.write_str("No worker is there to take it."),
            Self::Scheduled { until } => write!(formatter, "It is scheduled for {until}."),
            Self::BackingOff {
                until,
                error: Some(error),
            } => write!(
                formatter,
                "It is tried again at {until}, because the last attempt ended with: {error}"
            ),
            Self::BackingOff { until, error: None } => {
                write!(
                    formatter,
                    "It was handed back and is tried again at {until}."
                )
            }
            Self::Claimed { by, since } => {
                write!(formatter, "The worker {by} has it in hand since {since}.")
            }
            Self::Stranded => formatter.write_str(
                "It is neither queued nor in hand; the audit puts it back in the queue.",
            ),
            Self::Failed { error: Some(error) } => {
                write!(formatter, "It failed with: {error}")
            }
            Self::Failed { error: None } => formatter.write_str("It failed."),
            Self::Cancelled => formatter.write_str("It was cancelled."),
        }
    }
}
