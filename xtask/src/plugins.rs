//! Builds plugins. Rust is compiled to a core module, from which a component is made.

use crate::{
    sources::{self, Manifest},
    tests::next,
};
use anyhow::{Context, Result, bail, ensure};
use dray_author::{TARGET, Toolchain};
use dray_core::Digest;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

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

/// A plugin that is built into dray.
pub struct Plugin {
    /// Its kind and its name, as its component is called: `auth-ecr`.
    pub name: String,
    package: String,
}

/// The plugins that are built into dray, sorted by kind and name.
pub fn all(top: &Path) -> Result<Vec<Plugin>> {
    let mut plugins = Vec::new();
    for kind in ["transport", "auth", "filter", "dialect", "verifier", "mapper", "observer"] {
        for entry in fs::read_dir(top.join("plugins").join(kind))? {
            let name = format!("{kind}-{}", entry?.file_name().to_string_lossy());
            plugins.push(Plugin { package: format!("dray-{name}"), name });
        }
    }
    plugins.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(plugins)
}

/// Compiles a package of a workspace, as it is locked, and makes the component. No path of this machine gets into it.
fn component(toolchain: &Toolchain, folder: &Path, package: Option<&str>, target: &Path) -> Result<Vec<u8>> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let (home, top) = (home.context("there is no home folder")?, crate::top());
    let mut remapped = vec![(home.as_path(), "/cargo"), (top.as_path(), "/dray")];
    // With the same flags, the plugins of this repository share the standard library, which takes a minute to compile.
    if !folder.starts_with(&top) {
        remapped.push((folder, "/plugin"));
    }
    let mut cargo = toolchain.compile(folder, &remapped);
    cargo.arg("--locked");
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
    Ok(dray_author::component(module)?)
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

/// Where the plugins of this repository are compiled.
fn shared_target() -> PathBuf {
    crate::top().join("target/plugins")
}

/// Builds all plugins of dray. Most of that is optimising at link time, which one thread does, so two of them are built at
/// once, each in a folder of its own: cargo locks its target folder.
fn components(toolchain: &Toolchain) -> Result<BTreeMap<String, Vec<u8>>> {
    let plugins = all(&crate::top())?;
    let folder = crate::top().join("plugins");
    let build = |plugin: &Plugin, target: &Path| {
        let bytes = component(toolchain, &folder, Some(&plugin.package), target)?;
        println!("{}: {} bytes", plugin.name, bytes.len());
        Ok::<_, anyhow::Error>((plugin.name.clone(), bytes))
    };
    let (first, rest) = plugins.split_first().context("there are no plugins")?;
    let (target, second) = (shared_target(), crate::top().join("target/plugins-second"));
    // The standard library is compiled once.
    let mut components = BTreeMap::from([build(first, &target)?]);
    if !second.exists() {
        // A copy that is broken off must not pass for a whole one.
        let half = second.with_extension("half");
        if half.exists() {
            fs::remove_dir_all(&half)?;
        }
        let copied = Command::new("cp").arg("-a").arg(&target).arg(&half).status().context("run cp")?;
        ensure!(copied.success(), "copying {} failed", target.display());
        fs::rename(&half, &second)?;
    }
    let waiting = Mutex::new(rest.iter());
    let built = std::thread::scope(|scope| {
        let builders = [target, second].map(|target| {
            let (waiting, build) = (&waiting, &build);
            let builds =
                move || std::iter::from_fn(|| next(waiting)).map(|plugin| build(plugin, &target)).collect();
            scope.spawn(builds)
        });
        // A thread ends by itself or by a panic, which is passed on.
        builders.map(|builder| -> Result<Vec<_>> {
            builder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    });
    for built in built {
        components.extend(built?);
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
    let target = if folder.starts_with(crate::top()) { shared_target() } else { folder.join("target") };
    let bytes = component(&Toolchain::any()?, &folder, None, &target)?;
    let out = folder.join(format!("{}.wasm", package_name(&folder)?));
    fs::write(&out, &bytes).with_context(|| format!("write {}", out.display()))?;
    println!("{}: {} bytes", out.display(), bytes.len());
    Ok(())
}
