//! The keys of an account, and where they come from.

use crate::{Config, Identity, Service};
use dray_plugin_auth::{
    self as auth, Asked, Error, KeysAt, element, host, now, optional, remembered, secrets, time,
};
use serde::{Deserialize, Serialize};

/// Keys of an account.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Keys {
    pub id: String,
    pub secret: String,
    pub token: Option<String>,
}

/// Where a machine is told its own identity (IMDS), and where a container of ECS is.
const INSTANCE: &str = "169.254.169.254";
const CONTAINER: &str = "169.254.170.2";
/// Where an agent tells a pod of EKS its identity.
const POD: &str = "169.254.170.23";
const POD_TOKEN: &str = "file:/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token";
const RELATIVE: &str = "env:AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const FULL: &str = "env:AWS_CONTAINER_CREDENTIALS_FULL_URI";

/// A section of a credentials file.
fn profile(text: &str, wanted: &str) -> Option<Keys> {
    let (mut inside, mut id, mut secret, mut token) = (false, None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = name.trim() == wanted;
        } else if let (true, Some((key, value))) = (inside, line.split_once('=')) {
            let value = value.trim().to_owned();
            match key.trim() {
                "aws_access_key_id" => id = Some(value),
                "aws_secret_access_key" => secret = Some(value),
                "aws_session_token" => token = Some(value),
                _ => {}
            }
        }
    }
    Some(Keys { id: id?, secret: secret?, token })
}

/// Temporary keys as the metadata service answers them (Amazon EC2 and Amazon ECS, user guides).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Temporary {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    /// A time of RFC 3339.
    expiration: Option<String>,
}

impl Temporary {
    /// The keys, and for how many seconds they hold.
    fn keys(self) -> (Keys, u64) {
        let end = self.expiration.as_deref().and_then(time);
        let left = end.map_or(900, |end| end.saturating_sub(now()) / 1000);
        (Keys { id: self.access_key_id, secret: self.secret_access_key, token: self.token }, left)
    }
}

/// Temporary keys, which are asked for once while they hold.
fn temporary(name: &str, fetch: impl FnOnce() -> Result<(Keys, u64), Error>) -> Result<Keys, Error> {
    let text = remembered(name, || {
        let (keys, seconds) = fetch()?;
        let text = serde_json::to_string(&keys).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok((text, seconds))
    })?;
    serde_json::from_str(&text).map_err(|error| Error::Invalid(error.to_string()))
}

/// Exchanges a token of another provider for keys (`sts` 2011-06-15, `AssumeRoleWithWebIdentity`), which needs no signature.
fn by_web_identity(config: &Config, name: &str, sts: &str) -> Result<(Keys, u64), Error> {
    let token = secrets::get(name)?;
    let role = config.role_arn.as_deref();
    let role = role.ok_or_else(|| Error::key("role-arn", "is needed with web-identity-token"))?;
    let fields = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleSessionName", "dray"),
        ("RoleArn", role),
        ("WebIdentityToken", token.trim()),
    ];
    let asked = Asked::post_form(sts, "/", &fields)?;
    let answer = asked.text()?;
    let part = |name| element(answer, name).map(str::to_owned);
    let left = part("Expiration").as_deref().and_then(time);
    let left = left.map_or(900, |end| end.saturating_sub(now()) / 1000);
    match (part("AccessKeyId"), part("SecretAccessKey")) {
        (Some(id), Some(secret)) => Ok((Keys { id, secret, token: part("SessionToken") }, left)),
        _ => Err(asked.odd("it holds no keys")),
    }
}

/// The keys of the role of a machine (IMDSv2).
fn of_instance(at: &str) -> Result<(Keys, u64), Error> {
    let ttl = vec![("x-aws-ec2-metadata-token-ttl-seconds".to_owned(), "300".to_owned())];
    let session = Asked::send("PUT", at, "/latest/api/token", ttl, &[])?;
    let session = [("x-aws-ec2-metadata-token", session.text()?.trim())];
    let roles = Asked::get(at, "/latest/meta-data/iam/security-credentials/", &session)?;
    let role = roles.text()?.lines().next().unwrap_or_default().trim();
    if role.is_empty() || !role.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte))
    {
        return Err(roles.odd("the machine has no role"));
    }
    let path = format!("/latest/meta-data/iam/security-credentials/{role}");
    Ok(Asked::get(at, &path, &session)?.json::<Temporary>()?.keys())
}

/// Where a container asks for its keys: host and path. Both come from the environment, so the host is one of those that the
/// documents allow.
fn address(relative: Option<&str>, full: Option<&str>) -> Result<(String, String), Error> {
    let missing = || {
        let (relative, full) = (RELATIVE.trim_start_matches("env:"), FULL.trim_start_matches("env:"));
        Error::key("identity", format!("the environment names no place of keys ({relative}, {full})"))
    };
    if let Some(path) = relative {
        return Ok((CONTAINER.to_owned(), path.to_owned()));
    }
    let rest = full.ok_or_else(missing)?;
    let rest = rest.strip_prefix("http://").or_else(|| rest.strip_prefix("https://")).unwrap_or(rest);
    let (at, path) = rest.split_once('/').unwrap_or((rest, ""));
    match at {
        CONTAINER | POD => Ok((at.to_owned(), format!("/{path}"))),
        other => Err(Error::key("identity", format!("{other} is no place that tells a container its keys"))),
    }
}

fn of_container(config: &Config) -> Result<(Keys, u64), Error> {
    let (at, path) = match &config.metadata_endpoint {
        Some(at) => (host(at), optional(RELATIVE).unwrap_or_else(|| "/".into())),
        None => address(optional(RELATIVE).as_deref(), optional(FULL).as_deref())?,
    };
    let token = optional(POD_TOKEN);
    let headers: Vec<(&str, &str)> = token
        .iter()
        .map(|token| ("authorization", token.as_str()))
        .chain([("accept", "application/json")])
        .collect();
    Ok(Asked::get(&at, &path, &headers)?.json::<Temporary>()?.keys())
}

/// The keys for a service, and where they were found.
pub fn keys(config: &Config, service: &Service) -> Result<(Keys, String), Error> {
    if let Some(name) = &config.web_identity_token {
        let fetch = || by_web_identity(config, name, &service.sts);
        return Ok((temporary(&format!("web-identity {}", service.sts), fetch)?, name.clone()));
    }
    match config.identity {
        Some(Identity::Instance) => {
            let at = config.metadata_endpoint.as_deref().map_or(INSTANCE.into(), host);
            return Ok((temporary("instance", || of_instance(&at))?, "the role of the machine".into()));
        }
        Some(Identity::Container) => {
            return Ok((
                temporary("container", || of_container(config))?,
                "the role of the container".into(),
            ));
        }
        None => {}
    }
    if let Some(name) = &config.credentials_file {
        let wanted = config.profile.as_deref().unwrap_or("default");
        let found = profile(&secrets::get(name)?, wanted);
        let none = || Error::key("profile", format!("{name} has no keys in its section [{wanted}]"));
        return Ok((found.ok_or_else(none)?, name.clone()));
    }
    let at = KeysAt {
        id: ("access-key-id", config.access_key_id.as_deref()),
        secret: ("secret-access-key", config.secret_access_key.as_deref()),
        token: config.session_token.as_deref(),
        usual: ["env:AWS_ACCESS_KEY_ID", "env:AWS_SECRET_ACCESS_KEY", "env:AWS_SESSION_TOKEN"],
    };
    let auth::Keys { id, secret, token, .. } = at.read()?;
    let origin = config.access_key_id.clone().unwrap_or_else(|| "env:AWS_ACCESS_KEY_ID".into());
    Ok((Keys { id, secret, token }, origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read() {
        let file = "# mine\n[default]\naws_access_key_id = a\naws_secret_access_key=b\n\n[other]\naws_access_key_id=c\n\
                    aws_secret_access_key = d=\naws_session_token = e\n[empty]\n";
        let keys = |id: &str, secret: &str, token: Option<&str>| Keys {
            id: id.into(),
            secret: secret.into(),
            token: token.map(str::to_owned),
        };
        assert!(profile(file, "default") == Some(keys("a", "b", None)));
        assert!(profile(file, "other") == Some(keys("c", "d=", Some("e"))));
        assert!(profile(file, "empty").is_none() && profile(file, "none").is_none());
    }

    #[test]
    fn a_container_asks_only_where_the_documents_say() {
        let at = |relative, full| address(relative, full).ok();
        let is = |host: &str, path: &str| Some((host.to_owned(), path.to_owned()));
        assert_eq!(
            at(Some("/v2/credentials/x"), Some("http://evil.example/")),
            is(CONTAINER, "/v2/credentials/x")
        );
        assert_eq!(at(None, Some("http://169.254.170.23/v1/credentials")), is(POD, "/v1/credentials"));
        for wrong in
            [None, Some("http://evil.example/x"), Some("http://169.254.170.23@evil.example/"), Some("")]
        {
            assert_eq!(at(None, wrong), None, "{wrong:?}");
        }
    }
}
