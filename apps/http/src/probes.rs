//! Health and metrics alone, for a process that does not serve the API.

use std::sync::Arc;

use domain::Ports;
use poem::http::HeaderMap;
use poem_openapi::OpenApi;

use crate::answer::{Json, Measured};
use crate::health::{Health, Live, Ready};
use crate::problem::Refused;
use crate::routes::{MetricsFailures, ReadyFailures, Tag, measure};
use crate::{HttpConfig, Meters, Reader};

/// The routes of a worker.
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
    pub(crate) fn new(ports: &Ports, meters: Arc<Meters>, config: HttpConfig) -> Self {
        Self {
            shared: Arc::new(Shared {
                reader: Reader::new(ports),
                ports: ports.clone(),
                meters,
                health: Health::new(ports.clone(), config.ping_timeout),
            }),
        }
    }

    /// Turns readiness red.
    pub(crate) fn stop(&self) {
        self.shared.health.stop();
    }
}

#[OpenApi]
impl Probes {
    /// Read the metrics, as on the API
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
        let Shared {
            reader,
            ports,
            meters,
            ..
        } = &*self.shared;
        Ok(measure(reader, ports, meters, headers).await?)
    }

    /// Is the process alive?
    #[oai(
        path = "/health/live",
        method = "get",
        operation_id = "isLive",
        tag = "Tag::Health"
    )]
    async fn is_live(&self) -> Json<Live> {
        Json(Live { status: "up" })
    }

    /// Is the process fit to work?
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

    use super::*;
    use crate::front::Front;

    #[tokio::test]
    async fn a_worker_answers_health_and_metrics_and_nothing_else() {
        let memory = Memory::new();
        let ports = Ports {
            store: memory.store.clone(),
            registry: memory.store.clone(),
            publisher: memory.log.clone(),
            announcer: memory.log.clone(),
            cache: memory.cache.clone(),
            clock: memory.clock.clone(),
            ids: memory.ids.clone(),
            random: memory.random.clone(),
            observer: memory.observer.clone(),
        };
        let probes = Probes::new(&ports, Arc::new(Meters::new()), HttpConfig::default());
        let front = Front::new(probes.clone());
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
}
