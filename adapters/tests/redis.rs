//! The result cache on a real Redis: the suite, the contract's bytes, and what happens when the network fails.

#[path = "network/proxy.rs"]
mod proxy;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::{self, AsyncCommands as _, aio::MultiplexedConnection};
use ports::conformance::cache;
use ports::conformance::histories::{Range, caches_alike};
use ports::{NoObserver, ResultCache, TaskId, TaskResult, Timestamp};
use proxy::{Proxy, plain};
use task_processor_adapters::memory::Memory;
use task_processor_adapters::redis::{RedisOptions, RedisResultCache};
use task_processor_adapters::tiered::Tiered;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

ports::cache_conformance!(
    #[ignore = "needs Redis: run cargo xtask test"]
    redis_cache,
    InRedis::fresh().await
);

fn url() -> String {
    std::env::var("TEST_REDIS_URL")
        .expect("TEST_REDIS_URL names the Redis for tests: run cargo xtask test")
}

/// `host:port` of the Redis, for a proxy in front of it.
fn server() -> String {
    let url = url();
    let place = url.strip_prefix("redis://").expect("redis://host:port");
    let place = place.split('/').next().unwrap_or_default();
    place.to_owned()
}

async fn raw(url: &str) -> MultiplexedConnection {
    redis::Client::open(url)
        .expect("the URL is sound")
        .get_multiplexed_async_connection()
        .await
        .expect("Redis answers")
}

/// Patient enough for a busy machine; the cases below that look at time set their own.
fn options(url: &str) -> RedisOptions {
    RedisOptions {
        timeout: Duration::from_secs(5),
        ..RedisOptions::new(url)
    }
}

fn result(text: &str) -> TaskResult {
    TaskResult {
        id: TaskId(Uuid::now_v7()),
        result: text.into(),
        processed_at: Timestamp::from_micros(1_735_689_602_345_000),
    }
}

/// Redis, alone and behind a cache in memory, answers as the cache in memory does.
#[test]
#[ignore = "needs Redis: run cargo xtask test"]
fn redis_answers_as_memory_does_in_every_history() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    let range = Range::of_environment(200);
    let far = runtime.block_on(async {
        let cache = RedisResultCache::connect(&options(&url())).expect("the URL is sound");
        Arc::new(cache) as Arc<dyn ResultCache>
    });
    let in_memory = async || Memory::new().cache as Arc<dyn ResultCache>;
    caches_alike(&runtime, range, in_memory, async || Arc::clone(&far));
    caches_alike(&runtime, range, in_memory, async || {
        let near = Memory::new().cache;
        Arc::new(Tiered::new(near, Arc::clone(&far), Arc::new(NoObserver))) as Arc<dyn ResultCache>
    });
}

struct InRedis {
    cache: Arc<RedisResultCache>,
}

const TIME_TO_LIVE: Duration = Duration::from_secs(4);

impl InRedis {
    async fn fresh() -> Self {
        let cache = RedisResultCache::connect(&RedisOptions {
            time_to_live: TIME_TO_LIVE,
            ..options(&url())
        })
        .expect("the URL is sound");
        cache.ping().await.expect("Redis answers");
        Self {
            cache: Arc::new(cache),
        }
    }
}

#[async_trait]
impl cache::Subject for InRedis {
    fn cache(&self) -> Arc<dyn ResultCache> {
        self.cache.clone()
    }

    fn time_to_live(&self) -> Duration {
        TIME_TO_LIVE
    }

    async fn pass(&self, time: Duration) {
        sleep(time).await;
    }

    async fn plant_rubbish(&self, id: TaskId) {
        let () = raw(&url())
            .await
            .set(format!("task:result:{id}"), b"\xff\x00 rubbish")
            .await
            .expect("SET");
    }
}

#[tokio::test]
#[ignore = "needs Redis: run cargo xtask test"]
async fn keys_values_and_time_to_live_are_the_contracts() {
    let cache = RedisResultCache::connect(&options(&url())).expect("the URL is sound");
    let kept = result("!dlrow olleH (len=12)");
    cache.put(std::slice::from_ref(&kept)).await.expect("put");
    let mut redis = raw(&url()).await;
    let key = format!("task:result:{}", kept.id);
    let value: String = redis.get(&key).await.expect("GET");
    assert_eq!(
        value,
        format!(
            r#"{{"taskId":"{}","result":"!dlrow olleH (len=12)","processedAt":"2025-01-01T00:00:02.345Z"}}"#,
            kept.id
        )
    );
    let seconds: i64 = redis.ttl(&key).await.expect("TTL");
    assert!((3_590..=3_600).contains(&seconds), "{seconds}");
}

#[tokio::test]
#[ignore = "needs Redis: run cargo xtask test"]
async fn values_of_the_existing_service_are_read() {
    let cache = RedisResultCache::connect(&options(&url())).expect("the URL is sound");
    let theirs = result("é👍🏽");
    let value = format!(
        r#"{{ "processedAt": "2025-01-01T00:00:02.345Z", "result": "\u00e9👍🏽", "taskId": "{}", "extra": 1 }}"#,
        theirs.id
    );
    let () = raw(&url())
        .await
        .set_ex(format!("task:result:{}", theirs.id), value, 60)
        .await
        .expect("SET");
    assert_eq!(cache.get(&[theirs.id]).await.expect("get"), [Some(theirs)]);
}

#[tokio::test]
#[ignore = "needs Redis: run cargo xtask test"]
async fn anything_but_the_tasks_own_result_is_a_miss() {
    let cache = RedisResultCache::connect(&options(&url())).expect("the URL is sound");
    let mut redis = raw(&url()).await;
    let kept = [
        result("list"),
        result("other"),
        result("cut"),
        result("sound"),
    ];
    let ids = kept.clone().map(|result| result.id);
    let key = |id: TaskId| format!("task:result:{id}");
    let () = redis.rpush(key(ids[0]), "a list").await.expect("RPUSH");
    cache.put(&kept[1..]).await.expect("put");
    let () = redis::cmd("COPY")
        .arg(key(ids[3]))
        .arg(key(ids[1]))
        .arg("REPLACE")
        .query_async(&mut redis)
        .await
        .expect("COPY");
    let () = redis
        .set(key(ids[2]), format!(r#"{{"taskId":"{}""#, ids[2]))
        .await
        .expect("SET");
    assert_eq!(
        cache.get(&ids).await.expect("get"),
        [None, None, None, Some(kept[3].clone())]
    );
    // What is put stands there, whatever stood there before.
    cache.put(&kept).await.expect("put");
    assert_eq!(cache.get(&ids).await.expect("get"), kept.map(Some));
}

#[tokio::test]
#[ignore = "needs Redis: run cargo xtask test"]
async fn a_wiped_redis_knows_nothing_and_goes_on() {
    // A database of its own: wiping it hurts no other test.
    let url = format!("redis://{}/9", server());
    let cache = RedisResultCache::connect(&options(&url)).expect("the URL is sound");
    let kept = result("kept");
    cache.put(std::slice::from_ref(&kept)).await.expect("put");
    let () = redis::cmd("FLUSHDB")
        .query_async(&mut raw(&url).await)
        .await
        .expect("FLUSHDB");
    assert_eq!(cache.get(&[kept.id]).await.expect("get"), [None]);
    cache.put(std::slice::from_ref(&kept)).await.expect("put");
    assert_eq!(cache.get(&[kept.id]).await.expect("get"), [Some(kept)]);
}

#[tokio::test]
#[ignore = "needs Redis: run cargo xtask test"]
async fn a_redis_that_comes_up_later_is_found() {
    let proxy = Proxy::start(&server(), |_port| plain()).await;
    proxy.cut();
    let url = format!("redis://{}", proxy.address());
    let cache = RedisResultCache::connect(&RedisOptions {
        retry_after: Duration::from_millis(100),
        ..options(&url)
    })
    .expect("the URL is sound");
    cache.ping().await.expect_err("Redis is down");
    proxy.mend();
    recovered(&cache).await;
}

/// A Redis of the test's own. It ends with it.
struct OwnRedis {
    server: std::process::Child,
    socket: std::path::PathBuf,
}

impl OwnRedis {
    async fn start() -> Self {
        let socket = std::env::temp_dir().join(format!("redis-{}.sock", Uuid::now_v7()));
        let server = std::process::Command::new("redis-server")
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--maxmemory-policy",
                "noeviction",
            ])
            .arg("--unixsocket")
            .arg(&socket)
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let own = Self { server, socket };
        let client = redis::Client::open(own.url()).expect("the URL is sound");
        let started = Instant::now();
        while client.get_multiplexed_async_connection().await.is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "it never came up"
            );
            sleep(Duration::from_millis(20)).await;
        }
        own
    }

    fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// How often the command was given.
    async fn calls_of(&self, command: &str) -> u64 {
        let stats: String = redis::cmd("INFO")
            .arg("commandstats")
            .query_async(&mut raw(&self.url()).await)
            .await
            .expect("INFO commandstats");
        let start = format!("cmdstat_{command}:calls=");
        let calls = stats.lines().find_map(|line| line.strip_prefix(&start));
        let calls = calls.and_then(|rest| rest.split(',').next());
        calls.map_or(0, |calls| calls.parse().expect("a number"))
    }

    /// In bytes; 0 is as much as there is.
    async fn may_hold(&self, bytes: u64) {
        let () = redis::cmd("CONFIG")
            .arg(&["SET", "maxmemory", &bytes.to_string()])
            .query_async(&mut raw(&self.url()).await)
            .await
            .expect("CONFIG SET");
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
        std::fs::remove_file(&self.socket).ok();
    }
}

/// Full, and told to throw nothing away: what it has is read on without a pause, and it takes more as soon as there is room.
#[tokio::test]
#[ignore = "needs Redis: run cargo xtask test"]
async fn a_full_redis_answers_what_it_has_and_takes_more_when_there_is_room() {
    let own = OwnRedis::start().await;
    let cache = RedisResultCache::connect(&RedisOptions {
        retry_after: Duration::from_secs(3_600),
        ..options(&own.url())
    })
    .expect("the URL is sound");
    let (kept, late) = (result("kept"), result("late"));
    cache.put(std::slice::from_ref(&kept)).await.expect("put");
    own.may_hold(1).await;
    for _ in 0..20 {
        let put = cache.put(std::slice::from_ref(&late)).await;
        put.expect_err("there is no room");
        let found = cache.get(&[kept.id, late.id]).await.expect("get");
        assert_eq!(found, [Some(kept.clone()), None]);
    }
    own.may_hold(0).await;
    cache.put(std::slice::from_ref(&late)).await.expect("put");
    let found = cache.get(&[kept.id, late.id]).await.expect("get");
    assert_eq!(found, [Some(kept), Some(late)]);
}

/// Each has its own answer, and Redis is asked a few times.
#[tokio::test]
#[ignore = "needs Redis: run cargo xtask test"]
async fn lookups_that_come_together_travel_together() {
    let own = OwnRedis::start().await;
    let cache = RedisResultCache::connect(&options(&own.url())).expect("the URL is sound");
    let cache = Arc::new(cache);
    let results: Vec<TaskResult> = (0..600).map(|n| result(&format!("number {n}"))).collect();
    cache.put(&results).await.expect("put");
    let mut lookups = JoinSet::new();
    let unknown = result("never put");
    for result in results.iter().chain([&unknown]).cloned() {
        let cache = Arc::clone(&cache);
        lookups.spawn(async move {
            let found = cache.get(&[result.id]).await.expect("get");
            (found == [Some(result)]).then_some(())
        });
    }
    let found = lookups.join_all().await;
    assert_eq!(found.iter().flatten().count(), results.len());
    let asked = own.calls_of("mget").await;
    assert!((1..=4).contains(&asked), "{asked}");
}

/// Nobody's answer depends on another's patience.
#[tokio::test]
#[ignore = "needs Redis: run cargo xtask test"]
async fn who_hangs_up_takes_no_answer_along() {
    let proxy = Proxy::start(&server(), |_port| plain()).await;
    let url = format!("redis://{}", proxy.address());
    let cache = Arc::new(RedisResultCache::connect(&options(&url)).expect("the URL is sound"));
    let kept = result("kept");
    cache.put(std::slice::from_ref(&kept)).await.expect("put");
    proxy.freeze();
    let lookup = |cache: Arc<RedisResultCache>, id| async move { cache.get(&[id]).await };
    let mut patient = JoinSet::new();
    for turn in 0..40 {
        let asked = tokio::spawn(lookup(Arc::clone(&cache), kept.id));
        patient.spawn(lookup(Arc::clone(&cache), kept.id));
        tokio::task::yield_now().await;
        if turn % 2 == 0 {
            asked.abort();
        }
    }
    proxy.mend();
    for found in patient.join_all().await {
        assert_eq!(found.expect("get"), [Some(kept.clone())]);
    }
}

/// Who is asked for in a runtime that ends is asked for again from another.
#[test]
#[ignore = "needs Redis: run cargo xtask test"]
fn a_runtime_that_ends_leaves_nobody_waiting() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build();
        runtime.expect("a runtime starts")
    };
    let (first, second) = (runtime(), runtime());
    let proxy = second.block_on(Proxy::start(&server(), |_port| plain()));
    let url = format!("redis://{}", proxy.address());
    let cache = RedisResultCache::connect(&RedisOptions {
        retry_after: Duration::from_millis(100),
        ..options(&url)
    });
    let cache = Arc::new(cache.expect("the URL is sound"));
    second.block_on(recovered(&cache));
    proxy.freeze();
    let kept = result("kept");
    for _ in 0..4 {
        let cache = Arc::clone(&cache);
        first.spawn(async move { cache.get(&[kept.id]).await });
    }
    first.block_on(async { sleep(Duration::from_millis(50)).await });
    drop(first);
    proxy.mend();
    let took = second.block_on(recovered(&cache));
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// Waits until the cache works again; how long that takes.
async fn recovered(cache: &RedisResultCache) -> Duration {
    let started = Instant::now();
    let kept = result("kept");
    while cache.put(std::slice::from_ref(&kept)).await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(20), "never again");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(cache.get(&[kept.id]).await.expect("get"), [Some(kept)]);
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis: run cargo xtask test"]
async fn connections_cut_under_load_are_replaced() {
    let proxy = Proxy::start(&server(), |_port| plain()).await;
    let url = format!("redis://{}", proxy.address());
    let cache = Arc::new(
        RedisResultCache::connect(&RedisOptions {
            retry_after: Duration::from_millis(200),
            ..options(&url)
        })
        .expect("the URL is sound"),
    );
    let kept = result("kept");
    cache.put(std::slice::from_ref(&kept)).await.expect("put");
    let mut load = JoinSet::new();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    for _ in 0..50 {
        let (cache, kept, stop) = (Arc::clone(&cache), kept.clone(), Arc::clone(&stop));
        load.spawn(async move {
            let (mut found, mut failed) = (0_u32, 0_u32);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                match cache.get(&[kept.id]).await {
                    Ok(answer) => {
                        assert_eq!(answer, [Some(kept.clone())]);
                        found += 1;
                    }
                    Err(_) => {
                        failed += 1;
                        sleep(Duration::from_millis(1)).await;
                    }
                }
            }
            (found, failed)
        });
    }
    for _ in 0..5 {
        sleep(Duration::from_millis(100)).await;
        proxy.cut();
        sleep(Duration::from_millis(100)).await;
        proxy.mend();
        let took = recovered(&cache).await;
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let counts = load.join_all().await;
    assert!(
        counts
            .iter()
            .all(|(found, failed)| *found > 0 && *failed > 0),
        "{counts:?}"
    );
}

#[tokio::test]
#[ignore = "needs Redis: run cargo xtask test"]
async fn a_redis_that_does_not_answer_costs_one_timeout_and_no_more() {
    let proxy = Proxy::start(&server(), |_port| plain()).await;
    let url = format!("redis://{}", proxy.address());
    let cache = RedisResultCache::connect(&RedisOptions {
        timeout: Duration::from_millis(250),
        retry_after: Duration::from_secs(30),
        ..RedisOptions::new(url)
    })
    .expect("the URL is sound");
    recovered(&cache).await;
    proxy.freeze();
    let id = TaskId(Uuid::now_v7());
    let started = Instant::now();
    cache.get(&[id]).await.expect_err("no answer");
    let first = started.elapsed();
    assert!(
        first >= Duration::from_millis(200) && first < Duration::from_secs(2),
        "{first:?}"
    );
    let started = Instant::now();
    for _ in 0..1_000 {
        cache.get(&[id]).await.expect_err("not asked");
    }
    let others = started.elapsed();
    assert!(others < Duration::from_millis(250), "{others:?}");
}

#[tokio::test]
#[ignore = "needs Redis: run cargo xtask test"]
async fn a_redis_that_was_frozen_is_used_again() {
    let proxy = Proxy::start(&server(), |_port| plain()).await;
    let url = format!("redis://{}", proxy.address());
    let cache = RedisResultCache::connect(&RedisOptions {
        timeout: Duration::from_millis(250),
        retry_after: Duration::from_millis(100),
        ..RedisOptions::new(url)
    })
    .expect("the URL is sound");
    recovered(&cache).await;
    proxy.freeze();
    cache.ping().await.expect_err("no answer");
    proxy.mend();
    let took = recovered(&cache).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// A connection takes longer to make than a call may: the calls find out quickly, and the connection is there all the same.
#[tokio::test]
#[ignore = "needs Redis: run cargo xtask test"]
async fn a_connection_may_take_longer_than_a_call() {
    let proxy = Proxy::start(&server(), |_port| {
        Box::new(|bytes| {
            // As far away as that: each answer comes late.
            std::thread::sleep(Duration::from_millis(150));
            bytes
        })
    })
    .await;
    let url = format!("redis://{}", proxy.address());
    let cache = RedisResultCache::connect(&RedisOptions {
        timeout: Duration::from_millis(200),
        retry_after: Duration::from_millis(10),
        ..RedisOptions::new(url)
    })
    .expect("the URL is sound");
    cache.ping().await.expect_err("connecting takes longer");
    let took = recovered(&cache).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// How long what is sent is swallowed.
const HOLE: Duration = Duration::from_secs(8);

#[tokio::test]
#[ignore = "needs Redis: run cargo xtask test"]
async fn after_a_hole_of_eight_seconds_redis_is_used_again_within_seconds() {
    let proxy = Proxy::start(&server(), |_port| plain()).await;
    let url = format!("redis://{}", proxy.address());
    let cache = RedisResultCache::connect(&RedisOptions::new(url)).expect("the URL is sound");
    recovered(&cache).await;
    proxy.swallow();
    let end = Instant::now() + HOLE;
    while Instant::now() < end {
        cache.ping().await.expect_err("no answer");
        // A call that fails at once would otherwise let nothing else run.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.mend();
    let took = recovered(&cache).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_wrong_url_is_refused_at_once() {
    assert!(RedisResultCache::connect(&RedisOptions::new("localhost:6379")).is_err());
    assert!(RedisResultCache::connect(&RedisOptions::new("http://localhost")).is_err());
}
