//! Health and metrics: a part of the API, and all that a worker serves.

use std::sync::Arc;
use std::time::Duration;

use domain::ports::{Connections, Standing, Survey};
use domain::worker::Pace;
use domain::{Crowd, Ports, Reader};
use poem::http::HeaderMap;
use poem_openapi::OpenApi;

use super::{Tag, store_failed};
use crate::accept::MetricsFormat;
use crate::answer::{Json, Measured};
use crate::health::{Health, Live, Ready, Stopping};
use crate::meters::{write_counter, write_gauge, write_states};
use crate::problem::{Failures, Kind, Problem, Refused};
use crate::{Meters, Watched};

/// The routes that operators and Prometheus come for.
#[derive(Clone)]
pub(crate) struct Probes {
    shared: Arc<Shared>,
}

struct Shared {
    reader: Reader,
    ports: Ports,
    meters: Arc<Meters>,
    health: Health,
}

impl Probes {
    pub(crate) fn new(
        reader: Reader,
        ports: &Ports,
        watched: Watched,
        meters: Arc<Meters>,
        ping_timeout: Duration,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                reader,
                ports: ports.clone(),
                meters,
                health: Health::new(ports.clone(), watched, ping_timeout),
            }),
        }
    }

    /// Turns readiness red.
    pub(crate) fn stop(&self) {
        self.shared.health.stop();
    }

    pub(crate) fn stopping(&self) -> Stopping {
        self.shared.health.stopping()
    }

    /// The answer to `GET /metrics` in the form the client likes best.
    async fn measure(&self, headers: &HeaderMap) -> Result<Measured, Problem> {
        let Shared {
            reader,
            ports,
            meters,
            health,
        } = &*self.shared;
        let format = MetricsFormat::negotiate(headers);
        let numbers = reader
            .metrics()
            .await
            .map_err(|error| store_failed(ports, "totals", error));
        let mut text = match format {
            MetricsFormat::Json => return Ok(Measured::Numbers(numbers?)),
            MetricsFormat::Prometheus | MetricsFormat::OpenMetrics => String::new(),
        };
        if let Ok(numbers) = numbers {
            write_gauge(
                &mut text,
                "tasks_done",
                "Tasks that ever became done, by all workers.",
                numbers.total_tasks,
            );
            if let Some(mean) = numbers.average_processing_time_ms {
                write_gauge(
                    &mut text,
                    "task_mean_duration_seconds",
                    "Mean time from a task's creation until it was done, over all tasks that ever became done.",
                    mean as f64 / 1_000.0,
                );
            }
        }
        if let Some(survey) = health.survey().await {
            write_survey(&mut text, survey);
        }
        if let Some(alive) = health.workers_alive().await {
            write_gauge(
                &mut text,
                "workers_alive",
                "Workers that are registered and were not declared dead.",
                alive,
            );
        }
        if let Some(connections) = health.connections() {
            write_connections(&mut text, format, connections);
        }
        if let Some(crowd) = health.crowd() {
            write_crowd(&mut text, crowd);
        }
        if let Some(standing) = health.standing() {
            write_standing(&mut text, &standing);
        }
        if let Some(pace) = health.pace().await {
            let is_stalled = matches!(pace, Pace::Stalled { .. });
            write_gauge(
                &mut text,
                "worker_stalled",
                "1 while tasks wait and this worker has room and takes nothing, otherwise 0.",
                u8::from(is_stalled),
            );
        }
        text.push_str(&match format {
            MetricsFormat::OpenMetrics => meters.render_openmetrics(),
            _ => meters.render(),
        });
        Ok(Measured::Text(format, text))
    }
}

fn write_survey(text: &mut String, survey: Survey) {
    write_gauge(
        text,
        "queue_tasks",
        "Tasks that wait, those whose time has not come included: exact up to 10,000, beyond it an estimate.",
        survey.waiting,
    );
    write_gauge(
        text,
        "backlog_tasks",
        "Tasks that wait and might be claimed now: exact up to 10,000, beyond it an estimate.",
        survey.due,
    );
    write_gauge(
        text,
        "backlog_oldest_seconds",
        "For how long the first of them might have been claimed; 0 when there is none.",
        survey.oldest_due.unwrap_or_default().as_secs_f64(),
    );
    write_gauge(
        text,
        "claims",
        "Recorded claims, each of up to BATCH tasks; counted up to 10,000.",
        survey.claims,
    );
    write_gauge(
        text,
        "claims_oldest_seconds",
        "Age of the oldest recorded claim; 0 when there is none.",
        survey.oldest_claim.unwrap_or_default().as_secs_f64(),
    );
    write_gauge(
        text,
        "store_oldest_transaction_seconds",
        "Age of the oldest transaction that keeps vacuum from its work; 0 when there is none, and on SQLite.",
        survey.oldest_transaction.unwrap_or_default().as_secs_f64(),
    );
}

fn write_connections(text: &mut String, format: MetricsFormat, connections: Connections) {
    write_gauge(
        text,
        "store_connections_limit",
        "How many connections to the store this process may have.",
        connections.limit,
    );
    write_gauge(
        text,
        "store_connections_open",
        "How many it has.",
        connections.open,
    );
    write_gauge(
        text,
        "store_connections_idle",
        "Those of them that nobody uses.",
        connections.idle,
    );
    write_gauge(
        text,
        "store_connections_waiting",
        "Statements that wait for a connection.",
        connections.waiting,
    );
    write_counter(
        text,
        format,
        "store_connections_wait_seconds",
        "For how long statements have waited for a connection, all together.",
        connections.waited.as_secs_f64(),
    );
}

fn write_crowd(text: &mut String, crowd: Crowd) {
    write_gauge(
        text,
        "http_waiters",
        "Requests that wait for their task to come to rest.",
        crowd.waiters,
    );
    write_gauge(
        text,
        "http_waiters_limit",
        "How many requests may wait at once.",
        crowd.waiters_limit,
    );
    write_gauge(
        text,
        "http_streams",
        "Streams of events that are open.",
        crowd.streams,
    );
    write_gauge(
        text,
        "http_streams_limit",
        "How many streams of events may be open at once.",
        crowd.streams_limit,
    );
}

fn write_standing(text: &mut String, standing: &Standing) {
    let states = [
        ("caught_up", *standing == Standing::CaughtUp),
        ("behind", *standing == Standing::Behind),
        ("unassigned", *standing == Standing::Unassigned),
        ("down", *standing == Standing::Down),
        ("refused", matches!(standing, Standing::Refused(_))),
    ];
    write_states(
        text,
        "feed_standing",
        "1 for where this worker stands in the log, 0 for the others.",
        "standing",
        &states,
    );
}

pub(crate) struct MetricsFailures;

impl Failures for MetricsFailures {
    const OPERATION: &'static str = "readMetrics";
    const KINDS: &'static [Kind] = &[Kind::StoreUnavailable, Kind::Internal];
}

pub(crate) struct ReadyFailures;

impl Failures for ReadyFailures {
    const OPERATION: &'static str = "isReady";
    const KINDS: &'static [Kind] = &[Kind::NotReady];
}

#[OpenApi]
impl Probes {
    /// Read the metrics
    ///
    /// JSON by default: the number of tasks that became done and their mean time from creation to completion, exact at
    /// any table size. A client whose `Accept` prefers `text/plain` or `application/openmetrics-text`, as Prometheus
    /// does, gets the service's meters in that format instead; while the store is down these lack the two numbers.
    #[oai(
        path = "/metrics",
        method = "get",
        operation_id = "readMetrics",
        tag = "Tag::Metrics"
    )]
    async fn read_metrics(
        &self,
        headers: &HeaderMap,
    ) -> Result<Measured, Refused<MetricsFailures>> {
        Ok(self.measure(headers).await?)
    }

    /// Is the process alive?
    ///
    /// Asks no dependency.
    #[oai(
        path = "/health/live",
        method = "get",
        operation_id = "isLive",
        tag = "Tag::Health"
    )]
    async fn is_live(&self) -> Json<Live> {
        Json(Live { status: "up" })
    }

    /// Is the service ready for requests?
    ///
    /// Asks every dependency. Only the store is required; the log and the cache are reported. A worker that takes nothing while
    /// tasks wait is not ready, nor is one whose processing function says that something it needs is down. Not ready, too, from
    /// the moment the service is told to stop.
    #[oai(
        path = "/health/ready",
        method = "get",
        operation_id = "isReady",
        tag = "Tag::Health"
    )]
    async fn is_ready(&self) -> Result<Json<Ready>, Refused<ReadyFailures>> {
        Ok(Json(self.shared.health.ready().await?))
    }
}

#[cfg(test)]
mod tests {
    use adapters::memory::{Memory, TokioClock};
    use domain::{Events, EventsConfig};
    use poem::http::{Method, StatusCode};
    use poem::{Endpoint, Request};
    use ports::Standing;
    use ports::Totals;
    use ports::feed::MockTaskFeed;
    use ports::store::MockTaskStore;
    use ports::survey::{MockConnectionPool, MockTaskSurvey};
    use serde_json::Value;
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::front::Front;
    use crate::traffic::Metered;

    const PING: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_worker_answers_health_and_metrics_and_nothing_else() {
        let memory = Memory::new();
        let ports = memory.ports();
        let reader = Reader::new(&ports);
        let meters = Arc::new(Meters::new());
        let probes = Probes::new(reader, &ports, Watched::default(), meters, PING);
        let front = Front::new(probes.clone(), probes.stopping());
        let status = async |method: Method, path: &'static str| {
            let request = Request::builder().method(method).uri_str(path).finish();
            front.get_response(request).await.status()
        };
        for path in ["/health/live", "/health/ready", "/metrics"] {
            assert_eq!(status(Method::GET, path).await, StatusCode::OK, "{path}");
        }
        for path in ["/tasks/0194fdc2-fa2f-7cc0-81d3-ff1204e5b6ab", "/docs", "/"] {
            assert_eq!(
                status(Method::GET, path).await,
                StatusCode::NOT_FOUND,
                "{path}"
            );
        }
        assert_eq!(status(Method::POST, "/tasks").await, StatusCode::NOT_FOUND);
        probes.stop();
        let ready = status(Method::GET, "/health/ready").await;
        assert_eq!(ready, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(Method::GET, "/health/live").await, StatusCode::OK);
    }

    async fn readiness_with(standing: Standing) -> (StatusCode, Value) {
        let mut feed = MockTaskFeed::new();
        feed.expect_standing().return_const(standing);
        let ports = Memory::new().ports();
        let probes = Probes::new(
            Reader::new(&ports),
            &ports,
            Watched {
                feed: Some(Arc::new(feed)),
                ..Watched::default()
            },
            Arc::new(Meters::new()),
            PING,
        );
        let request = Request::builder().uri_str("/health/ready").finish();
        let response = Front::new(probes, Stopping::default())
            .get_response(request)
            .await;
        let status = response.status();
        let body = response.into_body().into_vec().await.expect("a body");
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    #[tokio::test]
    async fn a_worker_that_its_group_refuses_is_not_ready_and_says_why() {
        let refused = Standing::Refused("the group g has members of another kind".into());
        let (status, body) = readiness_with(refused).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["detail"], "the group g has members of another kind");
        assert_eq!(body["dependencies"]["log"]["status"], "down");
        assert_eq!(body["dependencies"]["store"]["status"], "up");
    }

    #[tokio::test]
    async fn a_worker_shows_whether_its_feed_reaches_the_log() {
        for (standing, log) in [
            (Standing::Down, "down"),
            (Standing::Unassigned, "up"),
            (Standing::CaughtUp, "up"),
            (Standing::Behind, "up"),
        ] {
            let (status, body) = readiness_with(standing.clone()).await;
            assert_eq!(status, StatusCode::OK, "{standing:?}");
            assert_eq!(body["dependencies"]["log"]["status"], log, "{standing:?}");
        }
    }

    /// A worker that never began to run: it has room and takes nothing.
    fn idle_worker(memory: &Memory) -> domain::Worker {
        domain::Worker::new(
            memory.ports(),
            Arc::new(memory.log.feed()),
            Arc::new(domain::processor_fn(|job| async move {
                Ok(job.payload.as_str().to_owned())
            })),
            domain::WorkerConfig::default(),
        )
    }

    async fn readiness_of(front: &Front) -> (StatusCode, Value) {
        let request = Request::builder().uri_str("/health/ready").finish();
        let response = front.get_response(request).await;
        let status = response.status();
        let body = response.into_body().into_vec().await.expect("a body");
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_takes_nothing_while_tasks_wait_is_not_ready() {
        for (oldest_due, expected) in [(None, "idle"), (Some(3_600), "stalled")] {
            let memory = Memory::new();
            let mut survey = MockTaskSurvey::new();
            survey.expect_survey().returning(move || {
                Ok(Survey {
                    oldest_due: oldest_due.map(Duration::from_secs),
                    ..Survey::default()
                })
            });
            let watched = Watched {
                survey: Some(Arc::new(survey)),
                progress: Some(idle_worker(&memory).progress()),
                ..Watched::default()
            };
            let ports = memory.ports();
            let probes = Probes::new(
                Reader::new(&ports),
                &ports,
                watched,
                Arc::new(Meters::new()),
                PING,
            );
            let front = Front::new(probes, Stopping::default());
            let (status, body) = readiness_of(&front).await;
            assert_eq!(status, StatusCode::OK, "{body}");
            tokio::time::advance(Duration::from_secs(20)).await;
            let (status, body) = readiness_of(&front).await;
            assert_eq!(body["progress"]["status"], expected);
            assert_eq!(status == StatusCode::OK, expected == "idle");
            assert_eq!(body["dependencies"]["store"]["status"], "up");
            if expected == "stalled" {
                let sentence =
                    "tasks wait and the worker has room, but it has taken nothing for 20 s";
                assert_eq!(body["detail"], sentence);
            }
        }
    }

    /// A worker at work on a processing function that needs something which is taken away and comes back.
    #[tokio::test(start_paused = true)]
    async fn a_worker_whose_dependency_is_down_is_not_ready_until_it_is_back() {
        let memory = Memory::with_clock(TokioClock::default());
        let ports = memory.ports();
        let is_up = Arc::new(AtomicBool::new(true));
        let needed = is_up.clone();
        let worker = domain::Worker::new(
            ports.clone(),
            Arc::new(memory.log.feed()),
            Arc::new(domain::processor_fn(move |_| {
                let is_up = needed.load(Ordering::Relaxed);
                async move {
                    let down = || domain::ports::Failure::Unavailable("the archive is down".into());
                    is_up.then(|| "fine".to_owned()).ok_or_else(down)
                }
            })),
            domain::WorkerConfig::default(),
        );
        let watched = Watched {
            survey: Some(memory.store.clone()),
            progress: Some(worker.progress()),
            ..Watched::default()
        };
        let meters = Arc::new(Meters::new());
        let probes = Probes::new(Reader::new(&ports), &ports, watched, meters, PING);
        let front = Front::new(probes, Stopping::default());
        let submitter = domain::Submitter::start(&ports, domain::SubmitConfig::default());
        let submit = async || {
            let submission = domain::Submission {
                payload: domain::ports::Payload::new("x").expect("no NUL"),
                ..domain::Submission::default()
            };
            submitter.submit(vec![submission]).await.expect("accepted");
        };
        // Probes come twice a second, and each shows the change or what was before.
        let becomes = async |expected: StatusCode| {
            for _ in 0..120 {
                let (status, body) = readiness_of(&front).await;
                if status == expected {
                    return body;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            panic!("never {expected}");
        };
        let tale = async {
            submit().await;
            becomes(StatusCode::OK).await;
            is_up.store(false, Ordering::Relaxed);
            submit().await;
            let body = becomes(StatusCode::SERVICE_UNAVAILABLE).await;
            assert_eq!(body["progress"]["status"], "dependency_down", "{body}");
            let sentence = "the processing function says that something it needs is down";
            assert_eq!(body["detail"], sentence);
            assert_eq!(body["dependencies"]["store"]["status"], "up");
            // It stays red however long that takes.
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            let (status, body) = readiness_of(&front).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
            is_up.store(true, Ordering::Relaxed);
            let body = becomes(StatusCode::OK).await;
            assert_ne!(body["progress"]["status"], "dependency_down", "{body}");
        };
        tokio::select! {
            () = tale => {}
            _ = worker.run(std::future::pending()) => panic!("the worker ended"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_probes_shares_one_round_of_pings() {
        let mut store = MockTaskStore::new();
        store.expect_ping().times(2).returning(|| Ok(()));
        let mut ports = Memory::new().ports();
        ports.store = Arc::new(store);
        let probes = Probes::new(
            Reader::new(&ports),
            &ports,
            Watched::default(),
            Arc::new(Meters::new()),
            PING,
        );
        let front = Front::new(probes, Stopping::default());
        for _ in 0..2 {
            let storm = (0..1_000).map(|_| readiness_of(&front));
            for (status, _) in futures_util::future::join_all(storm).await {
                assert_eq!(status, StatusCode::OK);
            }
            tokio::time::advance(Duration::from_millis(101)).await;
        }
    }

    /// Everything that any of the programs shows.
    async fn scrape(accept: &str) -> String {
        let memory = Memory::new();
        let mut store = MockTaskStore::new();
        store.expect_totals().returning(|| {
            Ok(Totals {
                done: 5,
                elapsed_micros: 6_000_000,
            })
        });
        let mut ports = memory.ports();
        ports.store = Arc::new(store);
        let meters = Arc::new(Meters::new());
        // What a dependency was doing when it failed is known, and shown, only then.
        domain::ports::Observer::observe(
            meters.as_ref(),
            &domain::ports::Event::DependencyFailed {
                dependency: domain::ports::Dependency::Store,
                doing: "claim",
                error: "refused".into(),
            },
        );
        // Nor is what panicked before it did.
        domain::ports::Observer::observe(
            meters.as_ref(),
            &domain::ports::Event::Panicked {
                doing: "insert",
                error: "boom".into(),
            },
        );
        // Nor is what it refused.
        domain::ports::Observer::observe(
            meters.as_ref(),
            &domain::ports::Event::StoreRefused {
                doing: "claim",
                error: "a trigger".into(),
            },
        );
        // Nor is the name of a key before it was refused something.
        meters.limited(Some("ci"));
        let mut pool = MockConnectionPool::new();
        pool.expect_connections()
            .return_const(Connections::default());
        let watched = Watched {
            survey: Some(memory.store.clone()),
            feed: Some(Arc::new(memory.log.feed())),
            progress: Some(idle_worker(&memory).progress()),
            pool: Some(Arc::new(pool)),
            events: Some(Arc::new(Events::start(
                &ports,
                memory.log.clone(),
                EventsConfig::default(),
            ))),
        };
        let probes = Probes::new(Reader::new(&ports), &ports, watched, meters.clone(), PING);
        let traffic = meters.requests.of(&probes);
        let request = Request::builder()
            .uri_str("/metrics")
            .header("accept", accept)
            .finish();
        let response = Metered::new(Front::new(probes, Stopping::default()), traffic)
            .get_response(request)
            .await;
        response.into_body().into_string().await.expect("text")
    }

    fn types(text: &str) -> Vec<(&str, &str)> {
        text.lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .collect()
    }

    #[tokio::test]
    async fn a_scrape_shows_the_documented_metrics_and_no_others() {
        let text = scrape("text/plain;version=0.0.4").await;
        let mut shown = types(&text);
        let mut documented: Vec<(&str, &str)> = include_str!("../../../../docs/OPERATIONS.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
            .filter(|(name, _)| name.starts_with("task_processor_"))
            .filter_map(|(name, rest)| Some((name, rest.split_once(" |")?.0)))
            .collect();
        shown.sort_unstable();
        documented.sort_unstable();
        assert_eq!(shown, documented);
    }

    /// The names of our metrics in a text.
    fn named(text: &str) -> BTreeSet<&str> {
        let is_of_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
        text.match_indices("task_processor_")
            .map(|(at, _)| {
                let rest = &text[at..];
                &rest[..rest
                    .find(|character| !is_of_name(character))
                    .unwrap_or(rest.len())]
            })
            .collect()
    }

    #[tokio::test]
    async fn the_dashboard_and_the_alerts_ask_for_metrics_that_exist() {
        let text = scrape("text/plain;version=0.0.4").await;
        let shown: BTreeSet<String> = types(&text)
            .into_iter()
            .flat_map(|(name, kind)| {
                let parts: &[&str] = match kind {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                parts.iter().map(move |part| format!("{name}{part}"))
            })
            .collect();
        let alerts = include_str!("../../../../deploy/alerts.yaml");
        let dashboard = include_str!("../../../../deploy/dashboard.json");
        for (file, text) in [("alerts.yaml", alerts), ("dashboard.json", dashboard)] {
            let asked = named(text);
            assert!(asked.len() > 8, "{file} asks for {asked:?}");
            let missing: Vec<_> = asked
                .iter()
                .filter(|name| !shown.contains(**name))
                .collect();
            assert!(missing.is_empty(), "{file}: {missing:?}");
        }
        let dashboard: Value = serde_json::from_str(dashboard).expect("JSON");
        let panels = dashboard["panels"].as_array().expect("panels");
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            let targets = panel["targets"].as_array().expect("targets");
            assert!(!targets.is_empty(), "{panel}");
            for target in targets {
                let expression = target["expr"].as_str().expect("an expression");
                assert!(!named(expression).is_empty(), "{expression}");
                let count = |of| expression.matches(of).count();
                assert_eq!(count('('), count(')'), "{expression}");
            }
        }
    }

    /// Between two bounds a quantile is no more than a guess.
    #[tokio::test]
    async fn alerts_judge_histograms_by_bounds_that_they_have() {
        let text = scrape("text/plain;version=0.0.4").await;
        let alerts = include_str!("../../../../deploy/alerts.yaml");
        let mut judged = 0;
        for line in alerts.lines() {
            let Some((expression, threshold)) = line.rsplit_once("[5m]))) > ") else {
                continue;
            };
            assert!(expression.contains("histogram_quantile("), "{line}");
            let threshold: f64 = threshold.parse().expect("a number");
            for name in named(expression) {
                let bound = format!("{name}{{le=\"{threshold:?}\"");
                assert!(text.contains(&bound), "{bound} is no bound");
                judged += 1;
            }
        }
        assert_eq!(judged, alerts.matches("histogram_quantile(").count());
        assert!(judged > 0);
    }

    #[tokio::test]
    async fn both_formats_show_the_same_metrics() {
        let text = scrape("text/plain;version=0.0.4").await;
        let openmetrics = scrape("application/openmetrics-text;version=1.0.0").await;
        let bare = |name: &str| {
            let bare = name.strip_suffix("_total").unwrap_or(name);
            bare.strip_suffix("_info").unwrap_or(bare).to_owned()
        };
        let names = |text: &str| -> BTreeSet<String> {
            types(text)
                .into_iter()
                .map(|(name, _)| bare(name))
                .collect()
        };
        assert_eq!(names(&text), names(&openmetrics));
        let counters = types(&openmetrics)
            .into_iter()
            .filter(|(_, kind)| *kind == "counter");
        for (name, _) in counters {
            assert!(!name.ends_with("_total"), "{name}");
            assert!(openmetrics.contains(&format!("\n{name}_total")), "{name}");
        }
    }
}
