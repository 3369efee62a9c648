//! `skopeo login` and `skopeo logout`

use super::flags::{self, Globals, given, is_on, switch, switched, text};
use crate::{
    args::{LoginOptions, LogoutOptions, Reach},
    failure::Failure,
    login::{self, Told},
};
use clap::{Arg, ArgMatches, Command};
use std::path::PathBuf;

/// The command line of `login`.
pub fn login_command() -> Command {
    let command = Command::new("login")
        .about("Logs in to a registry")
        .arg(Arg::new("registry").required(true).value_name("REGISTRY"))
        .arg(text("username").short('u').help("User name"))
        .arg(text("password").short('p').help("Password").conflicts_with("password-stdin"))
        .arg(switch("password-stdin").help("Reads the password from standard input"))
        .arg(switch("get-login").help("Prints the user that is logged in"))
        .arg(text("authfile").help("File of logins"))
        .arg(switch("tls-verify").help("Requires HTTPS, and checks certificates"))
        .arg(switch("verbose").short('v').hide(true));
    flags::refused(command, &["cert-dir", "compat-auth-file"])
}

/// The command line of `logout`.
pub fn logout_command() -> Command {
    let command = Command::new("logout")
        .about("Logs out of a registry")
        .arg(Arg::new("registry").required_unless_present("all").value_name("REGISTRY"))
        .arg(switch("all").short('a').help("Forgets all logins of the file"))
        .arg(text("authfile").help("File of logins"))
        .arg(switch("tls-verify").hide(true));
    flags::refused(command, &["cert-dir", "compat-auth-file"])
}

fn authfile(matches: &ArgMatches) -> Option<PathBuf> {
    let variable = || std::env::var("REGISTRY_AUTH_FILE").ok();
    given(matches, "authfile").or_else(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
}

pub async fn login(matches: &ArgMatches, globals: &Globals) -> Result<u8, Failure> {
    let verify = switched(matches, "tls-verify").or(globals.tls_verify);
    let options = LoginOptions {
        registry: given(matches, "registry").unwrap_or_default(),
        username: given(matches, "username"),
        password: given(matches, "password"),
        password_stdin: is_on(matches, "password-stdin"),
        get_login: is_on(matches, "get-login"),
        reach: Reach { authfile: authfile(matches), tls_ca: None, insecure: verify == Some(false) },
    };
    login::login_told(options, &Told::Skopeo).await
}

pub fn logout(matches: &ArgMatches) -> Result<u8, Failure> {
    let options = LogoutOptions {
        registry: given(matches, "registry").unwrap_or_default(),
        all: is_on(matches, "all"),
        authfile: authfile(matches),
    };
    login::logout_told(&options, &Told::Skopeo)
}
