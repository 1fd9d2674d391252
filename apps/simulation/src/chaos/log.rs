//! Publishing and announcing as one process sees it.

use std::sync::Arc;

use adapters::memory::MemoryLog;
use async_trait::async_trait;
use ports::{
    AnnounceError, Announcer, DeadLetter, PublishError, TaskEvent, TaskMessage, TaskPublisher,
    TaskResult,
};

use super::Struck;
use crate::link::Link;
use crate::sky::Call;

pub(crate) struct ChaosLog {
    inner: Arc<MemoryLog>,
    link: Arc<Link>,
}

impl ChaosLog {
    pub(crate) fn new(inner: Arc<MemoryLog>, link: Arc<Link>) -> Self {
        Self { inner, link }
    }

    /// Whether the log confirms this one record of a batch; it may have been taken all the same.
    fn confirms(&self) -> bool {
        let sky = &self.link.sky;
        !sky.strikes(sky.weather.message_lost)
    }
}

fn unannounced() -> Result<(), AnnounceError> {
    Err(AnnounceError::Unavailable(Struck.into()))
}

fn unpublished() -> Result<(), PublishError> {
    Err(PublishError::Unavailable(Struck.into()))
}

#[async_trait]
impl TaskPublisher for ChaosLog {
    async fn publish(&self, messages: &[TaskMessage]) -> Vec<Result<(), PublishError>> {
        let sky = &self.link.sky;
        let mut sent = Vec::with_capacity(messages.len());
        for message in messages {
            if sky.strikes(sky.weather.message_repeated) {
                sent.push(message.clone());
            }
            // Lost for good, though the log confirmed it: an unclean election of a leader does this.
            if !sky.loses_message() {
                sent.push(message.clone());
            }
        }
        if sky.strikes(sky.weather.shuffled) {
            sky.chance.shuffle(&mut sent);
        }
        let confirmed: Vec<bool> = messages.iter().map(|_| self.confirms()).collect();
        let inner = Arc::clone(&self.inner);
        let deed = async move {
            inner.publish(&sent).await;
        };
        match self.link.call(Call::Publish, deed).await {
            Some(()) => confirmed
                .into_iter()
                .map(|confirmed| if confirmed { Ok(()) } else { unpublished() })
                .collect(),
            None => messages.iter().map(|_| unpublished()).collect(),
        }
    }

    async fn ping(&self) -> Result<(), PublishError> {
        match self.link.call(Call::PingLog, async {}).await {
            Some(()) => Ok(()),
            None => unpublished(),
        }
    }
}

#[async_trait]
impl Announcer for ChaosLog {
    async fn announce(&self, results: &[TaskResult]) -> Vec<Result<(), AnnounceError>> {
        // What is confirmed was taken: a log that confirms and forgets breaks the promise of the port.
        let confirmed: Vec<bool> = results.iter().map(|_| self.confirms()).collect();
        let sent: Vec<TaskResult> = results
            .iter()
            .zip(&confirmed)
            .filter(|(_, confirmed)| **confirmed || self.link.sky.chance.one_in(2))
            .map(|(result, _)| result.clone())
            .collect();
        let inner = Arc::clone(&self.inner);
        let deed = async move {
            inner.announce(&sent).await;
        };
        answers(self.link.call(Call::Announce, deed).await, confirmed)
    }

    async fn dead_letter(&self, letters: &[DeadLetter]) -> Vec<Result<(), AnnounceError>> {
        let confirmed: Vec<bool> = letters.iter().map(|_| self.confirms()).collect();
        let sent: Vec<DeadLetter> = letters
            .iter()
            .zip(&confirmed)
            .filter(|(_, confirmed)| **confirmed || self.link.sky.chance.one_in(2))
            .map(|(letter, _)| letter.clone())
            .collect();
        let inner = Arc::clone(&self.inner);
        let deed = async move {
            inner.dead_letter(&sent).await;
        };
        answers(self.link.call(Call::DeadLetter, deed).await, confirmed)
    }

    async fn tell(&self, events: &[TaskEvent]) -> Vec<Result<(), AnnounceError>> {
        let confirmed: Vec<bool> = events.iter().map(|_| self.confirms()).collect();
        let sent: Vec<TaskEvent> = events
            .iter()
            .zip(&confirmed)
            .filter(|(_, confirmed)| **confirmed || self.link.sky.chance.one_in(2))
            .map(|(event, _)| *event)
            .collect();
        let inner = Arc::clone(&self.inner);
        let deed = async move {
            inner.tell(&sent).await;
        };
        answers(self.link.call(Call::Tell, deed).await, confirmed)
    }
}

fn answers(reached: Option<()>, confirmed: Vec<bool>) -> Vec<Result<(), AnnounceError>> {
    confirmed
        .into_iter()
        .map(|confirmed| {
            if confirmed && reached.is_some() {
                Ok(())
            } else {
                unannounced()
            }
        })
        .collect()
}
