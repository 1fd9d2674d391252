//! Clients: so many requests a second, whether or not the last ones were answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::chance::Chance;
use crate::clock;
use crate::fleet::Slot;
use crate::ledger::{Ledger, Outcome};
use crate::script::{End, Script};

/// How often due requests are sent.
const TICK: Duration = Duration::from_millis(10);
/// How many requests may be unanswered before further ones count as failed without being sent.
const UNANSWERED: usize = 4_000;
/// One read for so many requests.
const READS: u64 = 8;

/// What kinds of tasks are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mix {
    /// Everything that a task can do, in numbers that keep some tasks in hand at any time.
    Varied,
    /// All succeed at once.
    Healthy,
    /// One in a hundred panics at every attempt, one in a hundred takes 30 s, the others succeed at once.
    Stuck,
}

impl Mix {
    fn script(self, number: u64, chance: &Chance) -> Script {
        let quick = Script {
            number,
            sleep: Duration::ZERO,
            failures: 0,
            end: End::Success,
            needs: false,
            overruns: false,
            run_at: None,
        };
        let die = chance.below(1_000);
        match self {
            Self::Healthy => quick,
            Self::Stuck if die < 10 => Script {
                end: End::Panic,
                ..quick
            },
            Self::Stuck if die < 20 => Script {
                sleep: Duration::from_secs(30),
                ..quick
            },
            Self::Stuck => quick,
            Self::Varied => {
                let sleep = if die < 50 {
                    chance.millis(1_000, 8_000)
                } else {
                    chance.millis(0, 20)
                };
                let failures = if chance.happens(50) {
                    u32::try_from(chance.between(1, 3)).unwrap_or(1)
                } else {
                    0
                };
                let end = match chance.below(1_000) {
                    0..10 => End::Permanent,
                    10..15 => End::Panic,
                    _ => End::Success,
                };
                let needs = chance.happens(100);
                let overruns = chance.happens(5);
                let run_at = chance
                    .happens(30)
                    .then(|| clock::after(chance.millis(1_000, 20_000)));
                Script {
                    sleep,
                    failures,
                    end,
                    needs,
                    overruns,
                    run_at,
                    ..quick
                }
            }
        }
    }
}

/// Where requests go: to those that look ready, in turn.
pub(crate) struct Balancer {
    servers: Vec<Arc<Slot>>,
    next: AtomicUsize,
}

impl Balancer {
    pub(crate) fn new(servers: Vec<Arc<Slot>>) -> Self {
        Self {
            servers,
            next: AtomicUsize::new(0),
        }
    }

    /// The next that looks ready; if none does, just the next.
    fn choose(&self) -> &Arc<Slot> {
        let count = self.servers.len();
        let from = self.next.fetch_add(1, Ordering::Relaxed);
        (from..from + count)
            .map(|at| &self.servers[at % count])
            .find(|server| server.ready.load(Ordering::Relaxed))
            .unwrap_or(&self.servers[from % count])
    }
}

/// Sends until it is told to stop, then waits for the last answers.
pub(crate) async fn send(
    balancer: Arc<Balancer>,
    ledger: Arc<Ledger>,
    rate: u32,
    mix: Mix,
    seed: u64,
    mut stop: watch::Receiver<bool>,
) {
    let chance = Chance::new(seed);
    let room = Arc::new(Semaphore::new(UNANSWERED));
    let mut requests = JoinSet::new();
    let mut ticks = interval(TICK);
    // A tick that comes late sends what is due by then.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let start = Instant::now();
    let mut sent = 0_u64;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = requests.join_next() => continue,
        }
        let due = start.elapsed().as_secs_f64() * f64::from(rate);
        while (sent as f64) < due {
            sent += 1;
            let script = mix.script(ledger.len() as u64, &chance);
            let server = Arc::clone(balancer.choose());
            let number = ledger.sent(script.clone(), server.index);
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                ledger.answered(number, Outcome::Failed("too many unanswered".to_owned()));
                continue;
            };
            let book = Arc::clone(&ledger);
            requests.spawn(async move {
                let outcome = submit(&server, &script).await;
                book.answered(number, outcome);
                drop(place);
            });
            if sent.is_multiple_of(READS) {
                read_later(&balancer, number, &chance, &ledger, &mut requests);
            }
        }
    }
    while requests.join_next().await.is_some() {}
}

async fn submit(server: &Slot, script: &Script) -> Outcome {
    let mut body = json!({ "payload": script.to_string(), "priority": script.number % 11 });
    if let Some(run_at) = script.written_run_at() {
        body["runAt"] = run_at.into();
    }
    match server.client.post("/tasks", &body).await {
        Ok(answer) if answer.status == 201 => {
            let id = answer.json()["id"].as_str().and_then(|id| id.parse().ok());
            id.map_or_else(
                || Outcome::Failed("201 without an id".to_owned()),
                Outcome::Accepted,
            )
        }
        Ok(answer) => {
            let title = answer.json()["title"].as_str().unwrap_or("").to_owned();
            Outcome::Failed(format!("{} {title}", answer.status))
        }
        Err(trouble) => Outcome::Failed(trouble.as_str().to_owned()),
    }
}

/// Looks at a task that was sent before.
fn read_later(
    balancer: &Balancer,
    before: usize,
    chance: &Chance,
    ledger: &Arc<Ledger>,
    requests: &mut JoinSet<()>,
) {
    let Some((id, script)) = ledger.accepted(chance.index(before)) else {
        return;
    };
    let server = Arc::clone(balancer.choose());
    let ledger = Arc::clone(ledger);
    requests.spawn(async move {
        let shown_before = ledger.shown(id);
        let asked_at = clock::now();
        let answer = match server.client.get(&format!("/tasks/{id}"), "*/*").await {
            Ok(answer) if answer.status != 503 && answer.status != 429 => answer,
            _ => return ledger.read(|reads| reads.failed.push((asked_at, clock::now()))),
        };
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        let json = answer.json();
        let is_done = json.get("taskId").is_some();
        let wrong = if answer.status != 200 {
            Some(format!("answers {}", answer.status))
        } else if shown_before.as_ref().is_some_and(|before| *before != body) {
            Some("was shown done and is shown otherwise now".to_owned())
        } else if is_done && !script.succeeds() {
            Some("is shown done and cannot be".to_owned())
        } else {
            None
        };
        if is_done {
            ledger.show(id, body.clone());
        }
        ledger.read(|reads| {
            reads.answered += 1;
            if let Some(wrong) = wrong {
                reads.wrong.push(format!("{id} {wrong}: {body}"));
            }
        });
    });
}
