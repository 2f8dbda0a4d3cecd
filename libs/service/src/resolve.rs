//! Names to addresses. A process that comes back elsewhere keeps its name, so an answer is never kept: every
//! connection asks again.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::BoxFuture;

/// The system's resolver may wait for minutes; what it then says is asked for again.
const DEADLINE: Duration = Duration::from_secs(3);

/// Who says where an address `host:port` leads.
pub trait Resolve: Send + Sync {
    /// At least one address, in a bounded time.
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// The system's resolver: its hosts file, DNS.
pub struct Dns;

impl Resolve for Dns {
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            let found = tokio::time::timeout(DEADLINE, tokio::net::lookup_host(address)).await;
            let found: Vec<_> = match found {
                Ok(found) => found?.collect(),
                Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
            };
            match found.is_empty() {
                true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
                false => Ok(found),
            }
        })
    }
}

/// One place, whatever the name: one of the many that a name stands for.
impl Resolve for SocketAddr {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(std::future::ready(Ok(vec![*self])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_itself_and_a_wrong_one_an_error() {
        let address = "127.0.0.1:7071".parse().expect("an address");
        assert_eq!(Dns.resolve("127.0.0.1:7071").await.expect("no name"), [address]);
        let six = "[::1]:7071".parse().expect("an address");
        assert_eq!(Dns.resolve("[::1]:7071").await.expect("no name"), [six]);
        assert!(Dns.resolve("no port").await.is_err());
        assert_eq!(six.resolve("anything:1").await.expect("itself"), [six]);
    }
}
