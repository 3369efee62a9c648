//! What a policy demands of an image, and whether its signatures fulfil it.

use crate::{
    Identity, Image, Keyring, Payload, Result, Signature, Wrong, about,
    bundle::{self, certificate_pem},
    certificate::{Leaf, Trusted, all_from_pem},
    from_base64,
    publickey::PublicKey,
    rekor,
    signature::{Attached, CERTIFICATE, CHAIN, LOG, SIGNATURE_ANNOTATION, SIMPLE_SIGNING},
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
    Sigstore { trusted: Anchors, logs: Vec<PublicKey> },
}

enum Anchors {
    Keys(Vec<PublicKey>),
    Fulcio(Trusted),
    Pki(Trusted, Vec<rustls_pki_types::CertificateDer<'static>>),
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
    pub fn sigstore_key(keys: Vec<PathBuf>, rekor: Vec<PathBuf>, identity: Identity) -> Self {
        Demand::Sigstore { by: By::Keys(paths(keys)), rekor: paths(rekor), identity }.into()
    }

    /// A sigstore signature with a certificate of Fulcio, for this e-mail address, or for this URI if it contains `://`.
    pub fn fulcio(
        ca: Vec<PathBuf>,
        issuer: String,
        subject: String,
        rekor: Vec<PathBuf>,
        identity: Identity,
    ) -> Self {
        let subject = if subject.contains("://") { Named::Uri(subject) } else { Named::Email(subject) };
        let by = By::Fulcio { ca: paths(ca), issuer, subject };
        Demand::Sigstore { by, rekor: paths(rekor), identity }.into()
    }

    /// A sigstore signature with a certificate of one's own, for an e-mail address, a host name, or both.
    pub fn pki(
        roots: Vec<PathBuf>,
        between: Vec<PathBuf>,
        (email, hostname): (Option<String>, Option<String>),
        identity: Identity,
    ) -> Self {
        let by = By::Pki { roots: paths(roots), between: paths(between), email, hostname };
        Demand::Sigstore { by, rekor: Vec::new(), identity }.into()
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
                (Keys::Sigstore { trusted, logs }, Signature::Sigstore(attached)) => {
                    self.attached(subject, attached, trusted, logs)
                }
                (Keys::Sigstore { trusted, logs }, Signature::Bundle(json)) => {
                    self.bundle(subject, json, trusted, logs)
                }
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
            Demand::Sigstore { by, rekor, .. } => {
                let by = match by {
                    By::Keys(keys) => keys.iter().chain(&[]),
                    By::Fulcio { ca, .. } => ca.iter().chain(&[]),
                    By::Pki { roots, between, .. } => roots.iter().chain(between.as_slice()),
                };
                by.chain(rekor).collect()
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
            Demand::Sigstore { by, rekor, .. } => {
                let logs = public_keys(rekor)?;
                if logs.iter().any(|key| !key.is_ecdsa()) {
                    return Err(Wrong("the key of a log is of another kind than ECDSA".into()));
                }
                let trusted = match by {
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
                Ok(Keys::Sigstore { trusted, logs })
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

    fn attached(
        &self,
        subject: &Subject<'_>,
        attached: &Attached,
        trusted: &Anchors,
        logs: &[PublicKey],
    ) -> Result<Accepted> {
        if attached.media_type != SIMPLE_SIGNING {
            return Err(Wrong(format!("it is of the unknown type `{}`", attached.media_type.escape_debug())));
        }
        let annotation = |name: &str| attached.annotations.get(name);
        let signature = annotation(SIGNATURE_ANNOTATION)
            .ok_or_else(|| Wrong("it has a payload and no signature of it".into()))?;
        let signature = from_base64(signature).map_err(about("its signature is not in base64"))?;
        let sha256 = hex::encode(Sha256::digest(&attached.payload));
        let logged = |pem: &str| {
            let log = annotation(LOG).ok_or_else(|| Wrong("no log has promised to hold it".into()))?;
            let (body, time) = rekor::promised(log, logs)?;
            rekor::check_hashedrekord(&body, pem, &signature, &sha256)?;
            Ok::<u64, Wrong>(time)
        };
        let by = match trusted {
            Anchors::Keys(keys) => {
                let key = keys.iter().find(|key| key.made(&attached.payload, &signature));
                let key = key.ok_or_else(|| Wrong("none of the trusted keys made it".into()))?;
                if !logs.is_empty() {
                    logged(&crate::publickey::to_pem("PUBLIC KEY", key.der()))?;
                }
                key.shown()
            }
            Anchors::Fulcio(_) | Anchors::Pki(..) => {
                let pem = annotation(CERTIFICATE).ok_or_else(|| Wrong("it has no certificate".into()))?;
                let leaf = Leaf::from_pem(pem.as_bytes())?;
                let mut between = match annotation(CHAIN) {
                    Some(chain) => all_from_pem(chain.as_bytes())?,
                    None => Vec::new(),
                };
                // The last one is the root, which only a policy can trust.
                between.pop();
                let by = self.certified(subject.now, &leaf, between, trusted, || logged(pem))?;
                if !leaf.key.made(&attached.payload, &signature) {
                    return Err(Wrong("the key of its certificate did not make it".into()));
                }
                by
            }
        };
        let payload = Payload::cosign(&attached.payload)?;
        self.is_about(subject, &payload)?;
        Ok(Accepted { by, reference: Some(payload.reference) })
    }

    /// Checks the certificate of a signature. Returns for whom it is.
    fn certified(
        &self,
        now: u64,
        leaf: &Leaf,
        mut between: Vec<rustls_pki_types::CertificateDer<'static>>,
        trusted: &Anchors,
        logged: impl Fn() -> Result<u64>,
    ) -> Result<String> {
        let Demand::Sigstore { by, .. } = &self.demand else {
            return Err(Wrong("it has no certificate".into()));
        };
        match (by, trusted) {
            (By::Fulcio { issuer, subject, .. }, Anchors::Fulcio(trusted)) => {
                // The certificate lives for minutes only, so it must hold at the time that the log vouches for.
                leaf.check(trusted, &between, logged()?, false)?;
                let is = leaf.issuer()?;
                if is != *issuer {
                    return Err(Wrong(format!("its signer was identified by `{}`", is.escape_debug())));
                }
                let (names, wanted) = match subject {
                    Named::Email(email) => (leaf.emails(), email),
                    Named::Uri(uri) => (leaf.uris(), uri),
                };
                match names.contains(wanted) {
                    true => Ok(format!("{wanted}, as {issuer} says")),
                    false => Err(Wrong(format!("it is by {}", list(&names)))),
                }
            }
            (By::Pki { email, hostname, .. }, Anchors::Pki(trusted, more)) => {
                between.extend(more.iter().cloned());
                leaf.check(trusted, &between, now, true)?;
                for (wanted, names) in [(email, leaf.emails()), (hostname, leaf.hostnames())] {
                    if let Some(wanted) = wanted.as_ref().filter(|wanted| !names.contains(wanted)) {
                        return Err(Wrong(format!("it is by {}, and not by {wanted}", list(&names))));
                    }
                }
                let names = [email, hostname].into_iter().flatten().cloned().collect::<Vec<_>>();
                Ok(format!("{}, as its certificate says", names.join(" and ")))
            }
            _ => Err(Wrong("it has a certificate, and a key is needed".into())),
        }
    }

    fn bundle(
        &self,
        subject: &Subject<'_>,
        json: &[u8],
        trusted: &Anchors,
        logs: &[PublicKey],
    ) -> Result<Accepted> {
        let digest = sha256_of(subject)?;
        let read = bundle::Read::parse(json, subject.manifest, &digest)?;
        let by = match (trusted, &read.leaf) {
            (Anchors::Keys(keys), _) => {
                let key = keys.iter().find(|key| read.made_by(key));
                let key = key.ok_or_else(|| Wrong("none of the trusted keys made it".into()))?;
                if !logs.is_empty() {
                    read.logged(logs, &crate::publickey::to_pem("PUBLIC KEY", key.der()))?;
                }
                key.shown()
            }
            (_, Some(leaf)) => {
                let pem = certificate_pem(&leaf.der);
                let by = self.certified(subject.now, leaf, read.between.clone(), trusted, || {
                    read.logged(logs, &pem)
                })?;
                if !read.made_by(&leaf.key) {
                    return Err(Wrong("the key of its certificate did not make it".into()));
                }
                by
            }
            (_, None) => return Err(Wrong("it has no certificate".into())),
        };
        let identity = self.identity();
        if identity.takes_unnamed() {
            return Ok(Accepted { by, reference: read.names().first().cloned() });
        }
        let mut why = Wrong("it gives a digest and names no image (`identity = \"any\"` takes that)".into());
        for name in read.names() {
            match identity.check(subject.image, name) {
                Ok(()) => return Ok(Accepted { by, reference: Some(name.clone()) }),
                Err(wrong) => why = wrong,
            }
        }
        Err(why)
    }
}

fn paths(paths: Vec<PathBuf>) -> Vec<Source> {
    paths.into_iter().map(Source::Path).collect()
}

fn list(names: &[String]) -> String {
    match names {
        [] => "somebody whom its certificate does not name in this way".into(),
        names => names.join(", "),
    }
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
