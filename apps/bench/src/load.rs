//! The load generator.
//!
//! Each connection is a task on one of few single-threaded runtimes; requests are bytes made once. Latencies count from
//! the time at which a request was due, so a stall of the server is counted and not hidden.

mod own;
mod pace;
mod record;
mod stream;
mod target;
mod wire;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::LocalSet;
use tokio::time::sleep;

use pace::Pace;
use record::{Pending, Record};
pub use record::{Report, Summary};
pub use target::{Target, WrongTarget};
use wire::Connection;

/// Between two attempts to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// What each request does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    /// `POST /tasks`.
    Submit {
        /// What is to be processed.
        payload: String,
    },
    /// `POST /tasks`, then `GET /tasks/{id}` until the result is there.
    SubmitAndWatch {
        /// What is to be processed.
        payload: String,
        /// Between two looks.
        every: Duration,
        /// After how long a task without a result counts as one without an answer.
        patience: Duration,
    },
    /// `GET` of these paths, in turn.
    Read {
        /// Paths, such as `/tasks/{id}`.
        paths: Vec<String>,
    },
}

impl Errand {
    const fn watches(&self) -> bool {
        matches!(self, Self::SubmitAndWatch { .. })
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Where to.
    pub target: Target,
    /// What.
    pub errand: Errand,
    /// How many connections; each carries one request at a time.
    pub connections: usize,
    /// Requests per second (open loop); `None`: each connection sends as soon as it has its answer (closed loop).
    pub rate: Option<f64>,
    /// How long to run before anything counts.
    pub warmup: Duration,
    /// How long to measure.
    pub duration: Duration,
    /// How long to wait, at the end, for answers to what was due.
    pub patience: Duration,
    /// Threads of the generator.
    pub threads: usize,
    /// Lines `name: value` for every request.
    pub headers: Vec<String>,
}

/// What a run has done so far, for a progress bar.
#[derive(Debug, Default)]
pub struct Progress {
    answered: AtomicU64,
}

impl Progress {
    /// Answers so far, those of the warm-up included.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

/// The bytes of every request of a run.
struct Requests {
    first: Vec<Vec<u8>>,
    next: AtomicU64,
}

impl Requests {
    fn of(plan: &Plan) -> Self {
        let first = match &plan.errand {
            Errand::Submit { payload } | Errand::SubmitAndWatch { payload, .. } => {
                vec![plan.target.post_task(payload, &plan.headers)]
            }
            Errand::Read { paths } => paths
                .iter()
                .map(|path| plan.target.get(path, &plan.headers))
                .collect(),
        };
        Self {
            first,
            next: AtomicU64::new(0),
        }
    }

    fn next(&self) -> &[u8] {
        if let [only] = self.first.as_slice() {
            return only;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let count = u64::try_from(self.first.len()).unwrap_or(u64::MAX);
        // Smaller than a length.
        self.first
            .get((number % count.max(1)) as usize)
            .map_or(&[], Vec::as_slice)
    }
}

/// Runs a plan on threads of its own and answers what was measured.
///
/// # Errors
/// When the first connection cannot be made, a read has nothing to read, or the system gives no thread.
pub fn run(plan: &Plan, progress: &Arc<Progress>) -> io::Result<Report> {
    if matches!(&plan.errand, Errand::Read { paths } if paths.is_empty()) {
        return Err(io::Error::other("there is nothing to read"));
    }
    // Told at once, rather than as a run full of failures.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    drop(runtime.block_on(Connection::open(&plan.target))?);
    let threads = plan.threads.clamp(1, plan.connections.max(1));
    let used_before = own::processor_seconds();
    let pace = Pace::start(plan.rate, plan.warmup + plan.duration)?;
    let requests = Arc::new(Requests::of(plan));
    let mut running = Vec::new();
    for thread in 0..threads {
        let connections = plan.connections.max(1) / threads
            + usize::from(thread < plan.connections.max(1) % threads);
        let (plan, pace, requests, progress) = (
            plan.clone(),
            pace.clone(),
            Arc::clone(&requests),
            Arc::clone(progress),
        );
        running.push(
            thread::Builder::new()
                .name(format!("load-{thread}"))
                .spawn(move || run_thread(plan, pace, requests, progress, connections))?,
        );
    }
    let mut sum = Record::new(pace.begin(), plan.warmup, plan.errand.watches());
    for thread in running {
        let record = thread
            .join()
            .map_err(|_| io::Error::other("a thread of the generator panicked"))??;
        sum.add(&record);
    }
    for due in pace.untaken() {
        sum.gave_up(Pending::since(due));
    }
    let processor_seconds = own::processor_seconds() - used_before;
    let whole = (plan.warmup + plan.duration).as_secs_f64() * threads as f64;
    Ok(Report {
        processor_seconds,
        busy: processor_seconds / whole,
        peak_mib: own::peak_mib(),
        ..sum.report(plan.duration)
    })
}

/// What the connections of one thread share.
struct Shared {
    plan: Plan,
    pace: Pace,
    requests: Arc<Requests>,
    progress: Arc<Progress>,
    record: RefCell<Record>,
    /// Open connections that carry nothing now. The last used is taken first, so that at a low rate the same few are in use and the others are
    /// not opened at all.
    idle: RefCell<Vec<Connection>>,
    /// What is under way.
    under_way: RefCell<Vec<Option<Pending>>>,
}

fn run_thread(
    plan: Plan,
    pace: Pace,
    requests: Arc<Requests>,
    progress: Arc<Progress>,
    connections: usize,
) -> io::Result<Record> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let end = pace.begin() + plan.warmup + plan.duration + plan.patience;
    let empty = Record::new(pace.begin(), plan.warmup, plan.errand.watches());
    let shared = Rc::new(Shared {
        record: RefCell::new(empty.clone()),
        idle: RefCell::new(Vec::with_capacity(connections)),
        under_way: RefCell::new(vec![None; connections]),
        plan,
        pace,
        requests,
        progress,
    });
    let local = LocalSet::new();
    for number in 0..connections {
        let shared = Rc::clone(&shared);
        local.spawn_local(async move { shared.drive(number).await });
    }
    runtime.block_on(async {
        // What is not answered by then is counted below.
        let _ = tokio::time::timeout_at(end.into(), local).await;
    });
    let under_way = shared.under_way.borrow().clone();
    let mut record = shared.record.replace(empty);
    for pending in under_way.into_iter().flatten() {
        record.gave_up(pending);
    }
    Ok(record)
}

impl Shared {
    /// One request after the other, each on a connection of its own meanwhile, for as long as something is due.
    async fn drive(&self, number: usize) {
        while let Some(due) = self.pace.next().await {
            self.under_way.borrow_mut()[number] = Some(Pending::since(due));
            let mut connection = self.idle.borrow_mut().pop();
            let outcome = self.go(&mut connection, number, due).await;
            let pending = self.under_way.borrow_mut()[number].take();
            if let (Err(error), Some(pending)) = (&outcome, pending) {
                self.record
                    .borrow_mut()
                    .failed(pending, &error.kind().to_string());
                sleep(RECONNECT_PAUSE).await;
            }
            if outcome.is_ok() {
                self.idle.borrow_mut().extend(connection);
            }
        }
    }

    async fn go(
        &self,
        slot: &mut Option<Connection>,
        number: usize,
        due: Instant,
    ) -> io::Result<()> {
        let connection = self.connected(slot).await?;
        let target = &self.plan.target;
        let status = connection.exchange(target, self.requests.next()).await?;
        self.record.borrow_mut().answered(due, status);
        self.progress.answered.fetch_add(1, Ordering::Relaxed);
        if let Errand::SubmitAndWatch {
            every, patience, ..
        } = self.plan.errand
            && status == 201
        {
            self.under_way.borrow_mut()[number] = Some(Pending {
                due,
                is_answered: true,
            });
            self.watch(slot, due, every, patience).await?;
        }
        if slot.as_ref().is_some_and(Connection::is_closing) {
            *slot = None;
        }
        Ok(())
    }

    async fn connected<'slot>(
        &self,
        slot: &'slot mut Option<Connection>,
    ) -> io::Result<&'slot mut Connection> {
        let open = match slot.take() {
            Some(open) if !open.is_closing() => open,
            _ => Connection::open(&self.plan.target).await?,
        };
        Ok(slot.insert(open))
    }

    /// Looks until the result is there. A task that is not done has a `status`, one that is done does not.
    async fn watch(
        &self,
        slot: &mut Option<Connection>,
        due: Instant,
        every: Duration,
        patience: Duration,
    ) -> io::Result<()> {
        let id = slot
            .as_ref()
            .and_then(|connection| id_in(connection.body()))
            .ok_or_else(|| io::Error::other("an answer without an id"))?;
        let look = self
            .plan
            .target
            .get(&format!("/tasks/{id}"), &self.plan.headers);
        loop {
            sleep(every).await;
            let connection = self.connected(slot).await?;
            let status = connection.exchange(&self.plan.target, &look).await?;
            if status == 200 && wire::find(connection.body(), b"\"processedAt\"").is_some() {
                self.record.borrow_mut().visible(due);
                return Ok(());
            }
            if due.elapsed() > patience {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

/// The id in the answer to a submission.
fn id_in(body: &[u8]) -> Option<String> {
    const UUID: usize = 36;
    let begin = wire::find(body, b"\"id\":\"")? + 6;
    let id = body.get(begin..begin + UUID)?;
    std::str::from_utf8(id).ok().map(ToOwned::to_owned)
}

/// Submits tasks and answers their ids, as many as asked, once all of them show their results.
///
/// # Errors
/// When a submission is refused, or a result does not show in time.
pub fn make_finished(
    target: &Target,
    headers: &[String],
    payload: &str,
    count: usize,
    patience: Duration,
) -> io::Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut connection = Connection::open(target).await?;
        let submission = target.post_task(payload, headers);
        let mut ids = Vec::with_capacity(count);
        for _ in 0..count {
            let status = connection.exchange(target, &submission).await?;
            let id = id_in(connection.body()).filter(|_| status == 201);
            ids.push(id.ok_or_else(|| {
                io::Error::other(format!("a submission was answered with {status}"))
            })?);
        }
        let deadline = Instant::now() + patience;
        for id in &ids {
            let look = target.get(&format!("/tasks/{id}"), headers);
            loop {
                connection.exchange(target, &look).await?;
                if wire::find(connection.body(), b"\"processedAt\"").is_some() {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("task {id} shows no result: does a worker run?"),
                    ));
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(ids)
    })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;

    /// Accepts every task and never does one.
    fn idle_service() -> io::Result<Target> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(&stream));
            }
        });
        Ok(format!("http://127.0.0.1:{port}")
            .parse()
            .expect("an address"))
    }

    fn serve(mut stream: &std::net::TcpStream) -> io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        while let Some(first) = lines.next() {
            let is_post = first?.starts_with("POST");
            for line in lines.by_ref() {
                if line?.is_empty() {
                    break;
                }
            }
            let (status, body) = if is_post {
                let id = "01890a5d-ac96-774b-bcce-b302099a8057";
                (
                    "201 Created",
                    format!("{{\"id\":\"{id}\",\"status\":\"pending\"}}"),
                )
            } else {
                ("200 OK", "{\"status\":\"pending\"}".to_owned())
            };
            write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )?;
        }
        Ok(())
    }

    #[test]
    fn a_result_that_never_shows_counts_with_the_time_that_was_waited() {
        let patience = Duration::from_millis(300);
        let check = |connections| {
            let plan = Plan {
                target: idle_service().expect("a service"),
                errand: Errand::SubmitAndWatch {
                    payload: String::new(),
                    every: Duration::from_millis(1),
                    patience,
                },
                connections,
                rate: Some(100.0),
                warmup: Duration::ZERO,
                duration: Duration::from_millis(100),
                patience,
                threads: 1,
                headers: Vec::new(),
            };
            run(&plan, &Arc::default()).expect("a report")
        };
        let report = check(10);
        assert_eq!(report.accepted_in_all, 10, "{report:?}");
        assert_eq!(report.answer_ms.count, 10, "each once: {report:?}");
        assert!(report.answer_ms.p50 < 300.0, "{report:?}");
        assert_eq!(report.visible_ms.count, 10, "{report:?}");
        assert!(report.visible_ms.p50 >= 200.0, "{report:?}");
        assert_eq!(report.failures(), 10, "{report:?}");
        // The only connection waits for the first, and nobody takes the others.
        let report = check(1);
        assert_eq!(report.visible_ms.count, 10, "{report:?}");
        assert_eq!(report.failures(), 10, "{report:?}");
    }
}
