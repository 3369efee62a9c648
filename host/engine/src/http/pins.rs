//! Certificate pinning: a self-signed certificate that the operator gives as `ca` is not a certificate authority, but
//! it proves that the server holds its key. It is therefore compared byte for byte.

use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use std::sync::Arc;

/// Accepts exactly these certificates, compared byte for byte. Names and expiry are not checked.
#[derive(Debug)]
struct Pinned {
    certificates: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        given: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.certificates.iter().any(|pinned| pinned.as_ref() == given.as_ref()) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)),
        }
    }

    // The signature of the handshake is still verified, with the key of the certificate.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS settings that accept only the certificates of a PEM file. `identity` is the PEM of a client certificate chain
/// and its key. Fails if the PEM or the key cannot be used.
pub(super) fn tls(certificates: &[u8], identity: Option<&[u8]>) -> Result<rustls::ClientConfig, String> {
    let read = |pem: &[u8]| {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        all.map_err(|error| format!("read certificates: {error}"))
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pinned = Pinned { certificates: read(certificates)?, provider: provider.clone() };
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned));
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(pem) => {
            let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| format!("read a key: {error}"))?;
            builder.with_client_auth_cert(read(pem)?, key).map_err(|error| error.to_string())
        }
    }
}
