//! `dray copy`

use crate::{
    args::{CopyOptions, Output, TagOptions},
    failure::Failure,
    failures,
    progress::Screen,
    setup,
    signals::Stop,
    sync,
};
use dray_core::{Form, ImageChoice, Platform, Report, Wanted, policy::IndexMode, without_tag};
use dray_engine::{CopyRequest, Places, Planned, PlannedCopy, RunOptions, plan_copy};
use dray_session::Record;
use std::sync::Arc;
use tokio::sync::mpsc;

pub async fn run(mut options: CopyOptions, screen: Screen) -> Result<u8, Failure> {
    options.source.blobs = options.src_shared_blob_dir.take();
    options.destination.blobs = options.dest_shared_blob_dir.take();
    let stop = Stop::listen(&screen);
    let places = setup::places(&options.access).await?;
    if options.access.creds_file.is_some() {
        one_registry(&places, &options).await?;
    }
    let choice = match (options.all, options.platforms.len()) {
        (true, _) => ImageChoice::All,
        (false, 0) => ImageChoice::One(Platform::of_this_machine()),
        (false, 1) => ImageChoice::One(options.platforms[0].clone()),
        (false, _) => ImageChoice::Some(options.platforms.clone(), IndexMode::Keep),
    };
    let command = format!("copy {} {}", options.source, options.destination);
    let form = Form { format: options.format, compression: options.compression, level: None };
    let request = CopyRequest {
        source: options.source,
        destination: options.destination,
        wanted: Wanted {
            choice,
            form,
            include_foreign: options.include_foreign,
            link: options.link,
            ..Wanted::whole()
        },
        require: Vec::new(),
    };
    carried_out(&places, &request, &command, options.output, &stop, &screen, false).await
}

/// Plans one copy and carries it out. `as_it_is` refuses to write the image in another form.
async fn carried_out(
    places: &Arc<Places>,
    request: &CopyRequest,
    command: &str,
    output: Output,
    stop: &Stop,
    screen: &Screen,
    as_it_is: bool,
) -> Result<u8, Failure> {
    let Some(planned) = planned(places, request, stop).await? else {
        return Ok(stop.code().unwrap_or(crate::FAILED));
    };
    if as_it_is && !planned.copy.form.is_unchanged() {
        let text = format!("tag {}: the place would make another image of it", request.source);
        return Err(Failure::Failed(dray_engine::Error::new(dray_engine::Kind::Unsupported, text)));
    }
    let report = run_all(places, vec![planned], command, stop, screen).await;
    failures::tell_all(&report, screen);
    Ok(sync::end(report, output, stop, false))
}

/// Plans one copy. `None` means that the command was told to stop.
pub async fn planned(
    places: &Arc<Places>,
    request: &CopyRequest,
    stop: &Stop,
) -> Result<Option<PlannedCopy>, Failure> {
    let mut told = stop.signal.clone();
    tokio::select! {
        planned = plan_copy(places, request) => Ok(Some(planned?)),
        _ = told.wait_for(|stop| *stop) => Ok(None),
    }
}

/// Carries out copies, and shows how far they are.
pub async fn run_all(
    places: &Arc<Places>,
    planned: Vec<PlannedCopy>,
    command: &str,
    stop: &Stop,
    screen: &Screen,
) -> Report {
    let (sender, receiver) = mpsc::channel(planned.len().max(1));
    let progress = screen.watch(places, stop);
    for planned in planned {
        // The channel has room for all of them.
        let _ = sender.send(Planned::Copy(Box::new(planned))).await;
        progress.planned();
    }
    drop(sender);
    progress.planned_all();
    let mut options = RunOptions::default();
    options.unchanged = true;
    let record = Record::of(command);
    let signal = stop.signal.clone();
    let report = dray_session::run(places, receiver, progress.clone(), options, record, signal).await;
    progress.end();
    report
}

/// `dray tag`: a copy of the whole image to another tag of its repository.
pub async fn tag(options: TagOptions, screen: Screen) -> Result<u8, Failure> {
    let stop = Stop::listen(&screen);
    let places = setup::places(&options.access).await?;
    if !is_tag(&options.tag) {
        let text = format!("tag {}: `{}` is no tag", options.reference, options.tag);
        let error = dray_engine::Error::new(dray_engine::Kind::Invalid, text);
        return Err(Failure::Usage(error.help("a tag has up to 128 letters, digits, `_`, `.` and `-`")));
    }
    let parsed = places.parse(&options.reference, false).await?;
    let Some(reference) = parsed.reference else {
        return Err(Failure::usage(format!(
            "tag {}: it names no image, but a repository",
            options.reference
        )));
    };
    let Some(repository) = without_tag(&options.reference.rest, &reference) else {
        return Err(Failure::usage(format!("tag {}: it has no place for a tag", options.reference)));
    };
    let destination = options.reference.with(format!("{repository}:{}", options.tag));
    let command = format!("tag {} {}", options.reference, options.tag);
    let request =
        CopyRequest { source: options.reference, destination, wanted: Wanted::whole(), require: Vec::new() };
    carried_out(&places, &request, &command, Output::Text, &stop, &screen, true).await
}

/// Whether a text is a tag (OCI distribution specification 1.1, "Pulling manifests").
fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

/// One file's credentials must not go to two registries.
async fn one_registry(places: &Places, options: &CopyOptions) -> Result<(), Failure> {
    let source = places.parse(&options.source, false).await?;
    let destination = places.parse(&options.destination, false).await?;
    match (source.host, destination.host) {
        (Some(source), Some(destination)) if source != destination => Err(Failure::usage(format!(
            "use --creds-file: it would go to both {source} and {destination}; use --authfile, which tells registries apart"
        ))),
        _ => Ok(()),
    }
}
