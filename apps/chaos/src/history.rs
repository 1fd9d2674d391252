//! What was done to whom and when: the nemesis writes it, the report reads it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock;
use crate::topics::{Gone, Place};

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

/// A record that cannot be read, and where the log confirmed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rubbish {
    pub(crate) value: String,
    /// The broker's.
    pub(crate) port: u16,
    pub(crate) confirmed_at: i64,
    pub(crate) place: Place,
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
    pub(crate) rubbish: Vec<Rubbish>,
    /// What was taken out of the log.
    pub(crate) gone: Vec<Gone>,
}

impl Pages {
    /// Whether a record was taken out of the log before anybody can be held to have read it.
    pub(crate) fn is_gone(&self, rubbish: &Rubbish) -> bool {
        let took = |gone: &Gone| gone.took(rubbish.port, rubbish.confirmed_at, rubbish.place);
        self.gone.iter().any(took)
    }
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

    pub(crate) fn sent_rubbish(&self, rubbish: Rubbish) {
        self.pages().rubbish.push(rubbish);
    }

    pub(crate) fn took(&self, gone: Vec<Gone>) {
        self.pages().gone.extend(gone);
    }

    pub(crate) fn read(&self) -> Pages {
        self.pages().clone()
    }
}
