//! Alibaba's registries of the enterprise edition (Container Registry, API of 2018-12-01): lists tags in bulk, and makes
//! namespaces. Its API is at another host, and wants signed requests, so the auth provider `ali-acr` must be named. Whether
//! `DeleteRepoTag` leaves other tags of an image alone is not known, so tags are deleted as the specification says.

use dray_plugin_dialect::{As, Dialect, Entry, Error, Kind, Page, ask, ask_with, encoded, export, json};
use serde::{Deserialize, de::DeserializeOwned};

const PAGE: usize = 100;

struct AliAcr;

/// What every answer says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    #[serde(default)]
    code: String,
    #[serde(default)]
    is_success: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Repository {
    repo_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tags {
    images: Vec<Image>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    tag: String,
    digest: Option<String>,
    /// Milliseconds since 1970.
    image_update: Option<String>,
}

/// Where a registry's API is, and by what the registry is known there.
#[derive(Debug, PartialEq)]
struct Instance {
    host: String,
    id: String,
    region: String,
}

/// Reads the service in a challenge: `registry.aliyuncs.com:REGION:…:cri-ID`, where only the enterprise edition has an ID.
fn instance(registry: &str, challenge: &str) -> Option<Instance> {
    let service = challenge.split_once("service=\"")?.1.split_once('"')?.0;
    let mut parts = service.split(':');
    let region = parts.nth(1)?.to_owned();
    let id = parts.next_back().filter(|id| id.starts_with("cri-"))?.to_owned();
    let is_theirs = registry.ends_with(".cr.aliyuncs.com");
    let host = if is_theirs { format!("cr.{region}.aliyuncs.com") } else { registry.to_owned() };
    region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-').then_some(Instance {
        host,
        id,
        region,
    })
}

fn found(registry: &str) -> Result<Instance, Error> {
    let response = ask("GET", registry, "/v2/", As::Anybody, &[200, 401])?;
    let challenge = response.headers.iter().find(|(name, _)| name == "www-authenticate");
    let challenge = challenge.map(|(_, value)| value.as_str()).unwrap_or_default();
    instance(registry, challenge).ok_or_else(|| {
        Error::Unsupported(format!("{registry} is of the personal edition, whose API dray does not ask"))
    })
}

/// Calls an action. `parameters` are sorted by their names, and follow those that every action has.
fn call<T: DeserializeOwned>(
    at: &Instance,
    repository: &str,
    action: &str,
    parameters: &[(&str, &str)],
) -> Result<T, Error> {
    let mut all = vec![("InstanceId", at.id.as_str()), ("RegionId", at.region.as_str())];
    all.extend(parameters);
    all.sort_unstable();
    let query: Vec<String> = all.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    let headers = [("x-acs-action", action), ("x-acs-version", "2018-12-01")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let path = format!("/?{}", query.join("&"));
    let statuses = [200, 400, 403, 404, 409];
    let response = ask_with("POST", &at.host, &path, As::Signed(repository), &statuses, &headers)?;
    let outcome: Outcome = json(&response)?;
    if response.status == 200 && outcome.is_success != Some(false) {
        return json(&response);
    }
    let why = format!("call {action}: {}", outcome.code);
    Err(match outcome.code.as_str() {
        code if code.contains("NOT_EXIST") || code.contains("NotExist") => Error::NotFound(why),
        code if code.starts_with("Throttling") => Error::RateLimited(None),
        _ => Error::Denied(why),
    })
}

/// The namespace of a repository, and the rest of its name.
fn parts(repository: &str) -> Result<(&str, &str), Error> {
    repository.split_once('/').ok_or_else(|| {
        Error::Invalid(format!(
            "Alibaba's repositories are NAMESPACE/NAME, and `{repository}` has no namespace"
        ))
    })
}

fn id(at: &Instance, repository: &str) -> Result<String, Error> {
    let (namespace, name) = parts(repository)?;
    let parameters = [("RepoName", name), ("RepoNamespaceName", namespace)];
    Ok(call::<Repository>(at, repository, "GetRepository", &parameters)?.repo_id)
}

impl Dialect for AliAcr {
    const NAME: &str = "ali-acr";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Alibaba's registries (enterprise edition): lists in bulk, makes namespaces";

    fn kind() -> Kind {
        Kind {
            extra: Vec::new(),
            hosts: vec!["*-registry.*.cr.aliyuncs.com".into(), "*-registry-vpc.*.cr.aliyuncs.com".into()],
            services: Vec::new(),
            lists: true,
            whole: false,
            prepares: true,
            removes: false,
        }
    }

    fn tags(registry: &str, repository: &str, next: Option<&str>) -> Result<Page, Error> {
        let at = found(registry)?;
        // What a page after the first continues: the ID of the repository, and the number of the page.
        let (id, page) = match next.and_then(|next| next.split_once(' ')) {
            Some((id, page)) => (id.to_owned(), page.parse().unwrap_or(1)),
            None => (id(&at, repository)?, 1),
        };
        let (number, size) = (page.to_string(), PAGE.to_string());
        let parameters = [("PageNo", number.as_str()), ("PageSize", &size), ("RepoId", &id)];
        let tags: Tags = call(&at, repository, "ListRepoTag", &parameters)?;
        let next = (tags.images.len() == PAGE).then(|| format!("{id} {}", page + 1));
        let entries = tags.images.into_iter().map(|image| Entry {
            extra: Vec::new(),
            name: image.tag,
            digest: image.digest.map(|digest| match digest.contains(':') {
                true => digest,
                false => format!("sha256:{digest}"),
            }),
            media_type: None,
            size: None,
            updated: image.image_update.and_then(|time| time.parse().ok()),
        });
        Ok(Page { entries: entries.collect(), next, behind: None })
    }

    fn prepare(registry: &str, repository: &str) -> Result<String, Error> {
        let (namespace, _) = parts(repository)?;
        let at = found(registry)?;
        let parameters =
            [("AutoCreateRepo", "true"), ("DefaultRepoType", "PRIVATE"), ("NamespaceName", namespace)];
        match call::<Outcome>(&at, repository, "CreateNamespace", &parameters) {
            Ok(_) => Ok(format!("{namespace}/")),
            Err(Error::Denied(why)) if why.contains("EXIST") || why.contains("Exist") => {
                Ok(format!("{namespace}/"))
            }
            Err(error) => Err(error),
        }
    }
}

export!(AliAcr with_types_in dray_plugin_dialect);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_names_the_instance() {
        let challenge =
            |service: &str| format!("Bearer realm=\"https://dockerauth.example/auth\",service=\"{service}\"");
        let found = instance(
            "team-registry.cn-hangzhou.cr.aliyuncs.com",
            &challenge("registry.aliyuncs.com:cn-hangzhou:26842:cri-abc"),
        );
        let expected = Instance {
            host: "cr.cn-hangzhou.aliyuncs.com".into(),
            id: "cri-abc".into(),
            region: "cn-hangzhou".into(),
        };
        assert_eq!(found, Some(expected));
        assert_eq!(instance("r", &challenge("registry.aliyuncs.com:cn-hangzhou:26842")), None);
        assert_eq!(instance("r", &challenge("registry.aliyuncs.com:x.evil.example/:1:cri-abc")), None);
        assert_eq!(instance("r", ""), None);
    }
}
