//! What clients asked for and what they were told.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::clock;
use crate::script::Script;

/// What came of a `POST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No answer yet.
    Waiting,
    /// 201 with this id.
    Accepted(Uuid),
    /// Anything else; the task may be stored or not.
    Failed(String),
}

/// One `POST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) script: Script,
    pub(crate) server: usize,
    pub(crate) sent_at: i64,
    pub(crate) answered_at: i64,
    pub(crate) outcome: Outcome,
}

impl Entry {
    pub(crate) fn accepted(&self) -> Option<Uuid> {
        match self.outcome {
            Outcome::Accepted(id) => Some(id),
            Outcome::Waiting | Outcome::Failed(_) => None,
        }
    }
}

/// Everything that clients know.
#[derive(Default)]
pub(crate) struct Ledger {
    entries: Mutex<Vec<Entry>>,
    /// What a client was shown of a done task.
    shown: Mutex<HashMap<Uuid, String>>,
    reads: Mutex<Reads>,
}

/// What came of reads.
#[derive(Clone, Default)]
pub(crate) struct Reads {
    pub(crate) answered: u64,
    /// When those began and ended that were not answered.
    pub(crate) failed: Vec<(i64, i64)>,
    /// Answers that break a promise.
    pub(crate) wrong: Vec<String>,
}

impl Ledger {
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request before it is sent.
    pub(crate) fn sent(&self, script: Script, server: usize) -> usize {
        let mut entries = self.entries();
        entries.push(Entry {
            script,
            server,
            sent_at: clock::now(),
            answered_at: 0,
            outcome: Outcome::Waiting,
        });
        entries.len() - 1
    }

    pub(crate) fn answered(&self, number: usize, outcome: Outcome) {
        let mut entries = self.entries();
        entries[number].answered_at = clock::now();
        entries[number].outcome = outcome;
    }

    pub(crate) fn len(&self) -> usize {
        self.entries().len()
    }

    /// The task of a request, if it was accepted.
    pub(crate) fn accepted(&self, number: usize) -> Option<(Uuid, Script)> {
        let entries = self.entries();
        let entry = entries.get(number)?;
        Some((entry.accepted()?, entry.script.clone()))
    }

    /// What a client was shown before, if the task was done then.
    pub(crate) fn shown(&self, id: Uuid) -> Option<String> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.get(&id).cloned()
    }

    pub(crate) fn show(&self, id: Uuid, body: String) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.insert(id, body);
    }

    pub(crate) fn read(&self, note: impl FnOnce(&mut Reads)) {
        note(&mut self.reads.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn reads(&self) -> Reads {
        self.reads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn copy(&self) -> Vec<Entry> {
        self.entries().clone()
    }
}
