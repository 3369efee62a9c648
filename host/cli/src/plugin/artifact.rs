//! `dray plugin push`

use super::{
    Watch,
    project::{Built, built},
};
use crate::{
    DONE,
    args::{Output, PluginPushOptions},
    failure::Failure,
    output::{print_json, say},
    progress::Screen,
    setup,
};
use dray_core::policy::{ArtifactSource, Grant, is_built_in, key_text};
use dray_runtime::trial::Trial;
use dray_session::artifact::{About, Packed, push as write};
use serde_json::json;

/// Shows how a policy names an artifact.
pub fn in_a_policy(name: &str, source: &str) {
    let name = if is_built_in(name) { format!("my-{name}") } else { name.to_owned() };
    say!("in a policy:");
    say!("  [plugin.{}]", key_text(&name));
    say!("  source = \"{source}\"");
}

pub async fn push(options: PluginPushOptions, screen: Screen) -> Result<u8, Failure> {
    // What cannot be named later is not written.
    if options.destination.scheme == "docker"
        && let Err(why) = format!("oci:{}", options.destination.rest).parse::<ArtifactSource>()
    {
        return Err(Failure::usage(format!("push to {}: {why}", options.destination)));
    }
    let Built { name, wasm, project, .. } = built(&options.plugin)?;
    // What no dray loads is not published.
    let trial = Trial::new(&name, &wasm, Grant::default(), serde_json::Map::new())?;
    let (info, findings) = (trial.info().await?, trial.findings().await?);
    let whole = |names: &[String]| names.iter().map(|name| format!("dray:plugin/{name}")).collect();
    let about = About {
        name: info.name.clone(),
        version: info.version.clone(),
        summary: info.summary.clone(),
        license: project.map(|project| project.license),
        imports: whole(&findings.imports),
        exports: whole(&findings.exports),
    };
    let packed = Packed::new(wasm, &about);
    let places = setup::places(&options.access).await?;
    let watch = Watch::begin(&places, &screen);
    let pushed = write(&places, &packed, &options.destination, watch.progress.clone());
    let digest = match watch.until_stopped(pushed).await? {
        Ok(digest) => digest,
        Err(code) => return Ok(code),
    };
    let destination = &options.destination;
    match options.output {
        Output::Json => print_json(&json!({
            "name": about.name, "version": about.version, "destination": destination, "digest": digest,
        })),
        Output::Text => {
            say!("{} {} is {digest} at {destination}", about.name, about.version);
            if destination.scheme == "docker" {
                in_a_policy(&about.name, &format!("oci:{}", destination.rest));
            }
        }
    }
    Ok(DONE)
}
