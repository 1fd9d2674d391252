//! Who is let in: API keys, and what each may do.

use std::future::{Future, pending};
use std::sync::Arc;

use access::{ApiKey, ApiKeys, Scope};
use poem::http::{HeaderMap, HeaderValue, header};
use poem::{FromRequest, Request, RequestBody, Response};
use tokio::sync::watch;

use crate::problem::{Kind, Problem};

const SCHEME: &str = "Bearer";

/// Who is let in. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Admission {
    keys: watch::Receiver<ApiKeys>,
}

impl Default for Admission {
    /// Everybody, to everything.
    fn default() -> Self {
        Self::by_keys(ApiKeys::default())
    }
}

impl Admission {
    /// Whoever has one of these keys; everybody when there are none.
    #[must_use]
    pub fn by_keys(keys: ApiKeys) -> Self {
        Self::following(watch::Sender::new(keys).subscribe())
    }

    /// Whoever has one of the keys that are now known; they may change at any time.
    #[must_use]
    pub const fn following(keys: watch::Receiver<ApiKeys>) -> Self {
        Self { keys }
    }

    /// Who sends this request, if he may do what needs this scope.
    pub(crate) fn admit(&self, headers: &HeaderMap, needed: Scope) -> Result<Caller, Refusal> {
        let keys = self.keys.borrow();
        if keys.is_empty() {
            return Ok(Caller(None));
        }
        let key = match Presented::in_headers(headers) {
            Presented::Nothing => return Err(Refusal::Missing),
            Presented::Rubbish => return Err(Refusal::Unknown),
            Presented::Secret(secret) => keys.recognise(secret).ok_or(Refusal::Unknown)?,
        };
        if key.allows(needed) {
            Ok(Caller(Some(key.clone())))
        } else {
            Err(Refusal::Scope(needed, key.shared_name()))
        }
    }

    /// Comes back once whoever was let in would be no longer.
    pub(crate) fn revoked(
        &self,
        caller: Caller,
        needed: Scope,
    ) -> impl Future<Output = ()> + Send + use<> {
        let mut keys = self.keys.clone();
        async move {
            let is_revoked = keys
                .wait_for(|keys| !caller.may(keys, needed))
                .await
                .is_ok();
            if !is_revoked {
                // Nobody can change the keys any more.
                pending::<()>().await;
            }
        }
    }
}

/// What a request says of who sends it.
enum Presented<'a> {
    Nothing,
    /// Another scheme, several headers, or no text.
    Rubbish,
    Secret(&'a str),
}

impl<'a> Presented<'a> {
    fn in_headers(headers: &'a HeaderMap) -> Self {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Self::Nothing;
        };
        let secret = value
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME))
            .map(|(_, secret)| secret.trim_matches(' '));
        match secret {
            Some(secret) if values.next().is_none() => Self::Secret(secret),
            _ => Self::Rubbish,
        }
    }
}

/// Who sends a request: whoever has a key, or anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caller(Option<ApiKey>);

impl Caller {
    pub(crate) fn of(request: &Request) -> Self {
        request.data().cloned().unwrap_or_default()
    }

    /// The name of the key, if there is one.
    pub(crate) fn key(&self) -> Option<Arc<str>> {
        self.0.as_ref().map(ApiKey::shared_name)
    }

    /// The name of the key; what no key is named where there is none.
    pub(crate) fn name(&self) -> &str {
        self.0.as_ref().map_or(ApiKey::ANONYMOUS, ApiKey::name)
    }

    /// Whether he is let in by these keys. One by the same name is another when its hash, or what it may do, is.
    fn may(&self, keys: &ApiKeys, needed: Scope) -> bool {
        match &self.0 {
            None => keys.is_empty(),
            Some(own) => keys.iter().any(|key| key == own && key.allows(needed)),
        }
    }
}

impl<'request> FromRequest<'request> for Caller {
    async fn from_request(
        request: &'request Request,
        _body: &mut RequestBody,
    ) -> poem::Result<Self> {
        Ok(Self::of(request))
    }
}

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It brings no key.
    Missing,
    /// It brings something that is no key of ours.
    Unknown,
    /// Its key, of this name, has not this scope.
    Scope(Scope, Arc<str>),
}

impl Refusal {
    /// The words for it in metrics.
    pub(crate) const REASONS: [&'static str; 3] = ["missing", "unknown", "scope"];

    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Scope(..) => "scope",
        }
    }

    /// The name of the key, if it brought one that is known.
    pub(crate) fn key(&self) -> Option<&str> {
        match self {
            Self::Scope(_, key) => Some(key),
            Self::Missing | Self::Unknown => None,
        }
    }

    /// The failures that an operation has because not everybody is let in.
    pub(crate) const KINDS: &'static [Kind] =
        &[Kind::MissingApiKey, Kind::UnknownApiKey, Kind::MissingScope];

    /// The answer, about the path that was asked for.
    pub(crate) fn respond(&self, path: &str) -> Response {
        let problem = match self {
            Self::Missing => Problem::new(
                Kind::MissingApiKey,
                "send an API key as Authorization: Bearer <key>",
            ),
            Self::Unknown => Problem::new(
                Kind::UnknownApiKey,
                "the Authorization header holds no key that is known here",
            ),
            Self::Scope(scope, _) => Problem::new(
                Kind::MissingScope,
                format!("the API key has not the scope {scope}"),
            ),
        };
        let mut response = problem.respond(path);
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, self.challenge());
        response
    }

    /// As RFC 6750, section 3 has it.
    fn challenge(&self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Missing => "Bearer realm=\"task-processor\"",
            Self::Unknown => "Bearer realm=\"task-processor\", error=\"invalid_token\"",
            Self::Scope(Scope::Submit, _) => {
                "Bearer realm=\"task-processor\", error=\"insufficient_scope\", scope=\"submit\""
            }
            Self::Scope(Scope::Read, _) => {
                "Bearer realm=\"task-processor\", error=\"insufficient_scope\", scope=\"read\""
            }
            Self::Scope(Scope::Admin, _) => {
                "Bearer realm=\"task-processor\", error=\"insufficient_scope\", scope=\"admin\""
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use access::KeyHash;

    use super::*;

    fn admit(values: &[&str], needed: Scope) -> Result<Caller, Refusal> {
        let hash = KeyHash::of("secret");
        let keys = ApiKeys::parse(&format!("ci:submit+read:{hash}")).expect("an entry");
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            headers.append(header::AUTHORIZATION, value);
        }
        Admission::by_keys(keys).admit(&headers, needed)
    }

    #[test]
    fn a_key_is_taken_from_one_bearer_header_and_from_nothing_else() {
        for good in ["Bearer secret", "bearer secret", "BEARER  secret "] {
            let caller = admit(&[good], Scope::Read).expect("is let in");
            assert_eq!(caller.name(), "ci", "{good}");
        }
        assert_eq!(admit(&[], Scope::Read), Err(Refusal::Missing));
        for bad in [
            "",
            "secret",
            "Bearer",
            "Bearer ",
            "Bearer:secret",
            "Basic secret",
            "Bearer secrets",
            "Bearer secret, secret",
            "Bearer Secret",
            "Bearer schlüssel",
        ] {
            assert_eq!(admit(&[bad], Scope::Read), Err(Refusal::Unknown), "{bad}");
        }
        let twice = admit(&["Bearer secret", "Bearer secret"], Scope::Read);
        assert_eq!(twice, Err(Refusal::Unknown));
    }

    #[test]
    fn a_key_does_what_its_scopes_say() {
        let with_key = |needed| admit(&["Bearer secret"], needed);
        assert!(with_key(Scope::Submit).is_ok());
        assert_eq!(
            with_key(Scope::Admin),
            Err(Refusal::Scope(Scope::Admin, "ci".into()))
        );
    }

    #[test]
    fn keys_that_change_count_from_the_next_request_on() {
        let entry = |secret| format!("ci:read:{}", KeyHash::of(secret));
        let sender = watch::Sender::new(ApiKeys::default());
        let admission = Admission::following(sender.subscribe());
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        let caller = admission.admit(&headers, Scope::Read).expect("is open");
        assert_eq!(caller.name(), "anonymous");
        sender.send_replace(ApiKeys::parse(&entry("b")).expect("an entry"));
        assert_eq!(
            admission.admit(&headers, Scope::Read),
            Err(Refusal::Unknown)
        );
        sender.send_replace(ApiKeys::parse(&entry("a")).expect("an entry"));
        assert!(admission.admit(&headers, Scope::Read).is_ok());
    }

    #[tokio::test]
    async fn whoever_was_let_in_is_told_when_his_key_is_gone_or_another() {
        let entry = |name, scope, secret| {
            let entry = format!("{name}:{scope}:{}", KeyHash::of(secret));
            ApiKeys::parse(&entry).expect("an entry")
        };
        let sender = watch::Sender::new(entry("ci", "read", "a"));
        let admission = Admission::following(sender.subscribe());
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        let caller = admission.admit(&headers, Scope::Read).expect("is let in");
        let is_told = async || {
            let revoked = admission.revoked(caller.clone(), Scope::Read);
            tokio::time::timeout(std::time::Duration::ZERO, revoked)
                .await
                .is_ok()
        };
        assert!(!is_told().await);
        for (keys, told) in [
            (entry("ci", "read", "b"), true),
            (entry("web", "read", "a"), true),
            (entry("ci", "submit", "a"), true),
            (entry("ci", "read", "a"), false),
        ] {
            sender.send_replace(keys);
            assert_eq!(is_told().await, told, "{:?}", sender.borrow());
        }
    }

    #[test]
    fn every_reason_is_known_to_the_meters() {
        for refusal in [
            Refusal::Missing,
            Refusal::Unknown,
            Refusal::Scope(Scope::Read, "ci".into()),
        ] {
            assert!(Refusal::REASONS.contains(&refusal.reason()), "{refusal:?}");
        }
    }
}
