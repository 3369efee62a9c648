//! Write dialects for dray: what one kind of registry does in another way than the distribution specification, or better.
//!
//! A dialect is a type that implements [`Dialect`] and is handed to [`export!`]. A function that it does not write is not
//! offered, and dray does as the specification says.
#![allow(missing_docs)]

dray_plugin::role!("dialect", "dray_plugin_dialect");

pub use dray_plugin::{encoded, time};

pub use dray::plugin::types::{Access, Request, Response, TagEntry as Entry, TagPage as Page};
pub use dray_plugin::{serde, serde_json};
pub use exports::dray::plugin::{
    registry_dialect::{Guest, Kind},
    registry_knowledge::{Guest as KnowledgeGuest, KnownPage, KnownTag, ScanReport},
    registry_untagged::{Guest as UntaggedGuest, UntaggedManifest, UntaggedPage},
};

use dray::plugin::http;

/// One kind of registry. Every type that implements it can be exported with [`export!`].
pub trait Dialect {
    /// The name that a policy writes in `kind`.
    const NAME: &str;
    /// The version of the plugin.
    const VERSION: &str;
    /// One line for `dray plugin list`.
    const SUMMARY: &str;
    /// JSON Schema of `[plugin.NAME.config]`, which [`settings`] reads.
    const CONFIG_SCHEMA: &str = r#"{"type":"object","additionalProperties":false}"#;

    /// How it is recognised, and what it offers.
    fn kind() -> Kind;

    /// Lists tags with what they name.
    fn tags(_registry: &str, _repository: &str, _next: Option<&str>) -> Result<Page, Error> {
        Err(Error::Unsupported("it lists tags as the specification says".into()))
    }

    /// What it needs of the operator beyond its registry, such as the host of an API.
    fn wishes() -> Vec<Wish> {
        Vec::new()
    }

    /// Makes what must exist before a repository can be written to. Returns for what it exists now: a prefix that ends with a
    /// slash, for all repositories beneath it, or else the repository.
    fn prepare(_registry: &str, repository: &str) -> Result<String, Error> {
        Ok(repository.into())
    }

    /// Tells what the registry knows of the images of a repository.
    fn know(_registry: &str, _repository: &str, _next: Option<&str>) -> Result<KnownPage, Error> {
        Err(Error::Unsupported("it knows nothing of its images".into()))
    }

    /// The latest report of a scanner on an image.
    fn scan(_registry: &str, _repository: &str, _digest: &str) -> Result<Option<ScanReport>, Error> {
        Err(Error::Unsupported("it does not scan images".into()))
    }

    /// Lists the manifests that no tag names.
    fn untagged(_registry: &str, _repository: &str, _next: Option<&str>) -> Result<UntaggedPage, Error> {
        Err(Error::Unsupported("it does not list what has no tag".into()))
    }

    /// Takes a tag away alone.
    fn remove_tag(_registry: &str, _repository: &str, _tag: &str) -> Result<(), Error> {
        Err(Error::Unsupported("it removes tags as the specification says".into()))
    }
}

impl<T: Dialect> Meta for T {
    fn describe() -> Info {
        Info {
            name: T::NAME.into(),
            version: T::VERSION.into(),
            summary: T::SUMMARY.into(),
            schemes: Vec::new(),
            config_schema: T::CONFIG_SCHEMA.into(),
            wishes: T::wishes(),
            extra: Vec::new(),
        }
    }
}

impl<T: Dialect> Guest for T {
    fn describe_kind() -> Kind {
        T::kind()
    }

    fn tags(registry: String, repository: String, next: Option<String>) -> Result<Page, Error> {
        <T as Dialect>::tags(&registry, &repository, next.as_deref())
    }

    fn prepare(registry: String, repository: String) -> Result<String, Error> {
        <T as Dialect>::prepare(&registry, &repository)
    }

    fn remove_tag(registry: String, repository: String, tag: String) -> Result<(), Error> {
        <T as Dialect>::remove_tag(&registry, &repository, &tag)
    }
}

impl<T: Dialect> KnowledgeGuest for T {
    fn know(registry: String, repository: String, next: Option<String>) -> Result<KnownPage, Error> {
        <T as Dialect>::know(&registry, &repository, next.as_deref())
    }

    fn scan(registry: String, repository: String, digest: String) -> Result<Option<ScanReport>, Error> {
        <T as Dialect>::scan(&registry, &repository, &digest)
    }
}

impl<T: Dialect> UntaggedGuest for T {
    fn untagged(registry: String, repository: String, next: Option<String>) -> Result<UntaggedPage, Error> {
        <T as Dialect>::untagged(&registry, &repository, next.as_deref())
    }
}

/// What the operator configured (`[plugin.NAME.config]`).
pub fn settings<T: serde::de::DeserializeOwned>() -> Result<T, Error> {
    config(&dray::plugin::settings::get())
}

/// How a request authenticates itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As<'a> {
    /// With a token for these actions on a repository, as requests of the specification do.
    Token(&'a str, &'a str),
    /// With the user name and the password for a repository.
    Login(&'a str),
    /// With the signature of an auth provider of the registry.
    Signed(&'a str),
    /// Not at all.
    Anybody,
}

/// Sends a request to `https://{registry}{path}`. `expect` are the statuses that are answers.
pub fn ask(method: &str, registry: &str, path: &str, by: As<'_>, expect: &[u16]) -> Result<Response, Error> {
    send(method, registry, path, by, expect, &[], &[])
}

/// As [`ask`], with further headers.
pub fn ask_with(
    method: &str,
    registry: &str,
    path: &str,
    by: As<'_>,
    expect: &[u16],
    headers: &[(String, String)],
) -> Result<Response, Error> {
    send(method, registry, path, by, expect, headers, &[])
}

/// Sends a request with a body in JSON, and further headers.
pub fn post_with(
    registry: &str,
    path: &str,
    by: As<'_>,
    body: &serde_json::Value,
    expect: &[u16],
    headers: &[(String, String)],
) -> Result<Response, Error> {
    send("POST", registry, path, by, expect, headers, body.to_string().as_bytes())
}

/// Sends a request with a body in JSON.
pub fn post(
    registry: &str,
    path: &str,
    by: As<'_>,
    body: &serde_json::Value,
    expect: &[u16],
) -> Result<Response, Error> {
    let headers = [("content-type".to_owned(), "application/json".to_owned())];
    send("POST", registry, path, by, expect, &headers, body.to_string().as_bytes())
}

/// Sends a query as plain text.
pub fn query(registry: &str, path: &str, by: As<'_>, text: &str, expect: &[u16]) -> Result<Response, Error> {
    let headers = [("content-type".to_owned(), "text/plain".to_owned())];
    send("POST", registry, path, by, expect, &headers, text.as_bytes())
}

fn send(
    method: &str,
    registry: &str,
    path: &str,
    by: As<'_>,
    expect: &[u16],
    headers: &[(String, String)],
    body: &[u8],
) -> Result<Response, Error> {
    let (repository, action) = match by {
        As::Token(repository, action) => (repository, action),
        As::Login(repository) => (repository, "login"),
        As::Signed(repository) => (repository, "sign"),
        As::Anybody => ("", "none"),
    };
    let access = vec![Access { repository: repository.into(), actions: vec![action.into()] }];
    let request = Request {
        method: method.into(),
        url: format!("https://{registry}{path}"),
        headers: [&[("accept".to_owned(), "application/json".to_owned())][..], headers].concat(),
        expect: expect.into(),
        access,
        extra: Vec::new(),
    };
    http::send(&request, body)
}

/// Reads an answer in JSON.
pub fn json<T: serde::de::DeserializeOwned>(response: &Response) -> Result<T, Error> {
    serde_json::from_slice(&response.body).map_err(|error| {
        Error::Invalid(format!("the answer of {} is not what its description says: {error}", response.url))
    })
}

/// The most pages of one report. No report has more.
const PAGES: usize = 100;

/// Reads a list page by page. `page` gets what asks for a page, and returns what asks for the next one; `None` means that there is
/// no list. Returns whether there was one. Fails if the list does not end: a report that was read in part may not pass for the
/// whole.
pub fn pages(
    mut page: impl FnMut(Option<&str>) -> Result<Option<Option<String>>, Error>,
) -> Result<bool, Error> {
    let (mut next, mut seen) = (None::<String>, Vec::new());
    for _ in 0..PAGES {
        let Some(more) = page(next.as_deref())? else { return Ok(false) };
        let Some(more) = more else { return Ok(true) };
        if seen.contains(&more) {
            return Err(Error::Invalid("read all pages of a list: one leads back to another".into()));
        }
        seen.push(more.clone());
        next = Some(more);
    }
    Err(Error::Invalid(format!("read all pages of a list: there are more than {PAGES}")))
}

/// The severity of a score of the Common Vulnerability Scoring System (CVSS 3.1, section 5), in the words of the contract.
pub fn by_score(score: f64) -> &'static str {
    match score {
        score if score >= 9.0 => "critical",
        score if score >= 7.0 => "high",
        score if score >= 4.0 => "medium",
        score if score > 0.0 => "low",
        _ => "unknown",
    }
}

/// The path and the query of the next page in a `Link` header (RFC 8288).
pub fn next_link(response: &Response) -> Option<String> {
    let (_, link) = response.headers.iter().find(|(name, _)| name == "link")?;
    let next = link.split(',').find(|link| link.contains("rel=\"next\"") || link.contains("rel=next"))?;
    let target = next.split_once('<')?.1.split_once('>')?.0;
    let path = match target.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/')?..],
        None => target,
    };
    path.starts_with('/').then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_does_not_end_is_no_list() {
        let read = |tokens: &[Option<&str>]| {
            let mut tokens = tokens.iter();
            let one = |_: Option<&str>| Ok(tokens.next().map(|token| token.map(str::to_owned)));
            pages(one)
        };
        assert_eq!(read(&[Some("a"), Some("b"), None]), Ok(true));
        assert_eq!(read(&[]), Ok(false));
        assert!(read(&[Some("a"), Some("b"), Some("a"), None]).is_err());
        let mut number = 0;
        let endless = |_: Option<&str>| {
            number += 1;
            Ok(Some(Some(number.to_string())))
        };
        assert!(pages(endless).is_err());
        assert_eq!([0.0, 3.9, 4.0, 8.9, 9.0].map(by_score), ["unknown", "low", "medium", "high", "critical"]);
    }

    #[test]
    fn links_and_names_are_those_of_the_rfcs() {
        let response = |link: &str| Response {
            status: 200,
            headers: vec![("link".into(), link.into())],
            body: Vec::new(),
            url: String::new(),
        };
        assert_eq!(
            next_link(&response("</a?b=c>; rel=\"next\" , </d>; rel=\"prev\"")),
            Some("/a?b=c".into())
        );
        assert_eq!(next_link(&response("<https://h/a>; rel=\"next\"")), Some("/a".into()));
        assert_eq!(next_link(&response("</a>; rel=\"prev\"")), None);
        assert_eq!(next_link(&response("<evil.example/a>; rel=\"next\"")), None);
        assert_eq!(encoded("a/b c~%"), "a%2Fb%20c~%25");
    }
}
