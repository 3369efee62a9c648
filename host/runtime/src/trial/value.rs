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

/// A value of this type as JSON.
pub(super) fn to_json(value: &Val, kind: &Type) -> Value {
    match (value, kind) {
        (Val::Bool(value), _) => json!(value),
        (Val::U8(value), _) => json!(value),
        (Val::U16(value), _) => json!(value),
        (Val::U32(value), _) => json!(value),
        (Val::U64(value), _) => json!(value),
        (Val::S64(value), _) => json!(value),
        (Val::String(text), _) => json!(text),
        (Val::List(items), Type::List(list)) if list.ty() == Type::U8 => {
            text_of_bytes(items.iter().map(|item| if let Val::U8(byte) = item { *byte } else { 0 }).collect())
        }
        (Val::List(items), Type::List(list)) => {
            let kind = list.ty();
            items.iter().map(|item| to_json(item, &kind)).collect()
        }
        (Val::Tuple(items), Type::Tuple(tuple)) => {
            items.iter().zip(tuple.types()).map(|(item, kind)| to_json(item, &kind)).collect()
        }
        (Val::Record(values), Type::Record(record)) => {
            let fields = values.iter().zip(record.fields());
            Value::Object(
                fields.map(|((name, value), field)| (name.clone(), to_json(value, &field.ty))).collect(),
            )
        }
        (Val::Variant(name, None) | Val::Enum(name), _) => json!(name),
        (Val::Variant(name, Some(payload)), Type::Variant(variant)) => {
            let case = variant.cases().find(|case| case.name == name).and_then(|case| case.ty);
            let payload = case.map_or(Value::Null, |kind| to_json(payload, &kind));
            Value::Object(Map::from_iter([(name.clone(), payload)]))
        }
        (Val::Option(None), _) => Value::Null,
        (Val::Option(Some(value)), Type::Option(option)) => to_json(value, &option.ty()),
        (Val::Result(Ok(value)), Type::Result(result)) => {
            json!({ "ok": within(value.as_deref(), result.ok()) })
        }
        (Val::Result(Err(error)), Type::Result(result)) => {
            json!({ "error": within(error.as_deref(), result.err()) })
        }
        _ => json!("(a value that has no JSON)"),
    }
}

/// What a result holds. Nothing is `null`.
fn within(value: Option<&Val>, kind: Option<Type>) -> Value {
    value.zip(kind).map_or(Value::Null, |(value, kind)| to_json(value, &kind))
}

/// Bytes as a text if they are one, and in hexadecimal digits otherwise.
pub(crate) fn text_of_bytes(bytes: Vec<u8>) -> Value {
    match String::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(error) => {
            let digits = error.as_bytes().iter().map(|byte| format!("{byte:02x}"));
            json!({ "hex": digits.collect::<String>() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::{
        Engine,
        component::{Component, types::ComponentItem},
    };

    /// The type of the parameter of a function `f` that a component imports.
    fn kind(text: &str) -> Type {
        let engine = Engine::default();
        let wat = format!(
            "(component (type $t {text}) (import \"t\" (type $u (eq $t))) (import \"f\" (func (param \"x\" $u))))"
        );
        let component = Component::new(&engine, wat::parse_str(wat).unwrap()).unwrap();
        let Some(ComponentItem::ComponentFunc(function)) =
            component.component_type().get_import(&engine, "f").map(|found| found.ty)
        else {
            panic!("f is a function");
        };
        function.params().next().unwrap().1
    }

    #[test]
    fn a_value_is_the_same_after_both_conversions() {
        let record = r#"(record (field "name" string) (field "size" u64) (field "hint" (option string)))"#;
        for (kind, json) in [
            (kind("(list u8)"), json!("text")),
            (kind("(list u8)"), json!("")),
            (kind("(list u8)"), json!({ "hex": "ff00" })),
            (kind("(list string)"), json!([])),
            (kind("(list (tuple string u32))"), json!([["a", 1]])),
            (kind(record), json!({ "name": "a", "size": 3, "hint": null })),
            (kind(r#"(variant (case "none") (case "some" string))"#), json!("none")),
            (kind(r#"(variant (case "none") (case "some" string))"#), json!({ "some": "x" })),
            (kind(r#"(enum "a" "b")"#), json!("b")),
            (kind("(option u32)"), Value::Null),
        ] {
            let value = to_val(&json, &kind).unwrap();
            assert_eq!(to_json(&value, &kind), json);
        }
        let left_out = to_val(&json!({}), &kind(record)).unwrap();
        assert_eq!(to_json(&left_out, &kind(record)), json!({ "name": "", "size": 0, "hint": null }));
    }

    #[test]
    fn a_mistake_says_where_it_is() {
        let record = kind(r#"(record (field "name" string) (field "tags" (list u32)))"#);
        for (json, told) in [
            (json!({ "nam": "a" }), "`nam` is not one of name, tags"),
            (json!({ "name": 1 }), "name: 1 is not a text"),
            (json!({ "tags": [-1] }), "tags: -1 is not a number that is not negative"),
            (json!({ "tags": [5_000_000_000u64] }), "tags: 5000000000 is too large"),
        ] {
            assert_eq!(to_val(&json, &record).unwrap_err(), told);
        }
        assert!(to_val(&json!([]), &kind("(list u8)")).unwrap_err().contains("hex"));
        assert!(to_val(&json!({ "hex": "f" }), &kind("(list u8)")).is_err());
    }
}
