//! `dray plugin keygen`, `dray plugin sign` and `dray plugin verify`

use crate::{
    DONE,
    args::{Access, Output, PluginKeygenOptions, PluginSignOptions, PluginVerifyOptions},
    failure::Failure,
    output::{print_json, say},
    setup,
    signer::{self, COSIGN_PASSWORD},
    terminal,
};
use dray_core::{Digest, policy::PluginSource};
use dray_engine::{Error, Image, Kind, attach};
use dray_session::artifact::{bundles, check_signatures, component_of, is_signed_by, signature_file};
use dray_trust::{PrivateKey, Signature, bundle_of};
use serde_json::json;
use std::{
    fs,
    io::IsTerminal,
    path::{Path, PathBuf},
};

/// A path with something added to its name.
fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

pub fn keygen(options: &PluginKeygenOptions) -> Result<u8, Failure> {
    let (private, public) = (with(&options.name, ".key"), with(&options.name, ".pub"));
    signer::check_new([&private, &public])?;
    let passphrase = signer::new_passphrase(options.passphrase_file.as_deref())?;
    let (secret, key) = dray_trust::generate_ed25519(&passphrase)
        .map_err(|wrong| Failure::usage(format!("make a key: {wrong}")))?;
    signer::write_pair((&private, &secret), (&public, &key))?;
    match options.output {
        Output::Json => {
            let [private, public] = [private, public].map(|path| path.display().to_string());
            print_json(&json!({ "private": private, "public": public }));
        }
        Output::Text => {
            let (private, public) = (private.display(), public.display());
            say!("{private} signs (keep it secret), and {public} goes to those who install");
        }
    }
    Ok(DONE)
}

/// What the text of a command line names.
fn source(text: &str) -> Result<PluginSource, Failure> {
    let written = text.strip_prefix("docker://").map(|rest| format!("oci://{rest}"));
    let parsed = written.as_deref().unwrap_or(text).parse();
    parsed.map_err(|why: String| Failure::usage(format!("use the plugin {text}: {why}")))
}

fn private_key(options: &PluginSignOptions) -> Result<PrivateKey, Failure> {
    let passphrase = match &options.passphrase_file {
        Some(path) => signer::passphrase(path)?,
        None => match std::env::var(COSIGN_PASSWORD) {
            Ok(passphrase) => passphrase,
            Err(_) if std::io::stdin().is_terminal() => terminal::ask("passphrase of the key: ", false)
                .map_err(|error| Failure::usage(format!("ask for the passphrase: {error}")))?,
            // A key of `dray plugin keygen` may have an empty one.
            Err(_) if PrivateKey::parse(&signer::key_file(&options.key)?, "").is_ok() => String::new(),
            Err(_) => signer::without_passphrase(&options.key)?,
        },
    };
    let key = PrivateKey::parse(&signer::key_file(&options.key)?, &passphrase);
    key.map_err(|wrong| Failure::usage(format!("use the key {}: {wrong}", options.key.display())))
}

pub async fn sign(options: PluginSignOptions) -> Result<u8, Failure> {
    let key = private_key(&options)?;
    let made = |digest: &Digest| {
        bundle_of(&key, digest)
            .map_err(|wrong| Failure::Failed(Error::new(Kind::Invalid, format!("sign {digest}: {wrong}"))))
    };
    let shown = key.shown();
    match source(&options.plugin)? {
        PluginSource::File(path) => {
            let component = read(&path)?;
            if !component.starts_with(b"\0asm") {
                let text = format!("sign {}: it is no WebAssembly", path.display());
                return Err(Failure::usage(text));
            }
            let at = signature_file(&path);
            let written = super::project::write(&at, &made(&Digest::of(&component))?);
            written.map_err(|error| Failure::usage(format!("write {}: {error}", at.display())))?;
            match options.output {
                Output::Json => print_json(&json!({
                    "plugin": options.plugin, "digest": Digest::of(&component), "key": shown, "signature": at,
                    "action": "signed",
                })),
                Output::Text => say!("signed {} with {shown}: {}", path.display(), at.display()),
            }
        }
        PluginSource::Artifact(artifact) => {
            let places = setup::places(&options.access).await?;
            let manifest = Image::open(&places, &artifact.reference).await?.manifest;
            component_of(&manifest)?;
            let digest = manifest.descriptor.digest;
            let pinned = artifact.pinned(&digest);
            // A further signature of the same key would prove nothing more. Whoever attached what cannot be read does not keep it
            // from being signed.
            let found = bundles(&places, &pinned).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "the signatures of {artifact} are not known");
                Vec::new()
            });
            let is_new = !is_signed_by(&key.public_pem(), &manifest.body, found);
            if is_new {
                attach(&places, &pinned, &digest, Signature::Bundle(made(&digest)?)).await?;
            }
            let action = if is_new { "signed" } else { "unchanged" };
            match options.output {
                Output::Json => print_json(&json!({
                    "plugin": options.plugin, "digest": digest, "key": shown, "action": action,
                })),
                Output::Text if is_new => say!("signed {digest} of {artifact} with {shown}"),
                Output::Text => say!("{digest} of {artifact} is signed with {shown} already"),
            }
        }
    }
    Ok(DONE)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| {
        let error = Error::new(Kind::Invalid, format!("read {}: {error}", path.display()));
        Failure::Usage(
            error.help(
                "name a component file, or an artifact: oci://registry.example.com/plugins/calver:1.2.0",
            ),
        )
    })
}

pub async fn verify(options: PluginVerifyOptions) -> Result<u8, Failure> {
    let (signed, bundles, digest) = match source(&options.plugin)? {
        PluginSource::File(path) => {
            let (component, at) = (read(&path)?, signature_file(&path));
            let bundles = if at.is_file() { vec![read(&at)?] } else { Vec::new() };
            let digest = Digest::of(&component);
            (component, bundles, digest)
        }
        PluginSource::Artifact(artifact) => of_registry(&options.access, &artifact).await?,
    };
    let by = check_signatures(&options.plugin, &signed, bundles, &options.keys)?;
    match options.output {
        Output::Json => {
            print_json(
                &json!({ "plugin": options.plugin, "digest": digest, "verified": true, "signed_by": by }),
            );
        }
        Output::Text => say!("{} is {digest}, signed by {by}", options.plugin),
    }
    Ok(DONE)
}

/// The manifest of an artifact, its sigstore bundles, and its digest.
async fn of_registry(
    access: &Access,
    artifact: &dray_core::policy::ArtifactSource,
) -> Result<(Vec<u8>, Vec<Vec<u8>>, Digest), Failure> {
    let places = setup::places(access).await?;
    let manifest = Image::open(&places, &artifact.reference).await?.manifest;
    component_of(&manifest)?;
    let digest = manifest.descriptor.digest;
    let bundles = bundles(&places, &artifact.pinned(&digest)).await?;
    Ok((manifest.body, bundles, digest))
}
