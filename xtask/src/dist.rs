//! `cargo xtask dist`: makes a release of the machine it runs on.

use crate::{tests::step, top};
use anyhow::{Context, Result, ensure};
use dray_core::Digest;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The shells that get completions, with the file names that they look for.
const SHELLS: [(&str, &str); 3] = [("bash", "dray.bash"), ("zsh", "_dray"), ("fish", "dray.fish")];

/// What a program prints.
fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let ran = Command::new(program).args(arguments).current_dir(top()).output();
    let ran = ran.with_context(|| format!("run {program}"))?;
    ensure!(ran.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    Ok(String::from_utf8(ran.stdout)?)
}

/// The target that this machine compiles for.
fn host() -> Result<String> {
    let told = output("rustc", &["-vV"])?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// Builds the program without the paths of this machine, so that two machines make the same one.
fn build(target: &str) -> Result<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .context("there is no home folder")?;
    let sysroot = output("rustc", &["--print", "sysroot"])?;
    let remapped = [(home, "/cargo"), (top(), "/dray"), (PathBuf::from(sysroot.trim()), "/rust")];
    let flags: Vec<String> = remapped
        .iter()
        .map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display()))
        .collect();
    let flags = format!("CARGO_ENCODED_RUSTFLAGS={}", flags.join("\u{1f}"));
    // A folder of its own: other flags would make everything in `target` stale.
    let build = [
        "build",
        "--release",
        "--locked",
        "--package",
        "dray",
        "--target",
        target,
        "--target-dir",
        "target/dist",
    ];
    step("", "env", &[&[flags.as_str(), "cargo"], &build[..]].concat())?;
    Ok(top().join("target/dist").join(target).join("release/dray"))
}

/// The dependencies of the program (CycloneDX), if cargo-cyclonedx is installed. `time` stands in it, in seconds since 1970, because the
/// present one would make each archive another one.
fn bill(target: &str, folder: &Path, time: &str) -> Result<()> {
    let there = Command::new("cargo").args(["cyclonedx", "--version"]).output();
    if !there.is_ok_and(|ran| ran.status.success()) {
        println!("left out: the SBOM (`cargo install cargo-cyclonedx`)");
        return Ok(());
    }
    let epoch = format!("SOURCE_DATE_EPOCH={time}");
    let arguments = ["cyclonedx", "--format", "json", "--target", target, "--override-filename", "dray.cdx"];
    step("host/cli", "env", &[&[epoch.as_str(), "cargo"], &arguments[..]].concat())?;
    // It writes one beside the manifest of each crate of the workspace.
    let found = output("git", &["ls-files", "--others", "--", "*dray.cdx.json"])?;
    fs::copy(top().join("host/cli/dray.cdx.json"), folder.join("dray.cdx.json"))
        .context("keep the SBOM of host/cli")?;
    for path in found.lines() {
        fs::remove_file(top().join(path)).with_context(|| format!("remove {path}"))?;
    }
    Ok(())
}

/// Makes `target/dist/dray-VERSION-TARGET.tar.gz` and its checksum.
pub fn run() -> Result<()> {
    let target = host()?;
    let program = build(&target)?;
    let version = output(&program.display().to_string(), &["--version"])?;
    let version = version.trim().strip_prefix("dray ").context("dray --version names no version")?;
    let name = format!("dray-{version}-{target}");
    let dist = top().join("target/dist");
    let folder = dist.join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    for part in ["man", "completions"] {
        fs::create_dir_all(folder.join(part))?;
    }
    fs::copy(&program, folder.join("dray"))?;
    for file in ["LICENSE", "README.md", "CHANGELOG.md"] {
        fs::copy(top().join(file), folder.join(file))?;
    }
    let shown = program.display().to_string();
    step("", &shown, &["man", "--out", &folder.join("man").display().to_string()])?;
    for (shell, file) in SHELLS {
        fs::write(folder.join("completions").join(file), output(&shown, &["completions", shell])?)?;
    }
    fs::write(folder.join("dray.schema.json"), output(&shown, &["schema"])?)?;
    let time = output("git", &["log", "-1", "--format=%ct"])?;
    bill(&target, &folder, time.trim())?;
    pack(&dist, &name, time.trim())
}

/// Packs a folder, so that the same content is the same archive: names in order, and one time for all.
fn pack(dist: &Path, name: &str, time: &str) -> Result<()> {
    let archive = dist.join(format!("{name}.tar.gz"));
    let tar = dist.join(format!("{name}.tar"));
    let mtime = format!("--mtime=@{time}");
    let (file, folder) = (tar.display().to_string(), dist.display().to_string());
    let same = [
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mode=u+rwX,go+rX,go-w",
        "--format=ustar",
    ];
    let arguments =
        [&["--create", "--file", &file, &mtime, "--directory", &folder], &same[..], &[name]].concat();
    step("", "tar", &arguments)?;
    step("", "gzip", &["--force", "--no-name", "--best", &file])?;
    let digest = Digest::of(&fs::read(&archive)?);
    let line = format!("{}  {name}.tar.gz\n", digest.hex());
    fs::write(dist.join(format!("{name}.tar.gz.sha256")), line)?;
    println!("{}: {digest}", archive.display());
    Ok(())
}
