//! Signatures as they are found beside images.

use crate::{Result, Wrong, about, from_base64};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Media type of the payload of a cosign signature.
pub const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation with the signature itself, in base64.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// The annotation with the certificate, in PEM.
pub(crate) const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
/// The annotation with the certificates above it, in PEM.
pub(crate) const CHAIN: &str = "dev.sigstore.cosign/chain";
/// The annotation with what the log says.
pub(crate) const LOG: &str = "dev.sigstore.cosign/bundle";
/// A time that an authority signed.
pub(crate) const TIMESTAMP: &str = "dev.sigstore.cosign/rfc3161timestamp";
/// Artifact type of a bundle that is a referrer (cosign's BUNDLE_SPEC). Older ones give the version in another way.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A sigstore signature that is attached to an image: a payload with its annotations (cosign's SIGNATURE_SPEC).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Media type of the payload.
    #[serde(rename = "mimeType")]
    pub media_type: String,
    /// The payload.
    #[serde(with = "in_base64")]
    pub payload: Vec<u8>,
    /// The annotations, among them the signature.
    pub annotations: BTreeMap<String, String>,
}

mod in_base64 {
    use super::*;
    use serde::{Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<u8>, D::Error> {
        from_base64(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The kinds of signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Simple signing: an OpenPGP signed message.
    Simple,
    /// A sigstore signature that is attached.
    Sigstore,
    /// A sigstore bundle.
    Bundle,
}

/// A signature of an image, not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    /// Simple signing: an OpenPGP signed message.
    Simple(Vec<u8>),
    /// A sigstore signature with its payload.
    Sigstore(Attached),
    /// A sigstore bundle: the JSON of it.
    Bundle(Vec<u8>),
    /// Something else, by its name.
    Unknown(String),
}

impl Signature {
    /// Reads a signature as files hold it: an OpenPGP message as it is, and others with a name before them
    /// (`internal/signature` of containers/image).
    ///
    /// # Errors
    /// Fails if it is neither.
    pub fn from_file(bytes: &[u8]) -> Result<Self> {
        let Some(named) = bytes.strip_prefix(b"\0") else {
            return match bytes.first() {
                // The first bytes of OpenPGP packets that such a message can begin with.
                Some(0x88..=0x8b | 0x90..=0x92 | 0xa0..=0xa3 | 0xc2 | 0xc4 | 0xc8) => {
                    Ok(Signature::Simple(bytes.to_vec()))
                }
                // What it is cannot be known, so it fails where it is checked.
                _ => Err(Wrong("it is neither an OpenPGP message nor a named signature".into())),
            };
        };
        let end = named.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or_else(|| Wrong("its name has no end".into()))?;
        let (name, body) = (&named[..end], &named[end + 1..]);
        match name {
            b"simple-signing" => Ok(Signature::Simple(body.to_vec())),
            b"sigstore-json" => serde_json::from_slice(body)
                .map(Signature::Sigstore)
                .map_err(about("it is no sigstore signature")),
            other => Ok(Signature::Unknown(String::from_utf8_lossy(other).into_owned())),
        }
    }

    /// What it says of itself, for people. Nothing of it is checked.
    pub fn shown(&self) -> String {
        match self {
            Signature::Simple(_) => "an OpenPGP signature".into(),
            Signature::Sigstore(attached) => {
                let reference = crate::Payload::cosign(&attached.payload).map(|payload| payload.reference);
                let of = match &reference {
                    Ok(reference) => format!(" for {}", reference.escape_debug()),
                    Err(_) => " with a payload that cannot be read".into(),
                };
                let by =
                    if attached.annotations.contains_key(CERTIFICATE) { "a certificate" } else { "a key" };
                let log = if attached.annotations.contains_key(LOG) { ", in a log" } else { "" };
                format!("a sigstore signature by {by}{log}{of}")
            }
            Signature::Bundle(_) => "a sigstore bundle".into(),
            Signature::Unknown(kind) => format!("something else: {}", kind.escape_debug()),
        }
    }

    /// The image for which it says it is. Nothing of it is checked. `None` means that it does not say so.
    pub fn claimed_name(&self) -> Option<crate::Name> {
        let payload = match self {
            Signature::Simple(message) => crate::Payload::simple(&crate::openpgp::opened(message).ok()?.1),
            Signature::Sigstore(attached) => crate::Payload::cosign(&attached.payload),
            Signature::Bundle(_) | Signature::Unknown(_) => return None,
        };
        crate::Name::parse(&payload.ok()?.reference).ok()
    }

    /// Which kind it is. `None` means that it is unknown.
    pub fn format(&self) -> Option<Format> {
        match self {
            Signature::Simple(_) => Some(Format::Simple),
            Signature::Sigstore(_) => Some(Format::Sigstore),
            Signature::Bundle(_) => Some(Format::Bundle),
            Signature::Unknown(_) => None,
        }
    }

    /// Writes a signature as files hold it. `None` means that files hold no such signature.
    pub fn to_file(&self) -> Option<Vec<u8>> {
        match self {
            Signature::Simple(bytes) => Some(bytes.clone()),
            Signature::Sigstore(attached) => {
                let mut file = b"\0sigstore-json\n".to_vec();
                file.extend(serde_json::to_vec(attached).ok()?);
                Some(file)
            }
            Signature::Bundle(_) | Signature::Unknown(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_survive_files() {
        let attached = Attached {
            media_type: SIMPLE_SIGNING.into(),
            payload: b"{}".to_vec(),
            annotations: [(SIGNATURE_ANNOTATION.to_owned(), "AA==".to_owned())].into(),
        };
        for signature in [Signature::Simple(vec![0xa3, 1]), Signature::Sigstore(attached)] {
            assert_eq!(Signature::from_file(&signature.to_file().unwrap()).unwrap(), signature);
        }
        let unknown = Signature::from_file(b"\0notary\nx").unwrap();
        assert_eq!(unknown, Signature::Unknown("notary".into()));
        for wrong in [&b""[..], b"text", b"\0", b"\0sigstore-json\n{}", b"\0sigstore-json"] {
            assert!(Signature::from_file(wrong).is_err(), "{wrong:?}");
        }
    }
}
