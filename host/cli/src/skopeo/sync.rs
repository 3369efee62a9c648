//! `skopeo sync` between registries and folders of directories, and from what a YAML file names.

use super::{
    copy,
    flags::{self, End, Globals, ImageFlags, given, image, is_on, switch, text},
    retry::{self, Retry},
    session,
    sign::{self, Signing},
    sync_yaml::{self, Listed},
    unsupported,
};
use crate::{DONE, FAILED, failure::Failure, failures, output::tell, progress::Screen, signals::Stop};
use clap::{Arg, ArgMatches, Command};
use dray_core::{Action, Digest, Reference, Report, Wanted, policy::RuleLimits};
use dray_engine::{CopyRequest, Error, Kind, Places, Planned, RunOptions, attach, plan_copy};
use dray_session::Record;
use dray_trust::Signature;
use futures_util::{StreamExt, stream};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::mpsc;

/// Number of images that are planned at once.
const AT_ONCE: usize = 16;

/// The command line of `sync`.
pub fn command() -> Command {
    let command = Command::new("sync")
        .about("Copies the images of a repository or a folder to another place")
        .arg(Arg::new("source").required(true).value_name("SOURCE"))
        .arg(Arg::new("destination").required(true).value_name("DESTINATION"))
        .arg(text("src").short('s').help("Kind of the source: docker, dir or yaml"))
        .arg(text("dest").short('d').help("Kind of the destination: docker or dir"))
        .arg(switch("scoped").help("Keeps the whole name of the source in that of the destination"))
        .arg(text("append-suffix").help("Text that is added to each tag"))
        .arg(text("digestfile").help("Writes the digest and the name of each image to this file"))
        .arg(text("authfile").help("File of logins of both ends"))
        .arg(switch("all").short('a').help("Copies all images of indexes"))
        .arg(switch("dry-run").help("Says what would be copied, and changes nothing"))
        .arg(switch("keep-going").help("Goes on after a failure"))
        .arg(text("format").short('f').help("oci or v2s2"))
        .arg(switch("preserve-digests").help("Fails if a digest would change"))
        .arg(switch("remove-signatures").help("Copies no signatures"));
    let command = sign::flags(retry::flags(image(image(command, End::Source), End::Destination)));
    flags::refused(command, &copy::REFUSED)
}

/// Kinds of ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Docker,
    Dir,
    Yaml,
}

fn transport(matches: &ArgMatches, flag: &str) -> Result<Transport, Failure> {
    match given(matches, flag).as_deref() {
        Some("docker") => Ok(Transport::Docker),
        Some("dir") => Ok(Transport::Dir),
        Some("yaml") if flag == "src" => Ok(Transport::Yaml),
        Some(other) => Err(Failure::usage(format!("sync: `{other}` is no transport for --{flag}"))),
        None => Err(Failure::usage(format!("sync: --{flag} is missing: docker or dir"))),
    }
}

/// One image of a sync.
struct Pair {
    source: Reference,
    destination: Reference,
}

pub async fn run(matches: &ArgMatches, globals: &Globals, screen: &Screen) -> Result<u8, Failure> {
    let (from, to) = (transport(matches, "src")?, transport(matches, "dest")?);
    if (from, to) == (Transport::Dir, Transport::Dir) {
        return Err(Failure::usage("sync: a folder cannot be synced to a folder"));
    }
    let [source, destination] =
        ["source", "destination"].map(|name| given(matches, name).unwrap_or_default());
    let from_flags = ImageFlags::of(matches, End::Source, globals)?;
    let to_flags = ImageFlags::of(matches, End::Destination, globals)?;
    if from_flags.shared_blob_dir.is_some() || to_flags.shared_blob_dir.is_some() {
        return Err(unsupported("a folder of shared blobs in sync"));
    }
    let named = |transport, text: &str| match transport {
        Transport::Docker => session::reference(&format!("docker://{text}"), &ImageFlags::default()),
        Transport::Dir | Transport::Yaml => {
            session::reference(&format!("dir:{text}"), &ImageFlags::default())
        }
    };
    let (whole, target) = (named(from, &source)?, named(to, &destination)?);
    let wanted = copy::wanted(matches, globals, [&whole, &target])?;
    let listed = match from {
        Transport::Yaml => {
            let text = fs::read_to_string(&source)
                .map_err(|error| Failure::usage(format!("read {source}: {error}")))?;
            sync_yaml::read(&text, &from_flags)?
        }
        Transport::Docker | Transport::Dir => Vec::new(),
    };
    let hosts: Vec<Reference> = listed.iter().map(Listed::reference).collect::<Result<_, _>>()?;
    // `localhost:5000` is a registry here, and would otherwise be an image of Docker Hub.
    let below = named(to, &format!("{}/image", destination.trim_end_matches('/')))?;
    let mut reached = vec![(&whole, &from_flags), (&below, &to_flags)];
    reached.extend(hosts.iter().zip(&listed).map(|(host, listed)| (host, &listed.flags)));
    let places = session::places(&reached, globals)?;
    let sources = match from {
        Transport::Docker => tags(&places, &whole).await?,
        Transport::Dir => directories(Path::new(&source))?,
        Transport::Yaml => sync_yaml::images(&places, &listed).await?,
    };
    let suffix = given(matches, "append-suffix").unwrap_or_default();
    let to_name = |name: &str| {
        let kept = if is_on(matches, "scoped") { name } else { name.rsplit('/').next().unwrap_or(name) };
        format!("{}/{}{suffix}", destination.trim_end_matches('/'), kept.trim_start_matches('/'))
    };
    let pairs = sources
        .into_iter()
        .map(|(source, name)| Ok(Pair { source, destination: named(to, &to_name(&name))? }));
    let pairs: Vec<Pair> = pairs.collect::<Result<_, Failure>>()?;
    collisions(&pairs)?;
    if is_on(matches, "dry-run") {
        for Pair { source, destination } in &pairs {
            tell!("Would have copied image from={:?} to={:?}", source.to_string(), destination.to_string());
        }
        tell!("Would have synced {} images from {} sources", pairs.len(), listed.len().max(1));
        return Ok(DONE);
    }
    let signing = Signing::of(matches)?;
    if let Some(first) = pairs.first() {
        signing.check(&places, &first.destination).await?;
    }
    let destinations = places.clone();
    let sync = Sync {
        places,
        pairs,
        wanted,
        keep_going: is_on(matches, "keep-going"),
        preserve: is_on(matches, "preserve-digests"),
        kept: (!is_on(matches, "remove-signatures")).then(Arc::default),
    };
    let kept = sync.kept.clone().unwrap_or_default();
    let command = format!("skopeo sync {whole} {target}");
    let stop = Stop::listen(screen);
    let report = sync.carry_out(&command, &stop, screen, &Retry::of(matches)?).await;
    for copied in report.copies.iter().filter(|copied| copied.error.is_none()) {
        let destination = copied.destination.parse().map_err(|error| Failure::usage(format!("{error}")))?;
        let written = copied.written.as_ref().or(copied.digest.as_ref());
        let signatures = lock(&kept).remove(&copied.destination).unwrap_or_default();
        for (digest, signature) in signatures {
            attach(&destinations, &destination, &digest, signature).await?;
        }
        signing.sign(&destinations, &destination, written.map_or("", String::as_str)).await?;
    }
    if let Some(path) = given(matches, "digestfile") {
        digests(&report, Path::new(&path))?;
    }
    failures::tell_all(&report, screen);
    let summary = report.summary;
    tell!(
        "synced {} images ({} were there), {} failed",
        summary.copied + summary.unchanged,
        summary.unchanged,
        summary.failed
    );
    Ok(stop.code().unwrap_or(if summary.failed > 0 { FAILED } else { DONE }))
}

/// The images of a repository, or the one that is named, each with its name for the destination.
async fn tags(places: &Arc<Places>, whole: &Reference) -> Result<Vec<(Reference, String)>, Failure> {
    let name = whole.rest.trim_start_matches('/').to_owned();
    let last = name.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) {
        return Ok(vec![(whole.clone(), name)]);
    }
    let tags = session::tags(places, whole).await?;
    if tags.is_empty() {
        let error = Error::new(Kind::Exhausted, format!("sync {whole}: it has no tags"));
        return Err(Failure::Failed(error));
    }
    let tag = |tag: String| (whole.with(format!("//{name}:{tag}")), format!("{name}:{tag}"));
    Ok(tags.into_iter().map(tag).collect())
}

/// The directories beneath a folder that hold an image, each with its name for the destination.
fn directories(base: &Path) -> Result<Vec<(Reference, String)>, Failure> {
    let failed = |path: &Path, error: &std::io::Error| {
        Failure::Failed(Error::new(Kind::Io, format!("read {}: {error}", path.display())))
    };
    let (mut open, mut found): (Vec<PathBuf>, Vec<PathBuf>) = (vec![base.to_owned()], Vec::new());
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| failed(&folder, &error))? {
            let entry = entry.map_err(|error| failed(&folder, &error))?;
            let kind = entry.file_type().map_err(|error| failed(&folder, &error))?;
            // A symbolic link is neither, so nothing outside of the folder is read.
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() && entry.file_name() == "manifest.json" {
                found.push(folder.clone());
            }
        }
    }
    found.sort();
    if found.is_empty() {
        let text = format!("sync {}: there is no image beneath it", base.display());
        return Err(Failure::Failed(Error::new(Kind::Exhausted, text)));
    }
    let image = |path: PathBuf| {
        let below = path.strip_prefix(base).unwrap_or(&path);
        let name =
            if below.as_os_str().is_empty() { path.file_name().map_or(below, Path::new) } else { below };
        let name = name.to_str().map(str::to_owned);
        let reference = path.to_str().and_then(|path| format!("dir:{path}").parse().ok());
        reference.zip(name).ok_or_else(|| {
            Failure::Failed(Error::new(
                Kind::Invalid,
                format!("read {}: its name is no text", path.display()),
            ))
        })
    };
    found.into_iter().map(image).collect()
}

/// Fails if two sources would be written to one destination. skopeo lets the last one win.
fn collisions(pairs: &[Pair]) -> Result<(), Failure> {
    let mut seen = std::collections::HashMap::new();
    for Pair { source, destination } in pairs {
        if let Some(other) = seen.insert(destination.to_string(), source) {
            let text = format!("sync {other} and {source}: both would become {destination}");
            let error = Error::new(Kind::Conflict, text);
            return Err(Failure::Failed(error.help("--scoped keeps their whole names")));
        }
    }
    Ok(())
}

struct Sync {
    places: Arc<Places>,
    pairs: Vec<Pair>,
    wanted: Wanted,
    keep_going: bool,
    preserve: bool,
    /// The signatures that come along, by the destination of their image. `None` means that they are left behind.
    kept: Option<Arc<Mutex<Kept>>>,
}

/// The signatures of images, with what they are about, by the destinations of the images.
type Kept = HashMap<String, Vec<(Digest, Signature)>>;

/// Locks a map of signatures, which is never left half changed.
fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sync {
    async fn carry_out(self, command: &str, stop: &Stop, screen: &Screen, retry: &Retry) -> Report {
        let progress = screen.watch(&self.places, stop);
        let (sender, receiver) = mpsc::channel(AT_ONCE);
        // Every copy of one image belongs to the rule of this name.
        let limits = RuleLimits { retry: retry.times, ..RuleLimits::default() };
        let rules = [("copy".to_owned(), limits)].into();
        let mut options = RunOptions::default();
        (options.keep_going, options.unchanged, options.rules) = (self.keep_going, true, rules);
        let places = self.places.clone();
        let (times, shown) = (retry.clone(), progress.clone());
        let planning = tokio::spawn(async move {
            let Sync { places, pairs, wanted, preserve, kept, .. } = self;
            let plan = |pair: Pair| {
                let (wanted, kept) = (wanted.clone(), kept.clone());
                planned(places.clone(), pair, wanted, (preserve, kept), times.clone())
            };
            let mut planned = stream::iter(pairs).map(plan).buffered(AT_ONCE);
            while let Some(item) = planned.next().await {
                shown.planned();
                if sender.send(item).await.is_err() {
                    return;
                }
            }
            shown.planned_all();
        });
        let record = Record::of(command);
        let report =
            dray_session::run(&places, receiver, progress.clone(), options, record, stop.signal.clone())
                .await;
        planning.abort();
        progress.end();
        report
    }
}

/// Plans one image.
async fn planned(
    places: Arc<Places>,
    pair: Pair,
    wanted: Wanted,
    (preserve, kept): (bool, Option<Arc<Mutex<Kept>>>),
    retry: Retry,
) -> Planned {
    let (source, destination) = (pair.source.to_string(), pair.destination.to_string());
    let request =
        CopyRequest { source: pair.source, destination: pair.destination, wanted, require: Vec::new() };
    let attempt = || async { plan_copy(&places, &request).await.map_err(Failure::from) };
    let failed = |error| Planned::Failed {
        rule: "sync".into(),
        source: source.clone(),
        destination: destination.clone(),
        error,
        deletes: false,
    };
    match retry.until_done(attempt).await {
        Ok(copy) if preserve && !copy.copy.form.is_unchanged() => {
            let text = format!("copy {source}: its digest would change");
            failed(Error::new(Kind::Unsupported, text).help("--preserve-digests forbids that"))
        }
        Ok(copy) => {
            if let Some(kept) = kept {
                match copy::kept(&places, &request.source, &request.destination, &copy).await {
                    Ok(found) => {
                        let digest = copy.copy.descriptor.digest.clone();
                        let found = found.into_iter().map(|signature| (digest.clone(), signature));
                        lock(&kept).insert(destination.clone(), found.collect());
                    }
                    Err(failure) => return failed(error_of(&failure, &source)),
                }
            }
            Planned::Copy(Box::new(copy))
        }
        Err(failure) => failed(error_of(&failure, &source)),
    }
}

/// The error of a failure.
fn error_of(failure: &Failure, source: &str) -> Error {
    match failure.error() {
        Some(error) => error.clone(),
        None => Error::new(Kind::Internal, format!("copy {source}")),
    }
}

/// Writes the digest and the name of each image that is at the destination now.
fn digests(report: &Report, path: &Path) -> Result<(), Failure> {
    let mut text = String::new();
    for copy in &report.copies {
        let digest = copy.written.as_ref().or(copy.digest.as_ref());
        if let Some(digest) = digest.filter(|_| matches!(copy.action, Action::Copy | Action::Unchanged)) {
            text.push_str(&format!("{digest} {}\n", copy.destination));
        }
    }
    fs::write(path, text)
        .map_err(|error| Failure::usage(format!("write the digests to {}: {error}", path.display())))
}
