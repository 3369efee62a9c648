//! `dray plugin check`

use super::project::{Built, built};
use crate::{
    DONE, FAILED,
    args::{Output, PluginCheckOptions},
    failure::Failure,
    output::{print_pretty, say},
};
use dray_author::Project;
use dray_core::policy::Grant;
use dray_engine::Kind;
use dray_runtime::{
    Info, WishKind,
    trial::{Findings, Trial},
};
use serde_json::json;

pub async fn run(options: PluginCheckOptions) -> Result<u8, Failure> {
    let Built { name, wasm, project, .. } = built(&options.plugin)?;
    let trial = Trial::new(&name, &wasm, Grant::default(), serde_json::Map::new())?;
    let info = trial.info().await?;
    let findings = trial.findings().await?;
    let mut wrong = wrong(info, project.as_ref(), &findings);
    // An empty table may lack keys; what matters is whether the schema can be read at all.
    if let Err(error) = trial.check_config(&json!({})).await
        && error.kind == Kind::Plugin
    {
        wrong.push(format!("dray cannot {error}"));
    }
    match options.output {
        Output::Json => print_pretty(&json!({
            "name": info.name, "version": info.version, "summary": info.summary, "schemes": info.schemes,
            "findings": findings, "config_schema": info.schema, "wrong": wrong,
        })),
        Output::Text => tell(info, &findings, &wrong),
    }
    Ok(if wrong.is_empty() { DONE } else { FAILED })
}

/// What an operator would stumble over.
fn wrong(info: &Info, project: Option<&Project>, findings: &Findings) -> Vec<String> {
    let mut wrong = Vec::new();
    if info.summary.is_empty() {
        wrong.push("it has no summary, which `dray plugin list` shows".to_owned());
    }
    if info.schema.get("type").and_then(|kind| kind.as_str()) != Some("object") {
        wrong.push("its schema is not of an object, as each configuration is".to_owned());
    }
    if findings.kind == dray_runtime::Role::Transport && info.schemes.is_empty() {
        wrong.push("it is a transport, and serves no scheme".to_owned());
    }
    if let Some(project) = project {
        let kind = findings.kind.name();
        if project.kind.name() != kind {
            wrong.push(format!("its kind is {kind}, and {} in {}", project.kind, Project::FILE));
        }
        for (key, said, file) in
            [("name", &info.name, &project.name), ("version", &info.version, &project.version)]
        {
            if said != file {
                wrong.push(format!("its {key} is {said}, and {file} in {}", Project::FILE));
            }
        }
    }
    wrong
}

fn tell(info: &Info, findings: &Findings, wrong: &[String]) {
    let line = |what: &str, value: &str| say!("{what:<11} {value}");
    line("name", &format!("{} {}", info.name, info.version));
    line("summary", &info.summary);
    line("kind", &format!("{} (contract {})", findings.kind.name(), findings.contract));
    if !info.schemes.is_empty() {
        line("schemes", &info.schemes.join(", "));
    }
    line("size", &format!("{} bytes", findings.size));
    line("offers", &findings.exports.join(", "));
    line("imports", &findings.imports.join(", "));
    if findings.wishes.is_empty() {
        line("asks for", "nothing beyond what each plugin of its kind may use");
    }
    for wish in &findings.wishes {
        let kind = match wish.kind {
            WishKind::Host => "host",
            WishKind::Secret => "secret",
            WishKind::Files => "files",
        };
        line("asks for", &format!("{kind} {}: {}", wish.name, wish.why));
    }
    let keys = info.schema.get("properties").and_then(|keys| keys.as_object());
    let keys: Vec<&str> = keys.into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    line("keys", if keys.is_empty() { "none".to_owned() } else { keys.join(", ") }.as_str());
    line("compiled in", &format!("{} ms (once: dray keeps what it compiled)", findings.compile_ms));
    line("first call", &format!("{} ms", findings.call_ms));
    match wrong {
        [] => say!("this dray loads it; `dray plugin test` says whether it does its work"),
        _ => wrong.iter().for_each(|one| say!("wrong: {one}")),
    }
}
