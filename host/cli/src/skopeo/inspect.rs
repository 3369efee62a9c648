//! `skopeo inspect`, `skopeo list-tags` and `skopeo manifest-digest`

use super::{
    flags::{self, End, Globals, ImageFlags, given, image, is_on, switch, text},
    retry::{self, Retry},
    session, template, unsupported,
};
use crate::{DONE, digest, failure::Failure, output};
use clap::{Arg, ArgMatches, Command};
use dray_core::{Algorithm, Children, Hasher, Manifest, Reference};
use dray_engine::{Error, Image, Kind};
use serde::{Serialize, ser::SerializeMap};
use serde_json::Value;
use std::path::PathBuf;

/// The command line of `inspect`.
pub fn command() -> Command {
    let command = Command::new("inspect")
        .about("Prints what an image is")
        .arg(Arg::new("image").required(true).value_name("IMAGE-NAME"))
        .arg(switch("raw").help("Prints the manifest, byte for byte"))
        .arg(switch("config").help("Prints the config"))
        .arg(switch("no-tags").short('n').help("Lists no tags"))
        .arg(text("format").short('f').hide(true))
        .arg(text("manifest-digest").hide(true));
    flags::refused(retry::flags(image(command, End::Only)), &[])
}

/// The command line of `list-tags`.
pub fn list_tags_command() -> Command {
    let command = Command::new("list-tags")
        .about("Lists the tags of a repository")
        .arg(Arg::new("repository").required(true).value_name("REPOSITORY-NAME"));
    flags::refused(retry::flags(image(command, End::Only)), &[])
}

/// The command line of `manifest-digest`.
pub fn manifest_digest_command() -> Command {
    Command::new("manifest-digest")
        .about("Prints the digest of a manifest in a file")
        .arg(Arg::new("file").required(true).value_name("MANIFEST-FILE"))
}

/// What `inspect` prints, in skopeo's order.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    digest: String,
    repo_tags: Vec<String>,
    created: Value,
    docker_version: String,
    labels: Value,
    architecture: String,
    os: String,
    layers: Option<Vec<String>>,
    layers_data: Option<Vec<Layer>>,
    env: Value,
}

#[derive(Serialize)]
struct Layer {
    #[serde(rename = "MIMEType")]
    mime_type: String,
    #[serde(rename = "Digest")]
    digest: String,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Annotations")]
    annotations: Value,
}

pub async fn run(matches: &ArgMatches, globals: &Globals) -> Result<u8, Failure> {
    let sha512 = match given(matches, "manifest-digest").as_deref() {
        None | Some("sha256") => false,
        Some("sha512") => true,
        Some(other) => {
            return Err(Failure::usage(format!("inspect: `{other}` is neither sha256 nor sha512")));
        }
    };
    let format = given(matches, "format").filter(|format| !format.is_empty());
    if format.is_some() && is_on(matches, "raw") {
        return Err(Failure::usage("inspect: --raw does not support --format"));
    }
    let flags = ImageFlags::of(matches, End::Only, globals)?;
    let written = given(matches, "image").unwrap_or_default();
    let reference = session::image(&written, &flags)?;
    let places = session::places_for_any(&[(&reference, &flags)], globals)?;
    let open = || async { Image::open(&places, &reference).await.map_err(Failure::from) };
    let image = Retry::of(matches)?.until_done(open).await?;
    let (raw, config) = (is_on(matches, "raw"), is_on(matches, "config"));
    if raw && !config {
        return output::bytes_out(&image.manifest.body).map(|()| DONE);
    }
    let chosen = image.only_platform(&globals.platform).await?;
    let bytes = chosen.config().await?;
    if raw {
        return output::bytes_out(&bytes).map(|()| DONE);
    }
    let malformed = |error: serde_json::Error| {
        Error::new(Kind::Invalid, format!("inspect {reference}: read its config: {error}"))
    };
    let read: Value = serde_json::from_slice(&bytes).map_err(malformed)?;
    if config {
        return shown(format.as_deref(), &Config(&read), || {
            match template::Value::of_json(&named_as_go(&read)) {
                template::Value::Map(fields) => template::Value::Struct(fields.into_iter().collect()),
                other => other,
            }
        });
    }
    let name = name(&reference);
    let tags = match (&name, is_on(matches, "no-tags")) {
        (Some(name), false) => tags_of(&places, name, &reference).await,
        _ => Vec::new(),
    };
    let mut inspected = inspected(&image.manifest, &chosen.manifest, &read, (name.unwrap_or_default(), tags));
    if sha512 {
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(&image.manifest.body);
        inspected.digest = hasher.finish().to_string();
    }
    shown(format.as_deref(), &inspected, || inspected.value())
}

/// Names of keys in a config, and of the fields that Go has for them (`specs-go/v1/config.go` of the OCI image
/// specification). The keys of `config` have the same names.
const GO_NAMES: [(&str, &str); 13] = [
    ("architecture", "Architecture"),
    ("author", "Author"),
    ("comment", "Comment"),
    ("config", "Config"),
    ("created", "Created"),
    ("created_by", "CreatedBy"),
    ("diff_ids", "DiffIDs"),
    ("empty_layer", "EmptyLayer"),
    ("history", "History"),
    ("os", "OS"),
    ("rootfs", "RootFS"),
    ("type", "Type"),
    ("variant", "Variant"),
];

/// A config whose keys are named as templates name them.
fn named_as_go(value: &Value) -> Value {
    match value {
        Value::Object(entries) => entries
            .iter()
            .map(|(key, value)| {
                let name = GO_NAMES.iter().find(|(json, _)| json == key).map_or(key.as_str(), |(_, go)| go);
                // What lies in `config` are maps with names of the image's own.
                let value = if key == "config" { value.clone() } else { named_as_go(value) };
                (name.to_owned(), value)
            })
            .collect(),
        Value::Array(items) => items.iter().map(named_as_go).collect(),
        other => other.clone(),
    }
}

/// Prints JSON, or what a template makes of it.
fn shown(
    format: Option<&str>,
    json: &impl Serialize,
    value: impl FnOnce() -> template::Value,
) -> Result<u8, Failure> {
    match format {
        None => print(json),
        Some(format) => {
            let text = template::fill(format, &value());
            let text =
                text.map_err(|why| Failure::usage(format!("fill in the template of --format: {why}")))?;
            output::bytes_out(text.as_bytes())?;
        }
    }
    Ok(DONE)
}

impl Inspected {
    /// As the data of a template.
    fn value(&self) -> template::Value {
        use template::Value;
        let text = |text: &str| Value::Text(text.to_owned());
        let texts = |items: &[String]| Value::List(items.iter().map(|item| text(item)).collect());
        let or_none = |value: &serde_json::Value, none| match value {
            serde_json::Value::Null => none,
            value => Value::of_json(value),
        };
        let layer = |layer: &Layer| {
            Value::Struct(vec![
                ("MIMEType".into(), text(&layer.mime_type)),
                ("Digest".into(), text(&layer.digest)),
                ("Size".into(), Value::Number(i64::try_from(layer.size).unwrap_or(i64::MAX))),
                ("Annotations".into(), or_none(&layer.annotations, Value::NoMap)),
            ])
        };
        Value::Struct(vec![
            ("Name".into(), text(&self.name)),
            ("Tag".into(), text("")),
            ("Digest".into(), text(&self.digest)),
            ("RepoTags".into(), texts(&self.repo_tags)),
            ("Created".into(), self.created.as_str().map_or(Value::None, |at| Value::Time(at.to_owned()))),
            ("DockerVersion".into(), text(&self.docker_version)),
            ("Labels".into(), or_none(&self.labels, Value::NoMap)),
            ("Architecture".into(), text(&self.architecture)),
            ("Os".into(), text(&self.os)),
            ("Layers".into(), self.layers.as_deref().map_or(Value::NoList, texts)),
            (
                "LayersData".into(),
                self.layers_data
                    .as_deref()
                    .map_or(Value::NoList, |layers| Value::List(layers.iter().map(layer).collect())),
            ),
            ("Env".into(), or_none(&self.env, Value::NoList)),
        ])
    }
}

/// A config in the order of the fields of the OCI image specification. What the specification does not name is left out.
struct Config<'a>(&'a Value);

/// The fields of a config (OCI image specification, image configuration), of its `config`, and of an entry of `history`.
const CONFIG: [&str; 10] = [
    "created",
    "author",
    "architecture",
    "variant",
    "os",
    "os.version",
    "os.features",
    "config",
    "rootfs",
    "history",
];
const RUNTIME: [&str; 10] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "ArgsEscaped",
];
const HISTORY: [&str; 5] = ["created", "created_by", "author", "comment", "empty_layer"];
const ROOTFS: [&str; 2] = ["type", "diff_ids"];

/// An object with its fields in an order.
struct Ordered<'a>(&'a Value, &'static [&'static str]);

impl Serialize for Ordered<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let empty = |value: &Value| match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(is) => !is,
            Value::Number(_) => false,
        };
        let fields = self.1.iter().filter_map(|key| Some((key, self.0.get(key)?)));
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in fields {
            match *key {
                "rootfs" => map.serialize_entry(key, &Ordered(value, &ROOTFS))?,
                "config" => map.serialize_entry(key, &Ordered(value, &RUNTIME))?,
                "history" => {
                    let entries = value.as_array().into_iter().flatten();
                    let entries: Vec<Ordered> = entries.map(|entry| Ordered(entry, &HISTORY)).collect();
                    if !entries.is_empty() {
                        map.serialize_entry(key, &entries)?;
                    }
                }
                _ if empty(value) => {}
                _ => map.serialize_entry(key, value)?,
            }
        }
        map.end()
    }
}

impl Serialize for Config<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Ordered(self.0, &CONFIG).serialize(serializer)
    }
}

fn inspected(
    named: &Manifest,
    chosen: &Manifest,
    config: &Value,
    (name, repo_tags): (String, Vec<String>),
) -> Inspected {
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let of_config = |key: &str| config.pointer(&format!("/config/{key}")).cloned().unwrap_or(Value::Null);
    let layers = match &chosen.children {
        Children::Image { layers, .. } => Some(layers),
        Children::Index(_) | Children::Schema1(_) => None,
    };
    let layer = |layer: &dray_core::Descriptor| Layer {
        mime_type: layer.media_type.clone(),
        digest: layer.digest.to_string(),
        size: layer.size,
        annotations: match layer.annotations.is_empty() {
            true => Value::Null,
            false => serde_json::to_value(&layer.annotations).unwrap_or_default(),
        },
    };
    Inspected {
        name,
        digest: named.descriptor.digest.to_string(),
        repo_tags,
        created: config.get("created").cloned().unwrap_or(Value::Null),
        docker_version: text("docker_version"),
        labels: of_config("Labels"),
        architecture: text("architecture"),
        os: text("os"),
        layers: layers.map(|layers| layers.iter().map(|layer| layer.digest.to_string()).collect()),
        layers_data: layers.map(|layers| layers.iter().map(layer).collect()),
        env: of_config("Env"),
    }
}

/// The name of a registry's repository, in full: `docker.io/library/nginx`. `None` means that the image is in no registry.
fn name(reference: &Reference) -> Option<String> {
    let mut name = session::full_name(reference)?;
    name.truncate(session::end_of_name(&name).unwrap_or(name.len()));
    Some(name)
}

/// The tags of a repository. That they cannot be listed is no failure of `inspect`.
async fn tags_of(places: &std::sync::Arc<dray_engine::Places>, name: &str, of: &Reference) -> Vec<String> {
    let Ok(repository) = format!("docker://{name}").parse::<Reference>() else { return Vec::new() };
    let listed = dray_engine::list_tags(places, &repository).await;
    listed
        .inspect_err(|error| tracing::warn!("the tags of {of} are left out: failed to {error}"))
        .unwrap_or_default()
}

/// Prints JSON as Go does: indented with four spaces, and with `<`, `>` and `&` escaped.
fn print(value: &impl Serialize) {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    // What is printed are texts and numbers.
    let _ = value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter));
    let text = String::from_utf8_lossy(&text);
    let text = text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    output::print(&format!("{}\n", output::exact(&text)));
}

pub async fn list_tags(matches: &ArgMatches, globals: &Globals) -> Result<u8, Failure> {
    let flags = ImageFlags::of(matches, End::Only, globals)?;
    let written = given(matches, "repository").unwrap_or_default();
    let reference = session::reference(&written, &flags)?;
    if !matches!(reference.scheme.as_str(), "docker" | "docker-archive") {
        return Err(unsupported(&format!("to list the tags of {}:", reference.scheme)));
    }
    let places = session::places_for_any(&[(&reference, &flags)], globals)?;
    let tags = Retry::of(matches)?.until_done(|| session::tags(&places, &reference)).await?;
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Listed {
        #[serde(skip_serializing_if = "Option::is_none")]
        repository: Option<String>,
        tags: Vec<String>,
    }
    print(&Listed { repository: name(&reference), tags });
    Ok(DONE)
}

pub fn manifest_digest(matches: &ArgMatches) -> Result<u8, Failure> {
    digest::print(&PathBuf::from(given(matches, "file").unwrap_or_default()))
}
