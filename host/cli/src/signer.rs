//! Who signs: a key of sigstore, an OpenPGP key in a file, or GnuPG with the keys of its agent.

use crate::failure::Failure;
use dray_core::Digest;
use dray_engine::{Error, Kind};
use dray_trust::{
    Kinds, Payload, PrivateKey, SecretKey, Signature, bundle_of, payload_to_sign, sign_attached,
};
use std::{
    fs,
    io::{IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

/// What makes signatures.
pub enum Signer {
    /// A key of sigstore. With `bundle`, bundles are made, which are attached as referrers.
    Sigstore { key: PrivateKey, bundle: bool },
    /// An OpenPGP key.
    OpenPgp { key: Box<SecretKey>, passphrase: Option<String> },
    /// `gpg`, which asks its agent for the key with this fingerprint.
    Gpg { fingerprint: String, passphrase_file: Option<PathBuf> },
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The first line of a file with a passphrase, as skopeo reads it.
pub fn passphrase(path: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("read the passphrase in {}: {error}", path.display())))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The variable in which cosign finds the passphrase of a key.
pub const COSIGN_PASSWORD: &str = "COSIGN_PASSWORD";

/// Fails if a file of a new key exists already.
pub fn check_new(paths: [&Path; 2]) -> Result<(), Failure> {
    match paths.into_iter().find(|path| path.symlink_metadata().is_ok()) {
        None => Ok(()),
        Some(path) => {
            let text = format!("make a key: {} exists already, and is not written over", path.display());
            Err(Failure::Usage(Error::new(Kind::Invalid, text).help("choose another name for the new key")))
        }
    }
}

/// Writes the two files of a new key, of which only this user may read the private one.
pub fn write_pair((private, secret): (&Path, &str), (public, key): (&Path, &str)) -> Result<(), Failure> {
    for (path, text, mode) in [(private, secret, 0o600), (public, key, 0o644)] {
        let opened = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| Failure::usage(format!("write {}: {error}", path.display())))?;
    }
    Ok(())
}

/// The passphrase of a new key: that of a file, or one that is typed twice.
pub fn new_passphrase(file: Option<&Path>) -> Result<String, Failure> {
    match file {
        Some(path) => passphrase(path),
        None if std::io::stdin().is_terminal() => {
            let ask = |prompt| {
                let asked = crate::terminal::ask(prompt, false);
                asked.map_err(|error| Failure::usage(format!("make a key: {error}")))
            };
            let (first, second) = (ask("passphrase of the new key: ")?, ask("again: ")?);
            match first == second {
                true => Ok(first),
                false => Err(Failure::usage("make a key: the passphrases are different")),
            }
        }
        None => match std::env::var(COSIGN_PASSWORD) {
            Ok(passphrase) => Ok(passphrase),
            Err(_) => Err(Failure::usage(
                "make a key: no passphrase is given; use --passphrase-file, COSIGN_PASSWORD, or a terminal",
            )),
        },
    }
}

/// The passphrase of a key for which none was given: it must need none.
pub fn without_passphrase(path: &Path) -> Result<String, Failure> {
    match key_file(path)?.windows(9).any(|part| part == b"ENCRYPTED") {
        true => {
            let text = format!("use the key {}: it is encrypted, and no passphrase is given", path.display());
            let help = "a file gives it (--passphrase-file, or --sign-passphrase-file of skopeo), COSIGN_PASSWORD, or a terminal";
            Err(Failure::Usage(Error::new(Kind::Invalid, text).help(help)))
        }
        false => Ok(String::new()),
    }
}

/// Reads a key file.
pub fn key_file(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::usage(format!("read the key {}: {error}", path.display())))
}

fn wrong(path: &Path) -> impl Fn(dray_trust::Wrong) -> Failure {
    let shown = path.display().to_string();
    move |wrong| Failure::usage(format!("use the key {shown}: {wrong}"))
}

impl Signer {
    /// A key of sigstore, as cosign and skopeo write it.
    pub fn sigstore(path: &Path, passphrase: &str, bundle: bool) -> Result<Self, Failure> {
        let key = PrivateKey::parse(&key_file(path)?, passphrase).map_err(wrong(path))?;
        Ok(Signer::Sigstore { key, bundle })
    }

    /// An OpenPGP secret key in a file. `fingerprint` chooses one of several.
    pub fn openpgp(
        path: &Path,
        fingerprint: Option<&str>,
        passphrase: Option<String>,
    ) -> Result<Self, Failure> {
        let key = SecretKey::parse(&key_file(path)?, fingerprint).map_err(wrong(path))?;
        Ok(Signer::OpenPgp { key: Box::new(key), passphrase })
    }

    /// The kind of signatures that it makes.
    pub fn kinds(&self) -> Kinds {
        let sigstore = matches!(self, Signer::Sigstore { .. });
        Kinds { simple: !sigstore, sigstore }
    }

    /// The signer for people.
    pub fn shown(&self) -> String {
        match self {
            Signer::Sigstore { key, .. } => key.shown(),
            Signer::OpenPgp { key, .. } => format!("the OpenPGP key {}", key.fingerprint()),
            Signer::Gpg { fingerprint, .. } => format!("the key {fingerprint} of gpg"),
        }
    }

    /// Signs that an image of this name has this digest.
    pub fn sign(&self, digest: &Digest, reference: &str) -> Result<Signature, Failure> {
        let failed = |wrong: dray_trust::Wrong| {
            Failure::Failed(Error::new(Kind::Invalid, format!("sign {digest}: {wrong}")))
        };
        match self {
            Signer::Sigstore { key, bundle: true } => {
                bundle_of(key, digest).map(Signature::Bundle).map_err(failed)
            }
            Signer::Sigstore { key, bundle: false } => {
                sign_attached(key, digest, reference, now()).map(Signature::Sigstore).map_err(failed)
            }
            Signer::OpenPgp { .. } | Signer::Gpg { .. } => {
                let payload = payload_to_sign(digest, reference, now());
                Payload::simple(&payload).map_err(failed)?;
                self.message(&payload).map(Signature::Simple)
            }
        }
    }

    /// A signed message of OpenPGP.
    fn message(&self, payload: &[u8]) -> Result<Vec<u8>, Failure> {
        match self {
            Signer::OpenPgp { key, passphrase } => {
                key.sign(payload, passphrase.as_deref(), now()).map_err(|wrong| {
                    Failure::Failed(Error::new(Kind::Invalid, format!("sign with {}: {wrong}", self.shown())))
                })
            }
            Signer::Gpg { fingerprint, passphrase_file } => {
                gpg(payload, fingerprint, passphrase_file.as_deref())
            }
            Signer::Sigstore { .. } => Err(Failure::usage("sign: the key is none of OpenPGP")),
        }
    }
}

/// Lets gpg sign a payload.
fn gpg(payload: &[u8], fingerprint: &str, passphrase_file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let failed = |why: String| {
        let error = Error::new(Kind::Invalid, format!("sign with the key {fingerprint} of gpg: {why}"));
        Failure::Failed(error.help("`gpg --list-secret-keys` shows the keys that there are"))
    };
    let mut command = Command::new("gpg");
    command.args(["--batch", "--no-tty", "--yes", "--digest-algo", "SHA256"]);
    if let Some(file) = passphrase_file {
        command.args(["--pinentry-mode", "loopback", "--passphrase-file"]).arg(file);
    }
    command.arg("--local-user").arg(fingerprint).args(["--output", "-", "--sign", "-"]);
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| failed(format!("gpg cannot be run: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // If gpg has ended already, it says why.
        let _ = stdin.write_all(payload);
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    match output.status.success() && !output.stdout.is_empty() {
        true => Ok(output.stdout),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(failed(said.lines().next_back().unwrap_or("it gave nothing").to_owned()))
        }
    }
}
