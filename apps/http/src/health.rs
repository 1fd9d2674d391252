//! Whether the service is fit to be sent requests.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::Ports;
use domain::ports::{Dependency, Standing, TaskFeed};
use poem_openapi::registry::{MetaSchema, Registry};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::problem::{Kind, Problem};
use crate::schema::{Member, Shape, choice, number, object};

/// What readiness depends on.
pub(crate) struct Health {
    ports: Ports,
    /// What brings a worker its tasks; a process without one only publishes.
    feed: Option<Arc<dyn TaskFeed>>,
    ping_timeout: Duration,
    stopping: Stopping,
}

/// Whether the service stops. Clones tell the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stopping(Arc<AtomicBool>);

impl Stopping {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Health {
    pub(crate) fn new(
        ports: Ports,
        feed: Option<Arc<dyn TaskFeed>>,
        ping_timeout: Duration,
    ) -> Self {
        Self {
            ports,
            feed,
            ping_timeout,
            stopping: Stopping::default(),
        }
    }

    /// From now on the service is not ready, though it serves whoever still comes.
    pub(crate) fn stop(&self) {
        self.stopping.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stopping(&self) -> Stopping {
        self.stopping.clone()
    }

    /// Asks every dependency. Only the store is required: without the log tasks are claimed by age, and without the
    /// cache they are read from the store. A worker that its group refuses is not ready, because that does not mend by
    /// itself; it goes on claiming by age.
    pub(crate) async fn ready(&self) -> Result<Ready, Problem> {
        let (store, mut log, cache) = tokio::join!(
            self.ping(self.ports.store.ping()),
            self.ping(self.ports.publisher.ping()),
            self.ping(self.ports.cache.ping()),
        );
        let standing = self.feed.as_ref().map(|feed| feed.standing());
        if matches!(standing, Some(Standing::Down | Standing::Refused(_))) {
            log.status = Status::Down;
        }
        let dependencies = Dependencies { store, log, cache };
        if self.stopping.is_set() {
            let problem = Problem::new(Kind::NotReady, "the service is stopping");
            return Err(problem.with_dependencies(dependencies));
        }
        if dependencies.store.status == Status::Down {
            let problem = Problem::new(Kind::NotReady, "the task store does not answer");
            return Err(problem.with_dependencies(dependencies));
        }
        if let Some(Standing::Refused(reason)) = standing {
            let problem = Problem::new(Kind::NotReady, reason);
            return Err(problem.with_dependencies(dependencies));
        }
        Ok(Ready {
            status: "ready",
            dependencies,
        })
    }

    async fn ping<E>(&self, ping: impl Future<Output = Result<(), E>>) -> Check {
        let started = Instant::now();
        let answered = matches!(timeout(self.ping_timeout, ping).await, Ok(Ok(())));
        Check {
            status: if answered { Status::Up } else { Status::Down },
            latency_ms: millis(started.elapsed()),
        }
    }
}

/// Milliseconds with three decimals.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Up,
    Down,
}

/// What came of one ping.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Check {
    status: Status,
    latency_ms: f64,
}

impl Shape for Check {
    const NAME: &'static str = "DependencyCheck";

    fn schema() -> MetaSchema {
        object(
            "Whether a dependency answers.",
            vec![
                Member::required(
                    "status",
                    choice("Whether it answered.", ["up", "down"], "up"),
                ),
                Member::required(
                    "latencyMs",
                    number("How long it took, in milliseconds.", 0.412),
                ),
            ],
            json!({"status": "up", "latencyMs": 0.412}),
        )
    }
}

/// What came of asking every dependency.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Dependencies {
    store: Check,
    log: Check,
    cache: Check,
}

impl Dependencies {
    fn example() -> Self {
        let up = |latency_ms| Check {
            status: Status::Up,
            latency_ms,
        };
        Self {
            store: up(0.412),
            log: up(0.905),
            cache: up(0.187),
        }
    }

    /// The store does not answer.
    pub(crate) fn example_down() -> Self {
        Self {
            store: Check {
                status: Status::Down,
                latency_ms: 1_000.0,
            },
            ..Self::example()
        }
    }
}

impl Shape for Dependencies {
    const NAME: &'static str = "Dependencies";

    fn schema() -> MetaSchema {
        object(
            "Every dependency by its role.",
            vec![
                // The names that logs and metrics use.
                Member::required(Dependency::Store.as_str(), Check::reference()),
                Member::required(Dependency::Log.as_str(), Check::reference()),
                Member::required(Dependency::Cache.as_str(), Check::reference()),
            ],
            json!(Self::example()),
        )
    }

    fn register_parts(registry: &mut Registry) {
        Check::register(registry);
    }
}

/// The service is ready.
#[derive(Debug, Serialize)]
pub(crate) struct Ready {
    status: &'static str,
    dependencies: Dependencies,
}

impl Shape for Ready {
    const NAME: &'static str = "Ready";

    fn schema() -> MetaSchema {
        object(
            "The service is ready. `log` and `cache` may be down all the same: they cost speed, not service.",
            vec![
                Member::required("status", choice("Always `ready`.", ["ready"], "ready")),
                Member::required("dependencies", Dependencies::reference()),
            ],
            json!({"status": "ready", "dependencies": Dependencies::example()}),
        )
    }

    fn register_parts(registry: &mut Registry) {
        Dependencies::register(registry);
    }
}

/// The process answers.
#[derive(Debug, Serialize)]
pub(crate) struct Live {
    pub(crate) status: &'static str,
}

impl Shape for Live {
    const NAME: &'static str = "Live";

    fn schema() -> MetaSchema {
        object(
            "The process answers.",
            vec![Member::required(
                "status",
                choice("Always `up`.", ["up"], "up"),
            )],
            json!({"status": "up"}),
        )
    }
}
