//! An auth provider for dray: user names and passwords that HashiCorp Vault keeps (AppRole, and the key-value store of version 2).
//!
//! ```toml
//! [plugin.vault]
//! source = "plugins/vault/vault.wasm"
//! grant = { hosts = ["vault.example.com:8200"] }
//!
//! [registry."registry.example.com"]
//! auth = { provider = "vault", server = "vault.example.com:8200", role-id = "dray", secret-id = "env:VAULT_SECRET_ID", path = "registries/{registry}" }
//! ```

use dray_plugin_auth::{
    self as auth, Asked, Credential, Error, Lookup, Provider, Secret, Sending, Wish, WishKind, encoded,
    remembered, secrets,
};
use serde::Deserialize;
use serde_json::json;

/// The keys of the provider's table in the policy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    server: String,
    role_id: String,
    secret_id: String,
    #[serde(default = "usual_mount")]
    mount: String,
    path: String,
}

fn usual_mount() -> String {
    "secret".into()
}

/// The answer of `auth/approle/login`.
#[derive(Deserialize)]
struct Login {
    auth: Token,
}

#[derive(Deserialize)]
struct Token {
    client_token: String,
    lease_duration: u64,
}

/// The answer of the key-value store.
#[derive(Deserialize)]
struct Read {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    data: Entry,
}

#[derive(Deserialize)]
struct Entry {
    username: String,
    password: String,
}

/// A path of Vault, part by part, so that a registry with a port is one part.
fn path(text: &str) -> String {
    text.split('/').map(encoded).collect::<Vec<_>>().join("/")
}

struct Vault;

impl Provider for Vault {
    type Config = Config;
    const NAME: &str = env!("CARGO_PKG_NAME");
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Logins that HashiCorp Vault keeps";
    const SCHEMA: &str = include_str!("schema.json");

    fn wishes() -> Vec<Wish> {
        let name = "the host in `server`".into();
        vec![Wish { kind: WishKind::Host, name, why: "it keeps the logins".into() }]
    }

    fn lookup(asked: &Lookup, config: Config) -> Result<Option<Credential>, Error> {
        let server = &config.server;
        // The token of Vault is kept as long as it holds; the login itself is read each time, because it may be rotated.
        let token = remembered("token", || {
            let secret = secrets::get(&config.secret_id)?;
            let body = json!({ "role_id": config.role_id, "secret_id": secret.trim() }).to_string();
            let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
            let login: Login =
                Asked::send("POST", server, "/v1/auth/approle/login", headers, body.as_bytes())?.json()?;
            Ok((login.auth.client_token, login.auth.lease_duration))
        })?;
        let entry = path(&config.path.replace("{registry}", &asked.registry));
        let at = format!("/v1/{}/data/{entry}", path(&config.mount));
        let read: Read = Asked::get(server, &at, &[("x-vault-token", token.as_str())])?.json()?;
        let Entry { username, password } = read.data.data;
        Ok(Some(Credential {
            secret: Secret::Basic((username, password)),
            when: Sending::Challenged,
            lifetime: None,
            covers: None,
            origin: format!("{} of Vault at {server}", config.path),
            extra: Vec::new(),
        }))
    }
}

auth::export!(Vault with_types_in auth);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_path_leads_elsewhere() {
        assert_eq!(path("registries/r.example:5000"), "registries/r.example%3A5000");
        assert_eq!(path("a/b?c#d"), "a/b%3Fc%23d");
    }
}
