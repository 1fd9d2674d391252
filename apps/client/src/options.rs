//! Limits of a client.

use std::fmt;
use std::time::Duration;

use uuid::Uuid;

/// Limits of a client, and who it is. `Debug` does not show the key.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// Sent as `Authorization: Bearer …`. Default: none.
    pub api_key: Option<String>,
    /// How long one request may take, its answer included. Default 30 s.
    pub timeout: Duration,
    /// How often a request is sent at most. Default 4.
    pub attempts: u32,
    /// The longest wait before the second attempt; doubles with every further one. Default 100 ms.
    pub backoff: Duration,
    /// The longest wait before any attempt, `Retry-After` included. Default 10 s.
    pub backoff_cap: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            api_key: None,
            timeout: Duration::from_secs(30),
            attempts: 4,
            backoff: Duration::from_millis(100),
            backoff_cap: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ClientOptions")
            .field("api_key", &self.api_key.as_ref().map(|_| "…"))
            .field("timeout", &self.timeout)
            .field("attempts", &self.attempts)
            .field("backoff", &self.backoff)
            .field("backoff_cap", &self.backoff_cap)
            .finish()
    }
}

impl ClientOptions {
    /// How long to wait after attempt number `attempt` (from 1): a random part of the backoff, behind what the server asked
    /// for.
    pub(crate) fn pause(&self, attempt: u32, asked: Option<Duration>) -> Duration {
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
        let ceiling = self.backoff.saturating_mul(doubled).min(self.backoff_cap);
        // The end of a UUID of version 7 is random.
        let chance = Uuid::now_v7().as_u64_pair().1 & u64::from(u32::MAX);
        let jitter =
            ceiling.mul_f64(f64::from(u32::try_from(chance).unwrap_or(0)) / f64::from(u32::MAX));
        asked
            .unwrap_or_default()
            .saturating_add(jitter)
            .min(self.backoff_cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_keep_to_what_is_asked_and_stay_under_the_cap() {
        let options = ClientOptions::default();
        for attempt in 1..40 {
            let ceiling = options.backoff * 2_u32.saturating_pow(attempt - 1).min(100);
            assert!(options.pause(attempt, None) <= ceiling, "{attempt}");
            let asked = Duration::from_secs(2);
            assert!(options.pause(attempt, Some(asked)) >= asked);
            assert!(options.pause(attempt, Some(asked)) <= options.backoff_cap);
        }
        let hour = Duration::from_secs(3_600);
        assert_eq!(options.pause(1, Some(hour)), options.backoff_cap);
    }

    #[test]
    fn the_key_is_not_shown() {
        let options = ClientOptions {
            api_key: Some("hunter2".into()),
            ..ClientOptions::default()
        };
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
