//! Kinds of registries: what they list in bulk, what must be made before a push, and how single tags are deleted. The fakes
//! answer as the published descriptions of the services say, and refuse requests that these do not know.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Arc, OnceLock},
};
use support::{
    World,
    harbor::{Harbor, LOGIN, header, tags_of, with_json},
    memory::{Memory, reply},
};

fn sync(world: &World, harbors: &[&Harbor], more: &str, rule: &str) -> support::Ran {
    let auth: String = harbors.iter().map(|harbor| harbor.auth()).collect();
    world.write("dray.toml", &format!("version = 1\n{auth}{more}[[rule]]\n{rule}"));
    let mut command = world.command(&["sync"]);
    support::Ran::of(command.env("HARBOR", LOGIN))
}

/// What was asked beside tokens, and how often.
fn kinds(registry: &Memory, from: usize) -> BTreeMap<&'static str, usize> {
    let mut kinds = BTreeMap::new();
    for asked in registry.asked().into_iter().skip(from) {
        let kind = match asked.split_once(' ').unwrap() {
            (_, path) if path.starts_with("/service/") => continue,
            (_, path) if path.contains("/artifacts?") => "list",
            (_, path) if path.contains("/tags/list") => "tags",
            ("HEAD", path) if path.contains("/projects?") => "project?",
            ("POST", path) if path.ends_with("/projects") => "project!",
            (_, path) if path.contains("/manifests/") => "manifest",
            _ => "other",
        };
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

#[test]
fn harbors_list_in_bulk_and_get_their_projects() {
    let world = World::new();
    let (source, destination) = (Harbor::start(), Harbor::start());
    // More artifacts than one page of the API has.
    for number in 0..120 {
        source.registry.image("team/deep/app", &format!("1.{number}"), format!("layer {number}").as_bytes());
    }
    let both = [&source, &destination];
    let (from, to) = (source.registry.host(), destination.registry.host());
    let rule = format!("from = \"docker://{from}/team/deep/app\"\nto = \"docker://{to}/mirror/deep/app\"\n");
    let first = sync(&world, &both, "", &rule).ok();
    assert!(first.out.contains("120 images copied"), "{}", first.out);
    // The project was made once, though the images were written at the same time.
    let asked = kinds(&destination.registry, 0);
    assert_eq!((asked["project?"], asked["project!"]), (1, 1), "{asked:?}");
    assert!(destination.projects.lock().unwrap().contains("mirror"));
    // From now on two pages of the API at each end answer for 120 tags.
    let before = [&source, &destination].map(|harbor| harbor.registry.asked().len());
    let again = sync(&world, &both, "", &rule).ok();
    assert!(again.out.contains("0 images copied, 120 unchanged"), "{}", again.out);
    // Harbor's API hides tags, so the names are those of the specification's list, which is refused until there is a token.
    assert_eq!(kinds(&source.registry, before[0]), BTreeMap::from([("list", 2), ("tags", 2)]));
    assert_eq!(kinds(&destination.registry, before[1]), BTreeMap::from([("list", 2)]));
    // What moved is seen in the list, and asked for itself before it is written over.
    source.registry.image("team/deep/app", "1.7", b"another layer");
    let before = destination.registry.asked().len();
    let moved = sync(&world, &both, "", &rule).ok();
    assert!(moved.out.contains("1 image copied, 119 unchanged"), "{}", moved.out);
    let heads = destination.registry.asked().into_iter().skip(before);
    let heads: BTreeSet<String> =
        heads.filter(|asked| asked.starts_with("HEAD") && asked.contains("/manifests/1.")).collect();
    assert_eq!(heads, BTreeSet::from(["HEAD /v2/mirror/deep/app/manifests/1.7".to_owned()]));
}

#[test]
fn a_kind_can_be_said_and_a_refused_api_costs_no_image() {
    let world = World::new();
    let (source, destination) = (Harbor::start(), Harbor::start());
    source.registry.image("team/app", "1", b"one");
    source.registry.image("team/app", "2", b"two");
    destination.projects.lock().unwrap().insert("team".into());
    let (from, to) = (source.registry.host(), destination.registry.host());
    let rule = format!("from = \"docker://{from}/team/app\"\nto = \"docker://{to}/team/app\"\n");
    // With a kind, the first list is one of the API already; `none` asks for none.
    let kind = |kind: &str| format!("kind = \"{kind}\"\n");
    let said = format!("{}{}", source.auth(), kind("harbor"));
    world.write(
        "dray.toml",
        &format!("version = 1\n{said}{}{}[[rule]]\n{rule}", destination.auth(), kind("none")),
    );
    let ran = support::Ran::of(world.command(&["sync"]).env("HARBOR", LOGIN)).ok();
    assert!(ran.out.contains("2 images copied"), "{}", ran.out);
    assert_eq!(kinds(&source.registry, 0).get("list"), Some(&1));
    let asked = kinds(&destination.registry, 0);
    assert!(!asked.contains_key("list") && !asked.contains_key("project?"), "{asked:?}");
    // A kind that does not exist is an error that names those that do.
    world.write("dray.toml", &format!("version = 1\n{}{}[[rule]]\n{rule}", source.auth(), kind("habor")));
    let wrong = support::Ran::of(world.command(&["sync"]).env("HARBOR", LOGIN));
    assert!(wrong.code != 0 && wrong.err.contains("harbor"), "{}", wrong.err);
    // An API that refuses this user costs nothing but the requests.
    let closed =
        Memory::odd(|asked, _| asked.path.starts_with("/api/").then(|| reply("403 Forbidden")).flatten());
    closed.image("team/app", "1", b"one");
    let auth = format!("[registry.\"{}\"]\nkind = \"harbor\"\n", closed.host());
    let rule = format!("from = \"docker://{}/team/app\"\nto = \"oci:out\"\n", closed.host());
    world.write("dray.toml", &format!("version = 1\n{auth}[[rule]]\n{rule}"));
    assert!(world.dray(&["sync"]).ok().out.contains("1 image copied"));
}

#[test]
fn harbor_loses_one_tag_and_keeps_its_siblings() {
    let world = World::new();
    let harbor = Harbor::start();
    harbor.projects.lock().unwrap().insert("team".into());
    for tag in ["1", "latest"] {
        harbor.registry.image("team/app", tag, b"same");
    }
    let host = harbor.registry.host();
    let login = json!({ "auths": { host: { "auth": STANDARD.encode(LOGIN) } } });
    world.write("auth.json", &login.to_string());
    let mut delete = world.command(&["delete", &format!("docker://{host}/team/app:1")]);
    let ran = support::Ran::of(delete.env("REGISTRY_AUTH_FILE", world.path("auth.json"))).ok();
    assert!(ran.out.contains("deleted the tag 1"), "{}", ran.out);
    assert!(!harbor.registry.has("team/app", "1") && harbor.registry.has("team/app", "latest"));
    let deleted: Vec<_> =
        harbor.registry.asked().into_iter().filter(|asked| asked.starts_with("DELETE")).collect();
    assert_eq!(deleted, ["DELETE /api/v2.0/projects/team/repositories/app/artifacts/1/tags/1"]);
}

#[test]
fn what_an_api_hides_is_asked_for_before_it_is_written_over() {
    let world = World::new();
    let (source, destination) = (Memory::start(), Harbor::start());
    destination.projects.lock().unwrap().insert("team".into());
    let hidden = "sha256-0000000000000000000000000000000000000000000000000000000000000000.sig";
    for tag in ["1", "2", "3", "4"] {
        source.image("team/app", tag, tag.as_bytes());
        destination.registry.image("team/app", tag, tag.as_bytes());
    }
    source.image("team/app", hidden, b"of the source");
    let theirs = destination.registry.image("team/app", hidden, b"of the destination");
    let (from, to) = (source.host(), destination.registry.host());
    let rule = format!(
        "from = \"docker://{from}/team/app\"\nto = \"docker://{to}/team/app\"\non-change = \"refuse\"\n"
    );
    for _ in 0..2 {
        let refused = sync(&world, &[&destination], "", &rule);
        assert!(refused.code == 1 && refused.err.contains("does not let tags change"), "{}", refused.err);
    }
    let held = destination.registry.held.lock().unwrap();
    let (_, body) = &held.manifests[&("team/app".to_owned(), hidden.to_owned())];
    assert_eq!(dray_core::Digest::of(body).to_string(), theirs);
}

#[test]
fn a_registry_is_told_by_one_request() {
    let world = World::new();
    let harbor = Harbor::start();
    let host = harbor.registry.host();
    let login = json!({ "auths": { host: { "auth": STANDARD.encode(LOGIN) } } });
    world.write("auth.json", &login.to_string());
    let told = |more: &[&str]| {
        let mut command = world.command(&[&["registry", "info", host], more].concat());
        support::Ran::of(command.env("REGISTRY_AUTH_FILE", world.path("auth.json"))).ok()
    };
    let text = told(&[]).out;
    assert!(text.contains("kind           harbor") && text.contains("login          taken"), "{text}");
    assert!(
        harbor
            .registry
            .asked()
            .iter()
            .all(|asked| asked.starts_with("GET /v2/") || asked.contains("/service/"))
    );
    let json = told(&["--output", "json"]).json();
    assert_eq!(
        (&json["kind"], &json["lists_digests"], &json["service"]),
        (&json!("harbor"), &json!(true), &json!("harbor-registry"))
    );
    let plain = Memory::start();
    let other = world.dray(&["registry", "info", plain.host()]).ok().out;
    assert!(other.contains("none that dray knows") && other.contains("not asked for"), "{other}");
    assert_eq!(world.dray(&["registry", "info", "localhost:1"]).code, 1);
}

#[test]
fn lists_with_digests_spare_the_questions() {
    let world = World::new();
    // As Google's registries answer (go-containerregistry, pkg/v1/google/list.go), and the one of dray.
    let google = || {
        Memory::odd(|asked, held| {
            let path = asked.path.split('?').next()?;
            let repository = path.strip_prefix("/v2/")?.strip_suffix("/tags/list")?;
            let tags = tags_of(&held.lock().unwrap(), repository);
            let names: Vec<&String> = tags.values().flat_map(|(_, tags)| tags).collect();
            let manifest: serde_json::Map<_, _> = tags
                .iter()
                .map(|(digest, (media_type, tags))| {
                    (
                        digest.clone(),
                        json!({ "mediaType": media_type, "tag": tags, "timeUploadedMs": "1769860800500" }),
                    )
                })
                .collect();
            with_json(
                "200 OK",
                &json!({ "name": repository, "child": [], "tags": names, "manifest": manifest }),
            )
        })
    };
    let (source, destination) = (google(), google());
    for number in 0..30 {
        source.image("p/app", &format!("v{number}"), format!("{number}").as_bytes());
    }
    let (from, to) = (source.host(), destination.host());
    world.write(
        "dray.toml",
        &format!("version = 1\n[[rule]]\nfrom = \"docker://{from}/p/app\"\nto = \"docker://{to}/p/app\"\n"),
    );
    assert!(world.dray(&["sync"]).ok().out.contains("30 images copied"));
    let before = [&source, &destination].map(|registry| registry.asked().len());
    assert!(world.dray(&["sync"]).ok().out.contains("0 images copied, 30 unchanged"));
    for (registry, before) in [&source, &destination].into_iter().zip(before) {
        assert_eq!(kinds(registry, before), BTreeMap::from([("tags", 1)]));
    }
    // Lists say no size of a manifest. Indexes of which a part is wanted are looked into all the same, every time.
    let images = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/../../examples/images");
    for tag in ["1.2.0", "1.1.0", "1.0.0", "2.0.0"] {
        world
            .dray(&["copy", "--all", &format!("{images}:{tag}"), &format!("docker://{from}/multi:{tag}")])
            .ok();
    }
    let multi = format!(
        "version = 1\n[[rule]]\nfrom = \"docker://{from}/multi\"\nto = \"docker://{to}/multi\"\nplatforms = [\"amd64\"]\nindex = \"keep\"\n"
    );
    world.write("multi.toml", &multi);
    for expected in ["4 images copied", "4 unchanged", "4 unchanged"] {
        let ran = world.dray(&["sync", "multi.toml"]).ok();
        assert!(ran.out.contains(expected), "{expected}: {}", ran.out);
    }
    fs::remove_dir_all(world.path("home/.local/state/dray")).unwrap();
    assert!(world.dray(&["sync", "multi.toml"]).ok().out.contains("4 unchanged"));
    // A tag that was deleted at the destination, and one that somebody moved there, are seen.
    destination.held.lock().unwrap().manifests.remove(&("p/app".into(), "v3".into()));
    destination.image("p/app", "v4", b"another");
    assert!(world.dray(&["sync"]).ok().out.contains("2 images copied, 28 unchanged"));
}

/// Syncs ten tags of a registry to a layout twice, and once more after one of them moved. Returns what was asked the second
/// time.
fn lists_of(world: &World, registry: &Memory, kind: &str) -> Vec<String> {
    for number in 0..10 {
        registry.image("team/app", &format!("v{number}"), format!("{number}").as_bytes());
    }
    let host = registry.host();
    let to = Memory::start();
    let policy = format!(
        "version = 1\n[registry.\"{host}\"]\nkind = \"{kind}\"\n[[rule]]\nfrom = \"docker://{host}/team/app\"\nto = \"docker://{}/app\"\n",
        to.host()
    );
    world.write("dray.toml", &policy);
    assert!(world.dray(&["sync"]).ok().out.contains("10 images copied"), "{kind}");
    let before = registry.asked().len();
    assert!(world.dray(&["sync"]).ok().out.contains("10 unchanged"), "{kind}");
    let asked = registry.asked().into_iter().skip(before).collect();
    registry.image("team/app", "v3", b"another");
    assert!(world.dray(&["sync"]).ok().out.contains("1 image copied, 9 unchanged"), "{kind}");
    asked
}

#[test]
fn azure_gitlab_zot_and_quay_list_as_their_descriptions_say() {
    // Azure: pages by `last`, with a relative link; lists want the scope `metadata_read`.
    let azure = Memory::odd(|asked, held| {
        let rest = asked.path.strip_prefix("/acr/v1/team/app/_tags?")?;
        let after = rest.split('&').find_map(|pair| pair.strip_prefix("last="));
        let tags = tags_of(&held.lock().unwrap(), "team/app");
        let mut tags: Vec<_> = tags
            .into_iter()
            .flat_map(|(digest, (_, tags))| tags.into_iter().map(move |tag| (tag, digest.clone())))
            .collect();
        tags.sort();
        let page: Vec<_> =
            tags.iter().filter(|(tag, _)| after.is_none_or(|after| tag.as_str() > after)).take(6).collect();
        let list: Vec<_> = page
            .iter()
            .map(|(tag, digest)| json!({ "name": tag, "digest": digest, "lastUpdateTime": "2026-01-31T12:00:00.1234567Z" }))
            .collect();
        let (status, mut headers, body) =
            with_json("200 OK", &json!({ "registry": "r", "imageName": "team/app", "tags": list }))?;
        if page.len() == 6 {
            headers += &format!("Link: </acr/v1/team/app/_tags?last={}&n=100>; rel=\"next\"\r\n", page[5].0);
        }
        Some((status, headers, body))
    });
    let asked = lists_of(&World::new(), &azure, "acr");
    assert_eq!(asked, ["GET /acr/v1/team/app/_tags?n=100", "GET /acr/v1/team/app/_tags?last=v5&n=100"]);

    let gitlab = Memory::odd(|asked, held| {
        let rest = asked.path.strip_prefix("/gitlab/v1/repositories/team/app/tags/list/")?;
        assert_eq!(rest, "?n=1000");
        let tags = tags_of(&held.lock().unwrap(), "team/app");
        let list: Vec<_> = tags
            .iter()
            .flat_map(|(digest, (media_type, tags))| {
                tags.iter().map(move |tag| {
                    json!({ "name": tag, "digest": digest, "media_type": media_type, "size_bytes": 9,
                        "created_at": "2026-01-31T12:00:00.123Z", "updated_at": null })
                })
            })
            .collect();
        with_json("200 OK", &json!(list))
    });
    let asked = lists_of(&World::new(), &gitlab, "gitlab");
    assert_eq!(asked, ["GET /gitlab/v1/repositories/team/app/tags/list/?n=1000"]);

    let hub = Memory::odd(|asked, held| {
        let query =
            asked.path.strip_prefix("/v2/namespaces/team/repositories/app/tags?page_size=100&page=")?;
        assert!(header(asked, "authorization").is_none());
        let page: usize = query.parse().unwrap();
        let tags = tags_of(&held.lock().unwrap(), "team/app");
        let list: Vec<_> = tags
            .into_iter()
            .flat_map(|(digest, (media_type, tags))| {
                tags.into_iter().map(move |tag| {
                    json!({ "name": tag, "digest": digest, "media_type": media_type, "full_size": 9,
                        "tag_last_pushed": "2026-01-31T12:00:00.123456Z", "images": [] })
                })
            })
            .skip((page - 1) * 6)
            .take(6)
            .collect();
        let next = (list.len() == 6).then(|| format!("https://hub.docker.com/x?page={}", page + 1));
        with_json("200 OK", &json!({ "count": 9, "next": next, "previous": null, "results": list }))
    });
    let asked = lists_of(&World::new(), &hub, "docker-hub");
    let path = "GET /v2/namespaces/team/repositories/app/tags?page_size=100&page=";
    assert_eq!(asked, [format!("{path}1"), format!("{path}2")]);

    let zot = Memory::odd(|asked, held| {
        let query = asked.path.strip_prefix("/v2/_zot/ext/search?query=")?;
        assert!(query.starts_with(
            "%7BImageList%28repo%3A%22team%2Fapp%22%2CrequestedPage%3A%7Blimit%3A1000%2Coffset%3A0"
        ));
        let tags = tags_of(&held.lock().unwrap(), "team/app");
        let results: Vec<_> = tags
            .iter()
            .flat_map(|(digest, (media_type, tags))| {
                tags.iter().map(move |tag| json!({ "Tag": tag, "Digest": digest, "MediaType": media_type }))
            })
            .collect();
        with_json("200 OK", &json!({ "data": { "ImageList": { "Results": results } } }))
    });
    // zot hides signatures, so the names are those of the specification's list.
    assert_eq!(lists_of(&World::new(), &zot, "zot").len(), 2);

    let quay = Memory::odd(|asked, held| {
        let rest = asked.path.strip_prefix("/api/v1/repository/team/app/tag/?")?;
        assert!(rest.starts_with("onlyActiveTags=true&limit=100&page="), "{rest}");
        let tags = tags_of(&held.lock().unwrap(), "team/app");
        let list: Vec<_> = tags
            .iter()
            .flat_map(|(digest, (_, tags))| {
                tags.iter().map(move |tag| {
                    json!({ "name": tag, "reversion": false, "start_ts": 1_769_860_800, "manifest_digest": digest,
                        "is_manifest_list": false, "size": 9, "last_modified": "Sat, 31 Jan 2026 12:00:00 -0000" })
                })
            })
            .collect();
        with_json("200 OK", &json!({ "tags": list, "page": 1, "has_additional": false }))
    });
    let world = World::new();
    assert_eq!(lists_of(&world, &quay, "quay").len(), 1);
    // A list that says when a tag was pushed tells how old its image is, whatever the image says of itself.
    let text = fs::read_to_string(world.path("dray.toml")).unwrap();
    let (head, _) = text.rsplit_once("/app\"").unwrap();
    world.write("young.toml", &format!("{head}/young\"\nrequire = [{{ age = \"90000d\" }}]\n"));
    let young = world.dray(&["plan", "young.toml", "--explain"]);
    assert!(young.out.contains("it was pushed "), "{}", young.out);

    // A replica that is behind takes nothing back that was copied from the registry itself.
    let (old, stale) = (Memory::start().image("team/app", "v1", b"old"), Arc::new(OnceLock::<String>::new()));
    let lagging = {
        let stale = stale.clone();
        Memory::odd(move |asked, _| {
            asked.path.strip_prefix("/gitlab/v1/")?;
            let listed: Vec<_> = stale
                .get()
                .map(|digest| json!({ "name": "v1", "digest": digest, "media_type": support::memory::MANIFEST }))
                .into_iter()
                .chain([json!({ "name": "v2", "digest": null })])
                .collect();
            with_json("200 OK", &json!(listed))
        })
    };
    lagging.image("team/app", "v1", b"new");
    lagging.image("team/app", "v2", b"two");
    let (world, to) = (World::new(), Memory::start());
    let rule =
        format!("from = \"docker://{}/team/app\"\nto = \"docker://{}/app\"\n", lagging.host(), to.host());
    let policy =
        format!("version = 1\n[registry.\"{}\"]\nkind = \"gitlab\"\n[[rule]]\n{rule}", lagging.host());
    world.write("dray.toml", &policy);
    world
        .dray(&[
            "copy",
            &format!("docker://{}/team/app:v1", lagging.host()),
            &format!("docker://{}/app:v1", to.host()),
        ])
        .ok();
    stale.set(old).unwrap();
    let again = world.dray(&["sync"]).ok();
    assert!(again.out.contains("1 image copied, 1 unchanged"), "{}", again.out);
    // What is no answer of the kind is no list, and every tag is asked for.
    let odd = Memory::odd(|asked, _| {
        asked.path.starts_with("/api/v1/").then(|| with_json("200 OK", &json!({ "error": "no" }))).flatten()
    });
    assert!(
        lists_of(&World::new(), &odd, "quay").iter().any(|asked| asked.contains("/v2/team/app/manifests/"))
    );
}

#[test]
fn github_artifactory_and_nexus_list_as_their_descriptions_say() {
    // GitHub: a package of an organization, or else of a user (REST API, "Packages").
    let github = Memory::odd(|asked, held| {
        if asked.path.starts_with("/orgs/") {
            return with_json("404 Not Found", &json!({ "message": "Package not found." }));
        }
        let rest = asked.path.strip_prefix("/users/team/packages/container/app/versions?")?;
        assert_eq!(rest, "per_page=100&page=1&state=active");
        let versions: Vec<_> = tags_of(&held.lock().unwrap(), "team/app")
            .into_iter()
            .map(|(digest, (_, tags))| {
                json!({ "id": 1, "name": digest, "updated_at": "2026-01-31T12:00:00Z",
                    "metadata": { "package_type": "container", "container": { "tags": tags } } })
            })
            .chain([
                json!({ "id": 2, "name": "sha256:untagged", "metadata": { "package_type": "container" } }),
            ])
            .collect();
        with_json("200 OK", &json!(versions))
    });
    let asked = lists_of(&World::new(), &github, "ghcr");
    let path = "/team/packages/container/app/versions?per_page=100&page=1&state=active";
    assert_eq!(asked, [format!("GET /orgs{path}"), format!("GET /users{path}")]);

    // Artifactory: items of its query language. An index has a file of its own beside that of an image.
    let artifactory = Memory::odd(|asked, held| {
        asked.path.strip_prefix("/artifactory/api/search/aql")?;
        assert_eq!((asked.method, header(asked, "content-type")), ("POST", Some("text/plain")));
        let query = String::from_utf8_lossy(asked.body);
        let (find, rest) = query.strip_prefix("items.find(").unwrap().split_once(").include(").unwrap();
        // Without these three, only an administrator gets an answer.
        for field in ["repo", "path", "name"] {
            assert!(rest.split_once(')').unwrap().0.contains(&format!("\"{field}\"")), "{rest}");
        }
        let find: serde_json::Value = serde_json::from_str(find).unwrap();
        assert_eq!((find["repo"].as_str(), find["path"]["$match"].as_str()), (Some("team"), Some("app/*")));
        let item = |tag: &String, name: &str, hash: &str| json!({ "path": format!("app/{tag}"), "name": name, "sha256": hash, "modified": "2026-01-31T12:00:00.000Z" });
        let tags = tags_of(&held.lock().unwrap(), "team/app");
        let mut items = Vec::new();
        for (digest, (_, tags)) in &tags {
            for tag in tags {
                items.push(item(tag, "manifest.json", "00"));
                items.push(item(tag, "list.manifest.json", digest.trim_start_matches("sha256:")));
            }
        }
        with_json("200 OK", &json!({ "results": items, "range": { "total": items.len() } }))
    });
    let asked = lists_of(&World::new(), &artifactory, "artifactory");
    assert_eq!(asked, ["GET /v2/team/app/tags/list?n=1000", "POST /artifactory/api/search/aql"]);

    // Nexus: components of its search, page by page.
    let nexus = Memory::odd(|asked, held| {
        let rest =
            asked.path.strip_prefix("/service/rest/v1/search?repository=team&format=docker&name=app")?;
        let start: usize = rest.strip_prefix("&continuationToken=").map_or(0, |token| token.parse().unwrap());
        let tags = tags_of(&held.lock().unwrap(), "team/app");
        let all: Vec<_> = tags
            .iter()
            .flat_map(|(digest, (_, tags))| {
                tags.iter().map(move |tag| (tag, digest.trim_start_matches("sha256:")))
            })
            .collect();
        let items: Vec<_> = all
            .iter()
            .skip(start)
            .take(6)
            .map(|(tag, hash)| {
                json!({ "name": "app", "version": tag, "format": "docker", "assets": [{ "checksum": { "sha256": hash } }] })
            })
            .collect();
        let next = (start + 6 < all.len()).then(|| (start + 6).to_string());
        with_json("200 OK", &json!({ "items": items, "continuationToken": next }))
    });
    let asked = lists_of(&World::new(), &nexus, "nexus");
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(!asked.iter().any(|asked| asked.contains("/manifests/")), "{asked:?}");
}

#[test]
fn a_plugin_of_another_kind_does_not_stand_in_the_way_of_a_built_in_one() {
    let world = World::new();
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/prebuilt/dialect-harbor.wasm");
    let text = format!(
        "version = 1\n[plugin.gitlab]\nsource = \"{own}\"\n[registry.\"r.example\"]\nkind = \"gitlab\"\n\
         auth = {{ provider = \"gitlab\", username = \"me\", password = \"env:HOME\" }}\n\
         [[rule]]\nfrom = \"docker://r.example/a\"\nto = \"oci:a\"\n"
    );
    world.write("dray.toml", &text);
    // The operator's dialect stands for the kind of its name, and the provider is the one that is built in.
    world.dray(&["check"]).ok();
    let listed = world.dray(&["plugin", "list", "--policy", "dray.toml", "--output", "json"]).ok().json();
    let of = |kind: &str| {
        let named = |plugin: &&serde_json::Value| plugin["name"] == "gitlab" && plugin["kind"] == kind;
        let all = listed.as_array().unwrap().iter().filter(named);
        all.map(|plugin| plugin["origin"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of("auth"), ["built in"]);
    assert_eq!(of("dialect"), ["built in".to_owned(), own.to_owned()]);
}

#[test]
fn a_kind_that_does_not_exist_is_found_by_a_check() {
    let world = World::new();
    let policy = |kind: &str| {
        let text = format!(
            "version = 1\n[registry.\"r.example\"]\nkind = \"{kind}\"\n[[rule]]\nfrom = \"docker://r.example/a\"\nto = \"oci:a\"\n"
        );
        world.write("dray.toml", &text);
        world.dray(&["check"])
    };
    policy("none").ok();
    policy("harbor").ok();
    let wrong = policy("harbour");
    assert!(wrong.code != 0 && wrong.err.contains("did you mean `harbor`"), "{}", wrong.err);
}
