//! Certificates that sign images: of Fulcio, or of a public key infrastructure of one's own. `webpki` checks the chain,
//! and here is decided whose certificate it is.

use crate::{
    Result, Wrong, about,
    publickey::{PublicKey, pem_blocks},
};
use der::{Decode, Encode, oid::ObjectIdentifier};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::time::Duration;
use webpki::{EndEntityCert, Error as ChainError, KeyUsage, anchor_from_trusted_cert};
use x509_cert::{
    Certificate,
    ext::pkix::{BasicConstraints, SubjectAltName, name::GeneralName},
};

/// The extended key usage `codeSigning` (RFC 5280, 4.2.1.12), as the bytes of its OID.
const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
/// Fulcio's extensions with the issuer of the OIDC token: the text itself, and the text as DER (Fulcio's oid-info.md).
const ISSUER_V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.1");
const ISSUER_V2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.8");

/// Certificates that are trusted.
#[derive(Debug)]
pub struct Trusted(Vec<CertificateDer<'static>>);

/// The certificates of a PEM file.
pub fn all_from_pem(text: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let blocks = pem_blocks(text)?.into_iter().filter(|(label, _)| label == "CERTIFICATE");
    Ok(blocks.map(|(_, der)| CertificateDer::from(der)).collect())
}

impl Trusted {
    /// Reads the certificates of PEM files.
    pub fn parse<'a>(files: impl IntoIterator<Item = &'a [u8]>) -> Result<Self> {
        let mut all = Vec::new();
        for file in files {
            let found = all_from_pem(file)?;
            if found.is_empty() {
                return Err(Wrong("it holds no certificate in PEM".into()));
            }
            all.extend(found);
        }
        for certificate in &all {
            anchor_from_trusted_cert(certificate).map_err(about("a certificate of it cannot be read"))?;
        }
        Ok(Trusted(all))
    }

    /// Checks that they vouch for a certificate at a time, in seconds since 1970, and that it is for a use.
    pub fn vouch_for(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'static>],
        time: u64,
        usage: &'static [u8],
    ) -> Result<()> {
        self.vouch(certificate, between, time, KeyUsage::required(usage))
    }

    fn vouch(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'static>],
        time: u64,
        usage: KeyUsage,
    ) -> Result<()> {
        let anchors: Vec<TrustAnchor<'_>> = self
            .0
            .iter()
            .filter(|certificate| is_authority(certificate, time))
            .map(|certificate| anchor_from_trusted_cert(certificate))
            .collect::<std::result::Result<_, _>>()
            .map_err(about("a trusted certificate cannot be read"))?;
        let leaf = EndEntityCert::try_from(certificate).map_err(about("its certificate cannot be read"))?;
        let time = UnixTime::since_unix_epoch(Duration::from_secs(time));
        leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, between, time, usage, None, None)
            .map(|_| ())
            .map_err(|error| Wrong(format!("its certificate does not hold: {}", told(&error))))
    }
}

/// Whether a trusted certificate is one of an authority that holds at a time, in seconds since 1970. webpki asks nothing of
/// what is trusted; Go and OpenSSL do.
fn is_authority(der: &CertificateDer<'_>, time: u64) -> bool {
    let Ok(certificate) = Certificate::from_der(der) else { return false };
    let certificate = &certificate.tbs_certificate;
    let validity = &certificate.validity;
    let holds = validity.not_before.to_unix_duration().as_secs() <= time
        && time <= validity.not_after.to_unix_duration().as_secs();
    let signs = match certificate.get::<x509_cert::ext::pkix::KeyUsage>() {
        Ok(None) => true,
        Ok(Some((_, usage))) => usage.key_cert_sign(),
        Err(_) => false,
    };
    let is_ca = match certificate.get::<BasicConstraints>() {
        Ok(Some((_, constraints))) => constraints.ca,
        Ok(None) | Err(_) => false,
    };
    holds && signs && is_ca
}

/// Why a chain does not hold, in words.
fn told(error: &ChainError) -> String {
    match error {
        // Another authority may have the same name.
        ChainError::UnknownIssuer | ChainError::InvalidSignatureForPublicKey => {
            "no trusted certificate vouches for it".into()
        }
        ChainError::CertExpired { .. } => "it had expired at the time of the signature".into(),
        ChainError::CertNotValidYet { .. } => "it did not hold yet at the time of the signature".into(),
        ChainError::RequiredEkuNotFoundContext(_) => "it is not for this use".into(),
        other => format!("{other:?}"),
    }
}

/// A certificate of a signature.
pub struct Leaf {
    /// The certificate itself.
    pub der: CertificateDer<'static>,
    parsed: Certificate,
    /// Its key.
    pub key: PublicKey,
}

impl Leaf {
    /// Reads the first certificate of a PEM text.
    pub fn from_pem(text: &[u8]) -> Result<Self> {
        let first = all_from_pem(text)?.into_iter().next();
        Self::from_der(&first.ok_or_else(|| Wrong("its certificate is no PEM".into()))?)
    }

    /// Reads a certificate in DER.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        let parsed = Certificate::from_der(der).map_err(about("its certificate cannot be read"))?;
        let key = parsed.tbs_certificate.subject_public_key_info.to_der();
        let key = PublicKey::from_der(&key.map_err(about("its certificate cannot be read"))?)?;
        Ok(Leaf { der: CertificateDer::from(der.to_vec()), parsed, key })
    }

    /// Checks that trusted certificates vouch for the certificate at a time, in seconds since 1970, and that it is for
    /// signing code. With `silent`, a certificate that does not say what it is for is taken for that, as Go does.
    pub fn check(
        &self,
        trusted: &Trusted,
        between: &[CertificateDer<'static>],
        time: u64,
        silent: bool,
    ) -> Result<()> {
        let usage = match silent {
            true => KeyUsage::required_if_present(CODE_SIGNING),
            false => KeyUsage::required(CODE_SIGNING),
        };
        trusted.vouch(&self.der, between, time, usage)
    }

    /// The names for which the certificate stands (its subjectAltName).
    fn names(&self) -> Vec<GeneralName> {
        let names = self.parsed.tbs_certificate.get::<SubjectAltName>();
        names.ok().flatten().map(|(_, names)| names.0).unwrap_or_default()
    }

    /// The e-mail addresses of the certificate.
    pub fn emails(&self) -> Vec<String> {
        let emails = self.names().into_iter().filter_map(|name| match name {
            GeneralName::Rfc822Name(email) => Some(email.to_string()),
            _ => None,
        });
        emails.collect()
    }

    /// The host names of the certificate.
    pub fn hostnames(&self) -> Vec<String> {
        let names = self.names().into_iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.to_string()),
            _ => None,
        });
        names.collect()
    }

    /// The URIs of the certificate, by which Fulcio names workflows.
    pub fn uris(&self) -> Vec<String> {
        let uris = self.names().into_iter().filter_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
            _ => None,
        });
        uris.collect()
    }

    /// The issuer of the OIDC token for which Fulcio made the certificate.
    pub fn issuer(&self) -> Result<String> {
        let extension = |oid: ObjectIdentifier| {
            let all = self.parsed.tbs_certificate.extensions.as_deref().unwrap_or_default();
            all.iter()
                .find(|extension| extension.extn_id == oid)
                .map(|extension| extension.extn_value.as_bytes())
        };
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec())
                .map_err(|_| Wrong("the issuer in its certificate is no text".into()))
        };
        let first = extension(ISSUER_V1).map(text).transpose()?;
        let second = extension(ISSUER_V2).map(|bytes| {
            String::from_der(bytes).map_err(about("the issuer in its certificate cannot be read"))
        });
        match (first, second.transpose()?) {
            (Some(first), Some(second)) if first != second => {
                Err(Wrong("its certificate names two issuers".into()))
            }
            (Some(issuer), _) | (None, Some(issuer)) => Ok(issuer),
            (None, None) => Err(Wrong("its certificate does not name the issuer of a token".into())),
        }
    }
}
