//! Private keys as cosign and skopeo write them: PKCS #8 inside of scrypt and secretbox, in PEM
//! (`encrypted/encrypted.go` of go-securesystemslib).

use crate::{
    Result, Wrong, about, from_base64,
    publickey::{PublicKey, pem_blocks, to_pem},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use crypto_secretbox::{KeyInit, XSalsa20Poly1305, aead::Aead};
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey};
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The labels that encrypted keys have: skopeo writes the first one, cosign the second.
const LABELS: [&str; 2] = ["ENCRYPTED COSIGN PRIVATE KEY", "ENCRYPTED SIGSTORE PRIVATE KEY"];
/// The costs of scrypt that are accepted, as powers of two: what cosign and skopeo accept, so that a file cannot demand
/// any amount of memory.
const COSTS: [(u32, u8); 3] = [(32_768, 15), (65_536, 16), (131_072, 17)];

#[derive(Serialize, Deserialize)]
struct Sealed {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Serialize, Deserialize)]
struct Params {
    #[serde(rename = "N")]
    n: u32,
    r: u32,
    p: u32,
}

#[derive(Serialize, Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// A private key that signs.
pub struct PrivateKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Ecdsa(Box<EcdsaKeyPair>),
    Rsa(Box<RsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

impl PrivateKey {
    /// Reads a private key: encrypted, as cosign and skopeo write it, or PKCS #8 in PEM.
    ///
    /// # Errors
    /// Fails if it is neither, or if the passphrase is wrong.
    pub fn parse(file: &[u8], passphrase: &str) -> Result<Self> {
        let blocks = pem_blocks(file)?;
        for (label, bytes) in &blocks {
            if LABELS.contains(&label.as_str()) {
                return Self::from_pkcs8(&opened(bytes, passphrase)?);
            }
            if label == "PRIVATE KEY" {
                return Self::from_pkcs8(bytes);
            }
        }
        Err(Wrong("it holds no private key that cosign or skopeo could have written".into()))
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self> {
        let random = SystemRandom::new();
        let public_of = |key: &[u8], info: p256::pkcs8::spki::AlgorithmIdentifierOwned| {
            let key = der::asn1::BitString::from_bytes(key).map_err(about("its public key is broken"))?;
            let info =
                x509_cert::spki::SubjectPublicKeyInfoOwned { algorithm: info, subject_public_key: key };
            PublicKey::from_der(&der::Encode::to_der(&info).map_err(about("its public key is broken"))?)
        };
        // ring reads only keys that repeat the public one, as Go writes them. Others are made whole first.
        if let Ok(secret) = p256::SecretKey::from_pkcs8_der(der) {
            let whole = secret.to_pkcs8_der().map_err(about("its private key is broken"))?;
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, whole.as_bytes(), &random)
                .map_err(about("its private key is broken"))?;
            let der = secret.public_key().to_public_key_der().map_err(about("its public key is broken"))?;
            return Ok(PrivateKey {
                pair: Pair::Ecdsa(Box::new(pair)),
                public: PublicKey::from_der(der.as_bytes())?,
            });
        }
        if let Ok(pair) = RsaKeyPair::from_pkcs8(der) {
            let info = p256::pkcs8::spki::AlgorithmIdentifierOwned {
                oid: der::oid::ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1"),
                parameters: Some(der::asn1::Any::null()),
            };
            let public = public_of(pair.public_key().as_ref(), info)?;
            return Ok(PrivateKey { pair: Pair::Rsa(Box::new(pair)), public });
        }
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            let info = p256::pkcs8::spki::AlgorithmIdentifierOwned {
                oid: der::oid::ObjectIdentifier::new_unwrap("1.3.101.112"),
                parameters: None,
            };
            let public = public_of(pair.public_key().as_ref(), info)?;
            return Ok(PrivateKey { pair: Pair::Ed25519(Box::new(pair)), public });
        }
        if EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, der, &random).is_ok() {
            return Err(Wrong(
                "its key is of the curve P-384, with which dray does not sign (P-256 does)".into(),
            ));
        }
        Err(Wrong("its key is neither ECDSA P-256 nor RSA nor Ed25519".into()))
    }

    /// Signs bytes.
    ///
    /// # Errors
    /// Fails if the machine gives no randomness.
    pub fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let random = SystemRandom::new();
        let failed = |_| Wrong("the key does not sign".into());
        match &self.pair {
            Pair::Ecdsa(pair) => Ok(pair.sign(&random, bytes).map_err(failed)?.as_ref().to_vec()),
            Pair::Ed25519(pair) => Ok(pair.sign(bytes).as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }

    /// SHA-256 of its public key (SubjectPublicKeyInfo), in base64: the hint by which a bundle names a key.
    pub fn hint(&self) -> String {
        STANDARD.encode(self.public.id())
    }

    /// Its public key, in PEM.
    pub fn public_pem(&self) -> String {
        to_pem("PUBLIC KEY", self.public.der())
    }

    /// The key for people.
    pub fn shown(&self) -> String {
        self.public.shown()
    }
}

fn opened(file: &[u8], passphrase: &str) -> Result<Zeroizing<Vec<u8>>> {
    let sealed: Sealed = serde_json::from_slice(file).map_err(about("its private key cannot be read"))?;
    if sealed.kdf.name != "scrypt" || sealed.cipher.name != "nacl/secretbox" {
        return Err(Wrong("its private key is encrypted in an unknown way".into()));
    }
    let Params { n, r, p } = sealed.kdf.params;
    let log = COSTS.iter().find(|(cost, _)| *cost == n).filter(|_| (r, p) == (8, 1));
    let (_, log) =
        log.ok_or_else(|| Wrong("its private key is encrypted with unusual costs of scrypt".into()))?;
    let decode = |text: &str| from_base64(text).map_err(about("its private key cannot be read"));
    let (salt, nonce) = (decode(&sealed.kdf.salt)?, decode(&sealed.cipher.nonce)?);
    let text = decode(&sealed.ciphertext)?;
    let nonce: [u8; 24] =
        nonce.try_into().map_err(|_| Wrong("its private key has a nonce of a wrong length".into()))?;
    let opened = cipher(passphrase, &salt, *log)?.decrypt(&nonce.into(), text.as_slice());
    opened
        .map(Zeroizing::new)
        .map_err(|_| Wrong("its private key does not open: the passphrase is wrong".into()))
}

fn cipher(passphrase: &str, salt: &[u8], log: u8) -> Result<XSalsa20Poly1305> {
    let params = scrypt::Params::new(log, 8, 1, 32).map_err(about("scrypt refuses its costs"))?;
    let mut key = Zeroizing::new([0; 32]);
    scrypt::scrypt(passphrase.as_bytes(), salt, &params, key.as_mut()).map_err(about("scrypt fails"))?;
    Ok(XSalsa20Poly1305::new(&(*key).into()))
}

/// Makes a key pair of ECDSA P-256: the private key encrypted as skopeo writes it, and the public one in PEM.
///
/// # Errors
/// Fails if the machine gives no randomness.
pub fn generate(passphrase: &str) -> Result<(Zeroizing<String>, String)> {
    let secret = p256::SecretKey::random(&mut rand::rngs::OsRng);
    let der = secret.to_pkcs8_der().map_err(about("the key cannot be written"))?;
    let public = secret.public_key().to_public_key_der().map_err(about("the key cannot be written"))?;
    Ok((sealed(der.as_bytes(), passphrase)?, to_pem("PUBLIC KEY", public.as_bytes())))
}

/// Makes a key pair of Ed25519 (RFC 8032), in the same forms.
///
/// # Errors
/// Fails if the machine gives no randomness.
pub fn generate_ed25519(passphrase: &str) -> Result<(Zeroizing<String>, String)> {
    let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
    let der = made.map_err(|_| Wrong("this machine gives no randomness".into()))?;
    let public = PrivateKey::from_pkcs8(der.as_ref())?.public_pem();
    Ok((sealed(der.as_ref(), passphrase)?, public))
}

/// A private key in PKCS #8, encrypted with a passphrase.
fn sealed(der: &[u8], passphrase: &str) -> Result<Zeroizing<String>> {
    let (mut salt, mut nonce) = ([0; 32], [0; 24]);
    let random = SystemRandom::new();
    let failed = |_| Wrong("this machine gives no randomness".into());
    random.fill(&mut salt).map_err(failed)?;
    random.fill(&mut nonce).map_err(failed)?;
    let (n, log) = COSTS[1];
    let ciphertext = cipher(passphrase, &salt, log)?
        .encrypt(&nonce.into(), der)
        .map_err(|_| Wrong("the key cannot be encrypted".into()))?;
    let sealed = Sealed {
        kdf: Kdf { name: "scrypt".into(), params: Params { n, r: 8, p: 1 }, salt: STANDARD.encode(salt) },
        cipher: Cipher { name: "nacl/secretbox".into(), nonce: STANDARD.encode(nonce) },
        ciphertext: STANDARD.encode(ciphertext),
    };
    let sealed = serde_json::to_vec(&sealed).map_err(about("the key cannot be written"))?;
    Ok(Zeroizing::new(to_pem(LABELS[0], &sealed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_opens_with_its_passphrase_alone() {
        for (private, public) in [generate("secret").unwrap(), generate_ed25519("secret").unwrap()] {
            let key = PrivateKey::parse(private.as_bytes(), "secret").unwrap();
            assert_eq!(key.public_pem(), public);
            let signature = key.sign(b"text").unwrap();
            let public = PublicKey::from_pem(public.as_bytes()).unwrap();
            assert!(public.made(b"text", &signature));
            assert!(!public.made(b"texu", &signature));
            let wrong = PrivateKey::parse(private.as_bytes(), "Secret").err().unwrap();
            assert!(wrong.to_string().contains("passphrase"), "{wrong}");
        }
    }
}
