//! The values of a template, as Go prints them.

use std::{collections::BTreeMap, fmt};

/// A value of a template's data.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A field or an entry that is not there.
    None,
    Bool(bool),
    Number(i64),
    Text(String),
    /// A time as it was written (RFC 3339).
    Time(String),
    List(Vec<Value>),
    /// A list that is not there, which is empty.
    NoList,
    Map(BTreeMap<String, Value>),
    /// A map that is not there, which is empty.
    NoMap,
    /// A record with its fields in order.
    Struct(Vec<(String, Value)>),
}

impl Value {
    /// JSON as data. Objects are maps.
    pub fn of_json(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Value::None,
            serde_json::Value::Bool(is) => Value::Bool(*is),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(number) => Value::Number(number),
                None => Value::Text(number.to_string()),
            },
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Array(items) => Value::List(items.iter().map(Value::of_json).collect()),
            serde_json::Value::Object(entries) => {
                Value::Map(entries.iter().map(|(key, value)| (key.clone(), Value::of_json(value))).collect())
            }
        }
    }

    /// Whether it counts as true in `if`: it is neither empty nor zero.
    pub fn is_true(&self) -> bool {
        match self {
            Value::None | Value::NoList | Value::NoMap => false,
            Value::Bool(is) => *is,
            Value::Number(number) => *number != 0,
            Value::Text(text) => !text.is_empty(),
            Value::List(items) => !items.is_empty(),
            Value::Map(entries) => !entries.is_empty(),
            Value::Time(_) | Value::Struct(_) => true,
        }
    }

    /// What a mistake calls it.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::None => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::Text(_) => "a text",
            Value::Time(_) => "a time",
            Value::List(_) | Value::NoList => "a list",
            Value::Map(_) | Value::NoMap => "a map",
            Value::Struct(_) => "a record",
        }
    }

    /// A field of a record, or an entry of a map.
    pub fn field(&self, name: &str) -> Result<Value, String> {
        match self {
            Value::Struct(fields) => {
                let found = fields.iter().find(|(field, _)| field == name);
                found.map(|(_, value)| value.clone()).ok_or_else(|| {
                    let known: Vec<&str> = fields.iter().map(|(field, _)| field.as_str()).collect();
                    format!("there is no field {name}; there are {}", known.join(", "))
                })
            }
            Value::Map(entries) => Ok(entries.get(name).cloned().unwrap_or(Value::None)),
            Value::NoMap => Ok(Value::None),
            other => Err(format!("{} has no fields, and .{name} asks for one", other.kind())),
        }
    }

    /// As JSON.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Value::None | Value::NoList | Value::NoMap => serde_json::Value::Null,
            Value::Bool(is) => (*is).into(),
            Value::Number(number) => (*number).into(),
            Value::Text(text) | Value::Time(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Value::json).collect(),
            Value::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| (key.clone(), value.json()));
                serde_json::Value::Object(entries.collect())
            }
            Value::Struct(fields) => serde_json::Value::Object(
                fields.iter().map(|(key, value)| (key.clone(), value.json())).collect(),
            ),
        }
    }
}

/// As Go's `%v` prints it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(" ");
        match self {
            Value::None => f.write_str("<no value>"),
            Value::Bool(is) => write!(f, "{is}"),
            Value::Number(number) => write!(f, "{number}"),
            Value::Text(text) => f.write_str(text),
            Value::Time(text) => f.write_str(&time(text)),
            Value::NoList => f.write_str("[]"),
            Value::List(items) => write!(f, "[{}]", joined(&mut items.iter().map(ToString::to_string))),
            Value::NoMap => f.write_str("map[]"),
            Value::Map(entries) => {
                let entries = &mut entries.iter().map(|(key, value)| format!("{key}:{value}"));
                write!(f, "map[{}]", joined(entries))
            }
            Value::Struct(fields) => {
                write!(f, "{{{}}}", joined(&mut fields.iter().map(|(_, value)| value.to_string())))
            }
        }
    }
}

/// A time as Go's `time.Time` prints itself: `2026-01-04 00:00:00 +0000 UTC`.
fn time(written: &str) -> String {
    let Ok(at) = written.parse::<jiff::Timestamp>() else { return written.to_owned() };
    let shown = at.to_string();
    let (date, rest) = shown.split_once('T').unwrap_or((&shown, ""));
    format!("{date} {} +0000 UTC", rest.trim_end_matches('Z'))
}
