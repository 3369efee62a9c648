//! `dray cache`: what is kept between runs.

use crate::{
    DONE,
    args::{CacheCommand, CacheOptions, Output},
    failure::Failure,
    local,
    output::{bytes, counted, counted_y, print_json, say},
    setup,
};
use dray_engine::{Error, Journal, Kind, Local};
use dray_runtime::{Compiled, compiled};
use std::{path::Path, time::Duration};

fn failed(doing: &str, folder: &Path, error: &std::io::Error) -> Error {
    Error::new(Kind::Invalid, format!("{doing} {}: {error}", folder.display()))
}

pub fn run(options: &CacheOptions) -> Result<u8, Failure> {
    let local = local::local();
    let folder = setup::cache_folder();
    match &options.command {
        None => show(&local, folder.as_deref(), options.output),
        Some(CacheCommand::Trim { older_than }) => {
            trim(&local, folder.as_deref(), Duration::from(*older_than), options.output)
        }
    }
}

/// Trouble with the journal hides nothing of the rest.
fn show(local: &Local, folder: Option<&Path>, output: Output) -> Result<u8, Failure> {
    let usage = local.opened().and_then(Journal::usage);
    let compiled = match folder.map(|folder| (folder, compiled(folder))) {
        Some((_, Ok(compiled))) => compiled,
        Some((folder, Err(error))) => {
            tracing::warn!("failed to {}", failed("look into", folder, &error));
            Compiled::default()
        }
        None => Compiled::default(),
    };
    match output {
        Output::Json => print_json(&serde_json::json!({
            "journal": usage.as_ref().ok(),
            "plugins": { "path": folder, "bytes": compiled.bytes, "files": compiled.files },
        })),
        Output::Text => {
            if let Ok(usage) = &usage {
                say!("{}: {}", usage.path.display(), bytes(usage.bytes));
                say!(
                    "  {} of destinations, {} and {} in them; {}, {}, {} to take up again",
                    counted_y(usage.repositories, "repositor"),
                    counted(usage.tags, "tag"),
                    counted(usage.blobs, "blob"),
                    counted(usage.runs, "run"),
                    counted(usage.conversions, "conversion"),
                    counted(usage.uploads, "upload"),
                );
            }
            if let Some(folder) = folder {
                say!("{}: {}", folder.display(), bytes(compiled.bytes));
                say!("  {}", counted(compiled.files, "compiled plugin"));
            }
        }
    }
    usage?;
    Ok(DONE)
}

fn trim(local: &Local, folder: Option<&Path>, age: Duration, output: Output) -> Result<u8, Failure> {
    let removed = match folder {
        Some(folder) => dray_runtime::trim(folder, age).map_err(|error| failed("trim", folder, &error))?,
        None => 0,
    };
    let trimmed = local.opened().and_then(|journal| journal.trim(age));
    match (output, &trimmed) {
        (Output::Json, trimmed) => {
            print_json(&serde_json::json!({ "journal": trimmed.as_ref().ok(), "plugins": removed }));
        }
        (Output::Text, Ok(trimmed)) => say!(
            "removed {}, {}, {}",
            counted(trimmed.facts, "fact"),
            counted(trimmed.runs, "run"),
            counted(removed, "compiled plugin")
        ),
        (Output::Text, Err(_)) => say!("removed {}", counted(removed, "compiled plugin")),
    }
    trimmed?;
    Ok(DONE)
}
