//! Where tasks are stored.

use std::fmt;
use std::net::IpAddr;

use url::Url;

use super::Reader;

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
            "the database; wins over the five settings below",
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
        if let Some(url) = whole {
            return url;
        }
        if let Some(url) = composed(&host, port, &user, &password, &name) {
            return url;
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
        .try_for_each(|(name, value)| check_parameter(&name, &value))
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
    match name {
        "sslmode" | "ssl-mode" => match value {
            "disable" | "allow" | "prefer" => Ok(()),
            "require" | "verify-ca" | "verify-full" => Err(format!(
                "asks for TLS ({name}={value}), which this build does not have; use disable, allow or prefer"
            )),
            _ => Err(format!(
                "has a wrong value for {name}: it must be disable, allow or prefer"
            )),
        },
        "sslrootcert" | "ssl-root-cert" | "ssl-ca" | "sslcert" | "ssl-cert" | "sslkey"
        | "ssl-key" => Err(format!(
            "asks for TLS ({name}), which this build does not have"
        )),
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
                 application_name, options, sslmode and statement-cache-capacity"
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
