//! Keys of layers, wrapped in JWE (RFC 7516) as ocicrypt's `jwe:` does.

use super::keys::{Opener, Public};
use crate::{Result, Wrong, about};
use aes_gcm::{
    Aes256Gcm, KeyInit, Nonce,
    aead::{Aead, Payload as AeadPayload},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::elliptic_curve::sec1::{FromEncodedPoint, ToEncodedPoint};
use rand::RngCore;
use rsa::Oaep;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The header of a recipient, and the key for content, encrypted for it.
fn wrap(recipient: &Public, key: &[u8; 32]) -> Result<(Value, Vec<u8>)> {
    match recipient {
        Public::Rsa(public) => {
            let wrapped = public.encrypt(&mut rand::rngs::OsRng, Oaep::new::<sha1::Sha1>(), key);
            Ok((json!({ "alg": "RSA-OAEP" }), wrapped.map_err(about("the key cannot be wrapped"))?))
        }
        Public::P256(public) => {
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

/// The key for content, if it was wrapped for this key.
fn unwrap(opener: &Opener, header: &Value, wrapped: &[u8]) -> Option<Vec<u8>> {
    match (opener, header["alg"].as_str()?) {
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

/// A text in JWE for all recipients (RFC 7516, 7.2), as go-jose writes it: with one recipient, its header is protected.
pub fn sealed(plain: &[u8], recipients: &[&Public]) -> Result<Value> {
    let (mut key, mut iv) = (Zeroizing::new([0; 32]), [0; 12]);
    rand::rngs::OsRng.fill_bytes(key.as_mut());
    rand::rngs::OsRng.fill_bytes(&mut iv);
    let wrapped: Vec<(Value, Vec<u8>)> =
        recipients.iter().map(|recipient| wrap(recipient, &key)).collect::<Result<_>>()?;
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
pub fn unsealed(jwe: &Value, keys: &[Opener]) -> Result<Zeroizing<Vec<u8>>> {
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
    if recipients.len() > super::RECIPIENTS {
        return Err(Wrong(format!("the key of a layer is for more than {} recipients", super::RECIPIENTS)));
    }
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
        for key in keys.iter().filter_map(|key| unwrap(key, &header, &wrapped)) {
            let Ok(key) = <[u8; 32]>::try_from(key) else { continue };
            let payload = AeadPayload { msg: &sealed, aad: aad.as_bytes() };
            if let Ok(plain) = Aes256Gcm::new(&key.into()).decrypt(Nonce::from_slice(&iv), payload) {
                return Ok(Zeroizing::new(plain));
            }
        }
    }
    Err(Wrong("none of the keys opens it".into()))
}
