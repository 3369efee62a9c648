//! The command line of `dray plugin`.

use super::{Access, Output, POLICY};
use crate::completions;
use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use dray_core::{Reference, policy::ArtifactSource};
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum PluginCommand {
    /// List the plugins that are built in, those that are installed, and those of a policy
    List(PluginListOptions),
    /// Show one plugin and its configuration's schema
    Inspect(PluginInspectOptions),
    /// Make the project of a new plugin
    New(PluginNewOptions),
    /// Build a project's component
    Build(PluginBuildOptions),
    /// Renew the SDK and the contract in a project
    Vendor(PluginVendorOptions),
    /// Replay fixtures against a component
    Test(PluginTestOptions),
    /// Tell what a component is, what it asks for, and whether this dray runs it
    Check(PluginCheckOptions),
    /// Write a component to a registry
    Push(PluginPushOptions),
    /// Fetch the plugins of a policy, or one artifact, and lock their digests
    Install(PluginInstallOptions),
    /// Look again what the tags of installed plugins name
    Update(PluginUpdateOptions),
    /// Remove installed plugins from this machine
    Remove(PluginRemoveOptions),
    /// Make a key pair that signs plugins
    Keygen(PluginKeygenOptions),
    /// Sign a plugin
    Sign(PluginSignOptions),
    /// Check who has signed a plugin
    Verify(PluginVerifyOptions),
}

#[derive(Args)]
#[command(
    after_help = "The project builds and passes its test as it is made. It holds the SDK and the contract (`vendor`, or `wit`), so no clone of dray is needed; cargo fetches serde and wit-bindgen from crates.io. Keep the Cargo.lock that the first build writes."
)]
pub struct PluginNewOptions {
    /// Its name: small letters, digits and hyphens
    pub name: String,
    /// What it is
    #[arg(long, value_name = "KIND", default_value = "filter", value_parser = kinds())]
    pub kind: dray_author::Kind,
    /// The language: Rust for every kind, the others for filters
    #[arg(long, value_name = "LANGUAGE", default_value = "rust", value_parser = languages())]
    pub lang: dray_author::Language,
    /// The folder of the project. Without it, the name
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[derive(Args)]
#[command(
    after_help = "What a project holds of dray is written again as this dray has it: `vendor/sdk` of Rust, and `wit` of the other languages. Do it after dray itself was updated and speaks another version of the contract."
)]
pub struct PluginVendorOptions {
    /// The folder of the project
    #[arg(default_value = ".")]
    pub dir: PathBuf,
}

#[derive(Args)]
#[command(
    after_help = "All projects are built in one folder of the cache, so that the standard library is compiled once for all of them. Nothing but the compiler of the language is needed."
)]
pub struct PluginBuildOptions {
    /// The folder of the project
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// The component's file. Without it, NAME.wasm in the folder
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Args)]
#[command(
    after_help = "A fixture is a file in TOML:\n\n  about = \"what it shows\"\n  [filter]                        tags, all, config; keeps, drops, or fails\n  [auth]                          registry, repository, why, config; bearer, basic, identity-token, none, or fails\n  [mapper]                        tags, config; names, or fails\n  [[call]]                        any function: function, arguments; expect, or fails\n  [[request]]                     what it sends, in order: method, url, headers, body, answer = { status, headers, body }\n  [secrets] [files] [[image]]     what it finds; location, read-only, destination, settings and now (milliseconds) before them\n\ndocs/plugins.md tells more. No request of a fixture leaves this machine.\n\n--record plans a policy that has [plugin.NAME] of this plugin, with its requests, and writes fixtures/recorded-N.toml. Secrets that the policy grants and tokens of login services are replaced in them; look through them all the same."
)]
pub struct PluginTestOptions {
    /// The folder of a project, which is built first, or a component file
    #[arg(default_value = ".")]
    pub plugin: PathBuf,
    /// The folder of the fixtures. Without it, `fixtures` beside the component
    #[arg(long, value_name = "DIR")]
    pub fixtures: Option<PathBuf>,
    /// Plan this policy with the plugin, and make a fixture of each of its calls. Nothing is copied
    #[arg(long, value_name = "POLICY")]
    pub record: Option<PathBuf>,
    /// How the outcome is written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

#[derive(Args)]
pub struct PluginCheckOptions {
    /// A component file, or the folder of a project, which is built first
    #[arg(default_value = ".")]
    pub plugin: PathBuf,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

#[derive(Args)]
pub struct PluginListOptions {
    /// Also list the plugins of this policy
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// How they are written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

#[derive(Args)]
pub struct PluginInspectOptions {
    /// A plugin's name, or a component file
    pub plugin: String,
    /// Its kind, where plugins of several kinds have the same name
    #[arg(long, value_name = "KIND", value_parser = ["transport", "auth", "filter", "verifier", "dialect", "mapper", "observer"])]
    pub kind: Option<String>,
    /// Where the name may be declared
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

#[derive(Args)]
#[command(
    after_help = "It is written as the Wasm artifact layout of the CNCF has it, so `wkg` and other tools read it, too. The same component has the same digest each time."
)]
pub struct PluginPushOptions {
    /// A component file, or the folder of a project, which is built first
    pub plugin: PathBuf,
    /// To where: docker://registry.example.com/plugins/calver:1.2.0
    #[arg(add = completions::references(), value_parser = destination)]
    pub destination: Reference,
    /// How the outcome is written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    pub access: Access,
}

#[derive(Args)]
#[command(
    after_help = "Without SOURCE, the plugins of the policy are fetched that name an artifact (source = \"oci://…\"). What the lock file of the policy has stays as it is; a new one is looked up and written there. A run never uses a plugin whose digest neither the policy nor its lock says.\n\nA component is compiled once, when it is installed."
)]
pub struct PluginInstallOptions {
    /// One artifact: oci://registry.example.com/plugins/calver:1.2.0
    #[arg(value_parser = artifact)]
    pub source: Option<ArtifactSource>,
    /// The policy, dray.toml without this; several are read as one. With SOURCE, it says how the registry is reached
    #[arg(long, value_name = "FILE")]
    pub policy: Vec<PathBuf>,
    /// A public key, of which one must have signed SOURCE; those of a policy say so in `trusted-keys`
    #[arg(long = "key", value_name = "FILE", requires = "source")]
    pub keys: Vec<PathBuf>,
    /// How the outcome is written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    pub access: InstallAccess,
}

/// How a registry is reached from which a single artifact is installed.
#[derive(Args)]
pub struct InstallAccess {
    /// Credentials in the form of auth.json or config.json, instead of the usual places
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE")]
    pub authfile: Option<PathBuf>,
    /// A file that holds USER:PASSWORD, for all registries of this command
    #[arg(long, value_name = "FILE", requires = "source")]
    pub creds_file: Option<PathBuf>,
    /// PEM file of further trusted authorities
    #[arg(long, value_name = "FILE", requires = "source")]
    pub tls_ca: Option<PathBuf>,
    /// Take any certificate, and plain HTTP
    #[arg(long, requires = "source")]
    pub insecure: bool,
}

#[derive(Args)]
#[command(
    after_help = "The tags in the policy are looked up again, what they name is fetched and checked, and the lock file of the policy gets the new digests. A source that names a digest is never updated."
)]
pub struct PluginUpdateOptions {
    /// Names of plugins of the policy. Without any, all of them
    pub names: Vec<String>,
    /// The policy; several are read as one
    #[arg(long, value_name = "FILE", default_value = POLICY)]
    pub policy: Vec<PathBuf>,
    /// Change nothing: exit with 3 if a tag names something else now
    #[arg(long)]
    pub check: bool,
    /// How the outcome is written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Credentials in the form of auth.json or config.json, instead of the usual places
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE")]
    pub authfile: Option<PathBuf>,
}

#[derive(Args)]
#[command(
    after_help = "Where several have one name, such as two versions, name the digest: `dray plugin list --output json` shows it as `artifact`. The whole source does as well, if only one came from it.\n\nA policy that still names one fetches it again when it is used. Lock files stay as they are."
)]
pub struct PluginRemoveOptions {
    /// Names of installed plugins, or their digests
    #[arg(required = true)]
    pub plugins: Vec<String>,
    /// How the outcome is written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

#[derive(Args)]
#[command(
    after_help = "The private key (Ed25519) is encrypted with a passphrase, which may be empty, as cosign's are. Keep it out of repositories; the public key goes to those who install your plugins (`trusted-keys`)."
)]
pub struct PluginKeygenOptions {
    /// Path and beginning of the names of both files: NAME.key and NAME.pub
    #[arg(default_value = "plugin")]
    pub name: PathBuf,
    /// File whose first line is the passphrase of the new key
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// How the outcome is written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

#[derive(Args)]
#[command(
    after_help = "The signature of an artifact is a sigstore bundle that refers to it in the registry; that of a file is a bundle beside it, FILE.sigstore.json. cosign reads both. An artifact that the key has signed before stays as it is."
)]
pub struct PluginSignOptions {
    /// An artifact (oci://registry.example.com/plugins/calver:1.2.0), or a component file
    pub plugin: String,
    /// The private key
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// File whose first line is the passphrase of the key. Without it, COSIGN_PASSWORD or a terminal
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// How the outcome is written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    pub access: Access,
}

#[derive(Args)]
pub struct PluginVerifyOptions {
    /// An artifact (oci://registry.example.com/plugins/calver:1.2.0), or a component file
    pub plugin: String,
    /// A public key; one of several is enough
    #[arg(long = "key", value_name = "FILE", required = true)]
    pub keys: Vec<PathBuf>,
    /// How the outcome is written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    pub access: Access,
}

/// Where an artifact is written, which may also be written as policies name it.
fn destination(text: &str) -> Result<Reference, String> {
    let written = text.strip_prefix("oci://").map(|rest| format!("docker://{rest}"));
    written
        .as_deref()
        .unwrap_or(text)
        .parse()
        .map_err(|error: dray_core::ParseReferenceError| error.to_string())
}

/// An artifact, which may also be written as a reference of a registry.
fn artifact(text: &str) -> Result<ArtifactSource, String> {
    match text.strip_prefix("docker://") {
        Some(rest) => format!("oci://{rest}").parse(),
        None => text.parse(),
    }
}

/// The kinds of plugins.
fn kinds() -> impl TypedValueParser<Value = dray_author::Kind> {
    PossibleValuesParser::new(dray_author::Kind::ALL.map(dray_author::Kind::name))
        .try_map(|text| text.parse())
}

/// The languages of plugins.
fn languages() -> impl TypedValueParser<Value = dray_author::Language> {
    PossibleValuesParser::new(dray_author::Language::ALL.map(dray_author::Language::name))
        .try_map(|text| text.parse())
}
