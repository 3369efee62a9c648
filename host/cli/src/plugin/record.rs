//! `dray plugin test --record`: makes fixtures of the calls that the plan of a policy makes.

use super::project::{Built, write};
use crate::{failure::Failure, output::tell, policy};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use dray_core::policy::{PluginSource, Spanned, config_at, key_text};
use dray_engine::{Error, Kind};
use dray_runtime::{Call, Heard, Recorded, Tracer};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// The most fixtures that one recording makes.
const FIXTURES: usize = 20;

/// Headers of answers that plugins read. Others differ from answer to answer.
const HEADERS: [&str; 6] =
    ["content-type", "location", "link", "www-authenticate", "docker-content-digest", "etag"];

/// Keeps the calls of one plugin.
struct Recorder {
    plugin: String,
    calls: Mutex<Vec<Recorded>>,
}

impl Tracer for Recorder {
    fn traces(&self, plugin: &str) -> bool {
        plugin == self.plugin
    }

    fn called(&self, _: &Call<'_>) {}

    fn records(&self, plugin: &str) -> bool {
        plugin == self.plugin
    }

    fn recorded(&self, call: Recorded) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }
}

/// Plans a policy with the plugin that was built, and writes a fixture for each of its calls. Returns the files.
pub async fn record(built: &Built, policy: &Path, fixtures: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut loaded = policy::load(&[policy.to_owned()])?;
    let component = tempfile::NamedTempFile::new()
        .map_err(|error| Failure::usage(format!("make a file for the component: {error}")))?;
    write(component.path(), &built.wasm)
        .map_err(|error| Failure::usage(format!("write the component: {}", error.kind())))?;
    let Some(plugin) = loaded.policy.plugins.get_mut(&built.name) else {
        let text = format!("record {}: {} has no [plugin.{0}]", built.name, loaded.name);
        let help = format!("declare it there, and use it in a rule: [plugin.{}] source = \"…\"", built.name);
        return Err(Failure::Usage(Error::new(Kind::Invalid, text).help(help)));
    };
    let span = plugin.source.span.clone();
    plugin.source = Spanned { value: PluginSource::File(component.path().to_owned()), span };
    (plugin.installed, plugin.trusted_keys) = (None, Vec::new());
    let settings = (plugin.config.clone(), plugin.at.clone());
    let recorder = Arc::new(Recorder { plugin: built.name.clone(), calls: Mutex::default() });
    loaded.tracer = Some(recorder.clone());
    let session = loaded.open().await?;
    let mut plan = session.plan();
    // What cannot be planned was asked as well, and its failure may be what is wanted.
    while plan.recv().await.is_some() {}
    drop(session);
    let calls = std::mem::take(&mut *recorder.calls.lock().unwrap_or_else(PoisonError::into_inner));
    let fixtures_of = rendered(calls, &settings);
    if fixtures_of.is_empty() {
        let text = format!("record {}: planning {} did not call it", built.name, policy.display());
        let help = "a rule has to use it, with a source that can be read";
        return Err(Failure::Failed(Error::new(Kind::NotFound, text).help(help)));
    }
    std::fs::create_dir_all(fixtures)
        .map_err(|error| Failure::usage(format!("make {}: {error}", fixtures.display())))?;
    let mut files = Vec::new();
    for text in fixtures_of {
        let file = kept(fixtures, &text);
        files.push(
            file.map_err(|error| Failure::usage(format!("write into {}: {error}", fixtures.display())))?,
        );
    }
    tell!(
        "look through what was recorded before you keep it: secrets that were granted are replaced, and no others"
    );
    Ok(files)
}

/// Writes a fixture under the first name that is free. Nobody else may read it, because a secret may be in it that nobody knew of.
fn kept(fixtures: &Path, text: &str) -> std::io::Result<PathBuf> {
    let mut number = 0;
    loop {
        number += 1;
        let path = fixtures.join(format!("recorded-{number}.toml"));
        let mut options = std::fs::OpenOptions::new();
        match options.write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => return file.write_all(text.as_bytes()).map(|()| path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// `[plugin.NAME.config]`, and what stands over it for some places.
type Configured = (Map<String, Value>, BTreeMap<String, Map<String, Value>>);

/// The fixtures of calls, each call once.
fn rendered(calls: Vec<Recorded>, settings: &Configured) -> Vec<String> {
    let mut seen = Vec::new();
    let mut texts = Vec::new();
    let mut left_out = 0;
    for mut call in calls {
        let key = (call.function.clone(), call.arguments.clone());
        if seen.contains(&key) || is_check(&call) {
            continue;
        }
        if call.function == "request-signer.sign" {
            tell!(
                "left out: what {} answers depends on the secrets, which no fixture may hold",
                call.function
            );
            continue;
        }
        seen.push(key);
        if let Some(Heard::Other(what)) = call.heard.iter().find(|heard| matches!(heard, Heard::Other(_))) {
            tell!("left out: a call of {} used {what}, which a recording does not hold", call.function);
            continue;
        }
        if texts.len() == FIXTURES {
            left_out += 1;
            continue;
        }
        let location = call.place.as_ref().map_or("", |(location, _)| location);
        let mut settings = config_at(&settings.0, &settings.1, location).into();
        replace_secrets(&mut call, &mut settings);
        texts.push(fixture(call, &settings));
    }
    if left_out > 0 {
        tell!("left out: {left_out} more calls; {FIXTURES} fixtures are made at once");
    }
    texts
}

/// Whether a call only checked a configuration, without anything to decide on.
fn is_check(call: &Recorded) -> bool {
    let given = call.arguments.first();
    let no_tags = |given: &Value| given["tags"].as_array().is_some_and(Vec::is_empty);
    match call.function.as_str() {
        "tag-filter.select" | "tag-mapping.rename" => given.is_some_and(no_tags),
        "observation.observe" => call.arguments.get(1).and_then(Value::as_array).is_some_and(Vec::is_empty),
        _ => false,
    }
}

/// The secrets of a call, each with what stands for it: those that were granted or remembered, what a login service answered
/// with, and the credential that a provider gives.
fn secrets(call: &Recorded) -> Vec<(String, String)> {
    let mut secrets: Vec<(String, String)> = Vec::new();
    let mut add = |secret: &str, name: &str| {
        let secret = secret.trim();
        if !secret.is_empty() && !secrets.iter().any(|(known, _)| known == secret) {
            let number = secrets.len() + 1;
            secrets.push((secret.to_owned(), format!("recorded-{name}-{number}")));
        }
    };
    for heard in &call.heard {
        if let Heard::Secret(_, secret) = heard {
            add(secret.expose(), "secret");
        }
    }
    if call.function.starts_with("credentials.") {
        let answered = &call.answer["ok"]["secret"];
        let tokens = [&answered["bearer"], &answered["identity-token"], &answered["basic"][1]];
        tokens.into_iter().filter_map(Value::as_str).for_each(|token| add(token, "token"));
        if let (Some(user), Some(password)) = (answered["basic"][0].as_str(), answered["basic"][1].as_str()) {
            add(&BASE64_STANDARD.encode(format!("{user}:{password}")), "token");
        }
        for heard in &call.heard {
            if let Heard::Request(_, _, answer) = heard {
                let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                tokens_of(&told, &mut |token| add(token, "token"));
            }
        }
    }
    // What it remembers is known by a better name, as a rule.
    call.told.iter().for_each(|told| add(told.expose(), "secret"));
    // A secret may be a part of another one.
    secrets.sort_by_key(|(secret, _)| std::cmp::Reverse(secret.len()));
    secrets
}

/// The texts of a login service's answer that are secrets, by their keys.
fn tokens_of(value: &Value, add: &mut impl FnMut(&str)) {
    const KEYS: [&str; 6] = ["token", "secret", "password", "key", "assertion", "credential"];
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = key.to_ascii_lowercase();
                match value {
                    // `token_type` and the like are words.
                    Value::String(text)
                        if KEYS.iter().any(|one| key.contains(one)) && !key.ends_with("type") =>
                    {
                        add(text)
                    }
                    other => tokens_of(other, add),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| tokens_of(item, add)),
        _ => {}
    }
}

/// The forms in which a request or an answer may hold a secret.
fn forms(secret: &str) -> Vec<String> {
    let percent = |plus: bool| {
        let byte = |byte: u8| match byte {
            b' ' if plus => "+".to_owned(),
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        };
        secret.bytes().map(byte).collect::<String>()
    };
    let quoted = json!(secret).to_string();
    let forms = [
        secret.to_owned(),
        percent(false),
        percent(true),
        percent(false).to_lowercase(),
        quoted[1..quoted.len() - 1].to_owned(),
        BASE64_STANDARD.encode(secret),
        BASE64_URL_SAFE_NO_PAD.encode(secret),
    ];
    forms.into()
}

/// Replaces the secrets of a call everywhere.
fn replace_secrets(call: &mut Recorded, settings: &mut Value) {
    let secrets = secrets(call);
    let safe = |text: &str| {
        secrets.iter().fold(text.to_owned(), |text, (secret, name)| {
            forms(secret).iter().fold(text, |text, form| text.replace(form.as_str(), name))
        })
    };
    *settings = in_texts(settings, &safe);
    call.arguments.iter_mut().chain([&mut call.answer]).for_each(|value| *value = in_texts(value, &safe));
    for heard in &mut call.heard {
        match heard {
            Heard::Secret(_, secret) => *secret = dray_engine::Secret::new(safe(secret.expose().trim())),
            Heard::Request(request, body, answer) => {
                request.url = dray_core::Address::new(safe(request.url.expose()));
                request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
                request.headers.iter_mut().for_each(|(_, value)| *value = safe(value));
                *body = safe(&String::from_utf8_lossy(body)).into_bytes();
                answer.headers.retain(|(name, _)| HEADERS.contains(&name.as_str()));
                answer.headers.iter_mut().for_each(|(_, value)| *value = safe(value));
                answer.body = safe(&String::from_utf8_lossy(&answer.body)).into_bytes();
            }
            _ => {}
        }
    }
}

/// A value with all of its texts changed.
fn in_texts(value: &Value, change: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => json!(change(text)),
        Value::Array(items) => items.iter().map(|item| in_texts(item, change)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), in_texts(value, change)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

/// The text of the fixture of a call.
fn fixture(call: Recorded, settings: &Value) -> String {
    let mut text = format!("about = {}\n", toml(&json!(format!("recorded: {}", call.function))));
    let mut line = |key: &str, value: &Value| text.push_str(&format!("{key} = {}\n", toml(value)));
    if let Some((location, is_only_read)) = &call.place {
        line("location", &json!(location));
        if *is_only_read {
            line("read-only", &json!(true));
        }
    }
    let (mut secrets, mut images) = (BTreeMap::new(), BTreeMap::<String, Map<String, Value>>::new());
    let (mut now, mut destination) = (None, None);
    for heard in &call.heard {
        match heard {
            Heard::Now(time) => now = now.or(Some(*time)),
            Heard::Destination(tags) => destination = Some(tags.clone()),
            Heard::Secret(name, secret) => drop(secrets.insert(name.clone(), secret.expose().to_owned())),
            Heard::Image(image) => {
                // What was read and what the registry knows of one tag stand in one table.
                let told = serde_json::to_value(image).unwrap_or_default();
                let known = told.as_object().into_iter().flatten().filter(|(_, value)| !is_empty(value));
                let known = known.map(|(key, value)| (key.clone(), value.clone()));
                images.entry(image.tag.clone()).or_default().extend(known);
            }
            Heard::Request(..) | Heard::Other(_) => {}
        }
    }
    if let Some(now) = now {
        line("now", &json!(now));
    }
    if let Some(destination) = destination {
        line("destination", &json!(destination));
    }
    if !is_empty(settings) {
        line("settings", settings);
    }
    if !secrets.is_empty() {
        line("secrets", &json!(secrets));
    }
    for image in images.into_values() {
        text.push_str(&table("[[image]]", image));
    }
    text.push_str(&called(&call));
    for heard in &call.heard {
        if let Heard::Request(request, body, answer) = heard {
            let headers: BTreeMap<&String, &String> =
                answer.headers.iter().map(|(name, value)| (name, value)).collect();
            let mut exchange = Map::new();
            exchange.insert("method".into(), json!(request.method));
            exchange.insert("url".into(), json!(request.url.expose()));
            if !body.is_empty() {
                exchange.insert("body".into(), json!(String::from_utf8_lossy(body)));
            }
            let body = String::from_utf8_lossy(&answer.body);
            let answer = json!({ "status": answer.status, "headers": headers, "body": body });
            exchange.insert("answer".into(), answer);
            text.push_str(&table("[[request]]", exchange));
        }
    }
    text
}

/// What was called, and what it must answer.
fn called(call: &Recorded) -> String {
    let given = call.arguments.first().cloned().unwrap_or_default();
    let config = match call.arguments.get(1).and_then(Value::as_str) {
        Some(config) => serde_json::from_str(config).unwrap_or_else(|_| json!(config)),
        None => json!({}),
    };
    let fails =
        call.answer.get("error").map(|error| match error.as_object().and_then(|one| one.values().next()) {
            Some(Value::String(text)) => json!(text),
            _ => error.clone(),
        });
    let answer = call.answer.get("ok").unwrap_or(&call.answer);
    let tag = |at: &Value| given["tags"][at.as_u64().unwrap_or_default() as usize].clone();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut keys = Map::new();
    let header = match (call.function.as_str(), fails) {
        ("tag-filter.select", fails) => {
            keys.extend(given.as_object().cloned().unwrap_or_default());
            keys.insert("config".into(), config);
            match fails {
                Some(fails) => drop(keys.insert("fails".into(), fails)),
                None => {
                    let drops = list(&answer["dropped"]).into_iter().flat_map(|group| {
                        let reason = group["reason"].clone();
                        list(&group["tags"]).into_iter().map(move |at| (at, reason.clone()))
                    });
                    let drops =
                        drops.filter_map(|(at, reason)| Some((tag(&at).as_str()?.to_owned(), reason)));
                    let drops: Map<String, Value> = drops.collect();
                    keys.insert("keeps".into(), list(&answer["kept"]).iter().map(tag).collect());
                    keys.insert("drops".into(), drops.into());
                }
            }
            "[filter]"
        }
        ("tag-mapping.rename", fails) => {
            keys.extend(given.as_object().cloned().unwrap_or_default());
            keys.insert("config".into(), config);
            match fails {
                Some(fails) => drop(keys.insert("fails".into(), fails)),
                None => {
                    let names = list(&given["tags"]).into_iter().zip(list(answer));
                    let names = names.filter(|(_, name)| !name.is_null());
                    let names = names.filter_map(|(tag, name)| Some((tag.as_str()?.to_owned(), name)));
                    keys.insert("names".into(), names.collect::<Map<_, _>>().into());
                }
            }
            "[mapper]"
        }
        (function, fails) => {
            keys.insert("function".into(), json!(function));
            keys.insert("arguments".into(), json!(call.arguments));
            match fails {
                Some(fails) => keys.insert("fails".into(), fails),
                None if answer.is_null() => keys.insert("none".into(), json!(true)),
                None => keys.insert("expect".into(), answer.clone()),
            };
            "[[call]]"
        }
    };
    // What is not said is empty.
    for key in ["extra", "all"] {
        if keys.get(key).is_some_and(is_empty) {
            keys.remove(key);
        }
    }
    keys.remove("extra");
    table(header, keys)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn table(header: &str, keys: Map<String, Value>) -> String {
    let lines = keys.iter().filter(|(_, value)| !value.is_null());
    let lines = lines.map(|(key, value)| format!("{} = {}\n", key_text(key), toml(value)));
    format!("\n{header}\n{}", lines.collect::<String>())
}

/// A value as TOML writes it in one line. JSON's strings are basic strings of TOML (TOML 1.0, "String"), but for DEL. An empty table
/// stands for nothing, of which TOML has no word.
fn toml(value: &Value) -> String {
    match value {
        Value::Null => "{}".into(),
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            let fields = fields.map(|(key, value)| format!("{} = {}", key_text(key), toml(value)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string().replace('\u{7f}', "\\u007f"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_written_as_toml_reads_it() {
        let value = json!({ "a b": "x\"\n\u{7f}", "none": null, "list": [1, true, { "c": [] }] });
        let text = format!("v = {}", toml(&value));
        let read: Value = toml::from_str(&text).unwrap();
        assert_eq!(read["v"], json!({ "a b": "x\"\n\u{7f}", "list": [1, true, { "c": [] }] }));
    }

    #[test]
    fn no_secret_is_left_in_a_fixture() {
        let request = dray_engine::contract::Request {
            method: "POST".into(),
            url: dray_core::Address::new("https://login.example.com/token?key=hunter2"),
            headers: vec![("Authorization".into(), "Basic aHVudGVyMg==".into())],
            expect: vec![200],
            access: Vec::new(),
        };
        let answer = dray_runtime::Answered {
            status: 200,
            headers: vec![("set-cookie".into(), "session=1".into())],
            body: br#"{"access_token":"tok-1","refresh_token":"tok-2","token_type":"Bearer"}"#.to_vec(),
        };
        let call = Recorded {
            function: "credentials.lookup".into(),
            arguments: vec![json!({ "registry": "r.example.com" }), json!("{\"secret\":\"env:S\"}")],
            answer: json!({ "ok": { "secret": { "bearer": "tok-1" }, "origin": "hunter2 of env:S" } }),
            heard: vec![
                Heard::Secret("env:S".into(), dray_engine::Secret::new("hunter2\n")),
                Heard::Request(request, b"secret=hunter2&again=hunt%2Ber".to_vec(), answer),
            ],
            told: vec![dray_engine::Secret::new("hunt+er")],
            place: None,
        };
        let texts = rendered(vec![call], &Configured::default());
        let text = &texts[0];
        for secret in ["hunter2", "tok-1", "tok-2", "aHVudGVyMg", "hunt%2Ber", "session"] {
            assert!(!text.contains(secret), "{text}");
        }
        let fixture = super::super::fixture::Fixture::parse(text).unwrap();
        assert_eq!(fixture.secrets["env:S"], "recorded-secret-1");
        assert_eq!(fixture.requests[0].url, "https://login.example.com/token?key=recorded-secret-1");
        assert!(text.contains("recorded-token") && text.contains("Bearer"), "{text}");
    }
}
