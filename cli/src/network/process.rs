//! Processes that outlive the command that started them: spawn, look, signal, wait.
//!
//! A pid file holds the pid and the time the process started, so that a pid that was given to
//! somebody else is never signalled.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use super::layout::write_whole;

/// How often an end is looked for; `/proc` has no events for processes of others.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What a pid file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    pub pid: i32,
    /// Clock ticks after boot.
    started: u64,
}

impl Running {
    /// The process of a pid file, if it lives.
    pub fn from_file(pid_file: &Path) -> Option<Running> {
        let text = fs::read_to_string(pid_file).ok()?;
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        let started = lines.next()?.trim().parse().ok()?;
        let running = Running { pid, started };
        running.lives().then_some(running)
    }

    /// The process that has this pid now.
    pub fn of(pid: i32) -> Option<Running> {
        stat(pid).map(|stat| Running {
            pid,
            started: stat.started,
        })
    }

    pub fn lives(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && !stat.ended)
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        if !self.lives() {
            return Ok(());
        }
        match signal::kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("{signal} to process {}", self.pid)),
        }
    }

    /// Whether it ended in time.
    pub async fn ended(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while self.lives() {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        true
    }

    pub fn usage(&self) -> Option<Usage> {
        let stat = stat(self.pid).filter(|stat| stat.started == self.started)?;
        Some(Usage {
            rss_bytes: rss_bytes(self.pid).unwrap_or(0),
            cpu: ticks(stat.cpu_ticks),
        })
    }
}

/// Memory and processor time of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub rss_bytes: u64,
    pub cpu: Duration,
}

/// Of the process that asks.
pub fn own_usage() -> Usage {
    Running::of(std::process::id() as i32)
        .and_then(|own| own.usage())
        .unwrap_or_default()
}

struct Stat {
    ended: bool,
    cpu_ticks: u64,
    started: u64,
}

/// Fields of proc_pid_stat(5), counted after the command's closing parenthesis.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat {
        // The first thread may have ended before others, who still hold the process's ports.
        ended: matches!(*fields.first()?, "Z" | "X") && threads(pid) <= 1,
        cpu_ticks: number(11)? + number(12)?,
        started: number(19)?,
    })
}

fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

fn ticks(count: u64) -> Duration {
    // Linux shows user space 100 ticks a second on every platform we build for.
    Duration::from_millis(count * 10)
}

/// `VmRSS` is in units of 1024 bytes, whatever the page size.
fn rss_bytes(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Starts `program` detached from this command's terminal; its output goes to `log_file`.
pub fn spawn(program: &Path, arguments: &[&str], log: &str, log_file: &Path, pid_file: &Path) -> Result<Child> {
    use std::os::unix::process::CommandExt as _;
    let doing = || format!("starting {}", program.display());
    if let Some(parent) = log_file.parent() {
        fs::create_dir_all(parent).with_context(doing)?;
    }
    let out = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log_file)
        .with_context(doing)?;
    let child = Command::new(program)
        .args(arguments)
        .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| log.to_owned()))
        // The log's last lines should say what was wrong, not where in the program.
        .env("RUST_LIB_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(out.try_clone().with_context(doing)?)
        .stderr(out)
        .process_group(0)
        .spawn()
        .with_context(doing)?;
    write_pid(child.id() as i32, pid_file)?;
    Ok(child)
}

/// Remembers a process that is not ours to wait for.
pub fn write_pid(pid: i32, pid_file: &Path) -> Result<()> {
    let running = Running::of(pid).with_context(|| format!("process {pid} is not there"))?;
    write_whole(
        pid_file,
        format!("{}\n{}\n", running.pid, running.started).as_bytes(),
        false,
    )
}

/// A program of ours: beside this one, or where `MEDLEDGER_BIN` says.
pub fn program(name: &str) -> Result<PathBuf> {
    let mut places: Vec<PathBuf> = std::env::var_os("MEDLEDGER_BIN")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    let here = std::env::current_exe().context("where this program is")?;
    // Test programs lie one folder deeper.
    places.extend(here.ancestors().skip(1).take(2).map(Path::to_owned));
    for place in &places {
        let program = place.join(name);
        if program.is_file() {
            return Ok(program);
        }
    }
    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    bail!(
        "{name} was not found in {}; build it with `cargo build --release --workspace`",
        places.join(", ")
    )
}

/// The end of a log file: what to show when its process failed.
pub fn tail(log_file: &Path, lines: usize) -> String {
    let text = fs::read(log_file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_found_by_its_pid_file_until_it_ends() {
        let directory = tempfile::tempdir().expect("directory");
        let (log, pid) = (directory.path().join("log"), directory.path().join("pid"));
        let mut child = spawn(Path::new("/bin/sleep"), &["100"], "info", &log, &pid).expect("starts");
        let running = Running::from_file(&pid).expect("lives");
        assert_eq!(running.pid, child.id() as i32);
        assert!(running.usage().expect("usage").rss_bytes > 0);
        running.signal(Signal::SIGKILL).expect("signal");
        assert!(running.ended(Duration::from_secs(5)).await, "a zombie counts as ended");
        child.wait().expect("reaped");
        assert_eq!(Running::from_file(&pid), None);
    }

    #[test]
    fn a_pid_that_now_is_somebody_elses_is_not_ours() {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("pid");
        fs::write(&file, format!("{}\n1\n", std::process::id())).expect("write");
        assert_eq!(Running::from_file(&file), None);
    }
}
