//! A circuit breaker: while the service fails, nobody calls it but one, now and then.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ports::{Event, Observer};
use tokio::time::Instant;

/// What a call says of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It answered, whatever it said of the task.
    Alive,
    /// It could not be reached, did not answer, or failed by itself.
    Failing,
}

/// Closed: every call passes, and `failures` in a row open it. Open: none passes for `pause`. Then half-open: one call
/// passes; if the service is alive the circuit is closed, otherwise open for another pause.
pub(super) struct Circuit {
    failures: u32,
    pause: Duration,
    /// Told while the state is locked, so that it hears of each change in its turn.
    observer: Arc<dyn Observer>,
    state: Mutex<State>,
}

struct State {
    position: Position,
    /// Rises whenever the circuit opens or closes: a call that began before tells nothing of the time since.
    age: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen,
}

/// The right to make one call. Dropped without an end, the call was given up and says nothing.
pub(super) struct Pass<'circuit> {
    circuit: &'circuit Circuit,
    age: u64,
    is_trial: bool,
}

impl Circuit {
    pub(super) fn new(failures: u32, pause: Duration, observer: Arc<dyn Observer>) -> Self {
        Self {
            failures,
            pause,
            observer,
            state: Mutex::new(State {
                position: Position::Closed { failures: 0 },
                age: 0,
            }),
        }
    }

    /// A pass, unless the circuit is open or another call is trying the service.
    pub(super) fn enter(&self) -> Option<Pass<'_>> {
        let mut state = self.state();
        let is_trial = match state.position {
            Position::Closed { .. } => false,
            Position::Open { until } if until <= Instant::now() => {
                state.position = Position::HalfOpen;
                true
            }
            Position::Open { .. } | Position::HalfOpen => return None,
        };
        Some(Pass {
            circuit: self,
            age: state.age,
            is_trial,
        })
    }

    fn note(&self, age: u64, verdict: Verdict) {
        let mut state = self.state();
        if state.age != age {
            return;
        }
        match (state.position, verdict) {
            (Position::Closed { failures }, Verdict::Failing) if failures + 1 < self.failures => {
                state.position = Position::Closed {
                    failures: failures + 1,
                };
            }
            (Position::Closed { .. }, Verdict::Failing) => {
                self.observer.observe(&Event::CircuitOpened {
                    failures: self.failures,
                });
                self.open(&mut state);
            }
            (Position::Closed { .. }, Verdict::Alive) => {
                state.position = Position::Closed { failures: 0 };
            }
            (_, Verdict::Failing) => self.open(&mut state),
            (_, Verdict::Alive) => {
                self.observer.observe(&Event::CircuitClosed);
                state.position = Position::Closed { failures: 0 };
                state.age += 1;
            }
        }
    }

    fn open(&self, state: &mut State) {
        state.position = Position::Open {
            until: Instant::now() + self.pause,
        };
        state.age += 1;
    }

    /// The trial was given up: the next call may be one.
    fn give_up_trial(&self) {
        let mut state = self.state();
        if state.position == Position::HalfOpen {
            state.position = Position::Open {
                until: Instant::now(),
            };
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// The call ended, with this to say of the service.
    pub(super) fn end(mut self, verdict: Verdict) {
        self.is_trial = false;
        self.circuit.note(self.age, verdict);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_trial {
            self.circuit.give_up_trial();
        }
    }
}

#[cfg(test)]
mod tests {
    use ports::NoObserver;

    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);

    fn circuit(failures: u32) -> Circuit {
        Circuit::new(failures, PAUSE, Arc::new(NoObserver))
    }

    fn call(circuit: &Circuit, verdict: Verdict) {
        circuit.enter().expect("a pass").end(verdict);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_one_trial_after_the_pause_closes_it() {
        let circuit = circuit(3);
        call(&circuit, Verdict::Failing);
        call(&circuit, Verdict::Failing);
        call(&circuit, Verdict::Alive);
        call(&circuit, Verdict::Failing);
        call(&circuit, Verdict::Failing);
        assert!(circuit.enter().is_some(), "never three in a row");
        call(&circuit, Verdict::Failing);
        assert!(circuit.enter().is_none());
        tokio::time::advance(PAUSE - Duration::from_millis(1)).await;
        assert!(circuit.enter().is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
        let trial = circuit.enter().expect("one may try");
        assert!(circuit.enter().is_none(), "one alone");
        trial.end(Verdict::Failing);
        assert!(circuit.enter().is_none(), "another pause");
        tokio::time::advance(PAUSE).await;
        call(&circuit, Verdict::Alive);
        let both = (circuit.enter(), circuit.enter());
        assert!(both.0.is_some() && both.1.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_is_given_up_leaves_the_place_to_the_next() {
        let circuit = circuit(1);
        call(&circuit, Verdict::Failing);
        tokio::time::advance(PAUSE).await;
        drop(circuit.enter().expect("one may try"));
        call(&circuit, Verdict::Alive);
        assert!(circuit.enter().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_began_before_it_opened_or_closed_say_nothing() {
        let circuit = circuit(1);
        let (early, late) = (circuit.enter().expect("a"), circuit.enter().expect("b"));
        call(&circuit, Verdict::Failing);
        early.end(Verdict::Alive);
        assert!(
            circuit.enter().is_none(),
            "an old success does not close it"
        );
        tokio::time::advance(PAUSE).await;
        call(&circuit, Verdict::Alive);
        late.end(Verdict::Failing);
        assert!(circuit.enter().is_some(), "an old failure does not open it");
    }
}
