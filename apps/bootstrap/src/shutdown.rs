//! Being asked to stop.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

/// Tells every part of a process that it is to stop. Clones tell the same.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// How much of the time for a stop is kept for its last steps, when everything that was to be waited for has had its time.
#[must_use]
pub fn last_share(deadline: Duration) -> Duration {
    deadline / 5
}

/// Asks a process to stop.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

impl Trigger {
    /// Asks; asking again changes nothing.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// One that is asked by its trigger.
    #[must_use]
    pub fn by_trigger() -> (Trigger, Self) {
        let (sender, receiver) = watch::channel(false);
        (Trigger(sender), Self(receiver))
    }

    /// One that is asked by SIGTERM or SIGINT. A second signal quits the process at once, with exit code 130. SIGHUP, which would end it
    /// at once where nobody listens, asks for nothing but that files be read again, by whoever has one.
    ///
    /// # Errors
    /// When the process cannot listen to signals.
    pub fn by_signals() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let (trigger, shutdown) = Self::by_trigger();
        tokio::spawn(async move {
            let mut asked = false;
            loop {
                let name = tokio::select! {
                    biased;
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if asked {
                    warn!(
                        event = "process.quits",
                        signal = name,
                        "asked again; quitting at once"
                    );
                    std::process::exit(130);
                }
                asked = true;
                info!(
                    event = "process.stops",
                    signal = name,
                    "stopping; a second signal quits at once"
                );
                trigger.stop();
            }
        });
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                info!(
                    event = "process.hangup",
                    "SIGHUP: files of API keys and certificates are read again, where there are any"
                );
            }
        });
        Ok(shutdown)
    }

    /// Comes back when the process is to stop.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut receiver = self.0.clone();
        async move {
            // An error means that the trigger is gone: nobody can ask any more, which is no request.
            if receiver.wait_for(|asked| *asked).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Comes back when the process has been to stop for this long.
    pub fn requested_since(&self, delay: Duration) -> impl Future<Output = ()> + Send + 'static {
        let requested = self.requested();
        async move {
            requested.await;
            sleep(delay).await;
        }
    }

    /// Whether it was requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_reaches_every_clone_even_late_ones() {
        let (trigger, shutdown) = Shutdown::by_trigger();
        let early = shutdown.requested();
        assert!(!shutdown.is_requested());
        trigger.stop();
        early.await;
        shutdown.clone().requested().await;
        assert!(shutdown.is_requested());
    }

    #[tokio::test(start_paused = true)]
    async fn a_trigger_that_is_gone_asks_for_nothing() {
        let (trigger, shutdown) = Shutdown::by_trigger();
        drop(trigger);
        let waited = tokio::time::timeout(std::time::Duration::from_secs(60), shutdown.requested());
        assert!(waited.await.is_err());
    }
}
