//! Signatures of container images: what a signature policy demands, whether signatures fulfil it, and how signatures are
//! made. Nothing here reads files, asks the network or looks at a clock: who calls gives bytes and the time, so that
//! every verdict depends only on its arguments.
//!
//! [`Policy`] is containers-policy.json(5). It gives the [`Requirement`]s of an image, and each of them judges the
//! [`Signature`]s of a [`Subject`]:
//!
//! ```
//! use dray_trust::{Image, Policy, Subject};
//!
//! let policy = Policy::parse(br#"{"default":[{"type":"reject"}],"transports":{"docker":{
//!     "quay.io/open":[{"type":"insecureAcceptAnything"}]}}}"#).unwrap();
//! let image = Image::docker("quay.io/open/app:1").unwrap();
//! let subject = Subject { image: &image, manifest: b"{}", now: 1_700_000_000 };
//! for requirement in policy.requirements(&image) {
//!     assert!(requirement.judge(&subject, &[], &|_| unreachable!()).accepted());
//! }
//! ```

mod bundle;
mod certificate;
mod encryption;
mod identity;
mod image;
mod inclusion;
mod json;
mod keyfile;
mod lookaside;
mod openpgp;
mod payload;
mod policy;
mod publickey;
mod rekor;
mod requirement;
mod signature;
mod signing;
mod sigstore;
mod timestamp;

pub use encryption::{ENCRYPTED, Encrypted, Opener, Recipient, decrypt, encrypt, other_annotations};
pub use identity::Identity;
pub use image::{Image, Name, store_scopes};
pub use keyfile::{PrivateKey, generate, generate_ed25519};
pub use lookaside::{Lookaside, Lookasides, origin};
pub use openpgp::{Keyring, SecretKey, Signed};
pub use payload::Payload;
pub use policy::Policy;
pub use requirement::{Accepted, Kinds, ReadFile, Requirement, Subject, Verdict, Witnesses};
pub use signature::{Attached, BUNDLE, Format, SIGNATURE_ANNOTATION, SIMPLE_SIGNING, Signature};
pub use signing::{bundle_of, payload_to_sign, sign_attached};

/// What a machine says about signatures.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The signature policy, and the file that it is from. `None` means that there is none, so that no image needs a
    /// signature.
    pub policy: Option<(Policy, std::path::PathBuf)>,
    /// Where the signatures of registries are kept.
    pub lookasides: Lookasides,
    /// Whether every image must be signed, so that a policy that accepts anything rejects it.
    pub always: bool,
}

/// Why something is not what it should be: a fragment that says what is wrong with it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Wrong(String);

impl Wrong {
    /// Makes the error.
    pub fn new(text: impl Into<String>) -> Self {
        Wrong(text.into())
    }
}

/// The result of reading or checking something.
pub type Result<T> = std::result::Result<T, Wrong>;

/// Reads base64 as Go does, which skips the ends of lines.
fn from_base64(text: &str) -> std::result::Result<Vec<u8>, base64::DecodeError> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    match text.contains(['\r', '\n']) {
        true => STANDARD.decode(text.replace(['\r', '\n'], "")),
        false => STANDARD.decode(text),
    }
}

/// Adds to an error what it is about.
fn about<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> Wrong + '_ {
    move |error| Wrong(format!("{what}: {error}"))
}
