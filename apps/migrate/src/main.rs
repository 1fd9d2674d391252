//! Schema migrations: up, down, status, verify.

use std::process::ExitCode;

use bootstrap::settings::MigrateSettings;
use bootstrap::wiring::distributed;
use bootstrap::{Failure, Program, Start, launch, say};

const PROGRAM: Program = Program {
    name: env!("CARGO_PKG_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    about: "The schema of Task Processor in PostgreSQL.

  up      brings it up to date; adopts the table of the existing service without losing a row
  down    takes it back; what was created goes with its rows, an adopted table stays. Stop servers and workers first
  status  lists the migrations and whether they are applied; exit code 1 when one is not
  verify  checks that every unfinished task is findable, nothing is left behind and the totals are right; exit code 1 when not",
};

fn main() -> ExitCode {
    launch(&PROGRAM, run)
}

async fn run(start: Start<MigrateSettings>) -> Result<(), Failure> {
    let store = distributed::for_migrations(&start.settings, &start.shutdown).await?;
    let outcome = match start.command {
        "up" => changed(
            "applied",
            "the schema is up to date",
            migration::up(&store.database()).await?,
        ),
        "down" => changed(
            "taken back",
            "there was nothing to take back",
            migration::down(&store.database()).await?,
        ),
        "status" => status(&migration::status(&store.database()).await?),
        _ => {
            // Without the schema every question of the check fails, and only says which table it missed first.
            match up_to_date(&migration::status(&store.database()).await?) {
                Ok(()) => {
                    verified(&migration::verify(&store.database(), start.settings.overdue).await?)
                }
                not_yet => not_yet,
            }
        }
    };
    store.close().await;
    outcome
}

fn changed(done: &str, nothing: &str, names: Vec<String>) -> Result<(), Failure> {
    for name in &names {
        say(&format!("{done}: {name}\n"));
    }
    if names.is_empty() {
        say(&format!("{nothing}\n"));
    }
    Ok(())
}

fn status(migrations: &[migration::Migration]) -> Result<(), Failure> {
    for migration in migrations {
        let state = if migration.applied {
            "applied"
        } else {
            "pending"
        };
        say(&format!("{state}  {}\n", migration.name));
    }
    match migrations
        .iter()
        .filter(|migration| !migration.applied)
        .count()
    {
        0 => Ok(()),
        pending => {
            Err(format!("{pending} not applied; task-processor-migrate up applies them").into())
        }
    }
}

fn up_to_date(migrations: &[migration::Migration]) -> Result<(), Failure> {
    let missing: Vec<&str> = migrations
        .iter()
        .filter(|migration| !migration.applied)
        .map(|migration| migration.name.as_str())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the schema is not up to date: {} is not applied; run task-processor-migrate up first",
        missing.join(", ")
    )
    .into())
}

fn verified(report: &migration::Report) -> Result<(), Failure> {
    say(&format!("{report}\n"));
    if report.is_consistent() {
        return Ok(());
    }
    Err("the database is not consistent, see above".into())
}
