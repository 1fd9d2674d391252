//! Submitting and reading tasks.

use std::sync::Arc;
use std::time::Duration;

use domain::ports::{Dependency, Event, TaskId};
use domain::{Accepted, EventsError, Explanation, Reading, Room, Submission, SubmitError};
use poem_openapi::OpenApi;
use poem_openapi::param::{Header, Path};
use uuid::Uuid;

use super::{Tag, store_failed};
use crate::answer::{Created, CreatedBatch, Found};
use crate::conditional::Conditional;
use crate::idempotency::{IdempotencyKey, fingerprint};
use crate::listing;
use crate::problem::{Failures, Kind, Problem, Refused};
use crate::query::{Asked, invalid};
use crate::record::{Read, View};
use crate::submission::{BatchBody, TaskBody};
use crate::wait::{self, Wait};
use crate::{Api, HttpConfig};

/// The routes that clients come for.
#[derive(Clone)]
pub(crate) struct Tasks {
    shared: Arc<Shared>,
}

struct Shared {
    api: Api,
    limits: BodyLimits,
}

/// How much of a body is taken in, and for how long.
struct BodyLimits {
    task_bytes: usize,
    batch_bytes: usize,
    timeout: Duration,
}

impl Tasks {
    pub(crate) fn new(api: Api, config: &HttpConfig) -> Self {
        let limits = BodyLimits {
            task_bytes: config.max_body_bytes,
            batch_bytes: config.max_batch_body_bytes(),
            timeout: config.body_timeout,
        };
        Self {
            shared: Arc::new(Shared { api, limits }),
        }
    }

    async fn wait(&self, id: TaskId, limit: Duration) -> Result<Reading, Problem> {
        let api = &self.shared.api;
        api.events
            .wait(id, limit)
            .await
            .map_err(|error| match error {
                EventsError::Store(error) => {
                    api.ports.observer.observe(&Event::DependencyFailed {
                        dependency: Dependency::Store,
                        doing: "wait",
                        error: domain::chain(&*error),
                    });
                    Problem::new(
                        Kind::StoreUnavailable,
                        "the task store did not answer in time",
                    )
                }
                EventsError::Full => Problem::new(
                    Kind::TooManyWaiters,
                    "as many clients wait for tasks as this server takes",
                ),
                _ => Problem::new(Kind::Stopping, "try again: another instance will answer"),
            })
    }

    /// Of all requests of this operation with the same key the first is stored, and each has its answer.
    async fn accept(
        &self,
        operation: &str,
        key: IdempotencyKey,
        room: Room,
        submissions: Vec<Submission>,
    ) -> Result<Result<Vec<Accepted>, SubmitError>, Problem> {
        let submitter = &self.shared.api.submitter;
        Ok(match key.of(operation)? {
            None => submitter.submit_in(room, submissions).await,
            Some(key) => {
                let fingerprint = fingerprint(&submissions);
                submitter
                    .submit_keyed_in(room, key, fingerprint, submissions)
                    .await
            }
        })
    }
}

impl Tasks {
    fn wants_all(&self, view: &Asked<View>) -> Result<bool, Problem> {
        let mut wrong = Vec::new();
        let view = view.read(&mut wrong, |text| match text {
            View::FULL => Ok(()),
            _ => Err("must be full"),
        });
        if wrong.is_empty() {
            Ok(view.is_some())
        } else {
            Err(invalid(wrong))
        }
    }

    async fn explain(&self, id: TaskId) -> Result<Box<Explanation>, Problem> {
        let api = &self.shared.api;
        let explanation = api.catalog.explain(id).await;
        let explanation =
            explanation.map_err(|error| store_failed(&api.ports, "explain", error))?;
        explanation.map(Box::new).ok_or_else(Problem::unknown_task)
    }
}

pub(crate) struct SubmitFailures;

impl Failures for SubmitFailures {
    const OPERATION: &'static str = "submitTask";
    const KINDS: &'static [Kind] = &[
        Kind::InvalidTask,
        Kind::MalformedBody,
        Kind::InvalidIdempotencyKey,
        Kind::KeyReused,
        Kind::SlowBody,
        Kind::BodyTooLarge,
        Kind::UnsupportedMediaType,
        Kind::StoreUnavailable,
        Kind::Overloaded,
        Kind::Stopping,
        Kind::Internal,
    ];
}

pub(crate) struct BatchFailures;

impl Failures for BatchFailures {
    const OPERATION: &'static str = "submitTasks";
    const KINDS: &'static [Kind] = SubmitFailures::KINDS;
}

pub(crate) struct ListFailures;

impl Failures for ListFailures {
    const OPERATION: &'static str = "listTasks";
    const KINDS: &'static [Kind] = &[
        Kind::InvalidParameter,
        Kind::StoreUnavailable,
        Kind::Internal,
    ];
}

pub(crate) struct ReadFailures;

impl Failures for ReadFailures {
    const OPERATION: &'static str = "readTask";
    const KINDS: &'static [Kind] = &[
        Kind::InvalidId,
        Kind::InvalidParameter,
        Kind::UnknownTask,
        Kind::TooManyWaiters,
        Kind::StoreUnavailable,
        Kind::Internal,
    ];
}

#[OpenApi]
impl Tasks {
    /// Submit a task
    ///
    /// Stores the task and has it processed. `201` means that it is committed in the database and will come to rest as
    /// `done`, `failed` or `cancelled`, whatever crashes next. A request that may be repeated should carry an
    /// `Idempotency-Key`: however often it is sent within 24 h, and to whichever server, one task is stored and the answer
    /// is the same.
    #[oai(
        path = "/tasks",
        method = "post",
        operation_id = "submitTask",
        tag = "Tag::Tasks"
    )]
    async fn submit_task(
        &self,
        /// The client's name for this request, kept for 24 h or more.
        #[oai(name = "Idempotency-Key")]
        key: IdempotencyKey,
        body: TaskBody,
    ) -> Result<Created, Refused<SubmitFailures>> {
        let limits = &self.shared.limits;
        let mut arrival = self.shared.api.submitter.arrival();
        let submission = body
            .read(limits.task_bytes, limits.timeout, &mut arrival)
            .await?;
        let accepted = self
            .accept(
                SubmitFailures::OPERATION,
                key,
                arrival.complete(),
                vec![submission],
            )
            .await??;
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

    /// Submit many tasks
    ///
    /// Stores up to 1,000 tasks in one commit: all of them, or none if one is refused. `201` means for each what it means
    /// for a single one. Answers them in the order in which they came.
    #[oai(
        path = "/tasks/batch",
        method = "post",
        operation_id = "submitTasks",
        tag = "Tag::Tasks"
    )]
    async fn submit_tasks(
        &self,
        /// The client's name for this request, kept for 24 h or more.
        #[oai(name = "Idempotency-Key")]
        key: IdempotencyKey,
        body: BatchBody,
    ) -> Result<CreatedBatch, Refused<BatchFailures>> {
        let limits = &self.shared.limits;
        let mut arrival = self.shared.api.submitter.arrival();
        let submissions = body
            .read(limits.batch_bytes, limits.timeout, &mut arrival)
            .await?;
        let accepted = self
            .accept(
                BatchFailures::OPERATION,
                key,
                arrival.complete(),
                submissions,
            )
            .await?;
        Ok(CreatedBatch(accepted.map_err(Problem::of_batch)?))
    }

    /// List tasks
    ///
    /// The newest first: in descending order of id. Whoever follows `next`, or the `Link` header, meets each task that keeps
    /// matching exactly once, whatever is submitted, moved and deleted meanwhile. A request looks at a bounded number of tasks, so
    /// a page may be short, or empty, and not be the last; it also ends when its texts pass 1 MiB. `pending` finds what is in the
    /// queue, `processing` what workers hold. Every task has the same form here, whatever its status.
    #[oai(
        path = "/tasks",
        method = "get",
        operation_id = "listTasks",
        tag = "Tag::Tasks"
    )]
    async fn list_tasks(
        &self,
        /// Only tasks of this status.
        status: Asked<listing::Status>,
        /// Only tasks of this priority.
        priority: Asked<listing::OfPriority>,
        /// Only tasks created at this time or later.
        #[oai(name = "createdAfter")]
        created_after: Asked<listing::CreatedAfter>,
        /// Only tasks created before this time.
        #[oai(name = "createdBefore")]
        created_before: Asked<listing::CreatedBefore>,
        /// How many tasks at most.
        limit: Asked<listing::Limit>,
        /// Where an earlier page ended: its `next`. The other parameters must be the same, but for `limit`.
        cursor: Asked<listing::Cursor>,
    ) -> Result<listing::Listing, Refused<ListFailures>> {
        let api = &self.shared.api;
        let asking = listing::Asking {
            status,
            priority,
            created_after,
            created_before,
            limit,
            cursor,
        };
        let search = asking.search()?;
        let page = api.catalog.search(&search).await;
        let page = page.map_err(|error| store_failed(&api.ports, "list", error))?;
        Ok(listing::Listing::new(search, page))
    }

    /// Read a task
    ///
    /// Answers the result once the task is done, which never changes again, and the task's details before that. With
    /// `wait`, the answer comes as soon as the task is done, failed or cancelled, or shows how it stands when that time is
    /// over. With the `ETag` of an earlier answer in `If-None-Match`, an
    /// answer that would say the same again is an empty `304`. With `view=full` the whole record, and why the task is not done
    /// yet.
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
        /// How much of it: `full` for the whole record.
        view: Asked<View>,
        /// How long to wait for the task to come to rest, like `30s` or `500ms`; at most `60s`.
        wait: Asked<Wait>,
        /// The `ETag` of an answer that the client has.
        #[oai(name = "If-None-Match")]
        if_none_match: Header<Option<String>>,
    ) -> Result<Read, Refused<ReadFailures>> {
        let id = TaskId(id.0);
        let wants_all = self.wants_all(&view)?;
        let reading = match wait::read(&wait)? {
            None if wants_all => return Ok(Read::Full(self.explain(id).await?)),
            None => self
                .shared
                .api
                .reader
                .read(id)
                .await
                .map_err(|error| store_failed(&self.shared.api.ports, "read", error))?,
            Some(limit) => self.wait(id, limit).await?,
        };
        if wants_all {
            return Ok(Read::Full(self.explain(id).await?));
        }
        let found = Found::from_reading(reading).ok_or_else(Problem::unknown_task)?;
        Ok(Read::Plain(Conditional::new(found, if_none_match.0)))
    }
}
