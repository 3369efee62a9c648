//! Fixtures of plugins: what is around a plugin, what is called, and what it must answer.

use dray_runtime::trial::{Exchange, Image};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The content of a fixture's file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fixture {
    /// What it shows, for people.
    pub about: String,
    /// The canonical name of the place, for transports and dialects.
    pub location: String,
    /// Whether the place is only read.
    #[serde(rename = "read-only")]
    pub read_only: bool,
    /// `[plugin.NAME.config]`.
    pub settings: Map<String, Value>,
    /// What the clock says: milliseconds since 1970.
    pub now: Option<u64>,
    /// The secrets that are granted, by `env:NAME` or `file:PATH`.
    pub secrets: BTreeMap<String, String>,
    /// The files of the place, by their paths.
    pub files: BTreeMap<String, String>,
    /// Facts about images.
    #[serde(rename = "image")]
    pub images: Vec<Image>,
    /// The tags of the destination, for filters. `None` means that there is no one destination.
    pub destination: Option<Vec<String>>,
    /// The requests that the plugin sends, in their order.
    #[serde(rename = "request")]
    pub requests: Vec<Exchange>,
    filter: Option<Filter>,
    auth: Option<Auth>,
    mapper: Option<Mapper>,
    #[serde(rename = "call")]
    calls: Vec<Call>,
}

/// What a filter gets, and what it chooses.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Filter {
    repository: String,
    tags: Vec<String>,
    all: Option<Vec<String>>,
    config: Value,
    keeps: Option<Vec<String>>,
    drops: BTreeMap<String, String>,
    fails: Option<String>,
}

/// What an auth provider is asked, and what it gives.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Auth {
    registry: String,
    repository: String,
    actions: Vec<String>,
    why: Option<String>,
    config: Value,
    bearer: Option<String>,
    basic: Option<(String, String)>,
    identity_token: Option<String>,
    /// Further fields of the credential, such as `lifetime`.
    credential: Map<String, Value>,
    none: bool,
    fails: Option<String>,
}

/// What a mapper gets, and what it makes of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Mapper {
    repository: String,
    tags: Vec<String>,
    config: Value,
    /// The tags that get another name, with it.
    names: Option<BTreeMap<String, String>>,
    fails: Option<String>,
}

/// A call of any function.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    function: String,
    #[serde(default)]
    arguments: Vec<Value>,
    expect: Option<Value>,
    /// The answer is none.
    #[serde(default)]
    none: bool,
    fails: Option<Value>,
}

/// A call, and how its answer is judged.
#[derive(Debug, PartialEq)]
pub struct Step {
    /// `interface.function`.
    pub function: String,
    /// Its arguments in JSON. An object `{ last = "/state" }` stands for that part of the last answer.
    pub arguments: Vec<Value>,
    expected: Expected,
    /// The tags that a filter was given, by which its answer is told in names.
    tags: Option<Vec<String>>,
}

#[derive(Debug, PartialEq)]
enum Expected {
    /// The answer has these parts.
    Answer(Value),
    /// The error has these parts; its texts contain those that are expected.
    Error(Value),
}

/// A part of an answer that is not what was expected.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Difference {
    /// The function.
    pub function: String,
    /// Where in the answer: `kept[1]`.
    pub at: String,
    /// What was expected.
    pub expected: Value,
    /// What there was.
    pub found: Value,
}

impl Fixture {
    /// Reads a fixture. The error says what is wrong in which line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fixture: Fixture = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            format!("line {line}: {}", error.message())
        })?;
        fixture.check()?;
        Ok(fixture)
    }

    /// Checks that something is called, and that what is expected is said, once.
    fn check(&self) -> Result<(), String> {
        if self.steps().is_empty() {
            return Err("it calls nothing: write [filter], [auth], [mapper] or [[call]]".into());
        }
        if let Some(filter) = &self.filter {
            let chooses = filter.keeps.is_some() || !filter.drops.is_empty();
            match (chooses, filter.fails.is_some()) {
                (false, false) => return Err("[filter] needs `keeps` or `drops`, or else `fails`".into()),
                (true, true) => {
                    return Err("[filter] has both `fails` and `keeps` or `drops`: write one of them".into());
                }
                _ => {}
            }
        }
        if let Some(mapper) = &self.mapper {
            let said = [mapper.names.is_some(), mapper.fails.is_some()];
            once("[mapper]", "`names` and `fails`", &said)?;
            let names = mapper.names.iter().flatten();
            if let Some((tag, _)) = names.into_iter().find(|(tag, _)| !mapper.tags.contains(tag)) {
                return Err(format!("[mapper] has a name for `{tag}`, which is none of its `tags`"));
            }
        }
        if let Some(auth) = &self.auth {
            let said = [
                auth.bearer.is_some(),
                auth.basic.is_some(),
                auth.identity_token.is_some(),
                auth.none,
                auth.fails.is_some(),
            ];
            once("[auth]", "`bearer`, `basic`, `identity-token`, `none` and `fails`", &said)?;
        }
        for call in &self.calls {
            let said = [call.expect.is_some(), call.none, call.fails.is_some()];
            once("a [[call]]", "`expect`, `none` and `fails` (`expect = {}` takes any answer)", &said)?;
        }
        match self.secrets.keys().find(|name| !name.starts_with("env:") && !name.starts_with("file:")) {
            Some(name) => Err(format!("the secret `{name}` is named env:NAME or file:PATH")),
            None => Ok(()),
        }
    }

    /// The hosts of its requests, which count as granted.
    pub fn hosts(&self) -> Vec<String> {
        let host = |exchange: &Exchange| {
            let rest = exchange.url.strip_prefix("https://")?;
            Some(rest.split(['/', '?', '#']).next()?.to_owned())
        };
        self.requests.iter().filter_map(host).collect()
    }

    /// What is called, in its order.
    pub fn steps(&self) -> Vec<Step> {
        let filter = self.filter.iter().map(Filter::step);
        let auth = self.auth.iter().map(Auth::step);
        let mapper = self.mapper.iter().map(Mapper::step);
        let calls = self.calls.iter().map(|call| Step {
            function: call.function.clone(),
            arguments: call.arguments.clone(),
            expected: match (&call.fails, call.none) {
                (Some(fails), _) => Expected::Error(fails.clone()),
                (None, true) => Expected::Answer(Value::Null),
                (None, false) => Expected::Answer(call.expect.clone().unwrap_or_else(|| json!({}))),
            },
            tags: None,
        });
        filter.chain(auth).chain(mapper).chain(calls).collect()
    }
}

/// Checks that a table says one of several keys.
fn once(table: &str, keys: &str, said: &[bool]) -> Result<(), String> {
    match said.iter().filter(|said| **said).count() {
        0 => Err(format!("{table} needs one of {keys}")),
        1 => Ok(()),
        _ => Err(format!("{table} has several of {keys}: write one of them")),
    }
}

/// The configuration of a table that may be left out.
fn configuration(config: &Value) -> Value {
    if config.is_null() { json!({}) } else { config.clone() }
}

impl Filter {
    fn step(&self) -> Step {
        let given = json!({ "repository": self.repository, "tags": self.tags, "all": self.all });
        let mut expected = json!({ "drops": self.drops });
        if let Some(keeps) = &self.keeps {
            expected["keeps"] = json!(keeps);
        }
        Step {
            function: "tag-filter.select".into(),
            arguments: vec![given, configuration(&self.config)],
            expected: match &self.fails {
                Some(fails) => Expected::Error(json!(fails)),
                None => Expected::Answer(expected),
            },
            tags: Some(self.tags.clone()),
        }
    }
}

impl Mapper {
    fn step(&self) -> Step {
        let names = self.names.iter().flatten().collect::<BTreeMap<_, _>>();
        let expected: Vec<Value> = self.tags.iter().map(|tag| json!(names.get(tag))).collect();
        Step {
            function: "tag-mapping.rename".into(),
            arguments: vec![
                json!({ "repository": self.repository, "tags": self.tags }),
                configuration(&self.config),
            ],
            expected: match &self.fails {
                Some(fails) => Expected::Error(json!(fails)),
                None => Expected::Answer(expected.into()),
            },
            tags: None,
        }
    }
}

impl Auth {
    fn step(&self) -> Step {
        let why = self.why.as_deref().unwrap_or("first");
        let asked = json!({
            "registry": self.registry, "repository": self.repository, "actions": self.actions, "why": why,
        });
        let secret = match (&self.bearer, &self.basic, &self.identity_token) {
            (Some(token), ..) => Some(json!({ "bearer": token })),
            (_, Some((user, password)), _) => Some(json!({ "basic": [user, password] })),
            (.., Some(token)) => Some(json!({ "identity-token": token })),
            _ => None,
        };
        let mut credential = self.credential.clone();
        credential.extend(secret.map(|secret| ("secret".to_owned(), secret)));
        Step {
            function: "credentials.lookup".into(),
            arguments: vec![asked, configuration(&self.config)],
            expected: match (&self.fails, self.none) {
                (Some(fails), _) => Expected::Error(json!(fails)),
                (None, true) => Expected::Answer(Value::Null),
                (None, false) => Expected::Answer(credential.into()),
            },
            tags: None,
        }
    }
}

impl Step {
    /// The arguments, with the parts of the last answer that they stand for.
    pub fn arguments(&self, last: &Value) -> Result<Vec<Value>, String> {
        let argument = |argument: &Value| {
            let one = argument.as_object().filter(|one| one.len() == 1);
            match one.and_then(|one| one.get("last")?.as_str()) {
                Some(path) => last
                    .pointer(path)
                    .cloned()
                    .ok_or_else(|| format!("find {path} in the last answer: {last}")),
                None => Ok(argument.clone()),
            }
        };
        self.arguments.iter().map(argument).collect()
    }

    /// Compares an answer with what is expected.
    pub fn judge(&self, answer: &Value) -> Vec<Difference> {
        let is = |key: &str| answer.as_object().filter(|one| one.len() == 1).and_then(|one| one.get(key));
        let mut found = Vec::new();
        let mut difference = |at: &str, expected: &Value, was: &Value| {
            found.push(Difference {
                function: self.function.clone(),
                at: at.to_owned(),
                expected: expected.clone(),
                found: was.clone(),
            });
        };
        match (&self.expected, is("error")) {
            (Expected::Error(expected), Some(error)) => match expected {
                // A text alone is looked for in the text of any error.
                Value::String(text) => {
                    if !text_of(error).contains(text) {
                        difference("the error", expected, error);
                    }
                }
                _ => compare("the error", expected, error, true, &mut difference),
            },
            (Expected::Error(expected), None) => difference("the error", expected, answer),
            (Expected::Answer(expected), Some(error)) => {
                difference("the answer", expected, &json!({ "error": error }));
            }
            (Expected::Answer(expected), None) => {
                let answer = is("ok").unwrap_or(answer);
                let told = match &self.tags {
                    Some(tags) => {
                        if let Some(odd) = odd(answer, tags.len()) {
                            difference("the tags, each decided on once", &json!(tags.len()), &json!(odd));
                        }
                        by_names(answer, tags)
                    }
                    None => answer.clone(),
                };
                compare("", expected, &told, false, &mut difference);
            }
        }
        found
    }
}

/// The text of an error, whatever its case.
fn text_of(error: &Value) -> String {
    match error {
        Value::String(text) => text.clone(),
        Value::Object(one) => one.values().map(text_of).collect::<Vec<_>>().join(" "),
        Value::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// What is wrong with the indices of a selection, which dray refuses: one that is no tag's, or one that was decided on twice.
fn odd(selection: &Value, tags: usize) -> Option<String> {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let dropped = list(selection.get("dropped"));
    let dropped = dropped.iter().flat_map(|group| list(group.get("tags")));
    let mut seen = std::collections::BTreeSet::new();
    for index in list(selection.get("kept")).into_iter().chain(dropped) {
        let at = index.as_u64().filter(|at| usize::try_from(*at).is_ok_and(|at| at < tags));
        match at {
            None => return Some(format!("it names tag {index} of {tags}")),
            Some(at) if !seen.insert(at) => return Some(format!("it decides on tag {at} twice")),
            Some(_) => {}
        }
    }
    None
}

/// What a filter chose, by the names of the tags.
fn by_names(selection: &Value, tags: &[String]) -> Value {
    let name = |index: &Value| {
        let at = index.as_u64().and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| tags.get(at)).map_or_else(|| json!(format!("(no tag {index})")), |tag| json!(tag))
    };
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let keeps: Vec<Value> = list(selection.get("kept")).iter().map(name).collect();
    let mut drops = Map::new();
    for group in list(selection.get("dropped")) {
        for index in list(group.get("tags")) {
            if let Value::String(tag) = name(&index) {
                drops.insert(tag, group["reason"].clone());
            }
        }
    }
    json!({ "keeps": keeps, "drops": drops })
}

/// Compares what is expected with what there is. An object may have more keys than are expected; a list has exactly the expected
/// entries. With `contains`, a text need only be a part.
fn compare(
    at: &str,
    expected: &Value,
    found: &Value,
    contains: bool,
    difference: &mut impl FnMut(&str, &Value, &Value),
) {
    let below = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (key, value) in expected {
                match found.get(key) {
                    Some(found) => compare(&below(key), value, found, contains, difference),
                    None => difference(&below(key), value, &json!("(there is no such key)")),
                }
            }
        }
        (Value::Array(wanted), Value::Array(there)) if wanted.len() == there.len() => {
            for (number, (wanted, there)) in wanted.iter().zip(there).enumerate() {
                compare(&format!("{at}[{number}]"), wanted, there, contains, difference);
            }
        }
        (Value::String(part), Value::String(text)) if contains && text.contains(part.as_str()) => {}
        // An empty table stands for `none`.
        (Value::Object(none), Value::Null) if none.is_empty() => {}
        (expected, found) if expected == found => {}
        _ => difference(if at.is_empty() { "the answer" } else { at }, expected, found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(text: &str) -> Step {
        Fixture::parse(text).unwrap().steps().remove(0)
    }

    fn places(found: &[Difference]) -> Vec<&str> {
        found.iter().map(|one| one.at.as_str()).collect()
    }

    #[test]
    fn a_filter_is_judged_by_the_names_of_tags() {
        let step = step("[filter]\ntags = [\"a\", \"b\"]\nkeeps = [\"b\"]\ndrops = { a = \"old\" }\n");
        let answer = |kept: Value, reason: &str| json!({ "ok": { "kept": kept, "dropped": [{ "reason": reason, "tags": [0] }] } });
        assert_eq!(step.judge(&answer(json!([1]), "old")), []);
        assert_eq!(
            places(&step.judge(&answer(json!([0]), "young"))),
            ["the tags, each decided on once", "drops.a", "keeps[0]"]
        );
        assert_eq!(
            places(&step.judge(&answer(json!([7]), "old"))),
            ["the tags, each decided on once", "keeps[0]"]
        );
        assert_eq!(places(&step.judge(&json!({ "error": { "invalid": "x" } }))), ["the answer"]);
    }

    #[test]
    fn an_error_is_judged_by_its_text_or_by_its_case() {
        let told = json!({ "error": { "invalid": "suffix: no spaces" } });
        assert_eq!(step("[filter]\nfails = \"suffix\"\n").judge(&told), []);
        assert_eq!(places(&step("[filter]\nfails = \"prefix\"\n").judge(&told)), ["the error"]);
        let case = step("[[call]]\nfunction = \"a.b\"\nfails = { denied = \"suffix\" }\n");
        assert_eq!(places(&case.judge(&told)), ["the error.denied"]);
        assert_eq!(places(&case.judge(&json!({ "ok": 1 }))), ["the error"]);
    }

    #[test]
    fn an_answer_may_have_more_than_is_expected_and_a_list_may_not() {
        let step = step("[[call]]\nfunction = \"a.b\"\nexpect = { x = [1, { y = {} }] }\n");
        assert_eq!(step.judge(&json!({ "ok": { "x": [1, { "y": null, "z": 3 }], "w": 2 } })), []);
        assert_eq!(places(&step.judge(&json!({ "ok": { "x": [1] } }))), ["x"]);
        assert_eq!(places(&step.judge(&json!({ "ok": { "x": [2, {}] } }))), ["x[0]", "x[1].y"]);
    }

    #[test]
    fn an_argument_may_be_a_part_of_the_last_answer() {
        let step = step(
            "[[call]]\nfunction = \"a.b\"\nexpect = {}\narguments = [\"x\", { last = \"/state\" }, { y = 1 }]\n",
        );
        let filled = [json!("x"), json!("s"), json!({ "y": 1 })];
        assert_eq!(step.arguments(&json!({ "state": "s" })), Ok(filled.to_vec()));
        assert!(step.arguments(&json!({ "stat": "s" })).unwrap_err().contains("/state"));
    }

    #[test]
    fn a_mistake_has_its_line() {
        assert!(Fixture::parse("about = \"x\"\n[filtr]\n").unwrap_err().starts_with("line 2: "));
        for (text, why) in [
            ("about = \"x\"\n", "calls nothing"),
            ("[filter]\ntags = []\n", "`keeps` or `drops`"),
            ("[filter]\nkeeps = []\nfails = \"x\"\n", "has both"),
            ("[auth]\nregistry = \"r\"\n", "needs one of"),
            ("[auth]\nbearer = \"b\"\nnone = true\n", "has several of"),
            ("[[call]]\nfunction = \"a.b\"\n", "needs one of `expect`"),
            ("[[call]]\nfunction = \"a.b\"\nexpect = 1\nnone = true\n", "has several of `expect`"),
            ("[secrets]\nTOKEN = \"x\"\n[filter]\nkeeps = []\n", "env:NAME"),
        ] {
            assert!(Fixture::parse(text).unwrap_err().contains(why), "{text}");
        }
    }
}
