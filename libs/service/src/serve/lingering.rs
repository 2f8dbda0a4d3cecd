//! A lingering close. A socket that is closed while something is still coming is reset, and a reset takes back what the
//! other side has not read: the last answers, and the goodbye that says what was never taken.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::server::TlsStream;

/// An honest client closes as soon as it has read the goodbye.
const DEADLINE: Duration = Duration::from_millis(500);

/// A stream that is given back when whoever serves it is done with it.
pub(super) struct Lent {
    /// None while it is given back.
    stream: Option<TlsStream<TcpStream>>,
    owner: Option<oneshot::Sender<TlsStream<TcpStream>>>,
}

pub(super) struct Owner(oneshot::Receiver<TlsStream<TcpStream>>);

pub(super) fn lend(stream: TlsStream<TcpStream>) -> (Lent, Owner) {
    let (owner, back) = oneshot::channel();
    let lent = Lent {
        stream: Some(stream),
        owner: Some(owner),
    };
    (lent, Owner(back))
}

impl Owner {
    /// Says that nothing more is sent and reads away what still comes, until the other side has closed.
    pub(super) async fn linger(mut self) {
        let Ok(stream) = self.0.try_recv() else { return };
        let (mut socket, _) = stream.into_inner();
        let _ = tokio::time::timeout(DEADLINE, async {
            socket.shutdown().await?;
            let mut unread = [0; 4096];
            while socket.read(&mut unread).await? > 0 {}
            io::Result::Ok(())
        })
        .await;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(stream), Some(owner)) = (self.stream.take(), self.owner.take()) {
            // Nobody waits for it: it is closed.
            let _ = owner.send(stream);
        }
    }
}

impl Lent {
    fn stream(&mut self) -> io::Result<Pin<&mut TlsStream<TcpStream>>> {
        match &mut self.stream {
            Some(stream) => Ok(Pin::new(stream)),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Lent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Lent {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(context)
    }
}
