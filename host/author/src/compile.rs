//! Compiles a project with the tool of its language.

use crate::{Error, Language, Project, Result, Toolchain, bindings::bindings_of_c, component};
use serde::Deserialize;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where a project is built.
#[derive(Clone, Debug)]
pub struct Building<'a> {
    /// The folder of the project.
    pub folder: &'a Path,
    /// The folder that all projects share, so that the standard library is compiled once.
    pub target: &'a Path,
    /// Cargo's home, whose path must not get into a component. `None` means that it is not known.
    pub cargo_home: Option<&'a Path>,
    /// Whether the compiler tells what it does on standard error.
    pub verbose: bool,
}

/// Builds the component of a project.
///
/// # Errors
/// Fails if a tool is missing (the help says what installs it), if the compiler fails, or if what it made is no component.
pub fn build(building: &Building<'_>) -> Result<Vec<u8>> {
    let project = Project::read(building.folder)?;
    match project.language {
        Language::Rust => rust(building),
        Language::Python => python(building),
        Language::JavaScript => javascript(building),
        Language::C => c(building),
    }
}

/// What `cargo metadata` says of a package.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

fn rust(building: &Building<'_>) -> Result<Vec<u8>> {
    let toolchain = Toolchain::any()?;
    let folder = building.folder;
    let mut remapped = Vec::new();
    if let Some(home) = building.cargo_home {
        remapped.push((home, "/cargo"));
    }
    if let Toolchain::Rustup { .. } = toolchain {
        // Debian's toolchain leaves locations out. Another flag for each project would compile std again for each.
        remapped.push((folder, "/plugin"));
    }
    let library = library(&toolchain, folder)?;
    let module = building.target.join(crate::TARGET).join("release").join(format!("{library}.wasm"));
    let _lock = lock(building.target)?;
    forget_other(building, &library, &module)?;
    let mut cargo = toolchain.compile(folder, &remapped);
    cargo.env("CARGO_TARGET_DIR", building.target);
    if !building.verbose {
        cargo.arg("--quiet");
    }
    run_tool(&mut cargo, "cargo", folder, "install Rust: rustup, or Debian's packages")?;
    let module =
        fs::read(&module).map_err(|error| Error::io(format!("read {}", module.display()), &error))?;
    component(module)
}

/// Keeps other builds out of the shared folder, in which libraries of one name have one file, until it is dropped.
fn lock(target: &Path) -> Result<File> {
    let path = target.join(".dray-plugin.lock");
    let doing = || format!("lock {}", path.display());
    fs::create_dir_all(target).map_err(|error| Error::io(doing(), &error))?;
    let file = File::create(&path).map_err(|error| Error::io(doing(), &error))?;
    file.lock().map_err(|error| Error::io(doing(), &error))?;
    Ok(file)
}

/// Removes a library that another project of this name left in the shared folder. Cargo knows the two projects apart, but they have
/// one file, so it would take the other's for what it built before.
fn forget_other(building: &Building<'_>, library: &str, module: &Path) -> Result<()> {
    let owner = module.with_extension("dray-project");
    let own = building.folder.display().to_string();
    if fs::read_to_string(&owner).is_ok_and(|last| last == own) {
        return Ok(());
    }
    let doing = || format!("clean {}", building.target.display());
    for file in [module.to_owned(), module.with_file_name("deps").join(format!("{library}.wasm"))] {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(doing(), &error));
            }
            _ => {}
        }
    }
    let folder = module.parent().unwrap_or(building.target);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&owner, own))
        .map_err(|error| Error::io(doing(), &error))
}

/// The name of the library of the package in a folder, which need not be that of the package.
fn library(toolchain: &Toolchain, folder: &Path) -> Result<String> {
    let asked = toolchain.cargo(folder).args(["metadata", "--no-deps", "--format-version", "1"]).output();
    let told = asked.map_err(|error| Error::io("run cargo metadata", &error))?;
    let metadata: Metadata = serde_json::from_slice(&told.stdout)
        .map_err(|error| Error::new(format!("read what cargo metadata says: {error}")))?;
    let own = folder.join("Cargo.toml").canonicalize().unwrap_or_default();
    let package = metadata.packages.into_iter().find(|package| package.manifest_path == own);
    let is_library =
        |target: &Target| target.kind.iter().any(|kind| matches!(kind.as_str(), "lib" | "cdylib"));
    let library = package.and_then(|package| package.targets.into_iter().find(is_library));
    let library = library.ok_or_else(|| {
        Error::new(format!("build {}: the package has no library", folder.display()))
            .help("write src/lib.rs, and call the SDK's `export!` in it")
    })?;
    Ok(library.name.replace('-', "_"))
}

/// The world of a project that is not in Rust, in its `wit`.
const WORLD: &str = "plugin";

/// A folder of its own for what a tool writes, because several projects may be built at the same time.
fn workshop(building: &Building<'_>) -> Result<tempfile::TempDir> {
    let doing = || format!("make a folder in {}", building.target.display());
    fs::create_dir_all(building.target).map_err(|error| Error::io(doing(), &error))?;
    tempfile::tempdir_in(building.target).map_err(|error| Error::io(doing(), &error))
}

fn python(building: &Building<'_>) -> Result<Vec<u8>> {
    let workshop = workshop(building)?;
    let out = workshop.path().join("plugin.wasm");
    let mut tool = Command::new("componentize-py");
    tool.args(["-d", "wit", "-w", WORLD, "componentize", "--stub-wasi", "plugin", "-o"]).arg(&out);
    quiet(&mut tool, building);
    let install = "install it: `pip install componentize-py==0.25.1`, if need be in an environment (`python3 -m venv`) that is active";
    run_tool(&mut tool, "componentize-py", building.folder, install)?;
    component(read(&out)?)
}

fn javascript(building: &Building<'_>) -> Result<Vec<u8>> {
    let workshop = workshop(building)?;
    let out = workshop.path().join("plugin.wasm");
    let own = building.folder.join("node_modules/.bin/jco");
    let mut tool = Command::new(if own.exists() { own.as_path() } else { Path::new("jco") });
    tool.args(["componentize", "plugin.js", "--wit", "wit", "--world-name", WORLD]);
    tool.args(["--backend", "qjs", "--backend-qjs-stub-wasi", "--backend-qjs-disable-async", "-o"]).arg(&out);
    quiet(&mut tool, building);
    let install = "install it in the folder of the project: `npm install @bytecodealliance/jco`";
    run_tool(&mut tool, "jco", building.folder, install)?;
    component(read(&out)?)
}

/// The compilers that are tried, the newest first.
const CLANGS: [&str; 7] = ["clang", "clang-22", "clang-21", "clang-20", "clang-19", "clang-18", "clang-17"];

fn c(building: &Building<'_>) -> Result<Vec<u8>> {
    let workshop = workshop(building)?;
    let (generated, out) = (workshop.path().join("gen"), workshop.path().join("plugin.wasm"));
    bindings_of_c(&building.folder.join("wit"), &generated)?;
    let can = |clang: &&&str| {
        let asked = Command::new(clang).args(["--print-targets"]).output();
        asked.is_ok_and(|told| String::from_utf8_lossy(&told.stdout).contains("wasm32"))
    };
    let clang = CLANGS.iter().find(can).ok_or_else(|| {
        Error::new("find clang for wasm32: there is none").help(
            "run `apt-get install clang-19 lld-19` on Debian, or install LLVM with its WebAssembly target",
        )
    })?;
    let mut tool = Command::new(clang);
    tool.args([
        "--target=wasm32",
        "-Os",
        "-flto",
        "-ffreestanding",
        "-nostdlib",
        "-Wall",
        "-I",
        "include",
        "-I",
    ]);
    tool.arg(&generated);
    tool.args(["-Wl,--no-entry", "-Wl,--strip-all", "plugin.c", "runtime.c"]);
    tool.args([generated.join("plugin.c"), generated.join("plugin_component_type.o")]);
    tool.arg("-o").arg(&out);
    let install = "run `apt-get install clang-19 lld-19` on Debian";
    run_tool(tool.current_dir(building.folder), clang, building.folder, install)?;
    component(read(&out)?)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| Error::io(format!("read {}", path.display()), &error))
}

/// Sets a tool up to work in the folder of the project.
fn quiet(tool: &mut Command, building: &Building<'_>) {
    tool.current_dir(building.folder);
    if !building.verbose {
        tool.stdout(Stdio::null());
    }
}

/// Runs a tool that may be missing; `install` says what installs it.
fn run_tool(tool: &mut Command, name: &str, folder: &Path, install: &str) -> Result<()> {
    match tool.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Error::new(format!("build {}: {name} ended with {status}", folder.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::new(format!("run {name}: there is no such program")).help(install))
        }
        Err(error) => Err(Error::io(format!("run {name}"), &error)),
    }
}
