//! Converts the amounts on standard input, one a line. What was accepted and not finished is finished by the next start.
//!
//! `task-processor-embedding JOURNAL RATES`: the file that keeps the tasks, and one with a line `USD 108` for each currency,
//! in cents per euro, which is read anew for every task.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use adapters::memory::{MemoryLog, MemoryObserver, MemoryResultCache};
use adapters::system::{SystemClock, SystemRandom, UuidV7Ids};
use async_trait::async_trait;
use domain::ports::{Clock, Payload};
use domain::{Ports, Service, Submission};
use task_processor_embedding::conversion::{Conversion, Rates, RatesAreDown};
use task_processor_embedding::journal::JournalStore;

/// Rates in a file.
struct RatesFile(PathBuf);

#[async_trait]
impl Rates for RatesFile {
    async fn cents_per_euro(&self, currency: &str) -> Result<Option<u64>, RatesAreDown> {
        let text = tokio::fs::read_to_string(&self.0).await;
        let text = text.map_err(|_| RatesAreDown)?;
        Ok(text.lines().find_map(|line| {
            let (name, cents) = line.split_once(' ')?;
            (name == currency).then(|| cents.trim().parse().ok())?
        }))
    }
}

/// The ports of one process: the tasks in the journal, everything else in memory, since the journal can make it again.
fn ports(store: &Arc<JournalStore>, log: &MemoryLog, clock: &Arc<dyn Clock>) -> Ports {
    Ports {
        store: store.clone(),
        registry: store.clone(),
        audit: store.clone(),
        catalog: store.clone(),
        publisher: Arc::new(log.clone()),
        announcer: Arc::new(log.clone()),
        cache: Arc::new(MemoryResultCache::new(clock.clone())),
        clock: clock.clone(),
        ids: Arc::new(UuidV7Ids),
        random: Arc::new(SystemRandom::new()),
        observer: Arc::new(MemoryObserver::default()),
    }
}

async fn convert(journal: &Path, rates: PathBuf) -> Result<(), Box<dyn Error + Send + Sync>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = Arc::new(JournalStore::open(journal, clock.clone())?);
    let log = MemoryLog::new(clock.clone());
    let ports = ports(&store, &log, &clock);
    // The lock on the file proves that no earlier run lives: what it held goes back to the queue.
    domain::rescue::recover_all(&ports, 10).await?;
    let conversion = Conversion(Arc::new(RatesFile(rates)));
    let service = Service::start(ports, Arc::new(log.feed()), conversion);
    let waiting = store.state().snapshot().tasks.into_iter();
    let mut ids: Vec<_> = waiting
        .filter(|task| !task.status.is_at_rest())
        .map(|task| task.id)
        .collect();
    // Waiting for a line holds up this thread alone; the service runs on the others.
    for line in std::io::stdin().lines() {
        let accepted = service
            .submit(Submission::new(Payload::new(line?)?))
            .await?;
        ids.push(accepted.id);
    }
    for task in store.state().at_rest(&ids).await {
        let payload = task.payload.as_str();
        match task.result {
            Some(result) => println!("{payload} = {result}"),
            None => println!("{payload}: {}", task.error.unwrap_or_default()),
        }
    }
    service.stop().await;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [journal, rates] = arguments.as_slice() else {
        eprintln!("usage: task-processor-embedding JOURNAL RATES");
        return ExitCode::from(2);
    };
    match convert(journal, rates.clone()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
