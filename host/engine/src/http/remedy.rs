//! What to do about the refusal of a registry, as far as its status and its words tell.

/// What was asked, and how it was refused.
pub(super) struct Refusal<'a> {
    pub method: &'a str,
    pub status: u16,
    /// What the registry said: codes and messages.
    pub said: &'a str,
    /// The repository that the request was about, if any.
    pub repository: &'a str,
    /// The path of the address.
    pub path: &'a str,
}

/// The remedy for a refusal. `None` means that nothing is known but what the registry said.
pub(super) fn remedy(refusal: &Refusal<'_>) -> Option<String> {
    let Refusal { method, status, said, repository, path } = *refusal;
    let said = said.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let writes = !matches!(method, "GET" | "HEAD");
    let help = match status {
        _ if writes && has(&["immutable"]) => {
            "the registry does not let this tag change: copy to another tag, or delete it there first"
                .to_owned()
        }
        _ if writes && has(&["quota", "storage limit"]) => {
            "free space at the registry, or raise the quota of its project".to_owned()
        }
        403 if writes => format!("the login may not push to {repository}: check its rights there"),
        403 => format!(
            "the login may not read {repository}, or there is no such repository: check its name, and the rights of the login"
        ),
        404 if writes => {
            format!("make {repository} or its project at the registry first, or check the name")
        }
        404 if path.contains("/blobs/") => {
            "a manifest names it, and it is not there: push the image to its source again".to_owned()
        }
        404 if path.ends_with("/tags/list") => format!("there is no repository {repository}: check its name"),
        405 if writes => {
            "the registry takes no pushes: it may be read-only, or a cache of another one".to_owned()
        }
        405 => "the registry does not offer this; name repositories and tags one by one instead".to_owned(),
        413 => "a proxy before the registry may limit the size of a request (nginx: client_max_body_size)"
            .to_owned(),
        429 => {
            "wait, log in (which raises the limit at some registries), or set `concurrency` lower".to_owned()
        }
        301..=303 | 307 | 308 => "what answers redirects to nowhere: is it a registry?".to_owned(),
        500..=599 => "the registry itself fails: look into its log, or try again later".to_owned(),
        _ => return None,
    };
    Some(help)
}

/// Whether an answer to plain HTTP says that the server speaks TLS (Go's net/http, nginx, Apache).
pub(super) fn wants_tls(status: u16, said: &str) -> bool {
    let words = [
        "HTTP request to an HTTPS server",
        "plain HTTP request was sent to HTTPS",
        "speaking plain HTTP to an SSL",
    ];
    status == 400 && words.iter().any(|words| said.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_remedy() {
        for (method, status, said, about) in [
            ("PUT", 409, "TAG_IMMUTABLE: no", "does not let this tag change"),
            ("PUT", 400, "the tag is immutable", "does not let this tag change"),
            ("POST", 403, "adding 10 MiB exceeds the QUOTA", "raise the quota"),
            ("POST", 403, "DENIED", "may not push to library/app"),
            ("GET", 403, "DENIED", "may not read library/app"),
            ("POST", 404, "NAME_UNKNOWN", "make library/app"),
            ("GET", 404, "", "there is no repository library/app"),
            ("POST", 405, "", "takes no pushes"),
            ("GET", 405, "", "one by one"),
            ("PATCH", 413, "", "client_max_body_size"),
            ("GET", 429, "", "log in"),
            ("GET", 302, "", "is it a registry?"),
            ("GET", 502, "", "look into its log"),
        ] {
            let found = remedy(&Refusal {
                method,
                status,
                said,
                repository: "library/app",
                path: "/v2/library/app/tags/list",
            });
            assert!(
                found.as_deref().is_some_and(|help| help.contains(about)),
                "{method} {status}: {found:?}"
            );
        }
        assert_eq!(
            remedy(&Refusal { method: "GET", status: 418, said: "", repository: "a", path: "" }),
            None
        );
        assert!(wants_tls(400, "Client sent an HTTP request to an HTTPS server.\n"));
        assert!(!wants_tls(200, "Client sent an HTTP request to an HTTPS server.\n") && !wants_tls(400, ""));
    }
}
