//! The result cache in Redis.
//!
//! A cache may cost time, never an answer: every call ends within a timeout, and after a failure nobody tries again for
//! a moment except one caller a time, so that a Redis that is down or slow stays invisible in the tail of latencies.

mod link;
mod lookup;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::{self, Client, ErrorKind, RedisError, TlsCertificates};
use deadpool_redis::{BuildError, Manager, Pool, PoolConfig, Runtime, Timeouts};
use ports::{CacheError, ResultCache, TaskId, TaskResult};

use self::link::{Link, RedisFault};
use self::lookup::Lookup;
use crate::tls;
use crate::wire;

/// Commands of one round trip. Redis serves nobody else while it runs one `MGET`.
const BATCH: usize = 500;

/// How long a connection may take to make. The calls that wait for it do so within their own timeout; the next finds it.
const CONNECTING: Duration = Duration::from_secs(1);

/// How to reach Redis and how long to wait for it.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// `redis://[user[:password]@]host[:port][/database]`, `rediss://…` for TLS, or `unix:///path`.
    pub url: String,
    /// With TLS: a file of the certificates, in PEM, one of which must have signed the server's. Default `None`: those that
    /// the system trusts.
    pub root_certificates: Option<PathBuf>,
    /// How long one call may take. One that has to wait for a connection may fail because of that; the connection is made all the
    /// same, within a second or this, whichever is longer. Default 250 ms.
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
pub struct RedisResultCache {
    link: Arc<Link>,
    lookup: Arc<Lookup>,
    time_to_live_secs: u64,
}

impl RedisResultCache {
    /// Prepares the cache. Redis need not be up: the first call connects, and every call after a failure may.
    ///
    /// # Errors
    /// [`RedisSettingsError`] when the URL, or the file of certificates, cannot be read.
    pub fn connect(options: &RedisOptions) -> Result<Self, RedisSettingsError> {
        let timeout = Some(options.timeout.max(CONNECTING));
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
        let link = Arc::new(Link::new(pool, options.timeout, options.retry_after));
        Ok(Self {
            lookup: Arc::new(Lookup::new(Arc::clone(&link))),
            link,
            time_to_live_secs: seconds.max(1),
        })
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

/// What is kept under these ids, in their order, in one round trip.
async fn values_of(link: &Arc<Link>, ids: &[TaskId]) -> Result<Vec<Option<Vec<u8>>>, RedisFault> {
    let mut command = redis::cmd("MGET");
    for id in ids {
        command.arg(key(*id));
    }
    let mut values: Vec<Option<Vec<u8>>> = link
        .exchange(|mut handle| async move { command.query_async(&mut handle).await })
        .await?;
    // A reply of another length would put results under the wrong ids.
    values.resize(ids.len(), None);
    Ok(values)
}

/// The result, if that is what the value tells of this task.
fn result_of(id: TaskId, value: Option<Vec<u8>>) -> Option<TaskResult> {
    let result = wire::decode_result(&value?).ok()?;
    (result.id == id).then_some(result)
}

#[async_trait]
impl ResultCache for RedisResultCache {
    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<TaskResult>>, CacheError> {
        if let [id] = *ids {
            return Ok(vec![result_of(id, self.lookup.get(id).await?)]);
        }
        let mut found = Vec::with_capacity(ids.len());
        for batch in ids.chunks(BATCH) {
            let values = values_of(&self.link, batch).await?;
            found.extend(
                batch
                    .iter()
                    .zip(values)
                    .map(|(id, value)| result_of(*id, value)),
            );
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
            self.link
                .exchange(|mut handle| async move { commands.exec_async(&mut handle).await })
                .await?;
        }
        Ok(())
    }

    async fn ping(&self) -> Result<(), CacheError> {
        self.link
            .exchange(|mut handle| async move { redis::cmd("PING").exec_async(&mut handle).await })
            .await?;
        Ok(())
    }
}
