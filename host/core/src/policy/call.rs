//! Tables that call a plugin: filters and auth providers.

use super::raw::{self, Table, string, table};
use super::{Call, Problem, Spanned};
use std::collections::BTreeMap;
use toml::{Spanned as TomlSpanned, de::DeValue};

type Value<'a> = TomlSpanned<DeValue<'a>>;

/// The keys by which a table of `auth` shows that it means the provider `static`.
const STATIC: [&str; 5] = ["username", "password", "credentials", "token", "identity-token"];

/// An auth provider. Without `provider`, a table with one of the keys of `static` means that.
pub(super) fn provider(value: &Value<'_>, problems: &mut Vec<Problem>) -> Option<Call> {
    let given = |key: &str| value.get_ref().as_table().is_some_and(|table| table.contains_key(key));
    if given("provider") || !STATIC.iter().any(|key| given(key)) {
        return call(value, "an auth provider", "provider", problems);
    }
    let entry = table("an auth provider", value, problems)?;
    let plugin = Spanned { value: "static".into(), span: entry.span.clone() };
    Some(configured(plugin, entry))
}

/// A table that names a plugin with one key and configures it with the others.
pub(super) fn call(
    value: &Value<'_>,
    what: &'static str,
    key: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<Call> {
    let mut entry = table(what, value, problems)?;
    let plugin = entry.require(key, problems).and_then(|value| string(value, problems))?;
    Some(configured(plugin, entry))
}

/// What a rule demands of its images: a table whose one key names the kind, `{ signed = { … } }`.
pub(super) fn demand(value: &Value<'_>, problems: &mut Vec<Problem>) -> Option<Call> {
    let entry = table("a demand", value, problems)?;
    let span = entry.span.clone();
    let mut keys: Vec<_> = entry.rest().collect();
    let (Some((name, inner)), true) = (keys.pop(), keys.is_empty()) else {
        problems.push(
            Problem::new("a demand has one key, which names its kind", span)
                .help("write require = [{ signed = { key = \"cosign.pub\" } }]"),
        );
        return None;
    };
    if name == "age" {
        return age(inner, problems);
    }
    let plugin = Spanned { value: name.to_owned(), span: inner.span() };
    Some(configured(plugin, table("a demand", inner, problems)?))
}

/// `{ age = "24h" }`, which is short for the verifier `min-age`.
fn age(value: &Value<'_>, problems: &mut Vec<Problem>) -> Option<Call> {
    let least = string(value, problems)?;
    Some(Call {
        plugin: Spanned { value: "min-age".into(), span: value.span() },
        config: serde_json::json!({ "least": least.value }),
        keys: BTreeMap::from([("least".to_owned(), value.span())]),
        written: Some(("least".into(), "age".into())),
        span: value.span(),
    })
}

/// A plugin that is configured by all keys of a table that were not taken yet.
fn configured(plugin: Spanned<String>, entry: Table<'_>) -> Call {
    let span = entry.span.clone();
    let (mut config, mut keys) = (serde_json::Map::new(), BTreeMap::new());
    for (key, value) in entry.rest() {
        keys.insert(key.to_owned(), value.span());
        config.insert(key.to_owned(), raw::json(value.get_ref()));
    }
    Call { plugin, config: config.into(), keys, written: None, span }
}
