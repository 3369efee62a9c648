//! Lock files: the digests that the tags of a policy named when they were locked.

use super::{Policy, Problem, Repositories, Rule, Spanned, Tags};
use crate::{Digest, Reference};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a lock file begins with, for whoever opens it.
const HEADER: &str = "# The digests of a policy's plugins, written by `dray plugin install`, and of its tags, written by `dray lock`:\n\
     # `dray sync --locked` copies exactly these.\n";

/// The version of the format.
const VERSION: u32 = 1;

/// The digests that the tags of a policy named, rule by rule.
///
/// ```
/// use dray_core::policy::{Lock, parse};
///
/// let text = "version = 1\n[[rule]]\nfrom = \"docker://r.example/a\"\nto = \"oci:a\"\ntags = \"1.*\"\n";
/// let mut policy = parse(text)?;
/// let digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
/// let mut lock = Lock::default();
/// lock.add(&policy.rules[0]).insert("docker://r.example/a".into(), [("1.0".into(), digest)].into());
/// assert_eq!(Lock::parse(&lock.to_toml()).unwrap(), lock);
///
/// // Exactly what is locked, and nothing is listed.
/// lock.narrow(&mut policy).unwrap();
/// assert_eq!(policy.rules[0].tags.as_ref().unwrap().literals[0].value, "1.0");
/// # Ok::<_, dray_core::policy::PolicyError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    #[serde(default)]
    plugin: BTreeMap<String, LockedPlugin>,
    #[serde(default)]
    rule: Vec<Locked>,
}

/// The artifact that a plugin of a policy is, as it was when it was installed or updated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPlugin {
    /// The source as the policy writes it. One that was changed must be installed anew.
    pub source: String,
    /// The digest of the artifact's manifest.
    pub digest: Digest,
}

/// What one rule locks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Locked {
    name: String,
    /// The digest of what the rule says of sources, tags and destination. The rules of one `images` share a name, and a
    /// rule that was changed must be locked anew.
    of: Digest,
    #[serde(default)]
    tags: SourceDigests,
}

/// Digests by repository, as the source's reference is written without a tag, and by tag.
pub type SourceDigests = BTreeMap<String, BTreeMap<String, Digest>>;

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

impl Lock {
    /// Reads a lock file.
    ///
    /// # Errors
    /// Fails with a sentence for people if the text is no lock file of a known version.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lock: Lock = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            format!("line {line}: {}", error.message())
        })?;
        if lock.version != VERSION {
            return Err(format!("it has version {}, and this dray reads version {VERSION}", lock.version));
        }
        for (tag, digest) in lock.rule.iter().flat_map(|rule| rule.tags.values()).flatten() {
            // A digest that a rule names stands for itself.
            if tag.parse::<Digest>().is_ok_and(|named| named != *digest) {
                return Err(format!("`{tag}` is locked to another digest"));
            }
        }
        Ok(lock)
    }

    /// Begins the entry of a rule, and gives its tags to be filled in.
    pub fn add(&mut self, rule: &Rule) -> &mut SourceDigests {
        self.version = VERSION;
        self.rule.push(Locked {
            name: rule.name.value.clone(),
            of: rule.fingerprint(),
            tags: SourceDigests::new(),
        });
        // It was just added.
        let last = self.rule.len() - 1;
        &mut self.rule[last].tags
    }

    /// The plugins, by their names in the policy.
    pub fn plugins(&self) -> &BTreeMap<String, LockedPlugin> {
        &self.plugin
    }

    /// Locks exactly these plugins.
    pub fn set_plugins(&mut self, plugins: BTreeMap<String, LockedPlugin>) {
        self.version = VERSION;
        self.plugin = plugins;
    }

    /// The rules that are not in an older lock as they are, or are in it alone.
    pub fn changed_rules(&self, before: &Lock) -> Vec<String> {
        let of = |lock: &Lock| {
            let each = lock.rule.iter().map(|rule| (rule.name.clone(), rule.of.to_string()));
            each.collect::<std::collections::BTreeSet<_>>()
        };
        let mut names: Vec<String> =
            of(self).symmetric_difference(&of(before)).map(|(name, _)| name.clone()).collect();
        names.dedup();
        names
    }

    /// How many tags are locked.
    pub fn len(&self) -> usize {
        self.rule.iter().flat_map(|rule| rule.tags.values()).map(BTreeMap::len).sum()
    }

    /// Whether nothing is locked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The lock as a file.
    pub fn to_toml(&self) -> String {
        // A text of JSON is one of TOML, which also forbids U+007F (TOML 1.0, "String").
        let quoted = |text: &str| serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f");
        let mut out = format!("{HEADER}version = {VERSION}\n");
        for (name, LockedPlugin { source, digest }) in &self.plugin {
            out.push_str(&format!(
                "\n[plugin.{}]\nsource = {}\ndigest = \"{digest}\"\n",
                quoted(name),
                quoted(source)
            ));
        }
        for Locked { name, of, tags } in &self.rule {
            out.push_str(&format!("\n[[rule]]\nname = {}\nof = \"{of}\"\n", quoted(name)));
            for (from, tags) in tags {
                out.push_str(&format!("[rule.tags.{}]\n", quoted(from)));
                for (tag, digest) in tags {
                    out.push_str(&format!("{} = \"{digest}\"\n", quoted(tag)));
                }
            }
        }
        out
    }

    /// What is different from an older lock.
    pub fn changes(&self, before: &Lock) -> Vec<LockChange> {
        let all = |lock: &Lock| {
            let mut all = BTreeMap::new();
            for rule in &lock.rule {
                for (from, tags) in &rule.tags {
                    for (tag, digest) in tags {
                        all.insert((rule.name.clone(), from.clone(), tag.clone()), digest.clone());
                    }
                }
            }
            all
        };
        let (mut old, new) = (all(before), all(self));
        let mut changes = Vec::new();
        for (key, now) in new {
            let was = old.remove(&key);
            if was.as_ref() != Some(&now) {
                changes.push((key, was, Some(now)));
            }
        }
        changes.extend(old.into_iter().map(|(key, was)| (key, Some(was), None)));
        let change = |((rule, from, tag), before, now)| LockChange { rule, from, tag, before, now };
        changes.into_iter().map(change).collect()
    }

    /// Narrows a policy to exactly what is locked: each tag by its digest, and nothing is listed.
    ///
    /// # Errors
    /// Every rule that is not in the lock, or has changed since.
    pub fn narrow(&self, policy: &mut Policy) -> Result<(), Vec<Problem>> {
        let (mut rules, mut problems) = (Vec::new(), Vec::new());
        for rule in &policy.rules {
            let of = rule.fingerprint();
            let named = || self.rule.iter().filter(|locked| locked.name == rule.name.value);
            let Some(locked) = named().find(|locked| locked.of == of) else {
                let what = if named().next().is_some() {
                    "has changed since it was locked"
                } else {
                    "is not locked"
                };
                let text = format!("the rule `{}` {what}", rule.name.value);
                problems.push(
                    Problem::new(text, rule.name.span.clone())
                        .help("`dray lock` writes what its tags name now"),
                );
                continue;
            };
            for (from, tags) in &locked.tags {
                match narrowed(rule, from, tags) {
                    Ok(narrowed) => rules.push(narrowed),
                    Err(problem) => problems.push(problem),
                }
            }
        }
        policy.rules = rules;
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

/// A rule that copies locked tags of one repository.
fn narrowed(rule: &Rule, from: &str, tags: &BTreeMap<String, Digest>) -> Result<Rule, Problem> {
    let span = rule.name.span.clone();
    let Ok(reference) = from.parse::<Reference>() else {
        let text = format!("the lock names `{from}`, which is no reference");
        return Err(Problem::new(text, span).help("write it anew with `dray lock`"));
    };
    if !rule.from.iter().any(|own| is_of(&own.value, &reference)) {
        let text = format!("the lock names `{from}`, which the rule does not copy");
        return Err(Problem::new(text, span).help("write it anew with `dray lock`"));
    }
    // All sources of a rule have the same folder of blobs.
    let blobs = rule.from.first().and_then(|from| from.value.blobs.clone());
    let literal = |tag: &String| Spanned { value: tag.clone(), span: span.clone() };
    // A digest that the rule names stands for itself.
    let (digests, pins): (BTreeMap<_, _>, BTreeMap<_, _>) =
        tags.clone().into_iter().partition(|(tag, _)| tag.parse::<Digest>().is_ok());
    let literals = pins.keys().chain(digests.keys()).map(literal).collect();
    Ok(Rule {
        from: vec![Spanned { value: Reference { blobs, ..reference }, span: span.clone() }],
        tags: Some(Tags { literals, pins, ..Tags::default() }),
        exact: true,
        // What the glob stood for is written out, and the lock is only of this text of the rule.
        repositories: Repositories::default(),
        ..rule.clone()
    })
}

/// Whether a locked repository is one of those that a reference of the policy names.
fn is_of(written: &Reference, locked: &Reference) -> bool {
    let (written, locked) =
        ((written.scheme.as_str(), written.rest.as_str()), (locked.scheme.as_str(), locked.rest.as_str()));
    let behind = |long: &str, short: &str, signs: &[char]| {
        long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with(signs))
    };
    written.0 == locked.0
        && (behind(written.1, locked.1, &[':', '@'])
            // A place that is named as a whole stands for all of its repositories.
            || behind(locked.1, written.1, &[':'])
            || (written.1.ends_with(']') && locked.1.starts_with(written.1))
            || (written.1.contains(['*', '?', '[']) && crate::matches(written.1, locked.1)))
}
