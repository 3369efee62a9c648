//! What a rule demands of its images, from its configuration: `{ signed = { key = "cosign.pub" } }`.

use crate::{Error, Result};
use dray_trust::{Identity, Name, Requirement, Witnesses};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// One or more files.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Files {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

/// The table `signed`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Signed {
    pgp: Option<Files>,
    key: Option<Files>,
    fulcio: Option<Fulcio>,
    pki: Option<Pki>,
    rekor: Option<Files>,
    timestamp: Option<Files>,
    identity: Option<Named>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Fulcio {
    ca: Files,
    issuer: String,
    subject: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Pki {
    ca: Files,
    intermediates: Option<Files>,
    email: Option<String>,
    hostname: Option<String>,
}

/// Which names a signature may carry.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Named {
    Word(String),
    Table(NamedTable),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct NamedTable {
    reference: Option<String>,
    repository: Option<String>,
    prefix: Option<String>,
    signed_prefix: Option<String>,
}

/// Reads the table `signed` of a demand. Relative paths are relative to `base`.
///
/// # Errors
/// Says what is wrong with the table. If that is one key, the text begins with it and a colon.
pub fn signed(config: &serde_json::Value, base: &Path) -> Result<Requirement> {
    let wrong = |text: String| Error::invalid(text);
    let signed: Signed = serde_json::from_value(config.clone())
        .map_err(|error| wrong(format!("`signed` cannot be read: {error}")))?;
    let files = |key: &str, files: Option<Files>| {
        let files = match files {
            None => return Ok(Vec::new()),
            Some(Files::One(file)) => vec![file],
            Some(Files::Many(files)) => files,
        };
        match files.is_empty() {
            true => Err(wrong(format!("{key}: the list is empty"))),
            false => Ok(files.into_iter().map(|file| base.join(file)).collect()),
        }
    };
    let exact = signed.pgp.is_some();
    let identity = match signed.identity {
        // cosign's signatures name no tag.
        None if !exact => Identity::Repository,
        None => Identity::RepoDigestOrExact,
        Some(named) => identity(named)?,
    };
    let witnesses =
        Witnesses { rekor: files("rekor", signed.rekor)?, timestamp: files("timestamp", signed.timestamp)? };
    let alone = witnesses.rekor.is_empty() && witnesses.timestamp.is_empty();
    match (signed.pgp, signed.key, signed.fulcio, signed.pki) {
        (Some(pgp), None, None, None) if alone => {
            Ok(Requirement::openpgp(files("pgp", Some(pgp))?, identity))
        }
        (Some(_), None, None, None) => Err(wrong(
            "pgp: cannot be had together with `rekor` and `timestamp`, which are of sigstore".into(),
        )),
        (None, Some(key), None, None) => {
            Ok(Requirement::sigstore_key(files("key", Some(key))?, witnesses, identity))
        }
        (None, None, Some(fulcio), None) => {
            if alone {
                let text = "fulcio: needs `rekor` or `timestamp`, the log or the authority that vouches for the time";
                return Err(wrong(text.into()));
            }
            let ca = files("fulcio", Some(fulcio.ca))?;
            Ok(Requirement::fulcio(ca, fulcio.issuer, fulcio.subject, witnesses, identity))
        }
        (None, None, None, Some(pki)) => {
            if !alone {
                return Err(wrong("pki: cannot be had together with `rekor` and `timestamp`".into()));
            }
            if pki.email.is_none() && pki.hostname.is_none() {
                return Err(wrong("pki: names nobody; add `email` or `hostname`".into()));
            }
            let ca = files("pki", Some(pki.ca))?;
            let between = files("pki", pki.intermediates)?;
            Ok(Requirement::pki(ca, between, (pki.email, pki.hostname), identity))
        }
        _ => Err(wrong("`signed` needs exactly one of `pgp`, `key`, `fulcio` and `pki`".into())),
    }
}

fn identity(named: Named) -> Result<Identity> {
    let name =
        |text: String| Name::parse(&text).map_err(|wrong| Error::invalid(format!("identity: {wrong}")));
    let table = match named {
        Named::Word(word) => {
            return match word.as_str() {
                "exact" => Ok(Identity::RepoDigestOrExact),
                "repository" => Ok(Identity::Repository),
                "any" => Ok(Identity::Any),
                _ => Err(Error::invalid(format!(
                    "identity: `{}` is none of \"exact\", \"repository\" and \"any\"",
                    word.escape_debug()
                ))),
            };
        }
        Named::Table(table) => table,
    };
    match (table.reference, table.repository, table.prefix, table.signed_prefix) {
        (Some(reference), None, None, None) => match name(reference)? {
            name if name.is_name_only() => {
                Err(Error::invalid(format!("identity: {name} has no tag and no digest")))
            }
            name => Ok(Identity::ExactReference(name)),
        },
        (None, Some(repository), None, None) => Ok(Identity::ExactRepository(name(repository)?)),
        (None, None, Some(prefix), Some(signed)) => Ok(Identity::Remap { prefix, signed }),
        _ => Err(Error::invalid(
            "identity: a table has `reference`, or `repository`, or `prefix` with `signed-prefix`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_says_who_signs() {
        let fulcio = json!({ "ca": "c", "issuer": "i", "subject": "s" });
        for (config, right) in [
            (json!({ "key": "k" }), true),
            (json!({ "key": ["k", "l"], "rekor": "r", "identity": "any" }), true),
            (json!({ "pgp": "k", "identity": { "repository": "a/b" } }), true),
            (json!({ "pgp": "k", "identity": { "reference": "a/b" } }), false),
            (json!({ "pgp": "k", "identity": "tag" }), false),
            (json!({ "fulcio": fulcio, "rekor": "r" }), true),
            (json!({ "fulcio": fulcio, "timestamp": "t" }), true),
            (json!({ "fulcio": fulcio }), false),
            (json!({ "pgp": "k", "timestamp": "t" }), false),
            (json!({ "pki": { "ca": "c", "email": "e" } }), true),
            (json!({ "pki": { "ca": "c" } }), false),
            (json!({ "key": [] }), false),
            (json!({ "key": "k", "pgp": "p" }), false),
            (json!({ "keys": "k" }), false),
            (json!({}), false),
        ] {
            assert_eq!(signed(&config, Path::new("/x")).is_ok(), right, "{config}");
        }
    }
}
