//! policy.json, registries.conf and YAML of other tools: no panic, and a policy that is read gives every image
//! requirements.
#![no_main]

use dray_core::{RegistriesConf, Yaml};
use dray_trust::{Image, Policy, Subject};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let image = Image::docker("a.example.com:5000/b/c:1").unwrap();
    if let Ok(policy) = Policy::parse(bytes) {
        let requirements = policy.requirements(&image);
        assert!(!requirements.is_empty());
        let subject = Subject { image: &image, manifest: b"{}", now: 1_800_000_000 };
        for requirement in requirements {
            let none = requirement.judge(&subject, &[], &|_| Err(std::io::ErrorKind::NotFound.into()));
            let kinds = requirement.kinds();
            // What needs a signature is never fulfilled without one.
            assert!(!none.accepted() || !(kinds.simple || kinds.sigstore));
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Yaml::documents(text);
        let _ = dray_trust::Name::parse(text).map(|name| {
            let again = dray_trust::Name::parse(&name.to_string()).unwrap();
            assert_eq!(again, name);
            assert!(!name.path.split('/').any(|part| part == ".."));
        });
        let mut conf = RegistriesConf::default();
        if conf.add(text).is_ok() {
            let _ =
                (conf.blocked("a.b.example/c"), conf.sources("a.b.example/c"), conf.insecure("a.b.example"));
        }
    }
});
