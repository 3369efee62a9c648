//! `cargo xtask still`: runs a plan and a sync, and draws what they print as docs/plan.svg, for the README.

use crate::workload::folder;
use anyhow::{Context, Result, ensure};
use std::{fmt::Write as _, fs, path::Path, process::Command};

/// The policy that is shown.
const POLICY: &str = r#"version = 1

[registry.mirror]
storage = "mirror"

[[rule]]
name = "hello"
from = "oci:images"
to = "docker://mirror/samples/hello"
tags = { semver = "1", latest = 2, include = ["nightly"] }
"#;

/// Pixels of a line, and of a column of a monospaced font of 13 pixels.
const LINE: usize = 18;
const COLUMN: f64 = 7.83;

/// Draws the still.
pub fn run() -> Result<()> {
    let folder = folder("still")?;
    let drawn = drawn(&folder);
    fs::remove_dir_all(&folder)?;
    let path = crate::top().join("docs/plan.svg");
    fs::write(&path, drawn?).with_context(|| format!("write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

fn drawn(folder: &Path) -> Result<String> {
    let images = crate::top().join("examples/images");
    let copied = Command::new("cp").arg("-r").arg(images).arg(folder.join("images")).status()?;
    ensure!(copied.success(), "copy the images");
    fs::write(folder.join("dray.toml"), POLICY)?;
    let mut lines = Vec::new();
    // An older image has one of the tags, so that the plan has something to write over.
    dray(folder, &["copy", "--all", "oci:images:1.0.0", "registry-storage:[mirror]samples/hello:nightly"])?;
    for arguments in [&["plan"][..], &["sync"]] {
        lines.push(format!("\u{1b}[1m$ dray {}\u{1b}[0m", arguments.join(" ")));
        lines.extend(dray(folder, arguments)?.lines().map(str::to_owned));
        lines.push(String::new());
    }
    lines.pop();
    Ok(svg(&lines))
}

/// Runs dray, and gives what it printed, standard error first.
fn dray(folder: &Path, arguments: &[&str]) -> Result<String> {
    let ran = Command::new(crate::top().join("target/debug/dray"))
        .args(arguments)
        .current_dir(folder)
        .env("XDG_STATE_HOME", folder.join("state"))
        .env("CLICOLOR_FORCE", "1")
        .output()
        .context("run target/debug/dray: build it with `cargo build`")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(ran.status.success(), "dray {arguments:?}: {}", text(&ran.stderr));
    Ok(text(&ran.stderr) + &text(&ran.stdout))
}

/// The colour of a parameter of SGR (ECMA-48, 8.3.117).
fn style(parameter: &str) -> &'static str {
    match parameter {
        "1" => " font-weight=\"bold\"",
        "2" => " fill=\"#8b949e\"",
        "31" => " fill=\"#f85149\"",
        "32" => " fill=\"#3fb950\"",
        "33" => " fill=\"#d29922\"",
        _ => "",
    }
}

/// Lines with SGR sequences as an image.
fn svg(lines: &[String]) -> String {
    let plain = |line: &str| {
        line.split('\u{1b}')
            .enumerate()
            .map(|(at, part)| match at {
                0 => part.chars().count(),
                _ => part.split_once('m').map_or(0, |(_, rest)| rest.chars().count()),
            })
            .sum::<usize>()
    };
    let columns = lines.iter().map(|line| plain(line)).max().unwrap_or(0);
    let (width, height) = ((columns as f64 * COLUMN) as usize + 32, lines.len() * LINE + 32);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"A plan and a sync of dray in a terminal\">\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#0d1117\"/>\n<g font-family=\"ui-monospace, Menlo, Consolas, monospace\" font-size=\"13\" fill=\"#e6edf3\" xml:space=\"preserve\">\n"
    );
    for (number, line) in lines.iter().enumerate() {
        let y = 16 + 14 + number * LINE;
        let _ = write!(out, "<text x=\"16\" y=\"{y}\">");
        for (at, part) in line.split('\u{1b}').enumerate() {
            let (parameter, text) = match at {
                0 => ("", part),
                _ => part.trim_start_matches('[').split_once('m').unwrap_or(("", part)),
            };
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            if !text.is_empty() {
                let _ = write!(out, "<tspan{}>{text}</tspan>", style(parameter));
            }
        }
        out.push_str("</text>\n");
    }
    out.push_str("</g>\n</svg>\n");
    out
}
