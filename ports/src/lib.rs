#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod all;
pub mod announcer;
pub mod audit;
pub mod beginning;
pub mod cache;
pub mod cancellation;
pub mod catalog;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod events;
pub mod feed;
pub mod ids;
pub mod observer;
pub mod processor;
pub mod publisher;
pub mod random;
pub mod registry;
pub mod store;
pub mod survey;
pub mod task;
pub mod time;
pub mod trace;

pub use all::Ports;
pub use announcer::{AnnounceError, Announcer, DeadLetter};
pub use audit::{AuditPage, TaskAudit};
pub use beginning::{Beginning, Postponed};
pub use cache::{CacheError, ResultCache};
pub use cancellation::Cancellation;
pub use catalog::{Inspection, Listed, Listing, Place, TaskCatalog};
pub use clock::Clock;
pub use events::{EventFeed, EventFeedError, EventReader, PlacedEvent, TaskEvent};
pub use feed::{Delivery, FeedError, Position, RecordContent, Standing, TaskFeed};
pub use ids::{ClaimId, IdSource, WorkerId};
pub use observer::{
    CallOutcome, ClaimedBy, Dependency, Event, NoObserver, Observer, Repair, RunOutcome,
    SkipReason, Step, Tier,
};
pub use processor::{Failure, Job, Processor};
pub use publisher::{PublishError, TaskMessage, TaskPublisher};
pub use random::Random;
pub use registry::{BeatReply, RemoveReply, WorkerEntry, WorkerRegistry};
pub use store::{
    ClaimError, ClaimRecord, ClaimTicket, ClaimedTask, DeliveryOutcome, Fingerprint, Horizon,
    InsertOutcome, InvalidRequestKey, KeptRequest, KeyedRequest, Next, RequestKey, Spent,
    StoreError, TaskStore, Totals, Transition, TransitionOutcome, Whereabouts, WriteOutcome,
};
pub use survey::{ConnectionPool, Connections, Survey, TaskSurvey};
pub use task::{
    Fence, InvalidPayload, InvalidPriority, NewTask, Payload, Priority, Task, TaskId, TaskResult,
    TaskStatus,
};
pub use time::Timestamp;
pub use trace::{Span, TraceContext, TraceId, Work};

#[cfg(feature = "mock")]
pub use {
    announcer::MockAnnouncer, audit::MockTaskAudit, cache::MockResultCache,
    catalog::MockTaskCatalog, clock::MockClock, feed::MockTaskFeed, ids::MockIdSource,
    observer::MockObserver, processor::MockProcessor, publisher::MockTaskPublisher,
    random::MockRandom, registry::MockWorkerRegistry, store::MockTaskStore, survey::MockTaskSurvey,
};

/// The cause an adapter attaches to an error, reached through [`std::error::Error::source`].
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;
