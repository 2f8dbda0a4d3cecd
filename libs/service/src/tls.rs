//! Mutual TLS between members: TLS 1.3, both sides with a certificate of the strict profile.
//!
//! Whoever connects is judged by [`Trust::judge`]: issued by the root of the very organisation that the
//! certificate names, inside its validity, not revoked on the ledger or by a revocation list. A client
//! also checks the server's name and that it has the role it should. Sessions are never resumed, so
//! every connection is judged. Revocation lists are files `*.pem`, `*.crl`, `*.der` in one directory, read again
//! when they change; connections with those then revoked are closed, by servers and by clients.

mod connect;
mod verify;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use protocol::identity::{Certificate, Crl, IdentityError, Members};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;

use crate::health::{Check, Health, State};
use crate::identity::{Identity, Role};
use crate::metrics::{CERTIFICATE_EXPIRES, REVOKED};
use crate::tasks::{OnFailure, Tasks};

pub use connect::Target;
pub(crate) use connect::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {cause}", file.display())]
    Read { file: PathBuf, cause: std::io::Error },
    #[error("{}: {cause}", file.display())]
    List { file: PathBuf, cause: IdentityError },
    #[error("our own certificate: {0}")]
    Own(IdentityError),
    #[error("{0}: not an address host:port")]
    Address(String),
    #[error("there are no member organisations")]
    NoMembers,
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the members' roots: {0}")]
    Roots(#[from] rustls::server::VerifierBuilderError),
}

/// Why a certificate is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Profile(#[from] IdentityError),
    #[error("the certificate is not yet valid or expired")]
    Expired,
    #[error("the certificate is revoked")]
    Revoked,
}

/// Whom we trust and who we are, for both ends of our connections.
pub struct Trust {
    identity: Arc<Identity>,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Current>,
    crl_directory: Option<PathBuf>,
    changed: watch::Sender<()>,
}

/// What may change while the process lives.
struct Current {
    members: Arc<Members>,
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    lists: BTreeMap<String, Crl>,
}

impl Trust {
    /// Reads the revocation lists; any bad one is an error now (later it is reported and the old one stays).
    pub fn load(identity: Arc<Identity>, members: Members, crl_directory: Option<PathBuf>) -> Result<Arc<Self>, Error> {
        members.verify(&identity.certificate).map_err(Error::Own)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (roots, clients) = anchors(&members, &provider)?;
        for member in members.iter() {
            REVOKED.with_label_values(&[&member.msp_id]).set(0);
        }
        let current = Current {
            members: Arc::new(members),
            roots,
            clients,
            lists: BTreeMap::new(),
        };
        let trust = Arc::new(Self {
            identity,
            provider,
            current: ArcSwap::from_pointee(current),
            crl_directory,
            changed: watch::Sender::new(()),
        });
        trust.reload()?;
        Ok(trust)
    }

    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The member organisations now.
    pub fn members(&self) -> Arc<Members> {
        self.current.load().members.clone()
    }

    /// Other members, or other revocations on the ledger, from now on.
    pub fn replace_members(&self, members: Members) -> Result<(), Error> {
        let (roots, clients) = anchors(&members, &self.provider)?;
        let members = Arc::new(members);
        self.current.rcu(|current| Current {
            members: members.clone(),
            roots: roots.clone(),
            clients: clients.clone(),
            lists: current.lists.clone(),
        });
        self.changed.send_replace(());
        Ok(())
    }

    /// Member, inside validity, not revoked: everything about a certificate but role and name.
    pub fn judge(&self, certificate: &Certificate, unix_s: i64) -> Result<(), Refusal> {
        let current = self.current.load();
        current.members.verify(certificate)?;
        if !certificate.valid_at(unix_s) {
            return Err(Refusal::Expired);
        }
        if self.is_listed(&current, certificate) {
            return Err(Refusal::Revoked);
        }
        Ok(())
    }

    /// Revoked by a list? Costs a lookup, for admission of certificates verified before.
    pub fn is_revoked(&self, certificate: &Certificate) -> bool {
        self.is_listed(&self.current.load(), certificate)
    }

    fn is_listed(&self, current: &Current, certificate: &Certificate) -> bool {
        current
            .lists
            .get(&certificate.msp_id)
            .is_some_and(|list| list.revokes(certificate))
    }

    /// Ends when the certificate, accepted before, is accepted no more: expired, revoked, no member.
    pub async fn until_refused(&self, certificate: &Certificate) {
        let mut changed = self.changed.subscribe();
        loop {
            let now_s = crate::time::unix_s();
            if self.judge(certificate, now_s).is_err() {
                return;
            }
            let expires_in = u64::try_from(certificate.not_after - now_s)
                .unwrap_or(0)
                .saturating_add(1);
            // At most a day: the monotonic clock may stand still while the machine sleeps.
            let look_again = Duration::from_secs(expires_in.min(24 * 3600));
            let _ = tokio::time::timeout(look_again, changed.changed()).await;
        }
    }

    /// For a server: clients must have a certificate that [`Trust::judge`] accepts.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<rustls::ServerConfig>, Error> {
        let mut config = rustls::ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(verify::Clients::new(self.clone())))
            .with_single_cert(self.identity.tls_chain(), self.identity.tls_key())?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Arc::new(config))
    }

    /// For a client of servers of that role, of that organisation if one is given. Also what reqwest takes.
    pub fn client_config(self: &Arc<Self>, role: Role, msp_id: Option<&str>) -> Result<rustls::ClientConfig, Error> {
        let servers = verify::Servers::new(self.clone(), role, msp_id.map(str::to_owned));
        let mut config = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous() // the verifier is ours: stricter than WebPKI's, which it calls
            .with_custom_certificate_verifier(Arc::new(servers))
            .with_client_auth_cert(self.identity.tls_chain(), self.identity.tls_key())?;
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    /// Reads the directory of revocation lists. Every good list counts; a bad one is the error, and the
    /// organisation's former list stays. So does a list whose file has gone, and an older one changes nothing.
    pub fn reload(&self) -> Result<(), Error> {
        let Some(directory) = &self.crl_directory else {
            return Ok(());
        };
        let members = self.members();
        let mut lists = self.current.load().lists.clone();
        let mut first_error = None;
        for file in list_files(directory)? {
            match read_list(&file, &members) {
                Ok(list) => {
                    let newer = lists
                        .get(&list.msp_id)
                        .is_none_or(|known| known.this_update <= list.this_update);
                    if newer {
                        lists.insert(list.msp_id.clone(), list);
                    }
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        if lists != self.current.load().lists {
            self.current.rcu(|current| Current {
                members: current.members.clone(),
                roots: current.roots.clone(),
                clients: current.clients.clone(),
                lists: lists.clone(),
            });
            for (organisation, list) in &lists {
                let count = i64::try_from(list.serials.len()).unwrap_or(i64::MAX);
                REVOKED.with_label_values(&[organisation]).set(count);
            }
            let revoked: usize = lists.values().map(|list| list.serials.len()).sum();
            tracing::info!(organisations = lists.len(), revoked, "revocation lists read");
            self.changed.send_replace(());
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Looks every `interval` whether a list has changed, and shows in the health a bad one and our own certificate
    /// when its end is near.
    pub fn watch(self: &Arc<Self>, tasks: &Tasks, health: &Health, interval: Duration) {
        let certificate = health.check("certificate");
        CERTIFICATE_EXPIRES.set(self.identity.certificate.not_after);
        let lists = self.crl_directory.clone().map(|directory| {
            let check = health.check("revocation_lists");
            check.ok();
            (fingerprint(&directory), directory, check)
        });
        let (trust, token) = (self.clone(), tasks.token().clone());
        tasks.spawn("certificates", OnFailure::StopProcess, async move {
            let mut lists = lists;
            loop {
                certificate.set(end_of(&trust.identity.certificate, crate::time::unix_s()));
                if tokio::time::timeout(interval, token.cancelled()).await.is_ok() {
                    return;
                }
                let Some((seen, directory, check)) = &mut lists else {
                    continue;
                };
                let now = fingerprint(directory);
                if now != *seen {
                    *seen = now;
                    trust.reload_shown(check);
                }
            }
        });
    }

    fn reload_shown(&self, check: &Check) {
        match self.reload() {
            Ok(()) => check.ok(),
            Err(error) => {
                tracing::warn!(%error, "a revocation list was not read, the former one stays");
                check.degraded(error.to_string());
            }
        }
    }
}

/// Degraded in the last tenth of its life: an expired one is refused everywhere.
fn end_of(certificate: &Certificate, unix_s: i64) -> State {
    let (life, left) = (
        certificate.not_after - certificate.not_before,
        certificate.not_after - unix_s,
    );
    let reason = match left {
        ..0 => "our certificate has expired: nobody accepts it".to_owned(),
        _ if left < life / 10 => format!("our certificate ends in {} hours", left / 3600),
        _ => return State::Ok,
    };
    State::Degraded { reason }
}

fn anchors(
    members: &Members,
    provider: &Arc<CryptoProvider>,
) -> Result<(Arc<RootCertStore>, Arc<dyn ClientCertVerifier>), Error> {
    let mut roots = RootCertStore::empty();
    for msp in members.iter() {
        roots.add(CertificateDer::from(msp.root.der().to_vec()))?;
    }
    if roots.is_empty() {
        return Err(Error::NoMembers);
    }
    let roots = Arc::new(roots);
    let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
    Ok((roots, clients))
}

fn list_files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let error = |cause| Error::Read {
        file: directory.to_owned(),
        cause,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(error)? {
        let file = entry.map_err(error)?.path();
        let is_list = file
            .extension()
            .is_some_and(|extension| ["pem", "crl", "der"].iter().any(|known| extension == *known));
        if is_list {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn read_list(file: &Path, members: &Members) -> Result<Crl, Error> {
    let bytes = std::fs::read(file).map_err(|cause| Error::Read {
        file: file.to_owned(),
        cause,
    })?;
    members.crl(&bytes).map_err(|cause| Error::List {
        file: file.to_owned(),
        cause,
    })
}

/// What shows that a file is another one or was written to. Of a symbolic link it is the file behind it: Kubernetes
/// swaps a link to all files of a volume.
type Facts = Option<(u64, u64, SystemTime)>;

/// Differs when a list has changed.
fn fingerprint(directory: &Path) -> Vec<(Facts, PathBuf)> {
    let files = list_files(directory).unwrap_or_default();
    let facts = |file: &Path| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
    };
    files.into_iter().map(|file| (facts(&file), file)).collect()
}

#[cfg(test)]
mod tests {
    use protocol::testing::{Keys, TestOrganisation};

    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_shown_before_it_comes() {
        let organisation = TestOrganisation::new(1, "HospitalA", Keys::P256);
        let certificate = Certificate::parse(organisation.identity("peer0").der()).expect("a certificate");
        let (from, to) = (certificate.not_before, certificate.not_after);
        let last_tenth = to - (to - from) / 10;
        assert_eq!(end_of(&certificate, last_tenth), State::Ok);
        for late in [last_tenth + 1, to, to + 1] {
            assert!(matches!(end_of(&certificate, late), State::Degraded { .. }), "{late}");
        }
    }
}
