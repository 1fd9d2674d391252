//! `Vary`: on what of a request its answer depends.

use poem::http::{HeaderMap, HeaderValue, header};

/// Adds a name to the list.
pub(crate) fn on(headers: &mut HeaderMap, name: &'static str) {
    let known = headers.get(header::VARY);
    let value = match known.and_then(|known| known.to_str().ok()) {
        None => HeaderValue::from_static(name),
        Some(known) if is_among(known, name) => return,
        // Two lists that may stand in a header may do so together.
        Some(known) => match HeaderValue::try_from(format!("{known}, {name}")) {
            Ok(value) => value,
            Err(_) => return,
        },
    };
    headers.insert(header::VARY, value);
}

fn is_among(list: &str, name: &str) -> bool {
    list.split(',')
        .any(|known| known.trim().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_added_once() {
        let mut headers = HeaderMap::new();
        for (name, expected) in [
            ("Accept", "Accept"),
            ("Origin", "Accept, Origin"),
            ("accept", "Accept, Origin"),
            ("Accept-Encoding", "Accept, Origin, Accept-Encoding"),
        ] {
            on(&mut headers, name);
            assert_eq!(headers[header::VARY], expected);
        }
    }
}
