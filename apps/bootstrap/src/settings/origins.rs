//! The other origins whose pages may use the API.

use url::Url;

use super::{Reader, shown};

/// Stands for every origin.
const ANY: &str = "*";

/// Declares and reads them, as browsers write them.
pub(super) fn read(reader: &mut Reader) -> Vec<String> {
    let list = reader.text(
        "CORS_ALLOWED_ORIGINS",
        "",
        "origins separated by commas, or *",
        "the other origins whose pages browsers let use the API, like https://app.example; * is every one. None: no page of another origin",
        |text| {
            if origins(text).next().is_none() {
                return Err("must name at least one origin".to_owned());
            }
            if text.trim() == ANY {
                return Ok(());
            }
            origins(text).try_for_each(check)
        },
    );
    origins(&list).map(ToOwned::to_owned).collect()
}

fn origins(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|origin| !origin.is_empty())
}

/// Browsers send an origin in one spelling, and it is compared as it is.
fn check(origin: &str) -> Result<(), String> {
    // The address of a host may hold one, and then it would match nothing.
    if origin.contains(ANY) {
        return Err("must be * alone, or origins without it".to_owned());
    }
    let written = Url::parse(origin)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .map(|url| url.origin().ascii_serialization());
    match written {
        Some(written) if written == origin => Ok(()),
        Some(written) => Err(format!(
            "must name origins as browsers write them ({} is {} there)",
            shown(origin),
            shown(&written)
        )),
        None => Err(format!(
            "must name origins like https://app.example or http://localhost:5173 (of which {} is none)",
            shown(origin)
        )),
    }
}
