//! The command line.

mod plugin;

pub use plugin::*;

use crate::completions;
use clap::{Args, Parser, Subcommand, ValueEnum};
use dray_core::{
    Compression, Format, Platform, Reference, Shard,
    policy::{PluginSource, PruneLimit, is_built_in},
};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use std::{net::SocketAddr, path::PathBuf};

/// Copies and syncs container images between registries, layouts, archives, daemons and directories
#[derive(Parser)]
#[command(name = "dray", version, long_about = ABOUT, after_help = EXIT_CODES, propagate_version = false)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const ABOUT: &str = "\
Copies and syncs container images between registries, layouts, archives, daemons and directories.

Places are named by references:
  docker://HOST/REPOSITORY[:TAG|@DIGEST]         a registry
  oci:PATH[:TAG|:NAME:TAG]                       an OCI image layout
  oci-archive:FILE[:TAG|:NAME:TAG]               an OCI image layout in a tar file
  docker-archive:FILE[:NAME:TAG|:@N]             a tar file as docker save writes it
  docker-daemon:NAME[:TAG]                       the images of Docker's daemon (DOCKER_HOST)
  containers-storage:[[FOLDER]]NAME[:TAG]        the images of podman, buildah and CRI-O
  registry-storage:[FOLDER]REPOSITORY[:TAG]      the storage of a distribution registry
  dir:PATH                                       one image, as skopeo writes it
  tarball:FILE[:FILE...]                         an image made from tar files, only to be read";

const EXIT_CODES: &str = "\
Exit codes: 0 all well; 1 something failed; 2 the command line or the policy is wrong; \
3 changes are due (plan --detailed-exitcode, lock --check, diff); 130 and 143 stopped by Ctrl-C and SIGTERM.

Write a policy as dray.toml, and start with `dray plan`: it shows what a sync would do, and changes nothing.";

#[derive(Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Say more on standard error (-v progress of decisions, -vv requests, -vvv everything)
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Say nothing on standard error but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// How log messages are written
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
    /// How progress is shown on standard error
    #[arg(long, value_enum, default_value_t = ShowProgress::Auto, global = true)]
    pub progress: ShowProgress,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShowProgress {
    /// A bar on a terminal, lines elsewhere
    Auto,
    /// Lines
    Plain,
    /// One JSON object for each event (docs/progress.schema.json)
    Json,
    /// Nothing but errors
    None,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// One JSON document
    Json,
}

#[derive(Subcommand)]
pub enum Command {
    /// Bring the destinations to what a policy says
    Sync(SyncOptions),
    /// Show what a sync would do and why; change nothing
    Plan(PlanOptions),
    /// Delete tags that nothing keeps, by the `[[retain]]` tables of a policy
    Retain(RetainOptions),
    /// Carry out a plan that `dray plan --out` saved, and nothing else
    Apply(ApplyOptions),
    /// Check a policy without a network
    Check(CheckOptions),
    /// Write what the tags of a policy name now to a lock file, for `sync --locked`
    Lock(LockOptions),
    /// Copy one image
    Copy(CopyOptions),
    /// Give an image of a place another tag
    Tag(TagOptions),
    /// Delete an image, or one tag of it
    Delete(DeleteOptions),
    /// Sign an image
    Sign(SignOptions),
    /// Check who has signed an image
    Verify(VerifyOptions),
    /// Check a login at a registry, and keep it for later
    Login(LoginOptions),
    /// Forget a login
    Logout(LogoutOptions),
    /// Print the digest of a manifest in a file
    Digest(DigestOptions),
    /// Make a policy of another tool's configuration
    Migrate(MigrateOptions),
    /// Take the commands and flags of skopeo
    Skopeo {
        /// What skopeo would be given: `copy --all SRC DST`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Show what is different between two images or two repositories
    Diff(DiffOptions),
    /// List the repositories of a registry
    Ls(LsOptions),
    /// Show what an image is
    Inspect(InspectOptions),
    /// List the tags of a repository
    ListTags(ListTagsOptions),
    /// Show earlier runs
    Runs(RunsOptions),
    /// Show and trim what is kept between runs: the journal, compiled plugins
    Cache(CacheOptions),
    /// Show plugins; make, build and test one's own
    Plugin {
        #[command(subcommand)]
        command: PluginCommand,
    },
    /// Serve a registry
    Registry {
        #[command(subcommand)]
        command: RegistryCommand,
    },
    /// Write man pages
    Man {
        /// The folder for them, such as /usr/local/share/man/man1
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Print a shell's completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the JSON Schema of policies, for editors
    Schema,
}

#[derive(Args)]
pub struct CheckOptions {
    /// Path of the policy, or of several that are read as one; `-` is standard input
    #[arg(default_value = POLICY, value_name = "POLICY", add = completions::policies())]
    pub policies: Vec<PathBuf>,
    /// Print the policy with its variables, defaults and included files resolved
    #[arg(long, conflicts_with = "output")]
    pub resolved: bool,
    /// How the result is written to standard output
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

#[derive(Args)]
pub struct LockOptions {
    /// Path of the policy, or of several that are read as one
    #[arg(default_value = POLICY, value_name = "POLICY", add = completions::policies())]
    pub policies: Vec<PathBuf>,
    /// Write nothing: say what has moved since, and exit with 3 if something has
    #[arg(long)]
    pub check: bool,
    /// How the changes are written to standard output
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// The policy that is read if none is named.
pub const POLICY: &str = "dray.toml";

#[derive(Args)]
pub struct SyncOptions {
    /// Path of the policy, or of several that are read as one; `-` is standard input
    #[arg(default_value = POLICY, value_name = "POLICY", add = completions::policies())]
    pub policies: Vec<PathBuf>,
    /// Copy exactly what the lock file of the policy names (see `dray lock`)
    #[arg(long)]
    pub locked: bool,
    /// Only these rules
    #[arg(long = "rule", value_name = "NAME", add = completions::rules())]
    pub rules: Vec<String>,
    /// Do one of several parts of the work, as several machines share it: 0/4 to 3/4. All that is written to one repository is in one part
    #[arg(long, value_name = "INDEX/NUMBER")]
    pub shard: Option<Shard>,
    /// Write each call of this plugin to standard error, with its time and its size, as a line of JSON; may be given again
    #[arg(long, value_name = "NAME")]
    pub trace_plugin: Vec<String>,
    #[command(flatten)]
    pub prune: PruneFlags,
    #[command(flatten)]
    pub reports: ReportFlags,
    #[command(flatten)]
    pub run: RunFlags,
}

/// Where reports of scanners are.
#[derive(Args)]
pub struct ReportFlags {
    /// A folder with reports of a vulnerability scanner for `require = [{ scan = … }]`: files named `sha256-….json` by the
    /// digest of their image
    #[arg(long, value_name = "DIR")]
    pub scan_report: Option<PathBuf>,
}

/// What is deleted at the destinations.
#[derive(Args)]
pub struct PruneFlags {
    /// Delete tags at the destinations that dray copied there and the sources no longer have, as `prune = true` in each rule
    #[arg(long)]
    pub prune: bool,
    /// How many tags of a repository may be deleted at once: a number, or `all`. Without it, a fifth of them
    #[arg(long, value_name = "N|all", value_parser = prune_limit)]
    pub prune_limit: Option<PruneLimit>,
}

fn prune_limit(text: &str) -> Result<PruneLimit, String> {
    PruneLimit::read(text).ok_or_else(|| "write a number of tags, or `all`".to_owned())
}

/// How a run is carried out that a policy rules.
#[derive(Args)]
pub struct RunFlags {
    /// How the report is written to standard output
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Stop at the first failure, instead of doing the rest
    #[arg(long, conflicts_with = "keep_going")]
    pub fail_fast: bool,
    /// Go on after a failure, which is what happens without this flag, too
    #[arg(long, hide = true)]
    pub keep_going: bool,
    /// If another run of the policy is under way, wait until it has ended
    #[arg(long)]
    pub wait: bool,
    /// Do not confine the process to the paths that the policy names (Linux)
    #[arg(long)]
    pub no_sandbox: bool,
}

#[derive(Args)]
pub struct PlanOptions {
    /// Path of the policy, or of several that are read as one; `-` is standard input
    #[arg(default_value = POLICY, value_name = "POLICY", add = completions::policies())]
    pub policies: Vec<PathBuf>,
    /// Plan exactly what the lock file of the policy names (see `dray lock`)
    #[arg(long)]
    pub locked: bool,
    /// Only these rules
    #[arg(long = "rule", value_name = "NAME", add = completions::rules())]
    pub rules: Vec<String>,
    /// Plan one of several parts of the work (see `dray sync --help`)
    #[arg(long, value_name = "INDEX/NUMBER")]
    pub shard: Option<Shard>,
    /// How the plan is written to standard output
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// List every tag with its reason, those that are unchanged or dropped, too
    #[arg(long)]
    pub explain: bool,
    /// Show how much would travel at most: reads every manifest of what changes at its source
    #[arg(long)]
    pub sizes: bool,
    /// Exit with 3 where changes are due
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// Save the plan in a file, for `dray apply`
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub prune: PruneFlags,
    #[command(flatten)]
    pub reports: ReportFlags,
}

#[derive(Args)]
#[command(
    after_help = "Without --apply, nothing is deleted. Every tag that one entry of `keep` chooses stays; docs/howto/order.md shows how."
)]
pub struct RetainOptions {
    /// Path of the policy, or of several that are read as one; `-` is standard input
    #[arg(default_value = POLICY, value_name = "POLICY", add = completions::policies())]
    pub policies: Vec<PathBuf>,
    /// Delete what nothing keeps
    #[arg(long)]
    pub apply: bool,
    /// Only say what would be deleted, which is what happens without --apply, too
    #[arg(long, conflicts_with = "apply")]
    pub plan: bool,
    /// How many tags of a repository may be deleted at once: a number, or `all`. Without it, a fifth of them
    #[arg(long, value_name = "N|all", value_parser = prune_limit)]
    pub limit: Option<PruneLimit>,
    #[command(flatten)]
    pub run: RunFlags,
}

#[derive(Args)]
pub struct ApplyOptions {
    /// Path of the plan. Its policy must be as it was when the plan was made
    pub plan: PathBuf,
    #[command(flatten)]
    pub reports: ReportFlags,
    #[command(flatten)]
    pub run: RunFlags,
}

#[derive(Args)]
#[command(
    after_help = "A registry that deletes no single tags deletes the whole image. If other tags name it, or an index needs it, nothing is deleted, unless --all-tags is given."
)]
pub struct DeleteOptions {
    /// The image, by a tag or a digest
    #[arg(add = completions::references())]
    pub reference: Reference,
    /// Delete the image with all of its tags
    #[arg(long)]
    pub all_tags: bool,
    /// Only say what would be deleted
    #[arg(long)]
    pub dry_run: bool,
    /// How the result is written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    pub access: Access,
}

/// The tool that a configuration is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MigrateKind {
    /// The YAML of `skopeo sync`
    Skopeo,
    /// regsync.yml
    Regsync,
    /// The auth and images files of image-syncer
    ImageSyncer,
    /// dregsy's YAML
    Dregsy,
    /// The sync section of zot's configuration
    Zot,
    /// An ImageSetConfiguration
    OcMirror,
    /// hauler's Images
    Hauler,
    /// Replication policies, as Harbor's API gives them
    Harbor,
    /// A list with one image a line, Kubernetes manifests, a rendered chart
    Images,
}

#[derive(Args)]
#[command(
    after_help = "What a policy cannot say is told on standard error, with its line, and stands in the policy as a comment.\n\
                  Passwords are not written: the policy names a variable for each."
)]
pub struct MigrateOptions {
    /// Files of one tool
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Of which tool they are, if that cannot be seen
    #[arg(long, value_enum)]
    pub kind: Option<MigrateKind>,
    /// Where images go, if the files do not say so: docker://mirror.example.com
    #[arg(long, value_name = "PLACE")]
    pub to: Option<String>,
    /// Keep the whole name of the source, with its host, at the destination
    #[arg(long)]
    pub scoped: bool,
    /// Write the policy to this new file
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Compare what the policy copies with what the old tool would
    #[arg(long)]
    pub check: bool,
}

/// How a signature of sigstore is attached.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AttachForm {
    /// By a tag that is made of the digest, as skopeo, podman and older cosign read it
    Tag,
    /// As a bundle that refers to the image, as cosign 3 reads it
    Referrer,
}

#[derive(Args)]
#[command(
    after_help = "Signatures of OpenPGP go where registries.d says (lookaside), or beside the image in dir:.\n\
                  The passphrase of a key is read from --passphrase-file, from COSIGN_PASSWORD, or asked for."
)]
pub struct SignOptions {
    /// The image, by a tag or a digest
    #[arg(add = completions::references())]
    pub reference: Reference,
    /// Private key of sigstore, as cosign and skopeo write it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["pgp_key", "gpg"])]
    pub key: Option<PathBuf>,
    /// Secret key of OpenPGP in a file
    #[arg(long, value_name = "FILE")]
    pub pgp_key: Option<PathBuf>,
    /// Fingerprint of a key of gpg, or of one of several in --pgp-key
    #[arg(long, value_name = "FINGERPRINT")]
    pub gpg: Option<String>,
    /// File whose first line is the passphrase of the key
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// The name that is signed, instead of the image's own
    #[arg(long, value_name = "NAME")]
    pub identity: Option<String>,
    /// How a signature of sigstore is attached
    #[arg(long = "as", value_enum, default_value_t = AttachForm::Tag, value_name = "FORM")]
    pub form: AttachForm,
    /// Sign every image of an index as well
    #[arg(long)]
    pub recursive: bool,
    #[command(flatten)]
    pub access: Access,
}

#[derive(Args)]
#[command(
    after_help = "Without options that name keys, the machine's policy.json says who must have signed the image."
)]
pub struct VerifyOptions {
    /// The image, by a tag or a digest
    #[arg(add = completions::references())]
    pub reference: Reference,
    /// Public key of sigstore; one of several is enough
    #[arg(long, value_name = "FILE", conflicts_with_all = ["pgp", "fulcio_ca", "pki_ca"])]
    pub key: Vec<PathBuf>,
    /// Public keys of OpenPGP
    #[arg(long, value_name = "FILE", conflicts_with_all = ["fulcio_ca", "pki_ca", "rekor"])]
    pub pgp: Vec<PathBuf>,
    /// Certificates of Fulcio
    #[arg(long, value_name = "FILE", requires_all = ["issuer", "subject"], conflicts_with = "pki_ca")]
    pub fulcio_ca: Option<PathBuf>,
    /// Who must have identified the signer to Fulcio, as the issuer of a token
    #[arg(long, value_name = "URL", requires = "fulcio_ca")]
    pub issuer: Option<String>,
    /// The e-mail address or the URI of the signer
    #[arg(long, value_name = "NAME", requires = "fulcio_ca")]
    pub subject: Option<String>,
    /// Root certificates of an infrastructure of one's own
    #[arg(long, value_name = "FILE")]
    pub pki_ca: Option<PathBuf>,
    /// The e-mail address in the signer's certificate
    #[arg(long, value_name = "ADDRESS", requires = "pki_ca")]
    pub email: Option<String>,
    /// The host name in the signer's certificate
    #[arg(long, value_name = "HOST", requires = "pki_ca")]
    pub hostname: Option<String>,
    /// Public key of Rekor, which must have the signature in its log
    #[arg(long, value_name = "FILE")]
    pub rekor: Vec<PathBuf>,
    /// Certificates of an authority that must have signed the time of the signature (RFC 3161)
    #[arg(long, value_name = "FILE", conflicts_with = "pgp")]
    pub timestamp: Vec<PathBuf>,
    /// For which image a signature must be: exact, repository, any, or a name
    #[arg(long, value_name = "WHAT")]
    pub identity: Option<String>,
    /// How the result is written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    pub access: Access,
}

#[derive(Args)]
pub struct LoginOptions {
    /// The registry, or a namespace of it: `registry.example.com/team`
    #[arg(default_value = "docker.io")]
    pub registry: String,
    /// The user. Without it, dray asks
    #[arg(short, long, value_name = "NAME")]
    pub username: Option<String>,
    /// The password. Others on this machine can read it while dray runs: prefer --password-stdin
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub password_stdin: bool,
    /// Print the user that is logged in, and do nothing else
    #[arg(long, conflicts_with_all = ["username", "password", "password_stdin"])]
    pub get_login: bool,
    #[command(flatten)]
    pub reach: Reach,
}

#[derive(Args)]
pub struct LogoutOptions {
    /// The registry, or a namespace of it
    #[arg(default_value = "docker.io", conflicts_with = "all")]
    pub registry: String,
    /// Forget all logins of the file
    #[arg(long)]
    pub all: bool,
    /// The file of logins
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE")]
    pub authfile: Option<PathBuf>,
}

#[derive(Args)]
pub struct DigestOptions {
    /// The manifest, or `-` for standard input
    #[arg(value_name = "FILE")]
    pub manifest: PathBuf,
}

/// How a registry is reached to check a login.
#[derive(Args)]
pub struct Reach {
    /// The file of logins
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE")]
    pub authfile: Option<PathBuf>,
    /// PEM file of further trusted authorities
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Take any certificate, and plain HTTP
    #[arg(long)]
    pub insecure: bool,
}

/// How registries are reached without a policy.
#[derive(Args)]
pub struct Access {
    /// Credentials in the form of auth.json or config.json, instead of the usual places
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE")]
    pub authfile: Option<PathBuf>,
    /// A file that holds USER:PASSWORD, for all registries of this command
    #[arg(long, value_name = "FILE")]
    pub creds_file: Option<PathBuf>,
    /// PEM file of further trusted authorities
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Take any certificate, and plain HTTP
    #[arg(long)]
    pub insecure: bool,
    /// Reach registries as this policy says, and use its plugins
    #[arg(long, value_name = "FILE", conflicts_with_all = ["creds_file", "tls_ca", "insecure"])]
    pub policy: Option<PathBuf>,
    /// Use a plugin, such as a transport of one's own: a file, or an installed oci://…@DIGEST; may be given again
    #[arg(long = "plugin", value_name = "NAME=SOURCE", value_parser = named_source)]
    pub plugins: Vec<(String, PluginSource)>,
}

/// A plugin of the command line.
fn named_source(text: &str) -> Result<(String, PluginSource), String> {
    match text.split_once('=').filter(|(name, source)| !name.is_empty() && !source.is_empty()) {
        Some((name, _)) if is_built_in(name) => {
            Err(format!("`{name}` is built in: give the plugin another name"))
        }
        Some((name, source)) => Ok((name.to_owned(), source.parse()?)),
        None => Err("write NAME=SOURCE: --plugin mirror=plugins/mirror.wasm".to_owned()),
    }
}

impl Access {
    /// Whether a flag says how places are reached. What the environment says of logins holds for policies, too.
    pub fn is_told(&self) -> bool {
        let from_environment = std::env::var_os("REGISTRY_AUTH_FILE").map(PathBuf::from);
        let has_file = self.authfile.is_some() && self.authfile != from_environment;
        has_file
            || self.creds_file.is_some()
            || self.tls_ca.is_some()
            || self.insecure
            || self.policy.is_some()
            || !self.plugins.is_empty()
    }
}

#[derive(Args)]
#[command(
    after_help = "Without --all and --platform, the image for this machine's platform is copied. One --platform copies that platform's image; several keep the index and copy their images alone."
)]
pub struct CopyOptions {
    /// From where: docker://registry.example.com/app:1.0
    #[arg(add = completions::references())]
    pub source: Reference,
    /// To where: oci:folder:1.0
    #[arg(add = completions::references())]
    pub destination: Reference,
    /// Copy every platform
    #[arg(long, conflicts_with = "platforms")]
    pub all: bool,
    /// Copy this platform; may be given again
    #[arg(long = "platform", value_name = "OS/ARCH[/VARIANT]")]
    pub platforms: Vec<Platform>,
    /// Write manifests with these media types: oci or docker
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Write layers in this compression: gzip, zstd, zstd:chunked or none
    #[arg(long, value_name = "COMPRESSION")]
    pub compression: Option<Compression>,
    /// Folder that holds the blobs of the source, a layout that shares them with others
    #[arg(long, value_name = "DIR")]
    pub src_shared_blob_dir: Option<PathBuf>,
    /// Folder that is to hold the blobs of the destination, a layout that shares them with others
    #[arg(long, value_name = "DIR")]
    pub dest_shared_blob_dir: Option<PathBuf>,
    /// Copy layers that their makers do not let others distribute (those of Windows), too
    #[arg(long)]
    pub include_foreign: bool,
    /// Between folders of one file system: let files of the destination be hard links to the source's
    #[arg(long)]
    pub link: bool,
    /// How the report is written to standard output
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    pub access: Access,
}

#[derive(Args)]
pub struct InspectOptions {
    /// The image
    #[arg(add = completions::references())]
    pub reference: Reference,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Print the manifest as it is, byte for byte
    #[arg(long, conflicts_with = "config")]
    pub raw: bool,
    /// Print the image's config as it is, byte for byte
    #[arg(long)]
    pub config: bool,
    /// Folder that holds the blobs of a layout that shares them with others
    #[arg(long, value_name = "DIR")]
    pub shared_blob_dir: Option<PathBuf>,
    #[command(flatten)]
    pub access: Access,
}

#[derive(Args)]
pub struct TagOptions {
    /// The image
    #[arg(add = completions::references())]
    pub reference: Reference,
    /// Its new tag, in the same repository
    pub tag: String,
    #[command(flatten)]
    pub access: Access,
}

#[derive(Args)]
pub struct DiffOptions {
    /// An image, or a repository without a tag
    #[arg(add = completions::references())]
    pub before: Reference,
    /// What it is compared with
    #[arg(add = completions::references())]
    pub after: Reference,
    /// How the differences are written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    pub access: Access,
}

#[derive(Args)]
pub struct LsOptions {
    /// A registry's host, or a reference whose repository is a glob
    pub registry: String,
    /// How they are written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    pub access: Access,
}

#[derive(Args)]
pub struct ListTagsOptions {
    /// The repository: docker://registry.example.com/app
    #[arg(add = completions::references())]
    pub reference: Reference,
    /// How they are written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    pub access: Access,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RunsOptions {
    #[command(subcommand)]
    pub command: Option<RunsCommand>,
    /// The most runs that are listed
    #[arg(short, long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub number: u32,
    /// Only runs in which something failed, or that were broken off; of one run, what failed
    #[arg(long, global = true)]
    pub failed: bool,
    /// Only runs in which this rule copied something, or failed; of one run, what it copied
    #[arg(long, value_name = "NAME", global = true, add = completions::rules())]
    pub rule: Option<String>,
    /// Only runs that began within this time (`7d`, `12h`), or since this day (`2026-01-31`, UTC)
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Timestamp>,
    /// How they are written
    #[arg(long, value_enum, default_value_t = Output::Text, global = true)]
    pub output: Output,
}

#[derive(Subcommand)]
pub enum RunsCommand {
    /// What a run copied, and what failed
    Show {
        /// Its number in the list
        number: i64,
    },
    /// Put tags back that a run made name something else, or deleted
    #[command(
        after_help = "A tag is put back only if it still is as the run left it, and if the image that it named before is still there: `backup` in a rule keeps such images. Tags that were new stay, also those that an undo brought back: an undo of an undo changes only tags that named something else in between. Places are reached as the policy of the run says, unless flags say how."
    )]
    Undo {
        /// Its number in the list
        number: i64,
        /// Only say what would be put back
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        access: Access,
    },
}

#[derive(Args)]
pub struct CacheOptions {
    #[command(subcommand)]
    pub command: Option<CacheCommand>,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Output::Text, global = true)]
    pub output: Output,
}

#[derive(Subcommand)]
pub enum CacheCommand {
    /// Remove what was not of use for long. Nothing that it names at any place changes
    Trim {
        /// What was last seen before so long: `90d`, `2weeks`, `0s` for everything
        #[arg(long, value_name = "TIME", default_value = "90d")]
        older_than: humantime::Duration,
    },
}

#[derive(Subcommand)]
pub enum RegistryCommand {
    /// Serve a folder as a registry, in the storage layout of distribution
    Serve(ServeOptions),
    /// Tell of which kind a registry is, and what dray does with that
    Info(RegistryInfoOptions),
}

#[derive(Args)]
#[command(after_help = "One request is made: GET /v2/. What each kind can is in docs/registries.md.")]
pub struct RegistryInfoOptions {
    /// The registry
    #[arg(value_name = "HOST[:PORT]")]
    pub host: String,
    /// How the result is written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    pub access: Access,
}

#[derive(Args)]
pub struct ServeOptions {
    /// The folder
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:5000")]
    pub addr: SocketAddr,
    /// Let nobody write
    #[arg(long, conflicts_with = "allow_delete")]
    pub read_only: bool,
    /// Let manifests, tags and blobs be deleted
    #[arg(long)]
    pub allow_delete: bool,
    /// Ask for a user and a password of this file, which `htpasswd -B` writes (bcrypt)
    #[arg(long, value_name = "FILE")]
    pub htpasswd: Option<PathBuf>,
    /// Speak TLS with this certificate and those behind it (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

/// Reads the beginning of a time: `7d` ago, or a day.
fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = text.parse::<humantime::Duration>() {
        let seconds = i64::try_from(ago.as_secs()).unwrap_or(i64::MAX);
        let earliest = Timestamp::now().as_second().saturating_sub(seconds).max(0);
        return Timestamp::from_second(earliest).map_err(|error| error.to_string());
    }
    let day = text.parse::<Date>().ok().and_then(|day| TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok());
    let day = day.or_else(|| text.parse().ok());
    day.ok_or_else(|| "write a time that has passed (`7d`, `12h`), or a day (`2026-01-31`)".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Arguments::command().debug_assert();
    }
}
