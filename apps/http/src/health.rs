//! Whether the service is fit to be sent requests.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::ports::{Connections, Dependency, Standing, Survey};
use domain::worker::Pace;
use domain::{Crowd, Ports};
use poem_openapi::registry::{MetaSchema, Registry};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::Watched;
use crate::problem::{Kind, Problem};
use crate::sampled::Sampled;
use crate::schema::{Member, Shape, choice, number, object, text};

/// How long the answers of a round of pings are kept.
const KEPT: Duration = Duration::from_millis(100);
/// How long what was seen in the store is kept.
const SURVEY_KEPT: Duration = Duration::from_secs(1);

/// What readiness depends on.
pub(crate) struct Health {
    ports: Ports,
    watched: Watched,
    ping_timeout: Duration,
    round: Sampled<Dependencies>,
    survey: Sampled<Option<Survey>>,
    alive: Sampled<Option<usize>>,
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
    pub(crate) fn new(ports: Ports, watched: Watched, ping_timeout: Duration) -> Self {
        Self {
            ports,
            watched,
            ping_timeout,
            round: Sampled::new(KEPT, 0),
            survey: Sampled::new(SURVEY_KEPT, 19),
            alive: Sampled::new(SURVEY_KEPT, 19),
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
    /// itself; it goes on claiming by age. Nor is one that takes nothing while tasks wait, whatever its pings say.
    ///
    /// All who ask at the same time share one round of pings.
    pub(crate) async fn ready(&self) -> Result<Ready, Problem> {
        let mut dependencies = self.round.get(self.ping_all()).await;
        let standing = self.standing();
        if matches!(standing, Some(Standing::Down | Standing::Refused(_))) {
            dependencies.log.status = Status::Down;
        }
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
        let progress = self.progress().await;
        if let Some(progress) = progress.clone().filter(|progress| !progress.is_fit) {
            let problem = Problem::new(Kind::NotReady, progress.detail.clone());
            return Err(problem
                .with_dependencies(dependencies)
                .with_progress(progress));
        }
        Ok(Ready {
            status: "ready",
            dependencies,
            progress,
        })
    }

    async fn ping_all(&self) -> Dependencies {
        let (store, log, cache) = tokio::join!(
            self.ping(self.ports.store.ping()),
            self.ping(self.ports.publisher.ping()),
            self.ping(self.ports.cache.ping()),
        );
        Dependencies { store, log, cache }
    }

    /// Where the worker of this process stands in the log.
    pub(crate) fn standing(&self) -> Option<Standing> {
        Some(self.watched.feed.as_ref()?.standing())
    }

    /// How much waits, as it was a second ago or later; `None` when it is not known.
    pub(crate) async fn survey(&self) -> Option<Survey> {
        let survey = self.watched.survey.as_ref()?;
        let look = async { timeout(self.ping_timeout, survey.survey()).await.ok()?.ok() };
        self.survey.get(look).await
    }

    /// How many workers are registered and not declared dead, as it was a second ago or later; `None` when it is not known.
    pub(crate) async fn workers_alive(&self) -> Option<usize> {
        let registry = &self.ports.registry;
        let look = async {
            let workers = timeout(self.ping_timeout, registry.workers()).await.ok()?;
            Some(workers.ok()?.iter().filter(|worker| !worker.dead).count())
        };
        self.alive.get(look).await
    }

    /// How the connections of this process to the store stand.
    pub(crate) fn connections(&self) -> Option<Connections> {
        Some(self.watched.pool.as_ref()?.connections())
    }

    /// Who waits and listens.
    pub(crate) fn crowd(&self) -> Option<Crowd> {
        Some(self.watched.events.as_ref()?.crowd())
    }

    /// How the worker of this process gets on; `None` when there is none, or when it is not known what waits.
    pub(crate) async fn pace(&self) -> Option<Pace> {
        let progress = self.watched.progress.as_ref()?;
        let survey = self.survey().await?;
        Some(progress.pace(survey.oldest_due))
    }

    async fn progress(&self) -> Option<Progress> {
        self.pace().await.map(Progress::of)
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

/// How the worker of this process gets on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Progress {
    status: &'static str,
    detail: Cow<'static, str>,
    #[serde(skip)]
    is_fit: bool,
}

impl Progress {
    fn of(pace: Pace) -> Self {
        let (status, detail, is_fit) = match pace {
            Pace::Idle => ("idle", "no task waits for a worker".into(), true),
            Pace::Working => ("working", "the worker takes what waits".into(), true),
            Pace::Full => (
                "full",
                "every place is taken by a task in hand; more are taken when one ends".into(),
                true,
            ),
            Pace::Braked => (
                "dependency_down",
                "the processing function says that something it needs is down".into(),
                false,
            ),
            Pace::Stalled { for_long } => (
                "stalled",
                format!(
                    "tasks wait and the worker has room, but it has taken nothing for {} s",
                    for_long.as_secs()
                )
                .into(),
                false,
            ),
        };
        Self {
            status,
            detail,
            is_fit,
        }
    }
}

impl Shape for Progress {
    const NAME: &'static str = "Progress";

    fn schema() -> MetaSchema {
        object(
            "Whether the worker of this process gets on. With `dependency_down` and `stalled` it is not ready.",
            vec![
                Member::required(
                    "status",
                    choice(
                        "How it gets on.",
                        ["idle", "working", "full", "dependency_down", "stalled"],
                        "working",
                    ),
                ),
                Member::required(
                    "detail",
                    text("The same in a sentence.", "the worker takes what waits"),
                ),
            ],
            json!({"status": "working", "detail": "the worker takes what waits"}),
        )
    }
}

/// The service is ready.
#[derive(Debug, Serialize)]
pub(crate) struct Ready {
    status: &'static str,
    dependencies: Dependencies,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
}

impl Shape for Ready {
    const NAME: &'static str = "Ready";

    fn schema() -> MetaSchema {
        object(
            "The service is ready. `log` and `cache` may be down all the same: they cost speed, not service.",
            vec![
                Member::required("status", choice("Always `ready`.", ["ready"], "ready")),
                Member::required("dependencies", Dependencies::reference()),
                Member::optional("progress", Progress::reference()),
            ],
            json!({"status": "ready", "dependencies": Dependencies::example()}),
        )
    }

    fn register_parts(registry: &mut Registry) {
        Dependencies::register(registry);
        Progress::register(registry);
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
