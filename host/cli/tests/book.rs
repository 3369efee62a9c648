//! The book: every policy in it is sound, every command of the tutorial prints what it says, and every page is linked.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use support::{Ran, World};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// The pages for users, and the README.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![docs().join("../README.md"), docs().join("../examples/airgap/README.md")];
    for folder in ["", "howto", "guides"] {
        let entries = fs::read_dir(docs().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        pages.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    pages.sort();
    pages
}

/// The blocks of code of a page: what stands behind the fence, and the text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in page.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => open = Some((info.to_owned(), String::new())),
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

/// The policies of the book and of the examples, each with the file that it stands in.
fn policies() -> Vec<(PathBuf, String)> {
    let mut policies = Vec::new();
    for page in pages() {
        for (info, text) in blocks(&fs::read_to_string(&page).unwrap()) {
            if info.starts_with("toml") && text.contains("version = 1") {
                policies.push((page.clone(), text));
            }
        }
    }
    let mut folders = vec![docs().join("../examples")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.extension().and_then(|extension| extension.to_str()) {
                None if path.is_dir() && !path.ends_with("target") => folders.push(path),
                Some("toml") => {
                    let text = fs::read_to_string(&path).unwrap();
                    policies.extend(text.contains("version = 1\n").then_some((path, text)));
                }
                _ => {}
            }
        }
    }
    policies
}

#[test]
fn every_policy_obeys_the_schema_that_editors_use() {
    let schema: serde_json::Value = serde_json::from_str(dray_core::policy::schema()).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let wrong = |text: &str| {
        let policy: serde_json::Value = toml::from_str(text).unwrap();
        validator.iter_errors(&policy).map(|error| error.to_string()).collect::<Vec<_>>()
    };
    let policies = policies();
    for (file, text) in &policies {
        assert!(wrong(text).is_empty(), "{}\n{text}\n{:?}", file.display(), wrong(text));
    }
    assert!(policies.len() > 30, "{}", policies.len());
    for mistake in [
        "tags = [{ filter = \"semver\", rnage = \">=1\" }]",
        "tags = [{ filter = \"latest\", count = 0 }]",
        "tags = { latets = 3 }",
        "concurrency = \"4\"",
        "bandwidth = \"20MB\"",
        "bandwidth = \"0MB/s\"",
        "timeout = \"ten\"",
    ] {
        let rule = format!("version = 1\n[[rule]]\nfrom = \"docker://a/b\"\nto = \"oci:x\"\n{mistake}\n");
        assert!(!wrong(&rule).is_empty(), "{mistake}");
    }
    assert!(!wrong("version = 1\n[defaults.rule]\nnmae = \"x\"\n").is_empty());
    assert!(!wrong("version = 1\n[registry.a]\nauth = { username = \"x\" }\n").is_empty());
}

#[test]
fn every_policy_is_sound() {
    let mut checked = 0;
    for page in pages() {
        for (info, text) in blocks(&fs::read_to_string(&page).unwrap()) {
            if !info.starts_with("toml") || !text.contains("version = 1") || info.contains("check=no") {
                continue;
            }
            let world = World::new();
            if text.contains("ca = ") {
                world.certificates();
                world.tool("cp", &["ca.pem", "company-ca.pem"]);
            }
            if text.contains("cosign.pub") {
                world.write("passphrase", "x\n");
                let key = [
                    "skopeo",
                    "generate-sigstore-key",
                    "--output-prefix",
                    "cosign",
                    "--passphrase-file",
                    "passphrase",
                ];
                world.dray(&key).ok();
            }
            // Secrets and files that the policy names are the reader's own.
            let mut command = world.command(&["check"]);
            for name in text.split("env:").skip(1) {
                let word = |character: char| character.is_ascii_alphanumeric() || character == '_';
                command.env(name.split(|character| !word(character)).next().unwrap(), "x");
            }
            let text = text.replace("/run/credentials", world.path("credentials").to_str().unwrap());
            world.write("dray.toml", &text);
            for name in text.split("file:").skip(1) {
                world.write(name.split('"').next().unwrap().trim_start_matches('/'), "x");
                let path = Path::new(name.split('"').next().unwrap());
                if path.is_absolute() {
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, "x").unwrap();
                }
            }
            let ran = Ran::of(&mut command);
            assert_eq!(ran.code, 0, "{}\n{text}\n{}", page.display(), ran.err);
            assert!(!ran.err.contains("no rule names"), "{}\n{text}\n{}", page.display(), ran.err);
            checked += 1;
        }
    }
    assert!(checked >= 20, "{checked}");
}

/// The Rust sources of the host, without the line breaks in their texts.
fn sources() -> String {
    let (mut folders, mut all) = (vec![docs().join("../host")], String::new());
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                all += &fs::read_to_string(path).unwrap();
            }
        }
    }
    let lines = all.split("\\\n").map(str::trim_start);
    lines.collect()
}

#[test]
fn the_errors_that_troubleshooting_names_are_said_by_dray() {
    let (page, sources) = (fs::read_to_string(docs().join("troubleshooting.md")).unwrap(), sources());
    let mut checked = 0;
    // The titles of its paragraphs hold the texts, with `…` for what varies.
    for title in page.split("\n\n").filter_map(|paragraph| paragraph.strip_prefix("**")) {
        let title = title.split("**").next().unwrap().replace('\n', " ");
        let title = title.replace("the `timeout` of", "the …timeout… of");
        for text in title.split('`').skip(1).step_by(2) {
            for part in text.split('…').map(str::trim).filter(|part| !part.is_empty()) {
                assert!(sources.contains(part), "{text}");
            }
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked}");
}

/// Whether a printed line is the one of the book, in which `…` stands for anything.
fn is_like(printed: &str, line: &str) -> bool {
    let mut parts = line.split('…');
    let Some(mut rest) = parts.next().and_then(|first| printed.strip_prefix(first)) else { return false };
    let mut open = false;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        (rest, open) = (&rest[at + part.len()..], part.is_empty());
    }
    open || rest.is_empty()
}

#[test]
fn the_tutorial_does_what_it_says() {
    let world = World::new();
    let images = docs().join("../examples/images");
    world.tool("cp", &["-r", images.to_str().unwrap(), "images"]);
    for (info, text) in blocks(&fs::read_to_string(docs().join("tutorial.md")).unwrap()) {
        if let Some(file) = info.strip_prefix("toml file=") {
            world.write(file, &text);
        }
        if info != "console run" {
            continue;
        }
        for step in text.split("$ dray ").skip(1) {
            let (arguments, expected) = step.split_once('\n').unwrap();
            let ran = world.dray(&arguments.split(' ').collect::<Vec<_>>()).ok();
            let mut printed: Vec<&str> = ran.out.lines().chain(ran.err.lines()).collect();
            for line in expected.lines() {
                let at = printed.iter().position(|printed| is_like(printed, line));
                let at = at.unwrap_or_else(|| panic!("dray {arguments}: {line}\n{}\n{}", ran.out, ran.err));
                printed.remove(at);
            }
            assert!(printed.is_empty(), "dray {arguments} prints more: {printed:?}");
        }
    }
    assert!(world.path("dray.lock").exists() && world.path("plan.jsonl").exists());
}

#[test]
fn every_page_is_in_the_book_and_every_link_leads_somewhere() {
    let summary = fs::read_to_string(docs().join("SUMMARY.md")).unwrap();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let folder = page.parent().unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let file = link.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            assert!(folder.join(file).exists(), "{}: {link}", page.display());
        }
    }
    let listed: BTreeSet<&str> =
        summary.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    for folder in ["", "howto/", "guides/"] {
        for entry in fs::read_dir(docs().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") && name != "SUMMARY.md" {
                assert!(listed.contains(&*format!("{folder}{name}")), "{folder}{name} is not in the book");
            }
        }
    }
}

#[test]
fn the_events_that_the_book_shows_are_of_the_schema() {
    let page = fs::read_to_string(docs().join("json.md")).unwrap();
    let events = page.lines().filter(|line| line.starts_with("{\"dray_progress\""));
    assert_eq!(support::checked_lines("progress.schema.json", events).len(), 3);
}
