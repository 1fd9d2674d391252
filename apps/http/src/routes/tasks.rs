//! Submitting and reading tasks.

use std::sync::Arc;

use domain::ports::TaskId;
use poem_openapi::OpenApi;
use poem_openapi::param::Path;
use uuid::Uuid;

use super::{Tag, store_failed};
use crate::answer::{Created, Found};
use crate::problem::{Failures, Kind, Problem, Refused};
use crate::submission::TaskBody;
use crate::{Api, HttpConfig};

/// The routes that clients come for.
#[derive(Clone)]
pub(crate) struct Tasks {
    shared: Arc<Shared>,
}

struct Shared {
    api: Api,
    config: HttpConfig,
}

impl Tasks {
    pub(crate) fn new(api: Api, config: HttpConfig) -> Self {
        Self {
            shared: Arc::new(Shared { api, config }),
        }
    }
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
        Kind::Stopping,
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

#[OpenApi]
impl Tasks {
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
        let Shared { api, config } = &*self.shared;
        let submission = body
            .read(config.max_body_bytes, config.body_timeout)
            .await?;
        let accepted = api.submitter.submit(vec![submission]).await?;
        match accepted.first() {
            Some(accepted) => Ok(Created(*accepted)),
            None => {
                tracing::error!(
                    event = "http.submit_unanswered",
                    "a submission was accepted without an answer"
                );
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
        Ok(Found::from_reading(reading).ok_or_else(Problem::unknown_task)?)
    }
}
