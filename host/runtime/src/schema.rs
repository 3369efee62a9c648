//! Checks the configuration of a plugin against its JSON Schema.

use dray_core::policy::suggestion;
use dray_engine::{Error, Kind, Result};
use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde_json::Value;

/// Checks a configuration.
///
/// # Errors
/// Fails with the first mistake. Its text begins with the key that is wrong, if there is one.
pub(crate) fn check(plugin: &str, schema: &Value, config: &Value) -> Result<()> {
    let validator = jsonschema::validator_for(schema);
    let validator = validator.map_err(|error| {
        Error::new(Kind::Plugin, format!("read the schema of the plugin {plugin}: {error}"))
    })?;
    let Some(error) = validator.iter_errors(config).next() else { return Ok(()) };
    let path = error.instance_path().to_string();
    let key = path.trim_start_matches('/').split('/').next().unwrap_or_default().to_owned();
    let known: Vec<&str> = schema["properties"]
        .as_object()
        .map(|keys| keys.keys().map(String::as_str).collect())
        .unwrap_or_default();
    let keys = || match known[..] {
        [] => format!("{plugin} takes no configuration"),
        _ => format!("the keys of {plugin} are {}", known.join(", ")),
    };
    Err(match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let unknown = unexpected.first().cloned().unwrap_or_default();
            let help = suggestion(&unknown, known.iter().copied()).unwrap_or_else(keys);
            Error::new(Kind::Invalid, format!("{unknown}: {plugin} has no such key")).help(help)
        }
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            Error::new(Kind::Invalid, format!("{plugin} needs the key `{name}`")).help(keys())
        }
        ValidationErrorKind::OneOfNotValid { .. } | ValidationErrorKind::AnyOf { .. } if key.is_empty() => {
            let alternatives =
                schema["oneOf"].as_array().or(schema["anyOf"].as_array()).cloned().unwrap_or_default();
            let alternatives: Vec<String> = alternatives
                .iter()
                .filter_map(|one| one["required"].as_array())
                .map(|names| names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" and "))
                .collect();
            Error::new(Kind::Invalid, format!("{plugin} needs one of: {}", alternatives.join("; ")))
                .help(keys())
        }
        ValidationErrorKind::Pattern { .. }
            if schema.pointer(&format!("/properties/{key}/$ref")).and_then(Value::as_str)
                == Some("#/$defs/secret") =>
        {
            Error::new(Kind::Invalid, format!("{key}: a policy holds no secrets"))
                .help("say where it lies: \"env:NAME\" or \"file:PATH\"")
        }
        ValidationErrorKind::MinProperties { .. } if key.is_empty() => {
            Error::new(Kind::Invalid, format!("{plugin} needs at least one key")).help(keys())
        }
        kind => {
            let about = schema["properties"][&key]["description"].as_str().map(str::to_owned);
            let help = nearest(kind, error.instance()).or(about).unwrap_or_else(keys);
            let why = why(kind).unwrap_or_else(|| error.masked().to_string());
            let separator = if key.is_empty() { "" } else { ": " };
            Error::new(Kind::Invalid, format!("{key}{separator}{why}")).help(help)
        }
    })
}

/// What is wrong with a value, for people. `None` means that only the schema can tell.
fn why(kind: &ValidationErrorKind) -> Option<String> {
    Some(match kind {
        ValidationErrorKind::Enum { options } => {
            let options = options.as_array()?.iter().map(Value::to_string);
            format!("it is one of {}", options.collect::<Vec<_>>().join(", "))
        }
        ValidationErrorKind::Type { kind } => match kind {
            TypeKind::Single(kind) => format!("it is {}", named(&kind.to_string())),
            TypeKind::Multiple(_) => return None,
        },
        ValidationErrorKind::Minimum { limit } => format!("it is at least {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("it is at most {limit}"),
        ValidationErrorKind::MinItems { limit: 1 } => "the list is empty".into(),
        ValidationErrorKind::MinLength { limit: 1 } => "the text is empty".into(),
        ValidationErrorKind::MinProperties { limit: 1 } => "the table is empty".into(),
        ValidationErrorKind::AnyOf { .. } | ValidationErrorKind::OneOfNotValid { .. } => {
            "it has none of the forms that it may have".into()
        }
        _ => return None,
    })
}

/// A type of JSON as the policy's language calls it.
fn named(kind: &str) -> &'static str {
    match kind {
        "string" => "a text in quotes",
        "boolean" => "true or false",
        "integer" | "number" => "a number",
        "array" => "a list",
        _ => "a table",
    }
}

/// The value that was probably meant, of those that a key may have.
fn nearest(kind: &ValidationErrorKind, value: &Value) -> Option<String> {
    let ValidationErrorKind::Enum { options } = kind else { return None };
    suggestion(value.as_str()?, options.as_array()?.iter().filter_map(Value::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn mistakes_begin_with_their_key_and_never_show_a_secret() {
        let schema = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["count"],
            "properties": {
                "count": { "type": "integer", "minimum": 1 },
                "level": { "enum": ["low", "high"] },
                "names": { "anyOf": [{ "type": "string" }, { "type": "array" }], "description": "Names, in a list." },
                "password": { "$ref": "#/$defs/secret" }
            },
            "$defs": { "secret": { "type": "string", "pattern": "^(env|file):.+" } }
        });
        for (config, text, help) in [
            (json!({ "cuont": 1 }), "cuont: ", "did you mean `count`?"),
            (json!({}), "needs the key `count`", "count"),
            (json!({ "count": 0 }), "count: it is at least 1", ""),
            (json!({ "count": "many" }), "count: it is a number", ""),
            (
                json!({ "count": 1, "level": "hihg" }),
                "level: it is one of \"low\", \"high\"",
                "did you mean `high`?",
            ),
            (json!({ "count": 1, "names": 7 }), "names: it has none of the forms", "Names, in a list."),
            (json!({ "count": 1, "password": "hunter2" }), "password: ", "env:NAME"),
        ] {
            let error = check("latest", &schema, &config).unwrap_err();
            assert!(error.text.contains(text), "{error:?}");
            assert!(error.help.as_deref().unwrap_or_default().contains(help), "{error:?}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        assert!(check("latest", &schema, &json!({ "count": 1 })).is_ok());
    }
}
