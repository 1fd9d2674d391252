//! What each command does.

use std::io::Read as _;
use std::time::Duration;

use access::{ApiKey, NewKey};
use clap::CommandFactory as _;
use client::{Client, ClientOptions, Error, Filter, Heard, NewTask, Status, Task, TaskDetails};
use uuid::Uuid;

use crate::arguments::{Arguments, Command, Get, Ids, Key, List, Submit};
use crate::bulk;
use crate::exit::Exit;
use crate::output::{Followed, HEADING, MadeKey, Output};

pub(crate) async fn run(arguments: Arguments) -> Result<(), Exit> {
    let Arguments {
        url,
        output,
        timeout,
        command,
    } = arguments;
    let output = Output::new(output);
    let client = || {
        let api_key = std::env::var("TASK_API_KEY").ok();
        let options = ClientOptions {
            api_key: api_key.filter(|key| !key.is_empty()),
            timeout,
            ..ClientOptions::default()
        };
        Client::with_options(&url, options)
    };
    match command {
        Command::Submit(Submit {
            file: Some(path),
            after,
            idempotency_key,
            ..
        }) => {
            let key = idempotency_key.unwrap_or_else(random_key);
            bulk::submit(&client()?, &path, after, &key, output).await
        }
        Command::Submit(wanted) => submit(&client()?, wanted, output).await,
        Command::Get(wanted) => get(&client()?, &wanted, output).await,
        Command::List(wanted) => list(&client()?, wanted, output).await,
        Command::Watch { id, after } => watch(&client()?, id, after, output).await,
        Command::Cancel(Ids { ids }) => {
            let client = client()?;
            each(&ids, output, |id| client.cancel(id)).await
        }
        Command::Retry(Ids { ids }) => {
            let client = client()?;
            each(&ids, output, |id| client.retry(id)).await
        }
        Command::Metrics => output.print(&client()?.metrics().await?),
        Command::Key(wanted) => key(&wanted, output),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "task", &mut script);
            Ok(std::io::Write::write_all(&mut std::io::stdout(), &script)?)
        }
    }
}

/// Makes a key. It is printed here and kept nowhere.
fn key(wanted: &Key, output: Output) -> Result<(), Exit> {
    let new = NewKey::random()?;
    let entry = format!("{}:{}:{}", wanted.name, wanted.scopes, new.hash());
    ApiKey::parse(&entry).map_err(|error| Exit::Usage(format!("the key {error}")))?;
    output.print(&MadeKey {
        key: new.secret().to_owned(),
        entry,
    })
}

/// A name for a submission that was given none, so that an answer that is lost can be asked for again.
fn random_key() -> String {
    Uuid::now_v7().to_string()
}

async fn submit(client: &Client, wanted: Submit, output: Output) -> Result<(), Exit> {
    let payload = match wanted.payload.unwrap_or_default() {
        dash if dash == "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            text
        }
        payload => payload,
    };
    let task = NewTask {
        payload,
        priority: wanted.priority,
        run_at: wanted.run_at,
        max_attempts: wanted.max_attempts,
    };
    let key = wanted.idempotency_key.unwrap_or_else(random_key);
    let accepted = client.submit_keyed(&task, &key).await;
    let accepted = accepted.inspect_err(|error| {
        // Anything but a refusal of this very task: one of the attempts may have been heard.
        let is_refused = matches!(error.status(), Some(400..=428 | 430..=499));
        if !is_refused && !matches!(error, Error::InvalidKey) {
            eprintln!("task: with --idempotency-key {key} it may be repeated and is stored once");
        }
    })?;
    match wanted.wait {
        None => output.print(&accepted),
        Some(patience) => show(&client.wait(accepted.id, patience).await?, true, output),
    }
}

async fn get(client: &Client, wanted: &Get, output: Output) -> Result<(), Exit> {
    let was_waited_for = wanted.wait.is_some();
    if wanted.full {
        if let Some(patience) = wanted.wait {
            client.wait(wanted.id, patience).await?;
        }
        let record = client.explain(wanted.id).await?;
        output.print(&record)?;
        return ended(record.status, was_waited_for);
    }
    let task = match wanted.wait {
        None => client.get(wanted.id).await?,
        Some(patience) => client.wait(wanted.id, patience).await?,
    };
    show(&task, was_waited_for, output)
}

async fn list(client: &Client, wanted: List, output: Output) -> Result<(), Exit> {
    /// As many as a server gives at once.
    const PAGE: u16 = 1_000;
    let limit = if wanted.all { u64::MAX } else { wanted.limit };
    let mut listing = client.list(Filter {
        status: wanted.status,
        priority: wanted.priority,
        created_after: wanted.created_after,
        created_before: wanted.created_before,
        // One more than is shown tells whether there are more.
        page: Some(u16::try_from(limit.saturating_add(1)).map_or(PAGE, |page| page.min(PAGE))),
    });
    let mut shown = 0;
    while let Some(task) = listing.next().await? {
        if shown == limit {
            output.remark("there are more: --limit NUMBER or --all shows them");
            break;
        }
        if shown == 0 {
            output.head(HEADING)?;
        }
        output.print(&task)?;
        shown += 1;
    }
    if shown == 0 {
        output.remark("there are none");
    }
    Ok(())
}

/// Gives an order for each of these tasks, whatever became of those before it. A refusal is told with the task that it is about, and the worst of
/// them is the end.
async fn each(
    ids: &[Uuid],
    output: Output,
    order: impl AsyncFn(Uuid) -> Result<TaskDetails, Error>,
) -> Result<(), Exit> {
    let mut worst = 0;
    for &id in ids {
        match order(id).await {
            Ok(task) => output.print(&Task::Open(task))?,
            Err(error) => {
                let exit = Exit::from(error);
                exit.tell_of(id);
                worst = worst.max(exit.number());
            }
        }
    }
    match worst {
        0 => Ok(()),
        worst => Err(Exit::Told(worst)),
    }
}

async fn watch(
    client: &Client,
    id: Option<Uuid>,
    after: Option<u64>,
    output: Output,
) -> Result<(), Exit> {
    let watch = match after {
        None => client.watch(id).await?,
        Some(after) => client.watch_after(id, after).await?,
    };
    // Whoever has had enough of a server that does not come back stops this program.
    let mut watch = watch.with_patience(Duration::MAX);
    // What happened before is read, once what comes cannot be missed.
    let mut must_look = id;
    loop {
        if let Some(id) = must_look {
            match client.get(id).await {
                Ok(task) if task.is_at_rest() => return show(&task, true, output),
                Err(error) if error.is_transient() => continue,
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
        }
        match watch.next().await? {
            Heard::Event { id: place, event } => {
                must_look = id.filter(|_| event.status.is_at_rest());
                output.print(&Followed { place, event })?;
            }
            Heard::Missed => {
                eprintln!("task: some changes were missed");
                must_look = id;
            }
        }
    }
}

/// Prints a task. One that was waited for and is not done is a failure, after it was shown.
fn show(task: &Task, was_waited_for: bool, output: Output) -> Result<(), Exit> {
    output.print(task)?;
    ended(task.status(), was_waited_for)
}

fn ended(status: Status, was_waited_for: bool) -> Result<(), Exit> {
    match status {
        status if was_waited_for && status != Status::Done => Err(Exit::NotDone(status)),
        _ => Ok(()),
    }
}
