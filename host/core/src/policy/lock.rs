//! Lock files: the digests that the tags of a policy named when they were locked.

use super::{Policy, Problem, Rule, Spanned, Tags};
use crate::{Copy, Digest, Reference};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a lock file begins with, for whoever opens it.
const HEADER: &str =
    "# The digests of a policy's tags, written by `dray lock`. `dray sync --locked` copies exactly these.\n";

/// The version of the format.
const VERSION: u32 = 1;

/// The digests that the tags of a policy named.
///
/// ```
/// use dray_core::policy::Lock;
///
/// let digest = format!("sha256:{}", "a".repeat(64));
/// let text = format!("version = 1\n[[locked]]\nrule = \"a\"\nfrom = \"docker://r.example/a\"\ntags = {{ \"1.0\" \
///     = \"{digest}\" }}\n");
/// let lock = Lock::parse(&text).unwrap();
/// assert_eq!(lock.changes(&Lock::default()).len(), 1);
/// assert_eq!(Lock::parse(&lock.to_toml()).unwrap(), lock);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lock {
    /// By rule, repository and tag.
    tags: BTreeMap<(String, String), BTreeMap<String, Digest>>,
}

/// One line of the difference between two locks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LockChange {
    /// The rule.
    pub rule: String,
    /// The repository of the source.
    pub from: String,
    /// The tag.
    pub tag: String,
    /// What it named. `None` means that it was not locked.
    pub before: Option<Digest>,
    /// What it names now. `None` means that the policy does not copy it any more.
    pub now: Option<Digest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(default)]
    locked: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    rule: String,
    from: String,
    tags: BTreeMap<String, Digest>,
}

impl Lock {
    /// Reads a lock file.
    ///
    /// # Errors
    /// Fails with a sentence for people if the text is no lock file of a known version.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        if file.version != VERSION {
            return Err(format!("it has version {}, and this dray reads version {VERSION}", file.version));
        }
        let mut tags = BTreeMap::new();
        for Entry { rule, from, tags: locked } in file.locked {
            let shown = format!("the rule `{rule}` locks {from} twice");
            if tags.insert((rule, from), locked).is_some() {
                return Err(shown);
            }
        }
        Ok(Lock { tags })
    }

    /// Takes in the source of an item of a plan. Gives false if it has no tag, and so cannot be locked.
    pub fn add(&mut self, copy: &Copy) -> bool {
        let Some(tag) = &copy.source.reference else { return false };
        let display = &copy.source.display;
        let repository =
            [':', '@'].iter().find_map(|sign| display.strip_suffix(tag.as_str())?.strip_suffix(*sign));
        let Some(repository) = repository else { return false };
        // A tag that is pinned is read by its digest, and still goes by its tag.
        let tag = match &copy.naming {
            crate::Naming::Tag(name) if tag.contains(':') => name,
            _ => tag,
        };
        let key = (copy.rule.clone(), repository.to_owned());
        self.tags.entry(key).or_default().insert(tag.clone(), copy.seen.source.clone());
        true
    }

    /// How many tags are locked.
    pub fn len(&self) -> usize {
        self.tags.values().map(BTreeMap::len).sum()
    }

    /// Whether nothing is locked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The lock as a file.
    pub fn to_toml(&self) -> String {
        let mut out = format!("{HEADER}version = {VERSION}\n");
        for ((rule, from), tags) in &self.tags {
            let quoted = |text: &str| serde_json::Value::from(text).to_string();
            out.push_str(&format!("\n[[locked]]\nrule = {}\nfrom = {}\n", quoted(rule), quoted(from)));
            out.push_str("[locked.tags]\n");
            for (tag, digest) in tags {
                out.push_str(&format!("{} = \"{digest}\"\n", quoted(tag)));
            }
        }
        out
    }

    /// What is different from an older lock.
    pub fn changes(&self, before: &Lock) -> Vec<LockChange> {
        let mut changes = Vec::new();
        let all = |lock: &Lock| {
            let each = lock.tags.iter().flat_map(|(key, tags)| {
                tags.iter().map(move |(tag, digest)| ((key.clone(), tag.clone()), digest.clone()))
            });
            each.collect::<BTreeMap<_, _>>()
        };
        let (mut old, new) = (all(before), all(self));
        for (key, now) in new {
            let was = old.remove(&key);
            if was.as_ref() != Some(&now) {
                changes.push((key, was, Some(now)));
            }
        }
        changes.extend(old.into_iter().map(|(key, was)| (key, Some(was), None)));
        let change = |(((rule, from), tag), before, now)| LockChange { rule, from, tag, before, now };
        changes.into_iter().map(change).collect()
    }

    /// Narrows a policy to exactly what is locked: each tag by its digest, and nothing is listed.
    ///
    /// # Errors
    /// If a rule of the policy is not in the lock.
    pub fn narrow(&self, policy: &mut Policy) -> Result<(), Problem> {
        let mut rules: Vec<Rule> = Vec::new();
        for rule in &policy.rules {
            let own = self.tags.iter().filter(|((name, _), _)| *name == rule.name.value);
            let own: Vec<_> = own.collect();
            if own.is_empty() {
                return Err(Problem::new(
                    format!("the rule `{}` is not locked", rule.name.value),
                    rule.name.span.clone(),
                )
                .help("`dray lock` writes what its tags name now"));
            }
            for ((_, from), tags) in own {
                let Ok(reference) = from.parse::<Reference>() else {
                    let text = format!("the lock names `{from}`, which is no reference");
                    return Err(
                        Problem::new(text, rule.name.span.clone()).help("write it anew with `dray lock`")
                    );
                };
                // The rules of one `images` have one name: each takes what is its own.
                let own_from = rule.from.iter().find(|own| is_of(&own.value, &reference));
                let Some(own_from) = own_from else { continue };
                let reference = Reference { blobs: own_from.value.blobs.clone(), ..reference };
                let literal = |tag: &String| Spanned { value: tag.clone(), span: own_from.span.clone() };
                let (pins, digests): (BTreeMap<_, _>, BTreeMap<_, _>) =
                    tags.clone().into_iter().partition(|(tag, _)| !tag.contains(':'));
                let literals = pins.keys().chain(digests.keys()).map(literal).collect();
                rules.push(Rule {
                    from: vec![Spanned { value: reference, span: own_from.span.clone() }],
                    tags: Some(Tags { literals, filters: Vec::new(), pins }),
                    ..rule.clone()
                });
            }
        }
        policy.rules = rules;
        Ok(())
    }
}

/// Whether a locked repository is one of those that a reference of the policy names.
fn is_of(written: &Reference, locked: &Reference) -> bool {
    if written.scheme != locked.scheme {
        return false;
    }
    let globs = written.rest.contains(['*', '?', '[']);
    // Behind a repository stands a tag or a digest, and behind a place its repositories.
    let behind = |long: &str, short: &str| {
        long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@', '/']))
    };
    behind(&written.rest, &locked.rest)
        || behind(&locked.rest, &written.rest)
        || (globs && crate::matches(&written.rest, &locked.rest))
}
