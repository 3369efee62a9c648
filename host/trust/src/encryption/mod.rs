//! Encrypted layers, as ocicrypt makes them (`spec/` of containers/ocicrypt): AES-256 in counter mode, an HMAC over what is
//! encrypted, and the key of each layer wrapped for its recipients in JWE or in PKCS #7.

mod jwe;
mod keys;
mod pkcs7;

pub use keys::{Opener, Recipient};

use crate::{Result, Wrong, about, from_base64};
use base64::{Engine, engine::general_purpose::STANDARD};
use ctr::cipher::{KeyIvInit, StreamCipher};
use hmac::{Hmac, Mac};
use rand::RngCore;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
};
use zeroize::Zeroizing;

/// What is added to the media type of a layer that is encrypted.
pub const ENCRYPTED: &str = "+encrypted";
const CIPHER: &str = "AES_256_CTR_HMAC_SHA256";
const PUBLIC: &str = "org.opencontainers.image.enc.pubopts";
const JWE: &str = "org.opencontainers.image.enc.keys.jwe";
const PKCS7: &str = "org.opencontainers.image.enc.keys.pkcs7";
/// The most recipients of one wrapped key, and the largest wrapped key in bytes: each recipient is tried with each key.
const RECIPIENTS: usize = 64;
const WRAPPED: usize = 256 << 10;
/// What all annotations of encryption begin with.
const ALL: &str = "org.opencontainers.image.enc.";

type Aes256Ctr = ctr::Ctr128BE<aes::Aes256>;

/// What only recipients know of a layer.
#[derive(Serialize, Deserialize)]
struct Secret {
    symkey: String,
    /// The digest of the layer before it was encrypted.
    digest: String,
    cipheroptions: BTreeMap<String, String>,
}

/// What everybody may know of a layer.
#[derive(Serialize, Deserialize)]
struct Public {
    cipher: String,
    hmac: String,
    #[serde(default)]
    cipheroptions: BTreeMap<String, String>,
}

/// What an encrypted layer is, for its descriptor.
pub struct Encrypted {
    /// The annotations to add.
    pub annotations: BTreeMap<String, String>,
    /// Its digest.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Encrypts a layer. `digest` is the digest of the layer as it is.
///
/// # Errors
/// Fails if it cannot be read or written.
pub fn encrypt(
    from: &mut dyn Read,
    to: &mut dyn Write,
    digest: &str,
    recipients: &[Recipient],
) -> Result<Encrypted> {
    let (mut key, mut nonce) = (Zeroizing::new([0; 32]), [0; 16]);
    rand::rngs::OsRng.fill_bytes(key.as_mut());
    rand::rngs::OsRng.fill_bytes(&mut nonce);
    let (mac, written, size) =
        ciphered(from, to, &key, &nonce, Direction::In).map_err(about("the layer cannot be encrypted"))?;
    let nonce = STANDARD.encode(nonce);
    let secret = Secret {
        symkey: STANDARD.encode(*key),
        digest: digest.into(),
        cipheroptions: [("nonce".to_owned(), nonce)].into(),
    };
    let secret = Zeroizing::new(serde_json::to_vec(&secret).map_err(about("the key cannot be written"))?);
    let public = Public { cipher: CIPHER.into(), hmac: STANDARD.encode(mac), cipheroptions: BTreeMap::new() };
    let public = serde_json::to_vec(&public).map_err(about("the key cannot be written"))?;
    let mut annotations = BTreeMap::from([(PUBLIC.to_owned(), STANDARD.encode(public))]);
    let (mut jwe, mut pkcs7) = (Vec::new(), Vec::new());
    for recipient in recipients {
        match recipient {
            Recipient::Jwe(key) => jwe.push(key),
            Recipient::Pkcs7(certificate, key) => pkcs7.push((certificate.as_ref(), key)),
        }
    }
    if !jwe.is_empty() {
        let wrapped = jwe::sealed(&secret, &jwe)?;
        annotations.insert(JWE.into(), STANDARD.encode(wrapped.to_string()));
    }
    if !pkcs7.is_empty() {
        annotations.insert(PKCS7.into(), STANDARD.encode(pkcs7::sealed(&secret, &pkcs7)?));
    }
    Ok(Encrypted { annotations, digest: format!("sha256:{}", hex::encode(written)), size })
}

/// Decrypts a layer with the annotations of its descriptor. Returns the digest and the size of the layer as it was; the
/// caller takes what was written only if this succeeds.
///
/// # Errors
/// Fails if no key opens it, or if it has been changed.
pub fn decrypt(
    from: &mut dyn Read,
    to: &mut dyn Write,
    annotations: &BTreeMap<String, String>,
    keys: &[Opener],
) -> Result<(String, u64)> {
    let public =
        annotations.get(PUBLIC).ok_or_else(|| Wrong("it does not say how it is encrypted".into()))?;
    let public: Public = from_base64(public)
        .map_err(about("its annotations cannot be read"))
        .and_then(|json| serde_json::from_slice(&json).map_err(about("its annotations cannot be read")))?;
    if public.cipher != CIPHER {
        return Err(Wrong(format!("its cipher `{}` is unknown", public.cipher.escape_debug())));
    }
    // Several wrapped keys of one kind stand behind each other, with commas.
    let wrapped = |key: &str| {
        let texts = annotations.get(key).map(String::as_str).unwrap_or_default();
        let all = texts.split(',').filter(|text| !text.is_empty() && text.len() <= WRAPPED).take(RECIPIENTS);
        all.filter_map(|text| from_base64(text).ok()).collect::<Vec<_>>()
    };
    let (jwe, pkcs7) = (wrapped(JWE), wrapped(PKCS7));
    if jwe.is_empty() && pkcs7.is_empty() {
        let kinds =
            annotations.keys().filter_map(|key| key.strip_prefix("org.opencontainers.image.enc.keys."));
        let kinds = kinds.collect::<Vec<_>>().join(", ");
        return Err(Wrong(format!("its key is wrapped for {kinds}, and neither in JWE nor in PKCS #7")));
    }
    let mut opened = Err(Wrong("none of the keys opens it".into()));
    let in_jwe =
        jwe.iter().map(|json| jwe::unsealed(&serde_json::from_slice(json).unwrap_or_default(), keys));
    for attempt in in_jwe.chain(pkcs7.iter().map(|der| pkcs7::unsealed(der, keys))) {
        opened = attempt;
        if opened.is_ok() {
            break;
        }
    }
    let secret: Secret =
        serde_json::from_slice(&opened?).map_err(|_| Wrong("its key cannot be read".into()))?;
    let bytes = |text: &str| from_base64(text).map_err(|_| Wrong("its key cannot be read".into()));
    let key: Zeroizing<[u8; 32]> = Zeroizing::new(
        bytes(&secret.symkey)?.try_into().map_err(|_| Wrong("its key has a wrong length".into()))?,
    );
    let nonce = secret.cipheroptions.get("nonce").map(String::as_str).unwrap_or_default();
    let nonce: [u8; 16] =
        bytes(nonce)?.try_into().map_err(|_| Wrong("its nonce has a wrong length".into()))?;
    let (mac, written, size) =
        ciphered(from, to, &key, &nonce, Direction::Out).map_err(about("it cannot be decrypted"))?;
    let digest = format!("sha256:{}", hex::encode(written));
    // The HMAC covers what is encrypted, and the digest what it was.
    match bytes(&public.hmac)? == mac && digest == secret.digest {
        true => Ok((digest, size)),
        false => Err(Wrong("it has been changed since it was encrypted".into())),
    }
}

/// The annotations of a descriptor that do not speak of encryption.
pub fn other_annotations(annotations: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    annotations
        .iter()
        .filter(|(key, _)| !key.starts_with(ALL))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    /// Plain text comes in.
    In,
    /// Plain text goes out.
    Out,
}

/// Passes bytes through the cipher. Returns the HMAC of what is encrypted, and SHA-256 and size of what was written.
fn ciphered(
    from: &mut dyn Read,
    to: &mut dyn Write,
    key: &[u8; 32],
    nonce: &[u8; 16],
    direction: Direction,
) -> io::Result<(Vec<u8>, Vec<u8>, u64)> {
    let mut cipher = Aes256Ctr::new(key.into(), nonce.into());
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).map_err(io::Error::other)?;
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 256 << 10]);
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok((mac.finalize().into_bytes().to_vec(), hash.finalize().to_vec(), size));
        }
        let bytes = &mut buffer[..read];
        if direction == Direction::Out {
            mac.update(bytes);
        }
        cipher.apply_keystream(bytes);
        if direction == Direction::In {
            mac.update(bytes);
        }
        hash.update(&*bytes);
        size += read as u64;
        to.write_all(bytes)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p256::pkcs8::{EncodePrivateKey, EncodePublicKey};

    #[test]
    fn what_is_encrypted_opens_for_its_recipients_alone() {
        let pair = || {
            let secret = p256::SecretKey::random(&mut rand::rngs::OsRng);
            let public = secret.public_key().to_public_key_pem(Default::default()).unwrap();
            (
                Opener::parse(secret.to_pkcs8_pem(Default::default()).unwrap().as_bytes(), None).unwrap(),
                public,
            )
        };
        let ((one, one_public), (two, two_public), (other, _)) = (pair(), pair(), pair());
        let recipients = |all: &[&String]| {
            all.iter().map(|pem| Recipient::parse(pem.as_bytes()).unwrap()).collect::<Vec<_>>()
        };
        let layer = b"a layer".repeat(100_000);
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&layer)));
        for recipients in [recipients(&[&one_public]), recipients(&[&two_public, &one_public])] {
            let mut hidden = Vec::new();
            let encrypted = encrypt(&mut &layer[..], &mut hidden, &digest, &recipients).unwrap();
            assert_eq!((encrypted.size, hidden.len()), (layer.len() as u64, layer.len()));
            let open = |hidden: &[u8], keys: &[Opener]| {
                let mut plain = Vec::new();
                let opened = decrypt(&mut &hidden[..], &mut plain, &encrypted.annotations, keys);
                opened.map(|(digest, _)| (digest, plain))
            };
            let (found, plain) = open(&hidden, std::slice::from_ref(&one)).unwrap();
            assert_eq!((found, plain), (digest.clone(), layer.clone()));
            assert!(open(&hidden, std::slice::from_ref(&other)).is_err());
            hidden[7] ^= 1;
            assert!(open(&hidden, std::slice::from_ref(&one)).unwrap_err().to_string().contains("changed"));
        }
        drop(two);
    }
}
