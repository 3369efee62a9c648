//! dray between real registries: docker-registry with and without credentials; skopeo and podman
//! judge.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::{fs, io::Read, process::Stdio, time::Duration};
use support::{Fake, Ran, Registry, Running, World, has, respond};

const PLATFORMS: [&str; 2] = ["amd64", "arm64"];

/// Builds images of two platforms from busybox, which share a layer, and pushes them as indexes.
fn images(world: &World, host: &str, tags: &[&str]) {
    let busybox = fs::read("/bin/busybox").unwrap();
    let layout = world.path("built");
    for tag in tags {
        build(&layout, tag, &busybox);
        world.tool(
            "skopeo",
            &[
                "copy",
                "--all",
                "--dest-tls-verify=false",
                &format!("oci:built:{tag}"),
                &format!("docker://{host}/team/busybox:{tag}"),
            ],
        );
    }
}

fn build(layout: &std::path::Path, tag: &str, busybox: &[u8]) {
    use dray_core::Digest;
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |content: &[u8]| {
        let digest = Digest::of(content);
        fs::write(blobs.join(digest.hex()), content).unwrap();
        (digest, content.len())
    };
    let tar = |entries: &[(&str, &[u8])]| {
        let mut out = Vec::new();
        for (name, content) in entries {
            let mut header = [0u8; 512];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[100..108].copy_from_slice(b"0000755\0");
            for at in [108, 116] {
                header[at..at + 8].copy_from_slice(b"0000000\0");
            }
            header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
            header[136..148].copy_from_slice(b"00000000000\0");
            header[148..156].copy_from_slice(b"        ");
            header[156] = b'0';
            header[257..265].copy_from_slice(b"ustar\x0000");
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            out.extend_from_slice(&header);
            out.extend_from_slice(content);
            out.resize(out.len().next_multiple_of(512), 0);
        }
        out.resize(out.len() + 1024, 0);
        out
    };
    let shared = tar(&[("bin/busybox", busybox)]);
    let mut manifests = Vec::new();
    for architecture in PLATFORMS {
        let own = tar(&[("release", format!("{tag} {architecture}\n").as_bytes())]);
        let layers = [put(&shared), put(&own)];
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux", "created": "2026-01-01T00:00:00Z",
            "config": { "Cmd": ["/bin/busybox", "cat", "/release"] },
            "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|(digest, _)| digest.to_string()).collect::<Vec<_>>() },
        });
        let config = put(config.to_string().as_bytes());
        let blob = |kind: &str, (digest, size): &(Digest, usize)| serde_json::json!({ "mediaType": kind, "digest": digest, "size": size });
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|layer| blob("application/vnd.oci.image.layer.v1.tar", layer)).collect::<Vec<_>>(),
        });
        let (digest, size) = put(manifest.to_string().as_bytes());
        manifests.push(serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
            "platform": { "os": "linux", "architecture": architecture },
        }));
    }
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests });
    let (digest, size) = put(index.to_string().as_bytes());
    let entry = serde_json::json!({
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": size,
        "annotations": { "org.opencontainers.image.ref.name": tag },
    });
    let layout_index = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] });
    fs::write(layout.join("index.json"), layout_index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

fn summary(report: &serde_json::Value) -> (u64, u64, u64) {
    let count = |name: &str| report["summary"][name].as_u64().unwrap();
    (count("copied"), count("unchanged"), count("failed"))
}

#[test]
fn basic_auth_increments_and_podman() {
    if !["docker-registry", "skopeo", "podman", "htpasswd", "busybox"].iter().all(|program| has(program)) {
        return;
    }
    let world = World::new();
    let source = Registry::start(&world, "source", "");
    images(&world, &source.host, &["1.0", "1.1", "2.0"]);
    world.tool("htpasswd", &["-Bbc", "users", "bob", "s3cret:x"]);
    let users = world.path("users");
    let destination = Registry::start(
        &world,
        "basic",
        &format!("  htpasswd: {{ realm: test, path: {} }}", users.display()),
    );
    let policy = format!(
        "version = 1\n[registry.\"{}\"]\nauth = {{ provider = \"static\", username = \"bob\", password = \"file:password\" }}\n[[rule]]\nname = \"busybox\"\nfrom = \"docker://{}/team/busybox\"\nto = \"docker://{}/mirror/{{path}}\"\ntags = [{{ filter = \"semver\", range = \"1\" }}]\n",
        destination.host, source.host, destination.host
    );
    world.write("policy.toml", &policy);
    world.write("password", "s3cret:x\n");
    let report = world.dray(&["sync", "policy.toml", "--output", "json"]).ok().json();
    assert_eq!(summary(&report), (2, 0, 0));
    let there = |tag: &str| {
        world.digest(
            &format!("docker://{}/mirror/team/busybox:{tag}", destination.host),
            &["--creds", "bob:s3cret:x"],
        )
    };
    let here = |tag: &str| world.digest(&format!("docker://{}/team/busybox:{tag}", source.host), &[]);
    assert_eq!((there("1.0"), there("1.1")), (here("1.0"), here("1.1")));

    // An unchanged tag costs one HEAD at each end, which both answer without reading its manifest.
    source.requests();
    destination.requests();
    let report = world.dray(&["sync", "policy.toml", "--output", "json"]).ok().json();
    assert_eq!(summary(&report), (0, 2, 0));
    let heads = |requests: Vec<String>| {
        requests
            .into_iter()
            .filter(|request| request.contains("/manifests/") && !request.ends_with("401"))
            .collect::<Vec<_>>()
    };
    for requests in [heads(source.requests()), heads(destination.requests())] {
        assert_eq!(requests.len(), 2, "{requests:?}");
        let cheap = |request: &String| request.starts_with("HEAD ") && request.ends_with("304");
        assert!(requests.iter().all(cheap), "{requests:?}");
    }

    // One tag moves, one is added: only these are copied, and no blob that is there is sent.
    world.tool(
        "skopeo",
        &[
            "copy",
            "--all",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            &format!("docker://{}/team/busybox:2.0", source.host),
            &format!("docker://{}/team/busybox:1.0", source.host),
        ],
    );
    images(&world, &source.host, &["1.2"]);
    let plan = world.dray(&["plan", "policy.toml", "--output", "json", "--detailed-exitcode"]);
    assert_eq!(plan.code, 3);
    assert_eq!(
        plan.json()["summary"],
        serde_json::json!({ "copy": 2, "delete": 0, "unchanged": 1, "dropped": 1, "failed": 0, "overwritten": 1 })
    );
    let report = world.dray(&["sync", "policy.toml", "--output", "json"]).ok().json();
    assert_eq!(summary(&report), (2, 1, 0));
    assert!(report["summary"]["bytes"].as_u64().unwrap() < 20_000, "{report}");
    assert_eq!((there("1.0"), there("1.2")), (here("2.0"), here("1.2")));

    // podman takes it and runs it.
    let image = format!("{}/mirror/team/busybox:1.2", destination.host);
    let root = [
        "--root",
        world.path("podman").to_str().unwrap(),
        "--runroot",
        world.path("podman-run").to_str().unwrap(),
        "--storage-driver",
        "vfs",
        "--cgroup-manager",
        "cgroupfs",
    ]
    .map(str::to_owned);
    let podman = |more: &[&str]| {
        world.tool("podman", &[root.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), more].concat())
    };
    podman(&["pull", "--tls-verify=false", "--creds", "bob:s3cret:x", &image]);
    if has("runc") {
        let said = podman(&[
            "--runtime",
            "runc",
            "run",
            "--rm",
            "--network",
            "none",
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
            &image,
        ]);
        assert_eq!(said, format!("1.2 {}\n", dray_core::Platform::of_this_machine().architecture));
    }

    // A wrong password is a clear error that says where it came from, and never shows it.
    world.write("password", "wr0ng");
    let refused = world.dray(&["sync", "policy.toml"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("refused the credentials from file:password"), "{}", refused.err);
    assert!(!refused.err.contains("wr0ng"), "{}", refused.err);
}

/// docker-registry behind a token server: the challenge comes from the registry, the tokens from
/// a fake that is written from distribution's token specification. The registry itself trusts
/// the fake as a proxy would: requests pass through it.
#[test]
fn a_token_server() {
    if !["docker-registry", "skopeo", "busybox"].iter().all(|program| has(program)) {
        return;
    }
    let world = World::new();
    let source = Registry::start(&world, "source", "");
    images(&world, &source.host, &["1.0"]);
    let behind = Registry::start(&world, "behind", "");
    let backend = behind.host.clone();
    let own = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let me = own.clone();
    let gate = Fake::start_raw(move |request, body, stream| {
        let me = me.get().unwrap();
        let line = request.lines().next().unwrap();
        let header = |name: &str| {
            request.lines().find_map(|line| {
                line.to_lowercase()
                    .starts_with(&format!("{name}: "))
                    .then(|| line[name.len() + 2..].trim().to_owned())
            })
        };
        if line.starts_with("GET /token?") {
            // base64 of bob:secret
            let known = header("authorization").as_deref() == Some("Basic Ym9iOnNlY3JldA==");
            let scope = line.contains("scope=repository%3Amirror%2Fbusybox%3Apull%2Cpush")
                || line.contains("scope=repository%3Amirror%2Fbusybox%3Apull");
            return match known && scope && line.contains("service=test") {
                true => respond(
                    stream,
                    "200 OK",
                    "Content-Type: application/json\r\n",
                    br#"{"token":"t0ken","expires_in":300}"#,
                ),
                false => respond(stream, "401 Unauthorized", "", b""),
            };
        }
        if header("authorization").as_deref() != Some("Bearer t0ken") {
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"http://{me}/token\",service=\"test\",scope=\"repository:mirror/busybox:pull\"\r\n"
            );
            return respond(stream, "401 Unauthorized", &challenge, b"");
        }
        support::forward(&backend, me, request, body, stream);
    });
    own.set(gate.host.clone()).unwrap();
    world.write("auth.json", &format!(r#"{{"auths":{{"{}":{{"auth":"Ym9iOnNlY3JldA=="}}}}}}"#, gate.host));
    let copied = world.dray(&[
        "copy",
        "--all",
        "--authfile",
        "auth.json",
        &format!("docker://{}/team/busybox:1.0", source.host),
        &format!("docker://{}/mirror/busybox:1.0", gate.host),
    ]);
    copied.ok();
    let here = world.digest(&format!("docker://{}/team/busybox:1.0", source.host), &[]);
    assert_eq!(world.digest(&format!("docker://{}/mirror/busybox:1.0", behind.host), &[]), here);
    let tokens = gate.requests().iter().filter(|request| request.starts_with("GET /token")).count();
    // One a scope set: pull for looking, pull and push for writing.
    assert_eq!(tokens, 2);
    let without = world.dray(&["list-tags", &format!("docker://{}/mirror/busybox", gate.host)]);
    assert_eq!(without.code, 1);
    assert!(without.err.contains("log in"), "{}", without.err);
}

/// The destination dies in the middle of a large blob and comes back.
#[test]
fn a_destination_that_dies_and_comes_back() {
    if !["docker-registry", "skopeo"].iter().all(|program| has(program)) {
        return;
    }
    let world = World::new();
    let mut destination = Registry::start(&world, "destination", "");
    let busybox: Vec<u8> = (0..96u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    build(&world.path("built"), "big", &busybox);
    let policy = format!(
        "version = 1\n[registry.\"{}\"]\nbandwidth = \"60MB/s\"\n[[rule]]\nname = \"big\"\nfrom = \"oci:built\"\nto = \"docker://{}/big\"\n",
        destination.host, destination.host
    );
    world.write("policy.toml", &policy);
    let mut sync = world.command(&["sync", "policy.toml", "--output", "json"]);
    let mut running = Running(sync.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let uploads = world.path("destination/docker/registry/v2/repositories/big/_uploads");
    let mut waited = 0;
    let arrived = || -> u64 {
        let Ok(uploads) = fs::read_dir(&uploads) else { return 0 };
        uploads
            .flatten()
            .filter_map(|upload| fs::metadata(upload.path().join("data")).ok())
            .map(|data| data.len())
            .max()
            .unwrap_or(0)
    };
    while arrived() < 8 << 20 {
        std::thread::sleep(Duration::from_millis(5));
        waited += 1;
        assert!(waited < 4000, "the blob does not move");
    }
    destination.kill();
    assert!(
        !world.path("destination/docker/registry/v2/repositories/big/_manifests/tags/big").exists(),
        "a tag names what is not there"
    );
    std::thread::sleep(Duration::from_millis(300));
    destination.restart();
    let mut out = String::new();
    running.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(running.0.wait().unwrap().success(), "{out}");
    assert_eq!(
        world.digest(&format!("docker://{}/big:big", destination.host), &[]),
        world.digest("oci:built:big", &[])
    );
    // All that the tag names is there: skopeo reads every byte.
    world.tool(
        "skopeo",
        &[
            "copy",
            "--all",
            "--src-tls-verify=false",
            &format!("docker://{}/big:big", destination.host),
            "oci:again:big",
        ],
    );
}

/// Debian's docker-registry refuses an index with missing children.
#[test]
fn a_sparse_index_is_refused_before_a_blob_moves() {
    if !["docker-registry", "skopeo", "busybox"].iter().all(|program| has(program)) {
        return;
    }
    let world = World::new();
    let destination = Registry::start(&world, "destination", "");
    build(&world.path("built"), "1.0", &fs::read("/bin/busybox").unwrap());
    let policy = |index: &str| {
        let text = format!(
            "version = 1\n[[rule]]\nname = \"a\"\nfrom = \"oci:built\"\nto = \"docker://{}/a\"\nplatforms = [\"linux/arm64\"]\n{index}",
            destination.host
        );
        world.write("policy.toml", &text);
    };
    policy("");
    let planned = world.dray(&["plan", "policy.toml"]).ok();
    assert!(planned.err.contains("is only seen when it is written"), "{}", planned.err);
    destination.requests();
    let refused = world.dray(&["sync", "policy.toml"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("index = \"trim\""), "{}", refused.err);
    assert!(!destination.requests().iter().any(|request| request.contains("/blobs/")), "a blob was moved");
    // The refusal is remembered, so a plan fails where a sync would.
    let planned = world.dray(&["plan", "policy.toml"]);
    assert!(planned.code == 1 && planned.out.contains("index = \"trim\""), "{}{}", planned.out, planned.err);
    // Where nothing would be missing, nothing is refused, and this proves nothing for other images.
    world.dray(&["copy", "--all", "oci:built:1.0", &format!("docker://{}/a:whole", destination.host)]).ok();
    assert!(world.dray(&["plan", "policy.toml"]).ok().out.contains("1 image to copy"));
    world.dray(&["sync", "policy.toml"]).ok();
    build(&world.path("built"), "2.0", b"another program");
    let planned = world.dray(&["plan", "policy.toml"]);
    assert!(planned.code == 1 && planned.out.contains("index = \"trim\""), "{}{}", planned.out, planned.err);
    build(&world.path("built"), "1.0", &fs::read("/bin/busybox").unwrap());
    policy("tags = \"1.0\"\nindex = \"trim\"");
    world.dray(&["sync", "policy.toml"]).ok();
    let raw = world.tool(
        "skopeo",
        &["inspect", "--raw", "--tls-verify=false", &format!("docker://{}/a:1.0", destination.host)],
    );
    let index: serde_json::Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(index["manifests"][0]["platform"]["architecture"], "arm64");
    let again = world.dray(&["sync", "policy.toml", "--output", "json"]).ok().json();
    assert_eq!(summary(&again), (0, 1, 0));
}

/// A blob that images of several repositories share is uploaded once and then mounted.
#[test]
fn shared_blobs_are_uploaded_once_and_mounted() {
    if !["docker-registry", "busybox"].iter().all(|program| has(program)) {
        return;
    }
    let world = World::new();
    let destination = Registry::start(&world, "destination", "");
    let busybox = fs::read("/bin/busybox").unwrap();
    let mut policy = "version = 1\n".to_owned();
    for name in ["a", "b", "c"] {
        build(&world.path(name), name, &busybox);
        policy += &format!(
            "[[rule]]\nname = \"{name}\"\nfrom = \"oci:{name}\"\nto = \"docker://{}/team/{{name}}\"\n",
            destination.host
        );
    }
    world.write("policy.toml", &policy);
    destination.requests();
    let report = world.dray(&["sync", "policy.toml", "--output", "json"]).ok().json();
    assert_eq!(summary(&report), (3, 0, 0));
    // Three repositories hold the shared layer; two of them by mounting.
    let size = report["summary"]["mounted_bytes"].as_u64().unwrap();
    assert_eq!(size, 2 * (busybox.len().next_multiple_of(512) as u64 + 512 + 1024));
    let requests = destination.requests();
    let mounts =
        requests.iter().filter(|request| request.contains("mount=") && request.ends_with("201")).count();
    let puts = requests
        .iter()
        .filter(|request| request.starts_with("PUT ") && request.contains("/blobs/uploads/"))
        .count();
    // Uploaded: one shared layer, and a layer and a config for each of three images of two platforms.
    assert_eq!((mounts, puts), (2, 1 + 3 * 2 * 2), "{requests:#?}");
}

#[test]
fn directories_and_layouts_are_skopeos_too() {
    if !["skopeo", "busybox"].iter().all(|program| has(program)) {
        return;
    }
    let world = World::new();
    build(&world.path("built"), "1.0", &fs::read("/bin/busybox").unwrap());
    let digest = world.digest("oci:built:1.0", &[]);
    // dray writes, skopeo reads.
    world.dray(&["copy", "--all", "oci:built:1.0", "dir:a"]).ok();
    assert_eq!(world.digest("dir:a", &[]), digest);
    world.tool("skopeo", &["copy", "--all", "--preserve-digests", "dir:a", "oci:b:x"]);
    assert_eq!(world.digest("oci:b:x", &[]), digest);
    // skopeo writes, dray reads.
    world.tool("skopeo", &["copy", "--all", "oci:built:1.0", "dir:c"]);
    world.dray(&["copy", "--all", "dir:c", "oci:d:y"]).ok();
    assert_eq!(world.digest("oci:d:y", &[]), digest);
    world.tool("skopeo", &["copy", "--all", "oci:d:y", "dir:e"]);
    // A folder that holds something else is left alone.
    world.write("precious/thesis.txt", "years of work");
    for destination in ["dir:precious", "oci:precious:1"] {
        let refused = world.dray(&["copy", "--all", "oci:built:1.0", destination]);
        assert_eq!(refused.code, 1, "{destination}");
        assert!(refused.err.contains("is not empty"), "{}", refused.err);
    }
    assert_eq!(fs::read_dir(world.path("precious")).unwrap().count(), 1);
    // Two at once lose nothing.
    let mut writers = Vec::new();
    for number in 0..8 {
        writers.push(Running(
            world
                .command(&["copy", "--all", "oci:built:1.0", &format!("oci:shared:t{number}")])
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        ));
    }
    for mut writer in writers {
        assert!(writer.0.wait().unwrap().success());
    }
    let tags = world.dray(&["list-tags", "oci:shared"]).ok().out;
    assert_eq!(tags.lines().count(), 8, "{tags}");
    assert_eq!(world.digest("oci:shared:t5", &[]), digest);
}

/// `storage` in a policy, and then Debian's docker-registry on the same folder, and the reverse.
#[test]
fn docker_registry_serves_what_dray_stored() {
    if !["docker-registry", "skopeo", "busybox"].iter().all(|program| has(program)) {
        return;
    }
    let world = World::new();
    build(&world.path("built"), "1.0", &fs::read("/bin/busybox").unwrap());
    world.write("out.toml", "version = 1\n[registry.m]\nstorage = \"shared\"\n[[rule]]\nname = \"a\"\nfrom = \"oci:built\"\nto = \"docker://m/team/{name}\"\n");
    world.dray(&["sync", "out.toml"]).ok();
    let registry = Registry::start(&world, "shared", "");
    let digest = world.digest("oci:built:1.0", &[]);
    assert_eq!(world.digest(&format!("docker://{}/team/built:1.0", registry.host), &[]), digest);
    world.tool(
        "skopeo",
        &[
            "copy",
            "--all",
            "--src-tls-verify=false",
            &format!("docker://{}/team/built:1.0", registry.host),
            "dir:read",
        ],
    );
    // What docker-registry stores, dray serves.
    world.tool(
        "skopeo",
        &[
            "copy",
            "--all",
            "--dest-tls-verify=false",
            "dir:read",
            &format!("docker://{}/other/app:2", registry.host),
        ],
    );
    world.write("in.toml", "version = 1\n[registry.m]\nstorage = \"shared\"\n[[rule]]\nname = \"a\"\nfrom = \"docker://m/{team,other}/*\"\nto = \"oci:back\"\n");
    world.dray(&["sync", "in.toml"]).ok();
    assert_eq!(
        (world.digest("oci:back:1.0", &[]), world.digest("oci:back:2", &[])),
        (digest.clone(), digest)
    );
}

/// A registry with a certificate of a private authority.
#[test]
fn a_private_authority() {
    if !["docker-registry", "openssl"].iter().all(|program| has(program)) {
        return;
    }
    let world = World::new();
    let image = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/../../examples/images:1.0.0");
    world.certificates();
    let (leaf, key) = (world.path("leaf.pem"), world.path("leaf.key"));
    let registry = Registry::start_tls(&world, "private", &leaf, &key);
    let to = format!("docker://{}/a:1", registry.host);
    let refused = world.dray(&["copy", image, &to]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("certificate") && refused.err.contains("--tls-ca"), "{}", refused.err);
    world.dray(&["copy", "--tls-ca", "ca.pem", image, &to]).ok();
    // What the system trusts is trusted.
    let mut trusting = world.command(&["list-tags", to.rsplit_once(':').unwrap().0]);
    Ran::of(trusting.env("SSL_CERT_FILE", world.path("ca.pem"))).ok();
    let policy = |tls: &str| {
        world.write("policy.toml", &format!("version = 1\n[registry.\"{}\"]\ntls = {tls}\n[[rule]]\nname = \"a\"\nfrom = \"docker://{}/a\"\nto = \"oci:out\"\n", registry.host, registry.host));
        world.dray(&["sync", "policy.toml"]).code
    };
    assert_eq!((policy("{ ca = \"ca.pem\" }"), policy("{ verify = false }"), policy("\"off\"")), (0, 0, 1));
}

#[test]
fn a_certificate_that_is_no_authoritys_is_taken_for_what_it_is() {
    if !["docker-registry", "openssl"].iter().all(|program| has(program)) {
        return;
    }
    let world = World::new();
    for name in ["self", "other"] {
        let made = format!(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:127.0.0.1 -keyout {name}.key -out {name}.pem"
        );
        world.tool("openssl", &made.split(' ').collect::<Vec<_>>());
    }
    let registry = Registry::start_tls(&world, "own", &world.path("self.pem"), &world.path("self.key"));
    let image = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/../../examples/images:1.0.0");
    let to = format!("docker://{}/a:1", registry.host);
    assert_eq!(world.dray(&["copy", "--tls-ca", "other.pem", image, &to]).code, 1);
    world.dray(&["copy", "--tls-ca", "self.pem", image, &to]).ok();
    // Many at once, of which more than one may be refused before the first is tried again.
    let rules: String = (0..16)
        .map(|at| {
            let to = format!("docker://{}/r{at}:1", registry.host);
            format!("[[rule]]\nname = \"{at}\"\nfrom = \"{image}\"\nto = \"{to}\"\n")
        })
        .collect();
    let tls = format!("version = 1\n[registry.\"{}\"]\ntls = {{ ca = \"self.pem\" }}\n", registry.host);
    world.write("policy.toml", &(tls + &rules));
    let ran = world.dray(&["sync", "policy.toml"]).ok();
    assert!(ran.out.contains("16 images copied"), "{}{}", ran.out, ran.err);
}

#[test]
fn a_destination_that_lost_a_manifest_or_wants_more_of_it_gets_it() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    let destination = Registry::start(&world, "there", "");
    let images = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/../../examples/images");
    let policy = |more: &str| {
        let rule = format!(
            "version = 1\n[[rule]]\nname = \"a\"\nfrom = \"{images}\"\nto = \"docker://{}/a\"\ntags = [\"1.2.0\"]\n{more}",
            destination.host
        );
        world.write("policy.toml", &rule);
        summary(&world.dray(&["sync", "policy.toml", "--output", "json"]).ok().json())
    };
    assert_eq!((policy(""), policy("")), ((1, 0, 0), (0, 1, 0)));
    // As after a garbage collection that went wrong: the tag is there, and its manifest is not.
    let digest = world.digest(&format!("docker://{}/a:1.2.0", destination.host), &[]);
    let revision = format!(
        "there/docker/registry/v2/repositories/a/_manifests/revisions/{}/link",
        digest.replace(':', "/")
    );
    std::fs::remove_file(world.path(&revision)).unwrap();
    // Whether it is there is asked when the last look at it is an hour old.
    let journal = rusqlite::Connection::open(world.path("home/.local/state/dray/journal.db")).unwrap();
    journal.execute("update tag set at = at - 3600", ()).unwrap();
    assert_eq!((policy(""), policy("")), ((1, 0, 0), (0, 1, 0)));
    assert_eq!(world.digest(&format!("docker://{}/a:1.2.0", destination.host), &[]), digest);

    // dray's own registry takes an index without all of its children: that more are wanted is noticed.
    let partly = |more: &str| {
        let rule = format!(
            "version = 1\n[registry.own]\nstorage = \"own\"\n[[rule]]\nname = \"a\"\nfrom = \"{images}\"\nto = \"docker://own/a\"\ntags = [\"1.2.0\"]\n{more}"
        );
        world.write("partly.toml", &rule);
        summary(&world.dray(&["sync", "partly.toml", "--output", "json"]).ok().json())
    };
    let one = "platforms = [\"linux/amd64\"]\n";
    assert_eq!((partly(one), partly(one)), ((1, 0, 0), (0, 1, 0)));
    assert_eq!((partly(""), partly("")), ((1, 0, 0), (0, 1, 0)));
    let blobs = world.tool("find", &["own", "-path", "*/revisions/*", "-name", "link"]);
    assert_eq!(blobs.lines().count(), 3, "{blobs}");
}

#[test]
fn what_a_catalog_names_is_compared_with_what_others_write() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    let source = Registry::start(&world, "source", "");
    let images = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/../../examples/images");
    for (image, name) in
        [("1.0.0", "quay.io/app"), ("1.0.0", "mirror/app"), ("1.0.0", "team/app"), ("1.2.0", "other")]
    {
        world
            .dray(&["copy", &format!("{images}:{image}"), &format!("docker://{}/{name}:1", source.host)])
            .ok();
    }
    // Where a name ends up in a reference decides what it stands for there: a host, a repository, a tag.
    for (pattern, to, same) in [
        ("quay.io/*", "docker-archive:out.tar:{path}:1", "docker-archive:out.tar:quay.io/app:1"),
        ("mirror/*", "docker://{path}", "docker://mirror/app"),
        ("mirror/*", "docker://mirror/{name}", "docker://mirror/app"),
        ("quay.io/*", "containers-storage:{path}", "containers-storage:quay.io/app"),
        ("team/*", "oci:c:{path}", "oci:c:team/app"),
        ("team/*", "oci:{path}", "oci:team/app"),
    ] {
        let host = &source.host;
        world.write("policy.toml", &format!(
            "version = 1\n[registry.mirror]\nstorage = \"stored\"\n[[rule]]\nname = \"all\"\nfrom = \"docker://{host}/{pattern}\"\nto = \"{to}\"\n[[rule]]\nname = \"one\"\nfrom = \"docker://{host}/other:1\"\nto = \"{same}\"\n"
        ));
        let plan = world.dray(&["plan", "policy.toml"]);
        assert!(plan.code != 0 && plan.out.contains("different content"), "{to}: {}{}", plan.out, plan.err);
    }
}
