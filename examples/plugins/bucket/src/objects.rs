//! The objects of a bucket: small requests to them (Amazon S3 API reference, 2006-03-01).

use dray_plugin::encoded;
use dray_plugin_transport::{
    Error,
    dray::plugin::{
        http, settings,
        types::{Access, Request, Response},
    },
};
use serde::Deserialize;

/// `[plugin.bucket.config]` of the policy.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    anonymous: bool,
}

/// A layout in a bucket, and the repository for which it is asked.
#[derive(Clone, Copy)]
pub struct Objects<'a> {
    /// `host[:port]/path`, where the path begins with the name of the bucket unless the host has it.
    pub location: &'a str,
    pub repository: &'a str,
}

/// What became of a write that depends on what is there.
#[derive(Debug, PartialEq)]
pub enum Written {
    Yes,
    /// Another writer was faster.
    Raced,
}

impl Objects<'_> {
    /// The address of an object. `query` begins with a question mark, or is empty.
    fn url(&self, key: &str, query: &str) -> String {
        let (host, path) = self.location.split_once('/').unwrap_or((self.location, ""));
        let path: Vec<String> = path.split('/').chain(key.split('/')).map(encoded).collect();
        format!("https://{host}/{}{query}", path.join("/"))
    }

    /// A request that an auth provider signs, unless everybody may send it.
    pub fn request(&self, method: &str, key: &str, query: &str, expect: &[u16]) -> Result<Request, Error> {
        let config: Config = dray_plugin_transport::config(&settings::get())?;
        let action = if config.anonymous { "none" } else { "sign" };
        Ok(Request {
            method: method.into(),
            url: self.url(key, query),
            headers: Vec::new(),
            expect: expect.into(),
            access: vec![Access { repository: self.repository.into(), actions: vec![action.into()] }],
            extra: Vec::new(),
        })
    }

    /// Sends a request. A bucket that does not exist is a mistake, and not an empty layout.
    fn send(&self, request: Request, content: &[u8]) -> Result<Response, Error> {
        let response = http::send(&request, content)?;
        match element(&response.body, "Code").as_deref() {
            Some("NoSuchBucket") if response.status == 404 => {
                Err(Error::NotFound(format!("find the bucket of {}: make it first", self.location)))
            }
            _ => Ok(response),
        }
    }

    /// The content of a small object. `None` means that there is no such object.
    pub fn get(&self, key: &str) -> Result<Option<Response>, Error> {
        let response = self.send(self.request("GET", key, "", &[200, 404])?, b"")?;
        Ok((response.status == 200).then_some(response))
    }

    /// Whether there is an object.
    pub fn has(&self, key: &str) -> Result<bool, Error> {
        Ok(http::send(&self.request("HEAD", key, "", &[200, 404])?, b"")?.status == 200)
    }

    /// Writes a small object, whatever was there.
    pub fn put(&self, key: &str, content: &[u8]) -> Result<(), Error> {
        http::send(&self.request("PUT", key, "", &[200])?, content).map(drop)
    }

    /// Writes a small object if it is still as it was seen: `etag` of that answer, or `None` if there was none ("Conditional
    /// writes").
    pub fn replace(&self, key: &str, etag: Option<&str>, content: &[u8]) -> Result<Written, Error> {
        let mut request = self.request("PUT", key, "", &[200, 404, 409, 412, 501])?;
        request.headers.push(match etag {
            Some(etag) => ("if-match".into(), etag.into()),
            None => ("if-none-match".into(), "*".into()),
        });
        match self.send(request, content)?.status {
            200 => Ok(Written::Yes),
            501 => Err(Error::Unsupported(format!(
                "write {key}: this store has no conditional writes, so writers could lose each other's tags"
            ))),
            // 404 tells that the object was deleted meanwhile.
            _ => Ok(Written::Raced),
        }
    }
}

/// The text of an element of an answer.
pub fn element(body: &[u8], name: &str) -> Option<String> {
    dray_plugin::element(&String::from_utf8_lossy(body), name).map(unescaped)
}

/// A text without the escapes of XML that stand in ETags and identifiers (XML 1.0, 4.6).
fn unescaped(text: &str) -> String {
    [
        ("&quot;", "\""),
        ("&#34;", "\""),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&apos;", "'"),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (escape, character)| text.replace(escape, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_leads_elsewhere() {
        let objects = Objects { location: "s3.example:9000/b/a b?c", repository: "x" };
        assert_eq!(
            objects.url("index.json", "?uploads="),
            "https://s3.example:9000/b/a%20b%3Fc/index.json?uploads="
        );
    }

    #[test]
    fn elements_are_read() {
        let body = b"<?xml version=\"1.0\"?><R><UploadId>a&amp;b</UploadId><E/></R>";
        assert_eq!(element(body, "UploadId").as_deref(), Some("a&b"));
        assert_eq!(element(body, "Code"), None);
    }
}
