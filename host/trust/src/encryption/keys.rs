//! The keys with which layers are encrypted and decrypted.

use crate::{Result, Wrong, about, publickey::pem_blocks};
use der::{Decode, Encode};
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey};
use pkcs8::EncryptedPrivateKeyInfo;
use rsa::{
    RsaPrivateKey, RsaPublicKey,
    pkcs1::{DecodeRsaPrivateKey, DecodeRsaPublicKey},
};
use x509_cert::Certificate;

/// Somebody for whom layers are encrypted.
pub enum Recipient {
    /// By JWE.
    Jwe(Public),
    /// By PKCS #7, which needs a certificate with an RSA key.
    Pkcs7(Box<Certificate>, RsaPublicKey),
}

/// A public key for JWE.
pub enum Public {
    /// By RSA-OAEP.
    Rsa(RsaPublicKey),
    /// Of the curve P-256, by ECDH-ES+A256KW.
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
    /// Reads a public key or a certificate in PEM, for JWE.
    ///
    /// # Errors
    /// Fails if it is neither, or of a kind that is not supported.
    pub fn parse(file: &[u8]) -> Result<Self> {
        let label = if Certificate::from_der(file).is_ok() { "CERTIFICATE" } else { "PUBLIC KEY" };
        for (label, der) in blocks(file, label)? {
            let der = match label.as_str() {
                "CERTIFICATE" => {
                    let certificate = Certificate::from_der(&der).map_err(about("it is no certificate"))?;
                    key_of(&certificate)?
                }
                "RSA PUBLIC KEY" => {
                    let key = RsaPublicKey::from_pkcs1_der(&der).map_err(about("it is no RSA key"))?;
                    return Ok(Recipient::Jwe(Public::Rsa(key)));
                }
                "PUBLIC KEY" => der,
                _ => continue,
            };
            if let Ok(key) = RsaPublicKey::from_public_key_der(&der) {
                return Ok(Recipient::Jwe(Public::Rsa(key)));
            }
            let key = p256::PublicKey::from_public_key_der(&der);
            return key
                .map(|key| Recipient::Jwe(Public::P256(key)))
                .map_err(|_| Wrong("its key is neither RSA nor of the curve P-256".into()));
        }
        Err(Wrong("it holds no public key in PEM".into()))
    }

    /// Reads a certificate in PEM, for PKCS #7.
    ///
    /// # Errors
    /// Fails if it is none, or one with a key that is not of RSA.
    pub fn parse_certificate(file: &[u8]) -> Result<Self> {
        let certificate = blocks(file, "CERTIFICATE")?.into_iter().find(|(label, _)| label == "CERTIFICATE");
        let (_, der) = certificate.ok_or_else(|| Wrong("it holds no certificate in PEM".into()))?;
        let certificate = Certificate::from_der(&der).map_err(about("it is no certificate"))?;
        let key = RsaPublicKey::from_public_key_der(&key_of(&certificate)?)
            .map_err(|_| Wrong("its key is not of RSA, which PKCS #7 needs here".into()))?;
        Ok(Recipient::Pkcs7(Box::new(certificate), key))
    }
}

/// The blocks of a file in PEM. A file in DER is one block, which is called as `otherwise` says.
fn blocks(file: &[u8], otherwise: &str) -> Result<Vec<(String, Vec<u8>)>> {
    // 0x30 begins a sequence, and no text that is PEM.
    match file.first() {
        Some(0x30) => Ok(vec![(otherwise.into(), file.to_vec())]),
        _ => pem_blocks(file),
    }
}

/// The key of a certificate (SubjectPublicKeyInfo).
fn key_of(certificate: &Certificate) -> Result<Vec<u8>> {
    let info = &certificate.tbs_certificate.subject_public_key_info;
    info.to_der().map_err(about("its key cannot be read"))
}

impl Opener {
    /// Reads a private key in PEM. `None` means that no passphrase is known.
    ///
    /// # Errors
    /// Fails if it holds none, or one of a kind that is not supported, or if the passphrase does not open it.
    pub fn parse(file: &[u8], passphrase: Option<&str>) -> Result<Self> {
        // RFC 1421's headers, as OpenSSL wrote them before PKCS #8.
        if file.windows(10).any(|part| part == b"Proc-Type:") {
            let text = "it is encrypted in the old way of PEM: `openssl pkcs8 -topk8` writes it anew";
            return Err(Wrong(text.into()));
        }
        let label = match EncryptedPrivateKeyInfo::from_der(file) {
            Ok(_) => "ENCRYPTED PRIVATE KEY",
            Err(_) => "PRIVATE KEY",
        };
        for (label, der) in blocks(file, label)? {
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
                "PRIVATE KEY" => return Self::from_der(&der),
                "ENCRYPTED PRIVATE KEY" => {
                    let passphrase = passphrase.ok_or_else(|| {
                        Wrong("it needs a passphrase: FILE:file=PATH, FILE:fd=N or FILE:pass=TEXT".into())
                    })?;
                    let sealed = EncryptedPrivateKeyInfo::from_der(&der)
                        .map_err(about("it is no encrypted key of PKCS #8"))?;
                    let opened = sealed
                        .decrypt(passphrase)
                        .map_err(|_| Wrong("the passphrase does not open it".into()))?;
                    return Self::from_der(opened.as_bytes());
                }
                _ => {}
            }
        }
        Err(Wrong("it holds no private key in PEM".into()))
    }

    /// Reads a key as PKCS #8 gives it, or as PKCS #1 and SEC 1 do, which files in DER do not tell apart.
    fn from_der(der: &[u8]) -> Result<Self> {
        if let Ok(key) = RsaPrivateKey::from_pkcs8_der(der).or_else(|_| RsaPrivateKey::from_pkcs1_der(der)) {
            return Ok(Opener::Rsa(Box::new(key)));
        }
        let key =
            p256::SecretKey::from_pkcs8_der(der).ok().or_else(|| p256::SecretKey::from_sec1_der(der).ok());
        key.map(Opener::P256).ok_or_else(|| Wrong("its key is neither RSA nor of the curve P-256".into()))
    }
}
