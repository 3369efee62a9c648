//! Syncs between registries of each kind: Harbor, Amazon's, Google's, Docker Hub, and distribution.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use support::{
    IMAGES, Ran, Registry, World,
    clouds::{Cloud, ENVIRONMENT},
    harbor::{Harbor, Known, LOGIN},
    has,
    memory::{INDEX, MANIFEST, Memory},
};

/// One end of a sync.
enum End {
    Harbor(Harbor),
    Amazon(Cloud),
    Google(Cloud),
    Hub(Cloud),
    Distribution(Box<Registry>),
}

const KINDS: [&str; 5] = ["harbor", "ecr", "gar", "hub", "distribution"];

impl End {
    fn start(world: &World, kind: &str, name: &str) -> Self {
        match kind {
            "harbor" => End::Harbor(Harbor::start()),
            "ecr" => End::Amazon(Cloud::amazon()),
            "gar" => End::Google(Cloud::google()),
            "hub" => End::Hub(Cloud::hub()),
            _ => End::Distribution(Box::new(Registry::start(world, name, ""))),
        }
    }

    fn host(&self) -> &str {
        match self {
            End::Harbor(harbor) => harbor.registry.host(),
            End::Amazon(cloud) | End::Google(cloud) | End::Hub(cloud) => cloud.host(),
            End::Distribution(registry) => &registry.host,
        }
    }

    /// The table of the policy.
    fn table(&self) -> String {
        let host = self.host();
        let told = match self {
            End::Harbor(harbor) => return harbor.auth(),
            End::Amazon(_) => format!(
                "kind = \"ecr\"\nauth = {{ provider = \"ecr\", registry = \"{host}\", region = \"eu-west-1\", endpoint = \"{host}\" }}"
            ),
            End::Google(_) => {
                format!("kind = \"gar\"\nauth = {{ provider = \"gar\", registry = \"{host}\" }}")
            }
            End::Hub(_) => format!(
                "kind = \"docker-hub\"\nauth = {{ provider = \"docker-hub\", registry = \"{host}\", endpoint = \"{host}\" }}"
            ),
            End::Distribution(_) => String::new(),
        };
        format!("[registry.\"{host}\"]\n{told}\n")
    }

    /// Each cloud wants names of another form.
    fn repository(&self) -> &'static str {
        match self {
            End::Google(_) => "project/images/app",
            _ => "team/app",
        }
    }

    fn memory(&self) -> Option<&Memory> {
        match self {
            End::Harbor(harbor) => Some(&harbor.registry),
            End::Amazon(cloud) | End::Google(cloud) | End::Hub(cloud) => Some(&cloud.registry),
            End::Distribution(_) => None,
        }
    }

    fn fill(&self, world: &World, tags: usize) {
        match self {
            End::Harbor(harbor) => _ = harbor.projects.lock().unwrap().insert("team".into()),
            End::Amazon(cloud) => _ = cloud.inside.made.lock().unwrap().insert(self.repository().into()),
            End::Google(cloud) => _ = cloud.inside.made.lock().unwrap().insert("project/images".into()),
            End::Hub(_) | End::Distribution(_) => {}
        }
        for number in 0..tags {
            let (tag, layer) = (format!("v{number}"), format!("layer {number}"));
            match self.memory() {
                Some(memory) => _ = memory.image(self.repository(), &tag, layer.as_bytes()),
                None => {
                    let to = format!("docker://{}/{}:{tag}", self.host(), self.repository());
                    world.dray(&["copy", &format!("{IMAGES}:1.0.0"), &to]).ok();
                }
            }
        }
    }

    /// What was asked of it so far, by kind, since a number of requests.
    fn asked(&self, since: usize) -> BTreeMap<&'static str, usize> {
        let all = match self.memory() {
            Some(memory) => memory.asked(),
            None => self.lines(),
        };
        // Requests that go out before the registry has asked for a token are sent again.
        let (mut kinds, mut manifests) = (BTreeMap::new(), BTreeSet::new());
        for asked in all.into_iter().skip(since) {
            let path = asked.split(' ').nth(1).unwrap_or_default();
            let kind = match path {
                path if path.contains("/manifests/") && manifests.insert(path.to_owned()) => "manifest",
                path if path.contains("/tags/list") => "tags",
                path if path.contains("/artifacts?")
                    || path.starts_with("/v2/namespaces/")
                    || path == "/" =>
                {
                    "list"
                }
                _ => continue,
            };
            *kinds.entry(kind).or_default() += 1;
        }
        kinds
    }

    /// What the real registry logged since the last call.
    fn lines(&self) -> Vec<String> {
        match self {
            End::Distribution(registry) => registry.requests(),
            _ => Vec::new(),
        }
    }

    /// How many requests are to be passed over when the next ones are counted.
    fn count(&self) -> usize {
        match self.memory() {
            Some(memory) => memory.asked().len(),
            None => {
                self.lines();
                0
            }
        }
    }
}

fn run(world: &World, arguments: &[&str]) -> Ran {
    let mut command = world.command(arguments);
    command.env("HARBOR", LOGIN).envs(ENVIRONMENT);
    Ran::of(&mut command)
}

/// What one end is asked when nothing is new, for twelve tags.
fn usual(kind: &str, is_source: bool) -> BTreeMap<&'static str, usize> {
    match (kind, is_source) {
        // The names are those of the specification's list, which is refused until there is a token; what they name is Harbor's.
        ("harbor", true) => BTreeMap::from([("list", 1), ("tags", 2)]),
        ("harbor", false) => BTreeMap::from([("list", 1)]),
        ("ecr", true) => BTreeMap::from([("list", 1)]),
        ("ecr", false) => BTreeMap::from([("list", 1)]),
        ("gar", _) => BTreeMap::from([("tags", 2)]),
        ("hub", true) => BTreeMap::from([("list", 1)]),
        // What may be behind is asked for itself where it is written to.
        ("hub", false) => BTreeMap::from([("list", 1), ("manifest", 12)]),
        _ => BTreeMap::from([("tags", 1), ("manifest", 12)]),
    }
}

#[test]
fn each_kind_is_synced_to_each() {
    if !has("docker-registry") {
        return;
    }
    for source in KINDS {
        for destination in KINDS {
            let world = World::new();
            let (from, to) =
                (End::start(&world, source, "source"), End::start(&world, destination, "destination"));
            from.fill(&world, 12);
            let rule = format!(
                "[[rule]]\nfrom = \"docker://{}/{}\"\nto = \"docker://{}/{}\"\n",
                from.host(),
                from.repository(),
                to.host(),
                to.repository()
            );
            world.write("dray.toml", &format!("version = 1\n{}{}{rule}", from.table(), to.table()));
            let what = format!("{source} to {destination}");
            let first = run(&world, &["sync"]);
            assert!(
                first.code == 0 && first.out.contains("12 images copied"),
                "{what}: {}{}",
                first.out,
                first.err
            );
            let before = (from.count(), to.count());
            let again = run(&world, &["sync"]);
            assert!(
                again.out.contains("0 images copied, 12 unchanged"),
                "{what}: {}{}",
                again.out,
                again.err
            );
            assert_eq!(from.asked(before.0), usual(source, true), "{what}, at the source");
            assert_eq!(to.asked(before.1), usual(destination, false), "{what}, at the destination");
        }
    }
}

#[test]
fn what_a_cloud_has_scanned_is_a_gate() {
    for (kind, severities) in [("ecr", ["HIGH", "INFORMATIONAL"]), ("gar", ["CRITICAL", "MINIMAL"])] {
        let world = World::new();
        let from = End::start(&world, kind, "source");
        from.fill(&world, 0);
        let (End::Amazon(cloud) | End::Google(cloud)) = &from else { panic!() };
        for (tag, found) in [
            ("bad", Some(vec![("CVE-2026-1", severities[0])])),
            ("good", Some(vec![("CVE-2026-2", severities[1])])),
            ("clean", Some(Vec::new())),
            ("unscanned", None),
        ] {
            let digest = cloud.registry.image(from.repository(), tag, tag.as_bytes());
            if let Some(found) = found {
                cloud.inside.found.lock().unwrap().insert(digest, found);
            }
        }
        let rule = format!(
            "[[rule]]\nfrom = \"docker://{}/{}\"\nto = \"oci:copy\"\nrequire = [{{ scan = {{ severity = \"high\" }} }}]\n\
             on-refusal = \"skip\"\n",
            from.host(),
            from.repository()
        );
        world.write("dray.toml", &format!("version = 1\n{}{rule}", from.table()));
        let ran = run(&world, &["sync"]);
        assert!(ran.out.contains("2 images copied"), "{kind}: {}{}", ran.out, ran.err);
        assert!(ran.out.contains("2 refused"), "{kind}: {}{}", ran.out, ran.err);
        let said = format!("{}{}", ran.out, ran.err);
        for part in ["CVE-2026-1", "there is no report of a scanner"] {
            assert!(said.contains(part), "{kind}: {part}: {said}");
        }
    }
}

#[test]
fn what_has_no_tag_goes_and_parts_of_others_stay() {
    for kind in ["harbor", "ecr", "gar"] {
        let world = World::new();
        let end = End::start(&world, kind, "registry");
        end.fill(&world, 3);
        let (memory, repository) = (end.memory().unwrap(), end.repository());
        // An index with a tag and what it contains, a signature of an image with a tag, and three that nothing needs: an
        // index with its image, and an image alone.
        let bare = |name: &str, layer: &str, more: &str| {
            let digest = memory.image_with(repository, name, layer.as_bytes(), more);
            memory.held.lock().unwrap().manifests.remove(&(repository.to_owned(), name.to_owned()));
            digest
        };
        let index = |tag: Option<&str>, child: &str| {
            let size =
                memory.held.lock().unwrap().manifests[&(repository.to_owned(), child.to_owned())].1.len();
            let body = format!(
                r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{MANIFEST}","digest":"{child}","size":{size}}}]}}"#
            );
            let digest = memory.put(repository, tag.unwrap_or("x"), INDEX, body.as_bytes());
            if tag.is_none() {
                memory.held.lock().unwrap().manifests.remove(&(repository.to_owned(), "x".to_owned()));
            }
            digest
        };
        let part = bare("x", "part of an index with a tag", "");
        index(Some("multi"), &part);
        let old_part = bare("x", "part of an old index", "");
        let old = index(None, &old_part);
        let alone = bare("x", "alone", "");
        let subject = format!(r#""subject":{{"mediaType":"{MANIFEST}","digest":"{part}","size":1}},"#);
        let attached = bare("x", "signature", &subject);
        let policy = |time: &str, more: &str| {
            let table = format!(
                "[[retain]]\nat = \"docker://{}/{repository}\"\nuntagged = \"{time}\"\n{more}",
                end.host()
            );
            world.write("dray.toml", &format!("version = 1\n{}{table}", end.table()));
        };
        policy("20000d", "limit = \"all\"\n");
        let young = run(&world, &["retain", "--apply"]).ok();
        assert!(!young.out.contains("deleted docker"), "{kind}: {}", young.out);
        policy("1h", "limit = 1\n");
        let many = run(&world, &["retain", "--apply"]);
        assert!(many.code == 1 && many.err.contains("more than may go at once"), "{kind}: {}", many.err);
        policy("1h", "limit = \"all\"\n");
        let plan = run(&world, &["retain"]).ok();
        assert!(plan.out.contains(&alone) && plan.out.contains("no tag names it"), "{kind}: {}", plan.out);
        run(&world, &["retain", "--apply"]).ok();
        // Harbor lists no part of an index, so the part of the old one is seen when that is gone.
        assert_eq!(memory.has(repository, &old_part), kind == "harbor", "{kind}");
        run(&world, &["retain", "--apply"]).ok();
        assert!(!memory.has(repository, &old_part), "{kind}");
        for gone in [&old, &alone] {
            assert!(!memory.has(repository, gone), "{kind}: {gone}");
        }
        for stays in [part.as_str(), &attached, "multi", "v0", "v1", "v2"] {
            assert!(memory.has(repository, stays), "{kind}: {stays}");
        }
    }
    // Where nobody lists what has no tag, that is said.
    let (world, plain) = (World::new(), Memory::start());
    plain.image("app", "1", b"one");
    let table = format!("[[retain]]\nat = \"docker://{}/app\"\nuntagged = \"1h\"\n", plain.host());
    world.write("dray.toml", &format!("version = 1\n{table}"));
    let ran = world.dray(&["retain"]);
    assert!(ran.code == 1 && ran.out.contains("lists only tags"), "{}{}", ran.out, ran.err);
    world.write("dray.toml", &format!("version = 1\n{}", table.replace("1h", "5m")));
    let ran = world.dray(&["check"]);
    assert!(ran.code != 0 && ran.err.contains("at least 1h"), "{}", ran.err);
}

#[test]
fn one_harbor_is_replicated_to_another() {
    let world = World::new();
    let (from, to) = (Harbor::start(), Harbor::start());
    let known = |labels: &[&'static str], found: &[(&'static str, &'static str)]| Known {
        labels: labels.to_vec(),
        found: Some(found.to_vec()),
        ..Known::default()
    };
    for (tag, about) in [
        ("1.0", known(&["release"], &[("CVE-1", "Low")])),
        ("1.1", known(&["release"], &[("CVE-2", "Critical")])),
        ("1.2-dev", known(&[], &[])),
    ] {
        let digest = from.registry.image("team/app", tag, tag.as_bytes());
        from.known.lock().unwrap().insert(digest.clone(), about);
        let signature = format!("{}.sig", digest.replace(':', "-"));
        from.registry.image("team/app", &signature, format!("signature of {tag}").as_bytes());
    }
    let rule = format!(
        "[[rule]]\nfrom = \"docker://{}/team/app\"\nto = \"docker://{}/mirror/app\"\ncosign-tags = true\n\
         tags = [{{ filter = \"label\", label = \"release\" }}]\nrequire = [{{ scan = {{ severity = \"high\" }} }}]\n\
         on-refusal = \"skip\"\nimmutable = \"skip\"\n",
        from.registry.host(),
        to.registry.host()
    );
    let policy = |rule: &str| format!("version = 1\n{}{}{rule}", from.auth(), to.auth());
    world.write("dray.toml", &policy(&rule));
    let plan = run(&world, &["plan", "--explain"]);
    assert!(plan.out.contains("+ 1.0") && plan.out.contains("CVE-2"), "{}{}", plan.out, plan.err);
    let ran = run(&world, &["sync"]);
    assert!(ran.out.contains("1 image copied") && ran.out.contains("1 refused"), "{}{}", ran.out, ran.err);
    assert!(to.projects.lock().unwrap().contains("mirror"));
    let tags: Vec<String> = {
        let held = to.registry.held.lock().unwrap();
        held.manifests.keys().filter(|(_, tag)| !tag.contains(':')).map(|(_, tag)| tag.clone()).collect()
    };
    assert!(tags.iter().any(|tag| tag == "1.0") && tags.iter().any(|tag| tag.ends_with(".sig")), "{tags:?}");
    assert_eq!(tags.len(), 2, "{tags:?}");
    // The signature was there before the tag that it vouches for.
    let written: Vec<String> = to
        .registry
        .asked()
        .into_iter()
        .filter(|asked| asked.starts_with("PUT") && asked.contains("/manifests/"))
        .collect();
    assert!(written.last().unwrap().ends_with("/manifests/1.0"), "{written:?}");

    // What a rule of Harbor's makes immutable stays, and is told.
    to.rules.lock().unwrap().immutable.insert("mirror:1.0".into());
    let digest = from.registry.image("team/app", "1.0", b"moved");
    from.known.lock().unwrap().insert(digest, known(&["release"], &[]));
    let kept = run(&world, &["sync"]);
    assert!(kept.code == 0 && kept.out.contains("0 images copied"), "{}{}", kept.out, kept.err);
    assert!(format!("{}{}", kept.out, kept.err).contains("immutable"), "{}{}", kept.out, kept.err);
    world.write("dray.toml", &policy(&rule.replace("immutable = \"skip\"\n", "")));
    let failed = run(&world, &["sync"]);
    assert!(failed.code == 1 && failed.err.contains("immutable"), "{}", failed.err);
    // A project that is full says so.
    to.rules.lock().unwrap().immutable.clear();
    to.rules.lock().unwrap().full.insert("mirror");
    let full = run(&world, &["sync"]);
    assert!(full.code == 1 && full.err.contains("upper limit"), "{}", full.err);
}
