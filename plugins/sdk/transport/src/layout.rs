//! `index.json` names the images of a layout (OCI image specification, image layout). Entries of other writers keep all of
//! their fields.

use crate::{
    Error,
    dray::plugin::types::{Descriptor, Manifest, TagEntry},
    exports::dray::plugin::sink::Naming,
    is_digest, last, only_name, split_tag,
    together::NewName,
};
use dray_plugin::{
    serde::{Deserialize, Serialize},
    serde_json::{self, Map, Value, json},
};
use std::collections::{BTreeMap, BTreeSet};

/// The file that says that a place is a layout, and what it holds.
pub const LAYOUT: &str = "oci-layout";
/// The content of [`LAYOUT`].
pub const LAYOUT_CONTENT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The file of the index.
pub const INDEX: &str = "index.json";

const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// The index of a layout.
pub struct Index {
    document: Map<String, Value>,
    entries: Vec<Value>,
}

impl Default for Index {
    fn default() -> Self {
        let mut document = Map::new();
        document.insert("schemaVersion".into(), 2.into());
        document.insert("mediaType".into(), OCI_INDEX.into());
        Index { document, entries: Vec::new() }
    }
}

/// The name of an entry.
fn name(entry: &Value) -> Option<&str> {
    entry.get("annotations")?.get(REF_NAME)?.as_str()
}

/// Splits a name into a repository and a tag. A name without a slash and without a colon is a tag in the
/// layout's own repository.
fn split<'a>(own: &'a str, name: &'a str) -> (&'a str, Option<&'a str>) {
    if name.contains(['/', ':']) { split_tag(name) } else { (own, Some(name)) }
}

/// The name of a tag in a repository.
pub fn join(own: &str, repository: &str, tag: &str) -> String {
    if repository == own { tag.into() } else { format!("{repository}:{tag}") }
}

/// Splits a reference into the path of a layout and what follows it: as in skopeo, the path ends at the first colon, or at the
/// `@` of a digest.
pub fn split_reference(rest: &str) -> (&str, Option<&str>) {
    let digest = rest.find("@sha256:").or_else(|| rest.find("@sha512:"));
    match (digest, rest.split_once(':')) {
        (Some(at), _) => (&rest[..at], Some(&rest[at + 1..])),
        (None, Some((path, name))) => (path, Some(name)),
        (None, None) => (rest, None),
    }
}

/// The repository and the reference that a name means in a layout. The name is a tag, a digest, or a whole image name, which
/// then also gives the repository. With `pattern`, a layout without a name stands for all of its repositories.
pub fn repository_of(own: &str, name: Option<&str>, pattern: bool) -> (String, Option<String>) {
    match name {
        Some(digest) if is_digest(digest) => (own.into(), Some(digest.into())),
        Some(name) => {
            let (repository, tag) = split(own, name);
            (repository.into(), tag.map(str::to_owned))
        }
        None if pattern => ("**".into(), None),
        None => (own.into(), None),
    }
}

/// An entry of a list of tags.
pub fn tag_entry(name: String, descriptor: &Descriptor) -> TagEntry {
    TagEntry {
        digest: Some(descriptor.digest.clone()),
        media_type: Some(descriptor.media_type.clone()),
        size: Some(descriptor.size),
        ..only_name(name)
    }
}

/// Whether two names are those of the same tag: in the layout `app`, `1.0` and `app:1.0` are.
fn is_same(own: &str, one: &str, other: &str) -> bool {
    split(own, one) == split(own, other)
}

/// Whether an entry is of a repository. One without a name is of the layout's own.
fn is_of(own: &str, repository: &str, entry: &Value) -> bool {
    name(entry).map_or(own, |name| split(own, name).0) == repository
}

fn descriptor(entry: &Value) -> Option<Descriptor> {
    Some(Descriptor {
        extra: Vec::new(),
        media_type: entry.get("mediaType")?.as_str()?.into(),
        digest: entry.get("digest")?.as_str()?.into(),
        size: entry.get("size")?.as_u64()?,
        artifact_type: entry.get("artifactType").and_then(Value::as_str).map(str::to_owned),
        annotations: Vec::new(),
    })
}

/// The digest of an entry.
fn digest(entry: &Value) -> Option<&str> {
    entry.get("digest")?.as_str()
}

impl Index {
    /// Takes a tag out. Returns what its entries described. Fails if there is no such tag, or if it does not name what is
    /// expected.
    pub fn remove_tag(
        &mut self,
        location: &str,
        repository: &str,
        tag: &str,
        expected: Option<&str>,
    ) -> Result<Vec<Descriptor>, Error> {
        let own = last(location);
        let wanted = join(own, repository, tag);
        let removed = self.remove(|entry| name(entry).is_some_and(|name| is_same(own, name, &wanted)));
        if removed.is_empty() {
            return Err(Error::NotFound(format!("{location} holds no image {tag}")));
        }
        if expected.is_some_and(|expected| removed.iter().any(|removed| removed.digest != expected)) {
            return Err(Error::Conflict(format!("remove {tag}: it names another image now")));
        }
        Ok(removed)
    }

    /// Takes all entries of a digest out that are of one repository. Returns what they described. Fails if there is none.
    pub fn remove_manifest(
        &mut self,
        location: &str,
        repository: &str,
        named: &str,
    ) -> Result<Vec<Descriptor>, Error> {
        let own = last(location);
        let removed = self.remove(|entry| digest(entry) == Some(named) && is_of(own, repository, entry));
        match removed.is_empty() {
            true => Err(Error::NotFound(format!("{location} holds no image {named}"))),
            false => Ok(removed),
        }
    }

    fn remove(&mut self, unwanted: impl Fn(&Value) -> bool) -> Vec<Descriptor> {
        let removed = self.entries.iter().filter(|entry| unwanted(entry)).filter_map(descriptor).collect();
        self.entries.retain(|entry| !unwanted(entry));
        removed
    }

    /// Reads an index. Fails if it is none; `location` is for the message.
    pub fn parse(location: &str, bytes: &[u8]) -> Result<Self, Error> {
        let broken = |why: String| Error::Invalid(format!("{location}/{INDEX} is broken: {why}"));
        let mut document: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| broken(error.to_string()))?;
        match document.remove("manifests") {
            Some(Value::Array(entries)) => Ok(Index { document, entries }),
            Some(Value::Null) | None => Ok(Index { document, entries: Vec::new() }),
            Some(_) => Err(broken("`manifests` is no list".into())),
        }
    }

    /// The index as a document.
    pub fn bytes(&self) -> Vec<u8> {
        let parts = self.document.iter().map(|(key, value)| (key.as_str(), Part::Other(value)));
        let entries = ("manifests", Part::Entries(&self.entries));
        let document: BTreeMap<&str, Part<'_>> = parts.chain([entries]).collect();
        // Serialising a map of JSON values never fails.
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// The repositories of all entries. `own` is the repository of entries without a name, or with a tag as
    /// their name.
    pub fn repositories(&self, own: &str) -> Vec<String> {
        self.entries
            .iter()
            .map(|entry| name(entry).map_or(own, |name| split(own, name).0).to_owned())
            .collect()
    }

    /// The tags of a repository. An image without a name is listed by its digest.
    pub fn tags(&self, own: &str, repository: &str) -> Vec<String> {
        let tag = |entry: &Value| match name(entry) {
            Some(name) => {
                let (of, tag) = split(own, name);
                (of == repository).then(|| tag.unwrap_or(name).to_owned())
            }
            None if repository == own => descriptor(entry).map(|descriptor| descriptor.digest),
            None => None,
        };
        self.entries.iter().filter_map(tag).collect()
    }

    /// Like [`Index::tags`], without signatures and other referrers: they are copied with their subject. `read` gives the
    /// content of a digest.
    pub fn images(
        &self,
        own: &str,
        repository: &str,
        read: impl Fn(&str) -> Result<Option<Vec<u8>>, Error>,
    ) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        for name in self.tags(own, repository) {
            let about_another = is_digest(&name) && read(&name)?.is_some_and(|body| subject(&body).is_some());
            if !about_another {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The descriptors of the tags of a repository. Of a tag that stands twice, the first entry counts, as in `find`.
    pub fn named(&self, own: &str, repository: &str) -> BTreeMap<String, Descriptor> {
        let mut found = BTreeMap::new();
        for entry in &self.entries {
            let Some((name, descriptor)) = name(entry).zip(descriptor(entry)) else { continue };
            let (of, tag) = split(own, name);
            if of == repository {
                found.entry(tag.unwrap_or(name).to_owned()).or_insert(descriptor);
            }
        }
        found
    }

    /// The descriptors of all entries.
    pub fn roots(&self) -> Result<Vec<Descriptor>, Error> {
        let read = |entry| {
            descriptor(entry).ok_or_else(|| {
                Error::Invalid(format!("{INDEX} names something without media type, digest or size"))
            })
        };
        self.entries.iter().map(read).collect()
    }

    /// The descriptors of the entries without a name, among which are referrers.
    pub fn unnamed(&self) -> Vec<Descriptor> {
        self.entries.iter().filter(|entry| name(entry).is_none()).filter_map(descriptor).collect()
    }

    /// The entry of a tag. Without a tag, it is the only entry of the repository.
    pub fn find(
        &self,
        location: &str,
        repository: &str,
        tag: Option<&str>,
    ) -> Result<Option<Descriptor>, Error> {
        let own = last(location);
        let wanted = tag.map(|tag| join(own, repository, tag));
        let mut entries = self.entries.iter().filter(|entry| match (name(entry), &wanted) {
            (Some(name), Some(wanted)) => is_same(own, name, wanted),
            (None, Some(_)) => false,
            (Some(name), None) => repository == own || split(own, name).0 == repository,
            (None, None) => repository == own,
        });
        let found = entries.next();
        let more = entries.count();
        if more > 0 && tag.is_none() {
            return Err(Error::Invalid(format!(
                "{location} holds {} images: say which, as in {location}:TAG",
                more + 1
            )));
        }
        match found {
            Some(entry) => match descriptor(entry) {
                Some(descriptor) => Ok(Some(descriptor)),
                None => Err(Error::Invalid(format!(
                    "{location}/{INDEX} names something without media type, digest or size"
                ))),
            },
            None => Ok(None),
        }
    }

    /// Gives names to images in the layout at `location`, in their order, and takes each name away from every entry that had it.
    /// The result is false if nothing changes by that. It reads the entries once, however many names there are.
    pub fn name(&mut self, location: &str, names: &[NewName]) -> bool {
        let own = last(location);
        let full = |new: &NewName| new.tag.as_deref().map(|tag| join(own, &new.repository, tag));
        let full: Vec<Option<String>> = names.iter().map(full).collect();
        let (slots, mut there, mut untagged) = self.there(own, &full);
        let (mut gone, mut changed) = (BTreeSet::new(), false);
        for ((new, full), slot) in names.iter().zip(full).zip(slots) {
            let Descriptor { media_type, digest: wanted, size, .. } = &new.manifest;
            let mut entry = json!({ "mediaType": media_type, "digest": wanted, "size": size });
            if let Some(slot) = slot {
                let there = &mut there[slot];
                if matches!(there[..], [only] if digest(&self.entries[only]) == Some(wanted)) {
                    continue;
                }
                gone.extend(there.drain(..));
                there.push(self.entries.len());
                entry["annotations"] = json!({ REF_NAME: full });
            } else if !untagged.insert(wanted.clone()) {
                continue;
            }
            self.entries.push(entry);
            changed = true;
        }
        let mut at = 0..;
        self.entries.retain(|_| at.next().is_some_and(|at| !gone.contains(&at)));
        changed
    }

    /// For each name its slot, the positions of the entries that have the name of a slot, and the digests of the entries without a
    /// name.
    fn there(&self, own: &str, names: &[Option<String>]) -> There {
        let mut slots = BTreeMap::new();
        let mut of_names = Vec::with_capacity(names.len());
        for name in names {
            let next = slots.len();
            of_names.push(name.as_deref().map(|name| *slots.entry(split(own, name)).or_insert(next)));
        }
        let (mut there, mut untagged) = (vec![Vec::new(); slots.len()], BTreeSet::new());
        for (at, entry) in self.entries.iter().enumerate() {
            match name(entry) {
                Some(name) => {
                    slots.get(&split(own, name)).into_iter().for_each(|slot| there[*slot].push(at));
                }
                None => untagged.extend(digest(entry).map(str::to_owned)),
            }
        }
        (of_names, there, untagged)
    }
}

/// What [`Index::there`] finds.
type There = (Vec<Option<usize>>, Vec<Vec<usize>>, BTreeSet<String>);

/// A part of an index that is written.
#[derive(Serialize)]
#[serde(crate = "dray_plugin::serde", untagged)]
enum Part<'a> {
    Other(&'a Value),
    Entries(&'a [Value]),
}

/// The name that `publish` gives a manifest. `None` means that it is a child, which gets none.
pub fn to_name(repository: String, digest: String, manifest: &Manifest, naming: Naming) -> Option<NewName> {
    let tag = match naming {
        Naming::Child => return None,
        Naming::Root => None,
        Naming::Tag(tag) => Some(tag),
    };
    let manifest = Descriptor {
        media_type: manifest.media_type.clone(),
        digest,
        size: manifest.body.len() as u64,
        artifact_type: None,
        annotations: Vec::new(),
        extra: Vec::new(),
    };
    Some(NewName { repository, manifest, tag })
}

/// The path of the content with this digest. Fails if it is no digest.
pub fn blob_file(digest: &str) -> Result<String, Error> {
    let (algorithm, hex) = crate::digest(digest)?;
    Ok(format!("blobs/{algorithm}/{hex}"))
}

/// The digest of the manifest to which this one refers.
pub fn subject(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let media_type = value.get("mediaType").and_then(Value::as_str).unwrap_or(OCI_MANIFEST);
    let refers = matches!(media_type, OCI_MANIFEST | OCI_INDEX);
    let digest = value.get("subject")?.get("digest")?.as_str()?;
    refers.then(|| digest.to_owned())
}

#[derive(Deserialize)]
#[serde(crate = "dray_plugin::serde", rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

/// Whether an `oci-layout` file has a version that dray knows.
pub fn is_layout(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Layout>(bytes).is_ok_and(|layout| layout.image_layout_version.starts_with("1."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(digest: &str) -> Value {
        json!({ "mediaType": OCI_MANIFEST, "digest": digest, "size": 1 })
    }

    /// A name of an image, as a layout has it.
    fn new(digest: &str, name: Option<&str>) -> NewName {
        let (repository, tag) = repository_of("x", name, false);
        let manifest = descriptor(&image(digest)).unwrap();
        NewName { repository, manifest, tag }
    }

    fn add(index: &mut Index, digest: &str, name: Option<&str>) -> bool {
        index.name("x", &[new(digest, name)])
    }

    #[test]
    fn a_tag_moves_and_others_stay_as_they_are() {
        let other = r#"{"schemaVersion":2,"manifests":[{"mediaType":"m","digest":"d0","size":1,"extra":{"a":1},"annotations":{"org.opencontainers.image.ref.name":"old"}}],"annotations":{"k":"v"}}"#;
        let mut index = Index::parse("x", other.as_bytes()).unwrap();
        assert!(add(&mut index, "d1", Some("v1")));
        assert!(!add(&mut index, "d1", Some("v1")));
        assert!(add(&mut index, "d2", Some("v1")));
        assert_eq!(index.tags("x", "x"), ["old", "v1"]);
        assert_eq!(index.find("x", "x", Some("v1")).unwrap().unwrap().digest, "d2");
        let written = String::from_utf8(index.bytes()).unwrap();
        assert!(written.contains(r#""extra":{"a":1}"#) && written.contains(r#""k":"v""#), "{written}");
    }

    #[test]
    fn without_a_tag_there_must_be_one_image() {
        let mut index = Index::default();
        assert!(index.find("x", "x", None).unwrap().is_none());
        add(&mut index, "d1", None);
        assert_eq!(index.find("x", "x", None).unwrap().unwrap().digest, "d1");
        add(&mut index, "d2", Some("t"));
        assert!(index.find("x", "x", None).is_err());
    }

    #[test]
    fn whole_names_make_repositories() {
        let mut index = Index::default();
        add(&mut index, "d1", Some("docker.io/library/nginx:1.27"));
        let mut without_tag = image("d2");
        without_tag["annotations"] = json!({ REF_NAME: "r.example:5000/a" });
        index.entries.push(without_tag);
        add(&mut index, "d3", Some("edge"));
        add(&mut index, "d4", None);
        assert_eq!(index.repositories("x"), ["docker.io/library/nginx", "r.example:5000/a", "x", "x"]);
        assert_eq!(index.tags("x", "docker.io/library/nginx"), ["1.27"]);
        assert_eq!(index.tags("x", "x"), ["edge", "d4"]);
        let find =
            |repository: &str, tag| index.find("x", repository, tag).unwrap().map(|found| found.digest);
        assert_eq!(find("docker.io/library/nginx", Some("1.27")).as_deref(), Some("d1"));
        assert_eq!(find("r.example:5000/a", None).as_deref(), Some("d2"));
        assert_eq!(find("x", Some("1.27")), None);
        assert_eq!(join("x", "docker.io/a", "1"), "docker.io/a:1");
    }

    #[test]
    fn a_name_that_stands_twice_or_is_written_in_full_is_one_tag() {
        let named = |digest: &str, name: &str| {
            let mut entry = image(digest);
            entry["annotations"] = json!({ REF_NAME: name });
            entry
        };
        let text = json!({ "manifests": [named("d1", "x:v1"), named("d2", "v1"), named("d3", "y/x:v1")] });
        let mut index = Index::parse("x", text.to_string().as_bytes()).unwrap();
        let tag = |index: &Index| index.find("x", "x", Some("v1")).unwrap().unwrap().digest;
        // The list and the lookup agree.
        assert_eq!((tag(&index).as_str(), index.named("x", "x")["v1"].digest.as_str()), ("d1", "d1"));
        // What is published is what is found.
        assert!(add(&mut index, "d2", Some("v1")));
        assert_eq!(tag(&index), "d2");
        assert!(!add(&mut index, "d2", Some("v1")));
        assert_eq!(index.find("x", "y/x", Some("v1")).unwrap().unwrap().digest, "d3");
        assert!(
            is_of("x", "x", &named("d", "x:1"))
                && is_of("x", "x", &image("d"))
                && !is_of("x", "x", &named("d", "y:1"))
        );
    }

    #[test]
    fn many_names_are_given_in_their_order() {
        let mut index = Index::default();
        add(&mut index, "d0", Some("old"));
        add(&mut index, "d1", Some("v1"));
        add(&mut index, "d2", None);
        let names = [
            new("d1", Some("v1")),
            new("d2", None),
            new("d3", Some("v2")),
            new("d4", Some("v2")),
            new("d5", Some("x:old")),
            new("d3", Some("r.example/app:v2")),
            new("d6", None),
        ];
        assert!(index.name("x", &names) && !index.name("x", &names[4..]));
        let written: Value = serde_json::from_slice(&index.bytes()).unwrap();
        let shown = |entry: &Value| format!("{} {}", digest(entry).unwrap(), name(entry).unwrap_or("-"));
        let entries: Vec<String> = written["manifests"].as_array().unwrap().iter().map(shown).collect();
        assert_eq!(entries, ["d1 v1", "d2 -", "d4 v2", "d5 old", "d3 r.example/app:v2", "d6 -"]);
        // A name that is given back and forth in one step changes the index, and ends as the last one says.
        assert!(index.name("x", &[new("d9", Some("v1")), new("d1", Some("v1"))]));
        assert_eq!(index.find("x", "x", Some("v1")).unwrap().unwrap().digest, "d1");
    }

    #[test]
    fn subjects() {
        assert_eq!(subject(br#"{"subject":{"digest":"d"}}"#).as_deref(), Some("d"));
        assert_eq!(subject(b"{}"), None);
        assert_eq!(subject(b"\x1f\x8b"), None);
    }
}
