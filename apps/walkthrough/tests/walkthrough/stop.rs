//! Being asked to stop, at good times and at bad ones.

use std::time::{Duration, Instant};

use crate::clients::{curl, post};
use crate::programs::{End, Program, directory, free_port};
use crate::proxy::{Proxy, host_of};
use crate::world::{Kafka, World};
use crate::{SERVER, WORKER, eventually};

/// How much later than promised a process may end on a machine that is busy with other tests.
const SLACK: Duration = Duration::from_secs(3);

/// The end of a program that was asked to stop, and how long that took.
fn stop(program: Program) -> (End, Duration) {
    let asked = Instant::now();
    let end = program.stop();
    (end, asked.elapsed())
}

#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn a_stop_serves_on_with_readiness_red_and_ends_well() {
    let world = World::new("stop", Kafka::Four, "rdkafka");
    world.migrate();
    let slowly: &[(&str, &str)] = &[("DRAIN_DELAY", "3s")];
    let mut server = world.server_with(slowly);
    let mut worker = world.worker(slowly);
    let asked = Instant::now();
    for (program, api) in [(&server, true), (&worker, false)] {
        program.signal("TERM");
        let red = eventually("readiness is red", || {
            Some(curl(&format!("{}/health/ready", program.url), &[]))
                .filter(|answer| answer.status == 503)
        });
        assert_eq!(red.json()["detail"], "the service is stopping");
        let alive = curl(&format!("{}/health/live", program.url), &[]);
        assert_eq!(alive.status, 200);
        assert_eq!(alive.header("connection"), Some("close"));
        if api {
            let accepted = post(&format!("{}/tasks", program.url), r#"{"payload":"late"}"#);
            assert_eq!(accepted.status, 201, "{accepted:?}");
            assert_eq!(accepted.header("connection"), Some("close"));
        }
    }
    // The worker takes on while its own delay lasts, so the late task is done by nobody else.
    for program in [&mut server, &mut worker] {
        let end = program.ended();
        assert_eq!(end.code, Some(0), "{}", end.log);
    }
    assert!(asked.elapsed() >= Duration::from_secs(3));
    assert!(asked.elapsed() < Duration::from_secs(10) + SLACK);
    assert_eq!(world.sql("SELECT status FROM tasks"), "done");
    assert_eq!(
        world.sql("SELECT count(*) FROM workers"),
        "0",
        "it has left"
    );
}

#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn a_second_signal_ends_it_at_once() {
    let world = World::new("stop_twice", Kafka::Four, "rdkafka");
    world.migrate();
    let slowly: &[(&str, &str)] = &[("DRAIN_DELAY", "2m")];
    for mut program in [world.server_with(slowly), world.worker(slowly)] {
        program.signal("TERM");
        eventually("readiness is red", || {
            let answer = curl(&format!("{}/health/ready", program.url), &[]);
            (answer.status == 503).then_some(())
        });
        let asked = Instant::now();
        program.signal("INT");
        let end = program.ended();
        assert_eq!(end.code, Some(130), "{}", end.log);
        assert!(asked.elapsed() < SLACK, "{:?}", asked.elapsed());
    }
}

/// Whichever of its dependencies a program waits for at the start, and however silent that is.
#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn a_stop_during_the_start_ends_it_at_once() {
    let world = World::new("stop_start", Kafka::Four, "rdkafka");
    let silent = Proxy::before_nothing();
    let database = silent.in_place_of_host(&world.database);
    let brokers = format!("127.0.0.1:{}", silent.port);
    let redis = format!("redis://127.0.0.1:{}", silent.port);
    // The last waits for a schema that nobody makes.
    let waits: [&[(&str, &str)]; 4] = [
        &[("DATABASE_URL", &database)],
        &[("KAFKA_BROKERS", &brokers)],
        &[("REDIS_URL", &redis)],
        &[],
    ];
    for name in [SERVER, WORKER] {
        let starting: Vec<Program> = waits.iter().map(|wait| world.begin(name, wait)).collect();
        // Signals are listened to before anything is waited for; this is long enough to be in the middle of it.
        std::thread::sleep(Duration::from_secs(1));
        for program in starting {
            let (end, took) = stop(program);
            assert_eq!(end.code, Some(0), "{}", end.log);
            assert!(took < SLACK, "{took:?}: {}", end.log);
        }
    }
}

/// Nothing that a program uses can hold its end up by being silent.
#[test]
#[ignore = "needs PostgreSQL, and programs to start Redis and Kafka 4: run cargo xtask test"]
fn a_stop_ends_in_time_whatever_is_silent() {
    let home = directory(&format!("stop_silent-services-{}", std::process::id()));
    let (kafka_port, redis_port) = (free_port(), free_port());
    let kafka = Program::broker("4", kafka_port, &home);
    let cache = Program::redis(redis_port, &home);
    let world = World::on(
        "stop_silent",
        format!("127.0.0.1:{kafka_port}"),
        format!("redis://127.0.0.1:{redis_port}"),
        "rdkafka",
    );
    world.migrate();
    let proxy = Proxy::before(host_of(&world.database));
    let database = proxy.in_place_of_host(&world.database);
    let settings: &[(&str, &str)] = &[
        ("DATABASE_URL", &database),
        ("DRAIN_DELAY", "500ms"),
        ("DRAIN_DEADLINE", "5s"),
    ];
    let limit = Duration::from_millis(500) + Duration::from_secs(5) + SLACK;
    for silent in ["Redis", "Kafka", "PostgreSQL"] {
        let (server, worker) = (world.server_with(settings), world.worker(settings));
        let task = world.submit(&server, "before");
        world.done(&server, &task);
        match silent {
            "Redis" => cache.signal("STOP"),
            "Kafka" => kafka.signal("STOP"),
            _ => proxy.swallow(),
        }
        if silent != "PostgreSQL" {
            world.submit(&server, "on its way");
        }
        let asked = Instant::now();
        let mut programs = [server, worker];
        for program in &programs {
            program.signal("TERM");
        }
        for program in &mut programs {
            let end = program.ended();
            let took = asked.elapsed();
            assert_eq!(end.code, Some(0), "{silent}: {}", end.log);
            assert!(took < limit, "{silent}: {took:?}: {}", end.log);
        }
        match silent {
            "Redis" => cache.signal("CONT"),
            "Kafka" => kafka.signal("CONT"),
            _ => proxy.mend(),
        }
    }
    let (server, _worker) = (world.server(), world.worker(&[]));
    let task = world.submit(&server, "after");
    world.done(&server, &task);
    world.at_rest();
    let unfinished = "SELECT count(*) FROM tasks WHERE status <> 'done'";
    assert_eq!(world.sql(unfinished), "0");
}
