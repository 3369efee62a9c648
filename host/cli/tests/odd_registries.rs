//! Registries as they are in the field: each refuses, leaves out or makes up something, and the sync goes on. What an
//! optimisation does not get is done without it; a wish that cannot be fulfilled is told.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

mod support;

use dray_core::Digest;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use support::{
    World,
    memory::{Asked, INDEX, MANIFEST, Memory, Reply, reply},
};

const LAYER: &[u8] = b"a layer";

/// A registry with the image `app:1`.
fn with_image(source: Memory) -> Memory {
    source.image("app", "1", LAYER);
    source
}

fn source() -> Memory {
    with_image(Memory::start())
}

/// Copies `app:1` from one registry to another.
fn copy(world: &World, from: &Memory, to: &Memory) -> support::Ran {
    copy_with(world, &[], from, to)
}

fn copy_with(world: &World, options: &[&str], from: &Memory, to: &Memory) -> support::Ran {
    let (from, to) = (format!("docker://{}/app:1", from.host()), format!("docker://{}/app:1", to.host()));
    world.dray(&[&["copy"], options, &[&from, &to]].concat())
}

/// A rule that copies `app` to a repository of another registry.
fn rule(name: &str, from: &Memory, to: &Memory, repository: &str) -> String {
    let (from, to) = (from.host(), to.host());
    format!(
        "[[rule]]\nname = \"{name}\"\nfrom = \"docker://{from}/app\"\nto = \"docker://{to}/{repository}\"\n"
    )
}

/// The answer of a registry that wants a password.
fn unauthorized() -> Reply {
    ("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n".into(), Vec::new())
}

fn once(counter: &AtomicUsize) -> bool {
    counter.fetch_add(1, Ordering::Relaxed) == 0
}

#[test]
fn head_is_a_hint() {
    for refusal in
        ["400 Bad Request", "403 Forbidden", "404 Not Found", "405 Method Not Allowed", "501 Not Implemented"]
    {
        let odd = Memory::odd(move |asked, _| {
            if asked.method == "HEAD" && asked.path.contains("/manifests/") { reply(refusal) } else { None }
        });
        let (world, from, to) = (World::new(), with_image(odd), Memory::start());
        copy(&world, &from, &to).ok();
        let again = copy(&world, &from, &to).ok();
        assert!(again.out.contains("0 images copied, 1 unchanged"), "{refusal}: {}", again.out);
    }
    for wrong in ["Content-Length: 0\r\n", "Content-Length: 7\r\n"] {
        let odd = Memory::odd(move |asked, held| {
            let wanted = asked.method == "HEAD" && asked.path.contains("/manifests/");
            wanted.then(|| {
                let (status, headers, _) = held.lock().unwrap().usual(asked);
                (status, headers + wrong, Vec::new())
            })
        });
        let (world, from, to) = (World::new(), with_image(odd), Memory::start());
        copy(&world, &from, &to).ok();
        assert!(copy(&world, &from, &to).ok().out.contains("0 images copied, 1 unchanged"));
    }
}

#[test]
fn a_tag_is_read_where_its_digest_is_old_or_not_known() {
    let stale = Memory::odd(|asked, _| {
        let old = Digest::of(b"old");
        let headers =
            format!("Content-Type: {MANIFEST}\r\nDocker-Content-Digest: {old}\r\nContent-Length: 9\r\n");
        (asked.method == "HEAD" && asked.path.ends_with("/manifests/1"))
            .then(|| ("200 OK", headers, Vec::new()))
    });
    let by_tag_only =
        Memory::odd(
            |asked, _| if asked.path.contains("/manifests/sha256:") { reply("404 Not Found") } else { None },
        );
    for odd in [stale, by_tag_only] {
        let (world, from) = (World::new(), with_image(odd));
        let to = world.path("out");
        world
            .dray(&["copy", &format!("docker://{}/app:1", from.host()), &format!("oci:{}:1", to.display())])
            .ok();
        assert!(to.join("index.json").exists());
    }
}

#[test]
fn mounting_is_a_hint_and_a_refusal_is_remembered() {
    for refusal in [
        "400 Bad Request",
        "401 Unauthorized",
        "403 Forbidden",
        "404 Not Found",
        "405 Method Not Allowed",
        "500 Internal Server Error",
    ] {
        let odd =
            Memory::odd(move |asked, _| if asked.path.contains("mount=") { reply(refusal) } else { None });
        let (world, from) = (World::new(), Memory::start());
        for tag in 1..=30 {
            from.image("app", &tag.to_string(), format!("layer {tag}").as_bytes());
        }
        let rules = rule("a", &from, &odd, "one") + &rule("b", &from, &odd, "two");
        let path = world.write("p.toml", &format!("version = 1\n{rules}"));
        world.dray(&["sync", path.to_str().unwrap()]).ok();
        assert!(odd.has("one", "30") && odd.has("two", "30"));
        let asked =
            odd.count("POST /v2/two/blobs/uploads/?mount=") + odd.count("POST /v2/one/blobs/uploads/?mount=");
        // Of 60 blobs, those that were under way when the first was refused, in both directions.
        assert!(asked <= 32, "{refusal}: {asked} mounts were asked for");
    }
}

#[test]
fn a_mount_whose_answer_is_a_lie_is_an_upload_after_all() {
    let odd = Memory::odd(|asked, held| {
        if asked.path.contains("mount=") {
            return reply("201 Created");
        }
        let wanted = asked.method == "PUT" && asked.path.contains("/manifests/");
        let held = held.lock().unwrap();
        let (_, path) = asked.path.split_once("/v2/").unwrap();
        let repository = path.split('/').next().unwrap().to_owned();
        let missing = held.blobs.keys().filter(|(of, _)| *of == repository).count() < 2;
        let digest = Digest::of(LAYER);
        let body =
            format!(r#"{{"errors":[{{"code":"MANIFEST_BLOB_UNKNOWN","detail":{{"digest":"{digest}"}}}}]}}"#);
        (wanted && missing && !held.blobs.contains_key(&(repository, digest.to_string())))
            .then(|| ("400 Bad Request", String::new(), body.into_bytes()))
    });
    let (world, from) = (World::new(), source());
    let rules = rule("one", &from, &odd, "one") + &rule("two", &from, &odd, "two");
    let path = world.write("p.toml", &format!("version = 1\n{rules}"));
    world.dray(&["sync", path.to_str().unwrap()]).ok();
    let held = odd.held.lock().unwrap();
    for repository in ["one", "two"] {
        assert!(held.blobs.contains_key(&(repository.into(), Digest::of(LAYER).to_string())), "{repository}");
    }
}

#[test]
fn what_is_not_there_yet_may_be_forbidden_to_see() {
    for refusal in ["400 Bad Request", "401 Unauthorized", "403 Forbidden"] {
        let odd = Memory::odd(move |asked, held| {
            let empty = held.lock().unwrap().manifests.is_empty();
            let looks = matches!(asked.method, "GET" | "HEAD");
            if looks && empty { reply(refusal) } else { None }
        });
        let world = World::new();
        let ran = copy(&world, &source(), &odd).ok();
        assert!(ran.out.contains("1 image copied"), "{refusal}: {}", ran.out);
        assert!(odd.has("app", "1"));
    }
}

#[test]
fn a_push_that_is_refused_tells_the_last_word() {
    let odd = Memory::odd(|asked, _| match asked.method {
        "PUT" => Some(("403 Forbidden", String::new(), b"<html><head><title>Sign in</title>".to_vec())),
        _ => None,
    });
    let ran = copy(&World::new(), &source(), &odd);
    assert!(ran.code == 1 && ran.err.contains("a page of HTML, with the title \"Sign in\""), "{}", ran.err);
}

#[test]
fn every_success_is_one_where_the_content_is_there() {
    for status in ["200 OK", "202 Accepted", "204 No Content"] {
        let odd = Memory::odd(move |asked, held| {
            (asked.method == "PUT").then(|| {
                held.lock().unwrap().usual(asked);
                (status, "Docker-Content-Digest: \r\n".to_owned(), Vec::new())
            })
        });
        copy(&World::new(), &source(), &odd).ok();
        assert!(odd.has("app", "1"), "{status}");
        let lies = Memory::odd(move |asked, _| if asked.method == "PUT" { reply(status) } else { None });
        let ran = copy(&World::new(), &source(), &lies);
        assert!(ran.code == 1 && !lies.has("app", "1"), "{status}: {}", ran.err);
    }
}

#[test]
fn a_registry_that_takes_no_bytes_with_a_put_gets_them_with_a_patch() {
    for refusal in ["400 Bad Request", "405 Method Not Allowed", "501 Not Implemented"] {
        let odd = Memory::odd(move |asked, _| {
            let whole = asked.method == "PUT" && asked.path.contains("/uploads/") && !asked.body.is_empty();
            if whole { reply(refusal) } else { None }
        });
        copy(&World::new(), &source(), &odd).ok();
        assert!(odd.has("app", "1"), "{refusal}");
    }
}

#[test]
fn a_lost_answer_is_looked_for_before_anything_is_sent_again() {
    for (kind, lost) in [("/uploads/", "502 Bad Gateway"), ("/manifests/", "504 Gateway Timeout")] {
        let odd = Memory::odd(move |asked, held| {
            (asked.method == "PUT" && asked.path.contains(kind)).then(|| {
                held.lock().unwrap().usual(asked);
                (lost, String::new(), Vec::new())
            })
        });
        copy(&World::new(), &source(), &odd).ok();
        let puts =
            odd.asked().into_iter().filter(|asked| asked.starts_with("PUT") && asked.contains(kind)).count();
        assert_eq!(puts, if kind == "/uploads/" { 2 } else { 1 }, "{:?}", odd.asked());
    }
}

#[test]
fn a_tag_that_cannot_be_written_twice_is_written_once() {
    let odd = Memory::odd(|asked, held| {
        let tag = asked.method == "PUT" && asked.path.ends_with("/manifests/1");
        let mut held = held.lock().unwrap();
        tag.then(|| match held.manifests.contains_key(&("app".into(), "1".into())) {
            true => ("409 Conflict", String::new(), br#"{"errors":[{"code":"TAG_IMMUTABLE"}]}"#.to_vec()),
            false => {
                held.usual(asked);
                ("503 Service Unavailable", String::new(), Vec::new())
            }
        })
    });
    copy(&World::new(), &source(), &odd).ok();
    assert!(odd.has("app", "1"));
}

#[test]
fn a_blob_that_is_claimed_and_missed_is_sent_once() {
    let odd = Memory::odd(|asked, held| {
        if asked.method == "HEAD" && asked.path.contains("/blobs/sha256:") {
            return reply("200 OK");
        }
        let missing = held.lock().unwrap().blobs.len() < 2;
        let body = br#"{"errors":[{"code":"BLOB_UNKNOWN","detail":null}]}"#.to_vec();
        (asked.method == "PUT" && asked.path.contains("/manifests/") && missing)
            .then(|| ("400 Bad Request", String::new(), body))
    });
    copy(&World::new(), &source(), &odd).ok();
    assert_eq!(odd.count("POST /v2/app/blobs/uploads/"), 2);
}

#[test]
fn writes_follow_a_redirect_with_their_body() {
    for status in ["307 Temporary Redirect", "308 Permanent Redirect"] {
        let odd = Memory::odd(move |asked, _| {
            let moved = !matches!(asked.method, "GET" | "HEAD") && !asked.path.contains("moved");
            let joint = if asked.path.contains('?') { '&' } else { '?' };
            moved.then(|| (status, format!("Location: {}{joint}moved=1\r\n", asked.path), Vec::new()))
        });
        copy(&World::new(), &source(), &odd).ok();
        assert!(odd.has("app", "1"), "{status}");
    }
    let odd = Memory::odd(|asked, _| {
        let moved = asked.method == "PUT" && asked.path.contains("/manifests/");
        moved.then(|| ("302 Found", "Location: https://elsewhere.example/login\r\n".to_owned(), Vec::new()))
    });
    let ran = copy(&World::new(), &source(), &odd);
    assert!(ran.code == 1 && ran.err.contains("leads to https://elsewhere.example/login"), "{}", ran.err);
}

#[test]
fn addresses_of_a_proxys_inside_are_the_registrys_own() {
    let odd = Memory::odd(|asked, held| {
        let begun = asked.method == "POST";
        begun.then(|| {
            let (status, headers, body) = held.lock().unwrap().usual(asked);
            (status, headers.replace("Location: /", "Location: http://127.0.0.1:1/"), body)
        })
    });
    copy(&World::new(), &source(), &odd).ok();
    assert!(odd.has("app", "1"));
}

fn tags(answer: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) -> support::Ran {
    let odd = Memory::odd(move |asked, _| answer(asked));
    World::new().dray(&["list-tags", &format!("docker://{}/app", odd.host())])
}

#[test]
fn lists_are_read_as_they_are_written() {
    let two =
        |headers: String, tags: &str| Some(("200 OK", headers, format!(r#"{{"tags":{tags}}}"#).into_bytes()));
    for link in [
        "</v2/app/tags/list?last=a>; rel=\"next\"",
        "</v2/app/tags/list?last=x>; rel=\"prev\", </v2/app/tags/list?last=a>; rel=\"next\"",
        "</v2/app/tags/list?last=a>",
        "</v2/app/tags/list?last=a>; REL=Next",
        "<list?last=a>; rel=next; title=\"x, y\"",
        "<http://internal.example:5000/v2/app/tags/list?last=a>; rel=\"next\"",
    ] {
        let listed = tags(move |asked| match asked.path.contains("last=a") {
            true => two(String::new(), r#"["b"]"#),
            false => two(format!("Link: {link}\r\n"), r#"["a"]"#),
        });
        assert_eq!(listed.ok().out, "a\nb\n", "{link}");
    }
    for (list, expected) in [("null", ""), (r#"["a",null,"","a","b"]"#, "a\nb\n")] {
        assert_eq!(tags(move |_| two("Link: \r\n".into(), list)).ok().out, expected);
    }
    let refused = tags(move |asked| match asked.path.contains("n=") {
        true => reply("400 Bad Request"),
        false => two(String::new(), r#"["a"]"#),
    });
    assert_eq!(refused.ok().out, "a\n");
}

#[test]
fn names_of_strangers_do_no_harm() {
    let listed = tags(|_| {
        let tags = serde_json::json!({ "tags": ["fine", "a\u{1b}[2Jb", "c\nd"] });
        Some(("200 OK", String::new(), tags.to_string().into_bytes()))
    });
    let listed = listed.ok();
    assert_eq!(listed.out, "fine\n");
    assert!(!listed.err.contains('\u{1b}') && listed.err.contains("is left out"), "{}", listed.err);
    let told = tags(|_| {
        let body =
            b"{\"errors\":[{\"code\":\"DENIED\",\"message\":\"\\u001b[2J\\nerror: forged\"}]}".to_vec();
        Some(("403 Forbidden", String::new(), body))
    });
    assert!(
        told.code == 1 && !told.err.contains('\u{1b}') && told.err.trim_end().lines().count() <= 2,
        "{}",
        told.err
    );
}

#[test]
fn what_others_leave_out_of_a_manifest_travels_unchanged() {
    for body in [
        r#"{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":null,"annotations":null}"#
            .to_owned(),
        r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(),
    ] {
        let (world, from, to) = (World::new(), Memory::start(), Memory::start());
        let digest = from.put("app", "1", INDEX, body.as_bytes());
        copy_with(&world, &["--all"], &from, &to).ok();
        assert!(to.has("app", &digest));
    }
    // An index that names layers, as BuildKit's caches do.
    let (world, from, to) = (World::new(), Memory::start(), Memory::start());
    let layer = from.blob("app", LAYER);
    let body = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{layer}","size":{}}}]}}"#,
        LAYER.len()
    );
    from.put("app", "1", INDEX, body.as_bytes());
    copy_with(&world, &["--all"], &from, &to).ok();
    assert!(to.held.lock().unwrap().blobs.contains_key(&("app".into(), layer)));
}

#[test]
fn layers_that_are_not_to_be_distributed_stay_with_a_word() {
    let (world, from, to) = (World::new(), Memory::start(), Memory::start());
    let config = from.blob("app", br#"{"rootfs":{"diff_ids":[]}}"#);
    let layer = from.blob("app", LAYER);
    let body = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":26}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"{layer}","size":{},"urls":["https://x.example/l"]}}]}}"#,
        LAYER.len()
    );
    from.put("app", "1", MANIFEST, body.as_bytes());
    let there = || to.held.lock().unwrap().blobs.contains_key(&("app".into(), layer.clone()));
    let left = copy(&world, &from, &to).ok();
    assert!(left.err.contains("stay where they are") && !there(), "{}", left.err);
    copy_with(&world, &["--include-foreign"], &from, &to).ok();
    assert!(there());
}

/// A registry with a token server of its own: `Bearer` with these parameters more, and what it gives.
fn guarded(more: &'static str, token: &'static str, wanted: &'static [&'static str]) -> Memory {
    let port = Arc::new(std::sync::Mutex::new(String::new()));
    let own = port.clone();
    let odd = Memory::odd(move |asked, _| {
        if asked.path.starts_with("/token") {
            let refused = wanted.iter().any(|wanted| !asked.path.contains(wanted));
            return match refused {
                true => Some(("403 Forbidden", String::new(), br#"{"error":"wrong scope"}"#.to_vec())),
                false => Some(("200 OK", String::new(), token.as_bytes().to_vec())),
            };
        }
        let realm = format!("http://{}/token", own.lock().unwrap());
        let challenge = format!("WWW-Authenticate: Basic realm=\"x\", Bearer realm=\"{realm}\"{more}\r\n");
        match asked.head.contains("authorization: Bearer good") {
            true => None,
            false => Some(("401 Unauthorized", challenge, Vec::new())),
        }
    });
    *port.lock().unwrap() = odd.host().to_owned();
    odd
}

#[test]
fn tokens_and_challenges_are_odd() {
    for (more, token, wanted) in [
        ("", r#"{"token":"","access_token":"good"}"#, &[][..]),
        (",service=\"say \\\"hi\\\"\"", r#"{"token":"good","expires_in":-1}"#, &["service=say+%22hi%22"]),
        (",scope=\"repository:app:pull repository:base/app:pull\"", r#"{"token":"good"}"#, &["base%2Fapp"]),
    ] {
        let from = with_image(guarded(more, token, wanted));
        copy(&World::new(), &from, &Memory::start()).ok();
    }
    let from = with_image(guarded("", r#"{"token":"good"}"#, &["nothing"]));
    let ran = copy(&World::new(), &from, &Memory::start());
    assert!(ran.code == 1 && ran.err.contains("wrong scope"), "{}", ran.err);
}

#[test]
fn an_upload_whose_token_is_over_is_sent_once_more() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    let odd = Memory::odd(move |asked, _| {
        let upload = asked.method == "PUT" && asked.path.contains("/uploads/");
        (upload && once(&count)).then(unauthorized)
    });
    copy(&World::new(), &source(), &odd).ok();
    let never = Memory::odd(|asked, _| {
        let upload = asked.method == "PUT" && asked.path.contains("/uploads/");
        upload.then(unauthorized)
    });
    let ran = copy(&World::new(), &source(), &never);
    assert!(ran.code == 1 && ran.err.contains("401"), "{}", ran.err);
}

#[test]
fn an_answer_that_is_compressed_unasked_is_read() {
    use std::io::Write as _;
    let odd = Memory::odd(|asked, held| {
        let wanted = asked.method == "GET" && asked.path.contains("/manifests/");
        wanted.then(|| {
            let (status, headers, body) = held.lock().unwrap().usual(asked);
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&body).unwrap();
            (status, headers + "Content-Encoding: gzip\r\n", gzip.finish().unwrap())
        })
    });
    copy(&World::new(), &with_image(odd), &Memory::start()).ok();
}

/// A referrer of a manifest, under its digest alone.
fn referrer(registry: &Memory, subject: &str) -> String {
    let more = format!(r#""subject":{{"mediaType":"{MANIFEST}","digest":"{subject}","size":1}},"#);
    let digest = registry.image_with("app", "x", b"signature", &more);
    registry.held.lock().unwrap().manifests.remove(&("app".into(), "x".into()));
    digest
}

fn fallback(subject: &str) -> String {
    subject.replace(':', "-")
}

fn list(registry: &Memory, subject: &str, digests: &[&str]) {
    let entries: Vec<_> = digests
        .iter()
        .map(|digest| {
            let size = registry.held.lock().unwrap().manifests[&("app".into(), digest.to_string())].1.len();
            serde_json::json!({ "mediaType": MANIFEST, "digest": digest, "size": size })
        })
        .collect();
    let body = serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    registry.put("app", &fallback(subject), INDEX, body.to_string().as_bytes());
}

fn with_referrers(world: &World, from: &Memory, to: &Memory, referrers: &str) -> String {
    let policy = format!("version = 1\n{}referrers = {referrers}\n", rule("a", from, to, "app"));
    world.write("p.toml", &policy).display().to_string()
}

#[test]
fn referrers_are_listed_where_they_are_and_the_second_run_is_done() {
    let (world, from, to) = (World::new(), source(), Memory::start());
    let subject = from.image("app", "1", LAYER);
    let signature = referrer(&from, &subject);
    list(&from, &subject, &[&signature]);
    let policy = with_referrers(&world, &from, &to, "true");
    let first = world.dray(&["sync", &policy]).ok();
    // The list of referrers is no image of its own.
    assert!(first.out.contains("1 image copied"), "{}", first.out);
    assert!(to.has("app", &signature));
    let listed = || {
        let held = to.held.lock().unwrap();
        let (_, body) = held.manifests.get(&("app".into(), fallback(&subject)))?;
        Some(String::from_utf8(body.clone()).unwrap().contains(&signature))
    };
    assert_eq!(listed(), Some(true));
    assert!(world.dray(&["sync", &policy]).ok().out.contains("0 images copied, 1 unchanged"));
    // Somebody overwrote the list: the manifest is there, and is listed again.
    to.held.lock().unwrap().manifests.remove(&("app".into(), fallback(&subject)));
    world.dray(&["sync", &policy]).ok();
    assert_eq!(listed(), Some(true));
    assert!(world.dray(&["sync", &policy]).ok().out.contains("0 images copied, 1 unchanged"));
}

#[test]
fn referrers_of_other_types_than_those_that_are_named_stay() {
    let (world, from, to) = (World::new(), source(), Memory::start());
    let subject = from.image("app", "1", LAYER);
    let of_type = |kind: &str| {
        let more = format!(
            r#""artifactType":"{kind}","subject":{{"mediaType":"{MANIFEST}","digest":"{subject}","size":1}},"#
        );
        let digest = from.image_with("app", "x", kind.as_bytes(), &more);
        let gone = from.held.lock().unwrap().manifests.remove(&("app".into(), "x".into()));
        (digest, kind.to_owned(), gone.unwrap().1.len())
    };
    let both = [of_type("application/vnd.example.sbom"), of_type("application/vnd.example.scan")];
    let entries: Vec<_> = both
        .iter()
        .map(|(digest, kind, size)| {
            serde_json::json!({ "mediaType": MANIFEST, "digest": digest, "size": size, "artifactType": kind })
        })
        .collect();
    let body = serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    from.put("app", &fallback(&subject), INDEX, body.to_string().as_bytes());
    let policy = with_referrers(&world, &from, &to, r#"["application/vnd.example.sbom"]"#);
    world.dray(&["sync", &policy]).ok();
    assert_eq!((to.has("app", &both[0].0), to.has("app", &both[1].0)), (true, false));
    assert!(world.dray(&["sync", &policy]).ok().out.contains("0 images copied, 1 unchanged"));
    // Once all are wanted, what stayed comes.
    world.dray(&["sync", &with_referrers(&world, &from, &to, "true")]).ok();
    assert!(to.has("app", &both[1].0));
    let wrong = world.dray(&["check", &with_referrers(&world, &from, &to, "[]")]);
    assert!(wrong.code != 0 && wrong.err.contains("a list of artifact types"), "{}", wrong.err);
}

#[test]
fn a_fallback_tag_that_is_an_image_is_left_alone() {
    let (world, from, to) = (World::new(), source(), Memory::start());
    let subject = from.image("app", "1", LAYER);
    let other = from.image("app", &fallback(&subject), b"an image of that name");
    let policy = with_referrers(&world, &from, &to, "true");
    world.dray(&["sync", &policy]).ok();
    assert!(!to.has("app", &fallback(&subject)) && !to.has("app", &other));
    // Nor is one written into.
    let signature = referrer(&from, &subject);
    list(&from, &subject, &[&signature]);
    let image = to.image("app", &fallback(&subject), b"an image of that name");
    let ran = world.dray(&["sync", &policy]).ok();
    assert!(ran.err.contains("is no list of referrers"), "{}", ran.err);
    let held = to.held.lock().unwrap();
    assert_eq!(Digest::of(&held.manifests[&("app".into(), fallback(&subject))].1).to_string(), image);
}

#[test]
fn a_referrer_that_cannot_be_had_withholds_its_image_only_where_it_is_required() {
    for (referrers, code) in [("true", 0), ("\"required\"", 1)] {
        let (world, from, to) = (World::new(), source(), Memory::start());
        let subject = from.image("app", "1", LAYER);
        let signature = referrer(&from, &subject);
        list(&from, &subject, &[&signature]);
        from.held.lock().unwrap().manifests.remove(&("app".into(), signature));
        let ran = world.dray(&["sync", &with_referrers(&world, &from, &to, referrers)]);
        assert_eq!((ran.code, to.has("app", "1")), (code, code == 0), "{referrers}: {}", ran.err);
        assert!(ran.err.contains("the referrer"), "{}", ran.err);
    }
}

/// A source with an index of two platforms at `app:1`. Returns the digests of
/// the index and of its first image.
fn two_platforms(from: &Memory) -> (String, String) {
    let images = [from.image("app", "amd64", LAYER), from.image("app", "arm64", b"another layer")];
    let children = images.iter().zip(["amd64", "arm64"]).map(|(digest, architecture)| {
        let size = from.held.lock().unwrap().manifests[&("app".into(), digest.clone())].1.len();
        format!(
            r#"{{"mediaType":"{MANIFEST}","digest":"{digest}","size":{size},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#
        )
    });
    let children: Vec<String> = children.collect();
    let body = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, children.join(","));
    (from.put("app", "1", INDEX, body.as_bytes()), images[0].clone())
}

#[test]
fn referrers_of_a_changed_image_are_never_left_behind_in_silence() {
    let trim = "platforms = [\"amd64\"]\nindex = \"trim\"";
    for (form, why) in [
        (trim, "only some platforms are written"),
        ("format = \"docker\"", "the image is converted on its way"),
    ] {
        let (world, from, to) = (World::new(), source(), Memory::start());
        let (index, image) = two_platforms(&from);
        list(&from, &index, &[&referrer(&from, &index)]);
        let of_image = referrer(&from, &image);
        list(&from, &image, &[&of_image]);
        let policy = |referrers: &str| {
            with_referrers(&world, &from, &to, &format!("{referrers}\ntags = \"1\"\n{form}"))
        };
        let checked = world.dray(&["check", &policy("true")]).ok();
        assert!(checked.err.contains("so its referrers cannot come along"), "{}", checked.err);
        let refused = world.dray(&["sync", &policy("\"required\"")]);
        assert_eq!((refused.code, to.has("app", "1")), (1, false), "{form}: {}", refused.err);
        assert!(
            refused.err.contains("1 referrer of ") && refused.err.contains(why),
            "{form}: {}",
            refused.err
        );
        let copied = world.dray(&["sync", &policy("true")]).ok();
        assert!(copied.err.contains("1 referrer of ") && copied.err.contains(why), "{form}: {}", copied.err);
        // An image in the index that is not converted keeps its own; otherwise, they are told of, too.
        assert_eq!(to.has("app", &of_image), form == trim, "{form}");
        let told = copied.err.contains(&format!("1 referrer of {}", &image[..19]));
        assert_eq!(told, form != trim, "{form}: {}", copied.err);
        // The second run has nothing to do, and nothing to tell.
        let again = world.dray(&["sync", &policy("true")]).ok();
        assert!(again.out.contains("0 images copied, 1 unchanged"), "{form}: {}", again.out);
        assert!(!again.err.contains("1 referrer"), "{form}: {}", again.err);
    }
}

#[test]
fn a_place_for_one_image_loses_the_referrers_of_what_it_gets() {
    let (world, from) = (World::new(), source());
    let (_, image) = two_platforms(&from);
    list(&from, &image, &[&referrer(&from, &image)]);
    let policy = |referrers: &str| {
        let text = format!(
            "version = 1\n[[rule]]\nfrom = \"docker://{}/app:1\"\nto = \"dir:out\"\nplatforms = [\"amd64\"]\nreferrers = {referrers}\n",
            from.host()
        );
        world.write("p.toml", &text).display().to_string()
    };
    let refused = world.dray(&["sync", &policy("\"required\"")]);
    assert!(refused.code == 1 && refused.err.contains("copy 1 referrer of "), "{}", refused.err);
    assert!(
        refused.err.contains("copy to a registry or a layout") && !world.path("out/manifest.json").exists()
    );
    let copied = world.dray(&["sync", &policy("true")]).ok();
    assert!(
        copied.err.contains("1 referrer of ") && copied.err.contains("keeps no referrers"),
        "{}",
        copied.err
    );
}

#[test]
fn an_index_that_needs_no_conversion_keeps_its_referrers() {
    let (world, from, to) = (World::new(), source(), Memory::start());
    let (index, _) = two_platforms(&from);
    let signature = referrer(&from, &index);
    list(&from, &index, &[&signature]);
    // Its layers are uncompressed already.
    let policy = with_referrers(&world, &from, &to, "\"required\"\ntags = \"1\"\ncompression = \"none\"");
    world.dray(&["sync", &policy]).ok();
    assert!(to.has("app", "1") && to.has("app", &index) && to.has("app", &signature));
    assert!(world.dray(&["sync", &policy]).ok().out.contains("0 images copied, 1 unchanged"));
}

#[test]
fn a_graph_does_not_wait_for_itself() {
    let (world, from, to) = (World::new(), source(), Memory::start());
    let subject = from.image("app", "1", LAYER);
    let size = from.held.lock().unwrap().manifests[&("app".into(), subject.clone())].1.len();
    let child = format!(r#"{{"mediaType":"{MANIFEST}","digest":"{subject}","size":{size}}}"#);
    // Its child is its subject.
    let body =
        format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{child}],"subject":{child}}}"#);
    let index = from.put("app", "i", INDEX, body.as_bytes());
    from.held.lock().unwrap().manifests.remove(&("app".into(), "i".into()));
    list(&from, &subject, &[&index]);
    world.dray(&["sync", &with_referrers(&world, &from, &to, "true")]).ok();
    assert!(to.has("app", &index));
}

#[test]
fn a_wide_index_fails_alone() {
    let (world, from, to) = (World::new(), Memory::start(), Memory::start());
    from.image("app", "good", LAYER);
    let child = |at: usize| format!(r#"{{"mediaType":"{MANIFEST}","digest":"sha256:{at:064x}","size":10}}"#);
    let children: Vec<String> = (0..50_000).map(child).collect();
    let body = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, children.join(","));
    from.put("app", "wide", INDEX, body.as_bytes());
    let policy = with_referrers(&world, &from, &to, "false");
    let ran = world.dray(&["sync", "--keep-going", &policy]);
    assert!(ran.code == 1 && ran.err.contains("names more than 10000 manifests"), "{}", ran.err);
    assert!(to.has("app", "good") && !to.has("app", "wide"));
    assert!(from.asked().len() < 50, "{}", from.asked().len());
}

#[test]
fn layers_are_looked_at_once() {
    let (world, from, to) = (World::new(), source(), Memory::start());
    let rule = with_referrers(&world, &from, &to, "false\ncompression = \"none\"");
    let layer = format!("GET /v2/app/blobs/{}", Digest::of(LAYER));
    world.dray(&["sync", &rule]).ok();
    // A look, and the copy.
    assert_eq!(from.count(&layer), 2);
    assert!(world.dray(&["sync", &rule]).ok().out.contains("0 images copied, 1 unchanged"));
    assert_eq!(from.count(&layer), 2);
}

#[test]
fn a_missing_secret_is_no_missing_image() {
    let (world, from, to) = (World::new(), source(), guarded("", r#"{"token":"good"}"#, &[]));
    let policy = format!(
        "version = 1\n[registry.\"{0}\"]\nauth = {{ provider = \"static\", username = \"u\", password = \"env:NOT_THERE\" }}\n[[rule]]\nname = \"a\"\nfrom = \"docker://{1}/app:1\"\nto = \"docker://{0}/app\"\n",
        to.host(),
        from.host()
    );
    let path = world.write("p.toml", &policy);
    let ran = world.dray(&["plan", path.to_str().unwrap()]);
    assert!(
        ran.code == 2 && ran.err.contains("NOT_THERE") && !ran.err.contains("no such image"),
        "{}{}",
        ran.out,
        ran.err
    );
}

#[test]
fn nobody_who_is_there_is_waited_for_at_length() {
    let world = World::new();
    let port = support::free_port();
    let began = std::time::Instant::now();
    let ran = world.dray(&["inspect", "--output", "json", &format!("docker://127.0.0.1:{port}/a:1")]);
    assert!(ran.code == 1 && ran.err.contains("given up after 2 attempts"), "{}", ran.err);
    assert!(began.elapsed() < std::time::Duration::from_secs(20));
}

#[test]
fn whom_a_registry_leads_to_gets_no_credentials() {
    let elsewhere = Memory::odd(|_, _| Some(("200 OK", String::new(), LAYER.to_vec())));
    let target = elsewhere.host().to_owned();
    let odd = with_image(Memory::odd(move |asked, _| {
        if !asked.head.contains("authorization: Basic") {
            return Some(unauthorized());
        }
        let layer = asked.path.ends_with(&Digest::of(LAYER).to_string());
        layer.then(|| {
            ("307 Temporary Redirect", format!("Location: http://{target}/blob?signature=x\r\n"), Vec::new())
        })
    }));
    let world = World::new();
    let policy = format!(
        "version = 1\n[registry.\"{0}\"]\nauth = {{ provider = \"static\", username = \"u\", password = \"env:P\" }}\n[[rule]]\nname = \"a\"\nfrom = \"docker://{0}/app:1\"\nto = \"oci:out\"\n",
        odd.host()
    );
    let path = world.write("p.toml", &policy);
    let ran = world.command(&["-v", "sync", path.to_str().unwrap()]).env("P", "hunter2").output().unwrap();
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success() && !told.contains("hunter2") && !told.contains("signature="), "{told}");
    let heads = elsewhere.heads();
    assert_eq!(heads.len(), 1);
    assert!(!heads[0].to_lowercase().contains("authorization"), "{heads:?}");
}

#[test]
fn a_repository_that_may_not_be_seen_and_a_tag_that_is_gone_are_left_out() {
    let odd = Memory::odd(|asked, held| match asked.path {
        "/v2/_catalog?n=1000" => {
            Some(("200 OK", String::new(), br#"{"repositories":["app","empty",null,"secret"]}"#.to_vec()))
        }
        path if path.starts_with("/v2/secret/") => reply("403 Forbidden"),
        path if path.ends_with("/manifests/gone") => reply("404 Not Found"),
        path if path.starts_with("/v2/app/tags/") => {
            let (status, headers, _) = held.lock().unwrap().usual(asked);
            Some((status, headers, br#"{"tags":["1","gone"]}"#.to_vec()))
        }
        path if path.starts_with("/v2/empty/") => reply("404 Not Found"),
        _ => None,
    });
    let (world, from, to) = (World::new(), with_image(odd), Memory::start());
    let policy = format!(
        "version = 1\n[[rule]]\nname = \"a\"\nfrom = \"docker://{}/**\"\nto = \"docker://{}/{{path}}\"\n",
        from.host(),
        to.host()
    );
    let path = world.write("p.toml", &policy);
    let ran = world.dray(&["sync", path.to_str().unwrap()]).ok();
    assert!(to.has("app", "1") && ran.out.contains("1 image copied"), "{}{}", ran.out, ran.err);
    for left in ["secret is left out", "empty is left out", "gone is left out"] {
        assert!(ran.err.contains(left), "{left}: {}", ran.err);
    }
}

#[test]
fn refusals_come_with_a_remedy() {
    let odd = Memory::odd(|asked, _| {
        let body = br#"{"errors":[{"code":"MANIFEST_INVALID","message":"unsupported media type"}]}"#.to_vec();
        (asked.method == "PUT" && asked.path.contains("/manifests/"))
            .then(|| ("400 Bad Request", String::new(), body))
    });
    let ran = copy(&World::new(), &source(), &odd);
    assert!(ran.code == 1 && ran.err.contains("format = \"docker\""), "{}", ran.err);
    let (world, from) = (World::new(), Memory::start());
    let child = Digest::of(b"not there");
    let body = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{MANIFEST}","digest":"{child}","size":9,"platform":{{"os":"linux","architecture":"arm64"}}}}]}}"#
    );
    from.put("app", "1", INDEX, body.as_bytes());
    let ran = world.dray(&["copy", "--all", &format!("docker://{}/app:1", from.host()), "oci:out:1"]);
    assert!(ran.code == 1 && ran.err.contains("platforms = "), "{}", ran.err);
}

#[test]
fn files_tell_by_which_scheme_they_are_read() {
    let (world, from) = (World::new(), source());
    let reference = format!("docker://{}/app:1", from.host());
    world.dray(&["copy", &reference, "oci-archive:a.tar:r.example/app:1"]).ok();
    world.dray(&["copy", &reference, "docker-archive:d.tar:foo/bar:1"]).ok();
    assert_eq!(world.dray(&["list-tags", "oci-archive:a.tar"]).ok().out, "r.example/app:1\n");
    assert_eq!(world.dray(&["list-tags", "docker-archive:d.tar"]).ok().out, "docker.io/foo/bar:1\n");
    world.write("text.tar", "hello\n");
    for (wrong, told) in [
        ("oci:a.tar", "read it as oci-archive:"),
        ("oci-archive:d.tar", "read it as docker-archive:"),
        ("oci-archive:text.tar", "is no tar archive"),
        ("dir:none", "is not there"),
        ("docker-archive:d.tar:b/x.tar:n/m:1", "is no name of an image"),
    ] {
        let ran = world.dray(&["copy", wrong, "oci:out:1"]);
        assert!(ran.code == 1 && ran.err.contains(told), "{wrong}: {}", ran.err);
    }
}
