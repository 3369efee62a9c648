//! The policy: what a user declares in TOML. `docs/policy.md` documents every key.

mod call;
mod check;
mod document;
mod grant;
mod limits;
mod listed;
mod lock;
mod order;
mod plugin;
mod problem;
mod raw;
mod resolved;
mod retain;
mod rule;
mod secret;
mod tags;
mod vars;

pub use check::{is_built_in, parse, parse_all, plugin_config, schema};
pub use document::includes;
pub use grant::{grants_host, is_host_grant, narrower_host};
pub use listed::{ListedImage, ReadFiles, images_in};
pub use lock::{Lock, LockChange, LockedPlugin, SourceDigests};
pub use plugin::{ArtifactSource, Grant, Installed, Limits, Plugin, PluginSource, config_at};
pub use problem::{PolicyError, Problem, suggestion};
pub use resolved::key_text;
pub use secret::SecretRef;
pub use vars::Variables;

use crate::{Platform, Reference};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, ops::Range, path::PathBuf, time::Duration};

/// A value and where it stands in the policy, in bytes from its beginning.
#[derive(Clone, Debug, PartialEq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub span: Range<usize>,
}

impl<T> From<T> for Spanned<T> {
    /// A value that stands in no text.
    fn from(value: T) -> Self {
        Spanned { value, span: 0..0 }
    }
}

/// A whole policy, checked as far as it can be without plugins.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// `[registry."host"]`
    pub registries: BTreeMap<String, Registry>,
    /// `[plugin.NAME]`
    pub plugins: BTreeMap<String, Plugin>,
    /// Keys of `[defaults.plugin]`, which also hold for plugins of a command line.
    pub trusted_keys: Vec<PathBuf>,
    /// `[[rule]]`, in order. A rule with `images` is one for each of them, all with its name.
    pub rules: Vec<Rule>,
    /// `[[retain]]`, in order.
    pub retains: Vec<Retain>,
    /// `[[observe]]`, in order.
    pub observers: Vec<Call>,
    /// `[defaults.registry]`: how registries are talked to that are not named.
    pub default_registry: Registry,
    /// Whether the machine's files are not obeyed: registries.conf, policy.json, registries.d and certs.d
    /// (`system-config = false`).
    pub ignores_system: bool,
    /// What is probably a mistake, though it can be carried out.
    pub warnings: Vec<Problem>,
}

/// How a registry is talked to.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// How many requests may be under way at once. `None` means the default.
    pub concurrency: Option<usize>,
    /// Bytes a second in both directions together. `None` means no limit.
    pub bandwidth: Option<u64>,
    /// The fewest bytes a second that a download may bring for a minute. `None` means the default.
    pub least_rate: Option<u64>,
    /// The proxy through which it is reached; `none`: no proxy. `None` means that the environment says.
    pub proxy: Option<String>,
    /// Nobody else writes to it: tags that the journal knows are not asked for.
    pub assume_unchanged: bool,
    /// Its kind, by which its dialect is chosen; `none`: it has no dialect. `None` means that it is recognised.
    pub kind: Option<Spanned<String>>,
    /// How the connection is secured.
    pub tls: Tls,
    /// Where credentials come from. `None` means the docker-config provider.
    pub auth: Option<Vec<Call>>,
    /// dray serves this folder as the registry while it runs. Relative to the policy.
    pub storage: Option<PathBuf>,
}

/// How a connection is secured.
#[derive(Clone, Debug, PartialEq)]
pub enum Tls {
    /// Plain HTTP.
    Off,
    /// TLS.
    On {
        /// PEM file of further trusted authorities. Relative to the policy.
        ca: Option<PathBuf>,
        /// PEM files of a client certificate and its key. Relative to the policy.
        identity: Option<(PathBuf, PathBuf)>,
        /// False: any certificate is taken.
        verify: bool,
        /// Written by the user, so plain HTTP is never tried.
        explicit: bool,
    },
}

impl Default for Tls {
    fn default() -> Self {
        Tls::On { ca: None, identity: None, verify: true, explicit: false }
    }
}

/// A plugin by name, with its configuration.
#[derive(Clone, Debug)]
pub struct Call {
    /// Name of the plugin.
    pub plugin: Spanned<String>,
    /// Its configuration, as JSON.
    pub config: serde_json::Value,
    /// Where each key's value stands.
    pub keys: BTreeMap<String, Range<usize>>,
    /// One of its keys, and how the policy names it in a short form: `within` is written as `age`.
    pub written: Option<(String, String)>,
    /// The whole table.
    pub span: Range<usize>,
}

impl Call {
    /// The secrets that its configuration names, each with its key.
    pub fn secrets(&self) -> impl Iterator<Item = (&str, SecretRef)> {
        let config = self.config.as_object().into_iter().flatten();
        config.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?.parse().ok()?)))
    }
}

/// One source-to-destination statement.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Unique.
    pub name: Spanned<String>,
    /// With braces expanded; globs stand.
    pub from: Vec<Spanned<Reference>>,
    /// A template.
    pub to: Spanned<Reference>,
    /// Which tags. `None` means all.
    pub tags: Option<Tags>,
    /// Which platforms; empty: all.
    pub platforms: Vec<Platform>,
    /// What becomes of an index when platforms are chosen.
    pub index: IndexMode,
    /// Copy signatures, SBOMs and the like with their subject.
    pub referrers: Referrers,
    /// The artifact types of the referrers that are copied. Empty means all of them.
    pub referrer_types: Vec<String>,
    /// Copy what cosign keeps beneath tags of an image's digests, with the image.
    pub cosign_tags: bool,
    /// Templates of further tags that are made of an image's digests and are copied with it.
    pub related: Vec<String>,
    /// The mapper that gives `{tag}` in `to` another value.
    pub map_tags: Option<Call>,
    /// Copy layers that their makers do not let others distribute.
    pub include_foreign: bool,
    /// Files of the destination may be further names of the source's.
    pub link: bool,
    /// In which form images are written.
    pub form: crate::Form,
    /// Its sources are exactly these repositories, though their references may name whole places: they are of a lock.
    pub exact: bool,
    /// Which repositories of its globs are wanted.
    pub repositories: Repositories,
    /// Files that name further sources (`images-from`), until they are read.
    pub images_from: Vec<Spanned<String>>,
    /// What to do if nothing matches.
    pub on_empty: OnEmpty,
    /// What to do about a tag that names something else at the destination.
    pub on_change: OnChange,
    /// What to do about an image that does not fulfil `require`.
    pub on_refusal: OnRefusal,
    /// What is deleted at the destination, and what is kept of an image that is replaced.
    pub order: Order,
    /// Rules of its policy that are not carried out with it, and where they may write.
    pub rivals: Vec<Rival>,
    /// What its images must fulfil before they are copied, each with the kind of the demand as its plugin.
    pub require: Vec<Call>,
    /// What its copies may use.
    pub limits: RuleLimits,
}

/// A rule that is not carried out, and where it may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// The name of the rule.
    pub rule: String,
    /// A glob of references, such as `docker://registry.example.com/**`.
    pub to: String,
}

impl Policy {
    /// Keeps only the rules with these names. What is kept knows where the others may write, because nothing may be deleted
    /// there.
    pub fn keep_rules(&mut self, names: &[String]) {
        let (kept, others): (Vec<Rule>, Vec<Rule>) =
            std::mem::take(&mut self.rules).into_iter().partition(|rule| names.contains(&rule.name.value));
        let rivals: Vec<Rival> = others.iter().map(Rule::as_rival).collect();
        self.rules = kept;
        for rule in &mut self.rules {
            rule.rivals = rivals.clone();
        }
    }
}

/// Which of the repositories that match a glob in `from` are wanted. These are globs, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repositories {
    /// One of them must match. If there are none, every repository does.
    pub include: Vec<String>,
    /// None of them may match.
    pub exclude: Vec<String>,
}

impl Repositories {
    /// Whether a repository is wanted.
    ///
    /// ```
    /// use dray_core::policy::Repositories;
    ///
    /// let wanted = Repositories { include: vec!["team/*".into()], exclude: vec!["team/old-*".into()] };
    /// assert!(wanted.wants("team/app") && !wanted.wants("team/old-app") && !wanted.wants("other/app"));
    /// ```
    pub fn wants(&self, repository: &str) -> bool {
        let any = |globs: &[String]| globs.iter().any(|glob| crate::matches(glob, repository));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

/// What the copies of one rule may use, together or each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleLimits {
    /// How many of its images are copied at once. `None` means no limit of its own.
    pub concurrency: Option<usize>,
    /// Bytes a second of all its copies together. `None` means no limit of its own.
    pub bandwidth: Option<u64>,
    /// How long one attempt to copy an image may take. `None` means no limit.
    pub timeout: Option<Duration>,
    /// How often an image is tried again after a failure that may pass.
    pub retry: u32,
}

impl Rule {
    /// Where it may write: anything may stand for the names in its template, and a tag of its own is one of a repository.
    fn as_rival(&self) -> Rival {
        let text = self.to.value.to_string();
        let start = text.find("://").map_or(0, |at| at + 3);
        let host = text[start..].split('/').next().unwrap_or_default();
        if host.contains(['{', '[']) {
            // What is not understood may be anywhere.
            return Rival { rule: self.name.value.clone(), to: "**".into() };
        }
        let last = text.rfind('/').map_or(start, |at| at + 1).max(start + host.len());
        let mut depth = 0;
        let tag = text[last..].char_indices().find(|(_, character)| {
            depth += i32::from(*character == '{') - i32::from(*character == '}');
            *character == ':' && depth == 0
        });
        let text = &text[..tag.map_or(text.len(), |(at, _)| last + at)];
        let (mut to, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            to.push_str(before);
            to.push_str("**");
            rest = after.split_once('}').map_or("", |(_, rest)| rest);
        }
        to.push_str(rest);
        Rival { rule: self.name.value.clone(), to }
    }

    /// A rule that copies all of an image, in the form in which it is, for policies that are built in code.
    pub fn new(name: impl Into<String>, from: Reference, to: Reference) -> Self {
        Rule {
            name: name.into().into(),
            from: vec![from.into()],
            to: to.into(),
            tags: None,
            platforms: Vec::new(),
            index: IndexMode::Keep,
            referrers: Referrers::No,
            referrer_types: Vec::new(),
            cosign_tags: false,
            related: Vec::new(),
            map_tags: None,
            include_foreign: false,
            link: false,
            form: crate::Form::default(),
            exact: false,
            repositories: Repositories::default(),
            images_from: Vec::new(),
            on_empty: OnEmpty::default(),
            on_change: OnChange::default(),
            on_refusal: OnRefusal::default(),
            order: Order::default(),
            rivals: Vec::new(),
            require: Vec::new(),
            limits: RuleLimits::default(),
        }
    }
}

/// Whether what refers to an image is copied with it. The order is that of how much is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Referrers {
    /// It is not.
    #[default]
    No,
    /// It is; one that cannot be copied stays behind, and that is told.
    Wanted,
    /// It is, and an image gets its tag only once all of it is there.
    Required,
}

impl Referrers {
    /// Whether they are copied.
    pub fn are_wanted(self) -> bool {
        self != Referrers::No
    }
}

/// Which tags of a place stay. All others are deleted by `dray retain`.
#[derive(Clone, Debug)]
pub struct Retain {
    /// Unique among these tables.
    pub name: Spanned<String>,
    /// Repositories, or globs of them.
    pub at: Vec<Spanned<Reference>>,
    /// Which repositories of its globs are meant.
    pub repositories: Repositories,
    /// Every tag that one of these chooses stays. If it is empty, all tags stay.
    pub keep: Vec<Tags>,
    /// For how long a manifest stays that no tag names, counted from its push. `None` means for ever.
    pub untagged: Option<Duration>,
    /// How many tags of a repository may go at once.
    pub limit: PruneLimit,
    /// Under which tag an image is kept that loses its own.
    pub backup: Option<Backup>,
    /// Templates of the tags that rules of the policy copy with their images (`related`), and that are no images by themselves.
    pub related: Vec<String>,
}

/// Which tags a rule wants.
#[derive(Clone, Debug, Default)]
pub struct Tags {
    /// Wanted whatever the filters say.
    pub literals: Vec<Spanned<String>>,
    /// Chained.
    pub filters: Vec<Call>,
    /// The digests of literals that were written as `tag@digest`.
    pub pins: BTreeMap<String, crate::Digest>,
    /// They come from `[defaults.rule]`, and so hold only for sources that name no tag themselves.
    pub inherited: bool,
}

/// What to do if a rule matches no tag of a repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnEmpty {
    /// Warn, and go on.
    #[default]
    Warn,
    /// Fail.
    Error,
}

/// What to do about a tag that names something else at the destination. The order is that of strictness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnChange {
    /// Write over it.
    #[default]
    Copy,
    /// Leave it as it is, and go on.
    Keep,
    /// Fail, and leave it as it is.
    Refuse,
}

/// What to do about an image that does not fulfil what a rule demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRefusal {
    /// Fail.
    #[default]
    Fail,
    /// Leave it out, and go on.
    Skip,
}

/// Order at a rule's destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Which tags are deleted that the source no longer has.
    pub prune: Prune,
    /// Whether the policy says that, even if it says that none is.
    pub is_said: bool,
    /// How many tags of a repository may go at once.
    pub limit: PruneLimit,
    /// Globs of tags that are never deleted.
    pub protect: Vec<String>,
    /// Under which tag an image is kept that is replaced or deleted. `None` means that it is not.
    pub backup: Option<Backup>,
    /// What to do if the destination lets a tag never change.
    pub immutable: OnImmutable,
}

/// Which tags of a destination are deleted if the source no longer has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prune {
    /// None is.
    #[default]
    No,
    /// Those that this rule wrote, as long as they name what it wrote.
    Own,
    /// All that the rule would have written.
    All,
}

/// How many tags of a repository may be deleted at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PruneLimit {
    /// A fifth of them.
    #[default]
    Fifth,
    /// This many, but not the last one.
    Tags(usize),
    /// All of them.
    All,
}

/// A template of tags under which images are kept: `{tag}-before-{date}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup(String);

/// What to do about a tag that must change, and that the destination lets never change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnImmutable {
    /// Fail.
    #[default]
    Fail,
    /// Leave it as it is, and go on.
    Skip,
}

/// What becomes of an index when platforms are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexMode {
    /// It keeps its digest; the other platforms' images are not copied.
    #[default]
    Keep,
    /// A smaller one is written.
    Trim,
}
