//! `dray cache`: what is kept between runs.

use crate::{
    DONE,
    args::{CacheCommand, CacheOptions, Output},
    failure::Failure,
    local,
    output::{bytes, counted},
    runs::print_json,
    setup,
};
use dray_engine::{Error, Kind};
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
    let journal = local.opened()?;
    let folder = setup::cache_folder();
    match &options.command {
        None => {
            let usage = journal.usage()?;
            let files = compiled(folder.as_deref());
            let size: u64 = files.iter().map(|(_, size, _)| size).sum();
            match options.output {
                Output::Json => print_json(&serde_json::json!({
                    "journal": usage,
                    "plugins": { "path": folder, "bytes": size, "files": files.len() },
                })),
                Output::Text => {
                    println!("{}: {}", usage.path.display(), bytes(usage.bytes));
                    println!(
                        "  {} of destinations, {} and {} in them; {}, {}, {} to take up again",
                        counted_y(usage.repositories, "repositor"),
                        counted(usage.tags, "tag"),
                        counted(usage.blobs, "blob"),
                        counted(usage.runs, "run"),
                        counted(usage.conversions, "conversion"),
                        counted(usage.uploads, "upload"),
                    );
                    if let Some(folder) = &folder {
                        println!("{}: {}", folder.display(), bytes(size));
                        println!("  {}", counted(files.len() as u64, "compiled plugin"));
                    }
                }
            }
        }
        Some(CacheCommand::Trim { older_than }) => {
            let age = Duration::from(*older_than);
            let trimmed = journal.trim(age)?;
            let mut removed = 0;
            for (path, _, _) in compiled(folder.as_deref()).iter().filter(|(_, _, unused)| *unused >= age) {
                fs::remove_file(path).map_err(|error| {
                    Error::new(Kind::Invalid, format!("remove {}: {error}", path.display()))
                })?;
                removed += 1;
            }
            match options.output {
                Output::Json => print_json(&serde_json::json!({ "journal": trimmed, "plugins": removed })),
                Output::Text => println!(
                    "removed {}, {}, {}",
                    counted(trimmed.facts, "fact"),
                    counted(trimmed.runs, "run"),
                    counted(removed, "compiled plugin")
                ),
            }
        }
    }
    Ok(DONE)
}

/// `1 repository`, `3 repositories`
fn counted_y(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}y") } else { format!("{count} {what}ies") }
}
