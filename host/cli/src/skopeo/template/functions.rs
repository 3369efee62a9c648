//! The functions of templates: Go's own, and those that the tools of containers add (common, `pkg/report`).

use super::Value;
use std::cmp::Ordering;

/// Functions of Go's templates that are refused.
const REFUSED: [&str; 5] = ["call", "html", "js", "urlquery", "slice"];

/// Calls a function. A function of a pipeline has got the value before it as its last argument.
pub fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    use Value::{Bool, Number, Text};
    let wrong = || {
        let kinds: Vec<&str> = arguments.iter().map(Value::kind).collect();
        let kinds = if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(" and ") };
        format!("the function {name} cannot work with {kinds}")
    };
    Ok(match (name, arguments) {
        ("and", [.., last]) => arguments.iter().find(|value| !value.is_true()).unwrap_or(last).clone(),
        ("or", [.., last]) => arguments.iter().find(|value| value.is_true()).unwrap_or(last).clone(),
        ("not", [value]) => Bool(!value.is_true()),
        ("eq", [first, others @ ..]) if !others.is_empty() => Bool(others.contains(first)),
        ("ne", [one, other]) => Bool(one != other),
        ("lt", [one, other]) => Bool(order(one, other).ok_or_else(wrong)? == Ordering::Less),
        ("le", [one, other]) => Bool(order(one, other).ok_or_else(wrong)? != Ordering::Greater),
        ("gt", [one, other]) => Bool(order(one, other).ok_or_else(wrong)? == Ordering::Greater),
        ("ge", [one, other]) => Bool(order(one, other).ok_or_else(wrong)? != Ordering::Less),
        ("len", [Text(text)]) => Number(text.len() as i64),
        ("len", [Value::List(items)]) => Number(items.len() as i64),
        ("len", [Value::Map(entries)]) => Number(entries.len() as i64),
        ("len", [Value::NoList | Value::NoMap]) => Number(0),
        ("index", [value, keys @ ..]) => keys.iter().try_fold(value.clone(), index)?,
        ("print", values) => Text(printed(values)),
        ("println", values) => {
            let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
            Text(format!("{}\n", texts.join(" ")))
        }
        ("printf", [Text(format), values @ ..]) => Text(formatted(format, values)?),
        ("json", [value]) => {
            let text = value.json().to_string();
            Text(text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
        }
        ("join", [Value::List(items), Text(between)]) => {
            let texts: Vec<String> = items.iter().map(ToString::to_string).collect();
            Text(texts.join(between))
        }
        ("join", [Value::NoList, Text(_)]) => Text(String::new()),
        ("split", [Text(text), Text(between)]) => match between.is_empty() {
            true => Value::List(text.chars().map(|one| Text(one.into())).collect()),
            false => Value::List(text.split(between.as_str()).map(|part| Text(part.into())).collect()),
        },
        ("lower", [Text(text)]) => Text(text.to_lowercase()),
        ("upper", [Text(text)]) => Text(text.to_uppercase()),
        ("truncate", [Text(text), Number(length)]) => {
            Text(text.chars().take(usize::try_from(*length).unwrap_or(0)).collect())
        }
        (name, _) if REFUSED.contains(&name) => {
            return Err(format!("the function `{name}` is not supported"));
        }
        (
            "and" | "or" | "not" | "eq" | "ne" | "lt" | "le" | "gt" | "ge" | "len" | "index" | "printf"
            | "json",
            _,
        )
        | ("join" | "split" | "lower" | "upper" | "truncate", _) => return Err(wrong()),
        (name, _) => return Err(format!("the function `{name}` is not defined")),
    })
}

/// The order of two values of one kind. `None` means that they have none.
fn order(one: &Value, other: &Value) -> Option<Ordering> {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => Some(one.cmp(other)),
        (Value::Text(one), Value::Text(other)) => Some(one.cmp(other)),
        _ => None,
    }
}

/// An element of a list, or an entry of a map.
fn index(value: Value, key: &Value) -> Result<Value, String> {
    match (&value, key) {
        (Value::List(items), Value::Number(at)) => {
            let found = usize::try_from(*at).ok().and_then(|at| items.get(at));
            found.cloned().ok_or_else(|| format!("the index {at} is out of range: there are {}", items.len()))
        }
        (Value::NoList, Value::Number(at)) => Err(format!("the index {at} is out of range: there are 0")),
        (Value::Map(entries), Value::Text(key)) => {
            Ok(entries.get(key).cloned().unwrap_or(Value::Text(String::new())))
        }
        (Value::NoMap, Value::Text(_)) => Ok(Value::Text(String::new())),
        _ => Err(format!("the function index cannot look for {} in {}", key.kind(), value.kind())),
    }
}

/// Values one behind the other, with a space between two that are no texts (Go, `fmt.Sprint`).
fn printed(values: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        let is_text = |value: &Value| matches!(value, Value::Text(_));
        if at > 0 && !is_text(value) && !is_text(&values[at - 1]) {
            out.push(' ');
        }
        out.push_str(&value.to_string());
    }
    out
}

/// Go's `fmt.Sprintf`, with the verbs %s, %v, %d, %t and %q, with widths, and with the precision of texts.
fn formatted(format: &str, values: &[Value]) -> Result<String, String> {
    let (mut out, mut rest, mut values) = (String::new(), format, values.iter());
    while let Some((text, behind)) = rest.split_once('%') {
        out.push_str(text);
        let end =
            behind.find(|next: char| !matches!(next, '-' | '.' | '0'..='9')).ok_or("a % is not complete")?;
        let (flags, behind) = behind.split_at(end);
        let verb = behind.chars().next().unwrap_or_default();
        rest = &behind[verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| format!("printf has no value for %{verb}"))?;
        let (flags, precision) = match flags.split_once('.') {
            Some((flags, precision)) => (flags, Some(precision.parse::<usize>().unwrap_or(0))),
            None => (flags, None),
        };
        let shown = match (verb, value) {
            ('v' | 's', Value::Text(text)) => text.chars().take(precision.unwrap_or(usize::MAX)).collect(),
            ('v' | 's', value) => value.to_string(),
            ('d', Value::Number(number)) => number.to_string(),
            ('t', Value::Bool(is)) => is.to_string(),
            ('q', Value::Text(text)) => format!("{text:?}"),
            ('d' | 't' | 'q', other) => {
                return Err(format!("printf cannot write {} as %{verb}", other.kind()));
            }
            (other, _) => return Err(format!("printf does not support %{other}")),
        };
        let width: usize = flags.trim_start_matches('-').parse().unwrap_or(0).min(10_000);
        out.push_str(&match (flags.starts_with('-'), flags.starts_with('0') && verb == 'd') {
            (true, _) => format!("{shown:<width$}"),
            (false, true) => format!("{shown:0>width$}"),
            (false, false) => format!("{shown:>width$}"),
        });
    }
    out.push_str(rest);
    match values.next() {
        Some(_) => Err("printf has more values than verbs".into()),
        None => Ok(out),
    }
}
