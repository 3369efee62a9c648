//! An auth provider for dray: it signs the requests of S3-style buckets (AWS Signature Version 4), so that the transport sees no
//! secret.
//!
//! ```toml
//! [plugin.bucket-login]
//! source = "plugins/bucket-login/bucket-login.wasm"
//!
//! [registry."s3.eu-west-1.amazonaws.com"]
//! auth = { provider = "bucket-login", region = "eu-west-1", access-key-id = "env:KEY_ID", secret-access-key = "env:KEY" }
//! ```

use dray_plugin_auth::{
    self as auth, Credential, Error, KeysAt, Lookup, Payload, Provider, Unsigned, now, stamp,
};
use dray_plugin_sign::{Amazon, EMPTY, UNSIGNED};
use serde::Deserialize;

/// The keys of the provider's table in the policy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    #[serde(default = "usual_region")]
    region: String,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
}

fn usual_region() -> String {
    "us-east-1".into()
}

/// The hash that S3 is told of a body. Of a part of a blob nobody knows it before it is sent.
fn hash(payload: &Payload) -> &str {
    match payload {
        Payload::Empty => EMPTY,
        Payload::Sha256(hash) => hash,
        Payload::Unknown => UNSIGNED,
    }
}

struct BucketLogin;

impl Provider for BucketLogin {
    type Config = Config;
    const NAME: &str = env!("CARGO_PKG_NAME");
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Signs the requests of S3-style buckets, by the keys of an account";
    const SCHEMA: &str = include_str!("schema.json");

    /// A bucket has no login: each request is signed by itself.
    fn lookup(_asked: &Lookup, _config: Config) -> Result<Option<Credential>, Error> {
        Ok(None)
    }

    fn sign(
        registry: &str,
        request: &Unsigned,
        config: Config,
    ) -> Result<Option<Vec<(String, String)>>, Error> {
        let Some((host, path, query)) = auth::target(request) else { return Ok(None) };
        // Only the host whose table names this provider gets a signature.
        if host != registry {
            return Ok(None);
        }
        let keys = KeysAt {
            id: ("access-key-id", config.access_key_id.as_deref()),
            secret: ("secret-access-key", config.secret_access_key.as_deref()),
            token: config.session_token.as_deref(),
            usual: ["env:AWS_ACCESS_KEY_ID", "env:AWS_SECRET_ACCESS_KEY", "env:AWS_SESSION_TOKEN"],
        };
        let keys = keys.read()?;
        let signer = Amazon {
            id: &keys.id,
            secret: &keys.secret,
            token: keys.token.as_deref(),
            region: &config.region,
            service: "s3",
            host,
        };
        let hash = hash(&request.payload);
        // S3 wants the hash as a header, too (Amazon S3 API reference, "x-amz-content-sha256").
        let content = ("x-amz-content-sha256".to_owned(), hash.to_owned());
        let own: Vec<(String, String)> = request.headers.iter().cloned().chain([content.clone()]).collect();
        let mut added = signer.headers((&request.method, &path, query), &own, hash, &stamp(now()));
        added.push(content);
        Ok(Some(added))
    }
}

auth::export!(BucketLogin with_types_in auth);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_body_has_its_hash() {
        assert_eq!(hash(&Payload::Empty), EMPTY);
        assert_eq!(hash(&Payload::Sha256("ab".into())), "ab");
        assert_eq!(hash(&Payload::Unknown), "UNSIGNED-PAYLOAD");
    }
}
