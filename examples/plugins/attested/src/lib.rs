//! Wants an attestation of a type for each image: a referrer with this artifact type that holds a text.
//!
//! ```toml
//! [plugin.attested]
//! source = "plugins/attested/attested.wasm"
//!
//! [[rule]]
//! from = "docker://registry.example.com/app"
//! to = "docker://mirror.example.com/app"
//! require = [{ attested = { artifact-type = "application/vnd.example.review", says = "approved" } }]
//! ```

use dray_plugin_verifier::{self as verifier, Error, Evidence, Subject, Verdict, Verify};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    /// The artifact type of the attestation.
    artifact_type: String,
    /// A text that the attestation must hold.
    says: String,
}

struct Attested;

impl Verify for Attested {
    type Config = Config;
    const NAME: &str = "attested";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Wants an attestation of a type that holds a text";
    const CONFIG_SCHEMA: &str = r#"{
        "type": "object",
        "additionalProperties": false,
        "required": ["artifact-type", "says"],
        "properties": { "artifact-type": { "type": "string" }, "says": { "type": "string" } }
    }"#;

    fn wants(config: &Config) -> Result<Vec<String>, Error> {
        if !config.artifact_type.contains('/') {
            return Err(Error::key("artifact-type", "write a media type, application/vnd.example.review"));
        }
        Ok(vec![config.artifact_type.clone()])
    }

    fn verify(_subject: &Subject, evidence: &[Evidence], config: &Config) -> Result<Verdict, Error> {
        let mut refused = Vec::new();
        for one in evidence.iter().filter(|one| one.kind == config.artifact_type) {
            let text = String::from_utf8_lossy(&one.content);
            if text.contains(&config.says) {
                return Ok(Verdict::Accepted(format!("an attestation that says {}", config.says)));
            }
            refused.push(format!("an attestation does not say {}", config.says));
        }
        if refused.is_empty() {
            refused.push(format!("it has no attestation of the type {}", config.artifact_type));
        }
        Ok(Verdict::Refused(refused))
    }
}

verifier::export!(Attested with_types_in verifier);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attestation_must_say_so() {
        let subject = Subject {
            extra: Vec::new(),
            reference: None,
            media_type: String::new(),
            digest: String::new(),
            body: Vec::new(),
        };
        let config = Config { artifact_type: "a/b".into(), says: "approved".into() };
        let one = |kind: &str, content: &str| Evidence {
            kind: kind.into(),
            content: content.as_bytes().to_vec(),
            annotations: Vec::new(),
        };
        for (evidence, accepted) in [
            (vec![one("a/b", "approved by all")], true),
            (vec![one("a/b", "rejected"), one("a/b", "approved")], true),
            (vec![one("a/b", "rejected")], false),
            (vec![one("a/c", "approved")], false),
            (vec![], false),
        ] {
            let verdict = Attested::verify(&subject, &evidence, &config).unwrap();
            assert_eq!(matches!(verdict, Verdict::Accepted(_)), accepted, "{evidence:?}");
        }
    }
}
