//! Converts between JSON and the values of a component, by the types of the contract.
//!
//! | WIT | JSON |
//! |---|---|
//! | `record` | an object; a field that is left out is empty: `none`, `false`, 0, `""`, an empty list |
//! | `variant` | the name of a case, or an object of the name and the payload: `{"not-found": "…"}` |
//! | `enum` | the name |
//! | `option` | the value; `null` or an empty object for none |
//! | `result` | `{"ok": …}` or `{"error": …}` |
//! | `list<u8>` | a text, or `{"hex": "…"}` if it is none |
//! | `tuple`, `list` | an array |
//! | `string` | a text; an object or an array stands for its JSON, such as that of a configuration |

use serde_json::{Map, Value, json};
use wasmtime::component::{Type, Val, types::Record};

/// A value of this type. The error says what is wrong, and where.
pub(super) fn to_val(json: &Value, kind: &Type) -> Result<Val, String> {
    let number = || json.as_u64().ok_or_else(|| wrong(json, "a number that is not negative"));
    Ok(match kind {
        Type::Bool => Val::Bool(json.as_bool().ok_or_else(|| wrong(json, "true or false"))?),
        Type::U8 => Val::U8(small(number()?)?),
        Type::U16 => Val::U16(small(number()?)?),
        Type::U32 => Val::U32(small(number()?)?),
        Type::U64 => Val::U64(number()?),
        Type::S64 => Val::S64(json.as_i64().ok_or_else(|| wrong(json, "a number"))?),
        Type::String => Val::String(match json {
            Value::String(text) => text.clone(),
            Value::Object(_) | Value::Array(_) => json.to_string(),
            _ => return Err(wrong(json, "a text")),
        }),
        Type::List(list) if list.ty() == Type::U8 => {
            Val::List(bytes(json)?.into_iter().map(Val::U8).collect())
        }
        Type::List(list) => {
            let items = json.as_array().ok_or_else(|| wrong(json, "a list"))?;
            Val::List(items.iter().map(|item| to_val(item, &list.ty())).collect::<Result<_, _>>()?)
        }
        Type::Tuple(tuple) => {
            let items = json.as_array().filter(|items| items.len() == tuple.types().len());
            let items = items.ok_or_else(|| wrong(json, &format!("a list of {}", tuple.types().len())))?;
            let values = items.iter().zip(tuple.types()).map(|(item, kind)| to_val(item, &kind));
            Val::Tuple(values.collect::<Result<_, _>>()?)
        }
        Type::Record(record) => to_record(json, record)?,
        Type::Enum(names) => {
            let text = json.as_str().ok_or_else(|| wrong(json, "a text"))?;
            match names.names().any(|name| name == text) {
                true => Val::Enum(text.to_owned()),
                false => return Err(one_of(text, names.names())),
            }
        }
        Type::Variant(variant) => {
            let (name, payload) = match json {
                Value::String(name) => (name.as_str(), None),
                Value::Object(one) if one.len() == 1 => one
                    .iter()
                    .next()
                    .map(|(name, payload)| (name.as_str(), Some(payload)))
                    .unwrap_or_default(),
                _ => return Err(wrong(json, "the name of a case, or one key with its payload")),
            };
            let case = variant.cases().find(|case| case.name == name);
            let case = case.ok_or_else(|| one_of(name, variant.cases().map(|case| case.name)))?;
            let payload = match (&case.ty, payload) {
                (Some(kind), Some(payload)) => Some(Box::new(at(name, to_val(payload, kind))?)),
                (Some(kind), None) => Some(Box::new(empty(kind)?)),
                (None, _) => None,
            };
            Val::Variant(name.to_owned(), payload)
        }
        // TOML has no `null`.
        Type::Option(_) if json.is_null() || *json == json!({}) => Val::Option(None),
        Type::Option(inner) => Val::Option(Some(Box::new(to_val(json, &inner.ty())?))),
        _ => return Err("the contract has no such type here".into()),
    })
}

fn to_record(json: &Value, record: &Record) -> Result<Val, String> {
    let given = json.as_object().ok_or_else(|| wrong(json, "a table"))?;
    if let Some(unknown) = given.keys().find(|key| !record.fields().any(|field| field.name == **key)) {
        return Err(one_of(unknown, record.fields().map(|field| field.name)));
    }
    let fields = record.fields().map(|field| {
        let value = match given.get(field.name) {
            Some(value) => at(field.name, to_val(value, &field.ty))?,
            None => at(field.name, empty(&field.ty))?,
        };
        Ok((field.name.to_owned(), value))
    });
    Ok(Val::Record(fields.collect::<Result<_, String>>()?))
}

/// The value of a field that is left out.
pub(super) fn empty(kind: &Type) -> Result<Val, String> {
    Ok(match kind {
        Type::Bool => Val::Bool(false),
        Type::Option(_) => Val::Option(None),
        Type::List(_) => Val::List(Vec::new()),
        Type::String => Val::String(String::new()),
        Type::U8 => Val::U8(0),
        Type::U16 => Val::U16(0),
        Type::U32 => Val::U32(0),
        Type::U64 => Val::U64(0),
        Type::S64 => Val::S64(0),
        Type::Enum(names) => Val::Enum(names.names().next().unwrap_or_default().to_owned()),
        Type::Record(record) => to_record(&json!({}), record)?,
        _ => return Err("it has to be written".into()),
    })
}

fn small<T: TryFrom<u64>>(number: u64) -> Result<T, String> {
    T::try_from(number).map_err(|_| format!("{number} is too large"))
}

fn bytes(json: &Value) -> Result<Vec<u8>, String> {
    let wrong = || wrong(json, "a text, or { hex = \"…\" }");
    match json {
        Value::String(text) => Ok(text.clone().into_bytes()),
        // So an empty list is told, whatever its type.
        Value::Array(none) if none.is_empty() => Ok(Vec::new()),
        Value::Object(one) if one.len() == 1 => {
            let digits = one.get("hex").and_then(Value::as_str).ok_or_else(wrong)?;
            let pairs = (0..digits.len()).step_by(2).map(|at| digits.get(at..at + 2));
            let byte = |pair: Option<&str>| u8::from_str_radix(pair?, 16).ok();
            pairs.map(byte).collect::<Option<_>>().ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

fn wrong(json: &Value, wanted: &str) -> String {
    format!("{json} is not {wanted}")
}

fn one_of<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> String {
    format!("`{found}` is not one of {}", known.collect::<Vec<_>>().join(", "))
}

fn at<T>(name: &str, done: Result<T, String>) -> Result<T, String> {
    done.map_err(|error| format!("{name}: {error}"))
}

/// A value as JSON.
pub(super) fn to_json(value: &Val) -> Value {
    match value {
        Val::Bool(value) => json!(value),
        Val::S8(value) => json!(value),
        Val::U8(value) => json!(value),
        Val::S16(value) => json!(value),
        Val::U16(value) => json!(value),
        Val::S32(value) => json!(value),
        Val::U32(value) => json!(value),
        Val::S64(value) => json!(value),
        Val::U64(value) => json!(value),
        Val::Float32(value) => json!(value),
        Val::Float64(value) => json!(value),
        Val::Char(value) => json!(value),
        Val::String(text) => json!(text),
        Val::List(items) if matches!(items.first(), Some(Val::U8(_))) => {
            let bytes: Vec<u8> =
                items.iter().map(|item| if let Val::U8(byte) = item { *byte } else { 0 }).collect();
            match String::from_utf8(bytes) {
                Ok(text) => json!(text),
                Err(error) => {
                    let digits = error.as_bytes().iter().map(|byte| format!("{byte:02x}"));
                    json!({ "hex": digits.collect::<String>() })
                }
            }
        }
        Val::List(items) | Val::Tuple(items) | Val::FixedLengthList(items) => {
            items.iter().map(to_json).collect()
        }
        Val::Record(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), to_json(value))).collect())
        }
        Val::Variant(name, None) | Val::Enum(name) => json!(name),
        Val::Variant(name, Some(payload)) => {
            Value::Object(Map::from_iter([(name.clone(), to_json(payload))]))
        }
        Val::Option(value) => value.as_deref().map_or(Value::Null, to_json),
        Val::Result(Ok(value)) => json!({ "ok": value.as_deref().map_or(Value::Null, to_json) }),
        Val::Result(Err(error)) => json!({ "error": error.as_deref().map_or(Value::Null, to_json) }),
        _ => json!("(a value that has no JSON)"),
    }
}
