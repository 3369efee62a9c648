//! The Engine API of a Docker daemon (Docker Engine API 1.41: /images).

use dray_plugin_transport::tagged;
use dray_plugin_transport::{
    Error,
    dray::plugin::{
        http,
        types::{Request, Response},
        writing,
    },
};
use serde::Deserialize;

fn request(method: &str, path: &str, expect: &[u16]) -> Request {
    Request {
        extra: Vec::new(),
        method: method.into(),
        url: format!("https://docker-daemon{path}"),
        headers: Vec::new(),
        expect: expect.to_vec(),
        access: Vec::new(),
    }
}

fn get(path: &str, expect: &[u16]) -> Result<Response, Error> {
    http::send(&request("GET", path, expect), &[])
}

/// Percent-encodes the characters that a query may not contain (RFC 3986, 2.3).
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The name by which the daemon knows an image.
pub fn name(repository: &str, reference: Option<&str>) -> String {
    match (repository, reference) {
        ("", Some(id)) => id.into(),
        (repository, tag) => format!("{repository}:{}", tag.unwrap_or("latest")),
    }
}

/// The ID of an image. `None` means that the image does not exist.
pub fn id(name: &str) -> Result<Option<String>, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Image {
        id: String,
    }
    let response = get(&format!("/images/{name}/json"), &[200, 404])?;
    if response.status == 404 {
        return Ok(None);
    }
    let image: Image = serde_json::from_slice(&response.body).map_err(strange)?;
    Ok(Some(image.id))
}

/// All repositories and tags that the daemon holds, with their full names.
pub fn names() -> Result<Vec<(String, String)>, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Image {
        repo_tags: Option<Vec<String>>,
    }
    let images: Vec<Image> = serde_json::from_slice(&get("/images/json", &[200])?.body).map_err(strange)?;
    let names = images.into_iter().flat_map(|image| image.repo_tags.unwrap_or_default());
    Ok(names.filter(|name| name != "<none>:<none>").map(|name| tagged(&name)).collect())
}

/// Makes the daemon save an image. Returns the folder that then holds the archive.
pub fn save(name: &str) -> Result<String, Error> {
    let folder = encode(name);
    http::download(&request("GET", &format!("/images/get?names={folder}"), &[200]), &folder)?;
    Ok(folder)
}

/// Makes the daemon load the archive that was written.
pub fn load() -> Result<(), Error> {
    let mut post = request("POST", "/images/load?quiet=1", &[200]);
    post.headers.push(("content-type".into(), "application/x-tar".into()));
    let response = writing::send_archive(&post)?;
    match refusal(&response.body) {
        Some(why) => Err(Error::Invalid(format!("the daemon could not load the images: {why}"))),
        None => Ok(()),
    }
}

/// The error in the daemon's answer to a load. The answer is a stream of JSON objects, and one with an error
/// says why nothing was loaded.
fn refusal(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Message {
        error: Option<String>,
    }
    let messages = serde_json::Deserializer::from_slice(body).into_iter::<Message>();
    messages.map_while(Result::ok).find_map(|message| message.error)
}

fn strange(error: serde_json::Error) -> Error {
    Error::Invalid(format!("the daemon's answer is not what the Engine API says: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_stand_in_the_stream() {
        let body = br#"{"stream":"Loaded image: a\n"}
{"errorDetail":{"message":"no space"},"error":"no space"}"#;
        assert_eq!(refusal(body).as_deref(), Some("no space"));
        assert_eq!(refusal(br#"{"stream":"Loaded image: a\n"}"#), None);
        assert_eq!(encode("r.example:5000/a:1"), "r.example%3A5000%2Fa%3A1");
    }
}
