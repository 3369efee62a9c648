//! Requests and answers of the distribution specification.

use super::*;
use dray_plugin_transport::dray::plugin::http;
pub use dray_plugin_transport::header;
use serde::de::DeserializeOwned;

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The Accept header: every manifest type that dray understands, and with low priority any other.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.artifact.manifest.v1+json, */*;q=0.1";

/// The fields of a manifest that this plugin reads.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Media {
    pub subject: Option<Digested>,
    pub artifact_type: Option<String>,
    pub config: Option<Typed>,
    pub annotations: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Deserialize)]
pub struct Digested {
    pub digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Typed {
    pub media_type: String,
}

/// The error document of a registry (3.6).
#[derive(Deserialize)]
struct Errors {
    errors: Vec<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    detail: serde_json::Value,
}

pub fn to(location: &str, path: &str) -> String {
    format!("https://{}/v2/{path}", name::api_host(location))
}

pub fn request(method: &str, url: String, expect: &[u16], access: &[Access]) -> Request {
    Request {
        extra: Vec::new(),
        method: method.into(),
        url,
        headers: Vec::new(),
        expect: expect.into(),
        access: access.into(),
    }
}

pub fn pull(repository: &str) -> Access {
    Access { repository: repository.into(), actions: vec!["pull".into()] }
}

pub fn push(repository: &str) -> Access {
    Access { repository: repository.into(), actions: vec!["pull".into(), "push".into()] }
}

pub fn accept() -> (String, String) {
    ("accept".into(), MANIFESTS.into())
}

pub fn send(request: Request, body: &[u8]) -> Result<Response, Error> {
    http::send(&request, body)
}

/// A media type without its parameters: `application/json; charset=utf-8` becomes `application/json`.
pub fn without_parameters(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().into()
}

pub fn json<T: DeserializeOwned>(response: &Response) -> Result<T, Error> {
    serde_json::from_slice(&response.body).map_err(|error| {
        Error::Invalid(format!("the answer of {} is not what the specification says: {error}", response.url))
    })
}

pub fn needed(reference: Option<String>) -> Result<String, Error> {
    reference.ok_or_else(|| Error::Invalid("a registry's image needs a tag or a digest".into()))
}

/// The URL of the next page: the Link header of RFC 8288 with `rel="next"`, made absolute. A link without
/// `rel` counts as one, because the first versions of distribution wrote no `rel`.
pub fn next_page(response: &Response) -> Result<Option<String>, Error> {
    let mut next = None;
    for (_, value) in response.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case("link")) {
        let mut rest = value.trim_matches([' ', '\t', ',']);
        while !rest.is_empty() {
            let link = match rest.strip_prefix('<') {
                Some(rest) => rest.split_once('>'),
                // The link lacks the brackets that it should have.
                None => Some(rest.split_at(rest.find([';', ' ']).unwrap_or(rest.len())))
                    .filter(|(target, _)| target.contains("://") || target.contains('?')),
            };
            let Some((target, behind)) = link else {
                return Err(Error::Invalid(format!("{} sent a malformed Link header", response.url)));
            };
            let (relations, behind) = relations(behind);
            let is_next = match &relations {
                None => next.is_none(),
                Some(relations) => {
                    relations.split_ascii_whitespace().any(|rel| rel.eq_ignore_ascii_case("next"))
                }
            };
            if is_next && !target.trim().is_empty() {
                next = Some(absolute(&response.url, target.trim())?);
            }
            rest = behind.trim_start_matches([' ', '\t', ',']);
        }
    }
    Ok(next)
}

/// The `rel` among the parameters of a link, and the text after them, which may be another link.
fn relations(text: &str) -> (Option<String>, &str) {
    let mut relations = None;
    let mut rest = text.trim_start();
    while let Some(parameter) = rest.strip_prefix(';') {
        let parameter = parameter.trim_start();
        let end = parameter.find(['=', ';', ',']).unwrap_or(parameter.len());
        let (key, behind) = parameter.split_at(end);
        let Some(value) = behind.strip_prefix('=') else {
            rest = behind;
            continue;
        };
        let value = value.trim_start();
        let (value, behind) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => value.split_at(value.find([';', ',']).unwrap_or(value.len())),
        };
        if key.trim().eq_ignore_ascii_case("rel") && relations.is_none() {
            relations = Some(value.trim().to_owned());
        }
        rest = behind.trim_start();
    }
    (relations, rest)
}

/// Resolves a Location or Link relative to the URL of the answer. The query of the target is opaque and stays
/// as it is.
pub fn absolute(base: &str, target: &str) -> Result<String, Error> {
    let scheme = target.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    if matches!(scheme.as_deref(), Some("https" | "http")) {
        return Ok(target.into());
    }
    let broken = || Error::Invalid(format!("{base} answered with the malformed address {target}"));
    let (scheme, rest) = base.split_once("://").ok_or_else(broken)?;
    if let Some(rest) = target.strip_prefix("//") {
        return Ok(format!("{scheme}://{rest}"));
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    if target.starts_with('/') {
        return Ok(format!("{scheme}://{host}{target}"));
    }
    let path = path.split('?').next().unwrap_or_default();
    if target.starts_with('?') {
        return Ok(format!("{scheme}://{host}{path}{target}"));
    }
    let folder = path.rfind('/').map_or("", |slash| &path[..slash]);
    Ok(format!("{scheme}://{host}{folder}/{target}"))
}

pub fn put_manifest(
    location: &str,
    repository: &str,
    reference: &str,
    manifest: &Manifest,
) -> Result<Response, Error> {
    name::check_reference(reference)?;
    let url = to(location, &format!("{repository}/manifests/{reference}"));
    // Quay answers 202 (reference: Harbor's adapter for it). 400 and 404 say what is missing.
    let mut put = request("PUT", url, &[200, 201, 202, 204, 400, 404], &[push(repository)]);
    put.headers.push(("content-type".into(), manifest.media_type.clone()));
    let response = send(put, &manifest.body)?;
    if response.status < 300 { Ok(response) } else { Err(refusal(&response)) }
}

/// The answer of a registry, for people.
pub fn told(response: &Response) -> String {
    let faults = serde_json::from_slice::<Errors>(&response.body).map(|errors| errors.errors);
    let told: Vec<String> =
        faults.unwrap_or_default().iter().map(|fault| format!("{}: {}", fault.code, fault.message)).collect();
    let text = format!("{} answered {} {}", response.url, response.status, told.join("; "));
    text.trim_end().to_owned()
}

/// The error for a refusal of a manifest.
fn refusal(response: &Response) -> Error {
    let faults = serde_json::from_slice::<Errors>(&response.body).map(|errors| errors.errors);
    let faults = faults.unwrap_or_default();
    let unknown = faults.iter().filter(|fault| {
        matches!(fault.code.as_str(), "MANIFEST_BLOB_UNKNOWN" | "MANIFEST_UNKNOWN" | "BLOB_UNKNOWN")
    });
    let missing: Vec<String> = unknown
        // The detail is an object with the digest, or the digest itself (docker-registry 2.8 knows both).
        .map(|fault| fault.detail.get("Digest").or(fault.detail.get("digest")).unwrap_or(&fault.detail))
        .map(|digest| digest.as_str().unwrap_or_default().into())
        .collect();
    if !missing.is_empty() {
        return Error::Missing(missing);
    }
    let text = told(response);
    if response.status == 404 { Error::NotFound(text) } else { Error::Invalid(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(headers: &[(&str, &str)]) -> Response {
        Response {
            status: 200,
            headers: headers.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            body: Vec::new(),
            url: "https://r.example/v2/a/tags/list?n=1000".into(),
        }
    }

    #[test]
    fn follows_links_however_they_are_written() {
        let next = |link: &str| next_page(&response(&[("link", link)])).unwrap();
        let expected = Some("https://r.example/v2/a/tags/list?last=b&n=1".to_owned());
        assert_eq!(next(r#"</v2/a/tags/list?last=b&n=1>; rel="next""#), expected);
        assert_eq!(next("<https://r.example/v2/a/tags/list?last=b&n=1>;rel=next"), expected);
        assert_eq!(next("<?last=b&n=1>; rel=next"), expected);
        assert_eq!(next(r#"</v2/a/tags/list>; rel="prev""#), None);
        let two = r#"</v2/first>; rel="first"; title="a, <b>; rel=next", </v2/a/tags/list?last=b&n=1>; x; REL=Next"#;
        assert_eq!(next(two), expected);
        assert_eq!(next("</v2/a/tags/list?last=b&n=1>"), expected);
        assert_eq!(next(r#"</v2/a/tags/list?last=b&n=1>; rel="prev next""#), expected);
        for end in ["", " , ", "<>; rel=next", "<>"] {
            assert_eq!(next(end), None, "{end}");
        }
        assert!(next_page(&response(&[("link", "</v2/broken")])).is_err());
    }

    #[test]
    fn a_refusal_names_what_is_missing() {
        let mut refused = response(&[]);
        refused.status = 400;
        refused.body =
            br#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"","detail":{"digest":"sha256:ab"}}]}"#
                .to_vec();
        assert_eq!(refusal(&refused), Error::Missing(vec!["sha256:ab".into()]));
        refused.body = br#"{"errors":[{"code":"DIGEST_INVALID","message":"","detail":null},{"code":"MANIFEST_BLOB_UNKNOWN","message":"","detail":"sha256:cd"}]}"#.to_vec();
        assert_eq!(refusal(&refused), Error::Missing(vec!["sha256:cd".into()]));
    }
}
