//! One broker process: its settings, its life, its death.

use std::{
    fmt::Write as _,
    fs,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{LocalError, io_error};

const LOG4J: &str = include_str!("log4j2.properties");

/// A broker in its directory, running or not.
pub(crate) struct Broker {
    directory: PathBuf,
    address: String,
    /// Ours to reap, when we started it.
    child: Option<Child>,
}

impl Broker {
    pub fn open(directory: &Path) -> Result<Broker, LocalError> {
        let settings =
            fs::read_to_string(directory.join("server.properties")).map_err(io_error("reading server.properties"))?;
        let address = settings
            .lines()
            .find_map(|line| line.strip_prefix("advertised.listeners=PLAINTEXT://"))
            .ok_or_else(|| LocalError::Missing("server.properties names no listener".into()))?;
        Ok(Broker {
            directory: directory.to_path_buf(),
            address: address.to_string(),
            child: None,
        })
    }

    pub fn address(&self) -> String {
        self.address.clone()
    }

    pub fn log(&self) -> PathBuf {
        self.directory.join("kafka.log")
    }

    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn pid_file(&self) -> PathBuf {
        self.directory.join("kafka.pid")
    }

    /// The process that was started in this directory and still runs.
    pub fn running(&mut self) -> Option<u32> {
        if let Some(child) = &mut self.child
            && !matches!(child.try_wait(), Ok(None))
        {
            self.child = None; // reaped
        }
        let pid: u32 = fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        // A pid may be another's by now: the command line names our directory.
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let ours = self.directory.join("server.properties");
        let named = String::from_utf8_lossy(&command)
            .split('\0')
            .any(|part| Path::new(part) == ours);
        named.then_some(pid)
    }

    pub fn spawn(&mut self, jars: &Path, brokers: usize) -> Result<(), LocalError> {
        if self.running().is_some() {
            return Ok(());
        }
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .map_err(io_error("opening the log of Kafka"))?;
        let also = log.try_clone().map_err(io_error("opening the log of Kafka"))?;
        let child = java(jars)
            .arg(if brokers == 1 { "-Xmx512m" } else { "-Xmx320m" })
            .arg(format!(
                "-Dlog4j2.configurationFile={}",
                self.directory.join("log4j2.properties").display()
            ))
            .arg("kafka.Kafka")
            .arg(self.directory.join("server.properties"))
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(also)
            // A group of its own: ^C at the terminal that started it is not meant for it.
            .process_group(0)
            .spawn()
            .map_err(|_| LocalError::Missing("java is missing: apt-get install default-jre-headless".into()))?;
        fs::write(self.pid_file(), child.id().to_string()).map_err(io_error("writing kafka.pid"))?;
        self.child = Some(child);
        Ok(())
    }

    pub fn kill(&mut self) -> Result<(), LocalError> {
        self.signal(Signal::SIGKILL)?;
        if let Some(mut child) = self.child.take() {
            let _ = child.wait(); // it was killed: at once
        }
        Ok(())
    }

    pub fn ask_to_end(&mut self) -> Result<(), LocalError> {
        self.signal(Signal::SIGTERM)
    }

    fn signal(&mut self, signal: Signal) -> Result<(), LocalError> {
        let Some(pid) = self.running() else { return Ok(()) };
        match kill(Pid::from_raw(pid as i32), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(io_error(format!("signalling Kafka {pid}"))(error.into())),
        }
    }
}

/// Java with what makes a small broker start fast: the first compiler's code is enough for the rates
/// of one machine, and the serial collector has no threads of its own.
fn java(jars: &Path) -> Command {
    let mut command = Command::new("java");
    command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xms96m"]);
    command.arg("-cp").arg(jars.join("*"));
    command
}

/// Writes every broker's settings and formats its storage.
pub(crate) fn prepare(directory: &Path, brokers: usize, port: Option<u16>, jars: &Path) -> Result<(), LocalError> {
    let ports = ports(brokers * 2, port)?;
    let cluster = cluster_id();
    let mut formats = Vec::new();
    // The first broker's settings come last: they say that everything was prepared.
    for index in (0..brokers).rev() {
        let broker = directory.join(format!("broker-{}", index + 1));
        let _ = fs::remove_dir_all(&broker);
        fs::create_dir_all(broker.join("data")).map_err(io_error("making a broker's directory"))?;
        fs::write(broker.join("log4j2.properties"), LOG4J).map_err(io_error("writing log4j2.properties"))?;
        let draft = broker.join("server.properties.new");
        fs::write(&draft, properties(&broker, index, &ports)).map_err(io_error("writing server.properties"))?;
        let child = java(jars)
            .arg("-Xmx96m")
            .args([
                "kafka.tools.StorageTool",
                "format",
                "--cluster-id",
                &cluster,
                "--config",
            ])
            .arg(&draft)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|_| LocalError::Missing("java is missing: apt-get install default-jre-headless".into()))?;
        formats.push((broker, draft, child));
    }
    for (broker, draft, child) in formats {
        let output = child
            .wait_with_output()
            .map_err(io_error("formatting Kafka's storage"))?;
        if !output.status.success() {
            let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
            said.push_str(&String::from_utf8_lossy(&output.stderr));
            return Err(LocalError::Command {
                doing: "formatting Kafka's storage".into(),
                output: said,
            });
        }
        fs::rename(draft, broker.join("server.properties")).map_err(io_error("naming server.properties"))?;
    }
    Ok(())
}

fn properties(directory: &Path, index: usize, ports: &[u16]) -> String {
    let brokers = ports.len() / 2;
    let voters: Vec<String> = (0..brokers)
        .map(|voter| format!("{}@127.0.0.1:{}", voter + 1, ports[voter * 2 + 1]))
        .collect();
    let (port, controller_port) = (ports[index * 2], ports[index * 2 + 1]);
    let replication = brokers.min(3);
    let min_insync = replication.min(2);
    let mut text = String::new();
    for (name, value) in [
        ("process.roles", "broker,controller".to_string()),
        ("node.id", (index + 1).to_string()),
        ("controller.quorum.voters", voters.join(",")),
        (
            "listeners",
            format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}"),
        ),
        ("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{port}")),
        ("controller.listener.names", "CONTROLLER".into()),
        ("inter.broker.listener.name", "PLAINTEXT".into()),
        (
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".into(),
        ),
        ("log.dirs", directory.join("data").display().to_string()),
        ("auto.create.topics.enable", "false".into()),
        // The largest record is a control record of 8 MiB.
        ("message.max.bytes", (10 << 20).to_string()),
        ("replica.fetch.max.bytes", (10 << 20).to_string()),
        ("default.replication.factor", replication.to_string()),
        ("min.insync.replicas", min_insync.to_string()),
        ("offsets.topic.replication.factor", replication.to_string()),
        ("offsets.topic.num.partitions", "1".into()),
        ("transaction.state.log.replication.factor", replication.to_string()),
        ("transaction.state.log.min.isr", min_insync.to_string()),
        ("transaction.state.log.num.partitions", "1".into()),
        (
            "share.coordinator.state.topic.replication.factor",
            replication.to_string(),
        ),
        ("share.coordinator.state.topic.min.isr", min_insync.to_string()),
        ("group.initial.rebalance.delay.ms", "0".into()),
        // A killed broker is missed after seconds instead of nine, so that tests of it are short.
        ("broker.session.timeout.ms", "4000".into()),
        ("broker.heartbeat.interval.ms", "1000".into()),
        // Small: two cores serve brokers, network and load together.
        ("num.network.threads", "2".into()),
        ("num.io.threads", "2".into()),
        ("num.replica.fetchers", "1".into()),
        ("background.threads", "2".into()),
        ("log.cleaner.dedupe.buffer.size", (4 << 20).to_string()),
    ] {
        let _ = writeln!(text, "{name}={value}");
    }
    text
}

/// Ports in a row from `first`, or free ones. Free ones may be taken by another before Kafka listens:
/// then the start fails and says so.
fn ports(count: usize, first: Option<u16>) -> Result<Vec<u16>, LocalError> {
    if let Some(first) = first {
        let last = first.checked_add(count as u16 - 1);
        let last = last.ok_or_else(|| LocalError::Missing(format!("no {count} ports from {first}")))?;
        return Ok((first..=last).collect());
    }
    let listeners: Result<Vec<TcpListener>, _> = (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect();
    let listeners = listeners.map_err(io_error("finding free ports"))?;
    listeners
        .iter()
        .map(|listener| Ok(listener.local_addr().map_err(io_error("finding free ports"))?.port()))
        .collect()
}

/// 16 random bytes as Kafka writes them: 22 characters of URL-safe base64. Two clusters on one
/// machine must not take each other for the same.
fn cluster_id() -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let number: u128 = rand::random();
    let mut text = String::with_capacity(22);
    // The first digit is a letter: a leading dash would read as an option.
    text.push(DIGITS[(number >> 122) as usize % 26] as char);
    for digit in (0..20).rev() {
        text.push(DIGITS[(number >> (digit * 6 + 2)) as usize & 63] as char);
    }
    text.push(DIGITS[(number as usize & 3) << 4] as char);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_ids_differ_and_have_kafkas_form() {
        let (one, other) = (cluster_id(), cluster_id());
        assert_ne!(one, other);
        assert_eq!(one.len(), 22);
        assert!("AQgw".contains(one.chars().last().unwrap()));
    }

    #[test]
    fn ports_are_in_a_row_or_free() {
        assert_eq!(ports(3, Some(9000)).unwrap(), [9000, 9001, 9002]);
        assert!(ports(3, Some(65534)).is_err());
        assert_eq!(ports(6, None).unwrap().len(), 6);
    }
}
