//! Signed times of an authority (RFC 3161), which say that a signature existed at a time.

use crate::{
    Result, Wrong, about,
    certificate::{Trusted, all_from_pem},
};
use cms::{
    cert::CertificateChoices,
    content_info::ContentInfo,
    signed_data::{SignedData, SignerIdentifier, SignerInfo},
};
use der::{
    Any, Decode, Encode, Tag, Tagged,
    asn1::OctetString,
    oid::{
        ObjectIdentifier,
        db::{rfc5911, rfc5912},
    },
};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use sha2::{Digest, Sha256, Sha384, Sha512};
use webpki::{EndEntityCert, ring};
use x509_cert::{Certificate, ext::pkix::SubjectKeyIdentifier};
use x509_tsp::TstInfo;

/// The most certificates that an answer may bring.
const EMBEDDED: usize = 16;
/// The extended key usage `timeStamping` (RFC 5280, 4.2.1.12), as the bytes of its OID.
const TIME_STAMPING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 8];
/// The type of what an authority signs (RFC 3161, 2.4.2).
const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");

/// The certificates of authorities that are trusted: roots, and below them what their answers may leave out.
pub struct Authorities {
    trusted: Trusted,
    all: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// Reads the certificates of PEM files.
    pub fn parse<'a>(files: impl IntoIterator<Item = &'a [u8]> + Clone) -> Result<Self> {
        let all: Vec<_> = files.clone().into_iter().map(all_from_pem).collect::<Result<_>>()?;
        Ok(Authorities { trusted: Trusted::parse(files)?, all: all.concat() })
    }

    /// When an authority saw these bytes, in seconds since 1970. `answer` is its answer, or the token in it.
    pub fn time_of(&self, bytes: &[u8], answer: &[u8]) -> Result<u64> {
        let unreadable = || about("its signed time cannot be read");
        let token = token_of(answer).map_err(unreadable())?;
        if token.content_type != rfc5911::ID_SIGNED_DATA {
            return Err(Wrong("its signed time is not signed".into()));
        }
        let signed: SignedData = token.content.decode_as().map_err(unreadable())?;
        let content = &signed.encap_content_info;
        if content.econtent_type != TST_INFO {
            return Err(Wrong("what its authority signed is no time".into()));
        }
        let content = content.econtent.as_ref().ok_or_else(|| Wrong("its signed time is empty".into()))?;
        let content: OctetString = content.decode_as().map_err(unreadable())?;
        let info = TstInfo::from_der(content.as_bytes()).map_err(unreadable())?;
        let imprint = &info.message_imprint;
        if hashed(&imprint.hash_algorithm.oid, bytes)? != imprint.hashed_message.as_bytes() {
            return Err(Wrong("its signed time is for another signature".into()));
        }
        let [signer] = signed.signer_infos.0.as_slice() else {
            return Err(Wrong("its signed time has not exactly one signature".into()));
        };
        let time = info.gen_time.to_unix_duration().as_secs();
        let embedded = signed.certificates.iter().flat_map(|set| set.0.iter());
        let embedded: Vec<_> = embedded
            .filter_map(|choice| {
                let CertificateChoices::Certificate(certificate) = choice else { return None };
                certificate.to_der().ok().map(CertificateDer::from)
            })
            .collect();
        if embedded.len() > EMBEDDED {
            return Err(Wrong(format!("its signed time comes with {} certificates", embedded.len())));
        }
        let between = [embedded, self.all.clone()].concat();
        // Each try to build a chain is costly, so only the certificate that the signature names is tried.
        let signers = between.iter().find(|certificate| is_of(certificate, &signer.sid));
        let certificate = signers
            .ok_or_else(|| Wrong("no certificate is that of the authority that signed its time".into()))?;
        if !made_by(certificate, signer, content.as_bytes())? {
            return Err(Wrong("its signed time has a signature that does not hold".into()));
        }
        let vouched = self.trusted.vouch_for(certificate, &between, time, TIME_STAMPING);
        vouched.map(|()| time).map_err(|wrong| Wrong(format!("its signed time: {wrong}")))
    }
}

/// Whether a certificate is the one that a signature names (RFC 5652, 5.3).
fn is_of(certificate: &CertificateDer<'_>, signer: &SignerIdentifier) -> bool {
    let Ok(certificate) = Certificate::from_der(certificate) else { return false };
    let certificate = &certificate.tbs_certificate;
    match signer {
        SignerIdentifier::IssuerAndSerialNumber(named) => {
            certificate.issuer == named.issuer && certificate.serial_number == named.serial_number
        }
        SignerIdentifier::SubjectKeyIdentifier(named) => {
            let own = certificate.get::<SubjectKeyIdentifier>();
            own.is_ok_and(|own| own.is_some_and(|(_, own)| own == *named))
        }
    }
}

/// The token in the answer of an authority (`TimeStampResp`, RFC 3161, 2.4.2), or the token if it stands alone.
fn token_of(answer: &[u8]) -> der::Result<ContentInfo> {
    let parts = Vec::<Any>::from_der(answer)?;
    match parts.as_slice() {
        [status, token] if status.tag() == Tag::Sequence => ContentInfo::from_der(&token.to_der()?),
        _ => ContentInfo::from_der(answer),
    }
}

fn hashed(algorithm: &ObjectIdentifier, bytes: &[u8]) -> Result<Vec<u8>> {
    match *algorithm {
        rfc5912::ID_SHA_256 => Ok(Sha256::digest(bytes).to_vec()),
        rfc5912::ID_SHA_384 => Ok(Sha384::digest(bytes).to_vec()),
        rfc5912::ID_SHA_512 => Ok(Sha512::digest(bytes).to_vec()),
        other => Err(Wrong(format!("its signed time is hashed by the unknown algorithm {other}"))),
    }
}

/// Whether the key of a certificate made the signature of a token (RFC 5652, 5.4 to 5.6).
fn made_by(certificate: &CertificateDer<'_>, signer: &SignerInfo, content: &[u8]) -> Result<bool> {
    let unreadable = || about("its signed time cannot be read");
    let attributes = signer.signed_attrs.as_ref();
    let attributes = attributes.ok_or_else(|| Wrong("its signed time signs no attributes".into()))?;
    let value = |oid: ObjectIdentifier| {
        let mut found = attributes.iter().filter(|attribute| attribute.oid == oid);
        match (found.next(), found.next()) {
            (Some(attribute), None) if attribute.values.len() == 1 => attribute.values.get(0),
            _ => None,
        }
    };
    let digest = value(rfc5911::ID_MESSAGE_DIGEST).and_then(|value| value.decode_as::<OctetString>().ok());
    let kind = value(rfc5911::ID_CONTENT_TYPE).and_then(|value| value.decode_as::<ObjectIdentifier>().ok());
    let is_content = digest.is_some_and(|digest| {
        hashed(&signer.digest_alg.oid, content).is_ok_and(|hash| hash == digest.as_bytes())
    });
    if !is_content || kind != Some(TST_INFO) {
        return Err(Wrong("its signed time signs something else".into()));
    }
    let signed = attributes.to_der().map_err(unreadable())?;
    let leaf = EndEntityCert::try_from(certificate).map_err(about("its signed time cannot be read"))?;
    let algorithms: &[&dyn SignatureVerificationAlgorithm] = match signer.digest_alg.oid {
        rfc5912::ID_SHA_256 => {
            &[ring::ECDSA_P256_SHA256, ring::ECDSA_P384_SHA256, ring::RSA_PKCS1_2048_8192_SHA256]
        }
        rfc5912::ID_SHA_384 => {
            &[ring::ECDSA_P256_SHA384, ring::ECDSA_P384_SHA384, ring::RSA_PKCS1_2048_8192_SHA384]
        }
        _ => &[ring::RSA_PKCS1_2048_8192_SHA512, ring::ED25519],
    };
    let signature = signer.signature.as_bytes();
    Ok(algorithms.iter().any(|algorithm| leaf.verify_signature(*algorithm, &signed, signature).is_ok()))
}
