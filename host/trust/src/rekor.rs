//! What the log Rekor says of a signature: that it had it at a time. Its promise is checked offline, with the key of the
//! log (`pkg/types` of Rekor, `bundle` of cosign).

use crate::{Result, Wrong, about, from_base64, publickey::PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

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
        serde_json::from_str(annotation).map_err(about("what its log says cannot be read"))?;
    let entry: Entry =
        serde_json::from_str(attached.payload.get()).map_err(about("what its log says cannot be read"))?;
    let promise = from_base64(&attached.promise).map_err(about("what its log says cannot be read"))?;
    check_promise(&entry, &promise, keys)
}

/// Checks the promise of a log for an entry. Returns the entry, and its time in seconds since 1970.
pub fn check_promise(entry: &Entry, promise: &[u8], keys: &[PublicKey]) -> Result<(Vec<u8>, u64)> {
    // RFC 8785 is what the log signs.
    let signed =
        serde_json_canonicalizer::to_vec(entry).map_err(about("what its log says cannot be read"))?;
    if !keys.iter().any(|key| key.is_ecdsa() && key.made(&signed, promise)) {
        return Err(Wrong("none of the trusted logs made the promise for it".into()));
    }
    let time = u64::try_from(entry.time).map_err(|_| Wrong("its log gives a wrong time".into()))?;
    let body = from_base64(&entry.body).map_err(about("the entry of its log cannot be read"))?;
    Ok((body, time))
}

/// Checks that an entry of the kind `hashedrekord` is about a signature: the key or the certificate in PEM, the bytes of
/// the signature, and the SHA-256 of what was signed.
pub fn check_hashedrekord(body: &[u8], pem: &str, signature: &[u8], sha256: &str) -> Result<()> {
    let entry: Value = serde_json::from_slice(body).map_err(about("the entry of its log cannot be read"))?;
    let is = |pointer: &str, value: &str| entry.pointer(pointer).and_then(Value::as_str) == Some(value);
    let bytes = |pointer: &str| {
        let text = entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        from_base64(text).unwrap_or_default()
    };
    if !is("/kind", "hashedrekord") || !is("/apiVersion", "0.0.1") {
        return Err(Wrong("the entry of its log is of another kind than hashedrekord 0.0.1".into()));
    }
    let about_it = is("/spec/data/hash/algorithm", "sha256")
        && is("/spec/data/hash/value", sha256)
        && bytes("/spec/signature/content") == signature
        && same_pem(&bytes("/spec/signature/publicKey/content"), pem);
    match about_it {
        true => Ok(()),
        false => Err(Wrong("the entry of its log is about another signature".into())),
    }
}

/// Checks that an entry of the kind `dsse` is about an envelope: its payload and its one signature.
pub fn check_dsse(body: &[u8], pem: &str, signature: &[u8], payload_sha256: &str) -> Result<()> {
    let entry: Value = serde_json::from_slice(body).map_err(about("the entry of its log cannot be read"))?;
    let is = |pointer: &str, value: &str| entry.pointer(pointer).and_then(Value::as_str) == Some(value);
    let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if !is("/kind", "dsse") || !is("/apiVersion", "0.0.1") {
        return Err(Wrong("the entry of its log is of another kind than dsse 0.0.1".into()));
    }
    let one = entry.pointer("/spec/signatures").and_then(Value::as_array).is_some_and(|all| all.len() == 1);
    let about_it = one
        && is("/spec/payloadHash/algorithm", "sha256")
        && is("/spec/payloadHash/value", payload_sha256)
        && from_base64(text("/spec/signatures/0/signature")).unwrap_or_default() == signature
        && same_pem(&from_base64(text("/spec/signatures/0/verifier")).unwrap_or_default(), pem);
    match about_it {
        true => Ok(()),
        false => Err(Wrong("the entry of its log is about another signature".into())),
    }
}

/// Whether two PEM texts hold the same bytes.
fn same_pem(one: &[u8], other: &str) -> bool {
    let (Ok(one), Ok(other)) =
        (crate::publickey::pem_blocks(one), crate::publickey::pem_blocks(other.as_bytes()))
    else {
        return false;
    };
    !one.is_empty() && one.first() == other.first()
}
