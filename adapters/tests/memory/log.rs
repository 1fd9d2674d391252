//! The log in memory, as the suites of the log want it.

use std::sync::Arc;

use async_trait::async_trait;
use ports::conformance::log;
use ports::conformance::log::{DeadLetterRecord, OutputRecord};
use ports::{Announcer, DeadLetter, TaskFeed, TaskPublisher};
use task_processor_adapters::memory::Memory;

/// A log of its own.
pub(crate) struct LogInMemory {
    pub(crate) memory: Memory,
}

impl LogInMemory {
    pub(crate) fn plain() -> Self {
        Self {
            memory: Memory::new(),
        }
    }
}

#[async_trait]
impl log::Subject for LogInMemory {
    fn publisher(&self) -> Arc<dyn TaskPublisher> {
        Arc::clone(&self.memory.log) as Arc<dyn TaskPublisher>
    }

    fn announcer(&self) -> Arc<dyn Announcer> {
        Arc::clone(&self.memory.log) as Arc<dyn Announcer>
    }

    async fn feed(&self) -> Box<dyn TaskFeed> {
        Box::new(self.memory.log.feed())
    }

    async fn put_raw(&self, key: Option<Vec<u8>>, value: Option<Vec<u8>>) {
        self.memory
            .log
            .put_unreadable("not a task message", key, value)
            .expect("the log has room");
    }

    async fn outputs(&self, _at_least: usize) -> Vec<OutputRecord> {
        let records = self
            .memory
            .log
            .outputs()
            .into_iter()
            .map(|result| OutputRecord {
                key: Some(result.id.to_string().into_bytes()),
                result,
            });
        records.collect()
    }

    async fn dead_letters(&self, _at_least: usize) -> Vec<DeadLetterRecord> {
        let letters = self.memory.log.dead_letters();
        letters.into_iter().map(record_of).collect()
    }
}

fn record_of(letter: DeadLetter) -> DeadLetterRecord {
    match letter {
        DeadLetter::Unreadable {
            reason, key, value, ..
        } => DeadLetterRecord {
            key,
            reason,
            value,
            task: None,
            attempts: None,
            error: None,
        },
        DeadLetter::Failed {
            id,
            payload,
            attempts,
            error,
            ..
        } => DeadLetterRecord {
            key: Some(id.to_string().into_bytes()),
            reason: "the task failed".to_owned(),
            value: Some(payload.into_string().into_bytes()),
            task: Some(id),
            attempts: Some(attempts),
            error: Some(error),
        },
    }
}
