//! Plans which manifests without a tag are deleted.

use super::{bind::BoundRetain, item::PlannedDeletion};
use crate::{
    Error, Kind, Result,
    contract::UntaggedManifest,
    error::Context,
    limits::MANIFESTS,
    now,
    place::{OpenReference, Survey},
};
use dray_core::{Children, Deletion, Digest, Gone, Manifest, NESTING, may_prune};
use futures_util::{StreamExt, stream};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// Number of manifests that are read at once.
const AT_ONCE: usize = 16;

/// What is known of a manifest that no tag names.
struct Bare {
    listed: UntaggedManifest,
    /// `None` means that it is gone.
    manifest: Option<Manifest>,
}

/// The manifests without a tag whose push is longer ago than `time`, and that nothing else needs: no index contains them, and
/// they are not attached to another image. `tags` is the number of tags of the repository. Fails if the registry does not list
/// them, or if a guard forbids to delete so many.
pub(super) async fn due(
    retain: &BoundRetain,
    at: &OpenReference,
    time: Duration,
    tags: usize,
) -> Result<Vec<PlannedDeletion>> {
    let listed = at.repository.untagged().await?;
    if listed.is_empty() {
        return Ok(Vec::new());
    }
    if listed.len() > MANIFESTS {
        let text = format!(
            "look into what has no tag: there are {}, and at most {MANIFESTS} are read",
            listed.len()
        );
        return Err(Error::invalid(text).help("let the registry's own garbage collection make a beginning"));
    }
    let read = stream::iter(listed).map(async |listed: UntaggedManifest| {
        let manifest = match at.repository.manifest(Some(&listed.digest.to_string())).await {
            Err(error) if error.kind == Kind::NotFound => None,
            read => Some(read.context(|| format!("see what {} consists of", listed.digest.short()))?),
        };
        Ok(Bare { listed, manifest })
    });
    let all: Vec<Result<Bare>> = read.buffered(AT_ONCE).collect().await;
    let all: Vec<Bare> = all.into_iter().collect::<Result<_>>()?;
    let survey = Survey::of(at).await?;
    let needed = survey.needed(all.iter().map(|bare| &bare.listed.digest));
    let old = i64::try_from(time.as_millis())
        .map_or(i64::MIN, |time| now().saturating_mul(1000).saturating_sub(time));
    let unknown = all.iter().filter(|bare| bare.listed.pushed.is_none()).count();
    if unknown > 0 {
        tracing::warn!(
            "{}: nobody knows when {unknown} of its manifests without a tag were pushed, so they stay (retain `{}`)",
            at.written,
            retain.name
        );
    }
    let free = free(&all, &needed, old);
    let gone =
        Gone { due: free.len(), total: tags + all.len(), listed: tags + all.len(), listed_before: None };
    may_prune(gone, retain.limit).map_err(|_| {
        let text = format!(
            "{} of its {} manifests have no tag and are old, which are more than may go at once",
            gone.due, gone.total
        );
        Error::new(Kind::Conflict, text)
            .help(format!("look at them with --limit {}, which lets them go", gone.due))
    })?;
    Ok(free
        .into_iter()
        .map(|digest| {
            let endpoint = at.endpoint(Some(&digest.to_string()));
            PlannedDeletion {
                deletion: Deletion {
                    rule: retain.name.clone(),
                    source: endpoint.clone(),
                    destination: endpoint,
                    digest,
                    backup: None,
                    unkept: true,
                },
                destination: at.clone(),
                listed: None,
            }
        })
        .collect())
}

/// Decides which manifests go. An index goes before what it contains, so that at no time a part of an image is missing.
fn free(all: &[Bare], needed: &HashSet<Digest>, old: i64) -> Vec<Digest> {
    let children = |bare: &Bare| -> Vec<Digest> {
        match bare.manifest.as_ref().map(|manifest| &manifest.children) {
            Some(Children::Index(children)) => children.iter().map(|child| child.digest.clone()).collect(),
            _ => Vec::new(),
        }
    };
    let is_attached = |bare: &Bare| bare.manifest.as_ref().is_some_and(|manifest| manifest.subject.is_some());
    let is_old = |bare: &Bare| {
        bare.listed.pushed.is_some_and(|pushed| i64::try_from(pushed).is_ok_and(|pushed| pushed < old))
    };
    let mut going: HashSet<&Digest> = all
        .iter()
        .filter(|bare| bare.manifest.is_some() && is_old(bare) && !is_attached(bare))
        .map(|bare| &bare.listed.digest)
        .filter(|digest| !needed.contains(digest))
        .collect();
    // What an index contains that stays, stays, too, down to the last level.
    let contents: HashMap<&Digest, Vec<Digest>> =
        all.iter().map(|bare| (&bare.listed.digest, children(bare))).collect();
    loop {
        let kept: HashSet<&Digest> = contents
            .iter()
            .filter(|(index, _)| !going.contains(*index))
            .flat_map(|(_, children)| children)
            .filter(|child| going.contains(child))
            .collect();
        if kept.is_empty() {
            break;
        }
        going.retain(|digest| !kept.contains(digest));
    }
    // How deep each lies beneath indexes that go. An index that contains itself cannot be made, because its digest would be
    // in it.
    let mut depths: HashMap<&Digest, usize> = going.iter().map(|digest| (*digest, 0)).collect();
    for _ in 0..NESTING {
        let mut deeper = false;
        for (index, children) in &contents {
            let Some(depth) = depths.get(index).copied() else { continue };
            for child in children {
                if let Some(known) = depths.get_mut(child).filter(|known| **known <= depth) {
                    *known = depth + 1;
                    deeper = true;
                }
            }
        }
        if !deeper {
            break;
        }
    }
    let mut free: Vec<Digest> = going.iter().map(|digest| (*digest).clone()).collect();
    free.sort_by_key(|digest| (depths.get(digest).copied(), digest.to_string()));
    free
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_core::media_type;

    fn bare(content: &str, pushed: Option<u64>) -> Bare {
        let body = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":1}},"layers":[]{content}}}"#,
            Digest::of(b"config")
        );
        read(&body, "application/vnd.oci.image.manifest.v1+json", pushed)
    }

    fn index(children: &[&Bare], pushed: Option<u64>) -> Bare {
        let child = |child: &&Bare| {
            let descriptor = &child.manifest.as_ref().unwrap().descriptor;
            format!(
                r#"{{"mediaType":"{}","digest":"{}","size":{}}}"#,
                descriptor.media_type, descriptor.digest, descriptor.size
            )
        };
        let children: Vec<String> = children.iter().map(child).collect();
        let body = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{}]}}"#,
            children.join(",")
        );
        read(&body, "application/vnd.oci.image.index.v1+json", pushed)
    }

    fn read(body: &str, media_type: &str, pushed: Option<u64>) -> Bare {
        assert!(media_type::is_manifest(media_type));
        let raw = crate::contract::RawManifest {
            media_type: media_type.into(),
            body: body.as_bytes().to_vec(),
            signatures: Vec::new(),
        };
        let manifest = raw.read(None).unwrap();
        let digest = manifest.descriptor.digest.clone();
        Bare { listed: UntaggedManifest { digest, pushed }, manifest: Some(manifest) }
    }

    #[test]
    fn only_what_is_old_and_alone_goes() {
        const OLD: i64 = 1_000;
        let (past, recent) = (Some(999), Some(1_000));
        let digest = |bare: &Bare| bare.listed.digest.clone();
        let [alone, young, unknown, tagged] = [
            bare("", past),
            bare(r#","annotations":{"a":"1"}"#, recent),
            bare(r#","annotations":{"a":"2"}"#, None),
            bare(r#","annotations":{"a":"3"}"#, past),
        ];
        let subject = format!(
            r#","subject":{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":1}}"#,
            Digest::of(b"subject")
        );
        let attached = bare(&subject, past);
        let inner = bare(r#","annotations":{"a":"4"}"#, past);
        let nested = index(&[&inner], past);
        let outer = index(&[&nested], recent);
        let part = bare(r#","annotations":{"a":"5"}"#, past);
        let whole = index(&[&part], past);
        let deepest = bare(r#","annotations":{"a":"7"}"#, past);
        let within = index(&[&deepest], past);
        let around = index(&[&within], past);
        let order = [digest(&around), digest(&within), digest(&deepest)];
        assert_eq!(free(&[deepest, within, around], &HashSet::new(), OLD), order);
        let gone = Bare { manifest: None, ..bare(r#","annotations":{"a":"6"}"#, past) };
        let needed = HashSet::from([digest(&tagged)]);
        let mut first = [digest(&whole), digest(&alone)];
        first.sort_by_key(ToString::to_string);
        let then = [digest(&part)];
        let all = [alone, young, unknown, tagged, attached, inner, nested, outer, part, whole, gone];
        // The young index keeps the old one in it, and the image in that.
        assert_eq!(free(&all, &needed, OLD), [&first[..], &then[..]].concat());
    }
}
