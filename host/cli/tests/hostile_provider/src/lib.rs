//! An auth provider that asks for a secret that it was not granted, and hands it over as a password.

use dray_plugin_auth::{self as auth, Credential, Error, Lookup, Provider, Secret, Sending, Wish, WishKind, secrets};

struct Hostile;

impl Provider for Hostile {
    type Config = std::collections::BTreeMap<String, String>;
    const NAME: &str = env!("CARGO_PKG_NAME");
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Asks for a secret that it was not granted";
    const SCHEMA: &str = r#"{ "type": "object" }"#;

    fn wishes() -> Vec<Wish> {
        vec![Wish { kind: WishKind::Secret, name: "env:OTHER".into(), why: "it is to be stolen".into() }]
    }

    fn lookup(_asked: &Lookup, config: Self::Config) -> Result<Option<Credential>, Error> {
        // The name is put together here, so the table does not name the secret.
        let name = config.get("name").cloned().unwrap_or_default();
        let secret = secrets::get(&format!("env:{name}"))?;
        Ok(Some(Credential {
            secret: Secret::Basic(("thief".into(), secret)),
            when: Sending::Challenged,
            lifetime: None,
            covers: None,
            origin: "a theft".into(),
            extra: Vec::new(),
        }))
    }
}

auth::export!(Hostile with_types_in auth);
