//! `--retry-times` and `--retry-delay`

use super::flags::{given, text};
use crate::failure::Failure;
use clap::{ArgMatches, Command};
use dray_engine::{Error, Kind};
use std::time::Duration;

/// Adds the flags of another attempt.
pub fn flags(command: Command) -> Command {
    command
        .arg(text("retry-times").value_parser(clap::value_parser!(u32)).help("How often to try again"))
        .arg(text("retry-delay").help("Time between two attempts"))
}

/// How often something is tried again, as `--retry-times` and `--retry-delay` say.
#[derive(Clone)]
pub struct Retry {
    pub times: u32,
    /// `None` means 1 s, 2 s, 4 s and so on.
    delay: Option<Duration>,
}

impl Retry {
    pub fn of(matches: &ArgMatches) -> Result<Self, Failure> {
        let delay = given(matches, "retry-delay").filter(|text| !text.is_empty());
        let delay = delay.map(|text| {
            let time = text.parse::<humantime::Duration>();
            time.map_err(|error| Failure::usage(format!("read the time `{text}` of --retry-delay: {error}")))
        });
        let times = matches.get_one::<u32>("retry-times").copied().unwrap_or(0);
        Ok(Retry { times, delay: delay.transpose()?.map(|delay| *delay) })
    }

    /// Tries something until it is done, fails for good, or was tried often enough.
    pub async fn until_done<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut tried = 0;
        loop {
            match attempt().await {
                Err(Failure::Failed(error)) if tried < self.times && may_pass(&error) => {
                    let wait = self.delay.unwrap_or(Duration::from_secs(1 << tried.min(6)));
                    tracing::warn!("trying again in {wait:?}: {error}");
                    tokio::time::sleep(wait).await;
                    tried += 1;
                }
                done => return done,
            }
        }
    }
}

/// Whether another attempt may succeed.
fn may_pass(error: &Error) -> bool {
    !matches!(
        error.kind,
        Kind::NotFound
            | Kind::Unauthorized
            | Kind::Denied
            | Kind::Refused
            | Kind::Unsupported
            | Kind::Invalid
            | Kind::Cancelled
    )
}
