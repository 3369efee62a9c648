//! Mistakes that only the network shows: wrong addresses, certificates, logins and servers. What dray says of each is in
//! the folder `network_mistakes`, as a whole. With `DRAY_TEST_WRITE=1` the test writes its files anew, for its author to read.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::{
    fmt::Write,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use support::{
    Fake, Ran, Registry, World, free_port, has,
    memory::{MANIFEST, Memory, reply},
    respond,
};

/// What is told of all mistakes, and the longest that one took.
struct Told {
    world: World,
    text: String,
    longest: (Duration, String),
}

impl Told {
    fn new() -> Self {
        Told { world: World::new(), text: String::new(), longest: Default::default() }
    }

    /// Runs a command that fails, and adds what it says. `names` are addresses, each with what stands for it.
    #[track_caller]
    fn add(&mut self, mistake: &str, names: &[(&str, &str)], command: &mut Command) {
        let begun = Instant::now();
        let ran = Ran::of(command);
        if begun.elapsed() > self.longest.0 {
            self.longest = (begun.elapsed(), mistake.to_owned());
        }
        assert!(ran.code == 1 || ran.code == 2, "{mistake}: {}\n{}{}", ran.code, ran.out, ran.err);
        let mut said = ran.err;
        for (address, name) in names {
            said = said.replace(address, name);
        }
        let folder = self.world.path("");
        let said = said.replace(folder.to_str().unwrap(), "/FOLDER/").replace("/FOLDER//", "/FOLDER/");
        let said = without_digests(&said);
        writeln!(self.text, "# {mistake}\n{said}").unwrap();
    }

    fn dray(&mut self, mistake: &str, names: &[(&str, &str)], arguments: &[&str]) {
        let mut command = self.world.command(arguments);
        self.add(mistake, names, &mut command);
    }

    /// Syncs an image of a registry, of which the policy says what is in `keys`.
    fn sync(&mut self, mistake: &str, host: &str, keys: &str) {
        let policy = format!(
            "version = 1\n[registry.\"{host}\"]\n{keys}\n[[rule]]\nfrom = \"docker://{host}/app:1\"\nto = \"oci:mirror\"\n"
        );
        self.world.write("dray.toml", &policy);
        self.dray(mistake, &[(host, "HOST")], &["sync", "--quiet"]);
    }
}

/// The text with `…` for the hashes of digests: which of several blobs fails first is chance.
fn without_digests(text: &str) -> String {
    let mut parts = text.split("sha256:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let rest = part.trim_start_matches(|character: char| character.is_ascii_hexdigit());
        let hash = if part.len() - rest.len() >= 12 { "…" } else { &part[..part.len() - rest.len()] };
        format!("{text}sha256:{hash}{rest}")
    })
}

/// Compares with the file, or writes it.
fn compare(part: &str, told: &Told) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/network_mistakes/{part}.txt"));
    if std::env::var_os("DRAY_TEST_WRITE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &told.text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    for (expected, said) in expected.split("\n# ").zip(told.text.split("\n# ")) {
        assert_eq!(said, expected);
    }
    assert_eq!(told.text, expected);
    eprintln!("the longest took {:?}: {}", told.longest.0, told.longest.1);
}

#[test]
fn connections() {
    if !has("docker-registry") {
        return;
    }
    let mut told = Told::new();
    let world = World::new();
    let nobody = format!("127.0.0.1:{}", free_port());
    let inspect = |host: &str| format!("docker://{host}/app:1");

    told.dray("An unknown host", &[], &["inspect", "docker://registry.invalid/app:1"]);
    told.dray("A port where nothing listens", &[(&nobody, "HOST")], &["inspect", &inspect(&nobody)]);
    told.sync("The same in a policy", &nobody, "");
    told.sync("The same without TLS", &nobody, "tls = \"off\"");

    let plain = Registry::start(&world, "plain", "");
    told.sync("TLS to a plain port", &plain.host, "tls = { verify = false }");
    world.certificates();
    let secure = Registry::start_tls(&world, "secure", &world.path("leaf.pem"), &world.path("leaf.key"));
    told.sync("Plain HTTP to a TLS port", &secure.host, "tls = \"off\"");
    told.sync("An authority that nobody knows", &secure.host, "");
    let port = secure.host.rsplit(':').next().unwrap();
    fs::copy(world.path("ca.pem"), told.world.path("ca.pem")).unwrap();
    let named = format!("localhost:{port}");
    told.sync("A certificate of another name", &named, "tls = { ca = \"ca.pem\" }");
    told.world.write("junk.pem", "no certificate\n");
    told.sync("An authority file without a certificate", &secure.host, "tls = { ca = \"junk.pem\" }");
    told.sync("An authority file that is not there", &secure.host, "tls = { ca = \"none.pem\" }");
    let client = "tls = { ca = \"ca.pem\", cert = \"junk.pem\", key = \"junk.pem\" }";
    told.sync("A client certificate without a certificate", &secure.host, client);
    told.sync(
        "A proxy where nothing listens",
        "registry.example.com",
        &format!("proxy = \"http://{nobody}\""),
    );
    told.text = told.text.replace(&nobody, "PROXY");

    let refuses = Fake::start(|_, stream| respond(stream, "407 Proxy Authentication Required", "", b""));
    told.sync(
        "A proxy that wants a login",
        "registry.example.com",
        &format!("proxy = \"http://{}\"", refuses.host),
    );
    told.text = told.text.replace(&refuses.host, "PROXY");

    let daemon = |told: &mut Told, mistake: &str, address: &str| {
        let mut command = told.world.command(&["inspect", "docker-daemon:app:1"]);
        command.env("DOCKER_HOST", address);
        told.add(mistake, &[(&nobody, "HOST")], &mut command);
    };
    daemon(&mut told, "A socket that is not there", "unix:///nowhere/docker.sock");
    daemon(&mut told, "A daemon where nothing listens", &format!("tcp://{nobody}"));
    daemon(&mut told, "A DOCKER_HOST that is no address", "nonsense");
    told.world.write("a-file", "");
    let file = format!("unix://{}", told.world.path("a-file").display());
    daemon(&mut told, "A socket that is a file", &file);
    assert!(told.longest.0 < Duration::from_secs(30), "{:?}", told.longest);
    compare("connections", &told);
}

#[test]
fn images_and_places() {
    if !has("docker-registry") {
        return;
    }
    let mut told = Told::new();
    let world = World::new();
    let registry = Registry::start(&world, "registry", "");
    let host = &registry.host;
    let names = [(host.as_str(), "HOST")];
    for tag in ["1.27.1", "1.27.2", "latest"] {
        world
            .dray(&[
                "copy",
                &format!("{}:1.0.0", support::IMAGES),
                &format!("docker://{host}/library/nginx:{tag}"),
            ])
            .ok();
    }
    let image = |rest: &str| format!("docker://{host}/{rest}");
    told.dray("A repository that is not there", &names, &["inspect", &image("library/ngnix:1.27.1")]);
    told.dray("A tag that is not there", &names, &["inspect", &image("library/nginx:1.27.3")]);
    told.dray(
        "A digest that is not there",
        &names,
        &["inspect", &image(&format!("library/nginx@sha256:{}", "0".repeat(64)))],
    );
    told.dray(
        "A copy of a tag that is not there",
        &names,
        &["copy", &image("library/nginx:v1.27.1"), "oci:x:1"],
    );
    told.dray("Tags of a repository that is not there", &names, &["list-tags", &image("library/ngnix")]);
    told.dray(
        "A platform that is not there",
        &[(support::IMAGES, "IMAGES")],
        &["copy", "--platform", "linux/s390x", &format!("{}:1.0.0", support::IMAGES), "oci:x:1"],
    );
    told.dray("A repository in capitals", &names, &["inspect", &image("Library/nginx:1.27.1")]);
    told.dray("A tag with a blank", &names, &["inspect", &image("library/nginx:1 27")]);
    told.dray("A digest that is cut", &names, &["inspect", &image("library/nginx@sha256:0000")]);
    told.dray(
        "An address of a browser",
        &names,
        &["inspect", &format!("http://{host}/library/nginx:latest")],
    );
    told.dray("No transport", &names, &["inspect", &format!("{host}/library/nginx:latest")]);
    told.dray("A layout that is not there", &[], &["inspect", "oci:nowhere:1"]);
    told.dray("An archive that is not there", &[], &["inspect", "docker-archive:nowhere.tar"]);

    let read_only = Registry::start_with(&world, "read-only", "");
    let text = fs::read_to_string(world.path("read-only.yml")).unwrap();
    let text = text.replace("delete: { enabled: true }", "maintenance: { readonly: { enabled: true } }");
    fs::write(world.path("read-only.yml"), text).unwrap();
    let mut read_only = read_only;
    read_only.restart();
    let names = [(host.as_str(), "HOST"), (read_only.host.as_str(), "READ-ONLY")];
    let to = format!("docker://{}/app:1", read_only.host);
    told.dray("A registry that is read-only", &names, &["copy", &image("library/nginx:latest"), &to]);
    compare("images", &told);
}

#[test]
fn logins() {
    if !has("docker-registry") || !has("htpasswd") {
        return;
    }
    let mut told = Told::new();
    let world = World::new();
    let users = world.tool("htpasswd", &["-Bbn", "user", "right"]);
    let users = world.write("users", &users);
    let auth = format!("  htpasswd: {{ realm: here, path: {} }}", users.display());
    let registry = Registry::start(&world, "registry", &auth);
    let host = registry.host.clone();
    let host = host.as_str();
    told.sync("No login", host, "");
    told.world.write("password", "wrong\n");
    told.sync("A wrong password", host, "auth = { username = \"user\", password = \"file:password\" }");
    told.sync(
        "A variable that is not set",
        host,
        "auth = { username = \"user\", password = \"env:NO_SUCH\" }",
    );
    told.sync("A file that is not there", host, "auth = { username = \"user\", password = \"file:none\" }");
    told.sync("A token where a password is wanted", host, "auth = { identity-token = \"file:password\" }");
    let file = |told: &mut Told, mistake: &str, text: &str| {
        told.world.write("home/.docker/config.json", text);
        told.sync(mistake, host, "");
    };
    file(&mut told, "A config.json that is no JSON", "{ auths: }");
    let login = |user: &str| format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"{user}\"}}}}}}");
    file(&mut told, "A config.json with a wrong login", &login("dXNlcjp3cm9uZw=="));
    file(&mut told, "A config.json whose login is no base64", &login("user:wrong"));
    let helper = format!("{{\"credHelpers\":{{\"{host}\":\"nosuch\"}}}}");
    file(&mut told, "A credential helper that is not there", &helper);
    fs::remove_file(told.world.path("home/.docker/config.json")).unwrap();

    // Registries that send their users elsewhere for a token.
    let realm = |answer: (&'static str, &'static str)| {
        let tokens = Fake::start(move |_, stream| respond(stream, answer.0, "", answer.1.as_bytes()));
        let challenge =
            format!("WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"r\"\r\n", tokens.host);
        let registry = Fake::start(move |_, stream| respond(stream, "401 Unauthorized", &challenge, b"{}"));
        (registry, tokens)
    };
    for (mistake, status, body) in [
        (
            "A token server that refuses",
            "401 Unauthorized",
            r#"{"details":"incorrect username or password"}"#,
        ),
        ("A token server that forbids", "403 Forbidden", r#"{"error":"invalid_scope"}"#),
        ("A token server that is a web page", "200 OK", "<html><title>Sign in</title></html>"),
        ("A token server that gives no token", "200 OK", "{}"),
        ("A registry that refuses its own tokens", "200 OK", r#"{"token":"abc"}"#),
    ] {
        let (registry, tokens) = realm((status, body));
        told.sync(mistake, &registry.host, "");
        told.text = told.text.replace(&tokens.host, "TOKENS");
    }
    let strange = Fake::start(|_, stream| {
        respond(stream, "401 Unauthorized", "WWW-Authenticate: Negotiate\r\n", b"");
    });
    told.sync("A challenge that nobody knows", &strange.host, "");
    compare("logins", &told);
}

#[test]
fn servers() {
    let mut told = Told::new();
    let web = |status: &'static str, headers: &'static str, body: &'static str| {
        Fake::start(move |_, stream| respond(stream, status, headers, body.as_bytes()))
    };
    let page = "<!DOCTYPE html><title>Welcome</title>";
    for (mistake, fake) in [
        ("A web server that is no registry", web("200 OK", "Content-Type: text/html\r\n", page)),
        ("A web server without such a page", web("404 Not Found", "Content-Type: text/html\r\n", page)),
        (
            "A registry that forbids it",
            web(
                "403 Forbidden",
                "",
                r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#,
            ),
        ),
        (
            "A registry that is asked too often",
            web(
                "429 Too Many Requests",
                "Retry-After: 3600\r\n",
                r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"you have reached your pull rate limit"}]}"#,
            ),
        ),
        ("A registry that is down for an hour", web("503 Service Unavailable", "Retry-After: 3600\r\n", "")),
        ("A redirect to nowhere in particular", web("302 Found", "", "")),
        (
            "A manifest that is no JSON",
            web("200 OK", "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n", "hello"),
        ),
        (
            "A manifest of a type that nobody knows",
            web("200 OK", "Content-Type: application/x-tar\r\n", "{}"),
        ),
    ] {
        told.sync(mistake, &fake.host, "");
    }
    let round = Fake::start(|request, stream| {
        let path = request.split(' ').nth(1).unwrap();
        respond(stream, "307 Temporary Redirect", &format!("Location: {path}\r\n"), b"");
    });
    told.sync("A redirect in a circle", &round.host, "");

    let mut source = |mistake: &str, memory: Memory| {
        told.sync(mistake, memory.host(), "");
    };
    let missing =
        Memory::odd(|asked, _| if asked.path.contains("/blobs/") { reply("404 Not Found") } else { None });
    missing.image("app", "1", b"layer");
    source("A blob that the source lacks", missing);
    let wrong = Memory::odd(|asked, _| {
        asked.path.contains("/blobs/").then(|| ("200 OK", String::new(), b"loyer".to_vec()))
    });
    wrong.image("app", "1", b"layer");
    source("A blob with other content", wrong);
    let other = Memory::start();
    let digest = other.image("app", "1", b"layer");
    other.held.lock().unwrap().manifests.get_mut(&("app".into(), digest)).unwrap().1 = b"{}".to_vec();
    other.held.lock().unwrap().manifests.remove(&("app".into(), "1".into()));
    let host = other.host().to_owned();
    let digest = other.image("app", "2", b"layer");
    other
        .held
        .lock()
        .unwrap()
        .manifests
        .insert(("app".into(), digest.clone()), (MANIFEST.into(), b"{}".to_vec()));
    told.dray(
        "A manifest with another digest",
        &[(&host, "HOST")],
        &["inspect", &format!("docker://{host}/app@{digest}")],
    );

    // What destinations refuse.
    let mut refuses = |mistake: &str,
                       method: &'static str,
                       path: &'static str,
                       status: &'static str,
                       code: &'static str| {
        let memory = Memory::odd(move |asked, _| {
            let refused = asked.method == method && asked.path.contains(path);
            refused.then(|| {
                (
                    status,
                    String::new(),
                    format!(r#"{{"errors":[{{"code":"{code}","message":"no"}}]}}"#).into_bytes(),
                )
            })
        });
        let host = memory.host().to_owned();
        let from = format!("{}:1.0.0", support::IMAGES);
        told.dray(
            mistake,
            &[(&host, "HOST"), (support::IMAGES, "IMAGES")],
            &["copy", &from, &format!("docker://{host}/app:1")],
        );
    };
    refuses("A destination that forbids pushes", "POST", "/blobs/uploads/", "403 Forbidden", "DENIED");
    refuses("A project that must be made first", "POST", "/blobs/uploads/", "404 Not Found", "NAME_UNKNOWN");
    refuses("A quota that is used up", "POST", "/blobs/uploads/", "413 Request Entity Too Large", "QUOTA");
    refuses("A tag that must not change", "PUT", "/manifests/", "409 Conflict", "TAG_IMMUTABLE");
    refuses("A manifest that is not liked", "PUT", "/manifests/", "400 Bad Request", "MANIFEST_INVALID");
    refuses(
        "Uploads that are not allowed",
        "POST",
        "/blobs/uploads/",
        "405 Method Not Allowed",
        "UNSUPPORTED",
    );

    let no_lists = Memory::odd(|asked, _| {
        if asked.path.contains("list") || asked.path.contains("catalog") {
            reply("405 Method Not Allowed")
        } else {
            None
        }
    });
    no_lists.image("app", "1", b"layer");
    let host = no_lists.host().to_owned();
    told.dray(
        "A registry that lists no tags",
        &[(&host, "HOST")],
        &["list-tags", &format!("docker://{host}/app")],
    );
    told.dray(
        "A registry that lists no repositories",
        &[(&host, "HOST")],
        &["ls", &format!("docker://{host}")],
    );
    compare("servers", &told);
}
