//! The text that is signed: JSON as containers-signature(5) describes it, which cosign uses as well.

use crate::{Result, Wrong, about, json::Entries};
use dray_core::Digest;
use serde_json::Value;

/// The type of payloads of simple signing.
const SIMPLE: &str = "atomic container signature";
/// The type of payloads of cosign.
const COSIGN: &str = "cosign container image signature";

/// What a signature says: that an image has this digest and this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Name of the image, as the signer wrote it.
    pub reference: String,
}

impl Payload {
    /// Reads a payload of simple signing.
    ///
    /// # Errors
    /// Fails unless it is exactly what containers-signature(5) describes.
    pub fn simple(bytes: &[u8]) -> Result<Self> {
        read(bytes, SIMPLE)
    }

    /// Reads a payload of cosign.
    ///
    /// # Errors
    /// Fails unless it is exactly what cosign's SIGNATURE_SPEC describes.
    pub fn cosign(bytes: &[u8]) -> Result<Self> {
        read(bytes, COSIGN)
    }

    /// Writes a payload of simple signing. `now` is in seconds since 1970.
    pub fn to_simple(&self, creator: &str, now: u64) -> Vec<u8> {
        let optional = serde_json::json!({ "creator": creator, "timestamp": now });
        self.written(SIMPLE, &optional)
    }

    /// Writes a payload of cosign.
    pub fn to_cosign(&self, creator: &str, now: u64) -> Vec<u8> {
        let optional = serde_json::json!({ "creator": creator, "timestamp": now });
        self.written(COSIGN, &optional)
    }

    fn written(&self, kind: &str, optional: &Value) -> Vec<u8> {
        let value = serde_json::json!({
            "critical": {
                "identity": { "docker-reference": self.reference },
                "image": { "docker-manifest-digest": self.digest.to_string() },
                "type": kind,
            },
            "optional": optional,
        });
        value.to_string().into_bytes()
    }
}

/// The values of exactly these keys, in this order.
fn exactly<const N: usize>(
    value: Entries<Box<serde_json::value::RawValue>>,
    keys: [&str; N],
) -> Result<[String; N]> {
    let mut values: [String; N] = std::array::from_fn(|_| String::new());
    if value.0.len() != N {
        return Err(Wrong(format!("its payload has other keys than {}", keys.join(", "))));
    }
    for (key, value) in value.0 {
        let at = keys.iter().position(|name| *name == key);
        let at =
            at.ok_or_else(|| Wrong(format!("its payload has the unknown key `{}`", key.escape_debug())))?;
        values[at] = value.get().to_owned();
    }
    Ok(values)
}

fn object<T: for<'de> serde::Deserialize<'de>>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(about("its payload cannot be read"))
}

fn read(bytes: &[u8], kind: &str) -> Result<Payload> {
    let text = std::str::from_utf8(bytes).map_err(about("its payload is no text"))?;
    let [critical, optional] = exactly(object(text)?, ["critical", "optional"])?;
    let [named, image, identity] = exactly(object(&critical)?, ["type", "image", "identity"])?;
    let named: String = object(&named)?;
    if named != kind {
        return Err(Wrong(format!(
            "its payload is of the type `{}`, and not `{kind}`",
            named.escape_debug()
        )));
    }
    let [digest] = exactly(object(&image)?, ["docker-manifest-digest"])?;
    let [reference] = exactly(object(&identity)?, ["docker-reference"])?;
    check_optional(&optional, kind)?;
    let digest: String = object(&digest)?;
    let digest = digest.parse().map_err(about("its payload names a digest that is none"))?;
    Ok(Payload { digest, reference: object(&reference)? })
}

/// Unknown keys are ignored, known ones have their types. cosign writes `null` where it has nothing to say.
fn check_optional(text: &str, kind: &str) -> Result<()> {
    if kind == COSIGN && text == "null" {
        return Ok(());
    }
    let optional: Entries<Value> = object(text)?;
    for (key, value) in optional.0 {
        let right = match key.as_str() {
            "creator" => value.is_string(),
            "timestamp" => {
                value.as_i64().is_some() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
            }
            _ => true,
        };
        if !right {
            return Err(Wrong(format!("its payload has a wrong `{key}`")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else_passes() {
        let digest: Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let payload = Payload { digest, reference: "h.example/a:1".into() };
        let bytes = payload.to_simple("dray", 5);
        assert_eq!(Payload::simple(&bytes).unwrap(), payload);
        assert!(Payload::cosign(&bytes).is_err());
        assert_eq!(Payload::cosign(&payload.to_cosign("dray", 5)).unwrap(), payload);
        let text = String::from_utf8(bytes).unwrap();
        for (from, to) in [
            ("\"critical\"", "\"critical2\""),
            ("{\"critical\"", "{\"more\":1,\"critical\""),
            ("\"optional\":{", "\"optional\":{\"creator\":1,"),
            ("\"timestamp\":5", "\"timestamp\":5.5"),
            ("\"timestamp\":5", "\"timestamp\":5,\"timestamp\":5"),
            ("\"type\":", "\"typ\":"),
            ("sha256:0", "sha256:x"),
            ("atomic", "Atomic"),
            ("\"docker-reference\":", "\"docker-reference\":1,\"docker-reference\":"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from}");
            assert!(Payload::simple(changed.as_bytes()).is_err(), "{changed}");
        }
        assert!(Payload::simple(format!("{text} x").as_bytes()).is_err());
        assert!(Payload::simple(text.replace("\"timestamp\":5", "\"x\":[1]").as_bytes()).is_ok());
    }
}
