//! Public keys in PEM or DER (SubjectPublicKeyInfo), and the signatures that `ring` checks with them.

use crate::{Result, Wrong, about};
use der::{Decode, oid::ObjectIdentifier, pem::PemLabel};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use sha2::{Digest, Sha256};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// The name of keys of the curve Ed25519.
const ED: &str = "Ed25519";
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// A public key, with the only algorithm for which it is used.
#[derive(Clone)]
pub struct PublicKey {
    /// The whole SubjectPublicKeyInfo.
    der: Vec<u8>,
    key: Vec<u8>,
    algorithm: &'static dyn VerificationAlgorithm,
    kind: &'static str,
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

impl PublicKey {
    /// Reads one key in PEM (`BEGIN PUBLIC KEY`), as cosign and skopeo write them.
    #[cfg(test)]
    pub fn from_pem(text: &[u8]) -> Result<Self> {
        Self::all_from_pem(text)?.into_iter().next().ok_or_else(|| Wrong("it holds no public key".into()))
    }

    /// Reads all keys of a PEM file.
    pub fn all_from_pem(text: &[u8]) -> Result<Vec<Self>> {
        let blocks = pem_blocks(text)?;
        let keys = blocks.iter().filter(|(label, _)| label == SubjectPublicKeyInfoOwned::PEM_LABEL);
        let keys: Vec<Self> = keys.map(|(_, der)| Self::from_der(der)).collect::<Result<_>>()?;
        match keys.is_empty() {
            true => Err(Wrong("it holds no public key in PEM".into())),
            false => Ok(keys),
        }
    }

    /// Reads a SubjectPublicKeyInfo (RFC 5280, 4.1.2.7).
    pub fn from_der(der: &[u8]) -> Result<Self> {
        let info = SubjectPublicKeyInfoOwned::from_der(der).map_err(about("it is no public key"))?;
        let key =
            info.subject_public_key.as_bytes().ok_or_else(|| Wrong("its key is broken".into()))?.to_vec();
        let curve =
            || info.algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        let (algorithm, kind): (&'static dyn VerificationAlgorithm, _) = match info.algorithm.oid {
            EC => match curve() {
                Some(P256) => (&signature::ECDSA_P256_SHA256_ASN1, "ECDSA P-256"),
                // cosign and skopeo hash with SHA-256, whatever the curve.
                Some(P384) => (&signature::ECDSA_P384_SHA256_ASN1, "ECDSA P-384"),
                _ => return Err(Wrong("its curve is neither P-256 nor P-384".into())),
            },
            RSA => (&signature::RSA_PKCS1_2048_8192_SHA256, "RSA"),
            ED25519 => (&signature::ED25519, ED),
            other => return Err(Wrong(format!("its algorithm {other} is not supported"))),
        };
        Ok(PublicKey { der: der.to_vec(), key, algorithm, kind })
    }

    /// Whether this key made the signature of these bytes.
    pub fn made(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm, &self.key).verify(bytes, signature).is_ok()
    }

    /// Whether it is of a kind that logs have.
    pub fn is_of_log(&self) -> bool {
        self.is_ecdsa() || self.kind == ED
    }

    /// Whether it is an ECDSA key.
    pub fn is_ecdsa(&self) -> bool {
        self.kind.starts_with("ECDSA")
    }

    /// The four bytes that hint at this key in a signature of a note by this name: those of Rekor, and those of C2SP's
    /// signed-note for Ed25519.
    pub fn hints(&self, name: &str) -> [[u8; 4]; 2] {
        let note =
            Sha256::new().chain_update(name).chain_update(b"\n\x01").chain_update(&self.key).finalize();
        [self.id(), note.into()].map(|hash: [u8; 32]| [hash[0], hash[1], hash[2], hash[3]])
    }

    /// The SubjectPublicKeyInfo.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of the SubjectPublicKeyInfo, by which logs name their keys.
    pub fn id(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }

    /// The key for people.
    pub fn shown(&self) -> String {
        format!("the {} key sha256:{}", self.kind, &hex::encode(self.id())[..16])
    }
}

/// The blocks of a PEM file with their labels. What stands between blocks is skipped (RFC 7468, 2).
pub fn pem_blocks(text: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let text = std::str::from_utf8(text).map_err(|_| Wrong("it is no PEM file".into()))?;
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find("-----BEGIN ") {
        let block = &rest[begin..];
        let end = block.find("-----END ").ok_or_else(|| Wrong("a PEM block of it has no end".into()))?;
        let close =
            block[end + 9..].find("-----").ok_or_else(|| Wrong("a PEM block of it has no end".into()))?;
        let whole = &block[..end + 9 + close + 5];
        let (label, bytes) = read_block(whole)?;
        blocks.push((label, bytes));
        rest = &block[whole.len()..];
    }
    Ok(blocks)
}

/// Reads one block. Encoders differ in the length of lines and in white space, so only the base64 in it counts.
fn read_block(block: &str) -> Result<(String, Vec<u8>)> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let wrong = || Wrong("a PEM block of it is broken".into());
    let label =
        block.strip_prefix("-----BEGIN ").and_then(|rest| rest.split_once("-----")).ok_or_else(wrong)?;
    let (label, rest) = label;
    let (body, end) = rest.split_once("-----END ").ok_or_else(wrong)?;
    if end.strip_suffix("-----") != Some(label) {
        return Err(wrong());
    }
    let body: String = body.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    let bytes = STANDARD.decode(body).map_err(|_| wrong())?;
    Ok((label.to_owned(), bytes))
}

/// Writes a PEM block.
pub fn to_pem(label: &str, der: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = (0..body.len()).step_by(64).map(|at| &body[at..body.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
