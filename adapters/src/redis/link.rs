//! The connection to Redis, and whether it may be used.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{ErrorKind, RedisError, ServerErrorKind};
use deadpool_redis::{Connection, Pool, PoolError};
use ports::CacheError;
use tokio::time::Instant;

/// The pool creates and replaces connections; one of them is checked out for good, and every command goes through a
/// clone of its multiplexed handle, because a checkout per command costs a round trip of its own.
pub(super) struct Link {
    pool: Pool,
    timeout: Duration,
    retry_after: Duration,
    state: Mutex<State>,
    connecting: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct State {
    current: Option<Connection>,
    /// Rises with every connection, so that a late failure of an old one does not throw away its successor.
    generation: u64,
    /// Set after a failure: calls before this time fail at once.
    closed_until: Option<Instant>,
}

/// Why there is no answer. It is cheap to clone: many may have waited for the same one.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum RedisFault {
    #[error("no connection")]
    Connect(#[source] Arc<PoolError>),
    #[error("the command failed")]
    Command(#[source] RedisError),
    #[error("no answer within {0:?}")]
    Slow(Duration),
    #[error("failed a moment ago, not tried again yet")]
    Waiting,
    #[error("connecting was broken off")]
    BrokenOff,
}

impl From<PoolError> for RedisFault {
    fn from(error: PoolError) -> Self {
        Self::Connect(Arc::new(error))
    }
}

impl From<RedisError> for RedisFault {
    fn from(error: RedisError) -> Self {
        Self::Command(error)
    }
}

impl From<RedisFault> for CacheError {
    fn from(fault: RedisFault) -> Self {
        Self::Unavailable(Box::new(fault))
    }
}

impl Link {
    pub(super) fn new(pool: Pool, timeout: Duration, retry_after: Duration) -> Self {
        Self {
            pool,
            timeout,
            retry_after,
            state: Mutex::default(),
            connecting: Arc::default(),
        }
    }

    /// Runs one exchange with Redis within the timeout and draws the conclusions from how it went.
    pub(super) async fn exchange<T, Exchange>(
        self: &Arc<Self>,
        commands: impl FnOnce(MultiplexedConnection) -> Exchange,
    ) -> Result<T, RedisFault>
    where
        Exchange: Future<Output = Result<T, RedisError>>,
    {
        self.enter()?;
        let mut used = None;
        let attempt = async {
            // A connection that had to be waited for is not thrown away for what the rest of the time did not suffice for.
            let handle = match self.current() {
                Some((generation, handle)) => {
                    used = Some(generation);
                    handle
                }
                None => self.connected().await?,
            };
            Ok::<T, RedisFault>(commands(handle).await?)
        };
        let outcome = self.in_time(attempt).await;
        self.conclude(used, outcome.as_ref().err());
        outcome
    }

    /// What comes of it within the timeout.
    async fn in_time<T>(
        &self,
        attempt: impl Future<Output = Result<T, RedisFault>>,
    ) -> Result<T, RedisFault> {
        match tokio::time::timeout(self.timeout, attempt).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(RedisFault::Slow(self.timeout)),
        }
    }

    /// Waits within the timeout for what another call finds out, which draws the conclusions; or fails at once while Redis is
    /// taken to be down.
    pub(super) async fn share<T>(
        &self,
        answer: impl Future<Output = Result<T, RedisFault>>,
    ) -> Result<T, RedisFault> {
        self.check()?;
        let outcome = self.in_time(answer).await;
        if let Err(slow @ RedisFault::Slow(_)) = &outcome {
            // The other may not have noticed yet.
            self.conclude(None, Some(slow));
        }
        outcome
    }

    fn check(&self) -> Result<(), RedisFault> {
        match self.lock().closed_until {
            Some(closed_until) if Instant::now() < closed_until => Err(RedisFault::Waiting),
            _ => Ok(()),
        }
    }

    /// Lets a call pass, or fails it at once while Redis is taken to be down. When the wait is over the first to come
    /// goes ahead and the wait begins anew for the others, so that one call a time pays for finding out.
    fn enter(&self) -> Result<(), RedisFault> {
        let mut state = self.lock();
        let Some(closed_until) = state.closed_until else {
            return Ok(());
        };
        let now = Instant::now();
        if now < closed_until {
            return Err(RedisFault::Waiting);
        }
        state.closed_until = Some(now + self.retry_after);
        Ok(())
    }

    async fn connected(self: &Arc<Self>) -> Result<MultiplexedConnection, RedisFault> {
        // Whoever waited here finds the connection that the first one made.
        let connecting = Arc::clone(&self.connecting).lock_owned().await;
        if let Some((_, handle)) = self.current() {
            return Ok(handle);
        }
        let link = Arc::clone(self);
        // In a task of its own: a call that waits no longer leaves a connection to the next.
        let made = tokio::spawn(async move {
            let made = link.connect().await;
            drop(connecting);
            made
        });
        made.await.map_err(|_ended| RedisFault::BrokenOff)?
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisFault> {
        let connection = self.pool.get().await?;
        let handle = MultiplexedConnection::clone(&connection);
        let mut state = self.lock();
        state.current = Some(connection);
        state.generation += 1;
        Ok(handle)
    }

    fn current(&self) -> Option<(u64, MultiplexedConnection)> {
        let state = self.lock();
        let connection = state.current.as_ref()?;
        Some((state.generation, MultiplexedConnection::clone(connection)))
    }

    fn conclude(&self, used: Option<u64>, fault: Option<&RedisFault>) {
        let (broken, down) = match fault {
            None => (false, false),
            // An answer, though not the one hoped for: the connection is sound.
            Some(RedisFault::Command(error)) => match error.kind() {
                // After a failover the address leads to a replica: another connection may lead to the master.
                ErrorKind::Server(ServerErrorKind::ReadOnly) => (true, false),
                ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::UnexpectedReturnType => {
                    (false, false)
                }
                _ => (true, true),
            },
            Some(_) => (true, true),
        };
        let mut state = self.lock();
        if down {
            state.closed_until = Some(Instant::now() + self.retry_after);
        } else {
            state.closed_until = None;
        }
        if broken && used == Some(state.generation) {
            let thrown_away = state.current.take();
            drop(state);
            // Taken out of the pool rather than returned to it: the pool must not hand it out again.
            if let Some(connection) = thrown_away {
                drop(Connection::take(connection));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and the state stays consistent even so.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
