//! `--encryption-key`, `--encrypt-layer` and `--decryption-key` of copy: the image goes through a layout in the folder for
//! temporary files, where its layers are encrypted or decrypted.

use super::{
    flags::{given, text},
    unsupported,
};
use crate::{failure::Failure, signer::key_file};
use clap::{Arg, ArgAction, ArgMatches, Command};
use dray_core::{Digest, Reference};
use dray_engine::{Error, Kind};
use dray_trust::{ENCRYPTED, Opener, Recipient, decrypt, encrypt, other_annotations};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// The tag of the image in the layout.
const TAG: &str = "image";
/// What the media type of a layer of an OCI image begins with (OCI image specification, "Layer").
const LAYERS: [&str; 2] =
    ["application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.nondistributable.v1.tar"];
/// How deep indexes may lie in each other.
const DEPTH: usize = 4;

/// Adds the flags.
pub fn flags(command: Command) -> Command {
    let many = |name| text(name).action(ArgAction::Append);
    command
        .arg(
            many("encryption-key")
                .conflicts_with("decryption-key")
                .help("Encrypts layers for jwe:PUBLIC-KEY-FILE or pkcs7:CERTIFICATE-FILE"),
        )
        .arg(
            many("decryption-key")
                .help("Decrypts layers with a private key: FILE, or FILE:pass=TEXT, :file=PATH, :fd=N"),
        )
        .arg(
            Arg::new("encrypt-layer")
                .long("encrypt-layer")
                .action(ArgAction::Append)
                .allow_hyphen_values(true)
                .value_parser(clap::value_parser!(i64))
                .help("Encrypts only this layer, from 0; -1 is the last one"),
        )
}

/// What becomes of the layers.
pub enum Change {
    Encrypt { recipients: Vec<Recipient>, layers: Vec<i64> },
    Decrypt { keys: Vec<Opener> },
}

fn usage(text: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("copy: {text}"))
}

impl Change {
    /// What the flags say. `None` means that layers stay as they are.
    pub fn of(matches: &ArgMatches) -> Result<Option<Self>, Failure> {
        let all = |name| matches.get_many::<String>(name).into_iter().flatten().cloned().collect::<Vec<_>>();
        let (recipients, keys) = (all("encryption-key"), all("decryption-key"));
        let layers: Vec<i64> = matches.get_many("encrypt-layer").into_iter().flatten().copied().collect();
        if recipients.is_empty() && !layers.is_empty() {
            return Err(usage("--encrypt-layer needs --encryption-key"));
        }
        if let Some(first) = recipients.first() {
            if given(matches, "format").is_some_and(|format| format != "oci") {
                return Err(usage("only images of OCI's format can be encrypted"));
            }
            tracing::debug!("layers are encrypted for {first} and {} more", recipients.len() - 1);
            let recipients =
                recipients.iter().map(|recipient| recipient_of(recipient)).collect::<Result<_, _>>()?;
            return Ok(Some(Change::Encrypt { recipients, layers }));
        }
        let keys = keys.iter().map(|key| opener_of(key)).collect::<Result<Vec<_>, _>>()?;
        Ok((!keys.is_empty()).then_some(Change::Decrypt { keys }))
    }

    /// Changes the layers of the image in a layout. `reference` is the image for people.
    pub fn carry_out(&self, layout: &Path, reference: &Reference) -> Result<(), Failure> {
        let failed = |why: String| {
            Failure::Failed(Error::new(Kind::Invalid, format!("change the layers of {reference}: {why}")))
        };
        let layout = Layout { root: layout, change: self };
        let path = layout.root.join("index.json");
        let mut index = read_json(&path).map_err(failed)?;
        let images = index["manifests"].as_array_mut().ok_or_else(|| failed("its layout is empty".into()))?;
        for image in images {
            let changed = layout.manifest(image, 0).map_err(failed)?;
            *image = changed;
        }
        fs::write(&path, index.to_string()).map_err(|error| failed(error.to_string()))
    }
}

fn recipient_of(text: &str) -> Result<Recipient, Failure> {
    let Some((kind, path)) = text.split_once(':') else {
        return Err(usage(format!("--encryption-key {text} has no protocol: jwe:FILE")));
    };
    let parse = match kind {
        "jwe" => Recipient::parse,
        "pkcs7" => Recipient::parse_certificate,
        _ => return Err(unsupported(&format!("a recipient of the kind `{kind}:`, as jwe: and pkcs7: are,"))),
    };
    let path = Path::new(path);
    parse(&key_file(path)?).map_err(|wrong| usage(format!("use the key {}: {wrong}", path.display())))
}

fn opener_of(text: &str) -> Result<Opener, Failure> {
    let (path, passphrase) = match text.split_once(':') {
        Some((path, spec)) => (path, Some(passphrase_of(spec)?)),
        None => (text, None),
    };
    Opener::parse(&key_file(Path::new(path))?, passphrase.as_deref().map(String::as_str))
        .map_err(|wrong| usage(format!("use the key {path}: {wrong}")))
}

/// The passphrase of a key, which ocicrypt takes as `pass=TEXT`, `file=PATH`, `fd=NUMBER` or the bare text.
fn passphrase_of(spec: &str) -> Result<Zeroizing<String>, Failure> {
    let from = |mut file: File| {
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text)?;
        // Editors end a file with a newline, and no passphrase ends so.
        let length = text.trim_end_matches(['\n', '\r']).len();
        text.truncate(length);
        Ok(text)
    };
    let wrong = |error: std::io::Error| usage(format!("read the passphrase of --decryption-key: {error}"));
    if let Some(path) = spec.strip_prefix("file=") {
        return File::open(path).and_then(from).map_err(wrong);
    }
    if let Some(number) = spec.strip_prefix("fd=") {
        let number: u32 = number.parse().map_err(|_| {
            usage(format!("read the passphrase of --decryption-key: fd={number} is no number"))
        })?;
        return File::open(format!("/proc/self/fd/{number}")).and_then(from).map_err(wrong);
    }
    let text = spec.strip_prefix("pass=").unwrap_or(spec);
    tracing::warn!(
        "others on this machine can read the passphrase of --decryption-key: file= and fd= hide it"
    );
    Ok(Zeroizing::new(text.to_owned()))
}

fn read_json(path: &Path) -> Result<Value, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

struct Layout<'a> {
    root: &'a Path,
    change: &'a Change,
}

impl Layout<'_> {
    fn blob(&self, digest: &str) -> Result<PathBuf, String> {
        let digest: Digest = digest.parse().map_err(|error| format!("{error}"))?;
        Ok(self.root.join("blobs").join(digest.algorithm_name()).join(digest.hex()))
    }

    /// Changes a manifest, or all manifests of an index. Returns its new descriptor.
    fn manifest(&self, descriptor: &Value, depth: usize) -> Result<Value, String> {
        if depth > DEPTH {
            return Err("its indexes lie too deep in each other".into());
        }
        let mut manifest = read_json(&self.blob(descriptor["digest"].as_str().unwrap_or_default())?)?;
        if let Some(children) = manifest["manifests"].as_array() {
            let children = children.clone();
            let changed: Vec<Value> =
                children.iter().map(|child| self.manifest(child, depth + 1)).collect::<Result<_, _>>()?;
            manifest["manifests"] = changed.into();
        } else {
            let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
            let count = layers.len() as i64;
            let changed: Vec<Value> = layers
                .into_iter()
                .enumerate()
                .map(|(number, layer)| self.layer(layer, number as i64, count))
                .collect::<Result<_, _>>()?;
            manifest["layers"] = changed.into();
        }
        let bytes = manifest.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        let path = self.blob(&digest.to_string())?;
        fs::write(path, &bytes).map_err(|error| error.to_string())?;
        let mut changed = descriptor.clone();
        changed["digest"] = json!(digest.to_string());
        changed["size"] = json!(bytes.len());
        Ok(changed)
    }

    /// Changes one of so many layers, if it is to be changed.
    fn layer(&self, mut layer: Value, number: i64, count: i64) -> Result<Value, String> {
        let media_type = layer["mediaType"].as_str().unwrap_or_default().to_owned();
        let digest = layer["digest"].as_str().unwrap_or_default().to_owned();
        let annotations: BTreeMap<String, String> =
            serde_json::from_value(layer["annotations"].clone()).unwrap_or_default();
        let is_encrypted = media_type.ends_with(ENCRYPTED);
        let from = self.blob(&digest)?;
        let folder = from.parent().unwrap_or(self.root).to_owned();
        let failed = |error: std::io::Error| format!("its layer {digest}: {error}");
        let open = || File::open(&from).map(BufReader::new).map_err(failed);
        let mut fresh = tempfile::NamedTempFile::new_in(&folder).map_err(failed)?;
        let (new, size, media_type, annotations) = match self.change {
            Change::Encrypt { recipients, layers } => {
                let chosen = layers.is_empty()
                    || layers.iter().any(|wanted| *wanted == number || *wanted == number - count);
                if let Some(wrong) = layers.iter().find(|wanted| **wanted >= count || **wanted < -count) {
                    return Err(format!("there is no layer {wrong}: it has {count}"));
                }
                if is_encrypted || !chosen || !LAYERS.iter().any(|kind| media_type.starts_with(kind)) {
                    return Ok(layer);
                }
                let mut out = BufWriter::new(fresh.as_file_mut());
                let done = encrypt(&mut open()?, &mut out, &digest, recipients)
                    .map_err(|wrong| format!("its layer {digest}: {wrong}"))?;
                out.flush().map_err(failed)?;
                drop(out);
                let mut annotations = annotations;
                annotations.extend(done.annotations);
                (done.digest, done.size, format!("{media_type}{ENCRYPTED}"), annotations)
            }
            Change::Decrypt { keys } => {
                let Some(plain) = media_type.strip_suffix(ENCRYPTED) else { return Ok(layer) };
                let mut out = BufWriter::new(fresh.as_file_mut());
                let (new, size) = decrypt(&mut open()?, &mut out, &annotations, keys)
                    .map_err(|wrong| format!("its layer {digest}: {wrong}"))?;
                out.flush().map_err(failed)?;
                drop(out);
                (new, size, plain.to_owned(), other_annotations(&annotations))
            }
        };
        fresh.persist(self.blob(&new)?).map_err(|error| failed(error.error))?;
        layer["mediaType"] = json!(media_type);
        layer["digest"] = json!(new);
        layer["size"] = json!(size);
        match (annotations.is_empty(), layer.as_object_mut()) {
            (true, Some(layer)) => _ = layer.remove("annotations"),
            _ => layer["annotations"] = json!(annotations),
        }
        Ok(layer)
    }
}

/// The reference of the image in a layout.
pub fn within(layout: &Path) -> Result<Reference, Failure> {
    format!("oci:{}:{TAG}", layout.display()).parse().map_err(|error| usage(format!("{error}")))
}
