//! Waiting for tasks and following them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adapters::faulty::{Fault, Faulty};
use adapters::memory::{LogLimits, ManualClock, MemoryLog};
use async_trait::async_trait;
use domain::{Events, EventsConfig, EventsError, Heard, Reading};
use ports::{
    Announcer, EventFeed, EventFeedError, EventReader, Fence, Next, PlacedEvent, Spent, TaskEvent,
    TaskId, TaskStatus, TaskStore, Timestamp, Transition,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::submit::panics;
use crate::world::{World, scripted};

const MINUTE: Duration = Duration::from_secs(60);

fn events(world: &World, config: EventsConfig) -> Arc<Events> {
    Arc::new(Events::start(
        &world.ports,
        world.memory.log.clone(),
        config,
    ))
}

async fn cancel_in_the_store(world: &World, id: TaskId) {
    let outcome = world
        .memory
        .store
        .transition(&[Transition {
            id,
            fence: Fence(0),
            from: TaskStatus::Pending,
            to: Next::Cancelled,
            spent: Spent::Nothing,
        }])
        .await
        .expect("the store in memory answers");
    assert!(outcome[0].updated_at.is_some());
}

async fn tell(world: &World, id: TaskId, status: TaskStatus) {
    let event = TaskEvent {
        id,
        status,
        fence: Fence(1),
        at: Timestamp::EPOCH,
    };
    for outcome in world.memory.log.tell(&[event]).await {
        outcome.expect("confirmed");
    }
}

fn status_of(reading: &Reading) -> TaskStatus {
    match reading {
        Reading::Done(_) => TaskStatus::Done,
        Reading::Unfinished(task) => task.status,
        Reading::Unknown => panic!("the task is known"),
    }
}

fn positions(heard: &[Heard]) -> Vec<u64> {
    heard
        .iter()
        .map(|heard| match heard {
            Heard::Event(placed) => placed.position,
            Heard::Reset(_) => panic!("nothing is missing in {heard:?}"),
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_waiter_is_woken_by_the_event_of_its_task() {
    let world = World::new();
    let events = events(&world, EventsConfig::default());
    let worker = world.work(scripted());
    let id = world.memory.submit("sleep 3").await;
    let started = Instant::now();
    let reading = events.wait(id, MINUTE).await.expect("read");
    assert_eq!(status_of(&reading), TaskStatus::Done);
    // At once, and not at the next look.
    assert!(
        started.elapsed() < Duration::from_millis(3_100),
        "{:?}",
        started.elapsed()
    );
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_event_is_found_by_the_look_in_one_query_for_all() {
    let mut world = World::new();
    let store = Arc::new(Faulty::new(world.memory.store.clone()));
    world.ports.store = store.clone();
    let events = events(&world, EventsConfig::default());
    let mut waiting = JoinSet::new();
    let mut ids = Vec::new();
    for _ in 0..500 {
        let id = world.memory.submit("ok").await;
        ids.push(id);
        let events = events.clone();
        waiting.spawn(async move { events.wait(id, MINUTE).await.expect("read") });
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    for id in ids {
        cancel_in_the_store(&world, id).await;
    }
    let started = Instant::now();
    for reading in waiting.join_all().await {
        assert_eq!(status_of(&reading), TaskStatus::Cancelled);
    }
    assert!(
        started.elapsed() <= Duration::from_millis(1_100),
        "{:?}",
        started.elapsed()
    );
    let looks = store.faults().calls_of("whereabouts");
    assert!(looks <= 2, "{looks} queries");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_has_the_present_state_when_its_time_is_over_and_at_a_stop() {
    let world = World::new();
    let events = events(&world, EventsConfig::default());
    let id = world.memory.submit("ok").await;
    let started = Instant::now();
    let reading = events
        .wait(id, Duration::from_millis(1_500))
        .await
        .expect("read");
    assert_eq!(status_of(&reading), TaskStatus::Pending);
    assert_eq!(started.elapsed(), Duration::from_millis(1_500));
    let (reading, ()) = tokio::join!(events.wait(id, MINUTE), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        events.stop();
    });
    assert_eq!(status_of(&reading.expect("read")), TaskStatus::Pending);
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_goes_frees_its_place_and_one_too_many_is_refused() {
    let world = World::new();
    let config = EventsConfig {
        waiters: 1,
        ..EventsConfig::default()
    };
    let events = events(&world, config);
    let id = world.memory.submit("ok").await;
    let mut first = Box::pin(events.wait(id, MINUTE));
    let waits = tokio::time::timeout(Duration::from_millis(10), first.as_mut()).await;
    assert!(waits.is_err());
    let refused = events.wait(id, MINUTE).await;
    assert!(matches!(refused, Err(EventsError::Full)), "{refused:?}");
    drop(first);
    let reading = events
        .wait(id, Duration::ZERO)
        .await
        .expect("there is room again");
    assert_eq!(status_of(&reading), TaskStatus::Pending);
}

#[tokio::test(start_paused = true)]
async fn every_outcome_is_told_by_the_worker_that_made_it() {
    let world = World::new();
    let events = events(&world, EventsConfig::default());
    let mut all = events.listen(None, None).await.expect("a place");
    let worker = world.work(scripted());
    let done = world.memory.submit("ok").await;
    let failed = world.memory.submit("permanent").await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        for heard in all.hear(10).await.expect("not stopped") {
            let Heard::Event(placed) = heard else {
                panic!("{heard:?}")
            };
            let event = placed.event.expect("readable");
            if event.status.is_at_rest() {
                seen.push((event.id, event.status));
            }
        }
    }
    seen.sort();
    let mut expected = vec![(done, TaskStatus::Done), (failed, TaskStatus::Failed)];
    expected.sort();
    assert_eq!(seen, expected);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_kept_until_its_events_are_taken() {
    let mut world = World::new();
    let log = Arc::new(Faulty::new(world.memory.log.clone()));
    world.ports.announcer = log.clone();
    log.faults().next_of("tell", 1, Fault::FailBefore);
    let worker = world.work(scripted());
    let id = world.memory.submit("ok").await;
    let told = |world: &World| {
        world
            .memory
            .log
            .events()
            .iter()
            .any(|event| event.id == id && event.status == TaskStatus::Done)
    };
    let started = Instant::now();
    while !told(&world) {
        assert!(started.elapsed() < MINUTE, "never told");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    worker.stop().await;
    world.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_behind_its_last_event_and_is_told_what_it_missed() {
    let world = World::new();
    let config = EventsConfig {
        ring: 4,
        ..EventsConfig::default()
    };
    let events = events(&world, config);
    let id = world.memory.submit("ok").await;
    let other = world.memory.submit("ok").await;
    let mut all = events.listen(None, None).await.expect("a place");
    for id in [id, other, id, other] {
        tell(&world, id, TaskStatus::Done).await;
    }
    let places = positions(&all.hear(10).await.expect("heard"));
    assert_eq!(places.len(), 4);
    let mut resumed = events.listen(None, Some(places[2])).await.expect("a place");
    assert_eq!(
        positions(&resumed.hear(10).await.expect("heard")),
        places[2..]
    );
    let mut one = events
        .listen(Some(id), Some(places[1]))
        .await
        .expect("a place");
    assert_eq!(positions(&one.hear(10).await.expect("heard")), [places[2]]);
    for _ in 0..10 {
        tell(&world, other, TaskStatus::Done).await;
    }
    tell(&world, id, TaskStatus::Done).await;
    // Of one task nothing is missing, however much happened to others.
    assert_eq!(
        positions(&one.hear(10).await.expect("heard")),
        [places[3] + 11]
    );
    // What is too old, and what never was.
    for wrong in [places[0], 7, u64::MAX] {
        let mut late = events.listen(None, Some(wrong)).await.expect("a place");
        let heard = late.hear(10).await.expect("heard");
        assert!(matches!(heard[0], Heard::Reset(_)), "{wrong}: {heard:?}");
    }
    // The slow one is told.
    let heard = all.hear(20).await.expect("heard");
    assert!(matches!(heard[0], Heard::Reset(_)), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn who_is_reset_in_an_empty_log_comes_back_to_its_first_event() {
    let world = World::new();
    let clock = ManualClock::default();
    // A log in memory begins at the time of its start.
    clock.set(Timestamp::EPOCH);
    let limits = LogLimits::default();
    let log = Arc::new(MemoryLog::with_limits(Arc::new(clock), limits));
    let events = Events::start(&world.ports, log.clone(), EventsConfig::default());
    let mut late = events.listen(None, Some(42)).await.expect("a place");
    assert_eq!(late.hear(10).await, Some(vec![Heard::Reset(0)]));
    drop(late);
    let event = TaskEvent {
        id: world.memory.submit("ok").await,
        status: TaskStatus::Done,
        fence: Fence(1),
        at: Timestamp::EPOCH,
    };
    for outcome in log.tell(&[event]).await {
        outcome.expect("confirmed");
    }
    let mut resumed = events.listen(None, Some(0)).await.expect("a place");
    assert_eq!(positions(&resumed.hear(10).await.expect("heard")), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_one_task_that_does_not_listen_holds_no_more_than_its_limit() {
    let world = World::new();
    let events = events(&world, EventsConfig::default());
    let id = world.memory.submit("ok").await;
    let mut slow = events.listen(Some(id), None).await.expect("a place");
    let mut brisk = events.listen(None, None).await.expect("a place");
    for _ in 0..200 {
        tell(&world, id, TaskStatus::Pending).await;
        brisk.hear(10).await.expect("heard");
    }
    let heard = slow.hear(1_000).await.expect("heard");
    assert!(matches!(heard[..], [Heard::Reset(_)]), "{heard:?}");
    tell(&world, id, TaskStatus::Done).await;
    assert_eq!(positions(&slow.hear(10).await.expect("heard")).len(), 1);
    events.stop();
    assert_eq!(slow.hear(10).await, None);
}

/// A feed of a log, which notes how far back it was opened.
struct Noted {
    log: MemoryLog,
    slow: Duration,
    opened: Mutex<Vec<usize>>,
}

#[async_trait]
impl EventFeed for Noted {
    async fn open(&self, latest: usize) -> Result<Box<dyn EventReader>, EventFeedError> {
        self.opened.lock().expect("not poisoned").push(latest);
        let (reader, slow) = (self.log.open(latest).await?, self.slow);
        Ok(Box::new(Slow { reader, slow }))
    }
}

/// Takes a while for everything it reads.
struct Slow {
    reader: Box<dyn EventReader>,
    slow: Duration,
}

#[async_trait]
impl EventReader for Slow {
    fn begin(&self) -> u64 {
        self.reader.begin()
    }

    fn end(&self) -> u64 {
        self.reader.end()
    }

    async fn read(&mut self, limit: usize) -> Result<Vec<PlacedEvent>, EventFeedError> {
        tokio::time::sleep(self.slow).await;
        self.reader.read(limit).await
    }
}

/// A server on a log that holds this many records, and the position of the first.
async fn on_a_long_log(
    world: &World,
    records: usize,
    slow: Duration,
) -> (Arc<Noted>, Arc<Events>, u64) {
    let limits = LogLimits {
        kept_records: records + 1,
        kept_bytes: usize::MAX,
        ..LogLimits::default()
    };
    let feed = Arc::new(Noted {
        log: MemoryLog::with_limits(world.ports.clock.clone(), limits),
        slow,
        opened: Mutex::default(),
    });
    let event = TaskEvent {
        id: world.memory.submit("ok").await,
        status: TaskStatus::Pending,
        fence: Fence(1),
        at: Timestamp::EPOCH,
    };
    for outcome in feed.log.tell(&vec![event; records]).await {
        outcome.expect("confirmed");
    }
    let reader = feed.log.open(records).await.expect("in memory");
    let events = Events::start(&world.ports, feed.clone(), EventsConfig::default());
    (feed, Arc::new(events), reader.begin())
}

#[tokio::test(start_paused = true)]
async fn a_stream_comes_back_to_a_quarter_of_a_million_events_at_a_server_that_nobody_followed() {
    let world = World::new();
    let ring = 262_144;
    let (_, events, first) = on_a_long_log(&world, ring + 10, Duration::ZERO).await;
    let mut now = events.listen(None, None).await.expect("a place");
    // The last one before the ring begins has been heard: all that it holds is new.
    let mut resumed = events
        .listen(None, Some(first + 10))
        .await
        .expect("a place");
    let mut expected = first + 10;
    while expected < first + 10 + ring as u64 {
        for position in positions(&resumed.hear(10_000).await.expect("heard")) {
            assert_eq!(position, expected);
            expected += 1;
        }
    }
    let mut late = events.listen(None, Some(first + 9)).await.expect("a place");
    let heard = late.hear(10).await.expect("heard");
    assert!(matches!(heard[..], [Heard::Reset(_)]), "{heard:?}");
    events.stop();
    assert_eq!(now.hear(10).await, None);
}

#[tokio::test(start_paused = true)]
async fn who_only_waits_is_not_kept_by_reading_far_back() {
    let world = World::new();
    let (feed, events, first) = on_a_long_log(&world, 5_000, Duration::ZERO).await;
    let opened = || feed.opened.lock().expect("not poisoned").clone();
    let id = world.memory.submit("ok").await;
    let done = TaskEvent {
        id,
        status: TaskStatus::Cancelled,
        fence: Fence(1),
        at: Timestamp::EPOCH,
    };
    let started = Instant::now();
    let (reading, ()) = tokio::join!(events.wait(id, MINUTE), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cancel_in_the_store(&world, id).await;
        for outcome in feed.log.tell(&[done]).await {
            outcome.expect("confirmed");
        }
    });
    assert_eq!(status_of(&reading.expect("read")), TaskStatus::Cancelled);
    // By the event, not by the look.
    assert!(started.elapsed() < Duration::from_millis(500));
    assert_eq!(opened(), [1_024]);
    // A stream needs all of it, and has it at once.
    let started = Instant::now();
    let mut resumed = events.listen(None, Some(first + 1)).await.expect("a place");
    let heard = positions(&resumed.hear(10).await.expect("heard"));
    assert_eq!(heard[0], first + 1);
    assert_eq!(opened(), [1_024, EventsConfig::default().ring]);
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_open_before_a_long_log_is_read_and_hears_what_happened_since() {
    let world = World::new();
    let (feed, events, first) = on_a_long_log(&world, 5_000, Duration::from_secs(4)).await;
    let id = world.memory.submit("ok").await;
    let started = Instant::now();
    let mut all = events.listen(None, None).await.expect("a place");
    let mut one = events.listen(Some(id), None).await.expect("a place");
    assert!(started.elapsed() < Duration::from_secs(1));
    let event = TaskEvent {
        id,
        status: TaskStatus::Done,
        fence: Fence(1),
        at: Timestamp::EPOCH,
    };
    for outcome in feed.log.tell(&[event]).await {
        outcome.expect("confirmed");
    }
    let expected = [first + 5_000];
    assert_eq!(positions(&all.hear(10).await.expect("heard")), expected);
    assert_eq!(positions(&one.hear(10).await.expect("heard")), expected);
    // Five times as long as one reading.
    assert!(started.elapsed() > Duration::from_secs(16));
}

/// A feed that panics when it is opened for the first time.
struct PanickyFeed {
    has_panicked: AtomicBool,
    log: Arc<MemoryLog>,
}

#[async_trait]
impl EventFeed for PanickyFeed {
    async fn open(&self, latest: usize) -> Result<Box<dyn EventReader>, EventFeedError> {
        let is_first = !self.has_panicked.swap(true, Ordering::Relaxed);
        assert!(!is_first, "boom");
        self.log.open(latest).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_panics_is_opened_again() {
    let world = World::new();
    let feed = PanickyFeed {
        has_panicked: AtomicBool::new(false),
        log: world.memory.log.clone(),
    };
    let events = Events::start(&world.ports, Arc::new(feed), EventsConfig::default());
    let id = world.memory.submit("ok").await;
    let mut listener = events.listen(None, None).await.expect("a place");
    tell(&world, id, TaskStatus::Processing).await;
    let heard = tokio::time::timeout(MINUTE, listener.hear(10)).await;
    let heard = heard.expect("it reads").expect("it is not stopped");
    assert_eq!(positions(&heard).len(), 1);
    assert_eq!(panics(&world), [("follow_events", "boom".to_owned())]);
}

/// The store panics at the first call of this method; after it, a waiter is told within two looks.
async fn waits_after_a_panic(method: &'static str, doing: &'static str) {
    let mut world = World::new();
    let store = Arc::new(Faulty::new(world.memory.store.clone()));
    world.ports.store = store.clone();
    let events = events(&world, EventsConfig::default());
    let id = world.memory.submit("ok").await;
    let is_armed = AtomicBool::new(true);
    let cancelled = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        // The read with which the wait began is over.
        store.faults().rule(move |called| {
            assert!(
                called != method || !is_armed.swap(false, Ordering::Relaxed),
                "boom"
            );
            None
        });
        cancel_in_the_store(&world, id).await;
    };
    let (first, ()) = tokio::join!(events.wait(id, MINUTE), cancelled);
    if let Ok(reading) = first {
        assert_eq!(status_of(&reading), TaskStatus::Cancelled);
    }
    assert_eq!(panics(&world), [(doing, "boom".to_owned())]);
    let id = world.memory.submit("ok").await;
    let cancelled = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cancel_in_the_store(&world, id).await;
    };
    let began = Instant::now();
    let (next, ()) = tokio::join!(events.wait(id, MINUTE), cancelled);
    assert_eq!(status_of(&next.expect("read")), TaskStatus::Cancelled);
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_look_or_an_answer_that_panics_takes_no_later_wait_with_it() {
    waits_after_a_panic("whereabouts", "look_for_waiters").await;
    waits_after_a_panic("get", "answer_waiters").await;
}
