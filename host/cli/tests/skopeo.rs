//! dray called as skopeo, beside Debian's skopeo: the same command in two folders, with the same exit code, what scripts
//! read of its output, and what it wrote.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::{collections::BTreeMap, fs, path::Path};
use support::{IMAGES, Ran, Registry, World, has};

/// What of the outputs is compared.
#[derive(Clone, Copy, PartialEq)]
enum Compare {
    /// The exit code alone, and that both fail.
    Code,
    /// Standard output, byte for byte.
    Bytes,
    /// Standard output as JSON. dray's may have further keys.
    Json,
    /// The files that were written beneath `out`, byte for byte.
    Files,
    /// dray means to do something else: its exit code, for the reason.
    Differs(i32, &'static str),
}

use Compare::{Bytes, Code, Differs, Files, Json};

/// Both tools, each in a folder of its own.
struct Pair {
    dray: World,
    skopeo: World,
}

impl Pair {
    fn run(&self, line: &str) -> [Ran; 2] {
        [(&self.dray, true), (&self.skopeo, false)].map(|(world, dray)| {
            let line = line.replace("IMAGES", IMAGES);
            // A space within an argument is written as `~`.
            let words = line.split(' ').filter(|word| !word.is_empty());
            let arguments: Vec<String> = words.map(|word| word.replace('~', " ")).collect();
            let mut command = match dray {
                true => world.command(&[]),
                false => world.hermetic("skopeo"),
            };
            if dray {
                command.arg("skopeo");
            }
            Ran::of(command.args(arguments))
        })
    }
}

/// The files beneath a folder, by their paths.
fn files(world: &World, folder: &str) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut open) = (BTreeMap::new(), vec![world.path(folder)]);
    while let Some(path) = open.pop() {
        let Ok(entries) = fs::read_dir(&path) else { continue };
        for entry in entries.map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => open.push(entry),
                false => {
                    let name = entry.strip_prefix(world.path(folder)).unwrap().display().to_string();
                    found.insert(name, fs::read(&entry).unwrap());
                }
            }
        }
    }
    found
}

/// Whether all that one value says is in another.
fn is_in(one: &serde_json::Value, other: &serde_json::Value) -> bool {
    match (one, other) {
        (serde_json::Value::Object(one), serde_json::Value::Object(other)) => {
            one.iter().all(|(key, value)| other.get(key).is_some_and(|other| is_in(value, other)))
        }
        _ => one == other,
    }
}

/// Runs a line with both. Says what is not the same.
fn difference(pair: &Pair, line: &str, compare: Compare) -> Option<String> {
    let [ours, theirs] = pair.run(line);
    let wrong = match compare {
        Differs(code, why) => (ours.code != code).then(|| format!("dray ends with {}: {why}", ours.code)),
        _ if ours.code != theirs.code => Some("the exit codes".to_owned()),
        Bytes => (ours.out != theirs.out).then(|| "the outputs".to_owned()),
        Json => (!is_in(&theirs.json(), &ours.json())).then(|| "the JSON".to_owned()),
        Files => unlike(&files(&pair.dray, "out"), &files(&pair.skopeo, "out")),
        Code => None,
    };
    for world in [&pair.dray, &pair.skopeo] {
        let _ = fs::remove_dir_all(world.path("out"));
    }
    wrong.map(|wrong| format!("skopeo {line}: {wrong}\ndray: {ours:?}\nskopeo: {theirs:?}"))
}

/// The first file that only one of two folders has, or that is not the same in both.
fn unlike(ours: &BTreeMap<String, Vec<u8>>, theirs: &BTreeMap<String, Vec<u8>>) -> Option<String> {
    let only = ours.keys().find(|name| !theirs.contains_key(*name));
    let only = only.or(theirs.keys().find(|name| !ours.contains_key(*name)));
    if let Some(name) = only {
        return Some(format!("only one has {name}"));
    }
    let same = |name: &str, content: &[u8]| {
        let json = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
        // The JSON of an index has no exact form.
        ours[name] == content
            || (name.ends_with("index.json") || name.ends_with("oci-layout"))
                && is_in(&json(content), &json(&ours[name]))
    };
    let unlike = theirs.iter().find(|(name, content)| !same(name, content));
    unlike.map(|(name, _)| format!("{name}: {}", String::from_utf8_lossy(&ours[name])))
}

/// Runs all lines.
fn check(pair: &Pair, lines: &[(String, Compare)]) {
    for world in [&pair.dray, &pair.skopeo] {
        fs::create_dir_all(world.path("run")).unwrap();
    }
    let wrong = lines.iter().filter_map(|(line, compare)| difference(pair, line, *compare));
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), lines.len(), wrong.join("\n\n"));
}

/// Invocations without a registry. `IMAGES` is the layout of the examples; its tag 1.2.0 is an index of two platforms.
const LOCAL: &[(&str, Compare)] = &[
    ("inspect IMAGES:1.2.0", Json),
    ("inspect IMAGES:nightly", Json),
    ("inspect --raw IMAGES:1.2.0", Bytes),
    ("inspect --raw=true IMAGES:1.2.0", Bytes),
    ("inspect --raw=false IMAGES:1.2.0", Json),
    ("inspect --config IMAGES:1.2.0", Bytes),
    ("inspect --config --raw IMAGES:1.2.0", Bytes),
    ("inspect -n IMAGES:1.2.0", Json),
    ("inspect --no-tags IMAGES:1.2.0", Json),
    ("--override-arch arm64 inspect IMAGES:1.2.0", Json),
    ("--override-arch=arm64 inspect --config IMAGES:1.2.0", Bytes),
    ("--override-os linux inspect IMAGES:1.2.0", Json),
    ("--debug=false inspect --raw IMAGES:1.2.0", Bytes),
    ("inspect --format {{.Digest}} IMAGES:1.2.0", Bytes),
    ("inspect -f {{.Digest}}~{{.Architecture}}/{{.Os}} IMAGES:1.2.0", Bytes),
    ("inspect --format={{.Created}} IMAGES:1.2.0", Bytes),
    ("inspect --format {{.Labels}}~{{.RepoTags}}~{{.Env}} IMAGES:1.2.0", Bytes),
    (
        "inspect --format {{json~.Labels}} IMAGES:1.2.0",
        Differs(0, "skopeo 1.9 has no such function, and newer ones do"),
    ),
    (
        "inspect --format {{.Layers|json}} IMAGES:1.2.0",
        Differs(0, "skopeo 1.9 has no such function, and newer ones do"),
    ),
    (
        "inspect --format {{join~.Layers~\",\"}} IMAGES:1.2.0",
        Differs(0, "skopeo 1.9 has no such function, and newer ones do"),
    ),
    ("inspect --format {{index~.Labels~\"org.opencontainers.image.version\"}} IMAGES:1.2.0", Bytes),
    ("inspect --format {{index~.Labels~\"none\"}}x IMAGES:1.2.0", Bytes),
    ("inspect --format {{index~.Layers~0}} IMAGES:1.2.0", Bytes),
    ("inspect --format {{index~.Layers~9}} IMAGES:1.2.0", Code),
    ("inspect --format {{range~.Layers}}{{.}};{{end}} IMAGES:1.2.0", Bytes),
    ("inspect --format {{range~$k,~$v~:=~.Labels}}{{$k}}={{$v}};{{end}} IMAGES:1.2.0", Bytes),
    ("inspect --format {{if~.Env}}a{{else}}b{{end}} IMAGES:1.2.0", Bytes),
    ("inspect --format {{if~eq~.Os~\"linux\"}}a{{else~if~.Env}}b{{else}}c{{end}} IMAGES:1.2.0", Bytes),
    ("inspect --format {{with~.Labels}}{{len~.}}{{end}} IMAGES:1.2.0", Bytes),
    ("inspect --format {{printf~\"%s|%-8s|%q\"~.Os~.Architecture~.Digest}} IMAGES:1.2.0", Bytes),
    (
        "inspect --format {{upper~.Os}}~{{lower~.Os}}~{{len~.Layers}} IMAGES:1.2.0",
        Differs(0, "skopeo 1.9 has no such function, and newer ones do"),
    ),
    ("inspect --format {{.Name}}x IMAGES:1.2.0", Bytes),
    ("inspect --format {{.Nmae}} IMAGES:1.2.0", Code),
    ("inspect --format {{.Name IMAGES:1.2.0", Code),
    ("inspect --format {{nonsense}} IMAGES:1.2.0", Code),
    ("inspect --format {{end}} IMAGES:1.2.0", Code),
    ("inspect --format {{.Os}} --raw IMAGES:1.2.0", Code),
    ("inspect IMAGES:none", Differs(2, "skopeo 1.22 ends with 2 where an image does not exist; 1.9 with 1")),
    ("inspect oci:nowhere:1", Differs(2, "as above")),
    ("inspect docker-archive:nowhere.tar", Differs(2, "as above")),
    ("inspect dir:nowhere", Differs(2, "as above")),
    ("inspect", Code),
    ("inspect a b", Code),
    ("inspect nonsense", Code),
    ("inspect nonsense:x", Code),
    ("inspect --bogus IMAGES:1.2.0", Code),
    ("inspect --raw=perhaps IMAGES:1.2.0", Code),
    ("inspect --creds a:b --no-creds IMAGES:1.2.0", Code),
    ("inspect --retry-times 2 IMAGES:1.2.0", Json),
    ("inspect --retry-times many IMAGES:1.2.0", Code),
    ("copy --image-parallel-copies 2 IMAGES:1.2.0 dir:out", Code),
    ("--tmpdir . logout nobody.example", Code),
    ("bogus", Code),
    ("--bogus inspect IMAGES:1.2.0", Code),
    ("list-tags IMAGES", Code),
    ("list-tags", Differs(1, "skopeo ends with 0 where an argument is missing")),
    ("list-tags dir:x", Code),
    ("manifest-digest manifest.json", Bytes),
    ("manifest-digest nowhere.json", Code),
    ("manifest-digest", Code),
    ("copy --insecure-policy=perhaps IMAGES:1.2.0 dir:out", Code),
    ("copy IMAGES:1.2.0", Differs(1, "as above")),
    ("copy IMAGES:1.2.0 nonsense", Code),
    ("copy --all --multi-arch all IMAGES:1.2.0 dir:out", Code),
    ("copy --multi-arch some IMAGES:1.2.0 dir:out", Code),
    ("copy --format bogus IMAGES:1.2.0 dir:out", Code),
    ("--policy nowhere.json copy IMAGES:1.2.0 dir:out", Code),
    ("--insecure-policy copy IMAGES:1.2.0 dir:out", Files),
    ("--insecure-policy copy -q IMAGES:1.2.0 dir:out", Files),
    ("copy -q --insecure-policy IMAGES:1.2.0 dir:out", Files),
    ("copy --policy accept.json IMAGES:1.2.0 dir:out", Files),
    ("copy --policy reject.json IMAGES:1.2.0 dir:out", Code),
    ("inspect --raw --debug IMAGES:1.2.0", Bytes),
    ("inspect --override-arch arm64 --override-os linux IMAGES:1.2.0", Json),
    ("inspect --raw IMAGES:1.2.0 --command-timeout 1m", Bytes),
    ("-v", Code),
    ("help", Code),
    ("--insecure-policy copy --all IMAGES:1.2.0 dir:out", Files),
    ("--insecure-policy copy -a IMAGES:nightly dir:out", Files),
    ("--insecure-policy copy --multi-arch=all IMAGES:1.2.0 dir:out", Files),
    ("--insecure-policy copy --multi-arch system IMAGES:1.2.0 dir:out", Files),
    ("--insecure-policy --override-arch arm64 copy IMAGES:1.2.0 dir:out", Files),
    ("--insecure-policy copy --all IMAGES:1.2.0 oci:out:1.2.0", Files),
    ("--insecure-policy copy IMAGES:1.2.0 oci:out:tag", Files),
    ("--insecure-policy copy --all --preserve-digests IMAGES:1.2.0 oci:out:1", Files),
    ("--insecure-policy copy --remove-signatures IMAGES:1.2.0 dir:out", Files),
    ("--insecure-policy copy --digestfile out/digest IMAGES:1.2.0 dir:out", Files),
    (
        "--insecure-policy copy --dest-shared-blob-dir out/blobs IMAGES:1.2.0 oci:out/layout:1",
        Differs(0, "dray makes the folders of a layout"),
    ),
    ("--insecure-policy copy IMAGES:none dir:out", Differs(2, "as above")),
    ("--insecure-policy copy --sign-by 0123 IMAGES:1.2.0 dir:out", Code),
    ("--insecure-policy copy --encryption-key jwe:x IMAGES:1.2.0 dir:out", Code),
    ("--insecure-policy copy --src-tls-verify=false --dest-tls-verify=false IMAGES:1.2.0 dir:out", Files),
    ("--insecure-policy copy --dest-creds a:b IMAGES:1.2.0 dir:out", Files),
    ("--insecure-policy copy --retry-times 2 IMAGES:1.2.0 dir:out", Files),
    ("--insecure-policy copy --retry-times many IMAGES:1.2.0 dir:out", Code),
    ("--insecure-policy copy --multi-arch index-only IMAGES:1.2.0 dir:out", Files),
    ("--insecure-policy copy --multi-arch=index-only IMAGES:nightly dir:out", Code),
    (
        "--insecure-policy copy --multi-arch linux/amd64,linux/arm64 IMAGES:1.2.0 dir:out",
        Differs(0, "skopeo 1.9 knows no lists of platforms, and newer ones do"),
    ),
    ("--insecure-policy copy --multi-arch linux/amd64,nonsense/x/y/z IMAGES:1.2.0 dir:out", Code),
    (
        "--insecure-policy copy --format v2s1 IMAGES:1.2.0 dir:out",
        Differs(1, "registries no longer take schema 1"),
    ),
    ("delete dir:out", Code),
    ("delete", Code),
    ("login", Code),
    ("logout", Code),
    ("login --get-login nobody.example", Code),
    ("logout nobody.example", Code),
    // Archives.
    ("--insecure-policy copy IMAGES:1.2.0 docker-archive:a.tar:app:1", Code),
    (
        "--insecure-policy copy IMAGES:1.2.0 docker-archive:a.tar:app:2",
        Differs(0, "skopeo does not add to an archive"),
    ),
    ("inspect --format {{.Architecture}} docker-archive:a.tar:app:1", Bytes),
    ("inspect docker-archive:a.tar:none:1", Differs(2, "2 where an image does not exist, as in skopeo 1.22")),
    ("inspect --config docker-archive:a.tar:app:1", Bytes),
    ("--insecure-policy copy docker-archive:a.tar:app:1 dir:out", Code),
    ("--insecure-policy copy docker-archive:a.tar:none:1 dir:out", Differs(2, "as above")),
    (
        "--insecure-policy copy --additional-tag other:2 --additional-tag third:3 IMAGES:1.2.0 docker-archive:b.tar:app:1",
        Code,
    ),
    ("list-tags docker-archive:b.tar", Json),
    ("inspect --format {{.Os}} docker-archive:b.tar:other:2", Bytes),
    ("inspect --format {{.Os}} docker-archive:b.tar:third:3", Bytes),
    ("--insecure-policy copy --additional-tag other IMAGES:1.2.0 docker-archive:c.tar:app:1", Code),
    (
        "--insecure-policy copy --additional-tag other:2 IMAGES:1.2.0 dir:out",
        Differs(1, "skopeo ignores it, and dray says so"),
    ),
    ("--insecure-policy copy IMAGES:1.2.0 oci-archive:d.tar:one", Code),
    ("inspect --raw oci-archive:d.tar:one", Bytes),
    ("inspect --format {{.Digest}} oci-archive:d.tar:one", Bytes),
    ("inspect oci-archive:d.tar:none", Differs(2, "as above")),
    ("--insecure-policy copy oci-archive:d.tar:one dir:out", Files),
    ("--insecure-policy copy oci-archive:nowhere.tar:one dir:out", Differs(2, "as above")),
    ("--insecure-policy copy --all IMAGES:1.2.0 docker-archive:e.tar:app:1", Code),
    ("list-tags docker-archive:nowhere.tar", Code),
    ("list-tags oci-archive:d.tar", Code),
    // Compression and formats.
    ("--insecure-policy copy --dest-decompress IMAGES:1.2.0 dir:out", Code),
    ("--insecure-policy copy --dest-compress IMAGES:1.2.0 dir:out", Code),
    ("--insecure-policy copy --dest-compress --dest-decompress IMAGES:1.2.0 dir:out", Code),
    ("--insecure-policy copy --dest-compress-format zstd IMAGES:1.2.0 oci:out:1", Code),
    (
        "--insecure-policy copy --dest-compress-format zstd --dest-compress-level 7 IMAGES:1.2.0 oci:out:1",
        Code,
    ),
    (
        "--insecure-policy copy --dest-compress-format gzip --dest-compress-level 9 IMAGES:1.2.0 oci:out:1",
        Code,
    ),
    ("--insecure-policy copy --dest-compress-format lzma IMAGES:1.2.0 oci:out:1", Code),
    ("--insecure-policy copy --dest-compress-level many IMAGES:1.2.0 oci:out:1", Code),
    (
        "--insecure-policy copy --dest-force-compress-format IMAGES:1.2.0 oci:out:1",
        Differs(1, "it needs a format; skopeo 1.9 has no such flag"),
    ),
    (
        "--insecure-policy copy --dest-force-compress-format --dest-compress-format gzip IMAGES:1.2.0 oci:out:1",
        Differs(0, "skopeo 1.9 has no such flag, and newer ones do"),
    ),
    ("--insecure-policy copy --dest-oci-accept-uncompressed-layers IMAGES:1.2.0 oci:out:1", Code),
    ("--insecure-policy copy --format v2s2 IMAGES:1.2.0 dir:out", Code),
    ("--insecure-policy copy --format oci IMAGES:1.2.0 dir:out", Files),
    ("--insecure-policy copy -f v2s2 --all IMAGES:1.2.0 dir:out", Code),
    (
        "--insecure-policy copy --format v2s2 --preserve-digests IMAGES:1.2.0 dir:out",
        Differs(1, "skopeo 1.9 forgets one of the two"),
    ),
    ("--insecure-policy copy --preserve-digests IMAGES:1.2.0 dir:out", Files),
    // Signatures.
    ("generate-sigstore-key", Code),
    ("standalone-sign manifest.json", Code),
    ("standalone-sign manifest.json a 0123 -o signature", Code),
    ("standalone-sign nowhere.json a 0123 -o signature", Code),
    ("standalone-verify manifest.json a 0123", Code),
    ("standalone-verify manifest.json a 0123 nowhere", Code),
    ("standalone-verify nowhere.json a 0123 manifest.json", Code),
    ("standalone-verify manifest.json a 0123 manifest.json", Code),
    ("--insecure-policy copy --sign-by-sigstore-private-key nowhere IMAGES:1.2.0 dir:out", Code),
    (
        "--insecure-policy copy --sign-by-sigstore-private-key nowhere --sign-passphrase-file nowhere IMAGES:1.2.0 dir:out",
        Code,
    ),
    ("--insecure-policy copy --sign-by 0123 --sign-passphrase-file nowhere IMAGES:1.2.0 dir:out", Code),
    ("--policy reject.json copy IMAGES:1.2.0 dir:out", Code),
    ("--policy accept.json copy IMAGES:1.2.0 dir:out", Files),
    ("--policy broken.json copy IMAGES:1.2.0 dir:out", Code),
    ("--policy unknown.json copy IMAGES:1.2.0 dir:out", Code),
    ("--policy twice.json copy IMAGES:1.2.0 dir:out", Code),
    ("--policy scope.json copy IMAGES:1.2.0 dir:out", Code),
    ("--policy signed.json copy IMAGES:1.2.0 dir:out", Code),
    ("--policy reject.json inspect --raw IMAGES:1.2.0", Bytes),
    ("--policy nowhere.json inspect --raw IMAGES:1.2.0", Bytes),
    // Words and templates.
    ("inspect --format {{.Digest|printf~\"%.12s\"}} IMAGES:1.2.0", Bytes),
    ("inspect --format {{-~.Os~-}}~x IMAGES:1.2.0", Bytes),
    ("inspect --format {{/*~nothing~*/}}x IMAGES:1.2.0", Bytes),
    ("inspect --format {{$x~:=~.Os}}{{$x}} IMAGES:1.2.0", Bytes),
    ("inspect --format {{if~and~.Os~.Architecture}}both{{end}} IMAGES:1.2.0", Bytes),
    ("inspect --format {{if~not~.Env}}none{{end}} IMAGES:1.2.0", Bytes),
    ("inspect --format {{range~$i,~$l~:=~.Layers}}{{$i}}{{end}} IMAGES:1.2.0", Bytes),
    (
        "inspect --format {{(index~.LayersData~0).Size}} IMAGES:1.2.0",
        Differs(0, "skopeo 1.9 has no LayersData, and newer ones do"),
    ),
    ("inspect --config --format {{.os}} IMAGES:1.2.0", Code),
    ("inspect --config --format {{.OS}}/{{.Architecture}} IMAGES:1.2.0", Bytes),
    ("inspect --config --format {{.RootFS.Type}}{{len~.RootFS.DiffIDs}} IMAGES:1.2.0", Bytes),
    ("inspect --format= IMAGES:1.2.0", Json),
    ("inspect --raw --config --format {{.}} IMAGES:1.2.0", Code),
    ("--override-variant v8 --override-arch arm64 inspect IMAGES:1.2.0", Code),
    (
        "--insecure-policy copy --dest-compress --dest-compress-format gzip IMAGES:1.2.0 oci:compressed:1",
        Code,
    ),
    ("--override-arch nonsense inspect IMAGES:1.2.0", Code),
    ("--override-arch nonsense --insecure-policy copy IMAGES:1.2.0 dir:out", Code),
    ("--command-timeout 1m inspect --raw IMAGES:1.2.0", Bytes),
    ("--command-timeout nonsense inspect --raw IMAGES:1.2.0", Code),
    ("--version nonsense", Code),
    ("copy --help", Code),
    ("inspect --help", Code),
    ("--insecure-policy --policy accept.json copy IMAGES:1.2.0 dir:out", Files),
    ("delete oci:nowhere:1", Differs(2, "2 where an image does not exist")),
    ("delete docker-archive:a.tar:app:1", Code),
    ("logout --all", Code),
    ("sync", Differs(1, "skopeo ends with 0 where an argument is missing")),
    ("sync --src docker --dest dir", Differs(1, "as above")),
    ("sync --src dir --dest docker IMAGES", Differs(1, "as above")),
    ("layers IMAGES:1.2.0", Differs(1, "a command that skopeo hides and gave up")),
];

/// Signature policies of the lines above.
const POLICIES: &[(&str, &str)] = &[
    ("reject.json", r#"{"default":[{"type":"reject"}]}"#),
    (
        "accept.json",
        r#"{"default":[{"type":"reject"}],"transports":{"oci":{"":[{"type":"insecureAcceptAnything"}]}}}"#,
    ),
    ("broken.json", "{"),
    ("unknown.json", r#"{"default":[{"type":"insecureAcceptAnything"}],"more":{}}"#),
    (
        "twice.json",
        r#"{"default":[{"type":"insecureAcceptAnything"}],"default":[{"type":"insecureAcceptAnything"}]}"#,
    ),
    (
        "scope.json",
        r#"{"default":[{"type":"insecureAcceptAnything"}],"transports":{"oci":{"x":[{"type":"reject"}]}}}"#,
    ),
    ("signed.json", r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyData":"AAAA"}]}"#),
];

#[test]
fn commands_on_files_are_as_skopeos() {
    if !has("skopeo") {
        return;
    }
    let pair = Pair { dray: World::new(), skopeo: World::new() };
    for world in [&pair.dray, &pair.skopeo] {
        world.write("manifest.json", "{\"schemaVersion\": 2}\n");
        for (name, policy) in POLICIES {
            world.write(name, policy);
        }
    }
    let lines: Vec<(String, Compare)> =
        LOCAL.iter().map(|(line, compare)| ((*line).to_owned(), *compare)).collect();
    check(&pair, &lines);
}

#[test]
fn commands_on_registries_are_as_skopeos() {
    if !["skopeo", "docker-registry", "htpasswd"].iter().all(|program| has(program)) {
        return;
    }
    let pair = Pair { dray: World::new(), skopeo: World::new() };
    let users = pair.dray.tool("htpasswd", &["-Bbn", "user", "right"]);
    let users = pair.dray.write("users", &users);
    let auth = format!("  htpasswd: {{ realm: here, path: {} }}", users.display());
    let registry = Registry::start(&pair.dray, "registry", &auth);
    // Both work with one registry, in the same order, so that either reads what the other wrote.
    let host = registry.host.as_str();
    let lines: &[(&str, Compare)] = &[
        ("--insecure-policy copy --dest-tls-verify=false IMAGES:1.2.0 docker://HOST/app:1", Code),
        (
            "--insecure-policy copy --dest-creds user:wrong --dest-tls-verify=false IMAGES:1.2.0 docker://HOST/app:1",
            Code,
        ),
        ("--insecure-policy copy --dest-creds user:right IMAGES:1.2.0 docker://HOST/app:1", Code),
        (
            "--insecure-policy copy --all --dest-creds user:right --dest-tls-verify=false IMAGES:1.2.0 docker://HOST/app:1",
            Code,
        ),
        (
            "--insecure-policy copy --all --dest-username user --dest-password right --dest-tls-verify=false IMAGES:2.0.0 docker://HOST/app:2",
            Code,
        ),
        (
            "--insecure-policy copy --dest-username user --dest-tls-verify=false IMAGES:2.0.0 docker://HOST/app:2",
            Code,
        ),
        (
            "--insecure-policy copy --screds user:right --src-tls-verify=false docker://HOST/app:1 dir:old",
            Files,
        ),
        (
            "--insecure-policy copy --dcreds user:right --dest-tls-verify=false IMAGES:1.2.0 docker://HOST/old:1",
            Code,
        ),
        ("sync --src dir --dest docker --dest-creds user:right --dest-tls-verify=false old HOST", Code),
        ("inspect --tls-verify=false docker://HOST/app:1", Code),
        ("inspect --tls-verify=false --creds user:right docker://HOST/app:1", Json),
        ("inspect --tls-verify=false --creds user:right -n docker://HOST/app:1", Json),
        ("inspect --tls-verify=false --creds user:right --raw docker://HOST/app:1", Bytes),
        ("inspect --tls-verify=false --creds user:right --config docker://HOST/app:1", Bytes),
        (
            "inspect --tls-verify=false --creds user:right docker://HOST/app",
            Differs(2, "there is no tag `latest`: 2 as in skopeo 1.22"),
        ),
        ("inspect --tls-verify=false --no-creds docker://HOST/app:1", Code),
        ("list-tags --tls-verify=false --creds user:right docker://HOST/app", Json),
        ("list-tags --tls-verify=false docker://HOST/app", Code),
        ("list-tags --tls-verify=false --creds user:right docker://HOST/app:1", Code),
        ("login --tls-verify=false -u user -p wrong HOST", Code),
        ("login --tls-verify=false -u user -p right HOST", Bytes),
        ("login -u user -p right HOST", Code),
        ("login --get-login HOST", Bytes),
        ("inspect --tls-verify=false docker://HOST/app:2", Json),
        ("inspect --tls-verify=false --no-creds docker://HOST/app:2", Code),
        ("--insecure-policy copy --src-tls-verify=false docker://HOST/app:1 dir:out", Files),
        ("--insecure-policy copy --all --src-tls-verify=false docker://HOST/app:1 oci:out:1", Files),
        (
            "--insecure-policy copy --src-tls-verify=false --dest-tls-verify=false --all docker://HOST/app:1 docker://HOST/copy:1",
            Code,
        ),
        (
            "--insecure-policy copy --src-tls-verify=false docker://HOST/app:none dir:out",
            Differs(2, "as above"),
        ),
        ("sync --src docker --dest dir --src-tls-verify=false HOST/app out", Files),
        ("sync -s docker -d dir --src-tls-verify=false HOST/app:1 out", Files),
        ("sync --src docker --dest dir --all --src-tls-verify=false HOST/app out", Files),
        ("sync --src docker --dest dir --scoped --src-tls-verify=false HOST/app out", Files),
        (
            "sync --src docker --dest dir --append-suffix -x --src-tls-verify=false HOST/app out",
            Differs(0, "skopeo 1.9 has no such flag, and newer ones do"),
        ),
        ("sync --src docker --dest dir --src-tls-verify=false HOST/none out", Code),
        (
            "sync --src docker --dest dir --dry-run --src-tls-verify=false HOST/app out",
            Differs(0, "skopeo makes folders"),
        ),
        (
            "sync --src docker --dest docker --src-tls-verify=false --dest-tls-verify=false --all HOST/app HOST/second",
            Code,
        ),
        (
            "sync --src docker --dest docker --src-tls-verify=false --dest-tls-verify=false --keep-going HOST/app HOST/second",
            Code,
        ),
        ("list-tags --tls-verify=false docker://HOST/second/app", Json),
        ("sync --src dir --dest dir a b", Code),
        ("sync --src nonsense --dest dir a b", Code),
        ("sync --src docker HOST/app out", Code),
        ("sync --dest dir HOST/app out", Code),
        ("sync --src dir --dest docker --dest-tls-verify=false nowhere HOST/third", Code),
        ("sync --src yaml --dest dir nowhere.yml out", Code),
        ("sync --src yaml --dest dir list.yml out", Files),
        ("sync --src yaml --dest dir --scoped list.yml out", Files),
        ("sync --src yaml --dest dir --all list.yml out", Files),
        (
            "sync --src yaml --dest docker --dest-creds user:right --dest-tls-verify=false list.yml HOST/fromyaml",
            Code,
        ),
        ("list-tags --tls-verify=false docker://HOST/fromyaml/app", Json),
        ("sync --src yaml --dest dir regex.yml out", Files),
        (
            "sync --src yaml --dest dir semver.yml out",
            Differs(0, "skopeo 1.9 has no such key, and newer ones do"),
        ),
        (
            "sync --src yaml --dest dir wrong-regex.yml out",
            Differs(1, "skopeo leaves it out and ends with 0"),
        ),
        ("sync --src yaml --dest dir unknown.yml out", Differs(1, "skopeo ignores the key and ends with 0")),
        ("sync --src yaml --dest dir empty.yml out", Differs(1, "skopeo copies nothing and ends with 0")),
        ("inspect --tls-verify=false --creds user:right --format {{.RepoTags}} docker://HOST/app:1", Code),
        ("inspect --tls-verify=false --creds user:right --username user docker://HOST/app:1", Code),
        ("--insecure-policy copy --src-tls-verify=false --multi-arch all docker://HOST/app:1 dir:out", Files),
        (
            "--insecure-policy copy --src-tls-verify=false --src-registry-token nonsense docker://HOST/app:1 dir:out",
            Differs(
                1,
                "dray sends the token that it is given; skopeo drops it where a password is asked for",
            ),
        ),
        ("--insecure-policy copy --src-cert-dir nowhere docker://HOST/app:1 dir:out", Code),
        ("--registries.d nowhere inspect --tls-verify=false docker://HOST/app:1", Code),
        ("logout HOST", Bytes),
        ("logout HOST", Code),
        ("inspect --tls-verify=false docker://HOST/app:2", Code),
    ];
    for world in [&pair.dray, &pair.skopeo] {
        let registry = |what: &str| format!("{host}:\n  tls-verify: false\n  {what}\n");
        for (name, what) in [
            ("list.yml", "images: {app: ['1']}\n  credentials: {username: user, password: right}"),
            ("regex.yml", "images-by-tag-regex: {app: '^[12]$'}"),
            ("semver.yml", "images-by-semver: {app: '>= 1, < 2'}"),
            ("wrong-regex.yml", "images-by-tag-regex: {app: '['}"),
            ("unknown.yml", "imagse: {app: ['1']}"),
            ("empty.yml", "images: {}"),
        ] {
            world.write(name, &registry(what));
        }
    }
    let lines = lines.iter().map(|(line, compare)| (line.replace("HOST", host), *compare));
    check(&pair, &lines.collect::<Vec<_>>());
    for world in [&pair.dray, &pair.skopeo] {
        fs::create_dir_all(world.path("run")).unwrap();
    }
    // What one has synced into a folder, the other one brings into a registry.
    let sync = "sync --src docker --dest dir --all --src-creds user:right --src-tls-verify=false";
    for ran in pair.run(&format!("{sync} {host}/app saved")) {
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    let [ours, theirs] = [&pair.dray, &pair.skopeo].map(|world| world.path("saved").display().to_string());
    let bring = "sync --src dir --dest docker --dest-creds user:right --dest-tls-verify=false --all";
    let [ran, _] = pair.run(&format!("{bring} --digestfile digests {theirs} {host}/ours"));
    assert_eq!(ran.code, 0, "{ran:?}");
    let digests = fs::read_to_string(pair.dray.path("digests")).unwrap();
    assert!(
        digests.lines().count() == 2 && digests.contains(&format!(" docker://{host}/ours/app:1")),
        "{digests}"
    );
    let [_, ran] = pair.run(&format!("{bring} {ours} {host}/theirs"));
    assert_eq!(ran.code, 0, "{ran:?}");
    for name in ["app:1", "app:2"] {
        let raw = |of: &str| {
            let line =
                format!("inspect --raw --creds user:right --tls-verify=false docker://{host}/{of}{name}");
            let [_, ran] = pair.run(&line);
            assert_eq!(ran.code, 0, "{ran:?}");
            ran.out
        };
        assert!(raw("ours/") == raw("") && raw("theirs/") == raw(""), "{name}");
    }
    // Each deletes an image that the other one copied.
    let [ours, _] = pair.run(&format!("delete --tls-verify=false --creds user:right docker://{host}/app:2"));
    assert_eq!(ours.code, 0, "{ours:?}");
    let [_, theirs] =
        pair.run(&format!("inspect --tls-verify=false --creds user:right docker://{host}/app:2"));
    assert!(theirs.code == 1 && theirs.err.contains("manifest unknown"), "{theirs:?}");
}

#[test]
fn an_image_that_must_be_signed_is_not_copied_unchecked() {
    let world = World::new();
    let policy = |requirement: &str| {
        let text = format!(
            r#"{{"default":[{{"type":"insecureAcceptAnything"}}],"transports":{{"oci":{{"":[{requirement}]}}}}}}"#
        );
        world.write("policy.json", &text);
        let arguments = ["skopeo", "--policy", "policy.json", "copy", &format!("{IMAGES}:1.2.0"), "dir:out"];
        world.dray(&arguments)
    };
    for (requirement, text) in [
        (r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}"#, "demands a signature"),
        (r#"{"type":"sigstoreSigned"}"#, "exactly one of a key"),
        (r#"{"type":"reject"}"#, "rejects it"),
        (r#"{"type":"futureKind"}"#, "is no kind of requirement"),
        (r#"{}"#, "missing field `type`"),
    ] {
        let refused = policy(requirement);
        assert!(refused.code == 1 && refused.err.contains(text), "{requirement}: {}", refused.err);
        assert!(!Path::new(&world.path("out")).exists());
    }
    policy(r#"{"type":"insecureAcceptAnything"}"#).ok();
    assert!(world.path("out/manifest.json").exists());
}
