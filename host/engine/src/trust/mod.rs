//! Signatures: what this machine and a rule demand of an image, where its signatures are, and how new ones are attached.
//! What a signature means is decided in `dray_trust`; here is only what touches places.

mod attach;
mod demand;
mod gather;
mod lookaside;
mod verify;

use crate::{Error, Kind, Result, error::Context, journal, place::OpenReference};
pub use attach::{attach, check_attachable};
pub use demand::signed;
use dray_core::{Descriptor, Digest, Manifest};
use dray_trust::{Image, Name, Requirement, Subject, Trust, Verdict};
use std::{
    fs,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, OnceLock},
};
pub use verify::{FoundSignature, is_demanded, kept_signatures, manifests_of, signatures, verify};

/// The largest key file in bytes.
const KEY_FILE: u64 = 8 << 20;

/// A demand, and who makes it.
struct Demand<'a> {
    requirement: &'a Arc<Requirement>,
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

/// Rejects what nothing is demanded of, where everything must be signed.
static NOTHING: OnceLock<Arc<Requirement>> = OnceLock::new();

/// Reads a key file that a policy names.
fn read_key(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a FIFO would wait for somebody who writes to it.
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(KEY_FILE + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > KEY_FILE {
        true => Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long for a key")),
        false => Ok(bytes),
    }
}

/// Fails if a key that requirements name cannot be read.
///
/// # Errors
/// The first thing that is wrong with a key.
pub fn check_keys(requirements: &[Arc<Requirement>]) -> Result<()> {
    for requirement in requirements {
        requirement.check_keys(&read_key).map_err(|wrong| Error::invalid(format!("read a key: {wrong}")))?;
    }
    Ok(())
}

/// An image as signature policies see it. Its name is the one that the user wrote, whatever mirror it is read from.
pub(crate) fn image_of(source: &OpenReference, reference: Option<&str>) -> Result<Image> {
    let named = source.named();
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
    /// What must be fulfilled before an image may be copied.
    fn demands<'a>(&'a self, image: &Image, (by, own): (&str, &'a [Arc<Requirement>])) -> Vec<Demand<'a>> {
        let system = self.0.policy.iter().flat_map(|(policy, path)| {
            policy
                .requirements(image)
                .iter()
                .map(|requirement| Demand { requirement, by: path.display().to_string() })
        });
        let own = own.iter().map(|requirement| Demand { requirement, by: by.into() });
        let anything = Requirement::anything();
        let mut all: Vec<Demand<'a>> =
            system.chain(own).filter(|demand| **demand.requirement != anything).collect();
        if self.0.always && all.is_empty() {
            let requirement = NOTHING.get_or_init(|| Arc::new(Requirement::rejecting()));
            all.push(Demand {
                requirement,
                by: "--require-signed, with a policy that demands no signature,".into(),
            });
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
        own: (&str, &[Arc<Requirement>]),
    ) -> Result<Verified> {
        let image = image_of(source, reference)?;
        let demands = self.demands(&image, own);
        if demands.is_empty() {
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
        let first = self.judged(source, &image, &top, &demands, &shown).await;
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
        match self.judged(source, &image, &chosen, &demands, &shown).await {
            Ok(by) => Ok(Verified { digest: Some(written.digest.clone()), by }),
            Err(_) => Err(error),
        }
    }

    /// Judges one manifest. Returns by whom it is signed.
    async fn judged(
        &self,
        source: &OpenReference,
        image: &Image,
        manifest: &Manifest,
        demands: &[Demand<'_>],
        shown: &str,
    ) -> Result<Vec<String>> {
        let doing = || format!("check the signatures of {shown}");
        let mut gathered = gather::Gathered::new(source, self.0.lookasides.of(image), image, manifest);
        let now = u64::try_from(journal::now()).unwrap_or(0);
        let subject = Subject { image, manifest: &manifest.body, now };
        let mut by = Vec::new();
        for demand in demands {
            let mut verdict;
            loop {
                verdict = demand.requirement.judge(&subject, gathered.found(), &read_key);
                let more =
                    !verdict.accepted() && gathered.more(demand.requirement.kinds()).await.context(doing)?;
                if !more {
                    break;
                }
            }
            match verdict {
                Verdict::NotNeeded => {}
                Verdict::Signed(accepted) => {
                    tracing::info!("{shown} is signed by {}, as {} demands", accepted.by, demand.by);
                    by.push(accepted.by);
                }
                Verdict::Refused(why) => {
                    let text = format!("trust {shown}: {}", refusal(&demand.by, manifest, &why));
                    return Err(Error::new(Kind::Denied, text)
                        .help("nothing of it was published; `dray verify` says what signatures it has"));
                }
            }
        }
        Ok(by)
    }
}

/// Why an image is not copied, in words.
fn refusal(by: &str, manifest: &Manifest, why: &[String]) -> String {
    let digest = manifest.descriptor.digest.short();
    match why {
        [one] if one == "the policy rejects it" => format!("{by} rejects it"),
        [one] => format!("{by} demands a signature of {digest}: {one}"),
        many => {
            format!("{by} demands a signature of {digest}, and of its {}: {}", many.len(), many.join("; "))
        }
    }
}
