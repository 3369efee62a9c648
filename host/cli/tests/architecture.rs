//! The direction of dependencies: between the crates (cli → session → {runtime, registry} → engine → core), and between
//! the rooms of the engine.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

fn host() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The crates of this workspace that a crate names in its manifest.
fn named(member: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(host().join(member).join("Cargo.toml")).unwrap();
    let ours = text.lines().filter_map(|line| line.split([' ', '.']).next()?.strip_prefix("dray-"));
    ours.map(str::to_owned).collect()
}

/// All sources beneath a folder, with their texts.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

#[test]
fn dependencies_point_inwards() {
    let allowed: [(&str, &[&str]); 8] = [
        ("core", &[]),
        ("author", &[]),
        ("trust", &["core"]),
        ("engine", &["core", "trust"]),
        ("runtime", &["core", "engine"]),
        ("registry", &["core", "engine"]),
        ("session", &["core", "engine", "registry", "runtime", "trust"]),
        ("cli", &["author", "core", "engine", "registry", "runtime", "session", "trust"]),
    ];
    let crates: Vec<_> = fs::read_dir(host()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(crates.len(), allowed.len(), "{crates:?}");
    for (member, allowed) in allowed {
        let named = named(member);
        let wrong: Vec<_> = named.iter().filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(wrong.is_empty(), "{member} depends on {wrong:?}");
    }
}

#[test]
fn only_the_runtime_names_wasmtime_and_only_the_cli_the_environment() {
    for member in ["core", "author", "trust", "engine", "registry", "runtime", "session", "cli"] {
        for (path, text) in sources(&host().join(member).join("src")) {
            let path = path.display();
            assert!(member == "runtime" || !text.contains("wasmtime::"), "{path} names wasmtime");
            assert!(member == "cli" || !text.contains("env::var"), "{path} reads the environment");
            assert!(member == "cli" || !text.contains("process::exit"), "{path} exits");
        }
    }
}

/// The rooms of the engine, floor by floor: a room knows those below its own floor, and no other.
const FLOORS: [&[&str]; 11] = [
    &["error", "secret", "limits", "tar"],
    &["events", "decode"],
    &["layer"],
    &["files", "journal", "schedule"],
    &["contract"],
    &["http"],
    &["place"],
    &["blob"],
    &["trust"],
    &["inspect", "plan", "remove"],
    &["run"],
];

/// Names that the top of the crate hands on, and the rooms where they are made.
const HANDED_ON: [(&str, &str); 30] = [
    ("Error", "error"),
    ("Kind", "error"),
    ("Result", "error"),
    ("Event", "events"),
    ("BlobProgress", "events"),
    ("STOP_GRACE", "blob"),
    ("Watcher", "events"),
    ("DOCUMENT_LIMIT", "limits"),
    ("Secret", "secret"),
    ("Unpacked", "layer"),
    ("Journal", "journal"),
    ("LazyJournal", "journal"),
    ("RunRecord", "journal"),
    ("Local", "place"),
    ("Places", "place"),
    ("Repository", "place"),
    ("DISK_WRITES", "place"),
    ("Image", "inspect"),
    ("BoundRule", "plan"),
    ("CopyRequest", "plan"),
    ("Planned", "plan"),
    ("PlannedCopy", "plan"),
    ("PlannedDeletion", "plan"),
    ("plan", "plan"),
    ("TagChanged", "journal"),
    ("Run", "run"),
    ("RunOptions", "run"),
    // Of the top itself.
    ("lock", "error"),
    ("blocking", "error"),
    ("now", "error"),
];

/// The names that a text takes from the top of its crate: `crate::x::…`, and the first words of `use crate::{…}`.
fn taken(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("crate::") {
        rest = after;
        let word = |text: &str| -> String {
            text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
        };
        let Some(list) = after.strip_prefix('{') else {
            names.insert(word(after));
            continue;
        };
        let (mut depth, mut begins) = (0, true);
        for (at, character) in list.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                character if begins && !character.is_whitespace() => {
                    names.insert(word(&list[at..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    names
}

#[test]
fn the_rooms_of_the_engine_know_only_those_below() {
    let floor = |room: &str| FLOORS.iter().position(|rooms| rooms.contains(&room));
    let folder = host().join("engine/src").canonicalize().unwrap();
    let mut between = BTreeMap::new();
    for (path, text) in sources(&folder) {
        let inside = path.strip_prefix(&folder).unwrap();
        let room = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if room == "lib" {
            continue;
        }
        let own = floor(room).unwrap_or_else(|| panic!("the room {room} is on no floor: {}", path.display()));
        for name in taken(&text) {
            let handed_on = HANDED_ON.iter().find(|(known, _)| *known == name).map(|(_, room)| *room);
            let other = handed_on.unwrap_or(&name);
            if other == room {
                continue;
            }
            let theirs = floor(other).unwrap_or_else(|| panic!("{} takes {name}", path.display()));
            // Rooms of one floor stand side by side; planning asks what an image is.
            assert!(
                theirs < own || (room, other) == ("plan", "inspect"),
                "{} takes {name} of {other}, which is no room below",
                path.display()
            );
            between.entry((room.to_owned(), other.to_owned())).or_insert(inside.to_owned());
        }
    }
    assert!(between.len() <= 74, "{} imports between rooms", between.len());
}
