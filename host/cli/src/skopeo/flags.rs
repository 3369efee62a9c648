//! skopeo's flags, as its pflag library reads them: a boolean takes `=false`, too.

use super::unsupported;
use crate::{
    args::{Global, LogFormat, ShowProgress},
    failure::Failure,
    setup,
};
use clap::{Arg, ArgAction, ArgMatches, Command};
use dray_core::Platform;
use dray_session::system::SystemFiles;
use std::{path::PathBuf, time::Duration};

/// A flag that is on or off: `--name`, `--name=false`.
pub fn switch(name: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_parser(clap::builder::BoolishValueParser::new())
        .action(ArgAction::Set)
}

/// A flag with a text.
pub fn text(name: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::Set).allow_hyphen_values(true)
}

/// Whether a switch is on. `None` means that it was not given.
pub fn switched(matches: &ArgMatches, name: &str) -> Option<bool> {
    matches.try_get_one::<bool>(name).ok().flatten().copied()
}

pub fn is_on(matches: &ArgMatches, name: &str) -> bool {
    switched(matches, name).unwrap_or(false)
}

pub fn given(matches: &ArgMatches, name: &str) -> Option<String> {
    matches.try_get_one::<String>(name).ok().flatten().cloned()
}

/// Flags that dray knows and does not support, with whether they take a value.
const REFUSED: [(&str, bool); 4] = [
    ("dest-precompute-digests", false),
    ("sign-by-sq-fingerprint", true),
    ("compat-auth-file", true),
    ("image-parallel-copies", true),
];

/// Adds flags that are refused by name.
pub fn refused(command: Command, names: &[&'static str]) -> Command {
    names.iter().fold(command, |command, name| {
        let takes = REFUSED.iter().any(|(refused, takes)| refused == name && *takes);
        command.arg(if takes { text(name).hide(true) } else { switch(name).hide(true) })
    })
}

/// Fails if a flag was given that dray does not support.
pub fn refuse(matches: &ArgMatches) -> Result<(), Failure> {
    let was_given = |name: &str, takes| match takes {
        true => given(matches, name).is_some(),
        false => is_on(matches, name),
    };
    match REFUSED.iter().find(|(name, takes)| was_given(name, *takes)) {
        Some((name, _)) => Err(unsupported(&format!("the flag --{name}"))),
        None => Ok(()),
    }
}

/// Adds the global flags.
pub fn globals(command: Command) -> Command {
    let all = [
        switch("debug").help("Say more"),
        switch("insecure-policy").help("Check no signature policy"),
        switch("require-signed")
            .help("Accepts only what a signature vouches for")
            .conflicts_with("insecure-policy"),
        text("policy").help("Signature policy, instead of policy.json"),
        text("registries.d").help("Folder of registries.d, instead of the usual one"),
        text("registries-conf").help("registries.conf, instead of the usual one"),
        text("override-arch").help("Architecture of the image that is chosen"),
        text("override-os").help("Operating system of the image that is chosen"),
        text("override-variant").help("Variant of the image that is chosen"),
        text("command-timeout").help("The longest time, as 1m30s"),
        text("tmpdir").hide(true),
        text("user-agent-prefix").hide(true),
        text("tls-details").hide(true),
    ];
    // Scripts write these before the command and after it. A command has a flag --tls-verify of its own.
    let command = command.arg(switch("tls-verify").hide(true));
    all.into_iter().map(|arg| arg.global(true)).fold(command, Command::arg)
}

/// What holds for every command.
pub struct Globals {
    pub log: Global,
    pub insecure_policy: bool,
    pub policy: Option<PathBuf>,
    pub require_signed: bool,
    pub registries_d: Option<PathBuf>,
    pub registries_conf: Option<PathBuf>,
    pub timeout: Option<Duration>,
    /// The platform of the image that is chosen in an index.
    pub platform: Platform,
    /// Set if platforms were overridden by something that is not understood, or an unsupported flag was given.
    pub wrong: Option<String>,
    /// The deprecated `--tls-verify` before the command.
    pub tls_verify: Option<bool>,
}

impl Globals {
    pub fn of(matches: &ArgMatches) -> Self {
        let mut platform = Platform::of_this_machine();
        if let Some(os) = given(matches, "override-os") {
            platform.os = os;
        }
        if let Some(architecture) = given(matches, "override-arch") {
            platform.architecture = architecture;
            platform.variant = None;
        }
        if let Some(variant) = given(matches, "override-variant") {
            platform.variant = Some(variant);
        }
        let mut wrong = None;
        let timeout = given(matches, "command-timeout").and_then(|text| {
            let time = text.parse::<humantime::Duration>();
            time.inspect_err(|_| wrong = Some(format!("the time `{text}` of --command-timeout"))).ok()
        });
        for name in ["tmpdir", "user-agent-prefix", "tls-details"] {
            if given(matches, name).is_some() || is_on(matches, name) {
                wrong = Some(format!("the flag --{name}"));
            }
        }
        Globals {
            log: Global {
                verbose: if is_on(matches, "debug") { 2 } else { 0 },
                quiet: false,
                log_format: LogFormat::Text,
                progress: ShowProgress::None,
            },
            insecure_policy: is_on(matches, "insecure-policy"),
            policy: given(matches, "policy").map(PathBuf::from),
            require_signed: is_on(matches, "require-signed"),
            registries_d: given(matches, "registries.d").map(PathBuf::from),
            registries_conf: given(matches, "registries-conf").map(PathBuf::from),
            timeout: timeout.map(|time| *time).filter(|time| !time.is_zero()),
            platform,
            wrong,
            tls_verify: switched(matches, "tls-verify"),
        }
    }

    /// Where the machine's files are, as the flags say. For commands that copy nothing, no policy.json is needed.
    pub fn system_files(&self) -> SystemFiles {
        let mut files = setup::system_files();
        if let Some(policy) = &self.policy {
            files.policy = vec![policy.clone()];
        }
        if let Some(folder) = &self.registries_d {
            files.registries_d = vec![folder.clone()];
        }
        if let Some(path) = &self.registries_conf {
            (files.registries, files.registries_more) = (vec![path.clone()], Vec::new());
            files.registries_required = true;
        }
        files.always_signed = self.require_signed;
        files.policy_required = !self.insecure_policy;
        if self.insecure_policy {
            files.policy = Vec::new();
        }
        files
    }

    /// Fails if a global flag was given that dray does not support.
    pub fn check(&self) -> Result<(), Failure> {
        match &self.wrong {
            Some(wrong) => Err(unsupported(wrong)),
            None => Ok(()),
        }
    }
}

/// How one image is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFlags {
    pub authfile: Option<PathBuf>,
    /// User name and password.
    pub login: Option<(String, String)>,
    pub token: Option<String>,
    pub no_creds: bool,
    /// `None` means that the flag was not given.
    pub tls_verify: Option<bool>,
    pub shared_blob_dir: Option<PathBuf>,
    pub cert_dir: Option<PathBuf>,
}

/// The names of the flags of an image: with no prefix, `src-` or `dest-`.
struct Names {
    authfile: &'static str,
    creds: &'static str,
    username: &'static str,
    password: &'static str,
    no_creds: &'static str,
    token: &'static str,
    tls_verify: &'static str,
    shared_blob_dir: &'static str,
    daemon_host: &'static str,
    cert_dir: &'static str,
}

/// Makes the names of one prefix.
macro_rules! names {
    ($prefix:literal) => {
        Names {
            authfile: concat!($prefix, "authfile"),
            creds: concat!($prefix, "creds"),
            username: concat!($prefix, "username"),
            password: concat!($prefix, "password"),
            no_creds: concat!($prefix, "no-creds"),
            token: concat!($prefix, "registry-token"),
            tls_verify: concat!($prefix, "tls-verify"),
            shared_blob_dir: concat!($prefix, "shared-blob-dir"),
            daemon_host: concat!($prefix, "daemon-host"),
            cert_dir: concat!($prefix, "cert-dir"),
        }
    };
}

/// Which image of a command flags are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Only,
    Source,
    Destination,
}

impl End {
    fn names(self) -> Names {
        match self {
            End::Only => names!(""),
            End::Source => names!("src-"),
            End::Destination => names!("dest-"),
        }
    }
}

/// `--screds` and `--dcreds` are the old names.
fn creds(end: End, flag: Arg) -> Arg {
    match end {
        End::Only => flag,
        End::Source => flag.alias("screds"),
        End::Destination => flag.alias("dcreds"),
    }
}

/// Adds the flags of an image.
pub fn image(command: Command, end: End) -> Command {
    let names = end.names();
    command
        .arg(text(names.authfile).help("File of logins"))
        .arg(creds(end, text(names.creds)).help("USER[:PASSWORD]").conflicts_with(names.no_creds))
        .arg(text(names.username).requires(names.password).conflicts_with_all([names.creds, names.no_creds]))
        .arg(text(names.password).requires(names.username))
        .arg(switch(names.no_creds).help("Send no login"))
        .arg(text(names.token).help("A bearer token"))
        .arg(switch(names.tls_verify).help("Require HTTPS, and check certificates"))
        .arg(text(names.shared_blob_dir).help("Folder of the blobs that layouts share"))
        .arg(text(names.cert_dir).help("Folder of *.crt, *.cert and *.key for the registry"))
        .arg(text(names.daemon_host).hide(true))
}

impl ImageFlags {
    /// The flags of an image. `authfile` without a prefix is for both ends.
    pub fn of(matches: &ArgMatches, end: End, globals: &Globals) -> Result<Self, Failure> {
        let names = end.names();
        let path = |name: &str| given(matches, name).filter(|path| !path.is_empty()).map(PathBuf::from);
        if given(matches, names.daemon_host).is_some() {
            return Err(unsupported(&format!("the flag --{} (set DOCKER_HOST)", names.daemon_host)));
        }
        let creds = given(matches, names.creds).map(|creds| match creds.split_once(':') {
            Some((user, password)) => (user.to_owned(), password.to_owned()),
            None => (creds, String::new()),
        });
        let login = creds.or_else(|| given(matches, names.username).zip(given(matches, names.password)));
        if login.as_ref().is_some_and(|(user, _)| user.is_empty()) {
            return Err(Failure::usage("log in: the user name is empty"));
        }
        Ok(ImageFlags {
            authfile: path(names.authfile).or_else(|| path("authfile")),
            login,
            token: given(matches, names.token),
            no_creds: is_on(matches, names.no_creds),
            tls_verify: switched(matches, names.tls_verify).or(globals.tls_verify),
            shared_blob_dir: path(names.shared_blob_dir),
            cert_dir: path(names.cert_dir),
        })
    }
}
