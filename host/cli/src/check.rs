//! `dray check`

use crate::{
    DONE,
    args::{CheckOptions, Output},
    failure::{Failure, Mistake},
    output::{counted, print, print_json, say},
    plugin::{Differences, MissingGrant, UnaskedGrant, compared_grants},
    policy::{self, missing_secrets},
};
use dray_core::policy::Policy;
use dray_session::{PolicyTexts, Session};
use serde::Serialize;

/// What `--output json` says.
#[derive(Default, Serialize)]
struct Checked {
    /// Whether the policy can be carried out.
    sound: bool,
    /// Names of its rules, in order. A rule with `images` is one for each of them.
    rules: Vec<String>,
    /// What makes it unsound.
    mistakes: Vec<Mistake>,
    /// What is probably a mistake.
    warnings: Vec<Mistake>,
    /// What its plugins ask for, and are not granted.
    missing_grants: Vec<MissingGrant>,
    /// What its plugins are granted, and do not get because they do not ask for it.
    unasked_grants: Vec<UnaskedGrant>,
}

/// A policy that is sound.
struct Sound {
    name: String,
    texts: PolicyTexts,
    policy: Policy,
    grants: Differences,
}

pub async fn run(options: &CheckOptions) -> Result<u8, Failure> {
    let checked = checked(options).await;
    match (options.output, checked) {
        (Output::Text, checked) => text(checked?, options),
        (Output::Json, Ok(Sound { texts, policy, grants, .. })) => print_json(&Checked {
            sound: true,
            missing_grants: grants.missing,
            unasked_grants: grants.unasked,
            rules: policy.rules.iter().map(|rule| rule.name.value.clone()).collect(),
            warnings: policy.warnings.iter().map(|warning| Mistake::new(&texts, warning)).collect(),
            ..Checked::default()
        }),
        (Output::Json, Err(Failure::Policy { texts, error })) => {
            let mistakes = error.0.iter().map(|mistake| Mistake::new(&texts, mistake)).collect();
            print_json(&Checked { mistakes, ..Checked::default() });
            return Ok(crate::WRONG);
        }
        (Output::Json, Err(failure)) => return Err(failure),
    }
    Ok(DONE)
}

/// Reads a policy and checks all that can be checked without a network.
async fn checked(options: &CheckOptions) -> Result<Sound, Failure> {
    let mut loaded = policy::load(&options.policies)?;
    if options.output == Output::Text {
        loaded.warn();
    }
    let missing = missing_secrets(&loaded, |_| true);
    if !missing.is_empty() {
        return Err(loaded.mistaken(missing));
    }
    let environment = loaded.with_plugins(false).await?;
    match Session::check(loaded.policy.clone(), &loaded.base, environment).await {
        Ok(_) => {
            let grants = compared_grants(&loaded.policy).await?;
            Ok(Sound { name: loaded.name, texts: loaded.texts, policy: loaded.policy, grants })
        }
        Err(error) => Err(loaded.failed(error)),
    }
}

fn text(Sound { name, policy, grants, .. }: Sound, options: &CheckOptions) {
    if options.resolved {
        return print(&policy.to_toml());
    }
    let are = if options.policies.len() > 1 { "are" } else { "is" };
    match (policy.rules.len(), policy.retains.len()) {
        (0, 0) => say!("{name} {are} sound, and without rules"),
        (rules, 0) => say!("{name} {are} sound: {}", counted(rules as u64, "rule")),
        (rules, retains) => {
            say!("{name} {are} sound: {}, {retains} [[retain]]", counted(rules as u64, "rule"));
        }
    }
    for MissingGrant { plugin, wish, add } in grants.missing {
        say!(
            "the plugin {plugin} asks for {}, and is not granted it: {}. To grant it, add",
            wish.name,
            wish.why
        );
        add.lines().for_each(|line| say!("  {line}"));
    }
    for UnaskedGrant { plugin, grant } in grants.unasked {
        say!("the plugin {plugin} does not ask for {grant}, and does not get it: leave it out of its grant");
    }
}
