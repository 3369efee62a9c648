//! What `--help` shows: examples first, then a command's own options, then those of every command.

use crate::args::Arguments;
use clap::{Command, CommandFactory};

/// Examples of each command, by its path.
const EXAMPLES: &[(&str, &str)] = &[
    (
        "sync",
        "dray sync                          what dray.toml says\n\
         dray sync team.toml --rule base    one rule of another policy\n\
         dray sync --locked                 exactly what dray.lock names\n\
         dray sync --shard 0/4              one of four parts, for four machines",
    ),
    (
        "plan",
        "dray plan                          what a sync would change\n\
         dray plan --explain --sizes        every tag, with its reason and size\n\
         dray plan --out plan.jsonl         save it for `dray apply`",
    ),
    ("apply", "dray apply plan.jsonl"),
    (
        "check",
        "dray check\n\
         dray check team.toml --resolved    the policy as dray understands it",
    ),
    (
        "lock",
        "dray lock                          write dray.lock\n\
         dray lock --check                  say what has moved since; exit with 3 if something has",
    ),
    (
        "copy",
        "dray copy docker://docker.io/library/nginx:1.27 oci:nginx:1.27\n\
         dray copy --all docker://a.example/app:1 docker://b.example/app:1\n\
         dray copy --platform arm64 docker://docker.io/library/redis:7 docker-daemon:redis:7",
    ),
    ("tag", "dray tag docker://registry.example.com/app:1.4.2 stable"),
    (
        "retain",
        "dray retain                        what would be deleted\n\
         dray retain --apply --limit 12     delete it, at most twelve tags of a repository",
    ),
    (
        "delete",
        "dray delete docker://registry.example.com/app:1.0-rc1\n\
         dray delete --all-tags docker://registry.example.com/app:1.0-rc1",
    ),
    (
        "login",
        "dray login registry.example.com\n\
         dray login -u ci --password-stdin registry.example.com < password",
    ),
    (
        "sign",
        "dray sign --key cosign.key docker://registry.example.com/app:1.0\n\
         dray sign --gpg 0123456789ABCDEF0123456789ABCDEF01234567 docker://registry.example.com/app:1.0",
    ),
    (
        "verify",
        "dray verify --key cosign.pub docker://registry.example.com/app:1.0\n\
         dray verify docker://registry.example.com/app:1.0      what policy.json demands",
    ),
    ("logout", "dray logout registry.example.com"),
    ("digest", "dray digest manifest.json"),
    (
        "migrate",
        "dray migrate regsync.yml --out dray.toml\n\
         dray migrate sync.yml --to docker://mirror.example.com/hub --check",
    ),
    ("skopeo", "dray skopeo copy --all docker://docker.io/library/nginx:1.27 dir:nginx"),
    (
        "diff",
        "dray diff docker://docker.io/library/nginx docker://mirror.example.com/nginx\n\
         dray diff docker://docker.io/library/nginx:1.27 docker://docker.io/library/nginx:1.28",
    ),
    (
        "ls",
        "dray ls registry.example.com\n\
         dray ls 'docker://registry.example.com/team/**'",
    ),
    (
        "inspect",
        "dray inspect docker://docker.io/library/nginx:1.27\n\
         dray inspect --raw oci:nginx:1.27",
    ),
    ("list-tags", "dray list-tags docker://docker.io/library/nginx"),
    (
        "runs",
        "dray runs --failed --since 7d\n\
         dray runs show 12 --failed",
    ),
    ("cache", "dray cache trim --older-than 30d"),
    ("plugin list", "dray plugin list --policy dray.toml"),
    ("plugin inspect", "dray plugin inspect semver"),
    (
        "plugin new",
        "dray plugin new release-tags\n\
         dray plugin new company-login --kind auth\n\
         dray plugin new release-tags --lang python",
    ),
    (
        "plugin vendor",
        "dray plugin vendor                 in the folder of the project, after dray was updated",
    ),
    (
        "plugin build",
        "dray plugin build                  in the folder of the project\n\
         dray plugin build release-tags --out plugins/release-tags.wasm",
    ),
    (
        "plugin test",
        "dray plugin test                   build the project, and replay its fixtures\n\
         dray plugin test release-tags.wasm --fixtures fixtures",
    ),
    ("plugin check", "dray plugin check release-tags.wasm"),
    ("plugin push", "dray plugin push release-tags docker://registry.example.com/plugins/release-tags:1.0.0"),
    (
        "plugin install",
        "dray plugin install                the plugins of dray.toml, whose digests dray.lock keeps\n\
         dray plugin install oci://registry.example.com/plugins/release-tags:1.0.0 --key acme.pub",
    ),
    (
        "plugin update",
        "dray plugin update --check         exits with 3 if a tag names something else now\n\
         dray plugin update release-tags",
    ),
    (
        "plugin remove",
        "dray plugin remove release-tags\n\
         dray plugin remove oci://registry.example.com/plugins/release-tags:1.0.0",
    ),
    ("plugin keygen", "dray plugin keygen acme            makes acme.key and acme.pub"),
    (
        "plugin sign",
        "dray plugin sign oci://registry.example.com/plugins/release-tags:1.0.0 --key acme.key\n\
         dray plugin sign release-tags.wasm --key acme.key",
    ),
    (
        "plugin verify",
        "dray plugin verify oci://registry.example.com/plugins/release-tags:1.0.0 --key acme.pub",
    ),
    ("registry serve", "dray registry serve --root mirror --addr 127.0.0.1:5000"),
    (
        "registry info",
        "dray registry info quay.io\n\
         dray registry info registry.example.com:5000 --output json",
    ),
    ("completions", "dray completions bash > /etc/bash_completion.d/dray"),
    ("man", "dray man --out /usr/local/share/man/man1"),
    ("schema", "dray schema > dray.schema.json"),
];

const TEMPLATE: &str = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

/// The command line with its help.
pub fn command() -> Command {
    let command = Arguments::command();
    let names: Vec<String> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(&name, |one| dressed(one, &name)))
}

fn dressed(command: Command, path: &str) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    let command = names.into_iter().fold(command, |command, name| {
        let path = format!("{path} {name}");
        command.mut_subcommand(&name, |one| dressed(one, &path))
    });
    let command = command.help_template(TEMPLATE);
    match EXAMPLES.iter().find(|(known, _)| *known == path) {
        Some((_, examples)) => {
            let heading = if examples.contains('\n') { "Examples" } else { "Example" };
            let lines: Vec<String> = examples.lines().map(|line| format!("  {line}")).collect();
            command.before_help(format!("{heading}:\n{}", lines.join("\n")))
        }
        None => command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
        for one in command.get_subcommands().filter(|one| one.get_name() != "help") {
            let path = format!("{path} {}", one.get_name()).trim().to_owned();
            all(one, &path, found);
            if !one.has_subcommands() || path == "runs" || path == "cache" {
                found.push((path, one.clone()));
            }
        }
    }

    #[test]
    fn every_command_begins_with_an_example_that_it_takes() {
        let mut found = Vec::new();
        all(&command(), "", &mut found);
        for (path, mut one) in found {
            if path.starts_with("runs ") || path.starts_with("cache ") {
                continue;
            }
            let help = one.render_long_help().to_string();
            let example = help.find("Example").unwrap_or_else(|| panic!("{path} has no example"));
            assert!(example < help.find("Usage").unwrap(), "{help}");
        }
        for (path, examples) in EXAMPLES {
            for line in examples.lines() {
                // What stands behind two spaces explains it, and a shell takes what is behind `>` and `<`.
                let words = line.split("  ").next().unwrap();
                let words = words.split(" > ").next().unwrap().split(" < ").next().unwrap();
                let words: Vec<String> =
                    words.split(' ').map(|word| word.trim_matches('\'').to_owned()).collect();
                let parsed = command().try_get_matches_from(words);
                assert!(parsed.is_ok(), "{path}: {line}: {}", parsed.unwrap_err());
            }
        }
    }
}
