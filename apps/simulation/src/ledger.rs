//! What clients asked for and what they were told: all that the checker may hold against the system.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::{Accepted, Submission};
use ports::{TaskId, TaskResult, TaskStatus, Timestamp};

use crate::plan::Order;
use crate::script::Script;

/// What a client was told about a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing: the connection broke, or it waited long enough.
    Nothing,
    /// `201`.
    Accepted { id: TaskId, created_at: Timestamp },
    /// That it is not known whether it was stored.
    Unavailable,
    /// That it was refused and nothing was stored.
    Refused(String),
}

/// A submission of a client.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) payload: String,
    pub(crate) submission: Submission,
    pub(crate) script: Script,
    pub(crate) max_attempts: u32,
    pub(crate) run_at: Option<Timestamp>,
    /// Submissions with one number were sent as one request: all are stored, or none.
    pub(crate) request: usize,
    /// The store cannot keep it.
    pub(crate) is_poison: bool,
    /// Of a request with a key: the best that a client was told, and `Nothing` if it was not accepted.
    pub(crate) told: Told,
    /// Virtual microseconds when the client was told.
    pub(crate) told_at: i64,
    /// Sent in the quiet at the end, where limits of time hold.
    pub(crate) is_probe: bool,
}

/// What a client was told about a request with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing, or that it is not known whether it was stored.
    Nothing,
    Accepted(Vec<Accepted>),
    /// That the key was used for another request.
    Reused,
    Refused(String),
}

/// A body that was sent under a key, once or more often.
#[derive(Clone, Debug)]
pub(crate) struct Keyed {
    pub(crate) key: usize,
    /// Its submissions, by their place in [`Entries::asked`].
    pub(crate) asked: Range<usize>,
    /// One for each time that it was sent.
    pub(crate) heard: Vec<Heard>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Obeyed,
    /// `409`.
    Refused(TaskStatus),
    Unknown,
    /// That it is not known whether it was obeyed.
    Unavailable,
}

/// An order of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ordered {
    pub(crate) id: TaskId,
    pub(crate) order: Order,
    /// Virtual microseconds.
    pub(crate) began_at: i64,
    /// `None` while, or because, nobody answered.
    pub(crate) answer: Option<(Answer, i64)>,
    /// What must be answered, given when nothing strikes.
    pub(crate) must_be: Option<Answer>,
}

/// A row that another program wrote.
#[derive(Clone, Debug)]
pub(crate) struct Planted {
    pub(crate) id: TaskId,
    pub(crate) payload: String,
    pub(crate) script: Script,
    /// A message was sent for it, and neither the weather nor anyone else took it from the topic.
    pub(crate) has_message: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Done(TaskResult),
    Unfinished(TaskStatus),
    Unknown,
    Nothing,
}

/// A read of a client.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) id: TaskId,
    pub(crate) began_at: i64,
    pub(crate) ended_at: i64,
    pub(crate) said: Said,
}

#[derive(Default)]
pub(crate) struct Ledger {
    state: Mutex<Entries>,
}

#[derive(Default)]
pub(crate) struct Entries {
    pub(crate) asked: Vec<Asked>,
    pub(crate) planted: Vec<Planted>,
    pub(crate) reads: Vec<Read>,
    pub(crate) keyed: Vec<Keyed>,
    pub(crate) orders: Vec<Ordered>,
    /// Reasons of the records put into the topic that cannot be read.
    pub(crate) rubbish: Vec<String>,
    pub(crate) rubbish_count: usize,
    pub(crate) requests: usize,
    /// What had not come to rest in time.
    pub(crate) unrest: Vec<String>,
    /// What the world itself saw go wrong.
    pub(crate) wrong: Vec<String>,
}

impl Ledger {
    pub(crate) fn entries(&self) -> MutexGuard<'_, Entries> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Ids that clients know to exist.
    pub(crate) fn known_ids(&self) -> Vec<TaskId> {
        let accepted = self.asked.iter().filter_map(|asked| match asked.told {
            Told::Accepted { id, .. } => Some(id),
            _ => None,
        });
        accepted
            .chain(self.planted.iter().map(|planted| planted.id))
            .collect()
    }
}
