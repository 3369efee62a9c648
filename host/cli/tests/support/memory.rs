//! A registry in memory (distribution specification 1.1), of which a test makes up single answers: what it does not
//! answer itself, the registry answers as the specification wants it.

use super::{Fake, respond};
use dray_core::Digest;
use std::{
    collections::BTreeMap,
    io::Write,
    net::TcpStream,
    sync::{Arc, Mutex},
};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What the registry holds.
#[derive(Default)]
pub struct Held {
    /// By repository and digest.
    pub blobs: BTreeMap<(String, String), Vec<u8>>,
    /// By repository and tag or digest: type and bytes.
    pub manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    uploads: BTreeMap<String, Vec<u8>>,
    begun: usize,
}

/// One request.
pub struct Asked<'a> {
    pub method: &'a str,
    /// With its query.
    pub path: &'a str,
    /// The request line and the headers.
    pub head: &'a str,
    pub body: &'a [u8],
}

/// An answer: status line, headers, body.
pub type Reply = (&'static str, String, Vec<u8>);

#[derive(Clone)]
pub struct Memory {
    pub held: Arc<Mutex<Held>>,
    fake: Arc<Fake>,
}

pub fn reply(status: &'static str) -> Option<Reply> {
    Some((status, String::new(), Vec::new()))
}

impl Memory {
    pub fn start() -> Self {
        Self::odd(|_, _| None)
    }

    /// A registry some of whose answers are made up.
    pub fn odd(quirk: impl Fn(&Asked, &Mutex<Held>) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let held = Arc::new(Mutex::new(Held::default()));
        let shared = held.clone();
        let fake = Fake::start_raw(move |head, body, stream| {
            let mut words = head.split(' ');
            let (method, path) = (words.next().unwrap(), words.next().unwrap());
            let asked = Asked { method, path, head, body };
            let (status, headers, body) = match quirk(&asked, &shared) {
                Some(reply) => reply,
                None => shared.lock().unwrap().usual(&asked),
            };
            answer(stream, method, status, &headers, &body);
        });
        Memory { held, fake: Arc::new(fake) }
    }

    pub fn host(&self) -> &str {
        &self.fake.host
    }

    /// Method and path of each request, in order.
    pub fn asked(&self) -> Vec<String> {
        let line = |head: &String| head.split(' ').take(2).collect::<Vec<_>>().join(" ");
        self.fake.requests().iter().map(line).collect()
    }

    /// The request line and the headers of each request.
    pub fn heads(&self) -> Vec<String> {
        self.fake.requests()
    }

    /// So many requests begin so.
    pub fn count(&self, beginning: &str) -> usize {
        self.asked().iter().filter(|asked| asked.starts_with(beginning)).count()
    }

    pub fn put(&self, repository: &str, reference: &str, media_type: &str, body: &[u8]) -> String {
        let digest = Digest::of(body).to_string();
        let mut held = self.held.lock().unwrap();
        for reference in [reference, &digest] {
            held.manifests.insert((repository.into(), reference.into()), (media_type.into(), body.into()));
        }
        digest
    }

    pub fn blob(&self, repository: &str, content: &[u8]) -> String {
        let digest = Digest::of(content).to_string();
        self.held.lock().unwrap().blobs.insert((repository.into(), digest.clone()), content.into());
        digest
    }

    /// An image of one layer, which has this content; its digest.
    pub fn image(&self, repository: &str, tag: &str, layer: &[u8]) -> String {
        self.image_with(repository, tag, layer, "")
    }

    /// An image with further fields in its manifest.
    pub fn image_with(&self, repository: &str, tag: &str, layer: &[u8], more: &str) -> String {
        let plain = Digest::of(layer);
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","created":"2024-05-01T10:00:00Z","rootfs":{{"type":"layers","diff_ids":["{plain}"]}}}}"#
        );
        let (config_digest, layer_digest) =
            (self.blob(repository, config.as_bytes()), self.blob(repository, layer));
        let body = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}",{more}"config":{{"mediaType":"{CONFIG}","digest":"{config_digest}","size":{}}},"layers":[{{"mediaType":"{LAYER}","digest":"{layer_digest}","size":{}}}]}}"#,
            config.len(),
            layer.len()
        );
        self.put(repository, tag, MANIFEST, body.as_bytes())
    }

    pub fn has(&self, repository: &str, reference: &str) -> bool {
        self.held.lock().unwrap().manifests.contains_key(&(repository.into(), reference.into()))
    }
}

pub fn answer(stream: &mut TcpStream, method: &str, status: &str, headers: &str, body: &[u8]) {
    if method != "HEAD" {
        return respond(stream, status, headers, body);
    }
    let length = match headers.to_lowercase().contains("content-length:") {
        true => String::new(),
        false => format!("Content-Length: {}\r\n", body.len()),
    };
    // A client that went away is the test's business.
    let _ = stream.write_all(format!("HTTP/1.1 {status}\r\n{headers}{length}\r\n").as_bytes());
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

impl Held {
    /// The answer to `DELETE` of a manifest by its digest: it goes, with all of its tags. `None` means another request.
    pub fn deleted(&mut self, asked: &Asked) -> Option<Reply> {
        let (repository, digest) = asked.path.strip_prefix("/v2/")?.split_once("/manifests/")?;
        if asked.method != "DELETE" || !digest.contains(':') {
            return None;
        }
        let before = self.manifests.len();
        let named = |body: &[u8]| Digest::of(body).to_string() == digest;
        self.manifests.retain(|(of, _), (_, body)| of != repository || !named(body));
        let is_gone = self.manifests.len() < before;
        reply(if is_gone { "202 Accepted" } else { "404 Not Found" })
    }

    /// The answer of a registry that does as the specification says.
    pub fn usual(&mut self, asked: &Asked) -> Reply {
        let missing =
            || ("404 Not Found", String::new(), br#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#.to_vec());
        let (path, query) = asked.path.split_once('?').unwrap_or((asked.path, ""));
        let Some(path) = path.strip_prefix("/v2/") else { return missing() };
        if path.is_empty() {
            return ("200 OK", String::new(), b"{}".to_vec());
        }
        if let Some(repository) = path.strip_suffix("/tags/list") {
            let tags =
                self.manifests.keys().filter(|(of, reference)| of == repository && !reference.contains(':'));
            let tags: Vec<&str> = tags.map(|(_, tag)| tag.as_str()).collect();
            let body = serde_json::json!({ "name": repository, "tags": tags }).to_string();
            return ("200 OK", "Content-Type: application/json\r\n".into(), body.into_bytes());
        }
        if let Some((repository, reference)) = path.split_once("/manifests/") {
            return self.manifest(asked, repository, reference);
        }
        if let Some((repository, rest)) = path.split_once("/blobs/uploads/") {
            return self.upload(asked, repository, rest, query);
        }
        if let Some((repository, digest)) = path.split_once("/blobs/") {
            return match self.blobs.get(&(repository.into(), digest.into())) {
                Some(blob) => ("200 OK", format!("Docker-Content-Digest: {digest}\r\n"), blob.clone()),
                None => missing(),
            };
        }
        missing()
    }

    fn manifest(&mut self, asked: &Asked, repository: &str, reference: &str) -> Reply {
        let key = (repository.to_owned(), reference.to_owned());
        if asked.method == "PUT" {
            let given =
                asked.head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
            let digest = Digest::of(asked.body).to_string();
            for key in [key, (repository.to_owned(), digest.clone())] {
                self.manifests.insert(key, (given.trim().to_owned(), asked.body.to_vec()));
            }
            return ("201 Created", format!("Docker-Content-Digest: {digest}\r\n"), Vec::new());
        }
        match self.manifests.get(&key) {
            None => ("404 Not Found", String::new(), Vec::new()),
            Some((media_type, body)) => {
                let digest = Digest::of(body);
                let headers = format!("Content-Type: {media_type}\r\nDocker-Content-Digest: {digest}\r\n");
                ("200 OK", headers, body.clone())
            }
        }
    }

    fn upload(&mut self, asked: &Asked, repository: &str, id: &str, query: &str) -> Reply {
        if asked.method == "POST" {
            let from = parameter(query, "from")
                .map(|from| (from.to_owned(), parameter(query, "mount").unwrap_or_default().to_owned()));
            if let Some(blob) = from.and_then(|from| self.blobs.get(&from).cloned()) {
                let digest = Digest::of(&blob).to_string();
                self.blobs.insert((repository.into(), digest), blob);
                return ("201 Created", String::new(), Vec::new());
            }
            self.begun += 1;
            let id = format!("u{}", self.begun);
            self.uploads.insert(id.clone(), Vec::new());
            return (
                "202 Accepted",
                format!("Location: /v2/{repository}/blobs/uploads/{id}?_state=x\r\n"),
                Vec::new(),
            );
        }
        let Some(upload) = self.uploads.get_mut(id) else {
            return ("404 Not Found", String::new(), Vec::new());
        };
        upload.extend(asked.body);
        let headers = format!(
            "Location: /v2/{repository}/blobs/uploads/{id}?_state=x\r\nRange: 0-{}\r\n",
            upload.len().saturating_sub(1)
        );
        if asked.method != "PUT" {
            return ("202 Accepted", headers, Vec::new());
        }
        let digest = Digest::of(upload).to_string();
        if parameter(query, "digest") != Some(&digest) {
            return ("400 Bad Request", String::new(), br#"{"errors":[{"code":"DIGEST_INVALID"}]}"#.to_vec());
        }
        let content = self.uploads.remove(id).unwrap();
        self.blobs.insert((repository.into(), digest), content);
        ("201 Created", String::new(), Vec::new())
    }
}
