//! Where a listing goes on, as text that clients give back and do not read.

use domain::Search;
use domain::ports::{TaskId, Timestamp};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// How many bytes tell a cursor of this search from any other text.
const CHECKED: usize = 8;

/// The place below this id in this search.
pub(crate) fn write(search: &Search, below: TaskId) -> String {
    let check = check(search, below);
    let bytes = below.0.as_bytes().iter().chain(&check);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// `None` for what [`write()`] did not write for this search.
pub(crate) fn read(search: &Search, cursor: &str) -> Option<TaskId> {
    if cursor.len() != 2 * (16 + CHECKED) || !cursor.is_ascii() {
        return None;
    }
    let id = u128::from_str_radix(cursor.get(..32)?, 16).ok()?;
    let id = TaskId(Uuid::from_u128(id));
    // Written again, so that one place has one text.
    (write(search, id) == cursor).then_some(id)
}

/// It is no secret: a cursor gives nobody anything that the same request without it would not.
fn check(search: &Search, below: TaskId) -> [u8; CHECKED] {
    let mut hash = Sha256::new();
    let mut number = |value: Option<i64>| {
        hash.update([u8::from(value.is_some())]);
        hash.update(value.unwrap_or_default().to_be_bytes());
    };
    number(search.priority.map(|priority| i64::from(priority.get())));
    number(search.created_from.map(Timestamp::as_micros));
    number(search.created_before.map(Timestamp::as_micros));
    hash.update(search.status.map_or("", |status| status.as_str()));
    hash.update(below.0.as_bytes());
    let mut check = [0; CHECKED];
    check.copy_from_slice(&hash.finalize()[..CHECKED]);
    check
}

#[cfg(test)]
mod tests {
    use domain::ports::TaskStatus;

    use super::*;

    #[test]
    fn fuzz_cursors() {
        const CURSORS: &[&[u8]] = &[
            b"01890a5dac96774bbcceb302099a80570123456789abcdef",
            b"01890a5dac96774bbcceb302099a8057",
        ];
        let search = Search {
            status: Some(TaskStatus::Failed),
            limit: 10,
            ..Search::default()
        };
        fuzz::run("cursors", &fuzz::text(CURSORS), |text| {
            let read_as = read(&search, &text);
            // What is read is what is written, and what was written is read.
            let again = read_as.map(|id| write(&search, id));
            proptest::prop_assert!(again.is_none_or(|again| again == text));
            if let Some(id) = text
                .get(..32)
                .and_then(|id| u128::from_str_radix(id, 16).ok())
            {
                let id = TaskId(Uuid::from_u128(id));
                proptest::prop_assert_eq!(read(&search, &write(&search, id)), Some(id));
            }
            Ok(())
        });
    }

    #[test]
    fn a_cursor_is_read_by_its_own_search_and_only_whole() {
        let search = Search {
            status: Some(TaskStatus::Done),
            limit: 10,
            ..Search::default()
        };
        let id = TaskId(Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057));
        let cursor = write(&search, id);
        assert_eq!(read(&search, &cursor), Some(id));
        let longer = Search {
            limit: 20,
            ..search
        };
        assert_eq!(read(&longer, &cursor), Some(id));
        let other = Search {
            status: None,
            ..search
        };
        assert_eq!(read(&other, &cursor), None);
        for index in 0..cursor.len() {
            let mut tampered: Vec<char> = cursor.chars().collect();
            tampered[index] = if tampered[index] == '0' { '1' } else { '0' };
            let tampered: String = tampered.into_iter().collect();
            assert_eq!(read(&search, &tampered), None, "{tampered}");
        }
        for rubbish in [
            "",
            "0",
            &cursor[1..],
            &cursor.to_uppercase(),
            &"é".repeat(24),
        ] {
            assert_eq!(read(&search, rubbish), None, "{rubbish}");
        }
    }
}
