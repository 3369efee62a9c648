//! Key files: no panic, and no memory that a file may demand.
#![no_main]

use dray_trust::{
    Identity, Image, Opener, PrivateKey, Recipient, Requirement, SecretKey, Signature, Subject, Witnesses,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Deriving a key takes a tenth of a second by design, so encrypted keys are left out.
    if !bytes.windows(9).any(|part| part == b"ENCRYPTED") {
        let _ = PrivateKey::parse(bytes, "x");
    }
    let _ = SecretKey::parse(bytes, None);
    let image = Image::docker("a.example.com/b:1").unwrap();
    let subject = Subject { image: &image, manifest: b"{}", now: 1_800_000_000 };
    let read = |_: &std::path::Path| Ok(bytes.to_vec());
    let key = || vec!["key".into()];
    let witnesses = || Witnesses { rekor: key(), timestamp: key() };
    // A key that needs a passphrase is derived for long by design, too.
    if !bytes.windows(9).any(|part| part == b"ENCRYPTED") && bytes.first() != Some(&0x30) {
        let _ = Opener::parse(bytes, Some("x"));
    }
    let _ = Recipient::parse(bytes);
    let _ = Recipient::parse_certificate(bytes);
    for requirement in [
        Requirement::sigstore_key(key(), witnesses(), Identity::Any),
        Requirement::openpgp(key(), Identity::Any),
        Requirement::pki(key(), key(), (Some("a@b".into()), None), Identity::Any),
        Requirement::fulcio(key(), "i".into(), "s".into(), witnesses(), Identity::Any),
    ] {
        assert!(!requirement.judge(&subject, &[Signature::Simple(bytes.to_vec())], &read).accepted());
    }
});
