//! Binds a policy to its plugins, and checks everything that can be checked without a network.

use super::template::{destination, names};
use crate::{
    Error, Kind, Places, Result,
    contract::{Choice, Filter, Mapper},
    place::OpenReference,
    trust::{self, Demand},
};
use dray_core::{
    Digest, ImageChoice, Names, Reference, Wanted,
    policy::{
        Backup, Call, IndexMode, OnChange, OnEmpty, OnImmutable, OnRefusal, Order, Policy, PolicyError,
        Problem, Prune, PruneLimit, Repositories, Rival, Rule, RuleLimits, Spanned, Tags, suggestion,
    },
};
use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
    time::Duration,
};

/// A rule that is ready for planning.
#[derive(Clone)]
pub struct BoundRule {
    /// The name of the rule.
    pub name: String,
    pub(crate) from: Vec<Source>,
    /// Which repositories of its globs are wanted.
    pub(crate) repositories: Repositories,
    pub(crate) to: Reference,
    pub(crate) tags: Option<BoundTags>,
    /// What renames the tags: `{tag}` in `to` is what it answers.
    pub(crate) mapper: Option<Arc<dyn Mapper>>,
    pub(crate) wanted: Wanted,
    pub(crate) on_empty: OnEmpty,
    pub(crate) on_change: OnChange,
    pub(crate) on_refusal: OnRefusal,
    pub(crate) order: Order,
    /// Rules of the policy that are not planned, and where they may write.
    pub(crate) rivals: Vec<Rival>,
    /// The signatures that its images must have.
    pub require: Vec<Demand>,
    /// What its copies may use.
    pub limits: RuleLimits,
}

/// The source of a rule's images.
#[derive(Clone)]
pub(crate) struct Source {
    pub at: OpenReference,
    /// Whether its repository contains glob characters.
    pub pattern: bool,
}

#[derive(Clone)]
pub(crate) struct BoundTags {
    pub literals: Vec<String>,
    pub filters: Vec<BoundFilter>,
    /// The digests to which literal tags are pinned.
    pub pins: BTreeMap<String, Digest>,
}

#[derive(Clone)]
pub(crate) struct BoundFilter {
    pub filter: Arc<dyn Filter>,
    pub config: String,
    /// The filter with its configuration, as shown to people.
    pub label: String,
}

/// Binds a policy to its plugins. Fails with every mistake that can be found without a network.
pub async fn bind(policy: &Policy, places: &Arc<Places>) -> Result<Vec<BoundRule>, PolicyError> {
    let mut problems = Vec::new();
    let mut rules = Vec::new();
    for rule in &policy.rules {
        rules.extend(bind_rule(rule, places, &mut problems).await);
    }
    if problems.is_empty() {
        collisions(policy, &rules, &mut problems);
    }
    if problems.is_empty() { Ok(rules) } else { Err(PolicyError(problems)) }
}

fn problem(error: Error, span: &Range<usize>) -> Problem {
    Problem { message: format!("failed to {error}"), span: Some(span.clone()), help: error.help }
}

async fn bind_rule(rule: &Rule, places: &Arc<Places>, problems: &mut Vec<Problem>) -> Option<BoundRule> {
    let before = problems.len();
    let mut from = Vec::new();
    for written in &rule.from {
        match places.source(&written.value, !rule.exact).await {
            Ok(at) => from.push(bind_source(rule, written, at, places, problems).await),
            Err(error) => problems.push(problem(error, &written.span)),
        }
    }
    let to = &rule.to;
    for source in &from {
        let name = match source.pattern {
            false => source.at.repository.name.as_str(),
            // A template that takes components away needs some.
            true if to.value.rest.contains("|strip:") => "a/b/c/d/e/f/g/h/i/j/k/l/name",
            true => "name",
        };
        // The path of a folder is no registry name, so a sample is checked here; real names are checked when filled in.
        let registry =
            if source.at.place().files.is_some() { "registry" } else { &source.at.place().location };
        let names = Names { registry, repository: name, tag: Some("tag") };
        match destination(&names, &to.value, places).await {
            Ok(spot) if spot.reference.as_deref().is_some_and(|reference| reference.contains(':')) => {
                problems
                    .push(Problem::new("a destination is named by a tag, not by a digest", to.span.clone()));
            }
            Ok(spot) => {
                if rule.order.prune != Prune::No {
                    check_prune(rule, &spot, problems);
                }
                if let Some(fixed) = spot.reference.as_deref().filter(|_| !to.value.rest.contains("{tag}")) {
                    check_fixed_tag(rule, source, fixed, problems);
                }
            }
            Err(error) => {
                problems.push(problem(error, &to.span));
                break;
            }
        }
    }
    if rule.repositories != Repositories::default() && !from.iter().any(|source| source.pattern) {
        let span = rule.from.first().map_or(rule.to.span.clone(), |from| from.span.clone());
        problems.push(
            Problem::new("`repositories` chooses among those of a glob, and `from` has none", span)
                .help("write a glob in `from`, such as docker://registry.example.com/**, or leave it out"),
        );
    }
    let tags = match &rule.tags {
        Some(tags) => Some(bind_tags(tags, places, problems).await),
        None => None,
    };
    let mapper = match &rule.map_tags {
        Some(call) => bind_mapper(rule, call, places, problems).await,
        None => None,
    };
    let mut require = Vec::new();
    for call in &rule.require {
        require.extend(bind_demand(call, places, problems).await);
    }
    let choice = match rule.platforms.is_empty() {
        true => ImageChoice::All,
        false => ImageChoice::Some(rule.platforms.clone(), rule.index),
    };
    debug_assert!(rule.index == IndexMode::Keep || !rule.platforms.is_empty());
    let wanted = Wanted {
        choice,
        referrers: rule.referrers,
        referrer_types: rule.referrer_types.clone(),
        cosign_tags: rule.cosign_tags,
        related: rule.related.clone(),
        on_change: rule.on_change,
        include_foreign: rule.include_foreign,
        strict: false,
        link: rule.link,
        form: rule.form,
        skip_immutable: rule.order.immutable == OnImmutable::Skip,
    };
    (problems.len() == before).then(|| BoundRule {
        name: rule.name.value.clone(),
        from,
        repositories: rule.repositories.clone(),
        to: to.value.clone(),
        tags,
        mapper,
        wanted,
        on_empty: rule.on_empty,
        on_change: rule.on_change,
        on_refusal: rule.on_refusal,
        order: rule.order.clone(),
        rivals: rule.rivals.clone(),
        require,
        limits: rule.limits.clone(),
    })
}

async fn bind_tags(tags: &Tags, places: &Arc<Places>, problems: &mut Vec<Problem>) -> BoundTags {
    let mut filters = Vec::new();
    for call in &tags.filters {
        filters.extend(bind_filter(call, places, problems).await);
    }
    let literals = tags.literals.iter().map(|literal| literal.value.clone()).collect();
    BoundTags { literals, filters, pins: tags.pins.clone() }
}

/// What stays at some places, ready for planning.
#[derive(Clone)]
pub struct BoundRetain {
    /// Its name.
    pub name: String,
    pub(crate) at: Vec<Source>,
    pub(crate) repositories: Repositories,
    pub(crate) keep: Vec<BoundTags>,
    pub(crate) untagged: Option<Duration>,
    pub(crate) limit: PruneLimit,
    pub(crate) backup: Option<Backup>,
    pub(crate) related: Vec<String>,
}

impl BoundRetain {
    /// The same with another limit.
    pub fn with_limit(self, limit: PruneLimit) -> Self {
        BoundRetain { limit, ..self }
    }
}

/// Binds the tables `[[retain]]` of a policy to their plugins.
///
/// # Errors
/// Fails with every mistake that can be found without a network.
pub async fn bind_retains(policy: &Policy, places: &Arc<Places>) -> Result<Vec<BoundRetain>, PolicyError> {
    let (mut problems, mut bound) = (Vec::new(), Vec::new());
    for retain in &policy.retains {
        let (mut at, mut keep) = (Vec::new(), Vec::new());
        for written in &retain.at {
            match places.source(&written.value, true).await {
                Ok(opened) if opened.reference.is_some() => {
                    let text = "`at` names a tag, and whole repositories are looked at";
                    problems.push(Problem::new(text, written.span.clone()).help("leave the tag out"));
                }
                Ok(opened) => {
                    let pattern = opened.repository.name.contains(['*', '?', '[']);
                    at.push(Source { at: opened, pattern });
                }
                Err(error) => problems.push(problem(error, &written.span)),
            }
        }
        for tags in &retain.keep {
            keep.push(bind_tags(tags, places, &mut problems).await);
        }
        bound.push(BoundRetain {
            name: retain.name.value.clone(),
            at,
            repositories: retain.repositories.clone(),
            keep,
            untagged: retain.untagged,
            limit: retain.limit,
            backup: retain.backup.clone(),
            related: retain.related.clone(),
        });
    }
    if problems.is_empty() { Ok(bound) } else { Err(PolicyError(problems)) }
}

/// Reports a rule that deletes at a destination of which it cannot be known what is gone.
fn check_prune(rule: &Rule, spot: &OpenReference, problems: &mut Vec<Problem>) {
    let to = &rule.to;
    let mut report = |text: &str, help: &str| problems.push(Problem::new(text, to.span.clone()).help(help));
    if to.value.rest.contains("{tag}") {
        let text = "`prune` needs tags that are named as at the source, and `to` has {tag}";
        report(text, "leave `prune` out, or let each tag keep its name");
    } else if spot.reference.is_some() {
        report("`prune` needs a `to` without a tag of its own", "leave the tag out of `to`, or `prune`");
    } else if rule.order.prune == Prune::Own && spot.place().http.is_none() {
        let text = "`prune = true` deletes what dray wrote, and no journal tells that of this place";
        report(text, "prune = \"all\" deletes every tag that the rule would have written");
    }
}

/// Filters that usually keep many tags. How many tags other filters keep is known only after they have run.
const MANY: [&str; 4] = ["glob", "regex", "semver", "age"];

/// Reports a destination with a fixed tag if the rule is meant for many tags.
fn check_fixed_tag(rule: &Rule, source: &Source, fixed: &str, problems: &mut Vec<Problem>) {
    let many = match &rule.tags {
        Some(tags) => {
            tags.literals.len() > 1
                || tags.filters.last().is_some_and(|last| MANY.contains(&last.plugin.value.as_str()))
        }
        None => source.at.reference.is_none() && !source.pattern && source.at.place().http.is_some(),
    };
    if many {
        let text = format!("every tag of the rule would be written to the one tag `{fixed}`");
        problems.push(
            Problem::new(text, rule.to.span.clone()).help(
                "leave the tag out of `to`, so that each image keeps its own, or name one tag in `tags`",
            ),
        );
    }
}

async fn bind_source(
    rule: &Rule,
    written: &Spanned<Reference>,
    at: OpenReference,
    places: &Arc<Places>,
    problems: &mut Vec<Problem>,
) -> Source {
    if let (Some(reference), Some(tags)) = (&at.reference, &rule.tags)
        && !tags.inherited
    {
        let text = format!("`{}` names {reference}, and the rule has `tags` too", written.value);
        problems.push(Problem::new(text, written.span.clone()).help("say it once: in `from` or in `tags`"));
    }
    let tags = rule.tags.as_ref().filter(|tags| !(tags.inherited && at.reference.is_some()));
    for literal in tags.iter().flat_map(|tags| &tags.literals) {
        let sign = if literal.value.contains(':') { '@' } else { ':' };
        let named = written.value.with(format!("{}{sign}{}", written.value.rest, literal.value));
        match places.parse(&named, true).await {
            Ok(parsed) if parsed.reference.as_ref() == Some(&literal.value) => {}
            Ok(_) => {
                let text = format!(
                    "{}: knows no tags, so `{}` stands for nothing",
                    written.value.scheme, literal.value
                );
                problems.push(Problem::new(text, literal.span.clone()));
            }
            Err(error) => problems.push(problem(error, &literal.span)),
        }
    }
    let pattern = !rule.exact && at.repository.name.contains(['*', '?', '[']);
    Source { at, pattern }
}

async fn bind_filter(call: &Call, places: &Arc<Places>, problems: &mut Vec<Problem>) -> Option<BoundFilter> {
    let config = call.config.to_string();
    let checked = async {
        let filter = places.plugins().filter(&call.plugin.value, &call.config).await?;
        let images = Arc::new(NoImages);
        filter.select(Choice::default(), &config, images).await?;
        Ok::<_, Error>(filter)
    };
    match checked.await {
        Ok(filter) => {
            let label = match call.config.as_object().filter(|config| !config.is_empty()) {
                Some(_) => format!("{} {config}", call.plugin.value),
                None => call.plugin.value.clone(),
            };
            Some(BoundFilter { filter, config, label })
        }
        Err(error) => {
            problems.push(in_call(error, call));
            None
        }
    }
}

/// Binds a mapper, and lets it check its configuration.
async fn bind_mapper(
    rule: &Rule,
    call: &Call,
    places: &Arc<Places>,
    problems: &mut Vec<Problem>,
) -> Option<Arc<dyn Mapper>> {
    if !rule.to.value.rest.contains("{tag}") {
        let text = "`map-tags` says what {tag} in `to` stands for, and `to` has no {tag}";
        problems.push(
            Problem::new(text, call.span.clone()).help("end `to` with :{tag}, or write {tag} into its path"),
        );
    }
    let checked = async {
        let mapper = places.plugins().mapper(&call.plugin.value, &call.config).await?;
        mapper.rename("", &[]).await?;
        Ok::<_, Error>(mapper)
    };
    checked.await.map_err(|error| problems.push(in_call(error, call))).ok()
}

/// Binds a demand, and reads its keys, so that a wrong one is found before anything moves.
async fn bind_demand(call: &Call, places: &Arc<Places>, problems: &mut Vec<Problem>) -> Option<Demand> {
    let bound = async {
        let demand = match call.plugin.value.as_str() {
            "signed" => trust::signed(&call.config, places.base())?.into(),
            name => {
                let verifier = places.plugins().verifier(name, &call.config).await;
                // `signed` is no plugin, so it is named here.
                let named = |error: Error| match error.kind {
                    Kind::NotFound => {
                        error.help("there are `signed`, `scan`, `age`, and what [plugin] names")
                    }
                    _ => error,
                };
                Demand::By(verifier.map_err(named)?)
            }
        };
        trust::check_demands(std::slice::from_ref(&demand)).await?;
        Ok::<_, Error>(demand)
    };
    bound.await.map_err(|error| problems.push(in_call(error, call))).ok()
}

/// Attaches a plugin's error to the key that it names.
pub fn in_call(error: Error, call: &Call) -> Problem {
    let named = call.keys.iter().find(|(key, _)| error.text.starts_with(&format!("{key}: ")));
    let unknown = error.kind == Kind::NotFound;
    let span = match named {
        Some((_, span)) => span,
        None if unknown => &call.plugin.span,
        None => &call.span,
    };
    let message = match &call.written {
        Some((key, written)) => match error.text.strip_prefix(&format!("{key}: ")) {
            Some(rest) => format!("{written}: {rest}"),
            None => error.text,
        },
        None => error.text,
    };
    Problem { message, span: Some(span.clone()), help: error.help }
}

/// The images for a filter that is only checked: there are none.
struct NoImages;

impl crate::contract::Images for NoImages {
    fn inspect(
        &self,
        _tags: Vec<String>,
    ) -> futures_util::future::BoxFuture<'_, Result<Vec<crate::contract::Facts>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn at_destination(&self) -> futures_util::future::BoxFuture<'_, Result<Vec<crate::contract::Listed>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// Reports literal tags of different sources that would be written to the same destination tag.
fn collisions(policy: &Policy, rules: &[BoundRule], problems: &mut Vec<Problem>) {
    let mut written: HashMap<String, (String, &str)> = HashMap::new();
    for (rule, bound) in policy.rules.iter().zip(rules) {
        // What a mapper makes of a tag is known only later.
        let sources = bound.from.iter().filter(|source| !source.pattern && bound.mapper.is_none());
        for source in sources {
            let names = names(&source.at);
            let Ok(to) = names.fill(&rule.to.value.to_string()) else { continue };
            let literals = match (&bound.tags, &source.at.reference) {
                (Some(tags), _) => tags.literals.clone(),
                (None, Some(reference)) => vec![reference.clone()],
                (None, None) => Vec::new(),
            };
            for literal in literals {
                let destination = if to.contains("{tag}") {
                    to.replace("{tag}", &literal)
                } else {
                    format!("{to}:{literal}")
                };
                let from = source.at.endpoint(Some(&literal)).display;
                match written.get(&destination) {
                    Some((other, by)) if *other != from => {
                        let text = format!(
                            "`{from}` and `{other}` (rule `{by}`) would both be written to `{destination}`"
                        );
                        problems.push(
                            Problem::new(text, rule.to.span.clone())
                                .help("tell them apart in `to`, for instance with {name} or {path}"),
                        );
                        return;
                    }
                    _ => {
                        written.insert(destination, (from, &bound.name));
                    }
                }
            }
        }
    }
}

/// The error for a name that is not among the known ones.
pub fn unknown(what: &str, name: &str, known: &[&str]) -> Error {
    let help = suggestion(name, known.iter().copied());
    let help = help.unwrap_or_else(|| format!("there are {}", known.join(", ")));
    Error::new(Kind::NotFound, format!("find the {what} `{name}`: there is none of that name")).help(help)
}
