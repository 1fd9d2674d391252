//! Signing after the Standard Webhooks specification, version 1.0.0
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

const PREFIX: &str = "whsec_";

/// What requests are signed with: `whsec_` and the base64 of 24 to 64 random bytes. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(Vec<u8>);

/// The text is no secret that can be signed with. Does not repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be whsec_ and the base64 of 24 to 64 bytes")]
pub struct InvalidSecret;

impl FromStr for SigningSecret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(InvalidSecret)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| InvalidSecret)?;
        if (24..=64).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(InvalidSecret)
        }
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SigningSecret(…)")
    }
}

/// The value of `webhook-signature`: one signature for each secret, in their order, separated by spaces.
pub(super) fn sign_with_all(
    secrets: &[SigningSecret],
    id: &str,
    timestamp: &str,
    body: &[u8],
) -> String {
    let signatures: Vec<String> = secrets
        .iter()
        .map(|secret| sign(secret, id, timestamp, body))
        .collect();
    signatures.join(" ")
}

fn sign(SigningSecret(key): &SigningSecret, id: &str, timestamp: &str, body: &[u8]) -> String {
    // HMAC takes a key of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return String::new();
    };
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sample that the libraries of Standard Webhooks test themselves with.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn signs_as_the_specification_says() {
        let secret: SigningSecret = SECRET.parse().expect("a secret");
        let secrets = [secret.clone(), secret];
        let body = br#"{"test": 2432232314}"#;
        let signed = sign_with_all(&secrets[..1], ID, "1614265330", body);
        assert_eq!(signed, SIGNATURE);
        let twice = sign_with_all(&secrets, ID, "1614265330", body);
        assert_eq!(twice, format!("{SIGNATURE} {SIGNATURE}"));
    }

    #[test]
    fn fuzz_secrets() {
        const SECRETS: &[&[u8]] = &[SECRET.as_bytes()];
        fuzz::run("secrets", &fuzz::text(SECRETS), |text| {
            if let Ok(SigningSecret(bytes)) = text.parse() {
                // One way to write a secret: what is read is what was configured.
                proptest::prop_assert_eq!(format!("{PREFIX}{}", STANDARD.encode(bytes)), text);
            }
            Ok(())
        });
    }

    #[test]
    fn a_secret_has_its_prefix_and_its_length_and_is_never_shown() {
        let of_bytes = |length: usize| format!("{PREFIX}{}", STANDARD.encode(vec![7; length]));
        for (text, is_secret) in [
            (SECRET.to_owned(), true),
            (of_bytes(24), true),
            (of_bytes(64), true),
            (of_bytes(23), false),
            (of_bytes(65), false),
            (SECRET.replace(PREFIX, ""), false),
            (format!("{PREFIX}hunter2!"), false),
            (String::new(), false),
        ] {
            let parsed = text.parse::<SigningSecret>();
            assert_eq!(parsed.is_ok(), is_secret, "{text}");
            if let Ok(secret) = parsed {
                assert_eq!(format!("{secret:?}"), "SigningSecret(…)");
            }
        }
    }
}
