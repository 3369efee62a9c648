//! Harbor in the small, as `api/v2.0/swagger.yaml` of goharbor/harbor describes it. It refuses requests that the
//! description does not know.

use super::{
    described::HARBOR,
    memory::{Asked, Held, Memory, Reply, reply},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock},
};

pub fn with_json(status: &'static str, body: &serde_json::Value) -> Option<Reply> {
    Some((status, "Content-Type: application/json\r\n".into(), body.to_string().into_bytes()))
}

pub fn header<'a>(asked: &'a Asked, name: &str) -> Option<&'a str> {
    asked.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
}

/// The tags of a repository by their digests, with media types.
pub fn tags_of(held: &Held, repository: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let mut found: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    for ((of, tag), (media_type, body)) in &held.manifests {
        if of == repository && !tag.contains(':') {
            let digest = dray_core::Digest::of(body).to_string();
            found.entry(digest).or_insert((media_type.clone(), Vec::new())).1.push(tag.clone());
        }
    }
    found
}

/// The manifests of a repository that no tag names and no index contains, as Harbor lists them: what an index contains is no
/// artifact of its own there.
fn untagged(held: &Held, repository: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let tagged = tags_of(held, repository);
    let here = || held.manifests.iter().filter(|((of, _), _)| of == repository);
    let contained = |digest: &str| {
        here().any(|((_, name), (media_type, body))| {
            name.contains(':')
                && media_type.contains("index")
                && String::from_utf8_lossy(body).contains(digest)
        })
    };
    here()
        .filter(|((_, name), _)| name.contains(':') && !tagged.contains_key(name) && !contained(name))
        .map(|((_, name), (media_type, _))| (name.clone(), (media_type.clone(), Vec::new())))
        .collect()
}

/// Harbor in the small: projects, its API of version 2.0 and its token server (`api/v2.0/swagger.yaml`).
pub struct Harbor {
    pub registry: Memory,
    pub projects: Arc<Mutex<BTreeSet<String>>>,
    /// What it knows of images, by their digests.
    pub known: Arc<Mutex<BTreeMap<String, Known>>>,
    /// What its rules forbid.
    pub rules: Arc<Mutex<Rules>>,
}

/// Rules of Harbor's projects.
#[derive(Default)]
pub struct Rules {
    /// Tags that must not be written over if they exist: `PROJECT:TAG`.
    pub immutable: BTreeSet<String>,
    /// Projects that are full.
    pub full: BTreeSet<&'static str>,
}

/// What Harbor knows of an image.
#[derive(Clone, Default)]
pub struct Known {
    pub labels: Vec<&'static str>,
    pub pushed: Option<&'static str>,
    pub signed: bool,
    /// The vulnerabilities that its scanner found, with their severities. `None` means that it was not scanned.
    pub found: Option<Vec<(&'static str, &'static str)>>,
}

/// Severities as Harbor orders them.
const SEVERITIES: [&str; 7] = ["None", "Unknown", "Negligible", "Low", "Medium", "High", "Critical"];
/// The media type of its reports.
const REPORT: &str = "application/vnd.security.vulnerability.report; version=1.1";

pub const LOGIN: &str = "robot$dray:secret";

impl Harbor {
    pub fn start() -> Self {
        let projects = Arc::new(Mutex::new(BTreeSet::new()));
        let (own, known): (Arc<OnceLock<String>>, _) = (Arc::default(), projects.clone());
        let images: Arc<Mutex<BTreeMap<String, Known>>> = Arc::default();
        let of_images = images.clone();
        let rules: Arc<Mutex<Rules>> = Arc::default();
        let of_rules = rules.clone();
        let host = own.clone();
        let registry = Memory::odd(move |asked, held| {
            let is_login =
                header(asked, "authorization") == Some(&format!("Basic {}", STANDARD.encode(LOGIN)));
            if asked.path.starts_with("/service/token") {
                return if is_login {
                    with_json("200 OK", &json!({ "token": "t" }))
                } else {
                    reply("401 Unauthorized")
                };
            }
            if asked.path.starts_with("/api/v2.0/") {
                return if is_login {
                    api(asked, held, &known, &of_images.lock().unwrap())
                } else {
                    reply("401 Unauthorized")
                };
            }
            if header(asked, "authorization") != Some("Bearer t") {
                let realm = format!("http://{}/service/token", host.get().unwrap());
                let challenge =
                    format!("Www-Authenticate: Bearer realm=\"{realm}\",service=\"harbor-registry\"\r\n");
                return Some(("401 Unauthorized", challenge, Vec::new()));
            }
            let project = asked.path.strip_prefix("/v2/")?.split('/').next()?;
            let writes = !matches!(asked.method, "GET" | "HEAD");
            if writes && !known.lock().unwrap().contains(project) {
                let body = json!({ "errors": [{ "code": "NOT_FOUND", "message": format!("project {project} not found") }] });
                return with_json("404 Not Found", &body);
            }
            let rules = of_rules.lock().unwrap();
            if writes && rules.full.contains(project) {
                let message = "adding 1.0 MiB of storage resource, which when updated to current usage of 10.0 MiB will exceed \
                               the configured upper limit of 10.0 MiB.";
                let body = json!({ "errors": [{ "code": "DENIED", "message": message }] });
                return with_json("403 Forbidden", &body);
            }
            let (repository, tag) =
                asked.path.trim_start_matches("/v2/").split_once("/manifests/").unwrap_or_default();
            let is_there =
                || held.lock().unwrap().manifests.contains_key(&(repository.to_owned(), tag.to_owned()));
            if asked.method == "PUT" && rules.immutable.contains(&format!("{project}:{tag}")) && is_there() {
                let message =
                    format!("Failed to process request due to '{repository}:{tag}' configured as immutable.");
                let body = json!({ "errors": [{ "code": "PRECONDITION", "message": message }] });
                return with_json("412 Precondition Failed", &body);
            }
            // `DELETE /v2/…/manifests/TAG` is UNSUPPORTED.
            let deleted = held.lock().unwrap().deleted(asked);
            deleted.or_else(|| (asked.method == "DELETE").then(|| reply("400 Bad Request")).flatten())
        });
        own.set(registry.host().to_owned()).unwrap();
        Harbor { registry, projects, known: images, rules }
    }

    pub fn auth(&self) -> String {
        format!("[registry.\"{}\"]\nauth = {{ credentials = \"env:HARBOR\" }}\n", self.registry.host())
    }
}

/// A text of a URL or of a form.
pub fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(hex.unwrap_or(*first));
        rest = if hex.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(out).unwrap()
}

/// Answers of the API, which are checked against its description. What the description does not know is 422, as Harbor
/// answers.
fn api(
    asked: &Asked,
    held: &Mutex<Held>,
    projects: &Mutex<BTreeSet<String>>,
    images: &BTreeMap<String, Known>,
) -> Option<Reply> {
    let path = asked.path.strip_prefix("/api/v2.0").unwrap();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let query: BTreeMap<&str, String> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key, decoded(value)))
        .collect();
    let Some(operation) = HARBOR.operation(asked.method, path) else { return reply("404 Not Found") };
    if let Some(why) = operation.refuses(&query, asked.body) {
        eprintln!("{} {path}: {why}", asked.method);
        return with_json("422 Unprocessable Entity", &errors("UNPROCESSABLE_ENTITY"));
    }
    let (status, headers, body) = answered(asked, path, &query, held, projects, images)?;
    operation.check(status, &body);
    Some((status, headers, body))
}

/// What Harbor says of a failure.
fn errors(code: &str) -> serde_json::Value {
    json!({ "errors": [{ "code": code, "message": code }] })
}

fn answered(
    asked: &Asked,
    path: &str,
    query: &BTreeMap<&str, String>,
    held: &Mutex<Held>,
    projects: &Mutex<BTreeSet<String>>,
    images: &BTreeMap<String, Known>,
) -> Option<Reply> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (asked.method, parts.as_slice()) {
        ("HEAD", ["projects"]) => {
            let there = projects.lock().unwrap().contains(query.get("project_name")?);
            reply(if there { "200 OK" } else { "404 Not Found" })
        }
        ("POST", ["projects"]) => {
            let body: serde_json::Value = serde_json::from_slice(asked.body).unwrap();
            let name = body["project_name"].as_str().unwrap().to_owned();
            assert_eq!(body["metadata"]["public"], "false");
            let new = projects.lock().unwrap().insert(name);
            if new { reply("201 Created") } else { with_json("409 Conflict", &errors("CONFLICT")) }
        }
        ("GET", ["projects", project, "repositories", name, "artifacts"]) => {
            let size: usize = query.get("page_size").map_or(Ok(10), |size| size.parse()).unwrap();
            // A name with a slash is encoded twice; once it would be another path.
            let repository = format!("{project}/{}", decoded(&decoded(name)));
            let page: usize = query.get("page").map_or(Ok(1), |page| page.parse()).unwrap();
            // Accessories, such as signatures, are no artifacts of their own.
            let bare = query.get("q").is_some_and(|q| q == "tags=nil");
            let mut artifacts = match bare {
                true => untagged(&held.lock().unwrap(), &repository),
                false => tags_of(&held.lock().unwrap(), &repository),
            };
            artifacts.retain(|_, (_, tags)| !tags.iter().any(|tag| tag.ends_with(".sig")));
            let artifacts: Vec<_> = artifacts
                .into_iter()
                .map(|(digest, (media_type, tags))| {
                    let image = images.get(&digest).cloned().unwrap_or_default();
                    let pushed = image.pushed.unwrap_or("2026-01-31T12:00:00.000Z");
                    let tags: Vec<_> =
                        tags.iter().map(|tag| json!({ "name": tag, "push_time": pushed })).collect();
                    let mut artifact = json!({
                        "digest": digest, "manifest_media_type": media_type, "size": 1, "tags": tags, "push_time": pushed,
                    });
                    let with = |what: &str| query.get(what).is_some_and(|value| value == "true");
                    if with("with_label") {
                        let labels = image.labels.iter().map(|label| json!({ "id": 1, "name": label }));
                        artifact["labels"] = labels.collect();
                    }
                    if with("with_accessory") && image.signed {
                        artifact["accessories"] = json!([{ "id": 1, "type": "signature.cosign" }]);
                    }
                    if let (true, Some(found)) = (with("with_scan_overview"), &image.found) {
                        // Without the header, Harbor tells of no report.
                        assert!(header(asked, "x-accept-vulnerabilities").unwrap().contains(REPORT));
                        let of = |severity: &str| SEVERITIES.iter().position(|known| *known == severity);
                        let worst = found.iter().filter_map(|(_, severity)| of(severity)).max().unwrap_or(0);
                        let overview = json!({ "scan_status": "Success", "severity": SEVERITIES[worst] });
                        artifact["scan_overview"] = json!({ REPORT: overview });
                    }
                    artifact
                })
                .skip((page - 1) * size)
                .take(size)
                .collect();
            with_json("200 OK", &json!(artifacts))
        }
        ("GET", ["projects", _, "repositories", _, "artifacts", digest, "additions", "vulnerabilities"]) => {
            assert!(header(asked, "x-accept-vulnerabilities").unwrap().contains(REPORT));
            let found = images.get(&decoded(digest)).and_then(|image| image.found.clone());
            let Some(found) = found else { return with_json("200 OK", &json!({})) };
            let one =
                |(id, severity): (&str, &str)| json!({ "id": id, "package": "p", "severity": severity });
            let all: Vec<_> = found.into_iter().map(one).collect();
            with_json("200 OK", &json!({ REPORT: { "severity": "High", "vulnerabilities": all } }))
        }
        ("DELETE", ["projects", project, "repositories", name, "artifacts", _, "tags", tag]) => {
            let repository = format!("{project}/{}", decoded(&decoded(name)));
            let gone = held.lock().unwrap().manifests.remove(&(repository, (*tag).to_owned()));
            if gone.is_some() { reply("200 OK") } else { with_json("404 Not Found", &errors("NOT_FOUND")) }
        }
        _ => reply("404 Not Found"),
    }
}
