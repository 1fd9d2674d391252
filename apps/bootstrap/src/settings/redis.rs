//! Where results are remembered.

use std::fmt;

use url::Url;

use super::Reader;
use super::database::mask;

/// Where Redis is. `Debug` masks the password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// Redis's address, password included.
    pub url: String,
}

impl RedisSettings {
    pub(super) fn read(reader: &mut Reader) -> Self {
        reader.section("Redis");
        let whole = reader.optional_secret(
            "REDIS_URL",
            "",
            "redis://user:password@host:port/number",
            "where results are cached; wins over the two settings below",
            |text| check(text).map(|()| text.to_owned()),
        );
        let host = reader.text(
            "REDIS_HOST",
            "localhost",
            "host name or address",
            "where Redis listens",
            |_| Ok(()),
        );
        let port = reader.number("REDIS_PORT", 6_379, 1..=65_535_u16, "port", "its port");
        let url = match whole {
            Some(url) => url,
            None => match composed(&host, port) {
                Some(url) => url,
                None => {
                    reader.mistake(
                        "REDIS_HOST",
                        format!(
                            "must be a host name or an address, but is {}",
                            super::shown(&host)
                        ),
                    );
                    String::new()
                }
            },
        };
        Self { url }
    }

    /// The address with the password masked.
    #[must_use]
    pub fn masked(&self) -> String {
        mask(&self.url)
    }
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RedisSettings")
            .field("url", &self.masked())
            .finish()
    }
}

/// How many bytes of results this process keeps itself.
pub(super) fn read_cache_bytes(reader: &mut Reader) -> usize {
    reader.bytes(
        "CACHE_BYTES",
        32 << 20,
        0..=16 << 30,
        "results this process keeps in its own memory; 0 keeps none",
    )
}

fn check(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    match url.scheme() {
        "redis" if url.host_str().is_none_or(str::is_empty) => {
            Err("does not name a host".to_owned())
        }
        "redis" if !is_database(url.path()) => {
            Err("must end in the number of a database, or in none: redis://host:port/0".to_owned())
        }
        "redis" => Ok(()),
        "rediss" => Err("asks for TLS, which this build does not have; use redis://".to_owned()),
        other => Err(format!("must begin with redis:// but begins with {other}:")),
    }
}

/// Whether the path of an address is none, or the number of a database.
fn is_database(path: &str) -> bool {
    let number = path.strip_prefix('/').unwrap_or(path);
    number.is_empty()
        || (number.bytes().all(|byte| byte.is_ascii_digit()) && number.parse::<u32>().is_ok())
}

fn composed(host: &str, port: u16) -> Option<String> {
    let mut url = Url::parse("redis://localhost").ok()?;
    if host.contains(':') && !host.starts_with('[') {
        url.set_host(Some(&format!("[{host}]"))).ok()?;
    } else {
        url.set_host(Some(host)).ok()?;
    }
    url.set_port(Some(port)).ok()?;
    Some(url.into())
}
