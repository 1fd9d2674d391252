//! How often each client may ask: a bucket of requests for each, which fills at a steady rate.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use poem::http::{HeaderMap, HeaderName, HeaderValue, header};
use poem::{Request, Response};
use tokio::time::Instant;

use crate::admission::Caller;
use crate::problem::{Kind, Problem};

/// How many buckets are kept that are not full; whoever comes beyond them shares one.
const BUCKETS: usize = 65_536;

/// How often it is looked for full ones at most.
const SWEEP: Duration = Duration::from_secs(1);

/// As draft-ietf-httpapi-ratelimit-headers-10 has them.
pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// How often one client may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests a second, sustained.
    pub per_second: NonZeroU32,
    /// Requests at once, after a pause.
    pub burst: NonZeroU32,
}

impl RateLimit {
    /// In how much time one request is regained.
    fn interval(self) -> Duration {
        Duration::from_secs(1) / self.per_second.get()
    }

    /// In how much time an empty bucket fills.
    fn window(self) -> Duration {
        self.interval() * self.burst.get()
    }
}

/// Who asks, as far as rates tell apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    /// The name of an API key.
    Key(Arc<str>),
    /// Where there are no keys: an address, or the network of one of version 6, which a single client may have whole.
    Address(IpAddr),
    /// Everybody for whom there is no bucket left.
    Crowd,
}

impl Who {
    fn of(request: &Request, caller: &Caller) -> Self {
        if let Some(name) = caller.key() {
            return Self::Key(name);
        }
        match request.remote_addr().as_socket_addr() {
            Some(address) => Self::Address(network(address.ip())),
            None => Self::Crowd,
        }
    }
}

/// The first 64 bits of an address of version 6, and an address of version 4 as it is.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        four => four,
    }
}

/// The buckets of all clients. What is kept of each is when its bucket will be full.
pub(crate) struct Rates {
    limit: RateLimit,
    policy: HeaderValue,
    buckets: Mutex<Buckets>,
}

struct Buckets {
    full_at: HashMap<Who, Instant>,
    room: usize,
    swept: Instant,
}

impl Buckets {
    /// Who is meant where there may be no room for another bucket.
    fn admit(&mut self, who: Who, now: Instant) -> Who {
        if self.full_at.len() < self.room || self.full_at.contains_key(&who) {
            return who;
        }
        if now.duration_since(self.swept) >= SWEEP {
            self.swept = now;
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() < self.room {
                return who;
            }
        }
        Who::Crowd
    }
}

impl Rates {
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self::with_room(limit, BUCKETS)
    }

    fn with_room(limit: RateLimit, room: usize) -> Self {
        let policy = format!(
            "\"default\";q={};w={}",
            limit.burst,
            seconds(limit.window()).max(1)
        );
        Self {
            limit,
            // Digits and letters are valid in a header.
            policy: HeaderValue::try_from(policy)
                .unwrap_or_else(|_| HeaderValue::from_static("\"default\"")),
            buckets: Mutex::new(Buckets {
                full_at: HashMap::new(),
                room,
                swept: Instant::now(),
            }),
        }
    }

    /// Takes a request out of the bucket of whoever sends it.
    pub(crate) fn spend(&self, request: &Request, caller: &Caller) -> Standing {
        self.take(Who::of(request, caller), Instant::now())
    }

    fn take(&self, who: Who, now: Instant) -> Standing {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let who = buckets.admit(who, now);
        let full_at = buckets.full_at.get(&who).map_or(now, |at| (*at).max(now));
        let (interval, window) = (self.limit.interval(), self.limit.window());
        let missing = full_at - now;
        let after = missing + interval;
        if let Some(wait) = after.checked_sub(window).filter(|wait| !wait.is_zero()) {
            return self.standing(0, missing, Some(wait));
        }
        buckets.full_at.insert(who, now + after);
        let left = (window - after).as_nanos() / interval.as_nanos().max(1);
        self.standing(u32::try_from(left).unwrap_or(u32::MAX), after, None)
    }

    fn standing(&self, left: u32, full_in: Duration, wait: Option<Duration>) -> Standing {
        Standing {
            left,
            full_in,
            wait,
            policy: self.policy.clone(),
        }
    }
}

/// Rounded up: who comes back then is let in.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// How a client stands after a request.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    left: u32,
    full_in: Duration,
    /// When to come back; `None` where the request was let in.
    wait: Option<Duration>,
    policy: HeaderValue,
}

impl Standing {
    pub(crate) const fn is_over(&self) -> bool {
        self.wait.is_some()
    }

    /// Tells the client.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        let told = format!("\"default\";r={};t={}", self.left, seconds(self.full_in));
        // Digits and letters are valid in a header.
        if let Ok(told) = HeaderValue::try_from(told) {
            headers.insert(RATE_LIMIT, told);
        }
        headers.insert(RATE_LIMIT_POLICY, self.policy.clone());
    }

    /// The answer to a request that was one too many.
    pub(crate) fn refuse(&self, path: &str) -> Response {
        let wait = seconds(self.wait.unwrap_or_default()).max(1);
        let detail = format!("too many requests; come back in {wait} s");
        let mut response = Problem::new(Kind::RateLimited, detail).respond(path);
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait));
        self.tell(headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(per_second: u32, burst: u32, room: usize) -> Rates {
        let limit = RateLimit {
            per_second: NonZeroU32::new(per_second).expect("not zero"),
            burst: NonZeroU32::new(burst).expect("not zero"),
        };
        Rates::with_room(limit, room)
    }

    fn key(name: &str) -> Who {
        Who::Key(name.into())
    }

    #[test]
    fn a_bucket_is_emptied_at_once_and_fills_at_its_rate() {
        let (rates, start) = (rates(4, 10, 100), Instant::now());
        for left in (0..10).rev() {
            let standing = rates.take(key("a"), start);
            assert!(!standing.is_over());
            assert_eq!(standing.left, left);
        }
        let over = rates.take(key("a"), start);
        assert_eq!(over.wait, Some(Duration::from_millis(250)));
        // A refused request costs nothing.
        assert_eq!(rates.take(key("a"), start).wait, over.wait);
        assert!(!rates.take(key("b"), start).is_over(), "another's bucket");
        let later = start + Duration::from_millis(250);
        assert!(!rates.take(key("a"), later).is_over());
        assert!(rates.take(key("a"), later).is_over());
        let full = start + Duration::from_secs(60);
        assert_eq!(rates.take(key("a"), full).left, 9);
    }

    #[test]
    fn memory_is_bounded_and_those_beyond_it_share_a_bucket() {
        let (rates, start) = (rates(1, 2, 3), Instant::now());
        for name in ["a", "b", "c"] {
            assert!(!rates.take(key(name), start).is_over());
        }
        let crowd = ["d", "e", "f"].map(|name| rates.take(key(name), start).is_over());
        assert_eq!(crowd, [false, false, true]);
        assert_eq!(
            rates.take(key("a"), start).left,
            0,
            "who was there has his own"
        );
        let later = start + Duration::from_secs(10);
        assert_eq!(
            rates.take(key("d"), later).left,
            1,
            "full buckets made room"
        );
        let kept = rates.buckets.lock().expect("not poisoned").full_at.len();
        assert_eq!(kept, 1);
    }

    #[test]
    fn an_address_of_version_6_counts_by_its_network() {
        let of = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }

    #[test]
    fn what_is_told_is_in_the_form_of_the_draft() {
        let (rates, start) = (rates(4, 10, 100), Instant::now());
        let mut headers = HeaderMap::new();
        rates.take(key("a"), start).tell(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"default\";q=10;w=3");
        assert_eq!(headers["ratelimit"], "\"default\";r=9;t=1");
    }
}
