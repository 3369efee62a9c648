use super::*;

const WHOLE: &str = r#"
version = 1

[registry."registry.example.com"]
concurrency = 16
bandwidth = "200MB/s"
tls = { ca = "ca.pem", cert = "me.pem", key = "me.key", verify = false }
auth = { provider = "static", username = "bob", password = "env:PASSWORD" }

[registry.mirror]
storage = "mirror"
tls = "off"
auth = [{ provider = "docker-config" }]

[plugin.calver]
source = "calver.wasm"
grant = { hosts = ["api.acme.dev"], secrets = ["env:TOKEN", "file:token"] }
limits = { memory = "64MiB", call = "5s" }

[[rule]]
name = "kubernetes"
from = ["docker://registry.k8s.io/{kube-apiserver,kube-proxy}", "docker://r.example/lib/*"]
to = "docker://mirror/k8s/{name}"
tags = ["latest", { filter = "semver", range = ">=1.17.5, <1.20" }]
platforms = ["linux/amd64", "linux/arm64/v8"]
index = "trim"
referrers = true
"#;

/// Every key of a JSON Schema's objects, wherever they stand.
fn keys(value: &serde_json::Value, into: &mut std::collections::BTreeSet<String>) {
    if let Some(properties) = value.get("properties").and_then(|value| value.as_object()) {
        into.extend(properties.keys().cloned());
    }
    match value {
        serde_json::Value::Object(object) => object.values().for_each(|value| keys(value, into)),
        serde_json::Value::Array(items) => items.iter().for_each(|value| keys(value, into)),
        _ => {}
    }
}

#[test]
fn a_whole_policy() {
    let policy = parse(WHOLE).unwrap();
    let rule = &policy.rules[0];
    let from: Vec<String> = rule.from.iter().map(|from| from.value.to_string()).collect();
    assert_eq!(
        from,
        [
            "docker://registry.k8s.io/kube-apiserver",
            "docker://registry.k8s.io/kube-proxy",
            "docker://r.example/lib/*"
        ]
    );
    let tags = rule.tags.as_ref().unwrap();
    assert_eq!(tags.literals[0].value, "latest");
    assert_eq!(tags.filters[0].config, serde_json::json!({ "range": ">=1.17.5, <1.20" }));
    assert_eq!(&WHOLE[tags.filters[0].keys["range"].clone()], r#"">=1.17.5, <1.20""#);
    assert_eq!((rule.index, rule.referrers, rule.platforms.len()), (IndexMode::Trim, Referrers::Wanted, 2));
    let registry = &policy.registries["registry.example.com"];
    assert_eq!((registry.concurrency, registry.bandwidth), (Some(16), Some(200_000_000)));
    assert_eq!(policy.registries["mirror"].tls, Tls::Off);
    assert_eq!(policy.plugins["calver"].limits.memory, 64 << 20);
    assert_eq!(policy.plugins["calver"].grant.secrets.len(), 2);
}

#[test]
fn the_schema_has_the_keys_that_the_reader_asks_for() {
    let mut schema: serde_json::Value = serde_json::from_str(schema()).unwrap();
    // Plugins read the other keys of their tables themselves.
    for plugins in ["filter", "auth"] {
        let kinds = schema["$defs"][plugins]["anyOf"].take();
        let names = kinds.as_array().unwrap().iter().flat_map(|kind| kind["properties"].as_object().unwrap());
        let own = names.filter(|(name, _)| matches!(name.as_str(), "filter" | "provider"));
        schema["$defs"][plugins]["properties"] =
            own.map(|(name, value)| (name.clone(), value.clone())).collect::<serde_json::Map<_, _>>().into();
    }
    let mut documented = std::collections::BTreeSet::new();
    keys(&schema, &mut documented);
    let source = concat!(
        include_str!("check.rs"),
        include_str!("rule.rs"),
        include_str!("call.rs"),
        include_str!("tags.rs"),
        include_str!("limits.rs"),
        include_str!("order.rs"),
        include_str!("plugin.rs"),
        include_str!("retain.rs")
    );
    let asked = [
        "take(\"",
        "require(\"",
        "path(\"",
        "path(&mut entry, \"",
        "texts(&mut entry, \"",
        "default(\"",
        "rate(&mut entry, \"",
        "rate(entry, \"",
        "\"an auth provider\", \"",
        "\"a filter\", \"",
        "\"an observer\", \"",
        "\"`map-tags`\", \"",
    ]
    .iter()
    .flat_map(|call| source.split(call).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
    assert_eq!(asked.collect::<std::collections::BTreeSet<_>>(), documented);
}

#[test]
fn the_schema_has_the_keys_of_each_plugin_that_is_built_in() {
    let schema: serde_json::Value = serde_json::from_str(schema()).unwrap();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    for (kind, plugin) in
        ["glob", "regex", "semver", "latest", "age"].map(|name| ("filter", name)).into_iter().chain(
            [
                "static",
                "ecr",
                "gar",
                "acr",
                "docker-hub",
                "gitlab",
                "ali-acr",
                "huawei-swr",
                "tencent-tcr",
                "volcengine-cr",
            ]
            .map(|name| ("auth", name)),
        )
    {
        let text = std::fs::read_to_string(folder.join(kind).join(plugin).join("src/schema.json")).unwrap();
        let own: serde_json::Value = serde_json::from_str(&text).unwrap();
        let said =
            schema["$defs"][kind]["anyOf"].as_array().unwrap().iter().find(|one| one["title"] == plugin);
        let mut said = said.unwrap()["properties"].clone();
        said.as_object_mut().unwrap().retain(|key, _| key != "filter" && key != "provider");
        assert_eq!(said, own["properties"], "{plugin}");
    }
}

/// Each mistake: the policy behind `version = 1`, the text that is underlined, the message, the
/// help.
#[test]
fn mistakes_are_underlined_with_a_remedy() {
    let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
    let rule = |rest: &str| {
        format!(
            "[[rule]]\nname = \"a\"\nfrom = \"docker://r.example/a\"\nto = \"docker://m.example/a\"\n{rest}"
        )
    };
    for (text, underlined, message, help) in [
        (rule("tgas = []"), "tgas", "a rule has no key `tgas`", "did you mean `tags`?"),
        (rule("to-blobs = \"b\""), "\"b\"", "cannot lie in another folder", "`oci:`"),
        (rule("tags = 3"), "3", "expected a text, a table or a list, found integer", "write tags = "),
        (rule("tags = [\"v1.*\"]"), "\"v1.*\"", "looks like a pattern", "match = \"v1.*\""),
        (rule("tags = [\">=1.30\"]"), "\">=1.30\"", "looks like a range", "semver = \">=1.30\""),
        (rule("tags = [\"1@sha256:12\"]"), "\"1@sha256:12\"", "no digest", "dray lock"),
        (rule("tags = \"1.0 \""), "\"1.0 \"", "is no tag", "letters"),
        (rule("tags = { exclude = [] }"), "[]", "`exclude` is empty", "leave it out"),
        (
            rule(&format!("tags = [\"1@{}\", \"1@{}\"]", digest("a"), digest("b"))),
            &format!("\"1@{}\"", digest("b")),
            "pinned to two digests",
            "keep one",
        ),
        ("[plugin.glob]\nsource = \"a\"".into(), "\"a\"", "is built in", "another name"),
        ("[vars]\na = \"${b}\"\nb = \"x\"".into(), "\"${b}\"", "cannot use the variable", "env:b"),
        (rule("tags = { filter = \"glob\" }"), "\"glob\"", "a filter stands in a list", "tags = [{"),
        (rule("tags = { smever = \"1\" }"), "smever", "`tags` has no key `smever`", "did you mean `semver`?"),
        (rule("tags = { by = \"name\" }"), "\"name\"", "`by` belongs to `latest`", "latest = 5"),
        (rule("tags = { match = \"a*\", prerelease = true }"), "true", "belongs to `semver`", "semver"),
        (rule("tags = {}"), "{}", "`tags` is empty", "leave it out"),
        (rule("on-empty = \"fail\""), "\"fail\"", "not known here", "\"error\""),
        (rule("on-change = \"skip\""), "\"skip\"", "not known here", "\"refuse\""),
        (rule("images = []"), "[]", "names none", ""),
        (rule("images = 3"), "3", "a list of names, or a table", "library/nginx"),
        (
            rule("").replace("docker://r.example/a", "https://r.example/a"),
            "\"https://r.example/a\"",
            "is no reference",
            "docker://r.example/a",
        ),
        (
            rule("").replace("docker://m.example/a", "oci://images"),
            "\"oci://images\"",
            "is no reference",
            "oci:images",
        ),
        (
            rule("").replace("docker://m.example/a", "docker://${mirror}/a"),
            "\"docker://${mirror}/a\"",
            "`mirror` is not declared",
            "[vars]",
        ),
        (
            rule("").replace("docker://m.example/a", "docker://m.example/${name}"),
            "\"docker://m.example/${name}\"",
            "`name` is not declared",
            "{name}",
        ),
        (
            rule("").replace("docker://m.example/a", "docker://${env:NOT_SET}/a"),
            "\"docker://${env:NOT_SET}/a\"",
            "NOT_SET is not set",
            ":-VALUE",
        ),
        (rule("tags = { regex = \"^v1\\.\" }"), "", "escape", "single quotes"),
        ("vars = 3".into(), "3", "a table of strings", "[vars]"),
        ("[vars]\na = 3".into(), "3", "expected a string", ""),
        (
            "[registry.r]\nauth = { token = \"${secret}\" }".into(),
            "\"${secret}\"",
            "names a secret",
            "env:NAME",
        ),
        ("[defaults.rule]\nname = \"a\"".into(), "name", "has no default", ""),
        ("[defaults.rules]\na = 1".into(), "rules", "no key `rules`", "did you mean `rule`?"),
        (rule("tags = []"), "[]", "`tags` is empty", "leave it out"),
        (rule("tags = [{ pattern = \"x\" }]"), "{ pattern = \"x\" }", "a filter needs the key `filter`", ""),
        (rule("platforms = [\"linux\"]"), "\"linux\"", "no platform", "linux/arm64"),
        (rule("index = \"trim\""), "\"trim\"", "chooses none", "platforms"),
        (rule("platforms = [\"linux/amd64\"]\nindex = \"cut\""), "\"cut\"", "cannot be", "keep"),
        (rule("") + &rule(""), "\"a\"", "two rules are named `a`", "--rule"),
        (
            rule("").replace("docker://m.example/a", "docker://m/{nmae}"),
            "\"docker://m/{nmae}\"",
            "stands for nothing",
            "{name}",
        ),
        (
            rule("").replace("docker://r.example/a", "r.example/a"),
            "\"r.example/a\"",
            "does not name a transport",
            "docker://r.example/a",
        ),
        (
            rule("").replace("docker://r.example/a", "docker://r/{a,b"),
            "\"docker://r/{a,b\"",
            "never closed",
            "",
        ),
        ("[registry.x]\nbandwidth = \"fast\"".into(), "\"fast\"", "no bandwidth", "200MB/s"),
        ("[registry.x]\nconcurrency = 0".into(), "0", "1 to 1024", ""),
        ("[registry.x]\ntls = \"on\"".into(), "\"on\"", "tls cannot be", "off"),
        ("[registry.x]\ntls = { cert = \"a\" }".into(), "{ cert = \"a\" }", "both `cert` and `key`", ""),
        ("[registry.x]\nauth = { user = \"a\" }".into(), "{ user = \"a\" }", "needs the key `provider`", ""),
        (
            "[plugin.x]\nsource = \"oci://r/a\"".into(),
            "\"oci://r/a\"",
            "has neither a tag nor a digest",
            "oci://registry.example.com/plugins/calver:1.2.0",
        ),
        (
            "[plugin.x]\nsource = \"https://r/a.wasm\"".into(),
            "\"https://r/a.wasm\"",
            "a file, or an artifact",
            "oci://",
        ),
        (
            "[defaults.plugin]\ntrusted-kyes = []".into(),
            "trusted-kyes",
            "has no key `trusted-kyes`",
            "did you mean `trusted-keys`?",
        ),
        ("[defaults.plugin]\nsource = \"x\"".into(), "source", "has no default", ""),
        (
            "[plugin.x]\nsource = \"a\"\ngrant = { secrets = [\"hunter2\"] }".into(),
            "\"hunter2\"",
            "where the secret lies",
            "env:NAME",
        ),
        (
            "[plugin.x]\nsource = \"a\"\nlimits = { memory = \"1B\" }".into(),
            "\"1B\"",
            "limit of memory",
            "64MiB",
        ),
        ("rules = 1".into(), "rules", "no key `rules`", "did you mean `rule`?"),
        ("a = ".into(), "", "", ""),
    ] {
        let text = format!("version = 1\n{text}");
        let PolicyError(problems) = parse(&text).expect_err(&text);
        let problem = &problems[0];
        let span = problem.span.clone().unwrap();
        if !underlined.is_empty() {
            assert_eq!(&text[span], underlined, "{text}\n{problems:?}");
        }
        assert!(problem.message.contains(message), "{text}\n{problems:?}");
        assert!(problem.help.as_deref().unwrap_or_default().contains(help), "{text}\n{problems:?}");
        assert_eq!(problems.len(), 1, "{text}\n{problems:?}");
    }
    assert!(parse("").unwrap_err().0[0].help.as_ref().unwrap().contains("version = 1"));
    assert!(parse("version = 2").unwrap_err().0[0].message.contains("version 2"));
}

/// What a list of filters keeps of its configuration.
fn filters(tags: &Tags) -> Vec<(String, serde_json::Value)> {
    tags.filters.iter().map(|call| (call.plugin.value.clone(), call.config.clone())).collect()
}

fn one(rest: &str) -> Rule {
    let text = format!(
        "version = 1\n[[rule]]\nfrom = \"docker://r.example/library/nginx\"\nto = \"docker://m.example/a\"\n{rest}"
    );
    parse(&text).unwrap_or_else(|error| panic!("{text}: {error:?}")).rules.remove(0)
}

#[test]
fn tags_say_what_they_mean() {
    use serde_json::json;
    let of = |text: &str| one(&format!("tags = {text}")).tags.unwrap();
    assert_eq!(of("\"1.27\"").literals[0].value, "1.27");
    assert_eq!(filters(&of("\"v1.*\"")), [("glob".into(), json!({ "pattern": "v1.*" }))]);
    assert_eq!(filters(&of("\">=1.30\"")), [("semver".into(), json!({ "range": ">=1.30" }))]);
    // In the order that is documented, and not in the order in which they are written.
    let all = of(
        "{ include = [\"nightly\"], latest = 5, by = \"created\", exclude = [\"*-rc*\"], prerelease = true, semver = \"1\", age = \"90d\", regex = \"x\", match = \"y*\" }",
    );
    assert_eq!(
        filters(&all),
        [
            ("glob".into(), json!({ "pattern": "y*" })),
            ("regex".into(), json!({ "pattern": "x" })),
            ("semver".into(), json!({ "range": "1", "prerelease": true })),
            ("glob".into(), json!({ "pattern": ["*-rc*"], "exclude": true })),
            ("age".into(), json!({ "within": "90d" })),
            ("latest".into(), json!({ "count": 5, "by": "created" })),
        ]
    );
    assert_eq!(all.literals[0].value, "nightly");
    let digest = format!("sha256:{}", "a".repeat(64));
    let pinned = of(&format!("[\"1.27@{digest}\"]"));
    assert_eq!((pinned.literals[0].value.as_str(), pinned.pins["1.27"].to_string()), ("1.27", digest));
}

#[test]
fn one_rule_for_many_images() {
    let text = "version = 1\n[[rule]]\nfrom = \"docker://docker.io\"\nto = \"docker://m.example\"\ntags = \"1\"\nimages = { \"library/nginx\" = \"base/nginx\", \"library/redis:7\" = {}, \"a/b\" = { to = \"c\", tags = \"2\" } }\n";
    let policy = parse(text).unwrap();
    let shown: Vec<String> = policy
        .rules
        .iter()
        .map(|rule| {
            let tags = rule.tags.as_ref().unwrap();
            format!("{} {} {} {}", rule.name.value, rule.from[0].value, rule.to.value, tags.literals[0].value)
        })
        .collect();
    assert_eq!(
        shown,
        [
            "b docker://docker.io/a/b docker://m.example/c 2",
            "b docker://docker.io/library/nginx docker://m.example/base/nginx 1",
            "b docker://docker.io/library/redis:7 docker://m.example/library/redis 1",
        ]
    );
    let list = text.replace("{ \"library/nginx\" = \"base/nginx\", \"library/redis:7\" = {}, \"a/b\" = { to = \"c\", tags = \"2\" } }", "[\"library/nginx\"]");
    assert_eq!(parse(&list).unwrap().rules[0].to.value.to_string(), "docker://m.example/library/nginx");
}

#[test]
fn defaults_variables_and_included_files() {
    let main = "version = 1\ninclude = [\"team.toml\"]\n[vars]\nmirror = \"${env:HOST:-m.example}\"\n[defaults.rule]\nplatforms = [\"amd64\"]\non-empty = \"error\"\n[defaults.registry]\nconcurrency = 4\n[registry.\"${mirror}\"]\ntls = \"off\"\n";
    let team = "version = 1\n[[rule]]\nname = \"$${x}\"\nfrom = \"docker://r.example/a/nginx\"\nto = \"docker://${mirror}/{name}\"\non-empty = \"warn\"\n[[rule]]\nfrom = \"docker://r.example/b/nginx\"\nto = \"docker://${mirror}/b\"\n";
    assert_eq!(includes(main, &|_| None).unwrap()[0].value, "team.toml");
    let policy = parse_all(&[main, team], &|_| None).unwrap();
    let registry = &policy.registries["m.example"];
    assert_eq!((registry.concurrency, &registry.tls), (Some(4), &Tls::Off));
    assert_eq!(policy.default_registry.concurrency, Some(4));
    let [first, second] = &policy.rules[..] else { panic!("{:?}", policy.rules) };
    assert_eq!(first.to.value.to_string(), "docker://m.example/{name}");
    assert_eq!((first.on_empty, second.on_empty), (OnEmpty::Warn, OnEmpty::Error));
    assert_eq!(first.platforms[0].to_string(), "linux/amd64");
    assert_eq!((first.name.value.as_str(), second.name.value.as_str()), ("${x}", "nginx"));
    // A mistake of the second file is placed behind the first one.
    let wrong = team.replace("on-empty", "on-emty");
    let error = parse_all(&[main, &wrong], &|_| None).unwrap_err();
    let span = error.0[0].span.clone().unwrap();
    assert_eq!(&wrong[span.start - main.len() - 1..span.end - main.len() - 1], "on-emty");
    // Each file says its version, also behind a byte order mark.
    assert!(parse_all(&[main, "\u{feff}version = 1\n"], &|_| None).is_ok());
    let other = parse_all(&[main, "version = 2\n"], &|_| None).unwrap_err();
    assert!(other.0[0].message.contains("version 2"), "{other:?}");
    let none = parse_all(&[main, "# nothing\n"], &|_| None).unwrap_err();
    assert_eq!(none.0[0].span, Some(main.len() + 1..main.len() + 1));
    let twice = parse_all(&[main, "version = 1\n[vars]\nmirror = \"x\"\n"], &|_| None).unwrap_err();
    assert!(twice.0[0].message.contains("`mirror` is declared in another file"), "{twice:?}");
}

#[test]
fn a_registry_that_no_rule_names_is_told() {
    let of = |name: &str| {
        let text = format!(
            "version = 1\n[registry.\"{name}\"]\nconcurrency = 1\n[[rule]]\nfrom = \"docker://r.example/a\"\nto = \"docker://mirror.example/a\"\n"
        );
        parse(&text).unwrap().warnings
    };
    assert_eq!(of("mirror.example"), []);
    assert_eq!(of("miror.example")[0].help.as_deref(), Some("did you mean `mirror.example`?"));
}

#[test]
fn a_resolved_policy_says_the_same() {
    let odd =
        "version = 1\n[[rule]]\nname = \"\u{9b}31m\u{202e}\"\nfrom = \"docker://r/a\"\nto = \"oci:a\"\n";
    let shown = parse(odd).unwrap().to_toml();
    assert!(!shown.chars().any(|character| character != '\n' && crate::misleads(character)), "{shown:?}");
    assert_eq!(parse(&shown).unwrap().rules[0].name.value, "\u{9b}31m\u{202e}");
    let resolved = parse(WHOLE).unwrap().to_toml();
    let again = parse(&resolved).unwrap_or_else(|error| panic!("{resolved}\n{error:?}"));
    assert_eq!(again.to_toml(), resolved);
    for part in [
        "from = [\"docker://registry.k8s.io/kube-apiserver\", \"docker://registry.k8s.io/kube-proxy\", \"docker://r.example/lib/*\"]",
        "tags = [\"latest\", { filter = \"semver\", range = \">=1.17.5, <1.20\" }]",
        "auth = [{ password = \"env:PASSWORD\", provider = \"static\", username = \"bob\" }]",
    ] {
        assert!(resolved.contains(part), "{part}\n{resolved}");
    }
}

#[test]
fn what_is_said_twice_is_one_and_what_is_locked_is_of_one_rule() {
    let tags = one("tags = [\"1.0\", \"1.0\"]").tags.unwrap();
    assert_eq!(tags.literals.len(), 1);
    // Rules of one `images` share their name, and not what they lock.
    let text = "version = 1\n[[rule]]\nname = \"all\"\nfrom = \"oci:\"\nto = \"oci:m\"\nimages = { \"a\" = \"x\", \"a/b\" = \"y\" }\n";
    let mut policy = parse(text).unwrap();
    let digest: crate::Digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
    let mut lock = Lock::default();
    for (rule, from) in policy.rules.iter().zip(["oci:/a", "oci:/a/b"]) {
        lock.add(rule).insert(from.into(), [("1".to_owned(), digest.clone())].into());
    }
    lock.narrow(&mut policy).unwrap();
    let shown: Vec<String> =
        policy.rules.iter().map(|rule| format!("{} {}", rule.from[0].value, rule.to.value)).collect();
    assert_eq!(shown, ["oci:/a oci:m/x", "oci:/a/b oci:m/y"]);
    // A rule that was changed is not what was locked.
    let mut changed = parse(&text.replace("\"x\"", "\"z\"")).unwrap();
    let problems = lock.narrow(&mut changed).unwrap_err();
    assert!(problems[0].message.contains("has changed since it was locked"), "{problems:?}");
}

#[test]
fn docker_hub_is_meant_by_a_name_without_a_host() {
    let named = |text: &str| {
        let text = format!(
            "version = 1\n[registry.mirror]\nstorage = \"m\"\n[[rule]]\nfrom = \"{text}\"\nto = \"docker://mirror/a\"\n"
        );
        parse(&text).unwrap().registries_named().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(named("docker://nginx"), ["docker.io", "mirror"]);
    assert_eq!(named("docker://a/b"), ["docker.io", "mirror"]);
    assert_eq!(named("docker://registry:5000/b"), ["mirror", "registry:5000"]);
}

#[test]
fn a_version_with_a_placeholder_is_probably_a_range() {
    let warned = |tags: &str| {
        let text = format!(
            "version = 1\n[[rule]]\nfrom = \"docker://r.example/a\"\nto = \"docker://m.example/a\"\ntags = {tags}\n"
        );
        parse(&text).unwrap().warnings.into_iter().map(|warning| warning.message).collect::<Vec<_>>()
    };
    assert_eq!(warned("\"v1.2.x\""), ["the tag `v1.2.x` is copied by exactly this name"]);
    assert_eq!(warned("[\"1.x\", \"matrix\", \"1.x-dev\", \"x\", \".x\"]").len(), 1);
    assert!(warned("{ semver = \"1.x\" }").is_empty());
}

#[test]
fn a_rule_that_takes_all_platforms_trims_nothing() {
    let text = "version = 1\n[defaults.rule]\nplatforms = [\"amd64\"]\nindex = \"trim\"\nreferrers = true\n\
        [[rule]]\nfrom = \"docker://a/b\"\nto = \"oci:x\"\nplatforms = []\n";
    let policy = parse(text).unwrap();
    assert_eq!((policy.rules[0].index, policy.rules[0].platforms.len()), (IndexMode::Keep, 0));
    assert!(policy.warnings.is_empty(), "{:?}", policy.warnings);
    for (platform, meant) in
        [("x86_64", "amd64"), ("linux/x86_64", "linux/amd64"), ("windows/x64", "windows/amd64")]
    {
        let text = format!(
            "version = 1\n[[rule]]\nfrom = \"docker://a/b\"\nto = \"oci:x\"\nplatforms = [\"{platform}\"]\nindex = \"trim\"\n"
        );
        let problems = parse(&text).unwrap_err().0;
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        let help = problem.help.as_deref().unwrap_or_default();
        assert!(help.contains(&format!("\"{meant}\"")), "{help}");
    }
}
