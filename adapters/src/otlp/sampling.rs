//! Which traces are kept.

use ports::TraceContext;

/// A part of the whole, from nothing to all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// All of it.
    pub const ALL: Self = Self(1 << 63);

    /// A number from 0 to 1; `None` for any other.
    #[must_use]
    pub fn of(share: f64) -> Option<Self> {
        // Of a number that is refused the cast makes something, too, and nobody sees it.
        let part = Self((share * Self::ALL.0 as f64) as u64);
        (0.0..=1.0).contains(&share).then_some(part)
    }

    /// Whether a trace belongs to it. All programs of one share agree, as do those of others who follow the specification of
    /// `TraceIdRatioBased`: the number of a trace decides.
    fn contains(self, trace: u128) -> bool {
        // Its lower half is the random one.
        let lower = trace as u64;
        lower >> 1 < self.0
    }
}

/// Which traces are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Whether the decision of the caller is followed where there is one.
    pub follows_parent: bool,
    /// Of the others, which share.
    pub share: Share,
}

impl Sampling {
    pub(super) fn keeps(&self, parent: Option<&TraceContext>, trace: u128) -> bool {
        match parent.filter(|_| self.follows_parent) {
            Some(parent) => parent.is_sampled(),
            None => self.share.contains(trace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeps(follows_parent: bool, share: f64, parent: Option<bool>, trace: u128) -> bool {
        let share = Share::of(share).expect("from 0 to 1");
        let sampling = Sampling {
            follows_parent,
            share,
        };
        let parent = parent.and_then(|is_sampled| TraceContext::new(trace, 1, is_sampled));
        sampling.keeps(parent.as_ref(), trace)
    }

    #[test]
    fn the_callers_decision_is_followed_where_it_is_to_be() {
        for (follows, share, parent, expected) in [
            (true, 0.0, Some(true), true),
            (true, 1.0, Some(false), false),
            (true, 0.0, None, false),
            (true, 1.0, None, true),
            (false, 0.0, Some(true), false),
            (false, 1.0, Some(false), true),
        ] {
            for trace in [1, u128::MAX] {
                let kept = keeps(follows, share, parent, trace);
                assert_eq!(kept, expected, "{follows} {share} {parent:?} {trace}");
            }
        }
    }

    #[test]
    fn a_share_is_kept_by_the_lower_half_of_the_number() {
        let half = u128::from(u64::MAX / 2);
        for upper in [0, 7_u128 << 64] {
            assert!(keeps(true, 0.5, None, upper + half));
            assert!(!keeps(true, 0.5, None, upper + half + 1));
        }
    }

    #[test]
    fn a_share_is_from_0_to_1() {
        for wrong in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Share::of(wrong), None);
        }
        assert_eq!(Share::of(1.0), Some(Share::ALL));
        assert_eq!(Share::of(0.0), Some(Share::NONE));
    }
}
