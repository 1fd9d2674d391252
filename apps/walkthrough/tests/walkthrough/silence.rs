//! Dependencies that fall silent: what is sent to them vanishes, and no connection is closed.

use std::sync::mpsc::channel;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::callee::{self, Call};
use crate::clients::curl;
use crate::patience::PATIENCE;
use crate::proxy::{Proxy, host_of};
use crate::world::{Kafka, World};

/// How long each silence lasts.
const SILENCE: Duration = Duration::from_secs(8);
/// After which everything works again. What was lost is missed after 2 s, and the rest is for busy processors.
const RECOVERY: Duration = Duration::from_secs(15);

#[test]
#[ignore = "needs PostgreSQL, Redis and Kafka 3.9: run cargo xtask test"]
fn programs_live_through_a_silent_database() {
    let world = World::new("silent_database", Kafka::Three, "rdkafka");
    world.migrate();
    let proxy = Proxy::before(host_of(&world.database));
    let database = proxy.in_place_of_host(&world.database);
    let (tell, calls) = channel();
    let url = callee::serve(move |call| drop(tell.send(call)));
    let next = || calls.recv_timeout(PATIENCE).expect("a task is run");
    let answer = |call: Call| call.answer("200 OK", "heard").expect("the worker reads");
    let server = world.server_with(&[("DATABASE_URL", &database)]);
    let settings: Vec<_> = callee::settings(&url)
        .into_iter()
        .chain([("DATABASE_URL", database.as_str())])
        .collect();
    // Each could bury the other.
    let workers = [world.worker(&settings), world.worker(&settings)];
    let living = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM workers WHERE NOT dead";
    let registered = world.sql(living);
    assert_eq!(registered.split(' ').count(), 2, "{registered}");
    // The function of some ends in the silence, of some after it, and of none before.
    let ids: Vec<String> = (0..10)
        .map(|number| world.submit(&server, &format!("in hand {number}")))
        .collect();
    let mut in_hand: Vec<Call> = ids.iter().map(|_| next()).collect();

    proxy.swallow();
    for call in in_hand.drain(..5) {
        answer(call);
    }
    sleep(SILENCE);
    for program in workers.iter().chain([&server]) {
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

    // A statement that went into the silence is missed after 2 s; then every connection of the pool is given up, and the
    // next one is fresh.
    let mended = Instant::now();
    let after = loop {
        let body = r#"{"payload":"after"}"#;
        let answer = crate::clients::post(&format!("{}/tasks", server.url), body);
        if answer.status == 201 {
            break crate::world::text(&answer.json()["id"]);
        }
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        assert!(mended.elapsed() < RECOVERY, "{}", server.log());
    };
    println!("tasks are taken again after {:?}", mended.elapsed());
    let call = next();
    assert_eq!(call.id, after, "nothing in hand was run a second time");
    println!("and run again after {:?}", mended.elapsed());
    assert!(mended.elapsed() < RECOVERY, "{}", workers[0].log());
    in_hand.push(call);
    in_hand.into_iter().for_each(answer);
    for id in ids.iter().chain([&after]) {
        world.done(&server, id);
    }
    world.at_rest();
    assert_eq!(
        world.sql("SELECT status, attempts, rescues, count(*) FROM tasks GROUP BY 1, 2, 3"),
        "done|1|0|11",
        "no attempt was spent, nothing taken back"
    );
    assert_eq!(world.sql(living), registered, "neither buried the other");
    for program in workers.into_iter().chain([server]) {
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
