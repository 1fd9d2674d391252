//! Connections from one statement to the next.
//!
//! The driver's pool asks the server about each connection that is given back to it, in a task of its own: a round trip and the waking
//! of a thread for each statement. What was used without an error needs neither.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sea_orm::sqlx::Postgres;
use sea_orm::sqlx::pool::PoolConnection;
use tokio::runtime::Handle;

/// How many are kept: as many statements as a program has under way when it is busy. The driver has the rest.
const KEPT: usize = 4;

/// How long one is kept before the driver asks the server about it, and looks how old it is.
const FOR: Duration = Duration::from_secs(30);

/// A connection out of the driver's pool, to which it returns when it is dropped.
pub(super) struct Session {
    pub(super) connection: PoolConnection<Postgres>,
    since: Instant,
}

impl Session {
    pub(super) fn new(connection: PoolConnection<Postgres>) -> Self {
        Self {
            connection,
            since: Instant::now(),
        }
    }

    fn may_be_kept(&self) -> bool {
        self.since.elapsed() < FOR
    }
}

/// Those that nobody uses now.
pub(super) struct Kept {
    most: usize,
    /// None once the pool is closed.
    sessions: Mutex<Option<Vec<Session>>>,
}

impl Kept {
    /// Of so many connections the half at most: whoever asks the driver itself for one, as migrations and checks do, finds one while
    /// the store is not busy.
    pub(super) fn of(connections: u32) -> Self {
        let half = usize::try_from(connections / 2).unwrap_or(KEPT);
        Self {
            most: KEPT.min(half),
            sessions: Mutex::new(Some(Vec::new())),
        }
    }

    pub(super) fn take(&self) -> Option<Session> {
        let mut sessions = self.sessions();
        let sessions = sessions.as_mut()?;
        sessions.retain(Session::may_be_kept);
        sessions.pop()
    }

    /// For a session whose last statement ended without an error.
    pub(super) fn keep(&self, session: Session) {
        if let Some(sessions) = self.sessions().as_mut()
            && sessions.len() < self.most
            && session.may_be_kept()
        {
            sessions.push(session);
        }
    }

    pub(super) fn count(&self) -> u32 {
        let count = self.sessions().as_ref().map_or(0, Vec::len);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Gives all of them to the driver, and keeps none from now on: a pool is closed only when it has got every connection back.
    pub(super) fn close(&self) {
        drop(self.sessions().take());
    }

    fn sessions(&self) -> MutexGuard<'_, Option<Vec<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // To return one to the driver takes a runtime, which may be gone.
        if Handle::try_current().is_err() {
            for session in self.sessions().take().into_iter().flatten() {
                drop(session.connection.detach());
            }
        }
    }
}
