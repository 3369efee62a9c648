//! Tencent's registries of the enterprise edition (Tencent Container Registry, API of 2019-09-24): lists tags in bulk, and makes
//! namespaces. Its API is at another host, and wants signed requests, so the auth provider `tencent-tcr` must be named.
//! `DeleteImage` takes the image along with its tag, so tags are deleted as the specification says.

use dray_plugin_dialect::{As, Dialect, Entry, Error, Kind, Page, export, json, post_with};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// The most entries that the API gives at once.
const PAGE: usize = 100;
/// The region that is asked where an instance is; any would do.
const ANY_REGION: &str = "ap-guangzhou";

struct TencentTcr;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    response: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instances {
    registries: Vec<Instance>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    registry_id: String,
    region_name: String,
    public_domain: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Images {
    image_info_list: Vec<Image>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    /// The tag.
    image_version: String,
    digest: Option<String>,
}

/// The host of a registry's API. A registry of another name stands for both.
fn api(registry: &str) -> &str {
    if registry.ends_with(".tencentcloudcr.com") { "tcr.tencentcloudapi.com" } else { registry }
}

/// The public names that the instance behind a registry may have: `NAME[-vpc].tencentcloudcr.com` is an instance of that very
/// name, or the internal name of another one.
fn public_names(registry: &str) -> Vec<String> {
    let (name, end) = registry.split_once('.').unwrap_or((registry, ""));
    let internal = name.strip_suffix("-vpc").map(|name| format!("{name}.{end}"));
    [registry.to_owned()].into_iter().chain(internal).collect()
}

/// Calls an action. Its errors come with status 200.
fn call<T: DeserializeOwned>(
    registry: &str,
    repository: &str,
    region: &str,
    action: &str,
    body: &Value,
) -> Result<T, Error> {
    let headers = [
        ("content-type", "application/json"),
        ("x-tc-action", action),
        ("x-tc-version", "2019-09-24"),
        ("x-tc-region", region),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let response = post_with(api(registry), "/", As::Signed(repository), body, &[200], &headers)?;
    let answer = json::<Answer>(&response)?.response;
    let Some(code) = answer["Error"]["Code"].as_str() else {
        return serde_json::from_value(answer)
            .map_err(|error| Error::Invalid(format!("read the answer to {action}: {error}")));
    };
    let why = format!("call {action}: {code}");
    Err(match code {
        code if code.starts_with("ResourceNotFound") => Error::NotFound(why),
        code if code.starts_with("RequestLimitExceeded") => Error::RateLimited(None),
        _ => Error::Denied(why),
    })
}

/// The instance behind a registry. Its public name must be the registry's, so that nothing is asked of another instance; a
/// registry of another name is not found.
fn found(registry: &str, repository: &str) -> Result<Instance, Error> {
    let names = public_names(registry);
    let firsts: Vec<&str> = names.iter().filter_map(|name| name.split('.').next()).collect();
    let filter = json!([{ "Name": "RegistryName", "Values": firsts }]);
    let body = json!({ "AllRegion": true, "Filters": filter, "Offset": 0, "Limit": PAGE });
    let instances: Instances = call(registry, repository, ANY_REGION, "DescribeInstances", &body)?;
    let mut all = instances.registries.into_iter();
    let is_it =
        |instance: &Instance| instance.public_domain.as_ref().is_some_and(|domain| names.contains(domain));
    match (all.find(is_it), all.find(is_it)) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => {
            Err(Error::Unsupported(format!("two registries of the account may be {registry}")))
        }
        (None, _) => Err(Error::Unsupported(format!("no registry of the account is called {registry}"))),
    }
}

/// The namespace of a repository, and the rest of its name.
fn parts(repository: &str) -> Result<(&str, &str), Error> {
    repository.split_once('/').ok_or_else(|| {
        Error::Invalid(format!(
            "Tencent's repositories are NAMESPACE/NAME, and `{repository}` has no namespace"
        ))
    })
}

impl Dialect for TencentTcr {
    const NAME: &str = "tencent-tcr";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Tencent's registries (enterprise edition): lists in bulk, makes namespaces";

    fn kind() -> Kind {
        Kind {
            extra: Vec::new(),
            hosts: vec!["*.tencentcloudcr.com".into()],
            services: Vec::new(),
            lists: true,
            whole: false,
            prepares: true,
            removes: false,
        }
    }

    fn tags(registry: &str, repository: &str, next: Option<&str>) -> Result<Page, Error> {
        let (namespace, name) = parts(repository)?;
        // What a page after the first continues: the instance, its region, and the number of the page.
        let mut known = next.unwrap_or_default().splitn(3, ' ');
        let (id, region, page) = match (known.next(), known.next(), known.next()) {
            (Some(id), Some(region), Some(page)) => {
                (id.to_owned(), region.to_owned(), page.parse().unwrap_or(1))
            }
            _ => {
                let found = found(registry, repository)?;
                (found.registry_id, found.region_name, 1)
            }
        };
        // `Offset` is the number of the page.
        let body = json!({
            "RegistryId": id, "NamespaceName": namespace, "RepositoryName": name, "Limit": PAGE, "Offset": page,
        });
        let images: Images = call(registry, repository, &region, "DescribeImages", &body)?;
        let next = (images.image_info_list.len() == PAGE).then(|| format!("{id} {region} {}", page + 1));
        let entries = images.image_info_list.into_iter().map(|image| Entry {
            extra: Vec::new(),
            name: image.image_version,
            digest: image.digest,
            media_type: None,
            size: None,
            updated: None,
        });
        Ok(Page { entries: entries.collect(), next, behind: None })
    }

    fn prepare(registry: &str, repository: &str) -> Result<String, Error> {
        let (namespace, _) = parts(repository)?;
        let found = found(registry, repository)?;
        let ask = |action, body| call::<Value>(registry, repository, &found.region_name, action, &body);
        let id = &found.registry_id;
        let listed = ask(
            "DescribeNamespaces",
            json!({ "RegistryId": id, "NamespaceName": namespace, "Limit": PAGE, "Offset": 1 }),
        )?;
        let mut names = listed["NamespaceList"].as_array().into_iter().flatten();
        if !names.any(|known| known["Name"] == namespace) {
            ask(
                "CreateNamespace",
                json!({ "RegistryId": id, "NamespaceName": namespace, "IsPublic": false }),
            )?;
        }
        Ok(format!("{namespace}/"))
    }
}

export!(TencentTcr with_types_in dray_plugin_dialect);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_name_tells_the_instance() {
        assert_eq!(public_names("team.tencentcloudcr.com"), ["team.tencentcloudcr.com"]);
        let both = ["team-vpc.tencentcloudcr.com", "team.tencentcloudcr.com"];
        assert_eq!(public_names("team-vpc.tencentcloudcr.com"), both);
        assert_eq!(api("team.tencentcloudcr.com"), "tcr.tencentcloudapi.com");
        assert_eq!(api("registry.example.com"), "registry.example.com");
    }
}
