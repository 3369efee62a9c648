//! The keys of an account in a cloud: an identifier, a secret, and perhaps the token of a session.

use crate::{Error, optional, value};
use dray_plugin::is_reference;

/// Keys of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Its identifier, which is no secret.
    pub id: String,
    /// The secret by which requests are signed.
    pub secret: String,
    /// The token of a session. `None` means that the keys are those of the account itself.
    pub token: Option<String>,
    /// Where they were found, for messages.
    pub origin: String,
}

/// Where keys lie, as a table names them.
#[derive(Clone, Copy, Debug)]
pub struct KeysAt<'a> {
    /// The name of the key in the table, and its value.
    pub id: (&'a str, Option<&'a str>),
    /// The name of the key in the table, and its value.
    pub secret: (&'a str, Option<&'a str>),
    /// The value of the key for the session's token.
    pub token: Option<&'a str>,
    /// Where identifier, secret and token lie if the table names none.
    pub usual: [&'a str; 3],
}

impl KeysAt<'_> {
    /// Reads them. Keys that are named, and those of the environment, are not mixed: they may be of two accounts. Fails if one
    /// is missing.
    pub fn read(self) -> Result<Keys, Error> {
        let ((id_key, id), (secret_key, secret)) = (self.id, self.secret);
        let [usual_id, usual_secret, usual_token] = self.usual;
        match (id, secret) {
            (Some(id), Some(secret)) if is_reference(secret) => Ok(Keys {
                id: value(id)?,
                secret: value(secret)?,
                token: self.token.map(value).transpose()?,
                origin: secret.to_owned(),
            }),
            (Some(_), Some(_)) => {
                Err(Error::key(secret_key, "names where a secret lies (env:NAME, file:PATH)"))
            }
            (Some(_), None) => Err(Error::key(id_key, format!("needs `{secret_key}`"))),
            (None, Some(_)) => Err(Error::key(secret_key, format!("needs `{id_key}`"))),
            // The token is there only where the keys are of a role.
            (None, None) => Ok(Keys {
                id: value(usual_id)?,
                secret: value(usual_secret)?,
                token: optional(usual_token),
                origin: usual_id.to_owned(),
            }),
        }
    }
}
