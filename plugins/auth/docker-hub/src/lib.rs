//! Credentials for Docker Hub: a user name with a password or an access token. Its API wants a token of its own
//! (`POST /v2/auth/token`), with which tags of private repositories are listed, and tags are deleted.

use dray_plugin_auth::{
    self as auth, Asked, Credential, Error, KeysAt, Lookup, Provider, Secret, Sending, Unsigned, host,
    remembered, secrets,
};
use serde::Deserialize;
use serde_json::json;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    username: Option<String>,
    password: Option<String>,
    credentials: Option<String>,
    registry: Option<String>,
    endpoint: Option<String>,
}

const HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
const API: &str = "hub.docker.com";
/// For how many seconds the API's token holds.
const LIFETIME: u64 = 600;

struct DockerHub;

fn is_hub(registry: &str, config: &Config) -> bool {
    HOSTS.contains(&registry) || config.registry.as_deref() == Some(registry)
}

/// User name and password, and where the password lies.
fn login(config: &Config) -> Result<(String, String, String), Error> {
    if let Some(name) = &config.credentials {
        let text = secrets::get(name)?;
        let pair = text.trim().split_once(':');
        let pair = pair.map(|(user, password)| (user.to_owned(), password.to_owned(), name.clone()));
        return pair.ok_or_else(|| Error::key("credentials", format!("{name} does not hold USER:PASSWORD")));
    }
    let at = KeysAt {
        id: ("username", config.username.as_deref()),
        secret: ("password", config.password.as_deref()),
        token: None,
        usual: ["env:DOCKERHUB_USERNAME", "env:DOCKERHUB_TOKEN", ""],
    };
    let keys = at.read()?;
    Ok((keys.id, keys.secret, keys.origin))
}

impl Provider for DockerHub {
    const NAME: &str = "docker-hub";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Docker Hub, for its registry and for its API";
    const SCHEMA: &str = include_str!("schema.json");
    type Config = Config;

    fn lookup(Lookup { registry, .. }: &Lookup, config: Config) -> Result<Option<Credential>, Error> {
        if !is_hub(registry, &config) {
            return Ok(None);
        }
        let (user, password, origin) = login(&config)?;
        Ok(Some(Credential {
            extra: Vec::new(),
            when: Sending::Challenged,
            secret: Secret::Basic((user, password)),
            lifetime: None,
            covers: None,
            origin,
        }))
    }

    fn sign(
        registry: &str,
        request: &Unsigned,
        config: Config,
    ) -> Result<Option<Vec<(String, String)>>, Error> {
        #[derive(Deserialize)]
        struct Token {
            access_token: String,
        }
        let api = config.endpoint.as_deref().map_or(API.into(), host);
        let is_api = auth::target(request).is_some_and(|(at, ..)| at == api);
        if !is_hub(registry, &config) || !is_api {
            return Ok(None);
        }
        let token = remembered("token", || {
            let (user, password, _) = login(&config)?;
            let body = json!({ "identifier": user, "secret": password }).to_string();
            let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
            let token: Token =
                Asked::send("POST", &api, "/v2/auth/token", headers, body.as_bytes())?.json()?;
            Ok((token.access_token, LIFETIME))
        })?;
        Ok(Some(vec![("authorization".to_owned(), format!("Bearer {token}"))]))
    }
}

auth::export!(DockerHub);
