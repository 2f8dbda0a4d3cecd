//! One TLS port per process: gRPC and REST on one router, every request with its caller.
//!
//! ```text
//! accept ─→ first byte ─→ handshake ─→ Caller ─→ requests under way ─→ Access (default deny) ─→ routes
//!           └─ deadlines; bounded in all and by source address
//! ```
//! A connection ends when its certificate expires or is revoked. When the process ends, connections are
//! told, requests and streams under way finish, and after a deadline what is left is cut. What still comes then
//! is known to its sender as never taken.

mod access;
mod lingering;
mod shares;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use protocol::Digest;
use protocol::identity::Certificate;
use rustls::CertificateError;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::server::NamedService;
use tower::{Service, ServiceExt as _};

use crate::identity::Caller;
use crate::metrics::{CONNECTIONS, CONNECTIONS_REFUSED};
use crate::problem::Problem;
use crate::tasks::{OnFailure, Tasks};
use crate::tls::{CONNECTION_WINDOW_BYTES, Error, STREAM_WINDOW_BYTES, Trust};

pub use access::Access;

use lingering::{Lent, lend};
use shares::{Share, Shares, source};

/// What is said to one with too many requests under way.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Bounds of one port.
#[derive(Clone, Debug)]
pub struct Config {
    pub connections_max: usize,
    /// So that one identity cannot take all connections, however many certificates it has.
    pub connections_per_identity_max: usize,
    /// Handshakes under way: all that a stranger can hold.
    pub handshakes_max: usize,
    /// So that one host cannot hold all of them. An honest handshake takes milliseconds.
    pub handshakes_per_source_max: usize,
    /// Whoever connects and says nothing loses its place soon: a client speaks first, and at once.
    pub first_byte_deadline: Duration,
    pub handshake_deadline: Duration,
    pub streams_per_connection_max: u32,
    /// Requests and streams under way on all its connections: each may hold a message that is half received. One
    /// more is refused with a delay.
    pub requests_per_identity_max: usize,
    pub drain_deadline: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections_max: 512,
            connections_per_identity_max: 32,
            handshakes_max: 256,
            handshakes_per_source_max: 64,
            first_byte_deadline: Duration::from_secs(1),
            handshake_deadline: Duration::from_secs(5),
            streams_per_connection_max: 256,
            requests_per_identity_max: 256,
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
        handshakes: Arc::new(Semaphore::new(config.handshakes_max)),
        by_source: Shares::new(config.handshakes_per_source_max),
        by_identity: Shares::new(config.connections_per_identity_max),
        requests: Shares::new(config.requests_per_identity_max),
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
    handshakes: Arc<Semaphore>,
    by_source: Arc<Shares<IpAddr>>,
    /// Connections by [`Caller::account`].
    by_identity: Arc<Shares<Digest>>,
    /// Requests under way, by the same.
    requests: Arc<Shares<Digest>>,
    config: Config,
    tasks: Tasks,
}

/// What a connection holds until its handshake is over.
struct Place {
    _handshake: OwnedSemaphorePermit,
    _of_source: Share<IpAddr>,
}

impl Port {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.tasks.token().cancelled() => return,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: others must end first.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(place) = self.place(from.ip()) else {
                continue;
            };
            self.tasks
                .spawn("connection", OnFailure::Log, self.clone().connection(stream, place));
        }
    }

    fn place(&self, from: IpAddr) -> Option<Place> {
        let Some(of_source) = self.by_source.take(source(from)) else {
            refused("handshakes_of_source");
            return None;
        };
        let Ok(handshake) = self.handshakes.clone().try_acquire_owned() else {
            refused("handshakes");
            return None;
        };
        Some(Place {
            _handshake: handshake,
            _of_source: of_source,
        })
    }

    async fn handshake(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let _ = stream.set_nodelay(true);
        let mut first = [0; 1];
        let spoken = tokio::time::timeout(self.config.first_byte_deadline, stream.peek(&mut first)).await;
        if !matches!(spoken, Ok(Ok(1))) {
            refused("silent");
            return None;
        }
        match tokio::time::timeout(self.config.handshake_deadline, self.tls.accept(stream)).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, "handshake failed");
                refused(reason(&error));
                None
            }
            Err(_) => {
                refused("handshake_deadline");
                None
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, place: Place) {
        let Some(stream) = self.handshake(stream).await else {
            return;
        };
        drop(place);
        let presented = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        // The verifier has parsed it before.
        let Some(Ok(certificate)) = presented.map(|der| Certificate::parse(der)) else {
            return refused("certificate_invalid");
        };
        let Ok(_room) = self.connections.clone().try_acquire_owned() else {
            return refused("connections");
        };
        let caller = Arc::new(Caller::new(certificate));
        let Some(_share) = self.by_identity.take(caller.account()) else {
            return refused("connections_of_identity");
        };
        let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let (stream, owner) = lend(stream);
        CONNECTIONS.inc();
        self.serve(stream, protocol, caller).await;
        if self.tasks.is_cancelled() {
            owner.linger().await;
        }
        CONNECTIONS.dec();
    }

    async fn serve(&self, stream: Lent, protocol: Option<Vec<u8>>, caller: Arc<Caller>) {
        let (routes, requests, of_requests) = (self.routes.clone(), self.requests.clone(), caller.clone());
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            let share = requests.take(of_requests.account());
            request.extensions_mut().insert(of_requests.clone());
            let routes = routes.clone();
            async move {
                let Some(share) = share else {
                    let problem = Problem::exhausted(RETRY_AFTER, "too many requests of this identity under way");
                    return Ok(access::refusal(&request, problem));
                };
                let response = routes.oneshot(request.map(Body::new)).await?;
                // Under way until the last of its body is sent, or nobody waits for it.
                Ok::<_, Infallible>(response.map(|body| {
                    Body::new(body.map_frame(move |frame| {
                        let _under_way = &share;
                        frame
                    }))
                }))
            }
        });
        let builder = self.http(protocol.as_deref());
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

    /// Where the handshake has settled the protocol nobody waits for the first bytes to tell it: a connection without any
    /// yet would be cut when the process ends, and a request on its way lost without an answer.
    fn http(&self, protocol: Option<&[u8]>) -> auto::Builder<Executor> {
        let mut builder = auto::Builder::new(Executor {
            tasks: self.tasks.clone(),
        });
        if protocol == Some(b"h2") {
            builder = builder.http2_only();
        }
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
    CONNECTIONS_REFUSED.with_label_values(&[reason]).inc();
}

/// Why a handshake failed, as far as it is the certificate's fault.
fn reason(error: &std::io::Error) -> &'static str {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::NoCertificatesPresented) => "certificate_missing",
        Some(rustls::Error::InvalidCertificate(why)) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "certificate_expired",
            CertificateError::Revoked => "certificate_revoked",
            CertificateError::UnknownIssuer => "certificate_stranger",
            _ => "certificate_invalid",
        },
        _ => "handshake",
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
