//! `dray login` and `dray logout`

use crate::{
    DONE, FAILED,
    args::{Access, LoginOptions, LogoutOptions},
    failure::Failure,
    login_file::{self, Logins},
    output::{say, tell},
    secrets::{GivenLogin, usual_places},
    setup, terminal,
};
use dray_engine::{Error, Kind, Secret, contract::Key, http::Plain};
use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

/// A registry, and what of it a login is for.
struct Target {
    /// The key in the file: `registry.example.com/team`.
    key: String,
    /// `host[:port]`.
    registry: String,
    /// Empty means the whole registry.
    repository: String,
}

/// Docker keeps the login of its hub under this key (Docker, `registry/auth.go`).
const HUB: &str = "https://index.docker.io/v1/";

impl Target {
    /// The name under which credential helpers keep its login.
    fn server(&self) -> &str {
        if self.registry == "docker.io" { HUB } else { &self.registry }
    }
}

/// Reads what a person writes: `docker.io`, `https://registry.example.com/`, `docker://host/team`.
fn target(written: &str) -> Result<Target, Failure> {
    let bare = ["docker://", "https://", "http://"].iter().find_map(|scheme| written.strip_prefix(scheme));
    let bare = bare.unwrap_or(written).trim_end_matches('/');
    let (registry, repository) = bare.split_once('/').unwrap_or((bare, ""));
    // Of the hub's older addresses, only the host counts.
    let hub = matches!(
        registry,
        "docker.io" | "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com"
    );
    let (registry, repository) = match (hub, repository) {
        (true, "v1" | "v2") => ("docker.io", ""),
        (true, repository) => ("docker.io", repository),
        (false, repository) => (registry, repository),
    };
    let wrong = registry.is_empty() || bare.contains(['@', '?', '#']) || bare.contains(char::is_whitespace);
    if wrong || repository.rsplit('/').next().is_some_and(|last| last.contains(':')) {
        let error = Error::new(Kind::Invalid, format!("log in to `{written}`: it is no registry"));
        return Err(Failure::Usage(error.help("write its host: dray login registry.example.com")));
    }
    let key = if repository.is_empty() { registry.to_owned() } else { format!("{registry}/{repository}") };
    Ok(Target { key, registry: registry.into(), repository: repository.into() })
}

/// The file that logins are written to.
fn file(named: Option<&PathBuf>) -> Result<PathBuf, Failure> {
    let usual = || usual_places().into_iter().next();
    named
        .cloned()
        .or_else(usual)
        .ok_or_else(|| Failure::usage("find the file of logins: there is no folder for it"))
}

fn unread(path: &Path, error: &std::io::Error) -> Failure {
    let text = format!("use the file of logins {}: {error}", path.display());
    Error::new(Kind::Io, text).help("mend it, move it away, or name another one with --authfile").into()
}

/// A login that was just given.
struct Given {
    user: String,
    password: Secret,
}

/// In whose words it is told what was done.
pub enum Told {
    Dray,
    Skopeo,
}

/// `dray login`
pub async fn login(options: LoginOptions) -> Result<u8, Failure> {
    login_told(options, &Told::Dray).await
}

/// Logs in.
pub async fn login_told(options: LoginOptions, told: &Told) -> Result<u8, Failure> {
    let target = target(&options.registry)?;
    let path = file(options.reach.authfile.as_ref())?;
    let kept = login_file::read(&path).map_err(|error| unread(&path, &error))?;
    if options.get_login {
        let user = user_of(&kept, &target).ok_or_else(|| not_logged_in(&target))?;
        say!("{user}");
        return Ok(DONE);
    }
    if options.password.is_some() {
        tracing::warn!(
            help = "--password-stdin reads it from standard input",
            "other users of this machine can read a password on the command line"
        );
    }
    let given = asked(&options, &kept, &target)?;
    let access = Access {
        authfile: None,
        creds_file: None,
        tls_ca: options.reach.tls_ca.clone(),
        insecure: options.reach.insecure,
        policy: None,
        plugins: Vec::new(),
    };
    let plain = match (told, access.insecure) {
        (_, true) => Plain::Fallback,
        (Told::Dray, false) => Plain::Loopback,
        // skopeo uses plain HTTP only where it is told to.
        (Told::Skopeo, false) => Plain::Never,
    };
    let login = Arc::new(GivenLogin(Key::Basic(given.user.clone(), given.password.clone())));
    let places = setup::places_with(&access, plain, login)?;
    if !places.log_in(&target.registry, &target.repository).await? {
        tracing::warn!("{} asks nobody for a login, so the password was not checked", target.registry);
    }
    let kept_at = keep(&path, &kept, &target, &given)?;
    match told {
        Told::Dray => say!("logged in to {}; kept in {kept_at}", target.key),
        Told::Skopeo => say!("Login Succeeded!"),
    }
    Ok(DONE)
}

/// The user and the password: of the command line, or asked for at the terminal.
fn asked(options: &LoginOptions, kept: &Logins, target: &Target) -> Result<Given, Failure> {
    let user = match &options.username {
        Some(user) => user.clone(),
        None if options.password_stdin => {
            return Err(Failure::usage("log in: --password-stdin needs --username"));
        }
        None => {
            let before = user_of(kept, target);
            let default = before.as_ref().map(|user| format!(" ({user})")).unwrap_or_default();
            let typed = prompt(&format!("user of {}{default}: ", target.key), true)?;
            match (typed.is_empty(), before) {
                (true, Some(before)) => before,
                _ => typed,
            }
        }
    };
    if user.is_empty() || user.contains(':') {
        return Err(Failure::usage("log in: the user name is empty, or has a colon"));
    }
    let password = match &options.password {
        Some(password) => password.clone(),
        None if options.password_stdin => {
            let mut text = String::new();
            let read = std::io::stdin().take(64 << 10).read_to_string(&mut text);
            read.map_err(|error| Failure::usage(format!("read the password from standard input: {error}")))?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None => prompt(&format!("password of {user}: "), false)?,
    };
    match password.is_empty() {
        true => Err(Failure::usage("log in: the password is empty")),
        false => Ok(Given { user, password: Secret::new(password) }),
    }
}

/// Asks at the terminal. `shown` says whether what is typed can be seen.
fn prompt(question: &str, shown: bool) -> Result<String, Failure> {
    terminal::ask(question, shown).map_err(|error| {
        let error = Error::new(Kind::Invalid, format!("ask for the login: {error}"));
        Failure::Usage(error.help("give it with --username NAME and --password-stdin"))
    })
}

/// Keeps a login in the file, or with the credential helper that the file names. Returns where, for people.
fn keep(path: &Path, kept: &Logins, target: &Target, given: &Given) -> Result<String, Failure> {
    let Given { user, password } = given;
    if let Some(helper) = kept.helper(&target.registry) {
        let server = target.server();
        let login = serde_json::json!({ "ServerURL": server, "Username": user, "Secret": password.expose() });
        return helped(helper, "store", &login.to_string()).map(|()| format!("docker-credential-{helper}"));
    }
    login_file::change(path, |logins| logins.add(&target.key, user, password.expose()))
        .map_err(|error| unread(path, &error))?;
    Ok(path.display().to_string())
}

/// Runs a credential helper (docker-credential-helpers).
fn helped(helper: &str, verb: &str, input: &str) -> Result<(), Failure> {
    let program = format!("docker-credential-{helper}");
    let failed = |why: String| Failure::from(Error::new(Kind::Io, format!("run {program} {verb}: {why}")));
    let plain = helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if !plain {
        return Err(failed("that is no name of a credential helper".into()));
    }
    let mut command = Command::new(&program);
    command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper may end without reading all of it.
        let _ = stdin.write_all(input.as_bytes());
    }
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    // What it prints may hold the password.
    if status.success() { Ok(()) } else { Err(failed(format!("it ended with {status}"))) }
}

/// The user that the file knows for a registry.
fn user_of(kept: &Logins, target: &Target) -> Option<String> {
    let hub = target.key == "docker.io";
    kept.user(&target.key).or_else(|| if hub { kept.user(HUB) } else { None })
}

fn not_logged_in(target: &Target) -> Failure {
    let text = format!("find a login: nobody is logged in to {}", target.key);
    Error::new(Kind::Unauthorized, text).help(format!("`dray login {}` logs in", target.key)).into()
}

/// `dray logout`
pub fn logout(options: &LogoutOptions) -> Result<u8, Failure> {
    logout_told(options, &Told::Dray)
}

/// Logs out.
pub fn logout_told(options: &LogoutOptions, told: &Told) -> Result<u8, Failure> {
    let path = file(options.authfile.as_ref())?;
    if options.all {
        let count = login_file::change(&path, Logins::clear).map_err(|error| unread(&path, &error))?;
        match told {
            Told::Dray => say!("forgot {count} logins of {}", path.display()),
            Told::Skopeo => say!("Removed login credentials for all registries"),
        }
        return Ok(DONE);
    }
    let target = target(&options.registry)?;
    let kept = login_file::read(&path).map_err(|error| unread(&path, &error))?;
    let mut removed = false;
    if let Some(helper) = kept.helper(&target.registry) {
        helped(helper, "erase", target.server())?;
        removed = true;
    }
    if kept.user(&target.key).is_some() || target.key == "docker.io" && kept.user(HUB).is_some() {
        let forget = |logins: &mut Logins| {
            let old = target.key == "docker.io" && logins.remove(HUB);
            logins.remove(&target.key) || old
        };
        removed |= login_file::change(&path, forget).map_err(|error| unread(&path, &error))?;
    }
    if removed {
        match told {
            Told::Dray => say!("forgot the login to {}", target.key),
            Told::Skopeo => say!("Removed login credentials for {}", target.key),
        }
        return Ok(DONE);
    }
    let elsewhere = usual_places().into_iter().filter(|other| *other != path);
    let elsewhere: Vec<PathBuf> = elsewhere
        .filter(|other| login_file::read(other).is_ok_and(|kept| user_of(&kept, &target).is_some()))
        .collect();
    match elsewhere.first() {
        Some(other) => {
            let other = other.display();
            tell!("error: the login to {} is in {other}, which another tool wrote", target.key);
            tell!("  help: --authfile {other} forgets it there");
            Ok(FAILED)
        }
        None => Err(not_logged_in(&target)),
    }
}

#[cfg(test)]
mod tests {
    use super::target;

    #[test]
    fn people_write_registries_in_many_ways() {
        for (written, key, registry, repository) in [
            ("registry.example.com", "registry.example.com", "registry.example.com", ""),
            ("https://registry.example.com/", "registry.example.com", "registry.example.com", ""),
            ("docker://r:5000/team/app", "r:5000/team/app", "r:5000", "team/app"),
            ("index.docker.io", "docker.io", "docker.io", ""),
            ("https://index.docker.io/v1/", "docker.io", "docker.io", ""),
            ("docker.io/team", "docker.io/team", "docker.io", "team"),
        ] {
            let found = target(written).unwrap_or_else(|_| panic!("{written}"));
            assert_eq!((&*found.key, &*found.registry, &*found.repository), (key, registry, repository));
        }
        for wrong in ["", "https://", "user@host", "a b", "r.example/app:1.0"] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }
}
