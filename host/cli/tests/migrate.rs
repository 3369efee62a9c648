//! `dray migrate`: each configuration becomes a policy that `dray check` takes, and nothing of it is lost in silence.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use support::{IMAGES, Registry, World, has};

/// A configuration, what must stand in the policy, and what must be told.
struct Case {
    name: &'static str,
    text: &'static str,
    more: &'static [&'static str],
    policy: &'static [&'static str],
    told: &'static [&'static str],
}

const TO: &[&str] = &["--to", "docker://mirror.example/m"];

const CASES: &[Case] = &[
    Case {
        name: "sync.yml",
        text: "registry.example:5000:\n  images:\n    app: []\n    team/tool: ['1.0', 1.10]\n  images-by-tag-regex:\n    os: ^v\\d+$\n  \
               images-by-semver:\n    db: '>= 3.12'\n  credentials:\n    username: ci\n    password: hunter2\n  tls-verify: false\n",
        more: TO,
        policy: &[
            "from = \"docker://registry.example:5000/app\"\nto = \"docker://mirror.example/m/{name}\"",
            "tags = [\"1.0\", \"1.10\"]",
            r"regex = '^v\d+$'",
            "semver = \">= 3.12\"",
            "password = \"env:REGISTRY_EXAMPLE_5000_PASSWORD\"",
            "verify = false",
            "# sync.yml:4:",
        ],
        told: &["sync.yml:10: the password for registry.example:5000 is not written", "sync.yml:12:"],
    },
    Case {
        name: "regsync.yml",
        text: "version: 1\ncreds:\n  - registry: r.example\n    user: u\n    pass: '{{env \"X\"}}'\n    reqConcurrent: 4\ndefaults:\n  \
               interval: 60m\n  parallel: 2\n  referrers: true\nsync:\n  - source: busybox\n    target: r.example/library/busybox\n    \
               type: repository\n    tags:\n      allow: ['latest', '1\\..*']\n      deny: ['.*glibc']\n    platforms: [linux/amd64]\n  - source: \
               a.example/x:1\n    target: r.example/x:one\n    type: image\n    backup: old-{{.Ref.Tag}}\n  - source: b.example\n    target: \
               r.example/b\n    type: registry\n    repos: {allow: [team/app], deny: ['x.*']}\n",
        more: &[],
        policy: &[
            "from = \"docker://docker.io/library/busybox\"",
            r#"pattern = ["^latest$", '^1\..*$']"#,
            "exclude = true",
            "platforms = [\"linux/amd64\"]",
            "index = \"trim\"",
            "referrers = true",
            "from = \"docker://a.example/x:1\"\nto = \"docker://r.example/x:one\"",
            "from = [\"docker://b.example/team/app\"]\nto = \"docker://r.example/b/{path}\"",
            "concurrency = 4",
        ],
        told: &[
            "`interval: 60m`",
            "`backup: old-{{.Ref.Tag}}`",
            "`repos.deny: [x.*]`",
            "the password for r.example",
        ],
    },
    Case {
        name: "images.json",
        text: "{\n \"quay.io/a/b\": \"r.example/a/b\",\n \"nginx:1.27,1.28\": [\"r.example/nginx\", \"s.example/nginx:x,y\"],\n \
               \"quay.io/c/d:/^v1/\": \"r.example/c/d\",\n \"r.example\": {\"username\": \"u\", \"password\": \"p\", \"insecure\": true}\n}\n",
        more: &[],
        policy: &[
            "from = \"docker://quay.io/a/b\"",
            "tags = [\"1.27\", \"1.28\"]",
            "from = \"docker://docker.io/library/nginx:1.28\"\nto = \"docker://s.example/nginx:y\"",
            "tags = { regex = \"^v1\" }",
            "tls = \"off\"",
        ],
        told: &["the password for r.example"],
    },
    Case {
        name: "dregsy.yml",
        text: "relay: skopeo\ntasks:\n  - name: one\n    interval: 60\n    source:\n      registry: r.example\n      auth: \
               eyJ1c2VybmFtZSI6ImFsZXgiLCJwYXNzd29yZCI6InNlY3JldCJ9\n    target:\n      registry: s.example:5000\n      skip-tls-verify: true\n    \
               mappings:\n      - from: test/image\n        to: archive/image\n        tags: ['0.1.0', 'semver: >=1.31.0']\n      - from: \
               test/other\n      - from: 'regex: test/.*'\n",
        more: &[],
        policy: &[
            "from = \"docker://r.example/test/image\"\nto = \"docker://s.example:5000/archive/image\"\ntags = [\"0.1.0\"]",
            "range = \">=1.31.0\"",
            "to = \"docker://s.example:5000/test/other\"",
            "username = \"alex\"",
        ],
        told: &["`interval: 60`", "is an expression", "the password for r.example"],
    },
    Case {
        name: "zot.json",
        text: "{\"http\": {}, \"extensions\": {\"sync\": {\"registries\": [{\"urls\": [\"https://r.example\", \"https://s.example\"],\n\"onDemand\": \
               true, \"pollInterval\": \"6h\", \"tlsVerify\": false, \"onlySigned\": true, \"content\": [{\"prefix\": \"team/*\", \"destination\": \
               \"/mirror\",\n\"stripPrefix\": true, \"tags\": {\"regex\": \"^4\", \"semver\": true}}]}]}}}\n",
        more: TO,
        policy: &[
            "from = \"docker://r.example/team/*\"\nto = \"docker://mirror.example/m/mirror/{name}\"",
            "pattern = \"^4\"",
            "filter = \"semver\"",
        ],
        told: &["further `urls`", "`pollInterval: 6h`", "`onDemand`", "`onlySigned`"],
    },
    Case {
        name: "imageset.yaml",
        text: "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  platform: {channels: [{name: stable-4.14}]}\n  \
               additionalImages:\n    - name: registry.redhat.io/ubi8/ubi:latest\n    - name: quay.io/a/b:1\n      targetRepo: x/y\n      targetTag: \
               '2'\n",
        more: TO,
        policy: &[
            "from = \"docker://registry.redhat.io/ubi8/ubi:latest\"\nto = \"docker://mirror.example/m/{path}\"",
            "from = \"docker://quay.io/a/b:1\"\nto = \"docker://mirror.example/m/x/y:2\"",
        ],
        told: &["`platform`: list the images with"],
    },
    Case {
        name: "hauler.yaml",
        text: "apiVersion: content.hauler.cattle.io/v1\nkind: Images\nmetadata: {name: x}\nspec:\n  images:\n    - name: busybox:1.36\n      \
               platform: linux/amd64\n    - name: gcr.io/a/b:1\n      rewrite: c/d\n      oddity: 1\n",
        more: TO,
        policy: &[
            "from = \"docker://docker.io/library/busybox:1.36\"",
            "to = \"docker://mirror.example/m/c/d\"",
            "platforms = [\"linux/amd64\"]",
        ],
        told: &["`oddity`"],
    },
    Case {
        name: "harbor.json",
        text: "[{\"name\": \"p\", \"src_registry\": {\"id\": 0}, \"dest_registry\": {\"id\": 3, \"url\": \"https://s.example\", \"credential\": \
               {\"access_key\": \"robot\"}},\n\"dest_namespace\": \"mirror\", \"dest_namespace_replace_count\": 1,\n\"filters\": [{\"type\": \"name\", \
               \"value\": \"library/*\"}, {\"type\": \"tag\", \"value\": \"v*\", \"decoration\": \"excludes\"},\n{\"type\": \"label\", \"value\": [\"a\"]}], \
               \"deletion\": true, \"override\": false, \"enabled\": true,\n\"trigger\": {\"type\": \"scheduled\", \"trigger_settings\": {\"cron\": \"0 0 2 * * *\"}}}]\n",
        more: TO,
        policy: &[
            "from = \"docker://mirror.example/m/library/*\"\nto = \"docker://s.example/mirror/{path|strip:1}\"",
            "exclude = true",
            "on-change = \"keep\"",
            "prune = true",
            "filter = \"label\", label = [\"a\"]",
        ],
        told: &["0 0 2 * * *", "the password for s.example"],
    },
    Case {
        name: "list.txt",
        text: "nginx:1.27\nquay.io/a/b:1\n",
        more: TO,
        policy: &["images-from = ", "to = \"docker://mirror.example/m/{path}\""],
        told: &[],
    },
];

#[test]
fn every_configuration_becomes_a_policy() {
    let world = World::new();
    for case in CASES {
        world.write(case.name, case.text);
        let _ = std::fs::remove_file(world.path("dray.toml"));
        let arguments = [&["migrate", case.name, "--out", "dray.toml"], case.more].concat();
        let ran = world.dray(&arguments).ok();
        let policy = std::fs::read_to_string(world.path("dray.toml")).unwrap();
        for part in case.policy {
            assert!(policy.contains(part), "{}: {part}\n{policy}", case.name);
        }
        for part in case.told {
            assert!(ran.err.contains(part), "{}: {part}\n{}", case.name, ran.err);
            // What is told stands in the policy, too.
            let text =
                part.trim_start_matches(|character: char| character != ':').trim_start_matches([':', ' ']);
            assert!(
                policy.contains(if text.is_empty() { part } else { text }),
                "{}: {part}\n{policy}",
                case.name
            );
        }
        for secret in ["hunter2", "secret"] {
            assert!(!policy.contains(secret), "{}: {policy}", case.name);
        }
        let mut check = world.command(&["check"]);
        for variable in ["REGISTRY_EXAMPLE_5000", "R_EXAMPLE", "S_EXAMPLE"] {
            check.env(format!("{variable}_PASSWORD"), "x");
        }
        let checked = support::Ran::of(&mut check);
        assert_eq!(checked.code, 0, "{}: {}\n{policy}", case.name, checked.err);
        // A file is never written over.
        assert_ne!(world.dray(&arguments).code, 0);
    }
}

#[test]
fn mistakes_name_the_line() {
    let world = World::new();
    for (name, text, why) in [
        ("a.yml", "r.example:\n  images: {a: []}\n", "--to"),
        (
            "b.yml",
            "version: 1\nsync:\n  - source: a\n",
            "b.yml:3: an entry of `sync` has no source or no target",
        ),
        ("c.yml", "version: 1\nsync:\n  - {source: a, target: b, type: c}\n", "`type: c`"),
        ("d.json", "{\"r.example/a:1,2\": \"s.example/a:1\"}", "has 1 tags"),
        ("e.yml", "tasks:\n  - name: x\n", "x has no source or no target"),
        ("f.json", "[{\"src_registry\": {\"id\": 5}, \"dest_registry\": {\"id\": 0}}]", "an ID and no URL"),
        ("g.yml", "a: [\n", "g.yml"),
    ] {
        world.write(name, text);
        let kind = if name == "g.yml" { &["--kind", "regsync"][..] } else { &[] };
        let ran = world.dray(&[&["migrate", name], kind].concat());
        assert!(ran.code == 2 && ran.err.contains(why) && ran.out.is_empty(), "{name}: {}", ran.err);
    }
}

#[test]
fn a_policy_copies_what_skopeo_would() {
    if !has("skopeo") || !has("docker-registry") {
        return;
    }
    let world = World::new();
    let registry = Registry::start(&world, "registry", "");
    let host = &registry.host;
    for tag in ["1.0.0", "1.1.0", "2.0.0"] {
        world
            .dray(&["copy", "--all", &format!("{IMAGES}:{tag}"), &format!("docker://{host}/team/app:{tag}")])
            .ok();
    }
    let yaml = format!(
        "{host}:\n  tls-verify: false\n  images:\n    team/app: ['2.0.0']\n  images-by-tag-regex:\n    team/app: ^1\n"
    );
    world.write("sync.yml", &yaml);
    let to = format!("docker://{host}/m");
    let migrated = world.dray(&["migrate", "sync.yml", "--to", &to, "--check"]).ok();
    assert!(migrated.err.contains("copy the same 3 images"), "{}", migrated.err);
}
