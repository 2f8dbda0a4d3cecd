//! gRPC channels over our TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use protocol::identity::Certificate;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use super::{Error, Trust};
use crate::identity::Role;
use crate::resolve::{Dns, Resolve};

const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// A server that is gone without a word is noticed after the sum of these.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Large enough that a list does not wait for a window update; also what one connection can make us hold unread.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// A server, and who it must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// `host:port`; the certificate must be for that host.
    pub address: String,
    pub role: Role,
    /// None: of any member.
    pub msp_id: Option<String>,
}

impl Target {
    pub fn new(address: impl Into<String>, role: Role, msp_id: Option<&str>) -> Self {
        Self {
            address: address.into(),
            role,
            msp_id: msp_id.map(str::to_owned),
        }
    }
}

impl Trust {
    /// A channel that connects when it is first used, and again after a break, to where the name then leads.
    pub fn channel(self: &Arc<Self>, target: &Target) -> Result<Channel, Error> {
        self.channel_by(target, Arc::new(Dns))
    }

    /// … to where `resolver` says. The certificate must be for the target's name all the same.
    pub fn channel_by(self: &Arc<Self>, target: &Target, resolver: Arc<dyn Resolve>) -> Result<Channel, Error> {
        let mut config = self.client_config(target.role, target.msp_id.as_deref())?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let bad_address = |_| Error::Address(target.address.clone());
        // The scheme is tonic's business only: the connector below always speaks TLS.
        let uri = format!("http://{}", target.address)
            .parse::<Uri>()
            .map_err(|_| Error::Address(target.address.clone()))?;
        let endpoint = Endpoint::new(uri)
            .map_err(bad_address)?
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let trust = self.clone();
        Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: Uri| {
            let (connector, trust, resolver) = (connector.clone(), trust.clone(), resolver.clone());
            async move {
                match tokio::time::timeout(CONNECT_DEADLINE, connect(&connector, &*resolver, &uri)).await {
                    Ok(connected) => Ok(TokioIo::new(Guarded::new(connected?, trust)?)),
                    Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no connection in time")),
                }
            }
        })))
    }
}

async fn connect(connector: &TlsConnector, resolver: &dyn Resolve, uri: &Uri) -> io::Result<TlsStream<TcpStream>> {
    let address = uri
        .authority()
        .filter(|address| address.port().is_some())
        .ok_or_else(|| io::Error::other("the address has no port"))?;
    let host = address.host().trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let places = resolver.resolve(address.as_str()).await?;
    let stream = TcpStream::connect(&places[..]).await?;
    stream.set_nodelay(true)?;
    connector.connect(name, stream).await
}

/// A connection that breaks when the server's certificate is accepted no more.
struct Guarded {
    stream: TlsStream<TcpStream>,
    refused: BoxFuture<'static, ()>,
}

impl Guarded {
    fn new(stream: TlsStream<TcpStream>, trust: Arc<Trust>) -> io::Result<Self> {
        let presented = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let Some(Ok(certificate)) = presented.map(|der| Certificate::parse(der)) else {
            return Err(io::Error::other("the server has no certificate"));
        };
        let refused = Box::pin(async move { trust.until_refused(&certificate).await });
        Ok(Self { stream, refused })
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A connection always waits for something to read, so it is enough to look here.
        if self.refused.as_mut().poll(context).is_ready() {
            let error = io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the server's certificate expired or was revoked",
            );
            self.refused = Box::pin(std::future::ready(()));
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
