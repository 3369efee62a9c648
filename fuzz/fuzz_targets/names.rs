//! References and templates: what a template is filled with stays where the template leads.
#![no_main]

use dray_core::{CHOICES, Names, Reference, expand_braces, harmless, matches, misleads, without_secrets};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, &str, &str)| {
    let (template, registry, repository, tag) = input;
    let _ = template.parse::<Reference>();
    if let Ok(texts) = expand_braces(template) {
        assert!(texts.len() <= CHOICES);
    }
    let _ = matches(template, repository);
    assert!(!harmless(repository, 100).chars().any(misleads));
    assert!(without_secrets(repository).len() <= repository.len());
    for placeholder in ["{registry}", "{path}", "{name}", "{tag}"] {
        let names = Names { registry, repository, tag: Some(tag) };
        let Ok(filled) = names.fill(&format!("out/{placeholder}")) else { continue };
        let inside = filled.strip_prefix("out/").expect("the template's own beginning");
        assert!(inside.split('/').all(|part| !matches!(part, "" | "." | "..")), "{filled:?}");
        assert!(!inside.chars().any(misleads), "{filled:?}");
        // Filled again, it stays what it is.
        assert_eq!(names.fill(&filled).as_deref(), Ok(filled.as_str()));
    }
});
