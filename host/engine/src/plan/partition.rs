//! Which sources of a plan may lead to the same repository, as far as that can be told before their catalogs
//! answer: only those have to wait for each other.

use super::{
    bind::{BoundRule, Source},
    template::{destination, names},
};
use crate::{Places, place::OpenReference};
use dray_core::Names;
use std::sync::Arc;

/// A source of a rule, and where it leads.
pub(crate) struct Member<'a> {
    pub index: usize,
    pub rule: &'a BoundRule,
    pub source: &'a Source,
    /// One of its destinations, as an example.
    pub example: Option<OpenReference>,
    /// With what all of its destinations begin.
    prefix: String,
}

/// The sources of all rules, in parts of which none can lead where another one does. All that ask for no catalog
/// are one part.
pub(crate) async fn partition<'a>(rules: &'a [BoundRule], places: &Arc<Places>) -> Vec<Vec<Member<'a>>> {
    let asks = rules.iter().any(|rule| rule.from.iter().any(|source| source.pattern));
    let mut all = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        for source in &rule.from {
            let (prefix, example) =
                if asks { reached(rule, source, places).await } else { Default::default() };
            all.push(Member { index, rule, source, example, prefix });
        }
    }
    together(all, |reach| &reach.prefix, |reach| reach.source.pattern)
}

/// Parts of those whose prefixes begin with one another, each in the order of old; those without anybody who waits
/// are one part.
fn together<T>(all: Vec<T>, prefix: impl Fn(&T) -> &str, waits: impl Fn(&T) -> bool) -> Vec<Vec<T>> {
    let mut all: Vec<_> = all.into_iter().enumerate().collect();
    // In this order a prefix comes just before all that begin with it.
    all.sort_by(|(_, a), (_, b)| prefix(a).cmp(prefix(b)));
    let mut parts: Vec<Vec<(usize, T)>> = Vec::new();
    for one in all {
        match parts.last_mut() {
            Some(part) if prefix(&one.1).starts_with(prefix(&part[0].1)) => part.push(one),
            _ => parts.push(vec![one]),
        }
    }
    let wait = |part: &Vec<(usize, T)>| part.iter().any(|(_, one)| waits(one));
    let (mut parts, at_once): (Vec<_>, Vec<_>) = parts.into_iter().partition(wait);
    parts.insert(0, at_once.into_iter().flatten().collect());
    let in_order = |mut part: Vec<(usize, T)>| {
        part.sort_by_key(|(at, _)| *at);
        part.into_iter().map(|(_, one)| one).collect()
    };
    parts.into_iter().map(in_order).collect()
}

/// Names that have nothing in common: what is the same for all of them does not depend on the name. Of one part and
/// of two, and with parts that look like a host, which some references begin with.
const NAMES: [&str; 9] =
    ["a", "b", "c/d", "e/f", "g.example/h", "i.example/j", "k/l.example", "m/n.example", "localhost/o"];

/// With what the destinations of a source begin, and one of them.
async fn reached(rule: &BoundRule, source: &Source, places: &Arc<Places>) -> (String, Option<OpenReference>) {
    // Where `{tag}` leads, or what cannot be filled in, is not known.
    let anywhere = (format!("{}:", rule.to.scheme), None);
    if rule.to.rest.contains("{tag}") {
        return anywhere;
    }
    let known = names(&source.at);
    // A place of files may name any registry.
    let registries = match source.pattern && source.at.place().files.is_some() {
        true => vec!["a.example", "b.example"],
        false => vec![known.registry],
    };
    let repositories = if source.pattern { NAMES.to_vec() } else { vec![known.repository] };
    let mut found: Option<(String, OpenReference)> = None;
    for registry in registries {
        for repository in &repositories {
            let Ok(spot) = destination(&Names { registry, repository, tag: None }, &rule.to, places).await
            else {
                return anywhere;
            };
            let full = format!("{}\n{}", spot.place().key(), spot.repository.name);
            found = Some(match found {
                None => (full, spot),
                Some((before, spot)) => (common(&before, &full).to_owned(), spot),
            });
        }
    }
    found.map_or(anywhere, |(prefix, spot)| (prefix, Some(spot)))
}

/// What two texts begin with.
fn common<'a>(one: &'a str, other: &str) -> &'a str {
    let end = one.char_indices().zip(other.chars()).find(|((_, a), b)| a != b);
    match end {
        Some(((at, _), _)) => &one[..at],
        None => &one[..one.len().min(other.len())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_may_meet_are_together() {
        let all = ["r\na/", "q\nx", "r\nb/x", "r\nb/", "q\ny", "r\na/b/c", "p\n", "p\nz"];
        let waits = |one: &&str| one.ends_with('/') || one.ends_with('\n');
        let parts = together(all.to_vec(), |one| one, waits);
        let expected: [&[&str]; 4] =
            [&["q\nx", "q\ny"], &["p\n", "p\nz"], &["r\na/", "r\na/b/c"], &["r\nb/x", "r\nb/"]];
        assert_eq!(parts, expected);
        assert_eq!((common("r\nab", "r\nac"), common("r", "rx"), common("ä1", "ä2")), ("r\na", "r", "ä"));
    }
}
