//! What verifiers want to see beside signatures: reports of scanners, and what is known of an image.

use super::gather::referrers_of;
use crate::{
    Error, Kind, Repository, Result, contract::Evidence, error::Context, files::regular, place::OpenReference,
};
use dray_core::{Children, Descriptor, Digest, ImageConfig, Manifest, NESTING};
use std::{
    io::{ErrorKind, Read},
    path::Path,
};

/// The kind of evidence that is a report of a scanner.
const SCAN: &str = "dray.scan";
/// The kind of evidence that says what is known of an image.
const FACTS: &str = "dray.facts";
/// The largest report in bytes.
const REPORT: u64 = 32 << 20;
/// The most images of an index whose reports are looked for.
const IMAGES: usize = 64;

/// Whether a verifier that wants these types judges by other things than signatures, which are not looked for then.
pub(super) fn are_wanted(types: &[String]) -> bool {
    types.iter().any(|wanted| wanted == SCAN || wanted == FACTS)
}

/// All evidence of these types on an image. Reports on an index are reports on all of its images; if there are none, those
/// on its images are looked for, and say of which image they are (annotation `image`).
pub(super) async fn evidence(
    source: &OpenReference,
    reference: Option<&str>,
    manifest: &Manifest,
    types: &[String],
) -> Result<Vec<Evidence>> {
    let mut found = Vec::new();
    if types.iter().any(|wanted| wanted == FACTS) {
        found.push(facts(source, reference, manifest).await?);
    }
    if !types.iter().any(|wanted| wanted == SCAN) {
        return Ok(found);
    }
    let top = reports(source, &manifest.descriptor.digest, types).await?;
    let Children::Index(children) = &manifest.children else { return Ok([found, top].concat()) };
    if !top.is_empty() {
        return Ok([found, top].concat());
    }
    if children.iter().filter(is_real).count() > IMAGES {
        let text = format!("find reports on the images of an index: it has more than {IMAGES}");
        return Err(Error::new(Kind::Refused, text).help("a report on the index itself covers all of them"));
    }
    for child in children.iter().filter(is_real) {
        for mut report in reports(source, &child.digest, types).await? {
            report.annotations.push(("image".into(), child.digest.to_string()));
            found.push(report);
        }
    }
    Ok(found)
}

/// The reports on one image: in the folder of reports, from the registry, and among its referrers.
async fn reports(source: &OpenReference, digest: &Digest, types: &[String]) -> Result<Vec<Evidence>> {
    let doing = || format!("find reports on {}", digest.short());
    let mut found = Vec::new();
    if let Some(folder) = &source.place().local.scan_reports {
        found.extend(in_folder(folder, digest).context(doing)?);
    }
    if let Some(report) = source.repository.scan_report(digest).await.context(doing)? {
        let annotations = vec![("mediaType".to_owned(), report.media_type)];
        found.push(Evidence { kind: SCAN.into(), content: report.content, annotations });
    }
    if source.place().is_many().await? {
        found.extend(referrers_of(&source.repository, digest, types).await.context(doing)?);
    }
    Ok(found)
}

/// The report in a folder: a file that is named by the digest of the image.
fn in_folder(folder: &Path, digest: &Digest) -> Result<Option<Evidence>> {
    let (algorithm, hex) = (digest.algorithm_name(), digest.hex());
    for name in [format!("{algorithm}-{hex}.json"), format!("{algorithm}:{hex}.json"), format!("{hex}.json")]
    {
        let path = folder.join(name);
        let failed = |error| Error::io(format!("read {}", path.display()), error);
        let file = match regular::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            file => file.map_err(failed)?,
        };
        let mut content = Vec::new();
        file.take(REPORT + 1).read_to_end(&mut content).map_err(failed)?;
        if content.len() as u64 > REPORT {
            let text = format!("read {}: it has more than {} MiB", path.display(), REPORT >> 20);
            return Err(Error::invalid(text));
        }
        return Ok(Some(Evidence { kind: SCAN.into(), content, annotations: Vec::new() }));
    }
    Ok(None)
}

/// When an image was created and when its tag was pushed, as far as that is known.
async fn facts(source: &OpenReference, reference: Option<&str>, manifest: &Manifest) -> Result<Evidence> {
    let digest = &manifest.descriptor.digest;
    let doing = || format!("find out how old {} is", digest.short());
    let pushed = match reference.or(source.reference.as_deref()) {
        Some(tag) => source.repository.known_of(tag).await.context(doing)?,
        None => None,
    };
    // What was known may be of an image that the tag named before.
    let pushed = pushed.filter(|known| known.digest.as_ref().is_none_or(|named| named == digest));
    let pushed = pushed.and_then(|known| known.known.pushed);
    let created = match pushed {
        Some(_) => None,
        None => match created(&source.repository, manifest.clone()).await {
            Ok(created) => created,
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Unsupported | Kind::Corrupt) => None,
            Err(error) => return Err(error).context(doing),
        },
    };
    let content = serde_json::json!({ "pushed": pushed, "created": created }).to_string().into_bytes();
    Ok(Evidence { kind: FACTS.into(), content, annotations: Vec::new() })
}

/// When an image was created by its own word, in milliseconds since 1970. Of an index, its first image counts.
async fn created(repository: &Repository, mut image: Manifest) -> Result<Option<u64>> {
    for _ in 0..NESTING {
        let first = match &image.children {
            Children::Index(children) => children.iter().find(is_real).cloned(),
            Children::Image { config, .. } => {
                let config = repository.small_blob(config).await?;
                let config: ImageConfig = serde_json::from_slice(&config).unwrap_or_default();
                let created = config.created.and_then(|text| text.parse::<jiff::Timestamp>().ok());
                let created = created.and_then(|created| u64::try_from(created.as_millisecond()).ok());
                return Ok(created.filter(|created| *created > 0));
            }
            Children::Schema1(_) => None,
        };
        let Some(first) = first else { break };
        image = repository.manifest_of(&first).await?;
    }
    Ok(None)
}

/// Whether a child of an index is an image, and no attestation.
fn is_real(child: &&Descriptor) -> bool {
    child.platform.as_ref().is_none_or(|platform| platform.os != "unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_in_a_folder_is_named_by_the_digest_of_its_image() {
        let folder = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"image");
        assert_eq!(in_folder(folder.path(), &digest).unwrap(), None);
        for name in [format!("{}.json", digest.hex()), format!("sha256-{}.json", digest.hex())] {
            std::fs::write(folder.path().join(&name), name.as_bytes()).unwrap();
            let found = in_folder(folder.path(), &digest).unwrap().unwrap();
            assert_eq!((found.kind.as_str(), found.content), (SCAN, name.into_bytes()));
        }
        std::fs::create_dir(folder.path().join("x")).unwrap();
        assert_eq!(in_folder(&folder.path().join("none"), &digest).unwrap(), None);
    }
}
