//! `kubectl` as a child process: it knows the user's cluster, credentials and context, so nothing here has to.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
};

/// For what the API server answers by itself.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// What is gone already may be.
pub const IGNORE_NOT_FOUND: &str = "--ignore-not-found";

/// Commands in one namespace.
#[derive(Clone, Debug)]
pub struct Kubectl {
    pub namespace: String,
}

/// What a command said, however it ended.
pub struct Said {
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Kubectl {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--namespace").arg(&self.namespace).args(args);
        // A command that nobody waits for any more ends.
        command.kill_on_drop(true).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// An error only if it cannot be run or does not end in time.
    pub async fn say(&self, args: &[&str], stdin: Option<&str>, within: Duration) -> Result<Said> {
        let doing = || format!("kubectl {}", args.join(" "));
        let mut command = self.command(args);
        if stdin.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command
            .spawn()
            .context("kubectl must be installed")
            .with_context(doing)?;
        let all = async {
            if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
                pipe.write_all(text.as_bytes()).await?;
            }
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(within, all).await;
        let output = output
            .with_context(|| format!("{}: not within {within:?}", doing()))?
            .with_context(doing)?;
        Ok(Said {
            ok: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// Its standard output; it must succeed.
    pub async fn within(&self, args: &[&str], within: Duration) -> Result<String> {
        let said = self.say(args, None, within).await?;
        ensure!(said.ok, "kubectl {}: {}", args.join(" "), said.stderr);
        Ok(said.stdout)
    }

    pub async fn run(&self, args: &[&str]) -> Result<String> {
        self.within(args, ANSWER_WITHIN).await
    }

    pub async fn get(&self, args: &[&str]) -> Result<Value> {
        let text = self.run(&[&["get", "--output", "json"][..], args].concat()).await?;
        serde_json::from_str(&text).with_context(|| format!("kubectl get {}: no JSON", args.join(" ")))
    }

    /// The same, `None` where there is none.
    pub async fn find(&self, args: &[&str]) -> Result<Option<Value>> {
        let args = [&["get", "--output", "json", "--ignore-not-found"][..], args].concat();
        let text = self.run(&args).await?;
        match text.trim() {
            "" => Ok(None),
            text => Ok(Some(serde_json::from_str(text)?)),
        }
    }

    pub async fn apply(&self, manifest: &Value) -> Result<()> {
        let args = ["apply", "--filename", "-"];
        let said = self.say(&args, Some(&manifest.to_string()), ANSWER_WITHIN).await?;
        if !said.ok {
            bail!("kubectl apply: {}", said.stderr);
        }
        Ok(())
    }

    /// Pods, without grace and without waiting for their ends. `also`: further flags.
    pub async fn delete_at_once<'a>(&self, pods: impl IntoIterator<Item = &'a str>, also: &[&'a str]) -> Result<()> {
        let mut args = vec!["delete", "pod", "--grace-period", "0", "--force", "--wait=false"];
        args.extend(also);
        args.extend(pods);
        self.run(&args).await.map(drop)
    }

    /// A command that goes on; it ends when it is dropped.
    pub fn start(&self, args: &[&str]) -> Result<Child> {
        let mut command = self.command(args);
        command.stderr(Stdio::null());
        command.spawn().context("kubectl must be installed")
    }
}

/// A text in a JSON document, empty where there is none. `path` as RFC 6901 has it.
pub fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

pub fn items(value: &Value) -> &[Value] {
    value["items"].as_array().map_or(&[], Vec::as_slice)
}
