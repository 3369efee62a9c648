//! `cargo xtask test`: all tests.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// How many test programs run at once, and how many threads each of them has. The tests that wait for a registry's patience
/// need no processor, and those that compile or copy have two of them on the smallest machine.
const AT_ONCE: usize = 3;
const THREADS: usize = 2;

/// The programs that the tests run, each with the Debian package that contains it.
const PROGRAMS: [(&str, &str); 11] = [
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("podman", "podman"),
    ("runc", "runc"),
    ("dockerd", "docker.io"),
    ("openssl", "openssl"),
    ("gpg", "gnupg"),
    ("htpasswd", "apache2-utils"),
    ("busybox", "busybox-static"),
    ("clang-19", "clang-19"),
    ("mkfs.btrfs", "btrfs-progs"),
];

/// The examples of plugins in Rust, each of which is a workspace of its own.
pub const EXAMPLES: [&str; 5] = ["attested", "bucket", "bucket-login", "calver", "vault"];

/// What compiles an example in the folder of `plugins`, as most of it is the same.
pub const SHARED: &str = "--target-dir=../../../plugins/target";

fn is_there(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).exists())
}

fn missing() -> Vec<(&'static str, &'static str)> {
    PROGRAMS.into_iter().filter(|(program, _)| !is_there(program)).collect()
}

/// Runs a command in a folder of the repository.
pub fn step(folder: &str, program: &str, arguments: &[&str]) -> Result<()> {
    println!("\n== {program} {}", arguments.join(" "));
    let status = Command::new(program)
        .args(arguments)
        .current_dir(crate::top().join(folder))
        .env("CARGO_TERM_COLOR", "auto")
        .status()?;
    ensure!(status.success(), "`{program} {}` failed", arguments.join(" "));
    Ok(())
}

/// A test program that cargo has built.
struct Tests {
    name: String,
    program: PathBuf,
    /// The folder of its package, in which cargo starts it.
    folder: PathBuf,
}

/// Builds the test programs of the workspace.
fn built() -> Result<Vec<Tests>> {
    let arguments =
        ["test", "--workspace", "--locked", "--no-run", "--message-format=json-render-diagnostics"];
    println!("\n== cargo {}", arguments.join(" "));
    let built = Command::new("cargo")
        .args(arguments)
        .current_dir(crate::top())
        .env("CARGO_TERM_COLOR", "auto")
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(built.status.success(), "`cargo {}` failed", arguments.join(" "));
    let mut programs = Vec::new();
    for line in built.stdout.split(|byte| *byte == b'\n') {
        let Ok(message) = serde_json::from_slice::<Value>(line) else { continue };
        let (true, Some(program)) = (message["profile"]["test"] == true, message["executable"].as_str())
        else {
            continue;
        };
        let manifest = message["manifest_path"].as_str().context("cargo names no manifest of a test")?;
        let name = message["target"]["name"].as_str().unwrap_or(program);
        programs.push(Tests {
            name: name.to_owned(),
            program: program.into(),
            folder: Path::new(manifest).parent().context("the manifest is in no folder")?.to_owned(),
        });
    }
    ensure!(!programs.is_empty(), "cargo named no test programs");
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}

/// Runs the test programs of the workspace, a few at once, because most of their time is waiting. What one prints is shown
/// when it ends. All of them run, also where one fails.
fn together() -> Result<()> {
    let programs = built()?;
    let waiting = Mutex::new(programs.iter());
    let failed = Mutex::new(Vec::new());
    let run = || -> Result<()> {
        while let Some(tests) = next(&waiting) {
            let begun = Instant::now();
            // What a program that hangs has printed can be read here, and whoever it leaves behind holds nothing up.
            let log = tests.program.with_extension("log");
            println!("== {} begins: {}", tests.name, log.display());
            let out = File::create(&log).with_context(|| format!("write {}", log.display()))?;
            let status = Command::new(&tests.program)
                .arg(format!("--test-threads={THREADS}"))
                .current_dir(&tests.folder)
                .env("CARGO_MANIFEST_DIR", &tests.folder)
                .stdout(out.try_clone()?)
                .stderr(out)
                .status()
                .with_context(|| format!("run {}", tests.program.display()))?;
            let told = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
            println!("\n== {} ({} s)\n{told}", tests.name, begun.elapsed().as_secs());
            if !status.success() {
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(tests.name.as_str());
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let runners: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(run)).collect();
        // A thread ends by itself or by a panic, which is passed on.
        runners.into_iter().try_for_each(|runner| match runner.join() {
            Ok(ran) => ran,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(failed.is_empty(), "tests failed in {}", failed.join(", "));
    Ok(())
}

/// The next item of an iterator that several threads share.
pub fn next<T: Iterator>(waiting: &Mutex<T>) -> Option<T::Item> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).next()
}

/// Installs what the tests need, if apt is installed and the user is root, and runs every test.
pub fn run() -> Result<()> {
    let root = std::env::var("USER").is_ok_and(|user| user == "root")
        || Path::new("/root").metadata().is_ok() && std::fs::read_dir("/root").is_ok();
    if !missing().is_empty() && is_there("apt-get") && root {
        let packages: Vec<&str> = missing().into_iter().map(|(_, package)| package).collect();
        step("", "apt-get", &["update", "-qq"])?;
        step(
            "",
            "apt-get",
            &[&["install", "-y", "-qq", "--no-install-recommends"], packages.as_slice()].concat(),
        )?;
    }
    for (program, package) in missing() {
        println!("left out: the tests against {program} (install {package} to run them)");
    }
    for name in ["calver", "attested"] {
        match crate::plugins::build_one(&crate::top().join("examples/plugins").join(name)) {
            Ok(()) => {}
            Err(error) => println!("left out: the example plugin {name}: {error:#}"),
        }
    }
    together()?;
    step("", "cargo", &["test", "--workspace", "--locked", "--doc"])?;
    step("plugins", "cargo", &["test", "--workspace", "--locked"])?;
    for name in EXAMPLES {
        step(&format!("examples/plugins/{name}"), "cargo", &["test", "--locked", SHARED])?;
    }
    Ok(())
}
