//! How a connection to Kafka is protected.

use std::fmt;
use std::path::PathBuf;

/// What is spoken with the brokers beneath Kafka's own protocol. Default: nothing, and no name is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaSecurity {
    /// TLS, and whom it trusts.
    pub tls: Option<KafkaTls>,
    /// By what name we go in.
    pub login: Option<KafkaLogin>,
}

impl KafkaSecurity {
    /// The name that Kafka gives to the combination.
    #[must_use]
    pub const fn protocol(&self) -> &'static str {
        match (&self.tls, &self.login) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.tls.is_none() && self.login.is_none()
    }
}

/// Whom TLS trusts, and who we are to it. The name in a broker's certificate must be the one it is reached by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaTls {
    /// A file of certificates, in PEM, one of which must have signed the brokers'; `None`: those that the system trusts.
    pub root_certificates: Option<PathBuf>,
    /// Our own certificate, for brokers that ask for one.
    pub identity: Option<KafkaIdentity>,
}

/// The files of a certificate, with those between it and its root, and of its private key, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaIdentity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A name and its password. `Debug` leaves the password out.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaLogin {
    /// How the password is proven.
    pub mechanism: SaslMechanism,
    /// The name.
    pub username: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for KafkaLogin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KafkaLogin")
            .field("mechanism", &self.mechanism)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// How a password is proven to a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// By telling it.
    Plain,
    /// Without telling it, with SHA-256.
    ScramSha256,
    /// Without telling it, with SHA-512.
    ScramSha512,
}

impl SaslMechanism {
    /// The name that Kafka gives it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_has_its_name_and_no_password_is_shown() {
        let login = KafkaLogin {
            mechanism: SaslMechanism::ScramSha256,
            username: "task".into(),
            password: "hunter2".into(),
        };
        for (tls, login, name) in [
            (None, None, "plaintext"),
            (Some(KafkaTls::default()), None, "ssl"),
            (None, Some(login.clone()), "sasl_plaintext"),
            (Some(KafkaTls::default()), Some(login), "sasl_ssl"),
        ] {
            let security = KafkaSecurity { tls, login };
            assert_eq!(security.protocol(), name);
            assert_eq!(security.is_none(), name == "plaintext");
            assert!(!format!("{security:?}").contains("hunter2"));
        }
    }
}
