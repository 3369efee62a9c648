//! `skopeo`, by its own words: dray takes skopeo's commands and flags when it is called by that name (a link to the
//! binary), or as `dray skopeo …`. What it does not support is an error by name, and never ignored.

mod copy;
mod encrypt;
mod flags;
mod inspect;
mod login;
mod retry;
mod session;
mod sign;
mod sync;
mod sync_yaml;
mod template;

use crate::{FAILED, WRONG, failure::Failure, log, output, progress::Screen};
use clap::{Arg, ArgAction, ArgMatches, Command};
use dray_engine::{Error, Kind};
use flags::Globals;
use std::{ffi::OsString, path::Path, process::ExitCode};

/// The exit code for an image that does not exist. Of every other failure it is 1, of wrong flags as well.
const NOT_FOUND: u8 = 2;

/// The arguments of skopeo, if this process was called as skopeo.
pub fn arguments() -> Option<Vec<OsString>> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let named = |name: Option<&OsString>| {
        name.is_some_and(|name| Path::new(name).file_name().is_some_and(|name| name == "skopeo"))
    };
    if named(arguments.first()) {
        return Some(arguments);
    }
    if arguments.get(1).is_some_and(|argument| argument == "skopeo") {
        arguments.remove(0);
        return Some(arguments);
    }
    None
}

/// What is wrong with a command line, or with what it asks for.
fn unsupported(what: &str) -> Failure {
    Failure::Failed(Error::new(Kind::Unsupported, format!("do that: {what} is not supported by dray")))
}

/// The whole command line.
fn command() -> Command {
    let command = Command::new("skopeo")
        .about("Copies, inspects and deletes container images, in the way of skopeo")
        .version(concat!("version 1.22.0 (dray ", env!("CARGO_PKG_VERSION"), ")"))
        .disable_version_flag(true)
        .arg(
            Arg::new("version")
                .short('v')
                .long("version")
                .action(ArgAction::Version)
                .help("Prints the version"),
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            copy::command(),
            inspect::command(),
            inspect::list_tags_command(),
            copy::delete_command(),
            login::login_command(),
            sync::command(),
            login::logout_command(),
            inspect::manifest_digest_command(),
            sign::sign_command(),
            sign::verify_command(),
            sign::generate_command(),
        ])
        .subcommands(UNSUPPORTED.map(|name| {
            // Whatever follows, the answer is the same.
            let rest = Arg::new("rest").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true);
            Command::new(name).hide(true).disable_help_flag(true).arg(rest)
        }));
    flags::globals(command)
}

/// Commands of skopeo that dray does not have.
const UNSUPPORTED: [&str; 4] =
    ["layers", "untrusted-signature-dump-without-verification", "completion", "experimental-image-proxy"];

/// Runs one command of skopeo.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) if error.use_stderr() => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            fatal(first.strip_prefix("error: ").unwrap_or(first));
            return ExitCode::from(FAILED);
        }
        Err(help) => {
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    let globals = Globals::of(&matches);
    let screen = Screen::new(&globals.log);
    log::begin(&globals.log, &screen);
    let Some((name, matches)) =
        matches.subcommand().map(|(name, matches)| (name.to_owned(), matches.clone()))
    else {
        return ExitCode::from(FAILED);
    };
    let work = Box::pin(async move { run(&name, &matches, &globals, screen).await });
    match crate::carried_out(work) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            let code = match failure.code() {
                _ if failure.error().is_some_and(|error| error.kind == Kind::NotFound) => NOT_FOUND,
                WRONG => FAILED,
                code => code,
            };
            match failure.error() {
                Some(error) => fatal(&told(error)),
                None => failure.print(),
            }
            ExitCode::from(code)
        }
    }
}

async fn run(name: &str, matches: &ArgMatches, globals: &Globals, screen: Screen) -> Result<u8, Failure> {
    if UNSUPPORTED.contains(&name) {
        return Err(unsupported(&format!("the command `{name}`")));
    }
    globals.check()?;
    flags::refuse(matches)?;
    let work = async {
        match name {
            "copy" => copy::run(matches, globals, &screen).await,
            "delete" => copy::delete(matches, globals).await,
            "inspect" => inspect::run(matches, globals).await,
            "list-tags" => inspect::list_tags(matches, globals).await,
            "sync" => sync::run(matches, globals, &screen).await,
            "login" => login::login(matches, globals).await,
            "logout" => login::logout(matches),
            "standalone-sign" => sign::standalone_sign(matches),
            "standalone-verify" => sign::standalone_verify(matches),
            "generate-sigstore-key" => sign::generate(matches),
            _ => inspect::manifest_digest(matches),
        }
    };
    match globals.timeout {
        None => work.await,
        Some(time) => tokio::time::timeout(time, work).await.unwrap_or_else(|_| {
            let text = format!("finish in {time:?} (--command-timeout)");
            Err(Failure::Failed(Error::new(Kind::Exhausted, text)))
        }),
    }
}

/// An error with what to do about it, on one line, with the words of skopeo for which scripts look.
fn told(error: &Error) -> String {
    let theirs = match error.kind {
        Kind::NotFound => "manifest unknown: ".to_owned(),
        _ => rejected(&error.text).unwrap_or_default(),
    };
    match &error.help {
        Some(help) => format!("{theirs}failed to {error} ({help})"),
        None => format!("{theirs}failed to {error}"),
    }
}

/// skopeo's words for an image that was published nowhere because of its signatures. `None` means that the error is another
/// one.
fn rejected(text: &str) -> Option<String> {
    let (image, why) = text[text.find("trust ")? + 6..].split_once(": ")?;
    if why.contains(" rejects it") {
        return Some(format!("Source image rejected: Running image {image} is rejected by policy. "));
    }
    if !why.contains(" demands a signature") {
        return None;
    }
    let after = |words: &str| why.find(words).map(|at| &why[at + words.len()..]);
    let theirs = match after("it is for ").and_then(|name| name.split([',', ';', ' ']).next()) {
        Some(name) => format!("Signature for identity {name} is not accepted "),
        None if after("no key of the keyring made it").is_some() => "Invalid GPG signature ".into(),
        None if after("it has no signature").is_some() => {
            "A signature was required, but no signature exists ".into()
        }
        None => String::new(),
    };
    Some(format!("Source image rejected: {theirs}"))
}

/// Writes a fatal message as skopeo's logger does.
fn fatal(text: &str) {
    let now = jiff::Timestamp::now();
    let text = serde_json::to_string(text).unwrap_or_default();
    output::print_aside(&format!("time=\"{now:.0}\" level=fatal msg={}\n", output::exact(&text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_find_the_words_of_skopeo() {
        for (text, theirs) in [
            (
                "copy x: trust docker://h/a:1: p.json rejects it",
                "Running image docker://h/a:1 is rejected by policy.",
            ),
            (
                "trust docker://h/a:1: p.json demands a signature of sha256:1: it is for h/b:2, and not for h/a:1",
                "Signature for identity h/b:2 is not accepted",
            ),
            (
                "trust docker://h/a:1: p.json demands a signature of sha256:1: no key of the keyring made it (X)",
                "Invalid GPG signature",
            ),
            (
                "trust docker://h/a:1: p.json demands a signature of sha256:1: it has no signature of the kind",
                "A signature was required, but no signature exists",
            ),
        ] {
            let told = rejected(text).unwrap();
            assert!(told.starts_with(&format!("Source image rejected: {theirs}")), "{told}");
        }
        assert_eq!(rejected("copy x: read the manifest 1"), None);
        assert_eq!(rejected("log in to trust me: it failed"), None);
    }
}
