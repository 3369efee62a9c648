//! Finds the tags of a destination that its source no longer has.

use super::{
    bind::{BoundFilter, BoundRule, Source},
    expand::{Pair, Target},
    item::PlannedDeletion,
    tags::{belongs, is_fallback},
    template::{destination, names},
};
use crate::{
    Error, Kind, Places, Repository, Result,
    contract::{Choice, Listed},
    error::Context,
    inspect::RepositoryImages,
    journal::Journal,
    place::OpenReference,
};
use dray_core::{
    Deletion, Digest, Endpoint, Gone, matches, may_prune,
    policy::{Backup, Order, Prune},
};
use futures_util::{StreamExt, stream};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Number of tags that are resolved at once.
const AT_ONCE: usize = 16;

/// A source repository, and the destination that may have tags of it that are gone.
pub(super) struct Pruning<'a> {
    pub rule: &'a BoundRule,
    pub source: &'a OpenReference,
    pub destination: &'a OpenReference,
    /// The tags that the source lists. `None` means that nobody has asked it yet.
    pub listed: Option<Vec<String>>,
}

/// What holds for all rules that write to one repository.
#[derive(Default)]
pub(super) struct Kept<'a> {
    /// Tags that some rule writes.
    pub wanted: HashSet<String>,
    /// What the rules say of tags that stay.
    pub orders: Vec<&'a Order>,
    /// Templates of the tags that rules copy with their images.
    pub related: Vec<String>,
}

impl Kept<'_> {
    /// Whether a tag is protected, or is a backup.
    fn protects(&self, tag: &str) -> bool {
        self.orders.iter().any(|order| {
            order.protect.iter().any(|glob| matches(glob, tag))
                || order.backup.as_ref().is_some_and(|backup| backup.made(tag))
        })
    }
}

/// What was found of one source.
struct Found {
    deletions: Vec<PlannedDeletion>,
    /// Tags of the destination that name images, without those that stay in any case.
    images: usize,
    /// The same, with tags that belong to images.
    tags: usize,
    listed: usize,
    listed_before: Option<usize>,
}

/// The deletions that are due in one repository, for all sources of it together. The first part of an error says whose
/// pruning failed.
///
/// # Errors
/// Fails if anything is not known for certain, or if a guard of one of the rules forbids what all of them would delete.
pub(super) async fn due(
    prunings: Vec<Pruning<'_>>,
    kept: &Kept<'_>,
    places: &Arc<Places>,
) -> Result<Vec<PlannedDeletion>, (usize, Error)> {
    let mut all = Vec::new();
    for (at, pruning) in prunings.iter().enumerate() {
        all.push(pruning.found(kept, places).await.map_err(|error| (at, error))?);
    }
    let mut seen = HashSet::new();
    for found in &mut all {
        let is_new = |planned: &PlannedDeletion| seen.insert(planned.deletion.destination.reference.clone());
        found.deletions.retain(is_new);
    }
    let images = seen.iter().flatten().filter(|tag| !belongs(tag, &kept.related)).count();
    for (at, (pruning, found)) in prunings.iter().zip(&all).enumerate() {
        let Found { listed, listed_before, .. } = *found;
        // Tags that belong to images must not make the images among them look few, and a list that hides them must not delete them all.
        for (due, total) in [(images, found.images), (seen.len(), found.tags)] {
            may_prune(Gone { due, total, listed, listed_before }, pruning.rule.order.limit).map_err(
                |spared| {
                    let error = Error::new(Kind::Conflict, spared.to_string()).help(spared.help());
                    (at, error.context(pruning.doing()))
                },
            )?;
        }
    }
    Ok(all.into_iter().flat_map(|found| found.deletions).collect())
}

impl Pruning<'_> {
    fn doing(&self) -> String {
        format!("delete what is gone from {}", self.destination.written)
    }

    /// What this source no longer has. Fails if anything is not known for certain.
    async fn found(&self, kept: &Kept<'_>, places: &Arc<Places>) -> Result<Found> {
        let doing = || self.doing();
        self.check_rivals()?;
        let listed: HashSet<String> = match &self.listed {
            Some(listed) => listed.iter().cloned().collect(),
            None => self.source_tags(places).await.context(doing)?,
        };
        let (journal, key) = (places.journal(), self.source.named().key());
        let listed_before = journal.and_then(|journal| journal.listed(&key));
        // A shorter list only counts from then on if something was deleted by it.
        if let Some(journal) = journal.filter(|_| listed_before.is_none_or(|before| listed.len() > before)) {
            journal.saw_listed(key, listed.len());
        }
        let mut found =
            Found { deletions: Vec::new(), images: 0, tags: 0, listed: listed.len(), listed_before };
        let there = match self.destination.repository.listed(&self.destination.written.to_string()).await {
            Ok(list) => list.tags,
            Err(error) if error.kind == Kind::NotFound => return Ok(found),
            Err(error) => return Err(error).context(doing),
        };
        let images = images(there);
        found.tags = images.iter().filter(|tag| !kept.protects(tag)).count();
        found.images =
            images.iter().filter(|tag| !kept.protects(tag) && !belongs(tag, &kept.related)).count();
        let is_gone =
            |tag: &String| !listed.contains(tag) && !kept.wanted.contains(tag) && !kept.protects(tag);
        let gone: Vec<String> = images.into_iter().filter(is_gone).collect();
        found.deletions = self.due_of(gone, (kept, places), &listed).await.context(doing)?;
        Ok(found)
    }

    /// Fails if a rule that is not planned may write to the same repository: nobody knows then what it wants.
    fn check_rivals(&self) -> Result<()> {
        let written = self.destination.written.to_string();
        let Some(rival) = self.rule.rivals.iter().find(|rival| matches(&rival.to, &written)) else {
            return Ok(());
        };
        let text =
            format!("delete what is gone from {written}: the rule `{}` may write there, too", rival.rule);
        Err(Error::new(Kind::Conflict, text).help("run the whole policy, without --rule"))
    }

    /// Asks the source for its tags. Fails if it does not tell.
    async fn source_tags(&self, places: &Arc<Places>) -> Result<HashSet<String>> {
        let mut reads = places.reads(self.source, None).await?;
        let at = reads.pop();
        let at = at.as_ref().unwrap_or(self.source);
        match at.repository.tags(&at.written.to_string()).await {
            Ok(tags) => Ok(tags.into_iter().collect()),
            Err(error) if error.kind == Kind::NotFound => Ok(HashSet::new()),
            Err(error) => Err(error.context(format!("list the tags of {}", at.written))),
        }
    }

    /// Of the tags that the source does not have, those that this rule deletes.
    async fn due_of(
        &self,
        gone: Vec<String>,
        (kept, places): (&Kept<'_>, &Arc<Places>),
        listed: &HashSet<String>,
    ) -> Result<Vec<PlannedDeletion>> {
        let named = match self.rule.order.prune {
            Prune::No => Vec::new(),
            Prune::Own => self.own(gone, places)?,
            Prune::All => {
                let others = self.of_others(places);
                let is_image = |tag: &String| !others.contains(tag) && !belongs(tag, &kept.related);
                let gone = gone.into_iter().filter(is_image).collect();
                let chosen = self.chosen(gone, listed).await?;
                chosen.into_iter().map(|tag| (tag, None)).collect()
            }
        };
        let repository = &self.destination.repository;
        let resolved = stream::iter(named).map(async |(tag, wrote): (String, Option<Digest>)| {
            let there = repository.resolve(Some(&tag), None).await?;
            let there = there.map(|there| there.descriptor.digest);
            let is_ours = wrote.is_none() || wrote == there;
            if !is_ours && there.is_some() {
                let to = self.destination.endpoint(Some(&tag));
                tracing::info!("{to} stays: somebody else has written to it since dray did");
            }
            Ok(there.filter(|_| is_ours).map(|digest| self.deletion(&tag, digest, listed.len())))
        });
        let resolved: Vec<Result<Option<PlannedDeletion>>> = resolved.buffered(AT_ONCE).collect().await;
        resolved.into_iter().filter_map(Result::transpose).collect()
    }

    /// The tags that dray copied from this source, and what they named then.
    fn own(&self, gone: Vec<String>, places: &Arc<Places>) -> Result<Vec<(String, Option<Digest>)>> {
        let repository = &self.destination.repository;
        let journal = places.journal().filter(|_| repository.memory().is_some());
        let Some(journal) = journal else {
            let text =
                format!("know which tags of {} dray wrote: no journal tells", self.destination.written);
            let help = "prune = \"all\" deletes every tag that the rule would have written";
            return Err(Error::new(Kind::Unsupported, text).help(help));
        };
        let mut wrote = journal.copied_from(&repository.key(), &self.source.named().key());
        Ok(gone.into_iter().filter_map(|tag| wrote.remove(&tag).map(|digest| (tag, Some(digest)))).collect())
    }

    /// The tags that dray copied from other repositories, which this source says nothing about.
    fn of_others(&self, places: &Arc<Places>) -> HashSet<String> {
        let repository = &self.destination.repository;
        let journal = places.journal().filter(|_| repository.memory().is_some());
        let key = self.source.named().key();
        journal.map(|journal| journal.copied_elsewhere(&repository.key(), &key)).unwrap_or_default()
    }

    /// The tags that the rule would have chosen if the source still had them. What a filter asks about such a tag is
    /// answered by the destination's image.
    async fn chosen(&self, gone: Vec<String>, listed: &HashSet<String>) -> Result<Vec<String>> {
        let Some(tags) = &self.rule.tags else { return Ok(gone) };
        if self.source.reference.is_some() || tags.filters.is_empty() {
            return Ok(Vec::new());
        }
        let only: HashSet<&String> = gone.iter().collect();
        let mut left: Vec<String> = listed.iter().chain(&gone).cloned().collect();
        left.sort();
        let all = left.clone();
        let at = &self.destination.repository;
        let images = RepositoryImages::new(at.clone(), HashMap::new()).towards(Some(at.clone()));
        let images = Arc::new(images);
        for BoundFilter { filter, config, label } in &tags.filters {
            let name = &self.source.repository.name;
            let given = Choice { repository: name, tags: &left, all: &all };
            let selection = filter.select(given, config, images.clone()).await;
            let selection = selection.context(|| format!("filter what is gone with {label}"))?;
            left = selection.kept.into_iter().map(|at| std::mem::take(&mut left[at])).collect();
        }
        Ok(left.into_iter().filter(|tag| only.contains(tag)).collect())
    }

    fn deletion(&self, tag: &str, digest: Digest, listed: usize) -> PlannedDeletion {
        let endpoint = |at: &OpenReference| -> Endpoint { at.endpoint(Some(tag)) };
        PlannedDeletion {
            deletion: Deletion {
                rule: self.rule.name.clone(),
                source: endpoint(self.source),
                destination: endpoint(self.destination),
                digest,
                backup: self.rule.order.backup.as_ref().map(Backup::to_string),
                unkept: false,
            },
            destination: self.destination.clone(),
            listed: Some(listed),
        }
    }
}

/// The tags that name images, sorted. Lists of referrers belong to their images.
fn images(listed: Vec<Listed>) -> Vec<String> {
    let names = listed.into_iter().map(|listed| listed.name);
    let mut tags: Vec<String> = names.filter(|tag| !is_fallback(tag)).collect();
    tags.sort();
    tags
}

/// The repositories that a glob of a rule matched in earlier runs and that the catalog no longer lists, each with its
/// destination. Fails if they are more than half of those that dray knows, because the catalog may be wrong then.
pub(super) async fn vanished(
    index: usize,
    rule: &BoundRule,
    source: &Source,
    found: &[Pair],
    places: &Arc<Places>,
) -> Result<Vec<Pair>> {
    let (true, true, Some(journal)) = (rule.order.prune != Prune::No, source.pattern, places.journal())
    else {
        return Ok(Vec::new());
    };
    let known = known(rule, source, journal);
    let listed: HashSet<&str> = found.iter().map(|pair| pair.source.repository.name.as_str()).collect();
    let (here, gone): (Vec<String>, Vec<String>) =
        known.into_iter().partition(|name| listed.contains(name.as_str()));
    if gone.len() > here.len() {
        let text = format!(
            "delete what is gone from {}: the catalog no longer lists {} of {} repositories",
            source.at.written,
            gone.len(),
            gone.len() + here.len()
        );
        let help = "if they are truly gone, delete them at the destination with `dray delete`";
        return Err(Error::new(Kind::Conflict, text).help(help));
    }
    let mut pairs = Vec::new();
    for name in gone {
        let at = source.matched(name);
        let to = destination(&names(&at), &rule.to, places).await?;
        pairs.push(Pair { rule: index, source: at, to: Target::Repository(to), gone: true });
    }
    Ok(pairs)
}

/// The repositories of a place from which dray copied and that the rule's glob matches, sorted.
fn known(rule: &BoundRule, source: &Source, journal: &Journal) -> Vec<String> {
    let Repository { place, name: glob } = &source.at.repository;
    let mut known = journal.copied_repositories(&place.key());
    known.retain(|name| matches(glob, name) && rule.repositories.wants(name));
    known.sort();
    known
}
