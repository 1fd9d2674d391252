//! What the plan does to the system.

use super::*;

/// A worker that is paused for this many milliseconds loses its place in the group.
const SESSION: u64 = 8_000;

impl World {
    pub(super) async fn act(&mut self, action: Action) {
        match action {
            Action::Submit {
                server,
                wishes,
                key,
                patience,
            } => match key {
                None => self.submit(server, &wishes, patience, false),
                Some(key) => self.submit_keyed(server, key, &wishes, patience),
            },
            Action::Repeat {
                server,
                key,
                patience,
            } => self.repeat(server, key, patience),
            Action::Order {
                server,
                order,
                choice,
            } => {
                if let Some(id) = self.choose_for(order, choice) {
                    self.order(server, id, order, None);
                }
            }
            Action::Read { server, choice } => {
                let known = self.ledger.entries().known_ids();
                if !known.is_empty() {
                    self.read(server, known[remainder(choice, known.len())]);
                }
            }
            Action::Plant { scripts, messaged } => self.plant(&scripts, messaged).await,
            Action::Stray { choice } => self.send_stray(choice).await,
            Action::Rubbish => self.put_rubbish(),
            Action::KillServer(slot) => self.kill_server(slot, None),
            Action::KillWorker(slot) => self.kill_worker(slot, None),
            Action::StopServer(slot) => self.stop_server(slot),
            Action::StopWorker(slot) => self.stop_worker(slot),
            Action::StartServer(slot) => self.start_server(slot),
            Action::StartWorker(slot) => self.start_worker(slot),
            Action::ShutServer(slot, millis) => {
                let link = self.servers[slot].as_ref().map(|server| &server.link);
                if let Some(link) = link.map(Arc::clone) {
                    self.shut(&link, millis, Action::OpenServer(slot));
                }
            }
            Action::ShutWorker(slot, millis) => {
                let link = self.workers[slot].as_ref().map(|worker| &worker.link);
                if let Some(link) = link.map(Arc::clone) {
                    self.shut(&link, millis, Action::OpenWorker(slot));
                    let feed = self.workers[slot].as_ref().map(|worker| &worker.feed);
                    if let Some(feed) = feed.filter(|_| millis >= SESSION) {
                        feed.leave();
                    }
                }
            }
            Action::OpenServer(slot) => {
                if let Some(server) = &self.servers[slot] {
                    self.open(&server.link);
                }
            }
            Action::OpenWorker(slot) => {
                if let Some(worker) = &self.workers[slot] {
                    self.open(&worker.link);
                    worker.feed.join();
                }
            }
            Action::Outage(dependency, outage, millis) => {
                self.trace().note(Who::WORLD, "outage", millis, || {
                    format!("{} is {outage:?} for {millis} ms", dependency.as_str())
                });
                self.tally.outages += 1;
                self.sky.set_outage(dependency, Some(outage));
                let delay = Duration::from_millis(millis);
                self.plan_in(delay, Action::EndOutage(dependency));
            }
            Action::EndOutage(dependency) => {
                self.trace().note(Who::WORLD, "end of outage", 0, || {
                    dependency.as_str().to_owned()
                });
                self.sky.set_outage(dependency, None);
            }
            Action::FunctionDown(millis) => {
                self.trace().note(Who::WORLD, "function down", millis, || {
                    format!("for {millis} ms")
                });
                let until = Instant::now() + Duration::from_millis(millis);
                self.sky.set_function_down_until(Some(until));
            }
            Action::Misfile { choice } => self.misfile(choice),
            Action::WipeCache => {
                self.trace().note(Who::WORLD, "cache wiped", 0, String::new);
                self.cache.clear();
            }
            Action::WipeTopic => self.wipe_topic(),
            Action::RecreateTopic => self.recreate_topic(),
            Action::Jump(clock, micros) => {
                self.trace()
                    .note(Who::WORLD, "clock jumps", micros.cast_unsigned(), || {
                        format!("{clock:?} by {micros} µs")
                    });
                match clock {
                    ClockOf::Store => self.store_clock.jump(micros),
                    ClockOf::Log => {
                        self.log_clock.jump(micros);
                        let now = self.log_clock.now().as_micros();
                        self.topic.clock_went_back_to(now);
                    }
                    ClockOf::Server(slot) => self.clocks[slot].jump(micros),
                    ClockOf::Worker(slot) => self.clocks[self.plan.servers + slot].jump(micros),
                }
            }
        }
    }

    fn shut(&mut self, link: &Link, millis: u64, open: Action) {
        self.trace().note(link.who, "is paused", millis, || {
            format!("or cut off, for {millis} ms")
        });
        self.tally.paused += 1;
        link.shut();
        self.plan_in(Duration::from_millis(millis), open);
    }

    fn open(&self, link: &Link) {
        if link.is_shut() {
            self.trace().note(link.who, "resumes", 0, String::new);
            link.open();
        }
    }

    fn wipe_topic(&mut self) {
        self.tally.wiped += 1;
        self.trace().note(Who::WORLD, "topic wiped", 0, String::new);
        self.topic.wipe(self.log_clock.now().as_micros());
        self.expect_no_message();
    }

    fn recreate_topic(&mut self) {
        self.tally.recreated += 1;
        self.trace()
            .note(Who::WORLD, "topic made anew", 0, String::new);
        self.log.recreate_input();
        self.is_topic_new = true;
        self.expect_no_message();
    }

    /// What only its message speaks for may have lost it.
    pub(super) fn expect_no_message(&self) {
        let mut entries = self.ledger.entries();
        entries.rubbish.clear();
        // Their messages are gone, and only the audit speaks for them.
        for planted in &mut entries.planted {
            planted.has_message = false;
        }
    }

    /// Another program writes rows, and perhaps their messages.
    async fn plant(&self, scripts: &[Script], messaged: bool) {
        for script in scripts {
            let id = self.own_ids.task_id();
            let (payload, number) = {
                let mut entries = self.ledger.entries();
                let number = 1_000 + entries.planted.len();
                let payload = script.to_payload(number);
                entries.planted.push(Planted {
                    id,
                    payload: payload.clone(),
                    script: script.clone(),
                    has_message: messaged,
                });
                (payload, number)
            };
            self.trace().note(Who::WORLD, "planted", number as u64, || {
                let message = if messaged { "and" } else { "without" };
                format!("{payload} {message} a message")
            });
            let payload = payload_of(&payload);
            self.memory.plant(&[id], &payload);
            if messaged {
                self.topic.cherish(id);
                self.send(id, payload).await;
            }
        }
    }

    /// Someone edits the list of failed and cancelled tasks by hand, or restores an old one.
    fn misfile(&self, choice: u64) {
        let (kind, choice) = (choice % 4, choice / 4);
        let snapshot = self.memory.snapshot();
        let stopped: Vec<TaskId> = snapshot.stopped.iter().map(|(_, id)| *id).collect();
        let known: Vec<TaskId> = snapshot.tasks.iter().map(|task| task.id).collect();
        let id = match (kind, &stopped[..], &known[..]) {
            (0 | 1, [_, ..], _) => stopped[remainder(choice, stopped.len())],
            (2, _, [_, ..]) => known[remainder(choice, known.len())],
            _ => self.own_ids.task_id(),
        };
        self.trace().note(Who::WORLD, "misfiled", kind, || {
            let what = if kind == 0 { "out of" } else { "into" };
            format!("{id} {what} the list of failed and cancelled tasks")
        });
        self.store.records().misfiled.insert(id);
        match kind {
            0 => self.memory.remove_stopped(id),
            _ => self.memory.plant_stopped(id, choice.is_multiple_of(2)),
        }
    }

    async fn send_stray(&self, choice: u64) {
        let known = self.ledger.entries().known_ids();
        let id = if known.is_empty() || choice.is_multiple_of(5) {
            self.own_ids.task_id()
        } else {
            known[remainder(choice, known.len())]
        };
        self.trace()
            .note(Who::WORLD, "stray message", 0, || id.to_string());
        self.send(id, payload_of("not what is stored")).await;
    }

    async fn send(&self, id: TaskId, payload: Payload) {
        let message = TaskMessage {
            id,
            payload,
            priority: Priority::default(),
            trace: None,
        };
        self.log.publish(&[message]).await;
    }

    fn put_rubbish(&self) {
        let mut entries = self.ledger.entries();
        entries.rubbish_count += 1;
        let reason = format!("rubbish {}", entries.rubbish_count);
        self.trace()
            .note(Who::WORLD, "rubbish", 0, || reason.clone());
        if self
            .log
            .put_unreadable(&reason, None, Some(vec![0xff]))
            .is_ok()
        {
            entries.rubbish.push(reason);
        }
    }
}

pub(super) fn remainder(choice: u64, count: usize) -> usize {
    usize::try_from(choice % count as u64).unwrap_or(0)
}

pub(super) fn payload_of(text: &str) -> Payload {
    Payload::new(text).unwrap_or_default()
}
