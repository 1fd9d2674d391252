//! Receiving as one process sees it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adapters::memory::{MemoryFeed, MemoryLog};
use async_trait::async_trait;
use ports::{
    Delivery, Dependency, FeedError, Position, RecordContent, Standing, TaskFeed, TaskId, Timestamp,
};
use tokio::time::sleep;

use super::Struck;
use crate::link::Link;
use crate::sky::{Call, Fate, Outage};
use crate::state::Watched;

/// How many records a feed remembers, to bring them again.
const REMEMBERED: usize = 32;

/// What all feeds of a history know of the topic.
#[derive(Default)]
pub(crate) struct Topic {
    /// Records of before this time (the log's clock, microseconds) were wiped. What is written at the same moment comes
    /// after it.
    wiped_at: AtomicI64,
    /// Whether every message is lost.
    loses_all: AtomicBool,
    /// Tasks of the old API: nothing but the message says that they want work, so the weather must not lose it.
    precious: Mutex<Vec<TaskId>>,
}

impl Topic {
    pub(crate) fn wipe(&self, now: i64) {
        self.wiped_at.store(now, Ordering::Relaxed);
    }

    /// The log's clock went back to this time: what comes from now on is not of before the wipe.
    pub(crate) fn clock_went_back_to(&self, now: i64) {
        self.wiped_at.fetch_min(now, Ordering::Relaxed);
    }

    fn is_wiped(&self, recorded_at: Timestamp) -> bool {
        recorded_at.as_micros() < self.wiped_at.load(Ordering::Relaxed)
    }

    pub(crate) fn lose_all(&self, loses_all: bool) {
        self.loses_all.store(loses_all, Ordering::Relaxed);
    }

    pub(crate) fn cherish(&self, id: TaskId) {
        self.precious
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(id);
    }

    fn is_precious(&self, id: TaskId) -> bool {
        self.precious
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&id)
    }
}

pub(crate) struct ChaosFeed {
    log: Arc<MemoryLog>,
    /// `None` while the group has thrown this member out.
    member: Mutex<Option<Arc<MemoryFeed>>>,
    is_member: Watched<bool>,
    topic: Arc<Topic>,
    link: Arc<Link>,
    /// Received, and not handed on.
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    ready: VecDeque<Delivery>,
    remembered: VecDeque<Delivery>,
}

impl ChaosFeed {
    pub(crate) fn new(log: Arc<MemoryLog>, topic: Arc<Topic>, link: Arc<Link>) -> Self {
        Self {
            member: Mutex::new(Some(Arc::new(log.feed()))),
            is_member: Watched::new(true),
            log,
            topic,
            link,
            shelf: Mutex::default(),
        }
    }

    /// The group throws a member out that was not heard of for long: its partitions go to others.
    pub(crate) fn leave(&self) {
        self.is_member.set(false);
        *self.member() = None;
        // Some clients forget what they had fetched, some bring it all the same.
        if self.link.sky.chance.one_in(2) {
            self.shelf().ready.clear();
        }
    }

    pub(crate) fn join(&self) {
        let mut member = self.member();
        if member.is_none() {
            *member = Some(Arc::new(self.log.feed()));
        }
        drop(member);
        self.is_member.set(true);
    }

    fn member(&self) -> MutexGuard<'_, Option<Arc<MemoryFeed>>> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the group has this member.
    async fn membership(&self) -> Arc<MemoryFeed> {
        loop {
            if let Some(member) = self.member().as_ref() {
                return Arc::clone(member);
            }
            self.is_member.until(true).await;
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_on_shelf(&self, mut received: Vec<Delivery>) {
        let sky = &self.link.sky;
        received.retain(|delivery| {
            if self.topic.is_wiped(delivery.recorded_at) {
                return false;
            }
            match delivery.content {
                RecordContent::Task(id) => {
                    self.topic.is_precious(id)
                        || !(self.topic.loses_all.load(Ordering::Relaxed) || sky.loses_message())
                }
                RecordContent::Unreadable { .. } => true,
            }
        });
        // An acknowledgement of what overtook another passes over the other, if the process dies between the two: that may
        // befall messages that may be lost, and no others.
        let may_be_lost = |delivery: &Delivery| match delivery.content {
            RecordContent::Task(id) => !self.topic.is_precious(id),
            RecordContent::Unreadable { .. } => false,
        };
        if sky.strikes(sky.weather.shuffled) && received.iter().all(may_be_lost) {
            sky.chance.shuffle(&mut received);
        }
        let mut shelf = self.shelf();
        if sky.strikes(sky.weather.message_repeated)
            && let Some(old) = shelf.remembered.pop_front()
        {
            shelf.ready.push_back(old);
        }
        for delivery in received {
            if shelf.remembered.len() < REMEMBERED {
                shelf.remembered.push_back(delivery.clone());
            }
            shelf.ready.push_back(delivery);
        }
    }

    fn take_from_shelf(&self, limit: usize) -> Vec<Delivery> {
        let mut shelf = self.shelf();
        let count = shelf.ready.len().min(limit);
        shelf.ready.drain(..count).collect()
    }

    fn unavailable<T>() -> Result<T, FeedError> {
        Err(FeedError::Unavailable(Struck.into()))
    }
}

#[async_trait]
impl TaskFeed for ChaosFeed {
    async fn receive(&self, limit: usize) -> Result<Vec<Delivery>, FeedError> {
        loop {
            self.link.pass().await;
            match self.link.sky.outage(Dependency::Log) {
                Some(Outage::Refusing) => return Self::unavailable(),
                // A poll of a silent log brings nothing and says nothing.
                Some(Outage::Silent) => self.link.sky.until_up(Dependency::Log).await,
                None => {}
            }
            let taken = self.take_from_shelf(limit);
            if !taken.is_empty() {
                return Ok(taken);
            }
            let fate = self.link.fate(Call::Receive);
            match fate {
                Fate::Refused | Fate::AnswerLost | Fate::Late(_) => return Self::unavailable(),
                Fate::KilledBefore => return self.link.perish().await,
                Fate::Slow { before, .. } => sleep(before).await,
                Fate::Pass | Fate::KilledAfter => {}
            }
            let received = {
                let member = self.membership().await;
                // Whoever is thrown out while it waits waits on as what it is then.
                tokio::select! {
                    biased;
                    () = self.is_member.until(false) => continue,
                    received = member.receive(limit) => received?,
                }
            };
            if fate == Fate::KilledAfter {
                return self.link.perish().await;
            }
            // From here on the shelf keeps them, even if the caller gives up waiting.
            self.put_on_shelf(received);
            if let Fate::Slow { after, .. } = fate {
                sleep(after).await;
            }
        }
    }

    async fn acknowledge(&self, upto: &[Position]) -> Result<(), FeedError> {
        let Some(member) = self.member().clone() else {
            return Ok(());
        };
        let upto = upto.to_vec();
        let deed = async move { member.acknowledge(&upto).await };
        let answer = self.link.call(Call::Acknowledge, deed).await;
        answer.unwrap_or_else(Self::unavailable)
    }

    fn standing(&self) -> Standing {
        if self.link.sky.outage(Dependency::Log).is_some() {
            return Standing::Down;
        }
        let member = self.member();
        let standing = member
            .as_ref()
            .map_or(Standing::Unassigned, |member| member.standing());
        drop(member);
        match standing {
            Standing::CaughtUp if !self.shelf().ready.is_empty() => Standing::Behind,
            standing => standing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seed 46001 once put a record into the topic in the very microsecond of its wipe and lost it, and the system was blamed.
    #[test]
    fn what_is_written_in_the_moment_of_a_wipe_comes_after_it() {
        let topic = Topic::default();
        topic.wipe(1_000);
        assert!(topic.is_wiped(Timestamp::from_micros(999)));
        assert!(!topic.is_wiped(Timestamp::from_micros(1_000)));
        topic.clock_went_back_to(500);
        assert!(topic.is_wiped(Timestamp::from_micros(499)));
        assert!(!topic.is_wiped(Timestamp::from_micros(500)));
    }
}
