//! The text of a failure as it is kept with the task.

/// The longest error text that is kept, in bytes.
pub const MAX_BYTES: usize = 4_096;

/// Makes any text fit to be kept: control characters other than newline and tab are replaced by spaces (PostgreSQL
/// cannot store NUL, terminals obey the others), and it is cut at [`MAX_BYTES`] on a character boundary.
#[must_use]
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len().min(MAX_BYTES));
    for character in text.chars() {
        let kept = match character {
            '\n' | '\t' => character,
            other if other.is_control() => ' ',
            other => other,
        };
        if cleaned.len() + kept.len_utf8() > MAX_BYTES {
            break;
        }
        cleaned.push(kept);
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_spaces() {
        assert_eq!(clean("a\0b\u{1b}[31mc\n\td"), "a b [31mc\n\td");
    }

    #[test]
    fn long_text_is_cut_on_a_character_boundary() {
        let cleaned = clean(&"é".repeat(MAX_BYTES));
        assert_eq!(cleaned.len(), MAX_BYTES);
        let odd = clean(&format!("a{}", "é".repeat(MAX_BYTES)));
        assert_eq!(odd.len(), MAX_BYTES - 1);
    }
}
