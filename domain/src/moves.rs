//! Moving tasks together, so that one whose move the store refuses stops no other.

use ports::{StoreError, Transition, TransitionOutcome};

use crate::{Ports, tell_of_refusal};

/// Moves tasks. A batch that the store refuses for its data is halved until the culprit stands alone. Answers, in the order of the
/// moves, what came of each; `None` is a move that the store refuses, which was told of.
///
/// While the store is unavailable it answers with that error, and may have made some of the moves; repeating them tells of those.
pub(crate) async fn move_each(
    ports: &Ports,
    doing: &'static str,
    moves: &[Transition],
) -> Result<Vec<Option<TransitionOutcome>>, StoreError> {
    let mut outcomes = Vec::with_capacity(moves.len());
    // The next stands last.
    let mut parts = vec![moves];
    while let Some(part) = parts.pop() {
        match ports.store.transition(part).await {
            Ok(moved) => outcomes.extend(moved.into_iter().map(Some)),
            Err(error) if error.is_transient() => return Err(error),
            Err(_) if part.len() > 1 => {
                let (first, rest) = part.split_at(part.len() / 2);
                parts.extend([rest, first]);
            }
            Err(error) => {
                tell_of_refusal(&*ports.observer, doing, &error);
                outcomes.resize(outcomes.len() + part.len(), None);
            }
        }
    }
    Ok(outcomes)
}
