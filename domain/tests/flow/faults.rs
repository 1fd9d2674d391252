use std::sync::Arc;
use std::time::Duration;

use adapters::faulty::{Fault, Faults, Faulty};
use adapters::memory::{MemoryLog, StoreSnapshot};
use domain::worker::Pace;
use domain::{Reader, Reading, SubmitConfig, SubmitError, Submitter, WorkerConfig};
use ports::{
    ClaimTicket, DeliveryOutcome, Dependency, Event, IdSource, InsertOutcome, MockTaskStore,
    NewTask, Next, Payload, Priority, Spent, StoreError, TaskId, TaskStatus, TaskStore, Timestamp,
    WorkerRegistry, WriteOutcome,
};
use tokio::time::Instant;

use crate::world::{World, all, scripted, submission, submit};

impl World {
    /// Puts a script of faults between the use cases and the store.
    pub(crate) fn break_store(&mut self) -> Arc<Faults> {
        let faulty = Arc::new(Faulty::new(Arc::clone(&self.memory.store)));
        self.ports.store = faulty.clone();
        self.ports.registry = faulty.clone();
        Arc::clone(faulty.faults())
    }

    /// Puts a script of faults between the use cases and what they tell the log.
    pub(crate) fn break_log(&mut self) -> Arc<Faults> {
        let faulty = Arc::new(Faulty::new(Arc::clone(&self.memory.log)));
        self.ports.publisher = faulty.clone();
        self.ports.announcer = faulty.clone();
        Arc::clone(faulty.faults())
    }

    fn break_cache(&mut self) -> Arc<Faults> {
        let faulty = Arc::new(Faulty::new(Arc::clone(&self.memory.cache)));
        self.ports.cache = faulty.clone();
        Arc::clone(faulty.faults())
    }
}

#[tokio::test(start_paused = true)]
async fn with_the_log_down_everything_goes_on_and_is_announced_later() {
    let mut world = World::new();
    let log = world.break_log();
    log.always(Fault::FailBefore);
    let feed = Arc::new(Faulty::new(Arc::new(world.memory.log.feed())));
    feed.faults().always(Fault::FailBefore);
    let submitter = world.submitter();
    let _worker = world.work_on(feed.clone(), scripted(), WorkerConfig::default());
    let started = Instant::now();
    let first = submit(&submitter, &["a"; 2_000]).await;
    let again = submit(&submitter, &["b"; 2_000]).await;
    let ids = [first, again].concat();
    world.memory.store.at_rest(&ids).await;
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(world.memory.log.outputs().is_empty());
    let kept = world.memory.store.snapshot().claims.len();
    assert!(kept > 0, "what is owed is recorded");

    log.heal();
    feed.faults().heal();
    let all = ids.len();
    world
        .memory
        .log
        .until_announced(|outputs, _| outputs.len() >= all)
        .await;
    world
        .memory
        .store
        .until(|snapshot| snapshot.claims.is_empty())
        .await;
    world.assert_consistent();
    let recovered = Event::DependencyRecovered {
        dependency: Dependency::Log,
    };
    assert!(world.memory.observer.count(|event| *event == recovered) > 0);
}

/// A worker that only ever claims these tasks and finishes the first, and then is never heard of again.
async fn dead_with(world: &World, payloads: &[&str]) -> Vec<TaskId> {
    let mut ids = Vec::new();
    for payload in payloads {
        ids.push(world.memory.submit(payload).await);
    }
    let worker = world.memory.ids.worker_id();
    let claim = world.memory.ids.claim_id();
    let store = &world.memory.store;
    store.register(worker, "dead").await.expect("registered");
    let ticket = ClaimTicket { claim, worker };
    let claimed = store.claim_delivered(ticket, &ids).await.expect("claimed");
    let DeliveryOutcome::Claimed(task) = &claimed[0] else {
        panic!("{claimed:?}");
    };
    let result = "by the dead".to_owned();
    let done = domain::lifecycle::settle(task, Next::Done { result }, Spent::Attempt);
    store.transition(&[done]).await.expect("settled");
    ids
}

/// The log takes 5 s to say that it is down. What the first of the dead has to announce must not hold up the rescue of the next.
#[tokio::test(start_paused = true)]
async fn with_the_log_silent_the_next_to_die_is_missed_as_soon_as_the_first() {
    const SILENCE: Duration = Duration::from_secs(5);
    let mut world = World::new();
    let refusing = Arc::new(Faulty::new(Arc::clone(&world.memory.log)));
    refusing.faults().always(Fault::FailBefore);
    let silent = Arc::new(Faulty::new(Arc::clone(&refusing)));
    silent.faults().always(Fault::Delay(SILENCE));
    world.ports.announcer = silent.clone();
    // Nothing comes to it from the log: it lives on what it claims by age.
    let feed = Arc::new(MemoryLog::new(world.ports.clock.clone()).feed());
    let _living = world.work_on(feed, scripted(), WorkerConfig::default());
    let rescued = async |id: TaskId, died: Instant| {
        while world.memory.task(id).rescues == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let waited = died.elapsed();
        assert!(waited <= Duration::from_secs(8), "{waited:?}");
    };
    let first = Instant::now();
    let held_by_first = dead_with(&world, &["ok", "sleep 3600"]).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let second = Instant::now();
    let held_by_second = dead_with(&world, &["ok", "sleep 3600"]).await;
    rescued(held_by_first[1], first).await;
    rescued(held_by_second[1], second).await;
    // One after the other is offered to the log, again and again, and none several times at once.
    tokio::time::sleep(SILENCE * 20).await;
    let offered = silent.faults().calls_of("announce");
    assert!(
        (18..=25).contains(&offered),
        "{offered} in {:?}",
        first.elapsed()
    );

    silent.faults().heal();
    refusing.faults().heal();
    world
        .memory
        .log
        .until_announced(|outputs, _| outputs.len() == 2)
        .await;
    let one_lives = |snapshot: &StoreSnapshot| snapshot.workers.len() == 1;
    world.memory.store.until(one_lives).await;
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn what_was_finished_beside_a_long_task_is_announced_before_that_ends() {
    let mut world = World::new();
    let log = world.break_log();
    let submitter = world.submitter();
    let mut payloads = vec!["ok"; 20];
    payloads[0] = "sleep 50";
    let ids = submit(&submitter, &payloads).await;
    log.always(Fault::FailBefore);
    let _worker = world.work(scripted());
    world.memory.store.at_rest(&ids[1..]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    log.heal();
    let healed = Instant::now();
    world
        .memory
        .log
        .until_announced(|outputs, _| outputs.len() == 19)
        .await;
    assert!(
        healed.elapsed() < Duration::from_secs(3),
        "{:?}",
        healed.elapsed()
    );
    assert_eq!(world.memory.task(ids[0]).status, TaskStatus::Processing);
    assert_eq!(
        world.memory.store.snapshot().claims.len(),
        1,
        "the long task keeps its claim"
    );
}

#[tokio::test(start_paused = true)]
async fn an_insert_whose_answer_was_lost_is_repeated_under_the_same_ids() {
    let mut world = World::new();
    let store = world.break_store();
    store.next_of("insert", 2, Fault::FailAfter);
    let submitter = world.submitter();
    let ids = submit(&submitter, &["a", "b"]).await;
    let snapshot = world.memory.store.snapshot();
    assert_eq!(snapshot.tasks.len(), 2);
    assert_eq!(world.memory.task(ids[1]).payload.as_str(), "b");
    assert_eq!(store.calls_of("insert"), 3);
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_down_is_told_to_the_client_within_the_patience() {
    let mut world = World::new();
    let store = world.break_store();
    store.always(Fault::FailBefore);
    let submitter = world.submitter();
    let asked = Instant::now();
    let refused = submitter.submit(vec![submission("a")]).await;
    assert!(
        matches!(refused, Err(SubmitError::Unavailable(_))),
        "{refused:?}"
    );
    assert!(
        asked.elapsed() <= Duration::from_secs(3),
        "{:?}",
        asked.elapsed()
    );
    store.heal();
    assert!(
        submitter.submit(vec![submission("a")]).await.is_ok(),
        "no restart is needed"
    );
}

/// Handed back when the worker has left, what it takes would wait as long as the drain.
#[tokio::test(start_paused = true)]
async fn a_claim_that_is_under_way_when_a_stop_begins_is_seen_through() {
    let mut world = World::new();
    let store = world.break_store();
    let submitter = world.submitter();
    let worker = world.work(scripted());
    submit(&submitter, &["sleep 15"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    store.next_of(
        "claim_delivered",
        1,
        Fault::Delay(Duration::from_millis(100)),
    );
    let ids = submit(&submitter, &["a"]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.memory.task(ids[0]).status, TaskStatus::Pending);
    let asked = Instant::now();
    let stop = async {
        let stopped = worker.stop().await;
        assert_eq!((stopped.handed_back, stopped.clean), (0, true));
        assert!(asked.elapsed() > Duration::from_secs(10), "it drained");
    };
    let done = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.memory.task(ids[0]).status
    };
    let ((), status) = tokio::join!(stop, done);
    assert_eq!(status, TaskStatus::Done);
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_the_store_refuses_fails_only_for_the_culprit() {
    let mut world = World::new();
    let mut mock = MockTaskStore::new();
    mock.expect_insert().returning(|tasks| {
        let poison = Payload::new("poison").expect("no NUL");
        if tasks.iter().any(|task| task.payload == poison) {
            return Err(StoreError::Rejected("poison".into()));
        }
        let stored = InsertOutcome {
            write: WriteOutcome::Applied,
            created_at: Timestamp::EPOCH,
        };
        Ok(vec![stored; tasks.len()])
    });
    world.ports.store = Arc::new(mock);
    let config = SubmitConfig {
        writers: 1,
        ..SubmitConfig::default()
    };
    let submitter = Submitter::start(&world.ports, config);
    let answers = all((0..50).map(|n| {
        let payload = if n == 17 { "poison" } else { "fine" };
        submitter.submit(vec![submission(payload)])
    }))
    .await;
    let refused = answers
        .iter()
        .filter(|answer| matches!(answer, Err(SubmitError::Rejected(_))));
    assert_eq!(refused.count(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 49);
}

#[tokio::test(start_paused = true)]
async fn every_lost_answer_of_the_store_is_made_good_by_repeating() {
    for method in [
        "claim_delivered",
        "claim_aged",
        "transition",
        "release",
        "register",
        "beat",
    ] {
        let mut world = World::new();
        let store = world.break_store();
        let submitter = world.submitter();
        store.next_of(method, 3, Fault::FailAfter);
        let _worker = world.work(scripted());
        let ids = submit(&submitter, &["a", "b", "permanent"]).await;
        world.memory.store.at_rest(&ids).await;
        world
            .memory
            .store
            .until(|snapshot| snapshot.claims.is_empty())
            .await;
        for id in &ids {
            let task = world.memory.task(*id);
            assert_eq!((task.attempts, task.rescues), (1, 0), "{method}: {task:?}");
        }
        assert_eq!(
            world.ports.store.totals().await.expect("totals").done,
            2,
            "{method}"
        );
        world.assert_consistent();
    }
}

#[tokio::test(start_paused = true)]
async fn a_minute_without_the_store_kills_no_worker_and_spends_no_attempt() {
    let mut world = World::new();
    let store = world.break_store();
    let submitter = world.submitter();
    let _one = world.work(scripted());
    let _two = world.work(scripted());
    let ids = submit(&submitter, &["sleep 5", "sleep 30", "ok"]).await;
    world
        .memory
        .store
        .until(|snapshot| snapshot.queue.is_empty())
        .await;
    let before = world.memory.store.snapshot().workers;
    store.always(Fault::FailBefore);
    tokio::time::sleep(Duration::from_secs(60)).await;
    store.heal();
    let healed = Instant::now();
    world.memory.store.at_rest(&ids).await;
    assert!(
        healed.elapsed() < Duration::from_secs(5),
        "{:?}",
        healed.elapsed()
    );
    tokio::time::sleep(Duration::from_secs(30)).await;
    let after = world.memory.store.snapshot().workers;
    let names = |workers: Vec<ports::WorkerEntry>| {
        workers
            .into_iter()
            .map(|worker| worker.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(before), names(after), "the same workers live on");
    for id in ids {
        let task = world.memory.task(id);
        assert_eq!(
            (task.status, task.attempts, task.rescues),
            (TaskStatus::Done, 1, 0)
        );
    }
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_down_costs_no_answer() {
    let mut world = World::new();
    let cache = world.break_cache();
    cache.always(Fault::FailBefore);
    let submitter = world.submitter();
    let _worker = world.work(scripted());
    let ids = submit(&submitter, &["ok"]).await;
    world.memory.store.at_rest(&ids).await;
    world
        .memory
        .store
        .until(|snapshot| snapshot.claims.is_empty())
        .await;
    let reading = Reader::new(&world.ports).read(ids[0]).await.expect("read");
    assert!(matches!(reading, Reading::Done(_)), "{reading:?}");
}

#[tokio::test(start_paused = true)]
async fn a_result_that_the_store_refuses_fails_its_task_and_no_other() {
    let mut world = World::new();
    let store = world.break_store();
    // The whole batch, then halves, until one stands alone.
    let submitter = world.submitter();
    let ids = submit(&submitter, &["a", "b", "c", "d"]).await;
    store.next_of("transition", 3, Fault::Refuse);
    let _worker = world.work(scripted());
    world.memory.store.at_rest(&ids).await;
    let failed = ids
        .iter()
        .filter(|id| world.memory.task(**id).status == TaskStatus::Failed);
    assert_eq!(failed.count(), 1);
}

/// A trigger of others, say, lets nobody move one task: it holds up no other, whether another result, the end of a claim, or a stop.
#[tokio::test(start_paused = true)]
async fn a_task_that_the_store_lets_nobody_move_holds_up_no_other() {
    let mut world = World::new();
    let store = world.break_store();
    let submitter = world.submitter();
    let ids = submit(&submitter, &["ok"; 21]).await;
    let (stuck, mut others) = (ids[7], ids.clone());
    others.remove(7);
    store.guard(move |step| step.id == stuck);
    let worker = world.work(scripted());
    let started = Instant::now();
    world.memory.store.at_rest(&others).await;
    world
        .memory
        .log
        .until_announced(|outputs, _| outputs.len() >= others.len())
        .await;
    assert!(started.elapsed() < Duration::from_secs(2));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let given_up = |event: &Event| matches!(event, Event::GivenUp { id, .. } if *id == stuck);
    assert_eq!(world.memory.observer.count(given_up), 1);
    // Twice until it stands alone, and once per lease whether it may be handed back.
    let asked = store.calls_of("transition");
    assert!(asked < 50, "{asked}");
    assert_eq!(world.memory.task(stuck).status, TaskStatus::Processing);
    let stopped = worker.stop().await;
    assert!(!stopped.clean, "{stopped:?}");

    let _other = world.work(scripted());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.memory.task(stuck).status, TaskStatus::Processing);
    // By whoever ran them, and once more by each who asked in vain for the claim of the last.
    let told = world.memory.log.outputs().len();
    assert!(told <= others.len() * 4, "{told}");
    store.heal();
    world.memory.store.at_rest(&ids).await;
    world
        .memory
        .store
        .until(|snapshot| snapshot.claims.is_empty() && snapshot.workers.len() == 1)
        .await;
    world.assert_consistent();
}

/// A trigger of others, say, lets nobody claim one task: the log's other records of its batch, and whatever waits for longer, are
/// claimed all the same, and it too when the trigger is gone.
#[tokio::test(start_paused = true)]
async fn a_task_that_the_store_lets_nobody_claim_holds_up_no_other() {
    let mut world = World::new();
    let store = world.break_store();
    let submitter = world.submitter();
    let ids = submit(&submitter, &["ok"; 21]).await;
    // Messages that were lost: these are claimed by age only.
    let lost: Vec<_> = (0..21).map(|_| lost_task(&world)).collect();
    world.ports.store.insert(&lost).await.expect("inserted");
    let (stuck, mut others) = (ids[7], ids.clone());
    others.remove(7);
    others.extend(lost.iter().map(|task| task.id));
    store.shield(stuck);
    let worker = world.work(scripted());
    let started = Instant::now();
    world.memory.store.at_rest(&others).await;
    let waited = started.elapsed();
    assert!(waited < Duration::from_secs(3), "{waited:?}");
    // What waits for another try, and what has a time, too.
    let again = submit(&submitter, &["retry"]).await;
    let mut later = submission("ok");
    later.run_at = Some(world.ports.clock.now().after(Duration::from_secs(30)));
    let later = submitter.submit(vec![later]).await.expect("accepted")[0].id;
    world.memory.store.at_rest(&[again[0], later]).await;
    assert_eq!(world.memory.task(stuck).status, TaskStatus::Pending);
    let told = |event: &Event| matches!(event, Event::StoreRefused { doing: "claim", error } if error.contains(&stuck.to_string()));
    assert!(world.memory.observer.count(told) > 0);
    let asked = store.calls_of("claim_delivered");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = store.calls_of("claim_delivered") - asked;
    assert!(asked <= 4 * 60 + 1, "{asked}: once a look");
    let pace = worker.progress.pace(Some(Duration::from_secs(60)));
    assert_eq!(pace, Pace::Working, "what nobody may take is no reproach");
    let failed = |event: &Event| matches!(event, Event::DependencyFailed { .. });
    assert_eq!(world.memory.observer.count(failed), 0, "the store answers");
    store.heal();
    world.memory.store.at_rest(&ids).await;
    assert!(worker.stop().await.clean);
    world.assert_consistent();
}

/// A worker with room for one, and many whose time has not come.
#[tokio::test(start_paused = true)]
async fn beside_a_task_that_nobody_may_claim_one_is_found_among_many_that_wait_for_their_time() {
    let mut world = World::new();
    let store = world.break_store();
    let submitter = world.submitter();
    let stuck = submit(&submitter, &["ok"]).await[0];
    store.shield(stuck);
    let config = WorkerConfig {
        concurrency: 1,
        ..WorkerConfig::default()
    };
    let worker = world.work_with(scripted(), config);
    let lost = lost_task(&world);
    world
        .ports
        .store
        .insert(std::slice::from_ref(&lost))
        .await
        .expect("inserted");
    let later = |_| {
        let mut later = submission("ok");
        later.run_at = Some(world.ports.clock.now().after(Duration::from_secs(3_600)));
        later
    };
    for _ in 0..3 {
        submitter
            .submit((0..1_000).map(later).collect())
            .await
            .expect("accepted");
    }
    let started = Instant::now();
    world.memory.store.at_rest(&[lost.id]).await;
    let waited = started.elapsed();
    assert!(waited < Duration::from_secs(5), "{waited:?}");
    worker.stop().await;
}

/// A store that refuses everything is not asked at full speed, and nothing is lost by it.
#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_every_claim_is_asked_with_pauses() {
    let mut world = World::new();
    let store = world.break_store();
    let submitter = world.submitter();
    let ids = submit(&submitter, &["ok"; 500]).await;
    store.rule(|method| (method == "claim_delivered").then_some(Fault::Refuse));
    let _worker = world.work(scripted());
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = store.calls_of("claim_delivered");
    assert!(asked < 500, "{asked}");
    store.heal();
    world.memory.store.at_rest(&ids).await;
}

fn lost_task(world: &World) -> NewTask {
    NewTask {
        id: world.ports.ids.task_id(),
        payload: Payload::new("ok").expect("no NUL"),
        priority: Priority::default(),
        max_attempts: 1,
        run_at: None,
        messaged: true,
    }
}

/// Where it may go back it is tried again, once per lease, while others of its claim run on.
#[tokio::test(start_paused = true)]
async fn a_task_whose_end_the_store_refuses_is_tried_again_once_per_lease() {
    let mut world = World::new();
    let store = world.break_store();
    let submitter = world.submitter();
    let ids = submit(&submitter, &["ok", "sleep 20"]).await;
    let stuck = ids[0];
    store.guard(move |step| step.id == stuck && step.to.status().is_at_rest());
    let _worker = world.work(scripted());
    world.memory.store.at_rest(&ids[1..]).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let given_up = |event: &Event| matches!(event, Event::GivenUp { .. });
    let runs = world.memory.observer.count(given_up);
    assert!((10..=21).contains(&runs), "{runs}");
    let asked = store.calls_of("transition");
    assert!(asked < 100, "{asked}");
    assert_eq!(world.memory.task(stuck).attempts, 0);
    store.heal();
    world.memory.store.at_rest(&ids).await;
    assert_eq!(world.memory.task(stuck).status, TaskStatus::Done);
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_beat_that_is_never_answered_is_followed_by_another_within_the_lease() {
    let mut world = World::new();
    let _watching = world.work(scripted());
    let store = world.break_store();
    let _beating = world.work(scripted());
    world
        .memory
        .store
        .until(|snapshot| snapshot.workers.len() == 2)
        .await;
    store.next_of("beat", 1, Fault::Delay(Duration::from_secs(3_600)));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(store.calls_of("beat") > 20, "it went on beating");
    let failed = |event: &Event| matches!(event, Event::DependencyFailed { doing: "beat", .. });
    assert_eq!(world.memory.observer.count(failed), 1);
    let outlived = |event: &Event| matches!(event, Event::Outlived { .. });
    assert_eq!(world.memory.observer.count(outlived), 0);
}
