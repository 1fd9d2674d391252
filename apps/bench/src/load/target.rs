//! Where requests go, and the bytes of each.

use std::fmt::Write as _;
use std::str::FromStr;

/// An `http://host[:port][/prefix]`, or the same with `https://`, to send requests to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub(super) is_tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    prefix: String,
}

/// Why a URL is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongTarget {
    /// It begins with something else.
    #[error("must begin with http:// or https://")]
    Scheme,
    /// There is nothing to connect to.
    #[error("names no host")]
    Host,
    /// The port is no port.
    #[error("has a port that is no number from 1 to 65535")]
    Port,
}

impl FromStr for Target {
    type Err = WrongTarget;

    fn from_str(text: &str) -> Result<Self, WrongTarget> {
        let (is_tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(WrongTarget::Scheme),
        };
        let (authority, prefix) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let after_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
        let (host, port) = match authority[after_host..].rfind(':') {
            Some(colon) => {
                let (host, port) = authority.split_at(after_host + colon);
                let port = port[1..].parse().map_err(|_| WrongTarget::Port)?;
                if port == 0 {
                    return Err(WrongTarget::Port);
                }
                (host, port)
            }
            None => (authority, if is_tls { 443 } else { 80 }),
        };
        let host = host.trim_matches(['[', ']']);
        if host.is_empty() {
            return Err(WrongTarget::Host);
        }
        Ok(Self {
            is_tls,
            host: host.to_owned(),
            port,
            prefix: prefix.trim_end_matches('/').to_owned(),
        })
    }
}

impl Target {
    fn head(&self, method: &str, path: &str, headers: &[String]) -> String {
        let Self {
            host, port, prefix, ..
        } = self;
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        let mut head = format!("{method} {prefix}{path} HTTP/1.1\r\nhost: {host}:{port}\r\n");
        for header in headers {
            // Writing into a String cannot fail.
            let _ = write!(head, "{header}\r\n");
        }
        head
    }

    /// A request without a body.
    #[must_use]
    pub fn get(&self, path: &str, headers: &[String]) -> Vec<u8> {
        let mut head = self.head("GET", path, headers);
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// A request that submits a task with this payload.
    #[must_use]
    pub fn post_task(&self, payload: &str, headers: &[String]) -> Vec<u8> {
        let body = serde_json::json!({ "payload": payload, "priority": 1 }).to_string();
        let mut head = self.head("POST", "/tasks", headers);
        let length = body.len();
        // Writing into a String cannot fail.
        let _ = write!(
            head,
            "content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        head.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_refused() {
        let target = |is_tls, host: &str, port, prefix: &str| {
            Ok(Target {
                is_tls,
                host: host.to_owned(),
                port,
                prefix: prefix.to_owned(),
            })
        };
        for (text, expected) in [
            (
                "http://127.0.0.1:3000",
                target(false, "127.0.0.1", 3_000, ""),
            ),
            (
                "http://tasks.example/",
                target(false, "tasks.example", 80, ""),
            ),
            (
                "http://tasks.example:81/api/",
                target(false, "tasks.example", 81, "/api"),
            ),
            ("http://[::1]:3000", target(false, "::1", 3_000, "")),
            (
                "https://tasks.example/api",
                target(true, "tasks.example", 443, "/api"),
            ),
            ("https://[::1]:3443", target(true, "::1", 3_443, "")),
            ("ftp://tasks.example", Err(WrongTarget::Scheme)),
            ("tasks.example", Err(WrongTarget::Scheme)),
            ("http://:3000", Err(WrongTarget::Host)),
            ("http://tasks.example:0", Err(WrongTarget::Port)),
            ("http://tasks.example:http", Err(WrongTarget::Port)),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
    }

    #[test]
    fn a_submission_is_one_whole_request() {
        let target: Target = "http://h:1/p".parse().expect("a target");
        let request = String::from_utf8(target.post_task("x\"y", &["x-a: b".to_owned()]));
        assert_eq!(
            request.as_deref(),
            Ok(
                "POST /p/tasks HTTP/1.1\r\nhost: h:1\r\nx-a: b\r\ncontent-type: application/json\r\n\
                 content-length: 31\r\n\r\n{\"payload\":\"x\\\"y\",\"priority\":1}"
            )
        );
    }
}
