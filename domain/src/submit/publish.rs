//! Telling the log about committed tasks. No commit waits for it: what the log does not take in time goes without a message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ports::{Dependency, Event, NewTask, Span, Step, TaskId, TaskMessage, TraceContext, Work};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::budget::{Budget, Room};
use super::{SubmitConfig, Traces};
use crate::gather::{FOR_THE_LOG, Gather};
use crate::turn::turn;
use crate::{Ports, chain, tell_of_failure};

/// No more messages than this are sent together, but for a commit that brings more; nor ids marked.
const TOGETHER: usize = 4_096;

/// How many commits may wait for their tasks to be marked. Those of the others are claimed by age after the grace.
const UNMARKED: usize = 1_024;

/// The messages of one commit, or of several.
struct Batch {
    messages: Vec<TaskMessage>,
    /// What their payloads have taken of the memory for what is under way.
    room: Room,
    /// Of the messages that may wait, and of their bytes.
    places: Room,
    bytes: Room,
}

impl Batch {
    fn join(&mut self, mut other: Self) {
        self.messages.append(&mut other.messages);
        self.room.join(other.room);
        self.places.join(other.places);
        self.bytes.join(other.bytes);
    }
}

/// Where commits leave what the log is to be told.
#[derive(Clone)]
pub(super) struct Outgoing {
    ports: Ports,
    batches: mpsc::UnboundedSender<Batch>,
    unmessaged: mpsc::Sender<Vec<TaskId>>,
    /// How many messages may wait, and of how many bytes.
    places: Arc<Budget>,
    bytes: Arc<Budget>,
}

impl Outgoing {
    /// Starts what sends them, and what marks tasks whose message is not sent. Both end when every commit has ended.
    pub(super) fn start(
        ports: &Ports,
        config: SubmitConfig,
        log_is_down: Arc<AtomicBool>,
        work: &mut JoinSet<()>,
    ) -> Self {
        let (batches, outgoing) = mpsc::unbounded_channel();
        let (unmessaged, unmarked) = mpsc::channel(UNMARKED);
        work.spawn(publish_loop(
            ports.clone(),
            config,
            outgoing,
            unmessaged.clone(),
            log_is_down,
        ));
        work.spawn(mark_loop(ports.clone(), unmarked));
        Self {
            ports: ports.clone(),
            batches,
            unmessaged,
            places: Budget::new(config.publish_queue),
            // However long the log takes, the rest is left for submissions.
            bytes: Budget::new(config.max_bytes / 4),
        }
    }

    /// Leaves messages of tasks that are committed, with the room that their requests had taken. Those for which there is no place are
    /// not sent.
    pub(super) fn leave(&self, messages: Vec<TaskMessage>, rooms: impl Iterator<Item = Room>) {
        if messages.is_empty() {
            return;
        }
        let Some(mut room) = rooms.reduce(Room::joined) else {
            return;
        };
        let payloads = messages.iter().map(|message| message.payload.as_str());
        let length = payloads.map(str::len).sum();
        // What else came with them is not in memory any more.
        room.shrink(length);
        let places = self.places.take(messages.len());
        let bytes = self.bytes.take(length + size_of_val(messages.as_slice()));
        let (Some(places), Some(bytes)) = (places, bytes) else {
            let ids = unsent(&self.ports, &messages, "the publish queue is full".into());
            // Where it is full too, the tasks are claimed by age after the grace.
            let _ = self.unmessaged.try_send(ids);
            return;
        };
        // It ends after the commits do.
        let _ = self.batches.send(Batch {
            messages,
            room,
            places,
            bytes,
        });
    }
}

/// What the log is to be told of these tasks.
pub(super) fn messages_of(
    tasks: Vec<NewTask>,
    traces: Traces,
) -> impl Iterator<Item = TaskMessage> {
    let mut traces = traces.into_iter();
    tasks
        .into_iter()
        .map(move |task| (task, traces.next().flatten()))
        .filter(|(task, _)| task.messaged)
        .map(|(task, trace)| TaskMessage {
            id: task.id,
            payload: task.payload,
            priority: task.priority,
            trace,
        })
}

async fn publish_loop(
    ports: Ports,
    config: SubmitConfig,
    mut outgoing: mpsc::UnboundedReceiver<Batch>,
    unmessaged: mpsc::Sender<Vec<TaskId>>,
    log_is_down: Arc<AtomicBool>,
) {
    let mut sends = JoinSet::new();
    let mut probe = interval(config.probe_interval.max(Duration::from_millis(1)));
    probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut gather = Gather::new(FOR_THE_LOG);
    loop {
        tokio::select! {
            biased;
            Some(_) = sends.join_next(), if !sends.is_empty() => {}
            received = gathered(&gather, &mut outgoing), if sends.len() < config.publishers.max(1) => {
                let Some(batch) = received else {
                    break;
                };
                gather.began(Instant::now(), batch.messages.len());
                let observer = Arc::clone(&ports.observer);
                let sending = publish(ports.clone(), batch, unmessaged.clone(), Arc::clone(&log_is_down));
                sends.spawn(async move {
                    // What it may have left unmarked is claimed by age after the grace.
                    turn(&*observer, "publish", sending).await;
                });
            }
            _ = probe.tick(), if log_is_down.load(Ordering::Relaxed) => {
                turn(&*ports.observer, "probe_log", probe_log(&ports, &log_is_down)).await;
            }
        }
    }
    while sends.join_next().await.is_some() {}
}

async fn probe_log(ports: &Ports, log_is_down: &AtomicBool) {
    if ports.publisher.ping().await.is_ok() {
        log_is_down.store(false, Ordering::Relaxed);
        ports.observer.observe(&Event::DependencyRecovered {
            dependency: Dependency::Log,
        });
    }
}

/// What the commits have left since the last batch went; `None` when no more comes.
async fn gathered(gather: &Gather, outgoing: &mut mpsc::UnboundedReceiver<Batch>) -> Option<Batch> {
    gather.wait().await;
    let mut batch = outgoing.recv().await?;
    while batch.messages.len() < TOGETHER
        && let Ok(more) = outgoing.try_recv()
    {
        batch.join(more);
    }
    Some(batch)
}

async fn publish(
    ports: Ports,
    batch: Batch,
    unmessaged: mpsc::Sender<Vec<TaskId>>,
    log_is_down: Arc<AtomicBool>,
) {
    let started = Instant::now();
    let Batch {
        mut messages,
        // Given back when it is known what became of all of them.
        room: _room,
        places: _places,
        bytes: _bytes,
    } = batch;
    // What the messages carry on is their own place in the trace.
    let parents: Traces = messages
        .iter_mut()
        .map(|message| {
            let parent = message.trace.clone()?;
            let own = ports.observer.begin_span(Some(parent.clone()))?;
            message.trace = Some(own);
            Some(parent)
        })
        .collect();
    let traced = |message: &TaskMessage, parent, error| {
        if let Some(context) = message.trace.clone().filter(TraceContext::is_sampled) {
            ports.observer.observe(&Event::Traced(Span {
                context,
                parent: Some(parent),
                work: Work::Publish { id: message.id },
                took: started.elapsed(),
                error,
            }));
        }
    };
    if log_is_down.load(Ordering::Relaxed) {
        let error = "the log is down";
        for (message, parent) in messages.iter().zip(parents) {
            if let Some(parent) = parent {
                traced(message, parent, Some(error.to_owned()));
            }
        }
        let ids = unsent(&ports, &messages, error.into());
        return hand_on(&unmessaged, ids).await;
    }
    ports.observer.observe(&Event::Batched {
        step: Step::Publish,
        size: messages.len(),
    });
    let outcomes = ports.publisher.publish(&messages).await;
    let mut failed = Vec::new();
    let mut first_error = None;
    let total = messages.len();
    for ((message, outcome), parent) in messages.into_iter().zip(outcomes).zip(parents) {
        if let Some(parent) = parent {
            traced(
                &message,
                parent,
                outcome.as_ref().err().map(|error| chain(error)),
            );
        }
        if let Err(error) = outcome {
            if error.is_transient() {
                log_is_down.store(true, Ordering::Relaxed);
            }
            first_error.get_or_insert_with(|| chain(&error));
            failed.push(message);
        }
    }
    let published = total - failed.len();
    if published > 0 {
        ports
            .observer
            .observe(&Event::Published { count: published });
    }
    if let Some(error) = first_error {
        let ids = unsent(&ports, &failed, error);
        hand_on(&unmessaged, ids).await;
    }
}

/// Tells that these messages were not sent, and of which tasks they were.
fn unsent(ports: &Ports, messages: &[TaskMessage], error: String) -> Vec<TaskId> {
    ports.observer.observe(&Event::PublishFailed {
        count: messages.len(),
        error,
    });
    messages.iter().map(|message| message.id).collect()
}

/// The publish loop may wait for the store, which no commit does.
async fn hand_on(unmessaged: &mpsc::Sender<Vec<TaskId>>, ids: Vec<TaskId>) {
    // It ends after the publish loop does.
    let _ = unmessaged.send(ids).await;
}

/// Says in the store that no message comes: whatever gathered while it was told of the last. When that fails too, the tasks are
/// claimed by age all the same, after the grace.
async fn mark_loop(ports: Ports, mut unmarked: mpsc::Receiver<Vec<TaskId>>) {
    while let Some(mut ids) = unmarked.recv().await {
        while ids.len() < TOGETHER
            && let Ok(mut more) = unmarked.try_recv()
        {
            ids.append(&mut more);
        }
        turn(&*ports.observer, "mark_unmessaged", mark(&ports, &ids)).await;
    }
}

async fn mark(ports: &Ports, ids: &[TaskId]) {
    if let Err(error) = ports.store.mark_unmessaged(ids).await {
        tell_of_failure(
            &*ports.observer,
            Dependency::Store,
            "mark_unmessaged",
            &error,
        );
    }
}
