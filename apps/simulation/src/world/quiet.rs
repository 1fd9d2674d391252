//! After the faults: the system must come to rest by itself, and then be as quick as it promises.

use super::*;
use crate::ledger::Answer;
use crate::plan::Order;

/// The task that a function holds for long must not hold up the others: how many of them are there at most.
const STUCK: usize = 2;

/// When a task is due that is cancelled before, in milliseconds.
const LATER: u64 = 90_000;

/// How long a client waits between two orders: longer than a log that is down may delay the answer.
const AFTER_AN_ORDER: Duration = Duration::from_secs(1);

/// How far the store's clock may have gone back in all, at most.
const JUMPS: Duration = Duration::from_secs(30);

/// How long a worker that is killed in the quiet stays away.
const MOURNING: Duration = Duration::from_secs(14);

/// How long the second death follows the first: the first was just declared dead.
const BETWEEN_DEATHS: Duration = Duration::from_secs(6);

/// What the claims of a worker hold.
struct Held {
    in_hand: Vec<(TaskId, Fence)>,
    /// How many of its tasks came to rest, or moved on, and were not yet announced.
    at_rest: usize,
}

impl World {
    /// Ends every fault and has every process running.
    pub(super) fn quiet_down(&mut self) {
        self.trace().note(Who::WORLD, "quiet", 0, || {
            "nothing strikes any more".to_owned()
        });
        self.is_quiet = true;
        self.quiet_at = self.trace().now();
        self.agenda.clear();
        self.sky.clear();
        if self.is_topic_new {
            // Whatever was received of the old topic may have been acknowledged until now, and have passed over records of the new.
            self.expect_no_message();
        }
        for server in self.servers.iter().flatten() {
            server.link.open();
        }
        for worker in self.workers.iter().flatten() {
            worker.link.open();
            worker.feed.join();
        }
        self.start_all();
    }

    /// Answers whether the system came to rest in time.
    pub(super) async fn come_to_rest(&mut self, when: &str) -> bool {
        let deadline = Instant::now() + REST_LIMIT;
        let mut unrest = self.unrest();
        while !unrest.is_empty() {
            if Instant::now() >= deadline || self.sky.is_exhausted() {
                let mut entries = self.ledger.entries();
                entries
                    .unrest
                    .extend(unrest.into_iter().map(|what| format!("{when}: {what}")));
                return false;
            }
            self.run_until(Instant::now() + LOOK_INTERVAL).await;
            unrest = self.unrest();
        }
        self.look_for_contradictions();
        true
    }

    /// What still has to happen.
    fn unrest(&mut self) -> Vec<String> {
        let mut unrest = Vec::new();
        if !self.sky.has_settled() {
            unrest.push("requests are on their way".to_owned());
        }
        while self.clients.try_join_next().is_some() {}
        if !self.clients.is_empty() {
            unrest.push(format!("{} clients wait", self.clients.len()));
        }
        let snapshot = self.memory.snapshot();
        let entries = self.ledger.entries();
        for task in &snapshot.tasks {
            // Of another program's rows those without a message are found by the audit.
            let may_wait = !self.plan.has_audit()
                && task.status == TaskStatus::Pending
                && task.fence == Fence(0)
                && entries
                    .planted
                    .iter()
                    .any(|planted| planted.id == task.id && !planted.has_message);
            if !(task.status.is_at_rest() || may_wait) {
                let payload = task.payload.as_str();
                unrest.push(format!("{payload} is {}", task.status));
            }
        }
        drop(entries);
        if self.plan.has_audit() {
            // What other hands did to the list of failed and cancelled tasks is put right.
            unrest.extend(snapshot.contradictions());
            unrest.extend(self.untold(&snapshot));
        }
        if !snapshot.queue.is_empty() {
            unrest.push(format!("{} rows are in the queue", snapshot.queue.len()));
        }
        if !snapshot.claims.is_empty() {
            unrest.push(format!("{} claims are recorded", snapshot.claims.len()));
        }
        let records = self.store.records();
        let alive: Vec<String> = self
            .workers
            .iter()
            .flatten()
            .map(|worker| worker.link.who.to_string())
            .collect();
        let is_alive = |entry: &&ports::WorkerEntry| {
            alive.contains(&entry.name)
                && !entry.dead
                && records.latest_of(&entry.name) == Some(entry.id)
        };
        let living = snapshot.workers.iter().filter(is_alive).count();
        if living != self.workers.len() && !self.is_over || snapshot.workers.len() != living {
            let names: Vec<&str> = snapshot
                .workers
                .iter()
                .map(|entry| entry.name.as_str())
                .collect();
            unrest.push(format!(
                "{} are registered, {} are alive",
                names.join(", "),
                alive.join(", ")
            ));
        }
        unrest
    }

    /// Cancelled tasks of which no event tells.
    fn untold(&self, snapshot: &StoreSnapshot) -> Vec<String> {
        let tasks = snapshot.tasks.iter();
        let mut untold: BTreeMap<TaskId, &str> = tasks
            .filter(|task| task.status == TaskStatus::Cancelled)
            .map(|task| (task.id, task.payload.as_str()))
            .collect();
        if !untold.is_empty() {
            for event in self.log.events() {
                if event.status == TaskStatus::Cancelled {
                    untold.remove(&event.id);
                }
            }
        }
        let payloads = untold.into_values();
        payloads
            .map(|payload| format!("{payload} is cancelled and no event told so"))
            .collect()
    }

    /// Submits healthy tasks beside stuck ones, with the log up, losing everything, or down.
    pub(super) async fn probe(&mut self) {
        let probe_log = self.plan.probe_log;
        self.trace().note(Who::WORLD, "probes", 0, || {
            format!("with the log {probe_log:?}")
        });
        let stuck = STUCK.min(self.plan.places() - 1);
        let wishes = vec![wish(Script::long(), None); stuck];
        if !wishes.is_empty() {
            self.submit(0, &wishes, CLIENT_PATIENCE, false);
        }
        self.run_until(Instant::now() + Duration::from_secs(3))
            .await;
        let two_die =
            self.plan.probe_death && probe_log == ProbeLog::Down && self.workers.len() > 2;
        if self.plan.probe_death && !two_die {
            self.kill_one_for_good(|held| held.in_hand.len());
        }
        match probe_log {
            ProbeLog::Up => {}
            ProbeLog::Losing => self.topic.lose_all(true),
            ProbeLog::Down => {
                // A silent log holds what it should take for as long as the adapter waits; a worker that may hold only a
                // few tasks rightly takes no more meanwhile.
                let outage = if self.plan.has_room() && self.sky.chance.one_in(2) {
                    Outage::Silent
                } else {
                    Outage::Refusing
                };
                self.sky.set_outage(Dependency::Log, Some(outage));
            }
        }
        for number in 0..self.plan.probes {
            let server = number % self.servers.len();
            let run_in = (number % 3 == 2).then(|| self.sky.chance.between(0, 4_000));
            self.submit(
                server,
                &[wish(Script::healthy(), run_in)],
                CLIENT_PATIENCE,
                true,
            );
            let pause = self.sky.chance.millis(0, 400);
            self.run_until(Instant::now() + pause).await;
        }
        if two_die {
            // The first leaves what cannot be announced. The rescue of the second, who has begun something since, must not wait for that.
            let begun = vec![wish(Script::long(), None); STUCK];
            self.submit(0, &begun, CLIENT_PATIENCE, false);
            self.kill_one_for_good(|held| held.at_rest);
            self.run_until(Instant::now() + BETWEEN_DEATHS).await;
            self.kill_one_for_good(|held| held.in_hand.len());
        }
        let cancellable = self.plan.has_orders.then(|| self.submit_for_later());
        self.run_until(Instant::now() + Duration::from_secs(12))
            .await;
        if let Some(number) = cancellable {
            self.give_orders(number).await;
        }
        self.topic.lose_all(false);
        self.sky.set_outage(Dependency::Log, None);
    }

    /// Submits a task that nobody begins before it is cancelled; answers its number.
    fn submit_for_later(&mut self) -> usize {
        let number = self.ledger.entries().asked.len();
        let later = wish(Script::healthy(), Some(LATER));
        self.submit(0, &[later], CLIENT_PATIENCE, false);
        number
    }

    /// Orders whose answers are known, because nothing else moves these tasks.
    async fn give_orders(&mut self, waiting: usize) {
        let told = self.ledger.entries().asked[waiting].told.clone();
        if let Told::Accepted { id, .. } = told {
            self.order(0, id, Order::Cancel, Some(Answer::Obeyed));
            self.run_until(Instant::now() + AFTER_AN_ORDER).await;
            self.order(0, id, Order::Cancel, Some(Answer::Obeyed));
            self.order(
                0,
                id,
                Order::Retry,
                Some(Answer::Refused(TaskStatus::Cancelled)),
            );
        }
        let tasks = self.memory.snapshot().tasks;
        let first = |status| tasks.iter().find(|task| task.status == status);
        if let Some(done) = first(TaskStatus::Done) {
            let refused = Some(Answer::Refused(TaskStatus::Done));
            self.order(0, done.id, Order::Cancel, refused);
            self.order(0, done.id, Order::Retry, refused);
        }
        if let Some(failed) = first(TaskStatus::Failed) {
            let refused = Some(Answer::Refused(TaskStatus::Failed));
            self.order(0, failed.id, Order::Cancel, refused);
            self.run_until(Instant::now() + AFTER_AN_ORDER).await;
            self.order(0, failed.id, Order::Retry, Some(Answer::Obeyed));
        }
        self.run_until(Instant::now() + AFTER_AN_ORDER).await;
    }

    /// Kills the living worker that comes first by this measure, and leaves its tasks to the others.
    fn kill_one_for_good(&mut self, measure: impl Fn(&Held) -> usize) {
        let slots = 0..self.workers.len();
        let held = slots.filter_map(|slot| Some((slot, self.held_in(slot)?)));
        let Some((slot, held)) = held.max_by_key(|(_, held)| measure(held)) else {
            return;
        };
        self.bereaved.push(Bereaved {
            at: self.trace().now(),
            tasks: held.in_hand,
        });
        self.kill_worker(slot, None);
        // Not before the others have had to do without them.
        self.agenda.clear();
        for slot in 0..self.workers.len() {
            if self.workers[slot].is_none() {
                self.plan_in(MOURNING, Action::StartWorker(slot));
            }
        }
    }

    /// What the worker in this place holds; `None` when there is none.
    fn held_in(&self, slot: usize) -> Option<Held> {
        let who = self.workers[slot].as_ref()?.link.who.to_string();
        let id = self.store.records().latest_of(&who)?;
        let snapshot = self.memory.snapshot();
        let claims = snapshot.claims.iter().filter(|claim| claim.worker == id);
        let tasks = claims.flat_map(|claim| claim.tasks.iter().copied());
        let is_in_hand = |(id, fence): &(TaskId, Fence)| {
            let mut tasks = snapshot.tasks.iter();
            tasks.any(|task| {
                task.id == *id && task.fence == *fence && task.status == TaskStatus::Processing
            })
        };
        let (in_hand, at_rest): (Vec<_>, Vec<_>) = tasks.partition(is_in_hand);
        Some(Held {
            in_hand,
            at_rest: at_rest.len(),
        })
    }

    /// Clients read everything once more, and the metrics.
    pub(super) async fn read_all(&mut self) {
        let known = self.ledger.entries().known_ids();
        for (number, id) in known.into_iter().enumerate() {
            self.read(number % self.servers.len(), id);
        }
        self.run_until(Instant::now() + Duration::from_millis(100))
            .await;
        if let Some(server) = &self.servers[0] {
            self.metrics = server.reader.metrics().await.ok();
        }
    }

    /// Waits until all that came to rest is so old that it must be gone, and reads the metrics again.
    pub(super) async fn outlive_the_retention(&mut self) {
        let prune = self.plan.work.prune;
        let Some(retention) = prune.retention else {
            return;
        };
        // A stretch of the whole table each interval, and twice, for what was too young when it was passed.
        let tasks = self.memory.snapshot().tasks.len();
        let stretches = u32::try_from(tasks / prune.stretch + 2).unwrap_or(u32::MAX);
        let walks = prune.interval * stretches * 2;
        self.run_until(Instant::now() + retention + walks + JUMPS)
            .await;
        let tasks = self.memory.snapshot().tasks;
        for task in tasks.iter().filter(|task| task.status.is_at_rest()) {
            let (payload, status) = (task.payload.as_str(), task.status);
            let what = format!("pruning: {payload} is {status} for long and was not deleted");
            self.store.records().wrong.push(what);
        }
        if let Some(server) = &self.servers[0] {
            self.metrics = server.reader.metrics().await.ok();
        }
    }

    pub(super) async fn stop_all(&mut self) {
        self.is_over = true;
        if !self.plan.ends_with_stop {
            return;
        }
        for slot in 0..self.workers.len() {
            self.stop_worker(slot);
        }
        let deadline = Instant::now() + self.plan.work.drain_deadline + STOP_MARGIN;
        while self.workers.iter().any(Option::is_some) && Instant::now() < deadline {
            self.run_until(Instant::now() + LOOK_INTERVAL).await;
        }
        let left = self.memory.snapshot().workers.len();
        if left > 0 || self.workers.iter().any(Option::is_some) {
            self.ledger
                .entries()
                .wrong
                .push(format!("after the stop {left} workers are registered"));
        }
    }
}

fn wish(script: Script, run_in: Option<u64>) -> Wish {
    Wish {
        script,
        max_attempts: None,
        run_in,
    }
}
