//! What went wrong in the database, in the words of the port.

use std::borrow::Cow;

use ports::StoreError;
use sea_orm::sqlx::Error as DriverError;
use sea_orm::{DbErr, RuntimeErr};

/// Something that trying again cannot cure, said before the database was asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unsupported(String);

impl Unsupported {
    pub(super) fn scheme(scheme: &str) -> Self {
        Self(format!(
            "database URLs of the scheme \"{scheme}\" are not supported by this program"
        ))
    }

    pub(super) fn because(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// The driver's error inside, if it is one.
fn driver_error(error: &DbErr) -> Option<&DriverError> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(inner))
        | DbErr::Exec(RuntimeErr::SqlxError(inner))
        | DbErr::Query(RuntimeErr::SqlxError(inner)) => Some(inner.as_ref()),
        _ => None,
    }
}

/// The database's code: an SQLSTATE on PostgreSQL, a decimal extended result code on SQLite.
fn code(error: &DbErr) -> Option<Cow<'_, str>> {
    match driver_error(error)? {
        DriverError::Database(inner) => inner.code(),
        _ => None,
    }
}

#[cfg(feature = "postgres")]
const PG_UNIQUE_VIOLATION: &str = "23505";
#[cfg(feature = "postgres")]
const PG_READ_ONLY_SQL_TRANSACTION: &str = "25006";
#[cfg(feature = "postgres")]
const PG_FOREIGN_KEY_VIOLATION: &str = "23503";
#[cfg(feature = "sqlite")]
const SQLITE_CONSTRAINT_FOREIGNKEY: &str = "787";
const PG_DATA_CORRUPTED: &str = "XX001";

/// Whether a row with this key exists in this table. A trigger of others may break a rule of theirs meanwhile, which says nothing of ours.
#[cfg(feature = "postgres")]
pub(super) fn is_unique_violation(error: &DbErr, table: &str) -> bool {
    is_about(error, PG_UNIQUE_VIOLATION, table)
}

/// Whether a row that this table refers to is missing, or is to go while the table refers to it.
#[cfg(feature = "postgres")]
pub(super) fn is_foreign_key_violation(error: &DbErr, table: &str) -> bool {
    is_about(error, PG_FOREIGN_KEY_VIOLATION, table)
}

#[cfg(feature = "postgres")]
fn is_about(error: &DbErr, code: &str, table: &str) -> bool {
    match driver_error(error) {
        Some(DriverError::Database(said)) => {
            said.code().as_deref() == Some(code) && said.table() == Some(table)
        }
        _ => false,
    }
}

/// Whether a row that is referred to is missing, or one that is still referred to was to go. SQLite does not say which.
#[cfg(feature = "sqlite")]
pub(super) fn is_foreign_key_violation_on_sqlite(error: &DbErr) -> bool {
    code(error).as_deref() == Some(SQLITE_CONSTRAINT_FOREIGNKEY)
}

/// Whether this session may only read: after a failover its address led to a standby, or it began as one of a server that was
/// being switched over.
#[cfg(feature = "postgres")]
pub(super) fn is_read_only(error: &DbErr) -> bool {
    code(error).as_deref() == Some(PG_READ_ONLY_SQL_TRANSACTION)
}

/// Whether the same data will be refused again.
fn is_about_data(error: &DbErr) -> bool {
    match driver_error(error) {
        Some(DriverError::Encode(_)) => true,
        Some(DriverError::Database(inner)) => inner.code().is_some_and(|code| {
            if let [_, _, _, _, _] = code.as_bytes() {
                // SQLSTATE classes: data exception, integrity constraint violation, with check option violation, program limit
                // exceeded; what a function raises, and a class that is free for that; and a row that cannot be read.
                let class = &code[..2];
                matches!(class, "22" | "23" | "44" | "45" | "54" | "P0")
                    || code == PG_DATA_CORRUPTED
            } else {
                // SQLite's primary result codes: SQLITE_TOOBIG, SQLITE_CONSTRAINT, SQLITE_MISMATCH.
                matches!(code.parse::<u32>().map(|code| code & 0xff), Ok(18..=20))
            }
        }),
        _ => false,
    }
}

/// Why a connection was not made. That the server refuses this role or does not know this database, or that one end does not
/// accept the other's TLS, does not pass by itself, and is rejected; everything else may.
#[cfg(feature = "postgres")]
pub(super) fn connect_error(error: DbErr) -> StoreError {
    if let Some(DriverError::Database(said)) = driver_error(&error) {
        // SQLSTATE class 28: invalid authorization specification; 3D000: no such database.
        if said
            .code()
            .is_some_and(|code| code.starts_with("28") || code == "3D000")
        {
            return StoreError::Rejected(Box::new(Unsupported::because(said.message())));
        }
    }
    if let Some(driver) = driver_error(&error)
        && (matches!(driver, DriverError::Tls(_)) || crate::tls::failure(driver).is_some())
    {
        return StoreError::Rejected(Box::new(Unsupported::because(driver.to_string())));
    }
    store_error(error)
}

/// What the caller is told: refused for what is in it, or not available.
pub(super) fn store_error(error: DbErr) -> StoreError {
    if is_about_data(&error) {
        StoreError::Rejected(Box::new(error))
    } else {
        StoreError::Unavailable(Box::new(error))
    }
}
