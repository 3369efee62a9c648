//! Registries of clouds in the small: Amazon's (ECR), Google's (Artifact Registry) and Docker Hub. Each refuses requests that
//! its published description does not know, and what an account may not do.

use super::{
    described::ECR,
    harbor::{decoded, header, tags_of, with_json},
    memory::{Asked, Held, Memory, Reply, reply},
    signed::Scheme,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock},
};

/// Something that has to be made before a repository is written to.
pub type Made = Arc<Mutex<BTreeSet<String>>>;

/// A registry of a cloud.
pub struct Cloud {
    pub registry: Memory,
    pub inside: Inside,
}

/// The name of a vulnerability, and its severity.
pub type Vulnerability = (&'static str, &'static str);

/// What a cloud keeps beside the images of its registry.
#[derive(Clone, Default)]
pub struct Inside {
    pub made: Made,
    /// What a scanner found in images, by their digests.
    pub found: Arc<Mutex<BTreeMap<String, Vec<Vulnerability>>>>,
}

/// The environment in which all of them are logged in.
pub const ENVIRONMENT: [(&str, &str); 5] = [
    ("AWS_ACCESS_KEY_ID", "AKID"),
    ("AWS_SECRET_ACCESS_KEY", "very-secret"),
    ("CLOUDSDK_AUTH_ACCESS_TOKEN", "ya29.token"),
    ("DOCKERHUB_USERNAME", "somebody"),
    ("DOCKERHUB_TOKEN", "dckr_pat_secret"),
];

/// The header of a login.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Refuses who does not send this.
fn challenge(asked: &Asked, wanted: &str, challenge: &str) -> Option<Reply> {
    let headers = format!("Www-Authenticate: {challenge}\r\n");
    (header(asked, "authorization") != Some(wanted)).then(|| ("401 Unauthorized", headers, Vec::new()))
}

/// The repository of a request that writes.
fn written<'a>(asked: &Asked<'a>) -> Option<&'a str> {
    if matches!(asked.method, "GET" | "HEAD") {
        return None;
    }
    let path = asked.path.strip_prefix("/v2/")?;
    ["/blobs/", "/manifests/"].iter().find_map(|middle| path.split_once(middle)).map(|(name, _)| name)
}

fn unknown(repository: &str) -> Option<Reply> {
    let message = format!("The repository with name '{repository}' does not exist in the registry");
    with_json("404 Not Found", &json!({ "errors": [{ "code": "NAME_UNKNOWN", "message": message }] }))
}

impl Cloud {
    fn start(
        answers: impl Fn(&Asked, &Mutex<Held>, &Inside, &str) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let (inside, own): (Inside, Arc<OnceLock<String>>) = Default::default();
        let registry = {
            let (inside, own) = (inside.clone(), own.clone());
            Memory::odd(move |asked, held| answers(asked, held, &inside, own.get().unwrap()))
        };
        own.set(registry.host().to_owned()).unwrap();
        Cloud { registry, inside }
    }

    pub fn host(&self) -> &str {
        self.registry.host()
    }

    /// Amazon's registry: repositories must exist, and the API beside it wants signatures.
    pub fn amazon() -> Self {
        Cloud::start(|asked, held, cloud, _| {
            if asked.path == "/" {
                return api_of_amazon(asked, held, cloud);
            }
            let wanted = basic("AWS", "password");
            let refused = challenge(asked, &wanted, "Basic realm=\"amazon\",service=\"ecr.amazonaws.com\"");
            let repository = written(asked).filter(|name| !cloud.made.lock().unwrap().contains(*name));
            let deleted = || held.lock().unwrap().deleted(asked);
            refused.or_else(|| unknown(repository?)).or_else(deleted)
        })
    }

    /// Google's registry: a repository of images must exist, and lists of tags have a map of manifests.
    pub fn google() -> Self {
        Cloud::start(|asked, held, cloud, _| {
            if asked.path.starts_with("/v1/") {
                return api_of_google(asked, cloud);
            }
            let wanted = basic("oauth2accesstoken", "ya29.token");
            if let Some(refused) = challenge(asked, &wanted, "Basic realm=\"google\"") {
                return Some(refused);
            }
            if let Some(name) = written(asked) {
                let parent = name.rsplit_once('/').unwrap_or_default().0;
                let parent: Vec<&str> = parent.split('/').take(2).collect();
                let known = cloud.made.lock().unwrap().contains(&parent.join("/"));
                let deleted = || held.lock().unwrap().deleted(asked);
                return if known { deleted() } else { unknown(name) };
            }
            let repository =
                asked.path.split('?').next()?.strip_prefix("/v2/")?.strip_suffix("/tags/list")?;
            let tags = tags_of(&held.lock().unwrap(), repository);
            let names: Vec<&String> = tags.values().flat_map(|(_, tags)| tags).collect();
            // The map has every manifest, with those that have no tag.
            let untagged = bare(&held.lock().unwrap(), repository);
            let manifest: serde_json::Map<_, _> = tags
                .iter()
                .chain(&untagged)
                .map(|(digest, (media_type, tags))| {
                    let entry = json!({ "mediaType": media_type, "tag": tags, "timeUploadedMs": "1769860800500",
                        "imageSizeBytes": "9", "timeCreatedMs": "0" });
                    (digest.clone(), entry)
                })
                .collect();
            with_json(
                "200 OK",
                &json!({ "name": repository, "child": [], "tags": names, "manifest": manifest }),
            )
        })
    }

    /// Docker Hub, whose registry and API are at one host here. All repositories are private.
    pub fn hub() -> Self {
        Cloud::start(|asked, held, _, own| {
            if asked.path.starts_with("/token") {
                let is_known = header(asked, "authorization") == Some(&basic("somebody", "dckr_pat_secret"));
                return match is_known {
                    true => with_json("200 OK", &json!({ "token": "registry", "expires_in": 300 })),
                    false => reply("401 Unauthorized"),
                };
            }
            if let Some(answer) = api_of_hub(asked, held) {
                return Some(answer);
            }
            let realm = format!("Bearer realm=\"http://{own}/token\",service=\"registry.docker.io\"");
            challenge(asked, "Bearer registry", &realm)
        })
    }
}

/// Whether a request has the signature of the key `AKID` with this secret (AWS Signature Version 4).
pub fn is_signed(asked: &Asked, secret: &str) -> bool {
    let date = header(asked, "x-amz-date").unwrap();
    let scope = [&date[..8], "eu-west-1", "ecr", "aws4_request"];
    let scheme = Scheme {
        algorithm: "AWS4-HMAC-SHA256",
        prefix: "AWS4",
        secret,
        time: Some(date),
        scope: &scope,
        slash: false,
    };
    let session = if header(asked, "x-amz-security-token").is_some() { "x-amz-security-token;" } else { "" };
    let authorization = header(asked, "authorization").unwrap();
    authorization.contains(&format!("Credential=AKID/{}, ", scope.join("/")))
        && scheme.signed(asked, &format!("content-type;host;x-amz-date;{session}x-amz-target"))
}

/// All manifests of a repository that no tag names.
fn bare(held: &Held, repository: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let tagged = tags_of(held, repository);
    let here = held.manifests.iter().filter(|((of, name), _)| of == repository && name.contains(':'));
    here.filter(|((_, name), _)| !tagged.contains_key(name))
        .map(|((_, name), (media_type, _))| (name.clone(), (media_type.clone(), Vec::new())))
        .collect()
}

/// The JSON API of Amazon's registry (`descriptions/ecr.json`).
fn api_of_amazon(asked: &Asked, held: &Mutex<Held>, cloud: &Inside) -> Option<Reply> {
    assert_eq!(asked.method, "POST");
    let refused = |kind: &str| {
        let body = json!({ "__type": format!("com.amazonaws.ecr#{kind}"), "message": "no" });
        Some(("400 Bad Request", String::new(), body.to_string().into_bytes()))
    };
    if !is_signed(asked, "very-secret") {
        return refused("UnrecognizedClientException");
    }
    assert_eq!(header(asked, "content-type"), Some("application/x-amz-json-1.1"));
    let target = header(asked, "x-amz-target").unwrap();
    let operation = target.strip_prefix("AmazonEC2ContainerRegistry_V20150921.").unwrap();
    let input: Value = serde_json::from_slice(asked.body).unwrap();
    if let Some(why) = ECR.refuses(operation, &input) {
        eprintln!("{operation}: {why}");
        return refused("InvalidParameterException");
    }
    let name = input["repositoryName"].as_str().or_else(|| input["repositoryNames"][0].as_str());
    let name = name.unwrap_or_default().to_owned();
    let mut made = cloud.made.lock().unwrap();
    let is_made = made.contains(&name);
    if !is_made && !matches!(operation, "CreateRepository" | "GetAuthorizationToken") {
        return refused("RepositoryNotFoundException");
    }
    let repository = json!({ "repositoryName": name, "repositoryUri": format!("r/{name}") });
    let output = match operation {
        "GetAuthorizationToken" => {
            json!({ "authorizationData": [{ "authorizationToken": STANDARD.encode("AWS:password"), "expiresAt": 4_102_444_800.5_f64 }] })
        }
        "DescribeRepositories" => json!({ "repositories": [repository] }),
        "CreateRepository" if is_made => return refused("RepositoryAlreadyExistsException"),
        "CreateRepository" => {
            made.insert(name);
            json!({ "repository": repository })
        }
        "DescribeImages" => {
            let found = cloud.found.lock().unwrap();
            let start: usize = input["nextToken"].as_str().map_or(0, |next| next.parse().unwrap());
            let size = input["maxResults"].as_u64().unwrap() as usize;
            let all = match input["filter"]["tagStatus"].as_str().unwrap() {
                "TAGGED" => tags_of(&held.lock().unwrap(), &name),
                _ => bare(&held.lock().unwrap(), &name),
            };
            let count = all.len();
            let images = all.into_iter().skip(start).take(size).map(|(digest, (media_type, tags))| {
                let mut image = json!({ "imageDigest": digest, "imageManifestMediaType": media_type,
                    "imagePushedAt": 1_769_860_800.25, "imageSizeInBytes": 9 });
                if !tags.is_empty() {
                    image["imageTags"] = json!(tags);
                }
                if let Some(found) = found.get(&digest) {
                    let mut counts = serde_json::Map::new();
                    for (_, severity) in found {
                        counts.insert((*severity).to_owned(), json!(1));
                    }
                    image["imageScanStatus"] = json!({ "status": "COMPLETE" });
                    image["imageScanFindingsSummary"] = json!({ "findingSeverityCounts": counts });
                }
                image
            });
            let mut output = json!({ "imageDetails": images.collect::<Vec<_>>() });
            if start + size < count {
                output["nextToken"] = (start + size).to_string().into();
            }
            output
        }
        "DescribeImageScanFindings" => {
            let found = cloud.found.lock().unwrap();
            let Some(found) = found.get(input["imageId"]["imageDigest"].as_str().unwrap()) else {
                return refused("ScanNotFoundException");
            };
            let findings = found.iter().map(|(name, severity)| json!({ "name": name, "severity": severity }));
            json!({ "imageScanStatus": { "status": "COMPLETE" }, "imageScanFindings": { "findings": findings.collect::<Vec<_>>() } })
        }
        "BatchDeleteImage" => {
            let tag = input["imageIds"][0]["imageTag"].as_str().unwrap();
            let gone = held.lock().unwrap().manifests.remove(&(name, tag.to_owned()));
            match gone {
                Some(_) => json!({ "imageIds": [{ "imageTag": tag }], "failures": [] }),
                None => {
                    json!({ "imageIds": [], "failures": [{ "imageId": { "imageTag": tag }, "failureCode": "ImageNotFound" }] })
                }
            }
        }
        _ => return refused("InvalidParameterException"),
    };
    ECR.check(operation, &output);
    with_json("200 OK", &output)
}

/// Artifact Registry's API v1: `projects.locations.repositories` and `operations`; and Container Analysis's `occurrences`.
fn api_of_google(asked: &Asked, cloud: &Inside) -> Option<Reply> {
    if header(asked, "authorization") != Some("Bearer ya29.token") {
        return reply("401 Unauthorized");
    }
    let (path, query) =
        asked.path.strip_prefix("/v1/").unwrap().split_once('?').unwrap_or((&asked.path[4..], ""));
    let parts: Vec<&str> = path.split('/').collect();
    match (asked.method, parts.as_slice()) {
        ("GET", ["projects", project, "locations", "europe", "repositories", name]) => {
            match cloud.made.lock().unwrap().contains(&format!("{project}/{name}")) {
                true => with_json("200 OK", &json!({ "name": path, "format": "DOCKER" })),
                false => {
                    with_json("404 Not Found", &json!({ "error": { "code": 404, "status": "NOT_FOUND" } }))
                }
            }
        }
        ("POST", ["projects", project, "locations", "europe", "repositories"]) => {
            let body: Value = serde_json::from_slice(asked.body).unwrap();
            assert_eq!(body, json!({ "format": "DOCKER" }));
            let name = query.strip_prefix("repositoryId=").unwrap();
            cloud.made.lock().unwrap().insert(format!("{project}/{name}"));
            let operation = format!("projects/{project}/locations/europe/operations/1");
            with_json("200 OK", &json!({ "name": operation, "metadata": {} }))
        }
        ("GET", ["projects", _, "locations", "europe", "operations", "1"]) => {
            with_json("200 OK", &json!({ "name": path, "done": true, "response": {} }))
        }
        ("GET", ["projects", _, "occurrences"]) => {
            let filter = decoded(query.strip_prefix("filter=").unwrap().split('&').next().unwrap());
            assert!(filter.replace("%28", "(").starts_with("(kind"), "{filter}");
            let found = cloud.found.lock().unwrap();
            let Some((_, found)) = found.iter().find(|(digest, _)| filter.contains(digest.as_str())) else {
                return with_json("200 OK", &json!({}));
            };
            let vulnerabilities = found.iter().map(|(name, severity)| {
                json!({ "kind": "VULNERABILITY", "noteName": format!("projects/goog-vulnz/notes/{name}"),
                    "vulnerability": { "effectiveSeverity": severity, "packageIssue": [{ "affectedPackage": "p" }] } })
            });
            let done = json!({ "kind": "DISCOVERY", "noteName": "projects/goog-analysis/notes/PACKAGE_VULNERABILITY", "discovery": { "analysisStatus": "FINISHED_SUCCESS" } });
            with_json("200 OK", &json!({ "occurrences": vulnerabilities.chain([done]).collect::<Vec<_>>() }))
        }
        _ => reply("404 Not Found"),
    }
}

/// Docker Hub's API (docker/docs, `content/reference/api/hub/latest.yaml`).
fn api_of_hub(asked: &Asked, held: &Mutex<Held>) -> Option<Reply> {
    if asked.path == "/v2/auth/token" {
        let body: Value = serde_json::from_slice(asked.body).unwrap();
        let is_known = body == json!({ "identifier": "somebody", "secret": "dckr_pat_secret" });
        return match is_known {
            true => with_json("200 OK", &json!({ "access_token": "api" })),
            false => {
                with_json("401 Unauthorized", &json!({ "detail": "Incorrect authentication credentials" }))
            }
        };
    }
    let is_login = header(asked, "authorization") == Some("Bearer api");
    if let Some(rest) = asked.path.strip_prefix("/v2/repositories/") {
        assert_eq!(asked.method, "DELETE");
        let parts: Vec<&str> = rest.split('/').collect();
        let [namespace, name, "tags", tag, ""] = parts.as_slice() else { return reply("404 Not Found") };
        if !is_login {
            return reply("401 Unauthorized");
        }
        let key = (format!("{namespace}/{name}"), (*tag).to_owned());
        let gone = held.lock().unwrap().manifests.remove(&key);
        return reply(if gone.is_some() { "204 No Content" } else { "404 Not Found" });
    }
    let rest = asked.path.strip_prefix("/v2/namespaces/")?;
    let (path, query) = rest.split_once('?')?;
    let parts: Vec<&str> = path.split('/').collect();
    let [namespace, "repositories", name, "tags"] = parts.as_slice() else { return reply("404 Not Found") };
    if !is_login {
        // Private repositories do not exist for others.
        return with_json("404 Not Found", &json!({ "message": "object not found" }));
    }
    let page: usize = query.strip_prefix("page_size=100&page=")?.parse().unwrap();
    let tags = tags_of(&held.lock().unwrap(), &format!("{namespace}/{name}"));
    if tags.is_empty() {
        return with_json("404 Not Found", &json!({ "message": "object not found" }));
    }
    let listed: Vec<Value> = tags
        .iter()
        .flat_map(|(digest, (media_type, tags))| {
            tags.iter().map(move |tag| {
                json!({ "name": tag, "digest": digest, "media_type": media_type, "full_size": 9, "images": [],
                    "tag_last_pushed": "2026-01-31T12:00:00.123456Z" })
            })
        })
        .skip((page - 1) * 100)
        .take(100)
        .collect();
    let next = (listed.len() == 100).then(|| format!("https://hub.docker.com/x?page={}", page + 1));
    with_json("200 OK", &json!({ "count": 0, "next": next, "previous": null, "results": listed }))
}
