//! Tables that call a plugin: filters and auth providers.

use super::raw::{self, string, table};
use super::{Call, Problem, Spanned};
use std::collections::BTreeMap;
use toml::{Spanned as TomlSpanned, de::DeValue};

/// The keys by which a table of `auth` shows that it means the provider `static`.
const STATIC: [&str; 5] = ["username", "password", "credentials", "token", "identity-token"];

/// An auth provider. Without `provider`, a table with one of the keys of `static` means that.
pub(super) fn provider(value: &TomlSpanned<DeValue>, problems: &mut Vec<Problem>) -> Option<Call> {
    let table = value.get_ref().as_table();
    let given = |key: &str| table.is_some_and(|table| table.contains_key(key));
    if given("provider") || !STATIC.iter().any(|key| given(key)) {
        return call(value, "an auth provider", "provider", problems);
    }
    let span = value.span();
    let entries = table.into_iter().flatten();
    let mut read = Call {
        plugin: Spanned { value: "static".into(), span: span.clone() },
        config: serde_json::Value::Null,
        keys: BTreeMap::new(),
        written: None,
        span,
    };
    let mut config = serde_json::Map::new();
    for (key, value) in entries {
        read.keys.insert(key.get_ref().to_string(), value.span());
        config.insert(key.get_ref().to_string(), raw::json(value.get_ref()));
    }
    read.config = config.into();
    Some(read)
}

/// A table that names a plugin with one key and configures it with the others.
pub(super) fn call(
    value: &TomlSpanned<DeValue>,
    what: &'static str,
    key: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<Call> {
    let mut entry = table(what, value, problems)?;
    let span = entry.span.clone();
    let plugin = entry.require(key, problems).and_then(|value| string(value, problems))?;
    let mut config = serde_json::Map::new();
    let mut keys = BTreeMap::new();
    for (key, value) in entry.rest() {
        keys.insert(key.to_owned(), value.span());
        config.insert(key.to_owned(), raw::json(value.get_ref()));
    }
    Some(Call { plugin, config: config.into(), keys, written: None, span })
}
