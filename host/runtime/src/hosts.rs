//! The functions of the host that guests can call.

use crate::{Answered, Heard, Role, bindings::host, clouds, convert, load::Loaded, state::State, trial};
use dray_core::policy::{SecretRef, grants_host};
use dray_engine::{DOCUMENT_LIMIT, Error, Kind, Secret, contract::Context, files::Root, http::HostAccess};
use host::types;
use std::{
    collections::BTreeSet,
    process::Stdio,
    sync::{Mutex, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::io::AsyncWriteExt;

impl types::Host for State {}

/// Whether the operator granted a host to a plugin.
fn grants(plugin: &Loaded, host: &str) -> bool {
    plugin.grant().hosts.iter().any(|granted| grants_host(granted, host))
}

/// The host of an address, with its port if it is written. It is empty if the address is not one of HTTPS.
pub(crate) fn host_of(url: &str) -> &str {
    url.strip_prefix("https://").and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default()
}

/// How many bytes of one message of a plugin are logged.
const MESSAGE: usize = 4096;
/// How many bytes of such a message an error shows.
const COMPLAINT: usize = 500;

impl host::log::Host for State {
    async fn emit(&mut self, level: host::log::Level, message: String) {
        if self.called().is_err() {
            return;
        }
        let plugin = &self.plugin.name;
        if matches!(level, host::log::Level::Error) {
            // A panic of Rust says where on one line, and why on the next. A secret may have several lines.
            let said = self.scope.without_secrets(message.clone());
            let lines: Vec<&str> = said.lines().take(2).collect();
            self.complaint = Some(dray_core::harmless(&lines.join(" "), COMPLAINT));
        }
        let cost = message.len().min(MESSAGE) + 64;
        let spend = |left: usize| left.checked_sub(cost);
        match self.plugin.log.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend) {
            Ok(_) => {}
            Err(0) => return,
            Err(_) => {
                if self.plugin.log.swap(0, Ordering::Relaxed) > 0 {
                    tracing::warn!(%plugin, "the plugin logs very much: nothing more of it is shown");
                }
                return;
            }
        }
        let message = self.scope.without_secrets(message);
        let message = &message[..message.floor_char_boundary(MESSAGE)];
        if let (host::log::Level::Error, Some(script)) = (level, &self.scope.script) {
            script.logged(message);
        }
        match level {
            host::log::Level::Trace => tracing::trace!(%plugin, "{message}"),
            host::log::Level::Debug => tracing::debug!(%plugin, "{message}"),
            host::log::Level::Info => tracing::info!(%plugin, "{message}"),
            host::log::Level::Warn => tracing::warn!(%plugin, "{message}"),
            host::log::Level::Error => tracing::error!(%plugin, "{message}"),
        }
    }
}

impl host::memory::Host for State {
    async fn recall(&mut self, name: String) -> Option<String> {
        let text = self.scope.memory.as_ref()?.recall(&name)?;
        self.scope.tell(&text);
        self.hear(|| Heard::Other("memory.recall"));
        Some(text.expose().to_owned())
    }

    async fn keep(&mut self, name: String, text: String, seconds: u64) {
        let text = Secret::new(text);
        self.scope.tell(&text);
        if let Some(memory) = &self.scope.memory {
            memory.keep(name, text, seconds);
        }
    }
}

impl host::clock::Host for State {
    async fn now(&mut self) -> u64 {
        if let Some(now) = self.scope.now {
            return now;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        self.hear(|| Heard::Now(now));
        now
    }
}

impl host::http::Host for State {
    async fn send(
        &mut self,
        request: types::Request,
        body: Vec<u8>,
    ) -> Result<types::Response, types::Error> {
        let kept = self.records().then(|| (convert::request(request.clone()), body.clone()));
        let answer = self.sent(request, body).await;
        if let Some((request, body)) = kept {
            match &answer {
                Ok(answer) => {
                    let (status, headers, body_of) =
                        (answer.status, answer.headers.clone(), answer.body.clone());
                    let answered = Answered { status, headers, body: body_of };
                    self.hear(|| Heard::Request(request, body, answered));
                }
                Err(_) => self.hear(|| Heard::Other("a request that failed")),
            }
        }
        answer
    }

    async fn download(&mut self, request: types::Request, path: String) -> Result<(), types::Error> {
        self.called()?;
        self.hear(|| Heard::Other("http.download"));
        let place = self.place("download")?;
        let begun = Instant::now();
        let downloaded = place.download(&convert::request(request), &path).await;
        self.meter.pause(begun.elapsed());
        downloaded.map_err(convert::to_guest)
    }
}

impl State {
    /// What the host answers with. A failure is nothing that a fixture holds.
    fn heard<T>(&mut self, answer: dray_engine::Result<T>, what: &'static str) -> Result<T, types::Error> {
        if answer.is_err() {
            self.hear(|| Heard::Other(what));
        }
        answer.map_err(convert::to_guest)
    }

    /// Sends a request of the guest, if it may.
    async fn sent(
        &mut self,
        request: types::Request,
        body: Vec<u8>,
    ) -> Result<types::Response, types::Error> {
        self.called()?;
        if matches!(self.plugin.role, Role::Auth | Role::Observer) {
            return self.ask(request, body).await;
        }
        let place = self.place("send a request")?;
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            // A dialect may change what the run may change. Many APIs read by `POST`: those of dray's dialects do, and so may
            // one whose host the operator granted.
            let is_granted = |host: &str| grants(&self.plugin, host);
            let why = match self.plugin.role {
                Role::Dialect if place.is_destination() => None,
                Role::Dialect
                    if request.method == "POST"
                        && (self.plugin.builtin || is_granted(host_of(&request.url))) =>
                {
                    None
                }
                Role::Dialect => Some("the place is only read"),
                _ if self.plugin.writes => None,
                _ => Some("the plugin exports no sink, so it can only read"),
            };
            if let Some(why) = why {
                return Err(types::Error::Denied(format!("send a {}: {why}", request.method)));
            }
        }
        if self.plugin.role == Role::Dialect {
            self.beside(&place, &request.url)?;
        }
        let request = convert::request(request);
        let sending = place.send(&request, body.into());
        let response = tokio::time::timeout(self.meter.left(), sending).await;
        let response =
            response.map_err(|_| types::Error::Invalid("send a request: the call's time is over".into()))?;
        response.map(convert::response).map_err(convert::to_guest)
    }

    /// Asks a host for an auth provider or an observer, without anybody's credentials: those that it was given are in the request.
    async fn ask(&mut self, request: types::Request, body: Vec<u8>) -> Result<types::Response, types::Error> {
        if let Some(script) = &self.scope.script {
            return script
                .answer(&convert::request(request), &body)
                .map(convert::response)
                .map_err(convert::to_guest);
        }
        let Some(outside) = &self.scope.outside else {
            return Err(types::Error::Denied(
                "send a request: this command lends plugins of this kind no network".into(),
            ));
        };
        // A run waits for its observers at its end, so they may try for less long.
        let (access, limit) = match self.plugin.role {
            Role::Observer => (HostAccess::Observer, HEARD),
            _ => (HostAccess::Provider, ANSWER),
        };
        let http = outside.access(host_of(&request.url), access).map_err(convert::to_guest)?;
        let request = convert::request(request);
        let limit = limit.min(self.meter.left());
        let sent = tokio::time::timeout(limit, http.send(&request, body.into())).await;
        let sent = sent.map_err(|_| {
            types::Error::Transient(format!("send a request: no answer in {} s", limit.as_secs()))
        })?;
        sent.map(convert::response).map_err(convert::to_guest)
    }

    /// Checks that a dialect may ask the host of an address: that of its registry, one of the registry's API, or one that the
    /// operator granted. The place is that of a transport of dray, which may go further than somebody's dialect.
    fn beside(&self, place: &Context, url: &str) -> Result<(), types::Error> {
        let host = host_of(url);
        let registry = place.location();
        let plugin = &self.plugin;
        if plugin.builtin && clouds::api_of(registry, host) {
            place.lend(host, true);
        } else if grants(plugin, host) {
            place.lend(host, false);
        } else if !plugin.builtin && host != registry {
            let text = format!("send a request to {host}: the dialect is for {registry}");
            return Err(types::Error::Denied(text));
        }
        Ok(())
    }

    fn place(&self, doing: &str) -> Result<Context, types::Error> {
        self.scope.context.clone().ok_or_else(|| types::Error::Denied(format!("{doing}: no place is opened")))
    }

    /// Checks that the opened place may be changed: the plugin can write, and the place is a destination of the run.
    fn writing(&self) -> Result<(), types::Error> {
        let destination = self.scope.context.as_ref().is_some_and(|place| place.is_destination());
        match self.plugin.writes && destination {
            true => Ok(()),
            false => Err(types::Error::Denied("change the place: it is only read".into())),
        }
    }

    /// Changes the files of the opened place, if it may be changed.
    async fn changing<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Root) -> dray_engine::Result<T> + Send + 'static,
    ) -> Result<T, types::Error> {
        self.writing()?;
        self.files(work).await
    }

    /// Works with the files of the opened place, on a thread that may block.
    async fn files<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Root) -> dray_engine::Result<T> + Send + 'static,
    ) -> Result<T, types::Error> {
        self.called()?;
        self.hear(|| Heard::Other("files"));
        let denied = || types::Error::Denied("use files: the opened place has none".into());
        let files =
            self.scope.context.as_ref().and_then(|place| place.files()).cloned().ok_or_else(denied)?;
        let done = tokio::task::spawn_blocking(move || work(&files)).await;
        match done {
            Ok(done) => done.map_err(convert::to_guest),
            Err(error) => Err(types::Error::Invalid(format!("use files: {error}"))),
        }
    }
}

impl host::files::Host for State {
    async fn entries(&mut self, path: String) -> Result<Vec<host::files::Entry>, types::Error> {
        let entries = self.files(move |files| files.entries(&path)).await?;
        Ok(entries
            .into_iter()
            .map(|entry| host::files::Entry {
                name: entry.name,
                size: entry.size,
                directory: entry.directory,
            })
            .collect())
    }

    async fn stat(&mut self, path: String) -> Result<Option<u64>, types::Error> {
        self.files(move |files| files.stat(&path)).await
    }

    async fn read(&mut self, range: types::FileRange) -> Result<Vec<u8>, types::Error> {
        self.files(move |files| files.read(&range.path, range.offset, range.length)).await
    }

    async fn digest(&mut self, path: String, plain: bool) -> Result<host::files::Digested, types::Error> {
        let (digest, size) = self.files(move |files| files.digest(&path, plain)).await?;
        Ok(host::files::Digested { digest: digest.to_string(), size })
    }
}

impl host::writing::Host for State {
    async fn replace(
        &mut self,
        path: String,
        expected: Option<Vec<u8>>,
        content: Vec<u8>,
    ) -> Result<bool, types::Error> {
        // What is longer could not be read again.
        if content.len() > DOCUMENT_LIMIT {
            let (size, most) = (content.len() >> 20, DOCUMENT_LIMIT >> 20);
            let text =
                format!("write {path}: it would have {size} MiB, and dray reads at most {most} MiB of it");
            let error = Error::new(Kind::Invalid, text);
            return Err(convert::to_guest(error.help("divide the images among several places")));
        }
        self.changing(move |files| files.replace(&path, expected.as_deref(), &content)).await
    }

    async fn remove(&mut self, paths: Vec<String>) -> Result<(), types::Error> {
        self.changing(move |files| files.remove(&paths)).await
    }

    async fn commit(
        &mut self,
        locks: Vec<String>,
        changes: Vec<host::writing::Change>,
    ) -> Result<bool, types::Error> {
        let changes: Vec<_> = changes.into_iter().map(convert::change).collect();
        self.changing(move |files| files.commit(&locks, &changes)).await
    }

    async fn unpack(
        &mut self,
        layer: types::Unpacked,
        path: String,
    ) -> Result<types::LayerFacts, types::Error> {
        let again =
            self.changing(move |files| files.unpack_again(&layer.tar_split, &layer.folder, &path)).await?;
        Ok(convert::facts(again))
    }

    async fn send_archive(&mut self, request: types::Request) -> Result<types::Response, types::Error> {
        self.called()?;
        let place = self.place("send the archive")?;
        self.writing()?;
        let begun = Instant::now();
        let response = place.send_archive(&convert::request(request)).await;
        self.meter.pause(begun.elapsed());
        response.map(convert::response).map_err(convert::to_guest)
    }
}

impl host::settings::Host for State {
    async fn get(&mut self) -> String {
        let location = self.scope.context.as_ref().map_or("", |place| place.location());
        serde_json::Value::Object(self.plugin.settings.of(location)).to_string()
    }
}

impl host::secrets::Host for State {
    async fn get(&mut self, name: String) -> Result<String, types::Error> {
        self.called()?;
        let granted = name.parse::<SecretRef>().ok().filter(|name| self.scope.granted.contains(name));
        let (Some(granted), Some(secrets)) = (granted, &self.scope.secrets) else {
            return Err(types::Error::Denied(format!(
                "read the secret {name}: the policy does not grant it, or the plugin does not ask for it"
            )));
        };
        let secret = secrets.get(&granted);
        let secret = self.heard(secret, "secrets.get")?;
        self.scope.tell(&secret);
        self.hear(|| Heard::Secret(granted.to_string(), secret.clone()));
        Ok(secret.expose().to_owned())
    }

    async fn auth_files(&mut self) -> Result<Vec<(String, String)>, types::Error> {
        self.called()?;
        // The files hold all credentials of a user, so only dray's own provider gets them.
        let Some(secrets) = self.scope.secrets.as_ref().filter(|_| self.plugin.builtin) else {
            return Err(types::Error::Denied("read auth.json: only the docker-config provider may".into()));
        };
        let files = secrets.auth_files().map_err(convert::to_guest)?;
        Ok(files.into_iter().map(|(path, content)| (path, content.expose().to_owned())).collect())
    }
}

/// How long a host may take to answer an auth provider, with all attempts.
const ANSWER: Duration = Duration::from_secs(60);

/// How long a host may take to answer an observer, with all attempts.
const HEARD: Duration = Duration::from_secs(5);

/// How long a credential helper may take to answer. It may have to ask its user.
const HELPER: Duration = Duration::from_secs(120);

impl host::helpers::Host for State {
    async fn call(&mut self, helper: String, verb: String, input: String) -> Result<String, types::Error> {
        self.called()?;
        let plain = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        };
        if !self.plugin.builtin || !plain(&helper) || !plain(&verb) {
            return Err(types::Error::Denied(format!(
                "run docker-credential-{helper}: only the docker-config provider may"
            )));
        }
        run_helper(&format!("docker-credential-{helper}"), &verb, &input).await.map_err(convert::to_guest)
    }
}

async fn run_helper(program: &str, verb: &str, input: &str) -> dray_engine::Result<String> {
    let failed = |error: std::io::Error| {
        let kind = if error.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::Invalid };
        Error::new(kind, format!("run {program}: {error}"))
    };
    let mut command = tokio::process::Command::new(program);
    command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound && is_first(program) {
            let help = "install it, or take it out of the file (`credsStore`, `credHelpers`)";
            tracing::warn!(help, "auth.json or config.json names {program}, and there is no such program");
        }
        failed(error)
    })?;
    if let Some(mut stdin) = child.stdin.take()
        && let Err(error) = stdin.write_all(input.as_bytes()).await
        // A helper that answers without reading its input may have ended already.
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        return Err(failed(error));
    }
    let output = tokio::time::timeout(HELPER, child.wait_with_output()).await;
    let output = output
        .map_err(|_| {
            Error::new(Kind::Invalid, format!("run {program}: no answer in {} s", HELPER.as_secs()))
        })?
        .map_err(failed)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    // The output of a helper may contain what it was asked for, so it is searched but not shown. Some helpers explain
    // themselves on standard output, and others on standard error.
    let said = format!("{} {}", text(&output.stdout), text(&output.stderr)).to_ascii_lowercase();
    if NOTHING.iter().any(|nothing| said.contains(nothing)) {
        return Err(Error::new(Kind::NotFound, format!("run {program}: it knows nothing of that registry")));
    }
    let text = format!("run {program}: it ended with {}", output.status);
    Err(Error::new(Kind::Invalid, text).help(format!("`echo REGISTRY | {program} {verb}` shows its reason")))
}

/// Whether a helper was not missed before, so that it is told of once.
fn is_first(program: &str) -> bool {
    static MISSED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    MISSED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(program.to_owned())
}

/// What helpers say if they have no credentials for a registry (docker-credential-helpers, `credentials/error.go`; and
/// the helpers for macOS, Windows, pass, and clouds).
const NOTHING: [&str; 6] = [
    "credentials not found",
    "no credentials",
    "could not be found in the keychain",
    "element not found",
    "is not in the password store",
    "not found in the store",
];

impl host::images::Host for State {
    async fn inspect(&mut self, tags: Vec<String>) -> Result<Vec<host::images::Facts>, types::Error> {
        self.called()?;
        let Some(images) = self.scope.images.clone() else {
            return Err(types::Error::Denied("inspect images: there are none".into()));
        };
        let facts = images.inspect(tags.clone()).await;
        let facts = self.heard(facts, "images.inspect")?;
        for (tag, facts) in tags.iter().zip(&facts) {
            self.hear(|| Heard::Image(trial::Image::of_facts(tag, facts)));
        }
        let convert = |facts: dray_engine::contract::Facts| host::images::Facts {
            digest: facts.digest,
            media_type: facts.media_type,
            artifact_type: facts.artifact_type,
            size: facts.size,
            annotations: facts.annotations,
            extra: Vec::new(),
            // The contract has no time before 1970. An image with such a time, or with the time 0, does not say when it
            // was made.
            created: facts
                .created
                .and_then(|created| u64::try_from(created).ok())
                .filter(|created| *created > 0),
            labels: facts.labels,
            platforms: facts.platforms,
        };
        Ok(facts.into_iter().map(convert).collect())
    }
}

impl host::destination::Host for State {
    async fn tags(&mut self) -> Result<Vec<types::TagEntry>, types::Error> {
        self.called()?;
        let Some(images) = self.scope.images.clone() else {
            return Err(types::Error::Denied("list the tags of the destination: there is none".into()));
        };
        let listed = images.at_destination().await.map_err(convert::to_guest)?;
        self.hear(|| Heard::Destination(listed.iter().map(|listed| listed.name.clone()).collect()));
        Ok(listed.into_iter().map(convert::tag_entry).collect())
    }
}

impl host::knowledge::Host for State {
    async fn look_up(&mut self, tags: Vec<String>) -> Result<Vec<host::knowledge::Known>, types::Error> {
        self.called()?;
        let Some(images) = self.scope.images.clone() else {
            return Err(types::Error::Denied("look images up: there are none".into()));
        };
        let known = images.look_up(tags.clone()).await;
        let known = self.heard(known, "knowledge.look-up")?;
        for (tag, known) in tags.iter().zip(&known) {
            self.hear(|| Heard::Image(trial::Image::of_known(tag, known)));
        }
        let convert = |known: dray_engine::contract::Known| host::knowledge::Known {
            pushed: known.pushed,
            labels: known.labels,
            signed: known.signed,
            severity: known.severity,
            extra: Vec::new(),
        };
        Ok(known.into_iter().map(convert).collect())
    }
}
