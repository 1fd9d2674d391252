//! Where tasks are stored.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use url::Url;

use super::Reader;
use super::tls::{check_authorities, check_chain, check_key, read_authorities};

/// A PostgreSQL database. `Debug` masks the password.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// The address, password included.
    pub url: String,
    /// Connections the pool may hold.
    pub pool: u32,
}

impl PostgresSettings {
    pub(super) fn read(reader: &mut Reader, default_pool: u32) -> Self {
        let url = Self::read_url(reader);
        let pool = reader.number(
            "DATABASE_POOL",
            default_pool,
            1..=1_000,
            "connections",
            "connections this process may hold to PostgreSQL",
        );
        Self { url, pool }
    }

    /// The address alone, for a program that needs one connection.
    pub(super) fn read_url(reader: &mut Reader) -> String {
        reader.section("PostgreSQL");
        let whole = reader.optional_secret(
            "DATABASE_URL",
            "",
            "postgres://user:password@host:port/name",
            "the database; wins over the five settings below it",
            |text| check_postgres(text).map(|()| text.to_owned()),
        );
        let host = reader.text(
            "DATABASE_HOST",
            "localhost",
            "host name, address, or directory of a socket",
            "where PostgreSQL listens",
            |_| Ok(()),
        );
        let port = reader.number("DATABASE_PORT", 5_432, 1..=65_535_u16, "port", "its port");
        let user = reader.text(
            "DATABASE_USER",
            "task",
            "name",
            "the role to log in as",
            |_| Ok(()),
        );
        let password = reader.secret(
            "DATABASE_PASSWORD",
            "task",
            "text, never shown",
            "its password",
        );
        let name = reader.text(
            "DATABASE_NAME",
            "taskdb",
            "name",
            "the database's name",
            |_| Ok(()),
        );
        let encryption = Encryption::read(reader);
        if let Some(url) = whole {
            return encryption.added_to(url, reader);
        }
        if let Some(url) = composed(&host, port, &user, &password, &name) {
            return encryption.added_to(url, reader);
        }
        reader.mistake(
            "DATABASE_HOST",
            format!(
                "must be a host name or an address, but is {}",
                super::shown(&host)
            ),
        );
        String::new()
    }

    /// The address with the password masked.
    #[must_use]
    pub fn masked(&self) -> String {
        mask(&self.url)
    }
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PostgresSettings")
            .field("url", &self.masked())
            .field("pool", &self.pool)
            .finish()
    }
}

const SSL_MODE: &str = "DATABASE_SSL_MODE";
const SSL_ROOT_CERT: &str = "DATABASE_SSL_ROOT_CERT";

/// Whether the connection is encrypted and the server proves who it is, in the words of PostgreSQL's own clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SslMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

const SSL_MODES: [(&str, SslMode); 5] = [
    ("disable", SslMode::Disable),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

/// How an address names the same things. The driver knows each by several names.
const MODE_PARAMETERS: [&str; 2] = ["sslmode", "ssl-mode"];
const ROOT_PARAMETERS: [&str; 3] = ["sslrootcert", "ssl-root-cert", "ssl-ca"];
const CERTIFICATE_PARAMETERS: [&str; 2] = ["sslcert", "ssl-cert"];
const KEY_PARAMETERS: [&str; 2] = ["sslkey", "ssl-key"];

/// The two settings beside the address.
struct Encryption {
    mode: SslMode,
    root: Option<PathBuf>,
}

impl Encryption {
    fn read(reader: &mut Reader) -> Self {
        Self {
            mode: reader.choice(
                SSL_MODE,
                SslMode::Prefer,
                &SSL_MODES,
                "whether to speak TLS, as sslmode of libpq; prefer: where the server offers it, whoever that is",
            ),
            root: read_authorities(
                reader,
                SSL_ROOT_CERT,
                "certificates in PEM, one of which must have signed PostgreSQL's; besides those that the system trusts",
            ),
        }
    }

    /// The address with these settings in it. What both say is refused, because either could be meant.
    fn added_to(&self, address: String, reader: &mut Reader) -> String {
        let Ok(mut url) = Url::parse(&address) else {
            return address;
        };
        let given = |names: &[&str]| {
            url.query_pairs()
                .filter(|(name, _)| names.contains(&name.as_ref()))
                .map(|(_, value)| value.into_owned())
                .last()
        };
        let (mode, root) = (given(&MODE_PARAMETERS), given(&ROOT_PARAMETERS));
        for (setting, parameter, in_address) in [
            (SSL_MODE, "sslmode", mode.is_some()),
            (SSL_ROOT_CERT, "sslrootcert", root.is_some()),
        ] {
            if in_address && reader.is_set(setting) {
                reader.mistake(
                    setting,
                    format!("is set, and so is {parameter} in DATABASE_URL; leave one of them out"),
                );
            }
        }
        let word = mode.as_deref().unwrap_or_else(|| word_of(self.mode));
        let named = root.is_some() || self.root.is_some();
        match word {
            "verify-ca" | "verify-full" => {}
            // As libpq does it. The driver would take any certificate.
            "require" if named => {
                url.query_pairs_mut().append_pair("sslmode", "verify-ca");
            }
            _ if named => {
                let setting = if root.is_some() {
                    "DATABASE_URL"
                } else {
                    SSL_ROOT_CERT
                };
                reader.mistake(
                    setting,
                    format!(
                        "names root certificates, which nothing is checked against with sslmode {word}; \
                         use verify-full or verify-ca"
                    ),
                );
            }
            _ => {}
        }
        if mode.is_none() && self.mode != SslMode::Prefer && !(word == "require" && named) {
            url.query_pairs_mut().append_pair("sslmode", word);
        }
        if let Some(path) = self.root.as_deref().and_then(Path::to_str) {
            url.query_pairs_mut().append_pair("sslrootcert", path);
        }
        url.into()
    }
}

fn word_of(mode: SslMode) -> &'static str {
    let known = SSL_MODES.iter().find(|(_, known)| *known == mode);
    known.map_or("prefer", |(word, _)| word)
}

/// The SQLite file of the embedded form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedDatabase {
    /// `sqlite://` and a path.
    pub url: String,
}

impl EmbeddedDatabase {
    pub(super) fn read(reader: &mut Reader) -> Self {
        const DEFAULT: &str = "sqlite://task-processor.db";

        reader.section("Storage");
        let url = reader
            .optional_secret(
                "DATABASE_URL",
                DEFAULT,
                "sqlite://path",
                "the file that holds the tasks; made if it does not exist",
                |text| check_sqlite(text).map(|()| text.to_owned()),
            )
            .unwrap_or_else(|| DEFAULT.to_owned());
        Self { url }
    }
}

fn check_postgres(text: &str) -> Result<(), String> {
    if text.starts_with("sqlite:") {
        return Err(
            "names SQLite, which several processes cannot share; task-processor is the program for SQLite".to_owned(),
        );
    }
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(format!(
            "must begin with postgres:// but begins with {}:",
            url.scheme()
        ));
    }
    if url.path().trim_start_matches('/').is_empty() {
        return Err("does not name a database: postgres://user:password@host:port/name".to_owned());
    }
    url.query_pairs()
        .try_for_each(|(name, value)| check_parameter(&name, &value))?;
    let names = |names: &[&str]| {
        url.query_pairs()
            .any(|(name, _)| names.contains(&name.as_ref()))
    };
    if names(&CERTIFICATE_PARAMETERS) == names(&KEY_PARAMETERS) {
        Ok(())
    } else {
        Err("must name both sslcert and sslkey, or neither".to_owned())
    }
}

/// Checks a parameter behind the `?` of an address. The driver would ignore one that it does not know, or fail on its value
/// while the program waits for the database. Values are shown only where they cannot be secret.
fn check_parameter(name: &str, value: &str) -> Result<(), String> {
    let number = |valid: bool| {
        if valid {
            Ok(())
        } else {
            Err(format!(
                "has a wrong value for the parameter {}",
                super::shown(name)
            ))
        }
    };
    let file = |check: fn(&Path) -> Result<(), String>| {
        check(Path::new(value)).map_err(|reason| format!("names a file in {name} that {reason}"))
    };
    match name {
        "sslmode" | "ssl-mode" => match value {
            "disable" | "allow" | "prefer" | "require" | "verify-ca" | "verify-full" => Ok(()),
            _ => Err(format!(
                "has a wrong value for {name}: it must be disable, allow, prefer, require, verify-ca or verify-full"
            )),
        },
        "sslrootcert" | "ssl-root-cert" | "ssl-ca" => file(check_authorities),
        "sslcert" | "ssl-cert" => file(check_chain),
        "sslkey" | "ssl-key" => file(check_key),
        "port" => number(value.parse::<u16>().is_ok_and(|port| port != 0)),
        "hostaddr" => number(value.parse::<IpAddr>().is_ok()),
        "statement-cache-capacity" => number(value.parse::<usize>().is_ok()),
        "host" | "dbname" | "user" | "password" | "application_name" | "options" => Ok(()),
        _ if name.starts_with("options[") && name.ends_with(']') => Ok(()),
        _ => {
            // An address that was pasted twice has its password where a name should be.
            let is_name = name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            let which = if is_name {
                format!("the parameter {}", super::shown(name))
            } else {
                "a parameter".to_owned()
            };
            Err(format!(
                "has {which}, which is not known; known are host, hostaddr, port, dbname, user, password, \
                 application_name, options, sslmode, sslrootcert, sslcert, sslkey and statement-cache-capacity"
            ))
        }
    }
}

fn check_sqlite(text: &str) -> Result<(), String> {
    let Some(rest) = text.strip_prefix("sqlite:") else {
        return Err(if text.starts_with("postgres") {
            format!("names PostgreSQL; {DISTRIBUTED}")
        } else {
            "must begin with sqlite://".to_owned()
        });
    };
    let path = rest.trim_start_matches("//");
    if path.is_empty() || path.starts_with(":memory:") || path.contains("mode=memory") {
        return Err("must name a file: a database in memory forgets accepted tasks".to_owned());
    }
    Ok(())
}

/// What the embedded program says when it is given the settings of the distributed ones.
pub(super) const DISTRIBUTED: &str = "task-processor keeps everything in one SQLite file; the programs for PostgreSQL, Kafka \
     and Redis are task-processor-server and task-processor-worker";

fn composed(host: &str, port: u16, user: &str, password: &str, name: &str) -> Option<String> {
    let mut url = Url::parse("postgres://localhost").ok()?;
    if host.starts_with('/') {
        url.query_pairs_mut().append_pair("host", host);
    } else if host.contains(':') && !host.starts_with('[') {
        url.set_host(Some(&format!("[{host}]"))).ok()?;
    } else {
        url.set_host(Some(host)).ok()?;
    }
    url.set_port(Some(port)).ok()?;
    url.set_username(user).ok()?;
    url.set_password(Some(password)).ok()?;
    url.path_segments_mut().ok()?.clear().push(name);
    Some(url.into())
}

/// An address with its password replaced by `***`.
#[must_use]
pub(crate) fn mask(text: &str) -> String {
    match Url::parse(text) {
        Ok(mut url) => {
            if url.password().is_some() && url.set_password(Some("***")).is_err() {
                return "***".to_owned();
            }
            // Some drivers take the password as a query parameter too.
            url.set_query(None);
            url.into()
        }
        Err(_) => "***".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_settings_become_one_address() {
        for (host, user, password, name, expected) in [
            (
                "localhost",
                "task",
                "task",
                "taskdb",
                "postgres://task:task@localhost:5432/taskdb",
            ),
            ("::1", "u", "p", "d", "postgres://u:p@[::1]:5432/d"),
            (
                "db",
                "a@b",
                "p/w:x@?#",
                "n/m",
                "postgres://a%40b:p%2Fw%3Ax%40%3F%23@db:5432/n%2Fm",
            ),
            (
                "/run/pg",
                "u",
                "p",
                "d",
                "postgres://u:p@localhost:5432/d?host=%2Frun%2Fpg",
            ),
        ] {
            let url = composed(host, 5_432, user, password, name);
            assert_eq!(url.as_deref(), Some(expected));
        }
    }

    #[test]
    fn passwords_are_masked() {
        for (url, expected) in [
            (
                "postgres://task:s3cret@db/taskdb",
                "postgres://task:***@db/taskdb",
            ),
            (
                "postgres://task@db/taskdb?password=s3cret",
                "postgres://task@db/taskdb",
            ),
            ("redis://:s3cret@cache:6379", "redis://:***@cache:6379"),
            ("s3cret", "***"),
        ] {
            assert_eq!(mask(url), expected);
        }
    }
}
