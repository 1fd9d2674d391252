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
    connecting: tokio::sync::Mutex<()>,
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
            connecting: tokio::sync::Mutex::default(),
        }
    }

    /// Runs one exchange with Redis within the timeout and draws the conclusions from how it went.
    pub(super) async fn exchange<T, Exchange>(
        &self,
        commands: impl FnOnce(MultiplexedConnection) -> Exchange,
    ) -> Result<T, RedisFault>
    where
        Exchange: Future<Output = Result<T, RedisError>>,
    {
        self.enter()?;
        let mut used = None;
        let attempt = async {
            let (generation, handle) = self.handle().await?;
            used = Some(generation);
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

    async fn handle(&self) -> Result<(u64, MultiplexedConnection), PoolError> {
        if let Some(handle) = self.current() {
            return Ok(handle);
        }
        // Whoever waited here finds the connection that the first one made.
        let _connecting = self.connecting.lock().await;
        if let Some(handle) = self.current() {
            return Ok(handle);
        }
        let connection = self.pool.get().await?;
        let handle = MultiplexedConnection::clone(&connection);
        let mut state = self.lock();
        state.current = Some(connection);
        state.generation += 1;
        Ok((state.generation, handle))
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
