//! Signatures: what skopeo and GnuPG sign is verified, what dray signs they verify, and what is not signed as a policy
//! demands is not copied.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use support::{
    IMAGES, Ran, Registry, World, has,
    memory::{Memory, reply},
};

/// A world with a GnuPG key of Alice, of Bob, and a key pair of sigstore.
struct Keys {
    world: World,
    alice: String,
}

const PASSPHRASE: &str = "a passphrase";

impl Keys {
    /// `None` means that a tool is missing.
    fn new() -> Option<Self> {
        if !has("gpg") || !has("skopeo") || !has("docker-registry") {
            return None;
        }
        let world = World::new();
        let mut keys = Keys { alice: String::new(), world };
        fs::create_dir_all(keys.world.path("home/.gnupg")).unwrap();
        for name in ["alice", "bob"] {
            let user = format!("{name} <{name}@example.com>");
            let generate = ["--passphrase", "", "--quick-generate-key", &user, "ed25519", "sign", "never"];
            keys.gpg(&generate);
            fs::write(keys.world.path(&format!("{name}.gpg")), keys.gpg(&["--export", name])).unwrap();
        }
        fs::write(keys.world.path("alice.secret"), keys.gpg(&["--armor", "--export-secret-keys", "alice"]))
            .unwrap();
        let listed = String::from_utf8(keys.gpg(&["--with-colons", "--list-keys", "alice"])).unwrap();
        let alice = listed.lines().find_map(|line| line.strip_prefix("fpr:::::::::")).unwrap();
        keys.alice = alice.trim_end_matches(':').to_owned();
        keys.world.write("passphrase", &format!("{PASSPHRASE}\n"));
        for name in ["key", "other"] {
            let generate = [
                "skopeo",
                "generate-sigstore-key",
                "--output-prefix",
                name,
                "--passphrase-file",
                "passphrase",
            ];
            keys.world.dray(&generate).ok();
        }
        Some(keys)
    }

    fn gpg(&self, arguments: &[&str]) -> Vec<u8> {
        let output =
            self.world.hermetic("gpg").args(["--batch", "--quiet", "--yes"]).args(arguments).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.path(name)
    }

    /// Writes a policy.json that demands this of images of these transports, and rejects all others.
    fn policy(&self, transports: serde_json::Value) -> String {
        let policy = json!({ "default": [{ "type": "reject" }], "transports": transports });
        let path = self.world.write("policy.json", &policy.to_string());
        path.to_str().unwrap().to_owned()
    }

    fn skopeo(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.world.hermetic("skopeo").args(arguments))
    }

    /// dray, called as skopeo is.
    fn as_skopeo(&self, arguments: &[&str]) -> Ran {
        self.world.dray(&[&["skopeo"], arguments].concat())
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // The agent would stay otherwise.
        let _ = self.world.hermetic("gpgconf").args(["--kill", "gpg-agent"]).status();
    }
}

/// A registry with `app:1` and `app:2`.
fn registry(world: &World) -> Registry {
    let registry = Registry::start(world, "registry", "");
    for (from, to) in [("1.0.0", "1"), ("2.0.0", "2")] {
        let to = format!("docker://{}/app:{to}", registry.host);
        world.dray(&["copy", "--all", &format!("{IMAGES}:{from}"), &to]).ok();
    }
    registry
}

#[test]
fn openpgp_signatures_go_both_ways_with_skopeo() {
    let Some(keys) = Keys::new() else { return };
    let world = &keys.world;
    let registry = registry(world);
    let image = format!("docker://{}/app:1", registry.host);
    let identity = "h.example/app:1";
    // Whoever signs, the other one verifies: by gpg, by a key file, by skopeo.
    world.dray(&["skopeo", "copy", "--src-tls-verify=false", &image, "dir:plain"]).ok();
    let gpg =
        ["skopeo", "copy", "--sign-by", &keys.alice, "--sign-identity", identity, "dir:plain", "dir:gpg"];
    world.dray(&gpg).ok();
    world.dray(&["skopeo", "copy", "dir:plain", "dir:file"]).ok();
    world.dray(&["sign", "--pgp-key", "alice.secret", "--identity", identity, "dir:file"]).ok();
    let by_skopeo = [
        "--insecure-policy",
        "copy",
        "--sign-by",
        &keys.alice,
        "--sign-identity",
        identity,
        "dir:plain",
        "dir:skopeo",
    ];
    keys.skopeo(&by_skopeo).ok();
    for folder in ["gpg", "file", "skopeo"] {
        let verify = [
            "standalone-verify",
            &format!("{folder}/manifest.json"),
            identity,
            &keys.alice,
            &format!("{folder}/signature-1"),
        ];
        keys.skopeo(&verify).ok();
        let said = keys.as_skopeo(&verify).ok().out;
        assert!(said.contains(&format!("Signature verified using fingerprint {}", keys.alice)), "{said}");
        world.dray(&["verify", "--pgp", "alice.gpg", "--identity", identity, &format!("dir:{folder}")]).ok();
        for (keyring, identity, why) in [
            ("bob.gpg", identity, "no key of the keyring made it"),
            ("alice.gpg", "h.example/app:2", "it is for h.example/app:1"),
        ] {
            let refused =
                world.dray(&["verify", "--pgp", keyring, "--identity", identity, &format!("dir:{folder}")]);
            assert!(refused.code == 1 && refused.err.contains(why), "{why}: {}", refused.err);
        }
        // Any change of the manifest, or of one byte of the signature, is found.
        let manifest = fs::read_to_string(keys.path(&format!("{folder}/manifest.json"))).unwrap();
        world.write("changed.json", &format!("{manifest} "));
        let mut verify = verify;
        verify[1] = "changed.json";
        assert_eq!(keys.as_skopeo(&verify).code, 1);
        let signature = fs::read(keys.path(&format!("{folder}/signature-1"))).unwrap();
        for at in (0..signature.len()).step_by(7) {
            let mut changed = signature.clone();
            changed[at] ^= 0x10;
            fs::write(keys.path("changed"), &changed).unwrap();
            let name = format!("{folder}/manifest.json");
            let ran = keys.as_skopeo(&[
                "standalone-verify",
                "--public-key-file",
                "alice.gpg",
                &name,
                identity,
                "any",
                "changed",
            ]);
            // A byte that says nothing (a hint, a time that is not hashed) may change; what is signed may not.
            assert!(ran.code == 1 || ran.out.contains(&keys.alice), "byte {at}: {}", ran.err);
        }
    }
    // A policy is obeyed by both in the same way.
    let signed_by = |key: &str| {
        let path = keys.path(key);
        let identity = json!({ "type": "exactReference", "dockerReference": identity });
        json!({ "dir": { "": [{ "type": "signedBy", "keyType": "GPGKeys", "keyPath": path, "signedIdentity": identity }] } })
    };
    for (key, code) in [("alice.gpg", 0), ("bob.gpg", 1)] {
        let policy = keys.policy(signed_by(key));
        for (tool, out) in [("skopeo", "dir:by-skopeo"), ("dray", "dir:by-dray")] {
            for folder in ["gpg", "file", "skopeo"] {
                let copy = ["--policy", &policy, "copy", &format!("dir:{folder}"), out];
                let ran = if tool == "skopeo" { keys.skopeo(&copy) } else { keys.as_skopeo(&copy) };
                assert_eq!(ran.code, code, "{tool} {folder} {key}: {}", ran.err);
            }
        }
    }
    assert_eq!(
        keys.as_skopeo(&["--policy", &keys.policy(signed_by("bob.gpg")), "copy", "dir:plain", "dir:x"]).code,
        1
    );
}

#[test]
fn a_lookaside_is_read_and_written() {
    let Some(keys) = Keys::new() else { return };
    let world = &keys.world;
    let registry = registry(world);
    let name = format!("{}/app", registry.host);
    let lookaside = keys.path("lookaside");
    let yaml = format!(
        "docker:\n  {name}:\n    lookaside: file://{0}\n    lookaside-staging: file://{0}\n",
        lookaside.display()
    );
    world.write("d/app.yaml", &yaml);
    // The folder of the user is one place where registries.d is looked for.
    world.write("config/containers/registries.d/app.yaml", &yaml);
    let [one, two] = ["1", "2"].map(|tag| format!("docker://{name}:{tag}"));
    world.dray(&["sign", "--gpg", &keys.alice, &one]).ok();
    world.dray(&["sign", "--pgp-key", "alice.secret", &two]).ok();
    assert_eq!(fs::read_dir(lookaside.join("")).unwrap().count(), 2);
    let policy = keys.policy(json!({ "docker": { &name: [
        { "type": "signedBy", "keyType": "GPGKeys", "keyPath": keys.path("alice.gpg") },
    ] } }));
    for image in [&one, &two] {
        let copy = [
            "--policy",
            &policy,
            "--registries.d",
            "d",
            "copy",
            "--all",
            "--remove-signatures",
            "--src-tls-verify=false",
            image,
        ];
        keys.as_skopeo(&[&copy[..], &["dir:by-dray"]].concat()).ok();
        world.dray(&["verify", "--pgp", "alice.gpg", image]).ok();
    }
    // skopeo wants a signature of each image of an index, and signs them so.
    let by_skopeo = [
        "--insecure-policy",
        "--registries.d",
        "d",
        "copy",
        "--all",
        "--sign-by",
        &keys.alice,
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        &one,
        &format!("docker://{name}:3"),
    ];
    keys.skopeo(&by_skopeo).ok();
    world.dray(&["verify", "--pgp", "alice.gpg", &format!("docker://{name}:3")]).ok();
    // An image of the index has its own signature.
    let one_image =
        ["--policy", &policy, "--registries.d", "d", "copy", "--remove-signatures", "--src-tls-verify=false"];
    keys.as_skopeo(&[&one_image[..], &[&format!("docker://{name}:3"), "dir:one"]].concat()).ok();
    // A signature of another tag is no signature of this one, even of the same content.
    let refused = world.dray(&[
        "verify",
        "--pgp",
        "alice.gpg",
        &format!("docker://{name}:3"),
        "--identity",
        &format!("{name}:2"),
    ]);
    assert!(refused.code == 1 && refused.err.contains("it is for"), "{}", refused.err);
    // An image that is read at a mirror has its signatures beneath the name of the mirror.
    let mirrored = format!("{}/origin", registry.host);
    let conf = format!(
        "[[registry]]\nlocation = \"{mirrored}\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"{name}\"\ninsecure = true\n"
    );
    world.write("mirrors.conf", &conf);
    let as_origin = ["--sign-identity", &format!("{mirrored}:4")];
    let by_skopeo: Vec<&str> = by_skopeo[..by_skopeo.len() - 2].to_vec();
    let four = format!("docker://{name}:4");
    keys.skopeo(&[&by_skopeo[..], &as_origin, &[one.as_str(), four.as_str()]].concat()).ok();
    let strict = keys.policy(json!({ "docker": { &mirrored: [
        { "type": "signedBy", "keyType": "GPGKeys", "keyPath": keys.path("alice.gpg") },
    ] } }));
    let origin = format!("docker://{mirrored}:4");
    let read = ["--policy", &strict, "--registries.d", "d", "--registries-conf", "mirrors.conf", "copy"];
    let read = [&read[..], &["--remove-signatures", &origin, "dir:mirrored"]].concat();
    keys.as_skopeo(&read).ok();
    // What is deleted leaves no signatures behind.
    let count = || fs::read_dir(&lookaside).map_or(0, |entries| entries.count());
    let before = fs::read_dir(lookaside.join("")).unwrap().count();
    let raw = world.tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &two]);
    let kept = lookaside.join(format!("app@sha256={}", sha256(raw.as_bytes())));
    assert!(kept.join("signature-1").exists());
    let delete = ["--registries.d", "d", "delete", "--tls-verify=false", &two];
    keys.as_skopeo(&delete).ok();
    assert!(!kept.exists() && count() < before, "{}", kept.display());
    // Whoever hides the lookaside hides the signatures.
    fs::remove_dir_all(&lookaside).unwrap();
    let hidden = world.dray(&["verify", "--pgp", "alice.gpg", &one]);
    assert!(hidden.code == 1 && hidden.err.contains("it has no signature"), "{}", hidden.err);
}

/// The tag beneath which signatures of a digest are.
fn tag_of(digest: &str) -> String {
    format!("{}.sig", digest.replace(':', "-"))
}

#[test]
fn a_rule_copies_only_what_is_signed() {
    let Some(keys) = Keys::new() else { return };
    let world = &keys.world;
    let registry = registry(world);
    let name = format!("docker://{}/app", registry.host);
    let sign = ["sign", "--key", "key.private", "--passphrase-file", "passphrase", &format!("{name}:1")];
    world.dray(&sign).ok();
    let policy = |require: &str| {
        let rule = format!(
            "[[rule]]\nfrom = \"{name}\"\nto = \"oci:out\"\ntags = [\"1\", \"2\"]\nrequire = {require}\n"
        );
        world.write("dray.toml", &format!("version = 1\n{rule}"));
    };
    policy("[{ signed = { key = \"key.pub\" } }]");
    world.dray(&["check"]).ok();
    let planned = world.dray(&["plan"]);
    assert!(
        planned.code == 1 && planned.out.contains("the rule `app` demands a signature"),
        "{}\n{}",
        planned.out,
        planned.err
    );
    registry.requests();
    let synced = world.dray(&["sync", "--keep-going", "--output", "json"]);
    assert_eq!(synced.code, 1, "{}", synced.err);
    let report = synced.json();
    assert_eq!((&report["summary"]["copied"], &report["summary"]["failed"]), (&json!(1), &json!(1)));
    // What is not signed: its manifest was read, and where signatures could be, and no blob of it.
    let asked = registry.requests();
    let second = world.digest(&format!("{name}:2"), &[]);
    assert!(asked.iter().any(|request| request.contains(&tag_of(&second))), "{asked:?}");
    let listed = world.tool("skopeo", &["inspect", "--raw", "oci:out:1"]);
    assert!(!listed.is_empty());
    assert_ne!(Ran::of(world.hermetic("skopeo").args(["inspect", "--raw", "oci:out:2"])).code, 0);
    // A saved plan is checked again when it is applied.
    let open = fs::read_to_string(keys.path("dray.toml")).unwrap().replace("require", "# require");
    world.write("dray.toml", &open);
    fs::remove_dir_all(keys.path("out")).unwrap();
    world.dray(&["plan", "--out", "plan.jsonl"]).ok();
    policy("{ signed = { key = \"other.pub\" } }");
    let applied = world.dray(&["apply", "plan.jsonl", "--policy", "dray.toml"]);
    assert_ne!(applied.code, 0, "{}", applied.out);
    // Mistakes are told before anything moves.
    for (require, why) in [
        ("[{ signed = { key = \"missing.pub\" } }]", "missing.pub"),
        ("[{ signed = { key = \"passphrase\" } }]", "no public key"),
        ("[{ signed = { keys = \"key.pub\" } }]", "unknown field"),
        ("[{ signed = {} }]", "exactly one of"),
        ("[]", "would demand nothing"),
        ("[{ sigend = { key = \"key.pub\" } }]", "signed"),
        ("[{ signed = { key = \"key.pub\" }, more = {} }]", "one key"),
        ("[{ signed = { key = \"key.pub\", identity = \"tag\" } }]", "\"repository\""),
    ] {
        policy(require);
        let checked = world.dray(&["check"]);
        assert!(checked.code == 2 && checked.err.contains(why), "{require}: {}", checked.err);
        assert!(checked.err.contains("dray.toml"), "{}", checked.err);
    }
}

#[test]
fn what_a_registry_shows_of_signatures_is_not_believed() {
    let Some(keys) = Keys::new() else { return };
    let world = &keys.world;
    let registry = Memory::start();
    let host = registry.host().to_owned();
    let digests: Vec<String> =
        ["1", "2"].map(|tag| registry.image("app", tag, format!("layer {tag}").as_bytes())).into();
    let elsewhere = registry.image("else", "1", b"layer 1");
    assert_eq!(elsewhere, digests[0]);
    let key = ["--key", "key.private", "--passphrase-file", "passphrase"];
    let sign = |form: &str, image: &str| {
        let image = format!("docker://{host}/{image}");
        world.dray(&[&["sign"], &key[..], &["--as", form, &image]].concat()).ok();
    };
    let verify = |image: &str, more: &[&str]| {
        let image = format!("docker://{host}/{image}");
        world.dray(&[&["verify", "--key", "key.pub"], more, &[&image]].concat())
    };
    let refused = |image: &str, more: &[&str], why: &str| {
        let ran = verify(image, more);
        assert!(ran.code == 1 && ran.err.contains(why), "{image} {more:?}: {}\n{}", ran.out, ran.err);
    };
    sign("tag", "app:1");
    verify("app:1", &[]).ok();
    verify("app:1", &["--identity", "exact"]).ok();
    // Signing again adds nothing but another signature, and the old one stays.
    sign("tag", "app:1");
    verify("app:1", &["--identity", "exact"]).ok();
    // Another image that is offered under the tag has no signature.
    refused("app:2", &[], "it has no signature");
    // The signatures of one image are offered for another one.
    let signatures = {
        let held = registry.held.lock().unwrap();
        held.manifests[&("app".to_owned(), tag_of(&digests[0]))].clone()
    };
    registry.put("app", &tag_of(&digests[1]), &signatures.0, &signatures.1);
    refused("app:2", &[], "it is for the manifest");
    // The same content in another repository, with the signatures that were made for the first one.
    let copied: Vec<_> = registry.held.lock().unwrap().blobs.clone().into_iter().collect();
    for ((_, digest), content) in copied {
        registry.held.lock().unwrap().blobs.insert(("else".into(), digest), content);
    }
    registry.put("else", &tag_of(&digests[0]), &signatures.0, &signatures.1);
    refused("else:1", &[], "it is for");
    verify("else:1", &["--identity", "any"]).ok();
    // A bundle names no image, so it needs to be said that this is enough.
    sign("referrer", "app:2");
    refused("app:2", &[], "names no image");
    verify("app:2", &["--identity", "any"]).ok();
    let other =
        world.dray(&["verify", "--key", "other.pub", "--identity", "any", &format!("docker://{host}/app:2")]);
    assert!(other.code == 1 && other.err.contains("none of the trusted keys"), "{}", other.err);
    // A payload whose signature was made for other bytes.
    let payload = json!({
        "critical": { "identity": { "docker-reference": format!("{host}/app") },
            "image": { "docker-manifest-digest": digests[1] }, "type": "cosign container image signature" },
        "optional": null,
    })
    .to_string();
    let forged = registry.blob("app", payload.as_bytes());
    let config = registry.blob("app", b"{}");
    for (signature, why) in [
        (STANDARD.encode("forged"), "none of the trusted keys"),
        ("%".into(), "base64"),
        (String::new(), "none of the trusted keys"),
    ] {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
            "layers": [{ "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "digest": forged,
                "size": payload.len(), "annotations": { "dev.cosignproject.cosign/signature": signature } }],
        });
        registry.put(
            "app",
            &tag_of(&digests[1]),
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().as_bytes(),
        );
        refused("app:2", &[], why);
    }
    // No key, no verdict: what there is, is told.
    let nothing = world.dray(&["verify", &format!("docker://{host}/app:1")]);
    assert!(nothing.code == 1 && nothing.err.contains("no key is named"), "{}", nothing.err);
    assert!(nothing.err.contains("a sigstore signature by a key"), "{}", nothing.err);
}

#[test]
fn only_what_was_checked_is_copied() {
    let Some(keys) = Keys::new() else { return };
    let world = &keys.world;
    let lies = Arc::new(AtomicBool::new(false));
    let asked_tag = Arc::new(AtomicUsize::new(0));
    let child = Arc::new(Mutex::new(String::new()));
    let registry = {
        let (lies, asked_tag, child) = (lies.clone(), asked_tag.clone(), child.clone());
        Memory::odd(move |asked, held| {
            if !lies.load(Ordering::Relaxed) || asked.method != "GET" {
                return None;
            }
            // What was signed is shown once. Then its image is not there, and the tag names another one.
            if asked.path.ends_with("/manifests/rel") && asked_tag.fetch_add(1, Ordering::Relaxed) > 0 {
                let (media_type, body) =
                    held.lock().unwrap().manifests[&("app".into(), "evil".into())].clone();
                return Some(("200 OK", format!("Content-Type: {media_type}\r\n"), body));
            }
            let hidden = child.lock().unwrap().clone();
            asked
                .path
                .ends_with(&format!("/manifests/{hidden}"))
                .then(|| ("404 Not Found", String::new(), Vec::new()))
        })
    };
    let host = registry.host().to_owned();
    let image = registry.image("app", "good", b"good");
    registry.image("app", "evil", b"evil");
    let (manifest, index) =
        ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json");
    let size = registry.held.lock().unwrap().manifests[&("app".into(), image.clone())].1.len();
    let body = json!({ "schemaVersion": 2, "mediaType": index, "manifests": [{ "mediaType": manifest, "digest": image,
        "size": size, "platform": { "os": "linux", "architecture": "amd64" } }] });
    registry.put("app", "rel", index, body.to_string().as_bytes());
    let name = format!("docker://{host}/app:rel");
    world.dray(&["sign", "--key", "key.private", "--passphrase-file", "passphrase", &name]).ok();
    let rule = format!(
        "[[rule]]\nfrom = \"{name}\"\nto = \"oci:OUT\"\nplatforms = [\"amd64\"]\nrequire = {{ signed = {{ key = \"key.pub\" }} }}\n"
    );
    let copies = |out: &str, index: &str| {
        asked_tag.store(0, Ordering::Relaxed);
        let rule = rule.replace("OUT", out).replace("platforms", &format!("index = \"{index}\"\nplatforms"));
        world.write("dray.toml", &format!("version = 1\n{rule}"));
        world.dray(&["sync"])
    };
    for mode in ["keep", "trim"] {
        copies(&format!("honest-{mode}"), mode).ok();
    }
    let policy = json!({ "default": [{ "type": "sigstoreSigned", "keyPath": keys.path("key.pub"), "signedIdentity": { "type": "matchRepository" } }] });
    world.write("config/containers/policy.json", &policy.to_string());
    lies.store(true, Ordering::Relaxed);
    *child.lock().unwrap() = image;
    for mode in ["keep", "trim"] {
        let ran = copies(&format!("lied-to-{mode}"), mode);
        assert_eq!(ran.code, 1, "{mode}: {}\n{}", ran.out, ran.err);
    }
    asked_tag.store(0, Ordering::Relaxed);
    let ran = world.dray(&["copy", "--platform", "linux/amd64", &name, "dir:one"]);
    assert_eq!(ran.code, 1, "{}\n{}", ran.out, ran.err);
    for folder in ["lied-to-keep", "lied-to-trim", "one"] {
        let found = Command::new("grep").args(["-rl", "evil"]).arg(keys.path(folder)).output().unwrap();
        assert!(found.stdout.is_empty(), "{folder}");
    }
}

#[test]
fn only_what_was_written_is_signed() {
    let Some(keys) = Keys::new() else { return };
    let world = &keys.world;
    // A destination that shows another image than was written to it.
    let registry = Memory::odd(|asked, held| {
        let held = held.lock().unwrap();
        let (media_type, body) = held.manifests.get(&("app".into(), "evil".into()))?.clone();
        (asked.method == "GET" && asked.path.ends_with("/manifests/rel"))
            .then(|| ("200 OK", format!("Content-Type: {media_type}\r\n"), body))
    });
    let evil = registry.image("app", "evil", b"evil");
    let to = format!("docker://{}/app:rel", registry.host());
    world.write("policy.json", r#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
    let copy = [
        "--policy",
        "policy.json",
        "copy",
        "--dest-tls-verify=false",
        "--sign-by-sigstore-private-key",
        "key.private",
        "--sign-passphrase-file",
        "passphrase",
        &format!("{IMAGES}:1.0.0"),
        &to,
    ];
    keys.as_skopeo(&copy).ok();
    let held = registry.held.lock().unwrap();
    assert!(!held.manifests.contains_key(&("app".to_owned(), tag_of(&evil))));
    assert!(held.manifests.keys().any(|(_, tag)| tag.ends_with(".sig")));
}

#[test]
fn old_copies_of_keys_and_strange_messages_vouch_for_nothing() {
    let Some(keys) = Keys::new() else { return };
    let world = &keys.world;
    let manifest = world.write("m.json", "{}\n");
    let sign = ["standalone-sign", "m.json", "h.example/a:1", &keys.alice, "-o", "signature"];
    keys.as_skopeo(&sign).ok();
    let verify = |keyring: &str, signature: &str| {
        keys.as_skopeo(&[
            "standalone-verify",
            "--public-key-file",
            keyring,
            "m.json",
            "h.example/a:1",
            "any",
            signature,
        ])
    };
    verify("alice.gpg", "signature").ok();
    // Nothing may follow the message: it would be signed by nobody.
    let signature = fs::read(keys.path("signature")).unwrap();
    for (name, more) in [("twice", &signature[..]), ("junk", b"\xcb\x01a"), ("text", b"text")] {
        fs::write(keys.path(name), [&signature[..], more].concat()).unwrap();
        assert_eq!(verify("alice.gpg", name).code, 1, "{name}");
    }
    // The key is revoked. An old copy of it beside the new one does not bring it back.
    let certificate = fs::read_dir(keys.path("home/.gnupg/openpgp-revocs.d")).unwrap();
    let certificate = certificate
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&keys.alice));
    let text = fs::read_to_string(certificate.unwrap()).unwrap().replace(":-----BEGIN", "-----BEGIN");
    let revocation = world.write("revocation", &text);
    keys.gpg(&["--import", revocation.to_str().unwrap()]);
    fs::write(keys.path("revoked.gpg"), keys.gpg(&["--export", "alice"])).unwrap();
    let [old, new] = ["alice.gpg", "revoked.gpg"].map(|name| fs::read(keys.path(name)).unwrap());
    fs::write(keys.path("both.gpg"), [&old[..], &new[..]].concat()).unwrap();
    fs::write(keys.path("reverse.gpg"), [&new[..], &old[..]].concat()).unwrap();
    for keyring in ["revoked.gpg", "both.gpg", "reverse.gpg"] {
        let ran = verify(keyring, "signature");
        assert!(ran.code == 1 && ran.err.contains("was revoked"), "{keyring}: {}", ran.err);
    }
    // What is given as a fingerprint is no option of gpg.
    let injected = keys.path("injected");
    let fingerprint = format!("--output={},{}", injected.display(), keys.alice);
    keys.as_skopeo(&[
        "standalone-verify",
        "--",
        manifest.to_str().unwrap(),
        "h.example/a:1",
        &fingerprint,
        "signature",
    ]);
    assert!(!injected.exists());
}

#[test]
fn encrypted_layers_go_both_ways_with_skopeo() {
    if !has("skopeo") || !has("openssl") {
        return;
    }
    let world = World::new();
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(world.path("")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "rsa.key"]);
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "ec.key"]);
    for name in ["rsa", "ec"] {
        openssl(&["pkey", "-in", &format!("{name}.key"), "-pubout", "-out", &format!("{name}.pub")]);
    }
    let image = format!("{IMAGES}:1.2.0");
    let run = |tool: &str, arguments: &[&str]| {
        let arguments = [&["--insecure-policy", "copy"], arguments].concat();
        match tool {
            "skopeo" => Ran::of(world.hermetic("skopeo").args(arguments)),
            _ => world.dray(&[&["skopeo"], &arguments[..]].concat()),
        }
    };
    let raw = |reference: &str| world.tool("skopeo", &["inspect", "--raw", reference]);
    run("skopeo", &["--all", &image, "oci:plain:1"]).ok();
    for (from, to) in [("dray", "skopeo"), ("skopeo", "dray"), ("dray", "dray")] {
        for key in ["rsa", "ec"] {
            let [hidden, shown] = ["hidden", "shown"].map(|what| format!("oci:{what}-{key}-{from}-{to}:1"));
            let public = format!("jwe:{key}.pub");
            run(from, &["--all", "--encryption-key", &public, &image, &hidden]).ok();
            run(to, &["--all", "--decryption-key", &format!("{key}.key"), &hidden, &shown]).ok();
            let layers = |reference: &str| {
                let index: serde_json::Value = serde_json::from_str(&raw(reference)).unwrap();
                let images = index["manifests"].as_array().unwrap().clone();
                let path = reference.trim_start_matches("oci:").trim_end_matches(":1");
                images
                    .iter()
                    .map(|image| {
                        let digest = image["digest"].as_str().unwrap().replace(':', "/");
                        let text = fs::read_to_string(world.path(&format!("{path}/blobs/{digest}"))).unwrap();
                        serde_json::from_str::<serde_json::Value>(&text).unwrap()["layers"].clone()
                    })
                    .collect::<Vec<_>>()
            };
            assert_eq!(layers(&shown), layers("oci:plain:1"), "{from} {to} {key}");
            assert!(layers(&hidden)[0].to_string().contains("+encrypted"));
            // The other key opens nothing, and nothing is written.
            let other = if key == "rsa" { "ec.key" } else { "rsa.key" };
            let refused = run("dray", &["--all", "--decryption-key", other, &hidden, "oci:never:1"]);
            assert!(
                refused.code == 1 && refused.err.contains("none of the keys opens it"),
                "{}",
                refused.err
            );
            assert!(!world.path("never").exists());
        }
    }
    // One layer, for several recipients.
    let several = [
        "--encryption-key",
        "jwe:rsa.pub",
        "--encryption-key",
        "jwe:ec.pub",
        "--encrypt-layer",
        "-1",
        &image,
        "oci:one:1",
    ];
    run("dray", &several).ok();
    let manifest = raw("oci:one:1");
    assert_eq!(manifest.matches("+encrypted").count(), 1, "{manifest}");
    for key in ["rsa.key", "ec.key"] {
        run("skopeo", &["--decryption-key", key, "oci:one:1", &format!("oci:opened-{key}:1")]).ok();
    }
    // PKCS #7: skopeo writes it, and OpenSSL reads what dray writes.
    openssl(&["req", "-x509", "-key", "rsa.key", "-subj", "/CN=rsa", "-days", "2", "-out", "rsa.pem"]);
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "two.key"]);
    openssl(&["req", "-x509", "-key", "two.key", "-subj", "/CN=two", "-days", "2", "-out", "two.pem"]);
    for from in ["skopeo", "dray"] {
        let hidden = format!("oci:pkcs7-{from}:1");
        let recipients = ["--encryption-key", "pkcs7:rsa.pem", "--encryption-key", "pkcs7:two.pem"];
        run(from, &[&recipients[..], &[&image, &hidden]].concat()).ok();
        for key in ["rsa.key", "two.key"] {
            let shown = format!("oci:pkcs7-{from}-{key}:1");
            run("dray", &["--decryption-key", key, &hidden, &shown]).ok();
            let layer = |text: &str| {
                let manifest: serde_json::Value = serde_json::from_str(text).unwrap();
                manifest["layers"].clone()
            };
            run("skopeo", &[&image, "oci:single:1"]).ok();
            assert_eq!(layer(&raw(&shown)), layer(&raw("oci:single:1")), "{from} {key}");
        }
        let refused = run("dray", &["--decryption-key", "ec.key", &hidden, "oci:never:1"]);
        assert!(refused.err.contains("none of the keys opens it"), "{}", refused.err);
    }
    let manifest: serde_json::Value = serde_json::from_str(&raw("oci:pkcs7-dray:1")).unwrap();
    let wrapped = manifest["layers"][0]["annotations"]["org.opencontainers.image.enc.keys.pkcs7"].as_str();
    fs::write(world.path("wrapped.der"), STANDARD.decode(wrapped.unwrap()).unwrap()).unwrap();
    let cms = ["cms", "-decrypt", "-inform", "DER", "-in", "wrapped.der", "-inkey", "two.key", "-out"];
    openssl(&[&cms[..], &["opened.json", "-recip", "two.pem"]].concat());
    assert!(fs::read_to_string(world.path("opened.json")).unwrap().contains("symkey"));
    // Keys in DER are taken, too.
    openssl(&["pkey", "-in", "ec.key", "-pubout", "-outform", "DER", "-out", "ec.pub.der"]);
    openssl(&["pkey", "-in", "ec.key", "-outform", "DER", "-out", "ec.key.der"]);
    openssl(&["x509", "-in", "rsa.pem", "-outform", "DER", "-out", "rsa.der"]);
    let der = ["--encryption-key", "jwe:ec.pub.der", "--encryption-key", "pkcs7:rsa.der"];
    run("dray", &[&der[..], &[&image, "oci:der:1"]].concat()).ok();
    run("skopeo", &["--decryption-key", "ec.key.der", "oci:der:1", "oci:der-shown:1"]).ok();
    run("dray", &["--decryption-key", "ec.key.der", "oci:der:1", "oci:der-shown-too:1"]).ok();
    // A key with a passphrase.
    openssl(&["pkey", "-in", "rsa.key", "-aes256", "-passout", "pass:hidden", "-out", "locked.key"]);
    openssl(&["rsa", "-in", "rsa.key", "-aes256", "-traditional", "-passout", "pass:x", "-out", "old.key"]);
    world.write("passphrase", "hidden\n");
    for (number, spec) in ["pass=hidden", "file=passphrase", "hidden"].iter().enumerate() {
        let (key, shown) = (format!("locked.key:{spec}"), format!("oci:unlocked-{number}:1"));
        let ran = run("dray", &["--decryption-key", &key, "oci:pkcs7-dray:1", &shown]).ok();
        assert_eq!(ran.err.contains("can read the passphrase"), !spec.starts_with("file="), "{}", ran.err);
    }
    for (key, why) in [
        ("locked.key", "it needs a passphrase"),
        ("locked.key:pass=other", "the passphrase does not open it"),
        ("locked.key:file=nowhere", "No such file"),
        ("locked.key:fd=x", "no number"),
        ("old.key:pass=x", "openssl pkcs8 -topk8"),
    ] {
        let ran = run("dray", &["--decryption-key", key, "oci:pkcs7-dray:1", "oci:never:1"]);
        assert!(ran.code == 1 && ran.err.contains(why), "{key}: {}", ran.err);
    }
    for (wrong, why) in [
        (&["--encryption-key", "pkcs7:rsa.pub"][..], "no certificate"),
        (&["--encryption-key", "pgp:x"], "pgp:"),
        (&["--encryption-key", "rsa.pub"], "no protocol"),
        (&["--encryption-key", "jwe:rsa.key"], "no public key"),
        (&["--encryption-key", "jwe:rsa.pub", "--encrypt-layer", "9"], "no layer 9"),
        (&["--encrypt-layer", "0"], "needs --encryption-key"),
        (&["--decryption-key", "rsa.pub"], "no private key"),
    ] {
        let ran = run("dray", &[wrong, &[&image, "oci:never:1"]].concat());
        assert!(ran.code == 1 && ran.err.contains(why), "{wrong:?}: {}", ran.err);
        assert!(!world.path("never").exists());
    }
}

#[test]
fn a_verifier_of_one_s_own_decides() {
    let wasm = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/plugins/attested/attested.wasm");
    if !wasm.is_file() {
        assert!(std::env::var_os("DRAY_TEST_ALL").is_none(), "attested.wasm is not built");
        eprintln!("left out: build it with `cargo xtask plugins examples/plugins/attested`");
        return;
    }
    let world = World::new();
    let registry = Memory::start();
    let digest = registry.image("app", "1", b"layer");
    let size = registry.held.lock().unwrap().manifests[&("app".into(), digest.clone())].1.len();
    let attest = |text: &str| {
        let (manifest, kind) =
            ("application/vnd.oci.image.manifest.v1+json", "application/vnd.example.review");
        let layer = registry.blob("app", text.as_bytes());
        let config = registry.blob("app", b"{}");
        let body = json!({ "schemaVersion": 2, "mediaType": manifest, "artifactType": kind,
            "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2 },
            "layers": [{ "mediaType": "text/plain", "digest": layer, "size": text.len() }],
            "subject": { "mediaType": manifest, "digest": digest, "size": size } });
        let body = body.to_string();
        let own = format!("sha256:{}", sha256(body.as_bytes()));
        registry.put("app", &own, manifest, body.as_bytes());
        let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
            { "mediaType": manifest, "digest": own, "size": body.len(), "artifactType": kind }] });
        registry.put(
            "app",
            &digest.replace(':', "-"),
            "application/vnd.oci.image.index.v1+json",
            index.to_string().as_bytes(),
        );
    };
    let sync = |require: &str| {
        let rule = format!(
            "[[rule]]\nfrom = \"docker://{}/app:1\"\nto = \"oci:out\"\nrequire = [{require}]\n",
            registry.host()
        );
        world.write("dray.toml", &format!("version = 1\n[plugin.attested]\nsource = {wasm:?}\n{rule}"));
        world.dray(&["sync"])
    };
    let approved =
        "{ attested = { artifact-type = \"application/vnd.example.review\", says = \"approved\" } }";
    for (text, why) in [("", "it has no attestation of the type"), ("rejected", "does not say approved")] {
        if !text.is_empty() {
            attest(text);
        }
        let ran = sync(approved);
        assert!(ran.code == 1 && ran.err.contains(why), "{text}: {}", ran.err);
        assert!(!world.path("out/index.json").exists());
    }
    attest("approved by everybody");
    assert!(sync(approved).ok().out.contains("1 image copied"));
    for (require, why) in [
        ("{ attested = { artifact-type = \"x\", says = \"y\" } }", "write a media type"),
        ("{ attested = { says = \"y\" } }", "artifact-type"),
        ("{ nobody = {} }", "what [plugin] names"),
    ] {
        let ran = sync(require);
        assert!(ran.code == 2 && ran.err.contains(why), "{require}: {}", ran.err);
    }
}

#[test]
fn bundles_are_proven_by_logs_and_dated_by_authorities() {
    let Some(keys) = Keys::new() else { return };
    let world = &keys.world;
    certificates(world);
    let run = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(world.path("")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    // A log with a key of Ed25519, as Rekor 2 has.
    run(&["genpkey", "-algorithm", "ED25519", "-out", "log.key"]);
    run(&["pkey", "-in", "log.key", "-pubout", "-out", "log.pub"]);
    let log_key = run(&["pkey", "-in", "log.key", "-pubout", "-outform", "DER"]);
    // Two authorities that sign times, of which one is trusted.
    for name in ["tsa", "other-tsa"] {
        let root = format!("{name}-root");
        let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let (key, pem) = (format!("{root}.key"), format!("{root}.pem"));
        let request = ["req", "-x509", "-subj", "/CN=root", "-days", "2", "-keyout", &key, "-out", &pem];
        run(&[&request[..], &ec].concat());
        world
            .write("tsa.ext", "extendedKeyUsage=critical,timeStamping\nkeyUsage=critical,digitalSignature\n");
        let (own, csr, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        run(&[&["req", "-new", "-subj", "/CN=tsa", "-keyout", &own, "-out", &csr][..], &ec].concat());
        let sign =
            ["x509", "-req", "-in", &csr, "-CA", &pem, "-CAkey", &key, "-CAcreateserial", "-days", "2"];
        run(&[&sign[..], &["-extfile", "tsa.ext", "-out", &certificate]].concat());
    }
    world.write(
        "tsa.cnf",
        "[tsa]\ndefault_tsa=one\n[one]\nserial=serial\ndefault_policy=1.2.3.4.1\ndigests=sha256\nsigner_digest=sha256\n",
    );
    world.write("serial", "01\n");
    let stamp = |name: &str, signature: &[u8]| {
        fs::write(world.path("stamped"), signature).unwrap();
        run(&["ts", "-query", "-data", "stamped", "-sha256", "-cert", "-out", "query"]);
        let (key, signer) = (format!("{name}.key"), format!("{name}.pem"));
        let reply = ["ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query", "-inkey", &key, "-signer"];
        run(&[&reply[..], &[&signer, "-out", "answer"]].concat());
        STANDARD.encode(fs::read(world.path("answer")).unwrap())
    };

    let registry = Memory::start();
    let host = registry.host().to_owned();
    let digest = registry.image("app", "1", b"layer");
    let manifest = registry.held.lock().unwrap().manifests[&("app".into(), digest.clone())].1.clone();
    let signature = signed_with(world, "leaf.key", &manifest);
    let der = run(&["x509", "-in", "leaf.pem", "-outform", "DER"]);
    let base = |bytes: &[u8]| STANDARD.encode(bytes);
    let hash = |parts: &[&[u8]]| dray_core::Digest::of(&parts.concat()).hex().to_owned();
    let raw = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let body = json!({ "apiVersion": "0.0.2", "kind": "hashedrekord", "spec": { "hashedRekordV002": {
        "data": { "algorithm": "SHA2_256", "digest": base(&raw(&sha256(&manifest))) },
        "signature": { "content": signature, "verifier": {
            "keyDetails": "PKIX_ECDSA_P256_SHA_256", "x509Certificate": { "rawBytes": base(&der) } } } } } })
    .to_string();
    // The entry is the second of two.
    let leaf = raw(&hash(&[&[0], body.as_bytes()]));
    let first = raw(&hash(&[&[0], b"first"]));
    let root = base(&raw(&hash(&[&[1], &first, &leaf])));
    let note = |text: &str| {
        fs::write(world.path("note"), text).unwrap();
        let signed = run(&["pkeyutl", "-sign", "-inkey", "log.key", "-rawin", "-in", "note"]);
        let hint = raw(&hash(&[b"log.example.com\n\x01", &log_key[12..]]));
        format!("{text}\n\u{2014} log.example.com {}\n", base(&[&hint[..4], &signed].concat()))
    };
    let checkpoint = note(&format!("log.example.com\n2\n{root}\n"));
    let good = json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {
            "certificate": { "rawBytes": base(&der) },
            "tlogEntries": [{
                "logIndex": "1", "logId": { "keyId": base(b"log") },
                "kindVersion": { "kind": "hashedrekord", "version": "0.0.2" },
                "inclusionProof": { "logIndex": "1", "rootHash": root, "treeSize": "2",
                    "hashes": [base(&first)], "checkpoint": { "envelope": checkpoint } },
                "canonicalizedBody": base(body.as_bytes()),
            }],
            "timestampVerificationData": { "rfc3161Timestamps": [
                { "signedTimestamp": stamp("tsa", &STANDARD.decode(&signature).unwrap()) }] },
        },
        "messageSignature": { "signature": signature,
            "messageDigest": { "algorithm": "SHA2_256", "digest": base(&raw(&sha256(&manifest))) } },
    });
    let publish = |bundle: &serde_json::Value| {
        let (image, kind) =
            ("application/vnd.oci.image.manifest.v1+json", "application/vnd.dev.sigstore.bundle.v0.3+json");
        let text = bundle.to_string();
        let layer = registry.blob("app", text.as_bytes());
        let config = registry.blob("app", b"{}");
        let body = json!({ "schemaVersion": 2, "mediaType": image, "artifactType": kind,
            "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2 },
            "layers": [{ "mediaType": kind, "digest": layer, "size": text.len() }],
            "subject": { "mediaType": image, "digest": digest, "size": manifest.len() } })
        .to_string();
        let own = format!("sha256:{}", sha256(body.as_bytes()));
        registry.put("app", &own, image, body.as_bytes());
        let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
            { "mediaType": image, "digest": own, "size": body.len(), "artifactType": kind }] })
        .to_string();
        let tag = digest.replace(':', "-");
        registry.put("app", &tag, "application/vnd.oci.image.index.v1+json", index.as_bytes());
    };
    let image = format!("docker://{host}/app:1");
    let who =
        ["--issuer", "https://issuer.example.com", "--subject", "alice@example.com", "--identity", "any"];
    let verify = |witnesses: &[&str]| {
        world.dray(&[&["verify", "--fulcio-ca", "root.pem"], &who[..], witnesses, &[image.as_str()]].concat())
    };
    let both = ["--rekor", "log.pub", "--timestamp", "tsa-root.pem"];
    publish(&good);
    let right = verify(&both).ok();
    assert!(right.out.contains("alice@example.com"), "{}", right.out);
    for (witnesses, why) in [
        (&["--rekor", "log.pub"][..], "nothing that is trusted says when it was made"),
        (
            &["--rekor", "log.pub", "--timestamp", "other-tsa-root.pem"],
            "no trusted certificate vouches for it",
        ),
        (&["--rekor", "rekor.pub", "--timestamp", "tsa-root.pem"], "none of the trusted logs signed"),
        (&[], "needs `rekor` or `timestamp`"),
    ] {
        let refused = verify(witnesses);
        assert!(refused.code != 0 && refused.err.contains(why), "{why}: {}", refused.err);
    }
    verify(&["--timestamp", "tsa-root.pem"]).ok();
    let other = STANDARD.decode(signed_with(world, "leaf.key", b"other")).unwrap();
    let entry = "/verificationMaterial/tlogEntries/0";
    let time = "/verificationMaterial/timestampVerificationData/rfc3161Timestamps/0/signedTimestamp";
    let untrue = note(&format!("log.example.com\n3\n{root}\n"));
    for (at, value, why) in [
        (time.to_owned(), json!(stamp("tsa", &other)), "its signed time is for another signature"),
        (time.to_owned(), json!(stamp("other-tsa", &other)), "its signed time is for another signature"),
        (time.to_owned(), json!("AAAA"), "its signed time cannot be read"),
        (format!("{entry}/inclusionProof"), json!(null), "gives no proof"),
        (format!("{entry}/inclusionProof/hashes/0"), json!(base(&leaf)), "does not lead to the state"),
        (format!("{entry}/inclusionProof/logIndex"), json!("0"), "does not lead to the state"),
        (format!("{entry}/inclusionProof/checkpoint/envelope"), json!(untrue), "does not lead to the state"),
        (
            format!("{entry}/inclusionProof/checkpoint/envelope"),
            json!(checkpoint.replace("\n2\n", "\n3\n")),
            "none of the trusted logs signed",
        ),
        (format!("{entry}/canonicalizedBody"), json!(base(b"{}")), "does not lead to the state"),
        ("/messageSignature/messageDigest/digest".into(), json!(base(&[7; 32])), "for another manifest"),
        ("/messageSignature/signature".into(), json!(base(&other)), "did not make it"),
    ] {
        let mut bundle = good.clone();
        *bundle.pointer_mut(&at).unwrap() = value;
        publish(&bundle);
        let refused = verify(&both);
        assert!(refused.code == 1 && refused.err.contains(why), "{at} {why}: {}", refused.err);
    }
}

/// A certificate authority, and a leaf for signing code with these names.
fn certificates(world: &World) {
    let run = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(world.path("")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let root = ["req", "-x509", "-subj", "/CN=root", "-keyout", "root.key", "-out", "root.pem"];
    run(&[&root[..], &ec].concat());
    for (name, usage) in [("leaf", "codeSigning"), ("server", "serverAuth")] {
        world.write(
            &format!("{name}.cnf"),
            &format!("subjectAltName=critical,email:alice@example.com,DNS:build.example.com\nextendedKeyUsage={usage}\nkeyUsage=critical,digitalSignature\n1.3.6.1.4.1.57264.1.1=DER:{}\n", hex("https://issuer.example.com")),
        );
        let request =
            ["req", "-new", "-subj", "/", "-keyout", &format!("{name}.key"), "-out", &format!("{name}.csr")];
        run(&[&request[..], &ec[..5]].concat());
        run(&[
            "x509",
            "-req",
            "-in",
            &format!("{name}.csr"),
            "-CA",
            "root.pem",
            "-CAkey",
            "root.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            &format!("{name}.cnf"),
            "-out",
            &format!("{name}.pem"),
        ]);
    }
    run(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "rekor.key"]);
    run(&["ec", "-in", "rekor.key", "-pubout", "-out", "rekor.pub"]);
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// Signs bytes with a key in a file: ECDSA with SHA-256.
fn signed_with(world: &World, key: &str, bytes: &[u8]) -> String {
    fs::write(world.path("to-sign"), bytes).unwrap();
    let output = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign", key, "to-sign"])
        .current_dir(world.path(""))
        .output()
        .unwrap();
    assert!(output.status.success());
    STANDARD.encode(output.stdout)
}

fn sha256(bytes: &[u8]) -> String {
    let digest = dray_core::Digest::of(bytes).to_string();
    digest.strip_prefix("sha256:").unwrap().to_owned()
}

#[test]
fn certificates_and_logs_vouch_for_signatures() {
    let Some(keys) = Keys::new() else { return };
    let world = &keys.world;
    certificates(world);
    let registry = Memory::start();
    let host = registry.host().to_owned();
    let digest = registry.image("app", "1", b"layer");
    let payload = json!({
        "critical": { "identity": { "docker-reference": format!("{host}/app") },
            "image": { "docker-manifest-digest": digest }, "type": "cosign container image signature" },
        "optional": null,
    })
    .to_string();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let read = |name: &str| fs::read_to_string(world.path(name)).unwrap();
    // What a log says of a signature, signed by the log.
    let log = |certificate: &str, signature: &str, time: u64| {
        let body = json!({ "apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
            "data": { "hash": { "algorithm": "sha256", "value": sha256(payload.as_bytes()) } },
            "signature": { "content": signature, "publicKey": { "content": STANDARD.encode(certificate) } } } });
        let body = STANDARD.encode(body.to_string());
        // The canonical form: keys in order, no spaces (RFC 8785).
        let entry = format!(r#"{{"body":"{body}","integratedTime":{time},"logID":"00","logIndex":7}}"#);
        let promise = signed_with(world, "rekor.key", entry.as_bytes());
        format!(
            r#"{{"SignedEntryTimestamp":"{promise}","Payload":{{"logIndex":7,"logID":"00","integratedTime":{time},"body":"{body}"}}}}"#
        )
    };
    let publish = |annotations: serde_json::Value| {
        let layer = registry.blob("app", payload.as_bytes());
        let config = registry.blob("app", b"{}");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
            "layers": [{ "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "digest": layer,
                "size": payload.len(), "annotations": annotations }],
        });
        registry.put(
            "app",
            &tag_of(&digest),
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().as_bytes(),
        );
    };
    let image = format!("docker://{host}/app:1");
    let fulcio = [
        "verify",
        "--fulcio-ca",
        "root.pem",
        "--rekor",
        "rekor.pub",
        "--issuer",
        "https://issuer.example.com",
        "--subject",
    ];
    let pki = ["verify", "--pki-ca", "root.pem"];
    let check = |arguments: &[&str], why: &str| {
        let ran = world.dray(&[arguments, &[&image]].concat());
        match why {
            "" => assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err),
            why => assert!(ran.code == 1 && ran.err.contains(why), "{arguments:?} {why}: {}", ran.err),
        }
    };
    let annotate = |name: &str, time: u64| {
        let signature = signed_with(world, &format!("{name}.key"), payload.as_bytes());
        let certificate = read(&format!("{name}.pem"));
        json!({
            "dev.cosignproject.cosign/signature": signature,
            "dev.sigstore.cosign/certificate": certificate,
            "dev.sigstore.cosign/bundle": log(&certificate, &signature, time),
        })
    };
    let good = annotate("leaf", now);
    publish(good.clone());
    let alice = [&fulcio[..], &["alice@example.com"]].concat();
    check(&alice, "");
    check(&[&fulcio[..], &["bob@example.com"]].concat(), "it is by alice@example.com");
    let mut issuer = alice.clone();
    issuer[6] = "https://other.example.com";
    check(&issuer, "identified by `https://issuer.example.com`");
    let mut other_log = alice.clone();
    other_log[4] = "key.pub";
    check(&other_log, "none of the trusted logs");
    let mut other_root = alice.clone();
    other_root[2] = "leaf.pem";
    check(&other_root, "does not hold");
    check(&[&pki[..], &["--email", "alice@example.com"]].concat(), "");
    check(&[&pki[..], &["--hostname", "build.example.com"]].concat(), "");
    check(
        &[&pki[..], &["--email", "alice@example.com", "--hostname", "other.example.com"]].concat(),
        "not by other.example.com",
    );
    // What is changed: the time, the certificate, the signature, the usage, the log's entry, or it is missing.
    let changed = |key: &str, value: &str| {
        let mut annotations = good.clone();
        annotations[key] = value.into();
        annotations
    };
    let bundle = good["dev.sigstore.cosign/bundle"].as_str().unwrap();
    let other = signed_with(world, "leaf.key", b"other");
    let before = annotate("leaf", 1_000_000_000);
    let usage = annotate("server", now);
    for (annotations, why) in [
        (before, "does not hold"),
        (usage, "does not hold"),
        (
            changed("dev.sigstore.cosign/bundle", &bundle.replace(&now.to_string(), &(now - 1).to_string())),
            "none of the trusted logs",
        ),
        (changed("dev.sigstore.cosign/bundle", "{}"), "what its log says cannot be read"),
        (changed("dev.sigstore.cosign/certificate", &read("server.pem")), "did not make it"),
        (changed("dev.sigstore.cosign/certificate", "text"), "no PEM"),
        (changed("dev.cosignproject.cosign/signature", &other), "did not make it"),
        (
            json!({ "dev.cosignproject.cosign/signature": good["dev.cosignproject.cosign/signature"] }),
            "no certificate",
        ),
        (
            json!({ "dev.cosignproject.cosign/signature": good["dev.cosignproject.cosign/signature"], "dev.sigstore.cosign/certificate": read("leaf.pem") }),
            "no log has promised",
        ),
    ] {
        publish(annotations);
        check(&alice, why);
    }
}

#[test]
fn the_machine_s_files_are_obeyed_unless_a_policy_says_otherwise() {
    let Some(keys) = Keys::new() else { return };
    let world = &keys.world;
    let registry = registry(world);
    let name = format!("docker://{}/app", registry.host);
    let system = json!({ "default": [{ "type": "reject" }] });
    world.write("config/containers/policy.json", &system.to_string());
    let rule = format!("[[rule]]\nfrom = \"{name}:1\"\nto = \"oci:out\"\n");
    world.write("dray.toml", &format!("version = 1\n{rule}"));
    let refused = world.dray(&["sync"]);
    assert!(refused.code == 1 && refused.err.contains("policy.json rejects it"), "{}", refused.err);
    assert!(!keys.path("out/index.json").exists());
    let refused = world.dray(&["copy", "--all", &format!("{name}:1"), "oci:out"]);
    assert!(refused.code == 1 && refused.err.contains("policy.json rejects it"), "{}", refused.err);
    world.write("dray.toml", &format!("version = 1\nsystem-config = false\n{rule}"));
    assert!(world.dray(&["sync"]).ok().out.contains("1 image copied"));
    // A file that is half understood is not obeyed by half.
    world.write("dray.toml", &format!("version = 1\n{rule}"));
    world.write(
        "config/containers/policy.json",
        r#"{"default":[{"type":"insecureAcceptAnything"}],"transport":{}}"#,
    );
    let broken = world.dray(&["sync"]);
    assert!(
        broken.code != 0 && broken.err.contains("policy.json") && broken.err.contains("transport"),
        "{}",
        broken.err
    );
    // Without any policy.json, skopeo refuses, and so does dray by that name.
    if !std::path::Path::new("/etc/containers/policy.json").exists() {
        fs::remove_file(keys.path("config/containers/policy.json")).unwrap();
        let none = keys.as_skopeo(&["copy", "--src-tls-verify=false", &format!("{name}:1"), "dir:x"]);
        assert!(none.code == 1 && none.err.contains("policy.json"), "{}", none.err);
    }
    // --require-signed does not take "anything".
    let any = keys.policy(json!({ "docker": { "": [{ "type": "insecureAcceptAnything" }] } }));
    let signed = keys.as_skopeo(&[
        "--policy",
        &any,
        "--require-signed",
        "copy",
        "--src-tls-verify=false",
        &format!("{name}:1"),
        "dir:y",
    ]);
    assert!(signed.code == 1 && signed.err.contains("--require-signed"), "{}", signed.err);
}

#[test]
fn mirrors_are_asked_first_and_blocked_registries_not_at_all() {
    let Some(keys) = Keys::new() else { return };
    let world = &keys.world;
    let mirror = Memory::start();
    let origin = Memory::odd(|_, _| reply("404 Not Found"));
    mirror.image("hub/app", "1", b"layer");
    let conf = format!(
        "[[registry]]\nprefix = \"r.example/app\"\nlocation = \"{0}/gone\"\n[[registry.mirror]]\nlocation = \"{0}/none\"\n[[registry.mirror]]\nlocation = \"{1}/hub/app\"\n[[registry]]\nlocation = \"bad.example\"\nblocked = true\n",
        origin.host(),
        mirror.host()
    );
    world.write("config/containers/registries.conf", &conf);
    let said = world.dray(&["-v", "copy", "--all", "docker://r.example/app:1", "dir:copied"]).ok();
    assert!(
        said.err.contains("registries.conf") && said.err.contains("copied docker://r.example/app:1"),
        "{}\n{}",
        said.out,
        said.err
    );
    assert!(keys.path("copied/manifest.json").exists());
    let blocked = world.dray(&["copy", "docker://bad.example/app:1", "dir:never"]);
    assert!(
        blocked.code == 1 && blocked.err.contains("registries.conf blocks bad.example"),
        "{}",
        blocked.err
    );
    // A rule's tags are listed where the name says, and its images are read at the mirror.
    world
        .write("dray.toml", "version = 1\n[[rule]]\nfrom = \"docker://r.example/app:1\"\nto = \"oci:out\"\n");
    assert!(world.dray(&["sync"]).ok().out.contains("1 image copied"));
    assert!(world.dray(&["sync"]).ok().out.contains("1 unchanged"));
    let wrong =
        world.write("config/containers/registries.conf", "[[registry]]\nlocation = \"a\"\nblokced = true\n");
    let broken = world.dray(&["copy", "docker://r.example/app:1", "dir:x"]);
    assert!(
        broken.code != 0 && broken.err.contains(wrong.to_str().unwrap()) && broken.err.contains("line 3"),
        "{}",
        broken.err
    );
}
