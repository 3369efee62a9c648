//! containers-policy.json(5): what images must be signed by, by their transports and names.

use crate::{
    Identity, Image, Name, Requirement, Result, Wrong, about, from_base64,
    json::Entries,
    requirement::{By, Demand, Named, Source},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use std::{collections::HashMap, path::PathBuf, sync::Arc};

/// A signature policy.
#[derive(Clone, Debug)]
pub struct Policy {
    default: Vec<Arc<Requirement>>,
    /// By transport and scope.
    transports: HashMap<String, HashMap<String, Vec<Arc<Requirement>>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    default: Vec<Box<RawValue>>,
    #[serde(default)]
    transports: Entries<Entries<Vec<Box<RawValue>>>>,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// Fails if it is not exactly what containers-policy.json(5) describes: an unknown key or a key that stands twice
    /// makes all of it invalid.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let raw: Raw = serde_json::from_slice(text).map_err(about("it is no signature policy"))?;
        let default = requirements(&raw.default).map_err(about("`default`"))?;
        let mut transports = HashMap::new();
        for (transport, scopes) in raw.transports.0 {
            let mut all = HashMap::new();
            for (scope, list) in scopes.0 {
                let whole = format!("the scope `{}` of {transport}", scope.escape_debug());
                let is_path = ["dir", "oci", "oci-archive", "sif"].contains(&transport.as_str());
                if is_path && scope == "/" {
                    return Err(Wrong(format!("{whole} stands for everything, which is written \"\"")));
                }
                if is_path && !scope.is_empty() && !scope.starts_with('/') {
                    return Err(Wrong(format!("{whole} is no absolute path")));
                }
                if ["docker-archive", "tarball"].contains(&transport.as_str()) && !scope.is_empty() {
                    return Err(Wrong(format!("{whole}: that transport has only the scope \"\"")));
                }
                all.insert(scope, requirements(&list).map_err(about(&whole))?);
            }
            transports.insert(transport, all);
        }
        Ok(Policy { default, transports })
    }

    /// The files with keys and certificates that it names.
    pub fn files(&self) -> Vec<PathBuf> {
        let all = self.transports.values().flat_map(HashMap::values).flatten().chain(&self.default);
        all.flat_map(|requirement| requirement.files()).map(PathBuf::from).collect()
    }

    /// What the policy demands of an image: the list of the most specific scope that it is in. All of the list must be
    /// fulfilled.
    pub fn requirements(&self, image: &Image) -> &[Arc<Requirement>] {
        let scopes = self.transports.get(&image.transport);
        let found = scopes.and_then(|scopes| {
            let named = image.scopes.iter().find_map(|scope| scopes.get(scope));
            named.or_else(|| scopes.get(""))
        });
        found.unwrap_or(&self.default)
    }
}

fn requirements(list: &[Box<RawValue>]) -> Result<Vec<Arc<Requirement>>> {
    if list.is_empty() {
        return Err(Wrong("it is an empty list, which would demand nothing".into()));
    }
    list.iter().map(|raw| Ok(Arc::new(Requirement::from(demand(raw.get())?)))).collect()
}

#[derive(Deserialize)]
struct Kind {
    r#type: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bare {
    #[serde(rename = "type")]
    _type: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SignedBy {
    #[serde(rename = "type")]
    _type: String,
    key_type: String,
    key_path: Option<PathBuf>,
    key_paths: Option<Vec<PathBuf>>,
    key_data: Option<String>,
    signed_identity: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SigstoreSigned {
    #[serde(rename = "type")]
    _type: String,
    key_path: Option<PathBuf>,
    key_paths: Option<Vec<PathBuf>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    fulcio: Option<Fulcio>,
    pki: Option<Pki>,
    rekor_public_key_path: Option<PathBuf>,
    rekor_public_key_paths: Option<Vec<PathBuf>>,
    rekor_public_key_data: Option<String>,
    rekor_public_key_datas: Option<Vec<String>>,
    signed_identity: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Fulcio {
    ca_path: Option<PathBuf>,
    ca_data: Option<String>,
    oidc_issuer: String,
    subject_email: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Pki {
    ca_roots_path: Option<PathBuf>,
    ca_roots_data: Option<String>,
    ca_intermediates_path: Option<PathBuf>,
    ca_intermediates_data: Option<String>,
    subject_email: Option<String>,
    subject_hostname: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SignedBaseLayer {
    #[serde(rename = "type")]
    _type: String,
    #[serde(rename = "baseLayerIdentity")]
    _identity: Box<RawValue>,
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Wrong(format!("{error}")))
}

fn demand(text: &str) -> Result<Demand> {
    let Kind { r#type } = read(text)?;
    let read_all = |what: Result<Demand>| what.map_err(about(&format!("`{}`", r#type.escape_debug())));
    match r#type.as_str() {
        "insecureAcceptAnything" => read_all(read::<Bare>(text).map(|_| Demand::Anything)),
        "reject" => read_all(read::<Bare>(text).map(|_| Demand::Reject)),
        "signedBaseLayer" => read_all(read::<SignedBaseLayer>(text).map(|_| Demand::Never(r#type.clone()))),
        "signedBy" => read_all(read(text).and_then(signed_by)),
        "sigstoreSigned" => read_all(read(text).and_then(sigstore_signed)),
        other => Err(Wrong(format!("`{}` is no kind of requirement", other.escape_debug()))),
    }
}

/// One source of keys among several ways to give it. `None` means that none was given.
fn one_of(
    what: &str,
    (path, paths): (Option<PathBuf>, Option<Vec<PathBuf>>),
    (data, datas): (Option<String>, Option<Vec<String>>),
) -> Result<Option<Vec<Source>>> {
    let given = [path.is_some(), paths.is_some(), data.is_some(), datas.is_some()];
    if given.iter().filter(|given| **given).count() > 1 {
        return Err(Wrong(format!("{what} is given in more than one way")));
    }
    if !given.contains(&true) {
        return Ok(None);
    }
    let paths = path.into_iter().chain(paths.into_iter().flatten()).map(|path| Ok(Source::Path(path)));
    let data = data.into_iter().chain(datas.into_iter().flatten()).map(|data| {
        let decoded =
            from_base64(&data).map_err(|error| Wrong(format!("{what} is not in base64: {error}")))?;
        Ok(Source::Data(decoded))
    });
    let all: Vec<Source> = paths.chain(data).collect::<Result<_>>()?;
    match all.is_empty() {
        true => Err(Wrong(format!("{what} is an empty list"))),
        false => Ok(Some(all)),
    }
}

fn signed_by(raw: SignedBy) -> Result<Demand> {
    let known = ["GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs"];
    if !known.contains(&raw.key_type.as_str()) {
        return Err(Wrong(format!("`{}` is no type of keys", raw.key_type.escape_debug())));
    }
    let keys = one_of("the key", (raw.key_path, raw.key_paths), (raw.key_data, None))?;
    let keys = keys.ok_or_else(|| Wrong("it has no key (keyPath, keyPaths or keyData)".into()))?;
    let identity = identity(raw.signed_identity.as_deref())?;
    Ok(match raw.key_type.as_str() {
        "GPGKeys" => Demand::SignedBy { keys, identity },
        other => Demand::Never(format!("signedBy with {other}")),
    })
}

fn sigstore_signed(raw: SigstoreSigned) -> Result<Demand> {
    let keys = one_of("the key", (raw.key_path, raw.key_paths), (raw.key_data, raw.key_datas))?;
    let rekor = one_of(
        "the key of Rekor",
        (raw.rekor_public_key_path, raw.rekor_public_key_paths),
        (raw.rekor_public_key_data, raw.rekor_public_key_datas),
    )?;
    let (fulcio, pki) = (raw.fulcio.is_some(), raw.pki.is_some());
    let by = match (keys, raw.fulcio, raw.pki) {
        (Some(keys), None, None) => By::Keys(keys),
        (None, Some(fulcio), None) => By::Fulcio {
            ca: one_of("the CA of fulcio", (fulcio.ca_path, None), (fulcio.ca_data, None))?
                .ok_or_else(|| Wrong("`fulcio` has no CA (caPath or caData)".into()))?,
            issuer: fulcio.oidc_issuer,
            subject: Named::Email(fulcio.subject_email),
        },
        (None, None, Some(pki)) => {
            if pki.subject_email.is_none() && pki.subject_hostname.is_none() {
                return Err(Wrong("`pki` names nobody (subjectEmail or subjectHostname)".into()));
            }
            By::Pki {
                roots: one_of("the root of pki", (pki.ca_roots_path, None), (pki.ca_roots_data, None))?
                    .ok_or_else(|| Wrong("`pki` has no root (caRootsPath or caRootsData)".into()))?,
                between: one_of(
                    "the intermediate of pki",
                    (pki.ca_intermediates_path, None),
                    (pki.ca_intermediates_data, None),
                )?
                .unwrap_or_default(),
                email: pki.subject_email,
                hostname: pki.subject_hostname,
            }
        }
        _ => return Err(Wrong("it needs exactly one of a key, fulcio and pki".into())),
    };
    if fulcio && rekor.is_none() {
        return Err(Wrong("`fulcio` needs the key of Rekor, which vouches for the time".into()));
    }
    if pki && rekor.is_some() {
        return Err(Wrong("`pki` cannot be had together with a key of Rekor".into()));
    }
    let identity = identity(raw.signed_identity.as_deref())?;
    Ok(Demand::Sigstore { by, rekor: rekor.unwrap_or_default(), timestamp: Vec::new(), identity })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawIdentity {
    r#type: String,
    docker_reference: Option<String>,
    docker_repository: Option<String>,
    prefix: Option<String>,
    signed_prefix: Option<String>,
}

fn identity(raw: Option<&RawValue>) -> Result<Identity> {
    let Some(raw) = raw else { return Ok(Identity::default()) };
    let RawIdentity { r#type, docker_reference, docker_repository, prefix, signed_prefix } =
        read(raw.get()).map_err(about("`signedIdentity`"))?;
    let name = |text: String| Name::parse(&text).map_err(about("`signedIdentity`"));
    let given = (docker_reference, docker_repository, prefix, signed_prefix);
    match (r#type.as_str(), given) {
        ("matchExact", (None, None, None, None)) => Ok(Identity::Exact),
        ("matchRepoDigestOrExact", (None, None, None, None)) => Ok(Identity::RepoDigestOrExact),
        ("matchRepository", (None, None, None, None)) => Ok(Identity::Repository),
        ("exactReference", (Some(reference), None, None, None)) => {
            let name = name(reference)?;
            match name.is_name_only() {
                true => Err(Wrong(format!("`signedIdentity`: {name} has no tag and no digest"))),
                false => Ok(Identity::ExactReference(name)),
            }
        }
        ("exactRepository", (None, Some(repository), None, None)) => {
            Ok(Identity::ExactRepository(name(repository)?))
        }
        ("remapIdentity", (None, None, Some(prefix), Some(signed))) => {
            for part in [&prefix, &signed] {
                let host_only = !part.contains('/') && Name::parse(&format!("{part}/x")).is_ok();
                if !host_only && Name::parse(part).is_ok_and(|name| !name.is_name_only()) {
                    return Err(Wrong(format!(
                        "`signedIdentity`: the prefix `{part}` has a tag or a digest"
                    )));
                }
            }
            Ok(Identity::Remap { prefix, signed })
        }
        _ => Err(Wrong(format!(
            "`signedIdentity` of the type `{}` is incomplete or unknown",
            r#type.escape_debug()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(default: &str) -> Result<Policy> {
        Policy::parse(format!(r#"{{"default":[{default}]}}"#).as_bytes())
    }

    #[test]
    fn a_policy_is_read_strictly() {
        let key = r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k""#;
        let sigstore = r#"{"type":"sigstoreSigned","#;
        for right in [
            r#"{"type":"reject"}"#,
            &format!("{key}}}"),
            &format!(r#"{key},"signedIdentity":{{"type":"matchRepository"}}}}"#),
            &format!(r#"{sigstore}"keyPath":"/k"}}"#),
            &format!(r#"{sigstore}"keyData":"AAAA","rekorPublicKeyPath":"/r"}}"#),
            &format!(
                r#"{sigstore}"fulcio":{{"caPath":"/c","oidcIssuer":"i","subjectEmail":"e"}},"rekorPublicKeyPath":"/r"}}"#
            ),
            &format!(r#"{sigstore}"pki":{{"caRootsPath":"/c","subjectHostname":"h"}}}}"#),
            r#"{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}"#,
        ] {
            assert!(policy(right).is_ok(), "{right}: {:?}", policy(right));
        }
        for wrong in [
            "",
            r#"{"type":"rejects"}"#,
            r#"{"type":"reject","x":1}"#,
            r#"{"type":"reject","type":"insecureAcceptAnything"}"#,
            &format!(r#"{key},"keyData":"AAAA"}}"#),
            &format!(r#"{key},"keyType":"GPGKeys"}}"#),
            r#"{"type":"signedBy","keyType":"GPGKeys"}"#,
            r#"{"type":"signedBy","keyType":"GPGKeys","keyPaths":[]}"#,
            r#"{"type":"signedBy","keyType":"GPGKeys","keyData":"%"}"#,
            r#"{"type":"signedBy","keyType":"Keys","keyPath":"/k"}"#,
            &format!(r#"{key},"signedIdentity":{{"type":"exactReference","dockerReference":"a"}}}}"#),
            &format!(r#"{key},"signedIdentity":{{"type":"matchExact","prefix":"a"}}}}"#),
            &format!(r#"{sigstore}"keyPath":"/k","pki":{{"caRootsPath":"/c","subjectHostname":"h"}}}}"#),
            &format!(r#"{sigstore}"pki":{{"caRootsPath":"/c"}}}}"#),
            &format!(r#"{sigstore}"fulcio":{{"caPath":"/c","oidcIssuer":"i","subjectEmail":"e"}}}}"#),
        ] {
            assert!(policy(wrong).is_err(), "{wrong}");
        }
        for wrong in [
            r#"{}"#,
            r#"{"default":[]}"#,
            r#"{"default":[{"type":"reject"}],"transport":{}}"#,
            r#"{"default":[{"type":"reject"}],"default":[{"type":"reject"}]}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"docker":{},"docker":{}}}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a":[]}}}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"oci":{"/":[{"type":"reject"}]}}}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"oci":{"a":[{"type":"reject"}]}}}"#,
            r#"{"default":[{"type":"reject"}]} x"#,
            r#"// no comments
            {"default":[{"type":"reject"}]}"#,
        ] {
            assert!(Policy::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_most_specific_scope_decides() {
        let policy = Policy::parse(
            br#"{"default":[{"type":"reject"}],"transports":{"docker":{
                "docker.io/library":[{"type":"insecureAcceptAnything"}],
                "docker.io/library/nginx:1":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}],
                "*.example.com":[{"type":"sigstoreSigned","keyPath":"/k"}],
                "r.example.com/open":[{"type":"insecureAcceptAnything"}]},
                "dir":{"":[{"type":"insecureAcceptAnything"}]},"of-tomorrow":{"x":[{"type":"reject"}]}}}"#,
        )
        .unwrap();
        for (image, kind) in [
            (Image::docker("nginx").unwrap(), "Anything"),
            (Image::docker("docker.io/library/nginx:1").unwrap(), "SignedBy"),
            (Image::docker("quay.io/app").unwrap(), "Reject"),
            (Image::docker("r.example.com/app:1").unwrap(), "Sigstore"),
            (Image::docker("r.example.com/open/app:1").unwrap(), "Anything"),
            (Image::docker("r.example.com/opener:1").unwrap(), "Sigstore"),
            (Image::at_path("dir", "/tmp/x".as_ref()), "Anything"),
            (Image::at_path("oci", "/tmp/x".as_ref()), "Reject"),
        ] {
            let demands = format!("{:?}", policy.requirements(&image));
            assert!(demands.starts_with(&format!("[{kind}")), "{image:?}: {demands}");
        }
    }
}
