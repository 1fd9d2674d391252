//! What was done to whom and when: the nemesis writes it, the report reads it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock;

/// What a fault can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Servers,
    Workers,
    Database,
    Log,
    Cache,
    Functions,
    Books,
}

/// A fault while it lasted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) kind: &'static str,
    pub(crate) part: Part,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

impl Window {
    pub(crate) fn meets(&self, from: i64, to: i64) -> bool {
        self.from <= to && from <= self.to
    }
}

/// A worker process from which nothing more was to be expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    pub(crate) process: String,
    pub(crate) at: i64,
    pub(crate) how: &'static str,
}

/// A contradiction that was planted, and repaired after so many microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repair {
    pub(crate) at: i64,
    pub(crate) took: i64,
}

/// The whole of it.
#[derive(Default)]
pub(crate) struct History(Mutex<Pages>);

#[derive(Clone, Default)]
pub(crate) struct Pages {
    pub(crate) windows: Vec<Window>,
    pub(crate) deaths: Vec<Death>,
    pub(crate) repairs: Vec<Repair>,
    /// What must not happen and was seen when it did.
    pub(crate) surprises: Vec<String>,
    /// Records that cannot be read, and that the log confirmed.
    pub(crate) rubbish: Vec<String>,
}

impl History {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fault that began at `from` is over.
    pub(crate) fn over(&self, kind: &'static str, part: Part, from: i64) {
        self.pages().windows.push(Window {
            kind,
            part,
            from,
            to: clock::now(),
        });
    }

    pub(crate) fn died(&self, process: &str, at: i64, how: &'static str) {
        self.pages().deaths.push(Death {
            process: process.to_owned(),
            at,
            how,
        });
    }

    /// A contradiction that was planted at `at` stood for so many microseconds.
    pub(crate) fn repaired(&self, at: i64, took: i64) {
        self.pages().repairs.push(Repair { at, took });
    }

    pub(crate) fn surprise(&self, what: String) {
        crate::log::say(&format!("SURPRISE: {what}"));
        self.pages().surprises.push(what);
    }

    pub(crate) fn sent_rubbish(&self, value: String) {
        self.pages().rubbish.push(value);
    }

    pub(crate) fn read(&self) -> Pages {
        self.pages().clone()
    }
}
