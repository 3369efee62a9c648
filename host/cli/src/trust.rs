//! `dray sign` and `dray verify`

use crate::{
    DONE,
    args::{AttachForm, Output, SignOptions, VerifyOptions},
    failure::Failure,
    output::{print_json, say},
    setup,
    signer::{self, COSIGN_PASSWORD, Signer},
};
use dray_core::Reference;
use dray_engine::{
    Demand, Error, FoundSignature, Kind, Places, attach, check_attachable, check_demands, is_demanded,
    manifests_of, signatures, signed, verify,
};
use dray_trust::{Format, Name};
use serde_json::{Value, json};
use std::{io::IsTerminal, sync::Arc};

pub async fn sign(options: SignOptions) -> Result<u8, Failure> {
    let places = setup::places(&options.access).await?;
    let signer = signer_of(&options)?;
    let reference = &options.reference;
    check_attachable(&places, reference, signer.kinds()).await?;
    let identity = match &options.identity {
        Some(identity) => identity.clone(),
        None => name_of(&places, reference).await?,
    };
    let digests = manifests_of(&places, reference, None, options.recursive).await?;
    for digest in &digests {
        let signature = signer.sign(digest, &identity)?;
        attach(&places, reference, digest, signature).await?;
        say!("signed {digest} of {reference} as {identity} with {}", signer.shown());
    }
    Ok(DONE)
}

fn signer_of(options: &SignOptions) -> Result<Signer, Failure> {
    let passphrase = || match &options.passphrase_file {
        Some(path) => signer::passphrase(path).map(Some),
        None => Ok(std::env::var(COSIGN_PASSWORD).ok()),
    };
    match (&options.key, &options.pgp_key, &options.gpg) {
        (Some(key), None, None) => {
            let passphrase = match passphrase()? {
                Some(passphrase) => passphrase,
                None if std::io::stdin().is_terminal() => {
                    crate::terminal::ask("passphrase of the key: ", false)
                        .map_err(|error| Failure::usage(format!("ask for the passphrase: {error}")))?
                }
                None => signer::without_passphrase(key)?,
            };
            Signer::sigstore(key, &passphrase, options.form == AttachForm::Referrer)
        }
        (None, Some(key), _) => Signer::openpgp(key, options.gpg.as_deref(), passphrase()?),
        (None, None, Some(fingerprint)) => Ok(Signer::Gpg {
            fingerprint: fingerprint.clone(),
            passphrase_file: options.passphrase_file.clone(),
        }),
        _ => Err(Failure::usage("sign: no key is named; --key, --pgp-key or --gpg names one")),
    }
}

/// The name of an image for its signatures. Places without names have none.
pub async fn name_of(places: &Arc<Places>, reference: &Reference) -> Result<String, Failure> {
    let parsed = places.parse(reference, false).await?;
    let text = match reference.scheme.as_str() {
        "docker" => {
            let name = format!("{}/{}", parsed.location, parsed.repository);
            match &parsed.reference {
                Some(reference) if reference.contains(':') => format!("{name}@{reference}"),
                Some(reference) => format!("{name}:{reference}"),
                None => format!("{name}:latest"),
            }
        }
        _ => {
            let error =
                Error::new(Kind::Invalid, format!("sign {reference}: it has no name that could be signed"));
            return Err(Failure::Usage(error.help("--identity registry.example.com/app:1.0 gives it one")));
        }
    };
    Name::parse(&text)
        .map(|name| name.to_string())
        .map_err(|wrong| Failure::usage(format!("sign {reference}: {wrong}")))
}

/// What the options of `verify` demand, in the words of a rule's `signed`.
fn demand(options: &VerifyOptions) -> Option<Value> {
    let mut table = serde_json::Map::new();
    let mut add = |key: &str, value: Option<Value>| table.extend(value.map(|value| (key.to_owned(), value)));
    let files = |files: &[std::path::PathBuf]| (!files.is_empty()).then(|| json!(files));
    add("key", files(&options.key));
    add("pgp", files(&options.pgp));
    if let Some(ca) = &options.fulcio_ca {
        add("fulcio", Some(json!({ "ca": ca, "issuer": options.issuer, "subject": options.subject })));
    }
    if let Some(ca) = &options.pki_ca {
        add("pki", Some(json!({ "ca": ca, "email": options.email, "hostname": options.hostname })));
    }
    if table.is_empty() {
        return None;
    }
    let mut add = |key: &str, value: Option<Value>| table.extend(value.map(|value| (key.to_owned(), value)));
    add("rekor", files(&options.rekor));
    add("timestamp", files(&options.timestamp));
    add(
        "identity",
        options.identity.as_ref().map(|identity| match identity.as_str() {
            word @ ("exact" | "repository" | "any") => json!(word),
            name => match Name::parse(name) {
                Ok(name) if name.is_name_only() => json!({ "repository": identity }),
                _ => json!({ "reference": identity }),
            },
        }),
    );
    Some(table.into())
}

pub async fn verify_image(options: VerifyOptions) -> Result<u8, Failure> {
    let places = setup::places(&options.access).await?;
    let reference = &options.reference;
    let require: Vec<Demand> = match demand(&options) {
        Some(config) => vec![signed(&config, &setup::working_folder()?).map_err(Failure::Usage)?.into()],
        None => Vec::new(),
    };
    let witnessed = !options.rekor.is_empty() || !options.timestamp.is_empty();
    if require.is_empty() && (options.identity.is_some() || witnessed) {
        return Err(Failure::usage(
            "verify: --identity, --rekor and --timestamp need a key, such as --key or --pgp",
        ));
    }
    if let Err(error) = check_demands(&require).await {
        return Err(Failure::Usage(error.context(format!("verify {reference}"))));
    }
    if require.is_empty() && !is_demanded(&places, reference).await? {
        let (digest, found) = signatures(&places, reference).await?;
        let error = Error::new(Kind::Invalid, format!("verify {reference}: {}", says(&places)));
        let listed = match found.is_empty() {
            true => format!("{} has no signatures", digest.short()),
            false => format!("{} has {}", digest.short(), listed(&found)),
        };
        return Err(Failure::Failed(
            error.help(format!("name a key with --key or --pgp, or write a policy.json; {listed}")),
        ));
    }
    match verify(&places, reference, &require).await {
        Ok(verified) => {
            let digest = verified.digest.map(|digest| digest.to_string()).unwrap_or_default();
            match options.output {
                Output::Json => print_json(&json!({
                    "reference": reference, "digest": digest, "verified": true, "signed_by": verified.by,
                })),
                Output::Text => {
                    say!("{reference} is {digest}");
                    say!("signed by {}", verified.by.join(", and by "));
                }
            }
            Ok(DONE)
        }
        Err(error) if error.kind == Kind::Refused => {
            let found = match signatures(&places, reference).await {
                Ok((_, found)) => found,
                Err(_) => return Err(error.into()),
            };
            let help = match found.is_empty() {
                true => "it has no signatures".to_owned(),
                false => format!("it has {}", listed(&found)),
            };
            if options.output == Output::Json {
                let found: Vec<Value> = found.iter().map(one).collect();
                print_json(&json!({
                    "reference": reference, "verified": false, "error": error.text, "signatures": found,
                }));
            }
            Err(Failure::Failed(error.help(help)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Why nothing is demanded of an image.
fn says(places: &Places) -> String {
    match &places.trust().policy {
        Some((_, path)) => format!("{} demands no signature of it, and no key is named", path.display()),
        None => "no key is named, and there is no policy.json".into(),
    }
}

fn one(found: &FoundSignature) -> Value {
    let format = match found.signature.format() {
        Some(Format::Simple) => "simple-signing",
        Some(Format::Sigstore) => "sigstore",
        Some(Format::Bundle) => "sigstore-bundle",
        None => "unknown",
    };
    json!({ "format": format, "says": found.shown })
}

fn listed(found: &[FoundSignature]) -> String {
    found.iter().map(|found| found.shown.as_str()).collect::<Vec<_>>().join(", ")
}
