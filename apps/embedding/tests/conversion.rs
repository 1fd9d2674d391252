//! Unit tests of an embedding program, on the fakes: submit, move the clock, look at what was processed, plant a fault. Time
//! is paused, so hours pass in milliseconds and every run is the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adapters::faulty::{Fault, Faulty};
use adapters::memory::{Memory, TokioClock};
use async_trait::async_trait;
use domain::ports::{Clock as _, Payload, TaskId, TaskStatus};
use domain::{Ports, Reading, Service, Submission};
use task_processor_embedding::conversion::{Conversion, Rates, RatesAreDown};
use tokio::time::{Instant, sleep};

const HOUR: Duration = Duration::from_secs(3_600);

/// A fake of this program's own port.
#[derive(Default)]
struct FixedRates {
    are_down: AtomicBool,
}

#[async_trait]
impl Rates for FixedRates {
    async fn cents_per_euro(&self, currency: &str) -> Result<Option<u64>, RatesAreDown> {
        if self.are_down.load(Ordering::Relaxed) {
            return Err(RatesAreDown);
        }
        Ok((currency == "USD").then_some(108))
    }
}

fn start(memory: &Memory<TokioClock>, ports: Ports, rates: &Arc<FixedRates>) -> Service {
    Service::start(
        ports,
        Arc::new(memory.log.feed()),
        Conversion(rates.clone()),
    )
}

fn amount(text: &str) -> Submission {
    Submission::new(Payload::new(text).expect("no NUL"))
}

async fn result(service: &Service, id: TaskId) -> String {
    match service.read(id).await.expect("the store answers") {
        Reading::Done(done) => done.result,
        other => panic!("not done: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_amount_is_converted_and_nonsense_fails_at_once() {
    let memory = Memory::with_clock(TokioClock::default());
    let service = start(&memory, memory.ports(), &Arc::default());
    let good = service
        .submit(amount("12.50 USD"))
        .await
        .expect("accepted")
        .id;
    let bad = service.submit(amount("a lot")).await.expect("accepted").id;
    let tasks = memory.store.at_rest(&[good, bad]).await;
    assert_eq!(result(&service, good).await, "11.57 EUR");
    assert_eq!(
        (tasks[1].status, tasks[1].attempts),
        (TaskStatus::Failed, 1)
    );
    assert_eq!(
        tasks[1].error.as_deref(),
        Some("\"a lot\" is no amount like 12.50 USD")
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_to_run_in_an_hour_does_not_run_now() {
    let memory = Memory::with_clock(TokioClock::default());
    let service = start(&memory, memory.ports(), &Arc::default());
    let in_an_hour = Submission {
        run_at: Some(memory.clock.now().after(HOUR)),
        ..amount("1.08 USD")
    };
    let id = service.submit(in_an_hour).await.expect("accepted").id;
    sleep(HOUR * 59 / 60).await;
    assert_eq!(memory.task(id).status, TaskStatus::Pending);
    memory.store.at_rest(&[id]).await;
    assert_eq!(result(&service, id).await, "1.00 EUR");
}

#[tokio::test(start_paused = true)]
async fn while_the_rates_are_down_tasks_wait_and_spend_nothing() {
    let memory = Memory::with_clock(TokioClock::default());
    let rates = Arc::new(FixedRates::default());
    let service = start(&memory, memory.ports(), &rates);
    rates.are_down.store(true, Ordering::Relaxed);
    let id = service
        .submit(amount("1.08 USD"))
        .await
        .expect("accepted")
        .id;
    sleep(HOUR).await;
    let task = memory.task(id);
    assert!(!task.status.is_at_rest());
    assert_eq!(task.attempts, 0);
    rates.are_down.store(false, Ordering::Relaxed);
    let back = Instant::now();
    memory.store.at_rest(&[id]).await;
    assert!(
        back.elapsed() < Duration::from_secs(60),
        "{:?}",
        back.elapsed()
    );
}

/// The fault is planted between the domain and the store: the next three results are written, and the answer is lost.
#[tokio::test(start_paused = true)]
async fn an_answer_of_the_store_that_is_lost_counts_nothing_twice() {
    let memory = Memory::with_clock(TokioClock::default());
    let store = Arc::new(Faulty::new(memory.store.clone()));
    store.faults().next_of("transition", 3, Fault::FailAfter);
    let mut ports = memory.ports();
    ports.store = store.clone();
    let service = start(&memory, ports, &Arc::default());
    let id = service
        .submit(amount("1.08 USD"))
        .await
        .expect("accepted")
        .id;
    memory.store.at_rest(&[id]).await;
    memory
        .log
        .until_announced(|outputs, _| !outputs.is_empty())
        .await;
    assert!(store.faults().calls_of("transition") > 3);
    let metrics = service.metrics().await.expect("the store answers");
    assert_eq!(metrics.total_tasks, 1);
    assert!(memory.store.snapshot().contradictions().is_empty());
}

/// Dropping a service is a crash; another one on the same ports takes over what it held.
#[tokio::test(start_paused = true)]
async fn what_a_crash_interrupts_is_done_by_the_next() {
    let memory = Memory::with_clock(TokioClock::default());
    let rates = Arc::new(FixedRates::default());
    let first = start(&memory, memory.ports(), &rates);
    let id = first.submit(amount("1.08 USD")).await.expect("accepted").id;
    drop(first);
    let second = start(&memory, memory.ports(), &rates);
    memory.store.at_rest(&[id]).await;
    assert_eq!(result(&second, id).await, "1.00 EUR");
}
