//! `skopeo copy` and `skopeo delete`

use super::{
    encrypt::{self, Change},
    flags::{self, End, Globals, ImageFlags, given, image, is_on, switch, text},
    retry::{self, Retry},
    session,
    sign::{self, Signing},
    unsupported,
};
use crate::{
    DONE,
    copy::{planned, run_all},
    failure::Failure,
    local,
    output::say,
    progress::Screen,
    signals::Stop,
};
use clap::{Arg, ArgAction, ArgMatches, Command};
use dray_core::{Compression, Form, ImageChoice, Platform, Reference, Wanted, policy::IndexMode};
use dray_engine::{
    CopyRequest, Error, Kind, Places, PlannedCopy, RemoveOptions, attach, check_attachable,
    forget_signatures, kept_signatures, remove,
};
use dray_trust::{Format, Kinds, Signature};
use std::{fs, sync::Arc};

/// Flags that both `copy` and `sync` of skopeo have, and dray does not.
pub const REFUSED: [&str; 3] = ["dest-precompute-digests", "sign-by-sq-fingerprint", "image-parallel-copies"];

/// The command line of `copy`.
pub fn command() -> Command {
    let command = Command::new("copy")
        .about("Copies an image from one location to another")
        .arg(Arg::new("source").required(true).value_name("SOURCE-IMAGE"))
        .arg(Arg::new("destination").required(true).value_name("DESTINATION-IMAGE"))
        .arg(switch("all").short('a').conflicts_with("multi-arch").help("Copies all images of an index"))
        .arg(text("multi-arch").help("system, all, index-only, or a list of platforms"))
        .arg(
            switch("strip-removed-platforms")
                .help("Removes the platforms from the index that are not copied"),
        )
        .arg(text("format").short('f').help("oci or v2s2"))
        .arg(text("digestfile").help("Writes the digest of what was written to this file"))
        .arg(text("authfile").help("File of logins of both ends"))
        .arg(switch("quiet").short('q').help("Says nothing"))
        .arg(switch("preserve-digests").help("Fails if the digest would change"))
        .arg(switch("remove-signatures").help("Copies no signatures"))
        .arg(switch("dest-compress").help("Compresses layers for dir:"))
        .arg(switch("dest-decompress").help("Decompresses layers for dir:"))
        .arg(switch("dest-oci-accept-uncompressed-layers").help("Leaves layers for oci: uncompressed"))
        .arg(text("dest-compress-format").help("gzip, zstd or zstd:chunked"))
        .arg(text("dest-compress-level").help("How hard layers are compressed: 1 to 9, of zstd to 22"))
        .arg(
            switch("dest-force-compress-format")
                .help("Recompresses layers of other formats (dray always does)"),
        )
        .arg(
            text("additional-tag")
                .action(ArgAction::Append)
                .help("Further name of the image in docker-archive:"),
        );
    let command =
        encrypt::flags(sign::flags(retry::flags(image(image(command, End::Source), End::Destination))));
    flags::refused(command, &REFUSED)
}

/// The level of compression, which must be one of the algorithm.
fn level(matches: &ArgMatches, compression: Option<Compression>) -> Result<Option<u8>, Failure> {
    let Some(text) = given(matches, "dest-compress-level") else { return Ok(None) };
    let is_zstd = matches!(compression, Some(Compression::Zstd | Compression::ZstdChunked));
    let most = if is_zstd { 22 } else { 9 };
    match text.parse::<u8>() {
        Ok(level) if (1..=most).contains(&level) => Ok(Some(level)),
        _ => Err(Failure::usage(format!("read the flag --dest-compress-level: `{text}` is not 1 to {most}"))),
    }
}

/// What a copy is to be, as the flags say.
pub fn wanted(matches: &ArgMatches, globals: &Globals, ends: [&Reference; 2]) -> Result<Wanted, Failure> {
    let multi = given(matches, "multi-arch");
    let choice = match (is_on(matches, "all"), multi.as_deref()) {
        (true, _) | (_, Some("all")) => ImageChoice::All,
        (_, None | Some("system")) => ImageChoice::One(globals.platform.clone()),
        (_, Some("index-only")) => ImageChoice::Index,
        (_, Some(list)) => {
            let platforms = list.split(',').map(|text| text.trim().parse::<Platform>());
            let platforms = platforms.collect::<Result<Vec<_>, _>>().map_err(|_| {
                Failure::usage(format!(
                    "read the flag --multi-arch: `{list}` is none of system, all and index-only, and no list of \
                     platforms"
                ))
            })?;
            let strip = is_on(matches, "strip-removed-platforms");
            ImageChoice::Some(platforms, if strip { IndexMode::Trim } else { IndexMode::Keep })
        }
    };
    let [source, destination] = ends;
    let format = match given(matches, "format").as_deref() {
        None => None,
        Some("oci") => Some(dray_core::Format::Oci),
        Some("v2s2") => Some(dray_core::Format::Docker),
        Some("v2s1") => return Err(unsupported("--format v2s1, which registries no longer take,")),
        Some(other) => {
            return Err(Failure::usage(format!(
                "read the flag --format: `{other}` is none of oci, v2s1 and v2s2"
            )));
        }
    };
    let compression = match given(matches, "dest-compress-format").as_deref() {
        None => None,
        Some("gzip") => Some(Compression::Gzip),
        Some("zstd") => Some(Compression::Zstd),
        Some("zstd:chunked") => Some(Compression::ZstdChunked),
        Some(other) => return Err(unsupported(&format!("--dest-compress-format {other}"))),
    };
    if is_on(matches, "dest-force-compress-format") && given(matches, "dest-compress-format").is_none() {
        return Err(Failure::usage("copy: --dest-force-compress-format needs --dest-compress-format"));
    }
    let (compress, decompress) = (is_on(matches, "dest-compress"), is_on(matches, "dest-decompress"));
    let (compress, decompress) = match destination.scheme == "dir" {
        true => (compress, decompress),
        false => {
            if compress || decompress {
                tracing::warn!("--dest-compress and --dest-decompress change nothing but dir:");
            }
            (false, false)
        }
    };
    // Places that hold layers uncompressed give them to registries and layouts compressed.
    let plain = matches!(
        source.scheme.as_str(),
        "docker-archive" | "docker-daemon" | "containers-storage" | "tarball"
    );
    let takes = matches!(destination.scheme.as_str(), "docker" | "oci" | "oci-archive");
    let stays = destination.scheme != "docker" && is_on(matches, "dest-oci-accept-uncompressed-layers");
    let compression = match (compress, decompress) {
        (true, true) => return Err(Failure::usage("copy: --dest-compress contradicts --dest-decompress")),
        (true, false) => Some(Compression::Gzip),
        (false, true) => Some(Compression::None),
        (false, false) => compression.or((plain && takes && !stays).then_some(Compression::Gzip)),
    };
    // skopeo writes OCI's media types into layouts, whatever the source has.
    let layout = destination.scheme.starts_with("oci")
        && choice != ImageChoice::Index
        && !is_on(matches, "preserve-digests");
    Ok(Wanted {
        choice,
        form: Form {
            format: format.or(layout.then_some(dray_core::Format::Oci)),
            compression,
            level: level(matches, compression)?,
        },
        strict: false,
        ..Wanted::whole()
    })
}

pub async fn run(matches: &ArgMatches, globals: &Globals, screen: &Screen) -> Result<u8, Failure> {
    let flags = [End::Source, End::Destination].map(|end| ImageFlags::of(matches, end, globals));
    let [from_flags, to_flags] = flags;
    let (from_flags, to_flags) = (from_flags?, to_flags?);
    let source = session::image(&given(matches, "source").unwrap_or_default(), &from_flags)?;
    let destination = session::image(&given(matches, "destination").unwrap_or_default(), &to_flags)?;
    let keeps_anyway = source.scheme == "dir" && destination.scheme == "dir";
    if is_on(matches, "remove-signatures") && keeps_anyway {
        return Err(unsupported("--remove-signatures between two directories"));
    }
    let wanted = wanted(matches, globals, [&source, &destination])?;
    let command = format!("skopeo copy {source} {destination}");
    let places = session::places(&[(&source, &from_flags), (&destination, &to_flags)], globals)?;
    let signing = Signing::of(matches)?;
    signing.check(&places, &destination).await?;
    let more = additional(matches, &destination)?;
    let change = Change::of(matches)?;
    let scratch = match &change {
        Some(_) => Some(
            tempfile::tempdir_in(local::scratch())
                .map_err(|error| Failure::usage(format!("make a temporary folder: {error}")))?,
        ),
        None => None,
    };
    let (places, source, wanted) = match (change, &scratch) {
        (Some(change), Some(scratch)) => {
            let layout = scratch.path().join("layout");
            let between = encrypt::within(&layout)?;
            let from = Copy {
                places,
                request: CopyRequest {
                    source: source.clone(),
                    destination: between.clone(),
                    wanted: Wanted {
                        form: Form { format: Some(dray_core::Format::Oci), ..wanted.form },
                        ..wanted
                    },
                    require: Vec::new(),
                },
                command: command.clone(),
                preserve: false,
                drops_signatures: is_on(matches, "remove-signatures"),
                more: Vec::new(),
            };
            let stop = Stop::listen(screen);
            Retry::of(matches)?.until_done(|| from.carry_out(&stop, screen)).await?;
            let whole = source.clone();
            let changed = tokio::task::spawn_blocking(move || change.carry_out(&layout, &whole)).await;
            changed.map_err(|_| Failure::usage("copy: dray itself failed"))??;
            // What was demanded of the source has been checked, and nobody signed what is in the layout.
            let ends = [(&between, &from_flags), (&destination, &to_flags)];
            let wanted = Wanted { strict: false, ..Wanted::whole() };
            (session::places_for_any(&ends, globals)?, between, wanted)
        }
        _ => (places, source, wanted),
    };
    let request = CopyRequest { source, destination, wanted, require: Vec::new() };
    let copy = Copy {
        places,
        request,
        command,
        preserve: is_on(matches, "preserve-digests"),
        drops_signatures: is_on(matches, "remove-signatures"),
        more,
    };
    let stop = Stop::listen(screen);
    let is_quiet = is_on(matches, "quiet");
    if !is_quiet {
        say!("Getting image source signatures");
    }
    let copied = Retry::of(matches)?.until_done(|| copy.carry_out(&stop, screen)).await;
    if let Some(code) = stop.code() {
        return Ok(code);
    }
    let digest = copied?;
    if !is_quiet {
        say!("Writing manifest to image destination");
    }
    signing.sign(&copy.places, &copy.request.destination, &digest).await?;
    if let Some(path) = given(matches, "digestfile") {
        fs::write(&path, &digest)
            .map_err(|error| Failure::usage(format!("write the digest to {path}: {error}")))?;
    }
    Ok(DONE)
}

/// The further names of an image in an archive.
fn additional(matches: &ArgMatches, destination: &Reference) -> Result<Vec<Reference>, Failure> {
    let names: Vec<String> =
        matches.get_many::<String>("additional-tag").into_iter().flatten().cloned().collect();
    if !names.is_empty() && destination.scheme != "docker-archive" {
        return Err(Failure::usage("copy: --additional-tag is for docker-archive: alone"));
    }
    let path = destination.rest.split(':').next().unwrap_or_default();
    let name = |name: String| match name.rsplit('/').next().is_some_and(|last| last.contains(':')) {
        true => Ok(destination.with(format!("{path}:{name}"))),
        false => Err(Failure::usage(format!("copy: --additional-tag {name} has no tag"))),
    };
    names.into_iter().map(name).collect()
}

/// The signatures that must come along with a copy. Fails if they cannot: a copy without them would pass for an unsigned
/// image.
pub async fn kept(
    places: &Arc<Places>,
    source: &Reference,
    destination: &Reference,
    planned: &PlannedCopy,
) -> Result<Vec<Signature>, Failure> {
    // Places that make manifests anew have no signatures.
    if matches!(source.scheme.as_str(), "containers-storage" | "docker-archive" | "docker-daemon" | "tarball")
    {
        return Ok(Vec::new());
    }
    let kept = kept_signatures(places, source, &planned.copy.descriptor.digest).await?;
    if kept.is_empty() {
        return Ok(kept);
    }
    let refuse = |why: &str| {
        let error = Error::new(Kind::Unsupported, format!("copy {source} with its signatures: {why}"));
        Failure::Failed(error.help("--remove-signatures leaves them behind"))
    };
    if !planned.copy.form.is_unchanged() {
        return Err(refuse("its digest would change, for which they do not hold"));
    }
    for signature in &kept {
        let kinds = match signature.format() {
            Some(Format::Simple) => Kinds { simple: true, sigstore: false },
            Some(Format::Sigstore | Format::Bundle) => Kinds { simple: false, sigstore: true },
            None => return Err(refuse("one of them is of an unknown kind")),
        };
        check_attachable(places, destination, kinds).await.map_err(|error| refuse(&error.text))?;
    }
    Ok(kept)
}

/// One copy, which may be tried several times.
struct Copy {
    places: Arc<Places>,
    request: CopyRequest,
    command: String,
    /// Whether the digest must stay.
    preserve: bool,
    /// Whether the signatures of the source are left behind.
    drops_signatures: bool,
    /// Further names of the image in the same archive.
    more: Vec<Reference>,
}

impl Copy {
    /// Copies the image. Returns the digest of what was written.
    async fn carry_out(&self, stop: &Stop, screen: &Screen) -> Result<String, Failure> {
        let stopped = || Failure::Failed(Error::new(Kind::Cancelled, "copy the image: it was stopped"));
        let planned =
            planned(&self.places, &self.request, stop).await.map_err(|failure| match failure.error() {
                // skopeo ends with 2 only where there is no image at all.
                Some(error) if error.kind == Kind::NotFound && error.text.contains("choose platforms") => {
                    let other = Error::new(Kind::Invalid, error.text.as_str());
                    Failure::Failed(error.help.iter().fold(other, |other, help| other.help(help.as_str())))
                }
                _ => failure,
            });
        let planned = planned?.ok_or_else(stopped)?;
        if self.preserve && !planned.copy.form.is_unchanged() {
            let text = format!("copy {}: its digest would change", self.request.source);
            let help = "--preserve-digests forbids that";
            return Err(Failure::Failed(Error::new(Kind::Unsupported, text).help(help)));
        }
        let kept = match self.drops_signatures {
            true => Vec::new(),
            false => kept(&self.places, &self.request.source, &self.request.destination, &planned).await?,
        };
        let planned_digest = planned.copy.descriptor.digest.clone();
        let mut all = vec![planned];
        for destination in &self.more {
            let request = CopyRequest {
                source: self.request.source.clone(),
                destination: destination.clone(),
                wanted: self.request.wanted.clone(),
                require: Vec::new(),
            };
            all.push(crate::copy::planned(&self.places, &request, stop).await?.ok_or_else(stopped)?);
        }
        let report = run_all(&self.places, all, &self.command, stop, screen).await;
        if stop.code().is_some() {
            return Err(stopped());
        }
        // An archive fails as a whole because one of its images has; that one says why.
        let failed = report.copies.iter().filter(|copy| copy.error.is_some());
        let failed =
            failed.min_by_key(|copy| copy.error.as_deref().unwrap_or_default().contains("come to its end"));
        let copy = failed.or(report.copies.first()).ok_or_else(stopped)?;
        match &copy.error {
            None => {
                for signature in kept {
                    let digest = planned_digest.clone();
                    attach(&self.places, &self.request.destination, &digest, signature).await?;
                }
                Ok(copy.written.clone().or_else(|| copy.digest.clone()).unwrap_or_default())
            }
            Some(text) => {
                let text = text.strip_prefix("failed to ").unwrap_or(text);
                let error = Error::new(Kind::Exhausted, text);
                Err(Failure::Failed(match &copy.help {
                    Some(help) => error.help(help.as_str()),
                    None => error,
                }))
            }
        }
    }
}

/// The command line of `delete`.
pub fn delete_command() -> Command {
    let command = Command::new("delete")
        .about("Deletes an image, with all tags that name it")
        .arg(Arg::new("image").required(true).value_name("IMAGE-NAME"));
    retry::flags(image(command, End::Only))
}

/// Deletes what a reference names, as skopeo does: the manifest, with all of its tags.
pub async fn delete(matches: &ArgMatches, globals: &Globals) -> Result<u8, Failure> {
    let flags = ImageFlags::of(matches, End::Only, globals)?;
    let reference = session::image(&given(matches, "image").unwrap_or_default(), &flags)?;
    let places = session::places_for_any(&[(&reference, &flags)], globals)?;
    let options = RemoveOptions { all_tags: true, dry_run: false, run: None };
    let attempt = || async { remove(&places, &reference, options).await.map_err(Failure::from) };
    let removed = Retry::of(matches)?.until_done(attempt).await?;
    if removed.manifest
        && let Err(error) = forget_signatures(&places, &reference, &removed.digest).await
    {
        tracing::warn!("signatures of {reference} are left: failed to {error}");
    }
    Ok(DONE)
}
