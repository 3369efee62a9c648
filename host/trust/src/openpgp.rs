//! OpenPGP signed messages (RFC 9580), as simple signing uses them: which key made one, and whether that key may sign.
//! `pgp` checks the cryptography; which keys count at which time is decided here, as strictly as GnuPG does.

use crate::{Result, Wrong, about};
use pgp::{
    composed::{
        Message, MessageBuilder, PublicOrSecret, SignedPublicKey, SignedPublicSubKey, SignedSecretKey,
    },
    crypto::hash::HashAlgorithm,
    packet::{Decompressor, Packet, PacketParser, PacketTrait, Signature, SignatureType},
    types::{KeyDetails, Password, SigningKey, Tag, Timestamp},
};
use std::io::Read;

/// The largest payload of a signature in bytes.
const PAYLOAD: u64 = 4 << 20;
/// How far ahead the clock of a signer may be, in seconds.
const AHEAD: u64 = 24 * 3600;
/// The most keys of one keyring.
const KEYS: usize = 10_000;

/// Public keys, of which each may have signed.
pub struct Keyring(Vec<SignedPublicKey>);

/// A message whose signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What was signed.
    pub payload: Vec<u8>,
    /// Fingerprint of the primary key, in upper-case hex.
    pub fingerprint: String,
}

/// Reads a signed message, and what it signs. Nothing of it is checked.
pub(crate) fn opened(message: &[u8]) -> Result<(Message<'_>, Vec<u8>)> {
    let unread = about("it is no OpenPGP signed message");
    check_packets(message, 0)?;
    let mut message = Message::from_bytes(message).map_err(&unread)?.decompress().map_err(&unread)?;
    if !message.is_signed() {
        return Err(Wrong("it is an OpenPGP message without a signature".into()));
    }
    let mut payload = Vec::new();
    message.by_ref().take(PAYLOAD + 1).read_to_end(&mut payload).map_err(about("it cannot be read"))?;
    match payload.len() as u64 > PAYLOAD {
        true => Err(Wrong("what it signs has more than 4 MiB".into())),
        false => Ok((message, payload)),
    }
}

impl Keyring {
    /// Reads keys, armored or binary, from one or more files.
    ///
    /// # Errors
    /// Fails if a file holds no key, or something else.
    pub fn parse<'a>(files: impl IntoIterator<Item = &'a [u8]>) -> Result<Self> {
        let mut keys = Vec::new();
        for file in files {
            let before = keys.len();
            let (found, _) = PublicOrSecret::from_reader_many(file)
                .map_err(|_| Wrong("it holds no OpenPGP key".into()))?;
            for key in found.take(KEYS) {
                match key.map_err(about("a key of it cannot be read"))? {
                    PublicOrSecret::Public(key) => keys.push(key),
                    // Whoever gives a secret key means its public one as well.
                    PublicOrSecret::Secret(key) => keys.push(key.to_public_key()),
                }
            }
            if keys.len() == before {
                return Err(Wrong("it holds no OpenPGP key".into()));
            }
        }
        Ok(Keyring(keys))
    }

    /// The fingerprints of its primary keys.
    pub fn fingerprints(&self) -> Vec<String> {
        self.0.iter().map(|key| fingerprint(&key.primary_key)).collect()
    }

    /// Checks a signed message. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// Fails if it is no signed message with exactly one signature, if no key of the keyring made the signature, or if
    /// the key may not sign.
    pub fn check(&self, message: &[u8], now: u64) -> Result<Signed> {
        let (message, payload) = opened(message)?;
        let Message::Signed { reader, .. } = &message else {
            return Err(Wrong("it has no signature".into()));
        };
        if reader.num_signatures() != 1 || reader.get_ref().is_signed() {
            return Err(Wrong("it has more than one signature".into()));
        }
        let mut why = Wrong(format!("no key of the keyring made it ({})", made_by(reader.signature(0))));
        let (mut accepted, mut refused) = (Vec::new(), Vec::new());
        for key in &self.0 {
            let fingerprint = fingerprint(&key.primary_key);
            match checked_by(&message, key, now) {
                Ok(()) => accepted.push(fingerprint),
                Err(Some(better)) => {
                    why = better;
                    refused.push(fingerprint);
                }
                Err(None) => {}
            }
        }
        // A keyring may hold an old copy of a key beside one that says that the key was revoked.
        match accepted.into_iter().find(|fingerprint| !refused.contains(fingerprint)) {
            Some(fingerprint) => Ok(Signed { payload, fingerprint }),
            None => Err(why),
        }
    }
}

/// Fails unless a message is exactly one that is signed once, alone or compressed as a whole (RFC 9580, 10.3): what follows
/// it would be signed by nobody.
fn check_packets(message: &[u8], depth: u8) -> Result<()> {
    let mut kinds = Vec::new();
    for packet in PacketParser::new(message).take(5) {
        let packet = packet.map_err(about("it is no OpenPGP signed message"))?;
        if let Packet::CompressedData(compressed) = &packet
            && kinds.is_empty()
            && depth == 0
        {
            let algorithm = match compressed.decompress() {
                Ok(Decompressor::Uncompressed(_)) => 0,
                Ok(Decompressor::Zip(_)) => 1,
                Ok(Decompressor::Zlib(_)) => 2,
                _ => return Err(Wrong("it is compressed in a way that is not supported".into())),
            };
            let plain = decompressed(algorithm, compressed.compressed_data())?;
            check_packets(&plain, depth + 1)?;
        }
        kinds.push(packet.tag());
    }
    match kinds[..] {
        [Tag::CompressedData] if depth == 0 => Ok(()),
        [Tag::OnePassSignature, Tag::LiteralData, Tag::Signature] | [Tag::Signature, Tag::LiteralData] => {
            Ok(())
        }
        // Their own errors say more.
        [Tag::LiteralData] | [Tag::SymEncryptedProtectedData] => Ok(()),
        _ => Err(Wrong("it is not exactly one OpenPGP message with one signature".into())),
    }
}

/// The content of a compressed packet, which must be all of it: a packet without a length ends where the file ends, and
/// what follows the compressed stream would be ignored. The algorithm is 0 for none, 1 for DEFLATE, 2 for zlib (RFC 9580,
/// 9.4).
fn decompressed(algorithm: u8, bytes: &[u8]) -> Result<Vec<u8>> {
    let wrong = |why: &str| Wrong(format!("it cannot be decompressed: {why}"));
    let mut stream = match algorithm {
        0 => return Ok(bytes.to_vec()),
        1 => flate2::Decompress::new(false),
        2 => flate2::Decompress::new(true),
        _ => return Err(wrong("its algorithm is not supported")),
    };
    let mut plain = Vec::new();
    loop {
        let at = stream.total_in() as usize;
        plain.reserve(64 << 10);
        let (before, length) = (stream.total_in(), plain.len());
        let status = stream.decompress_vec(&bytes[at..], &mut plain, flate2::FlushDecompress::None);
        match status.map_err(|_| wrong("it is damaged"))? {
            flate2::Status::StreamEnd => break,
            _ if plain.len() as u64 > 2 * PAYLOAD => return Err(wrong("it has more than 8 MiB")),
            _ if stream.total_in() == before && plain.len() == length => return Err(wrong("it has no end")),
            _ => {}
        }
    }
    match stream.total_in() as usize == bytes.len() {
        true => Ok(plain),
        false => Err(Wrong("something follows the signed message".into())),
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.fingerprints()).finish()
    }
}

fn fingerprint(key: &impl KeyDetails) -> String {
    hex::encode_upper(key.fingerprint().as_bytes())
}

/// Who a signature says to be by, for people.
fn made_by(signature: Option<&Signature>) -> String {
    let Some(signature) = signature else { return "it does not say who did".into() };
    if let Some(fingerprint) = signature.issuer_fingerprint().first() {
        return format!("it is by {}", hex::encode_upper(fingerprint.as_bytes()));
    }
    match signature.issuer_key_id().first() {
        Some(id) => format!("it is by the key {}", hex::encode_upper(id.as_ref())),
        None => "it does not say who did".into(),
    }
}

/// Whether a key or one of its subkeys made a signature and may. `None` means that none of them made it.
fn checked_by(
    message: &Message<'_>,
    key: &SignedPublicKey,
    now: u64,
) -> std::result::Result<(), Option<Wrong>> {
    if let Ok(signature) = message.verify(&key.primary_key) {
        return usable(signature, &key.primary_key, now)
            .and_then(|()| primary_may_sign(key, now, true))
            .map_err(Some);
    }
    for subkey in &key.public_subkeys {
        if let Ok(signature) = message.verify(&subkey.key) {
            return usable(signature, &subkey.key, now)
                .and_then(|()| primary_may_sign(key, now, false))
                .and_then(|()| subkey_may_sign(key, subkey, now))
                .map_err(Some);
        }
    }
    Err(None)
}

/// Checks the signature itself: its kind, hash and time.
fn usable(signature: &Signature, by: &impl KeyDetails, now: u64) -> Result<()> {
    let hash = signature.hash_alg();
    let strong = [
        HashAlgorithm::Sha256,
        HashAlgorithm::Sha384,
        HashAlgorithm::Sha512,
        HashAlgorithm::Sha3_256,
        HashAlgorithm::Sha3_512,
    ];
    if !hash.is_some_and(|hash| strong.contains(&hash)) {
        return Err(Wrong("it uses a hash that is not safe any more".into()));
    }
    if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
        return Err(Wrong("it is no signature of a document".into()));
    }
    let created = signature.created().ok_or_else(|| Wrong("it does not say when it was made".into()))?;
    let created = seconds(created);
    if created > now + AHEAD {
        return Err(Wrong("it was made in the future".into()));
    }
    if created < seconds(by.created_at()) {
        return Err(Wrong("it is older than the key that made it".into()));
    }
    match signature.signature_expiration_time() {
        Some(lasts) if lasts.as_secs() > 0 && created + u64::from(lasts.as_secs()) <= now => {
            Err(Wrong("it has expired".into()))
        }
        _ => Ok(()),
    }
}

fn seconds(time: Timestamp) -> u64 {
    u64::from(time.as_secs())
}

/// The time at which a signature was made, for finding the newest one.
fn made(signature: &Signature) -> u64 {
    signature.created().map_or(0, seconds)
}

fn unexpired(key: &impl KeyDetails, binding: &Signature, now: u64) -> Result<()> {
    match binding.key_expiration_time() {
        Some(lasts)
            if lasts.as_secs() > 0 && seconds(key.created_at()) + u64::from(lasts.as_secs()) <= now =>
        {
            Err(Wrong(format!("the key {} has expired", fingerprint(key))))
        }
        _ => Ok(()),
    }
}

/// Checks that a primary key is valid now: not revoked, with a self-signature, not expired, and, with `itself`, allowed
/// to sign documents.
fn primary_may_sign(key: &SignedPublicKey, now: u64, itself: bool) -> Result<()> {
    let primary = &key.primary_key;
    if key.details.revocation_signatures.iter().any(|revocation| revocation.verify_key(primary).is_ok()) {
        return Err(Wrong(format!("the key {} was revoked", fingerprint(primary))));
    }
    let of_users = key.details.users.iter().filter_map(|user| {
        let genuine =
            |signature: &&Signature| signature.verify_certification(primary, Tag::UserId, &user.id).is_ok();
        let newest = user.signatures.iter().filter(genuine).max_by_key(|signature| made(signature))?;
        // The newest one may revoke the user ID.
        (newest.typ() != Some(SignatureType::CertRevocation)).then_some(newest)
    });
    let direct = key.details.direct_signatures.iter().filter(|signature| {
        signature.typ() == Some(SignatureType::Key) && signature.verify_key(primary).is_ok()
    });
    let newest = of_users.chain(direct).max_by_key(|signature| made(signature));
    let newest = newest.ok_or_else(|| {
        Wrong(format!("the key {} has no user ID that it vouches for", fingerprint(primary)))
    })?;
    unexpired(primary, newest, now)?;
    let flags = newest.key_flags();
    // A key without flags may do everything that its algorithm can.
    let says = flags.sign()
        || flags.certify()
        || flags.encrypt_comms()
        || flags.encrypt_storage()
        || flags.authentication();
    match itself && says && !flags.sign() {
        true => Err(Wrong(format!("the key {} may not sign documents", fingerprint(primary)))),
        false => Ok(()),
    }
}

/// Checks that a subkey is valid now, belongs to the key, and may sign documents.
fn subkey_may_sign(key: &SignedPublicKey, subkey: &SignedPublicSubKey, now: u64) -> Result<()> {
    let primary = &key.primary_key;
    let shown = fingerprint(&subkey.key);
    let genuine = |signature: &&Signature| signature.verify_subkey_binding(primary, &subkey.key).is_ok();
    let genuine: Vec<&Signature> = subkey.signatures.iter().filter(genuine).collect();
    if genuine.iter().any(|signature| signature.typ() == Some(SignatureType::SubkeyRevocation)) {
        return Err(Wrong(format!("the subkey {shown} was revoked")));
    }
    let binding = genuine.into_iter().max_by_key(|signature| made(signature));
    let binding = binding.ok_or_else(|| Wrong(format!("the subkey {shown} is not bound to its key")))?;
    unexpired(&subkey.key, binding, now)?;
    if !binding.key_flags().sign() {
        return Err(Wrong(format!("the subkey {shown} may not sign documents")));
    }
    // Otherwise a stranger's subkey could be adopted (RFC 9580, 10.1.5).
    let back = binding.embedded_signature();
    match back.is_some_and(|back| back.verify_primary_key_binding(&subkey.key, primary).is_ok()) {
        true => Ok(()),
        false => Err(Wrong(format!("the subkey {shown} does not confirm that it belongs to its key"))),
    }
}

/// A secret key that can sign.
pub struct SecretKey(SignedSecretKey);

impl SecretKey {
    /// Reads the secret key with this fingerprint, or the only one, from a file, armored or binary.
    ///
    /// # Errors
    /// Fails if the file does not hold such a key, or holds several and none was named.
    pub fn parse(file: &[u8], wanted: Option<&str>) -> Result<Self> {
        let (found, _) =
            PublicOrSecret::from_reader_many(file).map_err(|_| Wrong("it holds no OpenPGP key".into()))?;
        let mut keys = Vec::new();
        for key in found.take(KEYS) {
            if let PublicOrSecret::Secret(key) = key.map_err(about("a key of it cannot be read"))? {
                keys.push(key);
            }
        }
        if let Some(wanted) = wanted {
            let wanted = wanted.to_uppercase();
            keys.retain(|key| fingerprint(&key.primary_key).ends_with(&wanted));
        }
        match (keys.len(), wanted) {
            (1, _) => Ok(SecretKey(keys.remove(0))),
            (0, Some(wanted)) => Err(Wrong(format!("it holds no secret key {}", wanted.escape_debug()))),
            (0, None) => Err(Wrong("it holds no secret OpenPGP key".into())),
            (count, _) => {
                Err(Wrong(format!("it holds {count} secret keys, so one must be named by its fingerprint")))
            }
        }
    }

    /// Fingerprint of the primary key.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.0.primary_key)
    }

    /// Signs a payload: a signed message, binary, with one signature. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// Fails if the key may not sign any more, or if the passphrase is wrong.
    pub fn sign(&self, payload: &[u8], passphrase: Option<&str>, now: u64) -> Result<Vec<u8>> {
        let public = self.0.to_public_key();
        let may = |at: usize| subkey_may_sign(&public, &public.public_subkeys[at], now).is_ok();
        let subkey = (0..public.public_subkeys.len()).rev().find(|at| may(*at));
        let subkey = subkey.and_then(|at| {
            let wanted = public.public_subkeys[at].key.fingerprint();
            self.0.secret_subkeys.iter().find(|secret| secret.key.fingerprint() == wanted)
        });
        primary_may_sign(&public, now, subkey.is_none())?;
        let key: &dyn SigningKey = match subkey {
            Some(subkey) => &subkey.key,
            None => &self.0.primary_key,
        };
        let password = passphrase.map_or_else(Password::empty, Password::from);
        let mut builder = MessageBuilder::from_bytes("", payload.to_vec());
        builder.sign(key, password, HashAlgorithm::Sha256);
        builder.to_vec(rand::thread_rng()).map_err(about("the key does not sign (is the passphrase right?)"))
    }
}
