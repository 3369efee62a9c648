//! Keeps what a plugin is given, what it asks the host, and what it answers, so that a fixture can be made of a real call.

use crate::{bindings::host::types, load::Loaded, state::State, trial};
use dray_engine::{Secret, contract::Request};
use serde::Serialize;
use serde_json::{Value, json};
use wasmtime::component::{
    Type,
    types::{ComponentFunc, ComponentItem},
};

/// A call of a plugin with all that belongs to it, in the words of the contract.
#[derive(Debug)]
pub struct Recorded {
    /// `interface.function`, such as `tag-filter.select`.
    pub function: String,
    /// The arguments.
    pub arguments: Vec<Value>,
    /// The answer: `{"ok": …}`, `{"error": …}`, or what a function answers that cannot fail.
    pub answer: Value,
    /// What the plugin asked for meanwhile, in its order.
    pub heard: Vec<Heard>,
    /// Secrets that the plugin was told, and texts that it remembers.
    pub told: Vec<Secret>,
    /// The location of the opened place, if there is one, and whether it is only read.
    pub place: Option<(String, bool)>,
}

/// Something that a plugin asked the host for, and what it got.
#[derive(Clone, Debug)]
pub enum Heard {
    /// The time in milliseconds since 1970.
    Now(u64),
    /// A secret by its name.
    Secret(String, Secret),
    /// A request with its body, and the answer.
    Request(Request, Vec<u8>, Answered),
    /// Facts about the image of a tag, as a fixture has them.
    Image(trial::Image),
    /// The tags of the destination.
    Destination(Vec<String>),
    /// Something that no fixture holds: a function of the host.
    Other(&'static str),
}

/// An answer to a request.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Loaded {
    /// Finds an exported function by its name: `interface.function` and its type.
    fn exported(&self, function: &str) -> Option<(String, ComponentFunc)> {
        let engine = self.pre.engine();
        let component = self.pre.component().component_type();
        component.exports(engine).find_map(|(name, item)| {
            let interface = name.strip_prefix("dray:plugin/")?.split('@').next()?;
            let ComponentItem::ComponentInstance(instance) = item.ty else { return None };
            match instance.get_export(engine, function)?.ty {
                ComponentItem::ComponentFunc(kind) => Some((format!("{interface}.{function}"), kind)),
                _ => None,
            }
        })
    }

    /// A call in the words of the contract. `None` means that the plugin has no function of this name.
    pub(crate) fn recorded<T: Serialize>(
        &self,
        function: &str,
        arguments: &impl Serialize,
        answer: &Result<T, types::Error>,
        state: &mut State,
    ) -> Option<Recorded> {
        let place = state.scope.context.as_ref();
        let place = place.map(|place| (place.location().to_owned(), !place.is_destination()));
        let told = state.scope.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let heard = std::mem::take(&mut state.heard);
        let name = function.trim_start_matches("call_").replace('_', "-");
        let (function, kind) = self.exported(&name)?;
        let json = |value: serde_json::Result<Value>| value.unwrap_or_default();
        let given = match json(serde_json::to_value(arguments)) {
            Value::Array(given) => given,
            one => vec![one],
        };
        let arguments = kind.params().zip(given).map(|((_, kind), value)| worded(value, &kind)).collect();
        let result = kind.results().next();
        let result = match &result {
            Some(Type::Result(result)) => (result.ok(), result.err()),
            other => (other.clone(), None),
        };
        let within = |value: Value, kind: &Option<Type>| match kind {
            Some(kind) => worded(value, kind),
            None => Value::Null,
        };
        let answer = match answer {
            Ok(answer) => json!({ "ok": within(json(serde_json::to_value(answer)), &result.0) }),
            Err(error) => json!({ "error": within(json(serde_json::to_value(error)), &result.1) }),
        };
        Some(Recorded { function, arguments, answer, heard, told, place })
    }
}

/// A name without what Rust and the contract write in different ways.
fn plain(name: &str) -> String {
    name.chars().filter(|one| !matches!(one, '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// A value as Rust's types write it, in the words of the contract and as fixtures have it.
fn worded(value: Value, kind: &Type) -> Value {
    match (value, kind) {
        (Value::Null, _) => Value::Null,
        (value, Type::Option(option)) => worded(value, &option.ty()),
        (Value::Array(items), Type::List(list)) if list.ty() == Type::U8 => {
            let bytes = items.iter().filter_map(Value::as_u64).filter_map(|byte| u8::try_from(byte).ok());
            trial::text_of_bytes(bytes.collect())
        }
        (Value::Array(items), Type::List(list)) => {
            let kind = list.ty();
            items.into_iter().map(|item| worded(item, &kind)).collect()
        }
        (Value::Array(items), Type::Tuple(tuple)) => {
            items.into_iter().zip(tuple.types()).map(|(item, kind)| worded(item, &kind)).collect()
        }
        (Value::Object(mut given), Type::Record(record)) => {
            let key = |name: &str| name.replace('-', "_");
            let fields = record.fields().filter_map(|field| {
                let value = given.remove(&key(field.name))?;
                Some((field.name.to_owned(), worded(value, &field.ty)))
            });
            Value::Object(fields.collect())
        }
        (Value::String(name), Type::Enum(names)) => {
            let found = names.names().find(|known| plain(known) == plain(&name)).map(str::to_owned);
            json!(found.unwrap_or(name))
        }
        (Value::String(name), Type::Variant(variant)) => {
            let found = variant.cases().find(|case| plain(case.name) == plain(&name));
            json!(found.map_or(name.as_str(), |case| case.name))
        }
        (Value::Object(one), Type::Variant(variant)) => {
            let cases = one.into_iter().map(|(name, payload)| {
                let case = variant.cases().find(|case| plain(case.name) == plain(&name));
                match case {
                    Some(case) => {
                        let payload = case.ty.map_or(Value::Null, |kind| worded(payload, &kind));
                        (case.name.to_owned(), payload)
                    }
                    None => (name, payload),
                }
            });
            Value::Object(cases.collect())
        }
        (value, _) => value,
    }
}
