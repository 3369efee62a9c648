//! Registries of clouds whose APIs want signed requests: Alibaba's, Huawei's, Tencent's and Volcengine's. Each fake stands for
//! the registry and for the API, checks every signature, and refuses what its published description does not know.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};
use support::{
    Ran, World,
    clouds::basic,
    harbor::{decoded, header, tags_of, with_json},
    memory::{Asked, Held, Memory, Reply, reply},
    signed::Scheme,
};

/// Namespaces, and repositories, that were made.
type Made = Mutex<BTreeSet<String>>;

const REPOSITORY: &str = "team/app";

/// A registry with an API beside it. `login` is what the registry takes, and `challenge` is how it asks for that.
fn registry(
    login: String,
    challenge: &'static str,
    api: fn(&Asked, &Mutex<Held>, &Made) -> Option<Reply>,
) -> (Memory, Arc<Made>) {
    let made = Arc::new(Made::default());
    let known = made.clone();
    let registry = Memory::odd(move |asked, held| {
        let is_registrys = asked.path.starts_with("/v2/") && !asked.path.starts_with("/v2/manage/");
        if !is_registrys {
            return api(asked, held, &known);
        }
        if header(asked, "authorization") != Some(&login) {
            return Some(("401 Unauthorized", format!("Www-Authenticate: {challenge}\r\n"), Vec::new()));
        }
        let writes = !matches!(asked.method, "GET" | "HEAD");
        if let Some(deleted) = held.lock().unwrap().deleted(asked) {
            return Some(deleted);
        }
        let unknown = writes && !known.lock().unwrap().contains("team");
        let body = json!({ "errors": [{ "code": "NAME_UNKNOWN" }] });
        if unknown { with_json("404 Not Found", &body) } else { None }
    });
    (registry, made)
}

/// The tags of the repository with their digests.
fn listed(held: &Mutex<Held>) -> Vec<(String, String)> {
    let mut tags: Vec<_> = tags_of(&held.lock().unwrap(), REPOSITORY)
        .into_iter()
        .flat_map(|(digest, (_, tags))| tags.into_iter().map(move |tag| (tag, digest.clone())))
        .collect();
    tags.sort();
    tags
}

fn removed(held: &Mutex<Held>, tag: &str) -> bool {
    held.lock().unwrap().manifests.remove(&(REPOSITORY.to_owned(), tag.to_owned())).is_some()
}

/// Syncs from one registry of a kind to another, which must have its namespace made; then nothing is new, then a tag is
/// deleted. Returns what the source was asked the second time.
fn exercise(
    kind: &str,
    start: fn() -> (Memory, Arc<Made>),
    provider: fn(&str) -> String,
    environment: &[(&str, &str)],
) -> Vec<String> {
    let world = World::new();
    let ((from, made), (to, new)) = (start(), start());
    made.lock().unwrap().insert("team".into());
    for number in 0..5 {
        from.image(REPOSITORY, &format!("v{number}"), format!("{number}").as_bytes());
    }
    let table = |host: &str| format!("[registry.\"{host}\"]\nkind = \"{kind}\"\nauth = {}\n", provider(host));
    let rule = format!(
        "[[rule]]\nfrom = \"docker://{}/{REPOSITORY}\"\nto = \"docker://{}/{REPOSITORY}\"\n",
        from.host(),
        to.host()
    );
    world.write("dray.toml", &format!("version = 1\n{}{}{rule}", table(from.host()), table(to.host())));
    let run = |arguments: &[&str]| Ran::of(world.command(arguments).envs(environment.iter().copied()));
    let first = run(&["sync"]);
    assert!(first.code == 0 && first.out.contains("5 images copied"), "{kind}: {}{}", first.out, first.err);
    assert!(new.lock().unwrap().contains("team"), "{kind}");
    let before = from.asked().len();
    let again = run(&["sync", "-v"]);
    assert!(again.out.contains("0 images copied, 5 unchanged"), "{kind}: {}{}", again.out, again.err);
    assert!(
        !from.asked()[before..].iter().any(|asked| asked.contains("/manifests/")),
        "{kind}: {}",
        again.err
    );
    let asked = from.asked()[before..].to_vec();
    // Who has no keys is told so, and nothing of a key is in any message.
    let lacking = world.dray(&["sync"]);
    assert!(lacking.code == 1, "{kind}: {}", lacking.out);
    let wrong: Vec<(&str, &str)> = environment.iter().map(|(name, _)| (*name, "wrong-hunter2")).collect();
    let refused = Ran::of(world.command(&["sync"]).envs(wrong));
    assert!(refused.code == 1 && !refused.err.contains("hunter2"), "{kind}: {}", refused.err);
    // A tag that the source has no more is deleted alone, though another names the same image.
    let image = from.held.lock().unwrap().manifests[&(REPOSITORY.to_owned(), "v1".to_owned())].clone();
    from.put(REPOSITORY, "again", &image.0, &image.1);
    let copied = run(&["sync"]);
    assert!(copied.out.contains("1 image copied, 5 unchanged"), "{kind}: {}{}", copied.out, copied.err);
    assert!(removed(&from.held, "again"));
    let pruned = run(&["sync", "--prune"]);
    assert!(pruned.code == 0 && pruned.out.contains("1 tag deleted"), "{kind}: {}{}", pruned.out, pruned.err);
    assert!(!to.has(REPOSITORY, "again") && to.has(REPOSITORY, "v1"), "{kind}");
    asked
}

/// Alibaba's registry of the enterprise edition: RPC of 2018-12-01, with ACS3-HMAC-SHA256.
fn alibaba() -> (Memory, Arc<Made>) {
    registry(
        basic("cr_temp_user", "temporary"),
        "Basic realm=\"alibaba\",service=\"registry.aliyuncs.com:cn-hangzhou:26842:cri-abc\"",
        |asked, held, made| {
            let scheme = Scheme {
                algorithm: "ACS3-HMAC-SHA256",
                prefix: "",
                secret: "very-secret",
                time: None,
                scope: &[],
                slash: false,
            };
            let headers =
                "host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version";
            let failed = |code: &str| with_json("400 Bad Request", &json!({ "Code": code, "Message": "no" }));
            if !scheme.signed(asked, headers) {
                return failed("SignatureDoesNotMatch");
            }
            assert_eq!((asked.method, header(asked, "x-acs-version")), ("POST", Some("2018-12-01")));
            let query = asked.path.strip_prefix("/?").unwrap();
            let query: std::collections::BTreeMap<&str, String> = query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (name, decoded(value)))
                .collect();
            assert_eq!(
                (query["InstanceId"].as_str(), query["RegionId"].as_str()),
                ("cri-abc", "cn-hangzhou")
            );
            let mut answer = match header(asked, "x-acs-action").unwrap() {
                "GetAuthorizationToken" => {
                    json!({ "TempUsername": "cr_temp_user", "AuthorizationToken": "temporary", "ExpireTime": 4_102_444_800_000_u64 })
                }
                "CreateNamespace" => {
                    assert_eq!(query["DefaultRepoType"], "PRIVATE");
                    if !made.lock().unwrap().insert(query["NamespaceName"].clone()) {
                        return failed("NAMESPACE_ALREADY_EXIST");
                    }
                    json!({})
                }
                "GetRepository" => {
                    assert_eq!(
                        (query["RepoNamespaceName"].as_str(), query["RepoName"].as_str()),
                        ("team", "app")
                    );
                    if held.lock().unwrap().manifests.is_empty() {
                        return failed("REPO_NOT_EXIST");
                    }
                    json!({ "RepoId": "crr-1" })
                }
                "ListRepoTag" => {
                    assert_eq!((query["RepoId"].as_str(), query["PageNo"].as_str()), ("crr-1", "1"));
                    let images: Vec<Value> = listed(held)
                        .into_iter()
                        .map(|(tag, digest)| {
                            let bare = digest.trim_start_matches("sha256:");
                            json!({ "Tag": tag, "Digest": bare, "ImageUpdate": "1769860800000", "Status": "NORMAL" })
                        })
                        .collect();
                    json!({ "Images": images, "PageNo": 1, "PageSize": 100, "TotalCount": "5" })
                }
                other => panic!("{other}"),
            };
            answer["IsSuccess"] = true.into();
            answer["Code"] = "success".into();
            with_json("200 OK", &answer)
        },
    )
}

/// Huawei's registry: the API v2 of Software Repository for Container, with SDK-HMAC-SHA256.
fn huawei() -> (Memory, Arc<Made>) {
    // What `openssl dgst -sha256 -hmac SK` prints of `AK` (see the provider's own test).
    let password = "32d633d480c6d326ddd8f439f4fbfc7c9a4e0fa3fc0565ccd56e027700d41b14";
    registry(basic("cn-north-4@AK", password), "Basic realm=\"huawei\"", |asked, held, made| {
        let date = header(asked, "x-sdk-date")?;
        let scheme = Scheme {
            algorithm: "SDK-HMAC-SHA256",
            prefix: "",
            secret: "SK",
            time: Some(date),
            scope: &[],
            slash: true,
        };
        if !scheme.signed(asked, "host;x-sdk-date") {
            return with_json("401 Unauthorized", &json!({ "errors": [{ "errorCode": "SVCSTG.SWR.401" }] }));
        }
        assert_eq!(header(asked, "content-type"), Some("application/json"));
        let (path, query) = asked.path.split_once('?').unwrap_or((asked.path, ""));
        let parts: Vec<String> =
            path.trim_start_matches("/v2/manage/namespaces").split('/').skip(1).map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match (asked.method, parts.as_slice()) {
            ("GET", [name]) => {
                reply(if made.lock().unwrap().contains(*name) { "200 OK" } else { "404 Not Found" })
            }
            ("POST", []) => {
                let body: Value = serde_json::from_slice(asked.body).unwrap();
                made.lock().unwrap().insert(body["namespace"].as_str().unwrap().into());
                reply("201 Created")
            }
            ("GET", ["team", "repos", "app", "tags"]) => {
                assert_eq!(query, "limit=1000&offset=0");
                let tags: Vec<Value> = listed(held)
                    .into_iter()
                    .map(|(tag, digest)| json!({ "Tag": tag, "digest": digest, "updated": "2026-01-31T12:00:00Z", "size": 9 }))
                    .collect();
                with_json("200 OK", &json!(tags))
            }
            other => panic!("{other:?}"),
        }
    })
}

/// Tencent's registry of the enterprise edition: the API of 2019-09-24, with TC3-HMAC-SHA256. Errors come with status 200.
fn tencent() -> (Memory, Arc<Made>) {
    registry(basic("100001", "temporary"), "Basic realm=\"tencent\"", |asked, held, made| {
        let answer = |response: Value| with_json("200 OK", &json!({ "Response": response }));
        let failed =
            |code: &str| answer(json!({ "Error": { "Code": code, "Message": "no" }, "RequestId": "r" }));
        let time = header(asked, "x-tc-timestamp").unwrap();
        let credential = header(asked, "authorization").unwrap().split_once("Credential=").unwrap().1;
        let date = credential.split('/').nth(1).unwrap();
        let scheme = Scheme {
            algorithm: "TC3-HMAC-SHA256",
            prefix: "TC3",
            secret: "very-secret",
            time: Some(time),
            scope: &[date, "tcr", "tc3_request"],
            slash: false,
        };
        if !scheme.signed(asked, "content-type;host") {
            return failed("AuthFailure.SignatureFailure");
        }
        assert_eq!(
            (asked.method, asked.path, header(asked, "x-tc-version")),
            ("POST", "/", Some("2019-09-24"))
        );
        let body: Value = serde_json::from_slice(asked.body).unwrap();
        let action = header(asked, "x-tc-action").unwrap();
        if action == "DescribeInstances" {
            assert_eq!(body["Filters"][0]["Name"], "RegistryName");
            let name = body["Filters"][0]["Values"][0].as_str().unwrap();
            let domain = header(asked, "host").unwrap();
            let instance = |id: &str, domain: &str| json!({ "RegistryId": id, "RegistryName": name, "RegionName": "ap-shanghai", "PublicDomain": domain });
            let instances = [instance("tcr-other", "other.tencentcloudcr.com"), instance("tcr-1", domain)];
            return answer(json!({ "Registries": instances, "TotalCount": 2 }));
        }
        assert_eq!(
            (body["RegistryId"].as_str(), header(asked, "x-tc-region")),
            (Some("tcr-1"), Some("ap-shanghai"))
        );
        match action {
            "CreateInstanceToken" => answer(
                json!({ "Username": "100001", "Token": "temporary", "ExpTime": 4_102_444_800_000_u64 }),
            ),
            "DescribeNamespaces" => {
                let made = made.lock().unwrap();
                let list: Vec<Value> = made.iter().map(|name| json!({ "Name": name })).collect();
                answer(json!({ "NamespaceList": list, "TotalCount": list.len() }))
            }
            "CreateNamespace" => {
                assert_eq!(body["IsPublic"], false);
                made.lock().unwrap().insert(body["NamespaceName"].as_str().unwrap().into());
                answer(json!({ "RequestId": "r" }))
            }
            "DescribeImages" => {
                assert_eq!(
                    (body["NamespaceName"].as_str(), body["Offset"].as_u64()),
                    (Some("team"), Some(1))
                );
                let images: Vec<Value> = listed(held)
                    .into_iter()
                    .map(|(tag, digest)| json!({ "ImageVersion": tag, "Digest": digest, "Size": 9 }))
                    .collect();
                if images.is_empty() {
                    return failed("ResourceNotFound.TcrResourceNotFound");
                }
                answer(json!({ "ImageInfoList": images, "TotalCount": images.len() }))
            }
            other => panic!("{other}"),
        }
    })
}

/// Volcengine's registry: the API of 2022-05-12, with HMAC-SHA256.
fn volcengine() -> (Memory, Arc<Made>) {
    registry(basic("user", "temporary"), "Basic realm=\"volcengine\"", |asked, held, made| {
        let date = header(asked, "x-date").unwrap();
        let scheme = Scheme {
            algorithm: "HMAC-SHA256",
            prefix: "",
            secret: "very-secret",
            time: Some(date),
            scope: &[&date[..8], "cn-beijing", "cr", "request"],
            slash: false,
        };
        let answer = |result: Value| {
            with_json("200 OK", &json!({ "ResponseMetadata": { "RequestId": "r" }, "Result": result }))
        };
        let failed = |status: &'static str, code: &str| {
            with_json(
                status,
                &json!({ "ResponseMetadata": { "RequestId": "r", "Error": { "Code": code, "Message": "no" } } }),
            )
        };
        if !scheme.signed(asked, "host;x-date") {
            return failed("403 Forbidden", "SignatureDoesNotMatch");
        }
        assert_eq!(asked.method, "POST");
        let action =
            asked.path.strip_prefix("/?Action=").unwrap().strip_suffix("&Version=2022-05-12").unwrap();
        let body: Value = serde_json::from_slice(asked.body).unwrap();
        assert_eq!(body["Registry"], "registry");
        match action {
            "GetAuthorizationToken" => answer(
                json!({ "Username": "user", "Token": "temporary", "ExpireTime": "2100-01-01T00:00:00Z" }),
            ),
            "CreateNamespace" => match made.lock().unwrap().insert(body["Name"].as_str().unwrap().into()) {
                true => answer(json!({})),
                false => failed("409 Conflict", "AlreadyExists.Namespace"),
            },
            "CreateRepository" => {
                assert_eq!(
                    (body["Namespace"].as_str(), body["AccessLevel"].as_str()),
                    (Some("team"), Some("Private"))
                );
                answer(json!({}))
            }
            "ListTags" => {
                let tags: Vec<Value> = listed(held)
                    .into_iter()
                    .map(|(tag, digest)| json!({ "Name": tag, "Digest": digest, "Type": "Image", "PushTime": "2026-01-31T12:00:00Z" }))
                    .collect();
                if tags.is_empty() {
                    return failed("404 Not Found", "NotFound.Repository");
                }
                answer(json!({ "Items": tags, "TotalCount": tags.len(), "PageNumber": 1, "PageSize": 100 }))
            }
            other => panic!("{other}"),
        }
    })
}

#[test]
fn alibabas_registries_are_spoken_to_by_their_api() {
    let provider = |host: &str| {
        format!(
            "{{ provider = \"ali-acr\", registry = \"{host}\", region = \"cn-hangzhou\", endpoint = \"{host}\", instance-id = \"cri-abc\" }}"
        )
    };
    let keys = [("ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAI"), ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "very-secret")];
    exercise("ali-acr", alibaba, provider, &keys);
}

#[test]
fn huaweis_registries_are_spoken_to_by_their_api() {
    let provider = |host: &str| {
        format!(
            "{{ provider = \"huawei-swr\", registry = \"{host}\", project = \"cn-north-4\", endpoint = \"{host}\" }}"
        )
    };
    let asked = exercise(
        "huawei-swr",
        huawei,
        provider,
        &[("HUAWEICLOUD_SDK_AK", "AK"), ("HUAWEICLOUD_SDK_SK", "SK")],
    );
    // The password is computed, so nobody is asked for it.
    assert!(asked.iter().all(|asked| asked.starts_with("GET ")), "{asked:?}");
}

#[test]
fn tencents_registries_are_spoken_to_by_their_api() {
    let provider = |host: &str| {
        format!(
            "{{ provider = \"tencent-tcr\", registry = \"{host}\", endpoint = \"{host}\", instance-id = \"tcr-1\", region = \"ap-shanghai\" }}"
        )
    };
    let keys = [("TENCENTCLOUD_SECRET_ID", "AKID"), ("TENCENTCLOUD_SECRET_KEY", "very-secret")];
    exercise("tencent-tcr", tencent, provider, &keys);
}

#[test]
fn volcengines_registries_are_spoken_to_by_their_api() {
    let provider = |host: &str| {
        format!(
            "{{ provider = \"volcengine-cr\", registry = \"{host}\", endpoint = \"{host}\", instance = \"registry\", region = \"cn-beijing\" }}"
        )
    };
    exercise(
        "volcengine-cr",
        volcengine,
        provider,
        &[("VOLC_ACCESSKEY", "AKLT"), ("VOLC_SECRETKEY", "very-secret")],
    );
}
