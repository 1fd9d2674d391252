//! What is done to services and processes, and when. The seed decides all of it; what comes of it, it does not.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::chance::Chance;
use crate::clock;
use crate::failure::Failure;
use crate::fleet::{SERVERS, Slot, WORKERS};
use crate::history::{Part, Rubbish};
use crate::log::say;
use crate::plant::{GIVE_UP, PLANTS, in_small_tables, plant};
use crate::proxy::Passage;
use crate::services::Service;
use crate::topics::{Gone, INPUT, Janitor, Stranger};
use crate::world::World;

/// A service that something is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Postgres,
    Redis,
    Kafka,
}

impl Target {
    const fn part(self) -> Part {
        match self {
            Self::Postgres => Part::Database,
            Self::Redis => Part::Cache,
            Self::Kafka => Part::Log,
        }
    }
}

/// What happens to the connections of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// All are cut, once and a few times again.
    Cut,
    /// Everything takes longer.
    Slow(Duration),
    /// Nothing arrives.
    Silent,
    /// None can be made.
    Shut,
}

/// One thing that the nemesis does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    KillWorker {
        index: usize,
        down: Duration,
    },
    PauseWorker {
        index: usize,
        time: Duration,
    },
    CutOffWorker {
        index: usize,
        time: Duration,
    },
    KillServer {
        index: usize,
        down: Duration,
    },
    PauseServer {
        index: usize,
        time: Duration,
    },
    Kill {
        target: Target,
        down: Duration,
    },
    WipeCache,
    /// All records of `tasks-input` are deleted, again and again.
    WipeInput {
        time: Duration,
    },
    /// `tasks-input` is deleted and made again.
    RemakeInput,
    Disturb {
        target: Target,
        way: Way,
        time: Duration,
    },
    RestartServers,
    RestartWorkers,
    TakeAway {
        time: Duration,
    },
    Strangers {
        seed: u64,
    },
    Plant {
        seed: u64,
    },
}

/// How many kinds there are.
pub(crate) const KINDS: usize = 29;

pub(crate) const STRANGERS: &str = "messages of strangers";
pub(crate) const INPUT_WIPED: &str = "tasks-input wiped";
pub(crate) const INPUT_REMADE: &str = "tasks-input made anew";

/// Longer than the lease of a worker, 5 s, and the watch of the others.
const PAST_LEASE: (u64, u64) = (8_000, 14_000);

impl Fault {
    /// The fault of this kind, its particulars drawn.
    fn draw(kind: usize, longest: Duration, chance: &Chance) -> Self {
        let worker = chance.index(WORKERS);
        let server = chance.index(SERVERS);
        let most = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        let time = chance.millis(1_500, most);
        let long = chance.millis(PAST_LEASE.0, PAST_LEASE.1);
        let way = |kind| match kind {
            0 => Way::Cut,
            1 => Way::Slow(chance.millis(20, 250)),
            2 => Way::Silent,
            _ => Way::Shut,
        };
        let disturb = |target, kind| Self::Disturb {
            target,
            way: way(kind),
            time,
        };
        match kind {
            0 => Self::KillWorker {
                index: worker,
                down: time,
            },
            1 => Self::PauseWorker {
                index: worker,
                time: chance.millis(1_000, 3_500),
            },
            2 => Self::PauseWorker {
                index: worker,
                time: long,
            },
            3 => Self::CutOffWorker {
                index: worker,
                time: long,
            },
            4 => Self::KillServer {
                index: server,
                down: time,
            },
            5 => Self::PauseServer {
                index: server,
                time,
            },
            6 => Self::Kill {
                target: Target::Postgres,
                down: time,
            },
            7 => Self::Kill {
                target: Target::Redis,
                down: time,
            },
            8 => Self::Kill {
                target: Target::Kafka,
                down: time,
            },
            9 => Self::WipeCache,
            10..14 => disturb(Target::Postgres, kind - 10),
            14..18 => disturb(Target::Redis, kind - 14),
            18..22 => disturb(Target::Kafka, kind - 18),
            22 => Self::RestartServers,
            23 => Self::RestartWorkers,
            24 => Self::TakeAway { time },
            25 => Self::Strangers {
                seed: chance.below(u64::MAX),
            },
            26 => Self::WipeInput { time },
            27 => Self::RemakeInput,
            _ => Self::Plant {
                seed: chance.below(50_000_000) * PLANTS.len() as u64,
            },
        }
    }

    const fn part(self) -> Part {
        match self {
            Self::KillWorker { .. }
            | Self::PauseWorker { .. }
            | Self::CutOffWorker { .. }
            | Self::RestartWorkers => Part::Workers,
            Self::KillServer { .. } | Self::PauseServer { .. } | Self::RestartServers => {
                Part::Servers
            }
            Self::Kill { target, .. } | Self::Disturb { target, .. } => target.part(),
            Self::WipeCache => Part::Cache,
            Self::TakeAway { .. } => Part::Functions,
            Self::Strangers { .. } | Self::WipeInput { .. } | Self::RemakeInput => Part::Log,
            Self::Plant { .. } => Part::Books,
        }
    }

    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::KillWorker { .. } => "worker killed",
            Self::PauseWorker { .. } => "worker stopped",
            Self::CutOffWorker { .. } => "worker cut off from the database",
            Self::KillServer { .. } => "server killed",
            Self::PauseServer { .. } => "server stopped",
            Self::Kill { target, .. } => match target {
                Target::Postgres => "PostgreSQL killed",
                Target::Redis => "Redis killed",
                Target::Kafka => "Kafka killed",
            },
            Self::WipeCache => "Redis wiped",
            Self::WipeInput { .. } => INPUT_WIPED,
            Self::RemakeInput => INPUT_REMADE,
            Self::Disturb { target, way, .. } => match (target, way) {
                (Target::Postgres, Way::Cut) => "PostgreSQL's connections cut",
                (Target::Postgres, Way::Slow(_)) => "PostgreSQL's connections slow",
                (Target::Postgres, Way::Silent) => "PostgreSQL silent",
                (Target::Postgres, Way::Shut) => "PostgreSQL refusing",
                (Target::Redis, Way::Cut) => "Redis's connections cut",
                (Target::Redis, Way::Slow(_)) => "Redis's connections slow",
                (Target::Redis, Way::Silent) => "Redis silent",
                (Target::Redis, Way::Shut) => "Redis refusing",
                (Target::Kafka, Way::Cut) => "Kafka's connections cut",
                (Target::Kafka, Way::Slow(_)) => "Kafka's connections slow",
                (Target::Kafka, Way::Silent) => "Kafka silent",
                (Target::Kafka, Way::Shut) => "Kafka refusing",
            },
            Self::RestartServers => "servers restarted in turn",
            Self::RestartWorkers => "workers restarted in turn",
            Self::TakeAway { .. } => "what functions need taken away",
            Self::Strangers { .. } => STRANGERS,
            Self::Plant { .. } => "contradictions planted",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.kind())?;
        match self {
            Self::KillWorker { index, down } | Self::KillServer { index, down } => {
                write!(formatter, " (number {index}, {down:?})")
            }
            Self::PauseWorker { index, time }
            | Self::CutOffWorker { index, time }
            | Self::PauseServer { index, time } => {
                write!(formatter, " (number {index}, {time:?})")
            }
            Self::Kill { down, .. } => write!(formatter, " ({down:?})"),
            Self::Disturb {
                way: Way::Slow(by),
                time,
                ..
            } => write!(formatter, " (by {by:?}, {time:?})"),
            Self::Disturb { time, .. } | Self::TakeAway { time } | Self::WipeInput { time } => {
                write!(formatter, " ({time:?})")
            }
            Self::WipeCache
            | Self::RemakeInput
            | Self::RestartServers
            | Self::RestartWorkers
            | Self::Strangers { .. }
            | Self::Plant { .. } => Ok(()),
        }
    }
}

/// The faults of the halves of a run, with their times from the beginning of their half. Every kind comes in each half if it is
/// long enough for that; in shorter ones what the first half leaves out comes in the second. In halves that are longer still
/// every kind comes again.
pub(crate) fn schedule(seed: u64, half: Duration, halves: usize) -> Vec<Vec<(Duration, Fault)>> {
    /// Closer together nothing would be told apart.
    const CLOSEST: Duration = Duration::from_millis(2_700);
    /// Far enough apart that most faults are over when the next begins.
    const APART: Duration = Duration::from_secs(16);
    let chance = Chance::new(seed);
    let most = usize::try_from(half.as_millis() / CLOSEST.as_millis()).unwrap_or(1);
    let rounds = usize::try_from(half.as_millis() / (APART.as_millis() * KINDS as u128));
    let count = (rounds.unwrap_or(1).max(1) * KINDS).min(most.max(1));
    let every = half / u32::try_from(count).unwrap_or(1);
    let longest = (every / 2).clamp(Duration::from_secs(3), Duration::from_secs(8));
    let mut kinds = Vec::new();
    let mut all = Vec::new();
    for _ in 0..halves {
        if most >= KINDS {
            kinds.clear();
        }
        let faults = (0..count).map(|number| {
            if kinds.is_empty() {
                kinds.extend(0..KINDS);
                chance.shuffle(&mut kinds);
            }
            let kind = kinds.pop().unwrap_or(0);
            let at = every * u32::try_from(number).unwrap_or(0);
            (at, Fault::draw(kind, longest, &chance))
        });
        all.push(faults.collect());
    }
    all
}

/// Lives through a half, and waits until every fault in it is over.
pub(crate) async fn rage(
    world: &Arc<World>,
    faults: &[(Duration, Fault)],
    half: Duration,
) -> Result<(), Failure> {
    let start = Instant::now();
    let mut acts: JoinSet<Result<(), Failure>> = JoinSet::new();
    for (at, fault) in faults {
        sleep_until(start + *at).await;
        say(&fault.to_string());
        let (world, fault) = (Arc::clone(world), *fault);
        acts.spawn(async move { act(&world, fault).await });
    }
    sleep_until(start + half).await;
    while let Some(act) = acts.join_next().await {
        act??;
    }
    Ok(())
}

/// Kills a worker while nothing else is wrong, and leaves everything alone until its tasks must be running elsewhere.
pub(crate) async fn die_alone(world: &World, number: usize) -> Result<(), Failure> {
    /// Until nothing is felt any more of the faults before.
    const SETTLE: Duration = Duration::from_secs(3);
    /// Longer than a rescue may take, so that one that takes too long is measured and not spoilt by what comes next.
    const LIMIT: Duration = Duration::from_secs(20);
    /// What was taken back is claimed.
    const CLAIMED: Duration = Duration::from_secs(1);
    sleep(SETTLE).await;
    let index = number % WORKERS;
    let worker = world.workers[index].take().await;
    let name = worker.process.as_ref().map(|process| process.name.clone());
    drop(worker);
    let fault = Fault::KillWorker {
        index,
        down: Duration::from_secs(2),
    };
    say(&format!("nothing else: {fault}"));
    let killed = Instant::now();
    act(world, fault).await?;
    let database = world.database().await?;
    let left = format!(
        "SELECT count(*) FROM workers WHERE name = '{}'",
        name.unwrap_or_default()
    );
    while database.one::<i64>(&left).await? > 0 && killed.elapsed() < LIMIT {
        sleep(Duration::from_millis(250)).await;
    }
    database.close().await?;
    sleep(CLAIMED).await;
    Ok(())
}

/// Does one thing, and undoes it.
pub(crate) async fn act(world: &World, fault: Fault) -> Result<(), Failure> {
    let from = clock::now();
    match fault {
        Fault::KillWorker { index, down } => kill(world, &world.workers[index], down).await?,
        Fault::KillServer { index, down } => kill(world, &world.servers[index], down).await?,
        Fault::PauseWorker { index, time } => pause(world, &world.workers[index], time).await,
        Fault::PauseServer { index, time } => pause(world, &world.servers[index], time).await,
        Fault::CutOffWorker { index, time } => {
            let worker = &world.workers[index];
            let body = worker.take().await;
            if let Some(process) = &body.process {
                worker.database.set(Passage::Silent);
                world.history.died(&process.name, clock::now(), "cut off");
                sleep(time).await;
                worker.database.set(Passage::Open);
            }
        }
        Fault::Kill { target, down } => service(world, target).crash(down).await?,
        Fault::WipeCache => {
            // It may be away just now; then it is wiped as well.
            if let Ok(mut redis) = crate::redis::Redis::connect(world.redis.port).await {
                redis.flush_all().await.ok();
            }
        }
        Fault::WipeInput { time } => wipe_input(world, time).await?,
        Fault::RemakeInput => remake_input(world).await?,
        Fault::Disturb { target, way, time } => disturb(service(world, target), way, time).await,
        Fault::RestartServers => restart(world, &world.servers).await?,
        Fault::RestartWorkers => restart(world, &world.workers).await?,
        Fault::TakeAway { time } => {
            let sign = world.workshop.outage();
            std::fs::write(&sign, "")?;
            sleep(time).await;
            std::fs::remove_file(&sign)?;
        }
        Fault::Strangers { seed } => interfere(world, seed).await?,
        Fault::Plant { seed } => contradict(world, seed).await?,
    }
    world.history.over(fault.kind(), fault.part(), from);
    Ok(())
}

fn service(world: &World, target: Target) -> &Service {
    match target {
        Target::Postgres => &world.postgres,
        Target::Redis => &world.redis,
        Target::Kafka => world.kafka(),
    }
}

async fn kill(world: &World, slot: &Slot, down: Duration) -> Result<(), Failure> {
    let mut body = slot.take().await;
    if let Some(process) = &body.process {
        world.history.died(&process.name, clock::now(), "killed");
    }
    slot.kill(&mut body).await;
    sleep(down).await;
    slot.start(&mut body, &world.workshop)?;
    world.must_be_ready(slot).await;
    Ok(())
}

async fn pause(world: &World, slot: &Slot, time: Duration) {
    let body = slot.take().await;
    if let Some(process) = &body.process {
        world.history.died(&process.name, clock::now(), "stopped");
        process.pause().await;
        sleep(time).await;
        process.go_on().await;
    }
}

async fn disturb(service: &Service, way: Way, time: Duration) {
    let passage = match way {
        Way::Cut => {
            let start = Instant::now();
            while start.elapsed() < time {
                for door in &service.doors {
                    door.cut();
                }
                sleep(Duration::from_secs(1)).await;
            }
            return;
        }
        Way::Slow(by) => Passage::Slow(by),
        Way::Silent => Passage::Silent,
        Way::Shut => Passage::Shut,
    };
    service.set_doors(passage);
    sleep(time).await;
    service.set_doors(Passage::Open);
}

/// One after the other: asked to stop, ended, started, ready.
async fn restart(world: &World, slots: &[Arc<Slot>]) -> Result<(), Failure> {
    for slot in slots {
        let mut body = slot.take().await;
        slot.stop(&mut body, &world.history).await;
        slot.start(&mut body, &world.workshop)?;
        world.must_be_ready(slot).await;
    }
    Ok(())
}

/// Deletes what is in `tasks-input`, once and a few times again.
async fn wipe_input(world: &World, time: Duration) -> Result<(), Failure> {
    const PAUSE: Duration = Duration::from_millis(250);
    let janitor = Janitor::at(world.kafka().port)?;
    let start = Instant::now();
    while start.elapsed() < time {
        // It may be away just now; then the records stay.
        if let Ok(mut gone) = janitor.unread(false).await {
            let wiped = janitor.wipe(&mut gone).await;
            took(world, gone);
            if let Err(error) = wiped {
                say(&format!("the log keeps its records: {error}"));
            }
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Deletes `tasks-input`, and makes it again a moment later.
async fn remake_input(world: &World) -> Result<(), Failure> {
    const AWAY: Duration = Duration::from_secs(1);
    /// As long as a broker may be away.
    const PATIENCE: Duration = Duration::from_secs(120);
    let janitor = Janitor::at(world.kafka().port)?;
    // It may be away just now; then the topic stays.
    let Ok(gone) = janitor.unread(true).await else {
        say("the log keeps its topic");
        return Ok(());
    };
    let partitions = gone.len();
    let deleted = janitor.delete().await;
    // What was not answered may have been done.
    took(world, gone);
    if let Err(error) = deleted {
        say(&format!("the log may keep its topic: {error}"));
    }
    sleep(AWAY).await;
    let start = Instant::now();
    while let Err(error) = janitor.make(partitions).await {
        if start.elapsed() > PATIENCE {
            return Err(error);
        }
        sleep(AWAY).await;
    }
    Ok(())
}

/// Notes what was just taken out of the log.
fn took(world: &World, mut gone: Vec<Gone>) {
    for gone in &mut gone {
        gone.at = clock::now();
    }
    world.history.took(gone);
}

/// Records that cannot be read, that name no task, and that name one again.
async fn interfere(world: &World, seed: u64) -> Result<(), Failure> {
    const EACH: u64 = 30;
    let chance = Chance::new(seed);
    let kafka = world.kafka();
    let stranger = Stranger::at(kafka.doors[0].port)?;
    for number in 0..EACH {
        let rubbish = format!("{{\"rubbish\": {seed}.{number}");
        if let Some(place) = stranger.send(INPUT, "stranger", &rubbish).await {
            world.history.sent_rubbish(Rubbish {
                value: rubbish,
                port: kafka.port,
                confirmed_at: clock::now(),
                place,
            });
        }
        let unknown = uuid::Uuid::from_u64_pair(seed, number);
        let of_nobody = format!("{{\"taskId\":\"{unknown}\",\"payload\":\"x\",\"priority\":1}}");
        stranger.send(INPUT, &unknown.to_string(), &of_nobody).await;
        if let Some((id, script)) = world.ledger.accepted(chance.index(world.ledger.len())) {
            // The stored payload is processed, never the message's.
            let again =
                format!("{{\"taskId\":\"{id}\",\"payload\":\"{script} again\",\"priority\":1}}");
            stranger.send(INPUT, &id.to_string(), &again).await;
        }
    }
    Ok(())
}

/// Plants in the books what the audit finds without walking over every task, and waits until it is repaired.
async fn contradict(world: &World, seed: u64) -> Result<(), Failure> {
    let plants = in_small_tables();
    let planted = async {
        let database = world.database().await?;
        let at = clock::now();
        let took = plant(&database, &plants, seed).await?;
        database.close().await?;
        Ok::<_, Failure>((at, took))
    };
    // It may be away just now; then nothing is planted.
    let Ok((at, took)) = planted.await else {
        say("nothing could be planted");
        return Ok(());
    };
    for (plant, took) in plants.iter().zip(took) {
        match took {
            Some(took) => world.history.repaired(at, i64::try_from(took.as_micros())?),
            None => world
                .history
                .surprise(format!("{} is not repaired after {GIVE_UP:?}", plant.name)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn kinds(faults: &[(Duration, Fault)]) -> BTreeSet<&'static str> {
        faults.iter().map(|(_, fault)| fault.kind()).collect()
    }

    #[test]
    fn a_seed_is_a_schedule() {
        let half = Duration::from_secs(900);
        assert_eq!(schedule(7, half, 2), schedule(7, half, 2));
        assert_ne!(schedule(7, half, 2), schedule(8, half, 2));
    }

    #[test]
    fn a_long_half_has_every_kind_twice() {
        for faults in schedule(1, Duration::from_secs(930), 2) {
            assert_eq!(faults.len(), 2 * KINDS);
            assert!(faults.is_sorted_by_key(|(at, _)| *at));
            // A worker is stopped briefly, and past its lease.
            assert_eq!(kinds(&faults).len(), KINDS - 1);
        }
    }

    #[test]
    fn the_halves_of_a_short_run_complete_each_other() {
        // Of two minutes.
        let halves = schedule(3, Duration::from_secs(41), 2);
        let all: BTreeSet<_> = halves.iter().flat_map(|faults| kinds(faults)).collect();
        assert_eq!(all.len(), KINDS - 1, "{all:?}");
    }
}
