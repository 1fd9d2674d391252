//! The result cache in Redis.
//!
//! A cache may cost time, never an answer: every call ends within a timeout, and after a failure nobody tries again for
//! a moment except one caller a time, so that a Redis that is down or slow stays invisible in the tail of latencies.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{
    self, Client, ErrorKind, RedisError, ServerErrorKind, TlsCertificates,
};
use deadpool_redis::{
    BuildError, Connection, Manager, Pool, PoolConfig, PoolError, Runtime, Timeouts,
};
use ports::{CacheError, ResultCache, TaskId, TaskResult};
use tokio::time::Instant;

use crate::tls;
use crate::wire;

/// Commands of one round trip. Redis serves nobody else while it runs one `MGET`.
const BATCH: usize = 500;

/// How to reach Redis and how long to wait for it.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// `redis://[user[:password]@]host[:port][/database]`, `rediss://…` for TLS, or `unix:///path`.
    pub url: String,
    /// With TLS: a file of the certificates, in PEM, one of which must have signed the server's. Default `None`: those that
    /// the system trusts.
    pub root_certificates: Option<PathBuf>,
    /// How long one call may take, connecting included. Default 250 ms.
    pub timeout: Duration,
    /// For how long after a failure calls fail at once. When it is over, one call tries again. Default 1 s.
    pub retry_after: Duration,
    /// How long a result is kept, in whole seconds, rounded up. Default 3600 s.
    pub time_to_live: Duration,
}

impl RedisOptions {
    /// The defaults, for the Redis at `url`.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            root_certificates: None,
            timeout: Duration::from_millis(250),
            retry_after: Duration::from_secs(1),
            time_to_live: Duration::from_secs(3600),
        }
    }
}

/// Settings that no Redis could be reached with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisSettingsError {
    /// The URL is none of Redis's, or its TLS cannot be set up.
    #[error("the Redis settings are wrong")]
    Address(#[from] RedisError),
    /// The file of certificates cannot be read.
    #[error("the certificates for Redis cannot be read")]
    Certificates(#[source] std::io::Error),
    /// The pool was not made.
    #[error("the Redis settings are wrong")]
    Pool(#[from] BuildError),
}

/// Why a Redis that is there cannot be used until somebody changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisRefusal {
    /// It does not know this name and password, or wants one.
    Login,
    /// One end does not accept the other's TLS: the certificate is not trusted, or is for another name, or there is no TLS.
    Tls,
    /// It hung up on the first word, as one does that expects TLS and is not spoken to in it.
    PerhapsTls,
}

impl RedisRefusal {
    /// What a failure of the cache tells of it; `None` where waiting may help.
    #[must_use]
    pub fn of(error: &CacheError) -> Option<Self> {
        let mut cause = Some(error as &(dyn std::error::Error + 'static));
        while let Some(error) = cause {
            if tls::failure(error).is_some() {
                return Some(Self::Tls);
            }
            if let Some(redis) = error.downcast_ref::<RedisError>() {
                let wants_login = matches!(redis.code(), Some("NOAUTH" | "WRONGPASS"));
                if wants_login || redis.kind() == ErrorKind::AuthenticationFailed {
                    return Some(Self::Login);
                }
                if redis.kind() == ErrorKind::Parse || redis.is_connection_dropped() {
                    return Some(Self::PerhapsTls);
                }
            }
            cause = error.source();
        }
        None
    }
}

/// Results in Redis: key `task:result:{taskId}`, value the JSON of [`wire::encode_result`].
///
/// The pool creates and replaces connections; one of them is checked out for good, and every command goes through a
/// clone of its multiplexed handle, because a checkout per command costs a round trip of its own.
pub struct RedisResultCache {
    pool: Pool,
    timeout: Duration,
    retry_after: Duration,
    time_to_live_secs: u64,
    link: Mutex<Link>,
    connecting: tokio::sync::Mutex<()>,
}

/// The connection in use and whether it may be used.
#[derive(Default)]
struct Link {
    current: Option<Connection>,
    /// Rises with every connection, so that a late failure of an old one does not throw away its successor.
    generation: u64,
    /// Set after a failure: calls before this time fail at once.
    closed_until: Option<Instant>,
}

#[derive(Debug, thiserror::Error)]
enum RedisFault {
    #[error("no connection")]
    Connect(#[from] PoolError),
    #[error("the command failed")]
    Command(#[from] RedisError),
    #[error("no answer within {0:?}")]
    Slow(Duration),
    #[error("failed a moment ago, not tried again yet")]
    Waiting,
}

impl From<RedisFault> for CacheError {
    fn from(fault: RedisFault) -> Self {
        Self::Unavailable(Box::new(fault))
    }
}

impl RedisResultCache {
    /// Prepares the cache. Redis need not be up: the first call connects, and every call after a failure may.
    ///
    /// # Errors
    /// [`RedisSettingsError`] when the URL, or the file of certificates, cannot be read.
    pub fn connect(options: &RedisOptions) -> Result<Self, RedisSettingsError> {
        let timeout = Some(options.timeout);
        let pool = Pool::builder(Manager::new(
            client(options)?.get_connection_info().clone(),
        )?)
        .config(PoolConfig {
            // One is in use; the other is its successor while the broken one is being thrown away.
            max_size: 2,
            timeouts: Timeouts {
                wait: timeout,
                create: timeout,
                recycle: timeout,
            },
            ..PoolConfig::default()
        })
        .runtime(Runtime::Tokio1)
        .build()?;
        let seconds =
            options.time_to_live.as_secs() + u64::from(options.time_to_live.subsec_nanos() > 0);
        Ok(Self {
            pool,
            timeout: options.timeout,
            retry_after: options.retry_after,
            time_to_live_secs: seconds.max(1),
            link: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        })
    }

    /// Runs one exchange with Redis within the timeout and draws the conclusions from how it went.
    async fn exchange<T, Exchange>(
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
        let outcome = match tokio::time::timeout(self.timeout, attempt).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(RedisFault::Slow(self.timeout)),
        };
        self.conclude(used, outcome.as_ref().err());
        outcome
    }

    /// Lets a call pass, or fails it at once while Redis is taken to be down. When the wait is over the first to come
    /// goes ahead and the wait begins anew for the others, so that one call a time pays for finding out.
    fn enter(&self) -> Result<(), RedisFault> {
        let mut link = self.lock();
        let Some(closed_until) = link.closed_until else {
            return Ok(());
        };
        let now = Instant::now();
        if now < closed_until {
            return Err(RedisFault::Waiting);
        }
        link.closed_until = Some(now + self.retry_after);
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
        let mut link = self.lock();
        link.current = Some(connection);
        link.generation += 1;
        Ok((link.generation, handle))
    }

    fn current(&self) -> Option<(u64, MultiplexedConnection)> {
        let link = self.lock();
        let connection = link.current.as_ref()?;
        Some((link.generation, MultiplexedConnection::clone(connection)))
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
        let mut link = self.lock();
        if down {
            link.closed_until = Some(Instant::now() + self.retry_after);
        } else {
            link.closed_until = None;
        }
        if broken && used == Some(link.generation) {
            let thrown_away = link.current.take();
            drop(link);
            // Taken out of the pool rather than returned to it: the pool must not hand it out again.
            if let Some(connection) = thrown_away {
                drop(Connection::take(connection));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Link> {
        // Nothing panics while it holds the lock, and the link stays consistent even so.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn client(options: &RedisOptions) -> Result<Client, RedisSettingsError> {
    tls::settle_provider();
    let Some(file) = &options.root_certificates else {
        return Ok(Client::open(options.url.as_str())?);
    };
    let certificates = TlsCertificates {
        client_tls: None,
        root_cert: Some(std::fs::read(file).map_err(RedisSettingsError::Certificates)?),
    };
    Ok(Client::build_with_tls(options.url.as_str(), certificates)?)
}

fn key(id: TaskId) -> String {
    format!("task:result:{id}")
}

#[async_trait]
impl ResultCache for RedisResultCache {
    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<TaskResult>>, CacheError> {
        let mut found = Vec::with_capacity(ids.len());
        for batch in ids.chunks(BATCH) {
            let mut command = redis::cmd("MGET");
            for id in batch {
                command.arg(key(*id));
            }
            let values: Vec<Option<Vec<u8>>> = self
                .exchange(|mut handle| async move { command.query_async(&mut handle).await })
                .await?;
            // A reply of another length would put results under the wrong ids.
            let mut values = values.into_iter();
            found.extend(batch.iter().map(|id| {
                let value = values.next().flatten()?;
                let result = wire::decode_result(&value).ok()?;
                (result.id == *id).then_some(result)
            }));
        }
        Ok(found)
    }

    async fn put(&self, results: &[TaskResult]) -> Result<(), CacheError> {
        for batch in results.chunks(BATCH) {
            let mut commands = redis::Pipeline::with_capacity(batch.len());
            for result in batch {
                commands
                    .cmd("SET")
                    .arg(key(result.id))
                    .arg(wire::encode_result(result))
                    .arg("EX")
                    .arg(self.time_to_live_secs)
                    .ignore();
            }
            self.exchange(|mut handle| async move { commands.exec_async(&mut handle).await })
                .await?;
        }
        Ok(())
    }

    async fn ping(&self) -> Result<(), CacheError> {
        self.exchange(|mut handle| async move { redis::cmd("PING").exec_async(&mut handle).await })
            .await?;
        Ok(())
    }
}
