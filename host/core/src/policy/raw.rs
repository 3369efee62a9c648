//! Reading TOML tables: every value keeps its place, every mistake is collected, and a key that
//! nobody asked for is one.

use super::{Problem, Spanned, suggestion};
use std::{collections::BTreeMap, ops::Range};
use toml::{
    Spanned as TomlSpanned,
    de::{DeTable, DeValue},
};

/// A table that is being read. [`Table::end`] must be called when all keys have been asked for.
#[derive(Clone)]
pub(super) struct Table<'a> {
    /// What it is, for messages: `a rule`.
    what: &'static str,
    entries: BTreeMap<&'a str, (Range<usize>, &'a TomlSpanned<DeValue<'a>>)>,
    asked: Vec<&'static str>,
    /// Values of keys that it does not have, from `[defaults]`.
    defaults: BTreeMap<&'a str, &'a TomlSpanned<DeValue<'a>>>,
    pub span: Range<usize>,
}

impl<'a> Table<'a> {
    pub fn new(what: &'static str, table: &'a DeTable<'a>, span: Range<usize>) -> Self {
        let entries = table.iter().map(|(key, value)| (key.get_ref().as_ref(), (key.span(), value)));
        Table { what, entries: entries.collect(), asked: Vec::new(), defaults: BTreeMap::new(), span }
    }

    /// Takes the value of a key, if it is there.
    pub fn take(&mut self, key: &'static str) -> Option<&'a TomlSpanned<DeValue<'a>>> {
        self.asked.push(key);
        let own = self.entries.remove(key).map(|(_, value)| value);
        own.or_else(|| self.defaults.get(key).copied())
    }

    /// Takes keys that are not there from another table.
    pub fn fall_back(&mut self, defaults: &Table<'a>) {
        self.defaults = defaults.entries.iter().map(|(key, (_, value))| (*key, *value)).collect();
    }

    /// Where the value of a key is, if the table itself has it.
    pub fn peek(&self, key: &str) -> Option<Range<usize>> {
        self.entries.get(key).map(|(_, value)| value.span())
    }

    /// Whether a key is in the table itself.
    pub fn is_own(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Reports keys that have no default.
    pub fn refuse(&self, keys: &[&str], why: &str, problems: &mut Vec<Problem>) {
        for key in keys {
            if let Some((span, _)) = self.entries.get(key) {
                problems.push(Problem::new(format!("`{key}` has no default: {why}"), span.clone()));
            }
        }
    }

    /// Takes the value of a key that must be there.
    pub fn require(
        &mut self,
        key: &'static str,
        problems: &mut Vec<Problem>,
    ) -> Option<&'a TomlSpanned<DeValue<'a>>> {
        let value = self.take(key);
        if value.is_none() {
            problems.push(Problem::new(format!("{} needs the key `{key}`", self.what), self.span.clone()));
        }
        value
    }

    /// What is left, for tables whose other keys belong to somebody else.
    pub fn rest(self) -> impl Iterator<Item = (&'a str, &'a TomlSpanned<DeValue<'a>>)> {
        self.entries.into_iter().map(|(key, (_, value))| (key, value))
    }

    /// Reports the keys that nobody asked for.
    pub fn end(self, problems: &mut Vec<Problem>) {
        for (key, (span, _)) in &self.entries {
            let problem = Problem::new(format!("{} has no key `{key}`", self.what), span.clone());
            let help = suggestion(key, self.asked.iter().copied());
            let help = help.unwrap_or_else(|| format!("its keys are {}", self.asked.join(", ")));
            problems.push(problem.help(help));
        }
    }
}

/// Reports that a value has the wrong type, and gives none.
fn wrong<T>(value: &TomlSpanned<DeValue>, wanted: &str, problems: &mut Vec<Problem>) -> Option<T> {
    let found = value.get_ref().type_str();
    problems.push(Problem::new(format!("expected {wanted}, found {found}"), value.span()));
    None
}

pub(super) fn string(value: &TomlSpanned<DeValue>, problems: &mut Vec<Problem>) -> Option<Spanned<String>> {
    match value.get_ref().as_str() {
        Some(text) => Some(Spanned { value: text.into(), span: value.span() }),
        None => wrong(value, "a string", problems),
    }
}

pub(super) fn boolean(value: &TomlSpanned<DeValue>, problems: &mut Vec<Problem>) -> Option<bool> {
    value.get_ref().as_bool().or_else(|| wrong(value, "true or false", problems))
}

pub(super) fn integer(value: &TomlSpanned<DeValue>, problems: &mut Vec<Problem>) -> Option<Spanned<i64>> {
    let parsed = value.get_ref().as_integer();
    let parsed = parsed.and_then(|integer| i64::from_str_radix(integer.as_str(), integer.radix()).ok());
    match parsed {
        Some(number) => Some(Spanned { value: number, span: value.span() }),
        None => wrong(value, "a whole number", problems),
    }
}

pub(super) fn table<'a>(
    what: &'static str,
    value: &'a TomlSpanned<DeValue<'a>>,
    problems: &mut Vec<Problem>,
) -> Option<Table<'a>> {
    match value.get_ref().as_table() {
        Some(table) => Some(Table::new(what, table, value.span())),
        None => wrong(value, "a table", problems),
    }
}

pub(super) fn list<'a>(
    value: &'a TomlSpanned<DeValue<'a>>,
    problems: &mut Vec<Problem>,
) -> Vec<&'a TomlSpanned<DeValue<'a>>> {
    match value.get_ref().as_array() {
        Some(items) => items.iter().collect(),
        None => wrong(value, "a list", problems).unwrap_or_default(),
    }
}

/// A value that may be written alone or as a list.
pub(super) fn one_or_many<'a>(value: &'a TomlSpanned<DeValue<'a>>) -> Vec<&'a TomlSpanned<DeValue<'a>>> {
    match value.get_ref().as_array() {
        Some(items) => items.iter().collect(),
        None => vec![value],
    }
}

pub(super) fn strings(value: &TomlSpanned<DeValue>, problems: &mut Vec<Problem>) -> Vec<Spanned<String>> {
    list(value, problems).into_iter().filter_map(|item| string(item, problems)).collect()
}

/// A value as JSON, for the configuration of plugins. Dates become strings.
pub(super) fn json(value: &DeValue) -> serde_json::Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(integer) => {
            i64::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i64::MAX).into()
        }
        DeValue::Float(float) => float.as_str().parse::<f64>().unwrap_or(f64::NAN).into(),
        DeValue::Boolean(value) => (*value).into(),
        DeValue::Datetime(date) => date.to_string().into(),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            let entries = table.iter().map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref())));
            serde_json::Value::Object(entries.collect())
        }
    }
}
