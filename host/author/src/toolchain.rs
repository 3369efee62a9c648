//! The Rust toolchains of this machine that can compile for WebAssembly.

use crate::{Error, Result};
use std::{path::Path, process::Command};

/// What plugins are compiled for. It has no WASI.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// The packages of Debian that are a whole toolchain for [`TARGET`].
pub const DEBIAN: &str = "rustc-web rust-web-src cargo-web lld-19";

/// A toolchain that can compile for [`TARGET`].
#[derive(Clone, Debug)]
pub enum Toolchain {
    /// One of rustup that has the target installed.
    Rustup {
        /// What `rustc --version` prints.
        version: String,
    },
    /// That of the distribution, which builds std from its own sources.
    System {
        /// What `rustc --version` prints.
        version: String,
    },
}

/// What a program prints. `None` means that it is not there, or failed.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Toolchain {
    /// The toolchain of the distribution.
    pub fn system() -> Option<Self> {
        let version = output(Command::new("/usr/bin/rustc").arg("--version"))?;
        let sysroot = output(Command::new("/usr/bin/rustc").args(["--print", "sysroot"]))?;
        let sources = Path::new(&sysroot).join("lib/rustlib/src/rust/library/Cargo.lock").exists();
        let linker = output(Command::new("wasm-ld-19").arg("--version")).is_some();
        (sources && linker).then_some(Toolchain::System { version })
    }

    /// The toolchain of rustup.
    pub fn rustup() -> Option<Self> {
        let version = output(Command::new("rustc").arg("--version"))?;
        let library = output(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]))?;
        Path::new(&library).exists().then_some(Toolchain::Rustup { version })
    }

    /// A toolchain of this machine: that of rustup, or else that of the distribution.
    ///
    /// # Errors
    /// Fails if there is none. The help says what installs one.
    pub fn any() -> Result<Self> {
        let rustup = output(Command::new("rustup").arg("--version")).is_some();
        let install = match rustup {
            true => format!("run `rustup target add {TARGET}`, or `apt-get install {DEBIAN}` on Debian"),
            false => format!(
                "run `apt-get install {DEBIAN}` on Debian, or install rustup and run `rustup target add {TARGET}`"
            ),
        };
        Self::rustup().or_else(Self::system).ok_or_else(|| {
            Error::new(format!("find a Rust toolchain for {TARGET}: there is none")).help(install)
        })
    }

    /// What `rustc --version` prints.
    pub fn version(&self) -> &str {
        match self {
            Toolchain::Rustup { version } | Toolchain::System { version } => version,
        }
    }

    /// `cargo`, set up for this toolchain, in a folder.
    pub fn cargo(&self, folder: &Path) -> Command {
        let mut cargo = match self {
            Toolchain::Rustup { .. } => Command::new("cargo"),
            Toolchain::System { .. } => {
                let mut cargo = Command::new("/usr/bin/cargo");
                cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld-19");
                // If rustup's cargo runs this program, it tells child processes to use another toolchain.
                cargo.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC_WRAPPER");
                cargo
            }
        };
        cargo.current_dir(folder);
        cargo
    }

    /// `cargo rustc` for one component. `remapped` are the folders whose paths must not get into it, and what they are called in it
    /// instead. The toolchain of the distribution leaves line numbers out, too.
    pub fn compile(&self, folder: &Path, remapped: &[(&Path, &str)]) -> Command {
        let mut flags: Vec<String> = remapped
            .iter()
            .map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display()))
            .collect();
        let mut cargo = self.cargo(folder);
        cargo.arg("rustc").args(["--lib", "--release", "--target", TARGET, "--crate-type", "cdylib"]);
        if let Toolchain::System { .. } = self {
            flags.extend(["-Zlocation-detail=none".into(), "-Zfmt-debug=none".into()]);
            cargo.args(["-Z", "build-std=std,panic_abort"]);
        }
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        cargo
    }
}
