//! How skopeo's commands sign: the `--sign-by…` flags, `standalone-sign`, `standalone-verify`, `generate-sigstore-key`.

use super::{
    flags::{given, switch, text},
    unsupported,
};
use crate::{
    DONE,
    digest::read as read_manifest,
    failure::Failure,
    output::say,
    signer::{self, Signer},
    terminal, trust,
};
use clap::{Arg, ArgMatches, Command};
use dray_core::{Digest, Manifest, Reference, Yaml};
use dray_engine::{Error, Kind, Places, attach, check_attachable, manifests_of};
use dray_trust::{Keyring, Name, Payload};
use std::{
    fs,
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Adds the flags by which copies are signed.
pub fn flags(command: Command) -> Command {
    command
        .arg(text("sign-by").help("Signs with the GnuPG key of this fingerprint"))
        .arg(text("sign-by-sigstore").help("Signs as this YAML file of parameters says"))
        .arg(text("sign-by-sigstore-private-key").help("Signs with this key of sigstore"))
        .arg(text("sign-passphrase-file").help("File whose first line is the passphrase of the key"))
        .arg(text("sign-identity").help("The name that is signed, instead of the destination's"))
}

/// What signs a copy.
pub struct Signing {
    signers: Vec<Signer>,
    identity: Option<String>,
}

fn usage(text: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("sign: {text}"))
}

impl Signing {
    /// What the flags say. Without any, nothing is signed.
    pub fn of(matches: &ArgMatches) -> Result<Self, Failure> {
        let mut signers = Vec::new();
        let file = given(matches, "sign-passphrase-file").map(PathBuf::from);
        let [gpg, parameters, key] = ["sign-by", "sign-by-sigstore", "sign-by-sigstore-private-key"]
            .map(|name| given(matches, name).filter(|value| !value.is_empty()));
        if file.is_some() && [&gpg, &parameters, &key].into_iter().flatten().count() > 1 {
            return Err(usage("--sign-passphrase-file is for one key, and several are named"));
        }
        if let Some(fingerprint) = gpg {
            signers.push(Signer::Gpg { fingerprint, passphrase_file: file.clone() });
        }
        if let Some(path) = parameters {
            signers.push(by_parameters(Path::new(&path))?);
        }
        if let Some(path) = key {
            signers.push(Signer::sigstore(
                Path::new(&path),
                &passphrase(file.as_deref(), Path::new(&path))?,
                false,
            )?);
        }
        let identity = given(matches, "sign-identity");
        if let Some(identity) = &identity {
            let name = Name::parse(identity).map_err(usage)?;
            if name.is_name_only() {
                return Err(usage(format!("--sign-identity {identity} has no tag and no digest")));
            }
        }
        Ok(Signing { signers, identity })
    }

    /// Fails if what is to be signed cannot be signed at the destination.
    pub async fn check(&self, places: &Arc<Places>, destination: &Reference) -> Result<(), Failure> {
        for signer in &self.signers {
            self.name(places, destination).await?;
            check_attachable(places, destination, signer.kinds()).await?;
        }
        Ok(())
    }

    async fn name(&self, places: &Arc<Places>, destination: &Reference) -> Result<String, Failure> {
        match &self.identity {
            Some(identity) => Ok(Name::parse(identity).map_err(usage)?.to_string()),
            None => trust::name_of(places, destination).await,
        }
    }

    /// Signs what was copied, with all of its images: exactly what has the digest that was written.
    pub async fn sign(
        &self,
        places: &Arc<Places>,
        destination: &Reference,
        written: &str,
    ) -> Result<(), Failure> {
        if self.signers.is_empty() {
            return Ok(());
        }
        let identity = self.name(places, destination).await?;
        let written: Digest = written.parse().map_err(|error| usage(format!("{error}")))?;
        for digest in manifests_of(places, destination, Some(&written), true).await? {
            for signer in &self.signers {
                attach(places, destination, &digest, signer.sign(&digest, &identity)?).await?;
            }
        }
        Ok(())
    }
}

/// The passphrase of a key: from a file, or asked for.
fn passphrase(file: Option<&Path>, key: &Path) -> Result<String, Failure> {
    match file {
        Some(path) => signer::passphrase(path),
        None if std::io::stdin().is_terminal() => terminal::ask("passphrase of the key: ", false)
            .map_err(|error| usage(format!("ask for the passphrase: {error}"))),
        None => match std::env::var("COSIGN_PASSWORD") {
            Ok(passphrase) => Ok(passphrase),
            Err(_) => signer::without_passphrase(key),
        },
    }
}

/// containers-sigstore-signing-params.yaml(5). Keys in files are supported.
fn by_parameters(path: &Path) -> Result<Signer, Failure> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| usage(format!("read {shown}: {error}")))?;
    let documents = Yaml::documents(&text).map_err(|error| usage(format!("read {shown}: {error}")))?;
    let [document] = &documents[..] else { return Err(usage(format!("{shown} is not one document"))) };
    let (mut key, mut file) = (None, None);
    for (name, value) in document.entries() {
        let text = || value.text().map(PathBuf::from);
        match name.as_str() {
            "privateKeyFile" => key = text(),
            "privateKeyPassphraseFile" => file = text(),
            "fulcio" | "rekorURL" => {
                return Err(unsupported(&format!("`{name}` in {shown}, which needs services of sigstore,")));
            }
            other => return Err(usage(format!("{shown}, line {}: `{other}` is unknown", value.line))),
        }
    }
    let key = key.ok_or_else(|| usage(format!("{shown} names no privateKeyFile")))?;
    Signer::sigstore(&key, &passphrase(file.as_deref(), &key)?, false)
}

/// The command line of `standalone-sign`.
pub fn sign_command() -> Command {
    Command::new("standalone-sign")
        .about("Signs a manifest in a file")
        .arg(Arg::new("manifest").required(true).value_name("MANIFEST"))
        .arg(Arg::new("reference").required(true).value_name("DOCKER-REFERENCE"))
        .arg(Arg::new("fingerprint").required(true).value_name("KEY-FINGERPRINT"))
        .arg(text("output").short('o').required(true).help("File of the signature"))
        .arg(text("passphrase-file").help("File whose first line is the passphrase of the key"))
}

pub fn standalone_sign(matches: &ArgMatches) -> Result<u8, Failure> {
    let [manifest, reference, fingerprint, output] = ["manifest", "reference", "fingerprint", "output"]
        .map(|name| given(matches, name).unwrap_or_default());
    let body =
        read_manifest(Path::new(&manifest)).map_err(|error| usage(format!("read {manifest}: {error}")))?;
    let digest = Manifest::digest_of(&body).map_err(Error::from)?;
    let signer =
        Signer::Gpg { fingerprint, passphrase_file: given(matches, "passphrase-file").map(PathBuf::from) };
    let signature = signer.sign(&digest, &reference)?;
    let bytes = signature.to_file().unwrap_or_default();
    fs::write(&output, bytes).map_err(|error| usage(format!("write {output}: {error}")))?;
    Ok(DONE)
}

/// The command line of `standalone-verify`.
pub fn verify_command() -> Command {
    Command::new("standalone-verify")
        .about("Verifies a signature of a manifest in a file")
        .arg(Arg::new("manifest").required(true).value_name("MANIFEST"))
        .arg(Arg::new("reference").required(true).value_name("DOCKER-REFERENCE"))
        .arg(Arg::new("fingerprints").required(true).value_name("KEY-FINGERPRINTS"))
        .arg(Arg::new("signature").required(true).value_name("SIGNATURE"))
        .arg(text("public-key-file").help("File of public keys, instead of those of GnuPG"))
}

pub fn standalone_verify(matches: &ArgMatches) -> Result<u8, Failure> {
    let [manifest, reference, fingerprints, signature] =
        ["manifest", "reference", "fingerprints", "signature"]
            .map(|name| given(matches, name).unwrap_or_default());
    let failed = |why: String| {
        Failure::Failed(Error::new(Kind::Invalid, format!("verify the signature {signature}: {why}")))
    };
    let body =
        read_manifest(Path::new(&manifest)).map_err(|error| failed(format!("read {manifest}: {error}")))?;
    let message = fs::read(&signature).map_err(|error| failed(error.to_string()))?;
    let keys = match given(matches, "public-key-file") {
        Some(path) => signer::key_file(Path::new(&path))?,
        None if fingerprints == "any" => {
            return Err(failed("`any` needs --public-key-file, which says which keys there are".into()));
        }
        None => exported(&fingerprints)?,
    };
    let keyring = Keyring::parse([keys.as_slice()]).map_err(|wrong| failed(wrong.to_string()))?;
    let wrong = |wrong: dray_trust::Wrong| failed(wrong.to_string());
    let signed = keyring.check(&message, signer::now()).map_err(wrong)?;
    let wanted = |fingerprint: &str| {
        fingerprints == "any" || fingerprints.split(',').any(|one| one.trim() == fingerprint)
    };
    if !wanted(&signed.fingerprint) {
        return Err(failed(format!("it is by {}, and not by {fingerprints}", signed.fingerprint)));
    }
    let payload = Payload::simple(&signed.payload).map_err(wrong)?;
    let digest = match payload.digest.algorithm() {
        dray_core::Algorithm::Sha256 => Manifest::digest_of(&body).map_err(Error::from)?,
        _ => payload.digest.alike(&body),
    };
    if digest != payload.digest {
        return Err(failed(format!("it is for {}, and the manifest is {digest}", payload.digest)));
    }
    let name = |text: &str| Name::parse(text).map(|name| name.to_string());
    let (expected, is) = (name(&reference).map_err(wrong)?, name(&payload.reference).map_err(wrong)?);
    if expected != is {
        return Err(failed(format!("it is for {is}, and not for {expected}")));
    }
    say!("Signature verified using fingerprint {}, digest {digest}", signed.fingerprint);
    Ok(DONE)
}

/// The public keys of GnuPG's keyring with these fingerprints.
fn exported(fingerprints: &str) -> Result<Vec<u8>, Failure> {
    let failed = |why: String| usage(format!("get the keys {fingerprints} from gpg: {why}"));
    let mut command = std::process::Command::new("gpg");
    command.args(["--batch", "--no-tty", "--export", "--"]).args(fingerprints.split(',').map(str::trim));
    let output = command.output().map_err(|error| failed(format!("gpg cannot be run: {error}")))?;
    match output.stdout.is_empty() {
        true => Err(failed("it has none of them".into())),
        false => Ok(output.stdout),
    }
}

/// The command line of `generate-sigstore-key`.
pub fn generate_command() -> Command {
    Command::new("generate-sigstore-key")
        .about("Makes a key pair for sigstore: PREFIX.private and PREFIX.pub")
        .arg(text("output-prefix").required(true).help("Path and beginning of the names of both files"))
        .arg(text("passphrase-file").help("File whose first line is the passphrase of the new key"))
        .arg(switch("quiet").hide(true))
}

pub fn generate(matches: &ArgMatches) -> Result<u8, Failure> {
    let prefix = given(matches, "output-prefix").unwrap_or_default();
    let [private, public] = ["private", "pub"].map(|end| format!("{prefix}.{end}"));
    signer::check_new([Path::new(&private), Path::new(&public)])?;
    let passphrase = signer::new_passphrase(given(matches, "passphrase-file").as_ref().map(Path::new))?;
    let (secret, key) = dray_trust::generate(&passphrase).map_err(usage)?;
    signer::write_pair((Path::new(&private), &secret), (Path::new(&public), &key))?;
    say!("Key written to \"{private}\" and \"{public}\"");
    Ok(DONE)
}
