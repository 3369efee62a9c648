//! Syncs between registries of each kind: Harbor, Amazon's, Google's, Docker Hub, and distribution.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use support::{
    IMAGES, Ran, Registry, World,
    clouds::{Cloud, ENVIRONMENT},
    harbor::{Harbor, Known, LOGIN},
    has,
    memory::Memory,
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
        if let End::Amazon(cloud) = self {
            cloud.inside.made.lock().unwrap().insert(self.repository().into());
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
        // One request of the API for the password, and one for the list.
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
