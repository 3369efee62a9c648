//! `dray copy`

use crate::{args::CopyOptions, failure::Failure, failures, progress::Screen, setup, signals::Stop, sync};
use dray_core::{
    Form, ImageChoice, Platform, Wanted,
    policy::{IndexMode, Referrers},
};
use dray_engine::{CopyRequest, Places, Planned, RunOptions, plan_copy};
use dray_session::Record;
use tokio::sync::mpsc;

pub async fn run(mut options: CopyOptions, screen: Screen) -> Result<u8, Failure> {
    options.source.blobs = options.src_shared_blob_dir.take();
    options.destination.blobs = options.dest_shared_blob_dir.take();
    let stop = Stop::listen();
    let places = setup::places(&options.access)?;
    if options.access.creds_file.is_some() {
        one_registry(&places, &options).await?;
    }
    let choice = match (options.all, options.platforms.len()) {
        (true, _) => ImageChoice::All,
        (false, 0) => ImageChoice::One(Platform::of_this_machine()),
        (false, 1) => ImageChoice::One(options.platforms[0].clone()),
        (false, _) => ImageChoice::Some(options.platforms.clone(), IndexMode::Keep),
    };
    let form = Form { format: options.format, compression: options.compression };
    let command = format!("copy {} {}", options.source, options.destination);
    let request = CopyRequest {
        source: options.source,
        destination: options.destination,
        wanted: Wanted {
            choice,
            form,
            referrers: Referrers::No,
            include_foreign: options.include_foreign,
            strict: true,
            link: options.link,
        },
    };
    let mut told = stop.signal.clone();
    let planned = tokio::select! {
        planned = plan_copy(&places, &request) => planned?,
        _ = told.wait_for(|stop| *stop) => return Ok(stop.code().unwrap_or(crate::FAILED)),
    };
    let (sender, receiver) = mpsc::channel(1);
    // The channel has room for the one copy.
    let _ = sender.send(Planned::Copy(Box::new(planned))).await;
    drop(sender);
    let progress = screen.watch();
    progress.planned();
    progress.planned_all();
    let options_of_run = RunOptions { unchanged: true, ..RunOptions::default() };
    let record = Record { command: &command, policy: None };
    let stopped = stop.signal.clone();
    let report =
        dray_session::run(&places, receiver, progress.clone(), options_of_run, record, stopped).await;
    progress.end();
    failures::tell_all(&report, &screen);
    Ok(sync::end(&report, options.output, &stop, false))
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
