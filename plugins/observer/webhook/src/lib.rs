//! Sends what a run does to an address: as JSON, or as a sentence that chat rooms show.

use dray_plugin_observer::{self as observer, Error, Event, Observe, post, value};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    url: String,
    token: Option<String>,
    #[serde(default)]
    format: Format,
    events: Option<Vec<String>>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Chat,
}

/// Lines of a message to a chat room. Nobody reads more.
const LINES: usize = 20;

struct Webhook;

impl Observe for Webhook {
    type Config = Config;
    const NAME: &str = "webhook";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Sends what a run does to an address";
    const CONFIG_SCHEMA: &str = include_str!("schema.json");

    fn check(config: &Config) -> Result<(), Error> {
        let missing = |key: &'static str| move |error: Error| Error::key(key, why(error));
        let url = value(&config.url).map_err(missing("url"))?;
        config.token.as_deref().map(value).transpose().map_err(missing("token"))?;
        match url.starts_with("https://") {
            true => Ok(()),
            false => Err(Error::key("url", "write https://…, or env:NAME or file:PATH of such an address")),
        }
    }

    fn observe(run: &str, events: &[Event], config: &Config) -> Result<(), Error> {
        let wanted: Vec<&Event> = events.iter().filter(|event| config.wants(event)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let body = match config.format {
            Format::Json => {
                let events: Vec<Value> = wanted.into_iter().map(told).collect();
                json!({ "dray_events": 1, "run": run, "events": events })
            }
            Format::Chat => json!({ "text": message(&wanted) }),
        };
        let token = config.token.as_deref().map(value).transpose()?.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(token.as_deref().map(|token| ("authorization", token)));
        post(&value(&config.url)?, &headers, body.to_string().as_bytes())
    }
}

impl Config {
    /// Chat rooms hear of what people look after, unless the table says otherwise.
    fn wants(&self, event: &Event) -> bool {
        match (&self.events, self.format) {
            (Some(events), _) => events.contains(&event.kind),
            (None, Format::Chat) => matches!(event.kind.as_str(), "failed" | "refused" | "finished"),
            (None, Format::Json) => true,
        }
    }
}

/// The text of an error about a secret.
fn why(error: Error) -> String {
    match error {
        Error::NotFound(text) | Error::Denied(text) | Error::Invalid(text) => text,
        other => format!("{other:?}"),
    }
}

/// A text of an event as chat rooms take it. Whoever wrote it, such as a registry in its error, begins no line and calls nobody:
/// Slack and those like it read commands between `<` and `>`.
fn harmless(text: &str) -> String {
    let one_line: String = text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect();
    one_line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// An event as JSON, without the fields that say nothing.
fn told(event: &Event) -> Value {
    let mut told = Map::new();
    told.insert("kind".into(), json!(event.kind));
    told.insert("time".into(), json!(event.time));
    let texts = [
        ("rule", &event.rule),
        ("source", &event.source),
        ("destination", &event.destination),
        ("text", &event.text),
    ];
    for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        told.insert(key.into(), json!(text));
    }
    told.extend(event.digest.as_ref().map(|digest| ("digest".to_owned(), json!(digest))));
    told.insert("bytes".into(), json!(event.bytes));
    for (key, count) in &event.extra {
        // Counts are numbers.
        told.insert(key.clone(), count.parse::<u64>().map_or_else(|_| json!(count), |count| json!(count)));
    }
    told.into()
}

/// A message of one line for each event.
fn message(events: &[&Event]) -> String {
    let line = |event: &&Event| match event.kind.as_str() {
        "started" | "finished" => format!("dray {}: {}", event.kind, harmless(&event.text)),
        kind => {
            let what = if event.destination.is_empty() { &event.source } else { &event.destination };
            format!("{kind} {}: {}", harmless(what), harmless(&event.text))
        }
    };
    // How a run ended is its last line, and must not be cut off.
    let shown = events.len().min(LINES);
    let more = events.len() - shown;
    let (first, last) = events.split_at(more);
    let mut lines: Vec<String> = last.iter().map(line).collect();
    if !first.is_empty() {
        lines.insert(0, format!("({more} more before these)"));
    }
    lines.join("\n")
}

observer::export!(Webhook with_types_in observer);

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, text: &str) -> Event {
        Event {
            kind: kind.into(),
            time: 5,
            rule: String::new(),
            source: String::new(),
            destination: "docker://m.example/app:1".into(),
            digest: None,
            bytes: 0,
            text: text.into(),
            extra: vec![("failed".into(), "1".into())],
        }
    }

    fn config(json: &str) -> Config {
        observer::config(json).unwrap()
    }

    #[test]
    fn an_event_is_told_without_empty_fields() {
        let expected = json!({
            "kind": "failed", "time": 5, "destination": "docker://m.example/app:1", "text": "it failed", "bytes": 0,
            "failed": 1,
        });
        assert_eq!(told(&event("failed", "it failed")), expected);
    }

    #[test]
    fn a_chat_room_hears_of_failures_and_of_the_end() {
        let chat = config(r#"{"url":"https://c.example/x","format":"chat"}"#);
        assert!(!chat.wants(&event("copied", "")) && chat.wants(&event("failed", "")));
        let all = config(r#"{"url":"https://c.example/x","format":"chat","events":["copied"]}"#);
        assert!(all.wants(&event("copied", "")) && !all.wants(&event("failed", "")));
        let many: Vec<Event> = (0..30).map(|number| event("failed", &number.to_string())).collect();
        let text = message(&many.iter().collect::<Vec<_>>());
        assert!(text.starts_with("(10 more before these)\n") && text.ends_with("app:1: 29"), "{text}");
    }

    #[test]
    fn a_registry_s_words_begin_no_line_and_call_nobody() {
        let text = message(&[&event("failed", "no <!channel>\ndray finished: all fine & well")]);
        let expected =
            "failed docker://m.example/app:1: no &lt;!channel&gt; dray finished: all fine &amp; well";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_address_is_one_of_https() {
        assert!(Webhook::check(&config(r#"{"url":"https://c.example/x"}"#)).is_ok());
        let plain = Webhook::check(&config(r#"{"url":"http://c.example"}"#));
        assert!(matches!(plain, Err(Error::Invalid(text)) if text.starts_with("url: ")));
    }
}
