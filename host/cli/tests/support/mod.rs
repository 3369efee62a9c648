//! A hermetic folder, dray in it, and real registries on loopback.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod clouds;
pub mod described;
pub mod harbor;
pub mod images;
pub mod memory;
pub mod signed;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The sample images, as a reference.
pub const IMAGES: &str = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/../../examples/images");

/// Checks each line, which is JSON, by a schema of docs/, and gives them.
#[track_caller]
pub fn checked_lines<'a>(schema: &str, lines: impl Iterator<Item = &'a str>) -> Vec<serde_json::Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(schema);
    let schema = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    lines
        .map(|line| {
            let value = serde_json::from_str(line).unwrap();
            let wrong: Vec<String> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(wrong.is_empty(), "{wrong:?}: {line}");
            value
        })
        .collect()
}

/// Whether a program is here. Where it is not, the test is left out, and says so; with
/// DRAY_TEST_ALL set, as in CI, that is a failure.
pub fn has(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&folders).any(|folder| folder.join(program).exists());
    assert!(there || std::env::var_os("DRAY_TEST_ALL").is_none(), "{program} is not installed");
    if !there {
        eprintln!("left out: {program} is not installed");
    }
    there
}

/// Whether daemons can be started. Where they cannot, the test is left out, as above.
pub fn is_root() -> bool {
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    assert!(root || std::env::var_os("DRAY_TEST_ALL").is_none(), "only root can start daemons");
    if !root {
        eprintln!("left out: only root can start daemons");
    }
    root
}

/// A folder of a test, with a home of its own.
pub struct World {
    folder: TempDir,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }
}

impl World {
    pub fn new() -> Self {
        World { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub fn hermetic(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env_clear();
        for (name, value) in [("HOME", "home"), ("XDG_RUNTIME_DIR", "run"), ("XDG_CONFIG_HOME", "config")] {
            command.env(name, self.path(value));
        }
        // One cache for all tests: compiling plugins anew would make each of them slow.
        command.env("XDG_CACHE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.hermetic(env!("CARGO_BIN_EXE_dray"));
        command.args(arguments);
        command
    }

    /// Runs dray to its end.
    pub fn dray(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.command(arguments))
    }

    /// Runs another tool, which must succeed; what it printed.
    #[track_caller]
    pub fn tool(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        let ran = Ran::of(command.args(arguments).current_dir(self.folder.path()));
        assert_eq!(ran.code, 0, "{program} {arguments:?}\n{}\n{}", ran.out, ran.err);
        ran.out
    }

    /// A private authority (`ca.pem`), and what it says of 127.0.0.1 (`leaf.pem`, `leaf.key`), which
    /// may serve and be served.
    pub fn certificates(&self) {
        self.write("ext", "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n");
        for command in [
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority",
            "req -newkey rsa:2048 -nodes -keyout leaf.key -out leaf.csr -subj /CN=leaf",
            "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out leaf.pem",
        ] {
            self.tool("openssl", &command.split(' ').collect::<Vec<_>>());
        }
    }

    /// The digest that skopeo sees.
    #[track_caller]
    pub fn digest(&self, reference: &str, more: &[&str]) -> String {
        let arguments = [&["inspect", "--raw", "--tls-verify=false"], more, &[reference]].concat();
        let raw = self.tool("skopeo", &arguments);
        dray_core::Digest::of(raw.as_bytes()).to_string()
    }
}

/// Whether plugins can be built here. Where they cannot, the test is left out, as above.
pub fn builds_plugins() -> bool {
    let there = dray_author::Toolchain::any().is_ok();
    assert!(there || std::env::var_os("DRAY_TEST_ALL").is_none(), "no toolchain for WebAssembly is here");
    if !there {
        eprintln!("left out: no toolchain for WebAssembly is here");
    }
    there
}

/// Builds a plugin whose project is in a folder of the repository.
pub fn build_plugin(world: &World, folder: &str, out: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    author(world, &["plugin", "build", folder.to_str().unwrap(), "--out", out]).ok();
}

/// Runs dray with a cache that outlives the test, so that the standard library is compiled once.
pub fn author(world: &World, arguments: &[&str]) -> Ran {
    let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("authors");
    let mut command = world.command(arguments);
    let home = std::env::home_dir().unwrap();
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    command.env("XDG_CACHE_HOME", cache).env("CARGO_HOME", cargo);
    if let Some(rustup) = std::env::var_os("RUSTUP_HOME").or_else(|| Some(home.join(".rustup").into())) {
        command.env("RUSTUP_HOME", rustup);
    }
    Ran::of(&mut command)
}

/// An address on loopback that nobody listens at.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A process that ends with its test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that ends with its test, and is given the time to end its own children.
pub struct Terminated(Child);

impl Terminated {
    pub fn start(mut command: Command) -> Self {
        Terminated(command.spawn().unwrap())
    }
}

impl Drop for Terminated {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// A process that is killed as by a power cut.
pub struct Killed(pub Child);

impl Killed {
    pub fn start(mut command: Command) -> Self {
        Killed(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something has happened, a minute at most.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the journal holds, in numbers.
pub fn kept(world: &World) -> serde_json::Value {
    world.dray(&["cache", "--output", "json"]).ok().json()["journal"].clone()
}

/// How many requests begin so.
pub fn count(requests: &[String], beginning: &str) -> usize {
    requests.iter().filter(|request| request.starts_with(beginning)).count()
}

/// Debian's docker-registry.
pub struct Registry {
    pub host: String,
    config: PathBuf,
    log: PathBuf,
    process: Option<Running>,
}

impl Registry {
    /// `auth` is the `auth:` part of its configuration, indented by two.
    pub fn start(world: &World, name: &str, auth: &str) -> Self {
        let auth = if auth.is_empty() { String::new() } else { format!("auth:\n{auth}\n") };
        Self::start_with(world, name, &auth)
    }

    /// `more` is what its configuration has beside storage and address.
    pub fn start_with(world: &World, name: &str, more: &str) -> Self {
        let port = free_port();
        let root = world.path(name);
        let config = format!(
            "version: 0.1\nlog: {{ accesslog: {{ disabled: false }}, level: warn }}\nstorage: {{ filesystem: {{ rootdirectory: {} }}, delete: {{ enabled: true }} }}\nhttp: {{ addr: 127.0.0.1:{port} }}\n{more}",
            root.display()
        );
        let config = world.write(&format!("{name}.yml"), &config);
        let mut registry = Registry {
            host: format!("127.0.0.1:{port}"),
            config,
            log: world.path(&format!("{name}.log")),
            process: None,
        };
        registry.restart();
        registry
    }

    /// One that speaks TLS.
    pub fn start_tls(world: &World, name: &str, certificate: &Path, key: &Path) -> Self {
        let tls = format!("  tls: {{ certificate: {}, key: {} }}", certificate.display(), key.display());
        let mut registry = Registry::start(world, name, "");
        let config = fs::read_to_string(&registry.config).unwrap();
        let http = format!("http:\n  addr: {}\n{tls}\n", registry.host);
        let config: String = config
            .lines()
            .filter(|line| !line.starts_with("http:"))
            .map(|line| format!("{line}\n"))
            .collect();
        fs::write(&registry.config, config + &http).unwrap();
        registry.restart();
        registry
    }

    pub fn restart(&mut self) {
        self.kill();
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&self.config).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(Running(command.spawn().unwrap()));
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&self.host).is_err() {
            assert!(
                Instant::now() < deadline,
                "docker-registry does not listen: {}",
                fs::read_to_string(&self.log).unwrap()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The requests since the last call, as `METHOD PATH STATUS`.
    pub fn requests(&self) -> Vec<String> {
        // The registry writes its log after the answer.
        std::thread::sleep(Duration::from_millis(200));
        let text = fs::read_to_string(&self.log).unwrap();
        fs::write(&self.log, "").unwrap();
        let access = text.lines().filter_map(|line| {
            let (_, request) = line.split_once("] \"")?;
            let (request, rest) = request.split_once(" HTTP/1.1\" ")?;
            Some(format!("{request} {}", rest.split(' ').next()?))
        });
        access.collect()
    }
}

/// A server whose answers the test makes up: it hears the request line and headers.
pub struct Fake {
    pub host: String,
    requests: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

impl Fake {
    pub fn start(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        Self::start_raw(move |request, _, stream| answer(request, stream))
    }

    /// Like [`Fake::start`], and the answer is also given the request's body.
    pub fn start_raw(answer: impl Fn(&str, &[u8], &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let requests = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let (answer, heard) = (std::sync::Arc::new(answer), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, heard) = (answer.clone(), heard.clone());
                std::thread::spawn(move || serve(stream, answer.as_ref(), &heard));
            }
        });
        Fake { host, requests }
    }

    /// Request lines and headers, as they came.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(
    stream: TcpStream,
    answer: &dyn Fn(&str, &[u8], &mut TcpStream),
    heard: &std::sync::Mutex<Vec<String>>,
) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if line == "\r\n" => break,
                Ok(_) => request.push_str(&line),
            }
        }
        let length = request
            .to_lowercase()
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ").map(str::to_owned));
        let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        heard.lock().unwrap().push(request.clone());
        answer(&request, &body, &mut writer);
    }
}

/// Writes an answer with a body.
pub fn respond(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    // A client that went away is the test's business.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// Passes a request on to a registry; its answer, with the registry's address replaced.
pub fn answer(backend: &str, front: &str, request: &str, body: &[u8]) -> Vec<u8> {
    let mut onward = TcpStream::connect(backend).unwrap();
    let headers = request.lines().filter(|line| {
        !line.to_lowercase().starts_with("authorization:") && !line.to_lowercase().starts_with("connection:")
    });
    let mut head: String = headers.map(|line| format!("{line}\r\n")).collect();
    head.push_str("Connection: close\r\n\r\n");
    onward.write_all(head.as_bytes()).unwrap();
    onward.write_all(body).unwrap();
    let mut answer = Vec::new();
    onward.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).replace(backend, front);
    let head = head.replace("Connection: close\r\n", "").replace("\r\nConnection: close", "");
    [head.as_bytes(), &answer[end..]].concat()
}

/// Passes a request on to a registry, and its answer back.
pub fn forward(backend: &str, front: &str, request: &str, body: &[u8], stream: &mut TcpStream) {
    // A client that went away is the test's business.
    let _ = stream.write_all(&answer(backend, front, request, body));
}
