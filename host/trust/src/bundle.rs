//! Sigstore bundles, as cosign 3 attaches them by referrers (`sigstore_bundle.proto`, cosign's BUNDLE_SPEC).

use crate::{
    Result, Wrong, about,
    certificate::Leaf,
    from_base64,
    inclusion::Proof,
    publickey::PublicKey,
    rekor::{self, Entry},
    timestamp::Authorities,
};
use dray_core::Digest;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The most entries of logs, and the most signed times, of one bundle. Each costs several checks.
const WITNESSES: usize = 8;
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
    #[serde(default)]
    timestamp_verification_data: Option<Timestamps>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Timestamps {
    #[serde(default)]
    rfc3161_timestamps: Vec<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Timestamp {
    signed_timestamp: String,
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
    #[serde(default)]
    integrated_time: Value,
    inclusion_promise: Option<Promise>,
    inclusion_proof: Option<InclusionProof>,
    canonicalized_body: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InclusionProof {
    log_index: Value,
    root_hash: String,
    tree_size: Value,
    #[serde(default)]
    hashes: Vec<String>,
    checkpoint: Option<Checkpoint>,
}

#[derive(Deserialize)]
struct Checkpoint {
    envelope: String,
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
    message_digest: Option<MessageDigest>,
    signature: String,
}

#[derive(Deserialize)]
struct MessageDigest {
    algorithm: String,
    digest: String,
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
    timestamps: Vec<Timestamp>,
    /// Whether each entry of a log must come with a proof.
    needs_proof: bool,
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
        let timestamps = material.timestamp_verification_data.map(|data| data.rfc3161_timestamps);
        let timestamps = timestamps.unwrap_or_default();
        if entries.len() > WITNESSES || timestamps.len() > WITNESSES {
            return Err(Wrong(format!(
                "the bundle has more than {WITNESSES} entries of logs or signed times"
            )));
        }
        // Bundles of version 0.1 were made before logs gave proofs.
        let needs_proof = !bundle.media_type.ends_with("version=0.1");
        match (bundle.message_signature, bundle.dsse_envelope) {
            (Some(message), None) => {
                // The digest proves nothing, but a bundle that contradicts itself is not to be trusted.
                let told = message.message_digest.filter(|told| told.algorithm == "SHA2_256");
                if told.is_some_and(|told| {
                    decoded(&told.digest).ok().as_deref() != Some(&*Sha256::digest(manifest))
                }) {
                    return Err(Wrong("it is for another manifest".into()));
                }
                Ok(Read {
                    signed: manifest.to_vec(),
                    signature: decoded(&message.signature)?,
                    payload: None,
                    names: Vec::new(),
                    entries,
                    timestamps,
                    needs_proof,
                    leaf,
                    between,
                })
            }
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
                    timestamps,
                    needs_proof,
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

    /// Checks that a trusted log holds the signature. `key` is what made it: a public key or a certificate in DER. Returns
    /// the times that logs signed, in seconds since 1970; there is none if a log gives only a proof.
    pub fn logged(&self, logs: &[PublicKey], key: &[u8]) -> Result<Vec<u64>> {
        let mut why = Wrong("no log has promised to hold it".into());
        for entry in &self.entries {
            match self.logged_by(entry, logs, key) {
                Ok(time) => return Ok(time.into_iter().collect()),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    fn logged_by(&self, entry: &LogEntry, logs: &[PublicKey], key: &[u8]) -> Result<Option<u64>> {
        let body = decoded(&entry.canonicalized_body)?;
        if entry.inclusion_proof.is_none() && (self.needs_proof || entry.inclusion_promise.is_none()) {
            return Err(Wrong("its log gives no proof that it holds it".into()));
        }
        if let Some(proof) = &entry.inclusion_proof {
            let checkpoint = proof.checkpoint.as_ref();
            let checkpoint = checkpoint.ok_or_else(|| Wrong("its log signed no state of itself".into()))?;
            let proof = Proof {
                index: number(&proof.log_index)?,
                size: number(&proof.tree_size)?,
                hashes: proof.hashes.iter().map(|hash| decoded(hash)).collect::<Result<_>>()?,
                root: decoded(&proof.root_hash)?,
                checkpoint: &checkpoint.envelope,
            };
            proof.check(&body, logs)?;
        }
        let time = match &entry.inclusion_promise {
            None => None,
            Some(promise) => {
                let whole = |value: &Value| {
                    let number = number(value)?;
                    i64::try_from(number).map_err(|_| Wrong("its log gives too large a number".into()))
                };
                let signed = Entry {
                    body: entry.canonicalized_body.clone(),
                    time: whole(&entry.integrated_time)?,
                    log: hex::encode(decoded(&entry.log_id.key_id)?),
                    index: whole(&entry.log_index)?,
                };
                let promise = decoded(&promise.signed_entry_timestamp)?;
                Some(rekor::check_promise(&signed, &promise, logs)?.1)
            }
        };
        match &self.payload {
            // Rekor 2 keeps the hash of what is signed, whether that is an envelope or not.
            Some(payload) if !rekor::is_hashedrekord(&body) => {
                rekor::check_dsse(&body, key, &self.signature, payload)?
            }
            _ => {
                let digest = hex::encode(Sha256::digest(&self.signed));
                rekor::check_hashedrekord(&body, key, &self.signature, &digest)?;
            }
        }
        Ok(time)
    }

    /// The times that trusted authorities signed, in seconds since 1970.
    pub fn stamped(&self, authorities: &Authorities) -> Result<Vec<u64>> {
        let mut times = Vec::new();
        let mut why = Wrong("no authority signed its time".into());
        for timestamp in &self.timestamps {
            match authorities.time_of(&self.signature, &decoded(&timestamp.signed_timestamp)?) {
                Ok(time) => times.push(time),
                Err(wrong) => why = wrong,
            }
        }
        if times.is_empty() { Err(why) } else { Ok(times) }
    }
}

/// A number, which the JSON of protocol buffers may write as a text.
fn number(value: &Value) -> Result<u64> {
    let number = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    number.ok_or_else(|| Wrong("its log gives a number that is none".into()))
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
