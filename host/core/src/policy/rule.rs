//! `[[rule]]`: what is copied where.

use super::call::{call, demand};
use super::limits::rule_limits;
use super::order::order;
use super::raw::{Table, boolean, one_or_many, string, strings, table};
use super::tags::tags;
use super::{
    Call, IndexMode, OnChange, OnEmpty, OnRefusal, Order, Problem, Referrers, Repositories, Rule, RuleLimits,
    Spanned, Tags,
};
use crate::{
    Compression, FillError, Form, Format, Names, Platform, Reference, expand_braces, related::wrong_template,
};
use std::{collections::HashSet, path::PathBuf};
use toml::{Spanned as TomlSpanned, de::DeValue};

type Value<'a> = TomlSpanned<DeValue<'a>>;

/// Keys that are one rule's own, and so have no default.
const OWN: [&str; 5] = ["name", "from", "to", "images", "images-from"];

/// Reads all rules.
pub(super) fn rules(
    value: &Value<'_>,
    defaults: Option<&Table<'_>>,
    problems: &mut Vec<Problem>,
) -> Vec<Rule> {
    let mut all: Vec<Rule> = Vec::new();
    let mut named: HashSet<String> = HashSet::new();
    for value in super::raw::list(value, problems) {
        let Some(mut entry) = table("a rule", value, problems) else { continue };
        if let Some(defaults) = defaults {
            entry.fall_back(defaults);
        }
        let name = entry.take("name").map(|value| string(value, problems));
        let Some(mut found) = rule(entry, problems) else { continue };
        let name = match name {
            Some(Some(name)) => name,
            Some(None) => continue,
            None => Spanned { value: usual_name(&found, &named), span: value.span() },
        };
        if !named.insert(name.value.clone()) {
            problems.push(
                Problem::new(format!("two rules are named `{}`", name.value), name.span.clone())
                    .help("names tell rules apart in reports and with --rule"),
            );
        }
        found.iter_mut().for_each(|rule| rule.name = name.clone());
        all.extend(found);
    }
    all
}

/// The name of a rule that gives none: the last part of its first repository, with a number if that is taken.
fn usual_name(rules: &[Rule], taken: &HashSet<String>) -> String {
    let rest = rules.first().and_then(|rule| rule.from.first()).map_or("", |from| from.value.rest.as_str());
    let path = rest.split('@').next().unwrap_or(rest).trim_end_matches('/');
    let last = path.rsplit('/').next().unwrap_or(path).split(':').next().unwrap_or_default();
    let last = if last.is_empty() || last.contains(['*', '?', '[']) { "rule" } else { last };
    let mut name = last.to_owned();
    let mut number = 1;
    while taken.contains(&name) {
        number += 1;
        name = format!("{last}-{number}");
    }
    name
}

/// What a rule says of each of its images.
struct Common {
    tags: Option<Tags>,
    platforms: Vec<Platform>,
    index: IndexMode,
    referrers: Referrers,
    referrer_types: Vec<String>,
    cosign_tags: bool,
    related: Vec<String>,
    map_tags: Option<Call>,
    include_foreign: bool,
    link: bool,
    form: Form,
    on_empty: OnEmpty,
    on_change: OnChange,
    on_refusal: OnRefusal,
    order: Order,
    require: Vec<Call>,
    limits: RuleLimits,
}

impl Common {
    fn rule(&self, from: Vec<Spanned<Reference>>, to: Spanned<Reference>) -> Rule {
        Rule {
            tags: self.tags.clone(),
            platforms: self.platforms.clone(),
            index: self.index,
            referrers: self.referrers,
            referrer_types: self.referrer_types.clone(),
            cosign_tags: self.cosign_tags,
            related: self.related.clone(),
            map_tags: self.map_tags.clone(),
            include_foreign: self.include_foreign,
            link: self.link,
            form: self.form,
            on_empty: self.on_empty,
            on_change: self.on_change,
            on_refusal: self.on_refusal,
            order: self.order.clone(),
            rivals: Vec::new(),
            require: self.require.clone(),
            limits: self.limits.clone(),
            exact: false,
            images_from: Vec::new(),
            repositories: Repositories::default(),
            name: String::new().into(),
            from,
            to,
        }
    }
}

/// Reads one table: one rule, or with `images` one for each of them. Their name is still empty.
fn rule(mut entry: Table<'_>, problems: &mut Vec<Problem>) -> Option<Vec<Rule>> {
    let images = entry.take("images");
    let images_from = images_from(&mut entry, problems);
    let sources = sources(&mut entry, images_from.is_empty(), problems);
    let to = entry.require("to", problems).and_then(|value| string(value, problems));
    let (from_blobs, to_blobs) =
        (path(&mut entry, "from-blobs", problems), path(&mut entry, "to-blobs", problems));
    let common = common(&mut entry, problems);
    let repositories = repositories(&mut entry, problems);
    let span = entry.span.clone();
    entry.end(problems);
    let to = to?;
    let mut rules = match images {
        Some(images) => {
            let [from] = &sources[..] else {
                problems.push(
                    Problem::new("`images` needs one `from`, to which their names are added", span)
                        .help("write from = \"docker://registry.example.com\""),
                );
                return None;
            };
            let images = listed(images, problems);
            let rule = |image| image_rule(from, &to, image, &common, problems);
            images.into_iter().filter_map(rule).collect()
        }
        None => {
            let from = sources.into_iter().filter_map(|text| reference(text, problems)).collect();
            vec![Rule { images_from, repositories, ..common.rule(from, template(to, problems)?) }]
        }
    };
    for rule in &mut rules {
        let sources = rule.from.iter_mut().map(|source| (source, &from_blobs));
        for (reference, blobs) in sources.chain([(&mut rule.to, &to_blobs)]) {
            set_blobs(reference, blobs.as_ref(), problems);
        }
    }
    Some(rules)
}

/// The files of `images-from`.
fn images_from(entry: &mut Table<'_>, problems: &mut Vec<Problem>) -> Vec<Spanned<String>> {
    let Some(value) = entry.take("images-from") else { return Vec::new() };
    if let Some(tags) = entry.peek("tags") {
        problems.push(
            Problem::new("`images-from` names tags, and the rule has `tags` too", tags)
                .help("make a rule of each"),
        );
    }
    one_or_many(value).into_iter().filter_map(|item| string(item, problems)).collect()
}

/// The references of `from`, with their braces expanded.
fn sources(entry: &mut Table<'_>, required: bool, problems: &mut Vec<Problem>) -> Vec<Spanned<String>> {
    let mut from = Vec::new();
    let before = problems.len();
    let value = if required { entry.require("from", problems) } else { entry.take("from") };
    let Some(value) = value else { return from };
    for item in one_or_many(value) {
        let Some(text) = string(item, problems) else { continue };
        match expand_braces(&text.value) {
            Ok(texts) => {
                from.extend(texts.into_iter().map(|value| Spanned { value, span: text.span.clone() }));
            }
            Err(why) => problems.push(Problem::new(why, text.span)),
        }
    }
    if from.is_empty() && problems.len() == before {
        problems.push(Problem::new("`from` is empty", value.span()));
    }
    from
}

/// Reads a destination's template.
fn template(text: Spanned<String>, problems: &mut Vec<Problem>) -> Option<Spanned<Reference>> {
    let names = Names { registry: "registry", repository: "path", tag: None };
    match names.fill(&text.value) {
        // How many components a repository has is known only later.
        Ok(_) | Err(FillError::Short { .. }) => {}
        Err(error) => problems.push(
            Problem::new(error.to_string(), text.span.clone())
                .help("`to` knows {name}, {path}, {path|strip:1}, {registry} and {tag}"),
        ),
    }
    reference(text, problems)
}

/// One entry of `images`.
struct Image {
    /// What is added to `from`.
    from: Spanned<String>,
    /// What is added to `to`.
    to: Spanned<String>,
    tags: Option<Tags>,
}

/// Reads `images`: a list of names, or a table of names at the source to names at the destination.
fn listed(value: &Value<'_>, problems: &mut Vec<Problem>) -> Vec<Image> {
    let (mut images, before) = (Vec::new(), problems.len());
    let same = |name: &Spanned<String>| {
        let value = &name.value;
        // `library/nginx:1.27` and `library/nginx@sha256:…` go to the repository `library/nginx`.
        let last = value.rfind('/').map_or(0, |at| at + 1);
        let end = value[last..].find([':', '@']).map_or(value.len(), |at| last + at);
        Spanned { value: value[..end].to_owned(), span: name.span.clone() }
    };
    match value.get_ref() {
        DeValue::Array(items) => {
            for name in items.iter().filter_map(|item| string(item, problems)).collect::<Vec<_>>() {
                match expand_braces(&name.value) {
                    Ok(names) => {
                        for value in names {
                            let name = Spanned { value, span: name.span.clone() };
                            images.push(Image { to: same(&name), from: name, tags: None });
                        }
                    }
                    Err(why) => problems.push(Problem::new(why, name.span)),
                }
            }
        }
        DeValue::Table(entries) => {
            for (key, value) in entries.iter() {
                let from = Spanned { value: key.get_ref().to_string(), span: key.span() };
                match value.get_ref() {
                    DeValue::Table(_) => {
                        let Some(mut entry) = table("an image", value, problems) else { continue };
                        let to = entry.take("to").and_then(|value| string(value, problems));
                        let tags = entry.take("tags").map(|value| tags(value, problems));
                        entry.end(problems);
                        images.push(Image { to: to.unwrap_or_else(|| same(&from)), from, tags });
                    }
                    _ => {
                        if let Some(to) = string(value, problems) {
                            images.push(Image { from, to, tags: None });
                        }
                    }
                }
            }
        }
        _ => {
            problems.push(Problem::new("`images` is a list of names, or a table", value.span()).help(
                "write images = [\"library/nginx\"] or images = { \"library/nginx\" = \"base/nginx\" }",
            ))
        }
    }
    if images.is_empty() && problems.len() == before {
        problems.push(Problem::new("`images` names none", value.span()));
    }
    images
}

/// The rule of one entry of `images`.
fn image_rule(
    from: &Spanned<String>,
    to: &Spanned<String>,
    image: Image,
    common: &Common,
    problems: &mut Vec<Problem>,
) -> Option<Rule> {
    let joined = |base: &Spanned<String>, name: &Spanned<String>| {
        let value = format!("{}/{}", base.value.trim_end_matches('/'), name.value.trim_start_matches('/'));
        Spanned { value, span: name.span.clone() }
    };
    let source = reference(joined(from, &image.from), problems)?;
    let destination = template(joined(to, &image.to), problems)?;
    let mut rule = common.rule(vec![source], destination);
    if image.tags.is_some() {
        rule.tags = image.tags;
    }
    Some(rule)
}

/// Reads what a rule says of each of its images.
fn common(entry: &mut Table<'_>, problems: &mut Vec<Problem>) -> Common {
    let inherited = !entry.is_own("tags");
    let tags = entry.take("tags").map(|value| Tags { inherited, ..tags(value, problems) });
    let before = problems.len();
    let platforms = platforms(entry, problems);
    // What is wrong with them is told already.
    let chooses = !platforms.is_empty() || problems.len() > before;
    let index = index(entry, chooses, problems);
    let referrers = entry.take("referrers").map(|value| referrers(value, problems));
    let (referrers, referrer_types) = referrers.unwrap_or_default();
    let cosign_tags = entry.take("cosign-tags").and_then(|value| boolean(value, problems)).unwrap_or(false);
    let related = entry.take("related").map(|value| related(value, problems)).unwrap_or_default();
    // `false` takes back what `[defaults.rule]` says.
    let map_tags = entry.take("map-tags").filter(|value| value.get_ref().as_bool() != Some(false));
    let map_tags = map_tags.and_then(|value| call(value, "`map-tags`", "mapper", problems));
    let include_foreign =
        entry.take("include-foreign").and_then(|value| boolean(value, problems)).unwrap_or(false);
    let link = entry.take("link").and_then(|value| boolean(value, problems)).unwrap_or(false);
    let on_empty = [("warn", OnEmpty::Warn), ("error", OnEmpty::Error)];
    let on_empty = word(entry.take("on-empty"), &on_empty, problems).unwrap_or_default();
    let on_change = [("copy", OnChange::Copy), ("keep", OnChange::Keep), ("refuse", OnChange::Refuse)];
    let on_change = word(entry.take("on-change"), &on_change, problems).unwrap_or_default();
    let on_refusal = [("fail", OnRefusal::Fail), ("skip", OnRefusal::Skip)];
    let on_refusal = word(entry.take("on-refusal"), &on_refusal, problems).unwrap_or_default();
    let order = order(entry, problems);
    let formats = [("oci", Format::Oci), ("docker", Format::Docker)];
    let compressions = [
        ("gzip", Compression::Gzip),
        ("zstd", Compression::Zstd),
        ("zstd:chunked", Compression::ZstdChunked),
        ("none", Compression::None),
    ];
    let form = Form {
        format: word(entry.take("format"), &formats, problems),
        compression: word(entry.take("compression"), &compressions, problems),
        level: None,
    };
    let is_zstd = matches!(form.compression, Some(Compression::Zstd | Compression::ZstdChunked));
    if form.format == Some(Format::Docker) && is_zstd {
        problems.push(
            Problem::new("Docker's format knows no layers in zstd", entry.span.clone())
                .help("set format = \"oci\", or compression = \"gzip\""),
        );
    }
    let require = entry.take("require");
    if let Some(value) =
        require.filter(|value| value.get_ref().as_array().is_some_and(|list| list.is_empty()))
    {
        problems.push(
            Problem::new("`require` is empty, and would demand nothing", value.span())
                .help("name a demand, or leave it out"),
        );
    }
    let require = require.map(one_or_many).unwrap_or_default();
    let require = require.into_iter().filter_map(|value| demand(value, problems)).collect();
    let limits = rule_limits(entry, problems);
    Common {
        tags,
        platforms,
        index,
        referrers,
        referrer_types,
        cosign_tags,
        related,
        map_tags,
        include_foreign,
        link,
        form,
        on_empty,
        on_change,
        on_refusal,
        order,
        require,
        limits,
    }
}

/// Reads which repositories of a glob are wanted: a list of globs, or `include` and `exclude`.
pub(super) fn repositories(entry: &mut Table<'_>, problems: &mut Vec<Problem>) -> Repositories {
    let Some(value) = entry.take("repositories") else { return Repositories::default() };
    let globs = |value: &Value<'_>, problems: &mut Vec<Problem>| {
        strings(value, problems).into_iter().map(|text| text.value).collect::<Vec<_>>()
    };
    if value.get_ref().as_table().is_none() {
        return Repositories { include: globs(value, problems), exclude: Vec::new() };
    }
    let Some(mut inner) = table("repositories", value, problems) else { return Repositories::default() };
    let mut list = |key, problems: &mut Vec<Problem>| {
        inner.take(key).map(|value| globs(value, problems)).unwrap_or_default()
    };
    let found = Repositories { include: list("include", problems), exclude: list("exclude", problems) };
    inner.end(problems);
    if found == Repositories::default() {
        problems.push(
            Problem::new("`repositories` chooses nothing", value.span())
                .help("write repositories = { exclude = [\"team/internal-*\"] }"),
        );
    }
    found
}

fn platforms(entry: &mut Table<'_>, problems: &mut Vec<Problem>) -> Vec<Platform> {
    let mut platforms = Vec::new();
    let Some(value) = entry.take("platforms") else { return platforms };
    for text in strings(value, problems) {
        let parsed = text.value.parse::<Platform>();
        // Images name architectures as Go does (OCI image specification, image index).
        let (os, architecture) = match &parsed {
            Ok(platform) => (Some(platform.os.as_str()), platform.architecture.as_str()),
            Err(_) => (None, text.value.as_str()),
        };
        let meant = match architecture {
            "x86_64" | "x86-64" | "x64" => Some("amd64"),
            "aarch64" => Some("arm64"),
            "i386" | "i686" | "x86" => Some("386"),
            _ => None,
        };
        let wrong =
            |help| Problem::new(format!("`{}` is no platform", text.value), text.span.clone()).help(help);
        let meant = meant.map(|meant| os.map_or_else(|| meant.to_owned(), |os| format!("{os}/{meant}")));
        match (meant, parsed) {
            (Some(meant), _) => {
                problems.push(wrong(format!("images call it \"{meant}\"")));
            }
            (None, Ok(platform)) => platforms.push(platform),
            (None, Err(_)) => {
                problems.push(wrong("write \"amd64\", \"linux/arm64\" or \"linux/arm/v7\"".to_owned()));
            }
        }
    }
    platforms
}

fn index(entry: &mut Table<'_>, chooses: bool, problems: &mut Vec<Problem>) -> IndexMode {
    let own = entry.is_own("index");
    let Some(value) = entry.take("index") else { return IndexMode::default() };
    if !chooses {
        if own {
            problems.push(
                Problem::new(
                    "`index` says what becomes of an index when platforms are chosen, and this rule chooses none",
                    value.span(),
                )
                .help("add `platforms`, or leave `index` out"),
            );
        }
        return IndexMode::default();
    }
    index_mode(value, problems)
}

fn index_mode(value: &Value<'_>, problems: &mut Vec<Problem>) -> IndexMode {
    let Some(text) = string(value, problems) else { return IndexMode::default() };
    match text.value.as_str() {
        "keep" => IndexMode::Keep,
        "trim" => IndexMode::Trim,
        other => {
            problems.push(
                Problem::new(format!("index cannot be \"{other}\""), text.span).help(
                    "\"keep\" leaves the index and its digest as they are, \"trim\" writes a smaller one",
                ),
            );
            IndexMode::default()
        }
    }
}

/// Checks `[defaults.rule]` by itself, so that a mistake in it is found without a rule that uses it.
pub(super) fn check_defaults(defaults: &Table<'_>, problems: &mut Vec<Problem>) {
    defaults.refuse(&OWN, "each rule has its own", problems);
    let mut entry = defaults.clone();
    for key in OWN {
        entry.take(key);
    }
    if let Some(value) = entry.take("index") {
        index_mode(value, problems);
    }
    let _ = (path(&mut entry, "from-blobs", problems), path(&mut entry, "to-blobs", problems));
    common(&mut entry, problems);
    entry.end(problems);
}

fn path(entry: &mut Table<'_>, key: &'static str, problems: &mut Vec<Problem>) -> Option<Spanned<PathBuf>> {
    let text = entry.take(key).and_then(|value| string(value, problems))?;
    Some(Spanned { value: PathBuf::from(text.value), span: text.span })
}

/// Sets the folder that holds the blobs of a layout.
fn set_blobs(
    reference: &mut Spanned<Reference>,
    blobs: Option<&Spanned<PathBuf>>,
    problems: &mut Vec<Problem>,
) {
    let Some(blobs) = blobs else { return };
    if reference.value.scheme != "oci" {
        let text = format!("the blobs of `{}` cannot lie in another folder", reference.value);
        problems.push(Problem::new(text, blobs.span.clone()).help("that is for layouts (`oci:`) alone"));
    }
    reference.value.blobs = Some(blobs.value.clone());
}

/// Whether referrers are copied, and of which types. No types mean all of them.
fn referrers(value: &Value<'_>, problems: &mut Vec<Problem>) -> (Referrers, Vec<String>) {
    let all = |referrers| (referrers, Vec::new());
    match value.get_ref() {
        DeValue::Boolean(true) => all(Referrers::Wanted),
        DeValue::Boolean(false) => all(Referrers::No),
        DeValue::Array(items) if !items.is_empty() => {
            let types = strings(value, problems).into_iter().map(|kind| kind.value);
            (Referrers::Wanted, types.collect())
        }
        other if other.as_str() == Some("required") => all(Referrers::Required),
        _ => {
            problems.push(
                Problem::new(
                    "`referrers` is true, false, \"required\" or a list of artifact types",
                    value.span(),
                )
                .help("\"required\" withholds an image whose referrers cannot all be copied"),
            );
            all(Referrers::No)
        }
    }
}

/// Templates of tags that are made of an image's digests.
fn related(value: &Value<'_>, problems: &mut Vec<Problem>) -> Vec<String> {
    let mut templates = Vec::new();
    for text in one_or_many(value).into_iter().filter_map(|value| string(value, problems)).collect::<Vec<_>>()
    {
        match wrong_template(&text.value) {
            None => templates.push(text.value),
            Some(why) => problems.push(
                Problem::new(format!("`{}` is no template of related tags: {why}", text.value), text.span)
                    .help("write related = [\"sha256-{hex}.sig\"]"),
            ),
        }
    }
    templates
}

/// A value of which few words are known.
pub(super) fn word<T: Copy>(
    value: Option<&Value<'_>>,
    known: &[(&str, T)],
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let text = string(value?, problems)?;
    let found = known.iter().find(|(word, _)| *word == text.value);
    if found.is_none() {
        let words: Vec<String> = known.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        // There are at least two.
        let (last, others) = words.split_last()?;
        let problem = Problem::new(format!("`{}` is not known here", text.value), text.span);
        problems.push(problem.help(format!("there are {} and {last}", others.join(", "))));
    }
    found.map(|(_, meaning)| *meaning)
}

pub(super) fn reference(text: Spanned<String>, problems: &mut Vec<Problem>) -> Option<Spanned<Reference>> {
    let wrong = |message: String, help: String| Problem::new(message, text.span.clone()).help(help);
    if let Some((scheme @ ("http" | "https" | "oci" | "dir"), rest)) = text.value.split_once("://") {
        let help = match scheme {
            "https" | "http" => {
                format!("write \"docker://{rest}\"; tls = \"off\" of a registry is plain HTTP")
            }
            _ => format!("a path follows the colon: \"{scheme}:{rest}\""),
        };
        problems.push(wrong(format!("`{}` is no reference: {scheme}:// is no transport", text.value), help));
        return None;
    }
    match text.value.parse() {
        Ok(value) => Some(Spanned { value, span: text.span }),
        Err(_) => {
            let help = format!("begin it with one: \"docker://{}\"", text.value);
            problems.push(wrong(format!("`{}` does not name a transport", text.value), help));
            None
        }
    }
}
