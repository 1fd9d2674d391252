//! Who is let in.

use std::path::PathBuf;

use access::ApiKeys;

use super::Reader;

/// The API keys, and the file they come from. `Debug` shows their names alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessSettings {
    /// The keys as they were at the start; none lets everybody in.
    pub keys: ApiKeys,
    /// Where they are read again from.
    pub file: Option<PathBuf>,
}

impl AccessSettings {
    /// Declares and reads them.
    pub(super) fn read(reader: &mut Reader) -> Self {
        let keys = reader.optional_secret(
            "API_KEYS",
            "",
            "name:scopes:hash, separated by commas; never shown",
            "who is let in: keys as task key makes them, of which only the SHA-256 is kept; scopes are submit, read and admin, joined by +",
            parse,
        );
        let file = reader.optional_secret(
            "API_KEYS_FILE",
            "",
            "path",
            "a file with such entries, one a line, in place of API_KEYS; read again on SIGHUP",
            |path| {
                let file = PathBuf::from(path);
                read_file(&file).map(|keys| (keys, file))
            },
        );
        if reader.is_set("API_KEYS") && reader.is_set("API_KEYS_FILE") {
            reader.mistake("API_KEYS", "must not be set when API_KEYS_FILE is");
        }
        match file {
            Some((keys, file)) => Self {
                keys,
                file: Some(file),
            },
            None => Self {
                keys: keys.unwrap_or_default(),
                file: None,
            },
        }
    }
}

/// Reads the keys of a file.
///
/// # Errors
/// What is wrong with the file or with its entries, without showing them.
pub(crate) fn read_file(file: &std::path::Path) -> Result<ApiKeys, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))?;
    parse(&text)
}

/// Who configures keys and has none in the end would let everybody in.
fn parse(text: &str) -> Result<ApiKeys, String> {
    let keys = ApiKeys::parse(text).map_err(|error| error.to_string())?;
    if keys.is_empty() {
        return Err("holds no key".to_owned());
    }
    Ok(keys)
}
