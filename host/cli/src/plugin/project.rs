//! `dray plugin new` and `dray plugin build`

use crate::{
    DONE,
    args::{PluginBuildOptions, PluginNewOptions, PluginVendorOptions},
    failure::Failure,
    output::{counted, say},
    secrets::variable,
    setup,
};
use dray_author::{Building, Creation, Project};
use dray_engine::Error;
use std::path::{Path, PathBuf};

/// A component, and where it comes from.
pub struct Built {
    /// The name of the plugin.
    pub name: String,
    /// The component.
    pub wasm: Vec<u8>,
    /// The folder beside which its fixtures lie.
    pub folder: PathBuf,
    /// Its project. `None` means that only the component is known.
    pub project: Option<Project>,
}

fn failed(error: dray_author::Error) -> Failure {
    let told = Error::new(dray_engine::Kind::Invalid, error.text);
    Failure::Failed(match error.help {
        Some(help) => told.help(help),
        None => told,
    })
}

pub fn create(options: &PluginNewOptions) -> Result<u8, Failure> {
    let folder = options.dir.clone().unwrap_or_else(|| PathBuf::from(&options.name));
    let (kind, language) = (options.kind, options.lang);
    let files = dray_author::create(&Creation { name: &options.name, kind, language, folder: &folder });
    let files = files.map_err(failed)?;
    for file in files.iter().filter(|file| !file.starts_with("vendor") && !file.starts_with("wit")) {
        say!("  {}", folder.join(file).display());
    }
    say!("and what it is built with. Next:");
    say!("  cd {} && dray plugin test", folder.display());
    Ok(DONE)
}

/// `dray plugin vendor`
pub fn vendor(options: &PluginVendorOptions) -> Result<u8, Failure> {
    let files = dray_author::vendor(&options.dir).map_err(failed)?;
    say!("{}: {} of this dray", options.dir.display(), counted(files.len() as u64, "file"));
    Ok(DONE)
}

/// The folder in which all projects are built, so that the standard library is compiled once. Without a cache, each is built in its
/// own.
fn target(folder: &Path) -> PathBuf {
    match setup::cache_folder() {
        Some(cache) => cache.with_file_name("dray-plugin-target"),
        None => folder.join("target"),
    }
}

/// Builds the project of a folder.
fn made(folder: &Path, verbose: bool) -> Result<Built, Failure> {
    let project = Project::read(folder).map_err(failed)?;
    let home = variable("CARGO_HOME").or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let folder = folder
        .canonicalize()
        .map_err(|error| Failure::usage(format!("find {}: {error}", folder.display())))?;
    let target = target(&folder);
    let building = Building { folder: &folder, target: &target, cargo_home: home.as_deref(), verbose };
    let wasm = dray_author::build(&building).map_err(failed)?;
    Ok(Built { name: project.name.clone(), wasm, folder, project: Some(project) })
}

/// A component file, or what the project of a folder builds.
pub fn built(path: &Path) -> Result<Built, Failure> {
    if path.is_dir() {
        return made(path, false);
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let wasm = std::fs::read(path).map_err(|error| {
        let told = Error::new(dray_engine::Kind::Invalid, format!("read {}: {error}", path.display()));
        Failure::Usage(match parent.join(Project::FILE).is_file() {
            true => told.help("`dray plugin build` makes it"),
            false => told,
        })
    })?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Built { name, wasm, folder: parent.to_owned(), project: None })
}

pub fn build(options: &PluginBuildOptions) -> Result<u8, Failure> {
    let Built { name, wasm, .. } = made(&options.dir, true)?;
    let out = options.out.clone().unwrap_or_else(|| options.dir.join(format!("{name}.wasm")));
    write(&out, &wasm)
        .map_err(|error| Failure::usage(format!("write {}: {}", out.display(), error.kind())))?;
    say!("{}: {} bytes", out.display(), wasm.len());
    Ok(DONE)
}

/// Writes a file that appears as a whole.
pub(super) fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    std::io::Write::write_all(&mut file, content)?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(readable)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}
