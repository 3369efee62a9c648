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
    let schema: serde_json::Value = serde_json::from_str(schema()).unwrap();
    let mut documented = std::collections::BTreeSet::new();
    keys(&schema, &mut documented);
    let source = include_str!("check.rs");
    let asked = ["take(\"", "require(\"", "path(\"", "\"an auth provider\", \"", "\"a filter\", \""]
        .iter()
        .flat_map(|call| source.split(call).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
    assert_eq!(asked.collect::<std::collections::BTreeSet<_>>(), documented);
}

/// Each mistake: the policy behind `version = 1`, the text that is underlined, the message, the
/// help.
#[test]
fn mistakes_are_underlined_with_a_remedy() {
    let rule = |rest: &str| {
        format!(
            "[[rule]]\nname = \"a\"\nfrom = \"docker://r.example/a\"\nto = \"docker://m.example/a\"\n{rest}"
        )
    };
    for (text, underlined, message, help) in [
        (rule("tgas = []"), "tgas", "a rule has no key `tgas`", "did you mean `tags`?"),
        (rule("to-blobs = \"b\""), "\"b\"", "cannot lie in another folder", "`oci:`"),
        (rule("tags = 3"), "3", "expected a list, found integer", ""),
        (rule("tags = []"), "[]", "`tags` is empty", "leave it out"),
        (rule("tags = [{ pattern = \"x\" }]"), "{ pattern = \"x\" }", "a filter needs the key `filter`", ""),
        (rule("platforms = [\"amd64\"]"), "\"amd64\"", "no platform", "linux/amd64"),
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
            "cannot be loaded from oci",
            "component file",
        ),
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
