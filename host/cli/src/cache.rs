//! `dray cache`: what is kept between runs.

use crate::{
    DONE,
    args::{CacheCommand, CacheOptions, Output},
    failure::Failure,
    local,
    output::{bytes, counted, say},
    runs::print_json,
    setup,
};
use dray_engine::{Error, Journal, Kind, Local};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Files of compiled plugins, with their sizes and ages.
fn compiled(folder: Option<&Path>) -> Vec<(PathBuf, u64, Duration)> {
    let entries = folder.and_then(|folder| fs::read_dir(folder).ok());
    let file = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        let used = metadata.accessed().or_else(|_| metadata.modified()).ok()?;
        Some((entry.path(), metadata.len(), SystemTime::now().duration_since(used).unwrap_or_default()))
    };
    entries.into_iter().flatten().filter_map(file).collect()
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
    let files = compiled(folder);
    let size: u64 = files.iter().map(|(_, size, _)| size).sum();
    match output {
        Output::Json => print_json(&serde_json::json!({
            "journal": usage.as_ref().ok(),
            "plugins": { "path": folder, "bytes": size, "files": files.len() },
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
                say!("{}: {}", folder.display(), bytes(size));
                say!("  {}", counted(files.len() as u64, "compiled plugin"));
            }
        }
    }
    usage?;
    Ok(DONE)
}

fn trim(local: &Local, folder: Option<&Path>, age: Duration, output: Output) -> Result<u8, Failure> {
    let mut removed = 0;
    for (path, _, _) in compiled(folder).iter().filter(|(_, _, unused)| *unused >= age) {
        fs::remove_file(path)
            .map_err(|error| Error::new(Kind::Invalid, format!("remove {}: {error}", path.display())))?;
        removed += 1;
    }
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

/// `1 repository`, `3 repositories`
fn counted_y(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}y") } else { format!("{count} {what}ies") }
}
