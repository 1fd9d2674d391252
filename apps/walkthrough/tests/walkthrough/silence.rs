//! Dependencies that fall silent: what is sent to them vanishes, and no connection is closed.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::clients::curl;
use crate::proxy::{Proxy, host_of};
use crate::world::{Kafka, World};

/// How long each silence lasts.
const SILENCE: Duration = Duration::from_secs(8);

#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn programs_live_through_a_silent_database() {
    let world = World::new("silent_database", Kafka::Four, "rdkafka");
    world.migrate();
    let proxy = Proxy::before(host_of(&world.database));
    let database = proxy.in_place_of_host(&world.database);
    let settings: &[(&str, &str)] = &[("DATABASE_URL", &database)];
    let (server, worker) = (world.server_with(settings), world.worker(settings));
    let before = world.submit(&server, "before");
    world.done(&server, &before);
    world.at_rest();

    proxy.swallow();
    sleep(SILENCE);
    for program in [&server, &worker] {
        assert_eq!(
            curl(&format!("{}/health/live", program.url), &[]).status,
            200
        );
        assert_eq!(
            curl(&format!("{}/health/ready", program.url), &[]).status,
            503
        );
    }
    proxy.mend();

    // A statement that went into the silence is waited for as long as any may take (30 s and a margin); then every
    // connection of the pool is given up, and the next one is fresh.
    let mended = Instant::now();
    let after = loop {
        let body = r#"{"payload":"after"}"#;
        let answer = crate::clients::post(&format!("{}/tasks", server.url), body);
        if answer.status == 201 {
            break crate::world::text(&answer.json()["id"]);
        }
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        assert!(
            mended.elapsed() < Duration::from_secs(60),
            "{}",
            server.log()
        );
    };
    println!("tasks are taken again after {:?}", mended.elapsed());
    world.done(&server, &after);
    println!("and done again after {:?}", mended.elapsed());
    let living = "SELECT count(*) FROM workers WHERE NOT dead";
    assert_eq!(world.sql(living), "1", "nobody else was there to bury it");
    let spent = "SELECT coalesce(sum(attempts), 0) FROM tasks WHERE status <> 'done'";
    assert_eq!(world.sql(spent), "0", "no attempt was spent");
    for program in [worker, server] {
        assert_eq!(program.stop().code, Some(0));
    }
}

#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn reads_are_quick_while_the_cache_is_silent() {
    let world = World::new("silent_cache", Kafka::Four, "rdkafka");
    world.migrate();
    let proxy = Proxy::before(host_of(&world.redis));
    let redis = proxy.in_place_of_host(&world.redis);
    // Nothing in the process itself, so that every read asks Redis.
    let settings: &[(&str, &str)] = &[("REDIS_URL", &redis), ("CACHE_BYTES", "0")];
    let server = world.server_with(settings);
    let worker = world.worker(&settings[..1]);
    let task = world.submit(&server, "read again and again");
    let body = world.done(&server, &task);

    proxy.swallow();
    let url = format!("{}/tasks/{task}", server.url);
    let silent = Instant::now();
    let mut reads = Vec::new();
    while silent.elapsed() < SILENCE {
        let asked = Instant::now();
        let answer = curl(&url, &[]);
        reads.push(asked.elapsed());
        assert_eq!((answer.status, &answer.body), (200, &body));
    }
    // Starting a client takes its time too, on a busy machine now and then a long one.
    reads.sort();
    let median = reads[reads.len() / 2];
    println!(
        "a read without Redis takes {median:?}, {} of them",
        reads.len()
    );
    assert!(median < Duration::from_secs(1), "{reads:?}");
    let during = world.submit(&server, "during");
    world.done(&server, &during);
    proxy.mend();
    let after = world.submit(&server, "after");
    let body = world.done(&server, &after);
    // What was not written while Redis was given up on is written when it is read.
    crate::eventually("the cache is used again", || {
        curl(&format!("{}/tasks/{after}", server.url), &[]);
        let key = format!("task:result:{after}");
        (crate::clients::redis(&world.redis, &["GET", &key]) == body).then_some(())
    });
    for program in [worker, server] {
        assert_eq!(program.stop().code, Some(0));
    }
}
