//! Compares one tag at both ends: observes what the destination has for the decision of [`dray_core::decide`], and
//! creates the item of the plan.

use super::{
    before::{Absent, Before, tag_of},
    choose::Chosen,
    form::{is_truly_in, needed},
    item::PlannedCopy,
    subject::{Ends, Subject},
};
use crate::{
    Error, Kind, Result,
    contract::Capabilities,
    error::Context,
    journal::{Conversion, SeenTag},
    limits::MANIFESTS,
    now,
    place::{OpenReference, Repository},
    trust::{Demand, Judge},
};
use dray_core::{
    Action, Children, Compression, Copy, Descriptor, DestinationState, Digest, Form, ImageChoice, Manifest,
    Missing, Naming, Observed, Seen, Wanted, decide, media_type,
    policy::{IndexMode, OnChange, Referrers},
};
use std::collections::HashSet;

/// What a rule wants at a destination. A destination that cannot hold an index gets the image of the one platform.
/// Fails if the destination cannot be written to.
pub(crate) async fn wanted_at(wanted: &Wanted, destination: &OpenReference) -> Result<Wanted> {
    let mut wanted = wanted.clone();
    if let Some(holds) = destination.place().capabilities().await?.holds
        && !holds.manifests.iter().any(|held| media_type::is_index(held))
        && let ImageChoice::Some(platforms, _) = &wanted.choice
        && let [platform] = &platforms[..]
    {
        wanted.choice = ImageChoice::One(platform.clone());
    }
    Ok(wanted)
}

/// A tag with the two ends to compare.
pub(crate) struct Comparison<'a> {
    /// The name of the rule.
    pub rule: &'a str,
    pub source: &'a OpenReference,
    /// The tag or digest at the source.
    pub reference: Option<&'a str>,
    /// The digest to which the tag is pinned. It is read instead of what the tag names now.
    pub pin: Option<&'a str>,
    /// The tag by which the user named the image, if that is neither of the two.
    pub tag: Option<&'a str>,
    pub destination: &'a OpenReference,
    pub wanted: &'a Wanted,
    /// The signatures that the rule demands.
    pub require: &'a [Demand],
    /// Whether signatures are checked even if nothing needs to be copied, because the user named this one image.
    pub always: bool,
    pub before: &'a Before,
    /// The tags of the source beneath which cosign keeps something. `None` means that it is to be asked.
    pub beneath: Option<&'a HashSet<String>>,
}

/// The name of an image at its destination.
struct Name {
    naming: Naming,
    /// The tag or digest with which the destination is asked for the image.
    reference: Option<String>,
    /// Whether the destination can hold more than one image.
    many: bool,
}

impl Name {
    /// The tag, if the image gets one.
    fn tag(&self) -> Option<&str> {
        self.reference.as_deref().filter(|_| matches!(self.naming, Naming::Tag(_)))
    }
}

impl Comparison<'_> {
    /// Observes the destination and decides. Fails if the destination cannot hold the image, or if an end cannot be
    /// asked.
    pub async fn planned(&self, chosen: Chosen) -> Result<PlannedCopy> {
        let capabilities = self.destination.place().capabilities().await?;
        let Chosen { named, descriptor, manifest } = chosen;
        self.check_position(&capabilities)?;
        let (form, mut manifest) = self.form(&capabilities, &descriptor, manifest).await?;
        let name = self.name(&capabilities, &descriptor, form);
        let asked_at = now();
        let likely = self.remembered(&descriptor).filter(|seen| name.tag().is_some() && seen.is_fresh());
        let assumed = self.is_assumed(&descriptor, form, &name);
        let (destination, kept) = match assumed {
            true => (DestinationState::Named(descriptor.digest.clone()), Vec::new()),
            false => self.destination(&capabilities, form, &name, (&descriptor.digest, likely)).await?,
        };
        let same = !assumed && destination == DestinationState::Named(descriptor.digest.clone());
        let missing = match same {
            true => Box::pin(self.missing(&capabilities, &descriptor, &mut manifest, &kept)).await?,
            false => Missing::default(),
        };
        let observed = Observed {
            content: descriptor.digest.clone(),
            destination,
            assumed,
            converted: self.converted(&capabilities, &descriptor, form),
            missing,
        };
        let (action, reason) = decide(&observed, form);
        let mut checked = false;
        if action == Action::Copy || self.always {
            let one = matches!(self.wanted.choice, ImageChoice::One(_));
            let by = match self.always {
                true => "the command".to_owned(),
                false => format!("the rule `{}`", self.rule),
            };
            let judge = Judge(&self.source.place().local.trust);
            // What few tags need is boxed, so that the future of each tag stays small: a plan moves and allocates one a tag.
            let verified = Box::pin(judge.check(
                self.source,
                self.tag.or(self.reference),
                (&named, &descriptor, one),
                &mut manifest,
                (&by, self.require),
            ))
            .await?;
            checked = verified.digest.is_some();
        }
        if same && action == Action::Unchanged {
            // An answer that nothing has changed is no complete one, so the entry keeps its time.
            self.remember(&name, likely.map_or(asked_at, |likely| likely.at), &descriptor);
        }
        let to = name.reference.as_deref().filter(|_| self.destination.reference.is_none() && name.many);
        let ends = Ends { source: self.source, reference: self.reference, destination: self.destination };
        let before = observed.converted.as_ref().filter(|_| action == Action::Unchanged);
        let subject = Subject {
            named: &named,
            written: &descriptor,
            platforms: self.wanted.choice.platforms(),
            form,
            alone: !name.many,
            became_another: before.is_some_and(|before| *before != descriptor.digest.to_string()),
        };
        Box::pin(ends.check_referrers(self.wanted.referrers, &subject, action)).await?;
        let mut wanted = self.wanted.clone();
        if subject.alone {
            // A place for one image would take a referrer for the image.
            wanted.referrers = Referrers::No;
        }
        Ok(PlannedCopy {
            copy: Copy {
                rule: self.rule.into(),
                source: self.source.endpoint(self.pin.or(self.reference)),
                pinned: self.tag.or(self.pin.and(self.reference)).map(str::to_owned),
                destination: self.destination.endpoint(to),
                wanted,
                naming: name.naming,
                descriptor,
                form,
                seen: Seen { source: named, destination: observed.destination },
                action,
                reason,
                backup: None,
            },
            source: self.source.repository.clone(),
            destination: self.destination.repository.clone(),
            manifest,
            checked,
            lead: None,
        })
    }

    /// The tag or digest at the destination: the one that the user wrote there, or else the source's.
    fn tag(&self) -> Option<&str> {
        self.destination.reference.as_deref().or(self.reference)
    }

    /// Fails if the image is only named by its position in a list, which names nothing at another place.
    fn check_position(&self, capabilities: &Capabilities) -> Result<()> {
        match self.tag().filter(|tag| tag.starts_with('@')) {
            Some(position) if capabilities.many => {
                let text =
                    format!("name the image {position} at {}: it has no tag", self.destination.written);
                Err(Error::new(Kind::Unsupported, text)
                    .help("write the tag that it is to have behind the destination"))
            }
            _ => Ok(()),
        }
    }

    /// The form in which the image must be written, and its manifest if that had to be read.
    async fn form(
        &self,
        capabilities: &Capabilities,
        descriptor: &Descriptor,
        manifest: Option<Manifest>,
    ) -> Result<(Form, Option<Manifest>)> {
        let shown = self.destination.written.to_string();
        let source = &self.source.repository;
        let mut asked = self.wanted.form;
        let unpacked = source.place.unpacks().await?;
        if asked.compression.is_none() && unpacked {
            asked.compression = Some(Compression::None);
        }
        let form = needed(descriptor, capabilities.holds.as_ref(), asked, &shown)?;
        if form.is_unchanged() {
            return Ok((form, manifest));
        }
        let read = match manifest {
            Some(manifest) => manifest,
            None => source.manifest_named(tag_of(self.reference), descriptor).await?,
        };
        if Box::pin(is_truly_in(source, &read, form, unpacked)).await? {
            return Ok((Form::default(), Some(read)));
        }
        Ok((form, Some(read)))
    }

    fn name(&self, capabilities: &Capabilities, descriptor: &Descriptor, form: Form) -> Name {
        let many = capabilities.many;
        let is_digest = |tag: &&str| tag.parse::<Digest>().is_ok();
        let (naming, reference) = match self.tag() {
            Some(tag) if many && !is_digest(&tag) => (Naming::Tag(tag.to_owned()), Some(tag.to_owned())),
            // The digest of a converted image is not known yet.
            _ if many && (capabilities.holds.is_some() || !form.is_unchanged()) => (Naming::Root, None),
            _ if many => (Naming::Root, Some(descriptor.digest.to_string())),
            // A place for one image has no tags, and an image without a tag is named by its digest.
            _ => (Naming::Root, None),
        };
        Name { naming, reference, many }
    }

    /// The journal's entry for the tag, if it names the content that would be written.
    fn remembered(&self, descriptor: &Descriptor) -> Option<&SeenTag> {
        self.before.tag.as_ref().filter(|seen| seen.named.digest == descriptor.digest)
    }

    /// Whether the journal is trusted without asking the destination.
    fn is_assumed(&self, descriptor: &Descriptor, form: Form, name: &Name) -> bool {
        let known = self.remembered(descriptor).is_some_and(|seen| seen.parts == self.wanted.parts());
        // An image may have got new referrers at the source although it is unchanged itself.
        let alone = !self.wanted.referrers.are_wanted() && !self.wanted.wants_related();
        known && alone && name.tag().is_some() && form.is_unchanged() && self.destination.place().assumed()
    }

    /// What the destination has, and the signatures that it keeps with it.
    async fn destination(
        &self,
        capabilities: &Capabilities,
        form: Form,
        name: &Name,
        (content, likely): (&Digest, Option<&SeenTag>),
    ) -> Result<(DestinationState, Vec<Vec<u8>>)> {
        match self.before.absent {
            Absent::Repository => return Ok((DestinationState::NoRepository, Vec::new())),
            Absent::Tag => return Ok((DestinationState::Absent, Vec::new())),
            Absent::Unknown => {}
        }
        // A list that names the content that would be written spares the question. What is about to be written over is
        // asked for itself, and so is a place that keeps signatures, which no list tells.
        let plain = form.is_unchanged() && capabilities.holds.is_none() && !capabilities.signatures;
        if let Some(listed) = self.before.listed.as_ref().filter(|listed| plain && **listed == *content) {
            return Ok((DestinationState::Named(listed.clone()), Vec::new()));
        }
        if !form.is_unchanged() && name.reference.is_none() && name.many {
            return Ok((DestinationState::Unasked, Vec::new()));
        }
        let (repository, reference) = (&self.destination.repository, name.reference.as_deref());
        let asked = match form.is_unchanged() && capabilities.holds.is_none() {
            false => {
                let id = repository.opaque_id(reference).await;
                id.map(|id| id.map_or(DestinationState::Absent, DestinationState::Opaque))
                    .map(|state| (state, Vec::new()))
            }
            true => {
                // A registry may report a tag as unchanged although its manifest is gone. At the source this is noticed
                // when the manifest is read; here it is noticed when the entry is no longer fresh.
                let found = repository.resolve(reference, likely.map(|seen| &seen.named)).await;
                found.map(|found| match found {
                    None => (DestinationState::Absent, Vec::new()),
                    Some(found) => {
                        let kept = found.manifest.map(|manifest| manifest.signatures).unwrap_or_default();
                        (DestinationState::Named(found.descriptor.digest), kept)
                    }
                })
            }
        };
        match asked {
            // A registry that refuses to answer may not have the repository yet, and may create it on the first push.
            // So the push is tried, and its result counts.
            Err(error) if matches!(error.kind, Kind::Denied | Kind::Unauthorized) => {
                tracing::debug!(%error, "the destination does not tell what it has");
                Ok((DestinationState::Untold(error.text), Vec::new()))
            }
            asked => {
                let to =
                    name.reference.as_deref().filter(|_| self.destination.reference.is_none() && name.many);
                asked.context(|| format!("resolve {}", self.destination.endpoint(to)))
            }
        }
    }

    /// The identifier of what an earlier run made from this content at the destination, from the journal.
    fn converted(&self, capabilities: &Capabilities, descriptor: &Descriptor, form: Form) -> Option<String> {
        if form.is_unchanged() && capabilities.holds.is_none() {
            return None;
        }
        let repository = &self.destination.repository;
        let platforms = self.wanted.choice.platforms();
        let of = Conversion::new(&descriptor.digest, form, platforms, &repository.key());
        self.destination.place().local.journal.get()?.converted(&of)
    }

    /// Determines what is missing at the destination although both ends have the same digest.
    async fn missing(
        &self,
        capabilities: &Capabilities,
        descriptor: &Descriptor,
        manifest: &mut Option<Manifest>,
        kept: &[Vec<u8>],
    ) -> Result<Missing> {
        let mut missing = Missing::default();
        let signatures = manifest.iter().flat_map(|manifest| &manifest.signatures);
        let left = signatures.filter(|signature| !kept.contains(signature)).count();
        if capabilities.signatures && left > 0 {
            missing.signatures = left;
            return Ok(missing);
        }
        // Another rule, or this one before it was changed, may have copied only a part.
        let parts = self.wanted.parts();
        let other = self.before.tag.as_ref().is_some_and(|seen| seen.parts != parts);
        if self.wanted.include_foreign && (other || self.before.tag.is_none()) {
            // The manifest does not tell whether the destination has the foreign layers, which registries need not
            // hold.
            missing.parts = 1;
            return Ok(missing);
        }
        let is_index = media_type::is_index(&descriptor.media_type);
        // If an index may be sparse, its presence does not prove that all of its children are there.
        let sparse = capabilities.sparse == Some(true);
        let chosen = sparse || other || matches!(&self.wanted.choice, ImageChoice::Some(_, IndexMode::Keep));
        let (look_for_children, look_for_referrers) =
            (is_index && chosen, self.wanted.referrers.are_wanted() && capabilities.many);
        let look_beneath = self.wanted.wants_related() && capabilities.many;
        if !look_for_children && !look_for_referrers && !look_beneath {
            return Ok(missing);
        }
        let children = match self.children(descriptor, manifest).await {
            Ok(children) => children,
            // The tag exists, but the manifest that it names does not.
            Err(error) if error.kind == Kind::NotFound => {
                missing.parts = 1;
                return Ok(missing);
            }
            Err(error) => return Err(error),
        };
        let (source, destination) = (&self.source.repository, &self.destination.repository);
        if look_for_children {
            missing.parts = absent(destination, &children).await?;
        }
        if look_for_referrers && missing.parts == 0 {
            let subjects = std::iter::once(descriptor).chain(&children);
            missing.referrers = unlisted(source, destination, subjects, self.wanted).await?;
        }
        if look_beneath && missing.parts == 0 && missing.referrers == 0 {
            let subjects = std::iter::once(descriptor).chain(&children);
            let tags = subjects.flat_map(|subject| self.wanted.related_tags(&subject.digest));
            let tags = tags.filter(|tag| self.beneath.is_none_or(|known| known.contains(tag)));
            missing.referrers = unlike(source, destination, tags, self.wanted.on_change).await?;
        }
        Ok(missing)
    }

    /// The wanted children of an index. An image has none.
    async fn children(
        &self,
        descriptor: &Descriptor,
        manifest: &mut Option<Manifest>,
    ) -> Result<Vec<Descriptor>> {
        if !media_type::is_index(&descriptor.media_type) {
            return Ok(Vec::new());
        }
        let read = match manifest.take() {
            Some(manifest) => manifest,
            // Both ends have the index, and reading it from the destination may need no network. A list may not say its size.
            None if descriptor.size == 0 => {
                self.destination.repository.manifest_now(None, descriptor).await?
            }
            None => self.destination.repository.manifest_of(descriptor).await?,
        };
        let children = match &read.children {
            Children::Index(children) => self.wanted.choice.select(children)?.kept,
            Children::Image { .. } | Children::Schema1(_) => Vec::new(),
        };
        *manifest = Some(read);
        if children.len() > MANIFESTS {
            let (digest, count) = (descriptor.digest.short(), children.len());
            return Err(Error::invalid(format!("look into {digest}: it names {count} manifests")));
        }
        Ok(children)
    }

    /// Records in the journal what was found, if it is new.
    fn remember(&self, name: &Name, seen_at: i64, descriptor: &Descriptor) {
        let (Some((journal, key)), Some(tag)) = (self.destination.repository.memory(), name.tag()) else {
            return;
        };
        let parts = self.wanted.parts();
        let is_whole = descriptor.size > 0;
        if is_whole && self.before.tag.as_ref().is_none_or(|seen| seen.is_news(descriptor, &parts)) {
            journal.saw_tag(&key, tag, SeenTag::at(seen_at, descriptor, &parts), self.before.tag.as_ref());
        }
    }
}

/// The number of these manifests that a repository does not have.
async fn absent(repository: &Repository, manifests: &[Descriptor]) -> Result<usize> {
    let mut missing = 0;
    for manifest in manifests {
        let there = repository.resolve(Some(&manifest.digest.to_string()), None).await?;
        missing += usize::from(there.is_none());
    }
    Ok(missing)
}

/// The number of tags that the source has and that name something else at the destination, or nothing.
async fn unlike(
    source: &Repository,
    destination: &Repository,
    tags: impl Iterator<Item = String>,
    on_change: OnChange,
) -> Result<usize> {
    let digest = async |repository: &Repository, tag: &str| {
        let there = repository.resolve(Some(tag), None).await?;
        Ok::<_, Error>(there.map(|there| there.descriptor.digest))
    };
    let mut missing = 0;
    for tag in tags {
        let Some(wanted) = digest(source, &tag).await? else { continue };
        let there = digest(destination, &tag).await?;
        let stays = on_change == OnChange::Keep && there.is_some();
        missing += usize::from(!stays && there != Some(wanted));
    }
    Ok(missing)
}

/// The number of referrers of these manifests that the source lists and the destination does not.
async fn unlisted(
    source: &Repository,
    destination: &Repository,
    subjects: impl Iterator<Item = &Descriptor>,
    rule: &Wanted,
) -> Result<usize> {
    let mut missing = 0;
    for subject in subjects {
        let mut wanted = source.referrers(&subject.digest).await?;
        wanted.retain(|referrer| rule.wants_referrer(referrer));
        if wanted.is_empty() {
            continue;
        }
        let there = destination.referrers(&subject.digest).await?;
        let there: HashSet<Digest> = there.into_iter().map(|descriptor| descriptor.digest).collect();
        missing += wanted.iter().filter(|wanted| !there.contains(&wanted.digest)).count();
    }
    Ok(missing)
}
