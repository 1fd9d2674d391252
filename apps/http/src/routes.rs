//! The routes.

use std::sync::Arc;

use domain::ports::{Dependency, Event, StoreError, TaskId};
use poem::http::HeaderMap;
use poem_openapi::param::Path;
use poem_openapi::{OpenApi, Tags};
use uuid::Uuid;

use crate::accept::MetricsFormat;
use crate::answer::{Created, Found, Json, Measured};
use crate::docs_page::DocsPage;
use crate::document::{Document, ToDocs};
use crate::health::{Health, Live, Ready};
use crate::meters::write_gauge;
use crate::problem::{Failures, Kind, Problem, Refused};
use crate::submission::TaskBody;
use crate::{Api, HttpConfig, Meters, Ports, Reader};

/// Every route of the API.
#[derive(Clone)]
pub(crate) struct Routes {
    shared: Arc<Shared>,
}

struct Shared {
    api: Api,
    config: HttpConfig,
    health: Health,
}

impl Routes {
    pub(crate) fn new(api: Api, config: HttpConfig) -> Self {
        let health = Health::new(api.ports.clone(), config.ping_timeout);
        Self {
            shared: Arc::new(Shared {
                api,
                config,
                health,
            }),
        }
    }

    /// Turns readiness red.
    pub(crate) fn stop(&self) {
        self.shared.health.stop();
    }
}

/// The answer to `GET /metrics` in the form the client likes best.
pub(crate) async fn measure(
    reader: &Reader,
    ports: &Ports,
    meters: &Meters,
    headers: &HeaderMap,
) -> Result<Measured, Problem> {
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

/// A failure of the store is told to the observer, who counts and logs it.
fn store_failed(ports: &Ports, doing: &'static str, error: StoreError) -> Problem {
    ports.observer.observe(&Event::DependencyFailed {
        dependency: Dependency::Store,
        doing,
        error: with_causes(&error),
    });
    error.into()
}

/// An error and its causes on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[derive(Tags)]
pub(crate) enum Tag {
    /// Submitting tasks and reading what came of them.
    Tasks,
    /// Numbers for people and for Prometheus.
    Metrics,
    /// Whether the service is fit to be sent requests.
    Health,
    /// This document, as a page and as JSON.
    Documentation,
}

pub(crate) struct SubmitFailures;

impl Failures for SubmitFailures {
    const OPERATION: &'static str = "submitTask";
    const KINDS: &'static [Kind] = &[
        Kind::InvalidTask,
        Kind::MalformedBody,
        Kind::SlowBody,
        Kind::BodyTooLarge,
        Kind::UnsupportedMediaType,
        Kind::StoreUnavailable,
        Kind::Overloaded,
        Kind::Internal,
    ];
}

pub(crate) struct ReadFailures;

impl Failures for ReadFailures {
    const OPERATION: &'static str = "readTask";
    const KINDS: &'static [Kind] = &[
        Kind::InvalidId,
        Kind::UnknownTask,
        Kind::StoreUnavailable,
        Kind::Internal,
    ];
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

pub(crate) struct DocsFailures;

impl Failures for DocsFailures {
    const OPERATION: &'static str = "readDocs";
    const KINDS: &'static [Kind] = &[Kind::Internal];
}

#[OpenApi]
impl Routes {
    /// Submit a task
    ///
    /// Stores the task and has it processed. `201` means that it is committed in the database and will come to rest as
    /// `done`, `failed` or `cancelled`, whatever crashes next.
    #[oai(
        path = "/tasks",
        method = "post",
        operation_id = "submitTask",
        tag = "Tag::Tasks"
    )]
    async fn submit_task(&self, body: TaskBody) -> Result<Created, Refused<SubmitFailures>> {
        let Shared { api, config, .. } = &*self.shared;
        let submission = body
            .read(config.max_body_bytes, config.body_timeout)
            .await?;
        let accepted = api.submitter.submit(vec![submission]).await?;
        match accepted.first() {
            Some(accepted) => Ok(Created(*accepted)),
            None => {
                tracing::error!("http.submit.unanswered");
                Err(Problem::internal().into())
            }
        }
    }

    /// Read a task
    ///
    /// Answers the result once the task is done, which never changes again, and the task's details before that. To wait
    /// for a result, ask again after a pause of 100 ms or more.
    #[oai(
        path = "/tasks/:id",
        method = "get",
        operation_id = "readTask",
        tag = "Tag::Tasks"
    )]
    async fn read_task(
        &self,
        /// The id that `POST /tasks` answered.
        id: Path<Uuid>,
    ) -> Result<Found, Refused<ReadFailures>> {
        let reading = self
            .shared
            .api
            .reader
            .read(TaskId(id.0))
            .await
            .map_err(|error| store_failed(&self.shared.api.ports, "read", error))?;
        Ok(Found::from_reading(reading)
            .ok_or_else(|| Problem::new(Kind::UnknownTask, "there is no task with this id"))?)
    }

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
        let api = &self.shared.api;
        Ok(measure(&api.reader, &api.ports, &api.meters, headers).await?)
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

    /// Go to the documentation
    #[oai(
        path = "/",
        method = "get",
        operation_id = "goToDocs",
        tag = "Tag::Documentation"
    )]
    async fn go_to_docs(&self) -> ToDocs {
        ToDocs
    }

    /// Read the documentation
    ///
    /// Swagger UI. The page is one file and loads nothing from elsewhere.
    #[oai(
        path = "/docs",
        method = "get",
        operation_id = "readDocs",
        tag = "Tag::Documentation"
    )]
    async fn read_docs(&self, headers: &HeaderMap) -> Result<DocsPage, Refused<DocsFailures>> {
        Ok(DocsPage::for_client(headers).await?)
    }

    /// Read this document
    #[oai(
        path = "/openapi.json",
        method = "get",
        operation_id = "readDocument",
        tag = "Tag::Documentation"
    )]
    async fn read_document(&self) -> Document {
        Document
    }
}
