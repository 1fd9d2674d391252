//! The log in memory: `tasks-input`, `tasks-output`, `tasks-dead-letter` and `tasks-events`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use ports::{
    AnnounceError, Announcer, Clock, DeadLetter, Delivery, EventFeed, EventFeedError, EventReader,
    FeedError, PlacedEvent, Position, PublishError, RecordContent, Standing, TaskEvent, TaskFeed,
    TaskId, TaskMessage, TaskPublisher, TaskResult, Timestamp, TraceContext,
};
use tokio::sync::Notify;

/// The group of [`MemoryLog::feed`].
const DEFAULT_GROUP: &str = "task-processor-group";

/// The limits of a [`MemoryLog`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Partitions of `tasks-input`, at least 1. Default 12.
    pub partitions: u16,
    /// Records that `tasks-input` holds at most until every group has acknowledged them. Default 100,000; a record
    /// takes about 100 bytes, since payloads are not kept.
    pub input_records: usize,
    /// How many of the latest results, and as many dead letters, are kept for [`MemoryLog::outputs`] and
    /// [`MemoryLog::dead_letters`]. Default 10,000.
    pub kept_records: usize,
    /// How many bytes of text these may hold, each of the two. Default 16 MiB.
    pub kept_bytes: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            partitions: 12,
            input_records: 100_000,
            kept_records: 10_000,
            kept_bytes: 16 * 1024 * 1024,
        }
    }
}

/// `tasks-input` holds as many unacknowledged records as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log in memory is full: it may hold {limit} unacknowledged records")]
pub struct LogFull {
    /// How many it may hold.
    pub limit: usize,
}

/// The log in memory: publishes task messages, brings them to [`MemoryFeed`]s, keeps the latest announcements for tests
/// to read. A clone is another handle of the same log.
///
/// Like Kafka it has partitions chosen by key, groups that share them and remember what they acknowledged, and delivers
/// again what was not acknowledged when a member goes. A full `tasks-input` refuses as
/// [`PublishError::Unavailable`] with [`LogFull`] as its cause; a record leaves it when every group has acknowledged it.
///
/// ```
/// use std::sync::Arc;
/// use task_processor_adapters::memory::{ManualClock, MemoryLog};
/// use ports::{Payload, Priority, RecordContent, Standing, TaskFeed, TaskMessage, TaskPublisher};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let log = MemoryLog::new(Arc::new(ManualClock::default()));
/// let message = TaskMessage {
///     id: "0194fdc2-fa2f-7cc0-81d3-ff1204e5b6ab".parse()?,
///     payload: Payload::new("Hello world!")?,
///     priority: Priority::default(),
///     trace: None,
/// };
/// log.publish(std::slice::from_ref(&message)).await;
///
/// let feed = log.feed();
/// let deliveries = feed.receive(10).await?;
/// assert_eq!(deliveries[0].content, RecordContent::Task(message.id));
///
/// drop(feed); // A crash: nothing was acknowledged, so the next member gets it again.
/// let feed = log.feed();
/// let again = feed.receive(10).await?;
/// assert_eq!(again, deliveries);
/// feed.acknowledge(&[again[0].position]).await?;
/// assert_eq!(feed.standing(), Standing::CaughtUp);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryLog {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    limits: LogLimits,
    arrived: Notify,
    announced: Notify,
    state: Mutex<State>,
}

struct State {
    partitions: Vec<Partition>,
    records: usize,
    groups: BTreeMap<String, Group>,
    next_member: u64,
    outputs: Ring<TaskResult>,
    dead_letters: Ring<DeadLetter>,
    events: Ring<TaskEvent>,
    /// The position after the last event.
    events_end: u64,
}

#[derive(Clone)]
struct Record {
    recorded_at: Timestamp,
    content: RecordContent,
    trace: Option<TraceContext>,
}

#[derive(Default)]
struct Partition {
    /// The offset of the first record that is still there.
    start: i64,
    records: VecDeque<Record>,
}

impl Partition {
    fn end(&self) -> i64 {
        self.start + offset(self.records.len())
    }
}

struct Group {
    members: BTreeMap<u64, Member>,
    shares: Vec<Share>,
}

#[derive(Default)]
struct Member {
    /// Where the next receive begins to look, so that a busy partition does not starve the others.
    turn: usize,
}

/// What a group knows of one partition.
#[derive(Clone, Copy)]
struct Share {
    owner: Option<u64>,
    /// The next offset to deliver to the owner.
    next: i64,
    /// The offset up to which nothing needs to be delivered again.
    committed: i64,
}

impl Group {
    /// Gives partition p to the member of rank p mod members. A new owner starts at what was acknowledged.
    fn rebalance(&mut self) {
        let members: Vec<u64> = self.members.keys().copied().collect();
        for (partition, share) in self.shares.iter_mut().enumerate() {
            let owner = partition
                .checked_rem(members.len())
                .map(|rank| members[rank]);
            if share.owner != owner {
                share.owner = owner;
                share.next = share.committed;
            }
        }
    }
}

/// The latest records, bounded in number and in bytes.
struct Ring<Kept> {
    records: VecDeque<(usize, Kept)>,
    bytes: usize,
}

impl<Kept: Clone> Ring<Kept> {
    const fn new() -> Self {
        Self {
            records: VecDeque::new(),
            bytes: 0,
        }
    }

    fn push(&mut self, record: Kept, bytes: usize, limits: &LogLimits) {
        self.records.push_back((bytes, record));
        self.bytes += bytes;
        while self.records.len() > limits.kept_records || self.bytes > limits.kept_bytes {
            match self.records.pop_front() {
                Some((freed, _)) => self.bytes -= freed,
                None => break,
            }
        }
    }

    fn to_vec(&self) -> Vec<Kept> {
        self.records
            .iter()
            .map(|(_, record)| record.clone())
            .collect()
    }
}

/// A count of records as an offset; counts are bounded far below 2^63.
fn offset(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn index(offset: i64) -> usize {
    usize::try_from(offset).unwrap_or(0)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is complete before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(
        &mut self,
        partition: usize,
        record: Record,
        limits: &LogLimits,
    ) -> Result<Position, LogFull> {
        if self.records >= limits.input_records {
            return Err(LogFull {
                limit: limits.input_records,
            });
        }
        let chosen = &mut self.partitions[partition];
        let position = Position {
            partition: i32::try_from(partition).unwrap_or(i32::MAX),
            offset: chosen.end(),
        };
        chosen.records.push_back(record);
        self.records += 1;
        Ok(position)
    }

    fn partition_of(&self, id: TaskId) -> usize {
        // The low bits of an id are the random ones (or the counting ones of `SequentialIds`): they spread evenly.
        let spread = id.0.as_u128() % self.partitions.len() as u128;
        usize::try_from(spread).unwrap_or(0)
    }

    fn trim(&mut self) {
        for (number, partition) in self.partitions.iter_mut().enumerate() {
            let settled = self
                .groups
                .values()
                .map(|group| group.shares[number].committed)
                .min();
            while settled.is_some_and(|settled| partition.start < settled)
                && partition.records.pop_front().is_some()
            {
                partition.start += 1;
                self.records -= 1;
            }
        }
    }
}

impl MemoryLog {
    /// An empty log with the default [`LogLimits`]. Records are stamped by this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_limits(clock, LogLimits::default())
    }

    /// An empty log with these limits.
    #[must_use]
    pub fn with_limits(clock: Arc<dyn Clock>, limits: LogLimits) -> Self {
        let partitions = std::iter::repeat_with(Partition::default)
            .take(usize::from(limits.partitions.max(1)))
            .collect();
        let started_at = clock.now();
        let log = Self {
            shared: Arc::new(Shared {
                clock,
                limits,
                arrived: Notify::new(),
                announced: Notify::new(),
                state: Mutex::new(State {
                    partitions,
                    records: 0,
                    groups: BTreeMap::new(),
                    next_member: 0,
                    outputs: Ring::new(),
                    dead_letters: Ring::new(),
                    events: Ring::new(),
                    // Behind every position of an earlier life: whoever resumes from one of those is told so.
                    events_end: u64::try_from(started_at.as_micros()).unwrap_or(0),
                }),
            }),
        };
        log.shared.lock().group(DEFAULT_GROUP);
        log
    }

    /// A new member of the default group. Dropping it is a crash: its partitions go to the members left (or the next to
    /// come), which get again what was not acknowledged.
    #[must_use]
    pub fn feed(&self) -> MemoryFeed {
        self.feed_of(DEFAULT_GROUP)
    }

    /// A new member of this group. A new group begins at the earliest record that is still there.
    #[must_use]
    pub fn feed_of(&self, group: &str) -> MemoryFeed {
        let mut state = self.shared.lock();
        let member = state.next_member;
        state.next_member += 1;
        let joined = state.group(group);
        joined.members.insert(member, Member::default());
        joined.rebalance();
        drop(state);
        self.shared.arrived.notify_waiters();
        MemoryFeed {
            shared: Arc::clone(&self.shared),
            group: group.to_owned(),
            member,
        }
    }

    /// Deletes `tasks-input` and makes it anew, as an operator does: its records are gone, its offsets begin again, and no group
    /// has acknowledged anything. What members received before they may still acknowledge; that passes over as many records of
    /// the new topic.
    pub fn recreate_input(&self) {
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        for partition in &mut state.partitions {
            *partition = Partition::default();
        }
        state.records = 0;
        for share in state
            .groups
            .values_mut()
            .flat_map(|group| &mut group.shares)
        {
            share.next = 0;
            share.committed = 0;
        }
        drop(guard);
        self.shared.arrived.notify_waiters();
    }

    /// Writes a record to `tasks-input` that feeds deliver as [`RecordContent::Unreadable`].
    ///
    /// # Errors
    /// [`LogFull`].
    pub fn put_unreadable(
        &self,
        reason: &str,
        key: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
    ) -> Result<Position, LogFull> {
        let recorded_at = self.shared.clock.now();
        let record = Record {
            recorded_at,
            content: RecordContent::Unreadable {
                reason: reason.to_owned(),
                key,
                value,
            },
            trace: None,
        };
        let position = self.shared.lock().append(0, record, &self.shared.limits)?;
        self.shared.arrived.notify_waiters();
        Ok(position)
    }

    /// How many records of `tasks-input` some group has not acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.shared.lock().records
    }

    /// The latest results on `tasks-output`, oldest first.
    #[must_use]
    pub fn outputs(&self) -> Vec<TaskResult> {
        self.shared.lock().outputs.to_vec()
    }

    /// The latest records on `tasks-dead-letter`, oldest first.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.shared.lock().dead_letters.to_vec()
    }

    /// The latest events, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<TaskEvent> {
        self.shared.lock().events.to_vec()
    }

    /// Waits until the condition holds for what stands on `tasks-output` and `tasks-dead-letter`, looking again after
    /// every announcement. Waits for ever if that never comes: give it a timeout in tests.
    pub async fn until_announced(&self, condition: impl Fn(&[TaskResult], &[DeadLetter]) -> bool) {
        loop {
            // Made before looking, it is woken by whatever changes after.
            let announced = self.shared.announced.notified();
            if condition(&self.outputs(), &self.dead_letters()) {
                return;
            }
            announced.await;
        }
    }
}

impl State {
    fn group(&mut self, name: &str) -> &mut Group {
        let partitions = &self.partitions;
        self.groups.entry(name.to_owned()).or_insert_with(|| Group {
            members: BTreeMap::new(),
            shares: partitions
                .iter()
                .map(|partition| Share {
                    owner: None,
                    next: partition.start,
                    committed: partition.start,
                })
                .collect(),
        })
    }
}

#[async_trait]
impl TaskPublisher for MemoryLog {
    async fn publish(&self, messages: &[TaskMessage]) -> Vec<Result<(), PublishError>> {
        if messages.is_empty() {
            return Vec::new();
        }
        let recorded_at = self.shared.clock.now();
        let mut state = self.shared.lock();
        let outcomes = messages
            .iter()
            .map(|message| {
                let partition = state.partition_of(message.id);
                let record = Record {
                    recorded_at,
                    content: RecordContent::Task(message.id),
                    trace: message.trace.clone(),
                };
                match state.append(partition, record, &self.shared.limits) {
                    Ok(_) => Ok(()),
                    Err(full) => Err(PublishError::Unavailable(full.into())),
                }
            })
            .collect();
        drop(state);
        self.shared.arrived.notify_waiters();
        outcomes
    }

    async fn ping(&self) -> Result<(), PublishError> {
        Ok(())
    }
}

#[async_trait]
impl Announcer for MemoryLog {
    async fn announce(&self, results: &[TaskResult]) -> Vec<Result<(), AnnounceError>> {
        let mut state = self.shared.lock();
        for result in results {
            state
                .outputs
                .push(result.clone(), result.result.len(), &self.shared.limits);
        }
        drop(state);
        self.shared.announced.notify_waiters();
        results.iter().map(|_| Ok(())).collect()
    }

    async fn dead_letter(&self, letters: &[DeadLetter]) -> Vec<Result<(), AnnounceError>> {
        let mut state = self.shared.lock();
        for letter in letters {
            state
                .dead_letters
                .push(letter.clone(), text_bytes(letter), &self.shared.limits);
        }
        drop(state);
        self.shared.announced.notify_waiters();
        letters.iter().map(|_| Ok(())).collect()
    }

    async fn tell(&self, events: &[TaskEvent]) -> Vec<Result<(), AnnounceError>> {
        let mut state = self.shared.lock();
        for event in events {
            state.events.push(*event, 0, &self.shared.limits);
            state.events_end += 1;
        }
        drop(state);
        self.shared.announced.notify_waiters();
        events.iter().map(|_| Ok(())).collect()
    }
}

/// Reads `tasks-events` of a [`MemoryLog`], as far as its ring goes back.
struct MemoryEvents {
    shared: Arc<Shared>,
    begin: u64,
    next: u64,
    end: u64,
}

#[async_trait]
impl EventFeed for MemoryLog {
    async fn open(&self, latest: usize) -> Result<Box<dyn EventReader>, EventFeedError> {
        let state = self.shared.lock();
        let kept = state.events.records.len().min(latest) as u64;
        let end = state.events_end;
        drop(state);
        Ok(Box::new(MemoryEvents {
            shared: Arc::clone(&self.shared),
            begin: end - kept,
            next: end - kept,
            end,
        }))
    }
}

#[async_trait]
impl EventReader for MemoryEvents {
    fn begin(&self) -> u64 {
        self.begin
    }

    fn end(&self) -> u64 {
        self.end
    }

    async fn read(&mut self, limit: usize) -> Result<Vec<PlacedEvent>, EventFeedError> {
        loop {
            // Made before looking, it is woken by whatever changes after.
            let announced = self.shared.announced.notified();
            let read: Vec<PlacedEvent> = {
                let state = self.shared.lock();
                let first = state.events_end - state.events.records.len() as u64;
                let from = self.next.max(first);
                let skipped = usize::try_from(from - first).unwrap_or(usize::MAX);
                let records = state.events.records.iter().skip(skipped).take(limit);
                (from..)
                    .zip(records)
                    .map(|(position, (_, event))| PlacedEvent {
                        position,
                        event: Some(*event),
                    })
                    .collect()
            };
            if let Some(last) = read.last() {
                self.next = last.position + 1;
                return Ok(read);
            }
            announced.await;
        }
    }
}

fn text_bytes(letter: &DeadLetter) -> usize {
    match letter {
        DeadLetter::Unreadable {
            reason, key, value, ..
        } => reason.len() + key.as_ref().map_or(0, Vec::len) + value.as_ref().map_or(0, Vec::len),
        DeadLetter::Failed { payload, error, .. } => payload.as_str().len() + error.len(),
    }
}

/// A member of a group that reads `tasks-input` of a [`MemoryLog`]. Made by [`MemoryLog::feed`].
pub struct MemoryFeed {
    shared: Arc<Shared>,
    group: String,
    member: u64,
}

impl MemoryFeed {
    fn take(&self, limit: usize) -> Vec<Delivery> {
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        let count = state.partitions.len();
        let Some(group) = state.groups.get_mut(&self.group) else {
            return Vec::new();
        };
        let Some(member) = group.members.get_mut(&self.member) else {
            return Vec::new();
        };
        let first = member.turn;
        member.turn = (first + 1) % count;
        let mut taken = Vec::new();
        for number in (first..count).chain(0..first) {
            let share = &mut group.shares[number];
            if share.owner != Some(self.member) {
                continue;
            }
            let partition = &state.partitions[number];
            let room = limit - taken.len();
            let from = index(share.next - partition.start);
            let before = taken.len();
            for (step, record) in partition.records.range(from..).take(room).enumerate() {
                taken.push(Delivery {
                    position: Position {
                        partition: i32::try_from(number).unwrap_or(i32::MAX),
                        offset: share.next + offset(step),
                    },
                    recorded_at: record.recorded_at,
                    content: record.content.clone(),
                    trace: record.trace.clone(),
                });
            }
            share.next += offset(taken.len() - before);
        }
        taken
    }
}

impl Drop for MemoryFeed {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Some(group) = state.groups.get_mut(&self.group) {
            group.members.remove(&self.member);
            group.rebalance();
        }
        drop(state);
        self.shared.arrived.notify_waiters();
    }
}

#[async_trait]
impl TaskFeed for MemoryFeed {
    async fn receive(&self, limit: usize) -> Result<Vec<Delivery>, FeedError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        loop {
            // Made before looking, it is woken by whatever changes after.
            let arrived = self.shared.arrived.notified();
            let taken = self.take(limit);
            if !taken.is_empty() {
                return Ok(taken);
            }
            arrived.await;
        }
    }

    async fn acknowledge(&self, upto: &[Position]) -> Result<(), FeedError> {
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        let Some(group) = state.groups.get_mut(&self.group) else {
            return Ok(());
        };
        for position in upto {
            let number = usize::try_from(position.partition).unwrap_or(usize::MAX);
            let (Some(share), Some(partition)) =
                (group.shares.get_mut(number), state.partitions.get(number))
            else {
                continue;
            };
            if share.owner != Some(self.member) {
                continue;
            }
            share.committed = position
                .offset
                .saturating_add(1)
                .min(partition.end())
                .max(share.committed);
            share.next = share.next.max(share.committed);
        }
        state.trim();
        Ok(())
    }

    fn standing(&self) -> Standing {
        let state = self.shared.lock();
        let mut standing = Standing::Unassigned;
        let shares = state
            .groups
            .get(&self.group)
            .map_or(&[][..], |group| &group.shares[..]);
        for (share, partition) in shares.iter().zip(&state.partitions) {
            if share.owner != Some(self.member) {
                continue;
            }
            if share.next < partition.end() {
                return Standing::Behind;
            }
            standing = Standing::CaughtUp;
        }
        standing
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use ports::{IdSource, Payload, Priority};
    use tokio::time::timeout;

    use super::*;
    use crate::memory::{ManualClock, SequentialIds};

    fn log(limits: LogLimits) -> MemoryLog {
        MemoryLog::with_limits(Arc::new(ManualClock::default()), limits)
    }

    fn messages(count: usize) -> Vec<TaskMessage> {
        let ids = SequentialIds::default();
        let made = std::iter::repeat_with(|| TaskMessage {
            id: ids.task_id(),
            payload: Payload::default(),
            priority: Priority::default(),
            trace: None,
        });
        made.take(count).collect()
    }

    #[tokio::test]
    async fn a_topic_made_anew_begins_at_its_beginning_and_an_old_acknowledgement_passes_over_as_many()
     {
        let log = log(LogLimits {
            partitions: 1,
            ..LogLimits::default()
        });
        let feed = log.feed();
        log.publish(&messages(3)).await;
        let old = feed.receive(10).await.expect("received");
        log.recreate_input();
        assert_eq!(log.unacknowledged(), 0);
        assert_eq!(feed.standing(), Standing::CaughtUp);
        log.publish(&messages(5)).await;
        let new = feed.receive(2).await.expect("received");
        assert_eq!(new[0].position, old[0].position);
        feed.acknowledge(&[old[2].position]).await.expect("taken");
        let rest = feed.receive(10).await.expect("received");
        let offsets: Vec<i64> = rest.iter().map(|record| record.position.offset).collect();
        assert_eq!(offsets, [3, 4]);
    }

    fn partitions(deliveries: &[Delivery]) -> BTreeSet<i32> {
        deliveries
            .iter()
            .map(|delivery| delivery.position.partition)
            .collect()
    }

    #[tokio::test]
    async fn a_full_log_refuses_and_an_acknowledgement_makes_room() {
        let log = log(LogLimits {
            input_records: 3,
            ..LogLimits::default()
        });
        let outcomes = log.publish(&messages(4)).await;
        assert!(outcomes[..3].iter().all(Result::is_ok));
        let refused = outcomes[3].as_ref().expect_err("full");
        assert!(refused.is_transient());
        assert!(log.put_unreadable("rubbish", None, None).is_err());
        let feed = log.feed();
        let deliveries = feed.receive(10).await.expect("receive");
        assert_eq!(log.unacknowledged(), 3);
        feed.acknowledge(&[deliveries[0].position])
            .await
            .expect("acknowledge");
        assert_eq!(log.unacknowledged(), 2);
        assert!(log.publish(&messages(1)).await[0].is_ok());
    }

    #[tokio::test]
    async fn members_share_the_partitions_and_inherit_what_was_not_acknowledged() {
        let log = log(LogLimits {
            partitions: 4,
            ..LogLimits::default()
        });
        let (one, other) = (log.feed(), log.feed());
        log.publish(&messages(40)).await;
        let first = one.receive(100).await.expect("receive");
        let second = other.receive(100).await.expect("receive");
        assert_eq!(first.len() + second.len(), 40);
        assert!(partitions(&first).is_disjoint(&partitions(&second)));
        // What belongs to another member is passed over.
        other
            .acknowledge(&[first[0].position])
            .await
            .expect("acknowledge");
        assert_eq!(log.unacknowledged(), 40);
        drop(one);
        let inherited = timeout(Duration::from_secs(10), other.receive(100))
            .await
            .expect("what is not acknowledged comes again")
            .expect("receive");
        assert_eq!(partitions(&inherited), partitions(&first));
        assert_eq!(inherited.len(), first.len());
    }

    #[tokio::test]
    async fn a_member_without_partitions_says_so_and_gets_some_when_another_goes() {
        let log = log(LogLimits {
            partitions: 1,
            ..LogLimits::default()
        });
        let (one, other) = (log.feed(), log.feed());
        assert_eq!(
            (one.standing(), other.standing()),
            (Standing::CaughtUp, Standing::Unassigned)
        );
        log.publish(&messages(1)).await;
        assert!(
            timeout(Duration::from_millis(10), other.receive(1))
                .await
                .is_err()
        );
        let (deliveries, ()) = tokio::join!(other.receive(1), async { drop(one) });
        assert_eq!(deliveries.expect("receive").len(), 1);
    }

    #[tokio::test]
    async fn groups_read_apart_and_records_stay_until_all_have_them() {
        let log = log(LogLimits::default());
        let (one, other) = (log.feed(), log.feed_of("audit"));
        log.publish(&messages(1)).await;
        for (feed, left) in [(&one, 1), (&other, 0)] {
            let deliveries = feed.receive(10).await.expect("receive");
            feed.acknowledge(&[deliveries[0].position])
                .await
                .expect("acknowledge");
            assert_eq!(log.unacknowledged(), left);
        }
    }

    #[tokio::test]
    async fn a_busy_partition_does_not_starve_the_others() {
        let log = log(LogLimits {
            partitions: 2,
            ..LogLimits::default()
        });
        let feed = log.feed();
        for _ in 0..100 {
            log.put_unreadable("rubbish", None, None).expect("room");
        }
        let quiet: Vec<TaskMessage> = messages(2);
        log.publish(&quiet).await;
        let mut seen = BTreeSet::new();
        for _ in 0..2 {
            seen.extend(partitions(&feed.receive(5).await.expect("receive")));
        }
        assert_eq!(seen, BTreeSet::from([0, 1]));
    }

    #[tokio::test]
    async fn announcements_are_kept_within_both_limits() {
        let result = |length: usize| TaskResult {
            id: TaskId(uuid::Uuid::nil()),
            result: "x".repeat(length),
            processed_at: Timestamp::EPOCH,
        };
        let log = log(LogLimits {
            kept_records: 3,
            kept_bytes: 100,
            ..LogLimits::default()
        });
        let lengths = |log: &MemoryLog| {
            log.outputs()
                .iter()
                .map(|kept| kept.result.len())
                .collect::<Vec<_>>()
        };
        log.announce(&[result(1), result(2), result(3), result(4)])
            .await;
        assert_eq!(lengths(&log), [2, 3, 4]);
        log.announce(&[result(95)]).await;
        assert_eq!(lengths(&log), [4, 95]);
        log.announce(&[result(101)]).await;
        assert!(lengths(&log).is_empty());
    }
}
