//! Keys of layers, wrapped in PKCS #7 (`EnvelopedData` of RFC 5652) as ocicrypt's `pkcs7:` does.
//!
//! ocicrypt reads AES in CBC and in GCM, and writes GCM in a way of its own. Here CBC is written, which OpenSSL reads, too;
//! what is inside is checked by its digests anyway. Both are read.

use super::keys::Opener;
use crate::{Result, Wrong};
use aes_gcm::{
    AesGcm, KeyInit, Nonce,
    aead::{Aead, consts::U12},
};
use cbc::cipher::{BlockDecryptMut, KeyIvInit, block_padding::Pkcs7};
use cms::{
    builder::{
        ContentEncryptionAlgorithm, EnvelopedDataBuilder, KeyEncryptionInfo, KeyTransRecipientInfoBuilder,
    },
    cert::IssuerAndSerialNumber,
    content_info::ContentInfo,
    enveloped_data::{KeyTransRecipientInfo, RecipientIdentifier},
};
use der::{
    Any, Decode, Encode,
    oid::{ObjectIdentifier, db::rfc5911},
};
use rsa::{Pkcs1v15Encrypt, RsaPublicKey};
use x509_cert::Certificate;
use zeroize::Zeroizing;

/// Bytes of the tag of GCM.
const TAG: usize = 16;

/// Encrypts a text for all recipients. Returns `ContentInfo` in DER.
pub fn sealed(plain: &[u8], recipients: &[(&Certificate, &RsaPublicKey)]) -> Result<Vec<u8>> {
    let wrong = || Wrong("the key cannot be sealed".into());
    let mut randoms = vec![rand::rngs::OsRng; recipients.len()];
    let mut builder = EnvelopedDataBuilder::new(None, plain, ContentEncryptionAlgorithm::Aes256Cbc, None)
        .map_err(|_| wrong())?;
    for ((certificate, key), random) in recipients.iter().zip(&mut randoms) {
        let certificate = &certificate.tbs_certificate;
        let name = RecipientIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
            issuer: certificate.issuer.clone(),
            serial_number: certificate.serial_number.clone(),
        });
        let key = KeyEncryptionInfo::Rsa((*key).clone());
        let recipient = KeyTransRecipientInfoBuilder::new(name, key, random).map_err(|_| wrong())?;
        builder.add_recipient_info(recipient).map_err(|_| wrong())?;
    }
    let enveloped = builder.build_with_rng(&mut rand::rngs::OsRng).map_err(|_| wrong())?;
    let content = Any::encode_from(&enveloped).map_err(|_| wrong())?;
    let whole = ContentInfo { content_type: rfc5911::ID_ENVELOPED_DATA, content };
    whole.to_der().map_err(|_| wrong())
}

/// A value in BER with a tag of one byte and a definite length. ocicrypt writes what DER does not know: parameters whose
/// tag says that they are not constructed, and content in a constructed `[0]`.
#[derive(Clone, Copy)]
struct Tlv<'a> {
    /// The value with its tag and its length.
    whole: &'a [u8],
    tag: u8,
    value: &'a [u8],
}

impl<'a> Tlv<'a> {
    /// The value at the beginning of some bytes, and the bytes behind it.
    fn first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (tag, rest) = bytes.split_first()?;
        let (length, rest) = rest.split_first()?;
        let (length, rest) = match length {
            0..=127 => (usize::from(*length), rest),
            129..=132 => {
                let (digits, rest) = rest.split_at_checked(usize::from(length & 127))?;
                (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        Some((Tlv { whole: &bytes[..bytes.len() - rest.len()], tag: *tag, value }, rest))
    }

    /// The values in this one.
    fn parts(&self) -> Option<Vec<Self>> {
        let (mut parts, mut rest) = (Vec::new(), self.value);
        while !rest.is_empty() {
            let (part, behind) = Self::first(rest)?;
            parts.push(part);
            rest = behind;
        }
        Some(parts)
    }

    fn oid(&self) -> Option<ObjectIdentifier> {
        ObjectIdentifier::from_bytes(self.value).ok().filter(|_| self.tag == 6)
    }
}

/// `EnvelopedData` (RFC 5652, 6.1).
struct Enveloped<'a> {
    recipients: Vec<Tlv<'a>>,
    algorithm: ObjectIdentifier,
    parameters: Tlv<'a>,
    content: Vec<u8>,
}

impl<'a> Enveloped<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (info, _) = Tlv::first(bytes)?;
        let [kind, content] = info.parts()?.try_into().ok()?;
        if kind.oid()? != rfc5911::ID_ENVELOPED_DATA {
            return None;
        }
        let [_version, recipients, content] = content.parts()?.first()?.parts()?.try_into().ok()?;
        let [_kind, algorithm, content] = content.parts()?.try_into().ok()?;
        let [algorithm, parameters] = algorithm.parts()?.try_into().ok()?;
        // Bit 6 says that the content is in several pieces.
        let content = match content.tag & 0x20 {
            0 => content.value.to_vec(),
            _ => content.parts()?.iter().flat_map(|part| part.value.to_vec()).collect(),
        };
        Some(Enveloped { recipients: recipients.parts()?, algorithm: algorithm.oid()?, parameters, content })
    }
}

/// Opens a text with one of these keys. Which recipient a key is cannot be told without its certificate, so all are tried.
pub fn unsealed(der: &[u8], keys: &[Opener]) -> Result<Zeroizing<Vec<u8>>> {
    let enveloped = Enveloped::parse(der).ok_or_else(|| Wrong("the key of a layer cannot be read".into()))?;
    if enveloped.recipients.len() > super::RECIPIENTS {
        return Err(Wrong(format!("the key of a layer is for more than {} recipients", super::RECIPIENTS)));
    }
    for recipient in &enveloped.recipients {
        // Those of other types are for other keys.
        let Ok(recipient) = KeyTransRecipientInfo::from_der(recipient.whole) else { continue };
        for key in keys {
            let Opener::Rsa(key) = key else { continue };
            let Ok(key) = key.decrypt(Pkcs1v15Encrypt, recipient.enc_key.as_bytes()) else { continue };
            let plain = decrypted(&enveloped, &Zeroizing::new(key))?.map(Zeroizing::new);
            // A wrong key may give bytes that happen to end as padding does; the right one gives JSON.
            if let Some(plain) = plain.filter(|plain| plain.starts_with(b"{")) {
                return Ok(plain);
            }
        }
    }
    Err(Wrong("none of the keys opens it".into()))
}

/// Decrypts the content. `None` means that the key is not the one for it.
fn decrypted(enveloped: &Enveloped<'_>, key: &[u8]) -> Result<Option<Vec<u8>>> {
    let (parameters, content) = (enveloped.parameters, &enveloped.content);
    let gcm = || {
        let mut parts = parameters.parts()?;
        // ocicrypt puts the sequence into another one.
        if let [inner] = parts[..] {
            parts = inner.parts()?;
        }
        parts.first().map(|nonce| nonce.value).filter(|nonce| nonce.len() == 12)
    };
    let gcm = || gcm().ok_or_else(|| Wrong("the key of a layer is sealed with wrong parameters".into()));
    match enveloped.algorithm {
        rfc5911::ID_AES_128_CBC => Ok(cbc_opened::<aes::Aes128>(key, parameters.value, content)),
        rfc5911::ID_AES_256_CBC => Ok(cbc_opened::<aes::Aes256>(key, parameters.value, content)),
        rfc5911::ID_AES_128_GCM => Ok(gcm_opened::<aes::Aes128>(key, gcm()?, content)),
        rfc5911::ID_AES_256_GCM => Ok(gcm_opened::<aes::Aes256>(key, gcm()?, content)),
        other => Err(Wrong(format!("the key of a layer is sealed by the unknown algorithm {other}"))),
    }
}

fn cbc_opened<C>(key: &[u8], iv: &[u8], content: &[u8]) -> Option<Vec<u8>>
where
    C: cbc::cipher::BlockDecryptMut + cbc::cipher::BlockCipher + cbc::cipher::KeyInit,
    cbc::Decryptor<C>: KeyIvInit,
{
    let cipher = <cbc::Decryptor<C> as KeyIvInit>::new_from_slices(key, iv).ok()?;
    cipher.decrypt_padded_vec_mut::<Pkcs7>(content).ok()
}

fn gcm_opened<C>(key: &[u8], nonce: &[u8], content: &[u8]) -> Option<Vec<u8>>
where
    AesGcm<C, U12>: KeyInit + Aead<NonceSize = U12>,
{
    if content.len() < TAG {
        return None;
    }
    let cipher = <AesGcm<C, U12> as KeyInit>::new_from_slice(key).ok()?;
    cipher.decrypt(Nonce::from_slice(nonce), content).ok()
}
