//! Whether a plugin is signed by a key that a policy trusts.

use dray_engine::{Error, Kind, Result, read_key};
use dray_trust::{Identity, Image, Requirement, Signature, Subject, Verdict, Witnesses};
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
    // A bundle says that these bytes were signed, whatever they are called; more a plugin's signature need not say.
    let requirement = Requirement::sigstore_key(keys.to_vec(), Witnesses::default(), Identity::Any);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let image = Image::of_transport("docker");
    let subject = Subject { image: &image, manifest: signed, now };
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
    match requirement.judge(&subject, &signatures, &read_key) {
        Verdict::Signed(accepted) => Ok(accepted.by),
        Verdict::NotNeeded => Err(refused("no key is named")),
        Verdict::Refused(_) if signatures.is_empty() => Err(refused("it is not signed")),
        Verdict::Refused(why) => Err(refused(&why.join("; "))),
    }
}
