//! Which task starts before which.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adapters::memory::{LogLimits, MemoryLog};
use domain::{WorkerConfig, processor_fn};
use ports::{NewTask, Payload, Priority, TaskMessage, TaskPublisher};

use crate::worker::settled;
use crate::world::{World, submission};

/// A log of one partition, so that its order is that of the submissions.
fn one_partition(world: &mut World) -> Arc<MemoryLog> {
    let limits = LogLimits {
        partitions: 1,
        ..LogLimits::default()
    };
    let log = Arc::new(MemoryLog::with_limits(world.ports.clock.clone(), limits));
    world.ports.publisher = log.clone();
    world.ports.announcer = log.clone();
    log
}

/// Starts a worker when so many tasks wait, with priorities from 0 to 10 in turns. Answers which it started in which order, each by its
/// number and priority.
async fn starts(count: usize) -> Vec<(usize, u8)> {
    let mut world = World::new();
    let log = one_partition(&mut world);
    let priority = |number: usize| Priority::clamped(i64::try_from(number % 11).unwrap_or(0));
    let tasks: Vec<_> = (0..count)
        .map(|number| NewTask {
            id: world.ports.ids.task_id(),
            payload: Payload::new(number.to_string()).expect("no NUL"),
            priority: priority(number),
            max_attempts: 1,
            run_at: None,
            messaged: true,
        })
        .collect();
    world.ports.store.insert(&tasks).await.expect("inserted");
    let message = |task: &NewTask| TaskMessage {
        id: task.id,
        payload: task.payload.clone(),
        priority: task.priority,
        trace: None,
    };
    let messages: Vec<_> = tasks.iter().map(message).collect();
    for outcome in log.publish(&messages).await {
        outcome.expect("published");
    }
    let started = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&started);
    let config = WorkerConfig {
        // None is claimed by age, however slow the machine.
        grace: Duration::from_secs(600),
        // Room for a whole batch of the longest payloads, which the first claim has to expect.
        in_flight_bytes: 1 << 30,
        ..WorkerConfig::default()
    };
    let worker = world.work_on(
        Arc::new(log.feed()),
        processor_fn(move |job| {
            let seen = Arc::clone(&seen);
            async move {
                let number: usize = job.payload.as_str().parse().expect("a number");
                let priority = job.priority.get();
                seen.lock().expect("not poisoned").push((number, priority));
                Ok(String::new())
            }
        }),
        config,
    );
    let ids: Vec<_> = tasks.iter().map(|task| task.id).collect();
    world.memory.store.at_rest(&ids).await;
    worker.stop().await;
    let started = started.lock().expect("not poisoned");
    started.clone()
}

fn is_by_priority(started: &[(usize, u8)]) -> bool {
    started.is_sorted_by(|(_, one), (_, other)| one >= other)
}

#[tokio::test(start_paused = true)]
async fn the_more_urgent_of_a_batch_start_first() {
    let started = starts(11).await;
    assert_eq!(started.len(), 11);
    assert!(is_by_priority(&started), "{started:?}");
}

/// The runtime of the programs begins the task that was spawned last before the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_more_urgent_start_first_whatever_the_order_in_which_a_runtime_begins_runs() {
    let started = starts(11).await;
    assert_eq!(started.len(), 11);
    assert!(is_by_priority(&started), "{started:?}");
}

/// More than a runtime keeps in one of its queues: what was spawned later overtakes some of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn of_two_claims_the_least_urgent_of_the_first_starts_before_all_of_the_second() {
    let claim = WorkerConfig::default().batch;
    let started = starts(claim + 300).await;
    assert_eq!(started.len(), claim + 300);
    let (first, second) = started.split_at(claim);
    let overtaken = second.iter().find(|(number, _)| *number < claim);
    assert_eq!(overtaken, None, "of the first claim");
    assert!(is_by_priority(first), "{first:?}");
    assert!(is_by_priority(second), "{second:?}");
}

/// Everything that is claimed has a place to run, so a task starts before every one that is claimed after it, however urgent,
/// and waits at most until those of its own batch have started.
#[tokio::test(start_paused = true)]
async fn the_least_urgent_starts_before_whatever_is_claimed_after_it() {
    const PLACES: usize = 4;
    let mut world = World::new();
    let log = one_partition(&mut world);
    let submitter = world.submitter();
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    let config = WorkerConfig {
        concurrency: PLACES,
        ..WorkerConfig::default()
    };
    let urgent = |number: usize| {
        let mut submission = submission(&format!("urgent {number}"));
        submission.priority = Priority::MAX;
        submission
    };
    // A backlog of urgent ones, one that is not, and more urgent ones than it could ever outlive.
    let mut submissions: Vec<_> = (0..40).map(urgent).collect();
    submissions.push(submission("patient"));
    submissions.extend((41..400).map(urgent));
    let accepted = submitter.submit(submissions).await.expect("accepted");
    let ids: Vec<_> = accepted.iter().map(|accepted| accepted.id).collect();
    let _worker = world.work_on(
        Arc::new(log.feed()),
        processor_fn(move |job| {
            let seen = Arc::clone(&seen);
            async move {
                let payload = job.payload.as_str().to_owned();
                seen.lock().expect("not poisoned").push(payload);
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(String::new())
            }
        }),
        config,
    );
    settled(&world, &ids).await;
    let order = order.lock().expect("not poisoned").clone();
    let place = order.iter().position(|payload| payload == "patient");
    let place = place.expect("it ran");
    assert!(
        (40..40 + PLACES).contains(&place),
        "it stood behind 40 and started as number {place}"
    );
}
