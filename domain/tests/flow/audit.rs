//! What others did behind the service's back is found, repaired and counted; what the service does never is.

use std::sync::Arc;
use std::time::Duration;

use adapters::faulty::{Fault, Faulty};
use adapters::memory::{MemoryTaskStore, StoreSnapshot};
use domain::{AuditConfig, Commander, RetryPolicy, Worker, WorkerConfig, processor_fn};
use ports::{
    ClaimId, ClaimRecord, ClaimTicket, DeliveryOutcome, Event, Failure, Fence, IdSource, NewTask,
    Payload, Priority, Repair, TaskId, TaskStatus, WorkerId,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::world::{World, scripted, submission, submit};

/// By then everything that was planted must have been found.
const FOUND: Duration = Duration::from_secs(30);

const HOUR: Duration = Duration::from_secs(3_600);

fn repairs(world: &World, wanted: Repair) -> usize {
    let events = world.memory.observer.events();
    let counts = events.iter().map(|event| match event {
        Event::Repaired { what, count } if *what == wanted => *count,
        _ => 0,
    });
    counts.sum()
}

fn all_repairs(world: &World) -> Vec<(Repair, usize)> {
    Repair::ALL
        .into_iter()
        .map(|what| (what, repairs(world, what)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// Waits until something was repaired, and no longer than it may take.
async fn found(world: &World, what: Repair) {
    let start = Instant::now();
    while repairs(world, what) == 0 {
        assert!(start.elapsed() < FOUND, "{what:?} was not found in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn plant(world: &World, payloads: &[&str]) -> Vec<TaskId> {
    let planted = payloads.iter().map(|payload| {
        let id = world.memory.ids.task_id();
        let payload = Payload::new(*payload).expect("no NUL");
        world.memory.store.plant(&[id], &payload);
        id
    });
    planted.collect()
}

#[tokio::test(start_paused = true)]
async fn a_row_of_another_program_without_a_message_is_done_within_30_seconds() {
    let world = World::new();
    let _worker = world.work(scripted());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let start = Instant::now();
    let ids = plant(&world, &["ok", "ok", "ok"]);
    world.memory.store.at_rest(&ids).await;
    assert!(start.elapsed() < FOUND, "{:?}", start.elapsed());
    for id in ids {
        assert_eq!(world.memory.task(id).status, TaskStatus::Done);
    }
    assert_eq!(
        all_repairs(&world),
        [(Repair::WaitingTaskWithoutQueueRow, 3)]
    );
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_on_its_way_is_waited_for() {
    let world = World::new();
    let _worker = world.work(scripted());
    let ids = plant(&world, &["ok"]);
    tokio::time::sleep(Duration::from_secs(8)).await;
    let message = ports::TaskMessage {
        id: ids[0],
        payload: Payload::new("ok").expect("no NUL"),
        priority: ports::Priority::default(),
        trace: None,
    };
    for published in world.ports.publisher.publish(&[message]).await {
        published.expect("published");
    }
    world.memory.store.at_rest(&ids).await;
    tokio::time::sleep(FOUND).await;
    assert_eq!(all_repairs(&world), []);
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_queue_row_was_deleted_runs_all_the_same() {
    let world = World::new();
    let submitter = world.submitter();
    let second_try = processor_fn(|job| async move {
        match job.attempt {
            1 => Err(Failure::Retryable("not yet".into())),
            _ => Ok("at last".to_owned()),
        }
    });
    let config = WorkerConfig {
        retry: RetryPolicy {
            base: HOUR,
            cap: HOUR,
        },
        ..WorkerConfig::default()
    };
    let _worker = world.work_with(second_try, config);
    let ids = submit(&submitter, &["whatever"]).await;
    let store = &world.memory.store;
    let backed_off = |task: &ports::Task| task.attempts == 1;
    store
        .until(|snapshot| snapshot.tasks.iter().any(backed_off))
        .await;
    store.remove_queue_row(ids[0]);
    found(&world, Repair::WaitingTaskWithoutQueueRow).await;
    let tasks = store.at_rest(&ids).await;
    assert_eq!((tasks[0].status, tasks[0].attempts), (TaskStatus::Done, 2));
    assert_eq!(all_repairs(&world).len(), 1);
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_claim_was_deleted_runs_again_and_counts_once() {
    let world = World::new();
    let submitter = world.submitter();
    let _worker = world.work(scripted());
    let ids = submit(&submitter, &["sleep 40"]).await;
    let store = &world.memory.store;
    let held = store.until(|snapshot| !snapshot.claims.is_empty()).await;
    store.remove_claim(held.claims[0].id);
    found(&world, Repair::ProcessingTaskWithoutClaim).await;
    let tasks = store.at_rest(&ids).await;
    assert_eq!(
        (tasks[0].status, tasks[0].attempts, tasks[0].rescues),
        (TaskStatus::Done, 1, 0)
    );
    store.until(|snapshot| snapshot.claims.is_empty()).await;
    assert_eq!(world.memory.log.outputs().len(), 1);
    let late = |event: &Event| matches!(event, Event::Late { .. });
    assert_eq!(world.memory.observer.count(late), 1);
    assert_eq!(
        all_repairs(&world),
        [(Repair::ProcessingTaskWithoutClaim, 1)]
    );
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_queue_row_without_a_waiting_task_is_deleted() {
    let world = World::new();
    let submitter = world.submitter();
    let _worker = world.work(scripted());
    let ids = submit(&submitter, &["ok", "sleep 60"]).await;
    let store = &world.memory.store;
    store.at_rest(&ids[..1]).await;
    let nobody = world.memory.ids.task_id();
    let far = ports::Clock::now(&*world.memory.clock).after(HOUR);
    for id in [ids[0], ids[1], nobody] {
        store.plant_queue_row(id, far);
    }
    let start = Instant::now();
    store.until(|snapshot| snapshot.queue.is_empty()).await;
    assert!(start.elapsed() < FOUND, "{:?}", start.elapsed());
    store.at_rest(&ids).await;
    assert_eq!(
        all_repairs(&world),
        [(Repair::QueueRowWithoutWaitingTask, 3)]
    );
    for id in ids {
        assert_eq!(world.memory.task(id).fence, Fence(2), "nothing moved it");
    }
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_failed_task_that_is_not_listed_is_listed_and_an_entry_in_vain_is_deleted() {
    let world = World::new();
    let submitter = world.submitter();
    let _worker = world.work(scripted());
    let ids = submit(&submitter, &["permanent", "ok"]).await;
    let store = &world.memory.store;
    store.at_rest(&ids).await;
    store.remove_stopped(ids[0]);
    let nobody = world.memory.ids.task_id();
    for id in [ids[1], nobody] {
        store.plant_stopped(id, true);
    }
    let start = Instant::now();
    let listed = |snapshot: &StoreSnapshot| snapshot.stopped == [(TaskStatus::Failed, ids[0])];
    store.until(listed).await;
    assert!(start.elapsed() < FOUND, "{:?}", start.elapsed());
    tokio::time::sleep(FOUND).await;
    assert_eq!(
        all_repairs(&world),
        [
            (Repair::StoppedTaskWithoutListEntry, 1),
            (Repair::ListEntryWithoutStoppedTask, 2)
        ]
    );
    for id in ids {
        assert_eq!(world.memory.task(id).fence, Fence(2), "nothing moved it");
    }
    world.assert_consistent();
}

/// Whether the log has the news that this task was cancelled.
fn told(world: &World, id: TaskId) -> usize {
    let events = world.memory.log.events();
    let of_it = |event: &&ports::TaskEvent| event.id == id && event.status == TaskStatus::Cancelled;
    events.iter().filter(of_it).count()
}

async fn until_told(world: &World, id: TaskId) {
    let start = Instant::now();
    while told(world, id) == 0 {
        assert!(start.elapsed() < FOUND, "{id} was not told in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_that_the_log_did_not_take_is_told_when_it_is_back() {
    let mut world = World::new();
    let log = Arc::new(Faulty::new(world.memory.log.clone()));
    world.ports.announcer = log.clone();
    let submitter = world.submitter();
    let ids = submit(&submitter, &["a", "b", "c"]).await;
    let commander = Commander::new(&world.ports);
    commander.cancel(ids[0]).await.expect("cancelled");
    log.faults()
        .rule(|method| (method == "tell").then_some(Fault::FailBefore));
    commander.cancel(ids[1]).await.expect("cancelled");
    // No answer at all is no more than a refusal.
    log.faults()
        .rule(|method| (method == "tell").then_some(Fault::Delay(HOUR * 10)));
    commander.cancel(ids[2]).await.expect("cancelled");
    log.faults()
        .rule(|method| (method == "tell").then_some(Fault::FailBefore));
    let _worker = world.work(scripted());
    tokio::time::sleep(HOUR).await;
    assert_eq!([1, 2].map(|index| told(&world, ids[index])), [0, 0]);
    log.faults().heal();
    until_told(&world, ids[1]).await;
    until_told(&world, ids[2]).await;
    tokio::time::sleep(HOUR).await;
    let counts = [0, 1, 2].map(|index| told(&world, ids[index]));
    assert_eq!(counts, [1, 1, 1], "what is told is told no more");
    assert_eq!(all_repairs(&world), []);
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_whose_server_died_before_it_told_is_told() {
    let world = World::new();
    let submitter = world.submitter();
    let ids = submit(&submitter, &["a"]).await;
    // The move is made, and nothing after it.
    let task = world.memory.task(ids[0]);
    let cancel = domain::lifecycle::advance(&task, ports::Next::Cancelled, ports::Spent::Nothing);
    let store = &world.ports.store;
    store.transition(&[cancel]).await.expect("cancelled");
    let _worker = world.work(scripted());
    until_told(&world, ids[0]).await;
    tokio::time::sleep(HOUR).await;
    assert_eq!(told(&world, ids[0]), 1);
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn news_that_waits_for_the_log_holds_up_no_walk() {
    let mut world = World::new();
    let log = Arc::new(Faulty::new(world.memory.log.clone()));
    world.ports.announcer = log.clone();
    let ids = submit(&world.submitter(), &["a"]).await;
    log.faults()
        .rule(|method| (method == "tell").then_some(Fault::Delay(HOUR * 10)));
    let commander = Commander::new(&world.ports);
    commander.cancel(ids[0]).await.expect("cancelled");
    let audit = with_faults(&mut world);
    let _worker = world.work(scripted());
    tokio::time::sleep(Duration::from_secs(60)).await;
    let walks = audit.faults().calls_of("stranded");
    assert!((55..=61).contains(&walks), "{walks} walks in 60 seconds");
    assert_eq!(log.faults().calls_of("tell"), 2, "once more, and no more");
}

/// A claim under a worker that nobody knows: its tasks are in hand, or at rest and not announced.
async fn planted_orphan(world: &World, ids: &[TaskId], done: &TaskId) -> ClaimId {
    let worker = world.memory.ids.worker_id();
    let claim = world.memory.ids.claim_id();
    let (store, registry) = (&world.ports.store, &world.ports.registry);
    registry
        .register(worker, "vanishing")
        .await
        .expect("registered");
    let claimed = store
        .claim_delivered(ClaimTicket { claim, worker }, ids)
        .await
        .expect("claimed");
    for outcome in &claimed {
        let DeliveryOutcome::Claimed(task) = outcome else {
            panic!("{outcome:?}");
        };
        if task.id == *done {
            let result = "by nobody".to_owned();
            let done = ports::Next::Done { result };
            let settled = domain::lifecycle::settle(task, done, ports::Spent::Attempt);
            store.transition(&[settled]).await.expect("settled");
        }
    }
    let mut records = store.claims_of(worker, None, 10).await.expect("claims");
    store.release(&[claim]).await.expect("released");
    registry.remove(worker).await.expect("removed");
    let orphan = ClaimRecord {
        worker: WorkerId(world.memory.ids.next()),
        ..records.remove(0)
    };
    world.memory.store.plant_claim(&orphan);
    claim
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_nobody_is_brought_to_its_end() {
    let world = World::new();
    let ids = [
        world.memory.submit("ok").await,
        world.memory.submit("ok").await,
    ];
    planted_orphan(&world, &ids, &ids[1]).await;
    let _worker = world.work(scripted());
    found(&world, Repair::ClaimWithoutWorker).await;
    let store = &world.memory.store;
    let tasks = store.at_rest(&ids).await;
    assert_eq!(
        (tasks[0].result.as_deref(), tasks[0].rescues),
        (Some("OK"), 1)
    );
    assert_eq!(
        (tasks[1].result.as_deref(), tasks[1].rescues),
        (Some("by nobody"), 0)
    );
    store.until(|snapshot| snapshot.claims.is_empty()).await;
    assert_eq!(world.memory.log.outputs().len(), 2);
    assert_eq!(all_repairs(&world), [(Repair::ClaimWithoutWorker, 1)]);
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_someone_wrote_into_the_registry_is_removed() {
    let world = World::new();
    let living = world.work(scripted());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let nobody = WorkerId(world.memory.ids.next());
    let registry = &world.ports.registry;
    registry
        .register(nobody, "nobody")
        .await
        .expect("registered");
    tokio::time::sleep(FOUND).await;
    let workers = registry.workers().await.expect("workers");
    assert!(
        workers.iter().all(|entry| entry.id != nobody),
        "{workers:?}"
    );
    assert_eq!(workers.len(), 1);
    living.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_living_worker_whose_entry_was_deleted_works_on_under_another_identity() {
    let world = World::new();
    let submitter = world.submitter();
    let _worker = world.work(scripted());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let registry = &world.ports.registry;
    let before = registry.workers().await.expect("workers");
    registry.remove(before[0].id).await.expect("removed");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ids = submit(&submitter, &["ok"]).await;
    let planted = plant(&world, &["ok"]);
    world.memory.store.at_rest(&ids).await;
    world.memory.store.at_rest(&planted).await;
    let after = registry.workers().await.expect("workers");
    assert_eq!(after.len(), 1);
    assert_ne!(before[0].id, after[0].id);
}

/// Looked at without any patience, twenty times a second, nothing that healthy workers do is a contradiction.
#[tokio::test(start_paused = true)]
async fn healthy_traffic_is_never_repaired() {
    let world = World::new();
    let submitter = world.submitter();
    let config = WorkerConfig {
        concurrency: 48,
        in_flight: 64,
        batch: 16,
        retry: RetryPolicy {
            base: Duration::from_secs(2),
            cap: Duration::from_secs(8),
        },
        audit: AuditConfig {
            interval: Duration::from_millis(50),
            stretch: 40,
            unmoved_for: Duration::ZERO,
        },
        ..WorkerConfig::default()
    };
    let workers: Vec<_> = (0..3)
        .map(|_| world.work_with(scripted(), config.clone()))
        .collect();
    let mut ids = Vec::new();
    for round in 0..40 {
        let mut submissions: Vec<_> = ["ok", "ok", "ok", "retry", "permanent", "sleep 3"]
            .into_iter()
            .map(submission)
            .collect();
        if round % 8 == 0 {
            submissions.extend(["sleep 45", "panic", "nul"].map(submission));
        }
        let mut early = submission("ok");
        early.run_at = Some(ports::Clock::now(&*world.memory.clock).after(Duration::from_secs(20)));
        submissions.push(early);
        let accepted = submitter.submit(submissions).await.expect("accepted");
        ids.extend(accepted.into_iter().map(|accepted| accepted.id));
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    world.memory.store.at_rest(&ids).await;
    for worker in workers {
        assert!(worker.stop().await.clean);
    }
    assert_eq!(all_repairs(&world), []);
    world.assert_consistent();
}

/// The audit behind a decorator, so that calls are counted and fail on order.
fn with_faults(world: &mut World) -> Arc<Faulty<MemoryTaskStore>> {
    let audit = Arc::new(Faulty::new(world.memory.store.clone()));
    world.ports.audit = audit.clone();
    audit
}

#[tokio::test(start_paused = true)]
async fn of_all_living_workers_one_audits_and_another_takes_over() {
    let mut world = World::new();
    let audit = with_faults(&mut world);
    let first = world.work(scripted());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _others = [world.work(scripted()), world.work(scripted())];
    tokio::time::sleep(Duration::from_secs(180)).await;
    // Where turns change, two may walk, or none: over a whole round that comes to nothing.
    let walks = audit.faults().calls_of("stranded");
    assert!((170..=190).contains(&walks), "{walks} walks in 181 seconds");
    first.crash().await;
    let planted = plant(&world, &["ok"]);
    let start = Instant::now();
    world.memory.store.at_rest(&planted).await;
    assert!(start.elapsed() < FOUND, "{:?}", start.elapsed());
}

/// How long the audit takes for a queue row in vain, planted at many moments: on average, and at most.
async fn time_to_find(world: &World) -> (Duration, Duration) {
    const ROUNDS: u32 = 40;
    let store = &world.memory.store;
    let (mut all, mut longest) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        let far = ports::Clock::now(&*world.memory.clock).after(HOUR);
        store.plant_queue_row(world.memory.ids.task_id(), far);
        let start = Instant::now();
        store.until(|snapshot| snapshot.queue.is_empty()).await;
        all += start.elapsed();
        longest = longest.max(start.elapsed());
        tokio::time::sleep(Duration::from_millis(1_700)).await;
    }
    (all / ROUNDS, longest)
}

/// The pool of one of three hangs, whichever it is, and its heart, which has a connection of its own, beats on.
#[tokio::test(start_paused = true)]
async fn a_worker_that_hangs_and_beats_keeps_the_audit_from_nobody() {
    for hanging in 0..3 {
        let mut world = World::new();
        let healthy = world.ports.clone();
        let mut hang = None;
        let mut workers = Vec::new();
        let mut hearts = JoinSet::new();
        for number in 0..3 {
            let pool = Arc::new(Faulty::new(Arc::clone(&world.memory.store)));
            world.ports.store = pool.clone();
            world.ports.registry = pool.clone();
            world.ports.audit = pool.clone();
            let feed = Arc::new(world.memory.log.feed());
            let function = Arc::new(scripted());
            let worker = Worker::new(world.ports.clone(), feed, function, WorkerConfig::default());
            hearts.spawn(worker.heart().run(Arc::clone(&healthy.registry)));
            workers.push(worker.run(std::future::pending()));
            if number == hanging {
                hang = Some(pool);
            }
        }
        world.ports = healthy;
        let mut running: JoinSet<_> = JoinSet::new();
        for worker in workers {
            running.spawn(worker);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let (average, longest) = time_to_find(&world).await;
        assert!(
            longest <= Duration::from_secs(3),
            "{average:?}, {longest:?}"
        );
        let before = world.memory.store.snapshot().workers;
        let day = Fault::Delay(24 * HOUR);
        hang.expect("one of them").faults().always(day);
        let (average, longest) = time_to_find(&world).await;
        assert!(
            longest <= Duration::from_secs(15),
            "{average:?}, {longest:?}"
        );
        let after = world.memory.store.snapshot().workers;
        let beats = before.iter().zip(&after).map(|(before, after)| {
            assert_eq!(before.id, after.id, "nobody was buried");
            after.beat - before.beat
        });
        assert!(beats.min() > Some(30), "{before:?}, {after:?}");
    }
}

/// 100,000 tasks that wait for their time stand before the row that is in vain.
#[tokio::test(start_paused = true)]
async fn the_audit_finds_a_row_in_vain_behind_100_000_that_wait_in_seconds() {
    const WAITING: usize = 100_000;
    let world = World::new();
    let far = ports::Clock::now(&*world.memory.clock).after(24 * HOUR);
    let mut waiting: Vec<NewTask> = Vec::with_capacity(WAITING);
    for _ in 0..WAITING {
        waiting.push(NewTask {
            id: world.memory.ids.task_id(),
            payload: Payload::default(),
            priority: Priority::default(),
            max_attempts: 5,
            run_at: Some(far),
            messaged: false,
        });
    }
    world.ports.store.insert(&waiting).await.expect("insert");
    let store = &world.memory.store;
    let _first = world.work(scripted());
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    for workers in [1, 3] {
        let _others: Vec<_> = (1..workers).map(|_| world.work(scripted())).collect();
        for _ in 0..4 {
            store.plant_queue_row(world.memory.ids.task_id(), far);
            let before = repairs(&world, Repair::QueueRowWithoutWaitingTask);
            let start = Instant::now();
            while repairs(&world, Repair::QueueRowWithoutWaitingTask) == before {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            let took = start.elapsed();
            let limit = Duration::from_secs(if workers == 1 { 13 } else { 25 });
            assert!(took <= limit, "{took:?} with {workers} workers");
        }
    }
}

/// A store that takes a second for a stretch is given shorter ones, which are better than none.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_slow_is_asked_for_less_of_the_queue() {
    let (slow, fast) = (Duration::from_secs(1), Duration::ZERO);
    let mut walked = Vec::new();
    for delay in [slow, fast] {
        let mut world = World::new();
        let audit = with_faults(&mut world);
        let far = ports::Clock::now(&*world.memory.clock).after(HOUR);
        for _ in 0..2_000 {
            let id = world.memory.ids.task_id();
            world.memory.store.plant_queue_row(id, far);
        }
        audit
            .faults()
            .rule(move |method| (method == "sweep_queue").then_some(Fault::Delay(delay)));
        let mut config = WorkerConfig::default();
        config.audit.stretch = 10;
        let _worker = world.work_with(scripted(), config);
        tokio::time::sleep(Duration::from_secs(12)).await;
        walked.push(repairs(&world, Repair::QueueRowWithoutWaitingTask));
    }
    assert!(walked[0] < 300 && walked[1] > 900, "{walked:?}");
}

/// Claims of nobody wait for a log that takes its time to say that it is down; what else is wrong is found all the same.
#[tokio::test(start_paused = true)]
async fn claims_of_nobody_that_wait_for_the_log_hold_up_no_other_walk() {
    let mut world = World::new();
    let ids = [
        world.memory.submit("ok").await,
        world.memory.submit("ok").await,
    ];
    planted_orphan(&world, &ids, &ids[1]).await;
    let log = Arc::new(Faulty::new(Arc::clone(&world.memory.log)));
    log.faults().always(Fault::Delay(HOUR));
    world.ports.announcer = log.clone();
    let audit = with_faults(&mut world);
    let _worker = world.work(scripted());
    tokio::time::sleep(Duration::from_secs(60)).await;
    let walks = audit.faults().calls_of("stranded");
    assert!((55..=61).contains(&walks), "{walks} walks in 60 seconds");
    // Once by the audit, and once by the worker for the task that went back.
    assert_eq!(log.faults().calls_of("announce"), 2);
    world.memory.store.at_rest(&ids[..1]).await;
}

#[tokio::test(start_paused = true)]
async fn what_stops_one_comparison_stops_no_other() {
    let mut world = World::new();
    let audit = with_faults(&mut world);
    audit.faults().rule(|method| {
        matches!(method, "sweep_queue" | "sweep_stopped" | "orphaned_claims")
            .then_some(Fault::FailBefore)
    });
    let _worker = world.work(scripted());
    let planted = plant(&world, &["ok"]);
    world.memory.store.at_rest(&planted).await;
    assert_eq!(
        all_repairs(&world),
        [(Repair::WaitingTaskWithoutQueueRow, 1)]
    );
}

#[tokio::test(start_paused = true)]
async fn an_audit_whose_store_was_down_goes_on_where_it_stopped() {
    let mut world = World::new();
    let audit = with_faults(&mut world);
    let _worker = world.work(scripted());
    tokio::time::sleep(Duration::from_secs(2)).await;
    audit.faults().always(Fault::FailAfter);
    let planted = plant(&world, &["ok"]);
    let far = ports::Clock::now(&*world.memory.clock).after(HOUR);
    world
        .memory
        .store
        .plant_queue_row(world.memory.ids.task_id(), far);
    tokio::time::sleep(Duration::from_secs(40)).await;
    audit.faults().heal();
    world.memory.store.at_rest(&planted).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let observer = &world.memory.observer;
    let recovered = |event: &Event| matches!(event, Event::DependencyRecovered { .. });
    assert_eq!(observer.count(recovered), 1);
    world.assert_consistent();
}
