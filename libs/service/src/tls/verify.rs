//! The verifiers that rustls asks: WebPKI for chain, time and key usage, then our own rules.

use std::fmt;
use std::sync::Arc;

use protocol::identity::{Certificate, IdentityError};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::{Refusal, Trust};
use crate::identity::Role;

impl Trust {
    fn judge_at_handshake(&self, der: &[u8], now: UnixTime) -> Result<Certificate, Error> {
        let certificate = Certificate::parse(der).map_err(|error| refused(&error.into()))?;
        let unix_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.judge(&certificate, unix_s).map_err(|refusal| refused(&refusal))?;
        Ok(certificate)
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The alert that tells the other side why.
fn refused(refusal: &Refusal) -> Error {
    tracing::debug!(%refusal, "certificate refused");
    Error::InvalidCertificate(match refusal {
        Refusal::Expired => CertificateError::Expired,
        Refusal::Revoked | Refusal::Profile(IdentityError::Revoked) => CertificateError::Revoked,
        Refusal::Profile(IdentityError::NotMember | IdentityError::Issuer) => CertificateError::UnknownIssuer,
        Refusal::Profile(IdentityError::Signature) => CertificateError::BadSignature,
        Refusal::Profile(_) => CertificateError::ApplicationVerificationFailure,
    })
}

fn no_tls12() -> Error {
    Error::General("TLS 1.3 only".to_owned())
}

/// Whoever connects to us.
pub(super) struct Clients {
    trust: Arc<Trust>,
}

impl Clients {
    pub(super) fn new(trust: Arc<Trust>) -> Self {
        Self { trust }
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clients")
    }
}

impl ClientCertVerifier for Clients {
    /// None: members may change, and a member knows which certificate it has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.trust.judge_at_handshake(end_entity, now)?;
        // Nothing stands between root and leaf.
        self.trust
            .current
            .load()
            .clients
            .verify_client_cert(end_entity, &[], now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trust.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.schemes()
    }
}

/// Whom we connect to.
pub(super) struct Servers {
    trust: Arc<Trust>,
    role: Role,
    msp_id: Option<String>,
}

impl Servers {
    pub(super) fn new(trust: Arc<Trust>, role: Role, msp_id: Option<String>) -> Self {
        Self { trust, role, msp_id }
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Servers({} of {})",
            self.role,
            self.msp_id.as_deref().unwrap_or("any member")
        )
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = self.trust.judge_at_handshake(end_entity, now)?;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.trust.provider.signature_verification_algorithms.all;
        let roots = self.trust.current.load().roots.clone();
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms)?;
        verify_server_name(&parsed, server_name)?;
        if certificate.role != self.role {
            return Err(Error::General(format!(
                "the server is a {}, not a {}",
                certificate.role, self.role
            )));
        }
        if let Some(msp_id) = &self.msp_id
            && certificate.msp_id != *msp_id
        {
            return Err(Error::General(format!(
                "the server is of {}, not of {msp_id}",
                certificate.msp_id
            )));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trust.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.schemes()
    }
}
