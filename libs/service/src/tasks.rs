//! The one place that spawns.
//!
//! Every background task has a name and says what its failure means. One token asks all of them to
//! end, one wait sees them end. A panic is a failure like any other.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What it means that a task failed: returned an error or panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The process cannot do its work without it: everything ends and the process exits with an error.
    StopProcess,
    /// Its work is lost, others go on. It is logged.
    Log,
}

/// What a task may return.
pub trait Outcome: Send + 'static {
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: Display + Send + 'static> Outcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        // `{:#}`: anyhow's whole chain of causes.
        self.err().map(|error| format!("{error:#}"))
    }
}

/// Why [`Tasks::wait`] returned something else than success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{task} failed: {cause}")]
    Failed { task: &'static str, cause: String },
    #[error("{count} tasks did not end within {deadline:?}")]
    Deadline { count: usize, deadline: Duration },
}

/// All tasks of a process, or of a part of it. Clones are the same set.
#[derive(Clone, Default)]
pub struct Tasks {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    token: CancellationToken,
    leaving: CancellationToken,
    linger: Duration,
    tracker: TaskTracker,
    first_failure: Mutex<Option<Error>>,
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of a process that goes on serving for a while after it was asked to end, see [`Tasks::leave`].
    pub fn lingering(linger: Duration) -> Self {
        let shared = Shared {
            linger,
            ..Shared::default()
        };
        Tasks {
            shared: Arc::new(shared),
        }
    }

    /// A set with a token of its own that also ends when this one does. Its tasks are waited for
    /// with `wait` of the part; a `StopProcess` failure in it ends the part only.
    pub fn part(&self) -> Tasks {
        let shared = Shared {
            token: self.shared.token.child_token(),
            leaving: self.shared.leaving.child_token(),
            ..Shared::default()
        };
        Tasks {
            shared: Arc::new(shared),
        }
    }

    /// Is cancelled when everything should end. Every task listens to it.
    pub fn token(&self) -> &CancellationToken {
        &self.shared.token
    }

    /// Asks all tasks to end.
    pub fn cancel(&self) {
        self.shared.token.cancel();
    }

    pub fn is_cancelled(&self) -> bool {
        self.shared.token.is_cancelled()
    }

    /// Asks the process to end: it is not ready from now on, so that nobody is sent here any more. Those who have not
    /// heard of it are served while the process lingers, then all tasks are asked to end.
    pub fn leave(&self) {
        if self.is_leaving() {
            return;
        }
        self.shared.leaving.cancel();
        let (token, linger) = (self.shared.token.clone(), self.shared.linger);
        if linger.is_zero() {
            return token.cancel();
        }
        self.spawn("linger", OnFailure::StopProcess, async move {
            let _ = tokio::time::timeout(linger, token.cancelled()).await;
            token.cancel();
        });
    }

    /// Was it asked to end?
    pub fn is_leaving(&self) -> bool {
        self.shared.leaving.is_cancelled() || self.is_cancelled()
    }

    /// Runs `future` until it ends by itself. It must end soon after the token is cancelled.
    pub fn spawn<F>(&self, name: &'static str, on_failure: OnFailure, future: F)
    where
        F: Future + Send + 'static,
        F::Output: Outcome,
    {
        let shared = self.shared.clone();
        let run = async move {
            let cause = match std::panic::AssertUnwindSafe(future).catch_unwind().await {
                Ok(outcome) => outcome.failure(),
                // The panic hook has said where; the message may hold anything, so it stays there.
                Err(_) => Some("panicked".to_owned()),
            };
            if let Some(cause) = cause {
                shared.failed(name, on_failure, cause);
            }
        };
        self.shared.tracker.spawn(run);
    }

    /// Runs `work` on a thread that may block, as a task of its own. It must end soon after the token is cancelled.
    pub fn spawn_blocking<F, O>(&self, name: &'static str, on_failure: OnFailure, work: F)
    where
        F: FnOnce() -> O + Send + 'static,
        O: Outcome,
    {
        let shared = self.shared.clone();
        self.shared.tracker.spawn_blocking_on(
            move || {
                let cause = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
                    Ok(outcome) => outcome.failure(),
                    Err(_) => Some("panicked".to_owned()),
                };
                if let Some(cause) = cause {
                    shared.failed(name, on_failure, cause);
                }
            },
            &Handle::current(),
        );
    }

    /// SIGTERM and SIGINT let the process [leave](Tasks::leave); a second one ends it at once.
    pub fn end_on_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let tasks = self.clone();
        #[expect(clippy::disallowed_methods, reason = "it waits for signals, nobody waits for it")]
        tokio::spawn(async move {
            for again in [false, true] {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if again {
                    tracing::warn!(signal = name, "ending at once");
                    std::process::exit(1);
                }
                tracing::info!(signal = name, linger = ?tasks.shared.linger, "ending");
                tasks.leave();
            }
        });
        Ok(())
    }

    /// Waits until the token is cancelled, then for all tasks at most `deadline` more.
    pub async fn wait(&self, deadline: Duration) -> Result<(), Error> {
        self.shared.token.cancelled().await;
        self.shared.tracker.close();
        let ended = tokio::time::timeout(deadline, self.shared.tracker.wait()).await;
        if let Some(error) = self.shared.first_failure.lock().clone() {
            return Err(error);
        }
        ended.map_err(|_| Error::Deadline {
            count: self.shared.tracker.len(),
            deadline,
        })
    }
}

impl Shared {
    fn failed(&self, task: &'static str, on_failure: OnFailure, cause: String) {
        match on_failure {
            OnFailure::Log => tracing::warn!(task, cause, "task failed"),
            OnFailure::StopProcess => {
                tracing::error!(task, cause, "task failed, everything ends");
                self.first_failure.lock().get_or_insert(Error::Failed { task, cause });
                self.token.cancel();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_end_on_cancel() {
        let tasks = Tasks::new();
        for _ in 0..10 {
            let token = tasks.token().clone();
            tasks.spawn("waiter", OnFailure::StopProcess, async move { token.cancelled().await });
        }
        tasks.cancel();
        assert_eq!(tasks.wait(Duration::from_secs(5)).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_lingers_first() {
        let linger = Duration::from_secs(5);
        let tasks = Tasks::lingering(linger);
        let began = tokio::time::Instant::now();
        tasks.leave();
        tasks.leave();
        assert!(tasks.is_leaving() && tasks.part().is_leaving() && !tasks.is_cancelled());
        assert_eq!(tasks.wait(Duration::from_secs(1)).await, Ok(()));
        assert_eq!(began.elapsed().as_secs(), linger.as_secs(), "once");
        let tasks = Tasks::new();
        tasks.leave();
        assert!(tasks.is_cancelled(), "without a linger at once");
    }

    #[tokio::test]
    async fn a_failure_that_matters_ends_everything_and_is_named() {
        let tasks = Tasks::new();
        tasks.spawn("unimportant", OnFailure::Log, async { Err::<(), _>("no matter") });
        tasks.spawn("important", OnFailure::StopProcess, async { Err::<(), _>("disk") });
        let error = tasks.wait(Duration::from_secs(5)).await;
        assert_eq!(
            error,
            Err(Error::Failed {
                task: "important",
                cause: "disk".into()
            })
        );
    }

    #[tokio::test]
    async fn a_panic_is_a_failure() {
        let tasks = Tasks::new();
        tasks.spawn("clumsy", OnFailure::StopProcess, async {
            if true {
                panic!("oh")
            }
        });
        let error = tasks.wait(Duration::from_secs(5)).await;
        assert_eq!(
            error,
            Err(Error::Failed {
                task: "clumsy",
                cause: "panicked".into()
            })
        );
    }

    #[tokio::test]
    async fn one_that_does_not_end_is_counted() {
        let tasks = Tasks::new();
        tasks.spawn("stubborn", OnFailure::Log, std::future::pending::<()>());
        tasks.cancel();
        let deadline = Duration::from_millis(20);
        assert_eq!(tasks.wait(deadline).await, Err(Error::Deadline { count: 1, deadline }));
    }
}
