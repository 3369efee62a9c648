//! Encrypted layers, as ocicrypt makes them (`spec/` of containers/ocicrypt): AES-256 in counter mode, an HMAC over what is
//! encrypted, and the key of each layer wrapped for its recipients in JWE (RFC 7516).

use crate::{Result, Wrong, about, from_base64, publickey::pem_blocks};
use aes_gcm::{
    Aes256Gcm, KeyInit, Nonce,
    aead::{Aead, Payload as AeadPayload},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ctr::cipher::{KeyIvInit, StreamCipher};
use der::Decode;
use hmac::{Hmac, Mac};
use p256::{
    elliptic_curve::sec1::{FromEncodedPoint, ToEncodedPoint},
    pkcs8::{DecodePrivateKey, DecodePublicKey},
};
use rand::RngCore;
use rsa::{
    Oaep, RsaPrivateKey, RsaPublicKey,
    pkcs1::{DecodeRsaPrivateKey, DecodeRsaPublicKey},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
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
/// What all annotations of encryption begin with.
const ALL: &str = "org.opencontainers.image.enc.";

type Aes256Ctr = ctr::Ctr128BE<aes::Aes256>;

/// Somebody for whom layers are encrypted.
pub enum Recipient {
    /// An RSA key, by RSA-OAEP.
    Rsa(RsaPublicKey),
    /// A key of the curve P-256, by ECDH-ES+A256KW.
    P256(p256::PublicKey),
}

/// A key that opens layers.
pub enum Opener {
    /// An RSA key.
    Rsa(Box<RsaPrivateKey>),
    /// A key of the curve P-256.
    P256(p256::SecretKey),
}

impl Recipient {
    /// Reads a public key or a certificate in PEM.
    ///
    /// # Errors
    /// Fails if it is neither, or of a kind that is not supported.
    pub fn parse(file: &[u8]) -> Result<Self> {
        for (label, der) in pem_blocks(file)? {
            let der = match label.as_str() {
                "CERTIFICATE" => {
                    let certificate =
                        x509_cert::Certificate::from_der(&der).map_err(about("it is no certificate"))?;
                    let info = certificate.tbs_certificate.subject_public_key_info;
                    der::Encode::to_der(&info).map_err(about("its key cannot be read"))?
                }
                "RSA PUBLIC KEY" => {
                    let key = RsaPublicKey::from_pkcs1_der(&der).map_err(about("it is no RSA key"))?;
                    return Ok(Recipient::Rsa(key));
                }
                "PUBLIC KEY" => der,
                _ => continue,
            };
            if let Ok(key) = RsaPublicKey::from_public_key_der(&der) {
                return Ok(Recipient::Rsa(key));
            }
            let key = p256::PublicKey::from_public_key_der(&der);
            return key
                .map(Recipient::P256)
                .map_err(|_| Wrong("its key is neither RSA nor of the curve P-256".into()));
        }
        Err(Wrong("it holds no public key in PEM".into()))
    }

    /// The header of this recipient, and the key for content, encrypted for it.
    fn wrap(&self, key: &[u8; 32]) -> Result<(Value, Vec<u8>)> {
        match self {
            Recipient::Rsa(public) => {
                let wrapped = public.encrypt(&mut rand::rngs::OsRng, Oaep::new::<sha1::Sha1>(), key);
                Ok((json!({ "alg": "RSA-OAEP" }), wrapped.map_err(about("the key cannot be wrapped"))?))
            }
            Recipient::P256(public) => {
                let own = p256::SecretKey::random(&mut rand::rngs::OsRng);
                let shared = p256::ecdh::diffie_hellman(own.to_nonzero_scalar(), public.as_affine());
                let kek = derived(shared.raw_secret_bytes(), "ECDH-ES+A256KW");
                let kw = aes_kw::KekAes256::from(*kek);
                let mut wrapped = vec![0; 40];
                kw.wrap(key, &mut wrapped).map_err(|_| Wrong("the key cannot be wrapped".into()))?;
                let point = own.public_key().to_encoded_point(false);
                let part = |part: Option<&p256::FieldBytes>| {
                    URL_SAFE_NO_PAD.encode(part.map(|part| part.as_slice()).unwrap_or_default())
                };
                let epk = json!({ "kty": "EC", "crv": "P-256", "x": part(point.x()), "y": part(point.y()) });
                Ok((json!({ "alg": "ECDH-ES+A256KW", "epk": epk }), wrapped))
            }
        }
    }
}

/// The key that a shared secret gives (RFC 7518, 4.6.2, for a key of 256 bits).
fn derived(shared: &[u8], algorithm: &str) -> Zeroizing<[u8; 32]> {
    let mut hash = Sha256::new();
    hash.update(1u32.to_be_bytes());
    hash.update(shared);
    hash.update((algorithm.len() as u32).to_be_bytes());
    hash.update(algorithm);
    // Neither party has more to say.
    hash.update(0u32.to_be_bytes());
    hash.update(0u32.to_be_bytes());
    hash.update(256u32.to_be_bytes());
    Zeroizing::new(hash.finalize().into())
}

impl Opener {
    /// Reads a private key in PEM.
    ///
    /// # Errors
    /// Fails if it holds none, or one of a kind that is not supported.
    pub fn parse(file: &[u8]) -> Result<Self> {
        for (label, der) in pem_blocks(file)? {
            match label.as_str() {
                "RSA PRIVATE KEY" => {
                    let key = RsaPrivateKey::from_pkcs1_der(&der).map_err(about("it is no RSA key"))?;
                    return Ok(Opener::Rsa(Box::new(key)));
                }
                "EC PRIVATE KEY" => {
                    let key = p256::SecretKey::from_sec1_der(&der)
                        .map_err(about("it is no key of the curve P-256"))?;
                    return Ok(Opener::P256(key));
                }
                "PRIVATE KEY" => {
                    if let Ok(key) = RsaPrivateKey::from_pkcs8_der(&der) {
                        return Ok(Opener::Rsa(Box::new(key)));
                    }
                    let key = p256::SecretKey::from_pkcs8_der(&der);
                    return key
                        .map(Opener::P256)
                        .map_err(|_| Wrong("its key is neither RSA nor of the curve P-256".into()));
                }
                "ENCRYPTED PRIVATE KEY" => {
                    return Err(Wrong(
                        "its private key is encrypted: `openssl pkey` writes it without a passphrase".into(),
                    ));
                }
                _ => {}
            }
        }
        Err(Wrong("it holds no private key in PEM".into()))
    }

    /// The key for content, if it was wrapped for this key.
    fn unwrap(&self, header: &Value, wrapped: &[u8]) -> Option<Vec<u8>> {
        match (self, header["alg"].as_str()?) {
            (Opener::Rsa(key), "RSA-OAEP") => key.decrypt(Oaep::new::<sha1::Sha1>(), wrapped).ok(),
            (Opener::Rsa(key), "RSA-OAEP-256") => key.decrypt(Oaep::new::<Sha256>(), wrapped).ok(),
            (Opener::P256(key), algorithm @ "ECDH-ES+A256KW") => {
                let part = |name: &str| {
                    let bytes = URL_SAFE_NO_PAD.decode(header["epk"][name].as_str()?).ok()?;
                    <[u8; 32]>::try_from(bytes).ok()
                };
                let (x, y) = (part("x")?, part("y")?);
                let point = p256::EncodedPoint::from_affine_coordinates(&x.into(), &y.into(), false);
                let public = Option::<p256::PublicKey>::from(p256::PublicKey::from_encoded_point(&point))?;
                let shared = p256::ecdh::diffie_hellman(key.to_nonzero_scalar(), public.as_affine());
                let kek = derived(shared.raw_secret_bytes(), algorithm);
                let mut plain = vec![0; wrapped.len().checked_sub(8)?];
                aes_kw::KekAes256::from(*kek).unwrap(wrapped, &mut plain).ok()?;
                Some(plain)
            }
            _ => None,
        }
    }
}

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
    let wrapped = sealed(&secret, recipients)?;
    let annotations = [
        (PUBLIC.to_owned(), STANDARD.encode(public)),
        (JWE.to_owned(), STANDARD.encode(wrapped.to_string())),
    ];
    Ok(Encrypted {
        annotations: annotations.into(),
        digest: format!("sha256:{}", hex::encode(written)),
        size,
    })
}

/// A text in JWE for all recipients (RFC 7516, 7.2), as go-jose writes it: with one recipient, its header is protected.
fn sealed(plain: &[u8], recipients: &[Recipient]) -> Result<Value> {
    let (mut key, mut iv) = (Zeroizing::new([0; 32]), [0; 12]);
    rand::rngs::OsRng.fill_bytes(key.as_mut());
    rand::rngs::OsRng.fill_bytes(&mut iv);
    let wrapped: Vec<(Value, Vec<u8>)> =
        recipients.iter().map(|recipient| recipient.wrap(&key)).collect::<Result<_>>()?;
    let mut protected = json!({ "enc": "A256GCM" });
    if let ([(header, _)], Some(protected)) = (&wrapped[..], protected.as_object_mut()) {
        protected.extend(header.as_object().cloned().unwrap_or_default());
    }
    let protected = URL_SAFE_NO_PAD.encode(protected.to_string());
    let payload = AeadPayload { msg: plain, aad: protected.as_bytes() };
    let sealed = Aes256Gcm::new(&(*key).into()).encrypt(Nonce::from_slice(&iv), payload);
    let mut sealed = sealed.map_err(|_| Wrong("the key cannot be sealed".into()))?;
    let tag = sealed.split_off(sealed.len() - 16);
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let mut jwe =
        json!({ "protected": protected, "iv": b64(&iv), "ciphertext": b64(&sealed), "tag": b64(&tag) });
    match &wrapped[..] {
        [(_, key)] => jwe["encrypted_key"] = json!(b64(key)),
        many => {
            let all = many.iter().map(|(header, key)| json!({ "header": header, "encrypted_key": b64(key) }));
            jwe["recipients"] = all.collect();
        }
    }
    Ok(jwe)
}

/// Opens a text in JWE with one of these keys.
fn unsealed(jwe: &Value, keys: &[Opener]) -> Result<Zeroizing<Vec<u8>>> {
    let wrong = || Wrong("the key of a layer cannot be read".into());
    let decode =
        |value: &Value| URL_SAFE_NO_PAD.decode(value.as_str().unwrap_or_default()).map_err(|_| wrong());
    let protected_text = jwe["protected"].as_str().unwrap_or_default();
    let protected: Value = serde_json::from_slice(&decode(&jwe["protected"])?).map_err(|_| wrong())?;
    if protected["enc"] != "A256GCM" {
        return Err(Wrong("the key of a layer is sealed in another way than A256GCM".into()));
    }
    let one = [jwe.clone()];
    let recipients = jwe["recipients"].as_array().map_or(&one[..], Vec::as_slice);
    let (iv, mut sealed, tag) = (decode(&jwe["iv"])?, decode(&jwe["ciphertext"])?, decode(&jwe["tag"])?);
    let aad = match jwe["aad"].as_str() {
        Some(aad) => format!("{protected_text}.{aad}"),
        None => protected_text.to_owned(),
    };
    sealed.extend(tag);
    if iv.len() != 12 {
        return Err(wrong());
    }
    for recipient in recipients {
        let mut header = protected.clone();
        for more in [&jwe["unprotected"], &recipient["header"]] {
            if let (Some(header), Some(more)) = (header.as_object_mut(), more.as_object()) {
                header.extend(more.clone());
            }
        }
        let wrapped = decode(&recipient["encrypted_key"])?;
        for key in keys.iter().filter_map(|key| key.unwrap(&header, &wrapped)) {
            let Ok(key) = <[u8; 32]>::try_from(key) else { continue };
            let payload = AeadPayload { msg: &sealed, aad: aad.as_bytes() };
            if let Ok(plain) = Aes256Gcm::new(&key.into()).decrypt(Nonce::from_slice(&iv), payload) {
                return Ok(Zeroizing::new(plain));
            }
        }
    }
    Err(Wrong("none of the keys opens it".into()))
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
    let jwes = annotations.get(JWE).ok_or_else(|| {
        let kinds =
            annotations.keys().filter_map(|key| key.strip_prefix("org.opencontainers.image.enc.keys."));
        Wrong(format!("its key is wrapped for {}, and not in JWE", kinds.collect::<Vec<_>>().join(", ")))
    })?;
    let mut opened = Err(Wrong("none of the keys opens it".into()));
    for jwe in jwes.split(',') {
        let jwe = from_base64(jwe).ok().and_then(|json| serde_json::from_slice::<Value>(&json).ok());
        opened = unsealed(&jwe.unwrap_or_default(), keys);
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
            (Opener::parse(secret.to_pkcs8_pem(Default::default()).unwrap().as_bytes()).unwrap(), public)
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
