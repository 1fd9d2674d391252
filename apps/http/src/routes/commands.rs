//! Calling tasks off and having failed ones tried again.

use std::sync::Arc;

use domain::ports::{StoreError, TaskId};
use domain::{Commander, Ports, Verdict};
use poem_openapi::OpenApi;
use poem_openapi::param::Path;
use uuid::Uuid;

use super::{Tag, store_failed};
use crate::admission::Caller;
use crate::answer::Details;
use crate::problem::{Failures, Kind, Problem, Refused};

/// The routes that order something about a task that is stored.
#[derive(Clone)]
pub(crate) struct Commands {
    commander: Commander,
    ports: Arc<Ports>,
}

impl Commands {
    pub(crate) fn new(commander: Commander, ports: Ports) -> Self {
        Self {
            commander,
            ports: Arc::new(ports),
        }
    }

    /// Whoever looks for who did it finds a line for each command, whatever came of it.
    fn answer(
        &self,
        doing: &'static str,
        id: Uuid,
        caller: &Caller,
        verdict: Result<Verdict, StoreError>,
    ) -> Result<Details, Problem> {
        let outcome = match &verdict {
            Ok(Verdict::Obeyed(_)) => "obeyed",
            Ok(Verdict::Refused(_)) => "refused",
            Ok(Verdict::Unknown) => "unknown task",
            Err(_) => "not known",
        };
        tracing::info!(event = "task.commanded", command = doing, task_id = %id, api_key = caller.name(), outcome, "somebody gave a command");
        match verdict.map_err(|error| store_failed(&self.ports, doing, error))? {
            Verdict::Obeyed(task) => Ok(Details(task)),
            Verdict::Refused(status) => Err(Problem::wrong_state(status)),
            Verdict::Unknown => Err(Problem::unknown_task()),
        }
    }
}

const KINDS: &[Kind] = &[
    Kind::InvalidId,
    Kind::UnknownTask,
    Kind::WrongState,
    Kind::StoreUnavailable,
    Kind::Internal,
];

pub(crate) struct CancelFailures;

impl Failures for CancelFailures {
    const OPERATION: &'static str = "cancelTask";
    const KINDS: &'static [Kind] = KINDS;
}

pub(crate) struct RetryFailures;

impl Failures for RetryFailures {
    const OPERATION: &'static str = "retryTask";
    const KINDS: &'static [Kind] = KINDS;
}

#[OpenApi]
impl Commands {
    /// Cancel a task
    ///
    /// Calls off a task that waits or is being processed; it ends `cancelled`, for ever. It wins or loses against the
    /// task's completion, never half. A worker that processes it is told within 2 s, and whatever it answers is dropped.
    /// Repeating the request is answered alike. A done or failed task is a `409` that names its state.
    #[oai(
        path = "/tasks/:id/cancel",
        method = "post",
        operation_id = "cancelTask",
        tag = "Tag::Tasks"
    )]
    async fn cancel_task(
        &self,
        /// The id that `POST /tasks` answered.
        id: Path<Uuid>,
        caller: Caller,
    ) -> Result<Details, Refused<CancelFailures>> {
        let verdict = self.commander.cancel(TaskId(id.0)).await;
        Ok(self.answer("cancel", id.0, &caller, verdict)?)
    }

    /// Retry a failed task
    ///
    /// Puts a `failed` task back in the queue, with its attempts counted from 0. A task in any other state is a `409` that
    /// names the state.
    #[oai(
        path = "/tasks/:id/retry",
        method = "post",
        operation_id = "retryTask",
        tag = "Tag::Tasks"
    )]
    async fn retry_task(
        &self,
        /// The id that `POST /tasks` answered.
        id: Path<Uuid>,
        caller: Caller,
    ) -> Result<Details, Refused<RetryFailures>> {
        let verdict = self.commander.retry(TaskId(id.0)).await;
        Ok(self.answer("retry", id.0, &caller, verdict)?)
    }
}
