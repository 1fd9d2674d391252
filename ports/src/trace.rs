//! Which trace a piece of work belongs to, in the words of W3C Trace Context.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use crate::observer::{ClaimedBy, RunOutcome};
use crate::task::{TaskId, TaskStatus};

/// The longest `tracestate` that is passed on, in bytes. A longer one is left out, which the standard allows.
const STATE_LIMIT: usize = 512;

/// How many members a `tracestate` may have.
const STATE_MEMBERS: usize = 32;

/// A place in a trace: a W3C `traceparent`, with the `tracestate` that came with it. Always valid: what does not parse is no
/// context.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace: [u8; 16],
    span: NonZeroU64,
    is_sampled: bool,
    state: Option<Arc<str>>,
}

impl TraceContext {
    /// A context of these numbers; `None` when one of them is zero, which the standard keeps for 'none'.
    #[must_use]
    pub fn new(trace: u128, span: u64, is_sampled: bool) -> Option<Self> {
        Some(Self {
            trace: (trace != 0).then(|| trace.to_be_bytes())?,
            span: NonZeroU64::new(span)?,
            is_sampled,
            state: None,
        })
    }

    /// Reads a `traceparent`; `None` when it is none. A later version than 00 may be longer, as the standard says.
    #[must_use]
    pub fn parse(traceparent: &str) -> Option<Self> {
        let bytes = traceparent.as_bytes();
        let version = lower_hex(bytes.get(..2)?)?;
        let is_whole = match version {
            0 => bytes.len() == 55,
            0xff => false,
            _ => bytes.len() == 55 || bytes.get(55) == Some(&b'-'),
        };
        let has_dashes = [2, 35, 52]
            .iter()
            .all(|&place| bytes.get(place) == Some(&b'-'));
        if !is_whole || !has_dashes {
            return None;
        }
        let trace = lower_hex(bytes.get(3..35)?)?;
        let span = lower_hex(bytes.get(36..52)?)?;
        let flags = lower_hex(bytes.get(53..55)?)?;
        Self::new(trace, u64::try_from(span).ok()?, flags & 1 == 1)
    }

    /// With this `tracestate`, unless it is empty, is too long, has too many members, or holds what no header may.
    #[must_use]
    pub fn with_state(mut self, tracestate: &str) -> Self {
        let is_fit = !tracestate.is_empty()
            && tracestate.len() <= STATE_LIMIT
            && tracestate.split(',').count() <= STATE_MEMBERS
            && tracestate.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        self.state = is_fit.then(|| tracestate.into());
        self
    }

    /// Another place in the same trace.
    #[must_use]
    pub fn at(&self, span: NonZeroU64, is_sampled: bool) -> Self {
        Self {
            span,
            is_sampled,
            ..self.clone()
        }
    }

    /// The trace.
    #[must_use]
    pub const fn trace_id(&self) -> TraceId {
        TraceId(self.trace)
    }

    /// The span within the trace.
    #[must_use]
    pub const fn span_id(&self) -> NonZeroU64 {
        self.span
    }

    /// Whether the spans of this trace are kept.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.is_sampled
    }

    /// The `traceparent`.
    #[must_use]
    pub fn traceparent(&self) -> String {
        self.to_string()
    }

    /// The `tracestate`, if there is one.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.is_sampled);
        write!(
            formatter,
            "00-{}-{:016x}-{flags:02x}",
            self.trace_id(),
            self.span
        )
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

/// The identity of a trace, shown in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u128 {
        u128::from_be_bytes(self.0)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.get())
    }
}

/// A piece of work that has just ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its place in the trace.
    pub context: TraceContext,
    /// What it was part of; `None` where a trace begins.
    pub parent: Option<TraceContext>,
    /// What was done.
    pub work: Work,
    /// How long it took.
    pub took: Duration,
    /// What went wrong.
    pub error: Option<String>,
}

/// What a [`Span`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Work {
    /// A request was answered.
    Request {
        /// Its method.
        method: String,
        /// Its path, as it came.
        path: String,
        /// The pattern of its route; `None` for one that is not ours.
        route: Option<String>,
        /// The answer's status.
        status: u16,
    },
    /// Tasks of one request were stored: from when they began to wait for a commit until it was durable.
    Submit {
        /// The first of them; `None` when nothing was stored.
        id: Option<TaskId>,
        /// How many.
        count: usize,
    },
    /// A task's message was sent.
    Publish {
        /// The task.
        id: TaskId,
    },
    /// A task was claimed.
    Claim {
        /// The task.
        id: TaskId,
        /// How.
        by: ClaimedBy,
    },
    /// The processing function ran.
    Run {
        /// The task.
        id: TaskId,
        /// Which attempt it was, from 1.
        attempt: u32,
        /// How it ended.
        outcome: RunOutcome,
    },
    /// What came of a run was written.
    Settle {
        /// The task.
        id: TaskId,
        /// Where the task is now; `None` when it had moved before, and the result was dropped.
        status: Option<TaskStatus>,
    },
    /// A result was told to cache and log.
    Announce {
        /// The task.
        id: TaskId,
    },
}

fn lower_hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_comes_back_as_it_was() {
        for text in [
            PARENT,
            "00-0000000000000000000000000000000a-000000000000000b-00",
        ] {
            let context = TraceContext::parse(text).expect("valid");
            assert_eq!(context.traceparent(), text);
            assert_eq!(context.is_sampled(), text.ends_with('1'));
        }
        let later = format!("cc{}-what-the-future-will-be-like", &PARENT[2..]);
        let context = TraceContext::parse(&later).expect("a later version");
        assert_eq!(context.traceparent(), PARENT);
    }

    #[test]
    fn rubbish_is_no_context() {
        let long = PARENT.repeat(1_000);
        for text in [
            "",
            "-",
            "00",
            "é0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
            &long,
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text:.80}");
        }
    }

    #[test]
    fn a_tracestate_is_passed_on_within_limits() {
        let with = |state: &str| {
            let context = TraceContext::parse(PARENT).expect("valid");
            context.with_state(state).tracestate().map(str::to_owned)
        };
        assert_eq!(with("a=1,b=2"), Some("a=1,b=2".into()));
        assert_eq!(with(&"x".repeat(512)), Some("x".repeat(512)));
        for state in ["", "a=\n", "a=é", &"x".repeat(513), &"a=1,".repeat(33)] {
            assert_eq!(with(state), None);
        }
    }
}
