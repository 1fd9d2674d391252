//! The ports together.

use std::sync::Arc;

use crate::{
    Announcer, Clock, IdSource, Observer, Random, ResultCache, TaskAudit, TaskCatalog,
    TaskPublisher, TaskStore, WorkerRegistry,
};

/// Everything outside that the use cases reach, by role. Built once, where the program is wired.
#[derive(Clone)]
pub struct Ports {
    /// The one truth about every task.
    pub store: Arc<dyn TaskStore>,
    /// Which workers live; on the same database as `store`.
    pub registry: Arc<dyn WorkerRegistry>,
    /// Compares the tasks with the books about them; on the same database as `store`.
    pub audit: Arc<dyn TaskAudit>,
    /// Finds tasks and says where they are; on the same database as `store`.
    pub catalog: Arc<dyn TaskCatalog>,
    /// Tells workers that tasks wait.
    pub publisher: Arc<dyn TaskPublisher>,
    /// Tells the world what came of tasks.
    pub announcer: Arc<dyn Announcer>,
    /// Remembers results.
    pub cache: Arc<dyn ResultCache>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes identities.
    pub ids: Arc<dyn IdSource>,
    /// Chance, for jitter.
    pub random: Arc<dyn Random>,
    /// Is told what happened.
    pub observer: Arc<dyn Observer>,
}
