//! Wants images that are old enough, so that somebody else notices a bad one first. What counts is when the image was pushed,
//! if the registry tells it; what the image says of its own creation can be made up.

use dray_plugin_verifier::{Error, Evidence, Subject, Verdict, Verify, dray::plugin::clock};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    least: String,
}

/// What dray knows of the image, in milliseconds since 1970.
#[derive(Default, Deserialize)]
struct Facts {
    created: Option<u64>,
    pushed: Option<u64>,
}

struct MinAge;

fn least(config: &Config) -> Result<u64, Error> {
    let least = humantime::parse_duration(&config.least);
    let least = least.map_err(|error| Error::key("least", format!("{error}; write \"24h\" or \"7d\"")))?;
    Ok(least.as_millis() as u64)
}

/// Judges by the time now.
fn judged(now: u64, facts: &Facts, config: &Config) -> Result<Verdict, Error> {
    let (what, time) = match (facts.pushed, facts.created) {
        (Some(pushed), _) => ("pushed", pushed),
        (None, Some(created)) => ("created", created),
        (None, None) => {
            return Ok(Verdict::Refused(vec!["nobody says when it was pushed or created".into()]));
        }
    };
    if time > now {
        return Ok(Verdict::Refused(vec![format!("it says that it was {what} in the future")]));
    }
    let minutes = (now - time) / 60_000;
    let age = match minutes {
        0..120 => format!("{minutes} minutes"),
        120..2880 => format!("{} hours", minutes / 60),
        _ => format!("{} days", minutes / 1440),
    };
    Ok(match now - time >= least(config)? {
        true => Verdict::Accepted(format!("its age ({what} {age} ago)")),
        false => {
            Verdict::Refused(vec![format!("it was {what} {age} ago, which is less than {}", config.least)])
        }
    })
}

impl Verify for MinAge {
    type Config = Config;
    const NAME: &str = "min-age";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Wants images that were pushed long enough ago";
    const CONFIG_SCHEMA: &str = include_str!("schema.json");

    fn wants(config: &Config) -> Result<Vec<String>, Error> {
        least(config)?;
        Ok(vec!["dray.facts".into()])
    }

    fn verify(_subject: &Subject, evidence: &[Evidence], config: &Config) -> Result<Verdict, Error> {
        let facts = evidence.iter().find(|evidence| evidence.kind == "dray.facts");
        let facts: Facts =
            facts.and_then(|facts| serde_json::from_slice(&facts.content).ok()).unwrap_or_default();
        judged(clock::now(), &facts, config)
    }
}

dray_plugin_verifier::export!(MinAge with_types_in dray_plugin_verifier);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_counts_more_than_what_an_image_says() {
        let config = Config { least: "24h".into() };
        let hours = |hours: u64| 1_000_000_000_000 - hours * 3_600_000;
        for (pushed, created, accepted) in [
            (Some(25), None, true),
            (Some(3), Some(999), false),
            (None, Some(25), true),
            (None, Some(23), false),
            (None, None, false),
        ] {
            let facts = Facts { pushed: pushed.map(hours), created: created.map(hours) };
            let verdict = judged(hours(0), &facts, &config).unwrap();
            assert_eq!(matches!(verdict, Verdict::Accepted(_)), accepted, "{pushed:?} {created:?}");
        }
        let future = Facts { pushed: None, created: Some(hours(0) + 1) };
        assert!(matches!(judged(hours(0), &future, &config), Ok(Verdict::Refused(_))));
        let wrong = MinAge::wants(&Config { least: "long".into() });
        assert!(matches!(wrong, Err(Error::Invalid(text)) if text.starts_with("least: ")));
    }
}
