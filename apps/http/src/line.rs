//! The connections in the order in which they have to go when there is no place for another.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Duration, Instant};

use crate::pulse::Pulse;

/// Every open connection, the longest unused one first.
///
/// The order is put right only when somebody has to go: what was used since goes back to where it belongs, and what is in use
/// stands aside until it is not. So a request costs nothing here, and one who goes costs little, however many stay.
pub(crate) struct Line {
    opened: Instant,
    standing: Mutex<Standing>,
}

#[derive(Default)]
struct Standing {
    next: u64,
    /// By when each was last known to be used, and its number.
    by_use: BTreeMap<(u64, u64), Arc<Pulse>>,
    /// Under which time each stands there; those that stand aside do not.
    since: BTreeMap<u64, u64>,
}

impl Standing {
    fn insert(&mut self, pulse: &Arc<Pulse>) {
        let used = pulse.used();
        self.since.insert(pulse.number, used);
        self.by_use.insert((used, pulse.number), Arc::clone(pulse));
    }

    fn remove(&mut self, number: u64) {
        if let Some(used) = self.since.remove(&number) {
            self.by_use.remove(&(used, number));
        }
    }
}

impl Line {
    pub(crate) fn new() -> Self {
        Self {
            opened: Instant::now(),
            standing: Mutex::default(),
        }
    }

    /// A connection that begins; it stands in line until what is returned is dropped.
    pub(crate) fn join(self: &Arc<Self>) -> Member {
        let mut standing = self.lock();
        let number = standing.next;
        standing.next += 1;
        let pulse = Arc::new(Pulse::new(Arc::clone(self), number));
        standing.insert(&pulse);
        Member(pulse, Arc::clone(self))
    }

    /// Asks the one that has been unused longest to leave; says whether there is one. It is not asked again.
    pub(crate) fn send_one_away(&self) -> bool {
        let mut standing = self.lock();
        while let Some(((since, number), pulse)) = standing.by_use.pop_first() {
            standing.since.remove(&number);
            if !pulse.is_unused() {
                pulse.aside.store(true, Ordering::SeqCst);
                if !pulse.is_unused() {
                    continue;
                }
                pulse.aside.store(false, Ordering::SeqCst);
            }
            if pulse.used() > since {
                standing.insert(&pulse);
                continue;
            }
            pulse.send_away();
            return true;
        }
        false
    }

    /// One that stood aside, and is unused.
    pub(crate) fn take_back(&self, pulse: &Arc<Pulse>) {
        let mut standing = self.lock();
        if pulse.aside.swap(false, Ordering::SeqCst) {
            standing.insert(pulse);
        }
    }

    /// The time in microseconds since the line was opened.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The moment of such a time.
    pub(crate) fn moment(&self, micros: u64) -> Instant {
        self.opened + Duration::from_micros(micros)
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        // Nothing in between could panic.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that stands in line.
pub(crate) struct Member(pub(crate) Arc<Pulse>, Arc<Line>);

impl Drop for Member {
    fn drop(&mut self) {
        let mut standing = self.1.lock();
        // What is still written of it ends later, and must not come back.
        self.0.aside.store(false, Ordering::SeqCst);
        standing.remove(self.0.number);
    }
}

#[cfg(test)]
mod tests {
    use poem::http::Version;
    use tokio::time::advance;

    use super::*;

    /// Who is asked to leave, by number.
    async fn sent_away(members: &[Member]) -> Vec<u64> {
        let mut sent = Vec::new();
        for Member(pulse, _) in members {
            let asked = tokio::time::timeout(Duration::ZERO, pulse.sent_away()).await;
            if asked.is_ok() {
                sent.push(pulse.number);
            }
        }
        sent
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_unused_goes_and_none_that_is_in_use() {
        let line = Arc::new(Line::new());
        let mut members: Vec<Member> = (0..5).map(|_| line.join()).collect();
        let busy = members[0].0.begin(Version::HTTP_11);
        members[1].0.set_stuck(true);
        advance(Duration::from_secs(1)).await;
        drop(members[2].0.begin(Version::HTTP_11));
        assert!(line.send_one_away());
        assert_eq!(sent_away(&members).await, [3]);
        assert!(line.send_one_away() && line.send_one_away());
        assert_eq!(sent_away(&members).await, [2, 4]);
        assert!(!line.send_one_away(), "who is in use stays");
        advance(Duration::from_secs(1)).await;
        drop(busy);
        members[1].0.set_stuck(false);
        assert!(line.send_one_away());
        // It was used by nobody since it began.
        assert_eq!(sent_away(&members).await, [1]);
        drop(members.remove(0));
        assert!(!line.send_one_away(), "who has gone is not asked");
    }

    #[tokio::test]
    async fn a_request_that_outlives_its_connection_does_not_bring_it_back() {
        let line = Arc::new(Line::new());
        let member = line.join();
        let request = member.0.begin(Version::HTTP_2);
        assert!(!line.send_one_away());
        drop(member);
        drop(request);
        assert!(!line.send_one_away());
    }
}
