//! Content digests (OCI image specification, descriptor, "Digests").

use crate::resumable::Resumable;
use serde::{Deserialize, Serialize};
use sha2::{Sha256, Sha512};
use std::{fmt, str::FromStr};

/// The algorithm and the hash of some bytes. It is the only identity of content.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Digest {
    /// SHA-256, 32 bytes.
    Sha256([u8; 32]),
    /// SHA-512, 64 bytes.
    Sha512(Box<[u8; 64]>),
}

/// A hash algorithm that dray verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256
    Sha256,
    /// SHA-512
    Sha512,
}

/// The text is not a digest that dray can verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read `{0}` as a digest: expected sha256: or sha512: and lower-case hexadecimal digits")]
pub struct ParseDigestError(String);

impl Digest {
    /// The SHA-256 digest of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest of bytes in memory, computed with the algorithm of `self`.
    pub fn alike(&self, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(self.algorithm());
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm with which the digest was computed.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Digest::Sha256(_) => Algorithm::Sha256,
            Digest::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The name of the algorithm, as it is written before the colon.
    pub fn algorithm_name(&self) -> &'static str {
        match self {
            Digest::Sha256(_) => "sha256",
            Digest::Sha512(_) => "sha512",
        }
    }

    /// The hash in lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        match self {
            Digest::Sha256(hash) => hex::encode(hash),
            Digest::Sha512(hash) => hex::encode(hash.as_slice()),
        }
    }

    /// `sha256:` and the first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        format!("{}:{:.12}", self.algorithm_name(), self.hex())
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseDigestError(text.chars().take(160).collect());
        let (algorithm, hash) = text.split_once(':').ok_or_else(error)?;
        // The same content must have only one name, and upper-case digits would be a second one.
        if hash.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(error());
        }
        match algorithm {
            "sha256" => {
                let mut bytes = [0; 32];
                hex::decode_to_slice(hash, &mut bytes).map_err(|_| error())?;
                Ok(Digest::Sha256(bytes))
            }
            "sha512" => {
                let mut bytes = Box::new([0; 64]);
                hex::decode_to_slice(hash, bytes.as_mut_slice()).map_err(|_| error())?;
                Ok(Digest::Sha512(bytes))
            }
            _ => Err(error()),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = ParseDigestError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm_name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Computes a digest from bytes as they pass.
pub struct Hasher(State);

enum State {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
    Resumable(Resumable),
}

impl Hasher {
    /// A hasher that can save its state, which makes it a little slower. For SHA-512, it is an ordinary hasher that
    /// cannot.
    pub fn resumable(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Hasher(State::Resumable(Resumable::new())),
            Algorithm::Sha512 => Hasher::new(algorithm),
        }
    }

    /// The state of the hasher, for `load`. `None` means that this hasher cannot save its state.
    pub fn save(&self) -> Option<Vec<u8>> {
        match &self.0 {
            State::Resumable(state) => Some(state.save()),
            State::Sha256(_) | State::Sha512(_) => None,
        }
    }

    /// A hasher that continues from a saved state. `None` means that the bytes are not a saved state.
    pub fn load(saved: &[u8]) -> Option<Self> {
        Resumable::load(saved).map(|state| Hasher(State::Resumable(state)))
    }

    /// A hasher that has not hashed any bytes yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Hasher(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::default()),
            Algorithm::Sha512 => State::Sha512(Box::default()),
        })
    }

    /// Hashes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        use sha2::Digest as _;
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
            State::Resumable(state) => state.update(bytes),
        }
    }

    /// The digest of all bytes that were hashed.
    pub fn finish(self) -> Digest {
        use sha2::Digest as _;
        match self.0 {
            State::Sha256(state) => Digest::Sha256(state.finalize().into()),
            State::Sha512(state) => Digest::Sha512(Box::new(state.finalize().into())),
            State::Resumable(state) => Digest::Sha256(state.finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(empty.parse(), Ok(Digest::of(b"")));
        let sha512 = format!("sha512:{}", "0a".repeat(64));
        assert_eq!(sha512.parse::<Digest>().unwrap().to_string(), sha512);
    }

    #[test]
    fn refuses_what_it_cannot_verify() {
        for text in [
            "",
            "sha256:",
            "sha256:12",
            "md5:00",
            "sha256",
            &format!("sha256:{}", "A".repeat(64)),
            &format!("sha256:{}/..", "a".repeat(61)),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
