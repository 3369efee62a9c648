//! One tag at both ends: what it names, and what is to be done about it.

use crate::{
    Error, Kind, Place, Result,
    contract::Naming,
    error::Context,
    journal::{self, Conversion, RepositoryKey, SeenTag},
    place::OpenReference,
    place::graph::{read_manifest, read_named, referrers},
    run::convert::{is_truly_in, needed},
    run::{DEPTH, MANIFESTS},
};
use dray_core::{
    Action, Children, Compression, Copy, Descriptor, Digest, Endpoint, Form, Manifest, Platform, Reason,
    media_type,
    policy::{IndexMode, Referrers},
    select, trim,
};
use std::{collections::HashSet, sync::Arc};
use tokio::sync::OwnedSemaphorePermit;

/// Something that a plan holds.
pub enum Planned {
    /// A copy, or a tag that needs none.
    Copy(Box<PlannedCopy>),
    /// A filter dropped a tag.
    Dropped {
        /// The rule whose filter it was.
        rule: String,
        /// What was dropped.
        source: Endpoint,
        /// Which filter, with its configuration.
        by: String,
    },
    /// It could not be planned.
    Failed {
        /// The rule.
        rule: String,
        /// From where.
        source: String,
        /// To where.
        destination: String,
        /// Why.
        error: Error,
    },
}

/// A copy and what carrying it out needs.
pub struct PlannedCopy {
    /// The decision.
    pub copy: Copy,
    pub(crate) source: (Arc<Place>, String),
    pub(crate) destination: (Arc<Place>, String),
    pub(crate) naming: Naming,
    pub(crate) choice: ImageChoice,
    pub(crate) referrers: Referrers,
    pub(crate) include_foreign: bool,
    pub(crate) strict: bool,
    pub(crate) link: bool,
    /// The destination's repository holds nothing.
    pub(crate) fresh: bool,
    pub(crate) form: Form,
    /// What is to be published, where it had to be read already.
    pub(crate) manifest: Option<Manifest>,
    /// Its place among those that wait to be carried out; none: it does not wait.
    pub(crate) ahead: Option<OwnedSemaphorePermit>,
}

/// Which part of a multi-platform image is wanted.
#[derive(Clone, Debug, PartialEq)]
pub enum ImageChoice {
    /// The whole.
    All,
    /// The image of one platform, without the index.
    One(Platform),
    /// Several platforms.
    Some(Vec<Platform>, IndexMode),
}

impl ImageChoice {
    /// What an index keeps of its children.
    pub(crate) fn platforms(&self) -> &[Platform] {
        match self {
            ImageChoice::Some(platforms, _) => platforms,
            ImageChoice::All | ImageChoice::One(_) => &[],
        }
    }
}

/// Names parts of an image; empty: the whole without referrers.
pub(crate) fn parts(choice: &ImageChoice, referrers: bool, foreign: bool) -> String {
    let mut parts: Vec<String> = choice.platforms().iter().map(Platform::to_string).collect();
    parts.sort();
    parts.extend(referrers.then(|| "referrers".to_owned()));
    parts.extend(foreign.then(|| "foreign".to_owned()));
    parts.join(",")
}

/// What a rule says of each of its images.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub rule: String,
    pub choice: ImageChoice,
    pub referrers: Referrers,
    /// Layers that are not to be distributed come along.
    pub include_foreign: bool,
    /// What cannot be converted is an error: it is one image, and its user asked for it.
    pub strict: bool,
    /// Files of the destination may be further names of the source's.
    pub link: bool,
    pub form: Form,
}

impl Wanted {
    /// Names the parts of an image that are wanted: its platforms, and whether referrers are among them.
    pub fn parts(&self) -> String {
        parts(&self.choice, self.referrers.are_wanted(), self.include_foreign)
    }

    /// What is wanted at a destination: one that holds no indexes gets the one platform's image.
    pub async fn at(&self, destination: &OpenReference) -> Result<Wanted> {
        let mut wanted = self.clone();
        if let Some(holds) = destination.place.capabilities().await?.holds
            && !holds.manifests.iter().any(|held| media_type::is_index(held))
            && let ImageChoice::Some(platforms, _) = &self.choice
            && let [platform] = &platforms[..]
        {
            wanted.choice = ImageChoice::One(platform.clone());
        }
        Ok(wanted)
    }
}

/// A source's image as it is to be written.
pub(crate) struct Resolved {
    pub descriptor: Descriptor,
    pub manifest: Option<Manifest>,
}

/// Learns what is to be written for a tag of the source. Where it is `absent` at the destination, its
/// manifest will be wanted, so that is read at once.
pub(crate) async fn resolve(
    source: &OpenReference,
    reference: Option<&str>,
    wanted: &Wanted,
    before: &Before,
) -> Result<Resolved> {
    let shown = source.endpoint(reference).display;
    if before.absent != Absent::Unknown && source.place.http.is_some() {
        let read = read_manifest(&source.place, &source.repository, reference, None).await;
        let manifest = read.context(|| format!("resolve {shown}"))?;
        let resolved = Resolved { descriptor: manifest.descriptor.clone(), manifest: Some(manifest) };
        return choose(source, reference, &shown, wanted, resolved).await;
    }
    let found = source.place.resolve(&source.repository, reference, before.known()).await;
    let found =
        found.map_err(|error| source.place.explained(error)).context(|| format!("resolve {shown}"))?;
    let (descriptor, manifest) = match found {
        Some(found) => found,
        // Some registries answer a cheap question so of everything: the full one tells.
        None if source.place.http.is_some() => {
            let read = read_manifest(&source.place, &source.repository, reference, None).await;
            let read = read.map_err(|error| match error.kind {
                Kind::NotFound => Error::new(Kind::NotFound, "there is no such image"),
                _ => error,
            });
            let manifest = read.context(|| format!("resolve {shown}"))?;
            (manifest.descriptor.clone(), Some(manifest))
        }
        None => {
            let error = Error::new(Kind::NotFound, format!("resolve {shown}: there is no such image"));
            return Err(source.place.explained(error));
        }
    };
    let read = async |manifest: Option<Manifest>| match manifest {
        Some(manifest) => Ok(manifest),
        None => read_named(&source.place, &source.repository, tag_of(reference), &descriptor).await,
    };
    if !media_type::is_manifest(&descriptor.media_type) {
        // A type that tells nothing (`application/json`): the manifest tells more.
        let manifest = read(manifest).await?;
        let resolved = Resolved { descriptor: manifest.descriptor.clone(), manifest: Some(manifest) };
        return choose(source, reference, &shown, wanted, resolved).await;
    }
    choose(source, reference, &shown, wanted, Resolved { descriptor, manifest }).await
}

/// What of an image is to be written.
async fn choose(
    source: &OpenReference,
    reference: Option<&str>,
    shown: &str,
    wanted: &Wanted,
    resolved: Resolved,
) -> Result<Resolved> {
    let Resolved { descriptor, manifest } = resolved;
    if !media_type::is_index(&descriptor.media_type) {
        return Ok(Resolved { descriptor, manifest });
    }
    let read = async |manifest: Option<Manifest>| match manifest {
        Some(manifest) => Ok(manifest),
        None => read_named(&source.place, &source.repository, tag_of(reference), &descriptor).await,
    };
    match &wanted.choice {
        ImageChoice::All | ImageChoice::Some(_, IndexMode::Keep) => Ok(Resolved { descriptor, manifest }),
        ImageChoice::Some(platforms, IndexMode::Trim) => {
            let index = read(manifest).await?;
            let trimmed = trim(&index, platforms).map_err(Error::from).context(|| shown)?;
            Ok(Resolved { descriptor: trimmed.descriptor.clone(), manifest: Some(trimmed) })
        }
        ImageChoice::One(platform) => {
            let mut index = read(manifest).await?;
            for _ in 0..DEPTH {
                let Children::Index(children) = &index.children else { break };
                let selection = select(children, std::slice::from_ref(platform)).map_err(Error::from);
                let selection = selection
                    .context(|| shown)
                    .map_err(|error| error.help("--all copies every platform, --platform chooses others"))?;
                if let Some(descriptor) = selection.kept.iter().find(|child| child.platform.is_some()) {
                    return Ok(Resolved { descriptor: descriptor.clone(), manifest: None });
                }
                // Its platforms are those of the indexes in it.
                let nested = selection.kept.iter().find(|child| media_type::is_index(&child.media_type));
                let Some(nested) = nested else { break };
                index = read_manifest(&source.place, &source.repository, None, Some(nested)).await?;
            }
            Ok(Resolved { descriptor: index.descriptor.clone(), manifest: Some(index) })
        }
    }
}

/// A reference that is a tag.
pub(crate) fn tag_of(reference: Option<&str>) -> Option<&str> {
    reference.filter(|reference| !reference.contains(':'))
}

/// What is known not to be at a destination, before it is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// Nothing is known.
    Unknown,
    /// The tag.
    Tag,
    /// The whole repository.
    Repository,
}

/// What is known of a destination's tag before anything is asked.
pub(crate) struct Before {
    pub absent: Absent,
    /// What it named when dray saw it last.
    pub tag: Option<SeenTag>,
}

impl Before {
    /// What the journal knows.
    pub fn of(destination: &OpenReference, reference: Option<&str>) -> Self {
        let tag = tag_of(destination.reference.as_deref().or(reference));
        let at = RepositoryKey::new(&destination.place, &destination.repository);
        let known = tag.zip(destination.place.memory()).and_then(|(tag, memory)| memory.tag(&at, tag));
        Before { absent: Absent::Unknown, tag: known }
    }

    /// What the source is likely to name.
    fn known(&self) -> Option<&Descriptor> {
        let known = self.tag.as_ref().map(|seen| &seen.named);
        known.filter(|known| media_type::is_manifest(&known.media_type))
    }
}

/// Decides on one tag.
pub(crate) async fn compare(
    source: &OpenReference,
    reference: Option<&str>,
    destination: &OpenReference,
    wanted: &Wanted,
    resolved: Resolved,
    before: &Before,
) -> Result<PlannedCopy> {
    let absent = before.absent;
    let Resolved { descriptor, manifest } = resolved;
    let tag = destination.reference.as_deref().or(reference);
    if let Some(position) = tag.filter(|tag| tag.starts_with('@'))
        && destination.place.capabilities().await?.many
    {
        let text = format!("name the image {position} at {}: it has no tag", destination.written);
        return Err(Error::new(Kind::Unsupported, text)
            .help("write the tag that it is to have behind the destination"));
    }
    let by_digest = tag.is_some_and(|tag| tag.parse::<Digest>().is_ok());
    let digest = descriptor.digest.to_string();
    // A place for one image knows no tags; an image without one is named by its digest.
    let capabilities = destination.place.capabilities().await?;
    let many = capabilities.many;
    let shown = destination.written.to_string();
    let mut asked = wanted.form;
    let unpacked = source.place.unpacks().await?;
    if asked.compression.is_none() && unpacked {
        asked.compression = Some(Compression::None);
    }
    let mut form = needed(&descriptor, capabilities.holds.as_ref(), asked, &shown)?;
    let mut manifest = manifest;
    if !form.is_unchanged() {
        let read = match manifest {
            Some(manifest) => manifest,
            None => read_named(&source.place, &source.repository, tag_of(reference), &descriptor).await?,
        };
        if is_truly_in(&source.place, &source.repository, &read, form, unpacked).await? {
            form = Form::default();
        } else if wanted.referrers.are_wanted() {
            let text = format!(
                "copy referrers to {shown}: the image is converted on its way, and they are about the one before"
            );
            return Err(
                Error::new(Kind::Unsupported, text).help("leave `referrers` out, or what converts the image")
            );
        }
        manifest = Some(read);
    }
    let (naming, at) = match tag {
        Some(tag) if many && !by_digest => (Naming::Tag(tag.to_owned()), Some(tag.to_owned())),
        // What is made from it has another digest.
        _ if many && (capabilities.holds.is_some() || !form.is_unchanged()) => (Naming::Root, None),
        _ if many => (Naming::Root, Some(digest)),
        _ => (Naming::Root, None),
    };
    if wanted.referrers.are_wanted() && !many {
        let text = format!("copy referrers to {}: it holds one image alone", destination.written);
        return Err(Error::new(Kind::Unsupported, text).help("leave `referrers` out for this destination"));
    }
    let to = destination.endpoint(if destination.reference.is_none() && many { at.as_deref() } else { None });
    let unnamed = !form.is_unchanged() && at.is_none() && many;
    let named = at.as_deref().filter(|_| matches!(naming, Naming::Tag(_)));
    let parts = wanted.parts();
    let remembered = before.tag.as_ref().filter(|seen| seen.named.digest == descriptor.digest);
    let assumed = remembered.filter(|seen| seen.parts == parts);
    let assumed = assumed.filter(|_| named.is_some() && form.is_unchanged() && destination.place.assumed());
    // What refers to an image may have grown at the source, while the image stays as it is.
    let assumed = assumed.filter(|_| !wanted.referrers.are_wanted());
    let likely = remembered.filter(|seen| named.is_some() && seen.is_fresh());
    let asked = journal::now();
    let there = match absent != Absent::Unknown || unnamed {
        _ if assumed.is_some() => Some(There::Content(descriptor.digest.clone(), Vec::new())),
        true => None,
        false if !form.is_unchanged() || capabilities.holds.is_some() => {
            let mark = destination.place.mark(&destination.repository, at.as_deref()).await;
            told(mark.map(|mark| mark.map(There::Mark))).context(|| format!("resolve {to}"))?
        }
        false => {
            let place = &destination.place;
            // A registry may say that a tag is what it was though its manifest is gone: at the source that
            // would show when it is read; here it shows within the hour.
            let known = likely.map(|seen| &seen.named);
            let resolved = place.resolve(&destination.repository, at.as_deref(), known).await;
            let content = resolved.map(|there| {
                there.map(|(there, held)| {
                    There::Content(there.digest, held.map(|held| held.signatures).unwrap_or_default())
                })
            });
            told(content).context(|| format!("resolve {to}"))?
        }
    };
    let journal = match form.is_unchanged() && capabilities.holds.is_none() {
        true => None,
        false => destination.place.local.journal.get(),
    };
    let converted = match journal {
        Some(journal) => {
            let of = Conversion::new(
                &descriptor.digest,
                form,
                wanted.choice.platforms(),
                (&destination.place, &destination.repository),
            );
            journal.converted(&of)
        }
        None => None,
    };
    let mut planned = PlannedCopy {
        copy: Copy {
            rule: wanted.rule.clone(),
            source: source.endpoint(reference),
            destination: to,
            descriptor,
            form,
            written: None,
            action: Action::Copy,
            reason: Reason::New,
        },
        source: (source.place.clone(), source.repository.clone()),
        destination: (destination.place.clone(), destination.repository.clone()),
        naming,
        choice: wanted.choice.clone(),
        referrers: wanted.referrers,
        include_foreign: wanted.include_foreign,
        strict: wanted.strict,
        link: wanted.link,
        fresh: absent == Absent::Repository,
        form,
        manifest,
        ahead: None,
    };
    match there {
        None => {}
        Some(There::Untold(why)) => planned.copy.reason = Reason::Untold(why),
        Some(There::Content(there, _)) if there != planned.copy.descriptor.digest => {
            planned.copy.reason = Reason::Moved { from: there }
        }
        Some(There::Mark(mark)) if converted.as_deref() == Some(&mark) => {
            planned.copy.action = Action::Unchanged;
            planned.copy.reason = Reason::Converted;
        }
        Some(There::Mark(mark)) if mark != planned.copy.descriptor.digest.to_string() => {
            planned.copy.reason = match mark.parse() {
                Ok(from) => Reason::Moved { from },
                Err(_) => Reason::New,
            }
        }
        Some(There::Mark(_)) if !form.is_unchanged() => planned.copy.reason = Reason::Form,
        Some(There::Mark(_)) => {
            planned.copy.action = Action::Unchanged;
            planned.copy.reason = Reason::Same;
        }
        Some(There::Content(..)) if assumed.is_some() => {
            planned.copy.action = Action::Unchanged;
            planned.copy.reason = Reason::Assumed;
        }
        Some(There::Content(_, kept)) => {
            let signatures = planned.manifest.iter().flat_map(|manifest| &manifest.signatures);
            let missing = signatures.filter(|signature| !kept.contains(signature)).count();
            if capabilities.signatures && missing > 0 {
                planned.copy.reason = Reason::Signatures(missing);
                return Ok(planned);
            }
            if wanted.include_foreign && before.tag.as_ref().is_none_or(|seen| seen.parts != parts) {
                // Whether a layer is there that registries need not hold is not told by the manifest.
                planned.copy.reason = Reason::Incomplete(1);
                return Ok(planned);
            }
            // Another rule, or this one before it was changed, may have left a part of it behind.
            let other = before.tag.as_ref().is_some_and(|seen| seen.parts != parts);
            planned.look_inside(other).await?;
            if let (Some(memory), Some(tag)) = (planned.destination.0.memory(), named)
                && planned.copy.action == Action::Unchanged
                && before.tag.as_ref().is_none_or(|seen| seen.is_news(&planned.copy.descriptor, &parts))
            {
                let at = RepositoryKey::new(&planned.destination.0, &planned.destination.1);
                // An answer that nothing has changed is no full one, and makes nothing younger.
                let seen_at = likely.map_or(asked, |likely| likely.at);
                let seen = SeenTag::at(seen_at, &planned.copy.descriptor, &parts);
                memory.saw_tag(&at, tag, seen, before.tag.as_ref());
            }
        }
    }
    Ok(planned)
}

/// What the destination has.
enum There {
    /// A digest, and the signatures that lie beside it.
    Content(Digest, Vec<Vec<u8>>),
    /// A digest or a mark, of a place that holds it in another form.
    Mark(String),
    /// It does not tell; why.
    Untold(String),
}

/// A registry that refuses to tell may have no such repository yet, and make it when it is pushed to: the push is tried,
/// and its refusal is the one that counts.
fn told(there: Result<Option<There>>) -> Result<Option<There>> {
    match there {
        Err(error) if matches!(error.kind, Kind::Denied | Kind::Unauthorized) => {
            tracing::debug!(%error, "the destination does not tell what it has");
            Ok(Some(There::Untold(error.text)))
        }
        there => there,
    }
}

impl PlannedCopy {
    /// The tag is the same at both ends; what hangs on it may not be.
    async fn look_inside(&mut self, other: bool) -> Result<()> {
        self.copy.action = Action::Unchanged;
        self.copy.reason = Reason::Same;
        let index = media_type::is_index(&self.copy.descriptor.media_type);
        // Where an index may be sparse, its digest does not tell that all of it is there.
        let sparse = self.destination.0.capabilities().await?.sparse == Some(true);
        let chosen = sparse || other || matches!(&self.choice, ImageChoice::Some(_, IndexMode::Keep));
        if !(index && chosen || self.referrers.are_wanted()) {
            return Ok(());
        }
        let children = match self.children().await {
            Ok(children) => children,
            // The tag is there, and what it names is not.
            Err(error) if error.kind == Kind::NotFound => {
                self.copy.action = Action::Copy;
                self.copy.reason = Reason::Incomplete(1);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if children.len() > MANIFESTS {
            let (digest, count) = (self.copy.descriptor.digest.short(), children.len());
            return Err(Error::invalid(format!("look into {digest}: it names {count} manifests")));
        }
        if index && chosen {
            let mut missing = 0;
            for child in &children {
                let (place, repository) = &self.destination;
                let there = place.resolve(repository, Some(&child.digest.to_string()), None).await?;
                missing += usize::from(there.is_none());
            }
            if missing > 0 {
                self.copy.action = Action::Copy;
                self.copy.reason = Reason::Incomplete(missing);
                return Ok(());
            }
        }
        if self.referrers.are_wanted() {
            let mut missing = 0;
            for descriptor in std::iter::once(&self.copy.descriptor).chain(&children) {
                let wanted = referrers(&self.source.0, &self.source.1, &descriptor.digest).await?;
                if wanted.is_empty() {
                    continue;
                }
                let there = referrers(&self.destination.0, &self.destination.1, &descriptor.digest).await?;
                let there: HashSet<Digest> = there.into_iter().map(|descriptor| descriptor.digest).collect();
                missing += wanted.iter().filter(|wanted| !there.contains(&wanted.digest)).count();
            }
            if missing > 0 {
                self.copy.action = Action::Copy;
                self.copy.reason = Reason::Referrers(missing);
            }
        }
        Ok(())
    }

    /// The wanted children of an index; none of an image.
    async fn children(&mut self) -> Result<Vec<Descriptor>> {
        if !media_type::is_index(&self.copy.descriptor.media_type) {
            return Ok(Vec::new());
        }
        let manifest = match self.manifest.take() {
            Some(manifest) => manifest,
            // Both ends have it: the destination may be a disk.
            None => {
                let (place, repository) = &self.destination;
                read_manifest(place, repository, None, Some(&self.copy.descriptor)).await?
            }
        };
        let children = match &manifest.children {
            Children::Index(children) => select(children, self.choice.platforms())?.kept,
            Children::Image { .. } | Children::Schema1(_) => Vec::new(),
        };
        self.manifest = Some(manifest);
        Ok(children)
    }
}
