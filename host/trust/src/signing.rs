//! Making signatures with a key: as cosign attaches them by tag, and as bundles.

use crate::{
    Attached, Payload, PrivateKey, Result,
    bundle::{pre_authentication, statement_of},
    signature::{BUNDLE, SIGNATURE_ANNOTATION, SIMPLE_SIGNING},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use dray_core::Digest;

/// Who made a payload, as it says.
const CREATOR: &str = concat!("dray ", env!("CARGO_PKG_VERSION"));

/// The payload of simple signing for an image. `reference` goes in as it is written; `now` is in seconds since 1970.
pub fn payload_to_sign(digest: &Digest, reference: &str, now: u64) -> Vec<u8> {
    Payload { digest: digest.clone(), reference: reference.into() }.to_simple(CREATOR, now)
}

/// Makes a signature as cosign attaches it by tag.
///
/// # Errors
/// Fails if the key does not sign.
pub fn sign_attached(key: &PrivateKey, digest: &Digest, reference: &str, now: u64) -> Result<Attached> {
    let payload = Payload { digest: digest.clone(), reference: reference.into() }.to_cosign(CREATOR, now);
    let signature = STANDARD.encode(key.sign(&payload)?);
    Ok(Attached {
        media_type: SIMPLE_SIGNING.into(),
        payload,
        annotations: [(SIGNATURE_ANNOTATION.to_owned(), signature)].into(),
    })
}

/// Makes a bundle as cosign attaches it by referrer: an envelope with a statement about the manifest.
///
/// # Errors
/// Fails if the key does not sign.
pub fn bundle_of(key: &PrivateKey, digest: &Digest) -> Result<Vec<u8>> {
    let kind = "application/vnd.in-toto+json";
    let payload = statement_of(digest);
    let signature = key.sign(&pre_authentication(kind, &payload))?;
    let bundle = serde_json::json!({
        "mediaType": BUNDLE,
        "verificationMaterial": { "publicKey": { "hint": key.hint() } },
        "dsseEnvelope": {
            "payload": STANDARD.encode(&payload),
            "payloadType": kind,
            "signatures": [{ "sig": STANDARD.encode(signature) }],
        },
    });
    Ok(bundle.to_string().into_bytes())
}
