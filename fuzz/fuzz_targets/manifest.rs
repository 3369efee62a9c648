//! Manifests: what is read can be written in the other format, and is read again.
#![no_main]

use dray_core::{Children, Descriptor, Digest, Format, Manifest, convert_image, convert_index, new_image};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(manifest) = Manifest::parse("", bytes.to_vec(), None) else { return };
    for format in [Format::Oci, Format::Docker] {
        let converted = match &manifest.children {
            Children::Index(children) => convert_index(&manifest, format, children),
            Children::Image { layers, .. } => convert_image(&manifest, format, layers),
            Children::Schema1(old) => {
                let config = old.config(&old.layers);
                let mut named = Descriptor::new("", Digest::of(&config), config.len() as u64);
                named.data = Some(config);
                let layers: Vec<Descriptor> =
                    old.layers.iter().map(|digest| Descriptor::new("l", digest.clone(), 1)).collect();
                new_image(&named, format, &layers)
            }
        };
        if let Ok(converted) = converted {
            let (before, after) = (&manifest.children, &converted.children);
            let count = |children: &Children| match children {
                Children::Index(children) => children.len(),
                Children::Image { layers, .. } => layers.len(),
                Children::Schema1(old) => old.layers.len(),
            };
            assert_eq!(count(before), count(after));
        }
    }
});
