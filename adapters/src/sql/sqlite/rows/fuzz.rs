//! Rows of a file that other hands have written in: SQLite keeps any value in any column.

use ::fuzz::{Bytes, bytes, run};
use proptest::prelude::*;
use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection, DbBackend, Statement};
use tokio::runtime::{Builder, Runtime};

use super::*;

const TEXTS: &[&[u8]] = &[
    b"01941f29-7c00-7001-8000-000000000009",
    b"pending",
    b"processing",
    b"done",
    b"failed",
    b"cancelled",
    b"Hello world!",
    br#"[["01941f29-7c00-7001-8000-000000000009",1]]"#,
];

fn integer() -> impl Strategy<Value = i64> {
    let edges = [
        i64::MIN,
        i64::MIN + 1,
        i64::from(i32::MIN) - 1,
        i64::from(i32::MAX) + 1,
        i64::MAX,
    ];
    prop_oneof![
        0..20_i64,
        any::<i64>(),
        prop::sample::select(edges.to_vec())
    ]
}

/// A value of SQLite.
#[derive(Clone, Debug)]
enum Cell {
    Null,
    Integer(i64),
    Real(f64),
    /// Text, which nobody checks to be UTF-8.
    Text(Bytes),
    Blob(Bytes),
}

impl Cell {
    fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            1 => Just(Self::Null),
            4 => integer().prop_map(Self::Integer),
            1 => any::<f64>().prop_map(Self::Real),
            4 => bytes(TEXTS).prop_map(Self::Text),
            1 => bytes(TEXTS).prop_map(Self::Blob),
        ]
    }

    /// What a row of ours has there, or, one time in six, anything.
    fn like(own: Self) -> impl Strategy<Value = Self> {
        prop_oneof![5 => Just(own), 1 => Self::any()]
    }

    const fn expression(&self) -> &'static str {
        match self {
            Self::Text(_) => "CAST(? AS TEXT)",
            _ => "?",
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Null => Value::BigInt(None),
            Self::Integer(integer) => Value::from(*integer),
            Self::Real(real) => Value::from(*real),
            Self::Text(bytes) | Self::Blob(bytes) => Value::from(bytes.to_vec()),
        }
    }
}

struct File {
    runtime: Runtime,
    connection: DatabaseConnection,
}

impl File {
    fn open() -> Self {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let connection = runtime
            .block_on(Database::connect("sqlite::memory:"))
            .expect("SQLite in memory");
        Self {
            runtime,
            connection,
        }
    }

    fn row(&self, cells: &[Cell]) -> QueryResult {
        let expressions: Vec<&str> = cells.iter().map(Cell::expression).collect();
        let statement = Statement::from_sql_and_values(
            DbBackend::Sqlite,
            format!("SELECT {}", expressions.join(", ")),
            cells.iter().map(Cell::value),
        );
        self.runtime
            .block_on(self.connection.query_one_raw(statement))
            .expect("a select without a table")
            .expect("one row")
    }
}

/// An error is logged, and must not carry a whole payload into the log.
fn is_short(error: &DbErr) -> Result<(), TestCaseError> {
    let text = error.to_string();
    prop_assert!(
        (1..=600).contains(&text.len()),
        "{} bytes: {text}",
        text.len()
    );
    Ok(())
}

fn text_of(text: &[u8]) -> Cell {
    Cell::Text(Bytes::from(text.to_vec()))
}

#[test]
fn fuzz_task_rows() {
    let file = File::open();
    let id = || text_of(b"01941f29-7c00-7001-8000-000000000009");
    let status =
        prop::sample::select(["pending", "processing", "done", "failed", "cancelled"].as_slice())
            .prop_map(|name| text_of(name.as_bytes()));
    let row = (
        Cell::like(id()),
        bytes(TEXTS).prop_map(Cell::Text),
        Cell::any(),
        prop_oneof![5 => status, 1 => Cell::any()],
        Cell::any(),
        Cell::any(),
        (
            Cell::like(Cell::Integer(1)),
            Cell::like(Cell::Integer(5)),
            Cell::like(Cell::Integer(0)),
        ),
        (
            Cell::like(Cell::Integer(1)),
            prop_oneof![integer().prop_map(Cell::Integer), Cell::any()],
            Cell::like(Cell::Integer(0)),
        ),
    );
    run(
        "task rows",
        &row,
        |(id, payload, priority, status, result, error, counts, times)| {
            let cells = [
                id, payload, priority, status, result, error, counts.0, counts.1, counts.2,
                times.0, times.1, times.2,
            ];
            match task(&file.row(&cells)) {
                Ok(task) => {
                    prop_assert_eq!(
                        task.result.is_some(),
                        task.status == ports::TaskStatus::Done
                    );
                    prop_assert!(!task.payload.as_str().contains('\0'));
                    prop_assert!(task.priority.get() <= 10);
                    // Whatever time it is, it can be shown.
                    prop_assert!(!task.created_at.to_string().is_empty());
                    Ok(())
                }
                Err(error) => is_short(&error),
            }
        },
    );
}

#[test]
fn fuzz_claim_rows() {
    let file = File::open();
    let id = || text_of(b"01941f29-7c00-7001-8000-000000000009");
    let row = (
        Cell::like(id()),
        Cell::like(id()),
        prop_oneof![5 => bytes(TEXTS).prop_map(Cell::Text), 1 => Cell::any()],
        Cell::like(Cell::Integer(0)),
    );
    run(
        "claim rows",
        &row,
        |(claim, worker, tasks, at)| match claim_record(&file.row(&[claim, worker, tasks, at])) {
            Ok(record) => {
                prop_assert!(record.tasks.len() < 1_000);
                Ok(())
            }
            Err(error) => is_short(&error),
        },
    );
}
