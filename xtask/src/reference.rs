//! `docs/plugins/reference.md`, made of the comments of the contract.

use anyhow::{Context, Result, ensure};
use std::{fs, path::PathBuf};

fn page() -> PathBuf {
    crate::top().join("docs/plugins/reference.md")
}

/// Writes the page.
pub fn write() -> Result<()> {
    let path = page();
    fs::create_dir_all(path.parent().context("docs/plugins")?)?;
    fs::write(&path, made()?)?;
    println!("{}", path.display());
    Ok(())
}

/// Checks that the page is what the contract says now.
pub fn check() -> Result<()> {
    let there = fs::read_to_string(page()).unwrap_or_default();
    ensure!(there == made()?, "docs/plugins/reference.md is stale: run `cargo xtask reference`");
    Ok(())
}

fn made() -> Result<String> {
    let path = crate::top().join("wit/plugin.wit");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(page_of(&text))
}

/// The page of a contract: a section for each interface, and in it one for each of its items, with the comments as text. The file is
/// written as `wasm-tools component wit` would: an interface begins and ends at the margin, and its items two columns further in.
fn page_of(text: &str) -> String {
    let mut page = String::from(
        "# The contract of plugins\n\n<!-- `cargo xtask reference` writes this page from the comments of wit/plugin.wit. -->\n\n",
    );
    let (mut comment, mut item) = (Vec::<String>::new(), Vec::<&str>::new());
    let told = |comment: &mut Vec<String>| {
        let text = std::mem::take(comment).join("\n");
        if text.is_empty() { text } else { format!("{text}\n\n") }
    };
    for line in text.lines() {
        let bare = line.trim_start();
        if let Some(text) = bare.strip_prefix("///") {
            // Comments of fields stay with their item.
            match item.is_empty() {
                true => comment.push(text.strip_prefix(' ').unwrap_or(text).to_owned()),
                false => item.push(line),
            }
        } else if let Some(name) = line.strip_prefix("interface ").and_then(|rest| rest.strip_suffix(" {")) {
            page.push_str(&format!("## `{name}`\n\n{}", told(&mut comment)));
        } else if let Some(package) = line.strip_prefix("package ") {
            let version = package.trim_end_matches(';');
            page.push_str(&format!("`{version}`\n\n{}", told(&mut comment)));
        } else if line.starts_with("world ") {
            if !page.contains("## Worlds") {
                page.push_str("## Worlds\n\n");
            }
            page.push_str(&format!("```wit\n{line}\n```\n\n"));
        } else if bare.is_empty() || bare.starts_with("//") || line == "}" || bare.starts_with("use ") {
            if item.is_empty() {
                comment.clear();
            }
        } else {
            item.push(line);
            let indented = |line: &&str| line.len() - line.trim_start().len();
            let ends = item.len() == 1 && (line.ends_with(';') || line.ends_with('}'))
                || item.len() > 1 && indented(&line) == indented(&item[0]);
            if ends {
                let head = item[0].trim_start();
                let named = head.split([':', '{', '=']).next().unwrap_or(head).trim();
                let name = named.split_whitespace().last().unwrap_or(named);
                let body: Vec<&str> =
                    item.drain(..).map(|line| line.strip_prefix("  ").unwrap_or(line)).collect();
                page.push_str(&format!(
                    "### `{name}`\n\n{}```wit\n{}\n```\n\n",
                    told(&mut comment),
                    body.join("\n")
                ));
            }
        }
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_become_text_and_items_stay_code() {
        let contract = "/// All of it.\npackage a:b@1.0.0;\n\n/// Words.\ninterface words {\n  use other.{x};\n  /// A word.\n  record word {\n    /// Its text.\n    text: string,\n  }\n  /// Says it.\n  say: func(word: word);\n}\n\nworld w { import words; }\n";
        let page = page_of(contract);
        for part in [
            "`a:b@1.0.0`\n\nAll of it.\n",
            "## `words`\n\nWords.\n",
            "### `word`\n\nA word.\n\n```wit\nrecord word {\n  /// Its text.\n  text: string,\n}\n```",
            "### `say`\n\nSays it.\n\n```wit\nsay: func(word: word);\n```",
            "## Worlds\n\n```wit\nworld w { import words; }\n```",
        ] {
            assert!(page.contains(part), "{part}\n---\n{page}");
        }
    }

    #[test]
    fn the_page_is_that_of_the_contract() {
        check().unwrap();
    }
}
