//! Health and metrics: a part of the API, and all that a worker serves.

use std::sync::Arc;
use std::time::Duration;

use domain::ports::TaskFeed;
use domain::{Ports, Reader};
use poem::http::HeaderMap;
use poem_openapi::OpenApi;

use super::{Tag, store_failed};
use crate::Meters;
use crate::accept::MetricsFormat;
use crate::answer::{Json, Measured};
use crate::health::{Health, Live, Ready, Stopping};
use crate::meters::write_gauge;
use crate::problem::{Failures, Kind, Problem, Refused};

/// The routes that operators and Prometheus come for.
#[derive(Clone)]
pub(crate) struct Probes {
    shared: Arc<Shared>,
}

struct Shared {
    reader: Reader,
    ports: Ports,
    meters: Arc<Meters>,
    health: Health,
}

impl Probes {
    pub(crate) fn new(
        reader: Reader,
        ports: &Ports,
        feed: Option<Arc<dyn TaskFeed>>,
        meters: Arc<Meters>,
        ping_timeout: Duration,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                reader,
                ports: ports.clone(),
                meters,
                health: Health::new(ports.clone(), feed, ping_timeout),
            }),
        }
    }

    /// Turns readiness red.
    pub(crate) fn stop(&self) {
        self.shared.health.stop();
    }

    pub(crate) fn stopping(&self) -> Stopping {
        self.shared.health.stopping()
    }

    /// The answer to `GET /metrics` in the form the client likes best.
    async fn measure(&self, headers: &HeaderMap) -> Result<Measured, Problem> {
        let Shared {
            reader,
            ports,
            meters,
            ..
        } = &*self.shared;
        let format = MetricsFormat::negotiate(headers);
        let numbers = reader
            .metrics()
            .await
            .map_err(|error| store_failed(ports, "totals", error));
        let mut text = match format {
            MetricsFormat::Json => return Ok(Measured::Numbers(numbers?)),
            MetricsFormat::Prometheus | MetricsFormat::OpenMetrics => String::new(),
        };
        if let Ok(numbers) = numbers {
            write_gauge(
                &mut text,
                "tasks_done",
                "Tasks that ever became done, by all workers.",
                numbers.total_tasks,
            );
            if let Some(mean) = numbers.average_processing_time_ms {
                write_gauge(
                    &mut text,
                    "task_mean_duration_seconds",
                    "Mean time from a task's creation until it was done, over all tasks that ever became done.",
                    mean as f64 / 1_000.0,
                );
            }
        }
        text.push_str(&match format {
            MetricsFormat::OpenMetrics => meters.render_openmetrics(),
            _ => meters.render(),
        });
        Ok(Measured::Text(format, text))
    }
}

pub(crate) struct MetricsFailures;

impl Failures for MetricsFailures {
    const OPERATION: &'static str = "readMetrics";
    const KINDS: &'static [Kind] = &[Kind::StoreUnavailable, Kind::Internal];
}

pub(crate) struct ReadyFailures;

impl Failures for ReadyFailures {
    const OPERATION: &'static str = "isReady";
    const KINDS: &'static [Kind] = &[Kind::NotReady];
}

#[OpenApi]
impl Probes {
    /// Read the metrics
    ///
    /// JSON by default: the number of tasks that became done and their mean time from creation to completion, exact at
    /// any table size. A client whose `Accept` prefers `text/plain` or `application/openmetrics-text`, as Prometheus
    /// does, gets the service's meters in that format instead; while the store is down these lack the two numbers.
    #[oai(
        path = "/metrics",
        method = "get",
        operation_id = "readMetrics",
        tag = "Tag::Metrics"
    )]
    async fn read_metrics(
        &self,
        headers: &HeaderMap,
    ) -> Result<Measured, Refused<MetricsFailures>> {
        Ok(self.measure(headers).await?)
    }

    /// Is the process alive?
    ///
    /// Asks no dependency.
    #[oai(
        path = "/health/live",
        method = "get",
        operation_id = "isLive",
        tag = "Tag::Health"
    )]
    async fn is_live(&self) -> Json<Live> {
        Json(Live { status: "up" })
    }

    /// Is the service ready for requests?
    ///
    /// Asks every dependency. Only the store is required; the log and the cache are reported. Not ready, too, from the
    /// moment the service is told to stop.
    #[oai(
        path = "/health/ready",
        method = "get",
        operation_id = "isReady",
        tag = "Tag::Health"
    )]
    async fn is_ready(&self) -> Result<Json<Ready>, Refused<ReadyFailures>> {
        Ok(Json(self.shared.health.ready().await?))
    }
}

#[cfg(test)]
mod tests {
    use adapters::memory::Memory;
    use poem::http::{Method, StatusCode};
    use poem::{Endpoint, Request};
    use ports::Standing;
    use ports::feed::MockTaskFeed;
    use serde_json::Value;

    use super::*;
    use crate::front::Front;

    const PING: Duration = Duration::from_secs(1);

    fn ports(memory: &Memory) -> Ports {
        Ports {
            store: memory.store.clone(),
            registry: memory.store.clone(),
            audit: memory.store.clone(),
            publisher: memory.log.clone(),
            announcer: memory.log.clone(),
            cache: memory.cache.clone(),
            clock: memory.clock.clone(),
            ids: memory.ids.clone(),
            random: memory.random.clone(),
            observer: memory.observer.clone(),
        }
    }

    #[tokio::test]
    async fn a_worker_answers_health_and_metrics_and_nothing_else() {
        let memory = Memory::new();
        let ports = ports(&memory);
        let reader = Reader::new(&ports);
        let meters = Arc::new(Meters::new());
        let probes = Probes::new(reader, &ports, None, meters, PING);
        let front = Front::new(probes.clone(), probes.stopping());
        let status = async |method: Method, path: &'static str| {
            let request = Request::builder().method(method).uri_str(path).finish();
            front.get_response(request).await.status()
        };
        for path in ["/health/live", "/health/ready", "/metrics"] {
            assert_eq!(status(Method::GET, path).await, StatusCode::OK, "{path}");
        }
        for path in ["/tasks/0194fdc2-fa2f-7cc0-81d3-ff1204e5b6ab", "/docs", "/"] {
            assert_eq!(
                status(Method::GET, path).await,
                StatusCode::NOT_FOUND,
                "{path}"
            );
        }
        assert_eq!(status(Method::POST, "/tasks").await, StatusCode::NOT_FOUND);
        probes.stop();
        let ready = status(Method::GET, "/health/ready").await;
        assert_eq!(ready, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(Method::GET, "/health/live").await, StatusCode::OK);
    }

    async fn readiness_with(standing: Standing) -> (StatusCode, Value) {
        let mut feed = MockTaskFeed::new();
        feed.expect_standing().return_const(standing);
        let ports = ports(&Memory::new());
        let probes = Probes::new(
            Reader::new(&ports),
            &ports,
            Some(Arc::new(feed)),
            Arc::new(Meters::new()),
            PING,
        );
        let request = Request::builder().uri_str("/health/ready").finish();
        let response = Front::new(probes, Stopping::default())
            .get_response(request)
            .await;
        let status = response.status();
        let body = response.into_body().into_vec().await.expect("a body");
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    #[tokio::test]
    async fn a_worker_that_its_group_refuses_is_not_ready_and_says_why() {
        let refused = Standing::Refused("the group g has members of another kind".into());
        let (status, body) = readiness_with(refused).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["detail"], "the group g has members of another kind");
        assert_eq!(body["dependencies"]["log"]["status"], "down");
        assert_eq!(body["dependencies"]["store"]["status"], "up");
    }

    #[tokio::test]
    async fn a_worker_shows_whether_its_feed_reaches_the_log() {
        for (standing, log) in [
            (Standing::Down, "down"),
            (Standing::Unassigned, "up"),
            (Standing::CaughtUp, "up"),
            (Standing::Behind, "up"),
        ] {
            let (status, body) = readiness_with(standing.clone()).await;
            assert_eq!(status, StatusCode::OK, "{standing:?}");
            assert_eq!(body["dependencies"]["log"]["status"], log, "{standing:?}");
        }
    }
}
