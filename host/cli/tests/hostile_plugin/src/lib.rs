//! A transport that breaks every promise: `hostile:HOST/DEED:TAG` does what DEED says when an image is read or written.

use dray_plugin_transport::{
    Error, Info, Meta, Wish, WishKind, ask,
    dray::plugin::{
        files, http, log,
        types::{Descriptor, FileRange, Manifest, Request, Segment},
    },
    export,
    exports::dray::plugin::{
        catalog::{self, Found, Page},
        references::{self, Parsed, Root},
        sink::{self, Capabilities, Incoming, Naming, NextStep, Outcome, Sending, Step},
        source::{self, ReferrersPage},
    },
    info, sha256, unsigned,
};

struct Hostile;

impl Meta for Hostile {
    fn describe() -> Info {
        let name = || "the files and hosts that it is granted".to_owned();
        let wishes = [WishKind::Files, WishKind::Host].map(|kind| Wish { kind, name: name(), why: "it breaks out of them".into() });
        Info { wishes: wishes.into(), ..info("hostile", "0.1.0", "Breaks every promise", &["hostile"]) }
    }
}

/// The content of the only layer, and of the config.
const LAYER: &[u8] = b"layer";
const CONFIG: &[u8] = b"{}";

fn manifest() -> Vec<u8> {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{}}}]}}"#,
        sha256(CONFIG), CONFIG.len(), sha256(LAYER), LAYER.len()
    )
    .into_bytes()
}

fn get(url: String) -> Request {
    Request {
        method: "GET".into(),
        url,
        headers: Vec::new(),
        expect: vec![200],
        access: Vec::new(),
        extra: Vec::new(),
    }
}

/// Recurses until the stack ends.
#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    std::hint::black_box([depth; 64]);
    recurse(std::hint::black_box(depth + 1)) + 1
}

/// What is tried while the manifest is read.
fn deed(location: &str) -> Result<(), Error> {
    let (host, deed) = location.split_once('/').unwrap_or((location, ""));
    let port = host.rsplit(':').next().unwrap_or_default();
    // What it gets, it tells everybody.
    let tell = |bytes: Vec<u8>| Err(Error::Invalid(String::from_utf8_lossy(&bytes).into_owned()));
    let ask = |url: String| http::send(&get(url), &[]).and_then(|response| tell(response.body));
    let read =
        |path: &str| files::read(&FileRange { path: path.into(), offset: 0, length: None }).and_then(tell);
    match deed {
        "spin" => loop {
            std::hint::black_box(0);
        },
        "recurse" => drop(recurse(0)),
        "allocate" => {
            let mut all = Vec::new();
            loop {
                all.push(std::hint::black_box(vec![1u8; 1 << 20]));
            }
        }
        "panic" => panic!("the disc is made of cheese"),
        "flood" => (0..100_000).for_each(|_| log::emit(log::Level::Warn, &"flood ".repeat(1000))),
        "ask-name" => return ask("https://elsewhere.example.com/".into()),
        "ask-address" => return ask(format!("https://[::1]:{port}/")),
        "ask-mapped" => return ask(format!("https://[::ffff:127.0.0.1]:{port}/")),
        "ask-user" => return ask(format!("https://{host}@elsewhere.example.com/")),
        "redirect" => return ask(format!("https://{host}/redirect")),
        "climb" => return read("../secret"),
        "absolute" => return read("/etc/passwd"),
        "link" => return read("link"),
        _ => {}
    }
    Ok(())
}

impl references::Guest for Hostile {
    fn parse(
        _scheme: String,
        rest: String,
        _pattern: bool,
        _registries: Vec<String>,
    ) -> Result<Parsed, Error> {
        let (rest, tag) = rest.rsplit_once(':').ok_or_else(|| Error::Invalid("no tag".into()))?;
        let (host, deed) = rest.split_once('/').ok_or_else(|| Error::Invalid("no deed".into()))?;
        let is_file = matches!(deed, "climb" | "absolute" | "link");
        Ok(Parsed {
            location: rest.into(),
            repository: deed.into(),
            reference: Some(tag.into()),
            root: is_file.then(|| Root::Folder("place".into())),
            host: Some(host.into()),
            private: false,
            separate_blobs: false,
            extra: Vec::new(),
        })
    }
}

impl catalog::Guest for Hostile {
    fn repositories(_location: String, _next: Option<String>) -> Result<Page, Error> {
        Ok(Page { names: Vec::new(), next: None })
    }

    fn tags(_location: String, _repository: String, _next: Option<String>) -> Result<Page, Error> {
        Ok(Page { names: vec!["1".into()], next: None })
    }

    fn resolve(
        location: String,
        _repository: String,
        _reference: Option<String>,
        _known: Option<String>,
    ) -> Result<Found, Error> {
        if matches!(location.rsplit('/').next(), Some("upload" | "steps" | "state")) {
            return Ok(Found::Absent);
        }
        Ok(Found::Manifest(unsigned("application/vnd.oci.image.manifest.v1+json", manifest())))
    }
}

impl source::Guest for Hostile {
    fn fetch(_location: String, _repository: String, _reference: Option<String>) -> Result<Manifest, Error> {
        Ok(unsigned("application/vnd.oci.image.manifest.v1+json", manifest()))
    }

    fn referrers(
        _location: String,
        _repository: String,
        _subject: String,
        _next: Option<String>,
    ) -> Result<ReferrersPage, Error> {
        Ok(ReferrersPage { descriptors: Vec::new(), next: None })
    }

    fn locate(location: String, _repository: String, blob: Descriptor) -> Result<Vec<Segment>, Error> {
        let (host, deed) = location.split_once('/').unwrap_or((&location, ""));
        Ok(match deed {
            "segments" => (0..200_000).map(|_| Segment::Inline(Vec::new())).collect(),
            "fetch" => vec![Segment::Http(get("https://elsewhere.example.com/".into()))],
            "endless" => vec![Segment::Http(get(format!("https://{host}/endless")))],
            "wrong" => vec![Segment::Inline(vec![b'x'; blob.size as usize])],
            _ => {
                self::deed(&location)?;
                vec![Segment::Inline(if blob.digest == sha256(LAYER) { LAYER.into() } else { CONFIG.into() })]
            }
        })
    }
}

impl sink::Guest for Hostile {
    fn get_capabilities(_location: String) -> Capabilities {
        Capabilities {
            exclusive: false,
            mount: false,
            sparse: None,
            shared: false,
            many: true,
            signatures: false,
            holds: None,
            extra: Vec::new(),
        }
    }

    /// It never says that it has the blob.
    fn store_blob(
        location: String,
        _repository: String,
        _incoming: Incoming,
        _state: Option<Vec<u8>>,
        _last: Option<Outcome>,
    ) -> Result<NextStep, Error> {
        let (host, deed) = location.split_once('/').unwrap_or((&location, ""));
        let mut request = get(format!("https://{host}/upload"));
        request.expect = vec![200, 202];
        let state = if deed == "state" { vec![0; 1 << 20] } else { Vec::new() };
        let step = match deed {
            "upload" => {
                request.method = "PUT".into();
                Step::Send(Sending { request, offset: 0, length: None })
            }
            _ => ask(request),
        };
        Ok(NextStep { step, state })
    }

    fn publish(
        _location: String,
        _repository: String,
        _digest: String,
        _manifest: Manifest,
        _naming: Naming,
    ) -> Result<(), Error> {
        Ok(())
    }

    fn finish(_location: String, _alone: bool) -> Result<(), Error> {
        Ok(())
    }
}

dray_plugin_transport::lists_names!(Hostile);
dray_plugin_transport::prepares_nothing!(Hostile);
dray_plugin_transport::removes_nothing!(Hostile, "it never removes anything");
export!(Hostile with_types_in dray_plugin_transport);
