//! `dray plugin test`

use super::{
    fixture::{Difference, Fixture},
    project::{Built, built},
    record::record,
};
use crate::{
    DONE, FAILED,
    args::{Output, PluginTestOptions},
    failure::Failure,
    output::{counted, print_pretty, say, tell},
};
use dray_core::policy::Grant;
use dray_engine::{Error, Kind};
use dray_runtime::trial::{Stage, Surroundings, Trial};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What became of a fixture.
#[derive(Debug, Serialize)]
struct Outcome {
    fixture: PathBuf,
    about: String,
    passed: bool,
    /// The time that the plugin took, in milliseconds.
    ms: f64,
    differences: Vec<Difference>,
    /// Why it could not be replayed.
    error: Option<String>,
    /// What to do about that.
    help: Option<String>,
}

pub async fn run(options: PluginTestOptions) -> Result<u8, Failure> {
    let built = built(&options.plugin)?;
    let folder = options.fixtures.clone().unwrap_or_else(|| built.folder.join("fixtures"));
    if let Some(policy) = &options.record {
        for file in record(&built, policy, &folder).await? {
            tell!("recorded {}", file.display());
        }
    }
    let Built { name, wasm, .. } = built;
    let fixtures = files(&folder)?;
    let mut outcomes = Vec::new();
    for path in fixtures {
        let outcome = replay(&name, &wasm, path).await?;
        if options.output == Output::Text {
            tell(&outcome);
        }
        outcomes.push(outcome);
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
    match options.output {
        Output::Json => print_pretty(&json!({ "plugin": name, "failed": failed, "fixtures": outcomes })),
        Output::Text => {
            let passed = (outcomes.len() - failed) as u64;
            say!("{name}: {} passed, {failed} failed", counted(passed, "fixture"));
        }
    }
    Ok(if failed > 0 { FAILED } else { DONE })
}

/// The largest fixture in bytes.
const LARGEST: u64 = 16 << 20;

/// The fixtures of a folder, sorted by name.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(folder).map_err(|error| {
        let text = format!("read the fixtures in {}: {error}", folder.display());
        let help = "write one, such as fixtures/first.toml, or name their folder: --fixtures DIR";
        Failure::Usage(Error::new(Kind::Invalid, text).help(help))
    })?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    let is_fixture = |path: &PathBuf| {
        // Whatever else has that name, such as a pipe, has no end.
        let regular = std::fs::metadata(path).is_ok_and(|about| about.is_file() && about.len() <= LARGEST);
        regular && path.extension().is_some_and(|extension| extension == "toml")
    };
    files.retain(is_fixture);
    files.sort();
    match files.is_empty() {
        true => Err(Failure::usage(format!("find fixtures: {} holds no .toml file", folder.display()))),
        false => Ok(files),
    }
}

async fn replay(name: &str, wasm: &[u8], path: PathBuf) -> Result<Outcome, Failure> {
    let mut outcome = Outcome {
        fixture: path.clone(),
        about: String::new(),
        passed: false,
        ms: 0.0,
        differences: Vec::new(),
        error: None,
        help: None,
    };
    let text = std::fs::read_to_string(&path);
    let fixture = text.map_err(|error| error.to_string()).and_then(|text| Fixture::parse(&text));
    let fixture = match fixture {
        Ok(fixture) => fixture,
        Err(why) => return Ok(Outcome { error: Some(why), ..outcome }),
    };
    outcome.about.clone_from(&fixture.about);
    match played(name, wasm, &fixture, &mut outcome).await {
        Ok(()) => outcome.passed = outcome.differences.is_empty(),
        Err(error) => {
            outcome.error = Some(format!("failed to {error}"));
            outcome.help = error.help;
        }
    }
    Ok(outcome)
}

/// Makes the calls of a fixture, each of which sees what the earlier ones left.
async fn played(name: &str, wasm: &[u8], fixture: &Fixture, outcome: &mut Outcome) -> Result<(), Error> {
    let grant = Grant { hosts: fixture.hosts(), ..Grant::default() };
    let trial = Trial::new(name, wasm, grant, fixture.settings.clone())?;
    let folder =
        tempfile::tempdir().map_err(|error| Error::new(Kind::Io, format!("make a folder: {error}")))?;
    Stage::write_files(folder.path(), &fixture.files)?;
    let stage = trial.stage(Surroundings {
        location: fixture.location.clone(),
        read_only: fixture.read_only,
        secrets: fixture.secrets.clone(),
        requests: fixture.requests.clone(),
        images: fixture.images.clone(),
        destination: fixture.destination.clone(),
        now: fixture.now,
        folder: folder.path().to_owned(),
    });
    let mut last = Value::Null;
    for step in fixture.steps() {
        let (answer, took) = stage
            .call(&step.function, &step.arguments(&last).map_err(|why| Error::new(Kind::Invalid, why))?)
            .await?;
        outcome.ms += took.as_secs_f64() * 1000.0;
        outcome.differences.extend(step.judge(&answer));
        last = answer.get("ok").cloned().unwrap_or(answer);
    }
    let unsent = stage.unsent().into_iter().map(|request| Difference {
        function: "http.send".into(),
        at: "the requests".into(),
        expected: request.into(),
        found: Value::Null,
    });
    outcome.differences.extend(unsent);
    let wrong = stage.mistakes().into_iter().map(|mistake| Difference {
        function: "http.send".into(),
        at: "the requests".into(),
        expected: "those of the fixture".into(),
        found: mistake.into(),
    });
    outcome.differences.extend(wrong);
    Ok(())
}

fn tell(outcome: &Outcome) {
    let Outcome { fixture, about, ms, differences, error, help, .. } = outcome;
    let name = fixture.file_name().unwrap_or_default().to_string_lossy();
    let about = if about.is_empty() { String::new() } else { format!(": {about}") };
    let verdict = if outcome.passed { "ok  " } else { "FAIL" };
    say!("{verdict} {name}{about} ({ms:.1} ms)");
    if let Some(error) = error {
        say!("     {error}");
    }
    if let Some(help) = help {
        say!("     help: {help}");
    }
    for Difference { function, at, expected, found } in differences {
        say!("     {function}, {at}");
        say!("       - expected {expected}");
        say!("       + found    {found}");
    }
}
