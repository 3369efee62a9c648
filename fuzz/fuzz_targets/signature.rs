//! Signatures: no panic, and none that the fuzzer makes is accepted for a key that it does not have.
#![no_main]

use dray_trust::{
    Attached, Identity, Image, Keyring, Payload, Requirement, SIMPLE_SIGNING, Signature, Subject, Witnesses,
};
use libfuzzer_sys::fuzz_target;
use std::{path::Path, sync::LazyLock};

/// A key pair of sigstore, whose private half nobody has.
static KEY: LazyLock<String> = LazyLock::new(|| dray_trust::generate("").unwrap().1);

fn read(_path: &Path) -> std::io::Result<Vec<u8>> {
    Ok(KEY.clone().into_bytes())
}

fuzz_target!(|bytes: &[u8]| {
    let _ = (Payload::simple(bytes), Payload::cosign(bytes));
    let image = Image::docker("a.example.com/b:1").unwrap();
    let subject = Subject { image: &image, manifest: b"{}", now: 1_800_000_000 };
    let annotations = |text: &str| {
        let names = [
            "dev.cosignproject.cosign/signature",
            "dev.sigstore.cosign/certificate",
            "dev.sigstore.cosign/chain",
            "dev.sigstore.cosign/bundle",
            "dev.sigstore.cosign/rfc3161timestamp",
        ];
        names.iter().map(|name| ((*name).to_owned(), text.to_owned())).collect()
    };
    let text = String::from_utf8_lossy(bytes).into_owned();
    let attached = Attached {
        media_type: SIMPLE_SIGNING.into(),
        payload: bytes.to_vec(),
        annotations: annotations(&text),
    };
    let mut all = vec![
        Signature::Bundle(bytes.to_vec()),
        Signature::Simple(bytes.to_vec()),
        Signature::Sigstore(attached),
    ];
    if let Ok(signature) = Signature::from_file(bytes) {
        if let Some(file) = signature.to_file() {
            assert_eq!(Signature::from_file(&file), Ok(signature.clone()));
        }
        all.push(signature);
    }
    let key = || vec!["key".into()];
    for requirement in [
        Requirement::sigstore_key(key(), Witnesses::default(), Identity::Any),
        Requirement::sigstore_key(key(), Witnesses { rekor: key(), timestamp: Vec::new() }, Identity::Any),
        Requirement::openpgp(key(), Identity::Any),
    ] {
        assert!(!requirement.judge(&subject, &all, &read).accepted());
    }
    if let Ok(keyring) = Keyring::parse([bytes]) {
        let _ = keyring.fingerprints();
        assert!(keyring.check(bytes, 1_800_000_000).is_err());
    }
});
