//! Where results are remembered.

use std::fmt;
use std::path::PathBuf;

use url::Url;

use super::Reader;
use super::database::mask;
use super::tls::read_authorities;

const TLS: &str = "REDIS_TLS";
const TLS_CA: &str = "REDIS_TLS_CA_CERT_FILE";

/// Where Redis is. `Debug` masks the password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// Redis's address, password included.
    pub url: String,
    /// With TLS: the certificates one of which must have signed Redis's, in place of those that the system trusts.
    pub root_certificates: Option<PathBuf>,
}

impl RedisSettings {
    pub(super) fn read(reader: &mut Reader) -> Self {
        reader.section("Redis");
        let whole = reader.optional_secret(
            "REDIS_URL",
            "",
            "redis://user:password@host:port/number, or rediss:// for TLS",
            "where results are cached; wins over the four settings below it",
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
        let username = reader.text(
            "REDIS_USERNAME",
            "",
            "name",
            "the user to log in as; none: Redis's default one",
            |_| Ok(()),
        );
        let password = reader.secret(
            "REDIS_PASSWORD",
            "",
            "text, never shown",
            "the user's password; none: Redis asks for none",
        );
        let tls = reader.flag(
            TLS,
            false,
            "whether to speak TLS, as rediss:// in REDIS_URL does",
        );
        let root_certificates = read_authorities(
            reader,
            TLS_CA,
            "with TLS: certificates in PEM, one of which must have signed Redis's; none: those that the system trusts",
        );
        if !username.is_empty() && password.is_empty() {
            reader.mistake("REDIS_PASSWORD", "must be set when REDIS_USERNAME is");
        }
        let url = match whole {
            Some(url) => {
                if tls && !speaks_tls(&url) {
                    reader.mistake(
                        TLS,
                        "is true, but REDIS_URL begins with redis:, which is without TLS; use rediss:",
                    );
                }
                url
            }
            None => match composed(&host, port, &username, &password, tls) {
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
        if root_certificates.is_some() && !tls && !speaks_tls(&url) {
            reader.mistake(
                TLS_CA,
                "is for TLS; set REDIS_TLS=true, or use rediss: in REDIS_URL",
            );
        }
        Self {
            url,
            root_certificates,
        }
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
            .field("root_certificates", &self.root_certificates)
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
    if !matches!(url.scheme(), "redis" | "rediss") {
        return Err(format!(
            "must begin with redis:// or rediss:// but begins with {}:",
            url.scheme()
        ));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("does not name a host".to_owned());
    }
    if !is_database(url.path()) {
        return Err(
            "must end in the number of a database, or in none: redis://host:port/0".to_owned(),
        );
    }
    // To the driver, #insecure is a wish to trust everybody.
    if url.fragment().is_some() {
        return Err("must have nothing behind a #".to_owned());
    }
    Ok(())
}

fn speaks_tls(url: &str) -> bool {
    url.starts_with("rediss:")
}

/// Whether the path of an address is none, or the number of a database.
fn is_database(path: &str) -> bool {
    let number = path.strip_prefix('/').unwrap_or(path);
    number.is_empty()
        || (number.bytes().all(|byte| byte.is_ascii_digit()) && number.parse::<u32>().is_ok())
}

fn composed(host: &str, port: u16, username: &str, password: &str, tls: bool) -> Option<String> {
    let scheme = if tls { "rediss" } else { "redis" };
    let mut url = Url::parse(&format!("{scheme}://localhost")).ok()?;
    if host.contains(':') && !host.starts_with('[') {
        url.set_host(Some(&format!("[{host}]"))).ok()?;
    } else {
        url.set_host(Some(host)).ok()?;
    }
    url.set_port(Some(port)).ok()?;
    if !password.is_empty() {
        url.set_username(username).ok()?;
        url.set_password(Some(password)).ok()?;
    }
    Some(url.into())
}
