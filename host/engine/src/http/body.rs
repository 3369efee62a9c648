//! Answers of a registry: reads them into memory, and extracts the reason of a refusal.

use super::{
    guard::redacted,
    retry::{self, IDLE},
};
use crate::{DOCUMENT_LIMIT, Error, Result, contract::Response};
use bytes::{Bytes, BytesMut};
use reqwest::header::{self, HeaderMap};
use serde::Deserialize;
use std::io::Read;

/// Reads an answer into memory. Fails if it is longer than `limit` bytes.
pub(super) async fn bounded(mut response: reqwest::Response, limit: usize) -> Result<Bytes> {
    let shown = redacted(response.url());
    let too_long = || Error::corrupt(format!("read the answer of {shown}: it is longer than {limit} bytes"));
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(too_long());
    }
    let mut body = BytesMut::new();
    loop {
        let chunk = tokio::time::timeout(IDLE, response.chunk()).await;
        let chunk = chunk.map_err(|_| Error::transient(format!("read the answer of {shown}: it stalled")))?;
        match chunk.map_err(|error| {
            Error::transient(format!("read the answer of {shown}: {}", retry::root_cause(&error)))
        })? {
            Some(chunk) if body.len() + chunk.len() > limit => return Err(too_long()),
            Some(chunk) => body.extend_from_slice(&chunk),
            None => return Ok(body.freeze()),
        }
    }
}

/// The error document of a registry (distribution specification, "Error Codes").
#[derive(Deserialize)]
struct Faults {
    errors: Vec<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    code: Option<String>,
    message: Option<String>,
}

/// Removes a content encoding that was not requested: some proxies compress all the same. Fails if the encoding is
/// unknown, or if the body cannot be decompressed.
pub(super) fn decoded(headers: &HeaderMap, body: Bytes) -> Result<Bytes, String> {
    let encoding =
        headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(body),
        _ if body.is_empty() => Ok(body),
        "gzip" | "x-gzip" => {
            let mut plain = Vec::new();
            let mut reader = flate2::read::MultiGzDecoder::new(&body[..]).take(DOCUMENT_LIMIT as u64 + 1);
            reader.read_to_end(&mut plain).map_err(|error| format!("it is no gzip as it says: {error}"))?;
            match plain.len() > DOCUMENT_LIMIT {
                true => Err(format!("it decompresses to more than {DOCUMENT_LIMIT} bytes")),
                false => Ok(plain.into()),
            }
        }
        other => Err(format!("it is compressed with {other}, for which nobody asked")),
    }
}

/// Maximum length of an explanation, in characters.
const MOST: usize = 400;

/// The reason that a registry gives for a refusal: its error codes, or else the beginning of its answer.
pub(super) async fn explanation(response: reqwest::Response) -> String {
    let Ok(body) = bounded(response, 64 << 10).await else { return String::new() };
    explained(&body)
}

/// Describes an answer for people: its address, its status and the reason in its body.
pub(crate) fn told(response: &Response) -> String {
    let said = explained(&response.body);
    let colon = if said.is_empty() { "" } else { ": " };
    // Plugins always write `https`, so the scheme is left out: it may not be the one that was used.
    let shown = response.url.shown();
    let shown = shown.split_once("://").map_or(shown.as_str(), |(_, rest)| rest);
    format!("{shown} answered {}{colon}{said}", response.status)
}

/// Extracts the reason from a body of any kind: the distribution specification's errors, the one-line errors of token
/// servers and gateways, an HTML page, or plain text. The result has at most [`MOST`] characters.
fn explained(body: &[u8]) -> String {
    reason(body).chars().take(MOST).collect()
}

fn reason(body: &[u8]) -> String {
    let joined = |parts: [Option<&str>; 2]| {
        parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
    };
    if let Ok(faults) = serde_json::from_slice::<Faults>(body) {
        let told =
            faults.errors.iter().map(|fault| joined([fault.code.as_deref(), fault.message.as_deref()]));
        return told.filter(|told| !told.is_empty()).collect::<Vec<_>>().join("; ");
    }
    if let Ok(serde_json::Value::Object(object)) = serde_json::from_slice(body) {
        let text = |key: &str| object.get(key).and_then(serde_json::Value::as_str);
        let code = text("error").or(text("code"));
        let told = joined([code, text("error_description").or(text("message")).or(text("details"))]);
        if !told.is_empty() {
            return told;
        }
    }
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let is_page = ["<!doctype html", "<html", "<head", "<body"]
        .iter()
        .any(|tag| text.get(..tag.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(tag)));
    if is_page {
        let title = text.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
        return match title.map(|(title, _)| title.trim()).filter(|title| !title.is_empty()) {
            Some(title) => format!("a page of HTML, with the title {title:?}"),
            None => "a page of HTML".into(),
        };
    }
    let one_line: Vec<&str> = text.split_whitespace().collect();
    one_line.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_unasked_is_decompressed_within_bounds() {
        let encoded = |name: &str, body: &[u8]| {
            let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, name.parse().unwrap())]);
            decoded(&headers, Bytes::copy_from_slice(body))
        };
        let gzip = |content: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, content).unwrap();
            encoder.finish().unwrap()
        };
        assert_eq!(&encoded("gzip", &gzip(b"{}")).unwrap()[..], b"{}");
        assert_eq!(&encoded("identity", b"{}").unwrap()[..], b"{}");
        assert!(encoded("gzip", &gzip(&vec![0; DOCUMENT_LIMIT + 1])).is_err());
        assert!(encoded("gzip", b"{}").is_err() && encoded("br", b"{}").is_err());
    }

    #[test]
    fn reasons_of_every_kind_are_told() {
        for (body, told) in [
            (r#"{"errors":[{"code":"DENIED","message":"no"},{"code":"","message":null}]}"#, "DENIED: no"),
            (r#"{"error":"invalid_scope","error_description":"not for you"}"#, "invalid_scope: not for you"),
            (r#"{"message":"quota exceeded"}"#, "quota exceeded"),
            (
                "<!DOCTYPE html><html><head><title>502 Bad Gateway</title>",
                "a page of HTML, with the title \"502 Bad Gateway\"",
            ),
            ("<html>", "a page of HTML"),
            ("too\n  bad", "too bad"),
            ("", ""),
        ] {
            assert_eq!(explained(body.as_bytes()), told);
        }
    }
}
