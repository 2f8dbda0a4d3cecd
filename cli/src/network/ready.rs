//! Waiting until a process says that it is ready, or ends, or time is up.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::process::{Running, tail};

const ASK_EVERY: Duration = Duration::from_millis(25);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Status and body of a GET over plain HTTP: the health port's whole protocol.
pub async fn get(address: &str, path: &str) -> Result<(u16, String)> {
    let answer = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(ANSWER_WITHIN, answer)
        .await
        .context("no answer in time")??;
    parse(&String::from_utf8_lossy(&answer)).context("the answer is no HTTP")
}

/// What a process that is ready still misses: the names of its checks that are not ok.
pub async fn misses(health: &str) -> Result<Vec<String>> {
    let (_, body) = get(health, "/health").await?;
    let report: serde_json::Value = serde_json::from_str(&body).context("/health is no JSON")?;
    let checks = report["checks"].as_object().context("/health has no checks")?;
    Ok(checks
        .iter()
        .filter(|(_, check)| check["state"] != "ok")
        .map(|(name, _)| name.clone())
        .collect())
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// `name` is for the error, which also shows the end of the process's log.
pub async fn wait(name: &str, health: &str, running: Running, log_file: &Path, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let last = match get(health, "/readyz").await {
            Ok((200, _)) => return Ok(()),
            Ok((status, body)) => format!("/readyz answers {status}: {}", body.trim()),
            Err(error) => format!("{error:#}"),
        };
        if !running.lives() {
            bail!(
                "{name} ended before it was ready; the end of {}:\n{}",
                log_file.display(),
                tail(log_file, 15)
            );
        }
        if Instant::now() >= deadline {
            let log = tail(log_file, 15);
            bail!(
                "{name} is not ready after {within:?}: {last}; the end of {}:\n{log}",
                log_file.display()
            );
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn status_and_body() {
        assert_eq!(
            parse("HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nkafka"),
            Some((503, "kafka".into()))
        );
        assert_eq!(parse("nonsense"), None);
    }
}
