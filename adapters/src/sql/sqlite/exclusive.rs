//! The proof that nobody else uses the database file.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use ports::StoreError;

use crate::sql::failure::Unsupported;

/// An exclusive lock on a file beside the database. The operating system gives it free when the process ends, however it
/// ends.
///
/// The database file itself is not locked: SQLite locks parts of it in its own ways, and closing any handle on it would
/// drop them.
pub(super) struct ExclusiveFile {
    _locked: File,
}

impl ExclusiveFile {
    /// Locks `<database>.lock`.
    ///
    /// # Errors
    /// [`StoreError::Rejected`] when someone else holds it, or the file cannot be made; the cause names the file.
    pub(super) fn beside(database: &Path) -> Result<Self, StoreError> {
        let path = lock_path(database);
        let shown = path.display();
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| refused(cannot_open(database, &path, &error)))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _locked: file }),
            Err(TryLockError::WouldBlock) => Err(refused(format!(
                "the database {} is in use by another process, which holds the lock file {shown}",
                database.display()
            ))),
            Err(TryLockError::Error(error)) => Err(refused(format!(
                "the lock file {shown} cannot be locked: {error}"
            ))),
        }
    }
}

/// Most often the whole directory is missing, and the lock file is only the first to notice.
fn cannot_open(database: &Path, lock: &Path, error: &io::Error) -> String {
    let shown = database.display();
    match lock.parent() {
        Some(directory) if error.kind() == io::ErrorKind::NotFound && !directory.is_dir() => {
            format!(
                "the database {shown} cannot be made: the directory {} does not exist",
                directory.display()
            )
        }
        _ => format!(
            "the database {shown} cannot be used: its lock file {} cannot be opened: {error}",
            lock.display()
        ),
    }
}

/// Beside the file itself, wherever links lead.
fn lock_path(database: &Path) -> PathBuf {
    let real = database
        .canonicalize()
        .unwrap_or_else(|_| database.to_owned());
    let mut path = OsString::from(real);
    path.push(".lock");
    PathBuf::from(path)
}

fn refused(reason: String) -> StoreError {
    StoreError::Rejected(Box::new(Unsupported::because(reason)))
}
