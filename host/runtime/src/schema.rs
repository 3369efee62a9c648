//! Checks the configuration of a plugin against its JSON Schema.

use dray_core::policy::suggestion;
use dray_engine::{Error, Kind, Result};
use jsonschema::error::ValidationErrorKind;
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
        _ => {
            let help =
                schema["properties"][&key]["description"].as_str().map(str::to_owned).unwrap_or_else(keys);
            let separator = if key.is_empty() { "" } else { ": " };
            Error::new(Kind::Invalid, format!("{key}{separator}{}", error.masked())).help(help)
        }
    })
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
            "properties": { "count": { "type": "integer", "minimum": 1 }, "password": { "$ref": "#/$defs/secret" } },
            "$defs": { "secret": { "type": "string", "pattern": "^(env|file):.+" } }
        });
        for (config, text, help) in [
            (json!({ "cuont": 1 }), "cuont: ", "did you mean `count`?"),
            (json!({}), "needs the key `count`", "count"),
            (json!({ "count": 0 }), "count: ", ""),
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
