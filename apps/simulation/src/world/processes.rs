//! Starting, killing and stopping the processes.

use super::*;

/// How long a server that stops serves the requests it has.
const REQUESTS_END: Duration = Duration::from_secs(20);

/// How long it then waits for what it accepted to be published.
const SUBMITTER_ENDS: Duration = Duration::from_secs(5);

impl World {
    pub(super) fn start_all(&mut self) {
        for slot in 0..self.servers.len() {
            self.start_server(slot);
        }
        for slot in 0..self.workers.len() {
            self.start_worker(slot);
        }
    }

    pub(super) fn new_link(&mut self, kind: Kind, slot: usize) -> Arc<Link> {
        let instance = self.next_instance;
        self.next_instance += 1;
        let who = Who {
            kind,
            slot,
            instance,
        };
        self.trace().note(who, "starts", 0, String::new);
        Arc::new(Link::new(who, Arc::clone(&self.sky)))
    }

    pub(super) fn ports_of(&self, link: &Arc<Link>) -> Ports {
        let who = link.who;
        let (ids, random) = own_sources(who, self.plan.sky_seed);
        let store = Arc::new(ChaosStore::new(
            Arc::clone(&self.store),
            Arc::clone(link),
            Arc::clone(&self.log),
            self.plan.store_lies,
        ));
        let log = Arc::new(ChaosLog::new(Arc::clone(&self.log), Arc::clone(link)));
        let clock = match who.kind {
            Kind::Worker => &self.clocks[self.plan.servers + who.slot],
            _ => &self.clocks[who.slot],
        };
        Ports {
            store: Arc::<ChaosStore>::clone(&store),
            registry: Arc::<ChaosStore>::clone(&store),
            audit: store,
            // No component of the simulation lists tasks.
            catalog: self.store.catalog(),
            publisher: Arc::<ChaosLog>::clone(&log),
            announcer: log,
            cache: Arc::new(ChaosCache::new(
                Arc::clone(&self.cache),
                Arc::clone(&self.cache_record),
                Arc::clone(link),
            )),
            clock: Arc::<SkewedClock>::clone(clock),
            ids,
            random,
            observer: Arc::new(Witness(Arc::clone(link))),
        }
    }

    pub(super) fn start_server(&mut self, slot: usize) {
        if self.servers[slot].is_some() {
            return;
        }
        let link = self.new_link(Kind::Server, slot);
        let ports = self.ports_of(&link);
        self.servers[slot] = Some(Server::start(link, &ports, self.plan.submit));
    }

    pub(super) fn start_worker(&mut self, slot: usize) {
        if self.workers[slot].is_some() {
            return;
        }
        let link = self.new_link(Kind::Worker, slot);
        let name = link.who.to_string();
        self.store
            .records()
            .links
            .insert(name.clone(), Arc::clone(&link));
        let ports = self.ports_of(&link);
        let feed = ChaosFeed::new(
            Arc::clone(&self.log),
            Arc::clone(&self.topic),
            Arc::clone(&link),
        );
        let processor = Scripted {
            runs: Arc::clone(&self.runs),
            who: link.who,
            sky: Arc::clone(&self.sky),
            concurrency: self.plan.work.concurrency,
            max_result_bytes: self.plan.work.max_result_bytes,
            long_run: self.plan.long_run,
        };
        let recovery = self
            .plan
            .is_embedded
            .then(|| self.recovery_of(&ports, &link));
        let parts = WorkerParts {
            recovery,
            registry_of_heart: self.plan.own_hearts.then(|| Arc::clone(&ports.registry)),
            ports,
            feed: Arc::new(feed),
            processor: Arc::new(processor),
            config: domain::WorkerConfig {
                name,
                ..self.plan.work.clone()
            },
        };
        let process = WorkerProcess::start(link, parts, self.endings.clone());
        self.workers[slot] = Some(process);
    }

    /// Afterwards nothing may be in the hands of an earlier life.
    fn recovery_of(&self, ports: &Ports, link: &Arc<Link>) -> Recovery {
        let (memory, store) = (Arc::clone(&self.memory), Arc::clone(&self.store));
        let (sky, who) = (Arc::clone(&self.sky), link.who);
        let done = move || {
            sky.trace.note(who, "recovered", 0, String::new);
            let tasks = memory.snapshot().tasks;
            let in_hand = |task: &&ports::Task| task.status == TaskStatus::Processing;
            for task in tasks.iter().filter(in_hand) {
                let payload = task.payload.as_str();
                let what = format!("{payload} is in no living hand after the start of {who}");
                store.records().wrong.push(what);
            }
        };
        Recovery {
            ports: ports.clone(),
            max_rescues: self.plan.work.max_rescues,
            done: Box::new(done),
        }
    }

    /// A process dies at a port call, unless enough have died of that.
    pub(super) fn die_of_call(&mut self, who: Who) {
        match who.kind {
            Kind::Server => self.kill_server(who.slot, Some(who)),
            _ => self.kill_worker(who.slot, Some(who)),
        }
    }

    pub(super) fn restart_delay(&self) -> Duration {
        if self.is_quiet {
            return Duration::ZERO;
        }
        let most = *self.sky.chance.pick(&[0, 100, 3_000, 12_000]);
        self.sky.chance.millis(0, most)
    }

    pub(super) fn kill_server(&mut self, slot: usize, only: Option<Who>) {
        let is_meant = |server: &mut Server| only.is_none_or(|who| server.link.who == who);
        if let Some(server) = self.servers[slot].take_if(is_meant) {
            server.link.die();
            self.trace()
                .note(server.link.who, "is killed", 0, String::new);
            self.tally.killed += 1;
            drop(server);
            let delay = self.restart_delay();
            self.plan_in(delay, Action::StartServer(slot));
        }
    }

    pub(super) fn kill_worker(&mut self, slot: usize, only: Option<Who>) {
        let is_meant = |worker: &mut WorkerProcess| only.is_none_or(|who| worker.link.who == who);
        if let Some(worker) = self.workers[slot].take_if(is_meant) {
            worker.link.die();
            self.trace()
                .note(worker.link.who, "is killed", 0, String::new);
            self.tally.killed += 1;
            drop(worker);
            let delay = self.restart_delay();
            self.plan_in(delay, Action::StartWorker(slot));
        }
    }

    pub(super) fn stop_server(&mut self, slot: usize) {
        if let Some(mut server) = self.servers[slot].take() {
            self.trace()
                .note(server.link.who, "is stopped", 0, String::new);
            self.tally.stopped += 1;
            self.retiring.spawn(async move {
                let _ = timeout(REQUESTS_END, async {
                    while server.handlers.join_next().await.is_some() {}
                })
                .await;
                server.submitter.stop(SUBMITTER_ENDS).await;
            });
            let delay = self.restart_delay();
            self.plan_in(delay, Action::StartServer(slot));
        }
    }

    pub(super) fn stop_worker(&mut self, slot: usize) {
        if let Some(worker) = &mut self.workers[slot]
            && !worker.is_stopping()
        {
            worker.ask_to_stop();
            let who = worker.link.who;
            self.tally.stopped += 1;
            self.trace().note(who, "is stopped", 0, String::new);
        }
    }

    /// A worker came to its end by itself.
    pub(super) fn end(&mut self, ended: Ended) {
        let Ended { who, stopped } = ended;
        let is_meant = |worker: &mut WorkerProcess| worker.link.who == who;
        let Some(worker) = self.workers[who.slot].take_if(is_meant) else {
            return;
        };
        self.trace()
            .note(who, "ends", u64::from(stopped.clean), || {
                let clean = if stopped.clean { "clean" } else { "not clean" };
                format!("{clean}, {} handed back", stopped.handed_back)
            });
        worker.link.die();
        let took = worker
            .stop_asked_at
            .map_or(Duration::ZERO, |asked| asked.elapsed());
        let mut wrong = Vec::new();
        if worker.stop_asked_at.is_none() {
            wrong.push(format!("{who} ended without being asked"));
        }
        if took > self.plan.work.drain_deadline + STOP_MARGIN {
            let deadline = self.plan.work.drain_deadline;
            wrong.push(format!(
                "the stop of {who} took {took:?} with a deadline of {deadline:?}"
            ));
        }
        let id = self.store.records().latest_of(&who.to_string());
        let snapshot = self.memory.snapshot();
        let left = snapshot
            .claims
            .iter()
            .filter(|claim| Some(claim.worker) == id);
        let left = left.count();
        if stopped.clean && left > 0 {
            wrong.push(format!("{who} stopped clean and left {left} claims"));
        }
        self.ledger.entries().wrong.extend(wrong);
        let delay = self.restart_delay();
        if !self.is_over {
            self.plan_in(delay, Action::StartWorker(who.slot));
        }
    }
}
