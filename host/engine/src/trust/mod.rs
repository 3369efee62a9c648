//! Signatures: what this machine and a rule demand of an image, where its signatures are, and how new ones are attached.
//! What a signature means is decided in `dray_trust`; here is only what touches places.

mod attach;
mod demand;
mod gates;
mod gather;
mod lookaside;
mod verify;

use crate::{
    Error, Kind, Result,
    contract::{Judgement, Verifier},
    error::Context,
    files::regular,
    now,
    place::{OpenReference, Repository},
};
pub use attach::{attach, check_attachable};
pub use demand::signed;
use dray_core::{Descriptor, Digest, Manifest};
use dray_trust::{Accepted, Image, Kinds, Name, Requirement, Subject, Trust, Verdict};
use std::{
    fs,
    io::{self, Read},
    path::Path,
    sync::Arc,
};
pub use verify::{
    FoundSignature, forget_signatures, is_demanded, kept_signatures, manifests_of, signatures, verify,
};

/// The largest key file in bytes.
const KEY_FILE: u64 = 8 << 20;

/// What a rule or a command demands of its images.
#[derive(Clone)]
pub enum Demand {
    /// That they are signed.
    Signed(Arc<Requirement>),
    /// What a verifier judges.
    By(Arc<dyn Verifier>),
}

impl From<Requirement> for Demand {
    fn from(requirement: Requirement) -> Self {
        Demand::Signed(Arc::new(requirement))
    }
}

/// A demand that must be fulfilled, and who makes it.
struct Due {
    demand: Demand,
    by: String,
}

/// Signatures of an image, and what was found out about them.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// The digest of the manifest.
    pub digest: Option<Digest>,
    /// By whom it is signed, one text for each demand.
    pub by: Vec<String>,
}

/// Reads a key file that a policy names: a regular file of at most 8 MiB.
///
/// # Errors
/// Fails if it is something else, or if it cannot be read.
pub fn read_key(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    regular::open(path)?.take(KEY_FILE + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > KEY_FILE {
        true => Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long for a key")),
        false => Ok(bytes),
    }
}

/// Fails if a key that demands name cannot be read, or if a verifier does not take its configuration.
///
/// # Errors
/// The first thing that is wrong.
pub async fn check_demands(demands: &[Demand]) -> Result<()> {
    for demand in demands {
        match demand {
            Demand::Signed(requirement) => requirement
                .check_keys(&read_key)
                .map_err(|wrong| Error::invalid(format!("read a key: {wrong}")))?,
            Demand::By(verifier) => drop(verifier.wants().await?),
        }
    }
    Ok(())
}

/// An image as signature policies see it. Its name is the one that the user wrote, whatever mirror it is read from.
pub(crate) fn image_of(source: &OpenReference, reference: Option<&str>) -> Result<Image> {
    image_in(source.named(), source, reference)
}

/// The image where it is read from, which may be a mirror. Its signatures are kept beneath this name, as containers/image
/// has it.
fn image_read(source: &OpenReference) -> Result<Image> {
    image_in(&source.repository, source, source.reference.as_deref())
}

fn image_in(named: &Repository, source: &OpenReference, reference: Option<&str>) -> Result<Image> {
    let (place, repository) = (&named.place, &named.name);
    let scheme = place.scheme();
    let sign = |reference: &str| if reference.contains(':') { '@' } else { ':' };
    match scheme {
        "docker" | "docker-daemon" => {
            let mut text = match scheme {
                "docker" => format!("{}/{repository}", place.location),
                _ => repository.clone(),
            };
            if let Some(reference) = reference {
                text = format!("{text}{}{reference}", sign(reference));
            }
            let doing = || format!("check the signatures of {}", source.written);
            let wrong = |wrong: dray_trust::Wrong| Error::invalid(wrong.to_string());
            match scheme {
                "docker" => Image::docker(&text).map_err(wrong).context(doing),
                // An image that is named by its ID is in no scope but the whole transport.
                _ => Ok(Name::parse(&text)
                    .map_or_else(|_| Image::of_transport(scheme), |name| Image::named(scheme, name))),
            }
        }
        "containers-storage" => {
            let mut image = Image::of_transport(scheme);
            if let Some(root) =
                place.path().or_else(|| place.local.known.get(scheme).map(std::path::PathBuf::as_path))
            {
                let name = match reference {
                    Some(reference) => format!("{repository}{}{reference}", sign(reference)),
                    None => repository.clone(),
                };
                image.scopes = dray_trust::store_scopes(root, &name);
            }
            Ok(image)
        }
        _ => Ok(match place.path() {
            Some(path) if scheme != "docker-archive" && scheme != "tarball" => {
                Image::at_path(scheme, &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()))
            }
            _ => Image::of_transport(scheme),
        }),
    }
}

/// Judges images by what a machine says about signatures.
#[derive(Clone, Copy)]
pub(crate) struct Judge<'a>(pub &'a Trust);

impl Judge<'_> {
    /// What must be fulfilled before an image may be copied. `own` are the demands of a rule or a command, and `by` is who
    /// makes them.
    fn demands(&self, image: &Image, (by, own): (&str, &[Demand])) -> Vec<Due> {
        let anything = Requirement::anything();
        let system = self.0.policy.iter().flat_map(|(policy, path)| {
            let demanded = policy.requirements(image).iter().filter(|requirement| ***requirement != anything);
            demanded.map(|requirement| Due {
                demand: Demand::Signed(requirement.clone()),
                by: path.display().to_string(),
            })
        });
        let own = own.iter().map(|demand| Due { demand: demand.clone(), by: by.into() });
        let mut all: Vec<Due> = system.chain(own).collect();
        if self.0.always && all.is_empty() {
            let by = "--require-signed, with a policy that demands no signature,";
            all.push(Due { demand: Requirement::rejecting().into(), by: by.into() });
        }
        all
    }

    /// Fails unless the signatures of an image fulfil what the machine and the rule demand. The manifest that the tag
    /// names must be signed; if it is `one` image that was chosen in an index, its own signatures count as well. `own` are the demands beside the machine's, with who makes them. A manifest that had to
    /// be read is returned in `manifest`.
    pub(crate) async fn check(
        &self,
        source: &OpenReference,
        reference: Option<&str>,
        (named, written, one): (&Digest, &Descriptor, bool),
        manifest: &mut Option<Manifest>,
        own: (&str, &[Demand]),
    ) -> Result<Verified> {
        let image = image_of(source, reference)?;
        let demands = self.demands(&image, own);
        if demands.is_empty() {
            if let Some((_, path)) = &self.0.policy {
                let shown = source.endpoint(reference).display;
                tracing::info!("{} demands no signature of {shown}", path.display());
            }
            return Ok(Verified::default());
        }
        let shown = source.endpoint(reference).display;
        let top = match manifest {
            Some(read) if read.descriptor.digest == *named => read.clone(),
            _ if written.digest == *named => {
                let read = source
                    .repository
                    .manifest_named(reference.filter(|reference| !reference.contains(':')), written)
                    .await;
                manifest.insert(read.context(|| format!("check the signatures of {shown}"))?).clone()
            }
            _ => source
                .repository
                .manifest(Some(&named.to_string()))
                .await
                .context(|| format!("check the signatures of {shown}"))?,
        };
        let first = self.judged((source, reference), &image, &top, &demands, &shown).await;
        let error = match first {
            Ok(by) => return Ok(Verified { digest: Some(named.clone()), by }),
            Err(error) => error,
        };
        // What dray makes itself, such as a smaller index, has no signatures.
        if !one || written.digest == *named {
            return Err(error);
        }
        let chosen = match manifest {
            Some(read) => read.clone(),
            None => manifest.insert(source.repository.manifest_of(written).await?).clone(),
        };
        match self.judged((source, reference), &image, &chosen, &demands, &shown).await {
            Ok(by) => Ok(Verified { digest: Some(written.digest.clone()), by }),
            Err(_) => Err(error),
        }
    }

    /// Judges one manifest. Returns by whom it is signed.
    async fn judged(
        &self,
        (source, reference): (&OpenReference, Option<&str>),
        image: &Image,
        manifest: &Manifest,
        demands: &[Due],
        shown: &str,
    ) -> Result<Vec<String>> {
        let doing = || format!("check the signatures of {shown}");
        let mut gathered = gather::Gathered::new(source, &self.0.lookasides, manifest)?;
        let now = u64::try_from(now()).unwrap_or(0);
        let subject = Subject { image, manifest: &manifest.body, now };
        let mut by = Vec::new();
        for Due { demand, by: who } in demands {
            let verdict = match demand {
                Demand::Signed(requirement) => loop {
                    let verdict = requirement.judge(&subject, gathered.found(), &read_key);
                    let kinds = requirement.kinds();
                    if verdict.accepted() || !gathered.more(kinds).await.context(doing)? {
                        break verdict;
                    }
                },
                Demand::By(verifier) => {
                    let wanted = verifier.wants().await.context(doing)?;
                    let evidence = match gates::are_wanted(&wanted) {
                        true => gates::evidence(source, reference, manifest, &wanted).await.context(doing)?,
                        false => {
                            let all = Kinds { simple: true, sigstore: true };
                            while gathered.more(all).await.context(doing)? {}
                            gathered.evidence(&wanted).await.context(doing)?
                        }
                    };
                    let name = image.name.as_ref().map(ToString::to_string);
                    match verifier.verify(name.as_deref(), manifest, evidence).await.context(doing)? {
                        Judgement::Accepted(by) => Verdict::Signed(Accepted { by, reference: None }),
                        Judgement::Refused(why) if why.is_empty() => {
                            Verdict::Refused(vec![format!("{} refuses it", verifier.name())])
                        }
                        Judgement::Refused(why) => Verdict::Refused(why),
                    }
                }
            };
            match verdict {
                Verdict::NotNeeded => {}
                Verdict::Signed(accepted) => {
                    tracing::info!("{shown} is signed by {}, as {who} demands", accepted.by);
                    by.push(accepted.by);
                }
                Verdict::Refused(why) => {
                    let (what, help) = match demand {
                        Demand::Signed(_) => (
                            "a signature",
                            "nothing of it was published; `dray verify` says what signatures it has",
                        ),
                        Demand::By(verifier) => (verifier.name(), "nothing of it was published"),
                    };
                    let text = format!("trust {shown}: {}", refusal(who, what, manifest, &why));
                    return Err(Error::new(Kind::Refused, text).help(help));
                }
            }
        }
        Ok(by)
    }
}

/// Why an image is not copied, in words.
fn refusal(by: &str, what: &str, manifest: &Manifest, why: &[String]) -> String {
    let digest = manifest.descriptor.digest.short();
    match why {
        [one] if one == "the policy rejects it" => format!("{by} rejects it"),
        [one] => format!("{by} demands {what} of {digest}: {one}"),
        many if what == "a signature" => {
            format!("{by} demands a signature of {digest}, and of its {}: {}", many.len(), many.join("; "))
        }
        many => format!("{by} demands {what} of {digest}: {}", many.join("; ")),
    }
}
