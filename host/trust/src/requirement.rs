//! What a policy demands of an image, and whether its signatures fulfil it.

use crate::{
    Attached, Identity, Image, Keyring, Payload, Result, Signature, Wrong, about,
    certificate::{Trusted, all_from_pem},
    publickey::PublicKey,
    sigstore::{Anchors, Sigstore},
    timestamp::Authorities,
};
use dray_core::{Algorithm, Digest, Manifest};
use sha2::{Digest as _, Sha256};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Reads a file that a policy names.
pub type ReadFile<'a> = dyn Fn(&Path) -> std::io::Result<Vec<u8>> + Send + Sync + 'a;

/// An image whose signatures are judged.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The image as the user named it.
    pub image: &'a Image,
    /// The exact bytes of the manifest.
    pub manifest: &'a [u8],
    /// Seconds since 1970.
    pub now: u64,
}

/// Files with keys or certificates, or the keys themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Path(PathBuf),
    Data(Vec<u8>),
}

/// What a signature must be by, if it is a sigstore signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Keys(Vec<Source>),
    Fulcio { ca: Vec<Source>, issuer: String, subject: Named },
    Pki { roots: Vec<Source>, between: Vec<Source>, email: Option<String>, hostname: Option<String> },
}

/// For whom a certificate of Fulcio must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Email(String),
    Uri(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    Anything,
    Reject,
    /// A kind that is never fulfilled, by its name.
    Never(String),
    SignedBy {
        keys: Vec<Source>,
        identity: Identity,
    },
    Sigstore {
        by: By,
        rekor: Vec<Source>,
        /// Certificates of authorities that sign times.
        timestamp: Vec<Source>,
        identity: Identity,
    },
}

/// One thing that a policy demands of an image. A signature that fulfils all of it is enough.
pub struct Requirement {
    pub(crate) demand: Demand,
    keys: OnceLock<Result<Keys>>,
}

/// The keys and certificates of a requirement, read once.
enum Keys {
    OpenPgp(Keyring),
    Sigstore(Box<Sigstore>),
}

/// Files with what must vouch for a signature beside its key.
#[derive(Clone, Debug, Default)]
pub struct Witnesses {
    /// Public keys of logs in PEM, of which one must hold the signature.
    pub rekor: Vec<PathBuf>,
    /// Certificates in PEM of authorities, of which one must have signed the time of the signature (RFC 3161).
    pub timestamp: Vec<PathBuf>,
}

/// Which signatures may fulfil a requirement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Simple signing.
    pub simple: bool,
    /// sigstore, attached or in bundles.
    pub sigstore: bool,
}

/// A signature that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// By whom it is, for people.
    pub by: String,
    /// For which image it is, as it says. `None` means that it names none.
    pub reference: Option<String>,
}

/// What became of a requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing needs to be signed.
    NotNeeded,
    /// A signature fulfils it.
    Signed(Accepted),
    /// No signature fulfils it. For each signature it says why.
    Refused(Vec<String>),
}

impl Verdict {
    /// Whether the requirement is fulfilled.
    pub fn accepted(&self) -> bool {
        !matches!(self, Verdict::Refused(_))
    }
}

impl fmt::Debug for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.demand.fmt(f)
    }
}

impl PartialEq for Requirement {
    fn eq(&self, other: &Self) -> bool {
        self.demand == other.demand
    }
}

impl From<Demand> for Requirement {
    fn from(demand: Demand) -> Self {
        Requirement { demand, keys: OnceLock::new() }
    }
}

impl Requirement {
    /// That every image is accepted.
    pub fn anything() -> Self {
        Demand::Anything.into()
    }

    /// That no image is accepted.
    pub fn rejecting() -> Self {
        Demand::Reject.into()
    }

    /// A signature by a key of one of these OpenPGP keyrings.
    pub fn openpgp(keyrings: Vec<PathBuf>, identity: Identity) -> Self {
        Demand::SignedBy { keys: paths(keyrings), identity }.into()
    }

    /// A sigstore signature by one of these public keys. With `rekor`, a log with one of these keys must have it.
    pub fn sigstore_key(keys: Vec<PathBuf>, witnesses: Witnesses, identity: Identity) -> Self {
        Self::sigstore(By::Keys(paths(keys)), witnesses, identity)
    }

    /// A sigstore signature with a certificate of Fulcio, for this e-mail address, or for this URI if it contains `://`.
    pub fn fulcio(
        ca: Vec<PathBuf>,
        issuer: String,
        subject: String,
        witnesses: Witnesses,
        identity: Identity,
    ) -> Self {
        let subject = if subject.contains("://") { Named::Uri(subject) } else { Named::Email(subject) };
        Self::sigstore(By::Fulcio { ca: paths(ca), issuer, subject }, witnesses, identity)
    }

    /// A sigstore signature with a certificate of one's own, for an e-mail address, a host name, or both.
    pub fn pki(
        roots: Vec<PathBuf>,
        between: Vec<PathBuf>,
        (email, hostname): (Option<String>, Option<String>),
        identity: Identity,
    ) -> Self {
        let by = By::Pki { roots: paths(roots), between: paths(between), email, hostname };
        Self::sigstore(by, Witnesses::default(), identity)
    }

    fn sigstore(by: By, witnesses: Witnesses, identity: Identity) -> Self {
        let (rekor, timestamp) = (paths(witnesses.rekor), paths(witnesses.timestamp));
        Demand::Sigstore { by, rekor, timestamp, identity }.into()
    }

    /// The signatures that could fulfil it. None of them means that no signature is needed, or that none helps.
    pub fn kinds(&self) -> Kinds {
        Kinds {
            simple: matches!(self.demand, Demand::SignedBy { .. }),
            sigstore: matches!(self.demand, Demand::Sigstore { .. }),
        }
    }

    /// Judges the signatures of an image.
    pub fn judge(&self, subject: &Subject<'_>, signatures: &[Signature], read: &ReadFile<'_>) -> Verdict {
        match &self.demand {
            Demand::Anything => return Verdict::NotNeeded,
            Demand::Reject => return Verdict::Refused(vec!["the policy rejects it".into()]),
            Demand::Never(kind) => {
                return Verdict::Refused(vec![format!("the policy demands `{kind}`, which nothing fulfils")]);
            }
            Demand::SignedBy { .. } | Demand::Sigstore { .. } => {}
        }
        let keys = match self.keys(read) {
            Ok(keys) => keys,
            Err(wrong) => return Verdict::Refused(vec![wrong.to_string()]),
        };
        let mut refused = Vec::new();
        for signature in signatures {
            let judged = match (keys, signature) {
                (Keys::OpenPgp(keyring), Signature::Simple(message)) => {
                    self.simple(subject, message, keyring)
                }
                (Keys::Sigstore(keys), Signature::Sigstore(attached)) => {
                    self.attached(subject, attached, keys)
                }
                (Keys::Sigstore(keys), Signature::Bundle(json)) => self.bundle(subject, json, keys),
                (_, Signature::Unknown(kind)) => {
                    Err(Wrong(format!("`{}` is an unknown kind", kind.escape_debug())))
                }
                _ => continue,
            };
            match judged {
                Ok(accepted) => return Verdict::Signed(accepted),
                Err(wrong) => refused.push(wrong.to_string()),
            }
        }
        if refused.is_empty() {
            refused.push("it has no signature of the kind that is needed".into());
        }
        refused.dedup();
        Verdict::Refused(refused)
    }

    /// The files that it names.
    pub fn files(&self) -> Vec<&Path> {
        let sources: Vec<&Source> = match &self.demand {
            Demand::SignedBy { keys, .. } => keys.iter().collect(),
            Demand::Sigstore { by, rekor, timestamp, .. } => {
                let by = match by {
                    By::Keys(keys) => keys.iter().chain(&[]),
                    By::Fulcio { ca, .. } => ca.iter().chain(&[]),
                    By::Pki { roots, between, .. } => roots.iter().chain(between.as_slice()),
                };
                by.chain(rekor).chain(timestamp).collect()
            }
            Demand::Anything | Demand::Reject | Demand::Never(_) => Vec::new(),
        };
        let paths = sources.into_iter().filter_map(|source| match source {
            Source::Path(path) => Some(path.as_path()),
            Source::Data(_) => None,
        });
        paths.collect()
    }

    /// Reads the keys, for checking a policy before anything needs them.
    ///
    /// # Errors
    /// Fails if a file cannot be read or holds something else.
    pub fn check_keys(&self, read: &ReadFile<'_>) -> Result<()> {
        match self.demand {
            Demand::SignedBy { .. } | Demand::Sigstore { .. } => self.keys(read).map(|_| ()),
            Demand::Anything | Demand::Reject | Demand::Never(_) => Ok(()),
        }
    }

    fn keys(&self, read: &ReadFile<'_>) -> Result<&Keys> {
        self.keys.get_or_init(|| self.read_keys(read)).as_ref().map_err(Clone::clone)
    }

    fn read_keys(&self, read: &ReadFile<'_>) -> Result<Keys> {
        let bytes = |source: &Source| match source {
            Source::Data(data) => Ok(("the key in the policy".to_owned(), data.clone())),
            Source::Path(path) => match read(path) {
                Ok(bytes) => Ok((path.display().to_string(), bytes)),
                Err(error) => Err(Wrong(format!("{} cannot be read: {error}", path.display()))),
            },
        };
        let public_keys = |sources: &[Source]| {
            let mut keys = Vec::new();
            for source in sources {
                let (name, bytes) = bytes(source)?;
                keys.extend(PublicKey::all_from_pem(&bytes).map_err(about(&name))?);
            }
            Ok::<_, Wrong>(keys)
        };
        let trusted = |sources: &[Source]| {
            let files: Vec<_> = sources.iter().map(bytes).collect::<Result<_>>()?;
            let name = files.first().map_or("", |(name, _)| name);
            Trusted::parse(files.iter().map(|(_, bytes)| bytes.as_slice())).map_err(about(name))
        };
        match &self.demand {
            Demand::SignedBy { keys, .. } => {
                let files: Vec<_> = keys.iter().map(bytes).collect::<Result<_>>()?;
                let name = files.first().map_or("", |(name, _)| name);
                let keyring = Keyring::parse(files.iter().map(|(_, bytes)| bytes.as_slice()));
                Ok(Keys::OpenPgp(keyring.map_err(about(name))?))
            }
            Demand::Sigstore { by, rekor, timestamp, .. } => {
                let logs = public_keys(rekor)?;
                if logs.iter().any(|key| !key.is_of_log()) {
                    return Err(Wrong("the key of a log is neither of ECDSA nor of Ed25519".into()));
                }
                let files: Vec<_> = timestamp.iter().map(bytes).collect::<Result<_>>()?;
                let authorities = match files.first() {
                    None => None,
                    Some((name, _)) => {
                        let files: Vec<&[u8]> = files.iter().map(|(_, bytes)| bytes.as_slice()).collect();
                        Some(Authorities::parse(files).map_err(about(name))?)
                    }
                };
                let anchors = match by {
                    By::Keys(keys) => Anchors::Keys(public_keys(keys)?),
                    By::Fulcio { ca, .. } => Anchors::Fulcio(trusted(ca)?),
                    By::Pki { roots, between, .. } => {
                        let mut certificates = Vec::new();
                        for source in between {
                            let (name, bytes) = bytes(source)?;
                            certificates.extend(all_from_pem(&bytes).map_err(about(&name))?);
                        }
                        Anchors::Pki(trusted(roots)?, certificates)
                    }
                };
                Ok(Keys::Sigstore(Box::new(Sigstore { anchors, logs, authorities })))
            }
            Demand::Anything | Demand::Reject | Demand::Never(_) => Err(Wrong("it has no keys".into())),
        }
    }

    fn identity(&self) -> &Identity {
        match &self.demand {
            Demand::SignedBy { identity, .. } | Demand::Sigstore { identity, .. } => identity,
            Demand::Anything | Demand::Reject | Demand::Never(_) => &Identity::RepoDigestOrExact,
        }
    }

    /// Checks what a payload says: that it is about this manifest, and about an image of this name.
    fn is_about(&self, subject: &Subject<'_>, payload: &Payload) -> Result<()> {
        let digest = digest_of(subject, &payload.digest)?;
        if digest != payload.digest {
            return Err(Wrong(format!(
                "it is for the manifest {}, and this one is {digest}",
                payload.digest
            )));
        }
        self.identity().check(subject.image, &payload.reference)
    }

    fn simple(&self, subject: &Subject<'_>, message: &[u8], keyring: &Keyring) -> Result<Accepted> {
        let signed = keyring.check(message, subject.now)?;
        let payload = Payload::simple(&signed.payload)?;
        self.is_about(subject, &payload)?;
        let by = format!("the OpenPGP key {}", signed.fingerprint);
        Ok(Accepted { by, reference: Some(payload.reference) })
    }

    fn attached(&self, subject: &Subject<'_>, attached: &Attached, keys: &Sigstore) -> Result<Accepted> {
        let (by, payload) = keys.attached(self.sigstore_by()?, subject.now, attached)?;
        self.is_about(subject, &payload)?;
        Ok(Accepted { by, reference: Some(payload.reference) })
    }

    fn bundle(&self, subject: &Subject<'_>, json: &[u8], keys: &Sigstore) -> Result<Accepted> {
        let digest = sha256_of(subject)?;
        let manifest = (subject.manifest, &digest);
        let (by, names) = keys.bundle(self.sigstore_by()?, subject.now, manifest, json)?;
        let identity = self.identity();
        if identity.takes_unnamed() {
            return Ok(Accepted { by, reference: names.first().cloned() });
        }
        let mut why = Wrong("it gives a digest and names no image (`identity = \"any\"` takes that)".into());
        for name in names {
            match identity.check(subject.image, &name) {
                Ok(()) => return Ok(Accepted { by, reference: Some(name) }),
                Err(wrong) => why = wrong,
            }
        }
        Err(why)
    }

    fn sigstore_by(&self) -> Result<&By> {
        match &self.demand {
            Demand::Sigstore { by, .. } => Ok(by),
            _ => Err(Wrong("it is no signature of OpenPGP".into())),
        }
    }
}

fn paths(paths: Vec<PathBuf>) -> Vec<Source> {
    paths.into_iter().map(Source::Path).collect()
}

/// The digest of the manifest in the algorithm of another one.
fn digest_of(subject: &Subject<'_>, like: &Digest) -> Result<Digest> {
    match like.algorithm() {
        Algorithm::Sha256 => {
            Manifest::digest_of(subject.manifest).map_err(about("its digest cannot be compared"))
        }
        _ => Ok(like.alike(subject.manifest)),
    }
}

fn sha256_of(subject: &Subject<'_>) -> Result<Digest> {
    let hex = hex::encode(Sha256::digest(subject.manifest));
    format!("sha256:{hex}").parse().map_err(about("its digest cannot be compared"))
}
