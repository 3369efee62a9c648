//! Reads from an answer how many more requests a registry allows: Docker Hub's `ratelimit-remaining: 76;w=21600`, the
//! `RateLimit-*` fields of draft-ietf-httpapi-ratelimit-headers-06, the field `RateLimit: "hour";r=76;t=3600` of its
//! later versions (since -08), and GitHub's `x-ratelimit-*`.

use reqwest::header::HeaderMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The number of requests that a registry still allows.
#[derive(Debug, PartialEq)]
pub(super) struct Allowance {
    /// Requests that are left.
    pub remaining: u64,
    /// The total number of requests that are allowed, if the registry tells it.
    limit: Option<u64>,
    /// The time until more requests are allowed.
    pub reset: Option<Duration>,
}

/// A larger number of seconds is a point in time and not a duration, because nobody waits for 30 years.
const EPOCH: u64 = 1_000_000_000;

impl Allowance {
    /// Reads the headers of an answer. `None` means that they tell no limit.
    pub fn read(headers: &HeaderMap, now: SystemTime) -> Option<Self> {
        let number = |name: &str| {
            let field =
                |name: &str| headers.get(name)?.to_str().ok()?.split([';', ',']).next()?.trim().parse().ok();
            field(&format!("ratelimit-{name}")).or_else(|| field(&format!("x-ratelimit-{name}")))
        };
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if let Some(allowance) = Allowance::tightest(headers) {
            return Some(allowance);
        }
        let reset =
            number("reset").map(|reset: u64| if reset > EPOCH { reset.saturating_sub(since) } else { reset });
        Some(Allowance {
            remaining: number("remaining")?,
            limit: number("limit"),
            reset: reset.map(Duration::from_secs),
        })
    }

    /// Reads the `RateLimit` field. If it has several policies, the one with the fewest requests left counts.
    fn tightest(headers: &HeaderMap) -> Option<Self> {
        let members = |name: &str| headers.get(name)?.to_str().ok().map(|text| text.split(','));
        let number = |member: &str, key: &str| {
            let mut parameters =
                member.split(';').skip(1).filter_map(|parameter| parameter.trim().split_once('='));
            parameters.find(|(name, _)| *name == key)?.1.parse::<u64>().ok()
        };
        let name = |member: &str| member.split(';').next().unwrap_or_default().trim().to_owned();
        let left = members("ratelimit")?.filter_map(|member| Some((number(member, "r")?, member)));
        let (remaining, member) = left.min_by_key(|(remaining, _)| *remaining)?;
        let policy =
            members("ratelimit-policy").and_then(|mut all| all.find(|other| name(other) == name(member)));
        Some(Allowance {
            remaining,
            limit: policy.and_then(|policy| number(policy, "q")),
            reset: number(member, "t").map(Duration::from_secs),
        })
    }

    /// Whether to warn the user: at most a tenth of the requests is left.
    pub fn is_low(&self) -> bool {
        self.limit.is_some_and(|limit| self.remaining <= limit / 10) || self.remaining == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&'static str, &str)]) -> Option<Allowance> {
        let headers = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Allowance::read(&HeaderMap::from_iter(headers), UNIX_EPOCH + Duration::from_secs(1_700_000_000))
    }

    #[test]
    fn registries_say_it_in_their_own_ways() {
        let hub = read(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "10;w=21600")]).unwrap();
        assert_eq!((hub.remaining, hub.reset, hub.is_low()), (10, None, true));
        let draft =
            read(&[("ratelimit-limit", "100"), ("ratelimit-remaining", "76"), ("ratelimit-reset", "7")]);
        let draft = draft.unwrap();
        assert_eq!((draft.remaining, draft.reset, draft.is_low()), (76, Some(Duration::from_secs(7)), false));
        let github = read(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1700000060")]).unwrap();
        assert_eq!((github.reset, github.is_low()), (Some(Duration::from_secs(60)), true));
        let later = [
            ("ratelimit-policy", r#""hour";q=100;w=3600, "burst";q=30;w=1"#),
            ("ratelimit", r#""hour";r=76;t=1800, "burst";r=2;t=1"#),
        ];
        let later = read(&later).unwrap();
        assert_eq!((later.remaining, later.limit, later.reset), (2, Some(30), Some(Duration::from_secs(1))));
        assert_eq!(read(&[("ratelimit", "nothing of the kind")]), None);
        assert_eq!(read(&[("ratelimit-limit", "100")]), None);
        assert_eq!(read(&[("ratelimit-remaining", "many")]), None);
    }
}
