//! Planning: list, filter, resolve at both ends, compare. A plan is a stream.

use crate::{
    BoundRule, Error, Kind, Place, Places, Planned, Result,
    contract::Page,
    error::Context,
    http::{Reservation, reserve},
    journal::RepositoryKey,
    lock,
    place::graph::{RepositoryImages, names as listed_names},
    place::{OpenReference, Route},
    plan::bind::destination,
    plan::compare::{Absent, Before, ImageChoice, Resolved, Wanted, compare, resolve},
    plan::expand::{Pair, Target, names, pairs},
    plan::partition::{Member, partition},
};
use dray_core::{Action, Names};
use futures_util::{StreamExt, future::join_all, stream};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc},
    task::JoinSet,
};

/// Repositories of one way that are planned at once.
const REPOSITORIES: usize = 32;
/// Tags of one way that are compared at once, at most: enough for two registries to be asked as much as they
/// allow. Each that waits for its turn at a registry has an instance of a transport.
const TAGS: usize = 64;
/// Copies of one way that are planned before they begin.
const AHEAD: usize = 256;

struct Planner {
    rules: Vec<BoundRule>,
    places: Arc<Places>,
    limits: Mutex<HashMap<Route, Arc<Limits>>>,
    out: mpsc::Sender<Planned>,
}

/// What a way may have under way. Each has its own, so a registry that does not answer holds up no plan of
/// others.
struct Limits {
    repositories: Semaphore,
    comparing: Semaphore,
    /// How many places there have been.
    places: AtomicUsize,
    ahead: Arc<Semaphore>,
}

impl Limits {
    fn new() -> Self {
        Limits {
            repositories: Semaphore::new(REPOSITORIES),
            comparing: Semaphore::new(0),
            places: AtomicUsize::new(0),
            ahead: Arc::new(Semaphore::new(AHEAD)),
        }
    }

    /// A place among those that compare tags.
    async fn place(&self, ends: [&Place; 2]) -> Option<SemaphorePermit<'_>> {
        self.open(ends);
        // It is never closed.
        let place = self.comparing.acquire().await.ok();
        self.open(ends);
        place
    }

    /// As many as both ends answer at once, as far as that is known now.
    fn open(&self, ends: [&Place; 2]) {
        let places = ends.into_iter().map(Place::width).sum::<usize>().min(TAGS);
        let before = self.places.fetch_max(places, Ordering::Relaxed);
        self.comparing.add_permits(places.saturating_sub(before));
    }
}

/// Nobody wants the rest of the plan.
struct Unwanted;

/// What is known of a destination's tags.
enum KnownTags {
    Unknown,
    /// There is no such repository.
    Nothing,
    Tags(HashSet<String>),
}

/// A tag that is to be compared.
struct Candidate {
    rule: usize,
    source: OpenReference,
    reference: Option<String>,
    destination: OpenReference,
    before: Before,
}

/// Plans some rules, into a channel. What cannot be planned comes out as a failure. A plan runs ahead of those
/// who take it by so much: copies are to be carried out, or dropped, before all others come.
pub async fn plan(rules: Vec<BoundRule>, places: Arc<Places>, out: mpsc::Sender<Planned>) {
    let planner = Arc::new(Planner { rules, places, limits: Mutex::default(), out });
    let parts = partition(&planner.rules, &planner.places).await;
    // From the beginning, every way leaves something to all others.
    let expected: Vec<Vec<Reservation>> =
        parts.iter().map(|part| part.iter().filter_map(expected).collect()).collect();
    let parts = parts.into_iter().zip(expected);
    join_all(parts.map(|(part, expected)| planner.part(part, expected))).await;
}

fn expected(reach: &Member<'_>) -> Option<Reservation> {
    let to = &reach.example.as_ref()?.place;
    reserve(reach.source.spot.place.http.as_ref(), to.http.as_ref())
}

/// From where to where; none: several pairs are planned together.
fn ends(group: &[Pair]) -> Option<(&Place, &Place)> {
    match group {
        [Pair { source, to: Target::Repository(to), .. }] => Some((&source.place, &to.place)),
        _ => None,
    }
}

/// Repositories that are written from more than one source are planned together, so that two
/// tags that collide are found before either is copied.
fn group(pairs: Vec<Pair>, rules: &[BoundRule]) -> Vec<Vec<Pair>> {
    let by_tag: HashSet<String> = pairs
        .iter()
        .filter(|pair| matches!(pair.to, Target::ByTag))
        .map(|pair| rules[pair.rule].to.scheme.clone())
        .collect();
    let mut groups: HashMap<String, usize> = HashMap::new();
    let mut out: Vec<Vec<Pair>> = Vec::new();
    for pair in pairs {
        let scheme = &rules[pair.rule].to.scheme;
        // Where `{tag}` leads is known only tag by tag.
        let key = match &pair.to {
            Target::Repository(spot) if !by_tag.contains(scheme) => {
                format!("{}\n{}", spot.place.key(), spot.repository)
            }
            _ => scheme.clone(),
        };
        let at = *groups.entry(key).or_insert_with(|| {
            out.push(Vec::new());
            out.len() - 1
        });
        out[at].push(pair);
    }
    out
}

/// Whether a tag is a list of referrers (distribution specification, "Referrers Tag Schema").
fn is_fallback(tag: &str) -> bool {
    let hash = tag.strip_prefix("sha256-").or(tag.strip_prefix("sha512-"));
    hash.is_some_and(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether a tag is one that cosign gives to signatures, attestations and SBOMs (cosign, `SIGNATURE_SPEC.md`).
fn is_cosigns(tag: &str) -> bool {
    [".sig", ".att", ".sbom"].iter().any(|kind| tag.strip_suffix(kind).is_some_and(is_fallback))
}

impl Planner {
    /// Plans sources that may lead to the same repository: that must be known before any of them is copied, so all
    /// of their catalogs are waited for.
    async fn part(self: &Arc<Self>, part: Vec<Member<'_>>, expected: Vec<Reservation>) {
        let found = part.into_iter().map(async |Member { index, rule, source, .. }| {
            (rule, source, pairs(index, rule, source, &self.places).await)
        });
        let mut all = Vec::new();
        for (rule, source, found) in join_all(found).await {
            match found {
                Ok(found) => all.extend(found),
                Err(error) => {
                    let source = source.spot.written.to_string();
                    if self.failed(rule, source, rule.to.to_string(), error).await.is_err() {
                        return;
                    }
                }
            }
        }
        let (mut at, mut ways) = (HashMap::new(), Vec::new());
        for group in group(all, &self.rules) {
            let ends = ends(&group);
            let at = *at.entry(ends.map(|(from, to)| from.route_to(to))).or_insert_with(|| {
                let expected = ends.and_then(|(from, to)| reserve(from.http.as_ref(), to.http.as_ref()));
                ways.push((expected, Vec::new()));
                ways.len() - 1
            });
            ways[at].1.push(group);
        }
        // Each way is expected by itself from here on.
        drop(expected);
        let ways = ways.into_iter().map(async |(_expected, groups)| {
            let planned = async |group: Vec<Pair>| {
                let limits = ends(&group).map(|(from, to)| self.limits(from, to));
                let _turn = match &limits {
                    // It is never closed.
                    Some(limits) => limits.repositories.acquire().await.ok(),
                    None => None,
                };
                self.group(group).await;
            };
            stream::iter(groups).for_each_concurrent(REPOSITORIES, planned).await;
        });
        join_all(ways).await;
    }

    async fn send(&self, planned: Planned) -> Result<(), Unwanted> {
        self.out.send(planned).await.map_err(|_| Unwanted)
    }

    /// The limits of the way from one place to another.
    fn limits(&self, from: &Place, to: &Place) -> Arc<Limits> {
        lock(&self.limits).entry(from.route_to(to)).or_insert_with(|| Arc::new(Limits::new())).clone()
    }

    /// A copy goes out when not too many of its way are waiting.
    async fn send_along(&self, mut planned: Planned) -> Result<(), Unwanted> {
        if let Planned::Copy(planned) = &mut planned
            && planned.copy.action == Action::Copy
        {
            let limits = self.limits(&planned.source.0, &planned.destination.0);
            // It is never closed.
            planned.ahead = limits.ahead.clone().acquire_owned().await.ok();
        }
        self.send(planned).await
    }

    async fn failed(
        &self,
        rule: &BoundRule,
        source: String,
        destination: String,
        error: Error,
    ) -> Result<(), Unwanted> {
        self.send(Planned::Failed { rule: rule.name.clone(), source, destination, error }).await
    }

    async fn group(self: &Arc<Self>, group: Vec<Pair>) {
        // Whoever stops listening ends the planning: there is nothing else to do about it.
        let _ = match &group[..] {
            [Pair { rule, source, to: Target::Repository(destination) }]
                if self.keeps_tags(destination).await =>
            {
                self.alone(*rule, source.clone(), destination.clone()).await
            }
            _ => self.together(group).await,
        };
    }

    /// Whether each tag has a name of its own at the destination.
    async fn keeps_tags(&self, destination: &OpenReference) -> bool {
        let many = destination.place.capabilities().await.is_ok_and(|capabilities| capabilities.many);
        many && destination.reference.is_none()
    }

    /// A repository that nothing else writes to: each tag goes out as soon as it is known.
    async fn alone(
        self: &Arc<Self>,
        index: usize,
        source: OpenReference,
        destination: OpenReference,
    ) -> Result<(), Unwanted> {
        let rule = &self.rules[index];
        let tags = match self.tags(rule, &source).await? {
            Ok(tags) => tags,
            Err(error) => {
                return self
                    .failed(rule, source.written.to_string(), destination.written.to_string(), error)
                    .await;
            }
        };
        let at = RepositoryKey::new(&destination.place, &destination.repository);
        let mut seen = destination.place.memory().map(|journal| journal.tags(&at)).unwrap_or_default();
        // Where the journal knows most, most of them are there, and are asked for one by one anyway.
        let mostly = seen.len() * 2 >= tags.len();
        let known =
            if mostly && !seen.is_empty() { KnownTags::Unknown } else { self.known(&destination).await };
        let candidates = tags.into_iter().map(|reference| {
            let tag = destination.reference.as_deref().or(reference.as_deref());
            let absent = match (&known, tag) {
                (KnownTags::Nothing, _) => Absent::Repository,
                (KnownTags::Tags(known), Some(tag)) if !tag.contains(':') && !known.contains(tag) => {
                    Absent::Tag
                }
                _ => Absent::Unknown,
            };
            let before = Before { absent, tag: tag.and_then(|tag| seen.remove(tag)) };
            Candidate {
                rule: index,
                source: source.clone(),
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

    /// In a task of its own, which goes on while the plan waits to be carried out: a request that
    /// nobody drives would keep the place at its registry for which that waits.
    async fn compared(self: Arc<Self>, candidate: Candidate) -> Planned {
        // What is dropped with it is ended with it.
        let mut task = JoinSet::new();
        task.spawn(async move {
            let ends = [&*candidate.source.place, &*candidate.destination.place];
            let limits = self.limits(ends[0], ends[1]);
            let _place = limits.place(ends).await;
            self.candidate(candidate, None).await
        });
        match task.join_next().await {
            Some(Ok(planned)) => planned,
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None => unreachable!("a task was spawned"),
        }
    }

    /// Repositories that are written from several sources: all is resolved before any goes out.
    async fn together(&self, pairs: Vec<Pair>) -> Result<(), Unwanted> {
        let mut candidates = Vec::new();
        for Pair { rule: index, source, to } in pairs {
            let rule = &self.rules[index];
            let tags = match self.tags(rule, &source).await? {
                Ok(tags) => tags,
                Err(error) => {
                    self.failed(rule, source.written.to_string(), rule.to.to_string(), error).await?;
                    continue;
                }
            };
            for reference in tags {
                let destination = match &to {
                    Target::Repository(spot) => Ok(spot.clone()),
                    Target::ByTag => {
                        let tag = reference.as_deref().unwrap_or("latest").replace(':', "-");
                        let names = Names { tag: Some(&tag), ..names(&source) };
                        destination(&names, &rule.to, &self.places).await
                    }
                };
                match destination {
                    Ok(destination) => candidates.push(Candidate {
                        before: Before::of(&destination, reference.as_deref()),
                        rule: index,
                        source: source.clone(),
                        reference,
                        destination,
                    }),
                    Err(error) => {
                        self.failed(rule, source.written.to_string(), rule.to.to_string(), error).await?
                    }
                }
            }
        }
        let resolved = stream::iter(candidates).map(async |candidate: Candidate| {
            let wanted = self.rules[candidate.rule].wanted.at(&candidate.destination).await;
            let resolved = match wanted {
                Ok(wanted) => {
                    let Candidate { source, reference, before, .. } = &candidate;
                    resolve(source, reference.as_deref(), &wanted, before).await
                }
                Err(error) => Err(error),
            };
            (candidate, resolved)
        });
        let resolved: Vec<_> = resolved.buffered(TAGS).collect().await;
        let mut by_destination: HashMap<_, Vec<_>> = HashMap::new();
        let mut order = Vec::new();
        for (candidate, resolved) in resolved {
            let Candidate { destination, reference, .. } = &candidate;
            // Of a place for one image, every image is the same one.
            let many = destination.place.capabilities().await.is_ok_and(|capabilities| capabilities.many);
            let tag = destination.reference.clone().or_else(|| reference.clone()).filter(|_| many);
            let key = (destination.place.key(), destination.repository.clone(), tag);
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

    /// Candidates for one tag: one content, or a collision.
    async fn settle(&self, mut candidates: Vec<(Candidate, Result<Resolved>)>) -> Vec<Planned> {
        let mut contents: Vec<(String, &ImageChoice)> = candidates
            .iter()
            .filter_map(|(candidate, resolved)| {
                let resolved = resolved.as_ref().ok()?;
                Some((resolved.descriptor.digest.to_string(), &self.rules[candidate.rule].wanted.choice))
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
            return candidates.into_iter().map(collide).collect();
        }
        // The same content from several rules is copied once.
        let failed = candidates.iter().position(|(_, resolved)| resolved.is_err());
        let first = failed.unwrap_or(0);
        if candidates.is_empty() {
            return Vec::new();
        }
        let (candidate, resolved) = candidates.swap_remove(first);
        vec![self.candidate(candidate, Some(resolved)).await]
    }

    fn failure(&self, candidate: &Candidate, error: Error) -> Planned {
        Planned::Failed {
            rule: self.rules[candidate.rule].name.clone(),
            source: candidate.source.endpoint(candidate.reference.as_deref()).display,
            destination: candidate.destination.endpoint(candidate.reference.as_deref()).display,
            error,
        }
    }

    async fn candidate(&self, candidate: Candidate, resolved: Option<Result<Resolved>>) -> Planned {
        let rule: &Wanted = &self.rules[candidate.rule].wanted;
        let Candidate { source, reference, destination, before, .. } = &candidate;
        let compared = async {
            let wanted = &rule.at(destination).await?;
            let resolved = match resolved {
                Some(resolved) => resolved?,
                None => resolve(source, reference.as_deref(), wanted, before).await?,
            };
            compare(source, reference.as_deref(), destination, wanted, resolved, before).await
        };
        match compared.await {
            Ok(planned) => Planned::Copy(Box::new(planned)),
            // It was there when the tags were listed.
            Err(error) if error.kind == Kind::NotFound && self.was_listed(&candidate) => {
                let from = candidate.source.endpoint(candidate.reference.as_deref());
                tracing::warn!("{} is left out: it was listed, and is not there", from.display);
                Planned::Dropped {
                    rule: rule.rule.clone(),
                    source: from,
                    by: "the registry, after it was listed".into(),
                }
            }
            Err(error) => self.failure(&candidate, error),
        }
    }

    /// Whether a tag comes from a list, rather than from somebody who wants just that one.
    fn was_listed(&self, candidate: &Candidate) -> bool {
        let tags = self.rules[candidate.rule].tags.as_ref();
        let literal = |tag: &String| tags.is_some_and(|tags| tags.literals.contains(tag));
        candidate.source.reference.is_none() && candidate.reference.as_ref().is_some_and(|tag| !literal(tag))
    }

    /// The tags that a rule wants of a repository; none in the list: the only image.
    async fn tags(
        &self,
        rule: &BoundRule,
        source: &OpenReference,
    ) -> Result<Result<Vec<Option<String>>>, Unwanted> {
        if let Some(reference) = &source.reference {
            return Ok(Ok(vec![Some(reference.clone())]));
        }
        let (literals, filters) = match &rule.tags {
            Some(tags) if tags.filters.is_empty() => {
                return Ok(Ok(tags.literals.iter().cloned().map(Some).collect()));
            }
            Some(tags) => (tags.literals.as_slice(), tags.filters.as_slice()),
            None => (&[][..], &[][..]),
        };
        let from = source.written.to_string();
        let listed = listed_names(&from, false, |next| {
            source.place.transport.tags(&source.place, &source.repository, next)
        })
        .await;
        let mut tags = match listed.context(|| format!("list the tags of {}", source.written)) {
            Ok(tags) => tags,
            // A place without tags holds one image.
            Err(error) if error.kind == Kind::Unsupported => return Ok(Ok(vec![None])),
            // A catalog may name what nobody may see, or what has no tags any more.
            Err(error)
                if matches!(error.kind, Kind::NotFound | Kind::Denied | Kind::Unauthorized)
                    && rule.from.iter().any(|from| from.pattern) =>
            {
                tracing::warn!("{} is left out: failed to {error}", source.written);
                return Ok(Ok(Vec::new()));
            }
            Err(error) => return Ok(Err(error)),
        };
        // Lists of referrers are no images: with `referrers` they are merged, and otherwise left alone.
        tags.retain(|tag| !is_fallback(tag));
        let before = tags.iter().filter(|tag| is_cosigns(tag)).count();
        let images =
            Arc::new(RepositoryImages { place: source.place.clone(), repository: source.repository.clone() });
        for filter in filters {
            let kept = filter.filter.select(&source.repository, &tags, &filter.config, images.clone()).await;
            let kept = match kept
                .context(|| format!("filter the tags of {} with {}", source.written, filter.label))
            {
                Ok(kept) => kept,
                Err(error) => return Ok(Err(error)),
            };
            let chosen: HashSet<usize> = kept.iter().copied().collect();
            for (at, tag) in tags.iter().enumerate() {
                if !chosen.contains(&at) && !literals.contains(tag) {
                    let dropped = Planned::Dropped {
                        rule: rule.name.clone(),
                        source: source.endpoint(Some(tag)),
                        by: filter.label.clone(),
                    };
                    self.send(dropped).await?;
                }
            }
            tags = kept.into_iter().map(|at| std::mem::take(&mut tags[at])).collect();
        }
        let left = before - tags.iter().filter(|tag| is_cosigns(tag)).count().min(before);
        if left > 0 {
            tracing::warn!(
                help = "copy every tag, or add a filter that keeps them: { filter = \"regex\", … }",
                "the rule's filters leave tags of {} behind that hold signatures of cosign (sha256-….sig and their like): {left}",
                source.written
            );
        }
        let more = literals.iter().filter(|literal| !tags.contains(literal)).cloned().collect::<Vec<_>>();
        tags.extend(more);
        Ok(Ok(tags.into_iter().map(Some).collect()))
    }

    /// The tags of a destination, where one request tells them all.
    async fn known(&self, destination: &OpenReference) -> KnownTags {
        let place = &destination.place;
        match place.transport.tags(place, &destination.repository, None).await {
            Ok(Page { items, next: None }) => KnownTags::Tags(items.into_iter().collect()),
            Ok(Page { next: Some(_), .. }) => KnownTags::Unknown,
            Err(error) if error.kind == Kind::NotFound => KnownTags::Nothing,
            // Listing may be forbidden where reading is not.
            Err(_) => KnownTags::Unknown,
        }
    }
}
