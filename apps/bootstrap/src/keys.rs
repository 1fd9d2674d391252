//! API keys that may change while the program runs.

use std::io;

use access::ApiKeys;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info};

use crate::settings::{AccessSettings, read_keys};

/// The keys that are let in from now on. Where they come from a file, SIGHUP has it read again; a file that cannot be read, or has a
/// mistake in it, changes nothing and is told in the log.
///
/// # Errors
/// When the process cannot listen to signals.
pub fn follow(settings: &AccessSettings) -> io::Result<watch::Receiver<ApiKeys>> {
    let sender = watch::Sender::new(settings.keys.clone());
    let keys = sender.subscribe();
    if let Some(file) = settings.file.clone() {
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                replace(&sender, read_keys(&file));
            }
        });
    }
    Ok(keys)
}

fn replace(sender: &watch::Sender<ApiKeys>, read: Result<ApiKeys, String>) {
    match read {
        Ok(keys) => {
            info!(
                event = "access.keys_read",
                keys = keys.len(),
                "the API keys were read again"
            );
            sender.send_replace(keys);
        }
        Err(reason) => error!(
            event = "access.keys_wrong",
            reason, "API_KEYS_FILE is wrong; the keys stay as they were"
        ),
    }
}

#[cfg(test)]
mod tests {
    use access::KeyHash;

    use super::*;

    fn keys(name: &str) -> ApiKeys {
        let hash = KeyHash::of(name);
        ApiKeys::parse(&format!("{name}:read:{hash}")).expect("an entry")
    }

    #[test]
    fn a_file_with_a_mistake_changes_nothing() {
        let sender = watch::Sender::new(keys("old"));
        let seen = sender.subscribe();
        replace(&sender, Err("holds no key".to_owned()));
        assert_eq!(*seen.borrow(), keys("old"));
        replace(&sender, Ok(keys("new")));
        assert_eq!(*seen.borrow(), keys("new"));
    }
}
