//! What dray does with Harbor, step by step: against the Harbor in the small, and against a real one if `DRAY_TEST_HARBOR` names
//! it (docs/harbor.md).
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::env;
use support::{
    IMAGES, Ran, World,
    harbor::{Harbor, LOGIN},
};

/// A Harbor that is spoken to.
struct Spoken<'a> {
    world: &'a World,
    host: String,
    login: String,
    /// What its table in the policy says of TLS.
    tls: &'static str,
    /// Makes a tag of a project immutable.
    fix: &'a dyn Fn(&str, &str),
}

impl Spoken<'_> {
    fn run(&self, arguments: &[&str]) -> Ran {
        let ran = Ran::of(self.world.command(arguments).env("HARBOR", &self.login));
        eprintln!("dray {}\n{}{}", arguments.join(" "), ran.out, ran.err);
        ran
    }

    /// Syncs by a policy with one rule.
    #[track_caller]
    fn sync(&self, from: &str, to: &str, more: &str, said: &str) {
        let (host, tls) = (&self.host, self.tls);
        let auth = format!("[registry.\"{host}\"]\nauth = {{ credentials = \"env:HARBOR\" }}\n{tls}");
        let rule = format!("[[rule]]\nfrom = \"{from}\"\nto = \"{to}\"\n{more}");
        self.world.write("dray.toml", &format!("version = 1\n{auth}{rule}"));
        let ran = self.run(&["sync"]);
        assert!(ran.code == 0 && ran.out.contains(said), "{said}: {}{}", ran.out, ran.err);
    }

    fn steps(&self, first: &str, second: &str) {
        let host = &self.host;
        let [a, b] = [first, second].map(|project| format!("docker://{host}/{project}/app"));
        for (tag, as_tag) in [("1.0.0", "1.0.0"), ("1.1.0", "1.1.0"), ("1.1.0", "again")] {
            self.world
                .dray(&["copy", "--all", &format!("{IMAGES}:{tag}"), &format!("oci:source:{as_tag}")])
                .ok();
        }
        self.sync("oci:source", &a, "", "3 images copied");
        self.sync(&a, &b, "", "3 images copied");
        self.sync(&a, &b, "", "0 images copied, 3 unchanged");
        // One of two tags of an image goes, and the other stays.
        self.world.dray(&["delete", "oci:source:again"]).ok();
        let prune = "prune = true\nprune-limit = 1\n";
        self.sync("oci:source", &a, prune, "1 tag deleted, 2 unchanged");
        self.sync(&a, &b, prune, "1 tag deleted, 2 unchanged");
        // What is immutable stays what it is.
        (self.fix)(second, "1.0.0");
        self.sync(&format!("{IMAGES}:2.0.0"), &format!("{a}:1.0.0"), "", "1 image copied");
        self.sync(&a, &b, "immutable = \"skip\"\n", "0 images copied");
        let told = self.run(&["sync"]);
        assert!(format!("{}{}", told.out, told.err).contains("immutable"), "{}{}", told.out, told.err);
    }
}

#[test]
fn a_harbor_in_the_small_is_spoken_to() {
    let (world, harbor) = (World::new(), Harbor::start());
    let fix = |project: &str, tag: &str| {
        harbor.rules.lock().unwrap().immutable.insert(format!("{project}:{tag}"));
    };
    let host = harbor.registry.host().to_owned();
    Spoken { world: &world, host, login: LOGIN.into(), tls: "", fix: &fix }.steps("first", "second");
    assert_eq!(harbor.projects.lock().unwrap().len(), 2);
}

#[test]
fn a_real_harbor_is_spoken_to() {
    let Ok(url) = env::var("DRAY_TEST_HARBOR") else {
        eprintln!("DRAY_TEST_HARBOR names no Harbor");
        return;
    };
    let login = env::var("DRAY_TEST_HARBOR_LOGIN").unwrap();
    let authority = env::var("DRAY_TEST_HARBOR_CA").ok();
    let world = World::new();
    if let Some(path) = &authority {
        std::fs::copy(path, world.path("harbor.pem")).unwrap();
    }
    let tls = match (&authority, url.starts_with("http://")) {
        (Some(_), _) => "tls = { ca = \"harbor.pem\" }\n",
        (None, true) => "tls = \"off\"\n",
        (None, false) => "",
    };
    // The administration goes by another tool, so that dray does not judge itself.
    let api = |method: &str, path: &str, body: &str| {
        let address = format!("{}/api/v2.0{path}", url.trim_end_matches('/'));
        let mut arguments =
            vec!["-sS", "-u", &login, "-X", method, &address, "-H", "content-type: application/json"];
        if !body.is_empty() {
            arguments.extend(["-d", body]);
        }
        if authority.is_some() {
            arguments.extend(["--cacert", "harbor.pem"]);
        }
        world.tool("curl", &arguments)
    };
    let name = |which: &str| format!("dray-test-{}-{which}", std::process::id());
    let (first, second) = (name("a"), name("b"));
    let fix = |project: &str, tag: &str| {
        let all = |kind: &str, decoration: &str, pattern: &str| serde_json::json!({ "kind": kind, "decoration": decoration, "pattern": pattern });
        let rule = serde_json::json!({
            "action": "immutable", "template": "immutable_template", "disabled": false,
            "tag_selectors": [all("doublestar", "matches", tag)],
            "scope_selectors": { "repository": [all("doublestar", "repoMatches", "**")] },
        });
        api("POST", &format!("/projects/{project}/immutabletagrules"), &rule.to_string());
    };
    let host = url.split_once("://").unwrap().1.trim_end_matches('/').to_owned();
    let spoken = Spoken { world: &world, host, login: login.clone(), tls, fix: &fix };
    let steps = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| spoken.steps(&first, &second)));
    for project in [&first, &second] {
        // With a rule, nothing of the project can be deleted.
        let rules = api("GET", &format!("/projects/{project}/immutabletagrules"), "");
        let rules: Vec<serde_json::Value> = serde_json::from_str(&rules).unwrap_or_default();
        for rule in rules {
            api("DELETE", &format!("/projects/{project}/immutabletagrules/{}", rule["id"]), "");
        }
        api("DELETE", &format!("/projects/{project}/repositories/app"), "");
        api("DELETE", &format!("/projects/{project}"), "");
    }
    steps.unwrap();
}
