//! Sigstore bundles, as cosign 3 attaches them by referrers (`sigstore_bundle.proto`, cosign's BUNDLE_SPEC).

use crate::{
    Result, Wrong, about,
    certificate::Leaf,
    from_base64,
    publickey::{PublicKey, to_pem},
    rekor::{self, Entry},
};
use dray_core::Digest;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The type of an in-toto statement in an envelope.
const IN_TOTO: &str = "application/vnd.in-toto+json";
/// The predicate by which cosign says that somebody signed an image. Others (SBOMs, provenance) say other things.
const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Material,
    message_signature: Option<MessageSignature>,
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    public_key: Option<Hint>,
    certificate: Option<RawBytes>,
    x509_certificate_chain: Option<Chain>,
    #[serde(default)]
    tlog_entries: Vec<LogEntry>,
}

#[derive(Deserialize)]
struct Hint {}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBytes {
    raw_bytes: String,
}

#[derive(Deserialize)]
struct Chain {
    certificates: Vec<RawBytes>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogEntry {
    log_index: Value,
    log_id: LogId,
    integrated_time: Value,
    inclusion_promise: Option<Promise>,
    canonicalized_body: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogId {
    key_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Promise {
    signed_entry_timestamp: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageSignature {
    signature: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<StatementSubject>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct StatementSubject {
    #[serde(default)]
    name: String,
    digest: std::collections::BTreeMap<String, String>,
}

/// What a bundle gives, before anything is trusted.
pub struct Read {
    /// The bytes that were signed.
    signed: Vec<u8>,
    signature: Vec<u8>,
    /// SHA-256 of the envelope's payload. `None` means that the manifest itself was signed.
    payload: Option<String>,
    /// The names in the statement. It is empty if it gives only digests.
    names: Vec<String>,
    entries: Vec<LogEntry>,
    /// The certificate. `None` means that the bundle is by a key.
    pub leaf: Option<Leaf>,
    /// Certificates above it.
    pub between: Vec<CertificateDer<'static>>,
}

fn decoded(text: &str) -> Result<Vec<u8>> {
    from_base64(text).map_err(about("a part of the bundle is not in base64"))
}

impl Read {
    /// Reads a bundle for a manifest with its SHA-256 digest.
    pub fn parse(json: &[u8], manifest: &[u8], digest: &Digest) -> Result<Self> {
        let bundle: Bundle = serde_json::from_slice(json).map_err(about("the bundle cannot be read"))?;
        if !bundle.media_type.starts_with("application/vnd.dev.sigstore.bundle") {
            return Err(Wrong("it is no sigstore bundle".into()));
        }
        let material = bundle.verification_material;
        let mut chain: Vec<Vec<u8>> = Vec::new();
        if let Some(certificate) = &material.certificate {
            chain.push(decoded(&certificate.raw_bytes)?);
        }
        for certificate in material.x509_certificate_chain.iter().flat_map(|chain| &chain.certificates) {
            chain.push(decoded(&certificate.raw_bytes)?);
        }
        if chain.is_empty() == material.public_key.is_none() {
            return Err(Wrong("the bundle is neither by a key nor by a certificate".into()));
        }
        let leaf = chain.first().map(|der| Leaf::from_der(der)).transpose()?;
        let between = chain.into_iter().skip(1).map(CertificateDer::from).collect();
        let entries = material.tlog_entries;
        match (bundle.message_signature, bundle.dsse_envelope) {
            (Some(message), None) => Ok(Read {
                signed: manifest.to_vec(),
                signature: decoded(&message.signature)?,
                payload: None,
                names: Vec::new(),
                entries,
                leaf,
                between,
            }),
            (None, Some(envelope)) => {
                let [signature] = envelope.signatures.as_slice() else {
                    return Err(Wrong("the bundle has not exactly one signature".into()));
                };
                let payload = decoded(&envelope.payload)?;
                let names = statement(&envelope.payload_type, &payload, digest)?;
                Ok(Read {
                    signed: pre_authentication(&envelope.payload_type, &payload),
                    signature: decoded(&signature.sig)?,
                    payload: Some(hex::encode(Sha256::digest(&payload))),
                    names,
                    entries,
                    leaf,
                    between,
                })
            }
            _ => Err(Wrong("the bundle has not exactly one content".into())),
        }
    }

    /// Whether a key made the signature.
    pub fn made_by(&self, key: &PublicKey) -> bool {
        key.made(&self.signed, &self.signature)
    }

    /// The names that the statement gives to the image.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When a trusted log promised to hold the signature, in seconds since 1970. `key` is what made it: a public key or
    /// a certificate, in PEM.
    pub fn logged(&self, keys: &[PublicKey], pem: &str) -> Result<u64> {
        let mut why = Wrong("no log has promised to hold it".into());
        for entry in &self.entries {
            match self.logged_by(entry, keys, pem) {
                Ok(time) => return Ok(time),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    fn logged_by(&self, entry: &LogEntry, keys: &[PublicKey], pem: &str) -> Result<u64> {
        let promise = entry.inclusion_promise.as_ref();
        let promise = promise.ok_or_else(|| {
            Wrong("its log gives a proof without a signed time, which cannot be checked offline".into())
        })?;
        let number = |value: &Value| {
            let number = value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
            number.ok_or_else(|| Wrong("its log gives a number that is none".into()))
        };
        let signed = Entry {
            body: entry.canonicalized_body.clone(),
            time: number(&entry.integrated_time)?,
            log: hex::encode(decoded(&entry.log_id.key_id)?),
            index: number(&entry.log_index)?,
        };
        let (body, time) = rekor::check_promise(&signed, &decoded(&promise.signed_entry_timestamp)?, keys)?;
        match &self.payload {
            Some(payload) => rekor::check_dsse(&body, pem, &self.signature, payload)?,
            None => {
                let digest = hex::encode(Sha256::digest(&self.signed));
                rekor::check_hashedrekord(&body, pem, &self.signature, &digest)?;
            }
        }
        Ok(time)
    }
}

/// Reads the statement of an envelope, which must be about this manifest. Returns the names that it gives to it.
fn statement(kind: &str, payload: &[u8], digest: &Digest) -> Result<Vec<String>> {
    if kind != IN_TOTO {
        return Err(Wrong(format!("its envelope holds `{}`, and no statement", kind.escape_debug())));
    }
    let statement: Statement =
        serde_json::from_slice(payload).map_err(about("its statement cannot be read"))?;
    if statement.kind != "https://in-toto.io/Statement/v1"
        && statement.kind != "https://in-toto.io/Statement/v0.1"
    {
        return Err(Wrong("its statement is of an unknown version".into()));
    }
    if statement.predicate_type != SIGN {
        let kind = statement.predicate_type.escape_debug();
        return Err(Wrong(format!("it attests `{kind}`, which does not say that the image is signed")));
    }
    let hex = digest.to_string();
    let (algorithm, hex) = hex.split_once(':').unwrap_or_default();
    let about_it: Vec<&StatementSubject> = statement
        .subject
        .iter()
        .filter(|subject| subject.digest.get(algorithm).is_some_and(|digest| digest == hex))
        .collect();
    match about_it.is_empty() {
        true => Err(Wrong("it is for another manifest".into())),
        false => {
            Ok(about_it.iter().map(|subject| subject.name.clone()).filter(|name| !name.is_empty()).collect())
        }
    }
}

/// What is signed of an envelope (DSSE's protocol.md, "PAE").
pub fn pre_authentication(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    bytes.extend(payload);
    bytes
}

/// A certificate in PEM, as logs keep it.
pub fn certificate_pem(der: &[u8]) -> String {
    to_pem("CERTIFICATE", der)
}

/// A statement that somebody signed a manifest.
pub fn statement_of(digest: &Digest) -> Vec<u8> {
    let hex = digest.to_string();
    let (algorithm, hex) = hex.split_once(':').unwrap_or_default();
    let statement = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "digest": { algorithm: hex } }],
        "predicateType": SIGN,
        "predicate": {},
    });
    statement.to_string().into_bytes()
}
