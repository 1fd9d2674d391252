//! As much of Redis's protocol as it takes to look and to wipe.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::failure::Failure;

/// How many keys are asked for at once.
const PAGE: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Redis(BufReader<TcpStream>);

impl Redis {
    pub(crate) async fn connect(port: u16) -> Result<Self, Failure> {
        let stream = timeout(PATIENCE, TcpStream::connect((Ipv4Addr::LOCALHOST, port))).await??;
        Ok(Self(BufReader::new(stream)))
    }

    pub(crate) async fn ping(&mut self) -> Result<(), Failure> {
        self.say_simple("PING").await
    }

    pub(crate) async fn flush_all(&mut self) -> Result<(), Failure> {
        self.say_simple("FLUSHALL").await
    }

    /// The values of the keys, in their order.
    pub(crate) async fn get_all(
        &mut self,
        keys: &[String],
    ) -> Result<Vec<Option<String>>, Failure> {
        let mut values = Vec::with_capacity(keys.len());
        for page in keys.chunks(PAGE) {
            let mut command = format!("*{}\r\n$4\r\nMGET\r\n", page.len() + 1);
            for key in page {
                command.push_str(&format!("${}\r\n{key}\r\n", key.len()));
            }
            self.0.write_all(command.as_bytes()).await?;
            let count: usize = self.line().await?.trim_start_matches('*').parse()?;
            for _ in 0..count {
                values.push(self.bulk().await?);
            }
        }
        Ok(values)
    }

    async fn say_simple(&mut self, word: &str) -> Result<(), Failure> {
        self.0.write_all(format!("{word}\r\n").as_bytes()).await?;
        let answer = timeout(PATIENCE, self.line()).await??;
        if answer.starts_with('+') {
            Ok(())
        } else {
            Err(format!("Redis says {answer:?} to {word}").into())
        }
    }

    async fn bulk(&mut self) -> Result<Option<String>, Failure> {
        let length: i64 = self.line().await?.trim_start_matches('$').parse()?;
        let Ok(length) = usize::try_from(length) else {
            return Ok(None);
        };
        let mut bytes = vec![0; length + 2];
        self.0.read_exact(&mut bytes).await?;
        bytes.truncate(length);
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    async fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            return Err("Redis closed the connection".into());
        }
        Ok(line.trim_end().to_owned())
    }
}
