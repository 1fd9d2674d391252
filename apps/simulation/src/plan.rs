//! What a seed means: who takes part, what is done to them, and when.

use std::time::Duration;

use domain::{AuditConfig, PruneConfig, RetryPolicy, SubmitConfig, WorkerConfig};
use ports::Dependency;

use crate::chance::Chance;
use crate::script::Script;
use crate::sky::{Outage, Weather};

/// One submission to make.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) script: Script,
    /// `None` takes the default.
    pub(crate) max_attempts: Option<u32>,
    /// Not before this many milliseconds after the store's present.
    pub(crate) run_in: Option<u64>,
}

/// What a client may order about a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Cancel,
    Retry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClockOf {
    Store,
    Log,
    Server(usize),
    Worker(usize),
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    Submit {
        server: usize,
        wishes: Vec<Wish>,
        /// The request has this key.
        key: Option<usize>,
        /// The client hangs up after this many milliseconds.
        patience: u64,
    },
    /// What was first sent under this key is sent again.
    Repeat {
        server: usize,
        key: usize,
        patience: u64,
    },
    Order {
        server: usize,
        order: Order,
        choice: u64,
    },
    Read {
        server: usize,
        choice: u64,
    },
    Plant {
        scripts: Vec<Script>,
        messaged: bool,
    },
    /// A message for a task that may be anywhere in its life, or for none.
    Stray {
        choice: u64,
    },
    Rubbish,
    KillServer(usize),
    KillWorker(usize),
    StopServer(usize),
    StopWorker(usize),
    StartServer(usize),
    StartWorker(usize),
    ShutServer(usize, u64),
    ShutWorker(usize, u64),
    OpenServer(usize),
    OpenWorker(usize),
    Outage(Dependency, Outage, u64),
    EndOutage(Dependency),
    FunctionDown(u64),
    /// Other hands list a task as failed or cancelled, whatever it is, or take it out of that list.
    Misfile {
        choice: u64,
    },
    WipeCache,
    WipeTopic,
    /// The topic is deleted and made again: its offsets begin anew.
    RecreateTopic,
    Jump(ClockOf, i64),
}

/// How the log behaves while the probes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeLog {
    Up,
    Losing,
    Down,
}

/// A whole history in advance, as far as it does not depend on what the system does.
pub(crate) struct Plan {
    pub(crate) weather: Weather,
    pub(crate) sky_seed: u64,
    pub(crate) servers: usize,
    pub(crate) workers: usize,
    pub(crate) submit: SubmitConfig,
    pub(crate) work: WorkerConfig,
    /// Whether the only worker is an embedded one: it knows at its start that none lives, and takes everything back at once.
    pub(crate) is_embedded: bool,
    /// Whether hearts run beside their workers rather than inside.
    pub(crate) own_hearts: bool,
    pub(crate) long_run: Duration,
    pub(crate) partitions: u16,
    /// When the faults end, in milliseconds.
    pub(crate) span: u64,
    pub(crate) actions: Vec<(u64, Action)>,
    /// Offsets of the clocks of servers and workers, in microseconds.
    pub(crate) skews: Vec<i64>,
    /// The most processes that die of a port call.
    pub(crate) deaths: u64,
    pub(crate) probes: usize,
    pub(crate) probe_log: ProbeLog,
    /// Whether a worker is killed before the probes, if another is left; with the log down two of three or more, one after the
    /// other, after the probes.
    pub(crate) probe_death: bool,
    /// Whether the workers are stopped at the end.
    pub(crate) ends_with_stop: bool,
    /// Whether clients cancel tasks and have failed ones tried again.
    pub(crate) has_orders: bool,
    /// Whether the store lets nobody claim some of the tasks before all is quiet, as if a trigger of others forbade it.
    pub(crate) has_guards: bool,
    /// Whether the store now and then confirms an insert that it does not make: what no system survives, so that the
    /// checker must see it.
    pub(crate) store_lies: bool,
}

const SECOND: i64 = 1_000_000;

/// Longer than any history.
const NEVER: Duration = Duration::from_secs(1_000_000);

/// How long the pruning histories keep what is at rest. Longer than any request can be on its way: what is deployed keeps it for
/// at least 25 h for the same reason.
const RETENTION: Duration = Duration::from_secs(35);

/// How much longer the pruning histories are, in milliseconds.
const LONGER: u64 = 45_000;

/// How long a client waits for the answer to a request with a key, in milliseconds: some hang up at once.
const PATIENCE: [u64; 5] = [0, 3, 10_000, 10_000, 10_000];

/// What clients do beyond submitting and reading is drawn apart, so that the rest of a history does not depend on it.
const OF_ORDERS: u64 = 0x0bed_1e5c_e0fd_e515;

/// What other hands do to books and topic is drawn apart too.
const OF_HANDS: u64 = 0xb00c_5a11_d15c_0de5;

/// So are the limits of bytes.
const OF_BYTES: u64 = 0xb17e_5b17_e5b1_7e50;

/// So is what the store refuses.
const OF_GUARDS: u64 = 0x9a4d_0f9a_4d0f_9a4d;

/// A worker with this limit of bytes takes one task at a time.
const ONE_BYTE: usize = 1;

impl Plan {
    /// Whether the workers compare the tasks with the books about them.
    pub(crate) fn has_audit(&self) -> bool {
        self.work.audit.interval < NEVER
    }

    /// How many tasks a worker may run at once.
    pub(crate) fn places(&self) -> usize {
        match self.work.in_flight_bytes {
            ONE_BYTE => 1,
            _ => self.work.concurrency,
        }
    }

    /// Whether workers may have many tasks in hand that wait for the log.
    pub(crate) fn has_room(&self) -> bool {
        self.work.in_flight > 32 && has_ample_bytes(&self.work)
    }

    /// Whether functions find something down now and then. Their workers then take one task at a time, at growing
    /// intervals, until one of them succeeds, so nothing is promised of how soon the others follow.
    pub(crate) fn has_brakes(&self) -> bool {
        let is_down = |(_, action): &(u64, Action)| matches!(action, Action::FunctionDown(_));
        self.actions.iter().any(is_down)
    }

    pub(crate) fn draw(seed: u64) -> Self {
        let chance = Chance::new(seed);
        let servers = draw_count(&chance);
        let workers = draw_count(&chance);
        let span = chance.between(5_000, 30_000);
        let bytes = Chance::new(seed ^ OF_BYTES);
        let work = draw_work(&chance, &bytes);
        let mut plan = Self {
            weather: draw_weather(&chance),
            sky_seed: chance.seed(),
            servers,
            workers,
            submit: draw_submit(&chance, &bytes),
            is_embedded: false,
            own_hearts: chance.one_in(2),
            long_run: chance.millis(6_000, 40_000),
            partitions: *chance.pick(&[1, 2, 3, 6, 12]),
            span,
            actions: Vec::new(),
            skews: (0..servers + workers)
                .map(|_| *chance.pick(&[0, 0, 3_600 * SECOND, -86_400 * SECOND, 500_000]))
                .collect(),
            deaths: chance.below(8),
            probes: chance.index(6) + 1,
            probe_log: *chance.pick(&[ProbeLog::Up, ProbeLog::Losing, ProbeLog::Down]),
            // The others must have room for what it leaves.
            probe_death: workers > 1
                && work.concurrency > 4
                && has_ample_bytes(&work)
                && chance.one_in(3),
            ends_with_stop: chance.one_in(2),
            has_orders: false,
            has_guards: Chance::new(seed ^ OF_GUARDS).one_in(6),
            store_lies: false,
            work,
        };
        plan.draw_clients(&chance);
        plan.draw_rubbish(&chance);
        plan.draw_faults(&chance);
        plan.draw_orders(&Chance::new(seed ^ OF_ORDERS));
        plan.draw_hands(&Chance::new(seed ^ OF_HANDS));
        plan.actions.sort_by_key(|(at, _)| *at);
        plan.is_embedded = workers == 1 && chance.one_in(2);
        if plan.is_embedded {
            // Nothing that a process asked of a file is done after its death.
            plan.weather.late = 0;
        }
        plan
    }

    fn draw_clients(&mut self, chance: &Chance) {
        let tasks = chance.between(5, 60);
        let needy = chance.one_in(3);
        let is_bursty = chance.one_in(2);
        let mut asked = 0;
        while asked < tasks {
            let together = if chance.one_in(3) {
                chance.between(1, 8)
            } else {
                1
            };
            asked += together;
            let wishes = (0..together).map(|_| draw_wish(chance, needy)).collect();
            let until = if is_bursty { self.span / 8 } else { self.span };
            let submit = Action::Submit {
                server: chance.index(self.servers),
                wishes,
                key: None,
                patience: *chance.pick(&[0, 3, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000]),
            };
            self.actions.push((chance.below(until), submit));
        }
        for _ in 0..chance.below(30) {
            let read = Action::Read {
                server: chance.index(self.servers),
                choice: chance.seed(),
            };
            self.actions.push((chance.below(self.span), read));
        }
        for _ in 0..*chance.pick(&[0, 0, 1, 4]) {
            let scripts = (0..chance.between(1, 4))
                .map(|_| Script::draw(chance, false))
                .collect();
            let messaged = chance.below(4) > 0;
            let plant = Action::Plant { scripts, messaged };
            self.actions.push((chance.below(self.span), plant));
        }
    }

    fn draw_orders(&mut self, chance: &Chance) {
        if chance.one_in(6) {
            self.work.prune = PruneConfig {
                retention: Some(RETENTION),
                stretch: *chance.pick(&[3, 500]),
                ..PruneConfig::default()
            };
            self.span += LONGER;
        }
        if chance.one_in(2) {
            self.draw_keys(chance);
        }
        self.has_orders = chance.one_in(2);
        if self.has_orders {
            for _ in 0..chance.between(1, 20) {
                let order = Action::Order {
                    server: chance.index(self.servers),
                    order: *chance.pick(&[Order::Cancel, Order::Cancel, Order::Retry]),
                    choice: chance.seed(),
                };
                self.actions.push((chance.below(self.span), order));
            }
        }
    }

    fn draw_hands(&mut self, chance: &Chance) {
        if chance.one_in(3) {
            for _ in 0..chance.between(1, 8) {
                let choice = chance.seed();
                let at = chance.below(self.span);
                self.actions.push((at, Action::Misfile { choice }));
            }
        }
        if chance.one_in(6) {
            for _ in 0..chance.between(1, 2) {
                let at = chance.below(self.span);
                self.actions.push((at, Action::RecreateTopic));
            }
        }
    }

    /// Some requests have a key; they are repeated, at the same time or later, to any server, and some keys are used for
    /// something else.
    fn draw_keys(&mut self, chance: &Chance) {
        let mut sent = Vec::new();
        for (at, action) in &mut self.actions {
            if let Action::Submit { key, .. } = action
                && chance.one_in(3)
            {
                *key = Some(sent.len());
                sent.push(*at);
            }
        }
        for (key, first) in sent.into_iter().enumerate() {
            for _ in 0..chance.below(4) {
                let at = first + chance.below(*chance.pick(&[1, 20, 2_000, 15_000]));
                let server = chance.index(self.servers);
                let patience = *chance.pick(&PATIENCE);
                let again = if chance.one_in(4) {
                    let count = chance.between(1, 3);
                    Action::Submit {
                        server,
                        wishes: (0..count).map(|_| draw_wish(chance, false)).collect(),
                        key: Some(key),
                        patience,
                    }
                } else {
                    Action::Repeat {
                        server,
                        key,
                        patience,
                    }
                };
                self.actions.push((at, again));
            }
        }
    }

    fn draw_rubbish(&mut self, chance: &Chance) {
        for _ in 0..*chance.pick(&[0, 0, 2, 8]) {
            let at = chance.below(self.span);
            self.actions.push((at, Action::Rubbish));
        }
    }

    fn draw_faults(&mut self, chance: &Chance) {
        // A history has a few kinds of faults, and some of each.
        let kinds: Vec<u64> = (0..11).filter(|_| chance.one_in(3)).collect();
        if kinds.is_empty() {
            return;
        }
        for _ in 0..chance.below(30) {
            let at = chance.below(self.span);
            let action = self.draw_fault(chance, *chance.pick(&kinds));
            self.actions.push((at, action));
        }
    }

    fn draw_fault(&self, chance: &Chance, kind: u64) -> Action {
        let server = chance.index(self.servers);
        let worker = chance.index(self.workers);
        let outage = *chance.pick(&[Outage::Refusing, Outage::Silent]);
        match kind {
            0 => Action::KillWorker(worker),
            1 => Action::KillServer(server),
            2 => Action::StopWorker(worker),
            3 => Action::StopServer(server),
            // Two of them outlast the lease, and one of these leaves the worker its place in the group.
            4 => Action::ShutWorker(worker, *chance.pick(&[200, 3_000, 6_500, 15_000])),
            5 => Action::ShutServer(server, chance.between(100, 10_000)),
            6 => {
                // A long one now and then; most of them short, so that there is time for more.
                let lasts = *chance.pick(&[100, 1_000, 2_500, 6_000, 12_000, 60_000]);
                Action::Outage(Dependency::Store, outage, lasts)
            }
            7 => Action::Outage(Dependency::Log, outage, chance.between(100, 20_000)),
            8 => match chance.below(3) {
                0 => Action::Outage(Dependency::Cache, outage, chance.between(100, 20_000)),
                1 => Action::WipeCache,
                _ => Action::FunctionDown(chance.between(100, 8_000)),
            },
            9 => match chance.below(4) {
                0 => Action::WipeTopic,
                1 => Action::Rubbish,
                _ => Action::Stray {
                    choice: chance.seed(),
                },
            },
            _ => self.draw_jump(chance),
        }
    }

    fn draw_jump(&self, chance: &Chance) -> Action {
        let clock = match chance.below(4) {
            // The database's clock is stepped by little at most; the others are anybody's.
            0 => {
                let micros = *chance.pick(&[-2 * SECOND, -300_000, 700_000, 5 * SECOND]);
                return Action::Jump(ClockOf::Store, micros);
            }
            1 => ClockOf::Log,
            2 => ClockOf::Server(chance.index(self.servers)),
            _ => ClockOf::Worker(chance.index(self.workers)),
        };
        let micros = *chance.pick(&[-86_400 * SECOND, -3 * SECOND, 30 * SECOND, 3_600 * SECOND]);
        Action::Jump(clock, micros)
    }
}

/// Half of the histories do without the audit: nothing that the system itself does may need it.
fn draw_audit(chance: &Chance) -> AuditConfig {
    if chance.one_in(2) {
        return AuditConfig::default();
    }
    AuditConfig {
        interval: NEVER,
        ..AuditConfig::default()
    }
}

/// Whether a worker never has so much in hand that its bytes keep it from taking more.
fn has_ample_bytes(work: &WorkerConfig) -> bool {
    work.in_flight_bytes == WorkerConfig::default().in_flight_bytes
}

fn draw_count(chance: &Chance) -> usize {
    *chance.pick(&[1, 1, 2, 2, 3, 4])
}

fn draw_wish(chance: &Chance, needy: bool) -> Wish {
    let max_attempts = match chance.below(40) {
        0 => Some(u32::MAX),
        1 => Some(0),
        2..=10 => Some(u32::try_from(chance.between(1, 4)).unwrap_or(1)),
        _ => None,
    };
    Wish {
        script: Script::draw(chance, needy),
        max_attempts,
        run_in: chance
            .one_in(8)
            .then(|| *chance.pick(&[0, 300, 2_000, 9_000])),
    }
}

fn draw_weather(chance: &Chance) -> Weather {
    let rate = |choices: &[u64]| *chance.pick(choices);
    if chance.one_in(10) {
        return Weather::default();
    }
    Weather {
        slow: rate(&[0, 20, 200, 600]),
        refused: rate(&[0, 0, 20, 100, 300]),
        answer_lost: rate(&[0, 0, 20, 100, 300]),
        late: rate(&[0, 0, 0, 20, 100]),
        killed: rate(&[0, 0, 5, 30, 100]),
        message_lost: rate(&[0, 0, 500, 3_000]),
        message_repeated: rate(&[0, 0, 1_000, 5_000]),
        message_early: rate(&[0, 0, 2_000, 8_000]),
        shuffled: rate(&[0, 5_000]),
        cache_forgets: rate(&[0, 0, 2_000]),
    }
}

fn draw_submit(chance: &Chance, bytes: &Chance) -> SubmitConfig {
    let default = SubmitConfig::default();
    SubmitConfig {
        queue: *chance.pick(&[4, 64, 8_192]),
        batch: *chance.pick(&[1, 4, 512]),
        writers: *chance.pick(&[1, 2]),
        publish_queue: *chance.pick(&[1, 16, default.publish_queue]),
        publishers: *chance.pick(&[1, 4]),
        patience: *chance.pick(&[Duration::from_millis(500), Duration::from_secs(3)]),
        max_bytes: *bytes.pick(&[64, 4_096, default.max_bytes]),
        ..default
    }
}

fn draw_work(chance: &Chance, bytes: &Chance) -> WorkerConfig {
    let default = WorkerConfig::default();
    let concurrency = *chance.pick(&[1, 2, 4, 64, 64]);
    WorkerConfig {
        concurrency,
        in_flight: concurrency * *chance.pick(&[1, 2, 8]),
        in_flight_bytes: *bytes.pick(&[ONE_BYTE, 200, default.in_flight_bytes]),
        batch: *chance.pick(&[1, 3, 512, 512]),
        task_timeout: chance.millis(2_500, 6_000),
        max_result_bytes: 200,
        retry: RetryPolicy {
            base: Duration::from_millis(500),
            cap: Duration::from_secs(4),
        },
        max_rescues: *chance.pick(&[0, 1, 10, 10]),
        audit: draw_audit(chance),
        drain_deadline: *chance.pick(&[
            Duration::from_millis(500),
            Duration::from_secs(4),
            Duration::from_secs(25),
        ]),
        ..default
    }
}
