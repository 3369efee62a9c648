//! Determines which sources of a plan may lead to the same repository, as far as this is known before their catalogs
//! answer. Only those sources have to wait for each other.

use super::{
    bind::{BoundRule, Source},
    template::{destination, names},
};
use crate::{Places, place::OpenReference};
use dray_core::Names;
use std::sync::Arc;

/// A source of a rule, and where its images go.
pub(crate) struct Member<'a> {
    pub index: usize,
    pub rule: &'a BoundRule,
    pub source: &'a Source,
    /// One of its destinations, as an example.
    pub example: Option<OpenReference>,
    /// The common prefix of all of its destinations.
    prefix: String,
}

/// Divides the sources of all rules into parts, such that sources of different parts never write to the same
/// repository. Sources in parts that need no catalog are joined into one part.
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

/// Groups items if the prefix of one begins with the prefix of another. Each group keeps the original order. Groups in
/// which nobody waits are joined into the first one.
fn together<T>(all: Vec<T>, prefix: impl Fn(&T) -> &str, waits: impl Fn(&T) -> bool) -> Vec<Vec<T>> {
    let mut all: Vec<_> = all.into_iter().enumerate().collect();
    // In sorted order, a prefix is directly followed by all texts that begin with it.
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

/// Sample repository names that have nothing in common. Parts of a destination that are equal for all of them do not
/// depend on the name. They have one or two components, and some begin with a host, as some references do.
const NAMES: [&str; 9] =
    ["a", "b", "c/d", "e/f", "g.example/h", "i.example/j", "k/l.example", "m/n.example", "localhost/o"];

/// The common prefix of a source's destinations, and one of the destinations.
async fn reached(rule: &BoundRule, source: &Source, places: &Arc<Places>) -> (String, Option<OpenReference>) {
    // If the destination contains `{tag}` or cannot be filled in, it may be anywhere.
    let anywhere = (format!("{}:", rule.to.scheme), None);
    if rule.to.rest.contains("{tag}") {
        return anywhere;
    }
    let known = names(&source.at);
    // A place of files may contain images of any registry.
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

/// The common prefix of two texts.
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
