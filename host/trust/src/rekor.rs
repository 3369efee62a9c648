//! What the log Rekor says of a signature: that it had it at a time. Its promise is checked offline, with the key of the
//! log (`pkg/types` of Rekor, `bundle` of cosign).

use crate::{Result, Wrong, from_base64, publickey::PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

fn unreadable<E: std::fmt::Display>() -> impl Fn(E) -> Wrong {
    crate::about("the entry of its log cannot be read")
}

/// The annotation `dev.sigstore.cosign/bundle`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attached {
    #[serde(rename = "SignedEntryTimestamp")]
    promise: String,
    #[serde(rename = "Payload")]
    payload: Box<RawValue>,
}

/// What the log signed: an entry with its time and place.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The entry, in base64.
    pub body: String,
    /// Seconds since 1970.
    #[serde(rename = "integratedTime")]
    pub time: i64,
    /// Which key the log has, in hex.
    #[serde(rename = "logID")]
    pub log: String,
    /// The number of the entry.
    #[serde(rename = "logIndex")]
    pub index: i64,
}

/// Checks the promise that stands beside a signature. Returns the entry, and its time in seconds since 1970.
pub fn promised(annotation: &str, keys: &[PublicKey]) -> Result<(Vec<u8>, u64)> {
    let attached: Attached =
        serde_json::from_str(annotation).map_err(crate::about("what its log says cannot be read"))?;
    let entry: Entry = serde_json::from_str(attached.payload.get())
        .map_err(crate::about("what its log says cannot be read"))?;
    let promise = from_base64(&attached.promise).map_err(crate::about("what its log says cannot be read"))?;
    check_promise(&entry, &promise, keys)
}

/// Checks the promise of a log for an entry. Returns the entry, and its time in seconds since 1970.
pub fn check_promise(entry: &Entry, promise: &[u8], keys: &[PublicKey]) -> Result<(Vec<u8>, u64)> {
    // RFC 8785 is what the log signs.
    let signed =
        serde_json_canonicalizer::to_vec(entry).map_err(crate::about("what its log says cannot be read"))?;
    if !keys.iter().any(|key| key.is_ecdsa() && key.made(&signed, promise)) {
        return Err(Wrong("none of the trusted logs made the promise for it".into()));
    }
    let time = u64::try_from(entry.time).map_err(|_| Wrong("its log gives a wrong time".into()))?;
    let body = from_base64(&entry.body).map_err(unreadable())?;
    Ok((body, time))
}

/// Whether an entry is of the kind `hashedrekord`.
pub fn is_hashedrekord(body: &[u8]) -> bool {
    Fields::of(body).is_ok_and(|entry| entry.is("/kind", "hashedrekord"))
}

/// Checks that an entry of the kind `hashedrekord` is about a signature: the key or the certificate in DER, the bytes of
/// the signature, and the SHA-256 of what was signed in hex.
pub fn check_hashedrekord(body: &[u8], key: &[u8], signature: &[u8], sha256: &str) -> Result<()> {
    let entry = Fields::of(body)?;
    let about_it = match entry.version("hashedrekord")? {
        Version::One => {
            entry.is("/spec/data/hash/algorithm", "sha256")
                && entry.is("/spec/data/hash/value", sha256)
                && entry.bytes("/spec/signature/content") == signature
                && is_pem_of(&entry.bytes("/spec/signature/publicKey/content"), key)
        }
        Version::Two => {
            let spec = "/spec/hashedRekordV002";
            entry.is(&format!("{spec}/data/algorithm"), "SHA2_256")
                && hex::encode(entry.bytes(&format!("{spec}/data/digest"))) == sha256
                && entry.is_signed(&format!("{spec}/signature"), key, signature)
        }
    };
    only_if(about_it)
}

/// Checks that an entry of the kind `dsse` is about an envelope: its payload and its one signature.
pub fn check_dsse(body: &[u8], key: &[u8], signature: &[u8], payload_sha256: &str) -> Result<()> {
    let entry = Fields::of(body)?;
    let about_it = match entry.version("dsse")? {
        Version::One => {
            entry.has_one("/spec/signatures")
                && entry.is("/spec/payloadHash/algorithm", "sha256")
                && entry.is("/spec/payloadHash/value", payload_sha256)
                && entry.bytes("/spec/signatures/0/signature") == signature
                && is_pem_of(&entry.bytes("/spec/signatures/0/verifier"), key)
        }
        Version::Two => {
            let spec = "/spec/dsseV002";
            entry.has_one(&format!("{spec}/signatures"))
                && entry.is(&format!("{spec}/payloadHash/algorithm"), "SHA2_256")
                && hex::encode(entry.bytes(&format!("{spec}/payloadHash/digest"))) == payload_sha256
                && entry.is_signed(&format!("{spec}/signatures/0"), key, signature)
        }
    };
    only_if(about_it)
}

fn only_if(about_it: bool) -> Result<()> {
    match about_it {
        true => Ok(()),
        false => Err(Wrong("the entry of its log is about another signature".into())),
    }
}

/// The versions of entries: those of Rekor 1, and those of Rekor 2.
enum Version {
    One,
    Two,
}

/// An entry of a log.
struct Fields(Value);

impl Fields {
    fn of(body: &[u8]) -> Result<Self> {
        serde_json::from_slice(body).map(Fields).map_err(unreadable())
    }

    fn version(&self, kind: &str) -> Result<Version> {
        match self.0["apiVersion"].as_str() {
            Some("0.0.1") if self.is("/kind", kind) => Ok(Version::One),
            Some("0.0.2") if self.is("/kind", kind) => Ok(Version::Two),
            _ => Err(Wrong(format!("the entry of its log is of another kind than {kind} 0.0.1 and 0.0.2"))),
        }
    }

    fn is(&self, pointer: &str, value: &str) -> bool {
        self.0.pointer(pointer).and_then(Value::as_str) == Some(value)
    }

    fn has_one(&self, pointer: &str) -> bool {
        self.0.pointer(pointer).and_then(Value::as_array).is_some_and(|all| all.len() == 1)
    }

    fn bytes(&self, pointer: &str) -> Vec<u8> {
        let text = self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        from_base64(text).unwrap_or_default()
    }

    /// Whether a signature of Rekor 2 is this one by this key.
    fn is_signed(&self, pointer: &str, key: &[u8], signature: &[u8]) -> bool {
        let verifier = ["publicKey", "x509Certificate"];
        let found = verifier.map(|kind| self.bytes(&format!("{pointer}/verifier/{kind}/rawBytes")));
        let [public, certificate] = &found;
        let is_key = (public == key && certificate.is_empty()) || (certificate == key && public.is_empty());
        is_key && self.bytes(&format!("{pointer}/content")) == signature
    }
}

/// Whether the first block of a PEM text holds these bytes.
fn is_pem_of(pem: &[u8], der: &[u8]) -> bool {
    let blocks = crate::publickey::pem_blocks(pem).unwrap_or_default();
    blocks.first().is_some_and(|(_, found)| found == der)
}
