//! What a plugin finds around it while it is tried: answers to its requests, secrets, files and facts, none of them real.

use dray_core::policy::SecretRef;
use dray_engine::{
    Error, Kind, Result, Secret,
    contract::{Facts, Images, Known, Listed, Request, Response, TransportContext},
    files::Root,
};
use futures_core::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

/// A request that a plugin is expected to send, and the answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// The method.
    pub method: String,
    /// The whole URL.
    pub url: String,
    /// Headers that the request must have, by their names in lower case. It may have others.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body. `None` means that any is right.
    pub body: Option<String>,
    /// What the place answers.
    pub answer: Answer,
}

/// An answer of a place.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers by their names in lower case.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body.
    #[serde(default)]
    pub body: String,
}

/// The requests that a plugin may send, in their order.
#[derive(Debug, Default)]
pub(crate) struct Script {
    expected: Mutex<VecDeque<Exchange>>,
    /// What is wrong with the requests that came.
    mistakes: Mutex<Vec<String>>,
    /// What the plugin logged as an error, such as the place and the message of a panic.
    errors: Mutex<Vec<String>>,
}

impl Script {
    pub fn new(exchanges: Vec<Exchange>) -> Self {
        Script { expected: Mutex::new(exchanges.into()), ..Script::default() }
    }

    /// The requests that were not sent.
    pub fn left(&self) -> Vec<String> {
        let left = self.expected.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        left.iter().map(|exchange| format!("{} {}", exchange.method, exchange.url)).collect()
    }

    /// Keeps an error that the plugin logged.
    pub fn logged(&self, message: &str) {
        self.errors.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(message.to_owned());
    }

    /// What the plugin logged as errors, which is forgotten then.
    pub fn take_errors(&self) -> Vec<String> {
        std::mem::take(&mut *self.errors.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// What was wrong with the requests that were sent.
    pub fn mistakes(&self) -> Vec<String> {
        self.mistakes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// The answer to a request. Fails if another one is expected.
    pub fn answer(&self, request: &Request, body: &[u8]) -> Result<Response> {
        let next = self.expected.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop_front();
        let sent = format!("{} {}", request.method, request.url.expose());
        let unexpected = |why: String| {
            let text = format!("answer {sent}: the fixture {why}");
            // The plugin may swallow the error, or the fixture may expect one.
            self.mistakes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(text.clone());
            Error::new(Kind::Invalid, text)
        };
        let Some(next) = next else { return Err(unexpected("expects no further request".into())) };
        let expected = format!("{} {}", next.method, next.url);
        if sent != expected {
            return Err(unexpected(format!("expects {expected}")));
        }
        for (name, value) in &next.headers {
            let has = |(sent, found): &&(String, String)| sent.eq_ignore_ascii_case(name) && found == value;
            if !request.headers.iter().any(|header| has(&header)) {
                return Err(unexpected(format!("expects the header {name}: {value}")));
            }
        }
        if let Some(expected) = next.body.filter(|expected| expected.as_bytes() != body) {
            let body = String::from_utf8_lossy(body);
            return Err(unexpected(format!("expects the body {expected}, and it was {body}")));
        }
        let Answer { status, headers, body } = next.answer;
        if !request.expect.contains(&status) {
            let text = format!("send {sent}: the answer was {status} {body}");
            let kind = match status {
                401 => Kind::Unauthorized,
                403 => Kind::Denied,
                404 => Kind::NotFound,
                429 => Kind::RateLimited(None),
                500.. => Kind::Transient,
                _ => Kind::Invalid,
            };
            return Err(Error::new(kind, text));
        }
        Ok(Response {
            status,
            headers: headers.into_iter().collect(),
            body: body.into(),
            url: request.url.clone(),
        })
    }
}

/// The place that a transport or a dialect finds.
pub(super) struct Place {
    pub location: String,
    pub is_destination: bool,
    pub script: Arc<Script>,
    pub files: Arc<Root>,
}

impl TransportContext for Place {
    fn location(&self) -> &str {
        &self.location
    }

    fn is_destination(&self) -> bool {
        self.is_destination
    }

    fn files(&self) -> Option<&Arc<Root>> {
        Some(&self.files)
    }

    fn lend(&self, _host: &str, _trusted: bool) {}

    fn send<'a>(&'a self, request: &'a Request, body: bytes::Bytes) -> BoxFuture<'a, Result<Response>> {
        Box::pin(async move { self.script.answer(request, &body) })
    }

    fn download<'a>(&'a self, request: &'a Request, path: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let answer = self.script.answer(request, &[])?;
            self.files.replace(path, None, &answer.body).map(drop)
        })
    }

    fn send_archive<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response>> {
        Box::pin(async move { self.script.answer(request, &[]) })
    }
}

/// Secrets that a fixture holds.
pub(super) struct Told(pub BTreeMap<String, String>);

impl crate::Secrets for Told {
    fn get(&self, name: &SecretRef) -> Result<Secret> {
        let found = self.0.get(&name.to_string());
        let none = || Error::new(Kind::NotFound, format!("read the secret {name}: the fixture has none"));
        found.map(|secret| Secret::new(secret.clone())).ok_or_else(none)
    }

    fn auth_files(&self) -> Result<Vec<(String, Secret)>> {
        Ok(Vec::new())
    }
}

/// Facts about the image of a tag.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Image {
    /// The tag.
    pub tag: String,
    /// Digest of the manifest.
    pub digest: String,
    /// Media type of the manifest.
    pub media_type: String,
    /// The artifact type of an artifact.
    pub artifact_type: Option<String>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Time of creation in milliseconds since 1970.
    pub created: Option<i64>,
    /// Labels of the config.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Platforms, each as `os/architecture[/variant]`.
    pub platforms: Vec<String>,
    /// When the tag was pushed, in milliseconds since 1970.
    pub pushed: Option<u64>,
    /// Labels of the registry.
    pub registry_labels: Option<Vec<String>>,
    /// Whether there are signatures.
    pub signed: Option<bool>,
    /// The worst vulnerability.
    pub severity: Option<String>,
}

impl Image {
    /// What is read of the image of a tag.
    pub(crate) fn of_facts(tag: &str, facts: &Facts) -> Self {
        Image {
            tag: tag.into(),
            digest: facts.digest.clone(),
            media_type: facts.media_type.clone(),
            artifact_type: facts.artifact_type.clone(),
            size: facts.size,
            created: facts.created,
            labels: facts.labels.iter().cloned().collect(),
            annotations: facts.annotations.iter().cloned().collect(),
            platforms: facts.platforms.clone(),
            ..Image::default()
        }
    }

    /// What a registry knows of the image of a tag.
    pub(crate) fn of_known(tag: &str, known: &Known) -> Self {
        Image {
            tag: tag.into(),
            pushed: known.pushed,
            registry_labels: known.labels.clone(),
            signed: known.signed,
            severity: known.severity.clone(),
            ..Image::default()
        }
    }
}

/// The images of a fixture, and the tags that its destination has.
pub(super) struct Album {
    pub images: Vec<Image>,
    pub destination: Option<Vec<String>>,
}

impl Album {
    fn of(&self, tags: Vec<String>) -> impl Iterator<Item = Image> {
        tags.into_iter()
            .map(|tag| self.images.iter().find(|image| image.tag == tag).cloned().unwrap_or_default())
    }
}

impl Images for Album {
    fn inspect(&self, tags: Vec<String>) -> BoxFuture<'_, Result<Vec<Facts>>> {
        let facts = self.of(tags).map(|image| Facts {
            digest: image.digest,
            media_type: image.media_type,
            artifact_type: image.artifact_type,
            size: image.size,
            annotations: image.annotations.into_iter().collect(),
            created: image.created,
            labels: image.labels.into_iter().collect(),
            platforms: image.platforms,
        });
        let facts = facts.collect();
        Box::pin(async { Ok(facts) })
    }

    fn look_up(&self, tags: Vec<String>) -> BoxFuture<'_, Result<Vec<Known>>> {
        let known = self.of(tags).map(|image| Known {
            pushed: image.pushed,
            labels: image.registry_labels,
            signed: image.signed,
            severity: image.severity,
        });
        let known = known.collect();
        Box::pin(async { Ok(known) })
    }

    fn at_destination(&self) -> BoxFuture<'_, Result<Vec<Listed>>> {
        let listed = |name: &String| Listed::name(name);
        let tags = self.destination.as_ref().map(|tags| tags.iter().map(listed).collect());
        let none = || Error::new(Kind::Unsupported, "list the tags of the destination: the fixture has none");
        Box::pin(async move { tags.ok_or_else(none) })
    }
}
