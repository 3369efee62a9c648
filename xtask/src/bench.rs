//! `cargo xtask bench`: whole syncs between two registries on this machine, with dray and with every other tool that is
//! installed. Speed is only measured here, and no test asserts it.

use crate::workload::{REPOSITORIES, Registry, TAGS, dray, filled, folder, name, policy};
use anyhow::{Context, Result, ensure};
use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

/// How often each operation is measured. The median is reported.
const RUNS: usize = 3;

/// The result of one tool in one operation.
struct Row {
    tool: String,
    operation: &'static str,
    /// In seconds.
    wall: f64,
    /// Processor time in seconds, including that of child processes.
    cpu: f64,
    /// Number of requests at the source and at the destination.
    requests: (usize, usize),
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// The command with which a tool syncs all of one registry to another.
fn command(tool: &str, folder: &Path, source: &str, destination: &str) -> Result<Command> {
    let each = |line: &dyn Fn(&str) -> String| {
        (0..REPOSITORIES).map(|number| line(&name(number))).collect::<Vec<_>>().join("\n")
    };
    let written = |file: &str, text: String| {
        let path = folder.join(file);
        fs::write(&path, text).map(|()| path)
    };
    Ok(match tool {
        "skopeo" => {
            let images = each(&|name| format!("    {name}: []"));
            let yaml =
                written("skopeo.yml", format!("{source}:\n  tls-verify: false\n  images:\n{images}\n"))?;
            let mut command = Command::new("skopeo");
            command.args(["sync", "--all", "--src", "yaml", "--dest", "docker", "--dest-tls-verify=false"]);
            // skopeo keeps only the last component of a name.
            command.arg(yaml).arg(format!("{destination}/team"));
            command
        }
        "regsync" => {
            let syncs = each(&|name| {
                format!("  - source: {source}/{name}\n    target: {destination}/{name}\n    type: repository")
            });
            let creds = format!(
                "creds:\n  - registry: {source}\n    tls: disabled\n  - registry: {destination}\n    tls: disabled"
            );
            let yaml = written(
                "regsync.yml",
                format!("version: 1\n{creds}\ndefaults:\n  parallel: 4\nsync:\n{syncs}\n"),
            )?;
            let mut command = Command::new("regsync");
            command.arg("once").arg("-c").arg(yaml);
            command
        }
        "crane" => {
            let lines = each(&|name| {
                format!("crane copy --insecure --all-tags {source}/{name} {destination}/{name}")
            });
            let mut command = Command::new("sh");
            command.arg(written("crane.sh", lines)?);
            command
        }
        "regctl" => {
            let lines = each(&|name| {
                let tags = (0..TAGS).map(|tag| format!("regctl --host reg={source},tls=disabled --host reg={destination},tls=disabled image copy {source}/{name}:v{tag} {destination}/{name}:v{tag}"));
                tags.collect::<Vec<_>>().join("\n")
            });
            let mut command = Command::new("sh");
            command.arg(written("regctl.sh", lines)?);
            command
        }
        _ => {
            let mut command = Command::new(dray());
            command.arg("sync").arg(policy(folder, source, destination, "")?);
            command
        }
    })
}

/// Processor time of all child processes that have ended (proc(5), `cutime` and `cstime`), in seconds.
fn children() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields
        .get(13..15)
        .context("read /proc/self/stat")?
        .iter()
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    // Every Linux that dray knows counts 100 ticks a second.
    Ok(ticks as f64 / 100.0)
}

fn measure(tool: &str, folder: &Path, source: &Registry) -> Result<[Row; 2]> {
    let state = folder.join("state");
    for kept in [state.clone(), folder.join("destination")] {
        if kept.exists() {
            fs::remove_dir_all(kept)?;
        }
    }
    let destination = Registry::start(folder, "destination")?;
    let once = |operation| {
        let before = (source.requests()?, destination.requests()?, children()?);
        let mut command = command(tool, folder, &source.address, &destination.address)?;
        command.env("XDG_STATE_HOME", &state).stdout(Stdio::null()).stderr(Stdio::null());
        let begun = Instant::now();
        let status = command.status().with_context(|| format!("run {tool}"))?;
        let wall = begun.elapsed().as_secs_f64();
        let cpu = children()? - before.2;
        ensure!(status.success(), "{tool} failed");
        let requests = (source.requests()? - before.0, destination.requests()? - before.1);
        Ok(Row { tool: tool.into(), operation, wall, cpu, requests })
    };
    Ok([once("cold")?, once("no-op")?])
}

/// The bandwidth limit of [`capped`], in bytes a second.
const CAP: f64 = 3e6;

/// Measures how well a bandwidth limit is kept, over some ten seconds.
fn capped(folder: &Path, source: &Registry) -> Result<String> {
    let (state, root) = (folder.join("capped-state"), "capped");
    let destination = Registry::start(folder, root)?;
    let table = format!("bandwidth = \"{CAP}B/s\"");
    let policy = policy(folder, &source.address, &destination.address, &table)?;
    let mut command = Command::new(dray());
    command.args(["sync", "--output", "json"]).arg(policy).env("XDG_STATE_HOME", state);
    let output = command.stderr(Stdio::null()).output().context("run dray")?;
    ensure!(output.status.success(), "a sync with a cap failed");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let number =
        |key: &str| report["summary"][key].as_f64().with_context(|| format!("the report has no {key}"));
    let (bytes, seconds) = (number("bytes")?, number("seconds")?);
    let off = (bytes / seconds / CAP - 1.0) * 100.0;
    Ok(format!(
        "\nA cap of {:.1} MB/s let {:.1} MB through in {seconds:.1} s: {off:+.1}%.\n",
        CAP / 1e6,
        bytes / 1e6
    ))
}

fn median(mut rows: Vec<Row>) -> Option<Row> {
    rows.sort_by(|a, b| a.wall.total_cmp(&b.wall));
    let middle = rows.len() / 2;
    rows.into_iter().nth(middle)
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "# A sync on one machine\n\n{REPOSITORIES} repositories of {TAGS} tags between two docker-registries on loopback; medians of {RUNS} runs.\n`cargo xtask bench` writes this file.\n\n| Operation | Tool | Wall s | CPU s | Requests source / destination |\n|---|---|---|---|---|\n"
    );
    for Row { tool, operation, wall, cpu, requests } in rows {
        // Writing to a string never fails.
        let _ = writeln!(
            text,
            "| {operation} | {tool} | {wall:.2} | {cpu:.2} | {} / {} |",
            requests.0, requests.1
        );
    }
    text
}

/// A bar chart of the wall times.
fn chart(rows: &[Row]) -> String {
    let longest = rows.iter().map(|row| row.wall).fold(0.1, f64::max);
    let height = 28 * rows.len() + 16;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"720\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (at, row) in rows.iter().enumerate() {
        let (y, width) = (8 + 28 * at, (row.wall / longest * 480.0).max(1.0));
        let colour = if row.tool == "dray" { "#1f6feb" } else { "#9aa4b2" };
        let _ = writeln!(
            svg,
            "<text x=\"8\" y=\"{}\">{}, {}</text><rect x=\"150\" y=\"{y}\" width=\"{width:.0}\" height=\"20\" fill=\"{colour}\"/><text x=\"{:.0}\" y=\"{}\">{:.2} s</text>",
            y + 15,
            row.tool,
            row.operation,
            158.0 + width,
            y + 15,
            row.wall
        );
    }
    svg + "</svg>\n"
}

/// Measures the hot inner parts by themselves.
fn inner() -> Result<String> {
    let mut command = Command::new("cargo");
    command.args(["bench", "--locked", "--package", "dray-runtime", "--bench", "inner"]);
    let output =
        command.current_dir(crate::top()).stderr(Stdio::inherit()).output().context("run cargo bench")?;
    ensure!(output.status.success(), "the benchmarks of the inner parts failed");
    let table = String::from_utf8(output.stdout)?;
    let lines: Vec<&str> =
        table.lines().map(str::trim_end).skip_while(|line| !line.starts_with("inner")).collect();
    println!("{table}");
    Ok(format!(
        "# The inner parts\n\nTimes of one call, by divan. `cargo xtask bench` writes this file.\n\n```text\n{}\n```\n",
        lines.join("\n").trim_end()
    ))
}

/// Measures everything, and writes `docs/performance/`.
pub fn run() -> Result<()> {
    crate::tests::step("", "cargo", &["build", "--release", "--locked"])?;
    let folder = folder("bench")?;
    let done = measured(&folder).and_then(|rows| Ok((rows, crate::scale::run(&folder)?)));
    fs::remove_dir_all(&folder)?;
    let ((rows, cap), scale) = done?;
    let out = crate::top().join("docs/performance");
    fs::write(out.join("results.md"), table(&rows) + &cap)?;
    fs::write(out.join("results.svg"), chart(&rows))?;
    fs::write(out.join("scale.md"), &scale)?;
    fs::write(out.join("inner.md"), inner()?)?;
    println!("{}{cap}\n{scale}", table(&rows));
    Ok(())
}

fn measured(folder: &Path) -> Result<(Vec<Row>, String)> {
    let source = filled(folder, 0)?;
    let tools = ["dray", "skopeo", "regsync", "crane", "regctl"]
        .into_iter()
        .filter(|tool| *tool == "dray" || is_there(tool));
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for tool in tools {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for run in 1..=RUNS {
            println!("{tool}, run {run} of {RUNS}");
            let [one, other] = measure(tool, folder, &source)?;
            first.push(one);
            second.push(other);
        }
        cold.extend(median(first));
        warm.extend(median(second));
    }
    cold.extend(warm);
    Ok((cold, capped(folder, &source)?))
}
