//! How the process is: named checks, shown with the metrics on a plain HTTP port of their own.
//!
//! | path | says |
//! |---|---|
//! | `/livez` | 200 while the process runs at all |
//! | `/readyz` | 200 unless a check is starting or failed, or the process was asked to end. Degraded is ready: it still serves |
//! | `/health` | every check, JSON |
//! | `/metrics` | Prometheus text |
//!
//! Plain HTTP because probes speak no mTLS; nothing here is secret, nothing changes anything.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{StatusCode, header};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::metrics::HEALTH;
use crate::tasks::{OnFailure, Tasks};

const READ_DEADLINE: Duration = Duration::from_secs(5);

/// The state of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    Starting,
    Ok,
    /// Something is away that will come back; what can be served is served.
    Degraded {
        reason: String,
    },
    /// Nothing can be served.
    Failed {
        reason: String,
    },
}

/// All checks of a process. Clones are the same set.
#[derive(Clone, Default)]
pub struct Health {
    checks: Arc<Mutex<BTreeMap<&'static str, State>>>,
}

/// One check, held by whoever knows.
#[derive(Clone)]
pub struct Check {
    name: &'static str,
    health: Health,
}

/// What `/health` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub ready: bool,
    pub ending: bool,
    pub checks: BTreeMap<&'static str, State>,
}

impl Health {
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a check; it is `Starting` until something else is said.
    pub fn check(&self, name: &'static str) -> Check {
        let check = Check {
            name,
            health: self.clone(),
        };
        check.set(State::Starting);
        check
    }

    pub fn is_ready(&self) -> bool {
        self.checks
            .lock()
            .values()
            .all(|state| matches!(state, State::Ok | State::Degraded { .. }))
    }

    pub fn checks(&self) -> BTreeMap<&'static str, State> {
        self.checks.lock().clone()
    }
}

impl Check {
    /// Changes are logged; saying the same again costs nothing.
    pub fn set(&self, state: State) {
        let mut checks = self.health.checks.lock();
        if checks.get(self.name) == Some(&state) {
            return;
        }
        let check = self.name;
        let level = match &state {
            State::Ok => 0,
            State::Degraded { .. } => 1,
            State::Starting => 2,
            State::Failed { .. } => 3,
        };
        match &state {
            State::Starting => {}
            State::Ok => tracing::info!(check, "ok"),
            State::Degraded { reason } => tracing::warn!(check, reason, "degraded"),
            State::Failed { reason } => tracing::error!(check, reason, "failed"),
        }
        HEALTH.with_label_values(&[check]).set(level);
        checks.insert(check, state);
    }

    pub fn ok(&self) {
        self.set(State::Ok);
    }

    pub fn degraded(&self, reason: impl Into<String>) {
        self.set(State::Degraded { reason: reason.into() });
    }

    pub fn failed(&self, reason: impl Into<String>) {
        self.set(State::Failed { reason: reason.into() });
    }
}

#[derive(Clone)]
struct App {
    health: Health,
    tasks: Tasks,
}

/// Serves the four paths until the tasks end. Returns the address that was bound.
pub async fn serve(tasks: &Tasks, health: Health, listen: SocketAddr) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let routes = routes(App {
        health,
        tasks: tasks.clone(),
    });
    let token = tasks.token().clone();
    tasks.spawn("health", OnFailure::Log, async move {
        // Not drained: a probe that is cut off asks again.
        tokio::select! {
            served = axum::serve(listener, routes).into_future() => served,
            () = token.cancelled() => Ok(()),
        }
    });
    Ok(address)
}

fn routes(app: App) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/health", get(async |Shared(app): Shared<App>| Json(app.report())))
        .route("/metrics", get(metrics))
        .layer(axum::middleware::from_fn(deadline))
        .with_state(app)
}

impl App {
    fn report(&self) -> Report {
        let ending = self.tasks.is_leaving();
        Report {
            ready: self.health.is_ready() && !ending,
            ending,
            checks: self.health.checks(),
        }
    }
}

async fn readyz(Shared(app): Shared<App>) -> Response {
    let report = app.report();
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(report)).into_response()
}

async fn metrics() -> Response {
    ([(header::CONTENT_TYPE, metric::TEXT_FORMAT)], metric::text()).into_response()
}

async fn deadline(request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    match tokio::time::timeout(READ_DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}
