//! Whether a plugin is signed by a key that a policy trusts.

use dray_engine::{Error, Kind, Result, read_key};
use dray_trust::{Identity, Image, ReadFile, Requirement, Signature, Subject, Verdict, Witnesses};
use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// The file beside a component file that holds its signature: a sigstore bundle.
pub fn signature_file(component: &Path) -> PathBuf {
    let mut name = component.as_os_str().to_owned();
    name.push(".sigstore.json");
    name.into()
}

/// Checks that one of these keys signed some bytes: the manifest of an artifact, or the component of a file. Returns by whom they
/// are signed, for people.
///
/// # Errors
/// Fails if no bundle is by one of the keys, or if a key cannot be read.
pub fn check_signatures(
    shown: &str,
    signed: &[u8],
    bundles: Vec<Vec<u8>>,
    keys: &[PathBuf],
) -> Result<String> {
    let requirement = by_one_of(keys.to_vec());
    let signatures: Vec<Signature> = bundles.into_iter().map(Signature::Bundle).collect();
    let named = keys.iter().map(|key| key.display().to_string()).collect::<Vec<_>>().join(" or ");
    let refused = |why: &str| {
        Error::new(Kind::Refused, format!("trust {shown}: it must be signed by {named}: {why}"))
            .help("`dray plugin install` looks for new signatures, and `dray plugin sign` makes one; `trusted-keys` of the policy names whose count")
    };
    if let Err(wrong) = requirement.check_keys(&read_key) {
        let error = Error::new(Kind::Invalid, format!("trust {shown}: {wrong}"));
        return Err(error
            .help("name files of public keys, such as the .pub of `dray plugin keygen`, in `trusted-keys`"));
    }
    match judged(&requirement, signed, &signatures, &read_key) {
        Verdict::Signed(accepted) => Ok(accepted.by),
        Verdict::NotNeeded => Err(refused("no key is named")),
        Verdict::Refused(_) if signatures.is_empty() => Err(refused("it is not signed")),
        Verdict::Refused(why) => Err(refused(&why.join("; "))),
    }
}

/// Whether one of these bundles is by a key, which is given in PEM.
pub fn is_signed_by(key: &str, signed: &[u8], bundles: Vec<Vec<u8>>) -> bool {
    let signatures: Vec<Signature> = bundles.into_iter().map(Signature::Bundle).collect();
    let read = |_: &Path| Ok(key.as_bytes().to_vec());
    let requirement = by_one_of(vec![PathBuf::from("key")]);
    matches!(judged(&requirement, signed, &signatures, &read), Verdict::Signed(_))
}

/// A bundle says that some bytes were signed, whatever they are called; more a plugin's signature need not say.
fn by_one_of(keys: Vec<PathBuf>) -> Requirement {
    Requirement::sigstore_key(keys, Witnesses::default(), Identity::Any)
}

fn judged(
    requirement: &Requirement,
    signed: &[u8],
    signatures: &[Signature],
    read: &ReadFile<'_>,
) -> Verdict {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let image = Image::of_transport("docker");
    requirement.judge(&Subject { image: &image, manifest: signed, now }, signatures, read)
}
