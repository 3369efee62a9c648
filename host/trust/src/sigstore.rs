//! Who made a sigstore signature, and when: by keys, by certificates of Fulcio or of a public key infrastructure, with what
//! logs and authorities say of the time. For which image it is decides the requirement.

use crate::{
    Payload, Result, Wrong, about, bundle,
    certificate::{Leaf, Trusted, all_from_pem},
    from_base64,
    publickey::PublicKey,
    rekor,
    requirement::{By, Named},
    signature::{Attached, CERTIFICATE, CHAIN, LOG, SIGNATURE_ANNOTATION, SIMPLE_SIGNING, TIMESTAMP},
    timestamp::Authorities,
};
use dray_core::Digest;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// The keys and certificates that are trusted.
pub(crate) enum Anchors {
    Keys(Vec<PublicKey>),
    Fulcio(Trusted),
    Pki(Trusted, Vec<CertificateDer<'static>>),
}

/// What a signature is checked with.
pub(crate) struct Sigstore {
    pub anchors: Anchors,
    /// The keys of logs. If there are some, one of these logs must hold the signature.
    pub logs: Vec<PublicKey>,
    /// Authorities whose signed times count. If there are some, one of them must have seen the signature.
    pub authorities: Option<Authorities>,
}

/// The annotation with a signed time.
#[derive(Deserialize)]
struct SignedTime {
    #[serde(rename = "SignedRFC3161Timestamp")]
    answer: String,
}

impl Sigstore {
    /// Checks a signature that is attached by a tag. Returns by whom it is, and what was signed.
    pub fn attached(&self, by: &By, now: u64, attached: &Attached) -> Result<(String, Payload)> {
        if attached.media_type != SIMPLE_SIGNING {
            return Err(Wrong(format!("it is of the unknown type `{}`", attached.media_type.escape_debug())));
        }
        let annotation = |name: &str| attached.annotations.get(name);
        let signature = annotation(SIGNATURE_ANNOTATION)
            .ok_or_else(|| Wrong("it has a payload and no signature of it".into()))?;
        let signature = from_base64(signature).map_err(about("its signature is not in base64"))?;
        let sha256 = hex::encode(Sha256::digest(&attached.payload));
        let logged = |key: &[u8]| {
            let log = annotation(LOG).ok_or_else(|| Wrong("no log has promised to hold it".into()))?;
            let (body, time) = rekor::promised(log, &self.logs)?;
            rekor::check_hashedrekord(&body, key, &signature, &sha256)?;
            Ok(vec![time])
        };
        let stamped = |authorities: &Authorities| {
            let annotation =
                annotation(TIMESTAMP).ok_or_else(|| Wrong("no authority signed its time".into()))?;
            let unreadable = || about("its signed time cannot be read");
            let SignedTime { answer } = serde_json::from_str(annotation).map_err(unreadable())?;
            let answer = from_base64(&answer).map_err(about("its signed time is not in base64"))?;
            Ok(vec![authorities.time_of(&signature, &answer)?])
        };
        let by = match &self.anchors {
            Anchors::Keys(keys) => {
                let key = keys.iter().find(|key| key.made(&attached.payload, &signature));
                let key = key.ok_or_else(|| Wrong("none of the trusted keys made it".into()))?;
                self.times(key.der(), logged, stamped)?;
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
                if !leaf.key.made(&attached.payload, &signature) {
                    return Err(Wrong("the key of its certificate did not make it".into()));
                }
                let times = self.times(&leaf.der, logged, stamped)?;
                self.certified(by, now, &leaf, between, &times)?
            }
        };
        Ok((by, Payload::cosign(&attached.payload)?))
    }

    /// Checks a bundle about a manifest with its SHA-256 digest. Returns by whom it is, and the names that it gives to the
    /// image.
    pub fn bundle(
        &self,
        by: &By,
        now: u64,
        (manifest, digest): (&[u8], &Digest),
        json: &[u8],
    ) -> Result<(String, Vec<String>)> {
        let read = bundle::Read::parse(json, manifest, digest)?;
        let logged = |key: &[u8]| read.logged(&self.logs, key);
        let stamped = |authorities: &Authorities| read.stamped(authorities);
        let by = match (&self.anchors, &read.leaf) {
            (Anchors::Keys(keys), _) => {
                let key = keys.iter().find(|key| read.made_by(key));
                let key = key.ok_or_else(|| Wrong("none of the trusted keys made it".into()))?;
                self.times(key.der(), logged, stamped)?;
                key.shown()
            }
            (_, Some(leaf)) => {
                if !read.made_by(&leaf.key) {
                    return Err(Wrong("the key of its certificate did not make it".into()));
                }
                let times = self.times(&leaf.der, logged, stamped)?;
                self.certified(by, now, leaf, read.between.clone(), &times)?
            }
            (_, None) => return Err(Wrong("it has no certificate".into())),
        };
        Ok((by, read.names().to_vec()))
    }

    /// What trusted logs and authorities say of the time, in seconds since 1970. Each kind that is demanded must say
    /// something; a log with a proof alone says no time.
    fn times(
        &self,
        key: &[u8],
        logged: impl Fn(&[u8]) -> Result<Vec<u64>>,
        stamped: impl Fn(&Authorities) -> Result<Vec<u64>>,
    ) -> Result<Vec<u64>> {
        let mut times = match self.logs.is_empty() {
            true => Vec::new(),
            false => logged(key)?,
        };
        if let Some(authorities) = &self.authorities {
            times.extend(stamped(authorities)?);
        }
        Ok(times)
    }

    /// Checks the certificate of a signature. Returns for whom it is.
    fn certified(
        &self,
        by: &By,
        now: u64,
        leaf: &Leaf,
        mut between: Vec<CertificateDer<'static>>,
        times: &[u64],
    ) -> Result<String> {
        match (by, &self.anchors) {
            (By::Fulcio { issuer, subject, .. }, Anchors::Fulcio(trusted)) => {
                if times.is_empty() {
                    return Err(Wrong("nothing that is trusted says when it was made".into()));
                }
                // The certificate lives for minutes only, so it must hold at each time that is vouched for.
                for time in times {
                    leaf.check(trusted, &between, *time, false)?;
                }
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
}

fn list(names: &[String]) -> String {
    match names {
        [] => "somebody whom its certificate does not name in this way".into(),
        names => names.join(", "),
    }
}
