//! A real Prometheus beside a network, with the settings that `medledger network prometheus` prints.

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use medledger_cli::network::{layout::Description, ready, scrape::Config};
use reqwest::Url;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::PATIENCE;

const LOOK_EVERY: Duration = Duration::from_millis(100);
const SCRAPE_EVERY_S: u32 = 1;

/// Ended, by process id, when it is dropped.
pub struct Prometheus {
    child: Child,
    address: String,
    started_unix_s: f64,
    directory: TempDir,
}

fn now_unix_s() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a time after 1970").as_secs_f64()
}

impl Prometheus {
    /// Ready when this returns; every process will be scraped each second.
    pub async fn start(network: &Description, rules: Vec<PathBuf>) -> Prometheus {
        let directory = tempfile::Builder::new()
            .prefix("medledger-prometheus-")
            .tempdir()
            .expect("a directory");
        let settings = directory.path().join("prometheus.yml");
        let config = Config::new(network, rules, SCRAPE_EVERY_S);
        fs::write(&settings, config.yaml()).expect("the settings are written");
        let log = fs::File::create(directory.path().join("log")).expect("a log");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = port.expect("a free port").to_string();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", settings.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus runs; `make prepare` installs it");
        let prometheus = Prometheus {
            child,
            address,
            started_unix_s: now_unix_s(),
            directory,
        };
        prometheus.ready().await;
        prometheus
    }

    async fn ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !matches!(ready::get(&self.address, "/-/ready").await, Ok((200, _))) {
            let log = || fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "Prometheus is not ready:\n{}", log());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Since its start, rounded up.
    pub fn age_s(&self) -> u64 {
        (now_unix_s() - self.started_unix_s).ceil() as u64
    }

    /// Over HTTP/1.0, whose answers come in one piece.
    async fn get(&self, path: &str, parameters: &[(&str, String)]) -> Value {
        let url = Url::parse_with_params(&format!("http://{}/api/v1/{path}", self.address), parameters);
        let url = url.expect("an address");
        let line = format!(
            "GET {}?{} HTTP/1.0\r\n\r\n",
            url.path(),
            url.query().unwrap_or_default()
        );
        let answer = async {
            let mut stream = TcpStream::connect(&self.address).await?;
            stream.write_all(line.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time");
        let answer = answer.expect("Prometheus answers");
        let (_, body) = answer.split_once("\r\n\r\n").expect("HTTP");
        let answer: Value = serde_json::from_str(body).expect("Prometheus answers JSON");
        assert_eq!(answer["status"], "success", "{parameters:?}: {answer}");
        answer["data"].clone()
    }

    /// Series of now, each with its labels and one value.
    pub async fn instant(&self, expr: &str) -> Vec<Value> {
        let data = self.get("query", &[("query", expr.to_owned())]).await;
        data["result"].as_array().expect("series").clone()
    }

    /// Whether there is a number, of now or of any second since the start.
    pub async fn has_number(&self, expr: &str, instant: bool) -> bool {
        let number = |sample: &Value| {
            let number = sample[1].as_str().and_then(|text| text.parse::<f64>().ok());
            number.is_some_and(f64::is_finite)
        };
        if instant {
            return self.instant(expr).await.iter().any(|series| number(&series["value"]));
        }
        let parameters = [
            ("query", expr.to_owned()),
            ("start", self.started_unix_s.to_string()),
            ("end", now_unix_s().to_string()),
            ("step", "1".to_owned()),
        ];
        let data = self.get("query_range", &parameters).await;
        let series = data["result"].as_array().expect("series");
        series
            .iter()
            .filter_map(|series| series["values"].as_array())
            .any(|values| values.iter().any(number))
    }

    /// Values of a label among the series of a selector.
    pub async fn label_values(&self, label: &str, selector: &str) -> Vec<String> {
        let data = self
            .get(&format!("label/{label}/values"), &[("match[]", selector.to_owned())])
            .await;
        let values = data.as_array().expect("values").iter();
        values.filter_map(|value| value.as_str().map(str::to_owned)).collect()
    }

    /// Names of the rules' alerts that were loaded.
    pub async fn alerts_loaded(&self) -> usize {
        let data = self.get("rules", &[("type", "alert".to_owned())]).await;
        let groups = data["groups"].as_array().expect("groups").iter();
        groups.filter_map(|group| group["rules"].as_array()).map(Vec::len).sum()
    }

    /// Until every target was scraped and answers.
    pub async fn reaches_all(&self, processes: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let up = self.instant("up == 1").await;
            if up.len() == processes {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "Prometheus reaches {} of {processes}: {up:?}",
                up.len()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Its data goes with the directory; nobody is left to hear of a failure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
