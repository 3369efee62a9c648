//! Tells of each call of a plugin, for its author.

use crate::{Role, bindings::host::types, load::Loaded, record::Recorded, state::State};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::time::Instant;

/// Hears of calls. Implementations must not block.
pub trait Tracer: Send + Sync {
    /// Whether calls of a plugin are told.
    fn traces(&self, plugin: &str) -> bool;
    /// A call has ended.
    fn called(&self, call: &Call<'_>);
    /// Whether calls of a plugin are recorded as a whole, with everything that belongs to them.
    fn records(&self, _plugin: &str) -> bool {
        false
    }
    /// A call has been recorded. It may hold secrets.
    fn recorded(&self, _call: Recorded) {}
}

/// A call of a plugin that has ended.
#[derive(Clone, Debug, Serialize)]
pub struct Call<'a> {
    /// The name of the plugin.
    pub plugin: &'a str,
    /// The function, as the contract calls it.
    pub function: String,
    /// How long it took, in milliseconds, with its waiting for the host.
    pub ms: f64,
    /// The size of the arguments as JSON, in bytes.
    pub argument_bytes: usize,
    /// The size of the answer as JSON, in bytes.
    pub answer_bytes: usize,
    /// The arguments. Bytes are only counted.
    pub arguments: Value,
    /// The answer: `{"ok": …}`, `{"error": …}` or `{"trap": …}`. That of an auth provider is not shown.
    pub answer: Value,
}

/// Items of a list that are shown. More are counted.
const SHOWN: usize = 20;

impl Loaded {
    /// Tells of a call, if somebody wants to hear of this plugin.
    pub(crate) fn traced<T: Serialize>(
        &self,
        function: &str,
        begun: Instant,
        arguments: &impl Serialize,
        result: &wasmtime::Result<Result<T, types::Error>>,
        state: &mut State,
    ) {
        let Some(tracer) = &self.tracer else { return };
        if let (true, Ok(answer)) = (tracer.records(&self.name), result)
            && let Some(recorded) = self.recorded(function, arguments, answer, state)
        {
            tracer.recorded(recorded);
        }
        let ms = (begun.elapsed().as_secs_f64() * 100_000.0).round() / 100.0;
        let json = |value: serde_json::Result<Value>| value.unwrap_or_else(|error| json!(error.to_string()));
        let arguments = json(serde_json::to_value(arguments));
        let answer = match result {
            Ok(Ok(answer)) => json!({ "ok": json(serde_json::to_value(answer)) }),
            Ok(Err(error)) => json!({ "error": json(serde_json::to_value(error)) }),
            Err(trap) => json!({ "trap": format!("{:#}", trap.root_cause()) }),
        };
        let size = |value: &Value| value.to_string().len();
        let (argument_bytes, answer_bytes) = (size(&arguments), size(&answer));
        // A credential is in the answer, and may be in the text of an error.
        let answer = if self.role == Role::Auth { json!("(hidden)") } else { shown(answer) };
        tracer.called(&Call {
            plugin: &self.name,
            function: function.trim_start_matches("call_").replace('_', "-"),
            ms,
            argument_bytes,
            answer_bytes,
            arguments: shown(arguments),
            answer,
        });
    }
}

/// A value in the words of the contract, without secrets in URLs, and not longer than people read.
fn shown(value: Value) -> Value {
    match value {
        Value::String(text) if text.contains("://") => json!(dray_core::without_secrets(&text)),
        Value::Array(items) if items.len() > SHOWN => match items.iter().all(Value::is_u64) {
            true => json!(format!("({} bytes or numbers)", items.len())),
            false => {
                let more = json!(format!("(and {} more)", items.len() - SHOWN));
                items.into_iter().take(SHOWN).map(shown).chain([more]).collect()
            }
        },
        Value::Array(items) => items.into_iter().map(shown).collect(),
        Value::Object(fields) => {
            let named = fields.into_iter().map(|(name, value)| (kebab(&name), shown(value)));
            Value::Object(named.collect::<Map<_, _>>())
        }
        other => other,
    }
}

/// A name of Rust as the contract has it: `media_type` and `MediaType` are `media-type`.
fn kebab(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for (at, character) in name.chars().enumerate() {
        match character {
            '_' => out.push('-'),
            upper if upper.is_ascii_uppercase() => {
                if at > 0 {
                    out.push('-');
                }
                out.push(upper.to_ascii_lowercase());
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_in_the_contract_s_words_and_no_longer_than_needed() {
        let long: Vec<u64> = (0..30).collect();
        let value = json!({ "media_type": "a", "state": long, "NotFound": ["https://u:p@h/x"] });
        let expected = json!({
            "media-type": "a",
            "state": "(30 bytes or numbers)",
            "not-found": [dray_core::without_secrets("https://u:p@h/x")],
        });
        assert_eq!(shown(value), expected);
        assert!(!expected.to_string().contains("u:p@"));
        let tags: Vec<String> = (0..25).map(|number| format!("v{number}")).collect();
        let cut = shown(json!(tags));
        assert_eq!((cut.as_array().unwrap().len(), &cut[20]), (21, &json!("(and 5 more)")));
    }
}
