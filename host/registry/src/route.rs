//! The addresses that the registry serves ("Endpoints").

use crate::answer::Fault;
use dray_core::Digest;
use std::collections::HashMap;

#[derive(Debug, PartialEq)]
pub enum Route {
    Base,
    Catalog,
    Tags { name: String },
    Manifest { name: String, reference: Reference },
    Blob { name: String, digest: Digest },
    Uploads { name: String },
    Upload { name: String, id: String },
    Referrers { name: String, digest: Digest },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Reference {
    Tag(String),
    Digest(Digest),
}

pub type Query = HashMap<String, String>;

pub fn query(text: Option<&str>) -> Query {
    url::form_urlencoded::parse(text.unwrap_or_default().as_bytes()).into_owned().collect()
}

pub fn parse(path: &str) -> Result<Route, Fault> {
    let path = path.strip_prefix("/v2").ok_or_else(Fault::not_found)?;
    if matches!(path, "" | "/") {
        return Ok(Route::Base);
    }
    if path == "/_catalog" {
        return Ok(Route::Catalog);
    }
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let named = |count: usize| name(&parts[..parts.len() - count]);
    match parts[..] {
        [_, .., "tags", "list"] => Ok(Route::Tags { name: named(2)? }),
        [_, .., "blobs", "uploads"] => Ok(Route::Uploads { name: named(2)? }),
        [_, .., "blobs", "uploads", ""] => Ok(Route::Uploads { name: named(3)? }),
        [_, .., "blobs", "uploads", id] => {
            match id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
                true => Ok(Route::Upload { name: named(3)?, id: id.into() }),
                false => Err(Fault::upload_unknown()),
            }
        }
        [_, .., "blobs", digest] => Ok(Route::Blob { name: named(2)?, digest: self::digest(digest)? }),
        [_, .., "referrers", digest] => {
            Ok(Route::Referrers { name: named(2)?, digest: self::digest(digest)? })
        }
        [_, .., "manifests", reference] => {
            Ok(Route::Manifest { name: named(2)?, reference: self::reference(reference)? })
        }
        _ => Err(Fault::not_found()),
    }
}

pub fn digest(text: &str) -> Result<Digest, Fault> {
    // Some clients escape the colon.
    let text = text.replace("%3A", ":").replace("%3a", ":");
    text.parse().map_err(|error: dray_core::ParseDigestError| Fault::digest_invalid(error.to_string()))
}

fn reference(text: &str) -> Result<Reference, Fault> {
    if text.contains(':') || text.contains("%3A") || text.contains("%3a") {
        return digest(text).map(Reference::Digest);
    }
    if is_tag(text) {
        Ok(Reference::Tag(text.into()))
    } else {
        Err(Fault::manifest_invalid(format!("invalid tag {text}")))
    }
}

/// A tag is `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}` (3.2).
pub fn is_tag(text: &str) -> bool {
    let good = |(at, byte): (usize, u8)| {
        byte.is_ascii_alphanumeric() || byte == b'_' || at > 0 && matches!(byte, b'.' | b'-')
    };
    (1..=128).contains(&text.len()) && text.bytes().enumerate().all(good)
}

fn name(parts: &[&str]) -> Result<String, Fault> {
    let name = parts.join("/");
    if is_name(&name) { Ok(name) } else { Err(Fault::name_invalid(&name)) }
}

/// A name is `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*` (3.2).
pub fn is_name(name: &str) -> bool {
    let plain = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    let component = |component: &str| {
        component.starts_with(plain)
            && component.ends_with(plain)
            && component.split(plain).all(|separator| {
                matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
            })
    };
    name.len() <= 255 && name.split('/').all(component)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let digest: Digest = Digest::of(b"");
        assert_eq!(parse("/v2/").unwrap(), Route::Base);
        assert_eq!(parse("/v2/a/b/tags/list").unwrap(), Route::Tags { name: "a/b".into() });
        assert_eq!(parse("/v2/a/blobs/uploads/").unwrap(), Route::Uploads { name: "a".into() });
        assert_eq!(
            parse(&format!("/v2/a/blobs/{digest}")).unwrap(),
            Route::Blob { name: "a".into(), digest: digest.clone() }
        );
        assert_eq!(
            parse(&format!("/v2/tags/list/manifests/{digest}")).unwrap(),
            Route::Manifest { name: "tags/list".into(), reference: Reference::Digest(digest) }
        );
        for bad in [
            "/v1/",
            "/v2/../x/tags/list",
            "/v2/A/tags/list",
            "/v2/a/blobs/sha256:12",
            "/v2/a/manifests/-x",
            "/v2/a/blobs/uploads/..",
            "/v2/a/b",
            "/v2/_x/tags/list",
            "/v2//tags/list",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
