//! One store, in one process, per database file.

use std::error::Error;

use ports::{NewTask, Payload, StoreError, TaskStore};
use task_processor_adapters::sql::{SqlOptions, SqlTaskStore};

use crate::database::{SqliteFile, texts, waiting};

async fn refusal(url: String) -> String {
    match SqlTaskStore::connect(SqlOptions::new(url)).await {
        Err(error @ StoreError::Rejected(_)) => {
            error.source().expect("the error has a cause").to_string()
        }
        Err(error) => panic!("expected a refusal and not {error:?}"),
        Ok(_) => panic!("expected a refusal"),
    }
}

#[tokio::test]
async fn a_second_store_on_the_same_file_is_refused_by_name() {
    let file = SqliteFile::create();
    let store = file.store().await;
    let link = file.path().with_file_name("link.db");
    std::os::unix::fs::symlink(file.path(), &link).expect("link");
    for url in [file.url(), format!("sqlite://{}", link.display())] {
        let reason = refusal(url).await;
        assert!(reason.contains("tasks.db.lock"), "{reason}");
        assert!(reason.contains("in use"), "{reason}");
    }
    store.close().await;
    let next = file.store().await;
    next.close().await;
    file.remove();
}

#[tokio::test]
async fn a_file_that_cannot_be_made_is_refused_by_name() {
    let reason = refusal("sqlite:///nonexistent-folder/tasks.db".to_owned()).await;
    assert!(
        reason.contains("/nonexistent-folder/tasks.db cannot be made"),
        "{reason}"
    );
    let reason = refusal("sqlite::memory:".to_owned()).await;
    assert!(reason.contains("give it a file"), "{reason}");
    let reason = refusal("mysql://localhost/db".to_owned()).await;
    assert!(reason.contains("\"mysql\""), "{reason}");
}

#[tokio::test]
async fn commits_are_durable_and_the_file_is_a_write_ahead_log() {
    let file = SqliteFile::create();
    let store = file.store().await;
    let database = store.database();
    migration::up(&database).await.expect("up");
    assert_eq!(texts(&database, "PRAGMA journal_mode").await, ["wal"]);
    // 2 is FULL.
    let synchronous = "SELECT cast(synchronous AS text) FROM pragma_synchronous";
    assert_eq!(texts(&database, synchronous).await, ["2"]);
    let task = NewTask {
        payload: Payload::new("kept").expect("no NUL"),
        ..waiting()
    };
    store
        .insert(std::slice::from_ref(&task))
        .await
        .expect("insert");
    store.close().await;
    let again = file.store().await;
    let found = again.get(&[task.id]).await.expect("get");
    assert_eq!(
        found[0].as_ref().map(|kept| &kept.payload),
        Some(&task.payload)
    );
    again.close().await;
    file.remove();
}

#[tokio::test]
async fn a_closed_store_is_unavailable() {
    let file = SqliteFile::create();
    let store = file.store().await;
    store.close().await;
    let error = store.ping().await.expect_err("closed");
    assert!(error.is_transient(), "{error:?}");
    file.remove();
}
