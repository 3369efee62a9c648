//! Volcengine's registries (Container Registry, API of 2022-05-12): lists tags in bulk, and makes namespaces and repositories. Its
//! API is at another host, and wants signed requests, so the auth provider `volcengine-cr` must be named. Whether `DeleteTags`
//! leaves other tags of an image alone is not known, so tags are deleted as the specification says.

use dray_plugin_dialect::{As, Dialect, Entry, Error, Kind, Page, export, json, post_with, time};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// The most tags that the API gives at once.
const PAGE: usize = 100;

struct VolcengineCr;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    response_metadata: Metadata,
    #[serde(default)]
    result: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    error: Option<Failed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failed {
    code: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tags {
    items: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tag {
    name: String,
    digest: Option<String>,
    push_time: Option<String>,
}

/// The instance of a registry, and the host of its API: `INSTANCE-REGION.cr.volces.com`. A registry of another name stands for
/// both.
fn parts(registry: &str) -> (String, String) {
    let name = registry.strip_suffix(".cr.volces.com").or_else(|| registry.strip_suffix(".cr.ivolces.com"));
    match name.and_then(|name| Some((name, name.rfind("-cn-")?))) {
        Some((name, at)) => (name[..at].to_owned(), format!("cr.{}.volcengineapi.com", &name[at + 1..])),
        None => ("registry".to_owned(), registry.to_owned()),
    }
}

fn call<T: DeserializeOwned>(
    registry: &str,
    repository: &str,
    action: &str,
    more: impl FnOnce(&str, &str) -> Value,
) -> Result<T, Error> {
    let (namespace, name) = repository.split_once('/').ok_or_else(|| {
        Error::Invalid(format!(
            "Volcengine's repositories are NAMESPACE/NAME, and `{repository}` has no namespace"
        ))
    })?;
    let (instance, host) = parts(registry);
    let mut body = more(namespace, name);
    body["Registry"] = instance.into();
    let headers = [("content-type".to_owned(), "application/json; charset=utf-8".to_owned())];
    let path = format!("/?Action={action}&Version=2022-05-12");
    let statuses = [200, 400, 403, 404, 409];
    let response = post_with(&host, &path, As::Signed(repository), &body, &statuses, &headers)?;
    let answer: Answer = json(&response)?;
    let Some(failed) = answer.response_metadata.error else {
        return serde_json::from_value(answer.result)
            .map_err(|error| Error::Invalid(format!("read the answer to {action}: {error}")));
    };
    let why = format!("call {action}: {}", failed.code);
    Err(match failed.code.as_str() {
        code if code.contains("NotFound") || code.contains("NotExist") => Error::NotFound(why),
        code if code.contains("Exist") => Error::Unsupported(why),
        code if code.contains("Throttl") || code.contains("LimitExceeded") => Error::RateLimited(None),
        _ => Error::Denied(why),
    })
}

/// Makes what may be there already.
fn make(
    registry: &str,
    repository: &str,
    action: &str,
    more: impl FnOnce(&str, &str) -> Value,
) -> Result<(), Error> {
    match call::<Value>(registry, repository, action, more) {
        Ok(_) | Err(Error::Unsupported(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

impl Dialect for VolcengineCr {
    const NAME: &str = "volcengine-cr";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Volcengine's registries: lists in bulk, makes repositories";

    fn kind() -> Kind {
        Kind {
            extra: Vec::new(),
            hosts: vec!["*.cr.volces.com".into(), "*.cr.ivolces.com".into()],
            services: Vec::new(),
            lists: true,
            whole: false,
            prepares: true,
            removes: false,
        }
    }

    fn tags(registry: &str, repository: &str, next: Option<&str>) -> Result<Page, Error> {
        let page: usize = next.and_then(|next| next.parse().ok()).unwrap_or(1);
        let tags: Tags = call(
            registry,
            repository,
            "ListTags",
            |namespace, name| json!({ "Namespace": namespace, "Repository": name, "PageNumber": page, "PageSize": PAGE }),
        )?;
        let next = (tags.items.len() == PAGE).then(|| (page + 1).to_string());
        let entries = tags.items.into_iter().map(|tag| Entry {
            extra: Vec::new(),
            name: tag.name,
            digest: tag.digest,
            media_type: None,
            size: None,
            updated: tag.push_time.as_deref().and_then(time),
        });
        Ok(Page { entries: entries.collect(), next, behind: None })
    }

    fn prepare(registry: &str, repository: &str) -> Result<String, Error> {
        make(registry, repository, "CreateNamespace", |namespace, _| json!({ "Name": namespace }))?;
        make(
            registry,
            repository,
            "CreateRepository",
            |namespace, name| json!({ "Namespace": namespace, "Name": name, "AccessLevel": "Private" }),
        )?;
        Ok(repository.into())
    }
}

export!(VolcengineCr with_types_in dray_plugin_dialect);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_the_instance_and_the_region() {
        assert_eq!(
            parts("my-cn-team-cn-beijing.cr.volces.com"),
            ("my-cn-team".into(), "cr.cn-beijing.volcengineapi.com".into())
        );
        assert_eq!(parts("registry.example.com"), ("registry".into(), "registry.example.com".into()));
    }
}
