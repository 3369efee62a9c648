//! What an author of a plugin does: makes a project, builds it, tests it, and uses it.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::path::PathBuf;
use support::{Fake, World, author, memory::Memory, respond};

#[test]
fn a_new_project_of_each_kind_passes_its_own_fixtures() {
    let world = World::new();
    if !support::builds_plugins() {
        return;
    }
    for (kind, fixtures) in [
        ("filter", 2),
        ("auth", 2),
        ("verifier", 1),
        ("dialect", 1),
        ("transport", 1),
        ("mapper", 2),
        ("observer", 1),
    ] {
        let name = format!("my-{kind}");
        author(&world, &["plugin", "new", &name, "--kind", kind]).ok();
        let tested = author(&world, &["plugin", "test", &name, "--output", "json"]).ok().json();
        assert_eq!(
            (tested["failed"].as_u64(), tested["fixtures"].as_array().unwrap().len()),
            (Some(0), fixtures)
        );
        let checked = author(&world, &["plugin", "check", &name, "--output", "json"]).ok().json();
        assert_eq!(
            (checked["name"].as_str(), checked["findings"]["kind"].as_str()),
            (Some(&*name), Some(kind))
        );
        assert_eq!(checked["findings"]["contract"], "0.3.0");
    }
    // No clone of dray is needed: the project holds the SDK and the contract.
    let manifest = std::fs::read_to_string(world.path("my-filter/Cargo.toml")).unwrap();
    assert!(!manifest.contains("..") && manifest.contains("vendor/sdk/filter"), "{manifest}");
    // Two projects of one name share the folder in which they are built, and neither gets the other's component.
    author(&world, &["plugin", "new", "my-filter", "--dir", "other"]).ok();
    let source = std::fs::read_to_string(world.path("other/src/lib.rs")).unwrap();
    let other = source.replace("const SUMMARY: &str = \"", "const SUMMARY: &str = \"The other one. ");
    assert_ne!(source, other);
    world.write("other/src/lib.rs", &other);
    for (folder, is_other) in [("other", true), ("my-filter", false), ("other", true)] {
        let checked = author(&world, &["plugin", "check", folder, "--output", "json"]).ok().json();
        let summary = checked["summary"].as_str().unwrap();
        assert_eq!(summary.starts_with("The other one. "), is_other, "{folder}: {summary}");
    }
    // A panic is told with its message, and a component that offers nothing is none.
    world.write(
        "other/src/lib.rs",
        &source.replace(
            "if config.suffix",
            "assert!(config.suffix != \"-alpine\", \"no zero\");\n        if config.suffix",
        ),
    );
    let panicked = author(&world, &["plugin", "test", "other"]);
    assert!(panicked.code == 1 && panicked.out.contains("no zero"), "{}", panicked.out);
    let (before, _) = source.split_once("filter::export!").unwrap();
    world.write("other/src/lib.rs", before);
    let empty = author(&world, &["plugin", "build", "other"]);
    assert!(
        empty.code == 1 && empty.err.contains("offers nothing") && empty.err.contains("export!"),
        "{}",
        empty.err
    );
    // What a project holds of dray is renewed, and what is the author's stays.
    world.write("my-filter/vendor/sdk/filter/src/lib.rs", "broken");
    world.write("my-filter/vendor/sdk/gone.rs", "of an earlier SDK");
    author(&world, &["plugin", "vendor", "my-filter"]).ok();
    assert!(!world.path("my-filter/vendor/sdk/gone.rs").exists());
    author(&world, &["plugin", "build", "my-filter", "--out", "again.wasm"]).ok();

    // A transport that can only be read imports nothing that writes.
    let checked = author(&world, &["plugin", "check", "my-transport", "--output", "json"]).ok().json();
    assert!(!checked["findings"]["imports"].to_string().contains("writing"), "{checked}");

    // The library may be called otherwise than the package, and the component is used in a policy by its name.
    world.write("my-filter/Cargo.toml", &format!("{manifest}\n[lib]\nname = \"otherwise\"\n"));
    let out = author(&world, &["plugin", "build", "my-filter", "--out", "suffix.wasm"]).ok().out;
    assert!(out.starts_with("suffix.wasm: "), "{out}");
    support::images::seed(&world);
    world.write(
        "dray.toml",
        "version = 1\n[plugin.suffix]\nsource = \"suffix.wasm\"\n[[rule]]\nfrom = \"oci:seed\"\nto = \"oci:to\"\n\
             tags = [{ filter = \"suffix\", suffix = \"gle\" }]\n",
    );
    let synced = world.dray(&["sync"]).ok();
    assert!(synced.out.contains("1 image copied"), "{}", synced.out);
}

#[test]
fn the_other_languages_pass_the_same_fixtures() {
    let world = World::new();
    for (language, tool) in [("c", "clang-19"), ("python", "componentize-py"), ("js", "jco")] {
        let name = format!("in-{language}");
        author(&world, &["plugin", "new", &name, "--lang", language]).ok();
        let path = std::env::var_os("PATH").unwrap();
        if !std::env::split_paths(&path).any(|folder| folder.join(tool).exists()) {
            assert!(language != "c" || std::env::var_os("DRAY_TEST_ALL").is_none(), "clang-19 is not here");
            let missing = author(&world, &["plugin", "build", &name]);
            assert!(missing.code == 1 && missing.err.contains("help: "), "{}", missing.err);
            eprintln!("left out: {language} ({tool} is not here)");
            continue;
        }
        let tested = author(&world, &["plugin", "test", &name]).ok();
        assert!(tested.out.contains("2 fixtures passed, 0 failed"), "{}", tested.out);
    }
    let auth = author(&world, &["plugin", "new", "x", "--lang", "c", "--kind", "auth"]);
    assert!(auth.code == 1 && auth.err.contains("--lang rust"), "{}", auth.err);
}

#[test]
fn the_examples_pass_their_fixtures_which_four_languages_share() {
    let world = World::new();
    let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/plugins");
    let languages = [
        ("calver", "/usr/bin/cargo"),
        ("calver-c", "clang-19"),
        ("calver-python", "componentize-py"),
        ("calver-js", "jco"),
    ];
    for (folder, tool) in languages {
        let path = std::env::var_os("PATH").unwrap();
        if !std::env::split_paths(&path).any(|folder| folder.join(tool).exists()) {
            eprintln!("left out: {folder} ({tool} is not here)");
            continue;
        }
        let folder = examples.join(folder).display().to_string();
        let tested = author(&world, &["plugin", "test", &folder]).ok();
        assert!(tested.out.contains("calver: 5 fixtures passed, 0 failed"), "{}", tested.out);
    }
    if dray_author::Toolchain::any().is_ok() {
        for (name, fixtures) in [("vault", 3), ("bucket", 6), ("bucket-login", 2)] {
            let tested = author(&world, &["plugin", "test", &examples.join(name).display().to_string()]).ok();
            let expected = format!("{name}: {fixtures} fixtures passed, 0 failed");
            assert!(tested.out.contains(&expected), "{}", tested.out);
        }
    }
}

#[test]
fn a_fixture_that_fails_shows_what_is_different() {
    let world = World::new();
    author(&world, &["plugin", "new", "x", "--lang", "c"]).ok();
    let file = world.path("x/dray-plugin.toml");
    let manifest = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, manifest.replace("name = \"x\"", "nam = \"x\"")).unwrap();
    let wrong = author(&world, &["plugin", "test", "x"]);
    assert!(wrong.code == 1 && wrong.err.contains("dray-plugin.toml:2"), "{}", wrong.err);
    let missing = author(&world, &["plugin", "test", "nothing.wasm"]);
    assert!(missing.code == 2 && missing.err.contains("nothing.wasm"), "{}", missing.err);
    let taken = author(&world, &["plugin", "new", "x"]);
    assert!(taken.code == 1 && taken.err.contains("something is there already"), "{}", taken.err);
    let named = author(&world, &["plugin", "new", "../x"]);
    assert!(named.code == 1 && named.err.contains("small letters"), "{}", named.err);

    // Fixtures of one's own against a component of dray's.
    let glob = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../plugins/prebuilt/filter-glob.wasm");
    std::fs::copy(glob, world.path("glob.wasm")).unwrap();
    world.write(
        "fixtures/glob.toml",
        "[filter]\ntags = [\"v1\", \"w1\"]\nconfig = { pattern = \"v*\" }\nkeeps = [\"w1\"]\n",
    );
    world.write(
        "fixtures/good.toml",
        "[filter]\ntags = [\"v1\", \"w1\"]\nconfig = { pattern = \"v*\" }\nkeeps = [\"v1\"]\n",
    );
    world.write("fixtures/odd.toml", "[filter]\nkeps = []\nkeeps = []\n");
    let tested = author(&world, &["plugin", "test", "glob.wasm"]);
    assert_eq!(tested.code, 1, "{}", tested.out);
    for told in [
        "FAIL glob.toml",
        "- expected \"w1\"",
        "+ found    \"v1\"",
        "ok   good.toml",
        "line 2: ",
        "1 fixture passed, 2 failed",
    ] {
        assert!(tested.out.contains(told), "{told}: {}", tested.out);
    }
    // A configuration that no policy could have, and one whose mistake is what the fixture expects.
    world.write("schema/no.toml", "[filter]\nconfig = { patern = \"v*\" }\nkeeps = []\n");
    world.write("schema/yes.toml", "[filter]\nconfig = { patern = \"v*\" }\nfails = \"patern\"\n");
    let tested = author(&world, &["plugin", "test", "glob.wasm", "--fixtures", "schema"]);
    assert!(tested.out.contains("1 fixture passed, 1 failed"), "{}", tested.out);
    // The same holds for a call by its name.
    world.write(
        "call/no.toml",
        "[[call]]\nfunction = \"tag-filter.select\"\narguments = [{}, { patern = \"v*\" }]\nexpect = {}\n",
    );
    world.write(
        "call/yes.toml",
        "[[call]]\nfunction = \"tag-filter.select\"\narguments = [{}, { patern = \"v*\" }]\nfails = { schema = \"patern\" }\n",
    );
    let tested = author(&world, &["plugin", "test", "glob.wasm", "--fixtures", "call"]);
    assert!(tested.out.contains("1 fixture passed, 1 failed"), "{}", tested.out);
    assert!(tested.out.contains("did you mean `pattern`?"), "{}", tested.out);
    // A project has a plain name, so that its component lies in its folder.
    std::fs::write(&file, manifest.replace("name = \"x\"", "name = \"../x\"")).unwrap();
    let outside = author(&world, &["plugin", "build", "x"]);
    assert!(outside.code == 1 && outside.err.contains("is no name of one"), "{}", outside.err);
    assert!(!world.path("x.wasm").exists());
    // A request that the fixture does not expect is no request of the network.
    world.write(
        "hub/asks.toml",
        "location = \"registry.example.com\"\n[[call]]\nfunction = \"registry-dialect.tags\"\narguments = [\"registry.example.com\", \"library/nginx\"]\nfails = \"expects no further request\"\n",
    );
    let hub = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../plugins/prebuilt/dialect-harbor.wasm");
    std::fs::copy(hub, world.path("hub.wasm")).unwrap();
    let tested = author(&world, &["plugin", "test", "hub.wasm", "--fixtures", "hub"]);
    assert!(tested.code == 1 && tested.out.contains("expects no further request"), "{}", tested.out);
}

#[test]
fn a_filter_asks_what_the_destination_has() {
    let world = World::new();
    if !support::builds_plugins() {
        return;
    }
    author(&world, &["plugin", "new", "absent"]).ok();
    world.write(
        "absent/src/lib.rs",
        r##"//! Keeps the tags that the destination does not have.
use dray_plugin_filter::{self as filter, Choice, Error, Selection, TagFilter, destination, keep_unless};

#[derive(serde::Deserialize)]
struct Config {}

struct Absent;

impl TagFilter for Absent {
    type Config = Config;
    const NAME: &str = "absent";
    const VERSION: &str = "0.1.0";
    const SUMMARY: &str = "Keeps the tags that the destination does not have";
    const CONFIG_SCHEMA: &str = r#"{ "type": "object" }"#;

    fn select(given: &Choice, _: &Config) -> Result<Selection, Error> {
        let there = destination()?;
        let is_there = |tag: &str| there.binary_search_by(|entry| entry.name.as_str().cmp(tag)).is_ok();
        Ok(keep_unless(&given.tags, |tag| is_there(tag).then_some("it is there")))
    }
}

filter::export!(Absent with_types_in filter);
"##,
    );
    for fixture in ["suffix", "mistake"] {
        std::fs::remove_file(world.path(&format!("absent/fixtures/{fixture}.toml"))).unwrap();
    }
    world.write(
        "absent/fixtures/absent.toml",
        "destination = [\"1\"]\n[filter]\ntags = [\"1\", \"2\"]\nkeeps = [\"2\"]\ndrops = { \"1\" = \"it is there\" }\n",
    );
    world.write(
        "absent/fixtures/nowhere.toml",
        "[filter]\ntags = [\"1\"]\nfails = \"list the tags of the destination\"\n",
    );
    let tested = author(&world, &["plugin", "test", "absent"]).ok();
    assert!(tested.out.contains("2 fixtures passed"), "{}", tested.out);
    author(&world, &["plugin", "build", "absent"]).ok();

    let (source, destination) = (Memory::start(), Memory::start());
    for tag in ["1", "2", "3"] {
        source.image("app", tag, tag.as_bytes());
    }
    let rule = |to: &str| {
        format!(
            "version = 1\n[plugin.absent]\nsource = \"absent/absent.wasm\"\n[[rule]]\nfrom = \"docker://{}/app\"\n\
             to = \"docker://{}/{to}\"\ntags = [{{ filter = \"absent\" }}]\n",
            source.host(),
            destination.host()
        )
    };
    world.write("dray.toml", &rule("app"));
    // The repository does not exist yet, so everything is absent.
    assert!(world.dray(&["sync"]).ok().out.contains("3 images copied"));
    source.image("app", "1", b"changed");
    source.image("app", "4", b"new");
    assert!(world.dray(&["sync"]).ok().out.contains("1 image copied"));
    assert!(world.dray(&["plan", "--explain"]).ok().out.contains("it is there"));
    // Where each tag has a destination of its own, nothing can be said.
    world.write("dray.toml", &rule("{tag}"));
    let nowhere = world.dray(&["sync"]);
    assert!(
        nowhere.code == 1 && nowhere.err.contains("no one repository is the destination"),
        "{}",
        nowhere.err
    );
}

#[test]
fn a_real_run_becomes_fixtures_without_its_secrets() {
    let world = World::new();
    if !support::builds_plugins() {
        return;
    }
    author(&world, &["plugin", "new", "suffix"]).ok();
    author(&world, &["plugin", "new", "login", "--kind", "auth"]).ok();
    let login = Fake::start(|request, stream| {
        let body = br#"{ "access_token": "tok-hunter3", "expires_in": 3600 }"#;
        let is_right = request.starts_with("POST /oauth2/token ");
        respond(stream, if is_right { "200 OK" } else { "404 Not Found" }, "Set-Cookie: a=hunter4\r\n", body);
    });
    let registry = Memory::odd(|asked, _| {
        let is_known = asked.head.to_lowercase().contains("authorization: bearer tok-hunter3");
        let challenge = "Www-Authenticate: Bearer realm=\"https://127.0.0.1:1/token\"\r\n".to_owned();
        (!is_known).then(|| ("401 Unauthorized", challenge, Vec::new()))
    });
    for tag in ["1.0-alpine", "1.0"] {
        registry.image("app", tag, tag.as_bytes());
    }
    let (host, service) = (registry.host(), &login.host);
    world.write(
        "dray.toml",
        &format!(
            "version = 1\n[plugin.suffix]\nsource = \"suffix/suffix.wasm\"\n[plugin.login]\nsource = \"login/login.wasm\"\n\
             grant = {{ hosts = [\"{service}\"] }}\n[registry.\"{service}\"]\ntls = \"off\"\n[registry.\"{host}\"]\ntls = \"off\"\n\
             auth = {{ provider = \"login\", login = \"{service}\", client = \"dray\", secret = \"env:CLIENT_SECRET\" }}\n\
             [[rule]]\nfrom = \"docker://{host}/app\"\nto = \"oci:app\"\ntags = [{{ filter = \"suffix\", suffix = \"-alpine\" }}]\n"
        ),
    );
    for name in ["login", "suffix"] {
        author(&world, &["plugin", "build", name]).ok();
    }
    let recorded = |name: &str| {
        let arguments = ["plugin", "test", name, "--record", "dray.toml"];
        let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("authors");
        let home = std::env::home_dir().unwrap();
        let mut command = world.command(&arguments);
        command.env("XDG_CACHE_HOME", cache).env("CLIENT_SECRET", "hunter2");
        command.env(
            "CARGO_HOME",
            std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from),
        );
        command.env(
            "RUSTUP_HOME",
            std::env::var_os("RUSTUP_HOME").map_or_else(|| home.join(".rustup"), PathBuf::from),
        );
        let ran = support::Ran::of(&mut command).ok();
        let text = std::fs::read_to_string(world.path(&format!("{name}/fixtures/recorded-1.toml"))).unwrap();
        assert!(!text.contains("hunter"), "{text}");
        (ran, text)
    };
    let (ran, text) = recorded("login");
    assert!(ran.out.contains("ok   recorded-1.toml: recorded: credentials.lookup"), "{}{}", ran.out, ran.err);
    assert!(text.contains("recorded-secret-1") && text.contains("recorded-token-"), "{text}");
    assert!(ran.err.contains("look through what was recorded"), "{}", ran.err);
    let (ran, text) = recorded("suffix");
    assert!(ran.out.contains("suffix: 3 fixtures passed, 0 failed"), "{}{}", ran.out, ran.err);
    assert!(
        text.contains("keeps = [\"1.0-alpine\"]") && text.contains("\"1.0\" = \"another suffix\""),
        "{text}"
    );
    assert!(!world.path("app").exists(), "a recording copies nothing");
    // Without a rule that uses it, there is nothing to record.
    author(&world, &["plugin", "new", "other"]).ok();
    let none = author(&world, &["plugin", "test", "other", "--record", "dray.toml"]);
    assert!(none.code == 2 && none.err.contains("has no [plugin.other]"), "{} {}", none.code, none.err);
}
