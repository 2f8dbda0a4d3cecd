//! One TLS port per process: gRPC and REST on one router, every request with its caller.
//!
//! ```text
//! accept ─→ handshake (deadline, bounded number) ─→ Caller ─→ Access (default deny) ─→ routes
//! ```
//! A connection ends when its certificate expires or is revoked. When the process ends, connections are
//! told, requests and streams under way finish, and after a deadline what is left is cut.

mod access;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGauge, register_int_counter_vec, register_int_gauge};
use protocol::identity::Certificate;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::server::NamedService;
use tower::{Service, ServiceExt as _};

use crate::identity::Caller;
use crate::tasks::{OnFailure, Tasks};
use crate::tls::{CONNECTION_WINDOW_BYTES, Error, STREAM_WINDOW_BYTES, Trust};

pub use access::Access;

static CONNECTIONS: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("medledger_connections", "Connections with a verified certificate").expect("declared once")
});
static REFUSED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "medledger_connections_refused_total",
        "Connections refused, by reason",
        &["reason"]
    )
    .expect("declared once")
});

/// Bounds of one port.
#[derive(Clone, Debug)]
pub struct Config {
    pub connections_max: usize,
    /// So that one identity cannot take all connections.
    pub connections_per_identity_max: usize,
    /// Handshakes under way: all that a stranger can hold.
    pub handshakes_max: usize,
    pub handshake_deadline: Duration,
    pub streams_per_connection_max: u32,
    pub drain_deadline: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections_max: 512,
            connections_per_identity_max: 32,
            handshakes_max: 256,
            handshake_deadline: Duration::from_secs(5),
            streams_per_connection_max: 256,
            drain_deadline: Duration::from_secs(10),
        }
    }
}

/// Binds before anything is served, so that an address in use is an error of the start.
pub async fn bind(listen: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(listen).await
}

/// The routes of one gRPC service; merge with others and with REST.
pub fn grpc<S>(service: S) -> Router
where
    S: Service<Request<tonic::body::Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
    S::Response: axum::response::IntoResponse,
    S::Future: Send + 'static,
{
    let service = service.map_request(|request: Request<Body>| request.map(tonic::body::Body::new));
    Router::new().route_service(&format!("/{}/{{*rest}}", S::NAME), service)
}

/// Serves until the tasks end, then drains.
pub fn serve(
    tasks: &Tasks,
    listener: TcpListener,
    trust: Arc<Trust>,
    routes: Router,
    access: Access,
    config: Config,
) -> Result<(), Error> {
    let port = Arc::new(Port {
        tls: TlsAcceptor::from(trust.server_config()?),
        trust,
        routes: access.guard(routes),
        connections: Arc::new(Semaphore::new(config.connections_max)),
        by_identity: Mutex::new(HashMap::new()),
        config,
        tasks: tasks.clone(),
    });
    tasks.spawn("listener", OnFailure::StopProcess, port.accept(listener));
    Ok(())
}

struct Port {
    tls: TlsAcceptor,
    trust: Arc<Trust>,
    routes: Router,
    connections: Arc<Semaphore>,
    by_identity: Mutex<HashMap<protocol::Digest, usize>>,
    config: Config,
    tasks: Tasks,
}

impl Port {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let handshakes = Arc::new(Semaphore::new(self.config.handshakes_max));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.tasks.token().cancelled() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: others must end first.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(handshake) = handshakes.clone().try_acquire_owned() else {
                refused("handshakes");
                continue;
            };
            self.tasks
                .spawn("connection", OnFailure::Log, self.clone().connection(stream, handshake));
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, handshake: OwnedSemaphorePermit) {
        let _ = stream.set_nodelay(true);
        let accepting = tokio::time::timeout(self.config.handshake_deadline, self.tls.accept(stream));
        let stream = match accepting.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, "handshake failed");
                return refused("handshake");
            }
            Err(_) => return refused("handshake_deadline"),
        };
        drop(handshake);
        let presented = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        // The verifier has parsed it before.
        let Some(Ok(certificate)) = presented.map(|der| Certificate::parse(der)) else {
            return refused("certificate");
        };
        let Ok(_room) = self.connections.clone().try_acquire_owned() else {
            return refused("connections");
        };
        let Some(_share) = Share::take(&self, certificate.hash) else {
            return refused("connections_of_identity");
        };
        CONNECTIONS.inc();
        self.serve(stream, Arc::new(Caller::new(certificate))).await;
        CONNECTIONS.dec();
    }

    async fn serve(&self, stream: TlsStream<TcpStream>, caller: Arc<Caller>) {
        let (routes, of_requests) = (self.routes.clone(), caller.clone());
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(of_requests.clone());
            routes.clone().oneshot(request.map(Body::new))
        });
        let builder = self.http();
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            served = connection.as_mut() => {
                if let Err(error) = served {
                    tracing::debug!(%error, "connection broke");
                }
                return;
            }
            () = self.trust.until_refused(caller.certificate()) => {
                tracing::info!(organisation = caller.msp_id, role = %caller.role, "certificate expired or revoked, connection closed");
                return refused("no_longer_trusted");
            }
            () = self.tasks.token().cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(self.config.drain_deadline, connection).await;
    }

    fn http(&self) -> auto::Builder<Executor> {
        let mut builder = auto::Builder::new(Executor {
            tasks: self.tasks.clone(),
        });
        builder
            .http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(self.config.streams_per_connection_max)
            .keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10));
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(10));
        builder
    }
}

fn refused(reason: &str) {
    REFUSED.with_label_values(&[reason]).inc();
}

/// One of the connections that an identity may have.
struct Share<'a> {
    port: &'a Port,
    identity: protocol::Digest,
}

impl<'a> Share<'a> {
    fn take(port: &'a Port, identity: protocol::Digest) -> Option<Self> {
        let mut by_identity = port.by_identity.lock();
        let count = by_identity.entry(identity).or_insert(0);
        if *count >= port.config.connections_per_identity_max {
            return None;
        }
        *count += 1;
        Some(Self { port, identity })
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut by_identity = self.port.by_identity.lock();
        if let Some(count) = by_identity.get_mut(&self.identity) {
            *count -= 1;
            if *count == 0 {
                by_identity.remove(&self.identity);
            }
        }
    }
}

/// HTTP/2 runs each request as a task of its own.
#[derive(Clone)]
struct Executor {
    tasks: Tasks,
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.tasks.spawn("request", OnFailure::Log, async move {
            future.await;
        });
    }
}
