//! Limits of registries and of rules: requests and images at once, bytes a second, times.

use super::raw::{Table, integer, string};
use super::{Problem, RuleLimits, Spanned};
use std::{str::FromStr, time::Duration};

/// The limits of a rule.
pub(super) fn rule_limits(entry: &mut Table<'_>, problems: &mut Vec<Problem>) -> RuleLimits {
    RuleLimits {
        concurrency: concurrency(entry, "images", problems),
        bandwidth: rate(entry, "bandwidth", 1, problems),
        timeout: timeout(entry, problems),
        retry: retry(entry, problems),
    }
}

/// How many of something may be under way at once.
pub(super) fn concurrency(entry: &mut Table<'_>, what: &str, problems: &mut Vec<Problem>) -> Option<usize> {
    let number = integer(entry.take("concurrency")?, problems)?;
    match number.value {
        1..=1024 => Some(number.value as usize),
        _ => {
            problems.push(Problem::new(format!("concurrency is 1 to 1024 {what}"), number.span));
            None
        }
    }
}

/// Bytes a second, of which there must be so many at least.
pub(super) fn rate(
    entry: &mut Table<'_>,
    key: &'static str,
    least: u64,
    problems: &mut Vec<Problem>,
) -> Option<u64> {
    let text = string(entry.take(key)?, problems)?;
    let size = text.value.strip_suffix("/s").and_then(|size| bytesize::ByteSize::from_str(size.trim()).ok());
    let rate = size.map(|size| size.as_u64()).filter(|rate| *rate >= least);
    if rate.is_none() {
        problems.push(
            Problem::new(format!("`{}` is no {}", text.value, key.trim_start_matches("least-")), text.span)
                .help("write bytes a second: \"200MB/s\", \"10MiB/s\""),
        );
    }
    rate
}

fn timeout(entry: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<Duration> {
    duration(string(entry.take("timeout")?, problems)?, "write \"10m\" or \"1h 30m\"", problems)
}

/// A time that is not zero.
pub(super) fn duration(text: Spanned<String>, help: &str, problems: &mut Vec<Problem>) -> Option<Duration> {
    let time = humantime::parse_duration(&text.value).ok().filter(|time| !time.is_zero());
    if time.is_none() {
        problems.push(Problem::new(format!("`{}` is no duration", text.value), text.span).help(help));
    }
    time
}

fn retry(entry: &mut Table<'_>, problems: &mut Vec<Problem>) -> u32 {
    let Some(number) = entry.take("retry").and_then(|value| integer(value, problems)) else { return 0 };
    match number.value {
        0..=100 => number.value as u32,
        _ => {
            problems.push(Problem::new("retry is 0 to 100 further attempts", number.span));
            0
        }
    }
}
