//! The `Idempotency-Key` header, and what makes two requests the same.

use domain::Submission;
use domain::ports::{Fingerprint, RequestKey, Timestamp};
use poem::Request;
use poem::http::HeaderMap;
use poem::web::RequestBody;
use poem_openapi::registry::{MetaParamIn, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use sha2::{Digest, Sha256};

use crate::admission::Caller;
use crate::problem::{FieldError, Kind, Problem};
use crate::schema::text;

const HEADER: &str = "Idempotency-Key";

/// The key that came with a request, if one did, and whose it is.
pub(crate) struct IdempotencyKey {
    key: Option<String>,
    owner: Caller,
}

impl IdempotencyKey {
    /// The whole name of a request of this operation; `None` without a key. Two callers may use the same key.
    pub(crate) fn of(self, operation: &str) -> Result<Option<RequestKey>, Problem> {
        self.key
            .map(|key| RequestKey::new(self.owner.name(), operation, &key))
            .transpose()
            .map_err(|error| invalid(error.to_string()))
    }
}

fn invalid(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::with_errors(
        Kind::InvalidIdempotencyKey,
        "the header Idempotency-Key is invalid",
        vec![FieldError::new(HEADER, detail)],
    )
}

impl<'a> ApiExtractor<'a> for IdempotencyKey {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];

    type ParamType = Option<String>;
    type ParamRawType = String;

    fn register(_registry: &mut Registry) {}

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Header)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        let schema = MetaSchema {
            min_length: Some(1),
            max_length: Some(RequestKey::MAX_LENGTH),
            pattern: Some("^[!-~]+$".to_owned()),
            ..text(
                "From 1 to 255 visible ASCII characters.",
                "8e03978e-40d5-43dd-bc93-6894a57f9324",
            )
        };
        Some(MetaSchemaRef::Inline(Box::new(schema)))
    }

    fn param_raw_type(&self) -> Option<&String> {
        self.key.as_ref()
    }

    /// A header that is no text is as wrong as one that is too long: left aside, the request would be stored twice.
    async fn from_request(
        request: &'a Request,
        _body: &mut RequestBody,
        _options: ExtractParamOptions<Self::ParamType>,
    ) -> poem::Result<Self> {
        Ok(Self {
            key: key_in(request.headers())?,
            owner: Caller::of(request),
        })
    }
}

fn key_in(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(invalid("must come once"));
    }
    match value.to_str() {
        Ok(key) => Ok(Some(key.to_owned())),
        Err(_) => Err(invalid("must be from 1 to 255 visible ASCII characters")),
    }
}

/// What submissions ask for: equal for bodies that mean the same, whatever their spaces and the order of their members.
pub(crate) fn fingerprint(submissions: &[Submission]) -> Fingerprint {
    let mut hash = Sha256::new();
    let mut number = |value: Option<i64>| {
        hash.update([u8::from(value.is_some())]);
        hash.update(value.unwrap_or_default().to_be_bytes());
    };
    for submission in submissions {
        number(i64::try_from(submission.payload.as_str().len()).ok());
        number(Some(i64::from(submission.priority.get())));
        number(submission.run_at.map(Timestamp::as_micros));
        number(submission.max_attempts.map(i64::from));
    }
    for submission in submissions {
        hash.update(submission.payload.as_str());
    }
    Fingerprint(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use domain::ports::{Payload, Priority, Timestamp};

    use super::*;

    fn submission(payload: &str) -> Submission {
        Submission::new(Payload::new(payload).expect("no NUL"))
    }

    #[test]
    fn fuzz_idempotency_keys() {
        const KEYS: &[&[u8]] = &[
            b"8e03978e-40d5-43dd-bc93-6894a57f9324",
            b"\"8e03978e-40d5-43dd-bc93-6894a57f9324\"",
            &[b'k'; RequestKey::MAX_LENGTH],
        ];
        fuzz::run("Idempotency-Key", &fuzz::bytes(KEYS), |bytes| {
            let mut headers = HeaderMap::new();
            let Ok(value) = poem::http::HeaderValue::from_bytes(&bytes) else {
                return Ok(());
            };
            headers.insert(HEADER, value);
            let key = key_in(&headers);
            let text = key.as_ref().ok().cloned().flatten();
            let named = IdempotencyKey {
                key: text.clone(),
                owner: Caller::default(),
            };
            let named = key.and_then(|_| named.of("submit"));
            let is_key = bytes.iter().all(u8::is_ascii_graphic) && (1..=255).contains(&bytes.len());
            proptest::prop_assert_eq!(matches!(named, Ok(Some(_))), is_key);
            if let (Ok(Some(named)), Some(text)) = (named, text) {
                // Nothing of it is lost, and nothing else is taken for it.
                proptest::prop_assert_eq!(named.as_str().rsplit(' ').next(), Some(text.as_str()));
            }
            Ok(())
        });
    }

    #[test]
    fn everything_that_is_asked_for_counts() {
        let plain = fingerprint(&[submission("ab"), submission("c")]);
        assert_eq!(fingerprint(&[submission("ab"), submission("c")]), plain);
        let urgent = Submission {
            priority: Priority::new(1).expect("valid"),
            ..submission("ab")
        };
        let later = Submission {
            run_at: Some(Timestamp::from_micros(0)),
            ..submission("ab")
        };
        let once = Submission {
            max_attempts: Some(0),
            ..submission("ab")
        };
        for others in [
            vec![submission("a"), submission("bc")],
            vec![submission("c"), submission("ab")],
            vec![submission("ab")],
            vec![urgent, submission("c")],
            vec![later, submission("c")],
            vec![once, submission("c")],
        ] {
            assert_ne!(fingerprint(&others), plain, "{others:?}");
        }
    }
}
