//! The planner: lists and filters tags, resolves them at both ends, and compares. The plan is a stream of items.

use super::{
    before::{Absent, Before},
    bind::BoundRule,
    choose::{Chosen, choose_at},
    expand::{Pair, Target, pairs},
    item::{Planned, REQUIRE},
    observe::{Comparison, wanted_at},
    partition::{Member, partition},
    prune::{Kept, Pruning, due, vanished},
    tags::{Dropped, KnownTags, Tags, renamed, tags},
    template::{destination, names},
};
use crate::trust::Demand;
use crate::{
    Error, Kind, Places, Result,
    http::reserve,
    place::{OpenReference, Place},
    schedule::{
        queue::Reservation,
        route::{PlanLimits, REPOSITORIES, Routes, TAGS},
    },
};
use dray_core::{
    Action, Descriptor, Digest, ImageChoice, Names, Shard, Wanted as ImageWanted,
    policy::{OnRefusal, Order, Prune},
};
use futures_util::{
    StreamExt,
    future::{join_all, poll_immediate},
    stream,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};
use tokio::{sync::mpsc, task::JoinSet};

struct Planner {
    rules: Vec<BoundRule>,
    places: Arc<Places>,
    limits: Routes<PlanLimits>,
    /// `None` means that all repositories are planned.
    shard: Option<Shard>,
    out: mpsc::Sender<Planned>,
}

/// The tags that a rule wants of a repository.
struct Wanted {
    tags: Vec<Option<String>>,
    /// What a list says that they name.
    named: HashMap<String, Descriptor>,
    /// Whether that is as good as asking for each tag.
    current: bool,
    /// All tags that the source lists, if the rule deletes what is gone.
    listed: Option<Vec<String>>,
    /// Whether the source could not be listed, and was left out.
    left_out: bool,
    /// The tags of the source that are made of digests and travel with their images.
    beneath: Option<Arc<HashSet<String>>>,
}

/// The receiver of the plan is gone.
struct Unwanted;

/// A tag that is to be compared.
struct Candidate {
    rule: usize,
    source: OpenReference,
    reference: Option<String>,
    /// The digest to which a policy pins the tag. It is read instead of what the tag names now.
    pin: Option<String>,
    destination: OpenReference,
    before: Before,
    /// What the list of the source says that the tag names.
    listed: Option<Descriptor>,
    /// Whether that is as good as asking for the tag.
    current: bool,
    /// The tags of the source that are made of digests and travel with their images. `None` means that it is to be asked.
    beneath: Option<Arc<HashSet<String>>>,
}

impl Candidate {
    /// The tag or digest that is read at the source.
    fn read(&self) -> Option<&str> {
        self.pin.as_deref().or(self.reference.as_deref())
    }

    /// What is known of it before it is read.
    fn known(&self) -> (&Before, Option<&Descriptor>) {
        (&self.before, self.listed.as_ref().filter(|_| self.pin.is_none()))
    }
}

/// Plans rules and sends the items into a channel. What cannot be planned is sent as a failure. The plan runs only a
/// limited number of copies ahead of its receiver: further ones wait until earlier ones are executed or dropped. A shard leaves out
/// the repositories of the others.
pub async fn plan(
    rules: Vec<BoundRule>,
    places: Arc<Places>,
    shard: Option<Shard>,
    out: mpsc::Sender<Planned>,
) {
    let planner = Arc::new(Planner { rules, places, limits: Routes::new(PlanLimits::new), shard, out });
    let parts = partition(&planner.rules, &planner.places).await;
    // Reserve all routes at the beginning, so that each of them leaves permits to the others.
    let expected: Vec<Vec<Reservation>> =
        parts.iter().map(|part| part.iter().filter_map(expected).collect()).collect();
    let parts = parts.into_iter().zip(expected);
    join_all(parts.map(|(part, expected)| planner.part(part, expected))).await;
}

fn expected(member: &Member<'_>) -> Option<Reservation> {
    let to = member.example.as_ref()?.place();
    reserve(member.source.at.place().http.as_ref(), to.http.as_ref())
}

/// The source and destination of a group. `None` means that the group has several pairs.
fn ends(group: &[Pair]) -> Option<(&Place, &Place)> {
    match group {
        [Pair { source, to: Target::Repository(to), .. }] => Some((source.place(), to.place())),
        _ => None,
    }
}

/// Groups pairs that may write to the same repository. They are planned together, so that colliding tags are found
/// before any is copied. A shard gets its own groups, all of whose destinations are known by one name.
fn group(pairs: Vec<Pair>, rules: &[BoundRule], shard: Option<Shard>) -> Vec<Vec<Pair>> {
    let by_tag: HashSet<String> = pairs
        .iter()
        .filter(|pair| matches!(pair.to, Target::ByTag))
        .map(|pair| rules[pair.rule].to.scheme.clone())
        .collect();
    let mut groups: HashMap<String, usize> = HashMap::new();
    let mut out: Vec<Vec<Pair>> = Vec::new();
    for pair in pairs {
        let scheme = &rules[pair.rule].to.scheme;
        // The destination of a template with `{tag}` is only known for each tag.
        let key = match &pair.to {
            Target::Repository(spot) if !by_tag.contains(scheme) => {
                format!("{}\n{}", spot.place().key(), spot.repository.name)
            }
            _ => scheme.clone(),
        };
        if shard.is_some_and(|shard| !shard.takes(&key)) {
            continue;
        }
        let at = *groups.entry(key).or_insert_with(|| {
            out.push(Vec::new());
            out.len() - 1
        });
        out[at].push(pair);
    }
    out
}

impl Planner {
    /// Plans sources that may lead to the same repository. Collisions must be found before anything is copied, so all
    /// catalogs of these sources must be read first.
    async fn part(self: &Arc<Self>, part: Vec<Member<'_>>, expected: Vec<Reservation>) {
        let found = part.into_iter().map(async |Member { index, rule, source, .. }| {
            (index, rule, source, pairs(index, rule, source, &self.places).await)
        });
        // If one of them could not be listed, nobody knows what it wants at a destination.
        let (mut all, mut whole) = (Vec::new(), true);
        for (index, rule, source, found) in join_all(found).await {
            match found {
                Ok(found) => {
                    let mut here = Vec::new();
                    for pair in found {
                        match pair {
                            Ok(pair) => here.push(pair),
                            Err((at, error)) => {
                                whole = false;
                                let (from, to) = (at.written.to_string(), rule.to.to_string());
                                if self.failed(rule, (from, to), error, false).await.is_err() {
                                    return;
                                }
                            }
                        }
                    }
                    match vanished(index, rule, source, &here, &self.places).await {
                        Ok(gone) => here.extend(gone),
                        Err(error) => {
                            whole = false;
                            let (from, to) = (source.at.written.to_string(), rule.to.to_string());
                            if self.failed(rule, (from, to), error, true).await.is_err() {
                                return;
                            }
                        }
                    }
                    all.extend(here);
                }
                Err(error) => {
                    whole = false;
                    let (from, to) = (source.at.written.to_string(), rule.to.to_string());
                    if self.failed(rule, (from, to), error, false).await.is_err() {
                        return;
                    }
                }
            }
        }
        let (mut at, mut ways) = (HashMap::new(), Vec::new());
        for group in group(all, &self.rules, self.shard) {
            let ends = ends(&group);
            let at = *at.entry(ends.map(|(from, to)| from.route_to(to))).or_insert_with(|| {
                let expected = ends.and_then(|(from, to)| reserve(from.http.as_ref(), to.http.as_ref()));
                ways.push((expected, Vec::new()));
                ways.len() - 1
            });
            ways[at].1.push(group);
        }
        // From here on, each route has its own reservation.
        drop(expected);
        let ways = ways.into_iter().map(async |(_expected, groups)| {
            let planned = async |group: Vec<Pair>| {
                let limits = ends(&group).map(|(from, to)| self.limits(from, to));
                let _turn = match &limits {
                    // The semaphore is never closed.
                    Some(limits) => limits.repositories.acquire().await.ok(),
                    None => None,
                };
                self.group(group, whole).await;
            };
            stream::iter(groups).for_each_concurrent(REPOSITORIES, planned).await;
        });
        join_all(ways).await;
    }

    async fn send(&self, planned: Planned) -> Result<(), Unwanted> {
        self.out.send(planned).await.map_err(|_| Unwanted)
    }

    /// The planning limits of the route between two places.
    fn limits(&self, from: &Place, to: &Place) -> Arc<PlanLimits> {
        self.limits.of(from.route_to(to))
    }

    /// Sends an item. A copy first waits until fewer copies of its route are waiting to be executed.
    async fn send_along(&self, mut planned: Planned) -> Result<(), Unwanted> {
        if let Planned::Copy(planned) = &mut planned
            && planned.copy.action == Action::Copy
        {
            let limits = self.limits(&planned.source.place, &planned.destination.place);
            // The semaphore is never closed.
            planned.lead = limits.lead.clone().acquire_owned().await.ok();
        }
        self.send(planned).await
    }

    /// Sends what could not be planned: something of a rule, or with `deletes` only what it is to delete.
    async fn failed(
        &self,
        rule: &BoundRule,
        (source, destination): (String, String),
        error: Error,
        deletes: bool,
    ) -> Result<(), Unwanted> {
        let rule = rule.name.clone();
        self.send(Planned::Failed { rule, source, destination, error, deletes }).await
    }

    async fn group(self: &Arc<Self>, group: Vec<Pair>, whole: bool) {
        // If the receiver is gone, planning ends and there is nothing to report.
        let _ = match &group[..] {
            [Pair { rule, source, to: Target::Repository(destination), gone: false }]
                if self.keeps_tags(destination).await =>
            {
                self.alone(*rule, source.clone(), destination.clone(), whole).await
            }
            _ => self.together(group, whole).await,
        };
    }

    /// Whether each tag gets its own name at the destination.
    async fn keeps_tags(&self, destination: &OpenReference) -> bool {
        let many = destination.place().capabilities().await.is_ok_and(|capabilities| capabilities.many);
        many && destination.reference.is_none()
    }

    /// Plans a repository that only one source writes to: each tag is sent as soon as it is compared.
    async fn alone(
        self: &Arc<Self>,
        index: usize,
        source: OpenReference,
        destination: OpenReference,
        whole: bool,
    ) -> Result<(), Unwanted> {
        let rule = &self.rules[index];
        let Wanted { tags, mut named, current, listed, beneath, .. } = match self
            .wanted_tags(rule, &source, Some(&destination))
            .await?
        {
            Ok(tags) => tags,
            Err(error) => {
                return self
                    .failed(rule, (source.written.to_string(), destination.written.to_string()), error, false)
                    .await;
            }
        };
        if rule.order.prune != Prune::No {
            let wanted = tags.iter().flatten().cloned().collect();
            let kept = Kept { wanted, orders: vec![&rule.order], related: self.related() };
            let pruning = Pruning { rule, source: &source, destination: &destination, listed };
            self.prune(vec![pruning], &kept, whole).await?;
        }
        let memory = destination.repository.memory();
        let mut seen = memory.map(|(journal, key)| journal.tags(&key)).unwrap_or_default();
        // If the journal knows at least half of the tags, most exist at the destination, and a list would spare few
        // requests, unless it says what they name.
        let mostly = seen.len() * 2 >= tags.len() && !destination.place().lists_digests(tags.len()).await;
        let known =
            if mostly && !seen.is_empty() { KnownTags::Unknown } else { KnownTags::of(&destination).await };
        let mut known = known;
        let candidates = tags.into_iter().map(|reference| {
            let tag = destination.reference.as_deref().or(reference.as_deref());
            let (absent, listed) = match (&mut known, tag) {
                (KnownTags::Nothing, _) => (Absent::Repository, None),
                (KnownTags::All(known), Some(tag)) if !tag.contains(':') => match known.remove(tag) {
                    None => (Absent::Tag, None),
                    Some(listed) => (Absent::Unknown, listed),
                },
                (KnownTags::Some(known), Some(tag)) => (Absent::Unknown, known.remove(tag).flatten()),
                _ => (Absent::Unknown, None),
            };
            let before = Before { absent, tag: tag.and_then(|tag| seen.remove(tag)), listed };
            Candidate {
                rule: index,
                source: source.clone(),
                pin: reference.as_deref().and_then(|tag| rule.pinned(tag)).map(Digest::to_string),
                listed: reference.as_ref().and_then(|tag| named.remove(tag)),
                current,
                beneath: beneath.clone(),
                reference,
                destination: destination.clone(),
                before,
            }
        });
        let compared = |candidate| self.clone().compared(candidate);
        let mut planned = stream::iter(candidates).map(compared).buffered(TAGS);
        while let Some(planned) = planned.next().await {
            self.send_along(planned).await?;
        }
        Ok(())
    }

    /// Compares a candidate in its own task, which continues while the plan waits for its receiver. Otherwise its
    /// pending request would hold a slot at a registry that the receiver may be waiting for.
    async fn compared(self: Arc<Self>, candidate: Candidate) -> Planned {
        let mut comparing = Box::pin(async move {
            let ends = [candidate.source.place(), candidate.destination.place()];
            let limits = self.limits(ends[0], ends[1]);
            let _permit = limits.compare(|| ends.iter().map(|place| place.width()).sum()).await;
            let require = self.rules[candidate.rule].require.clone();
            self.candidate(candidate, None, require, None).await
        });
        // What two lists tell needs no request, and so no task: of a million tags, most are so.
        if let Some(planned) = poll_immediate(&mut comparing).await {
            return planned;
        }
        // Dropping the set also cancels the task.
        let mut task = JoinSet::new();
        task.spawn(comparing);
        match task.join_next().await {
            Some(Ok(planned)) => planned,
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None => unreachable!("a task was spawned"),
        }
    }

    /// Plans repositories that several sources write to: all tags are resolved before any item is sent.
    async fn together(&self, pairs: Vec<Pair>, mut whole: bool) -> Result<(), Unwanted> {
        let (mut candidates, mut prunes) = (Vec::new(), Vec::new());
        let orders = pairs.iter().map(|pair| &self.rules[pair.rule].order).collect();
        for Pair { rule: index, source, to, gone } in pairs {
            let rule = &self.rules[index];
            if gone {
                prunes.push((index, source, to, None));
                continue;
            }
            let only = match &to {
                Target::Repository(only) => Some(only),
                Target::ByTag => None,
            };
            let wanted = self.wanted_tags(rule, &source, only).await?;
            let Wanted { tags, mut named, current, listed, left_out, beneath } = match wanted {
                Ok(tags) => tags,
                Err(error) => {
                    whole = false;
                    self.failed(rule, (source.written.to_string(), rule.to.to_string()), error, false)
                        .await?;
                    continue;
                }
            };
            whole &= !left_out;
            if rule.order.prune != Prune::No
                && let Target::Repository(at) = &to
            {
                prunes.push((index, source.clone(), Target::Repository(at.clone()), listed));
            }
            let renamed = match renamed(rule, &source, &tags).await {
                Ok(renamed) => renamed,
                Err(error) => {
                    whole = false;
                    let (from, to) = (source.written.to_string(), rule.to.to_string());
                    self.failed(rule, (from, to), error, false).await?;
                    continue;
                }
            };
            for reference in tags {
                let destination = match &to {
                    Target::Repository(spot) => Ok(spot.clone()),
                    Target::ByTag => {
                        let tag = reference.as_deref().unwrap_or("latest");
                        let kept = || Ok(tag.replace(':', "-"));
                        match renamed.get(tag).cloned().unwrap_or_else(kept) {
                            Ok(tag) => {
                                let names = Names { tag: Some(&tag), ..names(&source) };
                                destination(&names, &rule.to, &self.places).await
                            }
                            Err(error) => Err(error),
                        }
                    }
                };
                match destination {
                    Ok(destination) => candidates.push(Candidate {
                        before: Before::of(&destination, reference.as_deref()),
                        rule: index,
                        source: source.clone(),
                        pin: reference.as_deref().and_then(|tag| rule.pinned(tag)).map(Digest::to_string),
                        listed: reference.as_ref().and_then(|tag| named.remove(tag)),
                        current,
                        beneath: beneath.clone(),
                        reference,
                        destination,
                    }),
                    Err(error) => {
                        whole = false;
                        self.failed(rule, (source.written.to_string(), rule.to.to_string()), error, false)
                            .await?
                    }
                }
            }
        }
        self.prune_together(prunes, &candidates, orders, whole).await?;
        let resolved = stream::iter(candidates).map(async |candidate: Candidate| {
            let wanted = wanted_at(&self.rules[candidate.rule].wanted, &candidate.destination).await;
            let chosen = match wanted {
                Ok(wanted) => {
                    let (source, known) = (&candidate.source, candidate.known());
                    choose_at(&self.places, source, candidate.read(), &wanted, known).await
                }
                Err(error) => Err(error),
            };
            (candidate, chosen)
        });
        let resolved: Vec<_> = resolved.buffered(TAGS).collect().await;
        let mut by_destination: HashMap<_, Vec<_>> = HashMap::new();
        let mut order = Vec::new();
        for (candidate, resolved) in resolved {
            let Candidate { destination, reference, .. } = &candidate;
            // In a place for one image, all candidates have the same name.
            let many = destination.place().capabilities().await.is_ok_and(|capabilities| capabilities.many);
            let tag = destination.reference.clone().or_else(|| reference.clone()).filter(|_| many);
            let key = (destination.place().key(), destination.repository.name.clone(), tag);
            let entry = by_destination.entry(key.clone()).or_default();
            if entry.is_empty() {
                order.push(key);
            }
            entry.push((candidate, resolved));
        }
        for key in order {
            for planned in self.settle(by_destination.remove(&key).unwrap_or_default()).await {
                self.send_along(planned).await?;
            }
        }
        Ok(())
    }

    /// Plans what is to be deleted in repositories that several sources write to.
    async fn prune_together(
        &self,
        prunes: Vec<(usize, OpenReference, Target, Option<Vec<String>>)>,
        candidates: &[Candidate],
        orders: Vec<&Order>,
        whole: bool,
    ) -> Result<(), Unwanted> {
        let mut by_destination: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (index, source, to, listed) in prunes {
            if let Target::Repository(to) = to {
                let key = (to.place().key(), to.repository.name.clone());
                by_destination.entry(key).or_default().push((&self.rules[index], source, to, listed));
            }
        }
        for ((place, repository), prunes) in by_destination {
            let is_here = |candidate: &&Candidate| {
                let to = &candidate.destination;
                to.place().key() == place && to.repository.name == repository
            };
            let tag = |candidate: &Candidate| {
                candidate.destination.reference.clone().or_else(|| candidate.reference.clone())
            };
            let wanted = candidates.iter().filter(is_here).filter_map(tag).collect();
            let kept = Kept { wanted, orders: orders.clone(), related: self.related() };
            let prunings = prunes.iter().map(|(rule, source, destination, listed)| Pruning {
                rule,
                source,
                destination,
                listed: listed.clone(),
            });
            self.prune(prunings.collect(), &kept, whole).await?;
        }
        Ok(())
    }

    /// The templates of the tags that rules copy with their images.
    fn related(&self) -> Vec<String> {
        self.rules.iter().flat_map(|rule| rule.wanted.related.iter().cloned()).collect()
    }

    /// Plans what is to be deleted in one repository, of which all sources are given. `whole` says whether all is known that
    /// it gets; otherwise nothing is deleted.
    async fn prune(&self, prunings: Vec<Pruning<'_>>, kept: &Kept<'_>, whole: bool) -> Result<(), Unwanted> {
        let names: Vec<(&BoundRule, String, String)> = prunings
            .iter()
            .map(|one| (one.rule, one.source.written.to_string(), one.destination.written.to_string()))
            .collect();
        let due = match whole {
            true => due(prunings, kept, &self.places).await,
            false => {
                let to = names.first().map_or("", |(_, _, to)| to);
                let text = format!("delete what is gone from {to}: not all that it gets is known");
                Err((0, Error::new(Kind::Conflict, text).help("mend what else failed, and run it again")))
            }
        };
        match due {
            Ok(due) => {
                for deletion in due {
                    self.send(Planned::Delete(Box::new(deletion))).await?;
                }
                Ok(())
            }
            Err((at, error)) => match names.into_iter().nth(at) {
                Some((rule, from, to)) => self.failed(rule, (from, to), error, true).await,
                None => Ok(()),
            },
        }
    }

    /// Decides between the candidates for one tag: they have the same content, or they collide.
    async fn settle(&self, candidates: Vec<(Candidate, Result<(Chosen, OpenReference)>)>) -> Vec<Planned> {
        // What is gone since it was listed is no reason to leave out what others write to the same tag.
        let is_gone = |(candidate, chosen): &(Candidate, Result<_>)| {
            let missing = chosen.as_ref().is_err_and(|error: &Error| error.kind == Kind::NotFound);
            missing && self.was_listed(candidate)
        };
        let (gone, mut candidates): (Vec<_>, Vec<_>) = candidates.into_iter().partition(is_gone);
        let mut planned = Vec::new();
        for (candidate, chosen) in gone {
            planned.push(self.candidate(candidate, Some(chosen), Vec::new(), None).await);
        }
        let mut contents: Vec<(String, &ImageChoice)> = candidates
            .iter()
            .filter_map(|(candidate, resolved)| {
                let resolved = resolved.as_ref().ok()?;
                Some((resolved.0.descriptor.digest.to_string(), &self.rules[candidate.rule].wanted.choice))
            })
            .collect();
        contents.dedup();
        if contents.len() > 1 {
            let sources: Vec<String> = candidates
                .iter()
                .map(|(candidate, _)| candidate.source.endpoint(candidate.reference.as_deref()).display)
                .collect();
            let collide = |(candidate, _): (Candidate, _)| {
                let to = candidate.destination.endpoint(candidate.reference.as_deref()).display;
                let text = format!(
                    "plan {to}: {} would be written to it, with different content",
                    sources.join(" and ")
                );
                let error = Error::invalid(text)
                    .help("tell them apart in `to`, for instance with {name} or {path}, or narrow the tags");
                self.failure(&candidate, error)
            };
            planned.extend(candidates.into_iter().map(collide));
            return planned;
        }
        // If several rules give the same content, it is copied once.
        let failed = candidates.iter().position(|(_, resolved)| resolved.is_err());
        let first = failed.unwrap_or(0);
        if candidates.is_empty() {
            return planned;
        }
        // What one of the rules demands holds for the one copy, and what one of them wants beside the image comes along.
        let rules: Vec<&BoundRule> =
            candidates.iter().map(|(candidate, _)| &self.rules[candidate.rule]).collect();
        let require = rules.iter().flat_map(|rule| rule.require.iter().cloned()).collect();
        let (mut candidate, resolved) = candidates.swap_remove(first);
        let own = &self.rules[candidate.rule].wanted;
        let joined = rules.iter().fold(own.clone(), |wanted, rule| wanted.with(&rule.wanted));
        let joined = (joined != *own).then_some(joined);
        if joined.is_some() {
            // What is known of the tags of the source is what its own rule asked.
            candidate.beneath = None;
        }
        planned.push(self.candidate(candidate, Some(resolved), require, joined).await);
        planned
    }

    fn failure(&self, candidate: &Candidate, error: Error) -> Planned {
        Planned::Failed {
            rule: self.rules[candidate.rule].name.clone(),
            source: candidate.source.endpoint(candidate.reference.as_deref()).display,
            destination: candidate.destination.endpoint(candidate.reference.as_deref()).display,
            error,
            deletes: false,
        }
    }

    /// Compares a candidate. `joined` is what its rule and others that write the same tag want together; `None` means that it is what
    /// its own rule wants.
    async fn candidate(
        &self,
        candidate: Candidate,
        chosen: Option<Result<(Chosen, OpenReference)>>,
        require: Vec<Demand>,
        joined: Option<ImageWanted>,
    ) -> Planned {
        let rule = &self.rules[candidate.rule];
        let Candidate { source, reference, destination, before, .. } = &candidate;
        let compared = async {
            let wanted = &wanted_at(joined.as_ref().unwrap_or(&rule.wanted), destination).await?;
            let (reference, pin) = (reference.as_deref(), candidate.pin.as_deref());
            let choose = |known| choose_at(&self.places, source, candidate.read(), wanted, known);
            let compare = async |(chosen, at): (Chosen, OpenReference)| {
                let comparison = Comparison {
                    rule: &rule.name,
                    source: &at,
                    reference,
                    pin,
                    tag: None,
                    destination,
                    wanted,
                    require: &require,
                    always: false,
                    before,
                    beneath: candidate.beneath.as_deref(),
                };
                comparison.planned(chosen).await
            };
            let chosen = match chosen {
                Some(chosen) => chosen?,
                None => choose(candidate.known()).await?,
            };
            let mut planned = compare(chosen).await?;
            // A list is enough to see that nothing has changed. What is to be copied is asked for itself, because a list may
            // be older than what the tag names now. Of a current list it is enough that the image is still there.
            if let Some(listed) = candidate.known().1.filter(|_| planned.copy.action == Action::Copy) {
                let is_there = candidate.current && planned.read_listed(listed).await?;
                if !is_there {
                    planned = compare(choose((before, None)).await?).await?;
                }
            }
            rule.allowed(planned)
        };
        match compared.await {
            Ok(planned) => Planned::Copy(Box::new(planned)),
            // The tag existed when the tags were listed, and has been deleted since.
            Err(error) if error.kind == Kind::NotFound && self.was_listed(&candidate) => {
                let from = candidate.source.endpoint(candidate.reference.as_deref());
                tracing::warn!("{} is left out: it was listed, and is not there", from.display);
                Planned::Dropped {
                    rule: rule.name.clone(),
                    source: from,
                    by: "the registry, after it was listed".into(),
                    why: None,
                }
            }
            Err(error) if error.kind == Kind::Refused && rule.on_refusal == OnRefusal::Skip => {
                let from = candidate.source.endpoint(candidate.reference.as_deref());
                tracing::info!("{} is left out: failed to {error}", from.display);
                let (rule, by) = (rule.name.clone(), REQUIRE.to_owned());
                Planned::Dropped { rule, source: from, by, why: Some(error.text) }
            }
            Err(error) => self.failure(&candidate, error),
        }
    }

    /// Whether a tag was found in a list, and not named by the user.
    fn was_listed(&self, candidate: &Candidate) -> bool {
        let rule = &self.rules[candidate.rule];
        candidate.reference.as_ref().is_some_and(|tag| !rule.is_literal(tag, &candidate.source))
    }

    /// Whether another rule of the same source asks for the tags that hold signatures.
    fn copies_signatures(&self, rule: &BoundRule, source: &OpenReference) -> bool {
        let asks = |other: &BoundRule| {
            let filters = other.tags.iter().flat_map(|tags| &tags.filters);
            filters.clone().any(|filter| filter.label.contains("sha256-")) || other.tags.is_none()
        };
        let others = self.rules.iter().filter(|other| other.name != rule.name);
        others
            .filter(|other| asks(other))
            .any(|other| other.from.iter().any(|from| from.at.written == source.written))
    }

    /// The tags of a repository that a rule wants. Tags that its filters drop are sent as items.
    async fn wanted_tags(
        &self,
        rule: &BoundRule,
        source: &OpenReference,
        destination: Option<&OpenReference>,
    ) -> Result<Result<Wanted>, Unwanted> {
        // Tags are listed where the name leads, and not at mirrors, which may have fewer.
        let at = self.places.reads(source, None).await.map(|mut reads| reads.pop());
        let listed = match at {
            Ok(at) => tags(rule, at.as_ref().unwrap_or(source), destination).await,
            Err(error) => Err(error),
        };
        let mut listed = match listed {
            Ok(listed) => listed,
            Err(error) => return Ok(Err(error)),
        };
        if listed.signatures > 0 && !self.copies_signatures(rule, source) {
            tracing::warn!(
                help = "a rule of its own with tags = \"sha256-*\" copies the signatures of all images",
                "the filters of the rule `{}` drop tags of {} that hold signatures of cosign (sha256-….sig and the like): {}",
                rule.name,
                source.written,
                listed.signatures
            );
        }
        let empty = match listed.kept.is_empty() {
            true => rule.empty(source, listed.dropped.len()),
            false => Ok(()),
        };
        for Dropped { tag, by, why } in std::mem::take(&mut listed.dropped) {
            let source = source.endpoint(Some(&tag));
            self.send(Planned::Dropped { rule: rule.name.clone(), source, by, why }).await?;
        }
        let Tags { kept: tags, named, current, listed, left_out, beneath, .. } = listed;
        let wanted = Wanted { tags, named, current, listed, left_out, beneath };
        Ok(empty.map(|()| wanted))
    }
}
