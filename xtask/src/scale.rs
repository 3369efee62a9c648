//! How the time and the memory of a plan grow with the number of tags. `dray plan` runs between two registries that
//! make up their answers.

use anyhow::{Context, Result, ensure};
use dray_core::Digest;
use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Tags in each repository.
const TAGS: usize = 100;
/// Number of repositories in each plan.
const PLANS: [usize; 3] = [100, 1000, 10_000];

/// How a registry lists tags.
#[derive(Clone, Copy, PartialEq)]
enum Lists {
    /// Their names, as the specification says.
    Names,
    /// With the map of Google's registries, which tells what they name.
    Digests,
}

/// Starts a registry with this many repositories, and returns its address. It has a thread for each connection, and
/// runs until the process ends.
fn registry(repositories: usize, lists: Lists) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // If the client goes away, the thread ends.
                let _ = serve(&stream, repositories, lists);
            });
        }
    });
    Ok(address)
}

fn serve(stream: &TcpStream, repositories: usize, lists: Lists) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream).lines();
    let mut writer = stream;
    while let Some(request) = lines.next().transpose()? {
        while lines.next().transpose()?.is_some_and(|header| !header.is_empty()) {}
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (headers, body) = answer(path, repositories, lists);
        let body_sent = if method == "HEAD" { "" } else { &body };
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {length}\r\n\r\n{body_sent}");
        writer.write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// The headers and the body of an answer.
fn answer(path: &str, repositories: usize, lists: Lists) -> (String, String) {
    let list = |names: &mut dyn Iterator<Item = String>| {
        names.map(|name| format!("{name:?}")).collect::<Vec<_>>().join(",")
    };
    if path.starts_with("/v2/_catalog") {
        let names = list(&mut (0..repositories).map(|number| format!("team/r{number:05}")));
        return (String::new(), format!("{{\"repositories\":[{names}]}}"));
    }
    if path.contains("/tags/list") {
        let names = list(&mut (0..TAGS).map(|number| format!("t{number}")));
        if lists == Lists::Names {
            return (String::new(), format!("{{\"name\":\"x\",\"tags\":[{names}]}}"));
        }
        // Both registries give the same digest to the same tag.
        let map = list_of_digests(path);
        return (String::new(), format!("{{\"name\":\"x\",\"tags\":[{names}],\"manifest\":{{{map}}}}}"));
    }
    let digest = Digest::of(path.as_bytes());
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    (format!("Content-Type: {manifest}\r\nDocker-Content-Digest: {digest}\r\n"), " ".repeat(500))
}

/// The map that tells which tags name a manifest, for each of the tags.
fn list_of_digests(path: &str) -> String {
    let entry = |number: usize| {
        let digest = Digest::of(format!("{path} {number}").as_bytes());
        format!(
            "\"{digest}\":{{\"imageSizeBytes\":\"500\",\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\
             \"tag\":[\"t{number}\"],\"timeUploadedMs\":\"1769860800000\"}}"
        )
    };
    (0..TAGS).map(entry).collect::<Vec<_>>().join(",")
}

/// Runs a plan. Returns its duration in seconds and its peak memory in MiB.
fn plan(folder: &Path, repositories: usize, lists: Lists) -> Result<(f64, f64)> {
    let (from, to) = (registry(repositories, lists)?, registry(repositories, lists)?);
    let policy = folder.join("scale.toml");
    let plain = |host: &str| format!("[registry.\"{host}\"]\ntls = \"off\"\n");
    let rule =
        format!("[[rule]]\nname = \"all\"\nfrom = \"docker://{from}/**\"\nto = \"docker://{to}/{{path}}\"\n");
    fs::write(&policy, format!("version = 1\n{}{}{rule}", plain(&from), plain(&to)))?;
    let log = folder.join("scale.log");
    let mut command = Command::new(crate::top().join("target/release/dray"));
    command.arg("plan").arg(policy).env("XDG_STATE_HOME", folder.join("planning"));
    command.stdout(fs::File::create(&log)?).stderr(Stdio::inherit());
    let begun = Instant::now();
    let mut child = command.spawn().context("run dray")?;
    let mut most = 0.0f64;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // When the process has ended, the file or the line is missing.
        if let Ok(status) = fs::read_to_string(format!("/proc/{}/status", child.id())) {
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let peak = peak.and_then(|peak| peak.split_whitespace().next()?.parse::<f64>().ok());
            most = most.max(peak.unwrap_or(0.0) / 1024.0);
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let wall = begun.elapsed().as_secs_f64();
    let told = fs::read_to_string(&log)?;
    let expected = format!("{} unchanged", repositories * TAGS);
    ensure!(status.success() && told.contains(&expected), "dray plan did not end with {expected}: {told}");
    Ok((wall, most))
}

/// Runs all plans, and returns the tables.
pub fn run(folder: &Path) -> Result<String> {
    let mut text = format!(
        "# Plans of many tags\n\nOf repositories with {TAGS} tags each, all unchanged, asked of two registries on this machine that make up their\nanswers. `cargo xtask bench` writes this file.\n"
    );
    for (lists, about) in [
        (Lists::Names, "The registries list names, and know no `If-None-Match`: each tag is asked for."),
        (
            Lists::Digests,
            "The registries list tags with their digests, in the map of Google's: each repository is asked for.",
        ),
    ] {
        let _ = write!(text, "\n{about}\n\n| Tags | Wall s | Tags a second | RSS MiB |\n|---|---|---|---|\n");
        for repositories in PLANS {
            let tags = repositories * TAGS;
            println!("a plan of {tags} tags");
            let (wall, most) = plan(folder, repositories, lists)?;
            // Writing to a string never fails.
            let _ = writeln!(text, "| {tags} | {wall:.1} | {:.0} | {most:.0} |", tags as f64 / wall);
        }
    }
    Ok(text)
}
