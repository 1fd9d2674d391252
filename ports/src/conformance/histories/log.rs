//! Histories of logs: what goes in at one end comes out at the other, whoever crashes in between.
//!
//! Two logs put a task on partitions of their own choice, so that what comes first may differ. Each is followed by where its own
//! records stand; what has come out in the end is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::time::{Instant, sleep, timeout_at};

use super::Found;
use crate::announcer::DeadLetter;
use crate::conformance::fresh_id;
use crate::conformance::log::{Subject, bytes_of};
use crate::feed::{Delivery, Position, RecordContent, TaskFeed};
use crate::publisher::TaskMessage;
use crate::task::{Payload, Priority, TaskId, TaskResult};
use crate::time::Timestamp;
use crate::trace::TraceContext;

const TASKS: u8 = 8;

/// Keys and values that nobody can read.
const RUBBISH: [Option<&[u8]>; 5] = [
    None,
    Some(b""),
    Some(b"rubbish"),
    Some(b"\xff\xfe\x00"),
    Some(b"{\"taskId\":1}"),
];

/// How long a record may take: a broker that starts a group on a busy machine takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Messages: a task, and the number of a trace or 0 for none. A task may be there twice.
    Publish(Vec<(u8, u8)>),
    /// A record that cannot be read: its key and its value.
    Raw(u8, u8),
    /// All that has not come yet, at most so many at a time.
    Receive(u8),
    /// What came of each partition, but for so many of the last.
    Acknowledge(u8),
    /// The reader goes, and another comes.
    Crash,
    /// Results: a task and a text.
    Announce(Vec<(u8, u8)>),
    /// A dead letter for an unreadable record, or for a failed task.
    Letter { task: u8, is_failed: bool },
}

pub(super) fn steps(length: usize) -> impl Strategy<Value = Vec<Step>> {
    let tasks = || vec((0..TASKS, 0..4_u8), 0..6);
    let step = prop_oneof![
        4 => tasks().prop_map(Step::Publish),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(key, value)| Step::Raw(key, value)),
        3 => (1..8_u8).prop_map(Step::Receive),
        3 => (0..3_u8).prop_map(Step::Acknowledge),
        1 => Just(Step::Crash),
        1 => tasks().prop_map(Step::Announce),
        1 => (0..TASKS, any::<bool>()).prop_map(|(task, is_failed)| Step::Letter { task, is_failed }),
    ];
    vec(step, 1..length)
}

pub(super) async fn compare(steps: &[Step], logs: &[Arc<dyn Subject>; 2]) -> Found {
    let tasks: Vec<TaskId> = (0..TASKS).map(|_| fresh_id()).collect();
    let mut endings = Vec::new();
    for log in logs {
        let mut followed = Followed::new(log.as_ref(), &tasks).await;
        let mut outcome = Ok(());
        for (step, number) in steps.iter().zip(1..) {
            outcome = followed.make(step).await;
            if let Err(wrong) = &mut outcome {
                *wrong = format!("step {number} of {steps:#?}: {wrong}");
                break;
            }
        }
        let ending = match outcome {
            Ok(()) => followed.end().await,
            Err(wrong) => Err(wrong),
        };
        drop(followed);
        log.close().await;
        endings.push(ending?);
    }
    if endings[0] == endings[1] {
        return Ok(());
    }
    let (one, other) = (&endings[0], &endings[1]);
    Err(format!(
        "{steps:#?}\n  left\n    {one:#?}\n  and in the other log\n    {other:#?}\n"
    ))
}

/// What a log held in the end, in no order.
#[derive(Debug, PartialEq)]
struct Ending {
    records: Vec<String>,
    outputs: Vec<String>,
    letters: Vec<String>,
}

struct Followed<'a> {
    log: &'a dyn Subject,
    tasks: &'a [TaskId],
    feed: Option<Box<dyn TaskFeed>>,
    sent: usize,
    announced: usize,
    lettered: usize,
    /// What stands where, as it came first.
    known: BTreeMap<(i32, i64), String>,
    /// What came to the present reader.
    came: BTreeSet<(i32, i64)>,
    /// The last acknowledged offset of each partition.
    acknowledged: BTreeMap<i32, i64>,
    /// The same when the present reader began.
    began_at: BTreeMap<i32, i64>,
}

impl<'a> Followed<'a> {
    async fn new(log: &'a dyn Subject, tasks: &'a [TaskId]) -> Self {
        Self {
            log,
            tasks,
            feed: Some(log.feed().await),
            sent: 0,
            announced: 0,
            lettered: 0,
            known: BTreeMap::new(),
            came: BTreeSet::new(),
            acknowledged: BTreeMap::new(),
            began_at: BTreeMap::new(),
        }
    }

    fn task(&self, number: u8) -> TaskId {
        self.tasks[usize::from(number)]
    }

    async fn make(&mut self, step: &Step) -> Found {
        match step {
            Step::Publish(messages) => self.publish(messages).await,
            Step::Raw(key, value) => {
                let sample = |number: u8| {
                    let sample = RUBBISH[usize::from(number) % RUBBISH.len()];
                    sample.map(<[u8]>::to_vec)
                };
                self.log.put_raw(sample(*key), sample(*value)).await;
                self.sent += 1;
                Ok(())
            }
            Step::Receive(limit) => self.receive_all(usize::from(*limit)).await,
            Step::Acknowledge(but) => self.acknowledge(usize::from(*but)).await,
            Step::Crash => {
                drop(self.feed.take());
                self.feed = Some(self.log.feed().await);
                self.came.clear();
                self.began_at.clone_from(&self.acknowledged);
                Ok(())
            }
            Step::Announce(results) => self.announce(results).await,
            Step::Letter { task, is_failed } => self.letter(*task, *is_failed).await,
        }
    }

    async fn publish(&mut self, messages: &[(u8, u8)]) -> Found {
        let messages: Vec<TaskMessage> = messages
            .iter()
            .map(|(task, trace)| TaskMessage {
                id: self.task(*task),
                payload: Payload::new(format!("payload of {task}")).unwrap_or_default(),
                priority: Priority::clamped(i64::from(*task)),
                trace: TraceContext::new(u128::from(*trace), u64::from(*trace), *trace % 2 == 1),
            })
            .collect();
        self.sent += messages.len();
        let outcomes = self.log.publisher().publish(&messages).await;
        all_ok(&outcomes, messages.len())
    }

    async fn announce(&mut self, results: &[(u8, u8)]) -> Found {
        let results: Vec<TaskResult> = results
            .iter()
            .map(|(task, text)| TaskResult {
                id: self.task(*task),
                result: format!("result {text}"),
                processed_at: Timestamp::from_micros(1_704_067_202_345_000),
            })
            .collect();
        self.announced += results.len();
        let outcomes = self.log.announcer().announce(&results).await;
        all_ok(&outcomes, results.len())
    }

    async fn letter(&mut self, task: u8, is_failed: bool) -> Found {
        let failed_at = Timestamp::from_micros(1_704_067_202_345_000);
        let letter = if is_failed {
            DeadLetter::Failed {
                id: self.task(task),
                payload: Payload::new("Hello world!").unwrap_or_default(),
                priority: Priority::default(),
                attempts: u32::from(task),
                error: format!("error {task}"),
                failed_at,
            }
        } else {
            DeadLetter::Unreadable {
                reason: format!("reason {task}"),
                position: Position {
                    partition: 0,
                    offset: i64::from(task),
                },
                key: Some(vec![b'k', task]),
                value: Some(vec![0xff, task]),
                failed_at,
            }
        };
        self.lettered += 1;
        let outcomes = self.log.announcer().dead_letter(&[letter]).await;
        all_ok(&outcomes, 1)
    }

    /// How many records the present reader must still be brought: all that stand behind what was acknowledged when it began.
    fn due(&self) -> usize {
        let passed = self.known.keys();
        let passed =
            passed.filter(|(partition, offset)| is_upto(&self.began_at, *partition, *offset));
        self.sent - passed.count() - self.came.len()
    }

    async fn receive_all(&mut self, limit: usize) -> Found {
        let deadline = Instant::now() + PATIENCE;
        while self.due() > 0 {
            let Some(feed) = &self.feed else {
                return Err("there is no reader".into());
            };
            match timeout_at(deadline, feed.receive(limit)).await {
                Ok(Ok(deliveries)) if deliveries.is_empty() || deliveries.len() > limit => {
                    let count = deliveries.len();
                    return Err(format!("{count} records came where 1 to {limit} may"));
                }
                Ok(Ok(deliveries)) => {
                    for delivery in deliveries {
                        self.take(&delivery)?;
                    }
                }
                // An unavailable log is asked again, as the port says.
                Ok(Err(_)) => sleep(Duration::from_millis(20)).await,
                Err(_) => return Err(format!("{} records never came", self.due())),
            }
        }
        Ok(())
    }

    fn take(&mut self, delivery: &Delivery) -> Found {
        let Position { partition, offset } = delivery.position;
        let place = (partition, offset);
        if is_upto(&self.began_at, partition, offset) {
            return Err(format!("{place:?} came again though it was acknowledged"));
        }
        let later = self.came.range((partition, offset)..=(partition, i64::MAX));
        if later.count() > 0 {
            return Err(format!(
                "{place:?} came twice, or after what stands behind it"
            ));
        }
        self.came.insert(place);
        let content = match &delivery.content {
            RecordContent::Task(id) => {
                let task = self.tasks.iter().position(|known| known == id);
                let state = delivery.trace.as_ref().map(TraceContext::traceparent);
                format!("task {task:?} of {state:?}")
            }
            RecordContent::Unreadable { reason, key, value } => {
                if reason.is_empty() {
                    return Err(format!("{place:?} cannot be read, and nothing says why"));
                }
                format!("rubbish {:?} {:?}", bytes_of(key), bytes_of(value))
            }
        };
        let known = self.known.entry(place).or_insert_with(|| content.clone());
        if *known == content {
            Ok(())
        } else {
            Err(format!("{place:?} came as {known} and then as {content}"))
        }
    }

    async fn acknowledge(&mut self, but: usize) -> Found {
        let mut of_each: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for (partition, offset) in &self.came {
            of_each.entry(*partition).or_default().push(*offset);
        }
        let upto: Vec<Position> = of_each
            .into_iter()
            .filter_map(|(partition, offsets)| {
                let last = offsets.len().checked_sub(but + 1)?;
                let offset = offsets[last];
                Some(Position { partition, offset })
            })
            .collect();
        let Some(feed) = &self.feed else {
            return Err("there is no reader".into());
        };
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = feed.acknowledge(&upto).await {
            if Instant::now() >= deadline {
                return Err(format!("{upto:?} was never acknowledged: {error}"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        for Position { partition, offset } in upto {
            let last = self.acknowledged.entry(partition).or_insert(offset);
            *last = offset.max(*last);
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<Ending, String> {
        self.receive_all(usize::from(u8::MAX)).await?;
        let mut records: Vec<String> = self.known.values().cloned().collect();
        records.sort();
        let outputs = self.log.outputs(self.announced).await;
        let place = |id: &TaskId| self.tasks.iter().position(|known| known == id);
        let mut outputs: Vec<String> = outputs
            .iter()
            .map(|output| {
                let (task, result) = (place(&output.result.id), &output.result.result);
                format!("{result} of {task:?} at {}", output.result.processed_at)
            })
            .collect();
        outputs.sort();
        let mut letters: Vec<String> = self
            .log
            .dead_letters(self.lettered)
            .await
            .iter()
            .map(|letter| match &letter.task {
                Some(id) => format!("{:?} {:?} {:?}", place(id), letter.attempts, letter.error),
                None => format!("{} {:?} {:?}", letter.reason, letter.key, letter.value),
            })
            .collect();
        letters.sort();
        Ok(Ending {
            records,
            outputs,
            letters,
        })
    }
}

fn is_upto(upto: &BTreeMap<i32, i64>, partition: i32, offset: i64) -> bool {
    upto.get(&partition).is_some_and(|last| offset <= *last)
}

fn all_ok<E: std::fmt::Display>(outcomes: &[Result<(), E>], count: usize) -> Found {
    if outcomes.len() != count {
        return Err(format!("{} outcomes for {count} records", outcomes.len()));
    }
    match outcomes.iter().find_map(|outcome| outcome.as_ref().err()) {
        Some(error) => Err(format!("a record was not taken: {error}")),
        None => Ok(()),
    }
}
