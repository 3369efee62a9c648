//! Checks the signatures of requests to clouds' APIs, independently of the plugins that made them.

use super::{harbor::header, memory::Asked};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// How a cloud signs: the name of the algorithm, what precedes the secret, and how the key is derived.
pub struct Scheme<'a> {
    pub algorithm: &'a str,
    pub prefix: &'a str,
    pub secret: &'a str,
    /// The time as the signed text has it. `None` means that it has none.
    pub time: Option<&'a str>,
    pub scope: &'a [&'a str],
    /// Whether the path in the signed text ends in a slash, whatever was sent.
    pub slash: bool,
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn field<'a>(authorization: &'a str, name: &str) -> &'a str {
    authorization.split_once(&format!("{name}=")).unwrap().1.split([',', ' ']).next().unwrap()
}

impl Scheme<'_> {
    /// Whether a request has the right signature, over these headers.
    pub fn signed(&self, asked: &Asked, headers: &str) -> bool {
        let authorization = header(asked, "authorization").unwrap_or_default();
        if !authorization.starts_with(self.algorithm) || field(authorization, "SignedHeaders") != headers {
            return false;
        }
        let (path, query) = asked.path.split_once('?').unwrap_or((asked.path, ""));
        let slash = if self.slash && !path.ends_with('/') { "/" } else { "" };
        let lines: String =
            headers.split(';').map(|name| format!("{name}:{}\n", header(asked, name).unwrap())).collect();
        let body = hex::encode(Sha256::digest(asked.body));
        let canonical = format!("{}\n{path}{slash}\n{query}\n{lines}\n{headers}\n{body}", asked.method);
        let mut text = format!("{}\n", self.algorithm);
        for line in self.time.map(str::to_owned).into_iter().chain([self.scope.join("/")]) {
            if !line.is_empty() {
                text += &format!("{line}\n");
            }
        }
        text += &hex::encode(Sha256::digest(canonical));
        let first = format!("{}{}", self.prefix, self.secret).into_bytes();
        let key = self.scope.iter().fold(first, |key, part| mac(&key, part));
        field(authorization, "Signature") == hex::encode(mac(&key, &text))
    }
}
