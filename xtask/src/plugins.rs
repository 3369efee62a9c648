//! Builds plugins. Rust is compiled to a core module, from which a component is made.

use crate::sources::{self, Manifest};
use anyhow::{Context, Result, bail, ensure};
use dray_core::Digest;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "wasm32-unknown-unknown";

/// `plugins/toolchain.json`: the toolchain that builds the committed components. Another rustc produces other bytes.
#[derive(Deserialize)]
struct Canonical {
    rustc: String,
    install: String,
}

impl Canonical {
    fn read() -> Result<Self> {
        let path = crate::top().join("plugins/toolchain.json");
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))
    }
}

/// A toolchain on this machine that can compile for the target.
enum Toolchain {
    /// A toolchain of rustup that has the target installed.
    Rustup { version: String },
    /// The toolchain of the distribution, which builds std from its own sources.
    System { version: String },
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Toolchain {
    fn system() -> Option<Self> {
        let version = output(Command::new("/usr/bin/rustc").arg("--version"))?;
        let sysroot = output(Command::new("/usr/bin/rustc").args(["--print", "sysroot"]))?;
        let sources = Path::new(&sysroot).join("lib/rustlib/src/rust/library/Cargo.lock").exists();
        let linker = output(Command::new("wasm-ld-19").arg("--version")).is_some();
        (sources && linker).then_some(Toolchain::System { version })
    }

    fn rustup() -> Option<Self> {
        let version = output(Command::new("rustc").arg("--version"))?;
        let library = output(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]))?;
        Path::new(&library).exists().then_some(Toolchain::Rustup { version })
    }

    fn any() -> Result<Self> {
        let canonical = Canonical::read()?;
        let found = Self::rustup().or_else(Self::system);
        found.with_context(|| {
            format!(
                "no toolchain for {TARGET} is here: run `rustup target add {TARGET}`, or install {}",
                canonical.install
            )
        })
    }

    fn version(&self) -> &str {
        match self {
            Toolchain::Rustup { version } | Toolchain::System { version } => version,
        }
    }

    /// `cargo rustc`, set up so that no path of this machine gets into the component. The toolchain of the distribution
    /// also leaves line numbers out.
    fn cargo(&self, folder: &Path) -> Result<Command> {
        let home = env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| env::home_dir().map(|home| home.join(".cargo")));
        let home = home.context("there is no home folder")?;
        let mut flags = vec![
            format!("--remap-path-prefix={}=/cargo", home.display()),
            format!("--remap-path-prefix={}=/dray", crate::top().display()),
            format!("--remap-path-prefix={}=/plugin", folder.display()),
        ];
        let mut cargo = match self {
            Toolchain::Rustup { .. } => Command::new("cargo"),
            Toolchain::System { .. } => {
                flags.extend(["-Zlocation-detail=none".into(), "-Zfmt-debug=none".into()]);
                let mut cargo = Command::new("/usr/bin/cargo");
                let path = env::var("PATH").unwrap_or_default();
                cargo
                    .env("PATH", format!("/usr/bin:{path}"))
                    .env("RUSTC", "/usr/bin/rustc")
                    .env("RUSTC_BOOTSTRAP", "1");
                cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld-19");
                // If rustup's cargo runs this program, it tells child processes to use another toolchain.
                cargo.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC_WRAPPER");
                cargo
            }
        };
        cargo.arg("rustc").args([
            "--lib",
            "--release",
            "--locked",
            "--target",
            TARGET,
            "--crate-type",
            "cdylib",
        ]);
        if let Toolchain::System { .. } = self {
            cargo.args(["-Z", "build-std=std,panic_abort"]);
        }
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")).current_dir(folder);
        Ok(cargo)
    }
}

/// A plugin that is built into dray.
pub struct Plugin {
    /// Its kind and its name, as its component is called: `auth-ecr`.
    pub name: String,
    package: String,
}

/// The plugins that are built into dray, sorted by kind and name.
pub fn all(top: &Path) -> Result<Vec<Plugin>> {
    let mut plugins = Vec::new();
    for kind in ["transport", "auth", "filter", "dialect", "verifier"] {
        for entry in fs::read_dir(top.join("plugins").join(kind))? {
            let name = format!("{kind}-{}", entry?.file_name().to_string_lossy());
            plugins.push(Plugin { package: format!("dray-{name}"), name });
        }
    }
    plugins.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(plugins)
}

fn component(toolchain: &Toolchain, folder: &Path, package: Option<&str>, target: &Path) -> Result<Vec<u8>> {
    let mut cargo = toolchain.cargo(folder)?;
    if let Some(package) = package {
        cargo.args(["--package", package]);
    }
    let status = cargo.env("CARGO_TARGET_DIR", target).status().context("run cargo")?;
    ensure!(status.success(), "the plugin in {} does not build", folder.display());
    let library = match package {
        Some(package) => package.to_owned(),
        None => package_name(folder)?,
    };
    let module = target.join(TARGET).join("release").join(format!("{}.wasm", library.replace('-', "_")));
    let module = fs::read(&module).with_context(|| format!("read {}", module.display()))?;
    wit_component::ComponentEncoder::default().validate(true).module(&module)?.encode()
}

fn package_name(folder: &Path) -> Result<String> {
    let text = fs::read_to_string(folder.join("Cargo.toml"))
        .with_context(|| format!("read the Cargo.toml of {}", folder.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("name = \""));
    Ok(line
        .and_then(|rest| rest.split('"').next())
        .context("its Cargo.toml does not name the package")?
        .to_owned())
}

fn components(toolchain: &Toolchain) -> Result<BTreeMap<String, Vec<u8>>> {
    let folder = crate::top().join("plugins");
    let target = folder.join("target/components");
    let mut components = BTreeMap::new();
    for plugin in all(&crate::top())? {
        let bytes = component(toolchain, &folder, Some(&plugin.package), &target)?;
        println!("{}: {} bytes", plugin.name, bytes.len());
        components.insert(plugin.name, bytes);
    }
    Ok(components)
}

/// Builds the plugins of dray into `plugins/prebuilt`.
pub fn build() -> Result<()> {
    let top = crate::top();
    let canonical = Canonical::read()?;
    // The committed components come from the canonical toolchain, so it is used wherever it is installed.
    let system = Toolchain::system().filter(|system| system.version() == canonical.rustc);
    let toolchain = match system {
        Some(toolchain) => toolchain,
        None => Toolchain::any()?,
    };
    let components = components(&toolchain)?;
    let folder = top.join("plugins/prebuilt");
    // What is not made any more must not be built in.
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    for (name, bytes) in &components {
        fs::write(folder.join(format!("{name}.wasm")), bytes)?;
    }
    let digests = components.into_iter().map(|(name, bytes)| (name, Digest::of(&bytes)));
    let manifest = Manifest {
        toolchain: toolchain.version().into(),
        sources: sources::digest(&top)?,
        components: digests.collect(),
    };
    fs::write(Manifest::path(&top), serde_json::to_string_pretty(&manifest)? + "\n")?;
    if toolchain.version() != canonical.rustc {
        println!(
            "built with {}; what is committed must be built with {} ({})",
            toolchain.version(),
            canonical.rustc,
            canonical.install
        );
    }
    Ok(())
}

/// Builds the plugins again with the canonical toolchain, and compares the bytes.
pub fn check() -> Result<()> {
    let canonical = Canonical::read()?;
    let toolchain = Toolchain::system().filter(|toolchain| toolchain.version() == canonical.rustc);
    let Some(toolchain) = toolchain else {
        bail!("the canonical toolchain, {}, is not here: install {}", canonical.rustc, canonical.install);
    };
    let manifest = Manifest::read(&crate::top())?;
    ensure!(
        manifest.toolchain == canonical.rustc,
        "plugins/prebuilt was built with {}, not with {}",
        manifest.toolchain,
        canonical.rustc
    );
    let built: BTreeMap<String, Digest> =
        components(&toolchain)?.into_iter().map(|(name, bytes)| (name, Digest::of(&bytes))).collect();
    ensure!(
        built == manifest.components,
        "rebuilt components differ from plugins/prebuilt:\n{built:#?}\n{:#?}",
        manifest.components
    );
    println!("plugins/prebuilt is what {} makes of the sources", canonical.rustc);
    Ok(())
}

/// Builds a plugin that is not part of dray, and writes the component into its folder.
pub fn build_one(path: &Path) -> Result<()> {
    let folder = path.canonicalize().with_context(|| format!("find {}", path.display()))?;
    // The examples share what they are built from: the standard library takes a minute.
    let target = match folder.starts_with(crate::top()) {
        true => crate::top().join("target/plugins"),
        false => folder.join("target"),
    };
    let bytes = component(&Toolchain::any()?, &folder, None, &target)?;
    let out = folder.join(format!("{}.wasm", package_name(&folder)?));
    fs::write(&out, &bytes).with_context(|| format!("write {}", out.display()))?;
    println!("{}: {} bytes", out.display(), bytes.len());
    Ok(())
}
