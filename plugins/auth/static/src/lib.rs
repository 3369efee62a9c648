//! Credentials from granted secrets: environment variables or files.

use dray_plugin_auth::{
    self as auth, Credential, Error, Lookup, Provider, Secret, Sending, is_reference, secrets,
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    username: Option<String>,
    password: Option<String>,
    credentials: Option<String>,
    token: Option<String>,
    identity_token: Option<String>,
    #[serde(default)]
    when: When,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum When {
    #[default]
    Challenged,
    Always,
}

struct Static;

fn secret(config: Config, get: impl Fn(&str) -> Result<String, Error>) -> Result<(Secret, String), Error> {
    match config {
        Config { username: Some(user), password: Some(password), .. } => {
            let user = if is_reference(&user) { get(&user)? } else { user };
            Ok((Secret::Basic((user, get(&password)?)), password))
        }
        Config { credentials: Some(name), .. } => {
            let text = get(&name)?;
            let Some((user, password)) = text.split_once(':') else {
                return Err(Error::key("credentials", format!("{name} does not hold USER:PASSWORD")));
            };
            Ok((Secret::Basic((user.into(), password.into())), name))
        }
        Config { token: Some(name), .. } => Ok((Secret::Bearer(get(&name)?), name)),
        Config { identity_token: Some(name), .. } => Ok((Secret::IdentityToken(get(&name)?), name)),
        _ => Err(Error::Invalid(
            "a static credential needs username and password, credentials, token or identity-token".into(),
        )),
    }
}

impl Provider for Static {
    const NAME: &str = "static";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Credentials from environment variables or files";
    const SCHEMA: &str = include_str!("schema.json");
    type Config = Config;
    const SENDS_ALWAYS: bool = true;

    fn lookup(_asked: &Lookup, config: Config) -> Result<Option<Credential>, Error> {
        let when = match config.when {
            When::Challenged => Sending::Challenged,
            When::Always => Sending::Always,
        };
        let (secret, origin) = secret(config, secrets::get)?;
        Ok(Some(Credential { extra: Vec::new(), when, secret, lifetime: None, covers: None, origin }))
    }
}

auth::export!(Static);

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &str) -> Result<(Secret, String), Error> {
        secret(auth::config(config).unwrap(), |name| Ok(format!("<{name}>")))
    }

    #[test]
    fn a_user_may_be_written_and_a_password_may_not() {
        let (secret, origin) = found(r#"{"username":"bob","password":"env:P"}"#).unwrap();
        assert_eq!((secret, origin.as_str()), (Secret::Basic(("bob".into(), "<env:P>".into())), "env:P"));
        let (secret, _) = found(r#"{"username":"env:U","password":"env:P"}"#).unwrap();
        assert_eq!(secret, Secret::Basic(("<env:U>".into(), "<env:P>".into())));
    }

    #[test]
    fn credentials_hold_both() {
        let (secret, _) = found(r#"{"credentials":"file:x"}"#).unwrap();
        assert_eq!(secret, Secret::Basic(("<file".into(), "x>".into())));
    }
}
